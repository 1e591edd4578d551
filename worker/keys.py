"""What lies in Redis beside our own keys: those of others, and messages for us that lie where we do not look.

Reads and changes nothing. Knows the names of keys, and of messages nothing but whose they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from kombu import Connection
from kombu.exceptions import OperationalError
from redis.exceptions import ResponseError

from producer_client.contract import Queue
from worker.broker import connected

#: Keys that are looked at, at the most: a second's work.
MOST_KEYS = 200_000
#: Others' keys that are named.
NAMED = 3
#: Where releases before the prefix had their queues, unless told otherwise.
FORMER_DATABASE = "0"
#: Of what a worker has in hand; kombu's name for it.
IN_HAND = "unacked"
_OURS = re.compile(rb'"task": ?"sightline\.')
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Beside:
    """database: its number. others: names of keys that are not ours, a few. left: how many messages for Sightline lie
    under keys that workers of these settings do not look at, in queues or in the hand of another worker."""

    database: str
    others: list[str] = field(default_factory=list)
    left: Mapping[str, int] = field(default_factory=dict)


def beside(broker_url: str, prefix: str, *, patience_s: int) -> list[Beside]:
    """Of our database, and of the one of earlier releases. Nothing of a broker that is no Redis.

    Raises Unreachable where it does not answer.
    """
    with connected(broker_url, silent_s=patience_s) as connection:
        if connection.transport.driver_type != "redis":
            return []
        ours = str(connection.virtual_host or FORMER_DATABASE).strip("/")
        client = _client(connection)
        found = [Beside(ours, _others(client, prefix), _left(client, {""} - {prefix}))]
        if ours != FORMER_DATABASE:
            # Not every user of a Redis may look into other databases than its own.
            not_ours: tuple[Any, ...] = (OperationalError, *connection.connection_errors, *connection.channel_errors)
            with suppress(*not_ours), connection.clone(virtual_host=FORMER_DATABASE) as former:
                found.append(Beside(FORMER_DATABASE, left=_left(_client(former), {"", prefix})))
    return found


def _client(connection: Connection) -> Any:
    """redis-py's, of the transport."""
    channel: Any = connection.default_channel
    return channel.client


def _others(client: Any, prefix: str) -> list[str]:
    names: dict[str, None] = {}
    former = {queue.value for queue in Queue} | {f"_kombu.binding.{queue.value}" for queue in Queue}
    for key in islice(client.scan_iter(count=1000), MOST_KEYS):
        name = key.decode(errors="replace")
        if (prefix and not name.startswith(prefix)) and name not in former:
            names[_UUID.sub("*", name)[:60]] = None
        if len(names) == NAMED:
            break
    return sorted(names)


def _left(client: Any, prefixes: set[str]) -> dict[str, int]:
    counts = {}
    for prefix in sorted(prefixes):
        for key in (prefix + queue.value for queue in Queue):
            # Somebody else's key of that name may be no list.
            with suppress(ResponseError):
                if any(map(_OURS.search, client.lrange(key, 0, 0))):
                    counts[key] = client.llen(key)
        with suppress(ResponseError):
            if in_hand := sum(_OURS.search(value) is not None for value in client.hvals(prefix + IN_HAND)):
                counts[prefix + IN_HAND] = in_hand
    return counts
