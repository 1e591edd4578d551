"""The locate rule: who is heard, what they agree on, and every honest no."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as changed

from producer_client.contract import Answer, Hit, PositionIssue, Provenance, Reason
from tests.hits import HERE, METRE, RULE, hit, look
from worker.core.geo import distance_m
from worker.core.shot import Shot
from worker.core.types import TOO_PLAIN
from worker.place.pictures import LEAST_COSINE, LEAST_COSINE_ALONE, MOST_BITS, Look
from worker.place.rule import MIN_RADIUS_M, Rule, answer, settled
from worker.place.witnesses import HALF_WEIGHT_STEP

some = settings(derandomize=True, max_examples=200)


def ask(*hits: Hit, rule: Rule = RULE, looks: Mapping[int, Look] | None = None) -> Answer:
    return answer(hits, rule, index_count=100, looks=looks)


def ids(found: Answer) -> list[int]:
    return [evidence.photo_id for evidence in found.evidence]


def position(found: Answer) -> tuple[float, float]:
    assert found.point is not None
    return found.point.lat, found.point.lon


# ------------------------------------------------------------------------------------------- each no


def test_an_empty_index_is_said() -> None:
    found = answer([], RULE, index_count=0)

    assert (found.status, found.reason, found.evidence) == (Answer.ABSTAINED, Reason.EMPTY_INDEX, [])


def test_nothing_similar_enough_says_how_far_off_and_shows_what_there_was() -> None:
    found = ask(hit(1, 0.74), hit(2, 0.73))

    assert found.reason is Reason.NOTHING_SIMILAR
    assert "0.74" in found.message
    assert "0.75" in found.message
    assert ids(found) == [1, 2]


def test_similarity_at_the_threshold_is_enough() -> None:
    assert ask(hit(1, 0.75), hit(2, 0.75)).located


@pytest.mark.parametrize("provenance", [Provenance.DERIVED, Provenance.FALLBACK, None])
def test_similar_photos_without_trusted_coordinates_are_no_evidence(provenance: Provenance | None) -> None:
    found = ask(hit(1, 0.99, provenance=provenance), hit(2, 0.98, provenance=provenance))

    assert found.reason is Reason.NO_TRUSTED_EVIDENCE
    assert ids(found) == [1, 2]


def test_trusted_photos_below_the_threshold_are_no_evidence() -> None:
    found = ask(hit(1, 0.9, provenance=Provenance.DERIVED), hit(2, 0.74), hit(3, 0.74))

    assert found.reason is Reason.NO_TRUSTED_EVIDENCE


def test_where_only_copies_of_the_photo_are_known_that_is_what_is_said() -> None:
    everywhere = answer([], RULE, index_count=3)
    in_a_circle = answer([], RULE, index_count=3, everywhere=False)

    assert (everywhere.reason, in_a_circle.reason) == (Reason.ONLY_OWN_COPIES, Reason.OUTSIDE_COVERAGE)
    assert everywhere.message.startswith("nothing is known but the photo itself and copies of it")
    assert in_a_circle.message.startswith("nothing is known in this circle")


def test_copies_of_the_photo_itself_are_no_evidence_and_are_shown() -> None:
    looks = {1: look(3, 0.97), 2: look(MOST_BITS + 1, 0.95), 3: look(200, 0.9)}
    own = look(0)

    alone = answer([hit(1, 0.97)], RULE, index_count=1, looks=looks, own=own)
    beside = answer([hit(1, 0.97), hit(2, 0.95), hit(3, 0.94)], RULE, index_count=3, looks=looks, own=own)

    assert (alone.reason, ids(alone)) == (Reason.ONLY_OWN_COPIES, [1])
    assert ids(beside) == [2, 3]
    assert not settled([hit(1, 0.97)] * 8, RULE, looks=looks, own=own), "less similar ones may be other pictures"


def test_what_makes_each_similar_photo_no_evidence_is_said() -> None:
    issues = (PositionIssue.FILE_GONE, PositionIssue.FILE_GONE, PositionIssue.FILE_CHANGED, PositionIssue.TOO_COARSE)
    hits = [changed(hit(n, provenance=Provenance.FALLBACK), position_issue=issue) for n, issue in enumerate(issues)]

    gone = answer(hits[:2], RULE, index_count=2)
    mixed = answer([*hits, hit(9, provenance=Provenance.DERIVED)], RULE, index_count=5)

    assert gone.message.endswith("(the file is gone: 2)")
    for said in ("the file is gone: 2", "has changed since it was embedded: 1", "too large an error: 1", "detector: 1"):
        assert said in mixed.message
    assert "fallback" not in mixed.message


def test_one_photo_alone_has_nobody_to_agree_with() -> None:
    found = ask(hit(1, 0.99))

    assert found.reason is Reason.TOO_FEW_WITNESSES
    assert found.point is None
    assert ids(found) == [1]


def test_one_photo_is_enough_where_the_settings_say_so() -> None:
    found = ask(hit(1, 0.99), rule=replace(RULE, min_witnesses=1))

    assert found.located
    assert position(found) == pytest.approx(HERE)


def test_two_places_with_half_the_votes_each_are_no_answer() -> None:
    found = ask(hit(1), hit(2, north_m=5_000), hit(3), hit(4, north_m=5_000))

    assert found.reason is Reason.NEIGHBOURS_DISAGREE
    assert "50%" in found.message
    assert ids(found) == [1, 2, 3, 4]


def test_an_abstention_carries_no_place_and_no_confidence() -> None:
    for found in (ask(), ask(hit(1)), ask(hit(1), hit(2, north_m=900))):
        assert not found.located
        assert (found.point, found.radius_m, found.confidence) == (None, None, None)
        assert found.message


# --------------------------------------------------------------------------------------- who is heard


@pytest.mark.parametrize("provenance", [Provenance.EXIF_GPS, Provenance.SURVEYED, Provenance.CONFIRMED])
def test_every_trusted_provenance_is_heard(provenance: Provenance) -> None:
    assert ask(hit(1, provenance=provenance), hit(2, provenance=provenance)).located


@pytest.mark.parametrize("provenance", [Provenance.DERIVED, Provenance.FALLBACK, None])
def test_an_untrusted_photo_is_never_evidence_even_as_the_best_hit(provenance: Provenance | None) -> None:
    elsewhere = hit(1, 0.999, north_m=50_000, provenance=provenance)

    found = ask(elsewhere, hit(2, 0.9), hit(3, 0.89))

    assert found.located
    assert position(found) == pytest.approx(HERE)
    assert ids(found) == [2, 3]
    assert found.confidence == 1.0


def test_untrusted_photos_take_no_seats() -> None:
    crowd = [hit(n, 0.95, north_m=9_000, provenance=Provenance.DERIVED) for n in range(20)]

    assert ids(ask(*crowd, hit(50, 0.9), hit(51, 0.9))) == [50, 51]


@pytest.mark.parametrize(("lat", "lon"), [(None, 14.0), (50.0, None), (None, None)])
def test_a_trusted_photo_without_coordinates_says_nothing(lat: float | None, lon: float | None) -> None:
    mute = changed(hit(1, 0.99), lat=lat, lon=lon)

    assert ids(ask(mute, hit(2), hit(3))) == [2, 3]


@pytest.mark.parametrize("at", [(0.0, 0.0), (0.0, 14.0), (50.0, 0.0)])
def test_zero_is_a_coordinate(at: tuple[float, float]) -> None:
    found = ask(hit(1, at=at), hit(2, at=at))

    assert found.located
    assert position(found) == pytest.approx(at, abs=1e-9)


def test_copies_of_one_file_speak_once() -> None:
    copies = [hit(n, 0.95, content="the same") for n in range(5)]

    alone = ask(*copies)
    outvoted = ask(*copies, hit(10, 0.95, north_m=9_000), hit(11, 0.95, north_m=9_000))

    assert alone.reason is Reason.TOO_FEW_WITNESSES
    assert outvoted.located
    assert ids(outvoted) == [10, 11]
    assert outvoted.confidence == pytest.approx(2 / 3, abs=1e-4)


def test_an_untrusted_copy_does_not_silence_the_trusted_one() -> None:
    untrusted = hit(1, 0.95, content="the same", provenance=Provenance.DERIVED)

    found = ask(untrusted, hit(2, 0.95, content="the same"), hit(3, 0.95))

    assert ids(found) == [2, 3]


def test_photos_whose_content_is_unknown_are_not_taken_for_copies() -> None:
    assert ids(ask(hit(1, content=""), hit(2, content=""))) == [1, 2]


@pytest.mark.parametrize(
    ("one", "other", "copies"),
    [
        (look(), look(MOST_BITS, LEAST_COSINE + 0.001), True),
        (look(), look(MOST_BITS + 1, 0.999), False),
        (look(), look(0, LEAST_COSINE - 0.001), False),
        (look(None), look(None, LEAST_COSINE_ALONE + 0.001), True),
        (look(), look(None, LEAST_COSINE_ALONE + 0.001), True),
        (look(None), look(0, LEAST_COSINE_ALONE - 0.001), False),
        (look(TOO_PLAIN), look(TOO_PLAIN, LEAST_COSINE_ALONE - 0.001), False),
        (look(TOO_PLAIN), look(TOO_PLAIN, LEAST_COSINE_ALONE + 0.001), True),
    ],
    ids=["both near", "far by hash", "far by vector", "no hashes", "one hash", "one, too far", "plain", "plain, same"],
)
def test_copies_are_known_by_hash_and_vector_and_without_a_hash_by_the_vector_alone(
    one: Look, other: Look, copies: bool
) -> None:
    for looks in ({1: one, 2: other}, {1: other, 2: one}):
        found = ask(hit(1, 0.95), hit(2, 0.94), looks=looks)

        assert found.located is not copies
        assert found.reason is (Reason.TOO_FEW_WITNESSES if copies else None)


def test_what_a_sentence_counts_is_pictures_and_it_names_the_copies() -> None:
    looks = {1: look(0), 2: look(1), 3: look(2), 4: look(200)}

    together = ask(hit(1, 0.95), hit(2, 0.94), hit(3, 0.93), hit(4, 0.92), looks=looks)
    alone = ask(hit(1, 0.95), hit(2, 0.94), looks=looks)

    assert ids(together) == [1, 4]
    assert together.message == "2 trusted photos agree within 10 m (not counted, copies: photos 2, 3)"
    assert alone.message == "1 trusted photo speaks for this place, 2 are asked (not counted, copies: photo 2)"


def test_a_sentence_names_a_few_copies_and_counts_the_rest() -> None:
    crowd = [hit(n, 0.95, content="the same") for n in range(10)]

    assert ask(*crowd).message.endswith("(not counted, copies: photos 1, 2, 3, 4, 5 and 4 more)")


def test_the_best_copy_speaks_for_its_picture() -> None:
    looks = {1: look(0), 2: look(1), 3: look(200)}

    found = ask(hit(1, 0.95), hit(2, 0.93, north_m=120), hit(3, 0.95), looks=looks)

    assert position(found) == pytest.approx(HERE)
    assert found.radius_m == pytest.approx(120, abs=0.1), "the copy may be the one that is right"


def test_a_chain_of_copies_is_one_picture_in_whatever_order_its_links_come() -> None:
    looks = {1: look(0), 2: look(MOST_BITS), 3: look(2 * MOST_BITS)}

    for order in itertools.permutations((0.95, 0.94, 0.93)):
        hits = [hit(number, similarity) for number, similarity in zip(looks, order, strict=True)]

        assert ask(*hits, looks=looks).reason is Reason.TOO_FEW_WITNESSES
    assert ask(hit(1), hit(3), looks=looks).located, "without the one between them they are two"


def shot_at(bits: int, taken_s: float, camera: bytes = b"camera") -> Look:
    return replace(look(bits), shot=Shot(camera, taken_s))


def test_a_burst_of_one_camera_is_one_witness_and_the_sentence_names_the_rest() -> None:
    looks = {1: shot_at(0, 100.0), 2: shot_at(100, 101.0), 3: shot_at(200, 103.0)}

    found = ask(hit(1, 0.95), hit(2, 0.94), hit(3, 0.93, north_m=20), looks=looks)

    assert (found.reason, ids(found)) == (Reason.TOO_FEW_WITNESSES, [1])
    assert found.message == (
        "1 trusted photo speaks for this place, 2 are asked (not counted, of one burst: photos 2, 3)"
    )


def test_a_burst_is_as_wide_as_what_its_photos_claim() -> None:
    looks = {1: shot_at(0, 100.0), 2: shot_at(100, 101.0), 3: look(200)}

    found = ask(hit(1, 0.95), hit(2, 0.94, north_m=40), hit(3, 0.95), looks=looks)

    assert ids(found) == [1, 3]
    assert found.radius_m == pytest.approx(40, abs=0.1)


@pytest.mark.parametrize(
    "other",
    [shot_at(200, 103.5), shot_at(200, 100.0, b"another"), look(200)],
    ids=["later", "another camera", "no time"],
)
def test_photos_of_other_cameras_and_later_ones_are_witnesses_of_their_own(other: Look) -> None:
    assert ask(hit(1, 0.95), hit(2, 0.94), looks={1: shot_at(0, 100.0), 2: other}).located


def test_cameras_of_one_model_in_two_places_silence_nobody() -> None:
    looks = {1: shot_at(0, 100.0), 2: shot_at(100, 100.0), 3: look(200), 4: look(150)}

    found = ask(hit(1, 0.95), hit(2, 0.95, north_m=9_000), hit(3, 0.95), hit(4, 0.95), looks=looks)

    assert ids(found)[:3] == [1, 3, 4]
    assert found.located


def test_a_walk_that_is_filmed_is_no_burst_of_any_length() -> None:
    looks = {number: shot_at(80 * number, 100.0 + 2 * number) for number in range(3)}

    assert ids(ask(*(hit(number, 0.95) for number in looks), looks=looks)) == [0, 2]


def test_a_picture_whose_copies_lie_in_two_places_is_silent() -> None:
    looks = {1: look(0), 2: look(1), 3: look(150), 4: look(200)}
    torn = [hit(1, 0.95), hit(2, 0.94, north_m=9_000)]

    alone = ask(*torn, looks=looks)
    with_one = ask(*torn, hit(3), looks=looks)
    with_two = ask(*torn, hit(3), hit(4), looks=looks)

    assert (alone.reason, ids(alone)) == (Reason.NEIGHBOURS_DISAGREE, [1, 2])
    assert alone.message == (
        "copies of one picture lie in different places (not counted, copies in different places: photos 1, 2)"
    )
    assert (with_one.reason, ids(with_one)) == (Reason.TOO_FEW_WITNESSES, [3])
    assert with_two.located
    assert ids(with_two) == [3, 4]
    assert with_two.confidence == 1.0


def test_files_of_the_same_bytes_in_two_places_are_silent_too() -> None:
    torn = [hit(1, 0.95, content="the same"), hit(2, 0.95, content="the same", north_m=9_000)]

    assert ask(*torn).reason is Reason.NEIGHBOURS_DISAGREE
    assert ids(ask(*torn, hit(3), hit(4))) == [3, 4]


def test_a_link_between_two_places_silences_both() -> None:
    looks = {1: look(0), 2: look(2 * MOST_BITS), 3: look(MOST_BITS)}

    found = ask(hit(1, 0.95), hit(2, 0.94, north_m=9_000), hit(3, 0.93), looks=looks)

    assert found.message.startswith("copies of one picture lie in different places")


def test_a_silent_picture_takes_no_seat_and_still_says_how_similar_the_best_is() -> None:
    rule = replace(RULE, neighbours=2)
    looks = {1: look(0), 2: look(0), 3: look(100), 4: look(200)}
    torn = [hit(1, 0.98), hit(2, 0.98, north_m=9_000)]

    assert ids(ask(*torn, hit(3, 0.9), hit(4, 0.89), rule=rule, looks=looks)) == [3, 4]
    far_below = ask(*torn, hit(3, 0.87), hit(4, 0.87), rule=rule, looks=looks)
    assert far_below.reason is Reason.NEIGHBOURS_DISAGREE


def test_copies_are_read_past_until_enough_pictures_speak() -> None:
    copies = {n: look(n % MOST_BITS) for n in range(2 * RULE.neighbours)}
    hits = [hit(n) for n in copies]

    assert not settled(hits, RULE, looks=copies), "all of them are one picture: the next may be another"
    assert settled(hits, RULE), "without their looks they are as many as are heard"
    assert not settled([hit(n, north_m=9_000 * (n % 2)) for n in copies], RULE, looks=copies)


def test_an_untrusted_copy_in_another_place_contradicts_nobody() -> None:
    looks = {1: look(0), 2: look(0), 3: look(200)}
    derived = hit(1, 0.95, north_m=9_000, provenance=Provenance.DERIVED)

    assert ids(ask(derived, hit(2, 0.94), hit(3, 0.94), looks=looks)) == [2, 3]


def test_only_the_nearest_neighbours_are_heard() -> None:
    here = [hit(n, 0.95) for n in range(3)]
    far = [hit(n, 0.949, north_m=9_000) for n in range(10, 20)]

    found = ask(*here, *far, rule=replace(RULE, neighbours=3))

    assert ids(found) == [0, 1, 2]
    assert found.confidence == 1.0


def test_a_witness_below_the_window_is_not_heard() -> None:
    found = ask(hit(1, 0.98), hit(2, 0.98), hit(3, 0.87, north_m=9_000))

    assert ids(found) == [1, 2]
    assert found.confidence == 1.0


# --------------------------------------------------------------------------------- what they agree on


def test_photos_just_within_the_agreed_distance_say_the_same_place() -> None:
    assert ask(hit(1), hit(2, north_m=149.9)).located


def test_photos_just_beyond_the_agreed_distance_do_not() -> None:
    found = ask(hit(1), hit(2, north_m=150.1))

    assert found.reason is Reason.NEIGHBOURS_DISAGREE


def test_photos_on_both_sides_of_the_date_line_agree() -> None:
    west, east = hit(1, at=(10.0, 179.9997)), hit(2, at=(10.0, -179.9997))

    found = ask(west, east)

    assert found.located
    lat, lon = position(found)
    assert lat == pytest.approx(10.0, abs=1e-6)
    assert abs(lon) == pytest.approx(180.0, abs=1e-6)
    assert found.radius_m == pytest.approx(distance_m(10.0, 180.0, 10.0, 179.9997), abs=0.1)


def test_the_more_similar_photo_pulls_the_point_towards_itself() -> None:
    lat, _ = position(ask(hit(1, 0.93), hit(2, 0.93 - HALF_WEIGHT_STEP, north_m=90)))

    assert lat == pytest.approx(HERE[0] + 30 * METRE, abs=0.1 * METRE)


def test_photos_at_one_spot_give_no_radius_below_that_of_a_phone() -> None:
    assert ask(hit(1), hit(2)).radius_m == MIN_RADIUS_M == 10.0


def test_confidence_is_the_share_of_the_votes() -> None:
    found = ask(hit(1, 0.93), hit(2, 0.93), hit(3, 0.93 - HALF_WEIGHT_STEP, north_m=9_000))

    assert found.located
    assert found.confidence == pytest.approx(2 / 2.5, abs=1e-4)
    assert found.confidence_kind == "vote_share"
    assert ids(found) == [1, 2]


def test_a_share_at_the_bound_is_enough() -> None:
    hits = [hit(1), hit(2), hit(3), hit(4, north_m=9_000), hit(5, north_m=-9_000)]

    assert ask(*hits).confidence == 0.6
    assert ask(*hits, rule=replace(RULE, min_share=0.61)).reason is Reason.NEIGHBOURS_DISAGREE


def test_the_evidence_is_the_hits_themselves() -> None:
    first = changed(hit(1), address={"city": "Praha"}, metadata={"camera": "x"})

    found = ask(first, hit(2, north_m=10))

    assert found.evidence == [first, hit(2, north_m=10)]
    assert found.evidence[0] is first


# ---------------------------------------------------------------------------------------------- laws

streets = st.tuples(st.integers(-4, 4), st.integers(-4, 4))


def on_the_grid(cells: Sequence[tuple[int, int]], *, step_m: float, similarities: Sequence[float]) -> list[Hit]:
    """Photos at crossings of a street grid near the equator, so that degrees are square."""
    return [
        changed(hit(number, similarity), lat=row * step_m * METRE, lon=column * step_m * METRE)
        for number, ((row, column), similarity) in enumerate(zip(cells, similarities, strict=True), start=1)
    ]


@some
@given(
    cells=st.lists(streets, min_size=1, max_size=12),
    step_m=st.sampled_from([60.0, 100.0, 140.0, 4_000.0]),
    data=st.data(),
)
def test_the_order_of_equally_similar_photos_changes_nothing(
    cells: list[tuple[int, int]], step_m: float, data: st.DataObject
) -> None:
    hits = on_the_grid(cells, step_m=step_m, similarities=[0.9] * len(cells))
    hits[: len(hits) // 3] = [changed(one, content_sha256="a copy") for one in hits[: len(hits) // 3]]
    shuffled = data.draw(st.permutations(hits))

    first, second = ask(*hits), ask(*shuffled)

    assert first == second


def test_a_row_of_photos_with_two_equal_middles_has_one_answer_in_any_order() -> None:
    row = [hit(number, north_m=140.0 * number) for number in range(1, 5)]

    answers = [ask(*order) for order in itertools.permutations(row)]

    assert all(found.located for found in answers)
    assert {tuple(sorted(ids(found))) for found in answers} == {(1, 2, 3)}


@some
@given(
    cells=st.lists(streets, min_size=1, max_size=12),
    step_m=st.sampled_from([1.0, 20.0, 60.0, 140.0]),
    data=st.data(),
)
def test_an_answer_covers_its_witnesses_and_claims_no_more_than_it_has(
    cells: list[tuple[int, int]], step_m: float, data: st.DataObject
) -> None:
    similarities = data.draw(
        st.lists(st.floats(0.7, 1.0), min_size=len(cells), max_size=len(cells)).map(lambda s: sorted(s, reverse=True))
    )
    hits = on_the_grid(cells, step_m=step_m, similarities=similarities)

    found = ask(*hits)

    assume(found.located)
    assert found.radius_m is not None
    assert found.confidence is not None
    assert found.radius_m >= MIN_RADIUS_M
    assert RULE.min_share - 1e-4 <= found.confidence <= 1.0
    assert len(found.evidence) >= RULE.min_witnesses
    for witness in found.evidence:
        assert witness in hits
        assert witness.lat is not None
        assert witness.lon is not None
        assert distance_m(*position(found), witness.lat, witness.lon) <= found.radius_m + 0.05  # rounded to 0.1 m
    assert found.radius_m <= 2 * RULE.agree_m
    assert not math.isnan(found.radius_m)


def test_hits_are_settled_once_no_less_similar_photo_could_speak() -> None:
    near = hit(1, 0.9)
    stranger = hit(2, 0.95, provenance=Provenance.DERIVED)
    far_below = hit(3, 0.9 - RULE.window - 0.01, provenance=Provenance.DERIVED)

    assert settled([], RULE)
    assert not settled([stranger], RULE), "a trusted photo may lie below this one"
    assert settled([hit(4, RULE.threshold - 0.01, provenance=Provenance.DERIVED)], RULE)
    assert not settled([near], RULE), "another witness may lie within the window"
    assert settled([near, far_below], RULE)
    assert settled([hit(n, 0.9) for n in range(10, 10 + RULE.neighbours)], RULE)


@pytest.mark.parametrize(
    ("errors_m", "radius_m"),
    [((None, None), 10.0), ((4.0, None), 10.0), ((140.0, 5.0), 140.0), ((140.0, 120.0), 140.0)],
)
def test_an_answer_is_no_surer_than_its_witnesses(errors_m: tuple[float | None, ...], radius_m: float) -> None:
    found = ask(*(hit(number, error_m=error_m) for number, error_m in enumerate(errors_m)))

    assert found.radius_m == pytest.approx(radius_m)
    assert f"within {radius_m:.0f} m" in found.message
