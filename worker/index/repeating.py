"""Some searches done again beside those that are answered: exactly, for the recall of what serves; and by two
generations, for answers that another one changes (docs/decisions/0060).

Knows views, neither the log nor Postgres. What is kept of a question is its vector, in memory alone.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt

from worker.core.types import Neighbours, Repeated
from worker.core.vectors import SAME_PIXELS, Ids, Vector, Vectors
from worker.index import tuning
from worker.index.searching import RECALL_K
from worker.index.view import Passing, View

log = logging.getLogger(__name__)

#: Of the thread: the last in line, behind the one that brings a generation.
NICENESS = 19
#: Seconds of rest for each second of work: a tenth of a core at the most, however many are to be repeated.
REST = 9.0
#: Searches that wait to be repeated; those that come then are not.
WAITING = 2
#: Repeated searches that the recall is of, the last ones; and how many it takes to say that it is too low.
WINDOW, LEAST = 1_000, 100
#: The same similarity comes out of two ways to sum it up with such a difference at the most.
ROUNDING = 1e-6
#: Questions that two generations are asked, the last ones, and seconds after which one is forgotten.
KEPT, FORGET_S = 256, 86_400.0
#: Questions that it takes to tell a share of them.
FEWEST = 20


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    query: Vector
    k: int
    exclude: Ids | None
    drop_copies: bool
    at: float  #: by time.monotonic


class Repeating:
    """Of one live index, shared by its threads.

    one_in: of so many searches one is repeated; 0 repeats and keeps none. gate: the recall that is promised. first: of
    a generation's searches, so many are repeated whatever one_in says, as the thread comes to them: a small service
    would be told nothing for weeks.
    """

    def __init__(self, *, one_in: int, gate: float, first: int = LEAST) -> None:
        self._one_in = one_in
        self._gate = gate
        self._first = first
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closed = threading.Event()
        self._asked: deque[_Asked] = deque(maxlen=KEPT)
        self._keeping = threading.Lock()  #: of that
        # Of the thread alone.
        self._shares: deque[float] = deque(maxlen=WINDOW)
        self._is_told = False
        self._told = Repeated()

    @property
    def told(self) -> Repeated:
        return self._told

    def note(
        self,
        view: View,
        query: Vector,
        k: int,
        found: Neighbours,
        *,
        passing: Passing | None,
        exclude: Ids | None,
        drop_copies: bool,
    ) -> None:
        """What was searched for in a view, as View.search was told it, and found. Never waits."""
        if not self._one_in or k < RECALL_K:
            return
        if passing is None:
            # Filters say more than a vector does, of places and people: such questions are not kept.
            self._keep(_Asked(query.copy(), k, exclude, drop_copies, time.monotonic()))
        told = self._told
        begun = told.of if told.generation == view.number else 0
        one_in = self._one_in if begun >= self._first else 1
        if random.random() * one_in < 1 and self._work.qsize() < WAITING:
            self._do(lambda: self._repeat(view, query, found, passing, exclude, drop_copies))

    def taken_over(self, before: View, now: View) -> None:
        """Another generation serves. Both are asked what was asked lately, which is forgotten then: what was removed
        between the two views nobody says."""
        with self._keeping:
            asked = list(self._asked)
            self._asked.clear()
        if self._one_in:
            self._do(lambda: self._compare(before, now, asked))

    def forget(self, older_s: float = 0.0) -> None:
        """What was asked so long ago or before: one of the questions may be by a photo that is gone from now on."""
        until = time.monotonic() - older_s
        with self._keeping:
            while self._asked and self._asked[0].at <= until:
                self._asked.popleft()

    def close(self) -> None:
        """End the thread; what waits is left."""
        self._closed.set()
        self._work.put(None)
        if self._thread is not None:
            self._thread.join()

    def _keep(self, asked: _Asked) -> None:
        with self._keeping:
            # A search that looks wider asks the same again.
            if not self._asked or not np.array_equal(self._asked[-1].query, asked.query):
                self._asked.append(asked)

    # ---------------------------------------------------------------------------------------- the thread

    def _do(self, work: Callable[[], None]) -> None:
        self._work.put(work)
        with self._starting:
            # Anew where one has ended by an error, which Python has shown.
            if not self._closed.is_set() and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="repeat", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        # On Linux, a thread has a niceness of its own.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while (work := self._work.get()) is not None and not self._closed.is_set():
            began = time.monotonic()
            work()
            # Or it would hold the views that it has seen until it is given more.
            del work
            self._closed.wait(REST * (time.monotonic() - began))

    def _repeat(
        self,
        view: View,
        query: Vector,
        found: Neighbours,
        passing: Passing | None,
        exclude: Ids | None,
        drop_copies: bool,
    ) -> None:
        share = found_share(view, query, found, passing=passing, exclude=exclude, drop_copies=drop_copies)
        if share is None:
            return
        self._begin(view.number)
        self._shares.append(share)
        shares = np.array(self._shares)
        mean, at_most = float(shares.mean()), tuning.at_most(shares) if len(shares) >= LEAST else None
        told = self._told
        self._told = replace(told, recall_at_10=mean, of=len(shares), at_most=at_most, searches=told.searches + 1)
        if at_most is not None and at_most < self._gate and not self._is_told:
            self._is_told = True
            log.warning(
                "searches find less than the index promises (SIGHTLINE_INDEX_RECALL): `sightline rebuild`, and if that "
                "does not help, what is asked is not like what is stored",
                extra={
                    "generation": view.number,
                    "recall_at_10": round(mean, 4),
                    "at_most": round(at_most, 4),
                    "searches": len(shares),
                },
            )

    def _begin(self, generation: int | None) -> None:
        """The recall is of one generation, of this from now on."""
        if generation != self._told.generation:
            self._shares.clear()
            self._is_told = False
            self._told = replace(self._told, generation=generation, recall_at_10=None, of=0, at_most=None)

    def _compare(self, before: View, now: View, asked: Sequence[_Asked]) -> None:
        self._begin(now.number)
        outcomes = [
            flips(before, now, one.query, one.k, exclude=one.exclude, drop_copies=one.drop_copies) for one in asked
        ]
        compared = [flipped for flipped in outcomes if flipped is not None]
        share = sum(compared) / len(compared) if len(compared) >= FEWEST else None
        told = self._told
        self._told = replace(told, flipped=share, compared=told.compared + len(compared))
        if compared:
            log.info(
                "another generation was asked the same",
                extra={
                    "before": before.number,
                    "generation": now.number,
                    "compared": len(compared),
                    "flipped": sum(compared),
                },
            )


def found_share(
    view: View,
    query: Vector,
    found: Neighbours,
    *,
    passing: Passing | None = None,
    exclude: Ids | None = None,
    drop_copies: bool = False,
) -> float | None:
    """recall@10 of one search: the share of the true neighbours that are among the first ten found, by comparing with
    every vector of the same view. None where nothing is there to be found.

    As right as a true neighbour is a copy of it, and any photo that is as similar as the tenth.
    """
    truth = view.search(query, RECALL_K, passing=passing, exclude=exclude, drop_copies=drop_copies, exact=True)
    wanted = len(truth.ids)
    if not wanted:
        return None
    vectors = view.vectors_of(found.ids[:wanted])
    right = vectors @ query >= truth.similarities[-1] - ROUNDING
    right |= _are_copies(vectors, view.vectors_of(truth.ids)).any(axis=1)
    return float(np.count_nonzero(right)) / wanted


def flips(
    before: View, now: View, query: Vector, k: int, *, exclude: Ids | None = None, drop_copies: bool = False
) -> bool | None:
    """Whether the photo that is found first is another one: neither as similar as the one before nor a copy of it. None
    where one of the two has come or gone between the views, or nothing is found.

    k: as many as were asked for. Of fewer, an index compares fewer candidates again, and finds another one first.
    """
    first = [view.search(query, k, exclude=exclude, drop_copies=drop_copies).ids[:1] for view in (before, now)]
    both = np.concatenate(first)
    vectors = now.vectors_of(both)
    if len(both) < 2 or np.isnan(before.vectors_of(both)).any() or np.isnan(vectors).any():
        return None
    then, since = vectors @ query
    return bool(abs(then - since) > ROUNDING and not _are_copies(vectors[:1], vectors[1:]))


def _are_copies(some: Vectors, others: Vectors) -> npt.NDArray[np.bool_]:
    """[n, m]: which vectors are of the same pixels. By their distance, for rounded ones are not quite of length 1."""
    apart = ((some[:, None] - others[None]) ** 2).sum(axis=2)
    same: npt.NDArray[np.bool_] = apart <= 2 * (1 - SAME_PIXELS)
    return same
