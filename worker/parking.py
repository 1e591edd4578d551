"""What lay in our queues and could not be read: kept in Redis beside them, with its reason, until a person decides.

Knows a Redis client and the names of keys, not what a message is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from worker.unfit import Fault, bad_entry

#: The key of the list, after the prefix of all our keys.
KEY = "parked"
#: Items kept. Whoever fills a queue with what is no message must not fill Redis with it: the oldest go.
MOST = 1_000
#: Where an item lay that was parked out of the notes of what is unacknowledged: it cannot go back there.
FROM_NO_QUEUE = ""


@dataclass(frozen=True)
class Parked:
    """One item: `item` is what lay there, byte by byte, in base64. key: the whole name of the list that it lay in.
    at: empty where nobody knows it."""

    id: str
    at: str
    key: str
    code: str
    why: str
    item: str

    @property
    def content(self) -> bytes:
        return base64.b64decode(self.item)

    @classmethod
    def read(cls, entry: bytes) -> Parked:
        """As it lies in the list. One that is not of ours is an item itself."""
        with suppress(msgspec.MsgspecError, binascii.Error):
            parked = msgspec.json.decode(entry, type=cls)
            base64.b64decode(parked.item, validate=True)
            return parked
        odd = bad_entry()
        return cls(hashlib.sha256(entry).hexdigest()[:8], "", FROM_NO_QUEUE, odd.code, odd.why, _base64(entry))


class Parking:
    """client: of the Redis that holds the queues; it must not put a prefix before names by itself."""

    def __init__(self, client: Any, *, prefix: str) -> None:
        self._client = client
        self._key = prefix + KEY

    def park(self, key: str, item: bytes, fault: Fault) -> Parked:
        """Keep an item of the list `key`. Whoever took it from there forgets it only afterwards."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        parked = Parked(secrets.token_hex(4), now, key, fault.code, fault.why, _base64(item))
        with self._client.pipeline() as pipe:
            pipe.lpush(self._key, json.dumps(asdict(parked)))
            pipe.ltrim(self._key, 0, MOST - 1)
            pipe.execute()
        return parked

    def count(self) -> int:
        return int(self._client.llen(self._key))

    def all(self) -> list[Parked]:
        """The newest first."""
        return [Parked.read(entry) for entry in self._client.lrange(self._key, 0, -1)]

    def drop(self, ids: Collection[str]) -> list[str]:
        """Forget these for good; returns those that were there."""
        return self._end(ids, requeue=False)

    def requeue(self, ids: Collection[str]) -> list[str]:
        """Put these back to where they lay, behind all others; returns those that were there and have such a place.
        What still cannot be read is parked anew."""
        return self._end(ids, requeue=True)

    def _end(self, ids: Collection[str], *, requeue: bool) -> list[str]:
        ended = []
        for entry in self._client.lrange(self._key, 0, -1):
            parked = Parked.read(entry)
            if parked.id in ids and not (requeue and parked.key == FROM_NO_QUEUE):
                with self._client.pipeline() as pipe:
                    if requeue:
                        pipe.lpush(parked.key, parked.content)
                    pipe.lrem(self._key, 1, entry)
                    pipe.execute()
                ended.append(parked.id)
        return ended


def _base64(item: bytes) -> str:
    return base64.b64encode(item).decode()
