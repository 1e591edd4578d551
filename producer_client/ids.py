"""Ids of requests: which of two requests about one photo was sent later, whatever came to a worker first."""

from __future__ import annotations

import secrets
import time
from uuid import UUID


def new_id() -> str:
    """A UUID of version 7 (RFC 9562, 5.7): milliseconds of Unix time, then chance."""
    return str(UUID(int=now_ms() << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)))


def made_ms(task_id: str) -> int | None:
    """When an id was made, by the clock of who made it: milliseconds of Unix time, and not later than now by this one.
    None of an id of another kind, as Celery itself gives, which says nothing of that."""
    try:
        made = UUID(task_id)
    except ValueError:
        return None
    # A clock that is fast must not have the last word for ever.
    return min(made.int >> 80, now_ms()) if made.version == 7 else None


def now_ms() -> int:
    return time.time_ns() // 1_000_000
