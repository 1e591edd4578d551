"""The index: made anew, its generations, and what the service knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from producer_client.contract import StatsReply
from worker.commands.connections import open_client, open_store
from worker.commands.terminal import AsJson, TimeoutS, out, show
from worker.core.types import PublishedGeneration
from worker.progress import progress_bar, rebuild_lines, wait_for_rebuild
from worker.settings import load as load_settings
from worker.words import say


def rebuild(as_json: AsJson = False, timeout: TimeoutS = 3600.0) -> None:
    """Rebuild the index now, and show how far it is."""
    with open_client(load_settings()) as client, progress_bar(say("rebuilding")) as progress:
        reply = wait_for_rebuild(client, progress, timeout)

    def table() -> None:
        for line in rebuild_lines(reply):
            out.print(line)

    show(as_json, reply, table)


def generations(as_json: AsJson = False) -> None:
    """Show the index generations that are kept, and which one serves."""
    with open_store(load_settings()) as store:
        kept = store.generations.kept()

    def table() -> None:
        out.print(generations_table(kept) if kept else say("no generation is published yet. Run `sightline rebuild`."))

    show(as_json, {"generations": [dataclasses.asdict(g) for g in kept]}, table)


def generations_table(kept: Sequence[PublishedGeneration]) -> Table:
    """All of it in 80 columns: two lines each, and the name of the model on as many as it takes."""
    shown = Table(say("generation"), say("photos"), say("kind"), "recall@10", say("published"), show_lines=True)
    shown.add_column(say("model"), overflow="fold")
    states = {
        "serving": say("[green]serving[/]"),
        "withdrawn": say("[yellow]withdrawn[/]"),
        "lost": say("[red]lost[/]"),
    }
    for g in kept:
        recall = "" if g.recall_at_10 is None else f"{g.recall_at_10:.3f}"
        promised = "" if g.recall_at_10_at_least is None else f"≥ {g.recall_at_10_at_least:.3f}"
        day, _, hour = g.published_at.removesuffix("+00:00").partition("T")
        size = "" if g.index_bytes is None else f"{g.index_bytes / 1e6:.1f} MB"
        shown.add_row(
            f"{g.number}\n{states.get(g.state, g.state)}",
            f"{g.count}\nseq {g.seq}",
            f"{g.kind or ''}\n{size}",
            f"{recall}\n{promised}",
            f"{day}\n{hour} UTC",
            g.model_key,
        )
    return shown


def rollback(
    number: Annotated[
        int, typer.Argument(min=1, max=2**63 - 1, help=say("One that is kept; see `sightline generations`."))
    ],
    as_json: AsJson = False,
) -> None:
    """Let a kept generation serve again. No photo is lost: what came since is replayed from the log."""
    settings = load_settings()
    with open_store(settings) as store:
        withdrawn = store.generations.roll_back(number)
    show(
        as_json,
        {"serving": number, "withdrawn": withdrawn},
        lambda: out.print(
            say(
                "generation [cyan]{number}[/] serves; workers take it over within {seconds:g} s and its reading. "
                "Withdrawn, and deleted by the next rebuild: {withdrawn}",
                number=number,
                seconds=settings.max_staleness_s,
                withdrawn=", ".join(map(str, withdrawn)) or say("none"),
            )
        ),
    )


def stats(as_json: AsJson = False, timeout: TimeoutS = 30.0) -> None:
    """Show what the service knows: photos, index, model, last rebuild."""
    with open_client(load_settings()) as client:
        reply = client.stats(timeout_s=timeout)
    show(as_json, reply, lambda: out.print(_stats_table(reply)))


def _stats_table(reply: StatsReply) -> Table:
    shown = Table(show_header=False, title="Sightline")
    for name, value in reply.to_wire().items():
        if name != "last_rebuild":
            shown.add_row(say(name.replace("_", " ")), escape(str(value)))
    run = reply.last_rebuild
    if run is None:
        shown.add_row(say("last rebuild"), say("none yet"))
    else:
        detail = run.error or (f"{run.done}/{run.total}" if run.state == "running" else "")
        words = f"{run.state} {run.phase} {detail}".strip().replace("  ", " ")
        shown.add_row(say("last rebuild"), say("{run}, started {at}", run=escape(words), at=run.started_at))
    return shown
