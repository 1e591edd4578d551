"""Messages that are lost: a photo that has a row is embedded all the same, and within two minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, create_engine, text

from producer_client import Sightline, Unreachable
from producer_client.contract import NewPhoto, Photo, Provenance
from tests.conftest import Scene
from tests.faults.conftest import hasty_stack, until
from worker.settings import Settings
from worker.stack import Stack
from worker.storage.store import PostgresStore

PLACED: dict[str, Any] = {"lat": 1.0, "lon": 2.0, "provenance": Provenance.SURVEYED}


@pytest.fixture(scope="module")
def looking(photo_root: Path) -> Iterator[Stack]:
    """Servers alone, of a service that looks for what lacks a vector every second."""
    with hasty_stack(photo_root, tick_every_s=1.0, reconcile_s=1.0) as running:
        yield running


class Backend:
    """One that writes its rows first, and sends them then."""

    def __init__(self, stack: Stack, engine: Engine, scenes: list[Scene]) -> None:
        self.stack, self._engine = stack, engine
        self._paths = iter([str(scene.path) for scene in scenes])

    def paths(self) -> list[str]:
        return [next(self._paths) for _ in range(2)]

    def write(self, photos: Sequence[NewPhoto]) -> list[int]:
        insert = text("INSERT INTO photos (file_path, lat, lon) VALUES (:path, :lat, :lon) RETURNING id")
        with self._engine.begin() as connection:
            values = [{"path": one.photo.path, "lat": one.lat, "lon": one.lon} for one in photos]
            return [connection.scalar(insert, row) or 0 for row in values]

    def rows(self) -> list[int]:
        return self.write([NewPhoto(path, Photo(path=path), **PLACED) for path in self.paths()])

    def client(self) -> Sightline:
        return Sightline(self.stack.settings.broker_url, write_rows=self.write)

    def pop(self) -> None:
        """As a worker that is killed between the pop and the note of what it has in hand."""
        with redis.Redis.from_url(self.stack.settings.broker_url) as server:
            while server.rpop(f"{self.stack.settings.key_prefix}interactive"):
                pass


def flushall(backend: Backend) -> list[int]:
    ids = backend.rows()
    with backend.client() as client, redis.Redis.from_url(backend.stack.settings.broker_url) as server:
        client.add_many([NewPhoto(str(i), Photo(photo_id=i)) for i in ids], timeout_s=0)
        assert server.llen(f"{backend.stack.settings.key_prefix}bulk") == 1
        server.flushall()
    return ids


def a_kill_between_the_pop_and_the_note_of_it(backend: Backend) -> list[int]:
    ids = backend.rows()
    with backend.client() as client:
        for photo_id in ids:
            client.submit_add_to_index(photo_id=photo_id)
    backend.pop()
    return ids


def a_publish_that_redis_did_not_take(backend: Backend) -> list[int]:
    ids = backend.rows()
    with Sightline("redis://127.0.0.1:9/0") as client:
        for photo_id in ids:
            with pytest.raises(Unreachable):
                client.submit_add_to_index(photo_id=photo_id)
    return ids


def a_night_without_workers_that_outlived_every_message(backend: Backend) -> list[int]:
    return backend.rows()


def a_durable_photo_by_path_whose_message_is_gone(backend: Backend) -> list[int]:
    written: list[int] = []

    def write(photos: Sequence[NewPhoto]) -> list[int]:
        written.extend(backend.write(photos))
        return written[-len(photos) :]

    with Sightline(backend.stack.settings.broker_url, write_rows=write) as client:
        for path in backend.paths():
            client.submit_add_to_index(path=path, durable=True, **PLACED)
    backend.pop()
    return written


FAULTS: list[Callable[[Backend], list[int]]] = [
    flushall,
    a_kill_between_the_pop_and_the_note_of_it,
    a_publish_that_redis_did_not_take,
    a_night_without_workers_that_outlived_every_message,
    a_durable_photo_by_path_whose_message_is_gone,
]


@pytest.fixture(scope="module")
def lost(looking: Stack, scenes: list[Scene]) -> dict[str, list[int]]:
    """Photos by what has lost their messages, before any worker runs; then one does."""
    engine = create_engine(looking.settings.database_url)
    backend = Backend(looking, engine, scenes)
    photos = {fault.__name__: fault(backend) for fault in FAULTS}
    engine.dispose()
    with redis.Redis.from_url(looking.settings.broker_url) as server:
        assert not server.llen(f"{looking.settings.key_prefix}interactive")
    looking.start("worker")
    looking.start("beat")
    looking.wait_ready()
    return photos


@pytest.mark.parametrize("fault", [fault.__name__ for fault in FAULTS])
def test_a_photo_with_a_row_is_embedded_after(fault: str, lost: dict[str, list[int]], looking: Stack) -> None:
    ids = lost[fault]
    with closing(PostgresStore(looking.settings)) as store:
        until(lambda: {file.photo_id for file in store.files.after(-1, 99)} >= set(ids), "they are embedded")
    assert len(ids) == 2


def test_whatever_lost_its_message_a_photo_is_sent_again_within_two_minutes() -> None:
    """One look sees that it lacks a vector, the next one may come a little before its grace is over, the third acts."""
    every_s = Settings(data_dir=Path("/nowhere")).reconcile_s

    assert 3 * every_s + 10 < 120, "ten seconds to be embedded"
