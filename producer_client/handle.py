"""What a sent request is held by until its reply is there, and how a reply is opened. Knows no verb."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from celery import Celery
from celery.backends.asynchronous import E_RETRY_LIMIT_EXCEEDED  # type: ignore[attr-defined]  # not in celery-types
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import AsyncResult
from kombu.exceptions import OperationalError

from producer_client import contract
from producer_client.errors import BadRequest, SightlineError, TimedOut, TryAgain
from producer_client.words import RETRYABLE, Code

T = TypeVar("T")

#: Threads that wait for what is awaited. asyncio's own are cores + 4, and its caller needs them for other things.
_waiters = ThreadPoolExecutor(64, thread_name_prefix="sightline-wait")


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
        raise BadRequest(failure.code, failure.message)
    return read(wire["reply"])


class Handle(Generic[T]):
    """A request on its way. It may be waited for again after TimedOut, in any thread.

    opened: makes the reply of what the task returned, as `read_reply` does.
    """

    def __init__(self, result: AsyncResult[Any], opened: Callable[[Any], T], timeout_s: float) -> None:
        self._result = result
        self._opened = opened
        self._timeout_s = timeout_s

    @property
    def task_id(self) -> str:
        return str(self._result.id)

    def ready(self) -> bool:
        """Whether `wait` would return at once. Raises TryAgain where Redis is away."""
        with connection_lost(self._result.app):
            return bool(self._result.ready())

    def wait(self, timeout_s: float | None = None) -> T:
        """The reply. Raises BadRequest, PhotoRefused, TryAgain, or TimedOut after `timeout_s` seconds."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            with connection_lost(self._result.app):
                wire = self._result.get(timeout=limit_s, propagate=False, disable_sync_subtasks=False)
        except ResultTimeout as exc:
            raise TimedOut(
                Code.TIMED_OUT,
                f"no reply within {limit_s:g} s; the request {self.task_id} may still be carried out. "
                "Is a worker running? `sightline doctor` tells.",
            ) from exc
        if isinstance(wire, TaskRevokedError):
            raise TimedOut(Code.TIMED_OUT, "no worker took the request before its caller's patience ended")
        if isinstance(wire, Exception):
            raise TryAgain(Code.UNAVAILABLE, f"the worker ended in the middle of it: {wire!r:.200}") from wire
        return self._opened(wire)

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.get_running_loop().run_in_executor(_waiters, self.wait).__await__()


@contextmanager
def connection_lost(app: Celery) -> Iterator[None]:
    """Turn what kombu, celery and the Redis driver raise for a server that is away into TryAgain."""
    driver_errors: tuple[type[Exception], ...] = getattr(app.backend, "connection_errors", ())
    try:
        yield
    except (OperationalError, *driver_errors) as exc:  # type: ignore[misc]  # a tuple made at run time
        raise TryAgain(Code.UNAVAILABLE, f"Redis cannot be reached: {exc}") from exc
    except RuntimeError as exc:
        # Celery's word for a result store that stayed away (celery.backends.asynchronous).
        if str(exc) != E_RETRY_LIMIT_EXCEEDED:
            raise
        raise TryAgain(Code.UNAVAILABLE, "Redis cannot be reached: no connection for replies") from exc
