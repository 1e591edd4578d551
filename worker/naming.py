"""Which of our keys in Redis name a photo: replies until they expire, messages, and what is parked. Reads alone.

Knows keys and bytes, not what a message says.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from worker.broker import connected
from worker.core.kept import Kept, Kind, Until
from worker.parking import KEY as PARKED
from worker.parking import Parked
from worker.settings import Settings

#: What Celery calls the key of a reply, before its id.
REPLY = "celery-task-meta-"
#: Bodies of kombu's messages and items that are parked; and photos that were sent as bytes.
_WRAPPED, _INLINE = (re.compile(rb'"(?:%b)": ?"([A-Za-z0-9+/=]{4,})"' % name) for name in (b"body|item", b"inline"))


@dataclass(frozen=True)
class Named:
    """By what a photo is known to messages."""

    photo_id: int | None
    path: str | None
    content_sha256: str | None

    def is_in(self, written: bytes) -> bool:
        """Whether what lies under a key names it, or has its bytes."""
        if any(form in written for form in self._forms) or (self._by_id is not None and self._by_id.search(written)):
            return True
        photos = map(_decoded, _INLINE.findall(written)) if self.content_sha256 is not None else ()
        if any(hashlib.sha256(photo).hexdigest() == self.content_sha256 for photo in photos):
            return True
        return any(self.is_in(_decoded(within)) for within in _WRAPPED.findall(written))

    @cached_property
    def _forms(self) -> tuple[bytes, ...]:
        forms = [] if self.content_sha256 is None else [self.content_sha256.encode()]
        if self.path is not None:
            forms += [
                json.dumps(self.path, ensure_ascii=ascii_only).encode(errors="replace") for ascii_only in (True, False)
            ]
        return tuple(forms)

    @cached_property
    def _by_id(self) -> re.Pattern[bytes] | None:
        if self.photo_id is None:
            return None
        one = b"%d" % self.photo_id
        return re.compile(rb'"photo_ids?": ?(?:\[(?:\d+, ?)*)?%b[^\d]|"photo %b"' % (one, one))


def in_redis(settings: Settings, photos: Sequence[Named]) -> list[list[Kept]]:
    """Of each of the photos what lies in the broker, and where replies do.

    Raises Unreachable where that cannot be used.
    """
    found: list[list[Kept]] = [[] for _ in photos]
    for url in dict.fromkeys((settings.broker_url, settings.replies_url)):
        with connected(url) as connection:
            if connection.transport.driver_type != "redis":
                continue
            channel: Any = connection.default_channel
            prefix = re.sub(r"([*?\[\]\\])", r"\\\1", settings.key_prefix)
            for key in channel.client.scan_iter(match=f"{prefix}*", count=1000):
                for written, expires in _lying(channel.client, key):
                    for photo, kept in zip(photos, found, strict=True):
                        if photo.is_in(written):
                            kept.append(_kept(key.decode(errors="replace"), settings.key_prefix, written, expires))
    return found


def _lying(client: Any, key: bytes) -> Iterator[tuple[bytes, str | None]]:
    """What lies under a key, one by one, and when it expires."""
    match client.type(key):
        case b"string":
            parts = [client.get(key)]
        case b"list":
            parts = client.lrange(key, 0, -1)
        case b"hash":
            parts = client.hvals(key)
        case _:
            # Numbers of messages, and when they were taken.
            return
    left_s = client.ttl(key)
    expires = None if left_s < 0 else (datetime.now(UTC) + timedelta(seconds=left_s)).isoformat(timespec="seconds")
    # It may have gone meanwhile.
    yield from ((part, expires) for part in parts if part is not None)


def _kept(key: str, prefix: str, written: bytes, expires: str | None) -> Kept:
    name = key.removeprefix(prefix)
    if name == PARKED:
        return Kept(Kind.PARKED, key, Until.DROPPED, Parked.read(written).id)
    kind = Kind.REPLY if name.startswith(REPLY) else Kind.MESSAGE
    return Kept(kind, key, Until.ANSWERED, "") if expires is None else Kept(kind, key, Until.EXPIRES, "", expires)


def _decoded(written: bytes) -> bytes:
    try:
        return base64.b64decode(written, validate=True)
    except binascii.Error:
        return b""
