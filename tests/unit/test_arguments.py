"""Odd values at every argument of every verb: taken where their meaning is plain, refused by name where it is not."""

from __future__ import annotations

import array
import asyncio
import io
import json
import math
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer_client import BadRequest, Code, EmbedItem, Near, NewPhoto, Photo, Refused, Sightline, contract, plain
from producer_client.compat import CLIPSimilarityService
from producer_client.contract import Message, Policy

JPEG = b"\xff\xd8\xff bytes"
ID = uuid.UUID(int=7)
DAY = datetime(2025, 5, 1, 12, 30, tzinfo=UTC)
GIVEN: dict[str, Any] = {"path": "/a.jpg"}
PLACED: dict[str, Any] = {**GIVEN, "lat": 1.5, "lon": 2.5, "provenance": "surveyed"}


class Sent(Exception):
    """What would go to the queue, read there as a worker reads it."""

    def __init__(self, message: dict[str, Any]) -> None:
        self.message = message


class Speaking(Sightline):
    """A client whose messages go no further than the door, written and read as they would be."""

    def _send(self, name: Any, queue: Any, request: contract.Request, *rest: Any, **more: Any) -> Any:
        wire = json.loads(json.dumps(request.to_wire(), allow_nan=False))
        assert type(request).from_wire(wire).to_wire() == request.to_wire()
        for read in ("read_new_photos", "read_items"):
            if hasattr(request, read):
                refused = [item for item in getattr(request, read)() if isinstance(item, Refused)]
                assert not refused, "what a worker refuses was sent"
        raise Sent(wire)


@pytest.fixture(scope="module")
def client() -> Iterator[Sightline]:
    with Speaking("redis://127.0.0.1:1/0") as speaking:
        yield speaking


def sent(act: Callable[[], Any]) -> dict[str, Any]:
    with pytest.raises(Sent) as caught:
        act()
    return caught.value.message


def refused(act: Callable[[], Any]) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        act()
    return caught.value


class Method(Enum):
    GPS = "exif_gps"


class Floor(Enum):
    THIRD = 3


class Hostile:
    """Whatever is asked of it raises."""

    def __float__(self) -> float:
        raise RuntimeError("no")

    def __index__(self) -> int:
        raise RuntimeError("no")

    def __fspath__(self) -> str:
        raise RuntimeError("no")

    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("no")

    def read(self) -> bytes:
        raise RuntimeError("no")


#: What stands for 51.5, and what stands for none.
NUMBERS = [
    51.5,
    np.float32(51.5),
    np.float64(51.5),
    np.float16(51.5),
    np.array(51.5),
    torch.tensor(51.5),
    Decimal("51.5"),
    Fraction(103, 2),
    "51.5",
    " +51.50 ",
    "5.15e1",
    np.str_("51.5"),
]
NO_NUMBERS = [
    "51,5",
    "",
    "51°30'",
    "north",
    "nan",
    "1_0",
    math.nan,
    math.inf,
    np.float32("nan"),
    Decimal("NaN"),
    Decimal("1e9999"),
    10**5000,
    True,
    np.bool_(True),
    torch.tensor(True),
    1 + 2j,
    np.complex64(1 + 2j),
    np.array([51.5]),
    np.datetime64("2025-05-01"),
    np.timedelta64(1, "s"),
    timedelta(1),
    DAY,
    ID,
    b"51.5",
    [51.5],
    {},
    Path("51.5"),
    Hostile(),
    object(),
]
#: What stands for 7, and what stands for no whole number.
WHOLE = [
    7,
    np.int64(7),
    np.uint8(7),
    np.array(7),
    torch.tensor(7),
    7.0,
    np.float64(7),
    Decimal(7),
    Decimal("7.0"),
    "7",
    " 7 ",
]
NOT_WHOLE = [
    7.5,
    "7.5",
    "7,0",
    "seven",
    "",
    2**63,
    10**5000,
    1e300,
    float(2**54),
    Decimal("1e99999999"),
    ID,
    *NO_NUMBERS[6:],
]
FLAGS = [True, np.bool_(True), 1, np.int64(1)]
METHODS: list[Any] = ["exif_gps", Method.GPS, contract.Provenance.EXIF_GPS, np.str_("exif_gps")]
NO_METHODS: list[Any] = ["gps", "EXIF_GPS", Floor.THIRD, 5, [], {}, None, Hostile()]
NO_POLICIES = [given for given in NO_METHODS if given is not None]
NO_FLAGS = [Decimal("sNaN"), "true", "yes", 2, math.nan, DAY, [], np.array([True]), Hostile(), object()]
PATHS = ["/a.jpg", Path("/a.jpg"), np.str_("/a.jpg"), b"/a.jpg"]
NO_PATHS = [5, 5.0, True, DAY, ID, [], {"a": 1}, "", "a\0b", "\ud800", Hostile(), object()]
NO_TEXTS = [5, True, DAY, ID, b"text", Path("text"), [], "", "a\0b", "\ud800", Hostile(), object()]
FILES = [
    JPEG,
    bytearray(JPEG),
    memoryview(JPEG),
    io.BytesIO(JPEG),
    np.frombuffer(JPEG, np.uint8),
    array.array("B", JPEG),
]


class Upload:
    async def read(self) -> bytes:
        return JPEG


NO_FILES = [
    "/a.jpg",
    b"",
    io.BytesIO(b""),
    io.StringIO("text"),
    np.zeros((4, 4, 3), np.uint8),
    np.zeros(4, np.float32),
    Upload(),
    Path("/a.jpg"),
    5,
    Hostile(),
    object(),
]
VECTORS: list[Any] = [
    [1.0, 2.0],
    (1, 2),
    np.array([1, 2], np.float32),
    np.array([[1, 2]], np.float16),
    torch.tensor([1.0, 2.0]),
    array.array("d", [1, 2]),
    [Decimal(1), "2"],
    [np.float32(1), np.int8(2)],
]
NO_VECTORS: list[Any] = [
    "1,2",
    b"12",
    {1.0, 2.0},
    {1: 2},
    5,
    [1.0, None],
    [1.0, math.nan],
    [True],
    [[1.0], [2.0]],
    np.eye(2),
]
NO_VECTORS += [[1.0, "x"], np.array([1.0, np.inf]), Hostile(), object()]
IDS: list[Any] = [
    [7],
    (7,),
    {7},
    frozenset([7]),
    range(7, 8),
    np.array([7]),
    torch.tensor([7]),
    {7: 1}.keys(),
    *WHOLE,
]
NO_IDS: list[Any] = [[], [7, ID], [7, "x"], [[7]], np.array([7.5]), {7: 1}, b"7", "7,8", range(257), *NOT_WHOLE]
DIGEST = "0123456789abcdef"
CONTENTS: list[Any] = [DIGEST, [DIGEST], (DIGEST,), {DIGEST}, np.array([DIGEST]), np.str_(DIGEST)]
NO_CONTENTS: list[Any] = [[], [DIGEST, 7], "0123", "0123456G", {DIGEST: 1}, [DIGEST] * 257, *NO_TEXTS]
NEARS: list[Any] = [
    Near(1.5, 2.5, 300.0),
    Near(np.float32(1.5), "2.5", Decimal(300)),  # type: ignore[arg-type]  # that is the point
    {"lat": 1.5, "lon": "2.5", "radius_m": 300},
]
NO_NEARS: list[Any] = [
    (1.5, 2.5, 300),
    "1.5,2.5,300",
    {"lat": 1.5},
    Near(91, 0, 1),
    Near(0, 0, 0),
    Near(0, 0, math.nan),
]
NO_NEARS += [Near(None, 0, 1), Near("51,5", 0, 1), Near(0, True, 1), Hostile(), object()]  # type: ignore[arg-type]
#: Metadata as it is given and as it is sent.
MAPPINGS: list[tuple[Any, Any]] = [
    ({"n": np.int64(3), "x": np.float32(0.5)}, {"n": 3, "x": 0.5}),
    ({"price": Decimal("19.99"), "count": Decimal(5)}, {"price": 19.99, "count": 5}),
    (
        {"at": DAY, "day": date(2025, 5, 1), "time": time(12)},
        {"at": "2025-05-01T12:30:00+00:00", "day": "2025-05-01", "time": "12:00:00"},
    ),
    ({"id": ID, ID: 1}, {"id": str(ID), str(ID): 1}),
    ({"file": Path("/a")}, {"file": "/a"}),
    ({"floor": Floor.THIRD, "how": Method.GPS}, {"floor": 3, "how": "exif_gps"}),
    (
        {"tags": ("a", "b"), "set": {"x"}, "deep": [{"y": {np.int8(1)}}]},
        {"tags": ["a", "b"], "set": ["x"], "deep": [{"y": [1]}]},
    ),
    ({"array": np.array([[1, 2]]), "yes": np.bool_(True)}, {"array": [[1, 2]], "yes": True}),
    ({1: "a", np.int64(2): "b"}, {"1": "a", "2": "b"}),
    ({np.str_("k"): np.str_("v")}, {"k": "v"}),
]
_itself: dict[str, Any] = {}
_itself["deep"] = {"er": _itself}
#: And what is refused, with the place that the sentence names.
NO_MAPPINGS: list[tuple[Any, str]] = [
    ({"a": {"b": [0, object()]}}, "{}.a.b[1]"),
    ({"a": b"bytes"}, "{}.a"),
    ({"a": timedelta(1)}, "{}.a"),
    ({"a": [1 + 2j]}, "{}.a[0]"),
    ({"a": math.nan}, "{}.a"),
    ({"a": np.float32("inf")}, "{}.a"),
    ({"a": Decimal("NaN")}, "{}.a"),
    ({None: 1}, "names in {}"),
    ({"a": {(1, 2): 1}}, "names in {}.a"),
    ({1: "a", "1": "b"}, "{}"),
    (_itself, "{}"),
    ([("a", 1)], "{}"),
    ("a", "{}"),
    (5, "{}"),
    (Hostile(), "{}"),
]


@dataclass(frozen=True)
class Call:
    """An argument of a verb. at: where the message has it."""

    verb: str
    name: str
    fine: list[Any]
    value: Any
    odd: list[Any]
    at: tuple[str | int, ...] = ()
    others: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.verb} {self.name}"

    def act(self, client: Sightline, value: Any) -> Any:
        return getattr(client, self.verb)(**{**self.others, self.name: value})

    def found(self, message: Any) -> Any:
        return reduce(getitem, self.at, message)


def photo(message: dict[str, Any]) -> Any:
    return message["photos"][0]


IN_PHOTO: dict[str, tuple[str | int, ...]] = {
    "search": ("photo",),
    "locate": ("photo",),
    "embed": ("photos", 0, "photo"),
    "add_to_index": ("photos", 0, "photo"),
}
INLINE = Photo.of_bytes(JPEG).inline
ONE: dict[str, Any] = {"photos": [NewPhoto("a", Photo(path="/a"))]}
PATIENCE: list[Any] = [*NO_NUMBERS, -1, 1e12]
NEAR_SENT = {"lat": 1.5, "lon": 2.5, "radius_m": 300.0}
CALLS = [
    *(
        call
        for verb, at in IN_PHOTO.items()
        for call in (
            Call(verb, "photo_id", WHOLE, 7, [*NOT_WHOLE, -1], (*at, "photo_id")),
            Call(verb, "path", PATHS, "/a.jpg", NO_PATHS, (*at, "path")),
            Call(verb, "url", ["https://a", np.str_("https://a")], "https://a", NO_TEXTS, (*at, "url")),
            Call(verb, "content", FILES, INLINE, NO_FILES, (*at, "inline")),
            Call(verb, "timeout_s", [], None, PATIENCE, (), GIVEN),
        )
    ),
    *(
        call
        for verb in ("search", "locate")
        for call in (
            Call(verb, "threshold", [0.5, np.float32(0.5), "0.5"], 0.5, [*NO_NUMBERS, 1.5], ("threshold",), GIVEN),
            Call(verb, "min_seq", WHOLE, 7, [*NOT_WHOLE, -1], ("min_seq",), GIVEN),
            Call(verb, "near", NEARS, NEAR_SENT, NO_NEARS, ("near",), GIVEN),
        )
    ),
    Call("add_to_index", "lat", NUMBERS, 51.5, [*NO_NUMBERS, 91, None], ("photos", 0, "lat"), PLACED),
    Call("add_to_index", "lon", NUMBERS, 51.5, [*NO_NUMBERS, 181, None], ("photos", 0, "lon"), PLACED),
    Call("add_to_index", "provenance", METHODS, "exif_gps", NO_METHODS, ("photos", 0, "provenance"), PLACED),
    Call("add_to_index", "update_row", FLAGS, True, NO_FLAGS, ("photos", 0, "update_row"), GIVEN),
    Call("add_to_index", "durable", [], None, NO_FLAGS, (), GIVEN),
    Call("locate", "policy", ["guide", np.str_("guide"), Policy.GUIDE], "guide", NO_POLICIES, ("policy",), GIVEN),
    Call("embed", "return_vector", FLAGS, True, NO_FLAGS, ("return_vectors",), GIVEN),
    Call("search", "top_k", WHOLE, 7, [*NOT_WHOLE, 0], ("top_k",), GIVEN),
    Call("search", "trusted_only", FLAGS, True, NO_FLAGS, ("trusted_only",), GIVEN),
    Call("search", "allow_stale", FLAGS, True, NO_FLAGS, ("allow_stale",), GIVEN),
    Call("search", "model_key", ["a"], "a", NO_TEXTS[:7], ("model_key",), GIVEN),
    Call("search", "text", ["a", np.str_("a")], "a", [*NO_TEXTS, " "], ("text",)),
    Call("search", "vector", VECTORS, [1.0, 2.0], NO_VECTORS, ("vector",)),
    Call("embed_text", "text", ["a", np.str_("a")], "a", [*NO_TEXTS, " ", None], ("text",)),
    Call("remove", "photo_ids", IDS, [7], [*NO_IDS, None], ("photo_ids",)),
    Call("purge", "photo_ids", IDS, [7], [*NO_IDS, None], ("photo_ids",)),
    Call("conflicts", "photo_ids", IDS, [7], NO_IDS, ("photo_ids",)),
    Call("conflicts", "settled", [], None, NO_FLAGS),
    Call("rebuild_index", "force", [], None, NO_FLAGS),
    Call("conflicts", "after_id", WHOLE, 7, NOT_WHOLE, ("after_id",)),
    Call("conflicts", "limit", WHOLE, 7, [*NOT_WHOLE, 0], ("limit",)),
    Call("confirm", "photo_ids", IDS, [7], [*NO_IDS, None], ("photo_ids",)),
    Call("reject", "photo_ids", IDS, 7, [*NO_IDS, None], ("photos", 0, "photo_id")),
    Call("reject", "lat", NUMBERS, 51.5, [*NO_NUMBERS, 91, None], ("photos", 0, "lat"), {"photo_ids": [1], "lon": 1.0}),
    Call(
        "reject", "lon", NUMBERS, 51.5, [*NO_NUMBERS, 181, None], ("photos", 0, "lon"), {"photo_ids": [1], "lat": 1.0}
    ),
    Call("quarantined", "contents", CONTENTS, [DIGEST], NO_CONTENTS, ("contents",)),
    Call("quarantined", "limit", WHOLE, 7, [*NOT_WHOLE, 0], ("limit",)),
    Call("release", "contents", CONTENTS, [DIGEST], [*NO_CONTENTS, None], ("contents",)),
    Call("release", "forget", FLAGS, True, NO_FLAGS, ("forget",), {"contents": DIGEST}),
    Call("reconcile", "dry_run", FLAGS, True, NO_FLAGS, ("dry_run",)),
    Call("add_many", "progress", [], None, ["soon", 5, Hostile()], (), ONE),
    Call("add_many", "timeout_s", [], None, PATIENCE, (), ONE),
    Call("rebuild_index", "timeout_s", [], None, PATIENCE),
    Call("stats", "timeout_s", [], None, PATIENCE),
    Call("locating", "task_id", [], None, [5.5, [], None, Hostile(), object()]),
]


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_what_is_plainly_meant_is_sent_as_plain_json(client: Sightline, call: Call) -> None:
    for value in call.fine:
        found = call.found(sent(partial(call.act, client, value)))
        assert (found, type(found)) == (call.value, type(call.value)), repr(value)


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_what_is_not_is_refused_by_the_arguments_name_before_anything_is_sent(client: Sightline, call: Call) -> None:
    for value in call.odd:
        message = refused(partial(call.act, client, value)).message
        assert call.name in message or (call.name in ("lat", "lon") and "itude" in message), (type(value), message)
        assert len(message) < 400


@pytest.mark.parametrize("field", ["metadata", "address", "where"])
def test_a_mapping_is_sent_as_json_has_it_or_refused_by_the_place_in_it(client: Sightline, field: str) -> None:
    verb: Any = client.search if field == "where" else client.add_to_index

    for given_value, expected in MAPPINGS:
        message = sent(partial(verb, **GIVEN, **{field: given_value}))
        found = message[field] if field == "where" else photo(message)[field]
        assert found == expected
    for odd, place in NO_MAPPINGS:
        assert place.format(field) in refused(partial(verb, **GIVEN, **{field: odd})).message


def test_a_sentence_says_what_is_wrong_with_the_value(client: Sightline) -> None:
    def why(**given_values: Any) -> str:
        return refused(lambda: client.add_to_index(**PLACED | given_values)).message

    assert why(lat="51,5") == "lat must be a number, not '51,5': write it with a point"
    assert why(lat=True) == "lat must be a number, not True"
    assert why(lat=math.nan) == "lat must be a number, not nan"
    assert "whole number, not a UUID" in why(photo_id=ID)
    assert "view" in why(photo_id=ID)
    assert why(metadata=_itself) == "metadata is nested too deep, or in itself"
    assert why(path=5) == "path must be a path as text or Path, not 5"
    assert why(content="/a.jpg").endswith("not text; a path is given as path=")
    assert "await file.read()" in why(content=Upload())
    assert "read to its end" in why(content=io.BytesIO())
    assert refused(lambda: client.add_to_index(**PLACED | {"lat": "x" * 100_000})).message.endswith("…")
    assert refused(lambda: client.search(vector=[0.5, math.nan])).message == "vector[1] must be a number, not nan"
    assert refused(lambda: client.add_to_index(**PLACED | {"lat": "51,5"})).code is Code.BAD_COORDINATES
    assert refused(lambda: client.search(vector=[math.nan])).code is Code.BAD_VECTOR
    assert refused(lambda: client.search(vector=["x"])).message == "vector[0] must be a number, not 'x'"
    ids: list[Any] = [1, ID]
    assert refused(lambda: client.remove(ids)).message.startswith("photo_ids[1] must be a whole number")


def test_a_vector_is_copied_also_out_of_a_list_of_one() -> None:
    row = [0.6, 0.8]
    assert plain.vector("vector", [row]) == row
    assert plain.vector("vector", [row]) is not row


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda c: c.add_to_index(path="/a", country="DK"), "add_to_index has no argument 'country': it has photo_id"),
        (
            lambda c: c.add_to_index(path="/a", adress={}),
            "add_to_index has no argument 'adress': did you mean address?",
        ),
        (lambda c: c.search(path="/a", topk=5), "search has no argument 'topk': did you mean top_k?"),
        (
            lambda c: c.submit_search(path="/a", treshold=1),
            "search has no argument 'treshold': did you mean threshold?",
        ),
        (lambda c: c.locate(pth="/a"), "locate has no argument 'pth': did you mean path?"),
        (
            lambda c: c.embed(path="/a", return_vectors=True),
            "embed has no argument 'return_vectors': did you mean return_vector?",
        ),
        (lambda c: c.remove(ids=[1]), "remove has no argument 'ids': it has photo_ids, timeout_s"),
        (lambda c: c.embed_text(), "embed_text: missing a required argument: 'text'"),
        (lambda c: c.purge(), "purge: missing a required argument: 'photo_ids'"),
        (lambda c: c.search("/a.jpg"), "search: too many positional arguments"),
        (lambda c: c.submit_locate("/a.jpg"), "locate: too many positional arguments"),
        (lambda c: c.add_many(), "add_many: missing a required argument: 'photos'"),
        (lambda c: c.stats(timeout="soon"), "stats has no argument 'timeout': did you mean timeout_s?"),
        (lambda c: c.rebuild_index(timeout_s="soon"), "timeout_s must be a number, not 'soon'"),
    ],
)
def test_a_wrong_name_is_said_with_the_right_one(
    client: Sightline, call: Callable[[Sightline], Any], sentence: str
) -> None:
    assert refused(lambda: call(client)).message.startswith(sentence)


def test_none_is_an_argument_that_is_not_given(client: Sightline) -> None:
    message = sent(lambda: client.search(path="/a", top_k=None, trusted_only=None, threshold=None, where=None))

    assert (message["top_k"], message["trusted_only"], message["threshold"]) == (5, False, None)


def test_ids_may_come_from_a_generator(client: Sightline) -> None:
    assert sent(lambda: client.remove(number for number in (1, 2)))["photo_ids"] == [1, 2]
    assert sent(lambda: client.purge(iter(np.array([1, 2]))))["photo_ids"] == [1, 2]


# ---------------------------------------------------------------------------------------------- lists


GOOD = NewPhoto("good", Photo(path="/good.jpg"), 1.0, 2.0, contract.Provenance.SURVEYED)


def listed(client: Sightline, monkeypatch: pytest.MonkeyPatch, items: Any) -> tuple[list[Any], list[Refused]]:
    """(items that are sent, outcomes without being sent)."""
    messages: list[dict[str, Any]] = []

    class Answered:
        def wait_rest(self, left_s: float, patience_s: float) -> list[contract.Stored]:
            return [contract.Stored(item["ref"], 1, 1, "") for item in reversed(messages[-1]["photos"])]

    def send(name: Any, queue: Any, request: contract.Request, *rest: Any, **more: Any) -> Any:
        with pytest.raises(Sent) as caught:
            Speaking._send(client, name, queue, request)  # type: ignore[arg-type]  # as the client that it is
        messages.append(caught.value.message)
        return Answered()

    monkeypatch.setattr(client, "_send", send)
    outcomes = client.add_many(items)
    return [item for message in messages for item in message["photos"]], outcomes  # type: ignore[return-value]


def bad(ref: Any, **fields: Any) -> NewPhoto:
    return NewPhoto(**{"ref": ref, "photo": Photo(path="/a.jpg"), **fields})


#: Items that no message can carry, the ref of their outcome, and what the sentence names.
BAD_ITEMS: list[tuple[Any, str, str]] = [
    (bad("far", lat=91, lon=0, provenance="surveyed"), "far", "latitude 91"),
    (bad("half", lat=5), "half", "lat and lon"),
    (bad("text", lat="51,5", lon=0, provenance="surveyed"), "text", "lat"),
    (bad("nowhere", lat=1.0, lon=2.0), "nowhere", "provenance"),
    (bad("method", lat=1.0, lon=2.0, provenance="gps"), "method", "provenance"),
    (bad("photo", photo="/a.jpg"), "photo", "photo"),
    (bad("none", photo=None), "none", "photo"),
    (bad("two", photo=Photo(path="/a", url="https://a")), "two", "one of photo_id, path"),
    (bad("nothing", photo=Photo()), "nothing", "one of photo_id, path"),
    (bad("uuid", photo=Photo(photo_id=ID)), "uuid", "photo_id"),  # type: ignore[arg-type]
    (bad("empty", photo=Photo(path="")), "empty", "path"),
    (bad("nul", photo=Photo(path="a\0b")), "nul", "path"),
    (bad("meta", metadata={"a": {"b": object()}}), "meta", "metadata.a.b"),
    (bad("address", address="Lund"), "address", "address"),
    (bad("flag", update_row="yes"), "flag", "update_row"),
    (bad("\ud800.jpg"), "\\ud800.jpg", "ref"),
    (bad(""), "item 1", "ref"),
    (bad(object()), "item 1", "ref"),
    (bad(None), "item 1", "ref"),
    ({"ref": "a"}, "item 1", "NewPhoto"),
    (None, "item 1", "NewPhoto"),
    (EmbedItem("a", Photo(path="/a")), "item 1", "NewPhoto"),
    (Hostile(), "item 1", "NewPhoto"),
]


@pytest.mark.parametrize(("item", "ref", "named"), BAD_ITEMS, ids=range(len(BAD_ITEMS)))
def test_a_bad_item_is_refused_under_its_ref_and_its_neighbours_are_sent(
    client: Sightline, monkeypatch: pytest.MonkeyPatch, item: Any, ref: str, named: str
) -> None:
    last = NewPhoto("last", Photo(path="/last.jpg"))

    gone, outcomes = listed(client, monkeypatch, (each for each in (GOOD, item, last)))

    assert [outcome.ref for outcome in outcomes] == ["good", ref, "last"]
    assert [sent_item["ref"] for sent_item in gone] == ["good", "last"]
    assert isinstance(outcomes[1], Refused)
    assert named in outcomes[1].message


def test_odd_values_of_an_item_are_taken_as_those_of_a_call(client: Sightline, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [
        NewPhoto(7, Photo(photo_id=np.int64(7)), np.float32(51.5), "2.5", "exif_gps"),  # type: ignore[arg-type]
        NewPhoto(Path("b.jpg"), Photo(path=Path("/b.jpg")), metadata={"taken": DAY}),  # type: ignore[arg-type]
        NewPhoto(ID, Photo.of_bytes(io.BytesIO(JPEG)), update_row=np.bool_(False)),  # type: ignore[arg-type]
    ]

    gone, _ = listed(client, monkeypatch, items)

    assert [item["ref"] for item in gone] == ["7", "b.jpg", str(ID)]
    assert (gone[0]["photo"]["photo_id"], gone[0]["lat"], gone[0]["lon"]) == (7, 51.5, 2.5)
    assert gone[0]["provenance"] == "exif_gps"
    assert gone[1]["photo"]["path"] == "/b.jpg"
    assert gone[1]["metadata"] == {"taken": DAY.isoformat()}
    assert gone[2]["photo"]["inline"] == Photo.of_bytes(JPEG).inline
    assert gone[2]["update_row"] is False


def test_a_message_of_refused_items_alone_is_not_sent(client: Sightline, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[int, int]] = []
    monkeypatch.setattr(client, "_send", lambda *_: pytest.fail("nothing is to be sent"))

    outcomes = client.add_many([bad(f"{n}", lat=91, lon=0) for n in range(70)], progress=lambda *at: done.append(at))

    assert [outcome.ref for outcome in outcomes] == [f"{n}" for n in range(70)]
    assert done == [(64, 70), (70, 70)]


@pytest.mark.parametrize("given_list", [None, 5, "abc", b"abc", {"a": GOOD}, object()])
def test_what_is_no_list_of_photos_is_refused(client: Sightline, given_list: Any) -> None:
    assert "NewPhoto" in refused(lambda: client.add_many(given_list)).message
    assert "EmbedItem" in refused(lambda: client.embed_many(given_list)).message


def test_of_embed_many_too_one_bad_item_is_its_own_matter(client: Sightline) -> None:
    items = [EmbedItem("bad", Photo(photo_id=ID)), EmbedItem("good", Photo(path=Path("/a.jpg")))]  # type: ignore[arg-type]

    message = sent(lambda: client.embed_many(items, return_vectors=np.bool_(True)))  # type: ignore[arg-type]

    assert [item["ref"] for item in message["photos"]] == ["good"]
    assert message["return_vectors"] is True


def test_an_upload_that_is_awaited_first_is_taken(client: Sightline) -> None:
    content = asyncio.run(Upload().read())

    assert photo(sent(lambda: client.embed(content=content)))["photo"]["inline"] == Photo.of_bytes(JPEG).inline


# ---------------------------------------------------------------------------------------- the old class


@pytest.fixture
def service(client: Sightline) -> CLIPSimilarityService:
    made = CLIPSimilarityService(broker_url="redis://127.0.0.1:1/0", strict=True)
    made.close()
    made._client = client
    return made


@pytest.mark.parametrize("path", [5, None, b"a\0b", DAY, Hostile()])
def test_the_old_classes_methods_refuse_by_name_too(service: CLIPSimilarityService, path: Any) -> None:
    assert "path" in refused(lambda: service.find_similar_images(path)).message
    assert "path" in refused(lambda: service.add_image_to_index(path)).message
    assert "path" in refused(lambda: service.encode_image(path)).message
    if path != 5:
        assert "similarity_threshold" in refused(lambda: service.find_similar_images("/a", 5, path)).message
        assert "top_k" in refused(lambda: service.find_similar_images("/a", path)).message
    service.strict = False
    assert service.find_similar_images(path) == []
    assert service.add_image_to_index(path) is False
    assert service.encode_text(path) is None
    assert service.build_index_from_database(5) == 0  # type: ignore[arg-type]  # that is the point


def test_the_old_class_takes_what_the_client_takes(service: CLIPSimilarityService) -> None:
    facts = {"lat": Decimal("51.5"), "lon": "2.5", "taken": DAY, "score": np.float32(0.5)}

    asked = sent(lambda: service.find_similar_images(Path("/a.jpg"), np.int64(3), "0.5"))  # type: ignore[arg-type]
    added = photo(sent(lambda: service.add_image_to_index("/a.jpg", facts)))

    assert (asked["photo"]["path"], asked["top_k"], asked["threshold"]) == ("/a.jpg", 3, 0.5)
    assert (added["lat"], added["lon"]) == (51.5, 2.5)
    assert added["metadata"] == {"taken": DAY.isoformat(), "score": 0.5}
    assert "metadata" in refused(lambda: service.add_image_to_index("/a.jpg", 5)).message  # type: ignore[arg-type]
    assert "lat" in refused(lambda: service.add_image_to_index("/a.jpg", {"lat": "51,5", "lon": 1})).message


def test_rows_with_odd_ids_are_refused_one_by_one(service: CLIPSimilarityService) -> None:
    rows: list[dict[str, Any]] = [
        {"id": np.int64(1), "file_path": Path("/1.jpg")},
        {"id": 2.0, "file_path": "/2.jpg"},
        {"id": ID, "file_path": "/3.jpg"},
        {"id": 4, "file_path": 5},
    ]

    read = [service._new_photo(number, row) for number, row in enumerate(rows)]

    assert [row.photo.to_wire()["photo_id"] for row in read if isinstance(row, NewPhoto)] == [1, 2]
    wrong = [row for row in read if isinstance(row, Refused)]
    assert [row.ref for row in wrong] == [f"photo {ID}", "photo 4"]
    assert ["UUID" in wrong[0].message, "file_path" in wrong[1].message] == [True, True]


# -------------------------------------------------------------------------------------- whatever it is

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.decimals(),
    st.fractions(),
    st.complex_numbers(),
    st.datetimes(),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.sampled_from(
        ["1", "51.5", "exif_gps", "/a.jpg", Path("/a"), object(), object, Hostile(), len, ..., Floor.THIRD]
    ),
    st.sampled_from([np.float32(1), np.int64(1), np.bool_(True), np.array(1), np.datetime64("NaT"), np.zeros((2, 2))]),
    st.sampled_from([io.BytesIO(b"x"), io.StringIO("x"), memoryview(b"x"), Near(1, 2, 3), Photo(path="/a"), GOOD]),
)
anything: st.SearchStrategy[Any] = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers(), st.none(), st.uuids()), inner, max_size=3),
        st.lists(inner, max_size=2).map(iter),
        st.builds(Photo, inner, inner),
        st.builds(Near, inner, inner, inner),
        st.builds(NewPhoto, inner, inner, inner, inner, inner, inner, inner, inner),
    ),
    max_leaves=6,
)
FIELDS: dict[str, list[str]] = {
    "add_to_index": [
        "photo_id",
        "path",
        "url",
        "content",
        "lat",
        "lon",
        "provenance",
        "address",
        "metadata",
        "update_row",
        "durable",
        "timeout_s",
    ],
    "embed": ["photo_id", "path", "url", "content", "return_vector", "timeout_s"],
    "search": [
        "photo_id",
        "path",
        "url",
        "content",
        "text",
        "vector",
        "model_key",
        "top_k",
        "threshold",
        "near",
        "where",
        "min_seq",
        "trusted_only",
        "allow_stale",
        "timeout_s",
    ],
    "locate": ["photo_id", "path", "url", "content", "threshold", "near", "min_seq", "policy", "timeout_s"],
    "remove": ["photo_ids", "timeout_s"],
    "purge": ["photo_ids", "timeout_s"],
    "conflicts": ["photo_ids", "settled", "after_id", "limit", "timeout_s"],
    "confirm": ["photo_ids", "timeout_s"],
    "reject": ["photo_ids", "lat", "lon", "timeout_s"],
    "quarantined": ["contents", "limit", "timeout_s"],
    "release": ["contents", "forget", "timeout_s"],
    "reconcile": ["dry_run", "timeout_s"],
    "embed_text": ["text", "timeout_s"],
    "stats": ["timeout_s"],
    "rebuild_index": ["force", "timeout_s"],
}
NEEDED: dict[str, dict[str, Any]] = {
    "add_to_index": PLACED, "embed": GIVEN, "search": GIVEN, "locate": GIVEN, "remove": {"photo_ids": [1]},
    "purge": {"photo_ids": [1]}, "conflicts": {}, "confirm": {"photo_ids": [1]}, "reject": {"photo_ids": [1]},
    "quarantined": {}, "reconcile": {}, "release": {"contents": [DIGEST]},
    "embed_text": {"text": "a"}, "stats": {}, "rebuild_index": {},
}  # fmt: skip


def test_every_argument_of_every_verb_is_looked_at_here() -> None:
    """A new one must get its way of being made plain."""
    import inspect

    from producer_client.arguments import TAKEN

    for verb, fields in FIELDS.items():
        twin = inspect.signature(getattr(Sightline, f"submit_{verb}"))
        own = inspect.signature(getattr(Sightline, verb))
        names = {name for of in (twin, own) for name, p in of.parameters.items() if p.kind is not p.VAR_KEYWORD}
        assert names - {"self"} == set(fields)
        assert set(fields) <= set(TAKEN)
    for message in (NewPhoto, EmbedItem, Photo):
        assert set(message.__struct_fields__) <= set(TAKEN)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(at=st.sampled_from([(verb, field) for verb, fields in FIELDS.items() for field in fields]), value=anything)
def test_whatever_is_given_is_sent_as_a_valid_message_or_refused_by_name(
    client: Sightline, at: tuple[str, str], value: Any
) -> None:
    verb, field = at
    others = (
        {}
        if field in ("photo_id", "path", "url", "content", "text", "vector") and verb != "embed_text"
        else NEEDED[verb]
    )

    with pytest.raises((Sent, BadRequest)) as caught:
        getattr(client, verb)(**others | {field: value})

    if isinstance(caught.value, BadRequest) and value is not None:
        assert field in caught.value.message or (field in ("lat", "lon") and "itude" in caught.value.message)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(items=st.lists(anything, max_size=4))
def test_whatever_a_list_holds_becomes_a_message_or_its_outcome(client: Sightline, items: list[Any]) -> None:
    outcomes: list[Any] = []
    try:
        outcomes = client.add_many(items)
    except (Sent, BadRequest) as exc:
        outcomes = (
            [Refused("", Code.BAD_REQUEST, "")] * len(items) if isinstance(exc, Sent) or "twice" in str(exc) else []
        )
    assert len(outcomes) == len(items)
    assert all(isinstance(outcome, Refused) for outcome in outcomes)
    for outcome in outcomes:
        Message.to_wire(outcome)
