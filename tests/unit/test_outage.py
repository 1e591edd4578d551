"""What is said of a Redis that cannot be used: each reason once, and once that it is over."""

from __future__ import annotations

import kombu
import kombu.utils.functional
import pytest
import redis

from worker.outage import Outage

REFUSED = redis.exceptions.ConnectionError("Error 111 connecting to host:6379. Connection refused.")
LOADING = redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory")


@pytest.fixture
def outage() -> Outage:
    return Outage("redis://:secret@host:6379/5")


def test_each_reason_is_said_once_until_it_is_over(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    for exc in (REFUSED, REFUSED, LOADING, REFUSED):
        outage.met(exc)
    outage.over()
    outage.over()
    outage.met(REFUSED)

    assert [(record.levelname, vars(record).get("why", "")[:15]) for record in caplog.records] == [
        ("ERROR", "nothing listens"),
        ("ERROR", "it is starting "),
        ("WARNING", ""),
        ("ERROR", "nothing listens"),
    ]
    assert {vars(record)["redis"] for record in caplog.records} == {"redis://:**@host:6379/5"}


def test_a_connection_that_is_lost_again_before_anything_was_answered_has_a_reason(
    outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    lost = redis.exceptions.ConnectionError("Connection closed by server.")
    outage.lost(lost)
    assert caplog.messages == []

    outage.lost(lost)
    outage.lost(lost)

    (record,) = caplog.records
    assert "it hung up" in vars(record)["why"]


def test_nothing_is_said_of_a_redis_that_serves(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    outage.over()

    assert caplog.messages == []


def test_what_is_silent_to_tls_is_said_to_be_perhaps_without_it(caplog: pytest.LogCaptureFixture) -> None:
    Outage("rediss://host:6379/5").met(TimeoutError("timed out"))

    (record,) = caplog.records
    assert "A Redis without TLS" in vars(record)["why"]


def test_a_redis_that_is_away_is_tried_every_second_however_long_it_takes(
    outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    away = iter([REFUSED] * 9)
    connection = kombu.Connection("memory://")

    def establish() -> object:
        if (exc := next(away, None)) is not None:
            raise exc
        return object()

    monkeypatch.setattr(kombu.utils.functional, "sleep", slept.append)
    monkeypatch.setattr(connection, "recoverable_connection_errors", (redis.exceptions.ConnectionError,))
    monkeypatch.setattr(connection, "_connection_factory", establish)

    outage.connect(connection)

    assert sum(slept) == 9.0
