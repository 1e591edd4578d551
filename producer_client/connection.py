"""What every verb of the client stands on: the queue, what the client has seen, how a request is sent."""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self, TypeVar

from producer_client import contract
from producer_client.addresses import checked_redis
from producer_client.errors import BadRequest, TryAgain, quoted
from producer_client.forks import tell_children
from producer_client.handle import Handle, read_reply
from producer_client.line import Line
from producer_client.reach import reaching
from producer_client.replies import Replies
from producer_client.rows import WriteRows
from producer_client.session import Session
from producer_client.signing import Keys, read_keys
from producer_client.words import DEFAULT_KEY_PREFIX, KEY_PREFIXES, Code, Queue, TaskName

T = TypeVar("T")

#: Seconds that a verb waits for its reply unless told otherwise: a cold worker loads its model within it.
DEFAULT_TIMEOUT_S = 60.0


class Connection:
    """One per process is enough; threads may share it, and so may a process and the children that it forks.
    Constructing it connects to nothing; raises BadRequest for what is no address of a Redis.

    broker_url: the workers' Redis, for example redis://host:6379/5. result_backend: where replies lie; the
    broker unless given. timeout_s: the default wait of every verb; a Redis that is silent is given up within it, too.
    session: of another client, whose writes are to be seen too. key_prefix: what all keys in Redis begin with; the
    workers' SIGHTLINE_KEY_PREFIX. signing_keys_file: keys as the workers have them (SIGHTLINE_SIGNING_KEYS_FILE):
    requests are signed, and replies that are not are refused. write_rows: for `durable=True`, is given NewPhotos by
    path or URL, writes a row of each that has none to the photos table (path or URL, and coordinates), commits, and
    returns the ids of the rows in the same order.
    """

    def __init__(
        self,
        broker_url: str,
        *,
        result_backend: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        session: int = 0,
        key_prefix: str = DEFAULT_KEY_PREFIX,
        signing_keys_file: str | os.PathLike[str] | None = None,
        write_rows: WriteRows | None = None,
    ) -> None:
        if not isinstance(key_prefix, str) or not re.fullmatch(KEY_PREFIXES, key_prefix):
            raise BadRequest(
                Code.BAD_REQUEST,
                f"key_prefix {quoted(key_prefix)}: use letters, digits and _ . : - and end it with one of the latter",
            )
        if write_rows is not None and not callable(write_rows):
            raise BadRequest(Code.BAD_REQUEST, "write_rows must be callable: it is given NewPhotos, and returns ids")
        self.timeout_s = timeout_s
        self._write_rows = write_rows
        self._session = Session(session)
        self._broker_url = _checked("broker_url", broker_url)
        self._replies_url = (
            _checked("result_backend", result_backend, replies=True) if result_backend else self._broker_url
        )
        self._key_prefix = key_prefix
        self._keys_file = signing_keys_file
        self._keys = None if signing_keys_file is None else _keys(signing_keys_file)
        self._opened: Line | None = None
        self._closing: weakref.finalize[..., Connection] | None = None
        self._opening = threading.Lock()
        tell_children(self)

    @property
    def session(self) -> int:
        """The newest seq that a reply has named: what questions see at least. For another process it is plain JSON."""
        return self._session.seq

    def join(self, session: int) -> None:
        """See what another client has seen too. From your own processes alone: after a seq that nobody has written
        the next question is `stale`, as after a restore of the database."""
        self._session.join(session)

    def read_reply(self, wire: Any, read: Callable[[Any], T]) -> T:
        """As `producer_client.read_reply`; this client's questions then see what the reply speaks of."""
        try:
            return read_reply(wire, self._session.hearing(read))
        except TryAgain as exc:
            if exc.seq is not None:
                self._session.begin_anew(exc.seq)
            raise

    def _seen(self, min_seq: int | None) -> dict[str, Any]:
        """The fields of a question that say what its answer must have seen. min_seq: what the caller says of it."""
        if min_seq is not None:
            return {"min_seq": min_seq}
        return {"min_seq": self._session.seq, "heard": self._session.heard}

    def close(self) -> None:
        """Give the connections back. What is asked of the client or of its handles later opens new ones."""
        with self._opening:
            closing, self._closing, self._opened = self._closing, None, None
        if closing is not None:
            closing()

    def after_fork(self) -> None:
        """A child opens connections of its own when it needs them; those of its parent stay open there."""
        if self._closing is not None:
            self._closing.detach()
        self._closing, self._opened, self._opening = None, None, threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        # For processes that are not forked: addresses and what was seen, not the connections.
        how: dict[str, Any] = {
            "result_backend": self._replies_url,
            "timeout_s": self.timeout_s,
            "session": self.session,
            "key_prefix": self._key_prefix,
            "signing_keys_file": self._keys_file,
            "write_rows": self._write_rows,
        }
        return partial(type(self), **how), (self._broker_url,)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _send(
        self,
        name: TaskName,
        queue: Queue,
        request: contract.Request,
        read: Callable[[Any], T],
        expires_s: float | None = None,
    ) -> Handle[T]:
        """expires_s: nobody waits after that, so a worker that gets to it later drops it."""
        wire = request.to_wire()
        with reaching(self._broker_url):
            task_id = self._line().send(name.value, queue.value, wire, expires_s)
        return self._handle(task_id, read)

    def _handle(self, task_id: str, read: Callable[[Any], T]) -> Handle[T]:
        return Handle(task_id, self._replies, partial(self.read_reply, read=read), self.timeout_s)

    @contextmanager
    def _replies(self) -> Iterator[Replies]:
        with reaching(self._replies_url):
            yield self._line().replies

    def _line(self) -> Line:
        with self._opening:
            if self._opened is None:
                self._opened = Line(
                    self._broker_url, self._replies_url, self._key_prefix, self._keys, patience_s=self.timeout_s
                )
                # Its parts hold each other: left to the collector, sockets may go before those who would close them.
                self._closing = weakref.finalize(self, self._opened.close)
                self._closing.atexit = False  # then the system closes them, and threads may be in the middle of it
            return self._opened


def _keys(path: str | os.PathLike[str]) -> Keys:
    try:
        return read_keys(path)
    except ValueError as exc:
        raise BadRequest(Code.BAD_REQUEST, f"signing_keys_file: {exc}") from None


def _checked(argument: str, url: object, *, replies: bool = False) -> str:
    try:
        return checked_redis(url, replies=replies)
    except ValueError as exc:
        raise BadRequest(Code.BAD_REQUEST, f"{argument}: {exc}") from None
