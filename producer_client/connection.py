"""What every verb of the client stands on: the queue, what the client has seen, how a request is sent."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Self, TypeVar

from celery.result import AsyncResult

from producer_client import contract
from producer_client.celery_app import RETRY, client_app, close_app
from producer_client.errors import BadRequest, TryAgain
from producer_client.handle import Handle, connection_lost, read_reply
from producer_client.session import Session
from producer_client.words import DEFAULT_KEY_PREFIX, KEY_PREFIXES, Code, Queue, TaskName

T = TypeVar("T")

#: Seconds that a verb waits for its reply unless told otherwise: a cold worker loads its model within it.
DEFAULT_TIMEOUT_S = 60.0


class Connection:
    """One per process is enough; threads may share it. Constructing it connects to nothing.

    broker_url: the workers' Redis, for example redis://host:6379/5. result_backend: where replies lie; the
    broker unless given. timeout_s: the default wait of every verb. session: of another client, whose writes are to be
    seen too. key_prefix: what all keys in Redis begin with; the workers' SIGHTLINE_KEY_PREFIX.
    """

    def __init__(
        self,
        broker_url: str,
        *,
        result_backend: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        session: int = 0,
        key_prefix: str = DEFAULT_KEY_PREFIX,
    ) -> None:
        if not isinstance(key_prefix, str) or not re.fullmatch(KEY_PREFIXES, key_prefix):
            raise BadRequest(
                Code.BAD_REQUEST,
                f"key_prefix {key_prefix!r}: use letters, digits and _ . : - and end it with one of the latter",
            )
        self.timeout_s = timeout_s
        self._session = Session(session)
        self._app = client_app(broker_url, result_backend or broker_url, key_prefix)

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
        """Give the connections back. Handles of this client can no longer be waited for."""
        close_app(self._app)

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
        with connection_lost(self._app):
            result = self._app.send_task(
                name.value,
                args=[request.to_wire()],
                queue=queue.value,
                expires=expires_s,
                retry_policy=RETRY,
            )
        return self._handle(result, read)

    def _handle(self, result: AsyncResult[Any], read: Callable[[Any], T]) -> Handle[T]:
        return Handle(result, partial(self.read_reply, read=read), self.timeout_s)
