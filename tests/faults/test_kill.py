"""Power cuts: kill -9 of processes with work in hand, and servers that go away. Nothing is lost, nothing is double."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import redis
from PIL import Image
from sqlalchemy import create_engine, text

from producer_client import Stored
from tests.conftest import Scene
from tests.faults.conftest import PATIENCE_S, Gate, until
from worker.stack import Stack


def test_kill_9_of_a_worker_loses_no_photo_and_doubles_none(frail: Stack, gate: Gate, scenes: list[Scene]) -> None:
    worker = frail.start("worker")
    frail.wait_ready()
    with frail.client(timeout_s=PATIENCE_S) as client:
        handles = [
            client.submit_add_to_index(url=gate.url(n), lat=s.lat, lon=s.lon, provenance="surveyed")
            for n, s in enumerate(scenes[:8])
        ]
        until(lambda: len(gate.asked) == 2, "both task threads are in the middle of an add")
        in_hand = set(gate.asked)

        worker.kill()
        gate.open.set()
        frail.processes.remove(worker)
        frail.start("worker")
        stored = [handle.wait() for handle in handles]

        asked_twice = {path for path, times in gate.asked.items() if times > 1}
        hits = client.search(path=str(scenes[-1].path), threshold=-1.0, top_k=100).hits
        stats = client.stats()

    assert asked_twice == in_hand, "what was in hand was done again, by redelivery"
    assert sorted(hit.photo_id for hit in hits) == sorted(s.photo_id for s in stored)
    assert len({s.photo_id for s in stored}) == len(stored) == 8
    assert (stats.photos, stats.indexed) == (8, 8)


def test_a_worker_that_slept_does_not_acknowledge_for_the_one_that_took_over(
    frail: Stack, gate: Gate, scenes: list[Scene]
) -> None:
    prefix = frail.settings.key_prefix
    sleeper = frail.start("worker")
    frail.wait_ready()
    with (
        frail.client(timeout_s=PATIENCE_S) as client,
        redis.Redis.from_url(frail.settings.broker_url) as server,
    ):
        until(lambda: server.hlen(prefix + "unacked") == 0, "what it was asked first is done with")
        handle = client.submit_add_to_index(
            url=gate.url(0), lat=scenes[0].lat, lon=scenes[0].lon, provenance="surveyed"
        )
        until(lambda: gate.asked["/0.jpg"] == 1, "it is in the middle of an add")
        os.kill(sleeper.pid, signal.SIGSTOP)
        heir = frail.start("worker")
        until(lambda: gate.asked["/0.jpg"] == 2, "another worker has taken over")
        os.kill(heir.pid, signal.SIGSTOP)
        gate.open.set()

        os.kill(sleeper.pid, signal.SIGCONT)
        first = handle.wait()
        log = sleeper.log
        assert log is not None
        until(lambda: "task done task=sightline.add_to_index" in log.read_text(), "the sleeper has ended its try")
        # An ack is sent by the loop, which by its next word has come round.
        until(lambda: client.stats().photos == 1, "the sleeper goes on")
        noted = server.hvals(prefix + "unacked") + server.lrange(prefix + "interactive", 0, -1)
        heir.kill()
        frail.processes.remove(heir)
        until(
            lambda: log.read_text().count("task done task=sightline.add_to_index") == 2,
            "what the killed one had in hand is handed out once more",
        )
        stats = client.stats()

    assert any(b"add_to_index" in entry for entry in noted), "the note of the one that took over is left alone"
    assert isinstance(first, Stored)
    assert stats.photos == stats.indexed == 1


def test_a_worker_that_is_told_to_stop_under_load_ends_what_it_has_taken_and_leaves_the_rest(
    frail: Stack, photo_root: Path
) -> None:
    folder, random = photo_root / "load", np.random.default_rng(9)
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(120)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    worker = frail.start("worker")
    frail.wait_ready()
    with frail.client(timeout_s=PATIENCE_S) as client:
        handles = [
            client.submit_add_to_index(path=str(path), lat=1.0, lon=2.0, provenance="surveyed") for path in paths
        ]
        until(lambda: handles[4].ready(), "some photos are done")

        worker.ask_to_stop()
        worker.wait()
        frail.processes.remove(worker)
        done = sum(handle.ready() for handle in handles)
        frail.start("worker")
        stored = [handle.wait() for handle in handles]
        stats = client.stats()

    assert worker.exit_code == 0
    assert 5 <= done < len(paths)
    assert len({s.photo_id for s in stored}) == len(paths) == stats.photos
    assert stats.cache_misses == len(paths) - done, (
        "the second worker did what the first had not taken, and nothing twice"
    )
    assert stats.cache_hits == 0


def test_kill_9_of_a_rebuild_leaves_a_service_that_rebuilds(frail: Stack, gate: Gate, scenes: list[Scene]) -> None:
    engine = create_engine(frail.settings.database_url)
    with engine.begin() as connection:
        for n, s in enumerate(scenes[:5]):
            connection.execute(
                text("INSERT INTO photos (file_path, lat, lon, location_method) VALUES (:path, :lat, :lon, 'exif')"),
                {"path": gate.url(n), "lat": s.lat, "lon": s.lon},
            )
    frail.start("worker")
    index = frail.start("worker", "--role", "index")
    frail.wait_ready()
    with frail.client(timeout_s=PATIENCE_S) as client:
        client.submit_rebuild_index()
        until(lambda: bool(gate.asked), "the rebuild is in the middle of reading photos")
        children = psutil.Process(index.pid).children()

        index.kill()
        for child in children:
            child.kill()
        psutil.wait_procs(children, timeout=10)
        running = client.stats().last_rebuild
        gate.open.set()
        frail.processes.remove(index)
        frail.start("worker", "--role", "index")
        rebuilt = client.rebuild_index()
        stats = client.stats()

    assert running is not None
    assert running.state == "running", "a killed process says nothing"
    assert (rebuilt.indexed, rebuilt.embedded, rebuilt.refused) == (5, 5, 0)
    assert stats.last_rebuild is not None
    assert stats.last_rebuild.state == "done"
    assert (stats.generation, stats.indexed) == (rebuilt.generation, 5)
    with engine.connect() as connection:
        states = connection.scalars(text("SELECT state FROM sightline.rebuilds ORDER BY run_id")).all()
    engine.dispose()
    assert states == ["failed", "done"]


def test_a_photo_sent_while_postgres_is_away_is_stored_when_it_is_back(frail: Stack, scenes: list[Scene]) -> None:
    frail.start("worker")
    frail.wait_ready()
    with frail.client(timeout_s=PATIENCE_S) as client:
        before = client.add_to_index(path=str(scenes[0].path))

        frail.servers.stop_postgres()
        handle = client.submit_add_to_index(path=str(scenes[1].path))
        log = frail.processes[0].log
        assert log is not None
        until(lambda: "goes round again" in log.read_text(), "the task has met the missing database")
        frail.servers.start_postgres()
        after = handle.wait()

    assert isinstance(after, Stored)
    assert after.seq > before.seq


def test_the_nightly_rebuild_is_made_by_the_beat_when_its_time_has_come(frail: Stack, scenes: list[Scene]) -> None:
    settings = frail.settings.model_copy(update={"tick_every_s": 0.5})
    frail.start("worker")
    frail.start("worker", "--role", "index")
    frail.start("beat", settings=settings)
    frail.wait_ready()
    engine = create_engine(frail.settings.database_url)

    def slots() -> list[str]:
        with engine.connect() as connection:
            return list(connection.scalars(text("SELECT state FROM sightline.schedule ORDER BY scheduled_for")))

    with frail.client(timeout_s=PATIENCE_S) as client:
        added = client.add_to_index(path=str(scenes[0].path))
        until(lambda: slots() == ["done"], "the first tick notes the night before the installation")
        assert client.stats().generation is None, "and rebuilds nothing for it"

        # The night that was noted becomes the one before: the last one is now missed.
        with engine.begin() as connection:
            connection.execute(text("UPDATE sightline.schedule SET scheduled_for = scheduled_for - interval '1 day'"))
        until(lambda: slots() == ["done", "done"], "the missed night is made up")
        stats = client.stats()

    engine.dispose()
    assert stats.generation is not None
    assert stats.indexed == 1
    assert stats.seq == added.seq
