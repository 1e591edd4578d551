"""What is being done, for whoever listens. Knows nobody who does: the composition root joins them. The standard library
alone.

On the way of every photo. While nobody listens, a stage costs 0.4 microseconds and a count 0.3.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context, copy_context
from typing import Any, Literal, Protocol, TypeVar

log = logging.getLogger(__name__)

A = TypeVar("A")

#: Parts of the work, a closed set: names of series and of spans. task: one message, `task` is its name. read: a photo's
#: file. lookup: what Postgres has of a content already. decode: to the model's square. forward: one pass of the model.
#: text: of a text. keypoints: of one picture. store: one transaction. follow: the change log after the watermark.
#: search: the index proposes. candidates: what Postgres has of these. verify: they are compared by keypoints.
#: copy: rows stream out of Postgres. send: the beat sends what is due, `task` to `queue`. rebuild: all of one, and its
#: parts: check: the files are there. embed: what lacks a vector. look: for keypoints, where nobody has. train: on the
#: vectors that are there meanwhile. conflicts: positions that contradict each other. build: a snapshot becomes files.
#: examine: they are asked about known photos. publish: from now on processes take them.
Stage = Literal[
    "task",
    "read",
    "lookup",
    "decode",
    "forward",
    "text",
    "keypoints",
    "store",
    "follow",
    "search",
    "candidates",
    "verify",
    "copy",
    "send",
    "rebuild",
    "check",
    "embed",
    "look",
    "train",
    "conflicts",
    "build",
    "examine",
    "publish",
]
#: What is counted, and what is measured. Their labels are of closed sets, too.
Counted = Literal["tasks", "wait_unknown", "clock_skew", "vectors", "photos_refused", "answers"]
Measured = Literal["queue_wait_seconds", "batch_photos", "answer_confidence"]


class Listener(Protocol):
    """Is called by the thread that works, in its context: quick, and never waits. One that raises is heard no more."""

    def began(self, stage: Stage, of: Sequence[Context], facts: Mapping[str, Any]) -> Any:
        """Returns what `ended` is given back. of: the contexts of all that the work is done for, where it is not only
        that of the thread itself. facts: of any value, for people."""
        ...

    def ended(self, stage: Stage, token: Any, took_s: float, exc: BaseException | None) -> None: ...

    def counted(self, what: Counted, n: float, labels: Mapping[str, str]) -> None: ...

    def measured(self, what: Measured, value: float, labels: Mapping[str, str]) -> None: ...


_listeners: tuple[Listener, ...] = ()
_lock = threading.Lock()
_NOBODY: AbstractContextManager[None] = nullcontext()


def listen(listener: Listener) -> None:
    """From now on; of this process."""
    global _listeners
    with _lock:
        _listeners = (*_listeners, listener)


def leave(listener: Listener) -> None:
    """It hears nothing more but the end of what it heard begin."""
    global _listeners
    with _lock:
        _listeners = tuple(one for one in _listeners if one is not listener)


def stage(name: Stage, *, of: Sequence[Context] = (), **facts: Any) -> AbstractContextManager[None]:
    """One part of the work, from entering to leaving; see Listener."""
    return _Heard(name, of, facts) if _listeners else _NOBODY


def count(what: Counted, n: float = 1, **labels: str) -> None:
    for listener in _listeners:
        _tell(listener, "counted", what, n, labels)


def measure(what: Measured, value: float, **labels: str) -> None:
    for listener in _listeners:
        _tell(listener, "measured", what, value, labels)


def asker() -> Context | None:
    """The context of who asks, for work that another thread does for several: see `of`. None while nobody listens."""
    return copy_context() if _listeners else None


def carried(act: Callable[..., A]) -> Callable[..., A]:
    """The same for another thread, in the context of this one; several may run it at a time."""
    if not _listeners:
        return act
    context = copy_context()
    return lambda *args: context.copy().run(act, *args)


class _Heard:
    __slots__ = ("_began", "_facts", "_name", "_of", "_tokens")

    def __init__(self, name: Stage, of: Sequence[Context], facts: Mapping[str, Any]) -> None:
        self._name, self._of, self._facts = name, of, facts

    def __enter__(self) -> None:
        self._tokens = [(one, _tell(one, "began", self._name, self._of, self._facts)) for one in _listeners]
        self._began = time.perf_counter()

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        took_s = time.perf_counter() - self._began
        # The last to hear of it is the first to hear of its end: what each has set in the context nests.
        for listener, token in reversed(self._tokens):
            _tell(listener, "ended", self._name, token, took_s, exc)


def _tell(listener: Listener, what: str, *args: Any) -> Any:
    try:
        return getattr(listener, what)(*args)
    except Exception:  # others' code: who listens, which raises what it likes; told in the log, the work goes on
        log.exception("what is done is told no more to one that listens", extra={"listener": type(listener).__name__})
        leave(listener)
        return None
