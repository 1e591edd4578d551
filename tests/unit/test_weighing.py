"""Which place is the likeliest, what speaks against it, and how little is compared to know."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from msgspec.structs import replace as replaced

from producer_client.contract import Hit, Provenance
from tests.hits import RULE, hit, look, shows
from worker.place.geometry import Seen
from worker.place.moments import Moments
from worker.place.weighing import MOST_CANDIDATES, OF_ONE_PLACE, REACH, Weighed, enough_to_weigh, weigh

FAR, FARTHER = 5_000.0, 10_000.0


class Compared:
    """Compares by what it was told; keeps whom it was asked about."""

    def __init__(self, told: Mapping[int, Seen | None], otherwise: Seen | None = None) -> None:
        self.told = told
        self.otherwise = otherwise
        self.asked: list[int] = []

    def __call__(self, hits: Sequence[Hit], most: int) -> dict[int, Seen | None]:
        found: dict[int, Seen | None] = {}
        for of in hits:
            if sum(seen is not None for seen in found.values()) == most:
                break
            self.asked.append(of.photo_id)
            found[of.photo_id] = self.told.get(of.photo_id, self.otherwise)
        return found


def ask(hits: list[Hit], compare: Compared | None = None, **options: object) -> Weighed:
    return weigh(hits, RULE, compare=compare, index_count=100, **options)  # type: ignore[arg-type]


def ids(weighed: Weighed) -> list[int]:
    assert weighed.best is not None
    return [picture.best.hit.photo_id for picture in weighed.best.pictures]


def rival(weighed: Weighed) -> int:
    assert weighed.rival is not None
    return weighed.rival.best.hit.photo_id


def test_keypoints_put_a_place_first_that_is_less_similar() -> None:
    hits = [hit(1, 0.95), hit(2, 0.94), hit(3, 0.85, north_m=FAR)]

    weighed = ask(hits, Compared({1: shows(25), 2: shows(12), 3: shows(140)}))

    assert ids(weighed) == [3]
    assert rival(weighed) == 1
    assert weighed.strength is not None
    assert (weighed.strength.inliers, weighed.strength.witnesses, weighed.strength.compared) == (140, 1, 3)
    assert weighed.strength.ratio == pytest.approx(math.log(144 / 29))
    assert weighed.strength.margin == pytest.approx(-0.1)


def test_where_keypoints_do_not_clearly_speak_the_order_is_that_of_the_votes() -> None:
    hits = [hit(1, 0.95), hit(2, 0.94), hit(3, 0.85, north_m=FAR)]

    weighed = ask(hits, Compared({1: shows(0), 2: shows(8), 3: shows(15)}))

    assert ids(weighed) == [2, 1]
    assert rival(weighed) == 3


def test_chance_does_not_add_up_to_a_place() -> None:
    hits = [*(hit(n, 0.95) for n in range(1, 4)), hit(4, 0.85, north_m=FAR)]
    chance = {n: shows(15, first=15 * n) for n in range(1, 4)}

    assert ids(ask(hits, Compared({**chance, 4: shows(16)}))) == [4]


def test_what_two_places_share_speaks_for_neither() -> None:
    hits = [hit(1, 0.95), hit(2, 0.94, north_m=FAR), hit(3, 0.93, north_m=FARTHER)]

    alike = ask(hits, Compared({1: shows(100), 2: shows(95), 3: shows(0)}))
    apart = ask(hits, Compared({1: shows(100), 2: shows(95, first=60), 3: shows(0)}))

    assert alike.strength is not None
    assert apart.strength is not None
    assert alike.strength.contrast == pytest.approx(5 / math.sqrt(5))
    assert apart.strength.contrast == pytest.approx(5 / math.sqrt(115))
    assert rival(alike) == rival(apart) == 2, "and not the place that shows nothing"


def test_pictures_of_a_place_speak_together() -> None:
    hits = [hit(1, 0.95, north_m=FAR), hit(2, 0.94), hit(3, 0.93, north_m=30)]

    weighed = ask(hits, Compared({1: shows(60), 2: shows(50), 3: shows(50, first=50)}))

    assert ids(weighed) == [2, 3]
    assert weighed.strength is not None
    assert weighed.strength.contrast == pytest.approx(40 / math.sqrt(40))
    assert rival(weighed) == 1


def test_neighbours_beyond_a_place_are_contrary_to_it_although_they_agree_as_witnesses() -> None:
    hits = [hit(1, 0.95), hit(2, 0.94, north_m=49), hit(3, 0.93, north_m=51)]

    weighed = ask(hits, Compared({1: shows(80), 2: shows(30), 3: shows(30)}))

    assert ids(weighed) == [1, 2]
    assert rival(weighed) == 3


def test_what_stands_beside_the_best_picture_is_no_other_place_where_photos_stand_all_along() -> None:
    """The circle that shows the most lies around 3, between 1 and what looks a little like it on the other side."""
    hits = [hit(1, 0.95), hit(2, 0.94, north_m=-2), hit(3, 0.93, north_m=49), hit(4, 0.92, north_m=98)]

    weighed = ask(hits, Compared({1: shows(100), 2: shows(95), 3: shows(20), 4: shows(20, first=200)}))

    assert ids(weighed) == [1, 2, 3]
    assert rival(weighed) == 4
    assert weighed.strength is not None
    assert weighed.strength.verified


def test_the_point_is_pulled_by_inliers_and_chance_pulls_nothing() -> None:
    hits = [hit(1, 0.95), hit(2, 0.94, north_m=20), hit(3, 0.93, north_m=40)]

    weighed = ask(hits, Compared({1: shows(15), 2: shows(90), 3: shows(40)}))

    assert weighed.best is not None
    assert ids(weighed) == [2, 3]
    assert weighed.best.point[0] == pytest.approx(hits[1].lat, abs=1e-6)


def test_an_error_that_a_camera_states_widens_the_place() -> None:
    weighed = ask([hit(1, error_m=90.0), hit(2)], Compared({1: shows(80), 2: shows(80)}))

    assert weighed.best is not None
    assert weighed.best.radius_m >= 90
    assert weighed.best.spread_m >= 60


def test_copies_are_compared_once() -> None:
    looks = {1: look(0), 2: look(1), 3: look(200), 4: look(100)}
    compare = Compared({}, shows(20))

    ask([hit(1, 0.95), hit(2, 0.94), hit(3, 0.93), hit(4, 0.92, north_m=FAR)], compare, looks=looks)

    assert compare.asked == [1, 3, 4]


def test_a_copy_of_the_photo_itself_is_neither_compared_nor_heard() -> None:
    looks = {1: look(3, 0.97), 2: look(150, 0.9)}
    compare = Compared({}, shows(100))

    weighed = ask([hit(1, 0.97), hit(2, 0.9)], compare, looks=looks, own=look(0))

    assert compare.asked == [2]
    assert ids(weighed) == [2]


@pytest.mark.parametrize("provenance", [Provenance.DERIVED, Provenance.FALLBACK, None])
def test_who_is_not_trusted_is_never_compared(provenance: Provenance | None) -> None:
    compare = Compared({}, shows(300))

    weighed = ask([hit(1, 0.99, provenance=provenance), hit(2, 0.9)], compare)

    assert compare.asked == [2]
    assert ids(weighed) == [2]


def test_of_one_place_a_few_are_compared_and_no_more_than_the_budget_in_all() -> None:
    hits = [
        hit(10 * place + n, 0.95 - 0.001 * (5 * place + n), north_m=FAR * place) for place in range(9) for n in range(5)
    ]
    compare = Compared({}, shows(20))

    ask(hits, compare)

    assert len(compare.asked) == RULE.pairs == 20
    assert all(sum(asked // 10 == place for asked in compare.asked) <= OF_ONE_PLACE for place in range(9))
    assert len({asked // 10 for asked in compare.asked}) >= RULE.pairs // OF_ONE_PLACE


def test_what_is_left_of_the_budget_goes_to_more_pictures_of_the_places() -> None:
    hits = [
        hit(10 * place + n, 0.95 - 0.001 * (5 * place + n), north_m=FAR * place) for place in (0, 1) for n in range(5)
    ]
    compare = Compared({}, shows(20))

    ask(hits, compare)

    assert compare.asked == [0, 1, 2, 10, 11, 12, 3, 4, 13, 14]


def test_many_pictures_of_a_place_show_no_more_by_their_number() -> None:
    """Ten doors that look alike, each of which shows what another one does not."""
    doors = {n: shows(20, first=200 + 20 * n) for n in range(2, 12)}

    weighed = ask(
        [hit(1, 0.95), *(hit(n, 0.94 - n / 1_000, north_m=FAR) for n in doors)], Compared({1: shows(90), **doors})
    )

    assert ids(weighed) == [1]
    assert weighed.strength is not None
    assert weighed.strength.contrast == pytest.approx((90 - 20 * OF_ONE_PLACE) / math.sqrt(90 + 20 * OF_ONE_PLACE))


def test_nothing_is_compared_that_cannot_change_the_answer() -> None:
    torn = {1: look(0), 2: look(0)}
    for hits, options in (
        ([], {}),
        ([hit(1, provenance=None)], {}),
        ([hit(1), hit(2, north_m=FAR)], {"looks": torn}),
        ([hit(1)], {"looks": {1: look(0)}, "own": look(0)}),
    ):
        compare = Compared({}, shows(100))

        weighed = ask(hits, compare, **options)

        assert compare.asked == []
        assert weighed.best is None
        assert not weighed.votes.located


def test_far_below_the_most_similar_witness_nothing_is_compared() -> None:
    compare = Compared({}, shows(20))

    ask([hit(1, 0.95), hit(2, 0.95 - REACH + 0.001), hit(3, 0.95 - REACH - 0.001)], compare)

    assert compare.asked == [1, 2]


def test_below_the_similarity_that_the_caller_asks_for_nothing_is_compared() -> None:
    compare = Compared({}, shows(20))

    weigh([hit(1, 0.95), hit(2, 0.89)], replace(RULE, floor=0.9), compare=compare, index_count=2)

    assert compare.asked == [1]


def test_a_photo_below_the_threshold_is_compared_all_the_same() -> None:
    weighed = ask([hit(1, 0.6), hit(2, 0.4, north_m=FAR)], Compared({1: shows(90), 2: shows(3)}))

    assert weighed.strength is not None
    assert weighed.strength.verified


def test_pictures_without_keypoints_are_counted_and_cost_no_comparison() -> None:
    compare = Compared({1: None, 2: None}, shows(40))

    weighed = weigh(
        [hit(1, 0.95), hit(2, 0.94), hit(3, 0.93), hit(4, 0.92, north_m=FAR)],
        replace(RULE, pairs=1),
        compare=compare,
        index_count=4,
    )

    assert weighed.lacking == 2
    assert list(weighed.seen) == [3]


def test_without_comparing_the_votes_say_the_place() -> None:
    weighed = ask([hit(1, 0.95), hit(2, 0.94, north_m=140), hit(3, 0.93, north_m=FAR)])

    assert ids(weighed) == [1, 2]
    assert rival(weighed) == 3
    assert weighed.strength is not None
    assert weighed.strength.share == pytest.approx(weighed.votes.confidence, abs=1e-4)
    assert weighed.strength.compared == 0


def test_all_figures_are_finite_and_the_features_have_names() -> None:
    for hits, told in (
        ([hit(1, -0.5)], {}),
        ([hit(1)], {1: shows(0)}),
        ([hit(1), hit(2, north_m=FAR)], {1: shows(0), 2: shows(0)}),
        ([hit(1), hit(2, north_m=FAR)], {1: shows(500), 2: shows(500)}),
    ):
        strength = ask(hits, Compared(told)).strength

        assert strength is not None
        assert all(math.isfinite(feature) for feature in strength.features())
        assert math.isfinite(strength.spread_m)


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_the_order_of_equally_similar_photos_changes_nothing(turn: int) -> None:
    hits = [hit(n, 0.9, north_m=FAR * (n % 3)) for n in range(1, 10)]
    told = {n: shows(10 * n) for n in range(1, 10)}

    first, other = ask(hits, Compared(told)), ask([*hits[turn:], *hits[:turn]], Compared(told))

    assert first.strength == other.strength
    assert ids(first) == ids(other)


def test_hits_are_enough_once_the_budget_is_spent_or_the_rest_lies_too_far_below() -> None:
    places = [hit(n, 0.9, north_m=FAR * n) for n in range(RULE.pairs)]
    one_place = [hit(n, 0.9) for n in range(RULE.pairs)]

    assert enough_to_weigh([], RULE)
    assert enough_to_weigh(places, RULE)
    assert not enough_to_weigh(places[:-1], RULE)
    assert not enough_to_weigh(one_place, RULE), "no other place is among them yet"
    assert enough_to_weigh([*one_place, hit(99, 0.9 - REACH - 0.01, provenance=None)], RULE)
    assert enough_to_weigh([hit(n, 0.9) for n in range(MOST_CANDIDATES)], RULE)


# ------------------------------------------------------------------------------- what the camera took besides

#: The second one is so much more similar that the first has no vote.
LOOK_ALIKE = [hit(1, 0.75), hit(2, 0.95, north_m=FAR)]


def took(apart_s: float, north_m: float = 0.0, *, one_camera: bool = True) -> Moments:
    return Moments([replaced(hit(9, north_m=north_m), apart_s=apart_s)], one_camera)


@pytest.mark.parametrize("one_camera", [True, False])
def test_out_of_the_cameras_reach_no_place_is_a_rival_nor_the_answer(one_camera: bool) -> None:
    compare = Compared({1: shows(60), 2: shows(90)})

    by_pixels, weighed = ask(LOOK_ALIKE, compare), ask(LOOK_ALIKE, compare, moments=took(20.0, one_camera=one_camera))

    assert (ids(by_pixels), rival(by_pixels)) == ([2], 1)
    assert by_pixels.strength is not None
    assert by_pixels.strength.moment == 0
    assert (ids(weighed), weighed.rival) == ([1], None)
    assert weighed.strength is not None
    assert weighed.strength.moment == 1
    assert weighed.strength.verified


@pytest.mark.parametrize(
    ("shown", "apart_s"),
    [(shows(29), 20.0), (shows(60, cells=5), 20.0), (shows(60), 300.0)],
    ids=["too few points", "in one corner", "within reach"],
)
def test_no_rival_goes_unless_the_photo_shows_a_place_where_the_camera_was(shown: Seen, apart_s: float) -> None:
    weighed = ask(LOOK_ALIKE, Compared({1: shown, 2: shows(90)}), moments=took(apart_s))

    assert (ids(weighed), rival(weighed)) == ([2], 1)


def test_only_one_camera_that_was_elsewhere_speaks_against_a_place() -> None:
    """Of another camera of the model nobody knows whose it is."""
    compare = Compared({1: shows(60), 2: shows(90)})

    said = [ask(LOOK_ALIKE, compare, moments=took(20.0, 90_000, one_camera=one)).strength for one in (True, False)]

    assert [strength.moment for strength in said if strength is not None] == [-1, 0]


def test_where_nothing_was_compared_the_camera_takes_no_rival_away() -> None:
    weighed = ask([hit(1, 0.94), hit(2, 0.95, north_m=FAR)], moments=took(20.0))

    assert (ids(weighed), rival(weighed)) == ([2], 1)
