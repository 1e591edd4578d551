"""Postgres, Redis or a disk fails in every way: callers are told to try again in time, workers come back by themselves,
and nothing is lost. One service for all of it, which reaches both servers by ways that fail when they are told to."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO
from uuid import uuid4

import numpy as np
import psutil
import pytest
import redis
from kombu import Queue
from PIL import Image
from sqlalchemy import create_engine, text

from producer_client import Code, Sightline, Stored, TimedOut, TryAgain, contract
from producer_client.contract import TaskName
from producer_client.handle import Handle
from tests.between import Between, before_postgres, before_redis
from tests.conftest import plain_celery, server_dir
from tests.faults.conftest import PATIENCE_S, hasty_stack, until
from worker.app import create_app
from worker.embedded import POSTGRES, VALKEY, EmbeddedServers
from worker.settings import Settings
from worker.stack import Stack

#: Seconds that a caller waits here: beyond what it takes to notice that a server is silent.
CALLER_S = 20.0
#: Bytes of the disk that generations lie on.
DISK_BYTES = 8 << 20

Outage = Callable[["Service"], AbstractContextManager[None]]


@dataclass
class Service:
    """stack: its processes reach both servers by `postgres` and `redis`. folder: of photos. disk: a small one."""

    stack: Stack
    postgres: Between
    redis: Between
    folder: Path
    disk: Path | None
    numbers: Iterator[int] = field(default_factory=count)

    def photo(self) -> str:
        """A new one that looks like no other."""
        number = next(self.numbers)
        path = self.folder / f"{number}.png"
        noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        return str(path)

    def add(self, client: Sightline) -> Handle[Stored]:
        return client.submit_add_to_index(path=self.photo(), lat=1.0, lon=2.0, provenance="surveyed")

    def times(self, words: str, place: int = 0) -> Callable[[int], bool]:
        """Whether a process has said so as often from now on."""
        log = self.stack.processes[place].log
        assert log is not None
        before = log.read_text().count(words)
        return lambda often: log.read_text().count(words) >= before + often

    def says(self, words: str, place: int = 0) -> Callable[[], bool]:
        return partial(self.times(words, place), 1)


def mounted(folder: Path) -> bool:
    """A small disk of its own there, where this user may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def lose_the_network() -> None:
    """In a network of its own: prints how many seconds after it is gone whoever takes messages has noticed."""
    with socket.socket() as any_socket, server_dir() as folder:
        _bring_loopback(any_socket, up=True)
        with EmbeddedServers(folder, with_postgres=False) as servers:
            app = create_app(Settings(broker_url=servers.broker_url, data_dir=folder))
            with app.connection_for_read() as connection:
                connection.Consumer(queues=[Queue("interactive")]).consume()
                with suppress(TimeoutError):
                    connection.drain_events(timeout=1)
                _bring_loopback(any_socket, up=False)
                began = time.monotonic()
                try:
                    while time.monotonic() < began + PATIENCE_S:
                        with suppress(socket.timeout):
                            connection.drain_events(timeout=1)
                except redis.exceptions.TimeoutError:
                    print(time.monotonic() - began)
            _bring_loopback(any_socket, up=True)


def _bring_loopback(any_socket: socket.socket, *, up: bool) -> None:
    get_flags, set_flags, is_up = 0x8913, 0x8914, 1  # linux/sockios.h, linux/if.h
    flags = struct.unpack_from("16xH", fcntl.ioctl(any_socket, get_flags, struct.pack("16sH14x", b"lo", 0)))[0]
    flags = flags | is_up if up else flags & ~is_up
    fcntl.ioctl(any_socket, set_flags, struct.pack("16sH14x", b"lo", flags))


@pytest.fixture(scope="module")
def lost_network() -> Iterator[subprocess.Popen[str]]:
    """Begun before all else, as it only waits."""
    run = f"from {__name__} import lose_the_network; lose_the_network()"
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", run]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def service(photo_root: Path, lost_network: subprocess.Popen[str]) -> Iterator[Service]:
    folder = photo_root / "outages"
    folder.mkdir()
    with server_dir() as disks, ExitStack() as stack:
        disk = disks / "index"
        is_small = mounted(disk)
        if is_small:
            stack.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=True)
        running = stack.enter_context(hasty_stack(photo_root, tick_every_s=0.5, index_dir=disk, exam_photos=0))
        ways = disks / "ways"
        ways.mkdir()
        to_postgres = stack.enter_context(before_postgres(running.settings.database_url, ways))
        to_redis = stack.enter_context(before_redis(running.settings.broker_url))
        far = {"database_url": to_postgres.url, "broker_url": to_redis.url}
        settings = running.settings.model_copy(update=far)
        for arguments in (["worker"], ["worker", "--role", "index"], ["beat"]):
            running.start(*arguments, settings=settings)
        running.wait_ready()
        yield Service(running, to_postgres, to_redis, folder, disk if is_small else None)


@pytest.fixture
def client(service: Service) -> Iterator[Sightline]:
    """Of a caller who reaches Redis by the same way as the workers. Whatever happens, no process ends."""
    with Sightline(service.redis.url, timeout_s=CALLER_S) as connected:
        yield connected
    assert [process.exit_code for process in service.stack.processes] == [None] * 3


# ----------------------------------------------------------------------------------------------- outages


@contextmanager
def postgres_killed(service: Service) -> Iterator[None]:
    """All at once, as by a machine that loses its power: it reads its log again when it starts. Refuses meanwhile."""
    server = process_of(service, POSTGRES)
    os.killpg(server.pid, signal.SIGKILL)
    until(lambda: service.stack.servers.ended(POSTGRES) is not None, "Postgres has ended")
    service.postgres.refuse()
    try:
        yield
    finally:
        service.stack.servers.start_postgres()
        service.postgres.listen()


@contextmanager
def postgres_stopped(service: Service) -> Iterator[None]:
    with stopped(process_of(service, POSTGRES)):
        yield


@contextmanager
def redis_restarts(service: Service) -> Iterator[None]:
    """Refuses meanwhile."""
    process_of(service, VALKEY).kill()
    until(lambda: service.stack.servers.ended(VALKEY) is not None, "Redis has ended")
    service.redis.refuse()
    try:
        yield
    finally:
        service.stack.servers.start_again(VALKEY)
        service.redis.listen()


@contextmanager
def redis_stopped(service: Service) -> Iterator[None]:
    with stopped(process_of(service, VALKEY)):
        yield


def process_of(service: Service, name: str) -> psutil.Process:
    server = service.stack.servers._started[name]._process
    assert server is not None
    return psutil.Process(server.pid)


@contextmanager
def stopped(server: psutil.Process) -> Iterator[None]:
    """It and all that it has forked."""
    all_of_it = [server, *server.children(recursive=True)]
    for process in all_of_it:
        process.suspend()
    try:
        yield
    finally:
        for process in all_of_it:
            process.resume()


def told_to_try_again(client: Sightline) -> TryAgain:
    """In time."""
    began = time.monotonic()
    with pytest.raises(TryAgain) as told:
        client.stats()
    assert time.monotonic() - began < CALLER_S
    return told.value


# ------------------------------------------------------------------------------------------------- Postgres


@pytest.mark.parametrize("outage", [postgres_killed, postgres_stopped])
def test_while_postgres_is_away_writes_wait_and_callers_are_told_to_try_again_in_time(
    outage: Outage, service: Service, client: Sightline
) -> None:
    known = service.add(client).wait()
    until(lambda: client.search(path=service.photo(), threshold=-1.0).seq >= known.seq, "the worker has read of it")

    with outage(service):
        waiting = service.add(client)
        told = told_to_try_again(client)
        stale = client.search(path=service.photo(), threshold=-1.0, top_k=100, allow_stale=True)
        with pytest.raises(TimedOut):
            waiting.wait(0.5)
    stored = waiting.wait(PATIENCE_S)
    fresh = client.search(path=service.photo(), threshold=-1.0, top_k=100)

    assert told.code == Code.UNAVAILABLE
    assert stale.stale_s is not None
    assert known.photo_id in {hit.photo_id for hit in stale.hits}
    assert fresh.stale_s is None
    assert {known.photo_id, stored.photo_id} <= {hit.photo_id for hit in fresh.hits}


def test_connections_to_postgres_that_are_half_open_are_given_up_and_made_anew(
    service: Service, client: Sightline
) -> None:
    service.add(client).wait()

    service.postgres.lose()

    assert isinstance(service.add(client).wait(), Stored), "within the caller's patience"


@contextmanager
def postgres_follows(service: Service) -> Iterator[None]:
    """A standby: it reads on where another server would write, and says so."""
    mark = service.stack.settings.data_dir / "postgres" / "standby.signal"
    service.stack.servers.stop_postgres()
    mark.touch()
    service.stack.servers.start_postgres()
    try:
        yield
    finally:
        service.stack.servers.stop_postgres()
        mark.unlink()
        service.stack.servers.start_postgres()


def test_a_postgres_that_has_become_a_standby_answers_questions_and_writes_wait_for_the_primary(
    service: Service, client: Sightline
) -> None:
    known = service.add(client).wait()

    with postgres_follows(service):
        met = service.times("read-only")
        waiting = service.add(client)
        until(lambda: met(3), "the write has met it more often than a question is tried")
        found = client.search(path=service.photo(), threshold=-1.0, top_k=100)

    assert known.photo_id in {hit.photo_id for hit in found.hits}
    assert found.stale_s is None
    assert isinstance(waiting.wait(PATIENCE_S), Stored)


# --------------------------------------------------------------------------------------------------- Redis


@pytest.mark.parametrize("outage", [redis_restarts, redis_stopped])
def test_while_redis_is_away_callers_are_told_to_try_again_in_time_and_what_was_sent_is_done_once(
    outage: Outage, service: Service, client: Sightline
) -> None:
    before = client.stats().photos
    sent = [service.add(client) for _ in range(6)]

    with outage(service):
        told = told_to_try_again(client)
    ids = {handle.wait(PATIENCE_S).photo_id for handle in sent}
    again = service.add(client).wait(PATIENCE_S)
    ticked = service.says("task done task=sightline.tick", place=1)
    until(ticked, "the index process and the beat are heard again")

    assert told.code == Code.UNAVAILABLE
    assert len(ids) == 6
    assert client.stats().photos == before + 7
    assert again.photo_id not in ids


def test_a_redis_whose_host_is_gone_is_given_up_within_20_seconds(
    service: Service, lost_network: subprocess.Popen[str]
) -> None:
    """Half-open TCP: nobody says that the connection has ended."""
    noticed_s, said = lost_network.communicate(timeout=PATIENCE_S)
    if said.startswith("unshare: "):
        pytest.skip("this user may not have a network of its own")

    assert noticed_s, said
    assert float(noticed_s) < 20


# ------------------------------------------------------------------------------------------------ sent twice


def test_a_message_that_is_delivered_twice_at_once_changes_what_one_would(service: Service, client: Sightline) -> None:
    """Of an add, a removal and a purge: the very same message, id and all."""
    app = plain_celery(service.stack.settings)
    kept, removed, purged = (service.add(client).wait() for _ in range(3))
    before, path = client.stats(), service.photo()
    new = contract.NewPhoto("new", contract.Photo(path=path), 1.0, 2.0, contract.Provenance.SURVEYED)
    messages = [
        (TaskName.ADD_TO_INDEX, contract.AddToIndex(photos=[new.to_wire()])),
        (TaskName.REMOVE, contract.Remove(photo_ids=[removed.photo_id])),
        (TaskName.PURGE, contract.Purge(photo_ids=[purged.photo_id])),
    ]

    for name, message in messages:
        task_id, done = str(uuid4()), service.times(f"task done task={name.value} ")
        for _ in range(2):
            app.send_task(name.value, args=[message.to_wire()], queue="interactive", task_id=task_id)
        until(partial(done, 2), "both are done")
    app.close()
    after = client.stats()
    vector = client.embed(path=path, return_vector=True).vector
    hits = client.search(vector=vector, threshold=-1.0, top_k=100).hits

    assert (after.photos, after.indexed) == (before.photos + 1, before.indexed - 1)
    assert len([hit for hit in hits if hit.similarity > 0.999]) == 1
    assert kept.photo_id in {hit.photo_id for hit in hits}
    assert not {removed.photo_id, purged.photo_id} & {hit.photo_id for hit in hits}


# --------------------------------------------------------------------------------------------------- disks


@pytest.fixture
def disk(service: Service) -> Path:
    if service.disk is None:
        pytest.skip("this user may not mount a disk of its own")
    return service.disk


def fill(file: IO[bytes]) -> None:
    """To the last byte of its disk."""
    try:
        while True:
            file.write(bytes(4_096))
    except OSError:
        return


@contextmanager
def full(disk: Path) -> Iterator[None]:
    filler = disk / ".filler"
    with filler.open("wb", buffering=0) as file:
        fill(file)
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", f"remount,rw,size={DISK_BYTES}", str(disk)], check=True)


def test_a_rebuild_onto_a_disk_that_takes_nothing_leaves_the_generation_before_and_what_is_in_it(
    service: Service, client: Sightline, disk: Path
) -> None:
    stored = service.add(client).wait()
    generation = client.rebuild_index(timeout_s=PATIENCE_S).generation

    for fault, said in ((full, "No space left"), (read_only, "Read-only file system")):
        with fault(disk):
            with pytest.raises(TryAgain) as failed:
                client.rebuild_index(timeout_s=PATIENCE_S)
            run = client.stats().last_rebuild
            found = client.search(path=service.photo(), threshold=-1.0, top_k=100)
            later = service.add(client).wait()

        assert not [path for path in disk.iterdir() if path.name.startswith(".")], "nothing torn is left"
        assert run is not None
        assert (run.state, failed.value.code) == ("failed", Code.UNAVAILABLE)
        assert said in failed.value.message
        assert said in str(run.error)
        assert found.generation == generation
        assert stored.photo_id in {hit.photo_id for hit in found.hits}
        assert later.seq > stored.seq
    rebuilt = client.rebuild_index(timeout_s=PATIENCE_S)

    assert rebuilt.generation > generation
    assert rebuilt.indexed == client.stats().indexed


def test_writes_wait_for_a_postgres_whose_disk_is_full(service: Service, client: Sightline, disk: Path) -> None:
    """A tablespace on a small disk, which the table of vectors moves to."""
    service.add(client).wait()
    space = disk / "tablespace"
    space.mkdir()
    owner = (service.stack.settings.data_dir / "postgres").stat()
    os.chown(space, owner.st_uid, owner.st_gid)
    disk.parent.chmod(0o711)
    engine = create_engine(service.stack.settings.database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE TABLESPACE small LOCATION '{space}'"))
        connection.execute(text("ALTER TABLE sightline.embeddings SET TABLESPACE small"))
        with full(disk):
            met = service.times("No space left on device")
            # What is free in its last pages is used up by some of them.
            waiting = [service.add(client) for _ in range(20)]
            until(lambda: met(2 * 20 + 1), "writes have met it more often than questions are tried")
            found = client.search(path=service.photo(), threshold=-1.0)
        stored = [handle.wait(PATIENCE_S) for handle in waiting]
        connection.execute(text("ALTER TABLE sightline.embeddings SET TABLESPACE pg_default"))
        connection.execute(text("DROP TABLESPACE small"))
    engine.dispose()

    assert found.hits
    assert len({one.photo_id for one in stored}) == 20
