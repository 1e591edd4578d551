"""One forward pass for all threads of a process: what they ask for at the same time goes through the model together.

Knows no model and no queue: `run` is a function from pixels to vectors. One thread calls it, so that a model needs no
lock and two passes never share the cores.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextvars import Context
from dataclasses import dataclass, field
from typing import Self

from cachetools import TTLCache

from producer_client.contract import Code
from worker.core.observing import asker, measure, stage
from worker.core.request import Request, current
from worker.core.types import Pixels
from worker.core.vectors import Vector, Vectors
from worker.errors import Permanent, Transient, WorkerError

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Waiting:
    """A photo that somebody waits for. `pixels`, and `since` when, only once it is `here`. asker: see
    worker.core.observing."""

    key: str
    urgent: bool
    deadline: float | None
    asker: Context | None = field(default_factory=asker)
    done: Future[Vector] = field(default_factory=Future)
    here: bool = False
    pixels: Pixels = field(init=False)
    since: float = field(init=False)

    def wanted_too(self, request: Request) -> None:
        """Somebody else waits for it, longer perhaps, or more urgently."""
        self.urgent = self.urgent or request.urgent
        if self.deadline is not None:
            self.deadline = None if request.deadline is None else max(self.deadline, request.deadline)


class Batcher:
    """run: pixels to float32 [n, dimension], a row for each, in their order. batch, bulk_batch: photos of one pass, of
    urgent requests and of others: an urgent one waits for the pass in hand, so bulk passes are kept short. linger_s: a
    pass that is not full waits for photos that are on their way, but so long at the most. patience_s: after that long
    without a pass, bulk goes before urgent once. capacity: photos, of each of the two kinds, that may be on their way
    or wait. remembered, remember_s: vectors that are kept at hand, and for how long.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Pixels]], Vectors],
        *,
        batch: int,
        bulk_batch: int,
        linger_s: float,
        patience_s: float,
        capacity: int,
        remembered: int,
        remember_s: float,
    ) -> None:
        self._run = run
        self._batch = batch
        self._bulk_batch = bulk_batch
        self._linger_s = linger_s
        self._patience_s = patience_s
        self._capacity = capacity
        self._changed = threading.Condition()
        #: All of them by key, and those whose pixels are there, in the order in which they came.
        self._in_hand: dict[str, _Waiting] = {}
        self._urgent: deque[_Waiting] = deque()
        self._bulk: deque[_Waiting] = deque()
        self._recent: TTLCache[str, Vector] = TTLCache(remembered, remember_s)
        #: Photos that went through the model.
        self.computed = 0
        self._last_bulk = float("-inf")
        self._thread: threading.Thread | None = None
        self._closing = False

    def expect(self, keys: Iterable[str]) -> Expected:
        """Say what is on its way, before it is decoded. A key names the pixels: what another thread has in hand
        already, or what is remembered, is not computed twice.

        Raises Transient(overloaded) when too many wait, Transient(unavailable) after `close`; nothing is taken then.
        """
        request = current.get()
        with self._changed:
            if self._closing:
                raise Transient(Code.UNAVAILABLE, "this worker is stopping")
            wanted = list(dict.fromkeys(keys))
            futures = {key: _already(self._recent[key]) for key in wanted if key in self._recent}
            new = [key for key in wanted if key not in self._in_hand and key not in futures]
            before = sum(item.urgent == request.urgent for item in self._in_hand.values())
            # What is larger than the queue is taken when it is empty, or it never would be.
            if new and before and before + len(new) > self._capacity:
                raise Transient(
                    Code.OVERLOADED,
                    f"{before} photos wait for the model already, the limit is {self._capacity} "
                    "(SIGHTLINE_ENCODE_QUEUE). Start more workers, or send more slowly",
                )
            for key in wanted:
                if key in futures:
                    continue
                item = self._in_hand.get(key)
                if item is None:
                    item = self._in_hand[key] = _Waiting(key, request.urgent, request.deadline)
                else:
                    item.wanted_too(request)
                    if item.urgent and item in self._bulk:
                        self._bulk.remove(item)
                        self._urgent.append(item)
                futures[key] = item.done
            if self._thread is None:
                # A daemon: an interpreter that ends without `close` must not wait for it for ever.
                self._thread = threading.Thread(target=self._work, name="model", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return Expected(futures, new, self._supply)

    def recent(self, keys: Iterable[str]) -> dict[str, Vector]:
        """Those of these photos' vectors that are still remembered."""
        with self._changed:
            return {key: self._recent[key] for key in keys if key in self._recent}

    def close(self) -> None:
        """Take nothing more, and end when all that was taken is done."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _supply(self, key: str, pixels: Pixels | WorkerError) -> None:
        with self._changed:
            item = self._in_hand[key]
            if isinstance(pixels, WorkerError):
                self._settle(item, pixels)
                return
            item.here, item.pixels, item.since = True, pixels, time.monotonic()
            (self._urgent if item.urgent else self._bulk).append(item)
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._urgent or self._bulk) and not (self._closing and not self._in_hand):
                    self._changed.wait()
                if not (self._urgent or self._bulk):
                    return
                self._wait_for_company()
                chosen = self._next_pass()
            self._pass(chosen)
            if chosen:
                measure("batch_photos", len(chosen), urgency="urgent" if chosen[0].urgent else "bulk")

    def _wait_for_company(self) -> None:
        """For those of the same urgency that will be here soon: decoding them keeps the cores busy meanwhile."""
        while True:
            queue, batch = (self._urgent, self._batch) if self._urgent else (self._bulk, self._bulk_batch)
            on_their_way = any(not i.here and i.urgent == bool(self._urgent) for i in self._in_hand.values())
            if not queue or len(queue) >= batch or not on_their_way:
                return
            left_s = queue[0].since + self._linger_s - time.monotonic()
            if left_s <= 0:
                return
            self._changed.wait(left_s)

    def _next_pass(self) -> list[_Waiting]:
        now = time.monotonic()
        for queue in (self._urgent, self._bulk):
            late = [item for item in queue if item.deadline is not None and item.deadline < now]
            for item in late:
                queue.remove(item)
                self._settle(item, Transient(Code.TIMED_OUT, "the model did not get to it while somebody waited"))
        bulk_is_due = bool(self._bulk) and now - max(self._last_bulk, self._bulk[0].since) > self._patience_s
        if self._urgent and not bulk_is_due:
            return [self._urgent.popleft() for _ in range(min(self._batch, len(self._urgent)))]
        chosen = [self._bulk.popleft() for _ in range(min(self._bulk_batch, len(self._bulk)))]
        self._last_bulk = now
        return chosen

    def _pass(self, items: list[_Waiting]) -> None:
        """A pass that raises is halved until what is to blame is alone."""
        if not items:
            return
        try:
            askers = [item.asker for item in items if item.asker is not None]
            with stage("forward", of=askers, photos=len(items)):
                vectors = self._run([item.pixels for item in items])
            if len(vectors) != len(items):
                raise RuntimeError(f"{len(items)} photos went into the model and {len(vectors)} vectors came out")
        except Exception as exc:  # others' code: the model, which raises what it likes; each photo's caller is told
            if len(items) > 1:
                middle = len(items) // 2
                self._pass(items[:middle])
                self._pass(items[middle:])
            else:
                log.warning("the model failed on a photo", extra={"content": items[0].key}, exc_info=exc)
                self._settle(items[0], as_ours(exc, "the model"))
            return
        for item, vector in zip(items, vectors, strict=True):
            self._settle(item, vector)

    def _settle(self, item: _Waiting, outcome: Vector | WorkerError) -> None:
        with self._changed:
            del self._in_hand[item.key]
            if not isinstance(outcome, WorkerError):
                self._recent[item.key] = outcome
                self.computed += 1
            self._changed.notify_all()
        if isinstance(outcome, WorkerError):
            item.done.set_exception(outcome)
        else:
            item.done.set_result(outcome)


class Expected:
    """Photos that one request wants. `mine`: those that it has to bring, because nobody else does.

    As a context, it gives up at the end what was not brought, so that nobody waits for it. No thread may bring anything
    after that.
    """

    def __init__(
        self,
        futures: dict[str, Future[Vector]],
        mine: Iterable[str],
        supply: Callable[[str, Pixels | WorkerError], None],
    ) -> None:
        self._futures = futures
        self._supply = supply
        self._left = set(mine)
        self.mine = frozenset(self._left)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for key in tuple(self._left):
            self.supply(key, Transient(Code.UNAVAILABLE, "who was to decode this photo gave up; send it again"))

    def supply(self, key: str, pixels: Pixels | WorkerError) -> None:
        """The pixels of one of `mine`, or why there are none. Once for each; any thread may."""
        self._left.remove(key)
        self._supply(key, pixels)

    def wait(self, key: str) -> None:
        """Until one of `mine` is through the model, or has failed."""
        self._futures[key].exception()

    def vectors(self) -> tuple[dict[str, Vector], dict[str, WorkerError]]:
        """Vectors and failures by key, when all are done."""
        vectors: dict[str, Vector] = {}
        failures: dict[str, WorkerError] = {}
        for key, future in self._futures.items():
            try:
                vectors[key] = future.result()
            except WorkerError as exc:
                failures[key] = exc
        return vectors, failures


def _already(vector: Vector) -> Future[Vector]:
    done: Future[Vector] = Future()
    done.set_result(vector)
    return done


def as_ours(exc: Exception, what: str) -> WorkerError:
    """What is said of a photo on which `what` failed."""
    if isinstance(exc, WorkerError):
        return exc
    if isinstance(exc, MemoryError):
        return Transient(Code.UNAVAILABLE, "the worker ran out of memory")
    return Permanent(Code.INTERNAL, f"{what} failed on this photo: {type(exc).__name__}: {exc}")
