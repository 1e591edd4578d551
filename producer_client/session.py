"""What a client has seen of the index, so that nothing older answers its questions. Knows no queue and no verb."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from producer_client.contract import LocateReply, SearchReply
from producer_client.errors import BadRequest
from producer_client.forks import tell_children
from producer_client.words import Code

T = TypeVar("T")


class Session:
    """The highest seq that any reply has named, and a word for what was heard of writes. Threads may share it.

    A seq alone would do, but for a database that is restored to an earlier time: it gives its seqs out again, and a
    worker that has not noticed yet takes the seq of a new write for one that it has seen. It has not met the word.
    """

    def __init__(self, seq: int = 0) -> None:
        self.after_fork()
        self._seq = 0
        self._heard: str | None = None
        self.join(seq)
        tell_children(self)

    def after_fork(self) -> None:
        """A child goes on with what its parent has seen; the lock may be one that a thread of the parent holds."""
        self._lock = threading.Lock()

    @property
    def seq(self) -> int:
        return self._seq

    @property
    def heard(self) -> str | None:
        """Another random word after whatever may have been a write; None before the first."""
        return self._heard

    def join(self, seq: int) -> None:
        """See what was seen at this seq too; never less than before. Raises BadRequest for what is no seq."""
        self._rise(seq)
        if seq:
            self._draw()

    def begin_anew(self, seq: int) -> None:
        """The log ends at `seq`: what was seen beyond is lost, and waiting for it in vain."""
        with self._lock:
            self._seq = min(self._seq, seq)

    def hearing(self, read: Callable[[Any], T]) -> Callable[[Any], T]:
        """The same reader of replies, which this session listens to."""

        def heard(reply: Mapping[str, Any]) -> T:
            opened = read(reply)
            # Whatever the verb is: the reply names a seq, or its outcomes do, or nothing has moved.
            for named in (reply, *reply.get("outcomes", ())):
                self._rise(named.get("seq", 0))
            if not isinstance(opened, (SearchReply, LocateReply)):
                self._draw()
            return opened

        return heard

    def _rise(self, seq: int) -> None:
        if not isinstance(seq, int) or isinstance(seq, bool) or not 0 <= seq < 2**63:
            raise BadRequest(Code.BAD_REQUEST, f"session {seq!r} is none: pass on the `session` of another client")
        with self._lock:
            self._seq = max(self._seq, seq)

    def _draw(self) -> None:
        self._heard = os.urandom(8).hex()
