"""Who runs in a data folder: one at a time, what it has started, and the end of what a killed one left behind there.

Knows processes, not what they do.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec

from worker import private
from worker.pulse import born
from worker.words import reason, say

LOCK, NOTE = "up.lock", "up.json"
#: Seconds for a process to end after it was asked to, before it is killed: tasks in hand are ended first.
STOP_TIMEOUT_S = 30.0
#: The same for what a killed `sightline up` left: whoever waits for its work is asked again by the queue.
LEFT_TIMEOUT_S = 10.0


class Started(msgspec.Struct, frozen=True):
    """A process by its number and what no later one of that number has (see `born`). Leader of a group of its own."""

    name: str
    pid: int
    born: str

    @property
    def lives(self) -> bool:
        return born(self.pid) == self.born


class Run(msgspec.Struct, frozen=True):
    """Who holds a folder. since: UTC, to the second. broker: its address without the password. ready: it answers."""

    me: Started
    since: str
    broker: str = ""
    ready: bool = False
    processes: tuple[Started, ...] = ()
    servers: tuple[str, ...] = ()


class RunsAlready(RuntimeError):
    """Another process holds the folder; run is what it has noted of itself, None in its first moment."""

    def __init__(self, folder: Path, run: Run | None) -> None:
        self.run = run
        if run is None:
            words = say("`sightline up` starts or ends in {folder} just now", folder=folder)
        else:
            words = say(
                "`sightline up` runs in {folder} already, since {since} (process {pid}), broker {broker}. It goes on "
                "undisturbed; `sightline down` ends it",
                folder=folder,
                since=run.since,
                pid=run.me.pid,
                broker=run.broker or say("not started yet"),
            )
        super().__init__(words)


class Hold:
    """A data folder for this process alone, from `take` to `release`, or to its end however it comes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: What a killed one that held the folder before had started, and still ran when this one came.
        self.left: list[Started] = []
        self._lock: IO[bytes] | None = None
        self._run: Run | None = None

    def take(self) -> None:
        """Raises RunsAlready, and RuntimeError with a sentence where the folder cannot be used."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = self._open()
        except OSError as exc:
            raise RuntimeError(unusable(self.folder, exc)) from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            lock.close()
            raise RunsAlready(self.folder, noted(self.folder)) from exc
        self._lock = lock
        before = noted(self.folder)
        self.left = [process for process in before.processes if process.lives] if before is not None else []
        # Nothing of it is forgotten, should this one be killed now.
        self.note(processes=self.left)

    def note(
        self,
        *,
        broker: str = "",
        ready: bool = False,
        processes: Sequence[Started] = (),
        servers: Sequence[str] = (),
    ) -> None:
        """Say what runs here, for others, and for the next one should this one be killed."""
        since = self._run.since if self._run is not None else datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        self._run = Run(
            Started("up", os.getpid(), born(os.getpid())), since, broker, ready, tuple(processes), tuple(servers)
        )
        private.replace(self.folder / NOTE, msgspec.json.encode(self._run))

    def release(self) -> None:
        if self._lock is not None:
            with suppress(OSError):
                (self.folder / NOTE).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def _open(self) -> IO[bytes]:
        path = self.folder / LOCK
        with suppress(FileNotFoundError):
            if path.stat().st_uid != os.geteuid():
                # Root could, and would leave files behind that their owner cannot use.
                raise PermissionError(0, say("it is in use by another user"), str(path))
        path.touch(mode=0o600)
        return path.open("r+b")


def who_runs(folder: Path) -> Run | None:
    """Who holds the folder now; None where nobody does. Raises RunsAlready where it has not said yet who it is."""
    try:
        lock = (folder / LOCK).open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise RuntimeError(unusable(folder, exc)) from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            run = noted(folder)
            if run is None or not run.me.lives:
                raise RunsAlready(folder, None) from exc
            return run
    return None


def noted(folder: Path) -> Run | None:
    """What was noted last; None where nothing was, or what is no longer readable."""
    try:
        return msgspec.json.decode((folder / NOTE).read_bytes(), type=Run)
    except (OSError, msgspec.DecodeError):
        return None


def started(name: str, pid: int) -> Started:
    return Started(name, pid, born(pid))


def end(processes: Sequence[Started], *, timeout_s: float, hurry: Callable[[], bool] = lambda: False) -> None:
    """Ask each to end, wait for all, and kill with their groups those that have not, or that there is no time for."""
    for process in processes:
        if process.lives:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while any(process.lives for process in processes) and time.monotonic() < deadline and not hurry():
        time.sleep(0.02)
    for process in processes:
        while process.lives:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.02)


def how_it_ended(code: int) -> str:
    """An exit code of subprocess as people know it: `code 1`, or `SIGKILL`."""
    if code >= 0:
        return say("code {code}", code=code)
    with suppress(ValueError):
        return signal.Signals(-code).name
    return say("signal {number}", number=-code)


def unusable(folder: Path, exc: OSError) -> str:
    """The sentence for a data folder that this user cannot work in, or of what lies in it or is needed for it."""
    folder = folder.absolute()
    path = (
        folder if exc.filename is None or isinstance(exc.filename, int) else Path(os.fsdecode(exc.filename)).absolute()
    )
    if not (path.is_relative_to(folder) or folder.is_relative_to(path)):
        return say("{path} cannot be used: {why}", path=path, why=reason(exc))
    why = reason(exc) if path == folder else f"{path}: {reason(exc)}"
    # Of these the system says something else at each.
    for part in (folder, *folder.parents):
        if os.path.lexists(part) and not os.path.isdir(part):  # noqa: PTH112  # a Path may raise another error
            why = say("{path} is no folder", path=part)
    owner = ""
    with suppress(OSError):
        uid = folder.stat().st_uid
        if uid != os.geteuid():
            with suppress(KeyError):
                owner = pwd.getpwuid(uid).pw_name
            owner = say(" It belongs to {owner}.", owner=owner or uid)
    return say(
        "the data folder {folder} cannot be used: {why}.{owner} Set SIGHTLINE_DATA_DIR to a folder of your own",
        folder=folder,
        why=why,
        owner=owner,
    )
