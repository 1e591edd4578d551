"""The commands joined, in their order, and what an error looks like: a sentence and an exit code."""

from __future__ import annotations

import inspect
import logging
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer
from pydantic import ValidationError
from typer.exceptions import Abort, TyperException

from producer_client import Code, SightlineError
from worker.commands.pages import Command, Group, usage_fault
from worker.commands.terminal import BAD_SETTINGS, FAILED, fail, with_code
from worker.core.starting import uncollected
from worker.errors import WorkerError
from worker.invalid import fault
from worker.settings import PREFIX
from worker.signals import INTERRUPTED
from worker.words import in_language, say, told

#: Every command, in the order in which `sightline --help` shows them, and the room of worker.commands that it is in.
ROOMS = {
    "up": "machine",
    "down": "machine",
    "worker": "service",
    "beat": "service",
    "migrate": "service",
    "export": "exporting",
    "add": "photos",
    "import-legacy": "moving",
    "backfill": "moving",
    "embed": "photos",
    "search": "questions",
    "locate": "questions",
    "rebuild": "index",
    "reconcile": "index",
    "remove": "photos",
    "purge": "photos",
    "where": "where",
    "audit": "audit",
    "refused": "refused",
    "quarantine": "quarantine",
    "conflicts": "conflicts",
    "confirm": "conflicts",
    "reject": "conflicts",
    "generations": "index",
    "rollback": "index",
    "stats": "index",
    "exam": "exam",
    "tune": "tune",
    "backup": "keeping",
    "restore": "keeping",
    "parked": "parked",
    "doctor": "doctor",
    "health": "health",
    "metrics": "metrics",
}


def join(asked: str = "") -> typer.Typer:
    """All commands; the one that is asked for alone, where it is one: the rooms of all take a third of a second."""
    cli = typer.Typer(
        cls=Group,
        help=say("Where was this photo taken, judging by the photos we already know?"),
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        options_metavar=say("[OPTIONS]"),
        subcommand_metavar=say("COMMAND [ARGS]..."),
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name in [asked] if asked in ROOMS else ROOMS:
        command = getattr(import_module(f"worker.commands.{ROOMS[name]}"), name.replace("-", "_"))
        paragraphs = say(inspect.cleandoc(command.__doc__ or "")).split("\n\n")
        # typer keeps the ends of lines of all but the first, and breaks them once more.
        words = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        cli.command(cls=Command, help=words, options_metavar=say("[OPTIONS]"))(command)
    cli.callback()(_options)
    return cli


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sightline {version('sightline-worker')}")
        raise typer.Exit


def _options(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help=say("Show the version and exit.")),
    ] = False,
) -> None: ...


def run() -> None:
    """The command that the process was started with. Every expected error is a sentence and an exit code, never a
    traceback."""
    # What a command has to say it says itself; Python would print the log's warnings between its lines, and beside its
    # JSON. Workers and beat write theirs (worker.logs).
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        with uncollected():
            cli = join(*sys.argv[1:2])
        sys.exit(cli(prog_name="sightline", standalone_mode=False) or 0)
    except (SightlineError, WorkerError) as exc:
        fail(with_code(told(exc.code, exc.message), exc.code), code=exc.code, english=exc.message)
    except ValidationError as exc:
        faults = [(": ".join(map(str, error["loc"][1:])), error) for error in exc.errors()]
        wrong = "; ".join(
            f"{PREFIX}{str(error['loc'][0]).upper()}{within and f' ({within})'}: {in_language(fault(error))}"
            for within, error in faults
        )
        fail(say("the settings are wrong: {wrong}", wrong=wrong), BAD_SETTINGS)
    except TyperException as exc:
        if "NoArgsIsHelp" in type(exc).__name__:
            sys.exit(2)
        fail(usage_fault(exc), exc.exit_code, code=getattr(exc, "code", Code.BAD_REQUEST))
    except (Abort, KeyboardInterrupt):
        fail(say("stopped"), INTERRUPTED)
    except BrokenPipeError:
        sys.exit(FAILED)
