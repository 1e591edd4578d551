"""What one search sees: a published generation (base), what happened since (delta), what is gone (tombstones).

A View never changes. Layers make the next one from what has changed. Knows neither Postgres nor threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import faiss
import numpy as np
import numpy.typing as npt

from worker.core.circle import Mask, Places
from worker.core.types import Change, Filter, Mark, Neighbours
from worker.core.vectors import SAME_PIXELS, Ids, Vector, Vectors, find_ids
from worker.index import searching
from worker.index.columns import Columns, Growing, grown
from worker.index.generation import Generation
from worker.index.kinds import Kind
from worker.index.pairs import wanted

#: Hidden photos that a search makes room for instead of telling FAISS to leave them out, which slows every comparison.
SPARE = 32
#: A filter that leaves so few vectors is answered by comparing all of them.
EXACT_FILTER = 20_000
#: Rows that an empty delta has room for; it doubles.
FIRST_ROOM = 256

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
    delta_columns: Columns
    mark: Mark  #: of the last change that is in it

    @property
    def seq(self) -> int:
        return self.mark.seq

    @property
    def number(self) -> int | None:
        return None if self.base is None else self.base.manifest.number

    @property
    def delta_count(self) -> int:
        return len(self.delta_ids) - self.delta_hidden_count

    @property
    def count(self) -> int:
        return len(self.hidden) - self.hidden_count + self.delta_count

    def search(
        self,
        query: Vector,
        k: int,
        *,
        passing: Passing | None = None,
        exclude: Ids | None = None,
        drop_copies: bool = False,
        exact: bool = False,
    ) -> Neighbours:
        """The k most similar photos, best first, equal ones by id.

        query: float32 [dimension] of length 1. passing: search among these alone (see `passing`). exclude:
        never these. drop_copies: leave out photos of the query's own pixels, as many as are known to be such. exact:
        compare with every vector, whatever the kind.
        Similarities of the base are those of its rounded vectors (see kinds), of the delta exact.
        """
        searching.use_threads(1)
        ids, similarities = _search_base(self, query, k, passing, exclude, drop_copies, exact)
        if len(self.delta_ids):
            newer_ids, newer = _search_delta(self, query, passing, exclude, drop_copies)
            ids, similarities = np.concatenate([ids, newer_ids]), np.concatenate([similarities, newer])
        best = np.lexsort((ids, -similarities))[:k]
        return Neighbours(ids[best], similarities[best], generation=self.number, seq=self.seq, count=self.count)

    def vectors_of(self, photo_ids: Ids) -> Vectors:
        """float32 [n, d]: photos' vectors as they are searched, see `search`; NaN of those that are not there."""
        vectors = np.full((len(photo_ids), self.delta.shape[1]), np.nan, dtype=np.float32)
        if self.base is not None:
            at, there = find_ids(self.base.ids, photo_ids)
            shown = ~self.hidden[at]
            if shown.any():
                vectors[np.flatnonzero(there)[shown]] = searching.vectors_at(self.base.index, at[shown])
        at, there = self._in_delta(photo_ids)
        vectors[there] = self.delta[at]
        return vectors

    def places_of(self, photo_ids: Ids) -> Places:
        """float64 [2, n]: where photos lie, NaN where that is not known."""
        places = np.full((2, len(photo_ids)), np.nan)
        if self.base is not None and self.base.columns is not None:
            at, there = find_ids(self.base.ids, photo_ids)
            places[:, there] = self.base.columns.places[:, at]
        at, there = self._in_delta(photo_ids)
        places[:, there] = self.delta_columns.places[:, at]
        return places

    def _in_delta(self, photo_ids: Ids) -> tuple[npt.NDArray[np.intp], Mask]:
        """As find_ids: the rows of those that are there, and which these are."""
        rows = np.flatnonzero(~self.delta_hidden)
        rising = rows[np.argsort(self.delta_ids[rows])]
        at, there = find_ids(self.delta_ids[rising], photo_ids)
        return rising[at], there

    def passing(self, among: Filter, ids_where: Callable[[Filter], Ids]) -> Passing:
        """Where the photos stand that pass a filter and are not hidden.

        ids_where: asks Postgres, for what the columns do not know: pairs of metadata that few photos have, documents
        that pairs cannot say, and all that is asked of a generation without columns.
        """
        pairs = wanted(among.where) if among.where else ()
        columns = None if self.base is None else self.base.columns
        ids = None
        if self.base is not None and columns is None:
            ids = ids_where(among)
        elif pairs is None or (columns is not None and not columns.knows(pairs)):
            ids = ids_where(Filter(where=among.where))
        base = ~self.hidden
        if columns is not None:
            base &= columns.passing(among, pairs if pairs is not None and columns.knows(pairs) else ())
        if self.base is not None and ids is not None:
            named = np.zeros(len(base), dtype=np.bool_)
            named[find_ids(self.base.ids, ids)[0]] = True
            base &= named
        delta = ~self.delta_hidden
        delta &= self.delta_columns.passing(among, pairs or ())
        if pairs is None and ids is not None:
            delta &= np.isin(self.delta_ids, ids)
        return Passing(base, delta)


@dataclass(frozen=True, slots=True)
class Passing:
    """The photos of one View that pass a filter and are not hidden."""

    base: Mask
    delta: Mask


@dataclass
class Layers:
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
        self.columns = Growing(self.room)

    def put(self, ids: Ids, vectors: Vectors) -> None:
        """Append photos that are in no layer yet. What the columns know of them comes to `columns`."""
        end = self.used + len(ids)
        self.ids, self.delta_hidden = grown(self.ids, end), grown(self.delta_hidden, end)
        self.vectors = grown(self.vectors, end, axis=0)
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
            positions = find_ids(self.base.ids, changed)[0]
            if not self.hidden[positions].all():
                self.hidden = self.hidden.copy()
                self.hidden[positions] = True
        replaced = [self.rows.pop(item.photo_id) for item in items if item.photo_id in self.rows]
        if replaced:
            self.delta_hidden = self.delta_hidden.copy()
            self.delta_hidden[replaced] = True
        new = [item for item in items if item.vector is not None]
        if new:
            self.columns.put(self.used, new)
            self.put(
                np.array([item.photo_id for item in new], dtype=np.int64),
                np.stack([item.vector for item in new if item.vector is not None]),
            )

    def view(self, mark: Mark) -> View:
        delta_hidden = self.delta_hidden[: self.used]
        return View(
            base=self.base,
            hidden=self.hidden,
            hidden_count=int(self.hidden.sum()),
            delta_ids=self.ids[: self.used],
            delta=self.vectors[: self.used],
            delta_hidden=delta_hidden,
            delta_hidden_count=int(delta_hidden.sum()),
            delta_columns=self.columns.upto(self.used),
            mark=mark,
        )


def _search_base(
    view: View,
    query: Vector,
    k: int,
    passing: Passing | None,
    exclude: Ids | None,
    drop_copies: bool,
    exact: bool,
) -> tuple[Ids, npt.NDArray[np.float32]]:
    base = view.base
    if base is None or not base.manifest.count:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    out = NO_POSITIONS
    if exclude is not None and len(exclude):
        out, _ = find_ids(base.ids, exclude)
    if drop_copies:
        out = np.concatenate([out, base.copies.of(query, SAME_PIXELS)])
    if len(out):
        # Counted below, so each once.
        out = np.unique(out[~view.hidden[out]])
    if passing is None and not exact:
        blocked = view.hidden_count + len(out)
        # What is left out lies next to the query; what is gone lies anywhere.
        if len(out) <= SPARE:
            similarities, positions = base.search(query[None, :], min(k + min(blocked, SPARE), len(base.ids)))
            if not blocked:
                return base.ids[positions], similarities
            stay = ~view.hidden[positions] & ~np.isin(positions, out)
            stays = int(np.count_nonzero(stay))
            # Where as many are gone as are wanted, the others lie farther away than such a search looks well.
            enough = stays >= min(k, len(base.ids) - blocked) and len(stay) - stays <= k
            if blocked <= SPARE or enough:
                return base.ids[positions[stay]], similarities[stay]
    allowed = ~view.hidden if passing is None else passing.base.copy()
    allowed[out] = False
    left = int(np.count_nonzero(allowed))
    if not left:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    few = passing is not None and left <= EXACT_FILTER
    # A graph walks among what is left out and does not get past it.
    if exact or few or (len(out) > SPARE and base.manifest.kind == Kind.HNSW):
        similarities, positions = base.search_all(query[None, :], min(k, left), _bitmap(allowed))
    else:
        similarities, positions = base.search(query[None, :], min(k, left), selector=_bitmap(allowed), passing=left)
    return base.ids[positions], similarities


def _bitmap(allowed: Mask) -> faiss.IDSelector:
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def _search_delta(
    view: View, query: Vector, passing: Passing | None, exclude: Ids | None, drop_copies: bool
) -> tuple[Ids, npt.NDArray[np.float32]]:
    """All of the delta, which is small; the caller keeps the best."""
    similarities = view.delta @ query
    allowed = ~view.delta_hidden if passing is None else passing.delta
    if exclude is not None:
        allowed = allowed & ~np.isin(view.delta_ids, exclude)
    if drop_copies:
        allowed = allowed & (similarities < SAME_PIXELS)
    return view.delta_ids[allowed], similarities[allowed]
