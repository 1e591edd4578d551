"""A database that changes under running workers: writes in hand wait, questions are answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, text

from producer_client import BadRequest, Code, Sightline, Stored
from tests.conftest import Scene
from tests.faults.conftest import PATIENCE_S, until
from worker.stack import Stack

CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


@pytest.fixture
def client(sturdy: Stack) -> Iterator[Sightline]:
    with sturdy.client(timeout_s=PATIENCE_S) as connected:
        yield connected
    assert [process.exit_code for process in sturdy.processes] == [None] * 3


@contextmanager
def for_a_while(stack: Stack, change: str, back: str) -> Iterator[None]:
    """A change of the database, with all connections to it cut before and after."""
    engine = create_engine(stack.settings.database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("SET default_transaction_read_only = off"))
        connection.execute(text(change))
        connection.execute(text(CUT))
        try:
            yield
        finally:
            connection.execute(text(back))
            connection.execute(text(CUT))
    engine.dispose()


def goes_round(stack: Stack, words: str) -> bool:
    log = stack.processes[0].log
    assert log is not None
    return any("goes round again" in line and words in line for line in log.read_text().splitlines())


def test_a_database_that_is_read_only_for_a_while_answers_questions_and_loses_no_write(
    sturdy: Stack, client: Sightline, scenes: list[Scene]
) -> None:
    one, other, asked = scenes[1], scenes[2], str(scenes[3].path)
    client.add_to_index(path=str(one.path), lat=one.lat, lon=one.lon, provenance="surveyed")

    with for_a_while(
        sturdy,
        "ALTER DATABASE postgres SET default_transaction_read_only = on",
        "ALTER DATABASE postgres RESET default_transaction_read_only",
    ):
        waiting = client.submit_add_to_index(path=str(other.path), lat=other.lat, lon=other.lon, provenance="surveyed")
        until(lambda: goes_round(sturdy, "read-only"), "the write has met it")
        found = client.search(path=asked, threshold=-1.0).hits
        answer = client.locate(path=asked).answer
        known = client.stats().indexed

    assert isinstance(waiting.wait(), Stored)
    assert len(found) == known > 0
    assert answer is not None


def test_writes_in_hand_wait_for_a_column_that_was_renamed_and_questions_name_it(
    sturdy: Stack, client: Sightline, scenes: list[Scene]
) -> None:
    one, other = scenes[4], scenes[5]
    client.add_to_index(path=str(one.path), lat=one.lat, lon=one.lon, provenance="surveyed")

    with for_a_while(
        sturdy,
        "ALTER TABLE photos RENAME COLUMN lat TO latitude",
        "ALTER TABLE photos RENAME COLUMN latitude TO lat",
    ):
        waiting = client.submit_add_to_index(path=str(other.path), lat=other.lat, lon=other.lon, provenance="surveyed")
        until(lambda: goes_round(sturdy, "lat"), "the write has met it")
        with pytest.raises(BadRequest) as told:
            client.stats()
        found = client.search(path=str(other.path), threshold=-1.0).hits

    assert isinstance(waiting.wait(), Stored)
    assert found, "what does not need the column is answered"
    assert told.value.code == Code.NOT_READY
    assert "lat" in told.value.message
    assert "SIGHTLINE_PHOTOS_COLUMNS" in told.value.message
