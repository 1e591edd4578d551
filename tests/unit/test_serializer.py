"""JSON as it is: whatever a message, a reply or a row has in it comes back as it was."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.exceptions import DecodeError
from kombu.serialization import dumps, loads

from producer_client import serializer

LOOKS_LIKE_KOMBUS = [
    {"a": {"__type__": "thing", "__value__": 1}},
    {"__type__": "datetime", "__value__": "2026-11-28T10:00:00"},
    {"__type__": "uuid", "__value__": {"hex": "no"}},
    {"__type__": "bytes", "__value__": "text"},
]
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


def there_and_back(value: Any) -> Any:
    """As kombu does it, which keeps the content type beside what is written."""
    serializer.register()
    content_type, encoding, written = dumps(value, serializer=serializer.NAME)
    return loads(written, content_type, encoding, accept={content_type})


@pytest.mark.parametrize("value", LOOKS_LIKE_KOMBUS)
def test_what_looks_like_kombus_types_comes_back_as_it_was(value: Any) -> None:
    assert there_and_back(value) == value
    with_kombu = dumps(value, serializer="json")
    assert serializer.decode(with_kombu[2]) == value, "as earlier clients and other Celery applications write it"


@given(PLAIN)
def test_json_comes_back_as_it_was(value: Any) -> None:
    assert there_and_back(value) == value


def test_a_cyrillic_letter_takes_two_bytes() -> None:
    assert len(serializer.encode("Дания" * 10).encode()) == 2 * 50 + 2


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('{"a": 1, "a": 2}', {"a": 2}),
        ("[1e400, -1e400]", [math.inf, -math.inf]),
        ("[Infinity]", [math.inf]),
        ("18446744073709551616", 2**64),
        ("[1" + 300 * "0" + "]", [10**300]),
        (r'"\u0000"', "\0"),
        (r'"\ud83d\ude00"', "😀"),
        (r'"\ud800"', "\ud800"),
        ('"\N{CYRILLIC SMALL LETTER A}"', "а"),
    ],
)
def test_what_others_write_is_read(written: str, value: Any) -> None:
    """It is for the contract to refuse a field by its name; a message that cannot be read gets no answer at all."""
    for given_as in (written, written.encode(), memoryview(written.encode())):
        assert serializer.decode(given_as) == value


def test_not_a_number_is_read_too() -> None:
    assert math.isnan(serializer.decode(b"NaN"))


@pytest.mark.parametrize("written", [b"{", b"\xff", b"\x80\x04", b"{'a': 1}", b'"a', b"[1,]"])
def test_what_is_no_json_is_an_error(written: bytes) -> None:
    serializer.register()
    with pytest.raises(DecodeError):
        loads(written, serializer.CONTENT_TYPE, "utf-8")


def test_what_is_not_finite_is_written_as_null() -> None:
    assert serializer.encode([math.nan, math.inf, 1.5]) == "[null,null,1.5]"


def test_subclasses_of_plain_values_are_written_as_these() -> None:
    class Degrees(float):
        pass

    class Name(str):
        pass

    assert json.loads(serializer.encode({"a": [Degrees(1.5), Name("Д")], "b": (2**70, None)})) == {
        "a": [1.5, "Д"],
        "b": [2**70, None],
    }


def test_half_a_surrogate_pair_comes_back() -> None:
    assert there_and_back({"name": "a\ud800"}) == {"name": "a\ud800"}
