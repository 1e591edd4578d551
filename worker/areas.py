"""Areas on the Earth as settings write them: boxes and circles. Knows no distances."""

from __future__ import annotations

import math
from dataclasses import dataclass

from producer_client.errors import quoted


@dataclass(frozen=True, slots=True)
class Box:
    """Degrees, in the order of RFC 7946 (5.2): one whose west is the greater number crosses the antimeridian."""

    west: float
    south: float
    east: float
    north: float

    def __str__(self) -> str:
        return f"{self.west!r} {self.south!r} {self.east!r} {self.north!r}"


@dataclass(frozen=True, slots=True)
class Circle:
    """Degrees, and metres along the sphere."""

    lat: float
    lon: float
    radius_m: float

    def __str__(self) -> str:
        return f"{self.lat!r} {self.lon!r} {self.radius_m!r}"


Area = Box | Circle


def read(text: str) -> Area:
    """An area as it is written. Raises ValueError with a sentence."""
    match _numbers(text):
        case [west, south, east, north] if max(abs(west), abs(east)) <= 180 and max(abs(south), abs(north)) <= 90:
            if south <= north:
                return Box(west, south, east, north)
            raise ValueError(f"{quoted(text)} is no box: its north lies south of its south")
        case [lat, lon, radius_m] if abs(lat) <= 90 and abs(lon) <= 180 and radius_m > 0:
            return Circle(lat, lon, radius_m)
    raise ValueError(
        f"{quoted(text)} is no area: write WEST SOUTH EAST NORTH of a box, in degrees, or LAT LON METRES of a circle, "
        "with blanks between"
    )


def _numbers(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split()]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []
