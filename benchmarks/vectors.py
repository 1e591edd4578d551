"""Clustered unit vectors that stand in for photo embeddings, the same rows at every pass. Knows numpy alone.

A photo is the sum of four independent parts; the shares of its squared length are in SHARES:

    mean    the same for all: embeddings of one model lie in a narrow cone, so strangers have a cosine of about 0.45
    kind    of scene (a beach, a street at night): photos of different places of one kind have about 0.65
    place   50 places to a kind; two photos of one place have about 0.8
    photo   what differs between two photos of one place: view, light, people

Amplitudes of a part's dimensions fall as i^-0.5, turned by a random rotation: as in features of a network, most of the
variance lies in few directions, none of which is an axis. Sizes of places are lognormal with 20 photos on average: a
few sights have hundreds, most places a handful. Queries are fresh photos, four of five of a stored place, the fifth of
an unknown place of a known kind.

What it does not imitate: bursts of almost equal photos (renderer.py has them), ids that run together with places (as
uploads of one walk do), parts that depend on one another or are not Gaussian, and queries of another origin than the
stored photos (text, another camera).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.measure import Ids, Vectors

#: Shares of a photo's squared length: mean, kind, place, photo.
SHARES = (0.45, 0.2, 0.15, 0.2)
PHOTOS_PER_PLACE = 20
PLACES_PER_KIND = 50
#: Amplitude of dimension i (from 1) is i to this power.
SPECTRUM = -0.5
#: Rows made at once: 100 MB at 512 dimensions. Part of what the seed means: another number gives other rows.
CHUNK_ROWS = 50_000


class ClusteredVectors:
    """`count` vectors of `dimension` numbers. Holds the centres of the places, 1/20 of the size of the vectors."""

    def __init__(self, count: int, *, dimension: int = 512, seed: int = 0) -> None:
        self.count = count
        self.dimension = dimension
        self._seed = seed
        rng = np.random.default_rng([seed, 0])
        amplitudes = np.arange(1, dimension + 1) ** SPECTRUM
        amplitudes /= np.linalg.norm(amplitudes)
        rotation = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
        self._basis = (rotation * amplitudes[:, None]).astype(np.float32)
        places = max(1, count // PHOTOS_PER_PLACE)
        kinds = max(1, places // PLACES_PER_KIND)
        mean, self._kind, self._place, self._photo = np.sqrt(SHARES).astype(np.float32)
        direction = rng.standard_normal(dimension).astype(np.float32)
        self._kinds: Vectors = mean * direction / np.linalg.norm(direction) + self._kind * self._parts(rng, kinds)
        self._places = self._new_places(rng, places)
        sizes = np.cumsum(rng.lognormal(0, 1, places))
        self._upper = sizes / sizes[-1]

    def chunks(self) -> Iterator[Vectors]:
        """All rows in order: float32 [up to CHUNK_ROWS, dimension], each of length 1."""
        for number, start in enumerate(range(0, self.count, CHUNK_ROWS)):
            rng = np.random.default_rng([self._seed, 1, number])
            yield self._photos(rng, self._known(rng, min(CHUNK_ROWS, self.count - start)))

    def places(self) -> Iterator[Ids]:
        """The number of the place of each row, as `chunks` has them."""
        for number, start in enumerate(range(0, self.count, CHUNK_ROWS)):
            rng = np.random.default_rng([self._seed, 1, number])
            yield self._numbers(rng, min(CHUNK_ROWS, self.count - start))

    def fresh(self, count: int, *, stream: int, unknown: float = 0.2) -> Vectors:
        """Photos that are not stored, in random order; of each `stream` others.

        unknown: share of photos of places that have no stored photo.
        """
        rng = np.random.default_rng([self._seed, 2, stream])
        strangers = round(count * unknown)
        centres = np.concatenate([self._known(rng, count - strangers), self._new_places(rng, strangers)])
        return self._photos(rng, rng.permutation(centres))

    def _parts(self, rng: np.random.Generator, count: int) -> Vectors:
        """Gaussian vectors with the falling spectrum; a squared length of 1 on average."""
        parts: Vectors = rng.standard_normal((count, self.dimension), dtype=np.float32) @ self._basis
        return parts

    def _new_places(self, rng: np.random.Generator, count: int) -> Vectors:
        of_kind = self._kinds[rng.integers(len(self._kinds), size=count)]
        centres: Vectors = of_kind + self._place * self._parts(rng, count)
        return centres

    def _known(self, rng: np.random.Generator, count: int) -> Vectors:
        """Centres of stored places, each as often as its size says."""
        centres: Vectors = self._places[self._numbers(rng, count)]
        return centres

    def _numbers(self, rng: np.random.Generator, count: int) -> Ids:
        found: Ids = np.searchsorted(self._upper, rng.random(count)).astype(np.int64)
        return found

    def _photos(self, rng: np.random.Generator, centres: Vectors) -> Vectors:
        photos: Vectors = centres + self._photo * self._parts(rng, len(centres))
        photos /= np.linalg.norm(photos, axis=1, keepdims=True)
        return photos
