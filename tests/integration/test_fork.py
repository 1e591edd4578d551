"""A client that was used before its process forked: every reply reaches who asked, in children and in the parent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest
import redis

from producer_client import Sightline
from tests import forked
from tests.conftest import until
from worker.embedded import EmbeddedServers

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


@contextmanager
def running(log: Path, *command: str, redis_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output goes to the log, until the end of the block."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, "FORKED_REDIS": redis_url, "C_FORCE_ROOT": "1"},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        try:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_S)
        finally:
            kill_all(process)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """It and its children, of which some may hang; it has a session of its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def finished(*command: str, redis_url: str, patience_s: float = PATIENCE_S) -> tuple[int, str]:
    """The exit code and all that was said. No child outlives it."""
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "FORKED_REDIS": redis_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=patience_s)
            return process.returncode, said.decode()
        finally:
            kill_all(process)


@pytest.fixture(scope="module")
def redis_url(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database of its own, and a worker that answers there."""
    url = re.sub(r"/\d+$", "/9", servers.broker_url)
    with running(tmp_path_factory.mktemp("echo") / "log", "-m", "tests.forked", "echo", redis_url=url):
        yield url


@pytest.fixture
def run(redis_url: str) -> Callable[..., None]:
    """Run one of `tests.forked` to its end."""

    def done(*what: str) -> None:
        code, said = finished("-m", "tests.forked", *what, redis_url=redis_url, patience_s=PATIENCE_S * 2)
        assert code == 0, said

    return done


def test_children_of_a_parent_whose_threads_wait_get_their_replies_and_so_does_it(run: Callable[..., None]) -> None:
    run("threads")


def test_locks_and_senders_that_were_taken_at_the_fork_are_free_in_the_child(run: Callable[..., None]) -> None:
    run("held")


def test_what_a_parent_has_asked_is_answered_in_its_children_too(run: Callable[..., None]) -> None:
    run("handles")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_processes_of_a_pool_ask_by_the_client_of_their_module_and_by_one_that_is_handed_over(
    run: Callable[..., None], method: str
) -> None:
    run("pool", method)


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_requests_to_gunicorn_with_preload_are_all_answered(redis_url: str, tmp_path: Path, kind: str) -> None:
    log = tmp_path / "log"
    command = ["-m", "gunicorn", "tests.forked:application", "--preload", "-b", "127.0.0.1:0"]
    command += ["-w", "4", "-k", kind, "--threads", "4" if kind == "gthread" else "1", "-c", "python:tests.preloaded"]

    with running(log, *command, redis_url=redis_url):
        until(lambda: log.read_text().count("Booting worker") == 4, PATIENCE_S)
        (port,) = re.findall(r"Listening at: http://127\.0\.0\.1:(\d+)", log.read_text())
        # Connections are not kept, so that they come to all the workers.
        limits = httpx2.Limits(max_keepalive_connections=0)
        address = f"http://127.0.0.1:{port}"
        with httpx2.Client(base_url=address, timeout=PATIENCE_S, limits=limits) as http, ThreadPoolExecutor(16) as pool:
            answers = [said.text.split() for said in pool.map(lambda n: http.get(f"/{n}"), range(64))]

    assert [int(number) for number, _ in answers] == list(range(64))
    assert len({process for _, process in answers}) > 1


def test_tasks_of_the_backends_own_prefork_workers_ask_by_a_client_of_the_parent(
    redis_url: str, tmp_path: Path
) -> None:
    forked.backend.conf.update(broker_url=redis_url, result_backend=redis_url)

    with running(tmp_path / "log", "-m", "tests.forked", "own_worker", redis_url=redis_url):
        asked = [forked.relay.delay(number) for number in range(32)]
        answers = [one.get(timeout=PATIENCE_S) for one in asked]
    forked.backend.close()

    assert [number for number, _ in answers] == list(range(32))
    assert len({process for _, process in answers}) > 1


def test_a_parents_connections_stay_open_when_its_children_end(redis_url: str) -> None:
    program = """
import os
from tests.forked import client, codes, in_child, right
right(0)
before = {one["id"] for one in client._line().replies._store.client.client_list()}
assert codes([in_child(lambda: right(1)) for _ in range(2)]) == [0, 0]
assert codes([in_child(client.close)]) == [0]
after = {one["id"] for one in client._line().replies._store.client.client_list()}
assert before <= after, "its connections were ended"
right(0)
"""
    code, said = finished("-c", program, redis_url=redis_url)
    assert code == 0, said


def test_handles_that_nobody_waits_for_leave_nothing_and_the_program_ends_silently(redis_url: str) -> None:
    program = """
import asyncio, gc, threading
from tests.forked import client
handles = [client.submit_embed_text(str(number)) for number in range(20)]
assert threading.enumerate() == [threading.main_thread()]
assert client._line().replies._store.client.pubsub_channels("sightline:*") == []
handles.clear()
gc.collect()

async def give_up() -> None:
    waiting = asyncio.ensure_future(awaited())
    await asyncio.sleep(0.2)
    waiting.cancel()

async def awaited() -> None:
    await client.locating("nobody")

asyncio.run(give_up())
assert client._line().replies.wait("nobody", 0.1) is None
"""
    start = time.monotonic()
    assert finished("-W", "error", "-X", "dev", "-c", program, redis_url=redis_url) == (0, "")
    assert time.monotonic() - start < 15, "it ended before the patience of the one that was awaited"
    with redis.Redis.from_url(redis_url) as connection:
        replies = connection.keys("sightline:celery-task-meta-*")
        assert all(0 < connection.ttl(key) <= 3600 for key in replies)


def test_a_client_that_nobody_holds_gives_its_connections_back(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as other:

        def connected() -> set[str]:
            return {one["id"] for one in other.client_list()}

        with Sightline(redis_url) as earlier:
            earlier.embed_text("0")  # the worker has what it answers by from here on
        before = connected()
        client = Sightline(redis_url)
        client.submit_embed_text("1").wait()
        gone = weakref.ref(client)
        opened = connected() - before
        assert opened

        del client

        assert gone() is None
        until(lambda: not opened & connected())
