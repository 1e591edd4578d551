"""Which photos an exam asks about, so that places count and not photos. Values in, values out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worker.core.geo import EARTH_RADIUS_M

Positions = NDArray[np.intp]
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


def sampled(places: Positions, count: int, seed: int) -> Positions:
    """Positions of so many photos, at random: one of each place before a second one of any, and so on. Any beginning of
    the sample is one, too."""
    order = np.random.default_rng(seed).permutation(len(places))
    by_place = np.argsort(places[order], kind="stable")
    _, sizes = np.unique(places, return_counts=True)
    turn = np.empty(len(places), dtype=np.intp)
    turn[by_place] = np.arange(len(places)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return order[np.argsort(turn, kind="stable")][:count]
