"""Running one process of the service, and its migrations."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.markup import escape

from producer_client.words import Queue
from worker.commands.connections import open_store
from worker.commands.terminal import NO_MODEL, AsJson, Misused, err, fail, out, show
from worker.core import starting
from worker.errors import EncoderUnavailable, Permanent, Transient
from worker.processes import ROLES
from worker.roots import faults
from worker.settings import load as load_settings
from worker.signals import ENDED
from worker.words import say


def worker(
    role: Annotated[str, typer.Option(help=say("serve: photos and questions. index: rebuilds."))] = "serve",
    queues: Annotated[str, typer.Option(help=say("Queues to serve, with commas, instead of the role's own."))] = "",
) -> None:
    """Run one worker process. Start as many as you like, on as many machines."""
    with starting.uncollected():
        from worker import logs
        from worker.loading import Loading
        from worker.pulse import Pulse
        from worker.sandbox.port import level_of

    if role not in ROLES:
        raise Misused(say("--role is one of {roles}", roles=", ".join(ROLES)))
    if unknown := set(filter(None, queues.split(","))) - set(Queue):
        raise Misused(
            say("--queues is of {queues}, not {unknown}", queues=", ".join(Queue), unknown=", ".join(sorted(unknown)))
        )
    settings = load_settings()
    starting.reached("settings")
    if settings.index_url:
        from worker.storage.objects import ObjectFolder

        # Otherwise the first rebuild, or the first generation to fetch, would be the one to find out.
        ObjectFolder(settings.index_url).check()
    logs.configure(settings.log_level, settings.log_format)
    for fault in faults(settings.photo_roots).values():
        err.print(escape(fault), soft_wrap=True, highlight=False)
    loading, pulse = Loading(settings), Pulse(role, settings.data_dir, stall_s=settings.stall_s)
    pulse.start()
    with _a_model_or_the_end():
        if role == "serve":
            loading.begin()
        elif settings.sandbox == "required":
            # It would find it out with its first photo; who answers has its decoders started above.
            level_of(settings)
    with starting.uncollected():
        # Not before: of all that a start takes, these take longest, and models are opened meanwhile.
        from worker.app import create_app
        from worker.running import run_worker, tell_metrics

        app = create_app(settings, role, loading=loading, pulse=pulse)
        tell_metrics(app, settings, role=role)
        with _a_model_or_the_end():
            if role == "serve":
                # The model is loaded before the first message is taken: a worker without one must not start.
                app.runtime.start(follow=True)  # type: ignore[attr-defined]  # set by create_app
    gc.freeze()  # what there is now stays, and need not be looked at any more
    if role == "index":
        # Celery reads this when its worker starts. SIGTERM then waits for a rebuild in hand no longer than
        # worker_soft_shutdown_timeout; a rebuild that is cut off has published nothing.
        os.environ["REMAP_SIGTERM"] = "SIGQUIT"
    asked = run_worker(app, settings, role=role, queues=queues)
    if not asked:
        fail(say("the worker has ended by itself; its log says why"), ENDED)


@contextmanager
def _a_model_or_the_end() -> Iterator[None]:
    try:
        yield
    except EncoderUnavailable as exc:
        fail(exc.message, NO_MODEL)
    except (Permanent, Transient) as exc:
        fail(exc.message)


def beat() -> None:
    """Run the beat. Any number of them is safe: what is due is decided in Postgres."""
    from worker import logs
    from worker.app import create_app
    from worker.broker import pulse_of
    from worker.running import run_beat, tell_metrics

    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format)
    app = create_app(settings, "beat")
    pulse_of(app).start()
    tell_metrics(app, settings, role="beat")
    asked = run_beat(app, settings)
    pulse_of(app).end()
    if not asked:
        fail(say("the beat has ended by itself; its log says why"), ENDED)


def migrate(
    grant: Annotated[
        str, typer.Option(help=say("A role of Postgres that services run as: it may do that, no more."))
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Bring the database to this release's schema."""
    with open_store(load_settings()) as store:
        revision = store.migrate()
        store.rows.table  # noqa: B018  # looked at now, not by the first photo
        if grant:
            store.grant(grant)
    show(
        as_json,
        {"revision": revision},
        lambda: out.print(say("the database is at revision [cyan]{revision}[/]", revision=revision)),
    )
