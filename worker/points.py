"""Points at which many photos lie, to the last digit: one place that was photographed often, or a default?

One point alone proves nothing: ten photos of a castle have it from one marker on a map. So it is compared with what is
known besides: when the files are of, how much the pictures are alike, and who else is near. It knows neither SQL nor
files: who asks says when a file is of, and what its vector is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from worker.core.geo import bounding_box
from worker.core.vectors import Vector

T = TypeVar("T")

#: Photos at one point from which on it is asked about.
MANY = 5
#: A point is called a default only where so many photos lie at it,
DEFAULT_PHOTOS = 20
#: their files are of so many days,
DEFAULT_DAYS = 365.0
#: and the mean cosine among them is less than this many standard deviations above that between them and others: photos
#: of one place are more alike. Of at least so many of both sides the vectors must be known.
DEFAULT_ALIKE, KNOWN_VECTORS = 0.5, 10
#: Photos of a side that are looked at, at the most, and points with most photos that are.
SAMPLE, COMPARED = 200, 20
#: Metres around a point in which others are counted.
NEARBY_M = 1_000.0


class Placed(Protocol):
    """A photo with a number and coordinates."""

    @property
    def number(self) -> int: ...
    @property
    def lat(self) -> float | None: ...
    @property
    def lon(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class SharedPoint:
    """What speaks for a place, or for a default. Facts that are not known are None."""

    lat: float
    lon: float
    numbers: list[int]
    trusted: int = 0  #: of them that count as evidence
    nearby: int | None = None  #: photos at other points within NEARBY_M
    days: float | None = None  #: between the oldest and the newest of their files
    alike: float | None = None  #: mean cosine among them
    alike_others: float | None = None  #: mean cosine between them and photos at other points
    is_default: bool = False  #: all of it speaks for a default


def compare(
    photos: Sequence[Placed],
    numbers: Sequence[int],
    *,
    trusted: int,
    changed_at: Callable[[int], float | None],
    vectors: Callable[[Sequence[int]], Mapping[int, Vector]],
) -> SharedPoint:
    """One point and what is known of it.

    photos: all with possible coordinates. numbers: of those that lie at the point. changed_at: a file's time by the
    photo's number, seconds. vectors: of photos by their numbers, as far as they are known, of length 1.
    """
    at = set(numbers)
    place = next(photo for photo in photos if photo.number in at)
    lat, lon = place.lat or 0.0, place.lon or 0.0
    days = days_between([changed_at(number) for number in sample(numbers)])
    own, others = vectors(sample(numbers)), vectors(sample([p.number for p in photos if p.number not in at]))
    alike, alike_others, unlike = _alike(list(own.values()), list(others.values()))
    return SharedPoint(
        lat=lat,
        lon=lon,
        numbers=list(numbers),
        trusted=trusted,
        nearby=_nearby(photos, lat, lon) - len(at),
        days=None if days is None else round(days, 1),
        alike=None if alike is None else round(alike, 3),
        alike_others=None if alike_others is None else round(alike_others, 3),
        is_default=_speaks_for_default(len(at), days, unlike),
    )


def is_default(
    photos: int, changed_at: Sequence[float | None], own: Sequence[Vector], others: Sequence[Vector]
) -> bool:
    """Whether a point is a default, not a place. photos: how many lie at it. changed_at: of some, when their files were
    made. own, others: vectors of some of them, and of photos at other points."""
    return _speaks_for_default(photos, days_between(changed_at), _alike(own, others)[2])


def sample(items: Sequence[T]) -> list[T]:
    """Some of them, SAMPLE at the most, from the first to the last."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(SAMPLE, len(items))).astype(int))]


def days_between(times: Sequence[float | None]) -> float | None:
    """Days from the first to the last of these times in seconds."""
    known = [time for time in times if time is not None]
    return (max(known) - min(known)) / 86_400 if len(known) > 1 else None


# ---------------------------------------------------------------------------------------------- below


def _speaks_for_default(photos: int, days: float | None, unlike: bool) -> bool:
    return photos >= DEFAULT_PHOTOS and days is not None and days >= DEFAULT_DAYS and unlike


def _alike(own: Sequence[Vector], others: Sequence[Vector]) -> tuple[float | None, float | None, bool]:
    """(mean cosine among them, and between them and the others; whether they are hardly more alike than that)."""
    if min(len(own), len(others)) < KNOWN_VECTORS:
        return None, None, False
    here = np.stack(own)
    among = (here @ here.T)[np.triu_indices(len(here), 1)]
    between = here @ np.stack(others).T
    unlike = bool(among.mean() - between.mean() < DEFAULT_ALIKE * between.std())
    return float(among.mean()), float(between.mean()), unlike


def _nearby(photos: Sequence[Placed], lat: float, lon: float) -> int:
    low, high, ranges = bounding_box(lat, lon, NEARBY_M)
    return sum(
        low <= (photo.lat or 0.0) <= high and any(west <= (photo.lon or 0.0) <= east for west, east in ranges)
        for photo in photos
    )
