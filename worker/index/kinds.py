"""Kinds of index: which one for how many vectors, how it is trained, searched and tuned. Knows FAISS, not files.

    exact   every vector as float16 (float32 where that changes an answer), compared one by one
    ivf     inverted lists of 4-bit product-quantizer codes, scanned in registers (Andre, Kermarrec, Le Scouarnec,
            "Cache locality is not enough", VLDB 2015); the best are compared again by 8- or 16-bit vectors
    hnsw    a navigable graph over 8-bit vectors (Malkov and Yashunin, 2016)

Vectors have length 1, so that the inner product is the cosine. A vector is known by its position, which is the order
in which it was added.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from enum import StrEnum

import faiss
import numpy as np
import numpy.typing as npt

from producer_client.contract import Code
from worker.core.vectors import Vectors, unit_rows
from worker.errors import Permanent

Positions = npt.NDArray[np.int64]
Similarities = npt.NDArray[np.float32]
Parameters = dict[str, float]

#: recall is measured at this many neighbours.
RECALL_K = 10
#: Approximate kinds are trained; on fewer vectors than this they would learn nothing and save nothing.
LEAST_FOR_TRAINING = 1_000
#: Training vectors for each inverted list. Half of what FAISS recommends: twice the lists serve better than twice the
#: training, and k-means over more would be most of a rebuild.
TRAINED_PER_LIST = 20
KMEANS_ITERATIONS = 6
#: From so many lists on, their centres are compared by 4-bit codes first.
CENTRES_BY_CODES = 2048
#: So many times more centres than wanted are compared again exactly, for a photo to add and for a query.
CENTRES_AGAIN_ADD, CENTRES_AGAIN_SEARCH = 64, 4
#: Tuned on a sample, so a little more than the gate is aimed at: four standard errors of 600 queries.
MARGIN = 0.01
#: How far a query lies from the stored photo that it comes from; see moved().
MOVED = 0.35
#: Stands for the position of a query that is not a stored photo.
NOT_STORED = -2
#: A filter that leaves so few vectors is answered by comparing all of them.
EXACT_FILTER = 20_000
#: float16 changes answers when it loses more than this share of the true neighbours.
CHANGES_ANSWERS = 0.001


#: Parameters are tuned for RECALL_K neighbours and good for some more.
TUNED_UP_TO = 32
#: FAISS's name for an index of unchanged float32 vectors.
AS_THEY_ARE = "Flat"


class Kind(StrEnum):
    EXACT = "exact"
    IVF = "ivf"
    HNSW = "hnsw"


@dataclass(frozen=True, slots=True)
class Plan:
    """A way to build an index: FAISS's own description of it, and what it takes."""

    kind: Kind
    factory: str
    bytes_per_vector: float
    training_rows: int
    lists: int = 0
    codes: int = 0  #: 4-bit codes of one vector
    refined: str = ""  #: FAISS's name for the vectors that the best are compared again by


@dataclass(frozen=True, slots=True)
class Tuned:
    """Search parameters with what they reach on a sample: stored vectors, each left out of its own answer, and moved
    ones."""

    parameters: Parameters
    recall_at_1: float
    recall_at_10: float
    queries: int


def plans(count: int, dimension: int, *, kind: str, exact_up_to: int, memory_bytes: float) -> list[Plan]:
    """Ways to build an index of `count` vectors, in the order to try them; the first that is good enough is taken.

    kind: `auto` or a Kind. memory_bytes: what the finished index may take.
    Raises Permanent(not_ready) when nothing of that kind fits into the memory.
    """
    if kind == "auto":
        kind = Kind.EXACT if count <= exact_up_to else Kind.IVF
    if count < LEAST_FOR_TRAINING:
        kind = Kind.EXACT
    ways = {Kind.EXACT: _exact, Kind.IVF: _inverted, Kind.HNSW: _graph}[Kind(kind)](count, dimension)
    fitting = [way for way in ways if way.bytes_per_vector * count <= memory_bytes]
    if not fitting:
        least = min(way.bytes_per_vector for way in ways) * count
        raise Permanent(
            Code.NOT_READY,
            f"an index of kind {kind} over {count} vectors takes {least / 1e6:.0f} MB, SIGHTLINE_INDEX_MEMORY_MB "
            f"allows {memory_bytes / 1e6:.0f}. Raise it, or choose a smaller SIGHTLINE_INDEX_KIND (ivf).",
        )
    return fitting if kind == Kind.EXACT else fitting[:1]


def _exact(count: int, dimension: int) -> list[Plan]:
    return [
        Plan(Kind.EXACT, "SQfp16", 2 * dimension + 8, 0),
        Plan(Kind.EXACT, AS_THEY_ARE, 4 * dimension + 8, 0),
    ]


def _inverted(count: int, dimension: int) -> list[Plan]:
    lists = 2 ** round(math.log2(8 * math.sqrt(count)))
    # Four dimensions share one 4-bit code.
    codes = dimension // 4 if dimension % 4 == 0 else dimension
    return [
        Plan(
            Kind.IVF,
            f"IVF{lists},PQ{codes}x4fs,Refine({refined})",
            # Codes, positions and rounded vectors of the photos; the lists' own centres.
            codes / 2 + 8 + width * dimension + 8 + lists * 4.5 * dimension / count,
            TRAINED_PER_LIST * lists,
            lists,
            codes,
            refined,
        )
        for refined, width in (("SQfp16", 2), ("SQ8", 1))
    ]


def _graph(count: int, dimension: int) -> list[Plan]:
    # 32 links of 4 bytes upwards, 64 at the bottom.
    return [Plan(Kind.HNSW, "HNSW32,SQ8", dimension + 64 * 4 + 16 + 8, 50_000)]


def train(plan: Plan, dimension: int, sample: Vectors) -> faiss.Index:
    """A trained, empty index."""
    if plan.kind is Kind.IVF:
        return _train_lists(plan, dimension, sample)
    index = faiss.index_factory(dimension, plan.factory, faiss.METRIC_INNER_PRODUCT)
    if plan.kind is Kind.HNSW:
        index.hnsw.efConstruction = 80
    if not index.is_trained:
        index.train(sample)
    return index


def reserve(index: faiss.Index, count: int) -> None:
    """Make room for `count` vectors in an empty index. FAISS doubles a full array: the old one and the new one, side by
    side, would be most of what a rebuild takes."""
    if isinstance(index, faiss.IndexRefine):
        index = index.refine_index
    elif isinstance(index, faiss.IndexHNSW):
        index = index.storage
    # The next add() shrinks it to what is there, and an array that shrinks keeps its room.
    stored = faiss.downcast_index(index)
    stored.codes.resize(count * stored.code_size)


def finish(index: faiss.Index) -> None:
    """To be called when the last vector is in, before the index is written."""
    if isinstance(index, faiss.IndexRefine):
        quantizer = faiss.downcast_index(faiss.extract_index_ivf(index.base_index).quantizer)
        if isinstance(quantizer, faiss.IndexRefineFlat):
            quantizer.k_factor = CENTRES_AGAIN_SEARCH


def _train_lists(plan: Plan, dimension: int, sample: Vectors) -> faiss.Index:
    """Inverted lists around centres of spherical k-means.

    Many centres are compared by 4-bit codes first, as the photos themselves are: comparing a query with 8192 of them
    exactly would cost as much as the rest of the search.
    """
    clustering = faiss.Clustering(dimension, plan.lists)
    clustering.niter = KMEANS_ITERATIONS
    clustering.spherical = True
    clustering.min_points_per_centroid = 1
    clustering.max_points_per_centroid = 2 * TRAINED_PER_LIST
    quantizer = centres = faiss.IndexFlatIP(dimension)
    clustering.train(sample, centres)
    if plan.lists >= CENTRES_BY_CODES:
        quantizer = faiss.index_factory(dimension, f"PQ{plan.codes}x4fs,RFlat", faiss.METRIC_INNER_PRODUCT)
        rows = centres.reconstruct_n(0, plan.lists)
        quantizer.train(rows)
        quantizer.add(rows)
        quantizer.k_factor = CENTRES_AGAIN_ADD
    lists = faiss.IndexIVFPQFastScan(quantizer, dimension, plan.lists, plan.codes, 4, faiss.METRIC_INNER_PRODUCT)
    # Codes of what a photo differs from its centre by: they say more, and half as many need to be compared again.
    lists.by_residual = True
    again = faiss.index_factory(dimension, plan.refined, faiss.METRIC_INNER_PRODUCT)
    index = faiss.IndexRefine(lists, again)
    index.train(sample)
    return index


_threads = threading.local()


def use_threads(count: int) -> None:
    """Let FAISS use so many threads when the calling thread asks it something. OpenMP keeps this number per thread: set
    in one, it is unknown to others, and each task thread would start a team of its own for every query."""
    if getattr(_threads, "count", None) != count:
        faiss.omp_set_num_threads(count)
        _threads.count = count


def search(
    index: faiss.Index, queries: Vectors, k: int, arguments: faiss.SearchParameters
) -> tuple[Similarities, Positions]:
    """The k most similar vectors of each query: ([n, k], [n, k]); position -1 where there are no more."""
    if not index.ntotal:
        return np.full((len(queries), k), -np.inf, dtype=np.float32), np.full((len(queries), k), -1, dtype=np.int64)
    found: tuple[Similarities, Positions] = index.search(queries, k, params=arguments)
    return found


def arguments(
    index: faiss.Index,
    parameters: Parameters,
    k: int,
    *,
    selector: faiss.IDSelector | None = None,
    widen: float = 1.0,
) -> faiss.SearchParameters:
    """Search parameters in FAISS's form. Arguments of a call: fields set on a shared index would change the searches
    of other threads.

    widen: look at so many times more lists or nodes, for a selector that passes few.
    """
    if "nprobe" in parameters:
        lists = faiss.extract_index_ivf(index.base_index).nlist
        inner = faiss.SearchParametersIVF(nprobe=min(lists, math.ceil(parameters["nprobe"] * widen)), sel=selector)
        # Tuned for RECALL_K neighbours: a smaller k must not mean fewer candidates.
        again = parameters["k_factor"] * max(k, RECALL_K) / k
        return faiss.IndexRefineSearchParameters(k_factor=again, base_index_params=inner)
    if "ef_search" in parameters:
        wide = min(index.ntotal, math.ceil(parameters["ef_search"] * widen))
        return faiss.SearchParametersHNSW(efSearch=wide, sel=selector)  # never less than k: FAISS sees to that
    return faiss.SearchParameters(sel=selector)


def is_widest(index: faiss.Index, parameters: Parameters, widen: float) -> bool:
    """Whether a search that is widened so far looks at everything that its kind can reach."""
    if "nprobe" in parameters:
        return bool(parameters["nprobe"] * widen >= faiss.extract_index_ivf(index.base_index).nlist)
    return "ef_search" not in parameters or parameters["ef_search"] * widen >= index.ntotal


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
    neighbours = truth.neighbours()
    best: tuple[tuple[bool, float], Tuned] | None = None
    for rising in _parameters_to_try(plan):
        for parameters in rising:
            started = time.perf_counter()
            found = answers(index, parameters, truth)
            cost = time.perf_counter() - started
            at_1, at_10 = found_share(found, neighbours)
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


def vectors_at(index: faiss.Index, positions: Positions) -> Vectors:
    """Stored vectors as the index keeps them, rounded to its precision: float32 [n, d]."""
    rows: Vectors = index.reconstruct_batch(positions)
    return rows
