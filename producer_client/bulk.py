"""Many photos by a few messages at a time. Knows neither what is asked of them nor how it is sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from producer_client.contract import Refused
from producer_client.contract.wire import Outcome
from producer_client.errors import BadRequest, SightlineError, TimedOut, Unreachable, quoted
from producer_client.handle import Handle
from producer_client.words import Code

#: Photos in one bulk message: seconds of work, far below any visibility timeout.
BULK_SIZE = 64
#: Seconds without a reply to any message of a list after which no more are waited for, or sent.
BULK_TIMEOUT_S = 300.0
#: Bulk messages on their way at once: enough to keep several workers busy, small enough to stop soon.
BULK_IN_FLIGHT = 8


class Pending(Outcome, frozen=True):
    """A photo whose message was sent and not answered in time: it may be carried out yet, or have been. Sending it
    again does no harm. `code` is `timed_out`, or `unavailable` where Redis went away meanwhile."""

    ref: str
    task_id: str
    code: Code
    message: str


def in_bulk(
    items: Sequence[Any],
    submit: Callable[[Sequence[Any]], Handle[list[Any]]],
    timeout_s: float | None,
    progress: Callable[[int, int], None] | None,
) -> list[Any]:
    """Keep some messages on their way; collect their outcomes in the order of sending. An item that is refused
    already is an outcome itself.

    What one message raises is the outcome of its photos alone. Where Redis cannot be reached to send one, those after
    it are refused without another try; where the first cannot be sent, Unreachable is raised. Where nobody has answered
    any of them for `timeout_s`, what is on its way is looked at once more, and what is not sent yet is refused.
    """
    twice = _first_twice(item.ref for item in items)
    if twice is not None:
        raise BadRequest(Code.BAD_REQUEST, f"ref {quoted(twice)} occurs twice: give every photo a ref of its own")
    waiting: list[tuple[Sequence[Any], Handle[list[Any]] | SightlineError | None]] = []
    outcomes: list[Any] = []
    patience_s = BULK_TIMEOUT_S if timeout_s is None else timeout_s
    heard = time.monotonic()

    def left_s() -> float:
        return max(0.0, heard + patience_s - time.monotonic())

    def collect() -> None:
        nonlocal heard
        chunk, sent = waiting.pop(0)
        places = {item.ref: place for place, item in enumerate(chunk)}
        answered = _outcomes(_fine(chunk), sent, left_s(), patience_s)
        if isinstance(sent, Handle) and not any(isinstance(outcome, Pending) for outcome in answered):
            heard = time.monotonic()
        found = [item for item in chunk if isinstance(item, Refused)] + answered
        outcomes.extend(sorted(found, key=lambda outcome: places.get(outcome.ref, len(places))))
        if progress:
            progress(len(outcomes), len(items))

    away: SightlineError | None = None
    for start in range(0, len(items), BULK_SIZE):
        chunk = items[start : start + BULK_SIZE]
        if len(waiting) == BULK_IN_FLIGHT:
            collect()
        if away is None and start and patience_s and not left_s():
            while waiting:
                collect()
            if not left_s():
                away = TimedOut(
                    Code.TIMED_OUT,
                    f"not sent: those before it had no reply within {patience_s:g} s. Is a worker running? `sightline "
                    "doctor` tells. The same call again adds the rest.",
                )
        sent: Handle[list[Any]] | SightlineError | None = away
        if away is None and _fine(chunk):
            try:
                sent = submit(_fine(chunk))
            except Unreachable as exc:
                if not any(isinstance(before, Handle) for _, before in waiting) and not outcomes:
                    raise
                sent = away = exc
        waiting.append((chunk, sent))
    while waiting:
        collect()
    return outcomes


def _fine(chunk: Sequence[Any]) -> list[Any]:
    return [item for item in chunk if not isinstance(item, Refused)]


def _outcomes(
    items: Sequence[Any], sent: Handle[list[Any]] | SightlineError | None, left_s: float, patience_s: float
) -> list[Any]:
    """What became of the items of one message. left_s: of the patience, which others were waited for with too."""
    if sent is None:
        return []
    if isinstance(sent, SightlineError):
        return [Refused(item.ref, sent.code, sent.message) for item in items]
    try:
        return sent.wait_rest(left_s, patience_s)
    except (TimedOut, Unreachable) as exc:
        # Its reply, and not the work: nobody has said that this is not done.
        return [Pending(item.ref, sent.task_id, exc.code, exc.message) for item in items]
    except SightlineError as exc:
        # The other messages' outcomes must not be lost with this one's.
        return [Refused(item.ref, exc.code, exc.message) for item in items]


def _first_twice(refs: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for ref in refs:
        if ref in seen:
            return ref
        seen.add(ref)
    return None
