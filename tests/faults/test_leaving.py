"""A worker leaves in time, whatever its threads are at: what is stuck is named and handed on, and so is what cannot be
ended within the grace."""

from __future__ import annotations

import os
import signal
import time

import pytest
import redis

from producer_client import Stored
from tests.conftest import Scene
from tests.faults.conftest import PATIENCE_S, Gate, until
from worker.leaving import LEAVE_S
from worker.settings import Settings
from worker.signals import ENDED
from worker.stack import Stack

#: A minute of a test for what takes many of a service.
STUCK_S, GRACE_S = 4.0, 2.0


@pytest.fixture
def settings(frail: Stack) -> Settings:
    """Under which nothing is handed on but by who leaves, and a photo may be read for as long as it takes."""
    changed = {"stuck_s": STUCK_S, "stop_grace_s": GRACE_S, "visibility_timeout_s": 600, "url_timeout_s": PATIENCE_S}
    return frail.settings.model_copy(update=changed)


def test_a_thread_that_is_stuck_is_named_its_message_handed_on_and_its_process_ended(
    frail: Stack, settings: Settings, gate: Gate, scenes: list[Scene]
) -> None:
    stuck = frail.start("worker", settings=settings)
    frail.wait_ready()
    with frail.client(timeout_s=PATIENCE_S) as client:
        handle = client.submit_add_to_index(url=gate.url(0), lat=1.0, lon=2.0, provenance="surveyed")
        until(lambda: gate.asked["/0.jpg"] == 1, "a thread reads a photo that does not come")

        meanwhile = client.search(path=str(scenes[1].path))
        until(lambda: stuck.exit_code is not None, "its process ends")
        frail.processes.remove(stuck)
        gate.open.set()
        frail.start("worker", settings=settings)
        stored = handle.wait()
        stats = client.stats()

    assert meanwhile.model_key
    assert stuck.exit_code == ENDED
    assert stuck.log is not None
    (line,) = [line for line in stuck.log.read_text().splitlines() if "a thread is stuck" in line]
    assert f"task=sightline.add_to_index task_id={handle.task_id}" in line
    assert "where=" in line
    assert " < " in line.partition("where=")[2], "calls of the thread, not of the loop"
    assert isinstance(stored, Stored)
    assert [(found.task, found.task_id) for found in stats.stuck] == [("sightline.add_to_index", handle.task_id)]
    assert stats.stuck[0].for_s >= STUCK_S


def test_a_process_that_was_stopped_for_longer_than_a_thread_may_take_has_none_that_is_stuck(
    frail: Stack, settings: Settings, gate: Gate, scenes: list[Scene]
) -> None:
    worker = frail.start("worker", settings=settings.model_copy(update={"stuck_s": 8.0}))
    frail.wait_ready()
    with frail.client(timeout_s=PATIENCE_S) as client:
        handle = client.submit_add_to_index(url=gate.url(0), lat=1.0, lon=2.0, provenance="surveyed")
        until(lambda: gate.asked["/0.jpg"] == 1, "it is read")
        os.kill(worker.pid, signal.SIGSTOP)
        time.sleep(9.0)
        os.kill(worker.pid, signal.SIGCONT)
        client.stats()
        gate.open.set()

        assert isinstance(handle.wait(), Stored)
        assert client.stats().stuck == []
    assert worker.exit_code is None


def test_a_worker_that_is_told_to_stop_hands_back_what_does_not_end_in_time(
    frail: Stack, settings: Settings, gate: Gate, scenes: list[Scene]
) -> None:
    # Counted once, it would be left alone.
    settings = settings.model_copy(update={"stuck_s": 600.0, "quarantine_after": 1})
    worker = frail.start("worker", settings=settings)
    frail.wait_ready()
    prefix = settings.key_prefix
    with (
        frail.client(timeout_s=PATIENCE_S) as client,
        redis.Redis.from_url(settings.broker_url) as server,
    ):
        until(lambda: server.hlen(prefix + "unacked") == 0, "what it was asked first is done with")
        handle = client.submit_add_to_index(url=gate.url(0), lat=1.0, lon=2.0, provenance="surveyed")
        until(lambda: gate.asked["/0.jpg"] == 1, "it is read")

        told = time.monotonic()
        worker.ask_to_stop()
        until(lambda: worker.exit_code is not None, "it ends")
        took_s = time.monotonic() - told
        back = server.llen(prefix + "interactive"), server.hlen(prefix + "unacked")
        frail.processes.remove(worker)
        gate.open.set()
        frail.start("worker", settings=settings)
        stored = handle.wait()

    assert worker.exit_code == 0
    assert back == (1, 0)
    assert took_s < GRACE_S + LEAVE_S, "it was not cut off"
    assert isinstance(stored, Stored)


def test_a_worker_that_is_told_to_stop_while_redis_hangs_ends_all_the_same(
    frail: Stack, settings: Settings, gate: Gate
) -> None:
    worker = frail.start("worker", settings=settings.model_copy(update={"stuck_s": 600.0}))
    frail.wait_ready()
    (pid,) = [int(p) for p in (settings.data_dir / "valkey" / "valkey.pid").read_text().split()]
    with frail.client(timeout_s=PATIENCE_S) as client:
        client.submit_add_to_index(url=gate.url(0), lat=1.0, lon=2.0, provenance="surveyed")
        until(lambda: gate.asked["/0.jpg"] == 1, "it is read")
        os.kill(pid, signal.SIGSTOP)
        try:
            told = time.monotonic()
            worker.ask_to_stop()
            until(lambda: worker.exit_code is not None, "it ends")
            took_s = time.monotonic() - told
        finally:
            os.kill(pid, signal.SIGCONT)
        frail.processes.remove(worker)

    assert worker.exit_code == 0
    assert GRACE_S < took_s < GRACE_S + LEAVE_S + 5.0
