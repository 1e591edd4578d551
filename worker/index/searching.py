"""Asking an index: the parameters of a search in FAISS's form, and what it finds. Knows FAISS, not files.

Parameters are numbers by their names in a manifest: `nprobe` and `k_factor` of inverted lists, `ef_search` of a graph.
"""

from __future__ import annotations

import math
import threading

import faiss
import numpy as np
import numpy.typing as npt

from worker.core.vectors import Vectors

#: A vector is known by its position, which is the order in which it was added.
Positions = npt.NDArray[np.int64]
Similarities = npt.NDArray[np.float32]
Parameters = dict[str, float]

#: recall is measured at this many neighbours.
RECALL_K = 10
#: Parameters are tuned for RECALL_K neighbours and good for some more.
TUNED_UP_TO = 32

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


def all_vectors(index: faiss.Index) -> faiss.Index:
    """The part of an index that has every vector, one after the other: what is searched there is compared exactly but
    for its rounding."""
    if isinstance(index, faiss.IndexRefine):
        return index.refine_index
    return index.storage if isinstance(index, faiss.IndexHNSW) else index


def vectors_at(index: faiss.Index, positions: Positions) -> Vectors:
    """Stored vectors as the index keeps them, rounded to its precision: float32 [n, d]."""
    rows: Vectors = index.reconstruct_batch(positions)
    return rows
