"""Whether a generation may serve, by its exam beside a frozen one."""

from __future__ import annotations

import json

import pytest

from tests.examined import question
from worker.place.exam import Exam, Examined
from worker.place.gate import Baseline, Verdict, verdict
from worker.place.measures import measured

RIGHT_M = 50.0


def held(examined: list[Examined], generation: int = 1) -> Exam:
    return Exam("2026-11-28T02:00:00Z", 1.0, "key", generation, 9, 30, 1, measured(examined, right_m=RIGHT_M), {})


def asked(right: int, *, of: int = 60, first: int = 0, false: int = 0) -> list[Examined]:
    """Each place seen and left out; the first `right` are answered rightly, the others not at all."""
    both = []
    for at in range(first, first + of):
        both.append(question(at, located=at - first < right))
        both.append(question(at, seen=False, off_m=9e3, located=at - first < false))
    return both


def after(before: list[Examined], now: list[Examined]) -> Verdict:
    kept = json.loads(json.dumps(Baseline.of(held(before), before).to_json(), allow_nan=False))
    return verdict(held(now, 2), now, Baseline.from_json(kept))


def test_the_first_exam_is_the_baseline_unless_a_figure_lacks() -> None:
    first, silent = verdict(held(asked(50)), asked(50), None), verdict(held(asked(0)), asked(0), None)

    assert (first.passed, first.renews) == (True, True)
    assert (silent.passed, silent.holds, silent.renews) == (False, False, False), "nothing was better"
    assert silent.why.startswith(
        "figures of its exam could not be computed: right_of_given, error_m_p50, error_m_p75, error_m_p90, ..."
    )


def test_what_is_as_good_passes_and_leaves_the_baseline() -> None:
    for now in (asked(50), asked(60), asked(49)):
        found = after(asked(50), now)
        assert (found.passed, found.holds, found.renews, found.worse) == (True, False, False, ())
        assert found.why == "its exam is no worse than the baseline of generation 1, by 60 places in common"


@pytest.mark.parametrize(
    ("now", "worse"),
    [
        (asked(30), ("accuracy", "coverage", "flips")),
        (asked(50, false=20), ("precision", "false_answers")),
    ],
)
def test_what_is_clearly_worse_fails_and_says_in_what(now: list[Examined], worse: tuple[str, ...]) -> None:
    found = after(asked(50), now)

    assert (found.passed, found.holds, found.renews, found.worse) == (False, True, False, worse)
    assert found.why.startswith("its exam is clearly worse than the baseline of generation 1: ")


def test_a_figure_that_the_baseline_has_and_the_exam_lacks_fails_it() -> None:
    found = after(asked(50), asked(0))

    assert (found.passed, found.holds) == (False, True)
    assert "right_of_given, error_m_p50" in found.why
    assert after(asked(0), asked(0)).passed is True, "neither has it"


def test_a_library_of_other_photos_has_a_baseline_of_its_own() -> None:
    few = after(asked(50), asked(50, first=51))
    enough = after(asked(50), asked(0, of=10) + asked(50, first=70))
    silent = after(asked(50), asked(0, first=100))

    assert (few.passed, few.renews) == (None, True)
    assert "has 9 places in common with its exam, too few to compare" in few.why
    assert enough.passed is False
    assert (silent.passed, silent.holds, silent.renews) == (False, False, False)


def test_what_is_no_baseline_says_so() -> None:
    with pytest.raises(ValueError, match="this is no baseline"):
        Baseline.from_json({"generation": 1})
