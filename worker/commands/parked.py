"""`sightline parked`: what lay in the queues and was no message of ours."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from worker.broker import parking
from worker.commands.connections import hinting
from worker.commands.tables import Table, moment, printable
from worker.commands.terminal import AsJson, Misused, fail, out, show
from worker.parking import Parked
from worker.settings import load as load_settings
from worker.words import in_language, say

#: In place of the ids of all that are parked.
ALL = "all"
#: Characters of an item that the table shows; `--json` has it whole.
SHOWN = 60


def parked(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar=say("IDS"), help=say("Their ids, or `all`."), show_default=False),
    ] = None,
    requeue: Annotated[bool, typer.Option("--requeue", help=say("Put these back into their queues."))] = False,
    drop: Annotated[bool, typer.Option("--drop", help=say("Forget these for good."))] = False,
    as_json: AsJson = False,
) -> None:
    """Show what lay in the queues and could not be read, and put it back or drop it."""
    if requeue and drop:
        raise Misused(say("--requeue puts back what --drop forgets: give one of them"))
    if bool(ids) != (requeue or drop):
        raise Misused(say("give --requeue or --drop together with ids, or `all`"))
    ended: list[str] = []
    # What fails in here is told as Redis' fault: nothing is printed before its end.
    with hinting(settings := load_settings()), parking(settings) as kept:
        there = kept.all()
        chosen = [one.id for one in there if not ids or ALL in ids or one.id in ids]
        if unknown := sorted(set(ids or ()) - {ALL, *chosen}):
            fail(say("nothing is parked by {ids}", ids=", ".join(unknown)))
        if requeue or drop:
            ended = kept.requeue(chosen) if requeue else kept.drop(chosen)
    if not (requeue or drop):
        show(as_json, {"parked": [asdict(one) for one in there]}, lambda: print_parked(there))
        return
    left = sorted(set(chosen) - set(ended))

    def table() -> None:
        out.print(_told(ended, requeue=requeue))
        if left:
            out.print(say("without a queue to go back to: {ids}", ids=", ".join(left)))

    show(as_json, {"requeued" if requeue else "dropped": ended, "left": left}, table)


def _told(ended: Collection[str], *, requeue: bool) -> str:
    if requeue:
        return say("back in their queues: {count}", count=len(ended))
    return say("dropped: {count}", count=len(ended))


def print_parked(there: Sequence[Parked]) -> None:
    if not there:
        out.print(say("nothing is parked"))
        return
    shown = Table(title=say("could not be read: {count}", count=len(there)), show_lines=True)
    shown.add_column(say("parked"))
    shown.add_column(say("why"))
    for one in there:
        when = moment(one.at, "\n") if one.at else ""
        place = one.key or say("without a queue")
        what = "\n".join(filter(None, (one.id, place, when)))
        shown.add_row(
            escape(what),
            f"{escape(in_language(one.why))}\n[dim]{escape(_beginning(one.content))}[/]",
        )
    out.print(shown)
    out.print(say("`sightline parked ID --requeue` puts one back, --drop forgets it; `all` stands for all of them"))


def _beginning(content: bytes) -> str:
    item = printable(content.decode(errors="backslashreplace"))
    return item if len(item) <= SHOWN else item[:SHOWN] + "…"
