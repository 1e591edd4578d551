"""What a sent request is held by until its reply is there, and how a reply is opened. Knows no verb."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from celery.exceptions import TaskRevokedError

from producer_client import contract
from producer_client.errors import Declined, SightlineError, TimedOut, TryAgain
from producer_client.forks import tell_children
from producer_client.replies import Replies, Reply
from producer_client.words import RETRYABLE, Code

T = TypeVar("T")


class Waiters:
    """Threads that wait for what is awaited. asyncio's own are cores + 4, and its caller needs them elsewhere."""

    def __init__(self) -> None:
        self.after_fork()
        tell_children(self)

    def after_fork(self) -> None:
        """A child has none of its parent's threads, though the parent's pool would count on them."""
        self.pool = ThreadPoolExecutor(64, thread_name_prefix="sightline-wait")


_waiters = Waiters()


def read_reply(wire: Any, read: Callable[[Any], T]) -> T:
    """What a Sightline task returned, as the next task of a Celery chain gets it: `read_reply(wire,
    LocateReply.from_wire)`. Raises what Handle.wait raises, but TimedOut.
    """
    if not isinstance(wire, dict) or "ok" not in wire:
        raise SightlineError(Code.INTERNAL, f"the worker answered outside the contract: {wire!r:.200}")
    if not wire["ok"]:
        failure = contract.Failure.from_wire(wire["error"])
        if failure.code in RETRYABLE:
            raise TryAgain(failure.code, failure.message, failure.seq)
        raise Declined(failure.code, failure.message)
    return read(wire["reply"])


class Handle(Generic[T]):
    """A request on its way. It may be waited for again after TimedOut, in any thread and in a forked child; or not at
    all.

    replies: where its reply will be, asked at every look, as a forked child has a place of its own. opened: makes the
    reply of what the task returned, as `read_reply` does.
    """

    def __init__(
        self,
        task_id: str,
        replies: Callable[[], AbstractContextManager[Replies]],
        opened: Callable[[Any], T],
        timeout_s: float,
    ) -> None:
        self.task_id = task_id
        self._replies = replies
        self._opened = opened
        self._timeout_s = timeout_s
        self._reply: Reply | None = None

    def ready(self) -> bool:
        """Whether `wait` would return at once. Raises TryAgain where Redis is away."""
        if self._reply is None:
            with self._replies() as replies:
                self._reply = replies.look(self.task_id)
        return self._reply is not None

    def wait(self, timeout_s: float | None = None) -> T:
        """The reply. Raises BadRequest, PhotoRefused, TryAgain: Unreachable where Redis is away, and TimedOut after
        `timeout_s` seconds, may be waited for again."""
        return self._wait(self._timeout_s if timeout_s is None else timeout_s)

    def wait_rest(self, left_s: float, patience_s: float) -> T:
        """As `wait` for `left_s`, what is left of a patience that was spent on others before it."""
        return self._wait(left_s, patience_s=patience_s)

    def __await__(self) -> Generator[Any, None, T]:
        return self._awaited().__await__()

    async def _awaited(self) -> T:
        # Or the thread, and with it the end of the program, would go on waiting for what its caller has given up.
        left = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                _waiters.pool, lambda: self._wait(self._timeout_s, left.is_set)
            )
        finally:
            left.set()

    def _wait(self, limit_s: float, given_up: Callable[[], bool] = bool, *, patience_s: float | None = None) -> T:
        if self._reply is None:
            with self._replies() as replies:
                self._reply = replies.wait(self.task_id, limit_s, given_up)
        if self._reply is None:
            waited_s = limit_s if patience_s is None else patience_s
            raise TimedOut(
                Code.TIMED_OUT,
                f"no reply within {waited_s:g} s; the request {self.task_id} may still be carried out. "
                "Is a worker running? `sightline doctor` tells.",
            )
        wire = self._reply.value
        if isinstance(wire, TaskRevokedError):
            raise TimedOut(Code.TIMED_OUT, "no worker took the request before its caller's patience ended")
        if isinstance(wire, Exception):
            raise TryAgain(Code.UNAVAILABLE, f"the worker ended in the middle of it: {wire!r:.200}") from wire
        return self._opened(wire)
