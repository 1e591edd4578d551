"""How good an index is on a sample, and the search parameters that make it good enough. Knows FAISS, not files.

Two questions are asked about each photo of the sample, of which no index has learned anything:

    it is left out                            what are its ten nearest? A new photo of a place that is known
    it and its ten nearest are left out       what are the next ten? A new photo of a place that is hardly known

On clustered vectors (benchmarks/vectors.py) the mean of both lies a little below what new photos find, a fifth of them
of places that nobody stored; the first alone lies above it by up to 0.01. See docs/decisions/0018.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from worker.core.vectors import Vectors
from worker.index.copies import Copies
from worker.index.kinds import Kind, Plan
from worker.index.searching import RECALL_K, Parameters, Positions, arguments, search, use_threads

#: Neighbours of a photo of the sample that are looked at: itself, its ten nearest, the next ten.
LOOKED_AT = 2 * RECALL_K + 1
#: Stands for a position that is left out.
NOTHING = -2
#: Standard errors between a mean and what is promised: one-sided 99.87 % of a normal distribution.
SURE = 3.0
#: So many of a user's searches are promised to find that share between them.
PROMISED_TO = 1_000
#: Queries that are timed, and how often; the fastest of the passes counts.
CLOCKED, PASSES = 300, 3
#: A second look at fewer candidates is tried with up to so many times the lists that one at most candidates needs.
MORE_LISTS = 8


@dataclass(frozen=True, slots=True)
class Tuned:
    """Search parameters with what they reach on a sample of `queries` photos."""

    parameters: Parameters
    recall_at_1: float  #: of the first question
    recall_at_10: float  #: mean over both
    recall_at_10_at_least: float  #: see promised()
    queries: int


class Truth:
    """The exact neighbours of some stored photos, gathered while all vectors pass by once."""

    def __init__(self, queries: Vectors) -> None:
        self.queries = queries
        #: Position of each among the stored vectors.
        self.own: Positions = np.full(len(queries), -1, dtype=np.int64)
        self._similarities = np.full((len(queries), LOOKED_AT), -np.inf, dtype=np.float32)
        self._positions = np.full((len(queries), LOOKED_AT), -1, dtype=np.int64)
        #: Of each position, the first one that has the same vector but for rounding.
        self._first: Positions | None = None

    def see(self, start: int, vectors: Vectors) -> None:
        """Take the vectors at positions `start`, `start + 1` ... into account."""
        if not len(self.queries):
            return
        k = min(LOOKED_AT, len(vectors))
        similarities, positions = faiss.knn(self.queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
        similarities = np.concatenate([self._similarities, similarities], axis=1)
        positions = np.concatenate([self._positions, positions + start], axis=1)
        best = np.argsort(-similarities, axis=1, kind="stable")[:, :LOOKED_AT]
        self._similarities = np.take_along_axis(similarities, best, axis=1)
        self._positions = np.take_along_axis(positions, best, axis=1)

    def neighbours(self) -> Positions:
        """[queries, 2 * RECALL_K] positions, the photo's own left out; -1 after the last."""
        return without_own(self._positions, self.own)

    def are_copies(self, copies: Copies, count: int) -> None:
        """Which of the `count` vectors are copies: whichever of a thousand is found, it is as right as another."""
        if not len(copies.ends):
            return
        self._first = np.arange(count)
        for members in np.split(copies.positions, copies.ends[:-1]):
            self._first[members] = members[0]

    def alike(self, positions: Positions) -> Positions:
        """What can be compared with one another: the same number, in two such rows, for photos that are as good as the
        same. A second copy in a row counts as a second one. positions: [n, k], or -1; the numbers of these stay."""
        if self._first is None:
            return positions
        labels = np.where(positions < 0, positions, self._first[positions])
        order = np.argsort(labels, axis=1, kind="stable")
        rising = np.take_along_axis(labels, order, axis=1)
        # How many equal ones stand before each.
        column = np.arange(labels.shape[1])
        starts = np.where(np.diff(rising, axis=1, prepend=-2) != 0, column, 0)
        before = np.empty_like(labels)
        np.put_along_axis(before, order, column - np.maximum.accumulate(starts, axis=1), axis=1)
        return np.where(labels < 0, labels, labels * (LOOKED_AT + 1) + before)


def without_own(positions: Positions, own: Positions) -> Positions:
    """Each row without the photo's own position, one shorter."""
    others = np.argsort(positions == own[:, None], axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(positions, others, axis=1)


def found_shares(found: Positions, truth: Positions) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(nearest found or not, share of the neighbours found) of each photo and question; NaN where there are none.

    found, truth: [n, 2 * RECALL_K] as `answers` and Truth.neighbours give them. Returns two of [n, 2].
    """
    nearest, next_ones = truth[:, :RECALL_K], truth[:, RECALL_K:]
    # What is found of the nearest makes room for the next.
    others = np.argsort(_among(found, nearest), axis=1, kind="stable")
    beyond = np.where(_among(found, nearest), NOTHING, found)
    questions = [(found, nearest), (np.take_along_axis(beyond, others, axis=1), next_ones)]
    first, share = np.full((len(truth), 2), np.nan), np.full((len(truth), 2), np.nan)
    for number, (seen, wanted) in enumerate(questions):
        asked = wanted[:, 0] >= 0
        hits = _among(wanted, seen[:, :RECALL_K]) & (wanted >= 0)
        first[asked, number] = (seen[:, 0] == wanted[:, 0])[asked]
        share[asked, number] = hits[asked].sum(axis=1) / (wanted[asked] >= 0).sum(axis=1)
    return first, share


def _among(positions: Positions, others: Positions) -> npt.NDArray[np.bool_]:
    """Which positions of a row are among the others of that row."""
    among: npt.NDArray[np.bool_] = (positions[:, :, None] == others[:, None, :]).any(axis=2)
    return among


def promised(share: npt.NDArray[np.float64]) -> tuple[float, float]:
    """(mean, what the next searches find between them at least) of the shares of photos, [n].

    A one-sided prediction bound by the normal approximation (Hahn and Meeker, "Statistical Intervals", 1991, chapter
    4): the mean of PROMISED_TO more varies around the true one as this sample's does. 0.0 of a single photo.
    """
    if not len(share):
        return 1.0, 1.0
    mean = float(share.mean())
    if len(share) == 1:
        return mean, 0.0
    error = float(share.std(ddof=1)) * math.sqrt(1 / len(share) + 1 / PROMISED_TO)
    return mean, max(0.0, mean - SURE * error)


def at_most(share: npt.NDArray[np.float64]) -> float:
    """What the true mean of such shares, [n], lies below as surely as `promised` lies below: one that is lower than was
    promised is no chance. 1.0 of a single one."""
    if len(share) < 2:
        return 1.0
    return min(1.0, float(share.mean()) + SURE * float(share.std(ddof=1)) / math.sqrt(len(share)))


def answers(index: faiss.Index, parameters: Parameters, truth: Truth) -> Positions:
    """[queries, 2 * RECALL_K]: what the index finds, the photo's own left out, among as many candidates as a search of
    ten neighbours looks at. All queries at once: for the index they are as many single ones."""
    if "k_factor" in parameters:
        parameters = parameters | {"k_factor": max(1.0, parameters["k_factor"] * RECALL_K / LOOKED_AT)}
    _, found = search(index, truth.queries, LOOKED_AT, arguments(index, parameters, LOOKED_AT))
    return without_own(found, truth.own)


def measured(index: faiss.Index, parameters: Parameters, truth: Truth) -> Tuned:
    """What these parameters reach."""
    found = truth.alike(answers(index, parameters, truth))
    first, share = found_shares(found, truth.alike(truth.neighbours()))
    asked = ~np.isnan(share).all(axis=1)
    at_1 = float(np.nanmean(first[asked, 0])) if asked.any() else 1.0
    # The two questions about one photo depend on one another: the photo is what is drawn.
    at_10, at_least = promised(np.nanmean(share[asked], axis=1))
    return Tuned(parameters, round(at_1, 4), round(at_10, 4), round(at_least, 4), len(truth.queries))


def tune(index: faiss.Index, plan: Plan, truth: Truth, good: Callable[[Tuned], bool], *, threads: int) -> Tuned:
    """The fastest parameters that are good enough; the best of those that were tried where none is.

    Recall rises within a series, so the first that is good enough is searched for, by all queries at once; only these
    are timed, one query after the other. threads: for the former; one afterwards.
    """
    use_threads(threads)
    tried: list[Tuned] = []

    def good_enough(parameters: Parameters) -> bool:
        tried.append(measured(index, parameters, truth))
        return good(tried[-1])

    contenders: list[Parameters] = []
    first, end = 0, None
    for rising in _parameters_to_try(plan):
        steps = rising[first:end]
        place = _first_good(steps, good_enough)
        if place == len(steps):
            break
        if place == 0 and contenders:
            # As few lists, and fewer candidates.
            contenders.pop()
        contenders.append(steps[place])
        first += place
        if end is None and "nprobe" in steps[place]:
            end = sum(other["nprobe"] <= MORE_LISTS * steps[place]["nprobe"] for other in rising)
    use_threads(1)
    if not contenders:
        return max(tried, key=lambda tuned: tuned.recall_at_10_at_least)
    fastest = contenders[0] if len(contenders) == 1 else _fastest(index, contenders, truth.queries[:CLOCKED])
    return next(tuned for tuned in tried if tuned.parameters == fastest)


def _first_good(steps: Sequence[Parameters], good_enough: Callable[[Parameters], bool]) -> int:
    """Place of the first that is good enough, or one after the last. It is mostly near the start of a series: looked
    for in growing strides, then bisected within the last of them."""
    after, stride = 0, 1
    while after < len(steps):
        reached = min(after + stride, len(steps)) - 1
        if good_enough(steps[reached]):
            return bisect_left(steps, True, after, reached, key=good_enough)
        after, stride = reached + 1, 2 * stride
    return len(steps)


def _fastest(index: faiss.Index, contenders: list[Parameters], queries: Vectors) -> Parameters:
    """Timed in turns: what else runs on the machine meanwhile disturbs all of them."""
    ready = [arguments(index, parameters, RECALL_K) for parameters in contenders]
    spent = [math.inf] * len(contenders)
    for _ in range(PASSES):
        for number, made in enumerate(ready):
            started = time.perf_counter()
            for query in queries:
                search(index, query[None, :], RECALL_K, made)
            spent[number] = min(spent[number], time.perf_counter() - started)
    return contenders[spent.index(min(spent))]


def _parameters_to_try(plan: Plan) -> list[list[Parameters]]:
    """Series within which recall rises, from the one that compares most candidates again to the one that compares
    fewest: each needs at least as many lists as the one before."""
    if plan.kind is Kind.IVF:
        probes = [probes for probes in _steps(4, 512) if probes <= plan.lists]
        again = (32, 24, 16, 12, 10, 8, 6, 5, 4)
        return [[{"nprobe": nprobe, "k_factor": k_factor} for nprobe in probes] for k_factor in again]
    if plan.kind is Kind.HNSW:
        # A graph keeps as many candidates as it is asked for at least, and it is asked for LOOKED_AT here.
        return [[{"ef_search": ef} for ef in _steps(24, 1024)]]
    return [[{}]]


def _steps(first: int, last: int) -> list[int]:
    """Whole numbers that rise by about an eighth."""
    steps = [first]
    while steps[-1] < last:
        steps.append(min(last, max(steps[-1] + 1, round(steps[-1] * 1.125))))
    return steps
