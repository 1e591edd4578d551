"""`sightline`: run the service, use it, look into it. Joins the commands; tables for people, `--json` for programs."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable

import typer
from pydantic import ValidationError

from producer_client import SightlineError
from worker.commands import doctor, index, keeping, machine, moving, parked, photos, questions, service
from worker.commands.terminal import BAD_SETTINGS, fail
from worker.errors import WorkerError
from worker.settings import PREFIX
from worker.words import say, why

#: In the order in which `sightline --help` shows them.
COMMANDS: tuple[Callable[..., None], ...] = (
    machine.up,
    machine.down,
    service.worker,
    service.beat,
    service.migrate,
    photos.add,
    moving.import_legacy,
    moving.backfill,
    photos.embed,
    questions.search,
    questions.locate,
    index.rebuild,
    photos.remove,
    photos.purge,
    index.generations,
    index.rollback,
    index.stats,
    keeping.backup,
    keeping.restore,
    parked.parked,
    doctor.doctor,
)

cli = typer.Typer(
    help=say("Where was this photo taken, judging by the photos we already know?"),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in COMMANDS:
    cli.command(help=say(inspect.cleandoc(command.__doc__ or "")))(command)


def main() -> None:
    """Entry point: every expected error is a sentence and an exit code, never a traceback."""
    try:
        cli()
    except (SightlineError, WorkerError) as exc:
        if "--json" in sys.argv:
            sys.stdout.write(json.dumps({"error": {"code": exc.code, "message": exc.message}}) + "\n")
        fail(f"{why(exc.code)}{exc}")
    except ValidationError as exc:
        wrong = "; ".join(f"{PREFIX}{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in exc.errors())
        fail(say("the settings are wrong: {wrong}", wrong=wrong), BAD_SETTINGS)


if __name__ == "__main__":
    main()
