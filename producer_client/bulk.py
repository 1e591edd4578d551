"""Many photos by a few messages at a time. Knows neither what is asked of them nor how it is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from producer_client.contract import Refused
from producer_client.errors import BadRequest, SightlineError
from producer_client.handle import Handle
from producer_client.words import Code

#: Photos in one bulk message: seconds of work, far below any visibility timeout.
BULK_SIZE = 64
#: Seconds that a bulk message is waited for: others of the same list may be served before it.
BULK_TIMEOUT_S = 300.0
#: Bulk messages on their way at once: enough to keep several workers busy, small enough to stop soon.
BULK_IN_FLIGHT = 8


def in_bulk(
    items: Sequence[Any | Refused],
    submit: Callable[[Sequence[Any]], Handle[list[Any]]],
    timeout_s: float | None,
    progress: Callable[[int, int], None] | None,
) -> list[Any]:
    """Keep some messages on their way; collect their outcomes in the order of sending. An item that is refused
    already is an outcome itself."""
    twice = _first_twice(item.ref for item in items)
    if twice is not None:
        raise BadRequest(Code.BAD_REQUEST, f"ref {twice!r} occurs twice: give every photo a ref of its own")
    chunks = [items[start : start + BULK_SIZE] for start in range(0, len(items), BULK_SIZE)]
    waiting: list[tuple[Sequence[Any], Handle[list[Any]] | None]] = []
    outcomes: list[Any] = []

    def collect() -> None:
        chunk, handle = waiting.pop(0)
        places = {item.ref: place for place, item in enumerate(chunk)}
        found = [item for item in chunk if isinstance(item, Refused)]
        try:
            found += handle.wait(BULK_TIMEOUT_S if timeout_s is None else timeout_s) if handle else []
        except SightlineError as exc:
            # The other messages' outcomes must not be lost with this one's.
            found += [Refused(item.ref, exc.code, exc.message) for item in chunk if not isinstance(item, Refused)]
        outcomes.extend(sorted(found, key=lambda outcome: places.get(outcome.ref, len(places))))
        if progress:
            progress(len(outcomes), len(items))

    for chunk in chunks:
        if len(waiting) == BULK_IN_FLIGHT:
            collect()
        fine = [item for item in chunk if not isinstance(item, Refused)]
        waiting.append((chunk, submit(fine) if fine else None))
    while waiting:
        collect()
    return outcomes


def _first_twice(refs: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for ref in refs:
        if ref in seen:
            return ref
        seen.add(ref)
    return None
