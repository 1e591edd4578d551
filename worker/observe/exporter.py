"""One exporter for what lies in Redis and Postgres, whoever runs. Each is asked at every scrape, for so long at the
most; of one that cannot be asked nothing old is said, but that."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import redis
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from producer_client.errors import Unreachable
from worker.broker import plain_client
from worker.errors import WorkerError
from worker.observe import queues
from worker.observe.asked import Asked, Several
from worker.observe.names import POSTGRES, REACHABLE, REDIS, SCRAPE
from worker.observe.process import families
from worker.settings import Settings
from worker.storage.store import PostgresStore

log = logging.getLogger(__name__)

#: Seconds for each server's answers: both are asked at once, and Prometheus waits for ten.
ANSWER_S = 8.0
#: Seconds for one statement of these: what waits for a lock is given up by Postgres itself.
STATEMENT_S = 6.0
#: Seconds that Redis may be silent.
SILENT_S = 3
#: What a server that cannot be asked is answered with.
UNASKED = (Unreachable, WorkerError, redis.exceptions.RedisError, OSError)


class Servers(Collector):
    """Of the settings' Redis and Postgres. Several may ask it at once. store: one that gives its statements
    STATEMENT_S."""

    def __init__(self, settings: Settings, store: PostgresStore, *, answer_s: float = ANSWER_S) -> None:
        self._settings = settings
        self._store = store
        self._skewed = 0
        self._redis = Asked("redis", self._look, wait_s=answer_s)
        postgres = Asked("postgres", self._read, wait_s=answer_s)
        self._both = Several({"redis": self._redis, "postgres": postgres}, log, unasked=UNASKED)

    @property
    def away(self) -> Mapping[str, str]:
        """Why, by the name of the server: those that could not be asked at the newest scrape."""
        return self._both.away

    def collect(self) -> Iterator[Any]:
        answers = self._both.answers()
        reachable = GaugeMetricFamily(REACHABLE.name, REACHABLE.says, labels=REACHABLE.labels)
        took = GaugeMetricFamily(SCRAPE.name, SCRAPE.says, labels=SCRAPE.labels)
        for name, metrics in (("redis", REDIS), ("postgres", POSTGRES)):
            reachable.add_metric((name,), float(name in answers))
            if name in answers:
                values, took_s = answers[name]
                took.add_metric((name,), took_s)
                yield from families(metrics, values)
        yield reachable
        yield took

    def targets(self) -> list[dict[str, Any]]:
        """Processes with metrics, as HTTP service discovery of Prometheus has it. Raises one of UNASKED."""
        values, _ = self._redis.begin()()
        return [{"targets": [address], "labels": {"role": role}} for role, address in sorted(values["targets"])]

    def _look(self) -> tuple[Mapping[str, Any], float]:
        began = time.monotonic()
        with plain_client(self._settings, silent_s=SILENT_S) as server:
            seen = queues.look(server, self._settings.key_prefix)
        self._skewed += seen.skewed
        return {**seen.values, "clock_skew": self._skewed, "targets": seen.targets}, time.monotonic() - began

    def _read(self) -> tuple[Mapping[str, Any], float]:
        began = time.monotonic()
        found = self._store.figures.read(quarantine_after=self._settings.quarantine_after)
        return found, time.monotonic() - began


def registry_of(servers: Servers) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(servers)
    return registry


def written(registry: CollectorRegistry) -> str:
    """As Prometheus reads it."""
    return generate_latest(registry).decode()


def plain(registry: CollectorRegistry) -> list[dict[str, Any]]:
    """The same for programs: name, labels, value."""
    return [
        {"name": sample.name, "labels": dict(sample.labels), "value": sample.value}
        for family in registry.collect()
        for sample in family.samples
    ]


def targets_page(servers: Servers) -> Callable[[Any, Any], list[bytes]]:
    """A WSGI application. While Redis cannot be asked Prometheus keeps those that it has."""

    def page(environ: Any, start_response: Any) -> list[bytes]:
        try:
            status, said = "200 OK", json.dumps(servers.targets())
        except UNASKED as exc:
            status, said = "503 Service Unavailable", json.dumps({"error": str(exc)})
        start_response(status, [("Content-Type", "application/json")])
        return [said.encode()]

    return page
