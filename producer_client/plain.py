"""What callers give, as the plain values that messages hold: numbers of any library, paths, dates; or a sentence.

Every function takes the name of an argument and its value, and raises BadRequest beginning with the name. It knows no
message and no verb, and imports nobody's types of numbers: it asks for `__index__` and `__float__`.
"""

from __future__ import annotations

import base64
import inspect
import io
import math
import numbers
import operator
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Set
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from itertools import islice
from typing import Any, Never
from uuid import UUID

from producer_client.errors import BadRequest, quoted
from producer_client.words import MAX_PHOTOS_PER_MESSAGE, Code

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
#: Characters of a value that a sentence repeats.
_SHOWN = 60
#: Numbers in a vector at the most; the largest models have some thousands.
_LONGEST_VECTOR = 65_536
#: Up to here every whole number is a float.
_EXACT_FLOAT = 2**53
_SEQUENCES = (list, tuple, deque, range)


def number(name: str, value: object, code: Code = Code.BAD_REQUEST) -> float:
    """A finite number: any library's, a Decimal, or text with a decimal point. A boolean is none."""
    wanted = f"{name} must be a number"
    if isinstance(value, str):
        value = _number_in(wanted, value, code)
    if not _is_number(value):
        _refuse(f"{wanted}, not {shown(value)}", code)
    try:
        found = float(value)  # type: ignore[arg-type]  # it is asked right here
    except Exception as exc:  # others' code: a type of numbers, which raises what it likes; the value is refused
        raise BadRequest(code, f"{wanted}, not {shown(value)}: {type(exc).__name__}") from exc
    if not math.isfinite(found):
        _refuse(f"{wanted}, not {found}", code)
    return found


def whole(name: str, value: object) -> int:
    """A whole number of 64 bits: also 5.0, as tables with gaps hold their ids, and text."""
    wanted = f"{name} must be a whole number"
    if isinstance(value, UUID):
        _refuse(f"{wanted}, not a UUID. A photos table with such keys needs a view with whole numbers (see the README)")
    if isinstance(value, str):
        value = _number_in(wanted, value)
    if not _is_number(value):
        _refuse(f"{wanted}, not {shown(value)}")
    indexed = hasattr(type(value), "__index__")
    try:
        given = operator.index(value) if indexed else value  # type: ignore[arg-type]  # it is asked right here
        # The bounds first: a Decimal may have a million digits.
        if not abs(given) < 2**63:  # type: ignore[arg-type]  # as above
            _refuse(f"{wanted} of 64 bits, not {shown(value)}")
        found = int(given)  # type: ignore[call-overload]  # as above
        if found != given or not (indexed or isinstance(given, Decimal) or abs(found) <= _EXACT_FLOAT):
            _refuse(f"{wanted}, not {shown(value)}")
    except BadRequest:
        raise
    except Exception as exc:  # others' code: a type of numbers, which raises what it likes; the value is refused
        raise BadRequest(Code.BAD_REQUEST, f"{wanted}, not {shown(value)}: {type(exc).__name__}") from exc
    return int(found)


def flag(name: str, value: object) -> bool:
    """True or false: a boolean of any library, or 0 and 1."""
    if isinstance(value, bool):
        return value
    given = (_is_number(value) or _dtype(value) == "bool") and not getattr(value, "ndim", 0)
    try:
        given = given and value in (0, 1)
    except Exception:  # others' code: a type of numbers, which raises what it likes; the value is refused  # noqa: BLE001
        given = False
    if given:
        return bool(value)
    _refuse(f"{name} must be true or false, not {shown(value)}")


def text(name: str, value: object) -> str:
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, str):
        _refuse(f"{name} must be text, not {shown(value)}")
    return str.__str__(value)


def label(name: str, value: object) -> str:
    """A name that a caller gives: text, or what is plainly written as one."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, os.PathLike):
        return path(name, value)
    if not isinstance(value, Enum) and hasattr(type(value), "__index__"):
        return str(whole(name, value))
    return text(name, value)


def path(name: str, value: object) -> str:
    try:
        return os.fsdecode(value)  # type: ignore[arg-type]  # it is asked right here
    except Exception as exc:  # others' code: __fspath__ of any type, which raises what it likes; the value is refused
        raise BadRequest(Code.BAD_REQUEST, f"{name} must be a path as text or Path, not {shown(value)}") from exc


def content(name: str, value: object) -> bytes:
    """The bytes of a file: bytes, a buffer of bytes, or a file that is open for reading them, which is read."""
    wanted = f"{name} must be the bytes of a photo's file, or a file open for reading them"
    if isinstance(value, str):
        _refuse(f"{wanted}, not text; a path is given as path=")
    try:
        if isinstance(value, io.BytesIO):
            value = value.getvalue()
        elif callable(read := getattr(value, "read", None)):
            value = read()
            if inspect.iscoroutine(value):
                value.close()
                _refuse(f"{wanted}; this one is to be awaited: give `await file.read()`")
        buffer = memoryview(value)  # type: ignore[arg-type]  # it is asked right here
    except BadRequest:
        raise
    except Exception as exc:  # others' code: a file of any type, which raises what it likes; the value is refused
        raise BadRequest(Code.BAD_REQUEST, f"{wanted}, not {shown(value)}") from exc
    if buffer.ndim != 1 or buffer.itemsize != 1:
        _refuse(f"{wanted}, not an array of pixels")
    if not buffer.nbytes:
        _refuse(f"{name} is empty. Has the file been read to its end before?")
    return buffer.tobytes()


def inline(name: str, value: object) -> str:
    """Base64; of bytes it is made (see `Photo.of_bytes`)."""
    return value if isinstance(value, str) else base64.b64encode(content(name, value)).decode("ascii")


def vector(name: str, value: object) -> list[float]:
    """Numbers in their order: a list, an array or tensor, also one of a single row."""
    wanted = f"{name} must be a list of numbers"
    items = _items(name, value, _LONGEST_VECTOR)
    if items is None or isinstance(value, Set):
        _refuse(f"{wanted}, not {shown(value)}", Code.BAD_VECTOR)
    if len(items) == 1 and isinstance(items[0], list):
        items = items[0]
    if len(items) > _LONGEST_VECTOR:
        _refuse(f"{wanted}, {_LONGEST_VECTOR} at the most", Code.BAD_VECTOR)
    # What nearly everybody sends, in a fiftieth of the time.
    if all(type(item) is float for item in items) and all(map(math.isfinite, items)):
        return list(items)
    return [number(f"{name}[{i}]", item, Code.BAD_VECTOR) for i, item in enumerate(items)]


def ids(name: str, value: object) -> list[int]:
    """One id, or any collection of them."""
    items = None if isinstance(value, str | UUID) else _items(name, value, MAX_PHOTOS_PER_MESSAGE)
    if items is None:
        return [whole(name, value)]
    if len(items) > MAX_PHOTOS_PER_MESSAGE:
        _refuse(f"more than {MAX_PHOTOS_PER_MESSAGE} {name} in one message")
    return [whole(f"{name}[{i}]", item) for i, item in enumerate(items)]


def texts(name: str, value: object) -> list[str]:
    """One text, or any collection of them."""
    items = _items(name, value, MAX_PHOTOS_PER_MESSAGE)
    if items is None:
        return [text(name, value)]
    if len(items) > MAX_PHOTOS_PER_MESSAGE:
        _refuse(f"more than {MAX_PHOTOS_PER_MESSAGE} {name} in one message")
    return [text(f"{name}[{i}]", item) for i, item in enumerate(items)]


def json_object(name: str, value: object, otherwise: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """A mapping as JSON has it: dates as ISO text, UUIDs and paths as text, Decimals and others' numbers as numbers.

    otherwise: makes text or the like of what has no plain form, which is refused by its place unless given.
    """
    if not isinstance(value, Mapping):
        _refuse(f"{name} must be a mapping of names to values, not {shown(value)}")
    try:
        made: dict[str, Any] = _json(name, value, otherwise)
    except BadRequest:
        raise
    except RecursionError as exc:
        raise BadRequest(Code.BAD_REQUEST, f"{name} is nested too deep, or in itself") from exc
    except Exception as exc:  # others' code: a mapping of any type, which raises what it likes; the value is refused
        raise BadRequest(Code.BAD_REQUEST, f"{name} cannot be read: {type(exc).__name__}") from exc
    return made


def shown(value: object) -> str:
    """A value as a sentence repeats it: short, and of what may be long or odd its type alone."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"one of {value.bit_length()} bits"
    if value is None or type(value) in (str, int, float, bool, complex, Decimal, UUID, datetime, date):
        written = quoted(value[: _SHOWN + 1]) if isinstance(value, str) else repr(value)
        return written if len(written) <= _SHOWN + 2 else f"{written[:_SHOWN]}…"
    return f"of type {type(value).__name__}"


# ---------------------------------------------------------------------------------------------- below


def _number_in(wanted: str, given: str, code: Code = Code.BAD_REQUEST) -> Decimal:
    stripped = given.strip()
    if _NUMBER.fullmatch(stripped):
        return Decimal(stripped)
    if _COMMA.fullmatch(stripped):
        _refuse(f"{wanted}, not {shown(given)}: write it with a point", code)
    _refuse(f"{wanted}, not {shown(given)}", code)


def _dtype(value: object) -> str:
    """What numpy, torch and the like call the kind of a value's numbers; nothing where it has none."""
    return "".join(filter(str.isalpha, str(getattr(value, "dtype", "")).rpartition(".")[2]))


def _is_number(value: object) -> bool:
    """Whether it is one, and neither a boolean, a time, nor an array of them."""
    try:
        # numpy gives dates and booleans `__float__`, too, and drops what complex numbers have beside it.
        if isinstance(value, bool) or (isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real)):
            return False
        if (kind := _dtype(value)) and not ("int" in kind or "float" in kind):
            return False
        return not getattr(value, "ndim", 0) and any(hasattr(type(value), of) for of in ("__index__", "__float__"))
    except Exception:  # others' code: attributes, which raise what they like; the value is no number  # noqa: BLE001
        return False


def _items(name: str, value: object, most: int) -> list[Any] | None:
    """What a collection holds, one more than `most` at the most; None of what is none: a number, a text, a mapping."""
    if isinstance(value, str | bytes | bytearray | memoryview | Mapping) or not isinstance(value, Iterable):
        return None
    try:
        if getattr(value, "ndim", 1) == 0:
            return None
        if callable(tolist := getattr(value, "tolist", None)):
            listed = tolist()
            return listed if isinstance(listed, list) else None
        return list(islice(value, most + 1))
    except Exception as exc:  # others' code: an iterator, which raises what it likes; the argument is refused
        raise BadRequest(Code.BAD_REQUEST, f"{name} cannot be gone through: {type(exc).__name__}") from exc


def _json(name: str, value: Any, otherwise: Callable[[Any], Any] | None) -> Any:
    if value is None or type(value) in (bool, str, int):
        return value
    if isinstance(value, Enum):
        return _json(name, value.value, otherwise)
    if isinstance(value, Mapping):
        made: dict[str, Any] = {}
        for key, item in value.items():
            plain = _key(name, key)
            if plain in made:
                _refuse(f"{name} has {shown(plain)} twice, as a text and as something else")
            made[plain] = _json(f"{name}.{plain}", item, otherwise)
        return made
    if isinstance(value, Set):
        value = sorted(value, key=str)
    if isinstance(value, _SEQUENCES):
        return [_json(f"{name}[{i}]", item, otherwise) for i, item in enumerate(value)]
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, os.PathLike):
        return path(name, value)
    if isinstance(value, date | time) and value == value:  # pandas' NaT is a datetime that is not itself
        return value.isoformat()
    if _dtype(value) == "bool" and not getattr(value, "ndim", 0):
        return bool(value)
    if _is_number(value):
        exact = hasattr(type(value), "__index__") or (isinstance(value, Decimal) and value.as_tuple().exponent == 0)
        return int(value) if exact else number(name, value)
    if _dtype(value) and (items := _items(name, value, 0)) is not None:
        return _json(name, items, otherwise)
    if otherwise is not None:
        return otherwise(value)
    _refuse(f"{name} is {shown(value)}, which JSON has no plain form of")


def _key(name: str, key: object) -> str:
    if isinstance(key, str | UUID | Enum) or (_is_number(key) and hasattr(type(key), "__index__")):
        return label(f"a name in {name}", key.value if isinstance(key, Enum) else key)
    _refuse(f"names in {name} must be text, not {shown(key)}")


def _refuse(message: str, code: Code = Code.BAD_REQUEST) -> Never:
    raise BadRequest(code, message)
