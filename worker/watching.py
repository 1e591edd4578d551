"""Starts again what has died in a stack, with a growing pause, and passes on what its logs say above the ordinary."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from worker import signals
from worker.children import ABOVE_ORDINARY, Process, shown
from worker.holding import how_it_ended
from worker.stack import Ended, Stack
from worker.words import in_language, say

#: Seconds until what has died is started again: the first time, and at the most.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
#: Seconds after which what has lived is not held to die at once: its next pause is the first again.
LIVED_S = 300.0
#: Seconds after which what Redis has forgotten goes from its log on disk, too: replies that expired, messages of photos
#: that were purged.
FORGETS_EVERY_S = 3600.0


class Part(Protocol):
    """A process or a server of the stack."""

    @property
    def name(self) -> str: ...

    @property
    def ended(self) -> str | None:
        """How it has ended, for people; None while it runs."""

    def start_again(self) -> None:
        """Raises RuntimeError where that fails; it may be tried again then."""


@dataclass
class Restarts:
    """Of one part: when it began, its next pause, and when it is to be started again, None while it runs."""

    began: float
    pause_s: float = FIRST_PAUSE_S
    due: float | None = None
    longest_pause_s: float = LONGEST_PAUSE_S

    def has_ended(self, now: float) -> float:
        """The seconds to wait now."""
        if now - self.began >= LIVED_S:
            self.pause_s = FIRST_PAUSE_S
        pause_s, self.pause_s = self.pause_s, min(2 * self.pause_s, self.longest_pause_s)
        self.due = now + pause_s
        return pause_s

    def is_started(self, now: float) -> None:
        self.began, self.due = now, None


class Watch:
    """tell: is given a line for people. pointless: exit codes after which a process would only end so again.
    all_lines: whether to pass on every line of the logs. longest_pause_s: for who ends what it watches on purpose."""

    def __init__(
        self,
        stack: Stack,
        tell: Callable[[str], None],
        *,
        pointless: frozenset[int],
        all_lines: bool = False,
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        self._stack = stack
        self._tell = tell
        self._pointless = pointless
        self._all_lines = all_lines
        began = time.monotonic()
        self._restarts: dict[int, Restarts] = defaultdict(lambda: Restarts(began, longest_pause_s=longest_pause_s))
        self._forgets_at = began + FORGETS_EVERY_S

    def look(self) -> None:
        """Once; to be called a few times a second. Raises Ended for a process that ended with a pointless code."""
        self.pass_on()
        for place, part in enumerate(self._parts()):
            # Not by its name: two workers have one.
            restarts, now = self._restarts[place], time.monotonic()
            if restarts.due is None:
                if (how := part.ended) is not None:
                    self._ended(part.name, restarts, how)
            elif now >= restarts.due:
                try:
                    with signals.held():
                        part.start_again()
                except (RuntimeError, OSError) as exc:
                    self._ended(part.name, restarts, in_language(str(exc)))
                else:
                    restarts.is_started(time.monotonic())
        if time.monotonic() >= self._forgets_at:
            self._forgets_at += FORGETS_EVERY_S
            # One that does not answer now is asked in an hour.
            with suppress(OSError):
                self._stack.servers.forget()

    def pass_on(self) -> None:
        """What the logs say since the last time."""
        for process in self._stack.processes:
            for line in process.new_lines():
                if self._all_lines or ABOVE_ORDINARY.match(line):
                    self._tell(f"{process.name}: {shown(line)}")

    def _ended(self, name: str, restarts: Restarts, how: str) -> None:
        pause_s = restarts.has_ended(time.monotonic())
        self._tell(
            say(
                "{name} has ended and starts again in {seconds:g} s: {how}",
                name=name,
                seconds=pause_s,
                how=shown(" ".join(how.split())),
            )
        )

    def _parts(self) -> Iterator[Part]:
        for name in self._stack.servers.names:
            yield _Server(self._stack, name)
        for process in list(self._stack.processes):
            if process.exit_code in self._pointless:
                raise Ended(process)
            yield _Process(self._stack, process)


@dataclass(frozen=True)
class _Process:
    stack: Stack
    process: Process

    @property
    def name(self) -> str:
        return f"`sightline {self.process.name}`"

    @property
    def ended(self) -> str | None:
        code = self.process.exit_code
        if code is None:
            return None
        return " / ".join([how_it_ended(code), *self.process.last_words(2).splitlines()])

    def start_again(self) -> None:
        self.stack.start_again(self.process)


@dataclass(frozen=True)
class _Server:
    stack: Stack
    name: str

    @property
    def ended(self) -> str | None:
        return self.stack.servers.ended(self.name)

    def start_again(self) -> None:
        self.stack.servers.start_again(self.name)
