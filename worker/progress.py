"""Long work as a person follows it: a bar, a rebuild until its end, and what came of it in lines. Knows no command."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from producer_client import Sightline, SightlineError, TimedOut
from producer_client.contract import RebuildReply, StatsReply
from worker.words import say

#: Seconds between two looks at a running rebuild.
POLL_S = 0.3


@contextmanager
def progress_bar(what: str, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """A bar to call with (done, in all). On standard error unless told, so that `--json` stays clean."""
    columns = (SpinnerColumn(), TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console or Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def wait_for_rebuild(client: Sightline, progress: Callable[[int, int], None], timeout_s: float) -> RebuildReply:
    """Start a rebuild and pass its progress on until it is done."""
    handle = client.submit_rebuild_index()
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


def rebuild_lines(reply: RebuildReply) -> Iterator[str]:
    """What a rebuild did, as a person reads it."""
    refused = say(" ({count} refused)", count=reply.refused) if reply.refused else ""
    yield _line(say("photos with coordinates:"), reply.with_coordinates)
    yield _line(say("valid files:"), f"{reply.valid_files}{refused}")
    yield _line(say("indexed:"), say("{count} ({now} embedded now)", count=reply.indexed, now=reply.embedded))
    yield _line(say("dimension:"), reply.dimension)
    yield _line(say("model:"), f"{reply.model} ({reply.model_key})")
    yield _line(say("device:"), reply.device)
    size_mb = reply.index_bytes / 1e6
    yield _line(say("index:"), f"{reply.kind}, recall@10 {reply.recall_at_10:.3f}, {size_mb:.1f} MB")
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


def _line(label: str, value: object) -> str:
    return f"{label:<24} {value}"
