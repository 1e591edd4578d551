"""Reading and writing: what every message can do, and how plain JSON becomes one. Knows no message but Failure."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Self, TypeVar

from producer_client.errors import BadRequest
from producer_client.words import MAX_JSON_CHARACTERS, VERSION, Code

_Any = TypeVar("_Any")


@dataclass(frozen=True, slots=True)
class Message:
    """Base of everything on the wire."""

    def to_wire(self) -> dict[str, Any]:
        """Plain JSON values; enums as strings, nested messages as objects."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_wire(cls, wire: object) -> Self:
        """Raises BadRequest with `unknown_field` or `bad_request` (or the code of a failed range check)."""
        return read(cls, wire, cls.__name__)


@dataclass(frozen=True, slots=True)
class Failure(Message):
    code: Code
    message: str


def ok(reply: Message) -> dict[str, Any]:
    """The envelope of a reply that carries something."""
    return {"v": VERSION, "ok": True, "reply": reply.to_wire()}


def failed(code: Code, message: str) -> dict[str, Any]:
    """The envelope of a reply that carries a code and a sentence."""
    return {"v": VERSION, "ok": False, "error": Failure(code, message).to_wire()}


def check_text(name: str, value: str | None) -> None:
    """Postgres and file systems take no NUL, and nothing takes half a surrogate pair."""
    if value is not None and ("\0" in value or any("\ud800" <= c <= "\udfff" for c in value)):
        raise BadRequest(Code.BAD_REQUEST, f"{name} contains a NUL or a broken character")


def check_json(name: str, value: dict[str, Any] | None) -> None:
    if value is None:
        return
    try:
        written = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError) as exc:
        raise BadRequest(Code.BAD_REQUEST, f"{name} is not JSON: {exc}") from exc
    if len(written) > MAX_JSON_CHARACTERS:
        raise BadRequest(Code.BAD_REQUEST, f"{name} has {len(written)} characters, the limit is {MAX_JSON_CHARACTERS}")
    # Pairs of backslashes first: they are written ones, and what follows them is text.
    check_text(name, written.replace("\\\\", "").replace("\\u0000", "\0"))


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return value.to_wire()
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def read(cls: type[_Any], wire: object, where: str) -> _Any:
    """Read one dataclass from plain JSON, by its own type hints."""
    if not isinstance(wire, dict):
        raise BadRequest(Code.BAD_REQUEST, f"{where} must be an object, not {_kind(wire)}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]  # every cls here is a dataclass
    for name in wire:
        if name not in fields:
            raise BadRequest(Code.UNKNOWN_FIELD, f"{where} has no field {name!r}; it has {', '.join(fields)}")
    hints = _hints(cls)  # type: ignore[arg-type]  # a class is hashable
    values = {name: _value(hints[name], wire[name], f"{where}.{name}") for name in wire}
    for name, f in fields.items():
        optional = f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        if name not in values and not optional:
            raise BadRequest(Code.BAD_REQUEST, f"{where} lacks {name!r}")
    return cls(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _union(arguments, value, where)
    if origin is list and isinstance(value, list):
        return [_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return value
    if isinstance(hint, type):
        if issubclass(hint, Message):
            return read(hint, value, where)
        if issubclass(hint, StrEnum) and isinstance(value, str):
            if value not in set(hint):
                raise BadRequest(Code.BAD_REQUEST, f"{where}: {value!r} is not one of {', '.join(hint)}")
            return hint(value)
        if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
            return _float(value, where)
        if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
            return value
    wanted = getattr(hint, "__name__", None) or str(hint)
    raise BadRequest(Code.BAD_REQUEST, f"{where} must be {wanted}, not {_kind(value)}")


def _float(value: float, where: str) -> float:
    try:
        return float(value)
    except OverflowError as exc:
        raise BadRequest(Code.BAD_REQUEST, f"{where} is a whole number too large for a float") from exc


def _union(members: tuple[Any, ...], value: Any, where: str) -> Any:
    """`X | None`, or outcomes that tell themselves apart by `status`."""
    if value is None and type(None) in members:
        return None
    members = tuple(m for m in members if m is not type(None))
    if len(members) > 1 and isinstance(value, dict):
        by_status = {m.__dataclass_fields__["status"].default: m for m in members}
        status = value.get("status")
        if not isinstance(status, str) or status not in by_status:
            raise BadRequest(Code.BAD_REQUEST, f"{where}.status: {status!r} is not one of {', '.join(by_status)}")
        members = (by_status[status],)
    return _value(members[0], value, where)


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        int: "a whole number",
        float: "a number",
        bool: "a boolean",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)
