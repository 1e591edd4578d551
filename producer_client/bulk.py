"""Many photos by a few messages at a time. Knows neither what is asked of them nor how it is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from producer_client.contract import Refused
from producer_client.contract.wire import Outcome
from producer_client.errors import BadRequest, SightlineError, TimedOut, Unreachable, quoted
from producer_client.handle import Handle
from producer_client.words import Code

#: Photos in one bulk message: seconds of work, far below any visibility timeout.
BULK_SIZE = 64
#: Seconds that a bulk message is waited for: others of the same list may be served before it.
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
    it are refused without another try; where the first cannot be sent, Unreachable is raised.
    """
    twice = _first_twice(item.ref for item in items)
    if twice is not None:
        raise BadRequest(Code.BAD_REQUEST, f"ref {quoted(twice)} occurs twice: give every photo a ref of its own")
    waiting: list[tuple[Sequence[Any], Handle[list[Any]] | Unreachable | None]] = []
    outcomes: list[Any] = []

    def collect() -> None:
        chunk, sent = waiting.pop(0)
        places = {item.ref: place for place, item in enumerate(chunk)}
        found = [item for item in chunk if isinstance(item, Refused)]
        found += _outcomes(_fine(chunk), sent, BULK_TIMEOUT_S if timeout_s is None else timeout_s)
        outcomes.extend(sorted(found, key=lambda outcome: places.get(outcome.ref, len(places))))
        if progress:
            progress(len(outcomes), len(items))

    away: Unreachable | None = None
    for start in range(0, len(items), BULK_SIZE):
        chunk = items[start : start + BULK_SIZE]
        if len(waiting) == BULK_IN_FLIGHT:
            collect()
        sent: Handle[list[Any]] | Unreachable | None = away
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


def _outcomes(items: Sequence[Any], sent: Handle[list[Any]] | Unreachable | None, timeout_s: float) -> list[Any]:
    """What became of the items of one message."""
    if sent is None:
        return []
    if isinstance(sent, Unreachable):
        return [Refused(item.ref, sent.code, sent.message) for item in items]
    try:
        return sent.wait(timeout_s)
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
