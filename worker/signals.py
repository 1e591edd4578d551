"""Signals that end a program in order: raised where it is, held back where it must not be broken off, and counted.

For the main thread of a command, or of who runs a Stack. Knows nothing of what is ended, and imports nothing of weight.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: The exit code of what was interrupted, as shells have it of SIGINT.
INTERRUPTED = 130
#: That of a worker or a beat which has ended without being asked to.
ENDED = 5
#: What asks a program to end. SIGHUP comes when its terminal is closed.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Seconds until an interrupt is raised again that Python could not pass on.
AGAIN_S = 0.05
#: Seconds after an interrupt in which another one is not raised: whoever ends things in order has begun by then.
GRACE_S = 2.0


class _Asked:
    """How often this process was asked to end, and whether it may be broken off now."""

    times = 0
    raised_at = float("-inf")
    holding = 0
    pending = False
    #: Standard output and error, where they were a terminal.
    terminals: tuple[int, ...] = ()


def raise_on_signals(*numbers: signal.Signals) -> None:
    """KeyboardInterrupt on these signals, SIGINT, SIGTERM and SIGHUP unless given, wherever it falls but within `held`.

    One that is raised within a finalizer or a weak reference's callback (an import has many) is printed and forgotten
    by Python, and the process would go on: it is raised again a moment later.
    """
    _Asked.terminals = tuple(number for number in (1, 2) if os.isatty(number))
    for number in numbers or ENDING:
        # SIGINT as well: a process that a script starts in the background inherits it ignored. But `nohup` means it.
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _asked_to_end)
    signal.signal(signal.SIGALRM, lambda *_: _interrupt())
    told = sys.unraisablehook

    def again(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        else:
            told(unraisable)

    sys.unraisablehook = again


def ignore_signals() -> None:
    """From here on this process ends whatever it is asked: no interrupt falls into its last words."""
    for number in (*ENDING, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def held() -> Iterator[None]:
    """What is in here is not broken off: an interrupt is raised when it has ended."""
    _Asked.holding += 1
    try:
        yield
    finally:
        _Asked.holding -= 1
        if _Asked.holding == 0 and _Asked.pending:
            _interrupt()


def times_asked() -> int:
    """How often this process was asked to end by now."""
    return _Asked.times


def hears_ctrl_c() -> bool:
    """Whether this process is what its terminal runs in the foreground; what a service manager or `up -d` runs has no
    terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)


def _asked_to_end(number: int, _: object) -> None:
    _Asked.times += 1
    if number == signal.SIGHUP:
        # The terminal is gone: what is still said goes nowhere, instead of failing.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for terminal in _Asked.terminals:
            os.dup2(nowhere, terminal)
        os.close(nowhere)
    if time.monotonic() - _Asked.raised_at > GRACE_S:
        _interrupt()


def _interrupt() -> None:
    _Asked.pending = _Asked.holding > 0
    if not _Asked.pending:
        _Asked.raised_at = time.monotonic()
        raise KeyboardInterrupt
