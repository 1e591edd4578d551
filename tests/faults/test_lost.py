"""Messages that are lost: a photo that has a row is embedded all the same, and within two minutes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import create_engine, text

from producer_client.contract import NewPhoto, Photo
from tests.conftest import Scene
from tests.faults.conftest import PATIENCE_S, hasty_stack, until
from worker.stack import Stack


@pytest.fixture
def looking(photo_root: Path) -> Iterator[Stack]:
    """Servers alone, of a service that looks for what lacks a vector every second."""
    with hasty_stack(photo_root, tick_every_s=1.0, reconcile_s=1.0) as running:
        yield running


def test_flushall_a_lost_pop_and_rows_that_nobody_sent_lose_no_photo(looking: Stack, scenes: list[Scene]) -> None:
    engine = create_engine(looking.settings.database_url)
    insert = text("INSERT INTO photos (file_path, lat, lon) VALUES (:path, 1, 2) RETURNING id")
    with engine.begin() as connection:
        ids = [connection.scalar(insert, {"path": str(scene.path)}) or 0 for scene in scenes[:9]]
    engine.dispose()
    flushed, popped, _ = ids[:3], ids[3:6], ids[6:]
    key = f"{looking.settings.key_prefix}interactive"
    with (
        redis.Redis.from_url(looking.settings.broker_url) as server,
        looking.client(timeout_s=PATIENCE_S) as client,
    ):
        # While no worker runs: their messages lie there, and then nowhere.
        client.add_many([NewPhoto(str(i), Photo(photo_id=i)) for i in flushed], timeout_s=0)
        server.flushall()
        for photo_id in popped:
            client.submit_add_to_index(photo_id=photo_id)
        # As a worker that is killed between the pop and the note of what it has in hand.
        lost = [server.rpop(key) for _ in popped]

        looking.start("worker")
        looking.start("beat")
        looking.wait_ready()
        until(lambda: client.stats().indexed == len(ids), "all that have a row are embedded")

    assert all(lost), "the messages were taken from the queue"
