"""JSON as it is, for kombu: what is written is what is read, in UTF-8. Of client and workers. Knows no message.

kombu's own JSON reads an object with the keys `__type__` and `__value__` as a date, as bytes, or as an error, whoever
wrote it, and writes every letter beyond ASCII as an escape.
"""

from __future__ import annotations

import json
from typing import Any

import kombu.serialization
import msgspec

#: What Celery's settings call it.
NAME = "sightline-json"
CONTENT_TYPE = "application/vnd.sightline+json"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def register() -> None:
    """Make it known to kombu, which keeps one register for the whole process. Safe to repeat."""
    kombu.serialization.register(NAME, encode, decode, content_type=CONTENT_TYPE, content_encoding="utf-8")


def encode(value: Any) -> str:
    """Numbers that are not finite become null."""
    try:
        return _encode(value).decode()
    except (TypeError, UnicodeEncodeError):
        # Subclasses of text and numbers, and halves of a surrogate pair, which only escapes can carry.
        return json.dumps(value, separators=(",", ":"), allow_nan=False)


def decode(written: bytes | bytearray | memoryview | str) -> Any:
    """Raises ValueError for what is not JSON, RecursionError for what is nested a thousand deep."""
    try:
        return _decode(written)
    except msgspec.DecodeError:
        # NaN, 1e400 and halves of a surrogate pair, as others write them: what reads the message names the field.
        return json.loads(written if isinstance(written, str) else str(written, "utf-8"))
