"""A worker or a beat for as long as it runs, and whether its end was asked for. Knows Celery, not what is asked.

Celery's own word is lost: `worker_main` returns None whatever the exit code was, and for an error that ended the worker
as for a stop that was asked for (5.7).
"""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

from celery import Celery, platforms
from celery.apps.beat import Beat
from celery.beat import ScheduleEntry, Scheduler, SchedulingError, Service
from celery.platforms import EX_OK
from celery.signals import worker_process_init, worker_shutting_down
from celery.worker import state
from kombu import Connection

from worker.broker import outage_of, pulse_of
from worker.core import observing
from worker.leaving import Threads, at_once
from worker.processes import ROLES
from worker.runtime import Runtime
from worker.settings import Settings
from worker.signals import ENDED

log = logging.getLogger(__name__)


class Knocking(Scheduler):
    """Sends what is due. A knock that Redis does not take is nothing: the next one will be, and once is said why.
    Celery's own prints where it was called from, twice a minute while Redis is away."""

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """Every few seconds."""
        pulse_of(self.app).turn(redis=not outage_of(self.app).on)
        return super().tick(*args, **kwargs)

    def apply_entry(self, entry: ScheduleEntry, producer: Any = None) -> None:
        try:
            with observing.stage("send", task=entry.task, queue=(entry.options or {}).get("queue")):
                self.apply_async(entry, producer=producer, advance=False)
        except SchedulingError as exc:
            outage_of(self.app).met(exc)
        else:
            outage_of(self.app).over()
            pulse_of(self.app).polled()

    def _ensure_connected(self) -> Connection:
        pulse = pulse_of(self.app)
        return outage_of(self.app).connect(self.connection, callback=lambda: pulse.turn(redis=False))


def slots(settings: Settings, role: str) -> int:
    """Messages at once."""
    return {"serve": settings.concurrency, "index": 1}.get(role, 0)


def tell_metrics(app: Celery, settings: Settings, *, role: str) -> None:
    """Answer Prometheus from now on, where the settings say at which port. A process that forks does so by its child,
    which does the work; a child that takes its place begins anew, at the same port."""
    host, port = settings.metrics_host, settings.metrics_port
    if port is None:
        return
    from worker.observe.process import registry_of
    from worker.observe.server import Shared, address, serve, take, take_later

    taken, where = take(host, port), Shared()
    runtime: Runtime = app.runtime  # type: ignore[attr-defined]  # set by create_app
    runtime.metrics_at = where.get
    if taken is not None:
        where.set(address(taken))

    def begin(**_: Any) -> None:
        registry, heard = registry_of(settings, runtime.figures, role=role, slots=slots(settings, role))
        observing.listen(heard)
        if taken is not None:
            serve(taken, registry)
            return
        where.set("")  # that of a child before this one is free again

        def later(found: socket.socket) -> None:
            serve(found, registry)
            where.set(address(found))

        take_later(host, port, later)

    if role == "index":
        worker_process_init.connect(begin, weak=False)
    else:
        begin()


def run_worker(app: Celery, settings: Settings, *, role: str, queues: str) -> bool:
    """Returns when the worker has ended: whether a signal asked for that. queues: instead of the role's own."""
    asked = False
    if role == "serve":
        pulse_of(app).about = app.runtime.readiness  # type: ignore[attr-defined]  # set by create_app

    def note(**_: Any) -> None:
        nonlocal asked
        asked = True
        if isinstance(running.pool, Threads):
            running.pool.leave_by_force()

    concurrency = slots(settings, role)
    taken_from = queues or ",".join(queue.value for queue in ROLES[role])
    app.runtime.work = lambda: {  # type: ignore[attr-defined]  # set by create_app
        "queues": taken_from.split(","),
        "slots": concurrency,
        "busy": len(state.active_requests),
    }
    # Sent by the handlers of SIGTERM, SIGINT and SIGQUIT alone.
    worker_shutting_down.connect(note)
    running: Any = app.Worker(
        # The index role forks its child before anything of torch or FAISS is imported (faiss #5206).
        pool_cls=Threads if role == "serve" else "prefork",
        concurrency=concurrency,
        queues=taken_from,
        hostname=f"{role}-{os.getpid()}@{socket.gethostname()}",
        loglevel=_level(settings.log_level),
        # Who reads JSON has no use for a drawing.
        quiet=settings.log_format == "json",
        # Workers of this kind have nothing to say to each other.
        without_gossip=True,
        without_mingle=True,
    )
    running.start()
    # By SIGHUP, upon which Celery starts the same program anew in the same process.
    again = state.should_stop is not False and state.should_stop == EX_OK
    if isinstance(running.pool, Threads) and running.pool.left:
        at_once(0 if asked else ENDED)
    return asked or again


class Stoppable(Beat):
    """Celery's beat swallows the SystemExit of its own handler, and whoever called it cannot tell (5.7)."""

    asked = False

    def install_sync_handler(self, service: Service) -> None:
        def stop(*_: object) -> None:
            self.asked = True
            raise SystemExit

        platforms.signals.update(SIGTERM=stop, SIGINT=stop)


def run_beat(app: Celery, settings: Settings) -> bool:
    """Returns when the beat has ended: whether a signal asked for that. One before its loop raises SystemExit."""
    beat = Stoppable(app=app, loglevel=settings.log_level, quiet=settings.log_format == "json")
    try:
        beat.run()
    except Exception:  # others' code: Celery's beat, which raises what it likes; the process ends with a code
        log.exception("the beat has ended")
    app.tracing.end()  # type: ignore[attr-defined]  # set by create_app
    return beat.asked


def _level(name: str) -> int:
    return logging.getLevelNamesMapping()[name.upper()]
