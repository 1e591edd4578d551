"""What lies in Redis, as figures: queues, what is in hand, live processes. Reads messages, changes nothing.

The age of what waits is read from the messages themselves, so that it is known while no worker runs. Of each list so
many are looked at where the next ones are taken, however long it is.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import redis
from kombu.transport.redis import Channel as KombuChannel

from producer_client.contract import Queue
from producer_client.ids import waits_since_ms
from worker.alive import alive_in
from worker.core.request import waited_s
from worker.observe.names import OTHER, VALUES, allowed
from worker.parking import KEY as PARKED
from worker.pulse import Found
from worker.unfit import MOST_VALUES, values_in

#: Messages of each list that are looked at, from the end at which they are taken: what has come back lies there, and
#: what was sent first, but what went round again.
LOOKED_AT = 3
#: Of what is in hand, the longest ones. Those beyond are counted under `other`.
IN_HAND = 500
#: Bytes of a message that is read to see when it was sent.
READ_BYTES = 4 << 20
#: A note of kombu's ends with the queue.
_ROUTED = re.compile(rb'"([^"]{1,64})"\]\s*$')
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:]{2,45}\]|[A-Za-z0-9_.-]{1,253}):\d{1,5}")


@dataclass
class Seen:
    """values: by the names of worker.observe.names.REDIS, and by queue. skewed: messages from the future. targets: of
    processes with metrics, role and address."""

    values: dict[str, Any] = field(default_factory=dict)
    skewed: int = 0
    targets: list[tuple[str, str]] = field(default_factory=list)


def look(server: redis.Redis, prefix: str) -> Seen:
    """server: a client that puts no prefix before names by itself. Raises redis' errors."""
    seen = Seen()
    _queues(server, prefix, seen)
    _in_hand(server, prefix, seen)
    _processes(alive_in(server, prefix), seen)
    return seen


def _queues(server: redis.Redis, prefix: str, seen: Seen) -> None:
    queues = list(Queue)
    lists = [[f"{prefix}{name}" for name in _lists(queue)] for queue in queues]
    pipe = server.pipeline(transaction=False)
    for name in (name for names in lists for name in names):
        pipe.llen(name)
        pipe.lrange(name, -LOOKED_AT, -1)
    pipe.llen(prefix + PARKED)
    *answers, parked = pipe.execute(raise_on_error=False)
    seen.values["parked_messages"] = _number(parked)
    told = iter(answers)
    ready, ages, unknown = ({} for _ in range(3))  # type: dict[Any, Any], dict[Any, Any], dict[Any, Any]
    now_ms = time.time() * 1000
    for queue, names in zip(queues, lists, strict=True):
        lengths, items = zip(*((_number(next(told)), _items(next(told))) for _ in names), strict=True)
        since = [_since_ms(item) for some in items for item in some]
        known = [waited_s(sent, now_ms) for sent in since if sent is not None]
        seen.skewed += sum(is_skewed for _, is_skewed in known)
        ready[queue,] = sum(length or 0 for length in lengths)
        unknown[queue,] = len(since) - len(known)
        # Where nobody says of any since when it waits, nothing is said.
        ages[queue,] = max((age_s for age_s, _ in known), default=None if since else 0.0)
    seen.values |= {"queue_ready": ready, "queue_oldest_age_seconds": ages, "queue_unknown_age": unknown}


def _in_hand(server: redis.Redis, prefix: str, seen: Seen) -> None:
    index, notes = prefix + KombuChannel.unacked_index_key, prefix + KombuChannel.unacked_key
    pipe = server.pipeline(transaction=False)
    pipe.zcard(index)
    pipe.zrange(index, 0, IN_HAND - 1, withscores=True)
    count, first = pipe.execute()
    counts = {(queue,): 0 for queue in sorted(VALUES["queue"])}
    oldest = {(queue,): 0.0 for queue in sorted(VALUES["queue"])}
    found: Sequence[bytes | None] = server.hmget(notes, [tag for tag, _ in first]) if first else []  # type: ignore[assignment]  # not awaited
    now = time.time()
    for (_, given_at), note in zip(first, found, strict=True):
        routed = None if note is None else _ROUTED.search(note)
        queue = OTHER if routed is None else allowed("queue", routed[1].decode(errors="replace"))
        counts[queue,] += 1
        oldest[queue,] = max(oldest[queue,], now - given_at)
    counts[OTHER,] += count - len(first)
    seen.values |= {"queue_in_hand": counts, "queue_in_hand_oldest_age_seconds": oldest}


def _processes(found: Iterable[Found], seen: Seen) -> None:
    live = [process.said for process in found if _goes_on(process)]
    roles, without = ({(role,): 0 for role in sorted(VALUES["role"])} for _ in range(2))
    consumers, slots, busy = ({(queue.value,): 0 for queue in Queue} for _ in range(3))
    seqs = []
    for said in live:
        if (said["role"],) in roles:
            roles[said["role"],] += 1
            without[said["role"],] += said.get("metrics") == ""
        for queue in _queues_of(said):
            consumers[queue,] += 1
            slots[queue,] += _count(said, "slots")
            busy[queue,] += _count(said, "busy")
        if said["role"] == "serve" and "seq" in said:
            seqs.append(_count(said, "seq"))
        address = said.get("metrics")
        if isinstance(address, str) and _ADDRESS.fullmatch(address) and (said["role"],) in roles:
            seen.targets.append((said["role"], address))
    seen.values |= {
        "processes": roles,
        "processes_without_port": without,
        "queue_consumers": consumers,
        "queue_slots": slots,
        "queue_slots_busy": busy,
        "least_applied_seq": min(seqs, default=None),
    }


def _lists(queue: Queue) -> list[str]:
    """Of each priority, as kombu names them (5.7, transport/redis.py: _q_for_pri)."""
    steps, between = KombuChannel.priority_steps, KombuChannel.sep
    return [queue.value if not step else f"{queue.value}{between}{step}" for step in steps]


def _queues_of(said: Mapping[str, Any]) -> set[str]:
    queues = said.get("queues")
    return {queue for queue in Queue if queue in queues} if isinstance(queues, list) else set()


def _count(said: Mapping[str, Any], name: str) -> int:
    value = said.get(name)
    return value if type(value) is int and 0 <= value < 1 << 63 else 0


def _goes_on(process: Found) -> bool:
    """Anybody may have written what is no process."""
    with suppress(TypeError):
        return isinstance(process.said["role"], str) and process.stalled is None
    return False


def _number(answer: Any) -> int | None:
    """None of a key that is no list: somebody else's."""
    return answer if isinstance(answer, int) else None


def _items(answer: Any) -> list[bytes]:
    return answer if isinstance(answer, list) else []


def _since_ms(item: bytes) -> int | None:
    """Since when a message waits; None where it is none, or does not say."""
    if len(item) > READ_BYTES or values_in(item) > MOST_VALUES:
        return None
    with suppress(ValueError, RecursionError):
        match json.loads(item):
            case {"headers": dict() as headers}:
                return waits_since_ms(headers)
    return None
