"""A Postgres that neither answers nor refuses: who waits for it is cut off, and who comes meanwhile is told at once.

libpq waits for an answer as long as it takes. The system notices by TCP a host that is gone; a server that is stopped,
or that hangs behind a proxy, acknowledges every byte and answers none. So where a statement takes long, a connection of
its own asks whether the server is there at all, and whether it has that statement in hand: one that it has goes on.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from typing import Any

import psycopg2
from psycopg2 import extensions

log = logging.getLogger(__name__)

#: Seconds that a statement takes before the server is asked, and between two questions while it answers them.
LONG_S = 3.0
#: Seconds that a new connection may take.
CONNECT_S = 5
#: Seconds between two looks at who waits.
LOOK_EVERY_S = 0.5
#: A host that is gone is noticed within half a minute, also by who only reads (libpq's names; the system's own defaults
#: are hours).
KEEPALIVES = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds
}


class Silence:
    """Of one server, as one process meets it. how: psycopg2's arguments of a connection to it."""

    def __init__(self, how: dict[str, Any]) -> None:
        self._how = how
        self._numbers = count()
        self._lock = threading.Lock()
        #: Who waits: since when, and on which connection; None who is connecting.
        self._waiting: dict[int, tuple[float, extensions.connection | None]] = {}
        self._since: float | None = None
        self._asked = float("-inf")
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def on(self) -> bool:
        """Whether the server was silent when it was asked last."""
        return self._since is not None

    def connect(self, *args: Any) -> extensions.connection:
        """psycopg2's connection_factory. Raises psycopg2.OperationalError at once while the server is silent."""
        if self.on:
            raise psycopg2.OperationalError("the server does not answer")
        with self.waiting(None):
            made = _Connection(*args)
        made.silence, made.cursor_factory = self, _Cursor
        return made

    @contextmanager
    def waiting(self, connection: extensions.connection | None) -> Iterator[None]:
        """Around whatever waits for the server. It raises psycopg2.OperationalError where the server is silent."""
        number = next(self._numbers)
        with self._lock:
            self._waiting[number] = time.monotonic(), connection
            if self._thread is None:
                self._thread = threading.Thread(target=_watch, args=(weakref.ref(self),), name="silence", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._waiting[number]

    def close(self) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> bool:
        """Ask where somebody waits long, or nothing was answered last time. Returns whether to look again."""
        now = time.monotonic()
        with self._lock:
            late = [number for number, (since, _) in self._waiting.items() if now - since >= LONG_S]
        if self.on or (late and now - self._asked >= LONG_S):
            self._asked = now
            idle = self._ask(late)
            if idle is None:
                self._is_silent()
            else:
                self._is_back()
            self._cut(late, idle)
        return not self._closed.wait(LOOK_EVERY_S)

    def _ask(self, late: list[int]) -> set[int] | None:
        """Those of the backends that are waited for which have nothing in hand. None where nothing is answered in time;
        a server that refuses is there."""
        with self._lock:
            waited_for = [self._waiting[number][1] for number in late if number in self._waiting]
        pids = [connection.info.backend_pid for connection in waited_for if connection is not None]
        question = _Question({**self._how, "connect_timeout": CONNECT_S}, pids)
        question.start()
        hosts = str(self._how.get("host", "")).count(",") + 1
        question.join(hosts * CONNECT_S - 0.5)
        if question.is_alive():
            question.hang_up()
            return None
        return question.idle

    def _is_back(self) -> None:
        since, self._since = self._since, None
        if since is not None:
            log.warning("Postgres answers again", extra={"after_s": round(time.monotonic() - since, 1)})

    def _is_silent(self) -> None:
        if self._since is None:
            self._since = time.monotonic()
            log.error("Postgres does not answer, it is asked until it does", extra={"waiting": len(self._waiting)})

    def _cut(self, late: list[int], idle: set[int] | None) -> None:
        """idle: None for all."""
        with self._lock:
            # Those whose answer has come meanwhile are not there any more.
            for _, connection in (self._waiting[number] for number in late if number in self._waiting):
                if connection is not None and (idle is None or connection.info.backend_pid in idle):
                    _hang_up(connection)


class _Question(threading.Thread):
    """idle: of the backends of these numbers, those that have had nothing in hand for a second, and those that have
    ended: what was sent to them, or what they answered, is lost on the way."""

    def __init__(self, how: dict[str, Any], pids: list[int]) -> None:
        super().__init__(name="ask postgres", daemon=True)
        self.idle: set[int] = set()
        self._how = how
        self._pids = pids
        self._connection: extensions.connection | None = None

    def run(self) -> None:
        with suppress(psycopg2.Error):
            self._connection = psycopg2.connect(**self._how)
            mine = self._connection.info.backend_pid
            with closing(self._connection), self._connection.cursor() as cursor:
                # Without the right to see it, a state is NULL.
                cursor.execute(
                    "SELECT pid FROM pg_stat_activity WHERE pid = ANY(%s) AND NOT coalesce("
                    "state LIKE 'idle%%' AND state_change < clock_timestamp() - interval '1 second', false)",
                    ([mine, *self._pids],),
                )
                busy = {pid for (pid,) in cursor}
            # A pooler in between has numbers of its own, which say nothing of backends.
            if mine in busy:
                self.idle = set(self._pids) - busy

    def hang_up(self) -> None:
        if self._connection is not None:
            _hang_up(self._connection)


class _Connection(extensions.connection):  # type: ignore[misc]  # psycopg2 has no types
    silence: Silence

    def commit(self) -> None:
        with self.silence.waiting(self):
            super().commit()

    def rollback(self) -> None:
        with self.silence.waiting(self):
            super().rollback()


class _Cursor(extensions.cursor):  # type: ignore[misc]  # psycopg2 has no types
    def execute(self, *args: Any, **kwargs: Any) -> None:
        with self._silence().waiting(self.connection):
            super().execute(*args, **kwargs)

    def copy_expert(self, *args: Any, **kwargs: Any) -> None:
        with self._silence().waiting(self.connection):
            super().copy_expert(*args, **kwargs)

    def _silence(self) -> Silence:
        connection: Any = self.connection
        silence: Silence = connection.silence
        return silence


def _watch(of: weakref.ref[Silence]) -> None:
    """Until it is closed, or nobody has it any more."""
    while True:
        silence = of()
        if silence is None or not silence.look():
            return
        del silence


def _hang_up(connection: extensions.connection) -> None:
    """Who waits in libpq finds its socket at its end."""
    with suppress(OSError, psycopg2.Error), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)
