"""Postgres is restored to an earlier time under load, by a dump and to a point in time: what is there after it is found
by its own vector, what came later is not, and the pipeline goes on with ids and numbers that come again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from producer_client import Sightline, TryAgain
from tests.chaos import looking
from tests.chaos.ledger import Photo, draw
from tests.faults.conftest import PATIENCE_S, hasty_stack, until
from tests.integration.test_restore import ANEW, Dump, Recovery
from worker.core.vectors import Vector
from worker.index.folder import GenerationFolder
from worker.index.live import FaissLiveIndex
from worker.stack import Stack
from worker.storage.store import PostgresStore

#: Cosine of two vectors of one file, at the least; those of two files are far below.
SAME = 0.999
#: Of the restored server: it and who works on the tables wait for each other, and those are the ones to give way.
PATIENT = b"SET deadlock_timeout = '1min';\n"


@pytest.fixture(scope="module")
def service(photo_root: Path) -> Iterator[Stack]:
    with hasty_stack(photo_root, tick_every_s=0.5, exam_photos=0) as running:
        running.start_all()
        running.wait_ready()
        yield running


class UnderLoad(Dump):
    """A dump of what runs, restored into what runs."""

    def restore(self) -> None:
        self.read(PATIENT + self.sql, "--single-transaction")


class ToAMoment(Recovery):
    """A base backup, and the log since then, read up to a moment that was given a name."""

    def prepare(self) -> None:
        # In place of an archive: what is behind a checkpoint would be written over.
        self._say("ALTER SYSTEM SET wal_keep_size = '1GB'", "SELECT pg_reload_conf()")
        super().take()
        with (self._copy / "postgresql.auto.conf").open("a") as settings:
            log = self._folder.with_name("former") / "pg_wal"
            settings.write("recovery_target = ''\nrecovery_target_name = 'the moment'\n")
            settings.write(f'restore_command = \'cp "{log}/%f" "%p"\'\n')

    def take(self) -> None:
        self._say("SELECT pg_create_restore_point('the moment')")

    def _say(self, *sentences: str) -> None:
        engine = create_engine(self._store.settings.database_url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for sentence in sentences:
                connection.execute(text(sentence))
        engine.dispose()


@dataclass
class Added:
    """A photo whose add was acknowledged. sent, heard: monotonic seconds. vector: of its file."""

    photo: Photo
    photo_id: int
    sent: float
    heard: float
    vector: Vector


@dataclass
class Pipeline:
    """Adds one photo after the other, sent again until it is acknowledged, and searches for each, until it is told to
    stop. wrong: what a search did not show. Leaving raises what a call raised beside TryAgain."""

    client: Sightline
    folder: Path
    seed: int
    added: list[Added] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    wrong: list[Any] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Pipeline:
        self.folder.mkdir()
        self._pool = ThreadPoolExecutor(1)
        self._life = self._pool.submit(self._run)
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._pool.shutdown()
        self._life.result()

    def more(self, count: int) -> None:
        """Wait until so many more are acknowledged."""
        wanted = len(self.added) + count
        until(lambda: len(self.added) >= wanted or self._life.done(), f"{count} more photos")

    def _run(self) -> None:
        photo = draw(self.folder, 0, self.seed)
        while not self._over.is_set():
            sent = time.monotonic()
            try:
                stored = self.client.add_to_index(path=photo.path, lat=1.0, lon=2.0, provenance="surveyed")
                heard = time.monotonic()
                vector = self.client.embed(path=photo.path, return_vector=True).vector
                assert vector is not None
                self.added.append(Added(photo, stored.photo_id, sent, heard, np.array(vector, np.float32)))
                photo = draw(self.folder, len(self.added), self.seed)
                if not shows(self.client, self.added[-1]):
                    self.wrong.append(self.added[-1])
            except TryAgain as exc:
                self.again.append(exc.code)
                self._over.wait(0.1)


def shows(client: Sightline, added: Added) -> bool:
    """Whether a search shows it by its own vector: one by its path would leave it out."""
    hits = client.search(vector=added.vector.tolist(), threshold=SAME, top_k=9).hits
    return [hit.photo_id for hit in hits] == [added.photo_id]


@pytest.mark.parametrize("how", ["a dump", "a point in time"])
def test_a_restore_under_load_leaves_what_it_holds_and_nothing_that_is_lost(
    how: str, service: Stack, photo_root: Path
) -> None:
    settings = service.settings
    log = service.processes[0].log
    assert log is not None
    noticed = log.read_text().count(ANEW)
    with (
        closing(PostgresStore(settings)) as store,
        service.client(PATIENCE_S) as client,
        service.client(PATIENCE_S) as other,
    ):
        backup = UnderLoad(settings, store) if how == "a dump" else ToAMoment(service.servers, store)
        with Pipeline(client, photo_root / how.replace(" ", "-"), seed=len(how)) as pipeline:
            pipeline.more(3)
            first = other.rebuild_index().generation
            if isinstance(backup, ToAMoment):
                backup.prepare()
                pipeline.more(3)
            began = time.monotonic()
            backup.take()
            taken = time.monotonic()
            pipeline.more(6)
            lost_generation = other.rebuild_index().generation
            until(lambda: other.stats().generation == lost_generation, "the worker has mapped it")
            restoring = time.monotonic()
            backup.restore()
            restored = time.monotonic()
            until(lambda: log.read_text().count(ANEW) > noticed, "the worker has noticed")
            pipeline.more(12)
        service.check()
        assert pipeline.wrong == []
        assert set(pipeline.again) <= {"unavailable", "stale"}
        assert pipeline.again.count("stale") <= 1

        kept = [one for one in pipeline.added if one.heard < began]
        lost = [one for one in pipeline.added if taken < one.sent and one.heard < restoring]
        new = [one for one in pipeline.added if one.sent > restored]
        assert min(len(kept), len(lost), len(new)) >= 3
        ids_again = {one.photo_id for one in lost} & {one.photo_id for one in new}
        assert ids_again or how != "a dump", "ids are given out again"
        assert [shows(other, one) for one in kept + new] == [True] * len(kept + new)
        assert not any(shows(other, one) for one in lost)
        stats = other.stats()
        model_key = stats.model_key
        assert stats.generation == first, "a generation that was built later is passed over"

        folder = GenerationFolder(settings.generations_dir)
        fresh = FaissLiveIndex(store.log, folder, model_key=model_key, dimension=len(kept[0].vector))
        fresh.settle()
        for one in kept + new:
            assert fresh.search(one.vector, 1).ids.tolist() == [one.photo_id], "by a process that starts, too"
        assert all(fresh.search(one.vector, 1).similarities[0] < SAME for one in lost)
        fresh.close()

        number = other.rebuild_index().generation
        until(lambda: other.stats().generation == number, "the worker has mapped the new one")
        assert not any(shows(other, one) for one in lost)
        newest = list(looking.generations(settings, model_key))[-1]
        assert newest.number == number
        for one in kept + new:
            assert newest.vectors[one.photo_id] @ one.vector >= SAME
