"""What becomes of the evidence: an answer with its kind of confidence, or a no with a reason to act on."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from producer_client.contract import Answer, Hit, Provenance, Reason
from tests.hits import RULE, hit, look, shows
from worker.place.geometry import Seen
from worker.place.judging import UNCALIBRATED_RADIUS_M, judge
from worker.place.moments import Moments
from worker.place.strength import LEAST_CELLS, LEAST_INLIERS, NAMES, Strength
from worker.place.weighing import weigh

FAR = 5_000.0


@dataclass
class Learnt:
    """A calibration that says what it is told, and keeps what it was asked."""

    says: float = 0.97
    least: float = 0.9
    unproven: str | None = None
    asked: list[Strength] = field(default_factory=list)

    def probability(self, strength: Strength) -> float:
        self.asked.append(strength)
        return self.says

    def least_for(self, strength: Strength) -> float:
        return self.least

    def answers(self, strength: Strength) -> bool:
        return self.probability(strength) > self.least

    def confidence(self, strength: Strength) -> float:
        return 0.9 * self.says

    def radius_m(self, spread_m: float) -> float:
        return 30.0 + spread_m

    def within(self, strength: Strength, spread_m: float) -> dict[float, float]:
        return {25.0: 0.8 * self.says, 1_000.0: self.says}


def ask(
    *shown: tuple[Hit, Seen | None], learnt: Learnt | None = None, geometry: bool = True, **options: object
) -> Answer:
    """The answer about a photo by these hits, and what each shows of it; None where its keypoints are not known."""
    told = {of.photo_id: seen for of, seen in shown}
    weighed = weigh(
        [of for of, _ in shown],
        RULE,
        compare=(lambda hits, most: {of.photo_id: told[of.photo_id] for of in hits}) if geometry else None,
        index_count=100,
        **options,  # type: ignore[arg-type]
    )
    return judge(weighed, learnt)


def ids(answer: Answer) -> list[int]:
    return [evidence.photo_id for evidence in answer.evidence]


# ------------------------------------------------------------------------------------- without a calibration


def test_a_place_that_is_seen_and_stands_out_is_the_answer_by_one_witness() -> None:
    found = ask((hit(1, 0.8), shows(120)), (hit(2, 0.9, north_m=FAR), shows(20)))

    assert found.located
    assert (ids(found), found.evidence[0].inliers) == ([1], 120)
    assert found.contrary is not None
    assert (found.contrary.photo_id, found.contrary.inliers) == (2, 20)
    assert found.confidence_kind == "uncalibrated"
    assert found.confidence == pytest.approx(124 / 148, abs=1e-4)
    assert found.radius_m == UNCALIBRATED_RADIUS_M


def test_what_its_witnesses_claim_is_covered_also_without_a_calibration() -> None:
    found = ask((hit(1), shows(60)), (hit(2, 0.89, north_m=45, error_m=40.0), shows(60, first=60)))

    assert found.located
    assert found.radius_m is not None
    assert found.radius_m >= 40


@pytest.mark.parametrize(
    ("inliers", "cells", "contrary", "reason"),
    [
        (LEAST_INLIERS, LEAST_CELLS, 0, None),
        (LEAST_INLIERS - 1, LEAST_CELLS, 0, Reason.UNVERIFIED),
        (LEAST_INLIERS, LEAST_CELLS - 1, 0, Reason.UNVERIFIED),
        (150, 30, 99, Reason.LOOK_ALIKE_PLACES),
        (150, 30, 98, None),
        (41, 30, 26, Reason.LOOK_ALIKE_PLACES),
    ],
    ids=["just enough", "too few", "in one corner", "ratio too small", "ratio large enough", "contrast too small"],
)
def test_how_clear_it_must_be(inliers: int, cells: int, contrary: int, reason: Reason | None) -> None:
    found = ask((hit(1), shows(inliers, cells=cells)), (hit(2, north_m=FAR), shows(contrary)))

    assert found.reason is reason
    assert found.located is (reason is None)


def test_look_alike_places_are_named_with_what_each_shows() -> None:
    found = ask((hit(1), shows(100)), (hit(2, north_m=FAR), shows(95)))

    assert found.reason is Reason.LOOK_ALIKE_PLACES
    assert "photo 1 has 100 points" in found.message
    assert "photo 2, 5000 m away, has 95" in found.message
    assert found.contrary is not None
    assert found.contrary.photo_id == 2


def test_similar_photos_that_show_other_things_are_no_evidence() -> None:
    found = ask((hit(1, 0.95), shows(12)), (hit(2, 0.94), shows(9)))

    assert found.reason is Reason.UNVERIFIED
    assert "of 2 that were compared the best has 12 points" in found.message
    assert "could not be compared" not in found.message
    assert (found.point, found.radius_m, found.confidence) == (None, None, None)


def test_pictures_without_keypoints_are_named_where_they_may_be_what_lacks() -> None:
    found = ask((hit(1, 0.95), None), (hit(2, 0.94), shows(9)))

    assert found.reason is Reason.UNVERIFIED
    assert found.message.endswith("(1 could not be compared: `sightline rebuild` makes their keypoints)")


@pytest.mark.parametrize("learnt", [None, Learnt()])
def test_where_no_keypoints_are_there_the_votes_decide_as_before(learnt: Learnt | None) -> None:
    two = [(hit(1, 0.95), None), (hit(2, 0.94, north_m=20), None)]

    found = ask(*two, (hit(3, 0.9, north_m=FAR), None), learnt=learnt)
    alone = ask((hit(1), None), learnt=learnt)

    assert found.located
    assert (found.confidence_kind, ids(found)) == ("vote_share", [1, 2])
    assert found.contrary is not None
    assert (found.contrary.photo_id, found.contrary.inliers) == (3, None)
    assert alone.reason is Reason.TOO_FEW_WITNESSES


def test_with_geometry_off_the_votes_decide_and_the_point_is_a_median() -> None:
    found = ask(*((hit(n, 0.9, north_m=m), None) for n, m in enumerate((0, 3, 6, 100))), geometry=False)

    assert found.point is not None
    assert found.point.lat == pytest.approx(hit(0, north_m=4).lat, abs=4e-5)
    assert found.confidence_kind == "vote_share"


# ---------------------------------------------------------------------------------------- with a calibration


def test_a_calibration_says_probability_and_radius() -> None:
    learnt = Learnt()

    found = ask((hit(1), shows(120)), (hit(2, north_m=FAR), shows(20)), learnt=learnt)

    assert found.located
    assert (found.confidence_kind, found.confidence, found.radius_m) == ("probability", 0.873, 30.0)
    assert "within 30 m with a probability of 87%" in found.message
    assert found.within == {"25": 0.776, "1000": 0.97}
    assert len(learnt.asked[0].features()) == len(NAMES)


def test_a_calibration_may_answer_what_the_constants_would_not_but_for_what_chance_may_show() -> None:
    def found(inliers: int) -> Answer:
        return ask((hit(1), shows(inliers)), (hit(2, north_m=FAR), shows(inliers - 5)), learnt=Learnt(0.95))

    assert found(LEAST_INLIERS).located
    assert found(LEAST_INLIERS - 1).reason is Reason.UNVERIFIED


def test_what_is_learnt_from_is_what_was_compared_or_else_how_similar_it_is() -> None:
    compared, similar = Learnt(), Learnt()

    ask((hit(1, 0.9), shows(45)), (hit(2, 0.8, north_m=FAR), shows(20)), learnt=compared)
    ask((hit(1, 0.9), None), (hit(2, 0.8, north_m=FAR), None), learnt=similar, geometry=False)

    contrast, ratio = 25 / 25**0.5, math.log(49 / 24)
    assert compared.asked[0].features() == pytest.approx([contrast, ratio, math.log(46), 0.5, 0.0, 0.0])
    assert similar.asked[0].features() == pytest.approx([0.0, 0.0, 0.0, 0.0, 0.1, 1 / (1 + 0.5 ** (10 / 3))])


def test_while_nothing_is_promised_what_is_verified_is_answered_unless_what_was_learnt_speaks_against_it() -> None:
    def found(here: int, elsewhere: int, says: float) -> Answer:
        learnt = Learnt(says, unproven="places")
        return ask((hit(1), shows(here)), (hit(2, north_m=FAR), shows(elsewhere)), learnt=learnt)

    sure, unlikely, alike = found(100, 20, 0.95), found(100, 20, 0.4), found(100, 95, 0.95)

    assert (sure.confidence_kind, sure.within) == ("uncalibrated", {})
    assert (unlikely.reason, alike.reason) == (Reason.UNVERIFIED, Reason.LOOK_ALIKE_PLACES)
    assert "a probability of 40%, more than 90% is asked" in unlikely.message


@pytest.mark.parametrize(
    ("here", "elsewhere", "reason", "said"),
    [
        (100, 95, Reason.LOOK_ALIKE_PLACES, "several places look like it"),
        (100, 0, Reason.UNVERIFIED, "a probability of 40%, more than 90% is asked"),
        (20, 0, Reason.UNVERIFIED, "the best has 20 points"),
    ],
)
def test_below_what_was_promised_nothing_is_answered(here: int, elsewhere: int, reason: Reason, said: str) -> None:
    found = ask((hit(1), shows(here)), (hit(2, north_m=FAR), shows(elsewhere)), learnt=Learnt(0.4))

    assert found.reason is reason
    assert said in found.message
    assert found.confidence is None


def test_a_calibration_judges_votes_too_where_geometry_is_off() -> None:
    sure = ask((hit(1), None), (hit(2), None), learnt=Learnt(), geometry=False)
    unsure = ask((hit(1), None), (hit(2), None), learnt=Learnt(0.4), geometry=False)

    assert (sure.located, sure.confidence_kind) == (True, "probability")
    assert unsure.reason is Reason.UNVERIFIED
    assert "a probability of 40%, more than 90% is asked" in unsure.message


# --------------------------------------------------------------------------------------------------- all


def test_a_no_of_the_votes_stays_where_keypoints_do_not_say_otherwise() -> None:
    dissimilar = ask((hit(1, 0.6), shows(3)))
    untrusted = ask((hit(1, 0.9, provenance=Provenance.DERIVED), shows(300)), (hit(2, 0.6), shows(3)))
    torn = ask((hit(1), shows(300)), (hit(2, north_m=FAR), shows(300)), looks={1: look(0), 2: look(0)})

    assert dissimilar.reason is Reason.NOTHING_SIMILAR
    assert untrusted.reason is Reason.NO_TRUSTED_EVIDENCE
    assert torn.reason is Reason.NEIGHBOURS_DISAGREE


def test_a_wrong_position_among_right_ones_is_no_answer_and_does_not_win() -> None:
    """The photo of this place whose position is wrong is as good a match as the others."""
    found = ask((hit(1, 0.95, north_m=FAR), shows(150)), (hit(2), shows(140)), (hit(3, 0.89), shows(120)))

    assert found.reason is Reason.LOOK_ALIKE_PLACES


def test_every_reason_of_the_evidence_has_a_test() -> None:
    reasons = {
        ask((hit(1), shows(100)), (hit(2, north_m=FAR), shows(95))).reason,
        ask((hit(1), shows(3))).reason,
        ask((hit(1), None)).reason,
        ask((hit(1), None), (hit(2, north_m=FAR), None)).reason,
        ask((hit(1, 0.6), shows(3))).reason,
        ask((hit(1, provenance=None), None)).reason,
        ask((hit(1), shows(300)), looks={1: look(0)}, own=look(0)).reason,
        ask(everywhere=False).reason,
        judge(weigh([], RULE, index_count=0)).reason,
        Reason.NO_PLACE_IN_PICTURE,  # said before anything is searched: test_locating.py
        Reason.WITHHELD,  # said when all is found: test_telling.py
    }

    assert reasons == set(Reason)


def test_answers_are_json_without_nan_or_infinity() -> None:
    for found in (
        ask((hit(1), shows(120)), (hit(2, north_m=FAR), shows(20)), learnt=Learnt()),
        ask((hit(1), shows(120))),
        ask((hit(1), shows(0)), (hit(2, north_m=FAR), shows(0))),
        ask(),
    ):
        json.dumps(found.to_wire(), allow_nan=False)


# ------------------------------------------------------------------------------- what the camera took besides


def took(*photos: tuple[int, float, float], one_camera: bool = True) -> Moments:
    """Of each its id, seconds apart, and metres to the north."""
    return Moments([replace(hit(n, north_m=m), apart_s=s) for n, s, m in photos], one_camera)


@pytest.mark.parametrize("learnt", [None, Learnt()], ids=["uncalibrated", "calibrated"])
def test_a_place_out_of_the_cameras_reach_is_no_answer(learnt: Learnt | None) -> None:
    shown = (hit(1, 0.9), shows(120)), (hit(2, 0.8, north_m=FAR), shows(20))

    found = ask(*shown, learnt=learnt, moments=took((9, -40.0, 90_000), (8, 50.0, 90_000)))

    assert ask(*shown, learnt=learnt).located
    assert found.reason is Reason.LOOK_ALIKE_PLACES
    assert "took photo 9 40 s before or after" in found.message
    assert found.contrary is not None
    assert (found.contrary.photo_id, found.contrary.apart_s) == (9, -40.0)
    assert ids(found) == [1]


def test_votes_are_no_answer_out_of_the_cameras_reach_either() -> None:
    shown = (hit(1, 0.9), None), (hit(2, 0.9), None)

    found = ask(*shown, geometry=False, moments=took((9, -40.0, 90_000)))

    assert ask(*shown, geometry=False).located
    assert found.reason is Reason.LOOK_ALIKE_PLACES


def test_the_photos_that_speak_for_a_place_by_time_are_shown_with_the_seconds() -> None:
    moments = took((7, -3.5, 0), (1, 20.0, 0), (6, 30.0, 0), (5, 40.0, 0), (4, 2.0, 90_000))

    found = ask((hit(1, 0.9), shows(120)), (hit(2, 0.8), shows(90)), moments=moments)

    assert found.located
    # Of the three nearest in time one looks like it, too; what lies elsewhere is not shown.
    assert [(of.photo_id, of.apart_s) for of in found.evidence] == [(1, 20.0), (2, None), (7, -3.5), (6, 30.0)]
    assert found.message.endswith("; its camera took photo 7 4 s before or after, 0 m from there")


def test_a_camera_of_the_model_is_named_as_such() -> None:
    found = ask((hit(1, 0.9), shows(120)), moments=took((7, 9.0, 0), one_camera=False))

    assert found.message.endswith("; a camera of its model took photo 7 9 s before or after, 0 m from there")


@pytest.mark.parametrize("seen", [shows(10), shows(60, cells=3)])
def test_without_pixels_that_speak_for_it_time_makes_no_answer(seen: Seen) -> None:
    shown = hit(1, 0.5), seen

    with_time, without = ask(shown, moments=took((7, 9.0, 0))), ask(shown)

    assert not with_time.located
    assert (with_time.reason, with_time.message) == (without.reason, without.message)
