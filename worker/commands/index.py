"""The index: made anew, its generations, and what the service knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.markup import escape

from producer_client.contract import RebuildRun, ReconcileReply, StatsReply, Stuck
from producer_client.language import to_say
from worker.commands.connections import open_client, open_store
from worker.commands.tables import Table, moment
from worker.commands.terminal import HIGHEST_ID, AsJson, TimeoutS, goes_on, out, show
from worker.core.generations import PublishedGeneration
from worker.progress import progress_bar, rebuild_lines, wait_for_rebuild
from worker.settings import load as load_settings
from worker.words import in_language, say

#: What figures of StatsReply are called where the field's name does not say it.
FIGURES = {
    "has_text": to_say("reads text"),
    "generation_count": to_say("photos in the generation"),
    "delta": to_say("photos added or changed since"),
    "recall_at_10": to_say("recall@10"),
    "recall_at_10_at_least": to_say("recall@10 for new photos, at least"),
    "rss_mb": to_say("memory of this worker, MB"),
    "changed": to_say("files that have changed"),
    "gone": to_say("files that are gone"),
    "without_keypoints": to_say("pictures that the next rebuild looks at"),
    "conflicts": to_say("positions that are contradicted"),
    "learnt_places": to_say("places that taught what answers are worth"),
    "examined": to_say("photos that were asked about"),
    "stuck": to_say("messages that a thread was stuck at"),
    "exam_passed": to_say("the exam passed"),
    "sandbox": to_say("decoders are confined by"),
    "live_recall_at_10": to_say("recall@10 of this worker's searches"),
    "live_recall_searches": to_say("searches that were repeated to tell"),
    "answers_flipped": to_say("share of first photos that the newest generation changed"),
}


def rebuild(
    force: Annotated[
        bool,
        typer.Option("--force", help=say("Publish it also where its exam is clearly worse than the baseline.")),
    ] = False,
    as_json: AsJson = False,
    timeout: TimeoutS = 3600.0,
) -> None:
    """Rebuild the index now, and show how far it is."""
    going_on = say("stopped waiting: the rebuild goes on, and `sightline stats` shows how far it is")
    with open_client(load_settings()) as client, goes_on(going_on), progress_bar(say("rebuilding")) as progress:
        reply = wait_for_rebuild(client, progress, timeout, force=force)

    def table() -> None:
        for line in rebuild_lines(reply):
            out.print(line)

    show(as_json, reply, table)


def reconcile(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help=say("Tell what would be sent again and marked, and change nothing."))
    ] = False,
    as_json: AsJson = False,
    timeout: TimeoutS = 60.0,
) -> None:
    """Send photos of the table again that lack a vector, and look at the next files, as workers do all day."""
    with open_client(load_settings()) as client:
        reply = client.reconcile(dry_run=dry_run, timeout_s=timeout)

    def table() -> None:
        for line in reconciled_lines(reply):
            out.print(line, highlight=False)

    show(as_json, reply, table)


def reconciled_lines(reply: ReconcileReply) -> Iterator[str]:
    if not reply.ran:
        yield say("another one looks just now")
        return
    if reply.dry_run:
        yield say("nothing was changed; it would be:")
    yield say(
        "photos that lack a vector: {seen} seen for the first time, {sent} sent again, {waiting} on their way",
        seen=reply.seen,
        sent=len(reply.sent),
        waiting=reply.waiting,
    )
    yield say(
        "{files} files looked at: {changed} changed, {gone} gone, {unknown} that the disk does not tell of",
        files=reply.files,
        changed=len(reply.changed),
        gone=len(reply.gone),
        unknown=reply.unknown,
    )
    if reply.unknown_why:
        yield escape(in_language(reply.unknown_why))


def generations(as_json: AsJson = False) -> None:
    """Show the index generations that are kept, and which one serves."""
    with open_store(load_settings()) as store:
        kept = store.generations.kept()

    def table() -> None:
        out.print(generations_table(kept) if kept else say("no generation is published yet. Run `sightline rebuild`."))
        for line in exam_lines(kept):
            out.print(line, highlight=False)

    show(as_json, {"generations": [dataclasses.asdict(g) for g in kept]}, table)


def generations_table(kept: Sequence[PublishedGeneration]) -> Table:
    """All of it in 80 columns: two lines each, and the name of the model on as many as it takes."""
    shown = Table(say("generation"), say("photos"), say("kind"), "recall@10", say("published"), show_lines=True)
    shown.add_column(say("model"))
    states = {
        "serving": say("[green]serving[/]"),
        "kept": say("kept"),
        "withdrawn": say("[yellow]withdrawn[/]"),
        "lost": say("[red]lost[/]"),
    }
    for g in kept:
        recall = "" if g.recall_at_10 is None else f"{g.recall_at_10:.3f}"
        promised = "" if g.recall_at_10_at_least is None else f"≥ {g.recall_at_10_at_least:.3f}"
        size = "" if g.index_bytes is None else say("{size:.1f} MB", size=g.index_bytes / 1e6)
        shown.add_row(
            f"{g.number}\n{states.get(g.state, g.state)}",
            f"{g.count}\nseq {g.seq}",
            f"{g.kind or ''}\n{size}",
            f"{recall}\n{promised}",
            moment(g.published_at, "\n"),
            escape(g.model_key),
        )
    return shown


def exam_lines(kept: Sequence[PublishedGeneration]) -> Iterator[str]:
    """Of each generation, from what its answers' probability was learnt, and what its exam says."""
    for g in kept:
        if g.learnt_places is None:
            learnt = say("nothing was learnt from its photos")
        else:
            learnt = say("learnt from {photos} photos of {places} places", photos=g.examined, places=g.learnt_places)
        if g.exam_passed is None:
            passed = say("no exam")
        else:
            passed = say("[green]exam passed[/]") if g.exam_passed else say("[red]exam failed[/]")
        words = [learnt, passed, escape(in_language(g.exam_says)) if g.exam_says else ""]
        yield f"{g.number}: {'; '.join(filter(None, words))}"


def rollback(
    number: Annotated[
        int,
        typer.Argument(
            metavar=say("NUMBER"), min=1, max=HIGHEST_ID, help=say("One that is kept; see `sightline generations`.")
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Let a kept generation serve again. No photo is lost: what came since is replayed from the log."""
    settings = load_settings()
    with open_store(settings) as store:
        withdrawn = store.generations.roll_back(number)

    def told() -> None:
        out.print(
            say(
                "generation [cyan]{number}[/] serves. Workers hear of it within {seconds:g} s and search in it once "
                "they have loaded it, until then in the one before.",
                number=number,
                seconds=settings.max_staleness_s,
            )
        )
        if withdrawn:
            numbers = ", ".join(map(str, withdrawn))
            out.print(say("Withdrawn, and deleted by the next rebuild: {numbers}", numbers=numbers))

    show(as_json, {"serving": number, "withdrawn": withdrawn}, told)


def stats(as_json: AsJson = False, timeout: TimeoutS = 30.0) -> None:
    """Show what the service knows: photos, index, model, last rebuild."""
    with open_client(load_settings()) as client:
        reply = client.stats(timeout_s=timeout)
    show(as_json, reply, lambda: out.print(stats_table(reply)))


def stats_table(reply: StatsReply) -> Table:
    shown = Table(show_header=False, title="Sightline")
    shown.add_column()
    shown.add_column()
    for name, value in reply.to_wire().items():
        if name == "generation_published_at" and value is not None:
            value = moment(value)
        if name == "stuck":
            value = "\n".join(map(_stuck_as_text, reply.stuck))
        if name != "last_rebuild":
            shown.add_row(figure(name), escape(_as_text(value)))
    shown.add_row(say("last rebuild"), _rebuild_as_text(reply.last_rebuild))
    return shown


def figure(name: str) -> str:
    """What a field of StatsReply counts."""
    return say(FIGURES.get(name, name.replace("_", " ")))


def _as_text(value: object) -> str:
    if value is None:
        return say("none")
    if isinstance(value, bool):
        return say("yes") if value else say("no")
    return str(value)


def _stuck_as_text(found: Stuck) -> str:
    return say(
        "{task} {task_id}, after {seconds} s, {at}",
        task=found.task,
        task_id=found.task_id,
        seconds=found.for_s,
        at=moment(found.at),
    )


def _rebuild_as_text(run: RebuildRun | None) -> str:
    if run is None:
        return say("none yet")
    states = {"running": say("running"), "done": say("done"), "failed": say("failed")}
    state = states.get(run.state, run.state)
    if run.state == "running":
        phases = {
            "start": say("beginning"),
            "check": say("checking"),
            "embed": say("embedding"),
            "look": say("looking at pictures"),
            "conflicts": say("looking for conflicts"),
            "train": say("training the index"),
            "write": say("writing the index"),
            "examine": say("asking about known photos"),
            "upload": say("uploading the index"),
        }
        state = f"{state}, {phases.get(run.phase, run.phase)} {run.done}/{run.total}"
    if run.error:
        state = f"{state}: {in_language(run.error)}"
    return escape(say("{run}, started {at}", run=state, at=moment(run.started_at)))
