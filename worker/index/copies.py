"""Many vectors that are almost the same, found while an index is built: a thousand files of one picture.

They stand before everything else that a search for that picture wants, and a search that met them a few at a time would
take as many rounds. Knows numpy and a file, neither FAISS nor photos.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from worker.core.vectors import Vector, Vectors

#: Fewer copies than this are passed over as a search meets them.
LEAST = 16
#: Vectors of one cell that make it worth a group, which the first few, gone by, are not in.
CROWD = 4
#: Groups that are kept: each costs a vector of memory, and a comparison for every search by a photo.
MOST_GROUPS = 4_000
#: Directions that vectors are compared along first, and how near they must be along each. Vectors that differ by
#: rounding fall into one cell but for one in a hundred thousand; strangers meet in none.
DIRECTIONS, CELL = 8, 0.005
#: Farther from the first one than this is no copy; see worker.core.vectors.SAME_PIXELS.
REACH = 1e-3
#: Cosines of float32 vectors are off by so much at the most, by the order in which they are summed up.
ROUNDING = 5e-7

Found = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Copies:
    """Groups of vectors, each around its centre: what was seen of one generation."""

    centres: Vectors  #: [groups, d]
    ends: Found  #: [groups], where each group's members end in the arrays below
    positions: Found  #: [members]
    distances: npt.NDArray[np.float32]  #: [members], from the centre

    def of(self, query: Vector, at_least: float) -> Found:
        """Positions whose vectors surely have such a cosine with the query, rising. Some that have it may lack."""
        if not len(self.ends):
            return self.positions
        # On the unit sphere the square of a distance is 2 - 2 cosine.
        limit = np.sqrt(max(0.0, 2 * (1 - at_least - ROUNDING)))
        away = np.sqrt(np.maximum(0, 2 - 2 * (self.centres @ query - ROUNDING)))
        near = np.flatnonzero(away <= limit)
        found = []
        for group in near:
            members = slice(int(self.ends[group - 1]) if group else 0, int(self.ends[group]))
            found.append(self.positions[members][self.distances[members] + away[group] <= limit])
        return np.sort(np.concatenate(found)) if found else self.positions[:0]

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, centres=self.centres, ends=self.ends, positions=self.positions, distances=self.distances)

    @classmethod
    def read(cls, path: Path) -> Copies:
        """Raises ValueError, KeyError or OSError. Only for files whose bytes were checked."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["centres"], arrays["ends"], arrays["positions"], arrays["distances"])


NONE = Copies(
    np.zeros((0, 0), dtype=np.float32),
    np.zeros(0, dtype=np.int64),
    np.zeros(0, dtype=np.int64),
    np.zeros(0, dtype=np.float32),
)


class Seen:
    """Looks for copies while all vectors pass by once. Holds 12 bytes a vector, and one vector of each group."""

    def __init__(self, dimension: int) -> None:
        rng = np.random.default_rng(0)
        directions = np.linalg.qr(rng.standard_normal((dimension, min(DIRECTIONS, dimension))))[0]
        self._directions = (directions / CELL).astype(np.float32)
        self._mixed = rng.integers(1, 2**63, size=directions.shape[1], dtype=np.uint64) | np.uint64(1)
        #: Of all vectors so far: the keys of their cells, rising, and how many have each.
        self._keys = np.zeros(0, dtype=np.uint64)
        self._counts = np.zeros(0, dtype=np.int32)
        self._groups: dict[int, _Group] = {}

    def see(self, start: int, vectors: Vectors) -> None:
        """Take the vectors at positions `start`, `start + 1` ... into account. vectors: float32 [n, d]."""
        cells = np.floor(vectors @ self._directions).astype(np.int64).astype(np.uint64)
        keys = (cells * self._mixed).sum(axis=1, dtype=np.uint64)
        for key in self._crowded(keys).tolist():
            members = np.flatnonzero(keys == key)
            group = self._group(key, vectors[members[0]])
            if group is not None:
                group.take(members + start, vectors[members])

    def copies(self) -> Copies:
        """The groups that are large enough to matter."""
        large = [group.all() for group in self._groups.values() if len(group) >= LEAST]
        if not large:
            return NONE
        return Copies(
            np.stack([centre for centre, _, _ in large]),
            np.cumsum([len(positions) for _, positions, _ in large], dtype=np.int64),
            np.concatenate([positions for _, positions, _ in large]),
            np.concatenate([distances for _, _, distances in large]),
        )

    def _crowded(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Those of the keys that have been seen often by now."""
        unique, counts = np.unique(keys, return_counts=True)
        at = np.searchsorted(self._keys, unique)
        known = np.zeros(len(unique), dtype=np.bool_)
        if len(self._keys):
            known = self._keys[np.minimum(at, len(self._keys) - 1)] == unique
        self._counts[at[known]] += counts[known].astype(np.int32)
        self._keys = np.insert(self._keys, at[~known], unique[~known])
        self._counts = np.insert(self._counts, at[~known], counts[~known])
        return unique[self._counts[np.searchsorted(self._keys, unique)] >= CROWD]

    def _group(self, key: int, first: Vector) -> _Group | None:
        if key not in self._groups:
            if len(self._groups) >= MOST_GROUPS:
                self._groups = {key: group for key, group in self._groups.items() if len(group) >= LEAST}
            if len(self._groups) >= MOST_GROUPS:
                return None
            self._groups[key] = _Group(first.copy())
        return self._groups[key]


class _Group:
    """Vectors of one cell that lie within REACH of the first of them that came in a crowd."""

    def __init__(self, centre: Vector) -> None:
        self._centre = centre
        self._positions: list[Found] = []
        self._distances: list[npt.NDArray[np.float32]] = []

    def __len__(self) -> int:
        return sum(len(part) for part in self._positions)

    def take(self, positions: Found, vectors: Vectors) -> None:
        distances = np.linalg.norm(vectors - self._centre, axis=1)
        near = distances <= REACH
        self._positions.append(positions[near].astype(np.int64))
        self._distances.append(distances[near].astype(np.float32))

    def all(self) -> tuple[Vector, Found, npt.NDArray[np.float32]]:
        return self._centre, np.concatenate(self._positions), np.concatenate(self._distances)
