"""Circles on the Earth: whatever float32 says first, who is within is who distance_m says it is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from producer_client.contract import Near
from worker.core.circle import Mask, Places, unit_sphere, within
from worker.core.geo import EARTH_RADIUS_M, distance_m

#: Where longitudes end or meet, and some places between.
CENTRES = [(0.0, 0.0), (0.0, 180.0), (12.5, -180.0), (90.0, 0.0), (-90.0, 77.0), (89.9999, -12.0), (55.7, 12.6)]
RADII_M = [0.001, 1.0, 250.0, 3e4, 2.5e6, 9_999_999.0, 1.9e7, 20_015_000.0]


def around(lat: float, lon: float, count: int, seed: int) -> Places:
    """Positions at all distances from a point, from millimetres to the other side of the Earth, and the point."""
    random = np.random.default_rng(seed)
    angle = np.exp(random.uniform(np.log(1e-10), np.log(math.pi), count))
    bearing = random.uniform(0, 2 * math.pi, count)
    phi = math.radians(lat)
    there = np.arcsin(np.sin(phi) * np.cos(angle) + np.cos(phi) * np.sin(angle) * np.cos(bearing))
    along = np.arctan2(np.sin(bearing) * np.sin(angle) * np.cos(phi), np.cos(angle) - np.sin(phi) * np.sin(there))
    lons = (lon + np.degrees(along) + 180) % 360 - 180
    return np.concatenate([np.stack([np.degrees(there), lons]), [[lat], [lon]]], axis=1)


def asked(near: Near, places: Places) -> Mask:
    return within(near, places, unit_sphere(places))


def by_distance(near: Near, places: Places) -> list[bool]:
    return [distance_m(near.lat, near.lon, lat, lon) <= near.radius_m for lat, lon in places.T.tolist()]


@pytest.mark.parametrize("centre", CENTRES)
@pytest.mark.parametrize("radius_m", RADII_M)
def test_who_is_within_is_who_the_distance_says(centre: tuple[float, float], radius_m: float) -> None:
    near, places = Near(*centre, radius_m), around(*centre, 2_000, seed=1)

    assert asked(near, places).tolist() == by_distance(near, places)


@pytest.mark.parametrize("centre", CENTRES)
def test_a_photo_exactly_on_the_rim_is_within_and_one_bit_less_leaves_it_out(centre: tuple[float, float]) -> None:
    places = around(*centre, 300, seed=2)
    for place in range(300):
        rim_m = distance_m(*centre, *places[:, place].tolist())
        for radius_m in (rim_m, math.nextafter(rim_m, 0)):
            near = Near(*centre, radius_m)
            assert asked(near, places).tolist() == by_distance(near, places)


@pytest.mark.parametrize("radius_m", [math.pi * EARTH_RADIUS_M, 1e9])
def test_a_circle_around_the_earth_has_all_photos_with_a_position(radius_m: float) -> None:
    places = around(0.0, 0.0, 100, seed=3)
    places[:, 7] = np.nan

    assert asked(Near(10.0, 10.0, radius_m), places).tolist() == [place != 7 for place in range(101)]


def test_photos_without_a_position_are_within_no_circle() -> None:
    places = np.full((2, 5), np.nan)

    for radius_m in RADII_M:
        assert not asked(Near(0.0, 0.0, radius_m), places).any()


def test_more_photos_than_are_compared_at_a_time_are_all_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.core.circle.BLOCK", 64)
    near, places = Near(0.0, 180.0, 3e4), around(0.0, 180.0, 1_000, seed=4)

    assert asked(near, places).tolist() == by_distance(near, places)


def test_a_thousand_photos_of_one_position_on_the_rim_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def counted(*points: float) -> float:
        measured.append(points)
        return distance_m(*points)

    monkeypatch.setattr("worker.core.circle.distance_m", counted)
    places = np.repeat([[55.0], [12.0]], 1_000, axis=1)

    assert asked(Near(55.0, 12.001, distance_m(55.0, 12.001, 55.0, 12.0)), places).all()
    assert len(measured) == 1
