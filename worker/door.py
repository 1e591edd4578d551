"""Who may put work into our queues: messages by their signatures, copies by what was carried out. Knows a Redis client
and the names of keys, not what is asked (docs/decisions/0043).

A copy is known by the nonce of its message, which is noted in Redis together with the acknowledgement, in one
transaction: what was begun and not ended is handed out again, and is no copy. What a worker sends again itself has a
signature and a nonce of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import uuid4

from producer_client.contract import Code
from producer_client.errors import Untrusted
from producer_client.ids import SENT
from producer_client.signing import (
    SIGNED,
    SKEW_S,
    Admitted,
    Keys,
    admitted,
    check_reply,
    key_of,
    read_claims,
    signed_reply,
)

#: Before the nonces of messages that were carried out, after the prefix of all our keys.
DONE = "signed:"
#: What of a message says when its worker took it down; kombu writes it, as it hands the message out again.
REDELIVERED = "redelivered"
#: Longest id that a message whose sender is unknown may have answered, characters.
LONGEST_ID = 200


class Door:
    """Of one process. keys: None signs nothing and asks for nothing. required: whether messages without a signature are
    refused.

    answer: told the request's id, the code, the sentence, and by which key the request's sender is known, if it is.
    """

    def __init__(
        self, keys: Keys | None, *, required: bool, prefix: str, answer: Callable[[str, Code, str, str | None], None]
    ) -> None:
        self.keys = keys
        self._required = required
        self._done = prefix + DONE
        self._answer = answer

    def admit(self, raw: dict[str, Any], body: bytes, queue: str, client: Any) -> dict[str, Any] | None:
        """A message out of this queue, of which nothing is left that its signature does not cover, but that it was
        handed out before. None: it was, and has been carried out since. Raises Untrusted, after its sender was told.

        raw: as kombu has it; body: without base64. client: of the Redis that holds the queues.
        """
        if self.keys is None:
            return raw
        headers = raw.get("headers") or {}
        try:
            if SIGNED not in headers:
                if not self._required:
                    return raw
                raise Untrusted(
                    Code.UNSIGNED,
                    "it is not signed, and only signed messages are taken here (SIGHTLINE_SIGNING_REQUIRED): give its "
                    "sender the keys (signing_keys_file=)",
                )
            found = admitted(
                self.keys,
                queue,
                headers,
                body,
                content_type=raw.get("content-type"),
                content_encoding=raw.get("content-encoding"),
            )
        except Untrusted as exc:
            task_id = exc.task_id or headers.get("id")
            if isinstance(task_id, str) and len(task_id) <= LONGEST_ID:
                known = None if exc.task_id is None else key_of(headers[SIGNED])
                self._answer(task_id, exc.code, exc.message, known)
            raise
        again = headers.get(REDELIVERED) is True
        if client.exists(self._done + found.nonce):
            if again:
                # By who had it longer than the visibility timeout. It has no effect, whoever says so.
                return None
            # Not answered: the reply to what it is a copy of is somebody's.
            raise Untrusted(
                Code.REPLAYED,
                "it is a copy of a message that was carried out: see who writes to this queue, and drop it",
            )
        return _covered(raw, found, queue, headers[SIGNED], again=again)

    def done(self, headers: dict[str, Any]) -> tuple[str, int] | None:
        """By which name, without the prefix of all our keys, and for how many seconds it must be known that a message
        is done with. None: it was not signed."""
        if self.keys is None or SIGNED not in headers:
            return None
        found = read_claims(headers[SIGNED])
        ends = found.good_until
        if own_end := headers.get("expires"):
            # Celery drops it from then on. The clock of whoever takes a copy may be behind.
            ends = min(ends, datetime.fromisoformat(str(own_end)).timestamp() + 2 * SKEW_S)
        return DONE + found.nonce, max(1, int(ends - time.time()) + 1)

    def signer(self, stamped: object) -> str | None:
        """By which key a message was signed that was let in. stamped: its header SIGNED, if it has one."""
        return None if self.keys is None else key_of(stamped)

    def signed_reply(self, task_id: str, written: str | bytes, key_id: str | None) -> str | bytes:
        """A reply as it is stored, signed by the key of its request, which its sender has."""
        return written if self.keys is None else signed_reply(self.keys.of(key_id), task_id, written)

    def is_ours(self, task_id: str, written: bytes) -> bool:
        """Whether a reply that lies there is a worker's."""
        if self.keys is None:
            return True
        try:
            check_reply(self.keys, task_id, written)
        except Untrusted:
            return False
        return True


def _covered(raw: dict[str, Any], found: Admitted, queue: str, signed: str, *, again: bool) -> dict[str, Any]:
    mark = {REDELIVERED: True} if again else {}
    return {
        "body": raw.get("body"),
        "content-type": raw.get("content-type"),
        "content-encoding": raw.get("content-encoding"),
        "headers": {"lang": "py", **found.headers, SENT: found.sent_ms, SIGNED: signed, **mark},
        "properties": {
            "body_encoding": raw["properties"].get("body_encoding"),
            "correlation_id": found.headers["id"],
            "delivery_info": {"exchange": "", "routing_key": queue, **mark},
            "delivery_mode": 2,
            # Two of one tag would be noted in one place.
            "delivery_tag": str(uuid4()),
            "priority": 0,
        },
    }


def door_of(app: Any) -> Door:
    """Who may put work into the queues of a process."""
    found: Door = app.conf.broker_transport_options["door"]
    return found
