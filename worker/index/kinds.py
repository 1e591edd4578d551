"""Kinds of index: which one for how many vectors, and how it is trained. Knows FAISS, not files.

    exact   every vector as float16 (float32 where that changes an answer), compared one by one
    ivf     inverted lists of 4-bit product-quantizer codes, scanned in registers (Andre, Kermarrec, Le Scouarnec,
            "Cache locality is not enough", VLDB 2015); the best are compared again by 8- or 16-bit vectors
    hnsw    a navigable graph over 8-bit vectors (Malkov and Yashunin, 2016)

Vectors have length 1, so that the inner product is the cosine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import faiss
import numpy as np

from producer_client.contract import Code
from worker.core.vectors import Vectors
from worker.errors import Permanent

#: Approximate kinds are trained; on fewer vectors than this they would learn nothing and save nothing.
LEAST_FOR_TRAINING = 1_000
#: Training vectors for each inverted list. Half of what FAISS recommends: twice the lists serve better than twice the
#: training, and k-means over more would be most of a rebuild.
TRAINED_PER_LIST = 20
KMEANS_ITERATIONS = 6
#: FAISS's SuperKMeans takes no vectors of fewer numbers.
LEAST_FOR_PRUNING = 32
#: What 4-bit codes are made of: their 16 values settle after few rounds over few vectors.
CODE_ITERATIONS, CODES_TRAINED_ON = 8, 10_000
#: From so many lists on, their centres are compared by 4-bit codes first.
CENTRES_BY_CODES = 2048
#: So many times more centres than wanted are compared again exactly, for a photo to add and for a query.
CENTRES_AGAIN_ADD, CENTRES_AGAIN_SEARCH = 32, 4
#: The range of 8-bit numbers goes so far beyond what the training has seen, in shares of it, on both sides: what lies
#: outside is cut off. With 0.15, photos of places that the training had not seen had a cosine of 0.95 with themselves.
ROOM_OF_8_BITS = 0.25
#: float16 changes answers when it loses more than this share of the true neighbours.
CHANGES_ANSWERS = 0.001
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
        _leave_room(faiss.downcast_index(index.storage))
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
    """Inverted lists around centres of spherical k-means, which leaves out most of what it need not compare (Kuffo and
    others, "A super fast k-means for indexing vector embeddings", 2026): as good centres as plain k-means in half the
    time.

    Many centres are compared by 4-bit codes first, as the photos themselves are: comparing a query with 8192 of them
    exactly would cost as much as the rest of the search.
    """
    how = faiss.SuperKMeansParameters()
    how.niter = KMEANS_ITERATIONS
    how.spherical = True
    how.min_points_per_centroid = 1
    how.max_points_per_centroid = 2 * TRAINED_PER_LIST
    if dimension >= LEAST_FOR_PRUNING:
        clustering = faiss.SuperKMeans(dimension, plan.lists, how)
        clustering.train(sample)
    else:
        clustering = faiss.Clustering(dimension, plan.lists, how)
        clustering.train(sample, faiss.IndexFlatIP(dimension))
    centres = faiss.vector_to_array(clustering.centroids).reshape(plan.lists, dimension)
    if plan.lists >= CENTRES_BY_CODES:
        quantizer = faiss.index_factory(dimension, f"PQ{plan.codes}x4fs,RFlat", faiss.METRIC_INNER_PRODUCT)
        faiss.downcast_index(quantizer.base_index).pq.cp.niter = CODE_ITERATIONS
        quantizer.train(centres)
        quantizer.k_factor = CENTRES_AGAIN_ADD
    else:
        quantizer = faiss.IndexFlatIP(dimension)
    quantizer.add(centres)
    lists = faiss.IndexIVFPQFastScan(quantizer, dimension, plan.lists, plan.codes, 4, faiss.METRIC_INNER_PRODUCT)
    # Codes of what a photo differs from its centre by: they say more, and half as many need to be compared again.
    lists.by_residual = True
    lists.pq.cp.niter = CODE_ITERATIONS
    # From all over the sample, which may lie in the order in which photos came.
    lists.train(np.ascontiguousarray(sample[:: max(1, len(sample) // CODES_TRAINED_ON)]))
    again = faiss.index_factory(dimension, plan.refined, faiss.METRIC_INNER_PRODUCT)
    _leave_room(again)
    again.train(sample)
    return faiss.IndexRefine(lists, again)


def _leave_room(stored: faiss.IndexScalarQuantizer) -> None:
    """Of 16-bit numbers it makes no difference."""
    stored.sq.rangestat = faiss.ScalarQuantizer.RS_minmax
    stored.sq.rangestat_arg = ROOM_OF_8_BITS
