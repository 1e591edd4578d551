"""The index: made anew, its generations, and what the service knows."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from producer_client.contract import StatsReply
from worker.commands.connections import open_client, open_store
from worker.commands.terminal import AsJson, TimeoutS, out, show
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
        shown = Table(
            say("generation"), "", say("photos"), say("kind"), "recall@10", "MB", "seq", say("published"), say("model")
        )
        states = {
            "serving": say("[green]serving[/]"),
            "withdrawn": say("[yellow]withdrawn[/]"),
            "lost": say("[red]lost[/]"),
        }
        for g in kept:
            shown.add_row(
                str(g.number),
                states.get(g.state, g.state),
                str(g.count),
                g.kind or "",
                "" if g.recall_at_10 is None else f"{g.recall_at_10:.3f}",
                "" if g.index_bytes is None else f"{g.index_bytes / 1e6:.1f}",
                str(g.seq),
                g.published_at,
                g.model_key,
            )
        out.print(shown if kept else say("no generation is published yet. Run `sightline rebuild`."))

    show(as_json, {"generations": [dataclasses.asdict(g) for g in kept]}, table)


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
