"""Where pictures were taken, as places on the sphere: which belong together, and the point that they stand for.

A place is a circle around one of its pictures, not a chain of neighbours: photos of a street every few metres are one
chain of any length, also by density (DBSCAN), and two ends of it are two answers. All distances are great circles, so
that it holds across the date line and at the poles. Knows no photos.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from worker.core.geo import distance_m, weighted_centre

#: Steps of Weiszfeld's iteration at most, and metres below which a step is the last.
MOST_STEPS, LEAST_STEP_M = 100, 0.01
#: Metres that a witness on the spot is taken to be away: the iteration divides by distances.
NEAREST_M = 0.01

LatLon = tuple[float, float]


def within(centre: LatLon, points: Sequence[LatLon], metres: float) -> list[int]:
    """Positions of the points of a place around this centre. Degrees."""
    return [at for at, point in enumerate(points) if distance_m(*centre, *point) <= metres]


def parted(points: Sequence[LatLon], metres: float) -> list[list[int]]:
    """Positions of the points, place by place. Each place lies around the first point that no place before it has."""
    left, places = list(range(len(points))), []
    while left:
        place = [left[at] for at in within(points[left[0]], [points[at] for at in left], metres)]
        places.append(place)
        left = [at for at in left if at not in place]
    return places


def median(points: Sequence[LatLon], weights: Sequence[float]) -> LatLon:
    """Weighted geometric median in degrees, of points that lie much nearer to each other than the Earth is round.

    One point that is far off does not move it, as it moves a mean (Weiszfeld, 1937).
    """
    lat, lon = weighted_centre(points, weights)
    for _ in range(MOST_STEPS):
        away = np.maximum([distance_m(lat, lon, *point) for point in points], NEAREST_M)
        new_lat, new_lon = weighted_centre(points, (np.array(weights) / away).tolist())
        step = distance_m(lat, lon, new_lat, new_lon)
        lat, lon = new_lat, new_lon
        if step < LEAST_STEP_M:
            break
    return lat, lon


def spread_m(centre: LatLon, points: Sequence[LatLon], weights: Sequence[float], errors_m: Sequence[float]) -> float:
    """Weighted root mean square of how far each may be from the centre. errors_m: by how much its point may be off."""
    square: NDArray[np.float64] = np.array([distance_m(*centre, *point) ** 2 for point in points])
    return math.sqrt(float(np.average(square + np.square(errors_m), weights=weights)))
