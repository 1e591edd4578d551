"""Every figure of an exam: what it is by hand, what scikit-learn says where it has it, and where it cannot be had."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import auc, average_precision_score, brier_score_loss

from tests.examined import question
from worker.core.geo import distance_m
from worker.place.exam import Bin, Exam, Examined, Figures
from worker.place.measures import FIGURES, LEAST_IN_BIN, MOST_BINS, MOST_POINTS, likely, measured, region

RIGHT_M = 100.0


def figures(*examined: Examined) -> dict[str, float | None]:
    return {name: figure.value for name, figure in measured(examined, right_m=RIGHT_M).overall.figures.items()}


def wrong(photo_id: int, confidence: float, **other: object) -> Examined:
    return question(photo_id, confidence=confidence, off_m=5_000.0, **other)  # type: ignore[arg-type]


def test_what_is_answered_what_of_it_is_right_and_what_is_false() -> None:
    found = figures(
        question(1),
        question(2),
        wrong(3, 0.8),
        question(4, located=False),
        question(5, seen=False, off_m=3_000.0),
        question(6, seen=False, off_m=None),
    )

    assert found["answered_seen"] == 3 / 4
    assert found["right_of_given"] == 2 / 4, "an answer about a place that was left out is given, and not right"
    assert found["false_answers_unseen"] == 1 / 2


def test_of_a_place_that_was_left_out_no_answer_is_right_however_near() -> None:
    assert figures(question(1, seen=False, off_m=1.0))["right_of_given"] == 0.0


def test_recall_asks_for_one_near_photo_among_the_first_and_of_seen_places_alone() -> None:
    far = 5_000.0
    found = figures(
        question(1, neighbours_m=(20.0, far)),
        question(2, neighbours_m=(99.0, far, far, far, 24.0)),
        question(3, neighbours_m=(far, far, far, far, far, 900.0)),
        question(4, neighbours_m=()),
        question(5, seen=False, neighbours_m=(1.0,)),
    )

    assert [found[f"recall_at_{k}_25m"] for k in (1, 5, 10)] == [1 / 4, 2 / 4, 2 / 4]
    assert [found[f"recall_at_{k}_100m"] for k in (1, 5, 10)] == [2 / 4, 2 / 4, 2 / 4]
    assert [found[f"recall_at_{k}_1km"] for k in (1, 5, 10)] == [2 / 4, 2 / 4, 3 / 4]


def test_percentiles_are_of_all_given_answers() -> None:
    errors = [0.0, 10.0, 20.0, 30.0, 40.0]
    asked = [question(at, off_m=off_m, seen=off_m < 40.0) for at, off_m in enumerate(errors)]
    found = figures(*asked, question(9, off_m=1e5, located=False), question(10, off_m=None))

    assert [found[f"error_m_p{p}"] for p in (50, 75, 90, 95)] == pytest.approx([20.0, 30.0, 36.0, 38.0], rel=1e-3)


def test_shares_by_great_circle_count_an_abstention_as_a_miss() -> None:
    found = figures(
        question(1, off_m=900.0),
        question(2, off_m=24e3),
        question(3, off_m=199e3),
        question(4, off_m=749e3),
        question(5, off_m=2_499e3),
        question(6, off_m=2_501e3),
        question(7, off_m=10.0, located=False),
        question(8, off_m=10.0, seen=False),
    )

    kilometres = (1, 25, 200, 750, 2500)
    assert [found[f"within_{km}km"] for km in kilometres] == pytest.approx([1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7])


def test_auc_pr_is_the_average_precision_of_the_confidence_over_all_questions() -> None:
    asked = [
        question(1, confidence=0.9),
        wrong(2, 0.8),
        question(3, confidence=0.7, located=False),
        question(4, confidence=0.6, seen=False),
        question(5, off_m=None),
    ]

    found = figures(*asked)

    assert found["auc_pr"] == pytest.approx((1 / 1 + 2 / 3) / 2), "withheld answers are ranked as well"
    assert found["auc_pr"] == average_precision_score([1, 0, 1, 0, 0], [0.9, 0.8, 0.7, 0.6, -1])


def test_aurc_is_the_mean_risk_of_the_most_confident() -> None:
    found = figures(question(1, confidence=0.9), wrong(2, 0.8), question(3, confidence=0.7), wrong(4, 0.6))

    assert found["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)


def test_equally_confident_answers_are_each_as_wrong_as_their_mean() -> None:
    asked = [question(1, confidence=0.9), wrong(2, 0.9), wrong(3, 0.5)]

    assert figures(*asked)["aurc"] == figures(*reversed(asked))["aurc"] == pytest.approx((1 / 2 + 1 / 2 + 2 / 3) / 3)


def test_confidence_is_held_to_its_radius() -> None:
    asked = [question(at, confidence=0.8, off_m=50.0 if at < 3 else 10.0, radius_m=30.0) for at in range(10)]

    found = figures(*asked)

    assert found["ece"] == pytest.approx(0.1), "seven of ten radii hold the truth"
    assert found["ece_right"] == pytest.approx(0.2), "all of them are right"
    assert found["brier"] == pytest.approx((7 * 0.2**2 + 3 * 0.8**2) / 10)
    assert found["brier"] == pytest.approx(brier_score_loss([0] * 3 + [1] * 7, [0.8] * 10))
    assert found["radius_coverage"] == 0.7


def test_a_radius_need_not_hold_an_answer_that_is_wrong() -> None:
    assert figures(question(1), wrong(2, 0.5))["radius_coverage"] == 1.0


def test_bins_are_of_equal_mass_and_never_part_what_is_equally_confident() -> None:
    low = [question(at, confidence=0.2 + at / 1000, off_m=500.0) for at in range(10)]
    high = [question(100 + at, confidence=0.95) for at in range(25)]

    found = measured([*high, *low], right_m=RIGHT_M).reliability

    assert found == (
        Bin(pytest.approx(0.2045), 0.0, 10),  # type: ignore[arg-type]
        Bin(pytest.approx(0.95), 1.0, 25),  # type: ignore[arg-type]
    )


def test_there_are_at_most_fifteen_bins_and_none_is_of_a_few_answers() -> None:
    many = [question(at, confidence=at / 1000) for at in range(1_000)]

    assert len(measured(many, right_m=RIGHT_M).reliability) == MOST_BINS
    assert len(measured(many[: 3 * LEAST_IN_BIN + 9], right_m=RIGHT_M).reliability) == 3
    assert len(measured(many[:4], right_m=RIGHT_M).reliability) == 1


def test_the_curves_end_where_the_figures_are() -> None:
    asked = [question(at, confidence=0.5 + at / 100, off_m=10.0 if at % 3 else 4_000.0) for at in range(30)]

    found = measured(asked, right_m=RIGHT_M)

    recall, precision = zip(*found.curves["precision_recall"].points, strict=True)
    assert (recall[0], recall[-1]) == (0.0, 1.0)
    assert precision[-1] == pytest.approx(20 / 30)
    coverage, risk = zip(*found.curves["risk_coverage"].points, strict=True)
    assert (coverage[0], coverage[-1]) == (pytest.approx(1 / 30), 1.0)
    assert risk[-1] == pytest.approx(10 / 30)
    assert auc(coverage, risk) == pytest.approx(found.overall.figures["aurc"].value, abs=0.03)


def test_recall_vs_area_is_by_the_cap_around_the_point() -> None:
    antipode = question(3, at=(0.0, 0.0), off_m=None)
    antipode = replace(antipode, located=True, reason=None, point=(0.0, 180.0), radius_m=1.0, confidence=0.1)
    asked = [question(1, off_m=100.0), question(2, off_m=None), antipode, question(4, off_m=10.0, seen=False)]

    points = measured(asked, right_m=RIGHT_M).curves["recall_area"].points

    assert points[0] == pytest.approx((math.pi * 0.1**2, 1 / 3), rel=1e-4)
    assert points[1] == pytest.approx((510.066e6, 2 / 3), rel=1e-4), "the whole Earth"


def test_errors_hold_across_the_date_line_and_at_the_pole() -> None:
    across = replace(question(1, at=(0.0, 179.9999)), point=(0.0, -179.9999))
    pole = replace(question(2, at=(90.0, 0.0)), point=(90.0, 137.0))

    assert across.error_m == pytest.approx(22.24, abs=0.01)
    assert pole.error_m == pytest.approx(0.0, abs=1e-6)
    assert figures(across, pole)["right_of_given"] == 1.0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((10.0, 180.0), (10.0, -180.0)),
        ((90.0, 0.0), (90.0, 179.0)),
        ((89.99, 20.0), (89.98, 25.0)),
        ((-90.0, 10.0), (-89.001, -100.0)),
    ],
)
def test_a_region_knows_one_meridian_and_one_pole(one: tuple[float, float], other: tuple[float, float]) -> None:
    assert region(*one) == region(*other)


@given(st.floats(-90, 90), st.floats(-180, 180))
@settings(derandomize=True, max_examples=300)
def test_no_point_is_far_from_the_middle_of_its_region(lat: float, lon: float) -> None:
    name = region(lat, lon)
    middle_lat, middle_lon = map(float, name.split())

    assert distance_m(lat, lon, middle_lat, middle_lon) < 112_000, "cells are a degree high and about as wide"
    assert region(middle_lat, middle_lon) == name


def test_questions_are_grouped_by_region_density_and_provenance() -> None:
    asked = [
        question(1, density=0),
        question(2, density=4, provenance="surveyed"),
        question(3, density=5, at=(-33.9, 151.2), off_m=5_000.0),
        question(4, density=20, seen=False, off_m=None),
    ]

    found = measured(asked, right_m=RIGHT_M).by

    assert {name: (part.seen, part.unseen) for name, part in found["region"].items()} == {
        region(50.0, 14.0): (2, 1),
        region(-33.9, 151.2): (1, 0),
    }
    assert found["region"][region(-33.9, 151.2)].figures["right_of_given"].value == 0.0
    assert set(found["density"]) == {"0", "1-4", "5-19", "20+"}
    assert found["provenance"]["surveyed"].figures["answered_seen"].value == 1.0
    for parts in found.values():
        assert sum(part.seen + part.unseen for part in parts.values()) == len(asked)


def test_abstentions_are_counted_by_reason() -> None:
    asked = [
        question(1, located=False, reason="unverified"),
        question(2, off_m=None, reason="nothing_similar"),
        question(3, off_m=None, reason="nothing_similar", seen=False),
        question(4),
    ]

    found = measured(asked, right_m=RIGHT_M).abstained

    assert list(found.items()) == [("nothing_similar", (1, 1)), ("unverified", (1, 0))]


def test_what_cannot_be_computed_says_why_and_is_never_left_out() -> None:
    whole = measured([question(1), question(2, seen=False, off_m=None)], right_m=RIGHT_M)
    none_given = measured([question(1, off_m=None)], right_m=RIGHT_M)
    nothing = measured([], right_m=RIGHT_M)

    assert whole.lacking() == {}
    assert set(FIGURES) == set(whole.overall.figures) == set(none_given.overall.figures) == set(nothing.overall.figures)
    assert none_given.lacking()["right_of_given"] == "no answer was given"
    assert none_given.lacking()["false_answers_unseen"] == "no place was left out to ask about it"
    assert none_given.lacking()["auc_pr"] == "no best place is right, and there is no recall without one"
    assert none_given.overall.figures["answered_seen"].value == 0.0
    assert set(nothing.lacking()) == set(nothing.overall.figures) | set(nothing.curves)


def test_few_answers_say_on_how_many_they_stand() -> None:
    found = measured([question(1), question(2), question(3, off_m=None)], right_m=RIGHT_M).overall.figures

    assert found["right_of_given"].of == 2
    assert found["answered_seen"].of == 3


@pytest.mark.parametrize(("hits", "of"), [(26, 27), (1, 20), (0, 5), (5, 5), (500, 1_000)])
def test_what_few_questions_leave_open_is_wilsons_interval(hits: int, of: int) -> None:
    known = binomtest(hits, of).proportion_ci(0.95, method="wilson")

    assert likely(hits / of, of) == pytest.approx((known.low, known.high), abs=1e-6)


def test_a_curve_of_many_questions_is_drawn_by_a_few_points() -> None:
    asked = [question(at, confidence=at / 5_000) for at in range(5_000)]

    found = measured(asked, right_m=RIGHT_M).curves["risk_coverage"].points

    assert len(found) == MOST_POINTS
    assert found[-1][0] == 1.0


confidences = st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1)
questions = st.builds(
    question,
    st.integers(0, 50),
    confidence=st.floats(0, 1),
    off_m=st.none() | st.floats(0, 1e6),
    seen=st.booleans(),
    located=st.booleans(),
    at=st.tuples(st.floats(-80, 80), st.floats(-180, 180)),
    neighbours_m=st.lists(st.floats(0, 2e7), max_size=10).map(tuple),
    density=st.integers(0, 100),
)


@given(st.lists(questions, max_size=30))
@settings(derandomize=True, max_examples=40)
def test_whatever_is_asked_the_exam_is_strict_json_and_comes_back_equal(asked: list[Examined]) -> None:
    exam = Exam("2026-11-28T02:00:00Z", 12.5, "model", 7, 99, 20, 1, measured(asked, right_m=RIGHT_M), {"K": 8})

    text = json.dumps(exam.to_json(), allow_nan=False)

    assert Exam.from_json(json.loads(text)) == exam


@given(st.lists(questions, min_size=1, max_size=40))
@settings(derandomize=True, max_examples=40)
def test_no_figure_depends_on_the_order_of_the_questions(asked: list[Examined]) -> None:
    def close(one: Figures, other: Figures) -> None:
        for name, figure in one.overall.figures.items():
            assert figure.value == pytest.approx(other.overall.figures[name].value, abs=1e-9), name

    close(measured(asked, right_m=RIGHT_M), measured(asked[::-1], right_m=RIGHT_M))


def test_calibration_error_is_what_scikit_learns_curve_of_quantiles_gives() -> None:
    from sklearn.calibration import calibration_curve

    chance = np.random.default_rng(3)
    confidence = chance.uniform(0.5, 1, size=600)
    asked = [
        question(at, confidence=float(score), off_m=10.0 if chance.uniform() < score**2 else 5_000.0)
        for at, score in enumerate(confidence)
    ]
    held = [one.held for one in asked]

    true, predicted = calibration_curve(held, confidence, n_bins=MOST_BINS, strategy="quantile")

    assert figures(*asked)["ece"] == pytest.approx(float(np.mean(np.abs(true - predicted))), abs=2e-3)
