"""What processes say of themselves in Redis, over a real Valkey: seen by who asks for all, and never waited for."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from producer_client.contract import Stuck
from worker import alive, pulse, stuck
from worker.alive import Alive, everywhere
from worker.app import create_app
from worker.embedded import EmbeddedServers
from worker.pulse import Pulse
from worker.settings import Settings

BESIDE = {"encoder": "an encoder", "generation": 7, "sandbox": "rlimits", "memory_mb": 512.3, "limit_mb": 0}


@pytest.fixture
def server(valkey: EmbeddedServers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey.broker_url) as client:
        client.flushall()
        yield client


@pytest.fixture
def settings(valkey: EmbeddedServers, server: redis.Redis, tmp_path: Path) -> Settings:
    return Settings(broker_url=valkey.broker_url, data_dir=tmp_path, stall_s=30)


@pytest.fixture
def start(settings: Settings) -> Iterator[Callable[[str], Pulse]]:
    """A process by its role, which has not come round yet."""
    started: list[Pulse] = []

    def begin(role: str) -> Pulse:
        beating = Pulse(role, settings.data_dir, stall_s=settings.stall_s)
        beating.about = lambda: {"model": True, "index": role == "serve"}
        beating.also = Alive(settings, lambda: BESIDE)
        started.append(beating)
        return beating

    yield begin
    for beating in started:
        beating.end()


def test_processes_of_all_machines_are_seen_with_what_each_has(
    start: Callable[[str], Pulse], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for host, role in (("b", "serve"), ("a", "serve"), ("c", "index")):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        start(role).turn(redis=True)

    index, one, other = everywhere(settings)

    assert [process.said["host"] for process in (index, one, other)] == ["c", "a", "b"]
    assert [process.lacks for process in (index, one, other)] == [["index"], [], []]
    assert one.said["pid"] == os.getpid()
    assert one.said.items() >= BESIDE.items()
    assert 0 <= (one.since("turned") or 0) < 10


def test_how_old_it_is_redis_says_and_it_is_gone_in_the_end(
    start: Callable[[str], Pulse], settings: Settings, server: redis.Redis
) -> None:
    start("serve").turn(redis=True)
    (key,) = server.keys("sightline:alive:*")
    expires_s = 30 + alive.SEEN_S
    assert expires_s - 5 < server.ttl(key) <= expires_s

    server.pexpire(key, (expires_s - 20) * 1000)
    (goes_on,) = everywhere(settings)
    server.pexpire(key, (expires_s - 31) * 1000)
    (stands_still,) = everywhere(settings)

    assert 20 <= (goes_on.since("turned") or 0) < 25
    assert (goes_on.stalled, stands_still.stalled) == (None, "loop")


def test_it_is_said_every_few_seconds_and_only_where_redis_can_be_used(
    start: Callable[[str], Pulse], server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    beating = start("serve")

    def sent() -> int:
        return int(server.info("commandstats").get("cmdstat_set", {}).get("calls", 0))

    before = sent()
    beating.turn(redis=False)
    assert sent() == before
    for _ in range(10):
        beating.turn(redis=True)
    assert sent() == before + 1
    monkeypatch.setattr(pulse, "TELL_EVERY_S", 0.0)
    beating.turn(redis=True)
    assert sent() == before + 2


def test_who_ends_in_order_is_seen_no_more(start: Callable[[str], Pulse], settings: Settings) -> None:
    beating = start("serve")
    beating.turn(redis=True)

    beating.end()

    assert everywhere(settings) == []


def test_a_redis_that_hangs_is_waited_for_a_second_and_left_alone_for_a_while(
    start: Callable[[str], Pulse],
    settings: Settings,
    valkey: EmbeddedServers,
    server: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger=alive.__name__)
    monkeypatch.setattr(pulse, "TELL_EVERY_S", 0.0)
    beating = start("serve")
    beating.turn(redis=True)
    pid = int(server.info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        for _ in range(20):
            beating.turn(redis=True)
        took_s = time.monotonic() - began
    finally:
        os.kill(pid, signal.SIGCONT)
    server.flushall()
    beating.turn(redis=True)
    quiet = everywhere(settings)
    later = time.monotonic() + alive.QUIET_S
    monkeypatch.setattr(time, "monotonic", lambda: later)
    beating.turn(redis=True)

    assert took_s < 2 * alive.TIMEOUT_S
    (line,) = caplog.records
    assert "cannot be told" in line.getMessage()
    assert quiet == []
    assert len(everywhere(settings)) == 1


@pytest.mark.parametrize("line", [b"", b"no json", b"{}", b'{"role": "serve", "pid": 1}', b"[]"])
def test_what_others_have_written_there_is_no_process(
    line: bytes, start: Callable[[str], Pulse], settings: Settings, server: redis.Redis
) -> None:
    start("serve").turn(redis=True)
    server.set("sightline:alive:x", line, ex=60)

    assert len(everywhere(settings)) == 1


def test_the_loop_goes_on_where_redis_was_never_there(start: Callable[[str], Pulse], tmp_path: Path) -> None:
    nowhere: Any = Settings(broker_url="redis://127.0.0.1:1/5", data_dir=tmp_path)
    beating = start("serve")
    beating.also = Alive(nowhere, dict)

    beating.turn(redis=True)
    beating.end()

    assert beating.line["turned"] is not None


# ------------------------------------------------------------------------------------ what was stuck lately


def is_stuck(number: int) -> Stuck:
    return Stuck("sightline.search", f"id-{number}", 601, "2026-11-29T12:00:00+00:00", "images.py:1 decode")


def test_of_what_was_stuck_the_newest_are_kept_for_a_week(settings: Settings, server: redis.Redis) -> None:
    app = create_app(settings)

    for number in range(stuck.KEPT + 2):
        stuck.note(app, is_stuck(number))

    assert stuck.lately(app) == [is_stuck(number) for number in range(stuck.KEPT + 1, 1, -1)]
    assert stuck.KEPT_S - 60 < server.ttl("sightline:stuck") <= stuck.KEPT_S


def test_what_is_stuck_while_redis_takes_nothing_is_in_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    stuck.note(create_app(Settings(broker_url="redis://127.0.0.1:1/5")), is_stuck(1))

    (line,) = caplog.records
    assert "cannot be told" in line.getMessage()


def test_where_replies_lie_in_no_redis_nothing_is_kept() -> None:
    app = create_app(Settings(broker_url="memory://", result_backend="cache+memory://"))

    stuck.note(app, is_stuck(1))

    assert stuck.lately(app) == []
