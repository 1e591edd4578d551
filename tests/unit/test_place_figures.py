"""Figures of the benchmark of answers, by hand: what counts as right, as false, and whose times are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.heldout import figures_of as figures_of_photos
from benchmarks.ladder import LADDER, Policy, Question, Reply, default_of, policies
from benchmarks.place import adds_ms, figures_of
from producer_client.contract import Answer, Point, Reason

NORTH_OF_M = 111_195.0  #: metres in a degree of latitude on a ball


def reply(*, off_m: float | None, seen: bool = True, confidence: float = 0.9, ms: float = 10.0) -> Reply:
    """Answered so far off, with a radius of 50 m; or not at all."""
    question = Question(1, Path("photo.jpg"), 10.0, 20.0, 0, seen)
    if off_m is None:
        return Reply(question, Answer(status=Answer.ABSTAINED, reason=Reason.NOTHING_SIMILAR), ms)
    point = Point(10.0 + off_m / NORTH_OF_M, 20.0)
    return Reply(question, Answer(status=Answer.LOCATED, point=point, radius_m=50.0, confidence=confidence), ms)


REPLIES = [
    reply(off_m=10),
    reply(off_m=40),
    reply(off_m=90),
    reply(off_m=2_000),
    reply(off_m=None),
    reply(off_m=5, seen=False),  # a place that nobody has seen: never right, whatever its point
    reply(off_m=None, seen=False),
]


def test_shares_are_of_what_their_names_say() -> None:
    figures = figures_of(REPLIES, REPLIES[:1], Policy("any"))

    assert figures["answered_seen"] == pytest.approx(4 / 5)
    assert figures["right_of_given"] == pytest.approx(3 / 5)
    assert figures["right_within_25m"] == pytest.approx(1 / 5)
    assert figures["false_answers_unseen"] == pytest.approx(1 / 2)
    # Of the three right ones the radius of 50 m holds two.
    assert figures["radius_coverage"] == pytest.approx(2 / 3, abs=1e-4)


def test_the_guide_names_no_radius() -> None:
    without = [Reply(one.question, one.answer, one.ms) for one in REPLIES]

    guided = figures_of(without, without, Policy("guide", guide=True))

    assert guided["radius_coverage"] is None
    assert guided["ece"] is None
    assert guided["ece_right"] == pytest.approx(0.3)


def test_times_are_of_what_was_asked_one_at_a_time() -> None:
    timed = [reply(off_m=10, ms=ms) for ms in (20, 30, 100)]

    assert figures_of([*timed, reply(off_m=10, ms=5_000)], timed, Policy("any"))["locate_p50_ms"] == 30
    # Question by question: medians apart would say 0.
    assert adds_ms(timed, [reply(off_m=10, ms=ms) for ms in (10, 95, 30)]) == 10


def test_photos_left_out_are_judged_at_50_and_100_m() -> None:
    figures = figures_of_photos(REPLIES[:5], REPLIES[5:])

    assert figures["answered"] == pytest.approx(4 / 5)
    assert (figures["right_within_50m"], figures["right_within_100m"]) == (0.5, 0.75)
    assert figures["median_error_m"] == pytest.approx(65, abs=0.1)
    assert figures["largest_error_m"] == pytest.approx(2_000, abs=1)
    assert figures["false_answers_unseen"] == 0.5


def test_nothing_answered_is_no_share_of_nothing() -> None:
    figures = figures_of_photos([reply(off_m=None)], [])

    assert figures["answered"] == 0
    assert figures["right_within_50m"] is figures["median_error_m"] is figures["false_answers_unseen"] is None


def test_each_policy_has_one_rung_more_than_the_one_before_it() -> None:
    named = {policy.name: policy for policy in policies()}

    assert list(named) == ["guide", "today", *(f"+{rung}" for rung in LADDER), "+time"]
    assert named.pop("+time").changes == {"rungs": (*LADDER, "time")}
    assert default_of(policies()).name == f"+{LADDER[-1]}"
    assert named.pop(f"+{LADDER[-1]}").changes == {}
    assert [policy.changes["rungs"] for policy in named.values()] == [(), *(LADDER[:n] for n in range(len(LADDER)))]
    assert {"geometry", "conflicts", "calibration"} <= set(LADDER)
    assert all(("conflicts" in p.changes["rungs"]) == ("time" in p.learnt["rungs"]) for p in named.values())
