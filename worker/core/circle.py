"""Which of many positions lie within a circle: by chords of the unit sphere, the rim as distance_m decides it.

On the sphere there is no date line and no pole. Knows arrays, not where they come from.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from producer_client.contract import Near
from worker.core.geo import EARTH_RADIUS_M, distance_m

Mask: TypeAlias = npt.NDArray[np.bool_]
#: float64 [2, n]: latitudes and longitudes in degrees, NaN where there are none.
Places: TypeAlias = npt.NDArray[np.float64]
#: float32 [3, n]: x, y, z of the same positions on the unit sphere.
Sphere: TypeAlias = npt.NDArray[np.float32]

#: Positions compared at a time: what is computed of them stays in the processor's second cache.
BLOCK = 16_384
#: What float32 can do to a chord: twice the rounding of both points' coordinates, and of each step with them.
ROUNDED, ROUNDED_SHARE = 2e-7, 1e-6


def unit_sphere(places: Places) -> Sphere:
    phi, lam = np.radians(places)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)]).astype(np.float32)


def within(circle: Near, places: Places, sphere: Sphere) -> Mask:
    """bool [n]: whether distance_m from the centre is the radius or less.

    Squared chords decide what lies some metres inside or outside. What is nearer to the rim is measured exactly.
    """
    angle = circle.radius_m / EARTH_RADIUS_M
    if angle >= math.pi:
        everywhere: Mask = ~np.isnan(sphere[0])
        return everywhere
    chord = 2 * math.sin(angle / 2)
    slack = 2 * chord * ROUNDED + ROUNDED**2 + chord**2 * ROUNDED_SHARE
    surely, maybe = np.float32(chord**2 - slack), np.float32(chord**2 + slack)
    centre = unit_sphere(np.array([[circle.lat], [circle.lon]]))[:, 0]
    inside = np.zeros(sphere.shape[1], dtype=np.bool_)
    room = np.empty((2, BLOCK), dtype=np.float32)
    rims = []
    for start in range(0, len(inside), BLOCK):
        part = sphere[:, start : start + BLOCK]
        square, other = room[:, : part.shape[1]]
        np.subtract(part[0], centre[0], out=square)
        square *= square
        for axis in (1, 2):
            np.subtract(part[axis], centre[axis], out=other)
            other *= other
            square += other
        sure = inside[start : start + BLOCK]
        np.less(square, surely, out=sure)
        possible = square <= maybe
        if np.count_nonzero(possible) != np.count_nonzero(sure):
            rims.append(start + np.flatnonzero(possible & ~sure))
    if rims:
        rim = np.concatenate(rims)
        points = list(zip(*places[:, rim].tolist(), strict=True))
        # Many photos may have one position: a city's centre, a hotel.
        holds = {point: distance_m(circle.lat, circle.lon, *point) <= circle.radius_m for point in set(points)}
        inside[rim] = [holds[point] for point in points]
    return inside
