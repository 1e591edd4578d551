"""An executor that is the thread which asks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from worker.errors import WorkerError

T = TypeVar("T")


class _InThisThread(Executor):
    """Runs what it is given at once. What is no WorkerError goes up from here."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except WorkerError as exc:
            done.set_exception(exc)
        return done


here = _InThisThread()
