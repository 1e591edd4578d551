"""Metadata as pairs of a path and a scalar: a document contains another one if it has all pairs of it.

That is what Postgres' `@>` says of jsonb (PostgreSQL manual, "jsonb Containment and Existence"), for wanted documents
without empty objects and arrays, and without objects or arrays inside arrays. Numbers are equal by value, 1 and 1.0,
texts letter by letter; true is not 1, null is a value, and an array has each wanted element somewhere.

A pair is known by 64 bits of its hash. Two that share them would let too many photos pass, never too few; Postgres
looks at what is found again. Knows JSON, not where it lies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from typing import Any

#: Hashes that are remembered: most pairs come again and again. Some 15 MB of them.
REMEMBERED = 1 << 16


def pairs_of(document: str) -> tuple[int, ...]:
    """All pairs of a JSON object, given as text, each once. What is no object, a null, contains none that is wanted."""
    try:
        read = _DECODER.decode(document)
        return tuple({_hash(pair) for pair in _scalars(read)}) if isinstance(read, dict) else ()
    except RecursionError:
        # So deep that Python reads it for nobody, also not for the answer to a search.
        return ()


def wanted(where: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The pairs that a document must have to contain `where`; None where pairs cannot say it."""
    document = _DECODER.decode(json.dumps(where))
    return tuple({_hash(pair) for pair in _scalars(document)}) if _says_all(document) else None


def _says_all(value: Any) -> bool:
    """Whether there is nothing in it but objects of something, arrays of scalars, and scalars."""
    if isinstance(value, dict):
        return bool(value) and all(map(_says_all, value.values()))
    if isinstance(value, list):
        return bool(value) and not any(isinstance(element, dict | list) for element in value)
    return True


def _scalars(document: dict[str, Any]) -> Iterator[str]:
    """Each pair as a text that no other pair has: steps, which end with the letter that jsonb cannot hold, a scalar."""
    left = [("", document)]
    while left:
        path, value = left.pop()
        for key, inner in value.items():
            here = f"{path}.{key}\0"
            if isinstance(inner, dict):
                left.append((here, inner))
            elif isinstance(inner, list):
                for element in inner:
                    if not isinstance(element, dict | list):
                        yield f"{here}[\0{_scalar(element)}"
            else:
                yield here + _scalar(inner)


def _scalar(value: Any) -> str:
    if isinstance(value, _Number):
        return f"n{value}"
    if isinstance(value, str):
        return f"s{value}"
    return "z" if value is None else "t" if value else "f"


class _Number(str):
    """A number as Postgres writes it: all digits, no exponent; without zeros at the end, so that equal ones look so."""


def _number(text: str) -> _Number:
    if "e" in text or "E" in text:
        text = format(Decimal(text), "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return _Number("0" if text == "-0" else text)


_DECODER = json.JSONDecoder(parse_int=_number, parse_float=_number)


@lru_cache(maxsize=REMEMBERED)
def _hash(pair: str) -> int:
    return int.from_bytes(blake2b(pair.encode(), digest_size=8).digest(), "little")
