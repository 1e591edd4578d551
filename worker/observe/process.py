"""The metrics of one process: what is heard of its work, and how it is when it is asked. Asks no server."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import Context
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.core.observing import Counted, Measured, Stage
from worker.memory import own_mb, resident_mb
from worker.observe.asked import Asked, Several
from worker.observe.names import HEARD, INFO, STATE, Metric, allowed
from worker.settings import Settings

log = logging.getLogger(__name__)

#: Seconds for all disks of a scrape: one of the network may hang for hours, and Prometheus waits for ten.
DISKS_S = 2.0
#: How a process is, by name: figures of STATE, and texts of INFO. Of memory alone, and quick.
Condition = Callable[[], Mapping[str, Any]]


class Heard:
    """See worker.core.observing.Listener."""

    def __init__(self, registry: CollectorRegistry) -> None:
        without_created: Any = disable_created_metrics  # has no types
        without_created()  # a second series of each counter, for nobody
        self._made = {what: _made(metric, registry) for what, metric in HEARD.items()}
        #: By what is counted and the values of its labels: half of what labels() costs.
        self._series: dict[tuple[str, ...], Any] = {}
        self._lock = threading.Lock()
        self.busy = 0

    def began(self, stage: Stage, of: Sequence[Context], facts: Mapping[str, Any]) -> Any:
        if stage != "task":
            return None
        with self._lock:
            self.busy += 1
        return facts["task"]

    def ended(self, stage: Stage, token: Any, took_s: float, exc: BaseException | None) -> None:
        if stage != "task":
            self._of("stage", {"stage": stage}).observe(took_s)
            return
        with self._lock:
            self.busy -= 1
        self._of("task", {"task": token}).observe(took_s)

    def counted(self, what: Counted, n: float, labels: Mapping[str, str]) -> None:
        self._of(what, labels).inc(n)

    def measured(self, what: Measured, value: float, labels: Mapping[str, str]) -> None:
        self._of(what, labels).observe(value)

    def _of(self, what: str, labels: Mapping[str, str]) -> Any:
        key = (what, *labels.values())
        found = self._series.get(key)
        if found is None:
            metric = self._made[what]
            known = {name: allowed(name, value) for name, value in labels.items()}
            found = metric.labels(**known) if known else metric
            if all(known[name] == value for name, value in labels.items()):
                self._series[key] = found
        return found


class State(Collector):
    """slots: messages at once that it has room for. condition: what else is true of it."""

    def __init__(self, settings: Settings, heard: Heard, condition: Condition, *, role: str, slots: int) -> None:
        self._folders = {"index": settings.generations_dir, "data": settings.data_dir, "models": settings.exports_dir}
        disks = {
            name: Asked(f"disk of {name}", partial(_disk, path), wait_s=DISKS_S) for name, path in self._folders.items()
        }
        self._disks = Several(disks, log, said_as="the disk of {}")
        self._heard = heard
        self._condition = condition
        self._facts = {"role": role, "version": version("sightline-worker")}
        self._slots = slots

    def collect(self) -> Iterator[Any]:
        said = {**self._condition(), **self._facts}
        values: dict[str, Any] = {name: said.get(name) for name in STATE}
        values |= {"slots": self._slots, "slots_busy": self._heard.busy}
        if (built := said.get("generation_built_at")) is not None:
            values["serving_generation_age_seconds"] = age_s(built)
        values["memory_bytes"] = {("own",): own_mb() * 1e6, ("resident",): resident_mb() * 1e6}
        disks = self._disks.answers()
        values["disk_reachable"] = {(name,): name in disks for name in self._folders}
        values["disk_free_bytes"] = {(name,): usage.free for name, usage in disks.items()}
        values["disk_size_bytes"] = {(name,): usage.total for name, usage in disks.items()}
        values["process_info"] = {tuple(str(said.get(name) or "") for name in INFO): 1}
        yield from families(STATE, values)


def registry_of(settings: Settings, condition: Condition, *, role: str, slots: int) -> tuple[CollectorRegistry, Heard]:
    """What a process answers Prometheus, and who is to listen for it."""
    registry = CollectorRegistry()
    heard = Heard(registry)
    registry.register(State(settings, heard, condition, role=role, slots=slots))
    return registry, heard


def families(metrics: Mapping[str, Metric], values: Mapping[str, Any]) -> Iterator[Any]:
    """values: by name, one or, by the values of the labels, several. Of what is None or not there nothing
    is said but that there is such a metric."""
    for name, metric in metrics.items():
        value = values.get(name)
        family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        made: Any = family(metric.name, metric.says, labels=metric.labels)
        for labels, number in (value if isinstance(value, Mapping) else {(): value}).items():
            if number is not None:
                made.add_metric(labels, float(number))
        yield made


def age_s(moment: str) -> float:
    """Seconds since a moment in ISO 8601, of a clock that may differ."""
    at = datetime.fromisoformat(moment)
    return max(0.0, time.time() - (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def _made(metric: Metric, registry: CollectorRegistry) -> Any:
    if metric.kind == "counter":
        return Counter(metric.name, metric.says, metric.labels, registry=registry)
    return Histogram(metric.name, metric.says, metric.labels, buckets=metric.buckets, registry=registry)


def _disk(path: Path) -> Any:
    """Of a folder, or of the nearest one above it that is there already. Raises OSError, or hangs."""
    return shutil.disk_usage(next(folder for folder in (path, *path.absolute().parents) if folder.exists()))
