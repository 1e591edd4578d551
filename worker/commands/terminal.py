"""How commands meet people and programs: options, consoles, a table or `--json`, exit codes. Knows no command."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from typer.exceptions import TyperException

from producer_client.arguments import LONGEST_WAIT_S
from producer_client.contract import Code, Message, Refused
from producer_client.errors import short
from producer_client.language import to_say
from worker.commands.tables import PathShown, Table, printable
from worker.signals import INTERRUPTED
from worker.words import in_language, say, told

if TYPE_CHECKING:
    from producer_client import Pending

#: Exit codes beside 0: the request failed, settings or arguments are wrong, the model is missing, a check of `doctor`
#: failed, `up` runs in this folder already.
FAILED, BAD_SETTINGS, NO_MODEL, UNWELL, RUNS_ALREADY = 1, 2, 3, 4, 6

#: Refused photos of one command that are shown; --json has all.
SHOWN = 100

#: Of a row of the photos table, or of a generation.
HIGHEST_ID = 2**63 - 1

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
TimeoutS = Annotated[
    float, typer.Option("--timeout", min=0, max=LONGEST_WAIT_S, help=say("Seconds to wait for a reply."))
]
PhotoIds = Annotated[
    list[int],
    typer.Argument(metavar=say("PHOTO_IDS"), min=0, max=HIGHEST_ID, help=say("Ids of rows of the photos table.")),
]

OnlyPhotoIds = Annotated[
    list[int] | None,
    typer.Argument(
        metavar=say("PHOTO_IDS"), min=0, max=HIGHEST_ID, help=say("Only these, by their ids in the photos table.")
    ),
]
Limit = Annotated[int, typer.Option(min=0, help=say("Photos to show at the most; 0 shows all."))]

out = Console()
err = Console(stderr=True)


class Misused(TyperException):
    """What is wrong in the words of a command, in the language that is set: a sentence with its code, the exit code of
    wrong arguments, and, from `pages.Command`, whose help says what is right."""

    exit_code = BAD_SETTINGS

    def __init__(self, message: str, code: Code = Code.BAD_REQUEST) -> None:
        super().__init__(message)
        self.code = code
        self.ctx: typer.Context | None = None


def show(
    as_json: bool, value: Message | dict[str, Any], table: Callable[[], None], *, refused: Sequence[object] = ()
) -> None:
    """Print the value as one JSON object, or the table. The command ends as failed where photos were refused, or are
    on their way."""
    if as_json:
        wire = value if isinstance(value, dict) else value.to_wire()
        _print_json(wire)
    else:
        table()
    if refused:
        raise typer.Exit(FAILED)


def print_refused(refused: Sequence[Refused]) -> None:
    """A table of what was refused and why, where anything was."""
    if not refused:
        return
    shown = Table(title=say("refused: {count}", count=len(refused)), show_lines=True)
    shown.add_column(say("photo"), min_width=20)
    shown.add_column(say("code"))
    shown.add_column(say("why"))
    for outcome in refused[:SHOWN]:
        words = told(outcome.code, named_shortly(outcome.message, outcome.ref))
        shown.add_row(PathShown(in_language(outcome.ref)), f"[red]{outcome.code}[/]", escape(words))
    out.print(shown)
    if len(refused) > SHOWN:
        for line in count_lines(outcome.code for outcome in refused):
            out.print(line, highlight=False)
        out.print(say("not all are shown; --json has all of them"))


def print_pending(pending: Sequence[Pending]) -> None:
    """How many are on their way, and what is known of it, where any are."""
    if pending:
        count = len(pending)
        out.print(say("[yellow]{count} on their way[/]: sent and not answered; they may still be taken", count=count))
        out.print(escape(in_language(pending[0].message)))


def count_lines(codes: Iterable[str]) -> Iterator[str]:
    for code, count in Counter(codes).most_common():
        yield f"{code}: {count}"


def named_shortly(message: str, path: str) -> str:
    """A sentence in whose table the path stands beside it: there the file's name is enough, where the path is no part
    of a longer one."""
    # Not by its real path: where a link leads is what is to be read.
    for spelling in (os.path.abspath(path), path) if "/" in path.strip("/") else ():  # noqa: PTH100
        whole = rf"(?<![\w/.…-]){re.escape(spelling)}(?![\w/])"
        message = re.sub(whole, lambda _: f"…/{path.rpartition('/')[2]}", message)
    return message


@contextmanager
def told_when_stopped(total: int) -> Iterator[Callable[[int, int], None]]:
    """Ctrl-C while photos are added says what is stored and what goes on. Yields what is to hear of the progress."""
    from producer_client.bulk import BULK_IN_FLIGHT, BULK_SIZE  # and with it Celery

    answered = 0

    def hear(done: int, _: int) -> None:
        nonlocal answered
        answered = done

    try:
        yield hear
    except KeyboardInterrupt:
        others = total - answered
        sent = min(others, BULK_IN_FLIGHT * BULK_SIZE)
        words = to_say(
            "stopped: {answered} of {total} photos are answered for. Up to {sent} more are with the workers, who go on "
            "with them; the others were not sent. The same command again adds the rest, and those that are stored cost "
            "hardly any time."
        )
        if sent == others:
            words = to_say(
                "stopped: {answered} of {total} photos are answered for. Up to {sent} more are with the workers, who "
                "go on with them. The same command again adds the rest, and those that are stored cost hardly any time."
            )
        fail(say(words, answered=answered, total=total, sent=sent), INTERRUPTED, code=Code.TIMED_OUT)


#: Of what is sent page by page, as Postgres says what lacks.
GOING_ON = to_say(
    "stopped: the workers go on with the photos that they have. The same command again goes on with all that lack "
    "their vector then."
)


@contextmanager
def goes_on(sentence: str) -> Iterator[None]:
    """Around what goes on when it is waited for no longer: Ctrl-C says so."""
    try:
        yield
    except KeyboardInterrupt:
        fail(sentence, INTERRUPTED, code=Code.TIMED_OUT)


def fail(
    message: str, exit_code: int = FAILED, *, code: Code = Code.BAD_REQUEST, english: str | None = None
) -> NoReturn:
    """End the command with a sentence and an exit code. Programs get the code and the sentence, in English where it is
    known."""
    if "--json" in sys.argv:
        error = {"code": code, "message": short(message if english is None else english)}
        _print_json({"error": error})
    said = f"[bold red]sightline:[/] {escape(printable(in_language(short(message))))}"
    for line in said.splitlines():
        # What begins so is to be pasted, or another program's words: no edge of a terminal breaks it.
        err.print(line, highlight=False, soft_wrap=line.startswith("  "))
    raise SystemExit(exit_code)


def _print_json(value: object) -> None:
    # As on the queue (producer_client.serializer): JSON has neither NaN nor infinity.
    finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
    # A file's name may be no UTF-8: what no encoding has is written as JSON escapes it.
    said = json.dumps(finite, ensure_ascii=False).encode(errors="backslashreplace").decode()
    sys.stdout.write(f"{said}\n")


def with_code(sentence: str, code: Code) -> str:
    """The sentence with its code, which stands before what another program has said, on the lines below."""
    own, *below = re.split(r"(?=(?:\n  .*)+\Z)", sentence, maxsplit=1)
    return f"{own} [{code}]{''.join(below)}"
