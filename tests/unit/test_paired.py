"""Two exams over the same photos: differences by hand, intervals that hold, and what counts as clearly worse."""

from __future__ import annotations

import numpy as np
import pytest

from tests.examined import question
from worker.place.exam import Examined
from worker.place.paired import Difference, clearly_worse, compared

RIGHT_M = 100.0


def of_places(right: list[bool], *, unseen: list[bool] | None = None) -> list[Examined]:
    """A seen question for each place, answered rightly or wrongly, and perhaps an unseen one, answered or not."""
    seen = [question(at, off_m=1.0 if good else 9_000.0) for at, good in enumerate(right)]
    return seen + [
        question(at, seen=False, off_m=9_000.0, located=answered) for at, answered in enumerate(unseen or [])
    ]


def test_differences_are_of_what_both_asked() -> None:
    before = [question(1), question(2), question(3, off_m=9e3), question(4), question(9)]
    after = [
        question(4, located=False),
        question(3),
        question(2, off_m=9e3),
        question(1),
        question(1, seen=False),
    ]

    found = compared(before, after, right_m=RIGHT_M)

    assert found["accuracy"].value == pytest.approx(2 / 4 - 3 / 4)
    assert found["precision"].value == pytest.approx(2 / 3 - 3 / 4)
    assert found["coverage"].value == pytest.approx(3 / 4 - 4 / 4)
    assert found["flips"].value == pytest.approx(2 / 3)
    assert found["accuracy"].of == 4
    assert found["false_answers"] == Difference(
        None, None, None, 0, "both exams have no question in common to tell this by"
    )


def test_a_question_about_a_place_that_was_left_out_is_another_question() -> None:
    found = compared(
        of_places([True] * 3, unseen=[True, False, False]), of_places([True] * 3, unseen=[True] * 3), right_m=RIGHT_M
    )

    assert found["false_answers"].value == pytest.approx(2 / 3)
    assert found["accuracy"].value == 0.0


def test_a_position_that_was_corrected_makes_another_question() -> None:
    before = [question(at) for at in range(4)]
    moved = [question(0, at=(51.0, 14.0), off_m=9e3), *before[1:]]

    found = compared(before, moved, right_m=RIGHT_M)

    assert (found["accuracy"].value, found["accuracy"].of) == (0.0, 3)


def test_the_same_exam_differs_in_nothing() -> None:
    asked = of_places([True, False] * 10, unseen=[False, True] * 5)

    for difference in compared(asked, asked, right_m=RIGHT_M).values():
        assert (difference.value, difference.least, difference.most) == (0.0, 0.0, 0.0)


def test_the_draws_are_those_of_the_seed() -> None:
    before, after = of_places([True, False] * 20), of_places([True, True, False] * 13)

    assert compared(before, after, right_m=RIGHT_M, seed=5) == compared(before, after, right_m=RIGHT_M, seed=5)
    assert compared(before, after, right_m=RIGHT_M, seed=5) != compared(before, after, right_m=RIGHT_M, seed=6)


def test_the_interval_is_that_of_independent_places() -> None:
    chance = np.random.default_rng(1)
    was, now = chance.uniform(size=(2, 400))
    found = compared(of_places(list(was < 0.8)), of_places(list(now < 0.7)), right_m=RIGHT_M)["accuracy"]

    change = (now < 0.7).astype(float) - (was < 0.8)
    error = 1.96 * change.std() / np.sqrt(len(change))
    assert found.least == pytest.approx(change.mean() - error, abs=0.006)
    assert found.most == pytest.approx(change.mean() + error, abs=0.006)


def test_many_questions_about_one_place_are_not_many_places() -> None:
    apart = compared(of_places([True] * 60), of_places([True] * 50 + [False] * 10), right_m=RIGHT_M)["accuracy"]
    before = [question(at, place=at // 20) for at in range(60)]
    after = [question(at, place=at // 20, off_m=1.0 if at < 50 else 9e3) for at in range(60)]
    joined = compared(before, after, right_m=RIGHT_M)["accuracy"]

    assert apart.value == joined.value
    assert apart.most is not None
    assert apart.most < 0
    assert joined.most == 0.0, "one of three places lost, which may be chance"


def test_one_place_alone_has_no_interval() -> None:
    found = compared([question(1)], [question(1)], right_m=RIGHT_M)

    assert {difference.why for difference in found.values()} == {
        "both exams asked about fewer than two places in common"
    }
    assert clearly_worse(found) == []


def test_worse_is_what_chance_does_not_explain() -> None:
    good = of_places([True] * 100, unseen=[False] * 100)
    fewer = of_places([True] * 88 + [False] * 12, unseen=[False] * 100)
    luck = of_places([True] * 99 + [False], unseen=[False] * 99 + [True])
    answering = of_places([True] * 100, unseen=[True] * 10 + [False] * 90)
    silent = [question(at, located=at >= 15) for at in range(100)]

    def worse(after: list[Examined]) -> list[str]:
        return clearly_worse(compared(good, after, right_m=RIGHT_M))

    assert worse(good) == []
    assert worse(luck) == []
    assert worse(fewer) == ["accuracy", "precision", "flips"]
    assert worse(answering) == ["precision", "false_answers"]
    assert worse(silent) == ["accuracy", "coverage", "flips"]
    assert clearly_worse(compared(fewer, good, right_m=RIGHT_M)) == []


def test_a_sure_loss_that_does_not_matter_is_none() -> None:
    one = Difference(-0.004, -0.006, -0.002, 90_000)

    assert clearly_worse({"accuracy": one, "coverage": one}) == []
    assert clearly_worse({"false_answers": Difference(0.004, 0.002, 0.006, 90_000)}) == []


def test_answers_that_flip_count_even_where_as_many_are_won() -> None:
    before = of_places([True] * 80 + [False] * 20)
    after = of_places([False] * 20 + [True] * 80)

    assert clearly_worse(compared(before, after, right_m=RIGHT_M)) == ["flips"]
