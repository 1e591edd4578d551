"""Waiting for what is to come, in tests and in what they start: on a condition, and never for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

A = TypeVar("A")


def until(holds: Callable[[], A | None], what: str | Callable[[], str], patience_s: float = 90.0) -> A:
    """The first true value. Looks ever more seldom: what is waited for needs the processor too.

    what: to say where it never comes, or what says it then. Raises AssertionError.
    """
    deadline, pause_s = time.monotonic() + patience_s, 0.001
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_s:.0f} s for: {what() if callable(what) else what}")
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, 0.05)
    return found
