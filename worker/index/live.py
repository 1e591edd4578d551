"""The live index of a process: published generation (base), what happened since (delta), what is gone (tombstones).

A search runs on one immutable View and never waits. `catch_up` makes the next View from the change log. A newly
published generation is checked, mapped, warmed and brought up to date by a thread of its own before one reference
moves; the old one is let go when the last search on it has ended.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import faiss
import numpy as np
import numpy.typing as npt

from worker.core.ports import Log
from worker.core.types import Change, Changes, Neighbours
from worker.core.vectors import Ids, Vector, Vectors
from worker.errors import BadGeneration, Transient, WorkerError
from worker.index import kinds
from worker.index.folder import GenerationFolder
from worker.index.generation import Generation

log = logging.getLogger(__name__)

#: Hidden photos that a search makes room for instead of telling FAISS to leave them out, which slows every comparison.
SPARE = 32
#: Of the thread that checks and warms a new generation; 19 is the last in line.
LOADER_NICENESS = 10
#: Rows that an empty delta has room for; it doubles.
FIRST_ROOM = 256

Mask = npt.NDArray[np.bool_]
NO_POSITIONS = np.zeros(0, dtype=np.intp)


@dataclass(frozen=True, slots=True)
class View:
    """What one search sees. Nothing in it ever changes."""

    base: Generation | None
    hidden: Mask  #: [base count], rows that the delta replaces or a removal took
    hidden_count: int
    delta_ids: Ids  #: [n]
    delta: Vectors  #: [n, d]
    delta_hidden: Mask  #: [n], rows that a later one replaces or a removal took
    delta_hidden_count: int
    seq: int

    @property
    def number(self) -> int | None:
        return None if self.base is None else self.base.manifest.number

    @property
    def delta_count(self) -> int:
        return len(self.delta_ids) - self.delta_hidden_count

    @property
    def count(self) -> int:
        return len(self.hidden) - self.hidden_count + self.delta_count


@dataclass
class _Layers:
    """A base and what was put over it. Written by one thread at a time; makes Views that stay as they are.

    Rows of the delta are appended in place, beyond the end of every View that was made before.
    """

    base: Generation | None
    dimension: int
    room: int = FIRST_ROOM
    used: int = 0
    rows: dict[int, int] = field(default_factory=dict)  #: photo id to its row in the delta

    def __post_init__(self) -> None:
        self.ids: Ids = np.zeros(self.room, dtype=np.int64)
        self.vectors: Vectors = np.zeros((self.room, self.dimension), dtype=np.float32)
        self.hidden: Mask = np.zeros(0 if self.base is None else self.base.manifest.count, dtype=np.bool_)
        self.delta_hidden: Mask = np.zeros(self.room, dtype=np.bool_)

    def put(self, ids: Ids, vectors: Vectors) -> None:
        """Append photos that are in no layer yet."""
        self._make_room(len(ids))
        end = self.used + len(ids)
        self.ids[self.used : end] = ids
        self.vectors[self.used : end] = vectors
        self.rows.update(zip(ids.tolist(), range(self.used, end), strict=True))
        self.used = end

    def apply(self, items: Sequence[Change]) -> None:
        """Each changed photo leaves base and delta, and comes back with its new vector if it has one."""
        if not items:
            return
        if self.base is not None:
            changed = np.array([item.photo_id for item in items], dtype=np.int64)
            positions = _positions(self.base.ids, changed)
            if not self.hidden[positions].all():
                self.hidden = self.hidden.copy()
                self.hidden[positions] = True
        replaced = [self.rows.pop(item.photo_id) for item in items if item.photo_id in self.rows]
        if replaced:
            self.delta_hidden = self.delta_hidden.copy()
            self.delta_hidden[replaced] = True
        new = [(item.photo_id, item.vector) for item in items if item.vector is not None]
        if new:
            self.put(
                np.array([photo_id for photo_id, _ in new], dtype=np.int64), np.stack([vector for _, vector in new])
            )

    def view(self, seq: int) -> View:
        delta_hidden = self.delta_hidden[: self.used]
        return View(
            base=self.base,
            hidden=self.hidden,
            hidden_count=int(self.hidden.sum()),
            delta_ids=self.ids[: self.used],
            delta=self.vectors[: self.used],
            delta_hidden=delta_hidden,
            delta_hidden_count=int(delta_hidden.sum()),
            seq=seq,
        )

    def _make_room(self, more: int) -> None:
        if self.used + more <= len(self.ids):
            return
        room = max(2 * len(self.ids), self.used + more)
        ids = np.zeros(room, dtype=np.int64)
        vectors = np.zeros((room, self.dimension), dtype=np.float32)
        hidden = np.zeros(room, dtype=np.bool_)
        ids[: self.used], vectors[: self.used] = self.ids[: self.used], self.vectors[: self.used]
        hidden[: self.used] = self.delta_hidden[: self.used]
        self.ids, self.vectors, self.delta_hidden = ids, vectors, hidden


class FaissLiveIndex:
    """See worker.core.ports.LiveIndex."""

    def __init__(self, changes: Log, folder: GenerationFolder, *, model_key: str, dimension: int) -> None:
        self._changes = changes
        self._folder = folder
        self._model_key = model_key
        self._dimension = dimension
        self._writer = threading.Lock()
        self._layers: _Layers | None = None
        self._view: View | None = None
        self._caught_up = float("-inf")  #: when the newest finished catch-up began, by time.monotonic
        self._loader: threading.Thread | None = None
        self._follower: threading.Thread | None = None
        self._closed = threading.Event()
        #: Generations that could not be opened: said once, not at every search.
        self._unusable: set[int] = set()

    @property
    def generation(self) -> int | None:
        return None if self._view is None else self._view.number

    @property
    def seq(self) -> int:
        return 0 if self._view is None else self._view.seq

    @property
    def count(self) -> int:
        return 0 if self._view is None else self._view.count

    @property
    def delta_count(self) -> int:
        return 0 if self._view is None else self._view.delta_count

    @property
    def kind(self) -> str | None:
        return None if self._view is None or self._view.base is None else self._view.base.manifest.kind

    @property
    def recall_at_10(self) -> float | None:
        return None if self._view is None or self._view.base is None else self._view.base.manifest.recall_at_10

    def catch_up(self, *, max_age_s: float = 0.0) -> int:
        """Apply everything that was committed `max_age_s` before this call or earlier; returns the watermark.

        Raises Transient without Postgres.
        """
        wanted = time.monotonic() - max_age_s
        if self._view is None or self._caught_up < wanted:
            with self._writer:
                # Who waited here finds that the one before has done it.
                if self._view is None or self._caught_up < wanted:
                    self._catch_up()
        return self.seq

    def settle(self, timeout_s: float = 60.0) -> None:
        """Catch up, and wait until a published generation that is on its way has become the base."""
        self.catch_up()
        loader = self._loader
        if loader is not None:
            loader.join(timeout_s)

    def follow(self, every_s: float) -> None:
        """Keep up without being asked: a process that nobody searches lets go of old generations too."""
        self._follower = threading.Thread(target=self._follow, args=(every_s,), name="follow", daemon=True)
        self._follower.start()

    def close(self) -> None:
        """Stop following, and wait for the thread that brings a generation, if there is one."""
        self._closed.set()
        if self._follower is not None:
            self._follower.join()
        loader = self._loader
        if loader is not None:
            loader.join()

    def search(self, query: Vector, k: int, *, only: Ids | None = None, exclude: Ids | None = None) -> Neighbours:
        """The k most similar photos, best first, equal ones by id.

        query: float32 [dimension] of length 1. only: search among these ids alone. exclude: never these.
        Similarities of the base are those of its rounded vectors (see kinds), of the delta exact.
        """
        if self._view is None:
            self.catch_up()
        view = self._view
        assert view is not None
        kinds.use_threads(1)
        ids, similarities = _search_base(view, query, k, only, exclude)
        if len(view.delta_ids):
            newer_ids, newer = _search_delta(view, query, only, exclude)
            ids, similarities = np.concatenate([ids, newer_ids]), np.concatenate([similarities, newer])
        best = np.lexsort((ids, -similarities))[:k]
        return Neighbours(ids=ids[best], similarities=similarities[best], generation=view.number, seq=view.seq)

    # ---------------------------------------------------------------------------------- becoming newer

    def _follow(self, every_s: float) -> None:
        while not self._closed.wait(every_s):
            try:
                # A model that is still being filled has no generation: nothing is read before somebody searches.
                if self._view is not None or self._changes_after(0, vectors=False).generations:
                    self.catch_up(max_age_s=every_s / 2)
            except WorkerError as exc:
                # A search would say the same to its caller.
                log.warning("index not caught up", extra={"code": exc.code, "why": exc.message})

    def _catch_up(self) -> None:
        began = time.monotonic()
        if self._layers is None:
            self._start()
        else:
            changes = self._changes_after(self.seq)
            if not changes.reach_back_to(self.seq):
                self._start()
            else:
                self._layers.apply(changes.items)
                self._view = self._layers.view(changes.seq)
                self._look_for_newer(changes.generations)
        self._caught_up = began

    def _start(self) -> None:
        """From nothing: the newest generation that is whole, or all of Postgres, and what came after it."""
        changes = self._changes_after(0, vectors=False)
        for number in changes.generations:
            base = self._open(number)
            served = None if base is None else self._onto(base)
            if served is not None:
                self._layers, self._view = served
                return
        self._layers, self._view = self._from_postgres()

    def _look_for_newer(self, generations: list[int]) -> None:
        """Bring the generation that should serve, if it is another one, in a thread of its own."""
        wanted = next((number for number in generations if number not in self._unusable), None)
        if wanted is None or wanted == self.generation or (self._loader is not None and self._loader.is_alive()):
            return
        self._folder.forget_before(min(generations))
        self._loader = threading.Thread(target=self._bring, args=(wanted,), name="generation", daemon=True)
        self._loader.start()

    def _bring(self, number: int) -> None:
        # Searches first: on Linux, a thread has a niceness of its own.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOADER_NICENESS)
        base = self._open(number)
        if base is None:
            return
        try:
            base.warm()
            served = self._onto(base)
            if served is None:
                return
            layers, view = served
            with self._writer:
                # What came while the rest was applied is little.
                changes = self._changes_after(view.seq)
                if not changes.reach_back_to(view.seq):
                    return
                layers.apply(changes.items)
                self._layers, self._view = layers, layers.view(changes.seq)
        except Transient as exc:
            log.warning("generation waits for Postgres", extra={"generation": number, "why": exc.message})
            return
        log.info("generation mapped", extra={"generation": number, "count": base.manifest.count})

    def _open(self, number: int) -> Generation | None:
        if number in self._unusable:
            return None
        try:
            return self._folder.open(number, model_key=self._model_key)
        except BadGeneration as exc:
            self._unusable.add(number)
            log.error("generation refused, the one before serves", extra={"generation": number, "why": exc.message})
        except Transient as exc:
            log.warning("generation cannot be had yet", extra={"generation": number, "why": exc.message})
        return None

    def _onto(self, base: Generation) -> tuple[_Layers, View] | None:
        """The base with what came after it; None where the log does not reach back to it any more."""
        changes = self._changes_after(base.manifest.seq)
        if not changes.reach_back_to(base.manifest.seq):
            self._unusable.add(base.manifest.number)
            return None
        layers = _Layers(base, self._dimension)
        layers.apply(changes.items)
        return layers, layers.view(changes.seq)

    def _from_postgres(self) -> tuple[_Layers, View]:
        with self._changes.snapshot(self._model_key, self._dimension) as snapshot:
            layers = _Layers(None, self._dimension, room=max(FIRST_ROOM, snapshot.count))
            for chunk in snapshot.chunks():
                layers.put(chunk.ids, chunk.vectors)
            if snapshot.count:
                log.warning("index read from Postgres, without a generation", extra={"count": snapshot.count})
            return layers, layers.view(snapshot.seq)

    def _changes_after(self, seq: int, *, vectors: bool = True) -> Changes:
        return self._changes.changes_after(seq, self._model_key, self._dimension, items=vectors)


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
    base = view.base
    if base is None or not base.manifest.count:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    out = NO_POSITIONS
    if exclude is not None and len(exclude):
        out = _positions(base.ids, exclude)
        out = out[~view.hidden[out]]
    if only is not None:
        allowed = np.zeros(len(base.ids), dtype=np.bool_)
        allowed[_positions(base.ids, only)] = True
        allowed &= ~view.hidden
        allowed[out] = False
        positions = np.flatnonzero(allowed)
        if not len(positions):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        if len(positions) <= kinds.EXACT_FILTER:
            return base.ids[positions], kinds.vectors_at(base.index, positions) @ query
        similarities, positions = base.search(
            query[None, :],
            min(k, len(positions)),
            selector=_bitmap(allowed),
            passing=len(positions),
        )
        return base.ids[positions], similarities
    blocked = view.hidden_count + len(out)
    similarities, positions = base.search(query[None, :], min(k + min(blocked, SPARE), len(base.ids)))
    if not blocked:
        return base.ids[positions], similarities
    stay = ~view.hidden[positions] & ~np.isin(positions, out)
    if blocked > SPARE and stay.sum() < min(k, len(base.ids) - blocked):
        allowed = ~view.hidden
        allowed[out] = False
        passing = len(base.ids) - blocked
        similarities, positions = base.search(
            query[None, :], min(k, passing), selector=_bitmap(allowed), passing=passing
        )
        return base.ids[positions], similarities
    return base.ids[positions[stay]], similarities[stay]


def _bitmap(allowed: Mask) -> faiss.IDSelector:
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def _search_delta(
    view: View, query: Vector, only: Ids | None, exclude: Ids | None
) -> tuple[Ids, npt.NDArray[np.float32]]:
    """All of the delta, which is small; the caller keeps the best."""
    allowed = ~view.delta_hidden
    if only is not None:
        allowed &= np.isin(view.delta_ids, only)
    if exclude is not None:
        allowed &= ~np.isin(view.delta_ids, exclude)
    return view.delta_ids[allowed], (view.delta @ query)[allowed]
