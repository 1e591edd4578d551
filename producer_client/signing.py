"""Signatures of messages and replies: HMAC-SHA256 by keys that backends and workers share. Of both sides; knows no
Redis (docs/decisions/0043).

A signature covers exact bytes: of the body as it lies in the message, and of the claims, a text that travels beside it
and says everything else that decides what is done. Who takes a message goes by the claims alone.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from producer_client.errors import Untrusted
from producer_client.ids import SENT
from producer_client.secret_file import read_secret
from producer_client.tracing import TRACED
from producer_client.words import Code, Queue

#: The header of a message, and the member of a stored reply, that holds what is added.
SIGNED = "sightline_signed"
#: Headers of Celery that decide what is done with a message. All others are left behind when it is taken.
DECIDING = (
    "task",
    "id",
    "root_id",
    "parent_id",
    "group",
    "group_index",
    "retries",
    "eta",
    "expires",
    "timelimit",
    "ignore_result",
    "replaced_task_nesting",
    "compression",
)
#: Seconds that a message may wait in each queue, workers being away for a long weekend or busy with an import of days.
#: What has an end of its own (`expires` of questions and ticks) is dropped by that, long before. A copy is remembered
#: for as long as its message could be good.
GOOD_FOR_S: Mapping[str, int] = {
    Queue.INTERACTIVE.value: 7 * 86400,
    Queue.BULK.value: 7 * 86400,
    Queue.INDEX.value: 86400,
}
#: Seconds that the clocks of two hosts may differ by.
SKEW_S = 60
#: Characters of the shortest secret: half a SHA-256 in hexadecimal digits.
SHORTEST = 32

_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NONCE = re.compile(r"[0-9a-f]{32}")
_STAMP = re.compile(r"([A-Za-z0-9_.-]{1,64}) ([0-9a-f]{64}) (.*)", re.DOTALL)
_REPLY = re.compile(rb'(.*),"sightline_signed":"([A-Za-z0-9_.-]{1,64}) ([0-9a-f]{64})"\}', re.DOTALL)


@dataclass(frozen=True)
class Keys:
    """Secrets by their ids. `current` signs, all of them are accepted."""

    current: str
    secrets: Mapping[str, bytes] = field(repr=False)

    def of(self, key_id: str | None) -> Keys:
        """Those that sign with this one, where it is among them."""
        return self if key_id is None or key_id not in self.secrets else replace(self, current=key_id)


@dataclass(frozen=True)
class Admitted:
    """What a good signature says of a message. headers: of DECIDING and TRACED those that it has. good_until: seconds
    since 1970, when nobody would carry it out any more. sent_ms: see SENT."""

    nonce: str
    good_until: float
    headers: dict[str, Any]
    sent_ms: int


def read_keys(path: str | os.PathLike[str]) -> Keys:
    """One key a line, `ID SECRET`; the first signs. Empty lines and those with a # are passed over. Raises ValueError
    with a sentence that repeats no secret."""
    found: dict[str, bytes] = {}
    for number, line in enumerate(read_secret(path).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match line.split():
            case [key_id, secret] if _KEY_ID.fullmatch(key_id) and len(secret) >= SHORTEST and key_id not in found:
                found[key_id] = secret.encode()
            case _:
                raise ValueError(
                    f"line {number} of {path} is no key: it is an id of its own, a blank, and {SHORTEST} characters or "
                    "more of secret, as `openssl rand -hex 32` writes them"
                )
    if not found:
        raise ValueError(f"{path} has no key: write a line `ID SECRET`")
    return Keys(next(iter(found)), found)


def stamp(
    keys: Keys,
    queue: str,
    headers: Mapping[str, Any],
    body: bytes,
    *,
    content_type: str | None,
    content_encoding: str | None,
    now: float | None = None,
) -> str:
    """What a message to this queue carries as its header SIGNED. body: as it lies there, before base64."""
    issued = int(time.time() if now is None else now)
    claims = json.dumps(
        {
            "issued": issued,
            "expires": issued + GOOD_FOR_S[queue],
            "nonce": secrets.token_hex(16),
            "queue": queue,
            "type": content_type,
            "encoding": content_encoding,
            # Not among the headers: a worker of an earlier release hands the header on as it came, and signs anew.
            **({"sent": headers[SENT]} if SENT in headers else {}),
            # Of traces it says what its sender knew; whether a message is good does not hang on them, which senders
            # of earlier releases may have from elsewhere, unsigned.
            "headers": {name: headers[name] for name in (*DECIDING, *TRACED) if headers.get(name) is not None},
        },
        separators=(",", ":"),
    )
    return f"{keys.current} {_mac(keys.secrets[keys.current], keys.current, claims, body)} {claims}"


def admitted(
    keys: Keys,
    queue: str,
    headers: Mapping[str, Any],
    body: bytes,
    *,
    content_type: object,
    content_encoding: object,
    now: float | None = None,
) -> Admitted:
    """What the header SIGNED of a message says, which lay in this queue. Raises Untrusted with `bad_signature` or
    `expired`; of the latter its request is known (`.task_id`)."""
    parts = _STAMP.fullmatch(str(headers.get(SIGNED)))
    secret = keys.secrets.get(parts[1]) if parts else None
    if parts is None or secret is None or not _equal(_mac(secret, parts[1], parts[3], body), parts[2]):
        raise _altered()
    claims = json.loads(parts[3])
    covered = claims["headers"]
    if (
        (claims["queue"], claims["type"], claims["encoding"]) != (queue, content_type, content_encoding)
        or not _NONCE.fullmatch(claims["nonce"])
        or any(headers.get(name) != covered.get(name) for name in DECIDING)
    ):
        raise _altered()
    at = time.time() if now is None else now
    issued, expires = claims["issued"], claims["expires"]
    if not (issued - SKEW_S <= at <= expires + SKEW_S) or expires - issued > GOOD_FOR_S[queue]:
        raise Untrusted(
            Code.EXPIRED,
            f"it was signed {at - issued:.0f} s ago and is good for {expires - issued} s: it has waited too long, or "
            "the clocks of its sender and of the worker differ. Send it again",
            task_id=str(covered["id"]),
        )
    return read_claims(parts[0])


def read_claims(stamped: str) -> Admitted:
    """Of a header SIGNED that was found good before."""
    claims = json.loads(stamped.split(" ", 2)[2])
    sent_ms = claims.get("sent", claims["issued"] * 1000)
    return Admitted(claims["nonce"], claims["expires"] + SKEW_S, claims["headers"], sent_ms)


def key_of(stamped: object) -> str | None:
    """The id of the key that a header SIGNED says it is of. It is that one's only where the header was found good."""
    parts = _STAMP.fullmatch(stamped) if isinstance(stamped, str) else None
    return None if parts is None else parts[1]


def signed_reply(keys: Keys, task_id: str, written: str | bytes) -> bytes:
    """A stored reply, which is a JSON object, with its signature as one more member."""
    text = written.encode() if isinstance(written, str) else written
    mac = _mac(keys.secrets[keys.current], keys.current, f"reply {task_id}", text)
    return text[:-1] + f',"{SIGNED}":"{keys.current} {mac}"}}'.encode()


def check_reply(keys: Keys, task_id: str, written: bytes) -> None:
    """Raises Untrusted unless a worker with one of the keys has stored this as the reply to that request."""
    parts = _REPLY.fullmatch(written)
    if parts is None:
        raise _unsigned(task_id, written)
    key_id = parts[2].decode()
    secret = keys.secrets.get(key_id)
    if secret is None or not _equal(_mac(secret, key_id, f"reply {task_id}", parts[1] + b"}"), parts[3].decode()):
        raise Untrusted(
            Code.BAD_SIGNATURE,
            f"the reply to {task_id} is not signed by a key that this client has: see that its signing_keys_file has "
            "the workers' keys, and who else writes to that Redis. What was asked may be done",
        )


#: What workers answer, without a signature, to a message whose sender they cannot know.
REFUSALS = frozenset({Code.UNSIGNED, Code.BAD_SIGNATURE})


def _unsigned(task_id: str, written: bytes) -> Untrusted:
    try:
        code = json.loads(written)["result"]["error"]["code"]
    except (ValueError, LookupError, TypeError, RecursionError):
        code = None
    if code in REFUSALS:
        return Untrusted(
            Code(code),
            f"{task_id} was refused as {code}, says a reply without a signature: see that workers and this client have "
            "the same keys (SIGHTLINE_SIGNING_KEYS_FILE, signing_keys_file=)",
        )
    return Untrusted(
        Code.UNSIGNED,
        f"the reply to {task_id} is not signed, and anybody may have written it: give the workers the keys first "
        "(SIGHTLINE_SIGNING_KEYS_FILE). What was asked may be done",
    )


def _altered() -> Untrusted:
    return Untrusted(
        Code.BAD_SIGNATURE,
        "its signature does not hold: its key is unknown here or was withdrawn, or something of it was changed on its "
        "way. See that sender and workers have the same keys (SIGHTLINE_SIGNING_KEYS_FILE)",
    )


def _mac(secret: bytes, key_id: str, said: str, body: bytes) -> str:
    """said: claims, which are JSON, or whose reply it is; its length keeps it apart from the body."""
    text = said.encode(errors="surrogatepass")
    return hmac.digest(secret, f"sightline 1 {key_id} {len(text)} ".encode() + text + body, "sha256").hex()


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one, other)
