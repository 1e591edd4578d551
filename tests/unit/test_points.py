"""Points that many photos share: a castle is not called a default, and a default is where all facts speak for one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from producer_client.contract import Provenance
from worker.core.vectors import Vectors, unit_rows
from worker.points import DEFAULT_PHOTOS, SharedPoint
from worker.survey import LegacyPhoto, compare_points, examine

CASTLE = (47.557574, 10.749800)
YEAR = 365 * 86_400.0


def scattered(rows: int, seed: int = 1) -> Vectors:
    """Pictures of anything, none like another."""
    return unit_rows(np.random.default_rng(seed).normal(size=(rows, 64)))


def of_one_place(rows: int) -> Vectors:
    """Pictures from all sides of one place."""
    place = np.random.default_rng(7).normal(size=(1, 64))
    return unit_rows(place + 1.2 * np.random.default_rng(8).normal(size=(rows, 64)))


def shared(vectors: Vectors | None, *, days: float | None = 3.0, count: int | None = None, elsewhere: int = 40) -> Any:
    """What is said of a point with these pictures at it, whose files were made within so many days."""
    count = len(vectors) if vectors is not None else count or 0
    at = [LegacyPhoto(n, f"/{n}.jpg", *CASTLE, Provenance.SURVEYED, {}) for n in range(count)]
    others = [LegacyPhoto(1000 + n, f"/o{n}.jpg", 40.0 + n, 5.0, Provenance.SURVEYED, {}) for n in range(elsewhere)]
    known = {} if vectors is None else dict(enumerate(vectors))
    known |= {1000 + n: row for n, row in enumerate(scattered(elsewhere, 2))}
    report = examine([*at, *others], lambda path: True)
    step = None if days is None else days * 86_400 / max(1, count - 1)
    compare_points(
        report,
        [*at, *others],
        changed_at=lambda path: None if step is None else step * int(path[1:-4]),
        vectors=lambda numbers: {number: known[number] for number in numbers if number in known},
    )
    (point,) = report.points
    return point


def test_six_photos_of_one_castle_are_a_question() -> None:
    point = shared(of_one_place(6))

    assert point == replace(point, is_default=False, trusted=6, days=3.0, nearby=0, alike=None)


def test_many_unlike_pictures_of_many_years_at_one_point_are_a_default() -> None:
    point = shared(scattered(40), days=800)

    assert point.is_default is True
    assert abs(point.alike - point.alike_others) < 0.05
    assert point.days == pytest.approx(800)


@pytest.mark.parametrize(
    "lacks",
    [
        {"vectors": of_one_place(40), "days": 800},
        {"vectors": scattered(DEFAULT_PHOTOS - 1), "days": 800},
        {"vectors": scattered(40), "days": 30},
        {"vectors": scattered(40), "days": None},
        {"vectors": scattered(40), "days": 800, "elsewhere": 3},
        {"vectors": None, "count": 40, "days": 800},
    ],
    ids=["alike", "few", "of a month", "no times", "nothing to compare with", "not embedded"],
)
def test_where_one_fact_is_lacking_it_is_a_question(lacks: dict[str, Any]) -> None:
    point = shared(**lacks)

    assert point.is_default is False
    assert len(point.numbers) >= 5


def test_photos_beside_the_point_are_counted_across_the_date_line() -> None:
    at = [LegacyPhoto(n, f"/{n}.jpg", 10.0, 180.0, Provenance.DERIVED, {}) for n in range(5)]
    near = [LegacyPhoto(9, "/near.jpg", 10.001, -179.999, Provenance.DERIVED, {})]
    far = [LegacyPhoto(10, "/far.jpg", 10.1, 180.0, Provenance.DERIVED, {})]
    report = examine([*at, *near, *far], lambda path: True)

    compare_points(report, [*at, *near, *far], changed_at=lambda path: None, vectors=lambda numbers: {})

    assert [(point.nearby, point.trusted) for point in report.points] == [(1, 0)]


def test_exactly_zero_zero_is_no_question_and_four_photos_are_none() -> None:
    zeros = [LegacyPhoto(n, f"/{n}.jpg", 0.0, 0.0, Provenance.SURVEYED, {}) for n in range(9)]
    few = [LegacyPhoto(20 + n, f"/f{n}.jpg", 1.0, 1.0, Provenance.SURVEYED, {}) for n in range(4)]

    assert examine([*zeros, *few], lambda path: True).points == []


def test_the_point_of_most_photos_comes_first() -> None:
    small = [LegacyPhoto(n, f"/{n}.jpg", 1.0, 1.0, Provenance.SURVEYED, {}) for n in range(5)]
    large = [LegacyPhoto(10 + n, f"/l{n}.jpg", 2.0, 2.0, Provenance.SURVEYED, {}) for n in range(6)]

    points = examine([*small, *large], lambda path: True).points

    assert points == [
        SharedPoint(2.0, 2.0, [10, 11, 12, 13, 14, 15], trusted=6),
        SharedPoint(1.0, 1.0, [0, 1, 2, 3, 4], trusted=5),
    ]
