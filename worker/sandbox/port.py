"""A worker's side of its decoders: as many processes as photos are decoded at a time, each started anew when it ends.

Knows no format of pictures: what is a stranger's is passed on unread, and what comes back is measured before use.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import msgspec
import numpy as np

from producer_client.contract import Code
from worker.core.types import Decoded, Pixels
from worker.errors import Permanent, PhotoRefusal, Transient
from worker.sandbox.confinement import FULL, NONE, allow_cpu
from worker.sandbox.wire import (
    CHANNELS,
    LONGEST,
    Ask,
    Done,
    Failure,
    Limits,
    OutOfMemory,
    Ready,
    Refusal,
    Said,
    put,
    read,
    taken,
)
from worker.settings import Settings

log = logging.getLogger(__name__)

#: Level of a worker that is told to have none.
OFF = "off"
#: What a decoder runs.
PROGRAM = ("-m", "worker.sandbox.server")
#: Seconds of a core for one photo: three times what 100 megapixels of the slowest kind take (decision 0047).
CPU_S = 60
#: Seconds that each decoder has for a photo that takes no CPU time, and until it must be ready.
PATIENCE_S, START_S = 240.0, 60.0
#: A photo whose decoder ends is tried once more: it may have been ended from outside, or by what a photo before left.
TRIES = 2
#: Bytes that decoding may take for each pixel, a quarter more than the hungriest kind takes (0047), and beside them and
#: the file, of which a damaged one is copied.
BYTES_PER_PIXEL, BYTES_BESIDE, COPIES = 40, 128_000_000, 2
#: Of pixels, what stays in the shared memory until the next photo at the most.
KEPT_BYTES = 16_000_000
#: Of the worker's environment, what a decoder needs to find its libraries.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "LANG", "LC_ALL", "SYSTEMROOT")


def sandbox_of(settings: Settings) -> Sandbox | None:
    """The decoders that the settings want, none running yet; None where a worker decodes by itself.

    Raises Permanent where they are required and cannot be had.
    """
    if settings.sandbox == OFF:
        return None
    if not hasattr(os, "memfd_create"):
        if settings.sandbox == "required":
            raise _too_little(NONE)
        log.warning("photos are decoded within this process: decoders of their own need Linux")
        return None
    pixels = int(settings.max_megapixels * 1e6)
    memory = BYTES_PER_PIXEL * pixels + COPIES * settings.max_photo_bytes + BYTES_BESIDE
    limits = Limits(memory, CPU_S, CHANNELS * pixels)
    # Half of the threads that read and decode wait for a file; one more for who is asked meanwhile.
    sandbox = Sandbox(limits, most=settings.decoders // 2 + 1)
    if settings.sandbox == "required" and sandbox.level != FULL:
        sandbox.close()
        raise _too_little(sandbox.level)
    return sandbox


@contextmanager
def decoding(settings: Settings) -> Iterator[Callable[..., Decoded]]:
    """How to decode photos, for as long as a command runs. Raises as `sandbox_of`."""
    sandbox = sandbox_of(settings)
    if sandbox is None:
        from worker.encoder.images import decode

        yield decode
        return
    try:
        yield sandbox.decode
    finally:
        sandbox.close()


def level_of(settings: Settings) -> str:
    """What a decoder reaches on this machine. Starts one; raises as `sandbox_of`, or Transient."""
    sandbox = sandbox_of(settings)
    if sandbox is None:
        return OFF if settings.sandbox == OFF else NONE
    try:
        return sandbox.level
    finally:
        sandbox.close()


def _too_little(level: str) -> Permanent:
    return Permanent(
        Code.UNAVAILABLE,
        f"SIGHTLINE_SANDBOX=required, and this machine confines decoders by {level} alone, not by {FULL}. Landlock "
        "needs Linux 5.13 with it among its security modules, seccomp a container that does not forbid it",
    )


class Sandbox:
    """Shared by all threads of a process. most: decoders at a time; who comes then waits for one."""

    def __init__(
        self,
        limits: Limits,
        *,
        most: int,
        program: Sequence[str] = (),
        patience_s: float = PATIENCE_S,
    ) -> None:
        """program: arguments for Python, PROGRAM unless given."""
        self._limits = limits
        self._program = program or PROGRAM
        self._patience_s = patience_s
        self._places = threading.Semaphore(most)
        # The kernel ends a decoder with the thread that has started it: this one ends after all of them.
        self._starter = ThreadPoolExecutor(1, "decoders")
        #: Guards what is below.
        self._lock = threading.Lock()
        self._idle: list[_Decoder] = []
        self._closed = False
        self._level: str | None = None

    @property
    def level(self) -> str:
        """What confines a decoder, in words. Starts one where none was started yet; raises Transient."""
        if self._level is None:
            with self._places:
                self._give_back(self._take())
        assert self._level is not None
        return self._level

    @property
    def pids(self) -> list[int]:
        """Of the decoders that wait for a photo."""
        with self._lock:
            return [decoder.pid for decoder in self._idle]

    def begin(self) -> None:
        """Have one start, and go on: it is ready when a photo comes. Raises Transient."""
        with self._lock:
            if not self._closed and not self._idle:
                self._idle.append(_Decoder(self._program, self._limits, self._starter))

    def close(self) -> None:
        """End those that are idle, and each of the others when its photo is done."""
        with self._lock:
            self._closed, idle = True, self._idle
            self._idle = []
        for decoder in idle:
            decoder.end()

    def decode(self, content: bytes, *, side: int, max_megapixels: float, longer_side: int = 0) -> Decoded:
        """As worker.encoder.images.decode, and its pixels to the last one.

        Raises PhotoRefusal as it does, with decoder_failed where the photo ends two decoders, and Transient where none
        can be started.
        """
        ask = Ask(len(content), side, max_megapixels, longer_side)
        with self._places:
            for _ in range(TRIES):
                decoder = self._take()
                try:
                    decoded = self._told(decoder.ask(ask, content, self._patience_s), decoder, max_megapixels)
                except DecoderFailed as exc:
                    failed = exc
                    ended = decoder.end()
                    log.warning("a decoder has ended", extra={"why": exc.why, "status": ended})
                    if ended == -signal.SIGXCPU:  # it would take as long again
                        break
                except BaseException:
                    self._give_back(decoder)
                    raise
                else:
                    self._give_back(decoder)
                    return decoded
        raise PhotoRefusal(Code.DECODER_FAILED, failed.why) from failed

    def _told(self, said: Said, decoder: _Decoder, max_megapixels: float) -> Decoded:
        for error, why in said.noted:
            log.info("a photo cannot be decoded", extra={"error": error, "why": why})
        match said.outcome:
            case Refusal(code, message):
                raise PhotoRefusal(code, message)
            case Failure(name, exc):
                what = "decoding"
                raise Permanent(Code.INTERNAL, f"{what} failed on this photo: {name}: {exc}")
            case OutOfMemory():
                megabytes = self._limits.memory_bytes // 1_000_000
                raise DecoderFailed(f"the photo cannot be decoded: it takes more than {megabytes} MB of memory")
            case Done() as done:
                return done.decoded(decoder.pixels(done, max_megapixels))

    def _take(self) -> _Decoder:
        with self._lock:
            if self._closed:
                raise Transient(Code.UNAVAILABLE, "this worker is stopping")
            decoder = self._idle.pop() if self._idle else None
        decoder = decoder or _Decoder(self._program, self._limits, self._starter)
        level = decoder.ready()
        if self._level is None:
            self._level = level
            log.info("photos are decoded by processes of their own", extra={"level": level})
        return decoder

    def _give_back(self, decoder: _Decoder) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(decoder)
                return
        decoder.end()


class DecoderFailed(Exception):
    """A decoder that is of no more use, in a sentence about the photo."""

    @property
    def why(self) -> str:
        return str(self)


class _Decoder:
    """One process, with the socket to it and the memory that is shared with it. For one thread at a time."""

    def __init__(self, program: Sequence[str], limits: Limits, starter: ThreadPoolExecutor) -> None:
        """Raises Transient where it does not start."""
        self._limits = limits
        self._starter = starter
        self._level: str | None = None
        self._memory = os.memfd_create("photo", os.MFD_CLOEXEC)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        passed = (str(theirs.fileno()), str(self._memory), msgspec.json.encode(limits).decode())
        # Not the worker's environment, which holds passwords; its libraries, wherever it has them from.
        env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        env |= {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
        # The last: what glibc reserves for threads that were would be room beyond the limit.
        env |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX"), "1")
        try:
            with theirs:
                self._process = starter.submit(
                    subprocess.Popen,
                    [sys.executable, "-P", *program, *passed],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), self._memory),
                    env=env,
                    cwd="/",
                    start_new_session=True,  # Ctrl-C is the worker's to heed
                ).result()
        except (OSError, RuntimeError) as exc:  # the latter of a thread when the interpreter ends
            self._channel.close()
            os.close(self._memory)
            raise Transient(Code.UNAVAILABLE, f"no decoder can be started: {exc}") from exc
        # Also of one that nobody ends: when it is let go, or the worker's interpreter ends.
        self._end = weakref.finalize(self, _end, self._process, self._channel, self._memory)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> str:
        """Wait until it takes photos. Returns what confines it; raises Transient where it has ended instead."""
        if self._level is None:
            try:
                self._level = msgspec.json.decode(self._heard(START_S), type=Ready).level
            except (DecoderFailed, ValueError) as exc:
                status = self.end()
                raise Transient(
                    Code.UNAVAILABLE,
                    f"a decoder has ended before its first photo ({status}); the worker's log says why",
                ) from exc
        return self._level

    def ask(self, ask: Ask, content: bytes, patience_s: float) -> Said:
        """Raises DecoderFailed."""
        put(self._memory, content)
        with suppress(OSError):  # it has ended: there is nothing to hear
            allow_cpu(self.pid, self._limits.cpu_s)
            self._channel.send(msgspec.json.encode(ask))
        try:
            return read(self._heard(patience_s))
        except ValueError as exc:
            raise DecoderFailed("the photo cannot be decoded: its decoder says what no decoder says") from exc

    def pixels(self, done: Done, max_megapixels: float) -> Pixels:
        """A copy of what lies in the shared memory: uint8 [height, width, 3]. Raises DecoderFailed where it is not as
        long as was said, or has more pixels than a photo may have."""
        if done.height * done.width > max_megapixels * 1e6 or os.fstat(self._memory).st_size != done.size:
            raise DecoderFailed("the photo cannot be decoded: its decoder gives other pixels than it says")
        pixels = np.empty((done.height, done.width, CHANNELS), np.uint8)
        if not taken(self._memory, pixels.data.cast("B")):
            raise DecoderFailed("the photo cannot be decoded: its decoder takes its pixels back")
        if done.size > KEPT_BYTES:
            os.ftruncate(self._memory, 0)
        return pixels

    def end(self) -> int:
        """Its exit status; of one that a signal has ended, the signal's number below zero."""
        self._end()
        return self._process.wait()

    def _heard(self, patience_s: float) -> bytes:
        self._channel.settimeout(patience_s)
        try:
            answer = self._channel.recv(LONGEST)
        except TimeoutError as exc:
            raise DecoderFailed(f"the photo cannot be decoded: it is not done after {patience_s:g} seconds") from exc
        except OSError:
            answer = b""
        if not answer:
            raise DecoderFailed(self._why())
        return answer

    def _why(self) -> str:
        self._process.kill()
        status = self._process.wait()
        if status == -signal.SIGXCPU:
            return f"the photo cannot be decoded: it takes more than {self._limits.cpu_s} seconds of a core"
        ended = signal.Signals(-status).name if status < 0 else status
        return f"the photo cannot be decoded: it ends its decoder ({ended})"


def _end(process: subprocess.Popen[bytes], channel: socket.socket, memory: int) -> None:
    # In what was forked off the worker this is nobody's child: Popen sends no signal to such.
    process.kill()
    process.wait()
    channel.close()
    os.close(memory)
