"""What filters ask of photos, in columns by their position in the index. Knows numpy and a directory, not FAISS or SQL.

<folder>/places.npy      float64 [2, n]: latitude and longitude, NaN where there are none
<folder>/sphere.npy      float32 [3, n]: the same on the unit sphere
<folder>/trusted.npy     bool [n]: whether the provenance is one of TRUSTED
<folder>/pairs.npy       [p]: each pair of metadata that many photos have, rising, and where its photos stand
<folder>/postings.npy    uint32: of each pair its positions, rising, or one bit a photo where that is shorter
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from worker.core.circle import Mask, Places, Sphere, unit_sphere, within
from worker.core.ports import Snapshot
from worker.core.types import Change, Filter
from worker.core.vectors import Ids, find_ids
from worker.index.pairs import pairs_of

PLACES, SPHERE, TRUSTED, PAIRS, POSTINGS = FILES = (
    "places.npy",
    "sphere.npy",
    "trusted.npy",
    "pairs.npy",
    "postings.npy",
)
#: A pair that fewer photos have is left to Postgres, which finds them by its own index in milliseconds. What a pair
#: takes beside its positions, 24 bytes, is then little, though photos may have numbers of their own.
COMMON = 20

#: uint64 [m], of pairs
Hashes = npt.NDArray[np.uint64]
#: uint32 [m], positions in the index
Rows = npt.NDArray[np.uint32]
_PAIR = np.dtype([("pair", "<u8"), ("start", "<u8"), ("end", "<u8")])


class Pairs(Protocol):
    """Which photos have a pair."""

    def knows(self, pair: int) -> bool:
        """Whether the answer is here."""
        ...

    def mask(self, pair: int) -> Mask: ...


@dataclass(frozen=True, slots=True)
class Columns:
    """Of n photos. Nothing in it ever changes."""

    places: Places
    sphere: Sphere
    trusted: Mask
    pairs: Pairs

    def knows(self, pairs: Sequence[int]) -> bool:
        return all(map(self.pairs.knows, pairs))

    def passing(self, among: Filter, pairs: Sequence[int]) -> Mask:
        """bool [n]: photos within the circle, trusted if asked, that have all these pairs, which are known."""
        masks = [self.pairs.mask(pair) for pair in pairs]
        if among.near is not None:
            masks.append(within(among.near, self.places, self.sphere))
        if not masks:
            masks.append(np.ones(len(self.trusted), dtype=np.bool_))
        if among.trusted_only:
            masks[0] &= self.trusted
        for other in masks[1:]:
            masks[0] &= other
        return masks[0]

    def warm(self) -> None:
        """Touch every page."""
        for column in (self.places, self.sphere, self.trusted):
            column.max(initial=0)


@dataclass(frozen=True, slots=True)
class Read:
    """Columns of a snapshot as they came: `hashes[i]` is a pair that the photo at position `rows[i]` has."""

    places: Places
    trusted: Mask
    hashes: Hashes
    rows: Rows


def read(snapshot: Snapshot, ids: Ids) -> Read:
    """What a snapshot knows of these photos. ids: rising."""
    places = np.full((2, len(ids)), np.nan)
    trusted = np.zeros(len(ids), dtype=np.bool_)
    for facts in snapshot.facts():
        at, known = find_ids(ids, facts.ids)
        places[:, at] = np.stack([facts.lat, facts.lon])[:, known]
        trusted[at] = facts.trusted[known]
    hashes, rows = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.uint32)]
    for documents in snapshot.documents():
        at, known = find_ids(ids, documents.ids)
        # Photos of one walk often say the same.
        pairs = {text: pairs_of(text) for text in set(documents.texts)}
        having = [pairs[text] for text, is_known in zip(documents.texts, known.tolist(), strict=True) if is_known]
        lengths = np.fromiter(map(len, having), dtype=np.int64, count=len(having))
        hashes.append(np.fromiter(chain.from_iterable(having), dtype=np.uint64, count=int(lengths.sum())))
        rows.append(np.repeat(at, lengths).astype(np.uint32))
    return Read(places, trusted, np.concatenate(hashes), np.concatenate(rows))


# ------------------------------------------------------------------------------------------------- of a generation


def write(folder: Path, columns: Read) -> None:
    """Write the files. They are whole when the caller has written their checksums."""
    count = len(columns.trusted)
    hashes, counts = np.unique(columns.hashes, return_counts=True)
    common = hashes[counts >= COMMON]
    at = np.minimum(np.searchsorted(common, columns.hashes), max(len(common) - 1, 0))
    kept = common[at] == columns.hashes if len(common) else np.zeros(len(at), dtype=np.bool_)
    pair, rows = at[kept], columns.rows[kept]
    order = np.lexsort((rows, pair))
    bounds = np.searchsorted(pair[order], np.arange(len(common) + 1))
    postings = [_posting(rows[order[start:end]], count) for start, end in pairwise(bounds.tolist())]
    ends = np.cumsum([0, *map(len, postings)])
    table = np.zeros(len(common), dtype=_PAIR)
    table["pair"], table["start"], table["end"] = common, ends[:-1], ends[1:]
    np.save(folder / PLACES, columns.places)
    np.save(folder / SPHERE, unit_sphere(columns.places))
    np.save(folder / TRUSTED, columns.trusted)
    np.save(folder / PAIRS, table)
    np.save(folder / POSTINGS, np.concatenate([np.zeros(0, dtype=np.uint32), *postings]))


def open_columns(folder: Path, count: int) -> Columns:
    """Map the files of `count` photos. Raises OSError and ValueError for files that are not these."""
    # Plain views: numpy's memmap class makes every small read of them slow.
    places, sphere, trusted, table, postings = (
        np.load(folder / name, mmap_mode="r", allow_pickle=False).view(np.ndarray) for name in FILES
    )
    if (places.shape, sphere.shape, trusted.shape) != ((2, count), (3, count), (count,)):
        raise ValueError(f"columns of {places.shape}, {sphere.shape} and {trusted.shape}, wanted are {count} photos")
    return Columns(places, sphere, trusted, CommonPairs(table, postings, count))


@dataclass(frozen=True, slots=True)
class CommonPairs:
    """Pairs that many photos have."""

    table: npt.NDArray[Any]  #: [p] of _PAIR
    postings: Rows
    count: int

    def knows(self, pair: int) -> bool:
        return self._at(pair) is not None

    def mask(self, pair: int) -> Mask:
        at = self._at(pair)
        assert at is not None
        posting = self.postings[self.table["start"][at] : self.table["end"][at]]
        if len(posting) == _words(self.count):
            bits = np.unpackbits(posting.view(np.uint8), count=self.count, bitorder="little")
            return bits.view(np.bool_)
        having = np.zeros(self.count, dtype=np.bool_)
        having[posting] = True
        return having

    def _at(self, pair: int) -> int | None:
        at = int(np.searchsorted(self.table["pair"], np.uint64(pair)))
        return at if at < len(self.table) and int(self.table["pair"][at]) == pair else None


def _words(count: int) -> int:
    """Of 32 bits that hold one bit a photo. A posting of that many is one of bits."""
    return -(-count // 32)


def _posting(rows: Rows, count: int) -> Rows:
    if len(rows) < _words(count):
        return rows
    bits = np.zeros(32 * _words(count), dtype=np.bool_)
    bits[rows] = True
    packed: Rows = np.packbits(bits, bitorder="little").view("<u4")
    return packed


# ----------------------------------------------------------------------------------------------------- of a delta


@dataclass(frozen=True, slots=True)
class AllPairs:
    """Every pair of every photo, in the order in which they came."""

    hashes: Hashes
    rows: Rows
    count: int

    def knows(self, pair: int) -> bool:
        return True

    def mask(self, pair: int) -> Mask:
        having = np.zeros(self.count, dtype=np.bool_)
        having[self.rows[self.hashes == np.uint64(pair)]] = True
        return having


class Growing:
    """Columns of photos that are appended in place, beyond the end of all Columns that were made before."""

    def __init__(self, room: int) -> None:
        self._places = np.full((2, room), np.nan)
        self._sphere = np.full((3, room), np.nan, dtype=np.float32)
        self._trusted = np.zeros(room, dtype=np.bool_)
        self._hashes = np.zeros(room, dtype=np.uint64)
        self._rows = np.zeros(room, dtype=np.uint32)
        self._used_pairs = 0

    def put(self, start: int, items: Sequence[Change]) -> None:
        """The photos at positions `start`, `start + 1` ..."""
        places = np.array([(item.lat, item.lon) for item in items], dtype=np.float64).T
        having = [() if item.metadata is None else pairs_of(item.metadata) for item in items]
        self.put_read(
            start,
            Read(
                places,
                np.array([item.trusted for item in items], dtype=np.bool_),
                np.fromiter(chain.from_iterable(having), dtype=np.uint64),
                np.repeat(np.arange(len(items), dtype=np.uint32), [len(pairs) for pairs in having]),
            ),
        )

    def put_read(self, start: int, columns: Read) -> None:
        end = start + len(columns.trusted)
        self._places, self._sphere = grown(self._places, end), grown(self._sphere, end)
        self._trusted = grown(self._trusted, end)
        self._places[:, start:end] = columns.places
        self._sphere[:, start:end] = unit_sphere(columns.places)
        self._trusted[start:end] = columns.trusted
        first, self._used_pairs = self._used_pairs, self._used_pairs + len(columns.hashes)
        self._hashes, self._rows = grown(self._hashes, self._used_pairs), grown(self._rows, self._used_pairs)
        self._hashes[first : self._used_pairs] = columns.hashes
        self._rows[first : self._used_pairs] = columns.rows + np.uint32(start)

    def upto(self, count: int) -> Columns:
        """The first `count` photos, which are all that were put."""
        pairs = AllPairs(self._hashes[: self._used_pairs], self._rows[: self._used_pairs], count)
        return Columns(self._places[:, :count], self._sphere[:, :count], self._trusted[:count], pairs)


def grown(column: npt.NDArray[Any], least: int, *, axis: int = -1) -> npt.NDArray[Any]:
    """An array with room for `least` along the axis: itself, or a copy of twice the size."""
    room = column.shape[axis]
    if least <= room:
        return column
    shape = list(column.shape)
    shape[axis] = max(2 * room, least)
    larger = np.zeros(shape, dtype=column.dtype)
    larger[tuple(map(slice, column.shape))] = column
    return larger
