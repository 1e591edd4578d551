"""Which photos an exam asks about, so that places count and not photos. Values in, values out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worker.core.geo import EARTH_RADIUS_M

Positions = NDArray[np.intp]
Ids = NDArray[np.int64]
Degrees = NDArray[np.float64]


def numbered(lat: Degrees, lon: Degrees, side_m: float) -> Positions:
    """A number for each point that those of one cell of the sphere share. The cells are about square, so long."""
    if not len(lat):
        return np.zeros(0, dtype=np.intp)
    row = np.floor(np.radians(lat) * EARTH_RADIUS_M / side_m)
    # As wide at the middle of its row as it is high; at a pole all of the row is one.
    shrunk = np.maximum(np.cos((row + 0.5) * side_m / EARTH_RADIUS_M), 1e-9)
    column = np.floor(np.radians(lon) * EARTH_RADIUS_M * shrunk / side_m)
    _, numbers = np.unique(np.stack([row, column], axis=1), axis=0, return_inverse=True)
    return numbers.reshape(-1)


def sampled(places: Positions, ids: Ids, count: int, seed: int) -> Positions:
    """Positions of so many photos, at random: one of each place before a second one of any, and so on. Any beginning of
    the sample is one, too.

    ids: one of each photo, that its turn hangs on: when photos come and go, those that stay keep their order, so that
    two exams ask about the same ones as far as they can (bottom-k sampling; Cohen and Kaplan, 2007).
    """
    order = np.argsort(_scattered(ids, seed), kind="stable")
    by_place = np.argsort(places[order], kind="stable")
    _, sizes = np.unique(places, return_counts=True)
    turn = np.empty(len(places), dtype=np.intp)
    turn[by_place] = np.arange(len(places)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return order[np.argsort(turn, kind="stable")][:count]


def _scattered(ids: Ids, seed: int) -> NDArray[np.uint64]:
    """Of each id a number that says nothing of it (the finalizer of SplitMix64; Steele, Lea and Flood, 2014)."""
    found = ids.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scattered: NDArray[np.uint64] = found ^ (found >> np.uint64(31))
    return scattered
