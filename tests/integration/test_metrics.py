"""Metrics of a stack of real processes over a real Valkey and Postgres: what each says, what the exporter reads."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from demo.scenes import write_scenes
from producer_client import Sightline
from producer_client.contract import Code, Queue, TaskName
from producer_client.errors import Unreachable
from producer_client.ids import SENT, new_id, now_ms
from tests.conftest import Scene, plain_celery
from tests.faults.conftest import Gate, gate, hasty_stack
from tests.hung import hung_disk
from tests.monitored import needs_prometheus
from tests.observe.observed import observe
from tests.waiting import until
from worker import alive, broker
from worker.commands import doctor
from worker.embedded import EmbeddedServers
from worker.observe import exporter, names, queues, server
from worker.observe.exporter import Servers
from worker.observe.process import DISKS_S, Heard, registry_of
from worker.settings import Settings
from worker.stack import Stack
from worker.storage.store import PostgresStore

__all__ = ["gate"]

PATIENCE_S = 60.0
#: By name and labels.
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(page: str) -> Samples:
    families = text_string_to_metric_families(page)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"sightline_{name}", tuple(sorted(labels.items()))))


def scrape(address: str) -> Samples:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return read(answer.read().decode())


@pytest.fixture(scope="module")
def stack(photo_root: Path) -> Iterator[Stack]:
    with hasty_stack(photo_root, metrics_port=0, model_threads=2, tick_every_s=0.5) as running:
        running.start_all()
        running.wait_ready()
        yield running


@pytest.fixture(scope="module")
def servers(stack: Stack) -> Iterator[Servers]:
    with closing(PostgresStore(stack.settings)) as store:
        yield Servers(stack.settings, store)


def exported(servers: Servers) -> Samples:
    return read(exporter.written(exporter.registry_of(servers)))


def addresses(servers: Servers) -> dict[str, str]:
    return {one["labels"]["role"]: one["targets"][0] for one in servers.targets()}


def test_each_process_says_what_it_does_and_the_exporter_what_there_is(
    stack: Stack, servers: Servers, scenes: list[Scene]
) -> None:
    until(lambda: addresses(servers).keys() == {"serve", "index", "beat"}, "all three are listed")
    serve = addresses(servers)["serve"]
    with stack.client() as client:
        for scene in scenes[:6]:
            client.add_to_index(path=scene.path, lat=scene.lat, lon=scene.lon, provenance="surveyed")
        client.locate(path=scenes[6].path)
        client.add_to_index(path=scenes[0].path)
        client.rebuild_index()
        until(lambda: value(scrape(serve), "serving_generation") == 1.0, "the generation serves")

    worker, index, beat = (scrape(addresses(servers)[role]) for role in ("serve", "index", "beat"))
    found = exported(servers)

    assert value(worker, "tasks_total", task=TaskName.ADD_TO_INDEX, code="ok") == 7
    assert value(worker, "task_seconds_count", task=TaskName.LOCATE) == 1
    assert (value(worker, "queue_wait_seconds_count", queue=Queue.INTERACTIVE) or 0) >= 8
    assert (value(worker, "queue_wait_seconds_sum", queue=Queue.INTERACTIVE) or 99) < 60
    for stage in ("read", "lookup", "decode", "forward", "keypoints", "store", "follow", "search", "candidates"):
        assert (value(worker, "stage_seconds_count", stage=stage) or 0) > 0, stage
    assert value(worker, "batch_photos_count", urgency="urgent")
    assert (value(worker, "vectors_total", result="hit"), value(worker, "vectors_total", result="miss")) == (1, 7)
    assert sum(v for (name, _), v in worker.items() if name == "sightline_answers_total") == 1
    assert (value(worker, "slots"), value(worker, "slots_busy")) == (2, 0)
    assert value(worker, "applied_seq") == value(found, "log_seq")
    assert value(worker, "index_photos") == 6
    (info,) = [dict(labels) for (name, labels) in worker if name == "sightline_process_info"]
    assert (info["role"], info["device"]) == ("serve", "cpu")
    assert info["encoder"] == stack.settings.encoder
    assert (value(worker, "memory_bytes", kind="resident") or 0) > 50e6
    assert (value(worker, "disk_size_bytes", folder="index") or 0) > 0
    # The child that does the work answers.
    assert value(index, "tasks_total", task=TaskName.REBUILD_INDEX, code="ok") == 1
    assert (value(index, "slots"), value(beat, "slots")) == (1, 0)

    assert [value(found, "reachable", server=name) for name in ("redis", "postgres")] == [1, 1]
    assert value(found, "photos", state="indexed") == 6
    assert value(found, "generation") == 1
    assert 0 <= (value(found, "generation_age_seconds") or 0) < 120
    assert value(found, "generation_recall_at_10") is not None
    assert (value(found, "rebuild_last_success_timestamp_seconds") or 0) > time.time() - 300
    assert value(found, "processes", role="serve") == 1
    assert value(found, "queue_consumers", queue="bulk") == 1
    assert value(found, "queue_slots", queue="index") == 1
    for queue in Queue:
        assert value(found, "queue_ready", queue=queue) == 0
        assert value(found, "queue_oldest_age_seconds", queue=queue) == 0
    assert value(found, "missing_vectors") == 0


@needs_prometheus
def test_a_running_stack_exports_all_that_is_asked_of_it_and_a_stuck_queue_raises_its_alert(
    stack: Stack, photo_root: Path, tmp_path: Path
) -> None:
    """The rules and dashboards of deploy/ under a real Prometheus: `make observe-test` as a test."""
    write_scenes(photo_root / "observed", places=3, views=3)

    outcome = observe(tmp_path, stack, photo_root / "observed")

    assert outcome.missing == []
    assert outcome.unanswered == []
    assert outcome.scraped == 4
    # Ten seconds are what a question may wait; a second to be read, one for the rule, one of `for`.
    assert 10 < outcome.stuck_alert_s < 30


def test_no_label_has_values_that_photos_strangers_or_time_can_add_to(
    stack: Stack, servers: Servers, scenes: list[Scene]
) -> None:
    """After a photo, and messages of strange names, of tasks and of queues."""
    until(lambda: addresses(servers).keys() == {"serve", "index", "beat"}, "all three are listed")
    with stack.client() as client:
        client.add_to_index(path=scenes[0].path)
    stranger = plain_celery(stack.settings)
    for task in ("sightline.embed; DROP", "x" * 200):
        stranger.send_task(task, args=[{}], queue="interactive", ignore_result=True)
    with redis.Redis.from_url(stack.settings.broker_url) as client:
        client.set("sightline:alive:odd", json.dumps({name: [] for name in ("queues", "role", "metrics")}), ex=60)
        until(lambda: client.llen("sightline:parked") == 2, "the strange tasks are parked")
        seen = [scrape(address) for address in addresses(servers).values()] + [exported(servers)]
        client.delete("sightline:alive:odd", "sightline:parked")

    known = [*names.HEARD.values(), *names.STATE.values(), *names.REDIS.values(), *names.POSTGRES.values()]
    labels = {metric.name: set(metric.labels) for metric in [*known, names.REACHABLE, names.SCRAPE]}
    walked = set()
    for samples in seen:
        for name, found in samples:
            family = re.sub("_(bucket|count|sum)$", "", name) if name not in labels else name
            assert dict(found).keys() - {"le"} == labels[family], name
            walked.add(family)
            for label, said in found:
                if label not in ("le", *names.INFO) or (label == "role" and family != "sightline_process_info"):
                    assert said in names.VALUES[label], (name, label, said)
    assert {"sightline_tasks_total", "sightline_queue_ready", "sightline_photos", "sightline_stage_seconds"} <= walked
    assert max(map(len, seen)) < 1_000, "series"


def test_a_process_answers_with_all_hands_full_and_the_age_of_what_waits_grows(
    stack: Stack, servers: Servers, gate: Gate
) -> None:
    serve = addresses(servers)["serve"]
    with stack.client() as client:
        handles = [client.submit_add_to_index(url=gate.url(number)) for number in range(5)]
        until(lambda: value(scrape(serve), "slots_busy") == 2, "all hands are full")
        until(lambda: value(exported(servers), "queue_ready", queue="interactive") == 3, "three wait")
        until(lambda: (value(exported(servers), "queue_oldest_age_seconds", queue="interactive") or 0) > 1, "aging")
        found = exported(servers)
        gate.open.set()
        for handle in handles:
            handle.wait(PATIENCE_S)

    assert value(found, "queue_in_hand", queue="interactive") == 2
    assert (value(found, "queue_in_hand_oldest_age_seconds", queue="interactive") or 0) > 1
    assert value(found, "queue_unknown_age", queue="interactive") == 0
    until(lambda: value(exported(servers), "queue_slots_busy", queue="interactive") == 0, "all is done")
    assert value(scrape(serve), "slots_busy") == 0


def test_the_series_of_a_child_that_is_gone_are_gone_and_the_next_one_answers_at_the_same_port(
    stack: Stack, servers: Servers
) -> None:
    address = addresses(servers)["index"]
    (process,) = [one for one in stack.processes if "index" in one.arguments]
    with stack.client() as client:
        client.stats()
    before = scrape(address)
    assert any(name == "sightline_tasks_total" for name, _ in before)

    (child,) = [one for one in psutil.Process(process.pid).children() if "sandbox" not in " ".join(one.cmdline())]
    child.kill()

    until(lambda: value(scrape(address), "tasks_total", task=TaskName.REBUILD_INDEX, code="ok") is None, "all anew")


def test_what_cannot_be_asked_is_said_to_be_so_and_nothing_old_is_told(stack: Stack, servers: Servers) -> None:
    serve = addresses(servers)["serve"]
    stack.servers.stop_postgres()
    without = exported(servers)
    stack.servers.start_postgres()
    until(lambda: value(exported(servers), "reachable", server="postgres") == 1, "Postgres is asked again")
    valkey: Any = stack.servers
    valkey._valkey.stop()
    alone, of_worker = exported(servers), scrape(serve)
    stack.servers.start_again("Valkey")
    until(lambda: value(exported(servers), "reachable", server="redis") == 1, "Redis is asked again")

    assert (value(without, "reachable", server="postgres"), value(without, "reachable", server="redis")) == (0, 1)
    assert {name for name, _ in without}.isdisjoint(metric.name for metric in names.POSTGRES.values())
    assert (value(alone, "reachable", server="redis"), value(alone, "reachable", server="postgres")) == (0, 1)
    assert {name for name, _ in alone}.isdisjoint(metric.name for metric in names.REDIS.values())
    assert value(of_worker, "slots") == 2


def test_a_server_that_is_away_is_logged_once_and_again_when_it_is_back(
    stack: Stack, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(**_: Any) -> None:
        raise Unreachable(Code.UNAVAILABLE, "it is being exchanged")

    with closing(PostgresStore(stack.settings)) as store:
        watched = Servers(stack.settings, store)
        with caplog.at_level(logging.INFO, exporter.__name__):
            with monkeypatch.context() as patched:
                patched.setattr(store.figures, "read", away)
                for _ in range(3):
                    list(watched.collect())
                assert "it is being exchanged" in watched.away["postgres"]
            for _ in range(2):
                list(watched.collect())

    assert watched.away == {}
    said = [record.message for record in caplog.records if record.name == exporter.__name__]
    assert said == ["postgres cannot be asked", "postgres is asked again"]


def test_a_child_without_a_port_is_told_of_and_takes_the_first_that_becomes_free(stack: Stack) -> None:
    """On queues of its own, so that it is the only one there."""
    port = free_port()
    own = stack.settings.model_copy(update={"metrics_port": port, "key_prefix": "crowded:"})
    with closing(PostgresStore(own)) as store:
        servers = Servers(own, store)
        with held(port, server.PORTS):
            process = stack.start("worker", "--role", "index", settings=own)
            until(lambda: value(exported(servers), "processes_without_port", role="index") == 1, "it has none")
            assert addresses(servers) == {}
        until(lambda: addresses(servers).keys() == {"index"}, "it has one")
        where = addresses(servers)["index"]

        assert port <= int(where.rpartition(":")[2]) < port + server.PORTS
        assert value(scrape(where), "slots") == 1
        found = exported(servers)
        assert (value(found, "processes_without_port", role="index"), value(found, "processes", role="index")) == (0, 1)
    process.ask_to_stop()
    process.wait()
    stack.processes.remove(process)


def test_a_server_that_takes_the_connection_and_is_silent_is_said_to_be_away_in_time(stack: Stack) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent, closing(PostgresStore(stack.settings)) as store:
        far = stack.settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{server.port_of(silent)}/0"})
        servers = Servers(far, store, answer_s=2.0)
        began = time.monotonic()
        first, second = exported(servers), exported(servers)
        assert time.monotonic() - began < 2 * 2.0 + 1

        for found in (first, second):
            assert (value(found, "reachable", server="redis"), value(found, "reachable", server="postgres")) == (0, 1)
        said: list[str] = []
        assert exporter.targets_page(servers)({}, lambda status, _: said.append(status))
        assert said == ["503 Service Unavailable"]
        assert len(asking("redis")) <= 1
        # Not only given up: it ends.
        until(lambda: not asking("redis"), "nobody waits for it any more")


@pytest.mark.parametrize("ask", [doctor.broker, doctor.queues, alive.everywhere])
def test_a_command_waits_for_a_silent_server_no_longer_than_seconds(
    ask: Callable[[Settings], object], stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (doctor, broker):
        monkeypatch.setattr(place, "PATIENCE_S" if place is doctor else "SILENT_S", 1)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        far = stack.settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{server.port_of(silent)}/0"})
        began = time.monotonic()
        with pytest.raises(Unreachable):
            ask(far)
        assert time.monotonic() - began < 30


def test_a_lock_in_postgres_holds_up_no_scrape_and_is_waited_for_no_longer_than_a_statement_may_take(
    stack: Stack,
) -> None:
    store, other = PostgresStore(stack.settings, statement_s=3.0), PostgresStore(stack.settings)
    with closing(store), closing(other):
        servers = Servers(stack.settings, store, answer_s=2.0)
        with other.database.begin() as holding:
            holding.execute(text(f"LOCK TABLE {stack.settings.photos_table} IN ACCESS EXCLUSIVE MODE"))
            first, second = exported(servers), exported(servers)
            until(lambda: not asking("postgres"), "Postgres has given it up")
        until(lambda: value(exported(servers), "reachable", server="postgres") == 1, "it is asked again")

    for found in (first, second):
        assert (value(found, "reachable", server="redis"), value(found, "reachable", server="postgres")) == (1, 0)
        assert {name for name, _ in found}.isdisjoint(metric.name for metric in names.POSTGRES.values())


def asking(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


# ------------------------------------------------------------------------------- without any process


@pytest.fixture
def lone(valkey: EmbeddedServers) -> Iterator[redis.Redis]:
    """A Valkey that nobody takes anything from."""
    with redis.Redis.from_url(valkey.broker_url) as client:
        client.flushall()
        yield client


def message(**headers: Any) -> str:
    return json.dumps({"body": "e30=", "headers": headers, "properties": {}})


def age_of(client: redis.Redis, queue: str = "bulk") -> float | None:
    found: float | None = queues.look(client, "sightline:").values["queue_oldest_age_seconds"][queue,]
    return found


def test_a_stuck_queue_shows_its_age_while_no_worker_runs(valkey: EmbeddedServers, lone: redis.Redis) -> None:
    with Sightline(valkey.broker_url) as client:
        client.submit_add_to_index(path="/a.jpg")
    age = age_of(lone, "interactive")
    assert age is not None
    assert 0 <= age < 60

    # From the end that is taken: the oldest of a list of each priority.
    lone.lpush("sightline:bulk", message(**{SENT: now_ms() - 60_000}), message(**{SENT: now_ms() - 1_000}))
    assert 60 <= (age_of(lone) or 0) < 70
    lone.lpush("sightline:bulk\x06\x163", message(**{SENT: now_ms() - 600_000}))
    assert 600 <= (age_of(lone) or 0) < 610
    seen = queues.look(lone, "sightline:")
    assert seen.values["queue_ready"]["bulk",] == 3
    assert (seen.values["queue_unknown_age"]["bulk",], seen.skewed) == (0, 0)


@pytest.mark.parametrize(
    ("item", "age", "unknown", "skewed"),
    [
        pytest.param(lambda: message(**{SENT: now_ms() + 3_600_000}), 0, 0, 1, id="from the future"),
        pytest.param(lambda: message(id=new_id()), 0, 0, 0, id="of a client before the header"),
        pytest.param(lambda: message(id="of Celery's own"), None, 1, 0, id="of another Celery"),
        pytest.param(lambda: message(**{SENT: "soon", "id": [], "eta": {}}), None, 1, 0, id="odd headers"),
        pytest.param(lambda: "no message", None, 1, 0, id="no message"),
        pytest.param(lambda: "[" * 100_000, None, 1, 0, id="too deep"),
        pytest.param(lambda: '{"headers": 7}', None, 1, 0, id="no headers"),
    ],
)
def test_strange_messages_have_no_age_and_break_nothing(
    item: Callable[[], str], age: float | None, unknown: int, skewed: int, lone: redis.Redis
) -> None:
    lone.lpush("sightline:bulk", item())
    seen = queues.look(lone, "sightline:")

    found = seen.values["queue_oldest_age_seconds"]["bulk",]
    assert found is None if age is None else 0 <= found - age < 60
    assert (seen.values["queue_unknown_age"]["bulk",], seen.skewed) == (unknown, skewed)
    assert seen.values["queue_ready"]["bulk",] == 1


def test_keys_of_others_are_no_queue_and_no_note(lone: redis.Redis) -> None:
    lone.set("sightline:bulk", "no list")
    lone.zadd("sightline:unacked_index", {"a": time.time() - 30, "b": time.time() - 5, "gone": time.time()})
    lone.hset("sightline:unacked", mapping={"a": '[{}, "", "index"]', "b": '[{}, "", "x; y"]'})

    values = queues.look(lone, "sightline:").values

    assert values["queue_ready"]["bulk",] == 0
    assert (values["queue_in_hand"]["index",], values["queue_in_hand"]["other",]) == (1, 2)
    assert 30 <= values["queue_in_hand_oldest_age_seconds"]["index",] < 40


def test_the_cost_of_a_look_does_not_grow_with_the_queue(lone: redis.Redis) -> None:
    def took_s() -> float:
        began = time.monotonic()
        queues.look(lone, "sightline:")
        return time.monotonic() - began

    lone.lpush("sightline:bulk", message(**{SENT: now_ms()}))
    few_s = min(took_s() for _ in range(5))
    lone.lpush("sightline:bulk", *[message(**{SENT: now_ms()}, pad="x" * 300)] * 10_000)

    assert min(took_s() for _ in range(5)) < 3 * few_s + 0.02


@contextmanager
def held(port: int, ports: int) -> Iterator[None]:
    """All of these are taken: by this, or by whoever had them before."""
    with ExitStack() as closing_all:
        for number in range(port, port + ports):
            with suppress(OSError):
                closing_all.enter_context(closing(socket.create_server(("127.0.0.1", number))))
        yield


def free_port() -> int:
    """With room for some above it."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return min(server.port_of(taken), 65_000)


def test_where_all_ports_are_taken_one_is_tried_for_until_it_is_free(caplog: pytest.LogCaptureFixture) -> None:
    found: list[socket.socket] = []
    port = free_port()
    with held(port, 2):
        assert server.take("127.0.0.1", port, ports=2) is None
        server.take_later("127.0.0.1", port, found.append, ports=2, every_s=0.05)
        time.sleep(0.2)
        assert not found

    until(lambda: bool(found), "a port is taken")
    with closing(found[0]):
        assert port <= server.port_of(found[0]) <= port + 1
    assert [record.levelname for record in caplog.records if record.name == server.__name__] == ["ERROR", "WARNING"]


def test_a_port_that_is_taken_gives_the_next_one_and_none_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as before:
        port = before.getsockname()[1]
        taken = server.take("127.0.0.1", port)
        assert taken is not None
        with closing(taken):
            assert port < server.port_of(taken) < port + server.PORTS
        assert server.take("127.0.0.1", port, ports=1) is None
    assert server.take("192.0.2.1", 0) is None

    assert [record.levelname for record in caplog.records if "no metrics" in record.message] == ["ERROR", "ERROR"]


@pytest.mark.parametrize(("ended_by", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_exporter_is_a_command_that_answers_until_it_is_ended(
    stack: Stack, ended_by: signal.Signals, code: int
) -> None:
    environment = {**os.environ, **stack.settings.as_env(), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-X", "importtime", "-m", "worker.cli", "metrics", "--port", "0"]
    said, scraped = [], Samples()
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            said.append(line)
            if found := re.search(r"http://(\S+)/metrics", line):
                scraped = scrape(found[1])
                head = urllib.request.Request(f"http://{found[1]}/metrics", method="HEAD")
                with urllib.request.urlopen(head, timeout=10) as answered:
                    looked = answered.status, answered.read()
                running.send_signal(ended_by)
    assert running.returncode == code

    assert looked == (200, b"")
    assert value(scraped, "reachable", server="postgres") == 1
    loaded = {line.rpartition("|")[2].strip() for line in said if line.startswith("import time:")}
    assert loaded.isdisjoint({"torch", "faiss", "open_clip", "onnxruntime", "cv2"})


def test_once_says_why_a_server_cannot_be_asked_and_ends_as_failed(stack: Stack) -> None:
    nobody = stack.settings.model_copy(update={"database_url": "postgresql+psycopg2://u:p@127.0.0.1:1/d"})
    command = [sys.executable, "-m", "worker.cli", "metrics"]
    environment = {**os.environ, **nobody.as_env(), "SIGHTLINE_METRICS_PORT": ""}
    once = subprocess.run([*command, "--once"], env=environment, capture_output=True, text=True)
    as_json = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True)

    assert (once.returncode, as_json.returncode) == (1, 1)
    assert 'sightline_reachable{server="postgres"} 0.0' in once.stdout
    assert once.stderr.startswith("postgres cannot be asked: ")
    assert list(json.loads(as_json.stdout)["away"]) == ["postgres"]


def test_a_disk_that_hangs_holds_up_no_scrape_and_all_else_is_told(tmp_path: Path) -> None:
    index = tmp_path / "index"
    index.mkdir()
    settings = Settings(data_dir=tmp_path, index_dir=index)
    registry, _ = registry_of(settings, dict, role="serve", slots=1)

    def scraped() -> tuple[Samples, float]:
        began = time.monotonic()
        return read(exporter.written(registry)), time.monotonic() - began

    with hung_disk(index) as end:
        first, took_s = scraped()
        assert took_s < DISKS_S + 1
        second, took_s = scraped()
        assert took_s < 1, "nobody waits for it again"
        threads = len(asking("disk of index"))
        end()
    until(lambda: value(scraped()[0], "disk_reachable", folder="index") == 1, "it is asked again")

    assert threads == 1
    for found in (first, second):
        assert [value(found, "disk_reachable", folder=name) for name in ("index", "data", "models")] == [0, 1, 1]
        assert value(found, "disk_free_bytes", folder="index") is None
        assert (value(found, "disk_free_bytes", folder="data") or 0) > 0
        assert value(found, "slots") == 1


def test_a_value_that_nobody_knows_is_told_as_other() -> None:
    registry = CollectorRegistry()
    heard = Heard(registry)
    for name in ("sightline.search", "'; DROP", "x" * 10_000):
        heard.counted("tasks", 1, {"task": name, "code": "ok"})

    found = read(exporter.written(registry))
    assert {dict(labels)["task"]: n for (name, labels), n in found.items() if name == "sightline_tasks_total"} == {
        "sightline.search": 1,
        "other": 2,
    }


def test_metrics_listen_on_this_machine_alone_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGHTLINE_METRICS_HOST", raising=False)
    settings = Settings()
    taken = server.take(settings.metrics_host, 0)

    assert settings.metrics_port is None
    assert taken is not None
    with closing(taken):
        assert server.address(taken) == f"127.0.0.1:{server.port_of(taken)}"
    everywhere = server.take("0.0.0.0", 0)
    assert everywhere is not None
    with closing(everywhere):
        assert server.address(everywhere) == f"{socket.gethostname()}:{server.port_of(everywhere)}"
