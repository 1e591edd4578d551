"""What may hang is asked by a thread of its own, and waited for only so long. Who cannot be asked is said once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
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


class Several(Generic[A]):
    """Asked at the same time, each by its name. said_as: what one is called in the log, `{}` its name. unasked: what
    one raises that cannot be asked; all else is raised."""

    def __init__(
        self,
        several: Mapping[str, Asked[A]],
        log: logging.Logger,
        *,
        said_as: str = "{}",
        unasked: tuple[type[Exception], ...] = (OSError,),
    ) -> None:
        self._several = several
        self._log = log
        self._said_as = said_as
        self._unasked = unasked
        #: Why, by name: those that could not be asked the last time.
        self.away: dict[str, str] = {}

    def answers(self) -> dict[str, A]:
        """Of those that could be asked."""
        begun = {name: asked.begin() for name, asked in self._several.items()}
        found = {}
        for name, answer in begun.items():
            try:
                found[name] = answer()
            except self._unasked as exc:
                self._note_away(name, str(exc) or type(exc).__name__)
            else:
                self._note_back(name)
        return found

    def _note_away(self, name: str, why: str) -> None:
        # Once, and when the reason is another one: a night without Postgres has some thousand scrapes.
        if self.away.get(name) != why:
            self._log.warning("%s cannot be asked", self._said_as.format(name), extra={"why": why})
        self.away[name] = why

    def _note_back(self, name: str) -> None:
        if self.away.pop(name, None) is not None:
            self._log.info("%s is asked again", self._said_as.format(name))


def _run(ask: Callable[[], A], asking: Future[A]) -> None:
    try:
        asking.set_result(ask())
    except Exception as exc:  # others' code: of any kind, which raises what it likes; its askers are told  # noqa: BLE001
        asking.set_exception(exc)
