"""Running the service: everything on this machine, or one process of it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer
from kombu.utils.url import maybe_sanitize_url
from rich.markup import escape

from worker import upenv
from worker.commands.connections import open_store
from worker.commands.terminal import BAD_SETTINGS, ENDED, NO_MODEL, AsJson, err, fail, out, show
from worker.errors import EncoderUnavailable, Permanent
from worker.settings import Settings
from worker.settings import load as load_settings
from worker.words import say


def up() -> None:
    """Run everything on this machine, with its own Postgres and Valkey, until Ctrl-C.

    With SIGHTLINE_DATABASE_URL it runs on that Postgres: your backend's, whose photos table is then used as it is.
    """
    from worker.stack import Stack, raise_on_signals

    settings = load_settings(note=False)
    own_database = "database_url" not in settings.model_fields_set
    raise_on_signals()
    note = settings.data_dir / "up.env"
    try:
        with Stack(settings, own_database=own_database) as stack:
            stack.start_all()
            with err.status(say("starting: servers are up, the worker loads its model")) as status:
                stack.wait_ready(
                    lambda seconds: status.update(say("the worker loads its model, {seconds:.0f} s", seconds=seconds))
                )
            _write_note(note, stack.settings)
            err.print(
                say(
                    "[bold green]Sightline is up.[/] Broker [cyan]{broker}[/], its password in {note}; photos under "
                    "[cyan]{roots}[/].\n"
                    "In another terminal of this folder: [bold]sightline stats[/]. Ctrl-C stops it.",
                    broker=maybe_sanitize_url(stack.settings.broker_url),
                    note=note,
                    roots=", ".join(map(str, settings.photo_roots)) or say("no folder: set SIGHTLINE_PHOTO_ROOTS"),
                )
            )
            err.print(_which_database(stack.settings, own=own_database))
            while True:
                stack.check()
                time.sleep(1)
    except KeyboardInterrupt:
        err.print(say("stopped"))
    except RuntimeError as exc:
        fail(str(exc))
    finally:
        note.unlink(missing_ok=True)


def worker(
    role: Annotated[str, typer.Option(help=say("serve: photos and questions. index: rebuilds."))] = "serve",
    queues: Annotated[str, typer.Option(help=say("Queues to serve, with commas, instead of the role's own."))] = "",
) -> None:
    """Run one worker process. Start as many as you like, on as many machines."""
    from worker import logs
    from worker.app import ROLES, create_app
    from worker.running import run_worker
    from worker.storage.objects import ObjectFolder

    settings = load_settings()
    if role not in ROLES:
        fail(say("--role is one of {roles}", roles=", ".join(ROLES)), BAD_SETTINGS)
    if settings.index_url:
        # Otherwise the first rebuild, or the first generation to fetch, would be the one to find out.
        ObjectFolder(settings.index_url).check()
    logs.configure(settings.log_level)
    app = create_app(settings)
    if role == "serve":
        # The model is loaded before the first message is taken: a worker without one must not start.
        try:
            app.runtime.start(follow=True)  # type: ignore[attr-defined]  # set by create_app
        except EncoderUnavailable as exc:
            fail(exc.message, NO_MODEL)
        except Permanent as exc:
            fail(exc.message)
    if role == "index":
        # Celery reads this when its worker starts. SIGTERM then waits for a rebuild in hand no longer than
        # worker_soft_shutdown_timeout; a rebuild that is cut off has published nothing.
        os.environ["REMAP_SIGTERM"] = "SIGQUIT"
    asked = run_worker(app, role=role, queues=queues, concurrency=settings.concurrency, log_level=settings.log_level)
    if not asked:
        fail(say("the worker has ended by itself; its log says why"), ENDED)


def beat() -> None:
    """Run the beat. Any number of them is safe: what is due is decided in Postgres."""
    from worker.app import create_app
    from worker.running import run_beat

    settings = load_settings()
    run_beat(create_app(settings), log_level=settings.log_level)
    fail(say("the beat has ended by itself; its log says why"), ENDED)


def migrate(as_json: AsJson = False) -> None:
    """Bring the database to this release's schema."""
    from worker.storage.migrate import migrate as run

    settings = load_settings()
    with open_store(settings) as store, store.database.guard():
        revision = run(
            store.database.engine,
            schema=settings.db_schema,
            photos_table=settings.photos_table,
            columns=settings.photos_columns,
        )
    show(
        as_json,
        {"revision": revision},
        lambda: out.print(say("the database is at revision [cyan]{revision}[/]", revision=revision)),
    )


def _which_database(settings: Settings, *, own: bool) -> str:
    with open_store(settings) as store:
        address = escape(store.database.address)
    if own:
        return say(
            "Photos are rows of the table [cyan]{table}[/] in a Postgres of its own: [cyan]{address}[/]. To use your "
            "backend's table and ids, set [bold]SIGHTLINE_DATABASE_URL[/] to your backend's Postgres and start again.",
            table=settings.photos_table,
            address=address,
        )
    return say(
        "Photos are rows of the table [cyan]{table}[/] in the Postgres of SIGHTLINE_DATABASE_URL: [cyan]{address}[/].",
        table=settings.photos_table,
        address=address,
    )


def _write_note(note: Path, settings: Settings) -> None:
    """Gives the other commands of this folder the settings and servers of `sightline up` (see worker.settings)."""
    upenv.write(note, settings.as_env())
