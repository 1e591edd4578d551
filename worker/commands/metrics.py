"""`sightline metrics`: what lies in Redis and Postgres, for Prometheus. Loads no model and no index."""

from __future__ import annotations

import signal
from contextlib import closing
from typing import Annotated, Any

import typer

from worker.commands.terminal import err, fail, show
from worker.settings import load as load_settings
from worker.signals import INTERRUPTED
from worker.words import in_language, say

#: Beside the one of workers that people know, 9464, which OpenTelemetry has made Prometheus' for exporters.
PORT = 9460

Port = Annotated[int, typer.Option(min=0, max=65535, help=say("The port to answer at; 0 takes a free one."))]
Host = Annotated[
    str | None,
    typer.Option(help=say("The address to listen at; SIGHTLINE_METRICS_HOST unless given."), show_default=False),
]
Once = Annotated[bool, typer.Option("--once", help=say("Print what Prometheus would read, and end."))]
AsJson = Annotated[bool, typer.Option("--json", help=say("Print it as one JSON object, and end."))]


def metrics(port: Port = PORT, host: Host = None, once: Once = False, as_json: AsJson = False) -> None:
    """Answer Prometheus with what lies in Redis and Postgres: queues and how old what waits there is, live processes,
    photos, the index and its exam.

    One is enough for all machines. `/metrics` is for scrapes; `/targets` lists the workers that have metrics of their
    own (SIGHTLINE_METRICS_PORT), as Prometheus' `http_sd_configs` reads them.
    """
    from worker import logs
    from worker.observe.exporter import STATEMENT_S, Servers, plain, registry_of, targets_page, written
    from worker.observe.server import address, serve, take
    from worker.storage.store import PostgresStore

    settings = load_settings()
    with closing(PostgresStore(settings, statement_s=STATEMENT_S)) as store:
        servers = Servers(settings, store)
        registry = registry_of(servers)
        if once or as_json:
            # What cannot be asked is known once it was.
            found: Any = plain(registry) if as_json else written(registry)
            said = {"metrics": found, "away": servers.away}
            for server, why in servers.away.items():
                err.print(say("{server} cannot be asked: {why}", server=server, why=in_language(why)), highlight=False)
            show(as_json, said, lambda: typer.echo(found, nl=False), refused=list(servers.away))
            return
        logs.configure(settings.log_level, settings.log_format)
        asked_to_end = {signal.SIGINT, signal.SIGTERM}
        # Before any thread begins, which would be the one to hear of it otherwise.
        signal.pthread_sigmask(signal.SIG_BLOCK, asked_to_end)
        host = host if host is not None else settings.metrics_host
        taken = take(host, port, ports=1)
        if taken is None:
            fail(say("{host}, port {port} cannot be had; the log line above says why", host=host, port=port))
        serve(taken, registry, {"/targets": targets_page(servers)})
        where = address(taken)
        err.print(say("metrics are at http://{where}/metrics", where=where), soft_wrap=True, highlight=False)
        if signal.sigwait(asked_to_end) == signal.SIGINT:
            raise SystemExit(INTERRUPTED)
