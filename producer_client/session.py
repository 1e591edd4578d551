"""What a client has seen of the index, so that nothing older answers its questions. Knows no queue and no verb."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from producer_client.errors import BadRequest
from producer_client.words import Code

T = TypeVar("T")


class Session:
    """The highest seq that any reply has named. Threads may share it."""

    def __init__(self, seq: int = 0) -> None:
        self._lock = threading.Lock()
        self._seq = 0
        self.join(seq)

    @property
    def seq(self) -> int:
        return self._seq

    def join(self, seq: int) -> None:
        """See what was seen at this seq too; never less than before. Raises BadRequest for what is no seq."""
        if not isinstance(seq, int) or isinstance(seq, bool) or not 0 <= seq < 2**63:
            raise BadRequest(Code.BAD_REQUEST, f"session {seq!r} is none: pass on the `session` of another client")
        with self._lock:
            self._seq = max(self._seq, seq)

    def hearing(self, read: Callable[[Any], T]) -> Callable[[Any], T]:
        """The same reader of replies, which this session listens to."""

        def heard(reply: Mapping[str, Any]) -> T:
            opened = read(reply)
            # Whatever the verb is: the reply names a seq, or its outcomes do, or nothing has moved.
            for named in (reply, *reply.get("outcomes", ())):
                self.join(named.get("seq", 0))
            return opened

        return heard
