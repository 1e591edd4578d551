"""What is the matter with an item of a queue that is no message of ours, for people and for programs. Knows no Redis.

The sentences are closed: what Python and Celery say of an item stands in the worker's log.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from producer_client.errors import Untrusted

#: JSON values that are read of one item: a thousand for each photo of the largest message, and tens of MB in memory. In
#: as many bytes as an item may have, a gigabyte of empty lists would fit.
MOST_VALUES = 1_000_000


class Unfit(StrEnum):
    """What is the matter with an item, for programs."""

    NO_JSON = "no_json"
    TOO_LARGE = "too_large"
    NO_MESSAGE = "no_message"  #: JSON of another form
    UNKNOWN_CONTENT = "unknown_content"
    NO_TASK = "no_task"
    UNKNOWN_TASK = "unknown_task"
    BAD_TASK = "bad_task"  #: arguments, headers or callbacks that Celery cannot call
    BAD_NOTE = "bad_note"  #: of what a worker had in hand
    BAD_ENTRY = "bad_entry"  #: of the list of what is parked itself
    UNSIGNED = "unsigned"
    BAD_SIGNATURE = "bad_signature"
    EXPIRED = "expired"
    REPLAYED = "replayed"


@dataclass(frozen=True)
class Fault:
    """Why an item cannot be read, and what to do about it, in an English sentence for people."""

    code: Unfit
    why: str


def no_message(item: bytes, largest: int) -> Fault:
    """Of an item that is no message."""
    if len(item) > largest:
        return Fault(
            Unfit.TOO_LARGE,
            f"it has {len(item):,} bytes, and {largest:,} at most are read: see which program sends it, and drop it",
        )
    if values_in(item) > MOST_VALUES:
        return too_many_values()
    try:
        json.loads(item)
    except (ValueError, RecursionError):
        return Fault(
            Unfit.NO_JSON,
            "it is no JSON, so that no client of ours has sent it: see which program writes to this queue, and drop it",
        )
    return Fault(
        Unfit.NO_MESSAGE,
        "it is JSON, and not as Celery writes a message: see which program writes to this queue, and drop it",
    )


def untrusted(exc: Untrusted) -> Fault:
    """Of a message that the door keeps out."""
    return Fault(Unfit(exc.code.value), exc.message)


def values_in(item: bytes) -> int:
    """At least as many as there are JSON values in it, without reading it."""
    return 1 + item.count(b",") + item.count(b"[") + item.count(b"{")


def too_many_values() -> Fault:
    most = MOST_VALUES
    return Fault(
        Unfit.TOO_LARGE,
        f"it has more than {most:,} values, which are not read: see which program sends it, and drop it",
    )


def unknown_content() -> Fault:
    return Fault(
        Unfit.UNKNOWN_CONTENT,
        "its content is broken, packed, or not JSON; plain JSON alone is read here: have its sender use "
        "producer_client, and drop it",
    )


def no_task() -> Fault:
    return Fault(Unfit.NO_TASK, "it names no task: see which program sends it, and drop it")


def unknown_task(task: object) -> Fault:
    return Fault(
        Unfit.UNKNOWN_TASK,
        f"no worker here has the task {task}. If a newer release has sent it, update the workers and put it back; if "
        "another program has, give that one queues of its own, and drop it",
    )


def bad_task() -> Fault:
    return Fault(
        Unfit.BAD_TASK,
        "its task cannot be called with what it brings along (arguments, headers, callbacks): see which program sends "
        "it, and drop it",
    )


def bad_note() -> Fault:
    return Fault(
        Unfit.BAD_NOTE,
        "it is the note of a message that a worker had in hand, and cannot be read; it has no queue to go back to: "
        "drop it. Whoever waits for a reply sends the message again",
    )


def bad_entry() -> Fault:
    return Fault(
        Unfit.BAD_ENTRY,
        "another program, or another release, has written it into the list of what is parked; it has no queue to go "
        "back to: look at it and drop it",
    )
