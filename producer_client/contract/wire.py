"""Reading and writing: what every message can do, and how plain JSON becomes one. Knows no message but Failure."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Any, Self, TypeVar

import msgspec

from producer_client.errors import BadRequest, quoted, short
from producer_client.words import (
    MAX_JSON_CHARACTERS,
    MAX_JSON_DEPTH,
    VERSION,
    Code,
    ConfidenceKind,
    ConflictState,
    Doubt,
    Mistake,
    Policy,
    PositionFrom,
    PositionIssue,
    Provenance,
    Reason,
)

_M = TypeVar("_M", bound="Message")

#: What a field of this name may say; tests hold that it is called like the class of its words. Those of replies alone
#: may be of a later release.
_WORDS: dict[str, type[StrEnum]] = {
    "code": Code,
    "conflict_state": ConflictState,
    "doubt": Doubt,
    "mistake": Mistake,
    "confidence_kind": ConfidenceKind,
    "policy": Policy,
    "position_from": PositionFrom,
    "position_issue": PositionIssue,
    "provenance": Provenance,
    "reason": Reason,
}
#: msgspec's names of JSON's kinds in words for people.
_KINDS = {
    "object": "an object",
    "array": "a list",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "a boolean",
}
_SURROGATES = re.compile("[\ud800-\udfff]")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of everything on the wire. What a backend sends is read strictly: a field that a worker does not know would
    be something that it does not do."""

    def to_wire(self) -> dict[str, Any]:
        """Plain JSON values; enums as strings, nested messages as objects."""
        return {name: _plain(getattr(self, name)) for name in self.__struct_fields__}

    def check(self) -> None:
        """Raises BadRequest for what types alone do not say. What is read is checked; what callers make, like a
        NewPhoto, where it is sent: one bad item of a list must not raise while the list is made."""

    @classmethod
    def from_wire(cls, wire: object) -> Self:
        """Raises BadRequest with `unknown_field` or `bad_request` (or the code of a failed range check)."""
        return read(cls, wire, cls.__name__)


class Reply(Message, frozen=True, forbid_unknown_fields=False):
    """Base of what workers answer. Fields of a later release are passed over, so that workers are updated first and
    clients when it suits them. A new field needs a default, for the replies of workers before it."""


class Outcome(Reply, frozen=True, tag=str.lower, tag_field="status"):
    """Base of what became of one photo. On the wire `status` tells them apart: it is the class's name."""

    @property
    def status(self) -> str:
        return str(self.__struct_config__.tag)

    def to_wire(self) -> dict[str, Any]:
        return {**super().to_wire(), "status": self.status}


class Failure(Reply, frozen=True):
    """`seq`, with `stale`: where the log ends. What the caller has seen beyond it is not there any more."""

    code: Code
    message: str
    seq: int | None = None


def ok(reply: Message) -> dict[str, Any]:
    """The envelope of a reply that carries something."""
    return {"v": VERSION, "ok": True, "reply": reply.to_wire()}


def failed(code: Code, message: str, seq: int | None = None) -> dict[str, Any]:
    """The envelope of a reply that carries a code and a sentence."""
    error = Failure(code, short(message), seq).to_wire()
    return {"v": VERSION, "ok": False, "error": {name: value for name, value in error.items() if value is not None}}


def without_nothing(wire: dict[str, Any], *names: str) -> dict[str, Any]:
    """A message on the wire, without the fields of these names that say nothing."""
    return {name: value for name, value in wire.items() if name not in names or value not in (None, {}, [])}


def read(cls: type[_M], wire: object, where: str) -> _M:
    """Read one message strictly. where: what a refusal calls it. Raises BadRequest."""
    try:
        found = msgspec.convert(wire, cls)
        found.check()
        return found
    except (msgspec.ValidationError, BadRequest) as exc:
        raise _refusal(cls, wire, where, exc) from exc
    except UnicodeEncodeError:
        # msgspec cannot quote half a surrogate pair, and finds the same fault with another character in its place.
        return read(cls, json.loads(json.dumps(wire, ensure_ascii=False).encode(errors="replace")), where)


def check_text(name: str, value: str | None) -> None:
    """Postgres and file systems take no NUL, and nothing takes half a surrogate pair."""
    if value is not None and ("\0" in value or not (value.isascii() or _SURROGATES.search(value) is None)):
        raise BadRequest(Code.BAD_REQUEST, f"{name} contains a NUL or a broken character")


def check_json(name: str, value: dict[str, Any] | None) -> None:
    """Raises BadRequest unless it is JSON of a bearable size and depth whose texts can be kept."""
    if value is None or _is_fine_json(value):
        return
    written = _bearable(name, value)
    # Pairs of backslashes first: they are written ones, and what follows them is text.
    check_text(name, written.replace("\\\\", "").replace("\\u0000", "\0"))


def is_bearable(value: Any) -> bool:
    """Whether a reply can carry what others have written: JSON within the limits of what they may send."""
    try:
        return _is_fine_json(value) or bool(_bearable("it", value))
    except BadRequest:
        return False


def _bearable(name: str, value: Any) -> str:
    """As JSON. Raises BadRequest."""
    too_deep = f"{name} is nested more than {MAX_JSON_DEPTH} deep"
    try:
        written = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except RecursionError as exc:
        raise BadRequest(Code.BAD_REQUEST, too_deep) from exc
    except (ValueError, TypeError) as exc:
        raise BadRequest(Code.BAD_REQUEST, f"{name} is not JSON: {exc}") from exc
    if len(written) > MAX_JSON_CHARACTERS:
        raise BadRequest(Code.BAD_REQUEST, f"{name} has {len(written)} characters, the limit is {MAX_JSON_CHARACTERS}")
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        nested = [outer for outer in level if isinstance(outer, dict | list | tuple)]
        level = [inner for outer in nested for inner in (outer.values() if isinstance(outer, dict) else outer)]
    if any(isinstance(inner, dict | list | tuple) for inner in level):
        raise BadRequest(Code.BAD_REQUEST, too_deep)
    return written


def _is_fine_json(value: Any) -> bool:
    """A quick yes for what nearly everybody sends, in a quarter of the time. No means: look closely.

    msgspec writes more than JSON (dates, sets, NaN as null), but only JSON comes back equal. It takes no half of a
    surrogate pair. json.dumps writes a space more at every comma and colon: less than twice as much.
    """
    try:
        written = _encode(value)
        return (
            2 * len(written) <= MAX_JSON_CHARACTERS
            # As deep as there are brackets at the most.
            and written.count(b"{") + written.count(b"[") <= MAX_JSON_DEPTH
            and b"\\u0000" not in written
            and bool(_decode(written) == value)
        )
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return False


def _plain(value: Any) -> Any:
    # Not msgspec.to_builtins, which refuses a subclass of float or str, as numpy's: callers give them as coordinates.
    if isinstance(value, Message):
        return value.to_wire()
    if isinstance(value, StrEnum):
        return value.value
    if type(value) is list and all(type(item) is float for item in value):
        return value  # a vector
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _refusal(cls: type[Message], wire: object, where: str, exc: msgspec.ValidationError | BadRequest) -> BadRequest:
    """The fault by its code and in a sentence. A field that the message does not have is said before all others."""
    known = [*cls.__struct_fields__, *filter(None, [cls.__struct_config__.tag_field])]
    unknown = [name for name in wire if name not in known] if isinstance(wire, dict) else []
    if unknown and not issubclass(cls, Reply):
        return BadRequest(Code.UNKNOWN_FIELD, f"{where} has no field {quoted(unknown[0])}; it has {', '.join(known)}")
    if isinstance(exc, BadRequest):
        return exc
    located = re.fullmatch(r"(.*) - at `\$([^`]*)`", str(exc), re.DOTALL)
    fault, path = located.groups() if located else (str(exc), "")
    place = where + path
    if found := re.fullmatch("Object contains unknown field `(.*)`", fault, re.DOTALL):
        return BadRequest(Code.UNKNOWN_FIELD, f"{place} has no field {quoted(found[1])}")
    return BadRequest(Code.BAD_REQUEST, _sentence(fault, place))


def _sentence(fault: str, place: str) -> str:
    """What msgspec says of a value, in our words. Tests hold what it may say; its minor version is pinned."""
    if found := re.fullmatch("Object missing required field `(.*)`", fault):
        return f"{place} lacks {quoted(found[1])}"
    if found := re.fullmatch("Expected `(.*)`, got `(.*)`", fault):
        wanted = " or ".join(_KINDS.get(kind, kind) for kind in found[1].split(" | "))
        return f"{place} must be {wanted}, not {_KINDS.get(found[2], found[2])}"
    if found := re.fullmatch("Invalid enum value (.*)", fault):
        return f"{place}: {found[1]} is not one of {', '.join(_WORDS[place.rpartition('.')[2]])}"
    return f"{place}: {fault[0].lower()}{fault[1:]}"
