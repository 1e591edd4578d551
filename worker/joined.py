"""The commands joined, in their order, and what an error looks like: a sentence and an exit code."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer
from pydantic import ValidationError
from typer.exceptions import Abort, TyperException

from producer_client import Code, SightlineError
from worker.commands import (
    audit,
    conflicts,
    doctor,
    exam,
    exporting,
    health,
    index,
    keeping,
    machine,
    metrics,
    moving,
    parked,
    photos,
    quarantine,
    questions,
    refused,
    service,
    tune,
    where,
)
from worker.commands.pages import Command, Group, speak, usage_fault
from worker.commands.terminal import BAD_SETTINGS, FAILED, fail, with_code
from worker.errors import WorkerError
from worker.invalid import fault
from worker.settings import PREFIX
from worker.signals import INTERRUPTED
from worker.words import in_language, say, told

#: In the order in which `sightline --help` shows them.
COMMANDS: tuple[Callable[..., None], ...] = (
    machine.up,
    machine.down,
    service.worker,
    service.beat,
    service.migrate,
    exporting.export,
    photos.add,
    moving.import_legacy,
    moving.backfill,
    photos.embed,
    questions.search,
    questions.locate,
    index.rebuild,
    index.reconcile,
    photos.remove,
    photos.purge,
    where.where,
    audit.audit,
    refused.refused,
    quarantine.quarantine,
    conflicts.conflicts,
    conflicts.confirm,
    conflicts.reject,
    index.generations,
    index.rollback,
    index.stats,
    exam.exam,
    tune.tune,
    keeping.backup,
    keeping.restore,
    parked.parked,
    doctor.doctor,
    health.health,
    metrics.metrics,
)

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
for command in COMMANDS:
    paragraphs = say(inspect.cleandoc(command.__doc__ or "")).split("\n\n")
    # typer keeps the ends of lines of all but the first, and breaks them once more.
    words = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    cli.command(cls=Command, help=words, options_metavar=say("[OPTIONS]"))(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sightline {version('sightline-worker')}")
        raise typer.Exit


@cli.callback()
def _options(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help=say("Show the version and exit.")),
    ] = False,
) -> None: ...


def run() -> None:
    """The command that the process was started with. Every expected error is a sentence and an exit code, never a
    traceback."""
    speak()
    # What a command has to say it says itself; Python would print the log's warnings between its lines, and beside its
    # JSON. Workers and beat write theirs (worker.logs).
    logging.getLogger().addHandler(logging.NullHandler())
    try:
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
