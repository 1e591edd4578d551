"""Redis that changes its mind, and strangers at it: workers and the beat live on, and what was lost is said."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery

from producer_client import Code, Sightline, Stored, TryAgain, contract
from producer_client.words import DEFAULT_KEY_PREFIX
from tests import commands
from tests.conftest import Scene, server_dir
from tests.faults.conftest import PATIENCE_S, Gate, until
from tests.zoo.messages import item
from worker.children import Process
from worker.commands import doctor
from worker.embedded import VALKEY, EmbeddedServers
from worker.errors import Permanent
from worker.parking import Parking
from worker.settings import Settings
from worker.signals import ENDED
from worker.stack import Stack
from worker.unfit import bad_task

QUEUE = "interactive"
PREFIX = DEFAULT_KEY_PREFIX


@pytest.fixture
def server(sturdy: Stack) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(sturdy.settings.broker_url) as client:
        client.delete(PREFIX + "parked")
        yield client
        client.replicaof("NO", "ONE")
        client.config_set("maxmemory", 0)
    assert [process.exit_code for process in sturdy.processes] == [None] * 3


@pytest.fixture
def parking(server: redis.Redis) -> Parking:
    return Parking(server, prefix=PREFIX)


@pytest.fixture
def client(sturdy: Stack) -> Iterator[Sightline]:
    with sturdy.client(timeout_s=PATIENCE_S) as connected:
        yield connected


def log_of(process: Process) -> str:
    assert process.log is not None
    return process.log.read_text()


def says(process: Process, words: str) -> Callable[[], bool]:
    """Whether it says so from now on."""
    before = len(re.findall(words, log_of(process)))
    return lambda: len(re.findall(words, log_of(process))) > before


def above_ordinary(log: str) -> list[str]:
    """Level, logger and constant text of each line that is a warning or worse, and whatever has no level."""
    lines = [line for line in log.splitlines() if not re.match(r"\S+ INFO |$", line)]
    return [re.sub(r"^\S+Z | \w+=.*", "", line) for line in lines]


def all_work(stack: Stack, client: Sightline) -> None:
    """The beat knocks, the index process hears it, the worker answers."""
    ticked = says(stack.processes[1], "task done task=sightline.tick")
    client.stats()
    until(ticked, "a tick is carried out")


# ------------------------------------------------------------------------------ a server that does not serve


def test_both_workers_and_the_beat_outlive_a_redis_that_is_a_replica_for_a_while(
    sturdy: Stack, server: redis.Redis, client: Sightline
) -> None:
    """A failover and back: the other server has a copy, becomes the primary, and is followed."""
    with server_dir() as folder, EmbeddedServers(folder, with_postgres=False) as other:
        ours, theirs = urlsplit(sturdy.settings.broker_url), urlsplit(other.broker_url)
        with redis.Redis.from_url(other.broker_url) as second:
            second.config_set("masterauth", ours.password or "")
            server.config_set("masterauth", theirs.password or "")
            second.replicaof("127.0.0.1", ours.port)
            until(lambda: second.info("replication").get("master_link_status") == "up", "the other has a copy")
            met = [says(process, "it is a replica") for process in sturdy.processes]

            second.replicaof("NO", "ONE")
            server.replicaof("127.0.0.1", theirs.port)
            with pytest.raises(TryAgain) as refused:
                client.stats()
            for process, has in zip(sturdy.processes, met, strict=True):
                until(has, f"{process.name} has met the replica")
            server.replicaof("NO", "ONE")
            all_work(sturdy, client)

    assert refused.value.code == Code.UNAVAILABLE
    assert "replica, which only reads" in refused.value.message


@pytest.mark.parametrize(
    ("change", "met", "back", "words"),
    [
        (("REPLICAOF", "127.0.0.1", "1"), "it is a replica", ("REPLICAOF", "NO", "ONE"), "it is a replica"),
        (("CONFIG", "SET", "maxmemory", "1"), "maxmemory", ("CONFIG", "SET", "maxmemory", "0"), "memory is full"),
    ],
    ids=["a replica", "full"],
)
def test_a_request_in_hand_when_redis_takes_no_writes_is_answered_when_it_does(
    change: tuple[str, ...],
    met: str,
    back: tuple[str, ...],
    words: str,
    sturdy: Stack,
    server: redis.Redis,
    client: Sightline,
    gate: Gate,
    scenes: list[Scene],
) -> None:
    handle = client.submit_add_to_index(url=gate.url(0), lat=scenes[0].lat, lon=scenes[0].lon, provenance="surveyed")
    until(lambda: len(gate.asked) > 0, "the photo is being read")

    commands: Any = server.execute_command
    commands(*change)
    done = says(sturdy.processes[0], "task done task=sightline.add_to_index")
    refused = says(sturdy.processes[0], f"a reply waits for Redis .*{met}")
    before = log_of(sturdy.processes[0]).count("a reply waits")
    gate.open.set()
    until(done, "it is carried out")
    until(refused, "the worker has met it")
    with pytest.raises(TryAgain) as told:
        client.stats()
    commands(*back)

    assert isinstance(handle.wait(), Stored)
    all_work(sturdy, client)
    assert log_of(sturdy.processes[0]).count("a reply waits") == before + 1
    assert told.value.code == Code.UNAVAILABLE
    assert words in told.value.message


def test_workers_outlive_cut_connections_and_a_password_that_they_do_not_know(
    sturdy: Stack, server: redis.Redis, client: Sightline
) -> None:
    known = urlsplit(sturdy.settings.broker_url).password or ""
    server.config_set("requirepass", "another")
    cut = says(sturdy.processes[0], "does not take this user or password")
    ended = says(sturdy.processes[2], "does not take this user or password")
    server.client_kill_filter(_type="normal", skipme=True)
    server.client_kill_filter(_type="pubsub", skipme=True)
    until(cut, "the worker is refused")
    until(ended, "the beat is refused")
    server.config_set("requirepass", known)

    all_work(sturdy, client)


def test_a_connection_that_can_be_made_again_at_once_is_one_line(
    sturdy: Stack, server: redis.Redis, client: Sightline
) -> None:
    all_work(sturdy, client)
    until(lambda: server.hlen(PREFIX + "unacked") == 0, "the last message is done with, not only answered")
    before = len(log_of(sturdy.processes[0]))
    again = says(sturdy.processes[0], "Redis serves again")
    server.client_kill_filter(_type="normal", skipme=True)
    until(again, "it is connected again")

    assert above_ordinary(log_of(sturdy.processes[0])[before:]) == ["WARNING worker.outage Redis serves again"]


def test_a_message_that_comes_back_because_connections_were_cut_is_not_taken_for_one_that_kills_its_worker(
    frail: Stack, gate: Gate, scenes: list[Scene]
) -> None:
    # With a hand for each time that it comes back: a worker with its hands full takes nothing.
    worker = frail.start("worker", settings=frail.settings.model_copy(update={"concurrency": 8}))
    frail.wait_ready()
    with (
        frail.client(timeout_s=PATIENCE_S) as client,
        redis.Redis.from_url(frail.settings.broker_url) as server,
    ):
        handle = client.submit_add_to_index(
            url=gate.url(1), lat=scenes[1].lat, lon=scenes[1].lon, provenance="surveyed"
        )
        until(lambda: len(gate.asked) > 0, "the photo is being read")

        for _ in range(frail.settings.quarantine_after + 1):
            again = says(worker, f"add_to_index.{handle.task_id}. received")
            server.client_kill_filter(_type="normal", skipme=True)
            until(again, "it is handed out again")
        gate.open.set()

        assert isinstance(handle.wait(), Stored)
        until(lambda: server.hlen(PREFIX + "unacked") == 0, "all of them are carried out")
    assert "code=quarantined" not in log_of(worker)


def test_a_worker_waits_while_a_stranger_has_something_else_under_the_name_of_its_queue(
    sturdy: Stack, server: redis.Redis, client: Sightline
) -> None:
    met = says(sturdy.processes[0], "under a name of ours")
    server.set(PREFIX + QUEUE, "mine")
    until(met, "the worker has met it")
    server.delete(PREFIX + QUEUE)

    all_work(sturdy, client)


# ------------------------------------------------------------------------------------------ what strangers send


def test_what_another_client_broadcasts_does_nothing(sturdy: Stack, server: redis.Redis, client: Sightline) -> None:
    app = Celery(broker=sturdy.settings.broker_url, set_as_current=False)
    # One that knows our prefix, as an operator's `celery inspect` would.
    app.conf.broker_transport_options = {"global_keyprefix": PREFIX}
    try:
        app.control.shutdown()
        app.control.cancel_consumer(QUEUE)
        assert app.control.ping(timeout=0.5) == []
    finally:
        app.close()

    all_work(sturdy, client)


def run(sturdy: Stack, *command: str) -> tuple[int, Any]:
    done = commands.sightline(*command, "--json", env={**os.environ, **sturdy.settings.as_env()})
    return done.returncode, json.loads(done.stdout or "null")


def test_what_is_parked_is_named_by_doctor_and_put_back_or_dropped_by_command(
    sturdy: Stack, parking: Parking, client: Sightline
) -> None:
    sent = item([[contract.Stats().to_wire()], {}, {}], named="late")
    good, bad = parking.park(PREFIX + QUEUE, sent, bad_task()), parking.park(PREFIX + QUEUE, b"\xff", bad_task())

    with pytest.raises(Permanent, match=r"2 .*sightline parked"):
        doctor.queues(sturdy.settings)
    code, shown = run(sturdy, "parked")
    answered = says(sturdy.processes[0], "task done task=sightline.stats")
    back = run(sturdy, "parked", good.id, "--requeue")
    until(answered, "what was put back is carried out")
    dropped = run(sturdy, "parked", "all", "--drop")
    unknown, _ = run(sturdy, "parked", "none", "--drop")

    assert (code, [one["id"] for one in shown["parked"]]) == (0, [bad.id, good.id])
    assert back == (0, {"requeued": [good.id], "left": []})
    assert dropped == (0, {"dropped": [bad.id], "left": []})
    assert unknown == 1
    assert "nothing" in doctor.queues(sturdy.settings)


def test_who_reads_no_more_of_what_is_parked_is_no_fault_of_redis(sturdy: Stack) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "wb") as nobody:
        done = subprocess.run(
            [sys.executable, "-m", "worker.cli", "parked", "--json"],
            env={**os.environ, **sturdy.settings.as_env()},
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
        )

    assert (done.returncode, done.stderr) == (1, "")


def test_doctor_says_that_redis_takes_no_messages(sturdy: Stack, server: redis.Redis) -> None:
    server.config_set("maxmemory", 1)
    with pytest.raises(Permanent, match="maxmemory"):
        doctor.broker(sturdy.settings)
    server.config_set("maxmemory", 0)
    server.replicaof("127.0.0.1", 1)
    with pytest.raises(Permanent, match="replica"):
        doctor.broker(sturdy.settings)


# ------------------------------------------------------------------------------------------ how a process ends


def run_code(code: str, stack: Stack) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **stack.settings.as_env()},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@pytest.mark.parametrize(
    ("command", "broken"),
    [
        (["worker", "--role", "index"], "celery.worker.consumer.Consumer"),
        (["beat"], "celery.beat.Service"),
    ],
)
def test_an_end_that_nobody_asked_for_has_a_code_of_its_own(command: list[str], broken: str, sturdy: Stack) -> None:
    module, _, name = broken.rpartition(".")
    code = (
        f"import sys; import {module} as room\n"
        f"def start(self): raise ZeroDivisionError('as nobody expects')\n"
        f"room.{name}.start = start\n"
        f"from worker.cli import main; sys.argv[1:] = {command!r}; main()"
    )

    ended = run_code(code, sturdy)

    assert ended.returncode == ENDED
    assert "has ended by itself" in ended.stderr


def test_a_worker_that_is_to_begin_anew_does_not_say_that_it_has_ended_by_itself(sturdy: Stack) -> None:
    """By SIGHUP, as service managers send it: Celery starts the same program again in the same process."""
    code = (
        "import os, signal, sys; import celery.worker.consumer as room; from celery.worker import state\n"
        "def start(self): signal.raise_signal(signal.SIGHUP); state.maybe_shutdown()\n"
        "room.Consumer.start = start; os.execv = lambda *_: os._exit(42)\n"
        "from worker.cli import main; sys.argv[1:] = ['worker', '--role', 'index']; main()"
    )

    ended = run_code(code, sturdy)

    assert ended.returncode == 42, ended.stderr
    assert "has ended by itself" not in ended.stderr


@pytest.fixture
def own_redis() -> Iterator[EmbeddedServers]:
    """One that may be stopped."""
    with server_dir() as folder, EmbeddedServers(folder, with_postgres=False) as servers:
        yield servers


@contextmanager
def run_beside(servers: EmbeddedServers, folder: Path, *command: str) -> Iterator[Process]:
    process = Process(
        Settings(broker_url=servers.broker_url, data_dir=folder, tick_every_s=0.5), *command, log=folder / "log"
    )
    try:
        yield process
    finally:
        process.kill()


@pytest.fixture
def beat(own_redis: EmbeddedServers, tmp_path: Path) -> Iterator[Process]:
    """One that has knocked."""
    with run_beside(own_redis, tmp_path, "beat") as process:
        until_knocked(own_redis)
        yield process


def until_knocked(servers: EmbeddedServers) -> None:
    with redis.Redis.from_url(servers.broker_url) as server:
        server.delete(PREFIX + "index")
        until(lambda: server.llen(PREFIX + "index") > 0, "the beat knocks")


def stop(servers: EmbeddedServers) -> None:
    with redis.Redis.from_url(servers.broker_url) as server:
        server.shutdown(nosave=True)
    until(lambda: servers.ended(VALKEY) is not None, "Redis has ended")


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("away", [False, True], ids=["", "while Redis is away"])
def test_a_beat_that_is_asked_to_stop_ends_with_code_0(
    asked: signal.Signals, away: bool, own_redis: EmbeddedServers, beat: Process
) -> None:
    if away:
        stop(own_redis)
        until(says(beat, "Redis cannot be used"), "the beat has met it")
    os.kill(beat.pid, asked)
    beat.wait()

    assert beat.exit_code == 0
    assert "by itself" not in log_of(beat)


def test_a_beat_that_starts_before_its_redis_knocks_when_there_is_one(
    own_redis: EmbeddedServers, tmp_path: Path
) -> None:
    stop(own_redis)
    with run_beside(own_redis, tmp_path, "beat") as beat:
        until(lambda: "nothing listens there" in log_of(beat), "the beat has met it")
        own_redis.start_again(VALKEY)
        until_knocked(own_redis)


@pytest.mark.parametrize(
    ("command", "works"), [(("worker", "--role", "index"), " ready"), (("beat",), "beat: Starting")], ids=str
)
def test_a_redis_that_is_gone_is_said_once_and_that_it_is_back(
    command: tuple[str, ...], works: str, own_redis: EmbeddedServers, tmp_path: Path
) -> None:
    address = urlsplit(own_redis.broker_url)
    with run_beside(own_redis, tmp_path, *command) as process:
        until(lambda: works in log_of(process), "it works")
        if command == ("beat",):
            until_knocked(own_redis)
        before = len(log_of(process))
        stop(own_redis)
        until(lambda: "nothing listens there" in log_of(process), "it has met it")
        with socket.create_server(("127.0.0.1", address.port or 0)) as nothing:
            nothing.settimeout(PATIENCE_S)
            for _ in range(4):
                nothing.accept()[0].close()
        back = says(process, "Redis serves again")
        own_redis.start_again(VALKEY)
        until(back, "it has met that it is back")
        said = log_of(process)[before:]

    reasons = re.findall(r"Redis cannot be used.* why=(.*)", said)
    assert len(reasons) == len(set(reasons))
    *met, over = above_ordinary(said)
    assert met == ["ERROR worker.outage Redis cannot be used, it is tried every second until it can"] * len(reasons)
    assert over == "WARNING worker.outage Redis serves again"
    assert f"redis=redis://:**@127.0.0.1:{address.port}/5" in said
    assert "Connected to" not in said
    assert (address.password or "-") not in said
