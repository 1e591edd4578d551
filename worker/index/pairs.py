"""Metadata as pairs of a path and a scalar: a document contains another one if it has all pairs of it.

That is what Postgres' `@>` says of jsonb (PostgreSQL manual, "jsonb Containment and Existence"), for wanted documents
without empty objects and arrays, and without objects or arrays inside arrays. Numbers are equal by value, 1 and 1.0,
texts letter by letter; true is not 1, null is a value, and an array has each wanted element somewhere.

A pair is known by 64 bits of its hash. Two that share them would let too many photos pass, never too few; Postgres
looks at what is found again. Knows JSON, not where it lies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec

#: Hashes that are remembered: most pairs come again and again. Some 15 MB of them.
REMEMBERED = 1 << 16


def pairs_of(document: str) -> tuple[int, ...]:
    """All pairs of a JSON object, given as text, each once. What is no object, a null, contains none that is wanted."""
    try:
        read = _DECODER.decode(document)
        return tuple({_hash(pair) for pair in _scalars(read)}) if isinstance(read, dict) else ()
    except (RecursionError, msgspec.DecodeError):
        # So deep, or a number so long, that Python reads it for nobody, also not for the answer to a search.
        return ()


def wanted(where: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The pairs that a document must have to contain `where`; None where pairs cannot say it."""
    try:
        document = _DECODER.decode(json.dumps(where))
    except msgspec.DecodeError:
        # Half of a surrogate pair: Postgres says what it thinks of it.
        return None
    return tuple({_hash(pair) for pair in _scalars(document)}) if _says_all(document) else None


def _says_all(value: Any) -> bool:
    """Whether there is nothing in it but objects of something, arrays of scalars, and scalars."""
    if isinstance(value, dict):
        return bool(value) and all(map(_says_all, value.values()))
    if isinstance(value, list):
        return bool(value) and not any(isinstance(element, dict | list) for element in value)
    return True


def _scalars(document: dict[str, Any]) -> list[str]:
    """Each pair as a text that no other pair has: steps, which end with the letter that jsonb cannot hold, a scalar."""
    found = []
    left = [("", document)]
    while left:
        path, value = left.pop()
        for key, inner in value.items():
            here = f"{path}.{key}\0"
            if isinstance(inner, dict):
                left.append((here, inner))
            elif isinstance(inner, list):
                here += "[\0"
                found += [here + _scalar(element) for element in inner if not isinstance(element, dict | list)]
            else:
                found.append(here + _scalar(inner))
    return found


class _Fraction(str):
    """A number with a point or an exponent, as it was written: a float would not be the number that Postgres has."""

    __slots__ = ()


def _scalar(value: Any) -> str:
    if isinstance(value, _Fraction):
        return f"n{_digits(value)}"
    if isinstance(value, str):
        return f"s{value}"
    if isinstance(value, bool):
        return "t" if value else "f"
    return "z" if value is None else f"n{value}"


def _digits(number: str) -> str:
    """A number as Postgres writes it, without an exponent, and without zeros at the end: equal ones look so."""
    if "e" in number or "E" in number:
        number = format(Decimal(number), "f")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return "0" if number == "-0" else number


_DECODER = msgspec.json.Decoder(float_hook=_Fraction)


@lru_cache(maxsize=REMEMBERED)
def _hash(pair: str) -> int:
    return int.from_bytes(blake2b(pair.encode(), digest_size=8).digest(), "little")
