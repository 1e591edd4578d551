"""By how much a photo looks more like one place than like another: what both have speaks for neither."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.place.contrast import contrast

keypoints = st.sets(st.integers(0, 30))


@pytest.mark.parametrize(
    ("found", "rivals", "expected"),
    [
        ([], [], 0.0),
        (range(25), [], 5.0),
        ([], [range(25)], -5.0),
        (range(25), [[]], 5.0),
        (range(25), [range(25)], 0.0),
        (range(25), [range(9)], 4.0),
        (range(25), [range(21, 46)], 0.0),
        (range(36), [range(20), range(27), []], 3.0),
    ],
    ids=[
        "nothing",
        "no rivals",
        "nothing here",
        "a rival with nothing",
        "equal",
        "a part",
        "as many others",
        "the least",
    ],
)
def test_only_what_one_has_and_the_other_lacks_counts(
    found: list[int], rivals: list[list[int]], expected: float
) -> None:
    assert contrast(found, rivals) == pytest.approx(expected)


@given(keypoints, keypoints)
def test_two_places_are_as_far_from_each_other(one: set[int], other: set[int]) -> None:
    assert contrast(one, [other]) == -contrast(other, [one])


@given(keypoints, st.lists(keypoints, max_size=4), keypoints)
def test_another_rival_never_makes_it_larger(found: set[int], rivals: list[set[int]], other: set[int]) -> None:
    assert contrast(found, [*rivals, other]) <= contrast(found, rivals)
