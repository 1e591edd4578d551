"""What was found stuck lately, for `sightline stats`: a short list in the Redis of replies, which outlives the process.
Knows no threads."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import redis

from producer_client.contract import Stuck
from worker.answers import Replies

log = logging.getLogger(__name__)

#: Of the list, after the prefix of all our keys.
NAME = "stuck"
#: So many are kept, and for a week after the newest.
KEPT, KEPT_S = 20, 7 * 86400


def note(app: Any, found: Stuck) -> None:
    """Not kept where Redis takes nothing: the log has said it."""
    client, key = _list_of(app)
    if client is None:
        return
    try:
        with client.pipeline() as pipe:
            pipe.lpush(key, msgspec.json.encode(found.to_wire())).ltrim(key, 0, KEPT - 1).expire(key, KEPT_S).execute()
    except (redis.exceptions.RedisError, OSError) as exc:
        log.warning("`sightline stats` cannot be told", extra={"why": exc})


def lately(app: Any) -> list[Stuck]:
    """The newest first."""
    client, key = _list_of(app)
    return [] if client is None else [Stuck.from_wire(msgspec.json.decode(one)) for one in client.lrange(key, 0, -1)]


def _list_of(app: Any) -> tuple[Any, str]:
    """A client of Redis, None where replies lie elsewhere, and the key."""
    client = app.backend.client if isinstance(app.backend, Replies) else None
    return client, app.runtime.settings.key_prefix + NAME
