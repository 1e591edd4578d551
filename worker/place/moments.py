"""What one camera took minutes before and after says of where it was: nobody is farther than they can have gone.

An independent witness beside the pixels, and never instead of them: it says what is out of reach, and which of the
places that the photo shows is not. Values in, values out; docs/decisions/0037 has the reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from producer_client.contract import Hit
from worker.core.geo import distance_m
from worker.place.places import LatLon

#: Seconds before and after a photo within which its camera's others say anything: in five minutes one walks 600 m, and
#: a car leaves the town.
WITHIN_S = 300.0
#: Metres a second within which somebody is expected, who takes photos on foot and hurries; and of a car on a motorway,
#: beyond which nobody is who photographs streets.
WALKED_MPS, DRIVEN_MPS = 2.0, 40.0
#: Metres by which both points may be off: phones between houses are up to 30, and a place is a circle.
OFF_M = 100.0


@dataclass(frozen=True, slots=True)
class Moments:
    """photos: trusted, with coordinates, of the photo's camera, the nearest in time first; each with `apart_s`.
    one_camera: whether the camera is known by its number, and not by its model alone."""

    photos: Sequence[Hit] = ()
    one_camera: bool = False

    def of(self, point: LatLon) -> int:
        """1: it lies where the camera was, as most of these say that say anything; -1: out of reach; 0: nothing is
        known."""
        balance = len(self.near(point)) - len(self.out_of_reach(point))
        return (balance > 0) - (balance < 0)

    def near(self, point: LatLon) -> list[Hit]:
        return [hit for hit in self.photos if away_m(hit, point) <= _reach_m(hit, seconds_apart(hit), WALKED_MPS)]

    def out_of_reach(self, point: LatLon) -> list[Hit]:
        return [hit for hit in self.photos if away_m(hit, point) > _reach_m(hit, seconds_apart(hit), DRIVEN_MPS)]


#: Where nothing is known.
NO_MOMENTS = Moments()


def heard(photos: Sequence[Hit], *, one_camera: bool) -> Moments:
    """Photos of one model alone say nothing where one camera cannot have taken them all: then there were two, and whose
    the question is nobody knows."""
    if not one_camera and not all(_may_be_one(one, other) for one, other in combinations(photos, 2)):
        return NO_MOMENTS
    return Moments(photos, one_camera)


def seconds_apart(hit: Hit) -> float:
    return abs(hit.apart_s or 0.0)


def away_m(hit: Hit, point: LatLon) -> float:
    assert hit.lat is not None
    assert hit.lon is not None
    return distance_m(hit.lat, hit.lon, *point)


# ---------------------------------------------------------------------------------------------- below


def _may_be_one(one: Hit, other: Hit) -> bool:
    seconds = abs((one.apart_s or 0.0) - (other.apart_s or 0.0))
    point = other.lat, other.lon
    assert point[0] is not None
    assert point[1] is not None
    return away_m(one, (point[0], point[1])) <= _reach_m(one, seconds, DRIVEN_MPS) + (other.position_error_m or 0.0)


def _reach_m(hit: Hit, seconds: float, mps: float) -> float:
    return seconds * mps + OFF_M + (hit.position_error_m or 0.0)
