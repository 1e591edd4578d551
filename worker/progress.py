"""Long work as a person follows it: a bar, missing vectors and a rebuild until their end, and what came of it in lines.

Knows no command.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from producer_client import EmbedItem, NewPhoto, Pending, Photo, Refused, Sightline, SightlineError, TimedOut
from producer_client.contract import Code, RebuildReply, StatsReply
from producer_client.errors import short
from worker.core.ports import StoredVectors
from worker.words import in_language, say

T = TypeVar("T")
#: Called with (done, in all).
Told = Callable[[int, int], None]

#: Photos that lack a vector are sent for in pages of this many, 64 messages.
MISSING_PAGE = 4096
#: Seconds between two looks at a running rebuild.
POLL_S = 0.3


@contextmanager
def progress_bar(what: str, console: Console | None = None) -> Iterator[Told]:
    """A bar to call with (done, in all). On standard error unless told, so that `--json` stays clean; where nobody
    looks at it, none, which would leave empty lines in a log."""
    columns = (SpinnerColumn(), TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = console or Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def parted(outcomes: Iterable[T | Refused | Pending]) -> tuple[list[T], list[Refused], list[Pending]]:
    """What went well, the refusals, and what was not answered."""
    well: list[T] = []
    refused: list[Refused] = []
    pending: list[Pending] = []
    for outcome in outcomes:
        if isinstance(outcome, Refused):
            refused.append(outcome)
        elif isinstance(outcome, Pending):
            pending.append(outcome)
        else:
            well.append(outcome)
    return well, refused, pending


def both(*told: Told) -> Told:
    """One that passes on to all of them."""

    def tell(done: int, total: int) -> None:
        for one in told:
            one(done, total)

    return tell


def wait_for_rebuild(client: Sightline, progress: Told, timeout_s: float, *, force: bool = False) -> RebuildReply:
    """Start a rebuild and pass its progress on until it is done."""
    handle = client.submit_rebuild_index(force=force)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return handle.wait(POLL_S)
        except TimedOut:
            if time.monotonic() > deadline:
                raise
        run = None
        # Only a look at how far it is: the rebuild goes on without it.
        with suppress(SightlineError):
            run = client.stats(timeout_s=POLL_S * 10).last_rebuild
        if run is not None and run.state == "running" and run.total:
            progress(run.done, run.total)


def embed_missing(
    client: Sightline, vectors: StoredVectors, model_key: str, todo: int, timeout_s: float
) -> tuple[int, list[Refused], list[Pending]]:
    """Send for every photo that lacks a vector, with progress; returns how many have one now, the refusals, and
    what was not answered.

    What is done is seen in Postgres, a message's photos at once, so that nothing has to be noted here.
    """

    def page_after(after_id: int) -> list[int]:
        return [photo.photo_id for photo in vectors.missing(model_key, after_id=after_id, limit=MISSING_PAGE)]

    def send(page: Sequence[int], progress: Told) -> Sequence[object]:
        new = [NewPhoto(ref=f"photo {photo_id}", photo=Photo(photo_id=photo_id)) for photo_id in page]
        return client.add_many(new, timeout_s=timeout_s, progress=progress)

    return _send_pages(say("embedding"), todo, page_after, send)


def look_at_pictures(
    client: Sightline, vectors: StoredVectors, todo: int, timeout_s: float
) -> tuple[int, list[Refused], list[Pending]]:
    """Send for every indexed photo whose picture has no hash yet, with progress; returns how many were looked at,
    the refusals, and what was not answered. They stay in the index as they are."""

    def page_after(after_id: int) -> list[int]:
        return vectors.missing_hashes(after_id=after_id, limit=MISSING_PAGE)

    def send(page: Sequence[int], progress: Told) -> Sequence[object]:
        items = [EmbedItem(ref=f"photo {photo_id}", photo=Photo(photo_id=photo_id)) for photo_id in page]
        return client.embed_many(items, timeout_s=timeout_s, progress=progress)

    return _send_pages(say("looking"), todo, page_after, send)


def rebuild_lines(reply: RebuildReply) -> Iterator[str]:
    """What a rebuild did, as a person reads it."""
    refused = say(" ({count} refused)", count=reply.refused) if reply.refused else ""
    placed = say("{count} (in their rows or beside them)", count=reply.with_coordinates)
    yield _line(say("photos with coordinates:"), placed)
    yield _line(say("valid files:"), f"{reply.valid_files}{refused}")
    if reply.unknown_files:
        count, why = reply.unknown_files, escape(in_language(short(reply.unknown_why or "")))
        yield say("files of which nothing can be said: {count} ({why})", count=count, why=why)
    yield _line(say("indexed:"), say("{count} ({now} embedded now)", count=reply.indexed, now=reply.embedded))
    if reply.suspended:
        yield say(
            "[yellow]positions that are contradicted[/]: {count} more; `sightline conflicts` lists them",
            count=reply.suspended,
        )
    yield _line(say("dimension:"), reply.dimension)
    yield _line(say("model:"), reply.model)
    yield _line(say("model key:"), reply.model_key)
    yield _line(say("device:"), reply.device)
    least = reply.recall_at_10_at_least
    promised = "" if least is None else say(" (for new photos at least {share:.3f})", share=least)
    yield _line(say("index:"), say("{kind}, {size:.1f} MB", kind=reply.kind, size=reply.index_bytes / 1e6))
    yield _line("recall@10:", f"{reply.recall_at_10:.3f}{promised}")
    if reply.exam is not None:
        yield _line(say("exam:"), escape(in_language(reply.exam)))
    number, seq, seconds = reply.generation, reply.seq, reply.seconds
    yield say("generation {number} at seq {seq}, {seconds:.1f} s", number=number, seq=seq, seconds=seconds)


def statistics_lines(reply: StatsReply) -> Iterator[str]:
    """What build_clip_index.py printed at its end, in its order."""
    yield say("index statistics:")
    yield _line(say("photos in it:"), reply.indexed)
    yield _line(say("dimension:"), reply.dimension)
    yield _line(say("model:"), reply.model)
    yield _line(say("device:"), reply.device)
    waiting = say("none yet: tonight's rebuild makes it, or `sightline rebuild` now")
    yield _line(say("generation on disk:"), waiting if reply.generation is None else reply.generation)


def _send_pages(
    doing: str,
    todo: int,
    page_after: Callable[[int], Sequence[int]],
    send: Callable[[Sequence[int], Told], Sequence[object]],
) -> tuple[int, list[Refused], list[Pending]]:
    """Send for all photos, a page after the other: (how many went well, the refusals, what was not answered).

    page_after: the ids that come next, rising; none at the end. After a page of which some were not sent, as
    nobody answered, no other is.
    """
    well = 0
    refused: list[Refused] = []
    pending: list[Pending] = []
    after_id = -1
    with progress_bar(doing) as progress:
        while page := page_after(after_id):
            after_id = page[-1]
            done = well + len(refused) + len(pending)

            def further(now: int, _: int, before: int = done) -> None:
                progress(before + now, todo)

            done_now, refused_now, pending_now = parted(send(page, further))
            well += len(done_now)
            refused += refused_now
            pending += pending_now
            if any(one.code is Code.TIMED_OUT for one in refused_now):
                break
    return well, refused, pending


def _line(label: str, value: object) -> str:
    return f"{label:<24} {value}"
