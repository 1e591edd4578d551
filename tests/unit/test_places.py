"""Places on the sphere: what belongs together, and the point that it stands for, also where longitudes jump."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.core.geo import distance_m
from worker.place.places import LatLon, median, parted, spread_m, within

METRE = 1 / 111_195.08  #: of latitude, in degrees

some = settings(derandomize=True, max_examples=100)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((10.0, 179.9998), (10.0, -179.9999)),
        ((89.9999, 0.0), (89.9999, 180.0)),
        ((-89.9999, -90.0), (-90.0, 45.0)),
        ((0.0, 0.0), (0.0, 0.0003)),
    ],
    ids=["date line", "north pole", "south pole", "zero"],
)
def test_neighbours_are_one_place_wherever_longitudes_jump(one: LatLon, other: LatLon) -> None:
    far = (one[0] - math.copysign(0.01, one[0]), one[1])

    assert parted([one, far, other], 50.0) == [[0, 2], [1]]
    lat, lon = median([one, other], [1.0, 1.0])
    assert distance_m(lat, lon, *one) == pytest.approx(distance_m(*one, *other) / 2, abs=0.1)
    assert spread_m((lat, lon), [one, other], [1.0, 1.0], [0.0, 0.0]) < 20


def test_a_street_of_photos_is_no_one_place_however_near_each_is_to_the_next() -> None:
    street = [(50 + metres * METRE, 14.0) for metres in range(0, 400, 10)]

    places = parted(street, 50.1)

    assert [len(place) for place in places] == [6, 6, 6, 6, 6, 6, 4]
    assert all(distance_m(*street[place[0]], *street[place[-1]]) <= 50.1 for place in places)


def test_a_place_lies_around_the_first_of_its_points() -> None:
    points = [(50 + metres * METRE, 14.0) for metres in (0, 40, 80, -40)]

    assert parted(points, 50.0) == [[0, 1, 3], [2]]
    assert within(points[1], points, 50.0) == [0, 1, 2]
    assert parted([], 50.0) == []


def test_one_witness_far_off_does_not_move_the_point_as_it_moves_a_mean() -> None:
    points = [(50 + metres * METRE, 14.0) for metres in (0, 3, 6, 140)]

    lat, _ = median(points, [1.0] * 4)

    assert 2.9 <= (lat - 50) / METRE <= 6.1


def test_weight_pulls_the_point() -> None:
    points = [(50.0, 14.0), (50 + 90 * METRE, 14.0)]

    assert median(points, [3.0, 1.0])[0] == pytest.approx(50.0, abs=METRE)
    assert median(points, [1.0, 3.0])[0] == pytest.approx(points[1][0], abs=METRE)


def test_the_error_that_a_camera_states_widens_the_spread() -> None:
    points = [(50.0, 14.0), (50.0, 14.0)]

    assert spread_m((50.0, 14.0), points, [1.0, 1.0], [0.0, 0.0]) == 0
    assert spread_m((50.0, 14.0), points, [1.0, 3.0], [40.0, 0.0]) == pytest.approx(20.0)


@some
@given(
    points=st.lists(st.tuples(st.floats(-90, 90), st.floats(-180, 180)), min_size=1, max_size=9),
    metres=st.floats(1, 1e7),
)
def test_every_point_is_of_one_place_and_near_its_first(points: list[LatLon], metres: float) -> None:
    places = parted(points, metres)

    assert sorted(at for place in places for at in place) == list(range(len(points)))
    assert all(distance_m(*points[place[0]], *points[at]) <= metres for place in places for at in place)


@some
@given(
    centre=st.tuples(st.sampled_from([-90.0, -89.9999, 0.0, 50.0, 90.0]), st.sampled_from([-180.0, 0.0, 179.9999])),
    metres=st.lists(st.tuples(st.floats(-40, 40), st.floats(-40, 40)), min_size=1, max_size=6),
    weight=st.floats(0.01, 100),
)
def test_the_point_lies_among_its_witnesses(centre: LatLon, metres: list[tuple[float, float]], weight: float) -> None:
    points = [
        (max(-90.0, min(90.0, centre[0] + north * METRE)), (centre[1] + east * METRE + 180) % 360 - 180)
        for north, east in metres
    ]

    lat, lon = median(points, [weight] * len(points))

    assert math.isfinite(lat)
    assert math.isfinite(lon)
    assert max(distance_m(lat, lon, *point) for point in points) <= 115
