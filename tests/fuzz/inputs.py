"""What fuzzing begins with, for Hypothesis: photos of a small corpus that are changed, and nearly good messages."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.contract.test_contract import strategies as of_messages
from tests.zoo.messages import NOTHING_FOLLOWS, item

CORPUS = {path.name: path.read_bytes() for path in sorted((Path(__file__).parents[1] / "corpus").iterdir())}
#: Where lengths, counts and offsets end.
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@st.composite
def changed(draw: st.DrawFn, sources: tuple[bytes, ...]) -> bytes:
    """One of these, changed in up to five places: bytes and numbers replaced, pieces cut out, doubled, or taken from
    another of them."""
    content = bytearray(draw(st.sampled_from(sources)))
    for _ in range(draw(st.integers(1, 5))):
        # Most of what decides lies at the beginning.
        at = draw(st.integers(0, min(len(content), 300)) | st.integers(0, len(content)))
        length = draw(st.integers(0, 64))
        match draw(st.sampled_from(("byte", "number", "cut", "end", "double", "other", "new"))):
            case "byte":
                content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "number":
                form = draw(st.sampled_from((">H", "<H", ">I", "<I")))
                number = struct.pack(form, draw(st.sampled_from(EDGES)) & (2 ** (8 * struct.calcsize(form)) - 1))
                content[at : at + len(number)] = number
            case "cut":
                del content[at : at + length]
            case "end":
                del content[max(at, 1) :]
            case "double":
                content[at:at] = content[at : at + length]
            case "other":
                other = draw(st.sampled_from(sources))
                content[at : at + length] = other[at : at + length]
            case "new":
                content[at:at] = draw(st.binary(max_size=64))
    return bytes(content)


photos = st.binary(max_size=200) | changed(tuple(CORPUS.values()))

names = st.sampled_from(
    sorted({name for cls in of_messages for name in cls.__struct_fields__} | {"v", "status", "__type__", "__value__"})
)
odd_numbers = st.sampled_from([-1, 0, 2**31, 2**63, 2**64, 10**400, 1e308, -0.0, float("nan"), float("inf"), 91, 181])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | odd_numbers | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def structures(draw: st.DrawFn) -> Any:
    """A good message as plain values, of which up to three have been replaced, taken away or added."""
    wire = json.loads(json.dumps(draw(st.one_of(*of_messages.values())).to_wire()))
    for _ in range(draw(st.integers(0, 3))):
        places = list(_places(wire))
        if not places:
            return draw(values)
        within, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(("replace", "take", "add"))):
            case "replace":
                within[key] = draw(values)
            case "take":
                del within[key]
            case "add" if isinstance(within, dict):
                within[draw(names)] = draw(values)
            case "add":
                within.append(draw(values))
    return wire


def _places(value: Any) -> Any:
    """Every container within, and what it holds by."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


#: As items of a queue and as bodies: some well made, some changed by a few bytes.
WRITTEN = (
    item([[{"v": 1, "photos": [{"ref": "a", "photo": {"path": "a.jpg"}}]}], {}, NOTHING_FOLLOWS]),
    item([[{"v": 1}], {}, NOTHING_FOLLOWS], retries=3, eta="2026-11-29T12:00:00+00:00", compression="gzip"),
    json.dumps({"v": 1, "photo": {"photo_id": 7, "path": "ä\u0000.jpg"}, "near": {"lat": 1, "lon": 2.5e1}}).encode(),
    json.dumps({"v": 1, "ok": False, "error": {"code": "stale", "message": "later", "seq": 7}}).encode(),
)
texts: st.SearchStrategy[bytes] = st.one_of(
    st.binary(max_size=100),
    changed(WRITTEN),
    structures().map(lambda value: json.dumps(value).encode()),
)

#: Well made items, with odd headers and bodies.
headers = st.dictionaries(
    st.sampled_from(
        ["task", "id", "retries", "eta", "compression", "content_type", "tag", "reply_to", "body_encoding"]
    ),
    values.filter(bool),
    max_size=2,
)
items = st.builds(lambda body, said: item(body, **said), structures(), headers)

#: By the name of a target: what it is given.
BY_TARGET: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "item": (texts, items),
    "message": (texts,),
    "structure": (structures(), values),
    "photo": (photos,),
}
Target = Callable[[Any], str]
