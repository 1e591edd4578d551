"""What a process says of itself for as long as it lives: one line in a file, written by the loop that must not stop.

The standard library alone, for a probe has a third of a second. Knows no Redis and no model.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)

#: Below the data folder.
FOLDER = "health"
#: Bytes of the line. It is written over in place, which a full disk allows, at once, and read in one piece.
LINE_BYTES = 1024
#: Seconds between two writes at the least, and between two times that others are told.
EVERY_S, TELL_EVERY_S = 1.0, 5.0


class Told(Protocol):
    """Who is told the line while Redis can be used."""

    def tell(self, line: Mapping[str, Any]) -> None: ...

    def end(self) -> None: ...


class Pulse:
    """Of this process, for the thread of its loop alone. One without a role is written nowhere.

    about: asked at each write for what else is true of it, JSON values by name; quick, and from memory alone.
    also: who else is told.
    """

    def __init__(self, role: str, data_dir: Path, *, stall_s: float) -> None:
        self.about: Callable[[], Mapping[str, Any]] = dict
        self.also: Told | None = None
        self.redis = self.ready = False
        self.role = role
        self._folder = data_dir
        self._path = data_dir / FOLDER / f"{role}-{os.getpid()}" if role else None
        self._said: dict[str, Any] = {"role": role, "pid": os.getpid(), "born": born(os.getpid()), "stall_s": stall_s}
        self._file: int | None = None
        self._written = self._told = float("-inf")
        self._turned: float | None = None
        self._polled: float | None = None
        self._failed = False

    def start(self) -> None:
        """From here on the process is known. Forgets those that were killed."""
        if self._path is None:
            return
        for found in read(self._folder):
            if not found.lives:
                with suppress(OSError):
                    found.path.unlink()
        self._write()

    def turn(self, *, redis: bool) -> None:
        """The loop has come round. redis: whether it can be used, as far as is known."""
        now = time.monotonic()
        stood_still = self._turned is None or now - self._turned > self._said["stall_s"]
        if not redis or stood_still:
            # Counted from when it could.
            self._polled = now
        self.redis, self._turned = redis, now
        before, self.ready = self.ready, not Found(self._folder, self.line, now).lacks
        # Whoever waits for it to be ready is told at once.
        is_news = self.ready != before
        if is_news or self._turned - self._written >= EVERY_S:
            self._write()
        if redis and self.also is not None and (is_news or self._turned - self._told >= TELL_EVERY_S):
            self._told = self._turned
            self.also.tell(self.line)

    def polled(self) -> None:
        """It has asked Redis for work, has work of it in all its hands, or has sent some there."""
        self._polled = time.monotonic()

    def end(self) -> None:
        if self.also is not None:
            self.also.end()
        if self._file is not None and self._path is not None:
            os.close(self._file)
            self._file = None
            with suppress(OSError):
                self._path.unlink()

    @property
    def line(self) -> dict[str, Any]:
        """As it is written."""
        return {
            **self._said,
            "turned": self._turned,
            "polled": self._polled,
            "redis": self.redis,
            **self.about(),
        }

    def _write(self) -> None:
        self._written = time.monotonic()
        if self._path is None:
            return
        line = json.dumps(self.line).encode()
        try:
            if self._file is None:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.pwrite(self._file, line[:LINE_BYTES].ljust(LINE_BYTES), 0)
        except OSError as exc:
            if not self._failed:
                self._failed = True
                log.error("`sightline health` cannot be told", extra={"path": self._path, "why": exc})


@dataclass(frozen=True)
class Found:
    """A process as it has said of itself, and how that reads now. Of one whose line says nothing: said is empty."""

    path: Path
    said: dict[str, Any]
    now: float = field(default_factory=time.monotonic)

    @property
    def lives(self) -> bool:
        """Whether the process that has said it is there at all."""
        return bool(self.said) and born(self.said["pid"]) == self.said["born"]

    def since(self, name: str) -> float | None:
        """Seconds since it turned or polled; None before the first time."""
        at = self.said.get(name)
        return None if at is None else max(0.0, self.now - at)

    @property
    def stalled(self) -> str | None:
        """What has stopped: `loop`, `polls`. None where nothing has, or while it starts."""
        turned, limit_s = self.since("turned"), self.said["stall_s"]
        if turned is None:
            return None
        if turned > limit_s:
            return "loop"
        # While Redis is away there is nothing to poll, and nothing that a new process would do better.
        return "polls" if self.said["redis"] and self.said["turned"] - self.said["polled"] > limit_s else None

    @property
    def lacks(self) -> list[str]:
        """What it waits for before it can take work: `loop`, `polls`, `redis`, `model`, `index`."""
        if self.stalled:
            return [self.stalled]
        if self.since("turned") is None:
            return ["loop"]
        return [name for name in ("redis", "model", "index") if not self.said.get(name, True)]


def read(data_dir: Path) -> list[Found]:
    """All that is said in a data folder, also of processes that were killed."""
    found = []
    for path in sorted((data_dir / FOLDER).glob("*-*")):
        try:
            said = json.loads(path.read_bytes() or b"{}")
        except (OSError, ValueError):
            # One that ends just now.
            continue
        if {"role", "pid", "born", "stall_s"} <= said.keys():
            found.append(Found(path, said))
    return found


def born(pid: int) -> str:
    """The machine's boot and the tick of its clock at which the process began; empty for one that has ended.

    No clock that is set right later changes it, as it does the time that other programs show.
    """
    try:
        # The command, in brackets, may have anything in it.
        state, *facts = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return "" if state in (b"Z", b"X") else f"{boot} {int(facts[18])}"
