"""What contradicts a position: numbers, keypoints, and mistakes that explain it. One wrong photo wins against none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from producer_client.contract import ConflictState, Doubt, Mistake, Provenance
from worker.core.conflict import Claim, Contradiction
from worker.place.conflicts import Sighting, mistake_of, of_one_picture
from worker.place.conflicts import elsewhere as elsewhere_of
from worker.place.geometry import Seen

HERE, THERE = (55.70, 13.19), (48.85, 2.35)
AGREE_M = 150.0


def claim(
    photo_id: int, point: tuple[float, float], provenance: Provenance = Provenance.SURVEYED, **more: object
) -> Claim:
    return Claim(photo_id, "one", *point, provenance, **more)  # type: ignore[arg-type]


def contradicted(claims: Sequence[Claim]) -> dict[int, list[int]]:
    found = of_one_picture(claims, Doubt.SAME_CONTENT, agree_m=AGREE_M)
    return {one.claim.photo_id: list(one.others) for one in found}


# ------------------------------------------------------------------------------------------- of one picture


def test_what_agrees_contradicts_nobody() -> None:
    assert contradicted([claim(1, HERE), claim(2, (HERE[0] + 0.001, HERE[1]))]) == {}
    assert contradicted([claim(1, (0.0, 179.9999)), claim(2, (0.0, -179.9999))]) == {}
    assert contradicted([claim(1, (-90.0, 0.0)), claim(2, (-90.0, 120.0))]) == {}


def test_one_against_one_is_nobodys_proof() -> None:
    assert contradicted([claim(1, HERE), claim(2, THERE)]) == {1: [2], 2: [1]}


def test_the_minority_is_contradicted() -> None:
    assert contradicted([claim(1, HERE), claim(2, HERE), claim(3, THERE)]) == {3: [1, 2]}
    torn = [claim(1, HERE), claim(2, HERE), claim(3, THERE), claim(4, THERE), claim(5, (0.0, 10.0))]
    assert contradicted(torn).keys() == {1, 2, 3, 4, 5}


def test_a_persons_word_goes_before_numbers() -> None:
    many = [claim(1, THERE), claim(2, THERE), claim(3, HERE, Provenance.CONFIRMED)]
    settled = [claim(1, THERE, Provenance.CONFIRMED), claim(2, HERE, state=ConflictState.CONFIRMED)]

    assert contradicted(many) == {1: [3], 2: [3]}
    assert contradicted(settled) == {1: [2]}
    assert contradicted([claim(n, at, state=ConflictState.CONFIRMED) for n, at in enumerate((HERE, THERE))]) == {}


def test_a_stated_error_is_room() -> None:
    far = (HERE[0] + 0.01, HERE[1])

    assert contradicted([claim(1, HERE), claim(2, far)]).keys() == {1, 2}
    assert contradicted([claim(1, HERE, error_m=600.0), claim(2, far, error_m=500.0)]) == {}


# ------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("claimed", "there", "mistake"),
    [
        ((-55.7, 13.19), HERE, Mistake.LAT_SIGN),
        ((55.7, -13.19), HERE, Mistake.LON_SIGN),
        ((-55.7, -13.19), HERE, Mistake.BOTH_SIGNS),
        ((13.19, 55.7), HERE, Mistake.SWAPPED),
        ((55.42, 13.114), HERE, Mistake.MINUTES_AS_DECIMALS),
        ((-55.42, -13.114), (-55.70, -13.19), Mistake.MINUTES_AS_DECIMALS),
        ((-16.8, 179.99), (-16.8, -179.99), Mistake.LON_SIGN),
        ((30.0, 10.0), HERE, None),
        # At Greenwich, where a turned sign is the next street.
        ((51.4779, -0.0060), (51.4820, 0.0050), None),
        ((10.0, 120.0), (60.0, -170.0), None),
        (THERE, HERE, None),
    ],
)
def test_a_mistake_is_named_where_putting_it_right_explains_all(
    claimed: tuple[float, float], there: tuple[float, float], mistake: Mistake | None
) -> None:
    assert mistake_of(claimed, there) is mistake


# ------------------------------------------------------------------------------------------------- elsewhere


def seen(inliers: int, first: int = 0, cells: int = 20) -> Seen:
    """So many of the photo's keypoints, from this one on."""
    return Seen(2 * inliers, inliers, cells, np.arange(first, first + inliers))


def of(point: tuple[float, float], *found: Seen | None, similarity: float = 0.8, ids: int = 100) -> list[Sighting]:
    return [Sighting(ids + n, point, similarity, seen=one) for n, one in enumerate(found)]


def elsewhere(
    at: tuple[float, float], *sightings: Sighting, provenance: Provenance = Provenance.SURVEYED
) -> Contradiction | None:
    return elsewhere_of(claim(1, at, provenance), sightings, agree_m=AGREE_M, threshold=0.75)


def test_what_two_pictures_of_another_place_show_and_none_of_its_own_is_contradicted() -> None:
    own_place = of(HERE, seen(9), seen(12), ids=1)
    found = elsewhere(HERE, *own_place, *of(THERE, seen(60), seen(80)))
    by_gps = elsewhere(HERE, *own_place, *of(THERE, seen(60), seen(80)), provenance=Provenance.EXIF_GPS)

    assert found is not None
    assert (found.doubt, found.others, found.mistake) == (Doubt.SEEN_ELSEWHERE, [101, 100], Mistake.OF_ANOTHER_PHOTO)
    assert found.point == pytest.approx(THERE)
    assert by_gps is not None
    assert by_gps.doubt is Doubt.GPS_ELSEWHERE


@pytest.mark.parametrize(
    "sightings",
    [
        [],
        of(THERE, seen(80)),
        [*of(THERE, seen(80)), *of((10.0, 10.0), seen(80), ids=200)],
        of(THERE, seen(29), seen(29)),
        of(THERE, seen(80, cells=5), seen(80, cells=5)),
        [*of(THERE, seen(80), seen(80)), *of(HERE, seen(70), ids=1)],
        [*of(THERE, seen(80), seen(80)), *of((10.0, 10.0), seen(75, first=4), ids=200)],
        [*of((HERE[0], HERE[1] + 0.01), seen(80), seen(80))],
        of(THERE, None, None),
    ],
    ids=[
        "nothing looks like it",
        "one picture may be the wrong one itself",
        "two places are no agreement",
        "too few inliers",
        "a watermark lies in a corner",
        "its own place shows it too",
        "a third place shows it nearly as well",
        "alone, and 600 m off: a landmark is seen from afar",
        "not compared",
    ],
)
def test_a_photo_is_left_in_peace_where_the_evidence_is_not_clear(sightings: list[Sighting]) -> None:
    assert elsewhere(HERE, *sightings) is None


def test_near_its_own_place_the_photos_there_must_have_been_looked_at() -> None:
    next_street = (HERE[0], HERE[1] + 0.01)

    assert elsewhere(HERE, *of(next_street, seen(80), seen(80)), *of(HERE, seen(3), ids=1)) is not None


def test_a_mistake_that_explains_all_needs_no_margin_over_a_third_place() -> None:
    third = of((10.0, 10.0), seen(75, first=4), ids=200)
    found = elsewhere((-HERE[0], HERE[1]), *of(HERE, seen(80), seen(80)), *third)

    assert found is not None
    assert found.mistake is Mistake.LAT_SIGN


def test_a_place_goes_by_what_its_pictures_show_together_and_not_by_how_many_there_are() -> None:
    look_alike = of((10.0, 10.0), *5 * [seen(40)], ids=200)

    found = elsewhere(HERE, *of(THERE, seen(80), seen(70)), *look_alike)

    assert found is not None
    assert found.others == [100, 101]


def test_pictures_of_a_third_place_speak_against_it_together() -> None:
    third = of((10.0, 10.0), seen(40), seen(40, first=40), ids=200)

    assert elsewhere(HERE, *of(THERE, seen(80), seen(80)), *third) is None
    assert elsewhere(HERE, *of(THERE, seen(80), seen(80)), *third[:1]) is not None


def test_a_place_that_explains_the_mistake_goes_before_one_that_shows_more() -> None:
    found = elsewhere((-HERE[0], HERE[1]), *of(HERE, seen(60), seen(60)), *of((10.0, 10.0), *3 * [seen(90)], ids=200))

    assert found is not None
    assert (found.mistake, found.others) == (Mistake.LAT_SIGN, [100, 101])


def test_a_second_picture_need_show_no_more_than_chance_does_not() -> None:
    assert elsewhere(HERE, *of(THERE, seen(80), seen(16))) is not None
    assert elsewhere(HERE, *of(THERE, seen(80), seen(15))) is None


def test_without_keypoints_only_a_mistake_that_explains_all_speaks_against_a_photo() -> None:
    turned = (-HERE[0], HERE[1])

    found = elsewhere(turned, *of(HERE, None, None))
    assert found is not None
    assert found.mistake is Mistake.LAT_SIGN
    assert elsewhere(THERE, *of(HERE, None, None)) is None
    assert elsewhere(turned, *of(HERE, None)) is None
    assert elsewhere(turned, *of(HERE, None, None, similarity=0.7)) is None
    assert elsewhere(turned, *of(HERE, None, None), *of(turned, None, ids=1)) is None


def test_one_wrong_photo_does_not_suspend_those_whom_it_contradicts() -> None:
    """As the photos of a place see it that a wrong one claims to be elsewhere of."""
    assert elsewhere(HERE, *of(HERE, seen(70), ids=1), *of(THERE, seen(90))) is None
