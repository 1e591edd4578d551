"""Which settings are chosen, and that what is proposed holds where it was not chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tests.examined import question
from worker.library.tuning import to_change
from worker.place.exam import Examined
from worker.place.gate import LEAST_PLACES
from worker.place.tuning import SEED, Candidate, Counts, Tuned, candidates, tuned

ALL = frozenset({"places", "geometry", "conflicts", "calibration"})
NOW = Candidate(0.75, 8, ALL)
OTHER, THIRD = Candidate(0.65, 8, ALL), Candidate(0.65, 4, ALL)
PLACES = 60
RIGHT_M = 50.0

#: Of a photo of a place, by its number: whether it gets an answer, whether that is right, whether a false one is given
#: where the place is left out.
Answers = Callable[[int], tuple[bool, bool, bool]]


def asked(answers: Answers, places: Sequence[int] = range(PLACES)) -> list[Examined]:
    found = []
    for place in places:
        given, right, false = answers(place)
        found.append(question(place, place=place, located=given, off_m=5.0 if right else 900.0))
        found.append(question(place, place=place, located=false, off_m=900.0, seen=False))
    return found


def always(given: bool, right: bool = True, false: bool = False) -> Answers:
    return lambda _: (given, right, false)


def half_of(places: int = PLACES) -> set[int]:
    """The places that choose."""
    return set(np.random.default_rng(SEED).permutation(range(places)).tolist()[: places // 2])


def some(share: float, *, among: set[int] | None = None) -> Answers:
    """So many of the places are answered, rightly; of those that are not among some, none."""
    chosen = sorted(range(PLACES) if among is None else among)
    answered = set(chosen[: round(share * len(chosen))])
    return lambda place: (place in answered, True, False)


def tune(**answers: Answers) -> Tuned:
    of = {"now": NOW, "other": OTHER, "third": THIRD}
    return tuned({of[name]: asked(how) for name, how in answers.items()}, right_m=RIGHT_M, most_wrong=0.05)


def test_what_is_right_more_often_at_both_halves_is_proposed_with_its_gain() -> None:
    found = tune(now=lambda place: (place % 3 == 0, True, False), other=always(True), third=some(0.5))

    assert (found.proposed, found.best, found.better) == (True, OTHER, ("accuracy",))
    gain = found.differences["accuracy"]
    assert gain.value is not None
    assert gain.least is not None
    assert 0 < gain.least < gain.value < 1
    assert found.places == (PLACES // 2, PLACES // 2)
    assert found.why == "on the other half of the places it is clearly better: more right answers, of known places"


def test_what_is_better_only_where_it_was_chosen_is_not_proposed() -> None:
    mine = half_of()

    found = tune(now=some(1.0, among=mine - set(sorted(mine)[:5])), other=some(1.0, among=mine))

    assert (found.proposed, found.best, found.decided) == (False, OTHER, True)
    assert found.why == "on the other half of the places it gains less than one answer in a hundred"


def test_what_loses_where_it_was_not_chosen_is_not_proposed_and_says_what_it_loses() -> None:
    mine = half_of()

    found = tune(now=some(0.9), other=lambda place: (place in mine, True, False))

    assert (found.proposed, found.best) == (False, OTHER)
    assert set(found.worse) >= {"accuracy", "coverage"}
    assert "clearly worse: fewer right answers, of known places" in found.why


def test_a_gain_that_may_be_chance_says_how_many_more_places_would_show_it() -> None:
    mine = half_of()
    # Of the places that have not chosen, two are answered more.
    won = set(sorted(set(range(PLACES)) - mine)[:2])

    found = tune(now=lambda place: (place % 2 == 0 and place not in won, True, False),
                 other=lambda place: (place % 2 == 0 or place in mine | won, True, False))  # fmt: skip

    assert (found.proposed, found.best) == (False, OTHER)
    gain = found.differences["accuracy"]
    assert gain.value is not None
    assert gain.least is not None
    assert gain.value > 0.01
    assert gain.least <= 0
    assert found.missing > PLACES / 2, "two places that gain are as likely none"
    assert f"photos of {found.missing} more places would show it" in found.why


def test_what_answers_falsely_more_often_than_is_promised_is_not_chosen_however_often_it_is_right() -> None:
    found = tune(now=some(0.5), other=lambda place: (True, True, place % 10 == 0), third=some(0.6))

    assert found.tried[-1].candidate == OTHER
    assert found.tried[-1].first.right == PLACES // 2
    assert found.best != OTHER


def test_wrong_answers_about_known_places_count_as_false_ones_do() -> None:
    found = tune(now=some(0.5), other=lambda place: (True, place % 10 > 0, False))

    assert (found.best, found.proposed) == (NOW, False)


def test_where_nothing_keeps_to_the_promise_the_present_settings_stay() -> None:
    found = tune(now=always(True, False), other=always(True, True, True))

    assert (found.best, found.proposed, found.decided) == (NOW, False, True)
    assert found.why == "nothing that was tried keeps false and wrong answers within 5.0%"


def test_a_promise_that_is_broken_where_it_was_not_chosen_is_no_proposal() -> None:
    mine = half_of()
    # Two of the thirty are false: not clearly more than none, and more than one in twenty.
    false = set(sorted(set(range(PLACES)) - mine)[:2])

    found = tune(now=lambda place: (place % 2 == 0, True, False), other=lambda place: (True, True, place in false))

    assert (found.best, found.proposed, found.worse) == (OTHER, False, ())
    assert found.better, "it would be one"
    assert found.why.startswith("on the other half of the places more than 5.0% of its answers are false or wrong")


def test_fewer_false_answers_are_a_gain_where_the_present_settings_break_the_promise() -> None:
    found = tune(now=always(True, True, True), other=always(True))

    assert (found.best, found.proposed) == (OTHER, True)
    assert set(found.better) == {"precision", "false_answers"}


def test_of_equal_ones_the_present_settings_stay_and_then_what_changes_least() -> None:
    same = tune(now=some(0.5), other=some(0.5), third=some(0.5))
    better = tune(now=some(0.1), third=some(0.9), other=some(0.9))

    assert (same.best, same.proposed) == (NOW, False)
    last = max(half_of())
    one_wrong = tune(now=lambda place: (True, place != last, False), other=lambda place: (place != last, True, False))
    assert one_wrong.best == NOW, "as many right answers, and one wrong one more"
    assert same.why == "nothing that was tried has more right answers with no more than 5.0% false or wrong"
    assert better.best == OTHER


def test_of_equally_many_right_answers_those_with_fewer_wrong_ones_are_chosen() -> None:
    right = some(0.9)
    found = tune(
        now=some(0.1),
        third=right,
        other=lambda place: (right(place)[0] or place == max(half_of()), right(place)[0], False),
    )

    assert found.best == THIRD


@pytest.mark.parametrize(("places", "missing"), [(2 * LEAST_PLACES - 1, 1), (4, 16), (1, 19), (0, 20)])
def test_too_few_places_decide_nothing_and_say_how_many_are_missing(places: int, missing: int) -> None:
    answers = {NOW: asked(always(False), range(places)), OTHER: asked(always(True), range(places))}

    found = tuned(answers, right_m=RIGHT_M, most_wrong=0.05)

    assert (found.decided, found.proposed, found.missing) == (False, False, missing)
    assert found.why.endswith(f"{missing} more")


def test_as_many_places_as_it_takes_decide() -> None:
    places = range(2 * LEAST_PLACES)

    found = tuned(
        {NOW: asked(always(False), places), OTHER: asked(always(True), places)}, right_m=RIGHT_M, most_wrong=0.05
    )

    assert (found.decided, found.proposed) == (True, True)


def test_a_gain_that_is_sure_and_too_small_to_matter_is_not_proposed() -> None:
    places = range(2_000)
    answers = {NOW: asked(lambda place: (place % 125 > 0, True, False), places), OTHER: asked(always(True), places)}

    found = tuned(answers, right_m=RIGHT_M, most_wrong=0.05)

    gain = found.differences["accuracy"]
    assert gain.value is not None
    assert gain.least is not None
    assert 0 < gain.least < gain.value < 0.01
    assert (found.best, found.proposed) == (OTHER, False)


def test_settings_that_change_no_answer_are_named() -> None:
    found = tune(now=some(0.5), other=some(0.5))
    moved = tune(now=some(0.5), other=some(0.4))

    assert (found.idle, moved.idle) == (("threshold",), ())


def test_what_is_tried_is_the_present_settings_with_one_thing_changed_at_every_step() -> None:
    found = candidates(NOW)

    assert found[0] == NOW
    assert len(found) == len(set(found))
    assert {"conflicts"} < set.union(*(set(one.rungs) for one in found))
    assert all("conflicts" in one.rungs for one in found), "what takes a rebuild is not tried"
    assert {one.neighbours for one in found} == {4, 8, 16}
    assert {one.threshold for one in found} >= {0.65, 0.75, 0.85}
    assert not any(one.threshold != 0.75 and one.neighbours != 8 for one in found)
    assert [one.guide for one in found].count(True) == len({one.threshold for one in found})


def test_without_keypoints_nothing_is_tried_by_them() -> None:
    found = candidates(Candidate(0.75, 1, frozenset({"places"})))

    assert not any("geometry" in one.rungs for one in found)
    assert {one.neighbours for one in found} == {1, 2}


@pytest.mark.parametrize(
    ("best", "changes", "anew"),
    [
        (Candidate(0.65, 8, ALL), {"SIGHTLINE_LOCATE_THRESHOLD": "0.65"}, False),
        (Candidate(0.75, 16, ALL), {"SIGHTLINE_LOCATE_NEIGHBOURS": "16"}, True),
        (Candidate(0.75, 8, ALL - {"calibration"}), {"SIGHTLINE_RUNGS": "places,geometry,conflicts"}, False),
        (Candidate(0.75, 8, ALL - {"geometry"}), {"SIGHTLINE_RUNGS": "places,conflicts,calibration"}, True),
        (Candidate(0.75, 8, frozenset()), {"SIGHTLINE_RUNGS": ""}, False),
        (Candidate(0.75, 8, ALL, guide=True), {}, False),
    ],
)
def test_what_is_to_be_set_is_what_changes_and_what_was_learnt_otherwise_is_learnt_anew(
    best: Candidate, changes: dict[str, str], anew: bool
) -> None:
    found = Tuned(NOW, (), best, "", (10, 10))

    assert to_change(best, NOW) == changes
    assert found.learns_anew is anew


def test_a_photo_that_is_answered_wrongly_is_both_answered_and_wrong() -> None:
    counts = Counts(seen=20, answered=10, right=9, unseen=20, false=1)

    assert (counts.given, counts.wrong) == (11, 2)
    assert not counts.keeps_to(0.05)
    assert counts.keeps_to(0.2)
    assert not Counts(seen=400, answered=400, right=400, unseen=20, false=20).keeps_to(0.05), "all of the unseen"
