"""Postgres and Valkey out of wheels, as real server processes on this machine. For `sightline up`, demo and tests.

The same service code runs against them as against any other Redis and Postgres; only the two URLs differ. No other
user of the machine reads what they keep or reaches them (docs/decisions/0022).
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

from producer_client.contract import Code
from worker.embedded.postgres import Postgres
from worker.embedded.private import close_data_dir
from worker.embedded.valkey import Valkey
from worker.errors import Permanent
from worker.extras import embedded_lacks
from worker.holding import unusable
from worker.private import opened_to_append

POSTGRES, VALKEY = "Postgres", "Valkey"


class EmbeddedServers:
    """Start on entering, stop on leaving. Data stays under `data_dir`, so a second start finds it again.

    Entering raises Permanent where the packages of the servers are not installed, and RuntimeError with a sentence
    where the folder cannot be used, where the servers of the folder run already, or where one does not start.
    port: loopback port of Valkey; 0 gives a free one. with_postgres, with_valkey: or one alone.
    """

    def __init__(self, data_dir: Path, *, port: int = 0, with_postgres: bool = True, with_valkey: bool = True) -> None:
        self._dir = data_dir.absolute()
        self._port = port
        self._with_postgres, self._with_valkey = with_postgres, with_valkey
        self._lock: IO[bytes] | None = None
        self._postgres: Postgres | None = None
        self._valkey: Valkey | None = None
        self.broker_url = ""
        self.database_url = ""

    def __enter__(self) -> Self:
        _see_that_they_are_installed()
        try:
            self._dir = _real(self._dir)
            close_data_dir(self._dir)
            self._lock = _locked(self._dir)
            if self._with_postgres:
                self.start_postgres()
            if self._with_valkey:
                self._valkey = Valkey(self._dir / "valkey")
                self._valkey.start(self._port)
                self.broker_url = self._valkey.url
        except OSError as exc:
            self.stop()
            raise RuntimeError(unusable(self._dir, exc)) from exc
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        try:
            if self._valkey is not None:
                self._valkey.stop()
                self._valkey = None
        finally:
            if self._postgres is not None:
                self._postgres.close()
                self._postgres = None
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    @property
    def names(self) -> list[str]:
        """Of the servers that were started."""
        return list(self._started)

    def ended(self, name: str) -> str | None:
        """How a server has ended by itself, with its last words; None for one that runs, or was stopped."""
        return self._started[name].ended

    def check(self) -> None:
        """Raises RuntimeError naming a server that has ended by itself, with the last words of its log."""
        for name in self.names:
            if (words := self.ended(name)) is not None:
                raise RuntimeError(f"{name} has ended: {words}")

    def start_again(self, name: str) -> None:
        """One that has ended, at the same address. Raises RuntimeError as starting does; it may be tried again then."""
        if name == VALKEY:
            assert self._valkey is not None
            self._valkey.start(self._valkey.port)
        else:
            self.start_postgres()

    def forget(self) -> None:
        """See Valkey.forget. Of one that has ended nothing is asked."""
        if self._valkey is not None and self._valkey.ended is None:
            self._valkey.forget()

    def stop_postgres(self) -> None:
        """Returns when the server has ended. Raises RuntimeError naming one that does not."""
        if self._postgres is not None:
            self._postgres.stop()

    def start_postgres(self) -> None:
        """At the same address again, where it was stopped or has ended. Raises RuntimeError with the last words of a
        server that does not start; it may be started again then."""
        if self._postgres is None:
            self._postgres = Postgres(self._dir / "postgres")
        self._postgres.start()
        self.database_url = self._postgres.url

    @property
    def _started(self) -> dict[str, Postgres | Valkey]:
        servers = {POSTGRES: self._postgres, VALKEY: self._valkey}
        return {name: server for name, server in servers.items() if server is not None}


def end_left(data_dir: Path) -> list[str]:
    """End the servers of this folder that outlived who started them; returns their names, none where none did.

    Raises RuntimeError where who started them lives, and where one does not end, and Permanent as entering does.
    """
    _see_that_they_are_installed()
    folder = data_dir.absolute()
    try:
        folder = _real(folder)
        if not folder.is_dir():
            return []
        with _locked(folder):
            ended = {
                VALKEY: Valkey(folder / "valkey").end_left(),
                POSTGRES: Postgres(folder / "postgres").end_left(),
            }
            return [name for name, was_left in ended.items() if was_left]
    except OSError as exc:
        raise RuntimeError(unusable(folder, exc)) from exc


def is_running(data_dir: Path) -> bool:
    """Whether somebody runs the servers of this folder."""
    if not (data_dir / "servers.lock").exists():
        return False
    try:
        _locked(data_dir).close()
    except RuntimeError:
        return True
    return False


def has_left(data_dir: Path) -> bool:
    """Whether a Postgres of this folder has outlived who started it, as that of an `up` which was killed does."""
    return not is_running(data_dir) and Postgres(data_dir.resolve() / "postgres").is_left


def has_cluster(data_dir: Path) -> bool:
    """Whether the folder has a Postgres, running or not."""
    return Postgres(data_dir / "postgres").is_made


@contextmanager
def new_cluster(data_dir: Path) -> Iterator[str]:
    """The address of an empty Postgres that takes the place of the folder's own where the block ends well.

    Raises RuntimeError where the servers of the folder run, or this one does not start.
    """
    _see_that_they_are_installed()
    folder = data_dir.absolute()
    try:
        folder = _real(folder)
        close_data_dir(folder)
        with _locked(folder), Postgres(folder / "postgres").replaced() as url:
            yield url
    except OSError as exc:
        raise RuntimeError(unusable(folder, exc)) from exc


def _see_that_they_are_installed() -> None:
    if lacking := embedded_lacks():
        raise Permanent(Code.NOT_READY, f"this machine has no servers of its own to start: {lacking}")


def _real(folder: Path) -> Path:
    """Links followed, as servers do: their working folder is compared with it."""
    if not str(folder).isprintable():
        raise RuntimeError(f"{folder}: Postgres takes no folder with such characters in its name")
    return folder.resolve()


def _locked(folder: Path) -> IO[bytes]:
    """Held until it is closed. Raises RuntimeError where another process holds it."""
    lock = opened_to_append(folder / "servers.lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        lock.close()
        raise RuntimeError(f"the servers of {folder} run already: is another `sightline up` running?") from exc
    return lock
