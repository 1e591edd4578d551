"""One exporter for what lies in Redis and Postgres, whoever runs. Each is asked at every scrape, for so long at the
most; of one that cannot be asked nothing old is said, but that."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLong
from typing import Any

import redis
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from producer_client.errors import Unreachable
from worker.broker import plain_client
from worker.errors import WorkerError
from worker.observe import queues
from worker.observe.names import POSTGRES, REACHABLE, REDIS, SCRAPE
from worker.observe.process import families
from worker.settings import Settings
from worker.storage.store import PostgresStore

log = logging.getLogger(__name__)

#: Seconds for each server's answers: both are asked at once, and Prometheus waits for ten.
ANSWER_S = 8.0
#: Seconds that Redis may be silent.
SILENT_S = 3


class Servers(Collector):
    """Of the settings' Redis and Postgres. Several may ask it at once."""

    def __init__(self, settings: Settings, store: PostgresStore) -> None:
        self._settings = settings
        self._store = store
        self._skewed = 0
        self._asked = {
            "redis": _Asked("redis", self._redis),
            "postgres": _Asked("postgres", self._postgres),
        }

    def collect(self) -> Iterator[Any]:
        began = {name: asked.begin() for name, asked in self._asked.items()}
        reachable = GaugeMetricFamily(REACHABLE.name, REACHABLE.says, labels=REACHABLE.labels)
        took = GaugeMetricFamily(SCRAPE.name, SCRAPE.says, labels=SCRAPE.labels)
        for (name, asked), metrics in zip(self._asked.items(), (REDIS, POSTGRES), strict=True):
            found = asked.end(began[name])
            reachable.add_metric((name,), float(found is not None))
            if found is not None:
                values, took_s = found
                took.add_metric((name,), took_s)
                yield from families(metrics, values)
        yield reachable
        yield took

    def targets(self) -> list[dict[str, Any]]:
        """Processes with metrics, as HTTP service discovery of Prometheus has it. Raises Unreachable, redis' errors."""
        found = self._look().targets
        return [{"targets": [address], "labels": {"role": role}} for role, address in sorted(found)]

    def close(self) -> None:
        for asked in self._asked.values():
            asked.close()

    def _look(self) -> queues.Seen:
        with plain_client(self._settings, silent_s=SILENT_S) as server:
            return queues.look(server, self._settings.key_prefix)

    def _redis(self) -> Mapping[str, Any]:
        seen = self._look()
        self._skewed += seen.skewed
        return {**seen.values, "clock_skew": self._skewed}

    def _postgres(self) -> Mapping[str, Any]:
        return self._store.figures.read(quarantine_after=self._settings.quarantine_after)


class _Asked:
    """A server, and what asks it: once at a time, and while it has not answered nobody asks again."""

    def __init__(self, name: str, ask: Callable[[], Mapping[str, Any]]) -> None:
        self._name = name
        self._ask = ask
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._left: Future[Any] | None = None

    def begin(self) -> Future[Any] | None:
        if self._left is not None and not self._left.done():
            return None
        self._left = self._pool.submit(self._timed)
        return self._left

    def end(self, began: Future[Any] | None) -> tuple[Mapping[str, Any], float] | None:
        """None where it could not be asked, which the log says."""
        cause: object = "no answer to the scrape before"
        if began is not None:
            try:
                found: tuple[Mapping[str, Any], float] = began.result(ANSWER_S)
            except (TooLong, Unreachable, WorkerError, redis.exceptions.RedisError, OSError) as exc:
                cause = str(exc) or f"no answer within {ANSWER_S} s"
            else:
                return found
        log.warning("%s cannot be asked", self._name, extra={"why": cause})
        return None

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _timed(self) -> tuple[Mapping[str, Any], float]:
        began = time.monotonic()
        return self._ask(), time.monotonic() - began


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
        except (Unreachable, redis.exceptions.RedisError, OSError) as exc:
            status, said = "503 Service Unavailable", json.dumps({"error": str(exc)})
        start_response(status, [("Content-Type", "application/json")])
        return [said.encode()]

    return page
