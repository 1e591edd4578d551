"""An exam asks about places: one photo of each before a second one of any."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.core.geo import distance_m
from worker.place.sampling import numbered, sampled

some = settings(derandomize=True, max_examples=200)


@some
@given(places=st.lists(st.integers(0, 8), max_size=60), count=st.integers(0, 70), seed=st.integers(0, 5))
def test_each_place_has_its_turn_before_any_has_another(places: list[int], count: int, seed: int) -> None:
    chosen = sampled(np.array(places, dtype=np.intp), np.arange(len(places)), count, seed).tolist()

    assert len(chosen) == len(set(chosen)) == min(count, len(places))
    taken, sizes = Counter(places[at] for at in chosen), Counter(places)
    most = max(taken.values(), default=0)
    assert all(taken[place] >= min(most - 1, sizes[place]) for place in sizes)
    assert (
        chosen == sampled(np.array(places, dtype=np.intp), np.arange(len(places)), len(places), seed).tolist()[:count]
    )


def test_another_seed_is_another_sample() -> None:
    places = np.arange(100)

    assert sampled(places, places, 10, 1).tolist() != sampled(places, places, 10, 2).tolist()


def test_photos_that_stay_are_asked_about_again_whatever_comes_beside_them() -> None:
    ids = np.arange(5_000)
    few = set(ids[:2_500][sampled(ids[:2_500] // 2, ids[:2_500], 200, 1)].tolist())

    more = set(ids[sampled(ids // 2, ids, 200, 1)].tolist())
    fewer = set(ids[10:2_500][sampled(ids[10:2_500] // 2, ids[10:2_500], 200, 1)].tolist())

    assert 70 <= len(few & more) <= 130, "half of the places are new"
    assert len(few & fewer) >= 195
    assert len({photo_id % 2 for photo_id in few}) == 2


@some
@given(
    points=st.lists(st.tuples(st.floats(-90, 90), st.floats(-180, 180)), min_size=1, max_size=20),
    side_m=st.sampled_from([50.0, 1_000.0]),
)
def test_what_shares_a_number_lies_together(points: list[tuple[float, float]], side_m: float) -> None:
    beside = [(lat, lon + 1e-7) for lat, lon in points]
    lat, lon = np.array(points + beside).T

    numbers = numbered(lat, lon, side_m).tolist()

    assert set(numbers) == set(range(max(numbers) + 1))
    for at, point in enumerate(points):
        for other in range(at):
            if numbers[other] == numbers[at]:
                assert distance_m(*point, *points[other]) <= 2 * side_m


def test_photos_of_one_spot_are_of_one_place() -> None:
    lat, lon = np.array([48.0, 48.0, 48.0 + 1e-6, 48.01]), np.array([11.0, 11.0, 11.0 + 1e-6, 11.0])

    first, same, near, other = numbered(lat, lon, 50.0).tolist()

    assert first == same == near != other
    assert numbered(np.zeros(0), np.zeros(0), 50.0).tolist() == []
