"""The live index of a process: published generation (base), what happened since (delta), what is gone (tombstones).

A search runs on one immutable View. `catch_up` makes the next View under a lock: it pulls the change log after the
watermark, and maps a newly published generation; who calls it meanwhile waits.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace

import faiss
import numpy as np
import numpy.typing as npt

from worker.core.ports import Store
from worker.core.types import Change, Changes, Neighbours
from worker.core.vectors import Ids, Vector, Vectors
from worker.errors import BadGeneration
from worker.index.generation import Generation, GenerationFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class View:
    """What one search sees. No array in it is ever changed."""

    base: Generation | None
    hidden: npt.NDArray[np.bool_]  #: [base count], rows that the delta replaces or a removal took
    hidden_count: int
    delta_ids: Ids
    delta: Vectors
    seq: int

    @property
    def number(self) -> int | None:
        return None if self.base is None else self.base.manifest.number


class FaissLiveIndex:
    """See worker.core.ports.LiveIndex."""

    def __init__(self, store: Store, folder: GenerationFolder, *, model_key: str, dimension: int, threads: int) -> None:
        faiss.omp_set_num_threads(threads)
        self._store = store
        self._folder = folder
        self._model_key = model_key
        self._dimension = dimension
        self._writer = threading.Lock()
        self._view: View | None = None
        #: Generations that could not be opened: said once, not at every search.
        self._unusable: set[int] = set()

    @property
    def generation(self) -> int | None:
        return None if self._view is None else self._view.number

    @property
    def count(self) -> int:
        view = self._view
        return 0 if view is None else len(view.hidden) - view.hidden_count + len(view.delta_ids)

    @property
    def delta_count(self) -> int:
        return 0 if self._view is None else len(self._view.delta_ids)

    def catch_up(self) -> int:
        """Apply everything that is committed; returns the watermark reached. Raises Transient without Postgres."""
        with self._writer:
            view = self._view or self._empty()
            while True:
                changes = self._store.changes_after(view.seq, self._model_key, self._dimension)
                base = self._newer_base(view, changes)
                if base is not None:
                    view = self._onto(base)
                elif view.seq < changes.log_start:
                    # The log no longer reaches back to this view, and no generation bridges the gap.
                    view = self._from_postgres()
                else:
                    self._view = _apply(view, changes.items, changes.seq)
                    return self._view.seq

    def search(self, query: Vector, k: int, *, only: Ids | None = None, exclude: Ids | None = None) -> Neighbours:
        """The k most similar photos, best first, equal ones by id.

        query: float32 [dimension] of length 1. only: search among these ids alone. exclude: never these.
        """
        view = self._view
        if view is None:
            self.catch_up()
            view = self._view
        assert view is not None
        found = [_search_base(view, query, k, only, exclude), _search_delta(view, query, only, exclude)]
        ids = np.concatenate([part[0] for part in found])
        similarities = np.concatenate([part[1] for part in found])
        best = np.lexsort((ids, -similarities))[:k]
        return Neighbours(ids=ids[best], similarities=similarities[best], generation=view.number, seq=view.seq)

    def _newer_base(self, view: View, changes: Changes) -> Generation | None:
        """The newest kept generation that is whole, unless this view stands on it already."""
        for number in changes.generations:
            if number == view.number:
                return None
            if number in self._unusable:
                continue
            try:
                base = self._folder.open(number, model_key=self._model_key)
            except BadGeneration as exc:
                self._unusable.add(number)
                log.error("generation refused, the one before serves", extra={"generation": number, "why": str(exc)})
                continue
            if base.manifest.seq >= changes.log_start:
                return base
            self._unusable.add(number)  # what happened since is forgotten
        return None

    def _empty(self) -> View:
        return View(
            base=None,
            hidden=np.zeros(0, dtype=np.bool_),
            hidden_count=0,
            delta_ids=np.zeros(0, dtype=np.int64),
            delta=np.zeros((0, self._dimension), dtype=np.float32),
            seq=0,
        )

    def _onto(self, base: Generation) -> View:
        log.info("generation mapped", extra={"generation": base.manifest.number, "count": base.manifest.count})
        return replace(
            self._empty(),
            base=base,
            hidden=np.zeros(base.manifest.count, dtype=np.bool_),
            seq=base.manifest.seq,
        )

    def _from_postgres(self) -> View:
        with self._store.snapshot(self._model_key, self._dimension) as snapshot:
            chunks = list(snapshot.chunks())
            log.warning("index read from Postgres, without a generation", extra={"count": snapshot.count})
            if not chunks:
                return replace(self._empty(), seq=snapshot.seq)
            return replace(
                self._empty(),
                delta_ids=np.concatenate([chunk.ids for chunk in chunks]),
                delta=np.concatenate([chunk.vectors for chunk in chunks]),
                seq=snapshot.seq,
            )


def _apply(view: View, items: list[Change], seq: int) -> View:
    """The view after some changes: each changed photo leaves base and delta, and comes back with its new vector."""
    if not items:
        return replace(view, seq=seq)
    changed = np.array([item.photo_id for item in items], dtype=np.int64)
    hidden = view.hidden
    if view.base is not None:
        positions = _positions(view.base.ids, changed)
        hidden = hidden.copy()
        hidden[positions] = True
    stay = ~np.isin(view.delta_ids, changed)
    put = [(item.photo_id, item.vector) for item in items if item.vector is not None]
    delta_ids, delta = view.delta_ids[stay], view.delta[stay]
    if put:
        delta_ids = np.concatenate([delta_ids, np.array([photo_id for photo_id, _ in put], dtype=np.int64)])
        delta = np.concatenate([delta, np.stack([vector for _, vector in put])])
    return View(view.base, hidden, int(hidden.sum()), delta_ids, delta, seq)


def _positions(sorted_ids: Ids, wanted: Ids) -> npt.NDArray[np.intp]:
    """Positions of those `wanted` ids that are there."""
    if not len(sorted_ids):
        return np.zeros(0, dtype=np.intp)
    positions = np.minimum(np.searchsorted(sorted_ids, wanted), len(sorted_ids) - 1)
    there: npt.NDArray[np.intp] = positions[sorted_ids[positions] == wanted]
    return there


def _search_base(
    view: View, query: Vector, k: int, only: Ids | None, exclude: Ids | None
) -> tuple[Ids, npt.NDArray[np.float32]]:
    if view.base is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    ids = view.base.ids
    parameters = None
    if only is not None or view.hidden_count or (exclude is not None and len(exclude)):
        allowed = ~view.hidden
        if only is not None:
            among = np.zeros(len(ids), dtype=np.bool_)
            among[_positions(ids, only)] = True
            allowed &= among
        if exclude is not None:
            allowed[_positions(ids, exclude)] = False
        # An argument of this call; a field set on the shared index would change other threads' searches.
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        parameters = faiss.SearchParameters(sel=selector)
    similarities, positions = view.base.index.search(query[None, :], min(k, max(len(ids), 1)), params=parameters)
    there = positions[0] >= 0
    return ids[positions[0][there]], similarities[0][there]


def _search_delta(
    view: View, query: Vector, only: Ids | None, exclude: Ids | None
) -> tuple[Ids, npt.NDArray[np.float32]]:
    """All of the delta, which is small; the caller keeps the best."""
    allowed = np.ones(len(view.delta_ids), dtype=np.bool_)
    if only is not None:
        allowed &= np.isin(view.delta_ids, only)
    if exclude is not None:
        allowed &= ~np.isin(view.delta_ids, exclude)
    return view.delta_ids[allowed], (view.delta @ query)[allowed]
