"""The wire: what is written is read back equal, and everything else is refused with a code."""

from __future__ import annotations

import copy
import json
import math
import pickle
import re
from enum import StrEnum
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer_client import contract
from producer_client.contract import (
    AddReply,
    AddToIndex,
    Answer,
    Code,
    ConfidenceKind,
    Confirm,
    Confirmed,
    ConfirmReply,
    Conflict,
    Conflicts,
    ConflictsReply,
    ConflictState,
    Doubt,
    Embed,
    Embedded,
    EmbedItem,
    EmbedMissing,
    EmbedMissingReply,
    EmbedReply,
    EmbedText,
    Failure,
    Fill,
    FillReply,
    Hit,
    LeftAlone,
    Locate,
    LocateReply,
    Message,
    Mistake,
    Near,
    NewPhoto,
    Photo,
    Point,
    Policy,
    PositionFrom,
    PositionIssue,
    Provenance,
    Purge,
    Purged,
    PurgeReply,
    Quarantined,
    QuarantinedReply,
    Reason,
    RebuildIndex,
    RebuildReply,
    RebuildRun,
    Reconcile,
    ReconcileReply,
    Refused,
    Reject,
    Rejected,
    RejectItem,
    RejectReply,
    Release,
    ReleaseReply,
    Remove,
    Removed,
    RemoveReply,
    Request,
    Search,
    SearchReply,
    Stats,
    StatsReply,
    Stored,
    Stuck,
    TextVector,
    Tick,
    TickReply,
)
from producer_client.contract.wire import Outcome, Reply, check_json, check_text
from producer_client.errors import BadRequest
from producer_client.language import explained

few = settings(derandomize=True, max_examples=25)

# ------------------------------------------------------------------------------------------ strategies

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
names = texts.filter(bool)
row_ids = st.integers(0, 2**63 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)
contents = st.text("0123456789abcdef", min_size=8, max_size=64)
lats, lons = st.floats(-90, 90), st.floats(-180, 180)
nears = st.builds(Near, lats, lons, st.floats(0, 2e7, exclude_min=True))
photos = st.one_of(
    st.builds(Photo, photo_id=row_ids),
    st.builds(Photo, photo_id=row_ids, path=names),
    st.builds(Photo, path=names),
    st.builds(Photo, url=names),
    st.binary(min_size=1, max_size=30).map(Photo.of_bytes),
)
#: Where the type alone does not say what is allowed.
by_field: dict[str, st.SearchStrategy[Any]] = {
    "v": st.just(contract.VERSION),
    "ref": names,
    "photo": photos,
    "near": st.none() | nears,
    "threshold": st.none() | st.floats(-1, 1),
    "top_k": st.integers(1, contract.MAX_TOP_K),
    "min_seq": row_ids,
    "heard": st.none() | st.text(max_size=64),
    "vector": st.none() | st.lists(numbers, max_size=4),
    "point": st.none() | st.builds(Point, lats, lons),
}
by_type: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(),
    float: numbers,
    str: texts,
    Any: json_values,
    dict[str, Any]: json_objects,
    dict[str, float]: st.dictionaries(names, numbers, max_size=3),
    Code: st.sampled_from(Code),
    ConfidenceKind: st.sampled_from(ConfidenceKind),
    Policy: st.sampled_from(Policy),
    Provenance: st.sampled_from(Provenance),
    Reason: st.sampled_from(Reason),
    ConflictState: st.sampled_from(ConflictState),
    Doubt: st.sampled_from(Doubt),
    Mistake: st.sampled_from(Mistake),
    PositionFrom: st.sampled_from(PositionFrom),
    PositionIssue: st.sampled_from(PositionIssue),
}


def any_of(cls: type[Message]) -> st.SearchStrategy[Message]:
    """Instances of a class without laws between its fields. `status` keeps its default: it names the class."""
    fields = {
        name: by_field[name] if name in by_field else _of_type(hint)
        for name, hint in get_type_hints(cls).items()
        if name not in ("status", "LOCATED", "ABSTAINED")
    }
    if cls is Answer:
        fields["status"] = st.sampled_from([Answer.LOCATED, Answer.ABSTAINED])
    return st.builds(cls, **fields)


def _of_type(hint: Any) -> st.SearchStrategy[Any]:
    if hint in by_type:
        return by_type[hint]
    arguments = [part for part in getattr(hint, "__args__", ()) if part is not type(None)]
    if getattr(hint, "__origin__", None) is list:
        return st.lists(_of_type(arguments[0]), max_size=3)
    if arguments:
        options = [_of_type(part) for part in arguments]
        return st.one_of(*options, *([st.none()] if type(None) in hint.__args__ else []))
    return any_of(hint)


@st.composite
def new_photos(draw: st.DrawFn) -> NewPhoto:
    placed = draw(st.booleans())
    return NewPhoto(
        ref=draw(names),
        photo=draw(photos),
        lat=draw(lats) if placed else None,
        lon=draw(lons) if placed else None,
        provenance=draw(st.sampled_from(Provenance)) if placed else None,
        address=draw(st.none() | json_objects),
        metadata=draw(st.none() | json_objects),
    )


@st.composite
def reject_items(draw: st.DrawFn) -> RejectItem:
    placed = draw(st.booleans())
    return RejectItem(draw(names), draw(row_ids), draw(lats) if placed else None, draw(lons) if placed else None)


strategies: dict[type[Message], st.SearchStrategy[Message]] = {
    Photo: photos,
    Point: st.builds(Point, lats, lons),
    Near: nears,
    NewPhoto: new_photos(),
    AddToIndex: st.builds(AddToIndex, photos=st.lists(new_photos().map(NewPhoto.to_wire), min_size=1, max_size=3)),
    Embed: st.builds(
        Embed,
        photos=st.lists(any_of(EmbedItem).map(EmbedItem.to_wire), min_size=1, max_size=3),
        return_vectors=st.booleans(),
    ),
    Remove: st.builds(Remove, photo_ids=st.lists(row_ids, min_size=1, max_size=5)),
    Purge: st.builds(Purge, photo_ids=st.lists(row_ids, min_size=1, max_size=5)),
    Confirm: st.builds(Confirm, photo_ids=st.lists(row_ids, min_size=1, max_size=5)),
    Conflicts: st.builds(
        Conflicts,
        photo_ids=st.none() | st.lists(row_ids, min_size=1, max_size=5),
        conflict_state=st.none() | st.sampled_from(ConflictState),
        limit=st.integers(1, contract.MAX_TOP_K),
    ),
    Quarantined: st.builds(
        Quarantined,
        contents=st.none() | st.lists(contents, min_size=1, max_size=5),
        limit=st.integers(1, contract.MAX_TOP_K),
    ),
    Release: st.builds(Release, contents=st.lists(contents, min_size=1, max_size=5), forget=st.booleans()),
    RejectItem: reject_items(),
    Reject: st.builds(Reject, photos=st.lists(reject_items().map(RejectItem.to_wire), min_size=1, max_size=3)),
    EmbedText: st.builds(EmbedText, text=names.filter(str.strip)),
    TextVector: st.builds(TextVector, vector=st.lists(numbers, max_size=4), model_key=texts),
    Search: st.one_of(
        st.builds(Search, photo=photos, top_k=by_field["top_k"], near=by_field["near"]),
        st.builds(Search, text=names.filter(str.strip), threshold=by_field["threshold"], where=json_objects),
        st.builds(
            Search,
            vector=st.lists(numbers, min_size=1, max_size=4),
            model_key=st.none() | texts,
            min_seq=row_ids,
            heard=by_field["heard"],
        ),
    ),
}
strategies |= {
    cls: any_of(cls)
    for cls in (
        Request, EmbedItem, Locate, Fill, FillReply, RebuildIndex, Stats, Tick, Refused, Stored, Embedded,
        Reconcile, ReconcileReply, EmbedMissing, EmbedMissingReply, LeftAlone, QuarantinedReply, ReleaseReply,
        Removed, Purged, AddReply, EmbedReply, RemoveReply, PurgeReply, Hit, SearchReply,
        Conflict, ConflictsReply, Confirmed, ConfirmReply, Rejected, RejectReply,
        Answer, LocateReply, RebuildReply, TickReply, RebuildRun, Stuck, StatsReply, Failure,
    )
}  # fmt: skip

everything = [
    cls for cls in vars(contract).values() if isinstance(cls, type) and issubclass(cls, Message) and cls is not Message
]

# ----------------------------------------------------------------------------------------- round trips


def test_every_message_has_a_strategy_here() -> None:
    assert set(strategies) == set(everything)


@pytest.mark.parametrize("cls", everything, ids=lambda cls: cls.__name__)
def test_what_is_written_is_read_back_equal(cls: type[Message]) -> None:
    @few
    @given(strategies[cls])
    def check(message: Message) -> None:
        wire = json.loads(json.dumps(message.to_wire(), allow_nan=False))

        assert cls.from_wire(wire) == message

    check()


def test_the_wire_holds_plain_values_only() -> None:
    item = NewPhoto("a", Photo(path="a.jpg"), 1.0, 2.0, Provenance.SURVEYED).to_wire()

    assert type(item["provenance"]) is str
    assert item["photo"] == {"photo_id": None, "path": "a.jpg", "url": None, "inline": None}


def test_a_whole_number_is_a_fine_float() -> None:
    point = Point.from_wire({"lat": 1, "lon": 2})

    assert (point.lat, point.lon) == (1.0, 2.0)
    assert type(point.lat) is float


def test_the_envelopes_say_ok_or_a_code() -> None:
    assert contract.ok(TickReply(ran=True)) == {"v": 1, "ok": True, "reply": {"ran": True}}
    assert contract.failed(Code.STALE, "later") == {
        "v": 1,
        "ok": False,
        "error": {"code": "stale", "message": "later"},
    }
    assert contract.failed(Code.STALE, "later", 7)["error"] == {"code": "stale", "message": "later", "seq": 7}


# ---------------------------------------------------------------------------------------------- values


def test_a_message_is_a_value() -> None:
    point = Point(1.0, 2.0)

    assert point == Point(lat=1.0, lon=2.0) != Point(1.0, 2.5)
    assert len({point, Point(1.0, 2.0), Near(1.0, 2.0, 3.0)}) == 2
    assert pickle.loads(pickle.dumps(point)) == copy.deepcopy(point) == point  # noqa: S301
    with pytest.raises(AttributeError):
        point.lat = 2.0  # type: ignore[misc]
    match Refused("a", Code.STALE, "later"):
        case Refused(ref, code, message):
            assert (ref, code, message) == ("a", Code.STALE, "later")


def test_what_is_replaced_is_checked_again() -> None:
    assert msgspec.structs.replace(Point(1.0, 2.0), lon=3.0) == Point(1.0, 3.0)
    with pytest.raises(BadRequest):
        msgspec.structs.replace(Point(1.0, 2.0), lat=91.0)


def test_purge_is_not_equal_to_remove() -> None:
    assert Purge(photo_ids=[1]) != Remove(photo_ids=[1])


def test_an_outcome_says_by_its_status_what_it_is() -> None:
    outcome = Refused("a", Code.STALE, "later")

    assert outcome.status == "refused"
    assert outcome.to_wire() == {"ref": "a", "code": "stale", "message": "later", "status": "refused"}


# ------------------------------------------------------------------------------------------- refusals

HUGE = 10**400


def refused(cls: type[Message], wire: object) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        cls.from_wire(wire)
    return caught.value


def wire_of(photo: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {"ref": "a", "photo": photo or {"path": "a.jpg"}, **fields}


def test_an_unknown_field_is_refused_by_name() -> None:
    error = refused(Locate, {"v": 1, "photo": {"path": "a.jpg"}, "radius": 3})

    assert error.code is Code.UNKNOWN_FIELD
    assert "'radius'" in error.message


def test_an_unknown_field_deep_inside_is_refused_as_well() -> None:
    assert refused(Locate, {"v": 1, "photo": {"path": "a.jpg", "size": 3}}).code is Code.UNKNOWN_FIELD


@pytest.mark.parametrize("version", [0, 2, "1", None, [], 1.5])
def test_another_version_is_refused(version: object) -> None:
    error = refused(Stats, {"v": version})

    assert error.code is Code.UNKNOWN_VERSION
    assert "version 1" in error.message


def test_a_message_without_a_version_is_refused() -> None:
    assert refused(Stats, {}).code is Code.UNKNOWN_VERSION


@pytest.mark.parametrize("version", [True, 1.0])
def test_a_version_that_only_equals_one_is_refused(version: object) -> None:
    assert refused(Stats, {"v": version}).code is Code.BAD_REQUEST


def test_an_unknown_version_is_said_before_an_unknown_field() -> None:
    assert refused(Stats, {"v": 2, "new_in_2": True}).code is Code.UNKNOWN_VERSION


@pytest.mark.parametrize("wire", [None, [], "x", 3, True])
@pytest.mark.parametrize("cls", [Stats, Photo, AddReply], ids=lambda cls: cls.__name__)
def test_what_is_not_an_object_is_refused(cls: type[Message], wire: object) -> None:
    assert refused(cls, wire).code is Code.BAD_REQUEST


@pytest.mark.parametrize(
    ("cls", "wire", "lacking"),
    [
        (Point, {"lat": 1.0}, "lon"),
        (NewPhoto, {"ref": "a"}, "photo"),
        (Hit, {"photo_id": 1, "similarity": 0.5, "path": None, "lat": None, "lon": None}, "provenance"),
        (AddReply, {"outcomes": []}, "model_key"),
    ],
)
def test_a_missing_field_is_refused_by_name(cls: type[Message], wire: object, lacking: str) -> None:
    error = refused(cls, wire)

    assert error.code is Code.BAD_REQUEST
    assert f"lacks '{lacking}'" in error.message


@pytest.mark.parametrize(
    ("cls", "wire"),
    [
        (Photo, {"photo_id": True}),
        (Photo, {"photo_id": 1.0}),
        (Photo, {"photo_id": "1"}),
        (Photo, {"path": 1}),
        (Photo, {"path": ["a.jpg"]}),
        (Point, {"lat": "1", "lon": 2.0}),
        (Point, {"lat": True, "lon": 2.0}),
        (Point, {"lat": None, "lon": 2.0}),
        (TickReply, {"ran": 1}),
        (Remove, {"v": 1, "photo_ids": 3}),
        (Remove, {"v": 1, "photo_ids": [1, True]}),
        (Remove, {"v": 1, "photo_ids": ["1"]}),
        (Search, {"v": 1, "text": "a", "top_k": True}),
        (Search, {"v": 1, "vector": [1.0, "2"]}),
        (Search, {"v": 1, "vector": [True]}),
        (Search, {"v": 1, "vector": {"0": 1.0}}),
        (Search, {"v": 1, "text": "a", "where": [1]}),
        (Search, {"v": 1, "text": "a", "near": 5}),
        (AddToIndex, {"v": 1, "photos": {"0": {}}}),
        (Embed, {"v": 1, "photos": [{}], "return_vectors": 1}),
        (NewPhoto, wire_of(metadata="x")),
        (NewPhoto, wire_of(lat=1.0, lon=2.0, provenance="somebody")),
        (NewPhoto, wire_of(lat=1.0, lon=2.0, provenance=3)),
        (NewPhoto, wire_of(lat=1.0, lon=2.0, provenance=[])),
        (Failure, {"code": "no such code", "message": ""}),
        (Failure, {"code": None, "message": ""}),
        (AddReply, {"outcomes": [{"status": "lost"}], "model_key": "m"}),
        (AddReply, {"outcomes": [{"status": []}], "model_key": "m"}),
        (AddReply, {"outcomes": [{}], "model_key": "m"}),
        (AddReply, {"outcomes": [3], "model_key": "m"}),
    ],
)
def test_a_wrong_type_is_refused_never_converted(cls: type[Message], wire: object) -> None:
    assert refused(cls, wire).code is Code.BAD_REQUEST


@pytest.mark.parametrize(
    ("cls", "wire"),
    [
        (Point, {"lat": HUGE, "lon": 0}),
        (Search, {"v": 1, "vector": [HUGE]}),
        (Search, {"v": 1, "text": "a", "threshold": -HUGE}),
        (Search, {"v": 1, "text": "a", "near": {"lat": 0, "lon": 0, "radius_m": HUGE}}),
        (Photo, {"photo_id": HUGE}),
    ],
)
def test_a_whole_number_beyond_every_float_is_refused(cls: type[Message], wire: object) -> None:
    assert refused(cls, wire).code is Code.BAD_REQUEST


def test_a_fault_deep_inside_keeps_its_code() -> None:
    near = {"lat": 91.0, "lon": 0.0, "radius_m": 1.0}

    error = refused(Search, {"v": 1, "text": "a", "near": near})

    assert error.code is Code.BAD_COORDINATES
    assert refused(Search, {"v": 1, "text": "a", "near": near, "new": 1}).code is Code.UNKNOWN_FIELD


@pytest.mark.parametrize(
    ("cls", "wire", "sentence"),
    [
        (Stats, None, "Stats must be an object, not null"),
        (Point, {"lat": "1", "lon": 2.0}, "Point.lat must be a number, not text"),
        (Photo, {"photo_id": True}, "Photo.photo_id must be a whole number or null, not a boolean"),
        (Remove, {"v": 1, "photo_ids": [1, 2.5]}, "Remove.photo_ids[1] must be a whole number, not a number"),
        (Search, {"v": 1, "text": "a", "near": []}, "Search.near must be an object or null, not a list"),
        (Point, {"lat": HUGE, "lon": 0}, "Point.lat: number out of range"),
        (Locate, {"v": 1, "photo": {"size": 3}}, "Locate.photo has no field 'size'"),
        (
            Locate,
            {"v": 1, "size": 3},
            "Locate has no field 'size'; it has v, photo, threshold, near, min_seq, heard, policy",
        ),
        (AddReply, {"outcomes": [{"status": "stored"}], "model_key": "m"}, "AddReply.outcomes[0] lacks 'ref'"),
        (AddReply, {"outcomes": [{}], "model_key": "m"}, "AddReply.outcomes[0] lacks 'status'"),
        (
            AddReply,
            {"outcomes": [{"status": "lost"}], "model_key": "m"},
            "AddReply.outcomes[0].status: invalid value 'lost'",
        ),
        (
            NewPhoto,
            {"ref": "a", "photo": {"path": "a"}, "provenance": "some\nbody"},
            "NewPhoto.provenance: 'some\\nbody' is not one of exif_gps, surveyed, confirmed, derived, fallback",
        ),
    ],
)
def test_a_refusal_names_the_field_and_what_it_must_be(cls: type[Message], wire: object, sentence: str) -> None:
    assert refused(cls, wire).message == sentence


def test_a_field_of_words_is_called_like_their_class() -> None:
    hints = {(name, hint) for cls in everything for name, hint in get_type_hints(cls).items()}

    for name, hint in hints:
        words = [
            part
            for part in (hint, *getattr(hint, "__args__", ()))
            if isinstance(part, type) and issubclass(part, StrEnum)
        ]
        assert [word.__name__.lower() for word in words] in ([], [name.replace("_", "")])


@pytest.mark.parametrize(
    ("cls", "wire", "code"),
    [
        (Stats, {"v": 1, "\ud800": 1}, Code.UNKNOWN_FIELD),
        (Locate, {"v": 1, "photo": {"path": "a", "\ud800": 1}}, Code.UNKNOWN_FIELD),
        (Locate, {"v": 1, "photo": {"path": "a", " - at `$\n`": 1}}, Code.UNKNOWN_FIELD),
        (Failure, {"code": "\ud800", "message": ""}, Code.BAD_REQUEST),
        (AddReply, {"outcomes": [{"status": "\ud800"}], "model_key": "m"}, Code.BAD_REQUEST),
    ],
)
def test_an_odd_name_is_refused_like_any_other(cls: type[Message], wire: object, code: Code) -> None:
    error = refused(cls, wire)

    assert error.code is code
    assert error.message.startswith(cls.__name__)


# ---------------------------------------------------------------------------------------- coordinates


@pytest.mark.parametrize(
    ("lat", "lon"), [(0.0, 0.0), (90.0, 180.0), (-90.0, -180.0), (-0.0, 0.0), (90, -180), (0.0, 45.0), (45.0, 0.0)]
)
def test_zero_and_the_bounds_are_coordinates(lat: float, lon: float) -> None:
    Point(lat, lon)
    Near(lat, lon, 1.0)
    item = NewPhoto.from_wire(wire_of(lat=lat, lon=lon, provenance="surveyed"))

    assert (item.lat, item.lon) == (lat, lon)


@pytest.mark.parametrize(
    ("lat", "lon"),
    [
        (91.0, 0.0),
        (-90.000001, 0.0),
        (0.0, 180.1),
        (0.0, -180.1),
        (math.nan, 0.0),
        (0.0, math.nan),
        (math.inf, 0.0),
        (0.0, -math.inf),
    ],
)
def test_a_place_that_is_not_on_earth_is_refused(lat: float, lon: float) -> None:
    for cls, wire in (
        (Point, {"lat": lat, "lon": lon}),
        (Near, {"lat": lat, "lon": lon, "radius_m": 10.0}),
        (NewPhoto, wire_of(lat=lat, lon=lon, provenance="surveyed")),
    ):
        assert refused(cls, wire).code is Code.BAD_COORDINATES


@pytest.mark.parametrize("radius", [0.0, -1.0, math.nan, math.inf])
def test_a_circle_needs_a_positive_radius(radius: float) -> None:
    assert refused(Near, {"lat": 0.0, "lon": 0.0, "radius_m": radius}).code is Code.BAD_REQUEST


@pytest.mark.parametrize("given_one", [{"lat": 1.0}, {"lon": 1.0}, {"lat": 0.0}, {"lat": 0.0, "lon": None}])
def test_half_a_coordinate_is_refused(given_one: dict[str, Any]) -> None:
    error = refused(NewPhoto, wire_of(**given_one, provenance="surveyed"))

    assert error.code is Code.BAD_COORDINATES
    assert "both" in error.message


def test_coordinates_need_a_provenance() -> None:
    error = refused(NewPhoto, wire_of(lat=0.0, lon=0.0))

    assert error.code is Code.BAD_REQUEST
    assert "exif_gps" in error.message


def test_a_provenance_needs_coordinates() -> None:
    assert refused(NewPhoto, wire_of(provenance="surveyed")).code is Code.BAD_REQUEST


# --------------------------------------------------------------------------------------- exactly one of


@pytest.mark.parametrize(
    "given_fields",
    [
        {},
        {"path": None},
        {"path": "a", "url": "b"},
        {"photo_id": 0, "url": "a"},
        {"photo_id": 1, "path": "a", "url": "b", "inline": "c"},
    ],
)
def test_a_photo_is_exactly_one_reference(given_fields: dict[str, Any]) -> None:
    error = refused(Photo, given_fields)

    assert error.code is Code.BAD_REQUEST
    assert "one of photo_id, path, url, inline" in error.message


def test_an_id_may_come_with_the_path_that_its_row_must_have() -> None:
    photo = Photo.from_wire({"photo_id": 0, "path": "a"})

    assert (photo.photo_id, photo.path, photo.name) == (0, "a", "photo 0")
    assert Photo.from_wire(photo.to_wire()) == photo
    for path in ("", "a\0b"):
        assert refused(Photo, {"photo_id": 0, "path": path}).code is Code.BAD_REQUEST
    assert refused(Photo, {"photo_id": -1, "path": "a"}).code is Code.BAD_REQUEST


@pytest.mark.parametrize("field", ["path", "url", "inline"])
def test_an_empty_reference_is_refused(field: str) -> None:
    assert refused(Photo, {field: ""}).code is Code.BAD_REQUEST


@pytest.mark.parametrize("photo_id", [0, 1, 2**63 - 1])
def test_a_row_id_is_any_64_bit_number(photo_id: int) -> None:
    assert Photo.from_wire({"photo_id": photo_id}).photo_id == photo_id


@pytest.mark.parametrize("photo_id", [-1, 2**63])
def test_a_number_that_no_row_can_have_is_refused(photo_id: int) -> None:
    assert refused(Photo, {"photo_id": photo_id}).code is Code.BAD_REQUEST


@pytest.mark.parametrize(
    "given_fields",
    [
        {},
        {"text": "a", "vector": [1.0]},
        {"photo": {"path": "a"}, "text": "b"},
        {"photo": {"path": "a"}, "text": "b", "vector": [1.0]},
    ],
)
def test_a_search_is_by_exactly_one_thing(given_fields: dict[str, Any]) -> None:
    error = refused(Search, {"v": 1, **given_fields})

    assert error.code is Code.BAD_REQUEST
    assert "one of photo, text, vector" in error.message


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_an_empty_text_is_refused(text: str) -> None:
    assert refused(Search, {"v": 1, "text": text}).code is Code.BAD_REQUEST


def test_locate_needs_a_photo() -> None:
    assert refused(Locate, {"v": 1}).code is Code.BAD_REQUEST


# ------------------------------------------------------------------------------------ releases side by side

replies = [cls for cls in everything if issubclass(cls, Reply)]
#: What a worker of any release has sent of it. Another field needs a default, or newer clients read no older reply.
ALWAYS_THERE = {
    AddReply: "outcomes model_key",
    Answer: "status",
    EmbedReply: "outcomes model_key dimension",
    Confirmed: "ref photo_id seq",
    ConfirmReply: "outcomes",
    Conflict: "photo_id path lat lon provenance doubt conflict_state since photo_ids",
    ConflictsReply: "conflicts open",
    Embedded: "ref content_sha256",
    Failure: "code message",
    FillReply: "after_id",
    Hit: "photo_id similarity path lat lon provenance",
    LocateReply: "answer generation seq model_key took_ms",
    Point: "lat lon",
    PurgeReply: "outcomes",
    Purged: "ref photo_id seq was_indexed generations",
    RebuildReply: "generation seq with_coordinates valid_files embedded refused indexed dimension model model_key "
    "device seconds kind recall_at_10 index_bytes",
    RebuildRun: "run_id state phase done total started_at finished_at summary error",
    Refused: "ref code message",
    Rejected: "ref photo_id seq",
    ReconcileReply: "ran",
    EmbedMissingReply: "stored",
    QuarantinedReply: "photos",
    LeftAlone: "content_sha256 times at",
    ReleaseReply: "released unknown",
    RejectReply: "outcomes",
    RemoveReply: "outcomes",
    Removed: "ref photo_id seq was_indexed",
    SearchReply: "hits generation seq model_key took_ms",
    StatsReply: "model model_key dimension device has_text photos with_coordinates indexed refused generation "
    "generation_count generation_published_at kind recall_at_10 delta next_model_key next_model_missing removed "
    "purges_pending seq cache_hits cache_misses rss_mb last_rebuild",
    Stored: "ref photo_id seq content_sha256",
    Stuck: "task task_id for_s at where",
    TextVector: "vector model_key",
    TickReply: "ran",
}


def of_a_later_release(message: Any) -> Any:
    """The message on the wire, with a field more in each object of the contract."""
    if isinstance(message, Message):
        fields = {name: getattr(message, name) for name in message.__struct_fields__}
        status = {"status": message.status} if isinstance(message, Outcome) else {}
        return {name: of_a_later_release(value) for name, value in fields.items()} | status | {"later": {"a": [1]}}
    return [of_a_later_release(item) for item in message] if isinstance(message, list) else message


@pytest.mark.parametrize("cls", replies, ids=lambda cls: cls.__name__)
def test_an_older_client_reads_a_newer_workers_reply(cls: type[Message]) -> None:
    @few
    @given(strategies[cls])
    def check(message: Message) -> None:
        wire = json.loads(json.dumps(of_a_later_release(message), allow_nan=False))

        assert wire["later"]
        assert cls.from_wire(wire) == message

    check()


def test_a_newer_client_reads_an_older_workers_reply() -> None:
    required = {cls: [field.name for field in msgspec.structs.fields(cls) if field.required] for cls in replies}

    assert required == {cls: names.split() for cls, names in ALWAYS_THERE.items()}


@pytest.mark.parametrize(
    "cls", [Code, Reason, ConfidenceKind, PositionFrom, PositionIssue], ids=lambda cls: cls.__name__
)
def test_a_word_of_a_later_release_is_kept_as_it_is(cls: type[StrEnum]) -> None:
    later = cls("of_a_later_release")

    assert later == later.value == str(later) == "of_a_later_release"
    assert later in {cls("of_a_later_release")}
    assert "of_a_later_release" not in list(cls)
    assert pickle.loads(pickle.dumps(later)) == copy.deepcopy(later) == later  # noqa: S301
    broken: Any
    for broken in ("", "no word", "\ud800", 3, None):
        with pytest.raises(ValueError, match="not a valid"):
            cls(broken)


def test_a_refusal_with_a_code_of_a_later_release_is_one_that_needs_a_change() -> None:
    wire = {"ref": "a", "code": "of_a_later_release", "message": "why", "status": "refused"}

    (outcome,) = AddReply.from_wire({"outcomes": [wire], "model_key": "m"}).outcomes

    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.retryable, outcome.to_wire()) == ("of_a_later_release", False, wire)


def test_a_reason_of_a_later_release_is_explained_by_its_worker() -> None:
    answer = Answer.from_wire({"status": "abstained", "reason": "of_a_later_release", "message": "because"})

    assert explained(answer) == "because"


# ----------------------------------------------------------------------------------------------- text

odd_texts = st.text("a\\u0\0\ud800", max_size=8)
leaves = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | odd_texts,
    st.binary(max_size=2) | st.datetimes() | st.decimals() | st.uuids() | st.frozensets(st.integers(), max_size=2),
    st.sampled_from(Code),
)
keys = odd_texts | st.integers() | st.floats() | st.none() | st.booleans()
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=2) | st.tuples(inner) | st.dictionaries(keys, inner, max_size=2),
    max_leaves=4,
)


def has_broken_text(value: Any) -> bool:
    if isinstance(value, str):
        return any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value)
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return any(map(has_broken_text, inner))


@settings(few, max_examples=400)
@given(st.dictionaries(st.text(max_size=4), anything, max_size=2))
def test_json_is_what_the_standard_library_writes_without_broken_text(value: dict[str, Any]) -> None:
    try:
        fine = not has_broken_text(json.loads(json.dumps(value, allow_nan=False)))
    except (ValueError, TypeError):
        fine = False

    if fine:
        check_json("notes", value)
    else:
        with pytest.raises(BadRequest, match="notes"):
            check_json("notes", value)


@few
@given(st.text(max_size=6) | st.text("aé\0\ud7ff\ud800\udfff\ue000", max_size=3))
def test_a_text_is_refused_for_a_nul_and_for_half_a_surrogate_pair(text: str) -> None:
    if has_broken_text(text):
        with pytest.raises(BadRequest, match="note"):
            check_text("note", text)
    else:
        check_text("note", text)


@pytest.mark.parametrize("broken", ["a\0b", "a\ud800b", "\udfff"])
@pytest.mark.parametrize(
    ("cls", "place"),
    [
        (Photo, lambda text: {"path": text}),
        (Photo, lambda text: {"url": text}),
        (Photo, lambda text: {"inline": text}),
        (NewPhoto, lambda text: wire_of() | {"ref": text}),
        (EmbedItem, lambda text: wire_of() | {"ref": text}),
        (NewPhoto, lambda text: wire_of(address={"street": text})),
        (NewPhoto, lambda text: wire_of(metadata={text: 1})),
        (NewPhoto, lambda text: wire_of(metadata={"a": [{"b": text}]})),
        (Search, lambda text: {"v": 1, "text": text}),
        (Search, lambda text: {"v": 1, "text": "a", "where": {"b": text}}),
    ],
)
def test_text_that_postgres_cannot_keep_is_refused(cls: type[Message], place: Any, broken: str) -> None:
    assert refused(cls, place(broken)).code is Code.BAD_REQUEST


def test_any_other_text_is_taken() -> None:
    text = 'Žluťoučký 🦄 \\u0000 \\\\ " \x01 \x7f \u2028'

    item = NewPhoto.from_wire(wire_of(metadata={text: text}, address={"street": text}) | {"ref": text})

    assert (item.ref, item.metadata) == (text, {text: text})


@pytest.mark.parametrize("cls", [NewPhoto, EmbedItem], ids=lambda cls: cls.__name__)
def test_an_empty_ref_is_refused(cls: type[Message]) -> None:
    assert refused(cls, wire_of() | {"ref": ""}).code is Code.BAD_REQUEST


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, object(), {1, 2}, b"bytes"])
@pytest.mark.parametrize("field", ["address", "metadata"])
def test_what_is_not_json_is_refused(field: str, value: object) -> None:
    error = refused(NewPhoto, wire_of(**{field: {"deep": [value]}}))

    assert error.code is Code.BAD_REQUEST
    assert field in error.message


def test_json_nested_beyond_all_reading_is_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(100_000):
        nested = {"a": nested}

    assert refused(NewPhoto, wire_of(metadata=nested)).code is Code.BAD_REQUEST


def nested(depth: int) -> dict[str, Any]:
    """An object that is so deep, of objects and lists in turn."""
    inner: Any = []
    depth -= 1
    for level in reversed(range(1, depth)):
        inner = [inner] if level % 2 else {"a": inner}
    return {"a": inner}


@pytest.mark.parametrize("field", ["address", "metadata"])
def test_json_is_taken_up_to_its_depth_and_refused_beyond(field: str) -> None:
    NewPhoto.from_wire(wire_of(**{field: nested(contract.MAX_JSON_DEPTH)}))
    NewPhoto.from_wire(wire_of(**{field: nested(contract.MAX_JSON_DEPTH) | {"scalars": [1, "a", None] * 100}}))

    for depth in (contract.MAX_JSON_DEPTH + 1, 945, 2000):
        error = refused(NewPhoto, wire_of(**{field: nested(depth)}))
        assert error.code is Code.BAD_REQUEST
        assert f"more than {contract.MAX_JSON_DEPTH} deep" in error.message
    error = refused(Search, {"v": 1, "text": "a", "where": nested(contract.MAX_JSON_DEPTH + 1)})
    assert "where is nested" in error.message


def test_brackets_in_a_text_are_no_depth() -> None:
    brackets = "[{" * contract.MAX_JSON_DEPTH

    item = NewPhoto.from_wire(wire_of(metadata={"a": brackets, "b": [[]] * contract.MAX_JSON_DEPTH}))

    assert item.metadata is not None
    assert item.metadata["a"] == brackets


def test_what_refers_to_itself_is_refused() -> None:
    loop: list[Any] = []
    loop += [loop, loop]

    assert refused(NewPhoto, wire_of(metadata={"a": loop})).code is Code.BAD_REQUEST


@pytest.mark.parametrize(
    ("value", "bearable"),
    [
        (None, True),
        ("a street", True),
        ({"a": ["\0", "\ud800"]}, True),
        ([10**300, 1.5], True),
        ({"__type__": "thing", "__value__": 1}, True),
        (nested(contract.MAX_JSON_DEPTH), True),
        (nested(contract.MAX_JSON_DEPTH + 1), False),
        (nested(2000), False),
        ("x" * contract.MAX_JSON_CHARACTERS, False),
        ({"height": math.inf}, False),
        pytest.param(10**5000, False, id="5000 digits"),
        (b"bytes", False),
    ],
)
def test_a_reply_bears_of_rows_what_a_caller_could_have_sent(value: Any, bearable: bool) -> None:
    assert contract.is_bearable(value) is bearable


def test_a_document_in_the_metadata_is_refused() -> None:
    room = contract.MAX_JSON_CHARACTERS - len(json.dumps({"text": ""}))

    NewPhoto.from_wire(wire_of(metadata={"text": "x" * room}))
    error = refused(NewPhoto, wire_of(metadata={"text": "x" * (room + 1)}))

    assert error.code is Code.BAD_REQUEST
    assert str(contract.MAX_JSON_CHARACTERS) in error.message


# ------------------------------------------------------------------------------------ batches and bounds


@pytest.mark.parametrize(
    ("cls", "field", "item"),
    [
        (AddToIndex, "photos", {}),
        (Embed, "photos", {}),
        (Remove, "photo_ids", 1),
        (Purge, "photo_ids", 1),
        (Confirm, "photo_ids", 1),
        (Reject, "photos", {}),
        (Conflicts, "photo_ids", 1),
        (Quarantined, "contents", "0123abcd"),
        (Release, "contents", "0123abcd"),
    ],
    ids=["add", "embed", "remove", "purge", "confirm", "reject", "conflicts", "quarantined", "release"],
)
def test_a_batch_is_neither_empty_nor_too_long(cls: type[Message], field: str, item: object) -> None:
    cls.from_wire({"v": 1, field: [item] * contract.MAX_PHOTOS_PER_MESSAGE})

    for count in (0, contract.MAX_PHOTOS_PER_MESSAGE + 1):
        assert refused(cls, {"v": 1, field: [item] * count}).code is Code.BAD_REQUEST


def test_one_bad_item_leaves_its_neighbours_in_place() -> None:
    request = AddToIndex.from_wire(
        {
            "v": 1,
            "photos": [
                {"ref": "good", "photo": {"path": "a.jpg"}},
                {"ref": "bad", "photo": {"path": "b.jpg"}, "lat": 91.0, "lon": 0.0, "provenance": "surveyed"},
                "not even an object",
                {"photo": {"path": "c.jpg"}},
                {"ref": 7, "photo": {"path": "c.jpg"}},
                {"ref": "also good", "photo": {"photo_id": 3}, "lat": 0.0, "lon": 0.0, "provenance": "exif_gps"},
            ],
        }
    )

    read = request.read_new_photos()

    assert [item.ref for item in read] == ["good", "bad", "item 2", "item 3", "item 4", "also good"]
    codes = [item.code if isinstance(item, Refused) else None for item in read]
    assert codes == [None, Code.BAD_COORDINATES, Code.BAD_REQUEST, Code.BAD_REQUEST, Code.BAD_REQUEST, None]


def test_a_ref_counts_once_in_a_message() -> None:
    items = [
        {"ref": "a", "photo": {"path": "1.jpg"}},
        {"ref": "a", "photo": {"path": "2.jpg"}},
        {"ref": "b", "photo": {}},
        {"ref": "b", "photo": {"path": "3.jpg"}},
    ]

    for read in (AddToIndex(photos=items).read_new_photos(), Embed(photos=items).read_items()):
        first, second, third, fourth = read
        assert not isinstance(first, Refused)
        assert first.photo.path == "1.jpg"
        for repeated in (second, fourth):
            assert isinstance(repeated, Refused)
            assert "twice" in repeated.message
        assert isinstance(third, Refused)


@pytest.mark.parametrize("top_k", [1, contract.MAX_TOP_K])
def test_top_k_at_its_bounds_is_taken(top_k: int) -> None:
    assert Search.from_wire({"v": 1, "text": "a", "top_k": top_k}).top_k == top_k


@pytest.mark.parametrize("top_k", [0, -1, contract.MAX_TOP_K + 1])
def test_top_k_beyond_its_bounds_is_refused(top_k: int) -> None:
    assert refused(Search, {"v": 1, "text": "a", "top_k": top_k}).code is Code.BAD_REQUEST


@pytest.mark.parametrize("threshold", [-1, -1.0, 0, 0.0, 1.0])
def test_a_threshold_is_a_cosine(threshold: float) -> None:
    assert Search.from_wire({"v": 1, "text": "a", "threshold": threshold}).threshold == threshold
    assert Locate.from_wire({"v": 1, "photo": {"path": "a"}, "threshold": threshold}).threshold == threshold


@pytest.mark.parametrize("threshold", [1.0001, -1.0001, math.nan, math.inf])
def test_what_no_cosine_can_be_is_refused(threshold: float) -> None:
    assert refused(Search, {"v": 1, "text": "a", "threshold": threshold}).code is Code.BAD_REQUEST
    assert refused(Locate, {"v": 1, "photo": {"path": "a"}, "threshold": threshold}).code is Code.BAD_REQUEST


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_vector_that_is_not_finite_is_refused(bad: float) -> None:
    assert refused(Search, {"v": 1, "vector": [1.0, bad]}).code is Code.BAD_VECTOR


def test_a_negative_sequence_is_refused() -> None:
    assert refused(Search, {"v": 1, "text": "a", "min_seq": -1}).code is Code.BAD_REQUEST
    assert refused(Locate, {"v": 1, "photo": {"path": "a"}, "min_seq": -1}).code is Code.BAD_REQUEST
    assert "64" in str(refused(Search, {"v": 1, "text": "a", "heard": "w" * 65}))
    assert "64" in str(refused(Locate, {"v": 1, "photo": {"path": "a"}, "heard": "w" * 65}))


# ---------------------------------------------------------------------------------------- inline photos


@few
@given(st.binary(min_size=1, max_size=100))
def test_inline_bytes_come_back_as_they_were(content: bytes) -> None:
    assert Photo.of_bytes(content).inline_bytes() == content


@pytest.mark.parametrize("inline", ["a", "====", "not base64!", "żółć", "YQ", "Y Q=="])
def test_what_is_not_base64_is_refused(inline: str) -> None:
    with pytest.raises(BadRequest, match="base64"):
        Photo(inline=inline).inline_bytes()


@pytest.mark.parametrize(
    ("photo", "name"),
    [
        (Photo(photo_id=0), "photo 0"),
        (Photo(path="a/b.jpg"), "a/b.jpg"),
        (Photo(url="https://host/c.jpg"), "https://host/c.jpg"),
        (Photo.of_bytes(b"123"), "inline photo of 3 bytes"),
    ],
)
def test_a_photo_is_called_by_its_reference_never_by_its_content(photo: Photo, name: str) -> None:
    assert photo.name == name


# ------------------------------------------------------------------------------------------ closed sets


def test_every_code_is_a_lower_snake_word_of_its_own() -> None:
    values = [code.value for code in Code]

    assert len(set(values)) == len(values) == len(Code.__members__)
    for name, code in Code.__members__.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code.value)
        assert code.value == name.lower()


def test_what_may_be_sent_again_is_a_few_codes_of_the_service() -> None:
    assert set(Code) >= contract.RETRYABLE
    retryable = {code for code in Code if Refused("a", code, "").retryable}
    assert retryable == {
        Code.STALE,
        Code.ALREADY_RUNNING,
        Code.OVERLOADED,
        Code.UNAVAILABLE,
        Code.TIMED_OUT,
        Code.EXPIRED,
    }


@pytest.mark.parametrize(
    ("provenance", "trusted"),
    [("exif_gps", True), ("surveyed", True), ("confirmed", True), ("derived", False), ("fallback", False)],
)
def test_what_is_trusted_is_a_closed_table(provenance: str, trusted: bool) -> None:
    assert Provenance(provenance).trusted is trusted
    assert len(Provenance) == 5


def test_the_reasons_are_a_closed_set() -> None:
    assert {reason.value for reason in Reason} == {
        "empty_index",
        "nothing_similar",
        "no_trusted_evidence",
        "too_few_witnesses",
        "neighbours_disagree",
        "look_alike_places",
        "unverified",
        "only_own_copies",
        "outside_coverage",
        "no_place_in_picture",
        "withheld",
    }


def test_task_names_and_queues_are_a_public_contract() -> None:
    assert {task.value for task in contract.TaskName} == {
        f"sightline.{verb}"
        for verb in (
            "embed",
            "embed_text",
            "add_to_index",
            "remove",
            "purge",
            "conflicts",
            "confirm",
            "reject",
            "quarantined",
            "release",
            "reconcile",
            "embed_missing",
            "search",
            "locate",
            "rebuild_index",
            "stats",
            "tick",
            "fill",
        )
    }
    assert {queue.value for queue in contract.Queue} == {"interactive", "bulk", "index"}


def test_seconds_apart_are_in_no_reply_that_has_none() -> None:
    """Clients of the release before take no field more."""
    hit = Hit(1, 0.9, "a.jpg", 1.0, 2.0, Provenance.SURVEYED)

    assert "apart_s" not in hit.to_wire()
    assert msgspec.structs.replace(hit, apart_s=-2.5).to_wire()["apart_s"] == -2.5


def test_a_search_that_may_not_be_stale_and_a_reply_that_is_not_have_no_field_more() -> None:
    """Workers and clients of the release before take none."""
    reply = contract.SearchReply([], 1, 2, "a@1", 0.5)

    assert "allow_stale" not in Search(text="a").to_wire()
    assert Search.from_wire(Search(text="a", allow_stale=True).to_wire()).allow_stale
    assert "stale_s" not in reply.to_wire()
    assert contract.SearchReply.from_wire(msgspec.structs.replace(reply, stale_s=1.5).to_wire()).stale_s == 1.5
