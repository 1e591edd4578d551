"""Questions and exams as values: strict JSON in and out, and nothing in them that could not be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.examined import question
from worker.place.exam import Curve, Exam, Examined, Figure, Witnessed, from_json, to_json
from worker.place.measures import measured

WHOLE = question(
    7,
    neighbours_m=(3.0, 4_000.5),
    path="Фото/«ё» <b>.jpg",
    evidence=Witnessed(8, 3.0, "a.jpg", 0.91, 120),
    contrary=Witnessed(9, 4_000.5, None, 0.9, None),
)
EXAM = Exam("2026-11-28T02:00:00Z", 12.5, "model", 7, 99, 1, 4, measured([WHOLE], right_m=50.0), {"RUNGS": "places"})


def test_a_question_comes_back_from_json_as_it_was() -> None:
    assert from_json(json.loads(json.dumps(to_json(WHOLE), allow_nan=False))) == WHOLE


def test_an_exam_comes_back_from_json_as_it_was() -> None:
    assert Exam.from_json(json.loads(json.dumps(EXAM.to_json(), allow_nan=False))) == EXAM


def test_a_whole_number_is_read_as_the_number_it_is() -> None:
    assert from_json(to_json(WHOLE) | {"lat": 50}).lat == 50.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lat": "50.0"}, "$.lat"),
        ({"lat": float("nan")}, "lat is nan"),
        ({"radius_m": float("inf")}, "radius_m is inf"),
        ({"neighbours_m": [1.0, float("nan")]}, "neighbours_m is nan"),
        ({"point": [1.0]}, "$.point"),
        ({"point": [1.0, float("nan")]}, "point is nan"),
        ({"confidence": 1.5}, "confidence of 1.5"),
        ({"point": None}, "without a point"),
        ({"located": False}, "nothing says why"),
        ({"located": 1}, "$.located"),
        ({"evidence": {"photo_id": 8, "away_m": float("inf")}}, "away_m is inf"),
        ({"evidence": {"photo_id": 8}}, "away_m"),
    ],
)
def test_a_question_that_cannot_be_is_refused_with_the_field(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refused:
        from_json(to_json(WHOLE) | change)

    assert said in str(refused.value)


def test_an_exam_of_another_form_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"form 2.*run `sightline exam` again"):
        Exam.from_json(EXAM.to_json() | {"form": 2})


def test_fields_that_a_later_release_adds_do_no_harm() -> None:
    assert from_json(to_json(WHOLE) | {"of_later": 1}) == WHOLE


def test_a_figure_has_a_value_or_a_reason() -> None:
    for odd in ({"value": None, "of": 0}, {"value": 1.0, "of": 3, "why": "x"}, {"value": float("nan"), "of": 1}):
        with pytest.raises(ValueError):
            Figure(**odd)


def test_a_curve_has_points_or_a_reason() -> None:
    for points, why in (((), ""), (((0.0, 1.0),), "x"), (((0.0, float("inf")),), "")):
        with pytest.raises(ValueError):
            Curve(points, why)


def test_right_and_held_are_two_things() -> None:
    near, wide = question(1, off_m=40.0, radius_m=30.0), question(2, off_m=200.0, radius_m=300.0)
    none: Examined = question(3, off_m=None)

    assert (near.right(50.0), near.held) == (True, False)
    assert (wide.right(50.0), wide.held) == (False, True)
    assert (none.right(50.0), none.held, none.error_m) == (False, False, None)
