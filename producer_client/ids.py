"""Ids of requests: which of two requests about one photo was sent later, whatever came to a worker first.
And since when a message waits."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

#: The header of a message that says when it was put into its queue: milliseconds of Unix time, by its sender's clock.
#: What a worker sends round again says so anew.
SENT = "sightline_sent"
#: As an id of version 7 has it: the year 10889.
LATEST_MS = 1 << 48


def new_id() -> str:
    """A UUID of version 7 (RFC 9562, 5.7): milliseconds of Unix time, then chance."""
    return str(UUID(int=now_ms() << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)))


def made_ms(task_id: str) -> int | None:
    """When an id was made, by the clock of who made it: milliseconds of Unix time, and not later than now by this one.
    None of an id of another kind, as Celery itself gives, which says nothing of that."""
    said = _said_ms(task_id)
    # A clock that is fast must not have the last word for ever.
    return None if said is None else min(said, now_ms())


def waits_since_ms(headers: Mapping[str, Any]) -> int | None:
    """Since when a message waits, by its headers: since it was sent, or is due. By its sender's clock, which may be
    fast. None where nobody says: of a message of Celery's own. Strange values are passed over."""
    sent = headers.get(SENT)
    if type(sent) is not int or not 0 < sent < LATEST_MS:
        # Of a client of before this header: of the request, not of this delivery.
        task_id = headers.get("id")
        sent = _said_ms(task_id) if isinstance(task_id, str) else None
    if sent is None:
        return None
    with suppress(TypeError, ValueError, OverflowError):
        due = datetime.fromisoformat(headers.get("eta"))  # type: ignore[arg-type]  # of any type
        due_ms = (due if due.tzinfo else due.replace(tzinfo=UTC)).timestamp() * 1000
        sent = max(sent, int(due_ms))
    return sent


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _said_ms(task_id: str) -> int | None:
    try:
        made = UUID(task_id)
    except ValueError:
        return None
    return made.int >> 80 if made.version == 7 else None
