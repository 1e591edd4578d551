"""What may hang is asked by a thread of its own, and waited for only so long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

A = TypeVar("A")


class Asked(Generic[A]):
    """Once at a time: who comes while it is asked shares the answer, and while it hangs nobody asks again, so that one
    thread is all that ever waits. That is none that the process waits for at its end.

    wait_s: from when it was asked.
    """

    def __init__(self, name: str, ask: Callable[[], A], *, wait_s: float) -> None:
        self._name = name
        self._ask = ask
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._asking: Future[A] | None = None
        self._until = 0.0

    def begin(self) -> Callable[[], A]:
        """Returns what waits for the answer. That raises what `ask` has raised, and TimeoutError where it is late."""
        with self._lock:
            if self._asking is None or self._asking.done():
                self._asking, self._until = Future(), time.monotonic() + self._wait_s
                threading.Thread(target=_run, args=(self._ask, self._asking), name=self._name, daemon=True).start()
            asking, until = self._asking, self._until

        def answer() -> A:
            try:
                return asking.result(max(0.0, until - time.monotonic()))
            except TimeoutError as exc:
                raise TimeoutError(str(exc) or f"no answer within {self._wait_s:g} s") from exc

        return answer


def _run(ask: Callable[[], A], asking: Future[A]) -> None:
    try:
        asking.set_result(ask())
    except Exception as exc:  # others' code: of any kind, which raises what it likes; its askers are told  # noqa: BLE001
        asking.set_exception(exc)
