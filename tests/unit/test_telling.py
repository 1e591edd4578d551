"""What answers tell, and to whom: areas of which nothing is told, coordinates rounded for some, who has asked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from enum import StrEnum
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from producer_client import contract
from producer_client.contract import (
    Answer,
    Code,
    Conflict,
    ConflictsReply,
    ConflictState,
    Doubt,
    Hit,
    Locate,
    LocateReply,
    Message,
    Near,
    Photo,
    Point,
    Provenance,
    Reason,
    Search,
    SearchReply,
    Stored,
)
from producer_client.contract.wire import Reply
from worker import areas
from worker.areas import Box
from worker.core import request as waiting
from worker.core.area import holds, reaches
from worker.core.audit import Question
from worker.core.geo import distance_m
from worker.errors import Permanent, PhotoRefusal, Transient
from worker.joined import run
from worker.library.questions import Questions
from worker.library.recording import LOT, LOTS, Recording
from worker.library.telling import Telling, cell_m, farthest_m, rounded
from worker.settings import PREFIX, Settings

LATS, LONS = st.floats(-90, 90), st.floats(-180, 180)


def after(value: float) -> float:
    return math.nextafter(value, math.inf)


def before(value: float) -> float:
    return math.nextafter(value, -math.inf)


# ----------------------------------------------------------------------------------------------------- areas


def test_a_box_ends_exactly_at_its_borders_which_belong_to_it() -> None:
    box = areas.read("12.5 55.25 13 56")

    corners = [(lat, lon) for lat in (55.25, 56.0) for lon in (12.5, 13.0)]
    outside = [(before(55.25), 12.7), (after(56.0), 12.7), (55.5, before(12.5)), (55.5, after(13.0))]
    assert all(holds(box, *corner) for corner in corners)
    assert not any(holds(box, *point) for point in outside)


@pytest.mark.parametrize(
    ("lon", "inside"),
    [
        (170.0, True),
        (before(170.0), False),
        (179.9, True),
        (180.0, True),
        (-180.0, True),
        (-179.9, True),
        (-170.0, True),
        (after(-170.0), False),
        (0.0, False),
    ],
)
def test_a_box_whose_west_is_the_greater_number_crosses_the_antimeridian(lon: float, inside: bool) -> None:
    assert holds(areas.read("170 -20 -170 -10"), -15.0, lon) is inside


def test_a_box_that_ends_at_the_antimeridian_has_it_by_either_name() -> None:
    east, west = areas.read("170 -20 180 -10"), areas.read("-180 -20 -170 -10")

    assert all(holds(area, -15.0, lon) for area in (east, west) for lon in (180.0, -180.0))
    assert not holds(east, -15.0, after(-180.0))
    assert not holds(west, -15.0, before(180.0))


def test_a_pole_lies_in_a_box_that_reaches_it_whatever_its_longitude() -> None:
    assert holds(areas.read("10 80 20 90"), 90.0, -120.0)
    assert not holds(areas.read("10 80 20 90"), before(90.0), -120.0)


@given(st.tuples(LONS, LONS).filter(lambda ends: ends[0] < ends[1]), LONS)
def test_two_boxes_around_the_earth_have_all_of_it_and_in_common_only_borders(
    ends: tuple[float, float], lon: float
) -> None:
    first, rest = Box(ends[0], -10, ends[1], 10), Box(ends[1], -10, ends[0], 10)

    assert holds(first, 0, lon) or holds(rest, 0, lon)
    if lon not in ends and abs(lon) < 180:
        assert holds(first, 0, lon) is not holds(rest, 0, lon)


@given(LATS, LONS, LATS, LONS)
def test_a_circle_ends_exactly_at_its_rim_on_either_side_of_the_antimeridian(
    lat: float, lon: float, other_lat: float, other_lon: float
) -> None:
    radius_m = distance_m(lat, lon, other_lat, other_lon)
    if radius_m > 0:
        assert holds(areas.Circle(lat, lon, radius_m), other_lat, other_lon)
        assert not holds(areas.Circle(lat, lon, before(radius_m)), other_lat, other_lon)


@pytest.mark.parametrize("area", ["10 50 12 52", "51 11 100000"])
@pytest.mark.parametrize(
    ("near", "reached"), [(Near(51, 11, 1), True), (Near(51, 14, 200_000), True), (Near(51, 14, 50_000), False)]
)
def test_a_circle_reaches_into_an_area_that_it_has_anything_of(area: str, near: Near, reached: bool) -> None:
    assert reaches(near, areas.read(area)) is reached


@pytest.mark.parametrize("area", ["170 -20 180 -10", "-180 -20 -170 -10", "170 -20 -170 -10"])
@pytest.mark.parametrize("lon", [179.9999, -179.9999])
def test_a_circle_at_the_antimeridian_reaches_both_sides(area: str, lon: float) -> None:
    assert reaches(Near(-15, lon, 1000), areas.read(area))
    assert reaches(Near(90, 0, 1000), areas.read("10 80 20 90"))
    assert not reaches(Near(-15, 0, 1000), areas.read(area))


@given(LATS, LONS, st.floats(1, 1e6), LATS, LONS)
def test_no_position_of_an_area_lies_in_a_circle_that_does_not_reach_it(
    lat: float, lon: float, radius_m: float, other_lat: float, other_lon: float
) -> None:
    if distance_m(lat, lon, other_lat, other_lon) < 0.999 * radius_m:
        near = Near(lat, lon, radius_m)
        assert reaches(near, Box(other_lon, max(-90, other_lat - 1), other_lon, min(90, other_lat + 1)))
        assert reaches(near, areas.Circle(other_lat, other_lon, 1))


def test_a_circle_crosses_the_antimeridian() -> None:
    circle = areas.read("-15 179.999 1000")

    assert holds(circle, -15.0, -179.999)
    assert not holds(circle, -15.0, -179.9)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("WITHHELD_AREAS=1 2 3 4 5", "'1 2 3 4 5' is no area: write WEST SOUTH EAST NORTH"),
        ("WITHHELD_AREAS=1 2", "'1 2' is no area"),
        ("WITHHELD_AREAS=12.5 56 13 55", "'12.5 56 13 55' is no box: its north lies south of its south"),
        ("WITHHELD_AREAS=12.5 -91 13 55", "is no area"),
        ("WITHHELD_AREAS=181 1 13 55", "is no area"),
        ("WITHHELD_AREAS=55 13 0", "is no area"),
        ("WITHHELD_AREAS=55 13 nan", "is no area"),
        ("WITHHELD_AREAS=55 13 x", "is no area"),
        ("ROUNDED_FOR=web", "'web' is not a list of name=value pairs"),
        ("ROUNDED_FOR=web=6", "'web=6' is not PRODUCER=DECIMALS: the id of a key, or * for all others"),
        ("ROUNDED_FOR=web=-1", "is not PRODUCER=DECIMALS"),
        ("ROUNDED_FOR=web=1.5", "is not PRODUCER=DECIMALS"),
        ("ROUNDED_FOR==2", "is not PRODUCER=DECIMALS"),
        ("ROUNDED_FOR=web=2", "it does not say what all others are told, those without a signature among them"),
        ("AUDIT_DAYS=-1", "it must be 0 or more, not '-1'"),
        ("AUDIT_DAYS=x", "it must be a whole number, not 'x'"),
    ],
)
def test_settings_that_cannot_be_meant_are_told_at_the_start(
    setting: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, _, value = setting.partition("=")
    monkeypatch.setenv(PREFIX + name, value)
    monkeypatch.setattr("sys.argv", ["sightline", "beat"])

    with pytest.raises(SystemExit, match="2"):
        run()

    told = " ".join(capsys.readouterr().err.split())
    assert f"{PREFIX}{name}: " in told
    assert said in told


def test_another_process_reads_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_WITHHELD_AREAS", "170 -20 -170 -10, 55.1 13.2 500")
    monkeypatch.setenv("SIGHTLINE_ROUNDED_FOR", "web=2, *=4")
    first = Settings(audit_days=30)

    for name, value in first.as_env().items():
        monkeypatch.setenv(name, value)

    assert first.withheld_areas == (Box(170, -20, -170, -10), areas.Circle(55.1, 13.2, 500))
    assert first.rounded_for == {"web": 2, "*": 4}
    assert Settings() == first


# ------------------------------------------------------------------------------------------------- what is told


@given(LATS, LONS, st.integers(0, 5))
def test_no_position_lies_farther_from_what_it_is_rounded_to_than_is_said(
    lat: float, lon: float, decimals: int
) -> None:
    told = rounded(lat, lon, decimals)

    assert distance_m(lat, lon, *told) <= farthest_m(told[0], decimals) * (1 + 1e-9) + 1e-6


def test_what_is_said_of_it_is_not_much_more_than_it_can_be() -> None:
    assert distance_m(55.004999, 13.004999, *rounded(55.004999, 13.004999, 2)) > 0.99 * farthest_m(55.0, 2)


HOME = (56.151234, 10.203456)
FAR = (57.012345, 12.0)
AT_HOME = f"{HOME[0]} {HOME[1]} 1"


def hit(photo_id: int, point: tuple[float, float] | None) -> Hit:
    lat, lon = point or (None, None)
    free: dict[str, Any] = {"address": {"street": "Home 1"}, "metadata": {"gps": HOME[0]}}
    return Hit(photo_id, 0.9, f"/{photo_id}.jpg", lat, lon, Provenance.SURVEYED, position_error_m=5.0, **free)


LOCATED = Answer(
    status=Answer.LOCATED,
    point=Point(*HOME),
    radius_m=30.0,
    confidence=0.9,
    message="photo 3 lies 340 m away",
    evidence=[hit(1, HOME), hit(2, None)],
    contrary=hit(3, FAR),
    within={"25": 0.8},
    timings_ms={"photo": 1.0},
)
HITS = SearchReply(LOCATED.evidence, 1, 2, "m@1", 3.0)


def located(answer: Answer = LOCATED, producer: str = "web", **settings: Any) -> Answer:
    return Telling(Settings(**settings)).told(LocateReply(answer, 1, 2, "m@1", 3.0), producer).answer


def found(producer: str = "web", **settings: Any) -> list[Hit]:
    return Telling(Settings(**settings)).told(HITS, producer).hits


def test_nothing_is_changed_unless_it_is_asked_for() -> None:
    assert Telling(Settings()).told(HITS, "web") is HITS


@pytest.mark.parametrize(("producer", "decimals"), [("web", 2), ("partner", 1), ("another", 4), ("", 4)])
def test_coordinates_are_rounded_for_whom_the_settings_say(producer: str, decimals: int) -> None:
    rounding = "web=2,partner=1,*=4"

    told, hits = located(producer=producer, rounded_for=rounding), found(producer, rounded_for=rounding)

    lat, lon = rounded(*HOME, decimals)
    assert told.point == Point(lat, lon)
    assert told.radius_m == 30.0 + farthest_m(lat, decimals)
    assert told.within == {}, "which speaks of distances from the exact point"
    height_m, width_m = cell_m(lat, decimals)
    assert f"cells of {height_m:.0f} x {width_m:.0f} m" in told.message
    assert "340" not in told.message
    assert told.contrary is not None
    for one in (told.evidence[0], hits[0]):
        assert (one.lat, one.lon, one.address, one.metadata) == (lat, lon, None, None)
        assert one.position_error_m == 5.0 + farthest_m(lat, decimals)
    assert (told.evidence[1].lat, told.evidence[1].address) == (None, None)
    assert (told.contrary.lat, told.contrary.address) == (rounded(*FAR, decimals)[0], None)


def test_all_that_lies_in_a_cell_is_told_alike_however_often_it_is_asked() -> None:
    told = {rounded(56.0 + i / 1e6, 10.0 + i / 1e6, 2) for i in range(-4999, 5000, 7)}

    assert told == {(56.0, 10.0)}, "nothing is left to take a mean of"


def test_an_answer_within_an_area_is_withheld_with_all_that_would_tell_it() -> None:
    told = located(withheld_areas=AT_HOME)

    assert (told.status, told.reason) == (Answer.ABSTAINED, Reason.WITHHELD)
    assert "SIGHTLINE_WITHHELD_AREAS" in told.message
    assert told == Answer(
        status=told.status, reason=told.reason, message=told.message, timings_ms=LOCATED.timings_ms
    ), "no point, radius, confidence, evidence, and no photo that speaks against it"


def test_found_photos_within_an_area_come_without_their_place() -> None:
    hits = found(withheld_areas=AT_HOME)

    assert [(one.photo_id, one.lat, one.lon, one.address, one.metadata, one.position_error_m) for one in hits] == [
        (1, None, None, None, None, None),
        (2, None, None, *[{"street": "Home 1"}, {"gps": HOME[0]}], 5.0),
    ]


def test_an_answer_outside_is_given_without_the_photos_inside_which_lie_near_it() -> None:
    abstained = replace(LOCATED, status=Answer.ABSTAINED, reason=Reason.UNVERIFIED, point=None, contrary=None)
    for answer, area, left in (
        (LOCATED, "57.012345 12 1000", {"contrary": None}),
        (abstained, AT_HOME, {"evidence": [hit(2, None)]}),
    ):
        told = located(answer, withheld_areas=area)

        assert told == replace(answer, message=told.message, **left)
        assert "340" not in told.message


def test_what_has_nothing_withheld_is_told_as_it_is() -> None:
    assert located(withheld_areas="0 0 1") == LOCATED


def test_it_is_decided_by_the_exact_position_what_is_withheld() -> None:
    north = f"{HOME[1] - 1} {HOME[0] + 1e-5} {HOME[1] + 1} 60"

    assert located(withheld_areas=north, rounded_for="*=0").located


def test_clients_of_the_release_before_hear_a_reason_that_they_know() -> None:
    told = located(withheld_areas="0 0 1,9 55 11 57", key_prefix="")

    assert told.reason is Reason.NO_TRUSTED_EVIDENCE


def test_a_conflict_within_an_area_is_not_listed_and_no_distance_is_told_from_there() -> None:
    def conflict(at: tuple[float, float], there: tuple[float, float]) -> Conflict:
        state = ConflictState.OPEN
        return Conflict(
            1,
            None,
            *at,
            Provenance.SURVEYED,
            Doubt.SAME_PICTURE,
            state,
            "2026",
            [2],
            Point(*there),
            distance_m(*at, *there),
        )

    listed = ConflictsReply([conflict(HOME, FAR), conflict(FAR, HOME)], open=2)
    left = Telling(Settings(withheld_areas=AT_HOME)).told(listed, "web").conflicts
    coarse = Telling(Settings(rounded_for="*=0")).told(listed, "web").conflicts[0]

    assert left == [replace(listed.conflicts[1], point=None, distance_m=None)]
    assert coarse.point == Point(57.0, 12.0)
    assert coarse.distance_m == distance_m(56.0, 10.0, 57.0, 12.0)


# -------------------------------------------------------------------------------------- whatever replies there are

#: Fields of replies that say nothing of a place: ids, hashes, names, moments, counts, shares and how long it took.
#: `path` names a file, which says where it was taken itself to whoever can read it; `vector` is what a picture looks
#: like. `message`, `error`, `where`, `exam`, `unknown_why`, `summary`: of faults, runs and whole libraries.
PLACELESS = {
    "answers_flipped", "apart_s", "at", "cache_hits", "code", "confidence", "content_sha256", "device", "error",
    "exam", "finished_at", "for_s", "generation_published_at", "kind", "live_recall_at_10", "message", "model",
    "model_key", "next_model_key", "path", "phase", "recall_at_10", "recall_at_10_at_least", "ref", "rss_mb",
    "sandbox", "seconds", "settled_at", "signal", "similarity", "since", "stale_s", "started_at", "state", "status",
    "summary", "task", "task_id", "timings_ms", "took_ms", "unknown", "unknown_why", "vector", "where",
}  # fmt: skip
TEXT = f"somewhere at {HOME[0]}, {HOME[1]}"


def replies(of: type[Message] = Reply) -> Iterator[type[Message]]:
    for kind in of.__subclasses__():
        if kind.__module__.startswith(contract.__name__) and kind.__struct_fields__:
            yield kind
        yield from replies(kind)


def full(kind: type[Message]) -> Message:
    """One with a value in each field, and the same exact position in all that may bear one."""
    return kind(
        **{name: value(hint, name) for name, hint in get_type_hints(kind).items() if name in kind.__struct_fields__}
    )


def value(hint: Any, name: str) -> Any:
    match get_origin(hint):
        case origin if origin in (Union, UnionType):
            return value(get_args(hint)[0], name)
        case origin if origin is list:
            return [value(get_args(hint)[0], name)]
        case origin if origin is dict:
            return {"25": HOME[0]}
    if isinstance(hint, type) and issubclass(hint, Message):
        return full(hint)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return next(iter(hint))
    return {
        float: HOME[1] if name == "lon" else HOME[0],
        int: 1,
        bool: True,
        str: TEXT,
        Any: {"at": list(HOME)},
    }[hint]


def places(message: Any, name: str = "") -> Iterator[str]:
    """Names of the fields that have something exact of the position."""
    if isinstance(message, Message):
        for field in message.__struct_fields__:
            yield from places(getattr(message, field), field)
    elif isinstance(message, list) and message and isinstance(message[0], Message):
        for one in message:
            yield from places(one, name)
    elif any(str(exact) in json.dumps(message, default=str) for exact in HOME):
        yield name


@pytest.mark.parametrize("kind", sorted(set(replies()), key=str), ids=str)
@pytest.mark.parametrize("settings", [{"rounded_for": "*=1"}, {"withheld_areas": AT_HOME}])
def test_no_reply_has_a_field_by_which_a_position_leaves(kind: type[Message], settings: dict[str, Any]) -> None:
    told = Telling(Settings(**settings)).told(full(kind), "web")

    # Sentences of answers say how far places lie apart.
    harmless = PLACELESS - {"message"} if kind in (Answer, LocateReply) else PLACELESS
    assert set(places(told)) <= harmless, "a field of a reply tells a position: see worker.library.telling"


def test_the_replies_that_are_gone_through_are_those_of_the_contract() -> None:
    named = {kind for kind in vars(contract).values() if isinstance(kind, type) and issubclass(kind, Reply)}

    assert named == {kind for kind in replies() if kind.__name__ in contract.__all__}
    bearing = {kind.__name__ for kind in replies() if {"lat", "lon", "point"} & set(kind.__struct_fields__)}
    assert bearing == {"Answer", "Confirmed", "Conflict", "Hit", "Point", "Rejected", "Stored"}
    assert set(places(full(Stored))) == {"lat", "lon", "position_error_m", "ref", "content_sha256"}


# --------------------------------------------------------------------------------------------------- where it is asked


@pytest.mark.parametrize(
    ("settings", "near", "said"),
    [
        ({"rounded_for": "web=2,*=4"}, Near(*FAR, 10), "near is not for whom coordinates are rounded"),
        ({"withheld_areas": AT_HOME}, Near(*HOME, 10), "this circle reaches into an area"),
        ({"withheld_areas": AT_HOME}, Near(*FAR, 1e6), "this circle reaches into an area"),
    ],
)
def test_a_circle_that_would_tell_where_a_photo_lies_is_refused(
    settings: dict[str, Any], near: Near, said: str
) -> None:
    record = Record()
    asking = recording(Asked(), record, audit_days=1, **settings)

    for ask in (
        lambda: asking.locate(Locate(photo=Photo(photo_id=7), near=near), "web"),
        lambda: asking.search(Search(photo=Photo(photo_id=7), near=near), "web"),
    ):
        with pytest.raises(Permanent, match=said) as caught:
            ask()
        assert caught.value.code is Code.WITHHELD
    assert [(question.verb, question.answer) for question, _ in record.questions] == [
        ("locate", "withheld"),
        ("search", "withheld"),
    ]


def test_a_circle_outside_all_areas_is_asked_for() -> None:
    asking = recording(Asked(), withheld_areas=AT_HOME)

    assert asking.locate(Locate(photo=Photo(photo_id=7), near=Near(*FAR, 10)), "web").answer == LOCATED


# ----------------------------------------------------------------------------------------------- who has asked

ASKED = Locate(photo=Photo(photo_id=7))


class Asked:
    """Stands for the questions: what is found, or what is raised."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.requests: list[Locate | Search] = []

    def locate(self, request: Locate, *, heard: Callable[[str], None]) -> LocateReply:
        self._ask(request, heard)
        return LocateReply(LOCATED, 1, 2, "m@1", 3.0)

    def search(self, request: Search, *, heard: Callable[[str], None]) -> SearchReply:
        self._ask(request, heard)
        return HITS

    def _ask(self, request: Locate | Search, heard: Callable[[str], None]) -> None:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        heard("sha")


class Record:
    def __init__(self, error: Exception | None = None, due: int = 0) -> None:
        self.error, self.due = error, due
        self.questions: list[tuple[Question, int]] = []
        self.lots: list[int] = []

    def record(self, question: Question, *, days: int) -> None:
        if self.error is not None:
            raise self.error
        self.questions.append((question, days))

    def forget(self, most: int) -> int:
        lot = min(most, self.due)
        self.due -= lot
        self.lots.append(lot)
        return lot


def recording(asked: Asked, record: Record | None = None, **settings: Any) -> Recording:
    return Recording(Settings(**settings), questions=cast(Questions, asked), audit=record or Record())


def test_nothing_is_recorded_unless_it_is_asked_for() -> None:
    record = Record(Transient(Code.UNAVAILABLE, "Postgres is away"))
    asking = recording(Asked(), record)

    asking.locate(ASKED, "web")
    asking.search(Search(photo=Photo(photo_id=7)), "web")


def test_what_is_recorded_is_what_is_told() -> None:
    record = Record()
    token = waiting.current.set(waiting.Request(task_id="t-1"))
    try:
        recording(Asked(), record, audit_days=30, rounded_for="web=1,*=4").locate(ASKED, "web")
        recording(Asked(), record, audit_days=30, withheld_areas=AT_HOME).locate(ASKED, "")
        recording(Asked(), record, audit_days=30).search(Search(photo=Photo(path="/a")), "web")
        recording(Asked(), record, audit_days=30, withheld_areas=AT_HOME).search(Search(text="a"), "web")
    finally:
        waiting.current.reset(token)

    lat, lon = rounded(*HOME, 1)
    about: dict[str, Any] = {"task_id": "t-1", "content_sha256": "sha"}
    of_7 = about | {"photo_id": 7}
    radius_m = 30.0 + farthest_m(lat, 1)
    assert [question for question, days in record.questions if days == 30] == [
        Question(answer="located", producer="web", lat=lat, lon=lon, radius_m=radius_m, told=(1, 3), **of_7),
        Question(answer="withheld", **of_7),
        Question(answer="found", producer="web", verb="search", told=(1,), **about),
        Question(answer="found", producer="web", verb="search", **about),
    ]


def test_a_refusal_is_recorded_by_its_code_and_what_goes_round_again_is_not() -> None:
    record = Record()
    for error in (PhotoRefusal(Code.NOT_AN_IMAGE, "no photo"), Transient(Code.UNAVAILABLE, "away")):
        with pytest.raises(type(error)):
            recording(Asked(error), record, audit_days=1).locate(ASKED, "web")

    assert record.questions == [(Question(answer="not_an_image", producer="web", photo_id=7), 1)]


def test_what_cannot_be_recorded_is_not_answered() -> None:
    away = Transient(Code.UNAVAILABLE, "Postgres is away")

    for ask in (
        lambda: recording(Asked(), Record(away), audit_days=1).locate(ASKED, "web"),
        lambda: recording(Asked(), Record(away), audit_days=1).search(Search(text="a"), "web"),
        lambda: recording(Asked(PhotoRefusal(Code.NOT_FOUND, "x")), Record(away), audit_days=1).locate(ASKED, "web"),
    ):
        with pytest.raises(Transient, match="away"):
            ask()


def test_a_search_that_must_be_recorded_is_not_answered_without_postgres() -> None:
    recorded, free = Asked(), Asked()
    stale = Search(text="a", allow_stale=True)

    recording(recorded, audit_days=1).search(stale, "web")
    recording(free).search(stale, "web")

    assert [one.allow_stale for asked in (recorded, free) for one in asked.requests if isinstance(one, Search)] == [
        False,
        True,
    ]


@pytest.mark.parametrize(("due", "lots"), [(0, [0]), (LOT - 1, [LOT - 1]), (LOT, [LOT, 0]), (99 * LOT, [LOT] * LOTS)])
def test_what_is_due_is_deleted_in_small_lots_and_not_all_at_once(due: int, lots: list[int]) -> None:
    record = Record(due=due)

    assert recording(Asked(), record).forget() == sum(lots)
    assert record.lots == lots
