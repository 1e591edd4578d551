"""How good an index is on a sample, and the search parameters that make it good enough. Knows FAISS, not files."""

from __future__ import annotations

import time
from dataclasses import dataclass

import faiss
import numpy as np

from worker.core.vectors import Vectors, unit_rows
from worker.index.copies import Copies
from worker.index.kinds import Kind, Plan
from worker.index.searching import RECALL_K, Parameters, Positions, arguments, search, use_threads

#: Tuned on a sample, so a little more than the gate is aimed at: four standard errors of 600 queries.
MARGIN = 0.01
#: How far a query lies from the stored photo that it comes from; see moved().
MOVED = 0.35
#: Stands for the position of a query that is not a stored photo.
NOT_STORED = -2


@dataclass(frozen=True, slots=True)
class Tuned:
    """Search parameters with what they reach on a sample: stored vectors, each left out of its own answer, and moved
    ones."""

    parameters: Parameters
    recall_at_1: float
    recall_at_10: float
    queries: int


def moved(vectors: Vectors) -> Vectors:
    """Photos that nobody stored: each vector, moved by a share of the difference of two others.

    Stored photos have their own place around them and are easier to answer than those of a new place.
    """
    if len(vectors) < 3:
        return vectors[:0]
    away = vectors + MOVED * (np.roll(vectors, 1, axis=0) - np.roll(vectors, 2, axis=0))
    return unit_rows(away[away.any(axis=1)])


class Truth:
    """The exact neighbours of some queries, gathered while all vectors pass by once."""

    def __init__(self, stored: Vectors, moved: Vectors | None = None) -> None:
        self.queries: Vectors = stored if moved is None else np.concatenate([stored, moved])
        #: Position of each query among the stored vectors, or NOT_STORED.
        self.own = np.full(len(self.queries), NOT_STORED, dtype=np.int64)
        self._similarities = np.full((len(self.queries), RECALL_K + 1), -np.inf, dtype=np.float32)
        self._positions = np.full((len(self.queries), RECALL_K + 1), -1, dtype=np.int64)
        #: Of each position, the first one that has the same vector but for rounding.
        self._first: Positions | None = None

    def stored_at(self, positions: Positions) -> None:
        """Where the stored queries stand."""
        self.own[: len(positions)] = positions

    def see(self, start: int, vectors: Vectors) -> None:
        """Take the vectors at positions `start`, `start + 1` ... into account."""
        if not len(self.queries):
            return
        k = min(RECALL_K + 1, len(vectors))
        similarities, positions = faiss.knn(self.queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
        similarities = np.concatenate([self._similarities, similarities], axis=1)
        positions = np.concatenate([self._positions, positions + start], axis=1)
        best = np.argsort(-similarities, axis=1, kind="stable")[:, : RECALL_K + 1]
        self._similarities = np.take_along_axis(similarities, best, axis=1)
        self._positions = np.take_along_axis(positions, best, axis=1)

    def neighbours(self) -> Positions:
        """[queries, RECALL_K] positions, the query's own left out."""
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
        return np.where(labels < 0, labels, labels * (RECALL_K + 2) + before)


def without_own(positions: Positions, own: Positions) -> Positions:
    """Each row without the query's own position, RECALL_K long."""
    rows = np.empty((len(positions), RECALL_K), dtype=np.int64)
    for row, (found, mine) in enumerate(zip(positions, own, strict=True)):
        rows[row] = found[found != mine][:RECALL_K]
    return rows


def found_share(found: Positions, truth: Positions) -> tuple[float, float]:
    """(recall@1, recall@10): the share of true neighbours that were found; 1.0 where there are none to find."""
    first = true = hit = 0
    for mine, theirs in zip(found, truth, strict=True):
        wanted = theirs[theirs >= 0]
        first += not len(wanted) or bool(wanted[0] == mine[0])
        true += len(wanted)
        hit += int(np.isin(wanted, mine).sum())
    return (first / len(truth) if len(truth) else 1.0), (hit / true if true else 1.0)


def answers(index: faiss.Index, parameters: Parameters, truth: Truth) -> Positions:
    """What the index finds for the queries of `truth`, as a search of one query at a time finds it."""
    ready = arguments(index, parameters, RECALL_K + 1)
    found = [search(index, query[None, :], RECALL_K + 1, ready)[1][0] for query in truth.queries]
    return without_own(np.array(found, dtype=np.int64).reshape(len(found), RECALL_K + 1), truth.own)


def tune(index: faiss.Index, plan: Plan, truth: Truth, gate: float) -> Tuned:
    """The cheapest parameters that reach the gate with some margin; the best ones where none does."""
    use_threads(1)
    neighbours = truth.alike(truth.neighbours())
    best: tuple[tuple[bool, float], Tuned] | None = None
    for rising in _parameters_to_try(plan):
        for parameters in rising:
            started = time.perf_counter()
            answered = answers(index, parameters, truth)
            cost = time.perf_counter() - started
            at_1, at_10 = found_share(truth.alike(answered), neighbours)
            tuned = Tuned(parameters, round(at_1, 4), round(at_10, 4), len(truth.queries))
            enough = at_10 >= min(1.0, gate + MARGIN)
            # Among those that are good enough the fastest, among the others the best.
            rank = (enough, -cost if enough else at_10)
            if best is None or rank > best[0]:
                best = (rank, tuned)
            if enough:
                break
    assert best is not None
    return best[1]


def _parameters_to_try(plan: Plan) -> list[list[Parameters]]:
    """Series of rising cost: within one, nothing after the first that is good enough can be faster."""
    if plan.kind is Kind.IVF:
        probes = [n for n in (4, 6, 8, 12, 16, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256, 512) if n <= plan.lists]
        again = (4, 6, 8, 12, 16, 20, 24, 32)
        return [[{"nprobe": nprobe, "k_factor": k_factor} for nprobe in probes] for k_factor in again]
    if plan.kind is Kind.HNSW:
        return [[{"ef_search": 2**power} for power in range(4, 11)]]
    return [[{}]]
