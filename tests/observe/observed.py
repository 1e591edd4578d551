"""A running stack under a real Prometheus: what it scrapes, which rules it loads, whether all that dashboards and rules
name is there, and whether an alert comes of a queue that is stuck."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from producer_client import NewPhoto, Photo, PhotoRefused, Sightline
from tests.monitored import DASHBOARDS, RULES, program
from tests.waiting import until
from worker.children import Process
from worker.stack import Stack

#: Seconds that anything may take before it is given up.
PATIENCE_S = 90.0
#: The alert of what is stuck here.
STUCK = "SightlineInteractiveWaits"
#: What is other than in deploy/prometheus while this runs: all that waits, and nothing that is compared. A scrape and a
#: look at the rules each second in place of every 15, and `for` a second instead of minutes.
SHORTER = (
    (r"(scrape_interval|evaluation_interval|refresh_interval): \d+s", r"\1: 1s"),
    (r"scrape_timeout: \d+s", "scrape_timeout: 1s"),
    (r"\bfor: \d+[mh]", "for: 1s"),
)
#: Names of metrics, and of what rules record, wherever they stand: labels and their values have none that begin so.
NAMES = re.compile(r"\bsightline[_:][a-z0-9_:]+")
#: What a name has beside that of its family, by which Prometheus keeps what a metric is.
PARTS = re.compile(r"_(total|bucket|sum|count)$")


class Failed(AssertionError):
    """What should have come of it did not."""


@dataclass(frozen=True)
class Outcome:
    """scraped: processes and the exporter. metrics: named by dashboards and rules; missing: those that nobody exports.
    unanswered: queries of dashboards that Prometheus refused. stuck_alert_s: from sent to fired."""

    rules: int
    dashboards: int
    queries: int
    scraped: int
    metrics: int
    missing: list[str]
    unanswered: list[str]
    stuck_alert_s: float
    cleared_s: float

    @property
    def holds(self) -> bool:
        return not self.missing and not self.unanswered

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def observe(folder: Path, stack: Stack, photos: Path, tell: Callable[[str], None] = lambda _: None) -> Outcome:
    """folder: an empty one, for what Prometheus writes. stack: one that runs, with metrics. photos: some that it may
    read. Raises Failed."""
    exporter = stack.start("metrics", "--port", "0")
    with _ended(stack, exporter), prometheus(folder, _address(exporter.log)) as asked, stack.client() as client:
        stack.wait_ready()
        tell("a stack runs, and Prometheus beside it")
        _work(client, photos)
        # The exporter, and one of each role.
        until(lambda: asked.up() >= 4, lambda: f"scraped: {asked.up()} of 4")
        rules = asked.rules()
        until(lambda: not asked.firing(), lambda: f"fires of a service that is well: {asked.firing()}")
        names = _named()
        recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
        missing = asked.lacks(names - recorded)
        tell(f"{len(rules)} rules are loaded, {len(names)} metrics are named, these are missing: {missing}")
        queries = [target["expr"] for board in _boards() for panel in board["panels"] for target in panel["targets"]]
        unanswered = [query for query in queries if not asked.takes(query)]
        stuck_alert_s, cleared_s = _stuck(stack, client, asked)
        tell(f"a stuck queue has raised its alert after {stuck_alert_s} s")
        return Outcome(
            rules=len(rules),
            dashboards=len(_boards()),
            queries=len(queries),
            scraped=asked.up(),
            metrics=len(names),
            missing=missing,
            unanswered=unanswered,
            stuck_alert_s=stuck_alert_s,
            cleared_s=cleared_s,
        )


class Prometheus:
    """One that runs, by its HTTP API."""

    def __init__(self, address: str) -> None:
        self._address = address

    def get(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"http://{self._address}/api/v1/{path}?{urlencode(query)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=1):
                return True
        except OSError:
            return False

    def up(self) -> int:
        """Targets that answered at the last scrape."""
        return sum(target["health"] == "up" for target in self.get("targets", state="active")["activeTargets"])

    def rules(self) -> list[dict[str, Any]]:
        """Those that are loaded. Raises Failed where one cannot be evaluated."""
        until(lambda: all(rule["health"] != "unknown" for rule in self._rules()), lambda: "rules are not evaluated")
        rules = self._rules()
        if ill := [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"]:
            raise Failed(f"rules that Prometheus cannot evaluate: {ill}")
        return rules

    def firing(self) -> dict[str, dict[str, str]]:
        """The annotations of alerts that fire, by name."""
        alerts = self.get("alerts")["alerts"]
        return {one["labels"]["alertname"]: one["annotations"] for one in alerts if one["state"] == "firing"}

    def lacks(self, names: set[str]) -> list[str]:
        """Of these names, those that no target has exported, nor said what it would mean."""
        known = set(self.get("label/__name__/values")) | set(self.get("metadata"))
        return sorted(name for name in names if name not in known and PARTS.sub("", name) not in known)

    def takes(self, query: str) -> bool:
        try:
            self.get("query", query=query)
        except urllib.error.HTTPError:
            return False
        return True

    def _rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]


@contextmanager
def prometheus(folder: Path, exporter: str) -> Iterator[Prometheus]:
    """With the rules and the scrapes of deploy/prometheus for one machine, shortened. exporter: its address."""
    there = folder / "prometheus"
    there.mkdir()
    for path in (RULES, RULES.parent / "prometheus.yml"):
        text = path.read_text().replace("127.0.0.1:9460", exporter)
        for pattern, replacement in SHORTER:
            text = re.sub(pattern, replacement, text)
        (there / path.name).write_text(text)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = program("prometheus")
    assert command is not None
    with (there / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                command,
                f"--config.file={there / 'prometheus.yml'}",
                f"--storage.tsdb.path={there / 'data'}",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        asked = Prometheus(address)
        until(lambda: asked.ready() or process.poll() is not None, lambda: "Prometheus does not come up")
        if process.poll() is not None:
            raise Failed(f"Prometheus ended: {(there / 'log').read_text()}")
        yield asked
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@contextmanager
def _ended(stack: Stack, process: Process) -> Iterator[None]:
    try:
        yield
    finally:
        process.ask_to_stop()
        process.wait()
        stack.processes.remove(process)


def _work(client: Sightline, photos: Path) -> None:
    """A little of everything that is counted."""
    paths = sorted(photos.rglob("*.jpg"))
    known, asked = paths[1:], paths[0]
    client.add_to_index(path=str(known[0]))
    list(client.add_many([NewPhoto(ref=str(path), photo=Photo(path=str(path))) for path in known[1:]]))
    client.rebuild_index(timeout_s=PATIENCE_S)
    for _ in range(2):
        client.locate(path=str(asked))
        client.search(path=str(asked), top_k=3)
    try:
        client.add_to_index(path="/etc/passwd", lat=1, lon=1, provenance="surveyed")
    except PhotoRefused:
        return
    raise Failed("what lies outside was taken")


def _stuck(stack: Stack, client: Sightline, asked: Prometheus) -> tuple[float, float]:
    """Seconds from sent until its alert fires while the only worker stands still, and until it is over again."""
    worker = stack.processes[0]
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        # One is taken by the connection that waits already, by nobody who would do it.
        handles = [client.submit_stats(timeout_s=PATIENCE_S) for _ in range(3)]
        sent = time.monotonic()
        until(lambda: STUCK in asked.firing(), lambda: f"no alert of what is stuck, but {list(asked.firing())}")
        took_s = time.monotonic() - sent
        said = asked.firing()[STUCK]
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    goes_on = time.monotonic()
    if not re.fullmatch(r"Questions wait for 1\d(\.\d+)?s", said["summary"]):
        raise Failed(f"it says {said['summary']!r}")
    for handle in handles:
        handle.wait(PATIENCE_S)
    until(lambda: STUCK not in asked.firing(), lambda: "the alert stays although nothing waits")
    return round(took_s, 1), round(time.monotonic() - goes_on, 1)


def _named() -> set[str]:
    """Metrics in expressions of rules and dashboards."""
    rules = [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    panels = [target["expr"] for board in _boards() for panel in board["panels"] for target in panel["targets"]]
    return {name for expr in [*rules, *panels] for name in NAMES.findall(expr)}


def _boards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))]


def _address(log: Path | None) -> str:
    """Where the exporter says that it answers."""
    assert log is not None
    pattern = re.compile(r"http://(\S+:\d+)/metrics")
    until(lambda: pattern.search(log.read_text()) is not None, lambda: f"no exporter: {log.read_text()}")
    found = pattern.search(log.read_text())
    assert found is not None
    return found[1]


def main_tell(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()
