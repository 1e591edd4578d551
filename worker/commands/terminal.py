"""How commands meet people and programs: options, consoles, a table or `--json`, exit codes. Knows no command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from producer_client import Pending, Refused
from producer_client.contract import Message
from worker.words import say, why

#: Exit codes beside 0: the request failed, the settings are wrong, the model is missing, a check of `doctor` failed,
#: a worker or a beat ended without a signal that asked it to.
FAILED, BAD_SETTINGS, NO_MODEL, UNWELL, ENDED = 1, 2, 3, 4, 5

#: `sightline up` runs in this folder already.
RUNS_ALREADY = 6

AsJson = Annotated[bool, typer.Option("--json", help=say("Print one JSON object instead of a table."))]
UpdateRows = Annotated[
    bool | None,
    typer.Option(
        "--update-rows/--keep-rows",
        help=say(
            "Whether to write coordinates and addresses to rows of the photos table that are there, where those are no "
            "stronger; SIGHTLINE_WRITE_ROWS unless given."
        ),
        show_default=False,
    ),
]
TimeoutS = Annotated[float, typer.Option("--timeout", help=say("Seconds to wait for a reply."))]

out = Console()
err = Console(stderr=True)


def show(
    as_json: bool, value: Message | dict[str, Any], table: Callable[[], None], *, refused: Sequence[object] = ()
) -> None:
    """Print the value as one JSON object, or the table. The command ends as failed where photos were refused, or are
    on their way."""
    if as_json:
        wire = value if isinstance(value, dict) else value.to_wire()
        sys.stdout.write(json.dumps(wire, ensure_ascii=False) + "\n")
    else:
        table()
    if refused:
        raise typer.Exit(FAILED)


def print_refused(refused: Sequence[Refused]) -> None:
    """A table of what was refused and why, where anything was."""
    if refused:
        shown = Table(say("photo"), say("code"), say("why"), title=say("refused: {count}", count=len(refused)))
        for outcome in refused:
            words = f"{why(outcome.code)}{outcome.message}"
            shown.add_row(escape(outcome.ref), f"[red]{outcome.code}[/]", escape(words))
        out.print(shown)


def print_pending(pending: Sequence[Pending]) -> None:
    """How many are on their way, and what is known of it, where any are."""
    if pending:
        count = len(pending)
        out.print(say("[yellow]{count} on their way[/]: sent and not answered; they may still be taken", count=count))
        out.print(escape(pending[0].message))


def fail(message: str, code: int = FAILED) -> NoReturn:
    """End the command with a sentence and an exit code."""
    err.print(f"[bold red]sightline:[/] {escape(message)}", highlight=False)
    raise SystemExit(code)
