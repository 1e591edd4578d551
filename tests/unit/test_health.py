"""`sightline health` is asked every few seconds: it loads next to nothing, and reads nothing but a file."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.asynchronous import Hub

from tests.conftest import until
from worker import cli, consuming, pulse
from worker.consuming import OutlivingConsumer
from worker.health import health
from worker.pulse import Pulse, read

#: Packages that take a tenth of a second and more, or memory.
HEAVY = {"torch", "faiss", "numpy", "celery", "kombu", "redis", "sqlalchemy", "pydantic", "typer", "rich", "msgspec"}


@pytest.mark.parametrize("language", ["en", "ru"])
def test_the_probe_loads_no_package_of_weight(language: str, tmp_path: Path) -> None:
    beating = Pulse("beat", tmp_path, stall_s=90)
    beating.start()
    beating.turn(redis=True)
    code = (
        "import sys; sys.argv[1:] = ['health', '--live']\n"
        "from worker.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, *{name.partition('.')[0] for name in sys.modules})"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SIGHTLINE_DATA_DIR": str(tmp_path), "SIGHTLINE_LANG": language},
        capture_output=True,
        text=True,
        check=True,
    )

    said, last = done.stdout.splitlines()
    exit_code, *loaded = last.split()
    assert f"{os.getpid()}" in said
    assert exit_code == "0"
    assert set(loaded) & HEAVY == set()
    assert "producer_client" not in loaded


def test_what_typer_reads_is_told_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIGHTLINE_DATA_DIR", str(tmp_path))
    codes = []
    for arguments in (["health", "--live"], ["--", "health", "--live"]):
        monkeypatch.setattr(sys, "argv", ["sightline", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        codes.append(end.value.code)

    first, second = capsys.readouterr().out.splitlines()
    assert codes == [1, 1]
    assert first == second


def test_one_that_starts_has_no_last_turn_to_tell_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIGHTLINE_DATA_DIR", str(tmp_path))
    Pulse("serve", tmp_path, stall_s=90).start()

    code = health(live=True, ready=False, as_json=False)

    assert (code, capsys.readouterr().out) == (0, f"serve (process {os.getpid()}): starts\n")


def test_a_process_that_was_killed_is_forgotten_by_the_next(tmp_path: Path) -> None:
    Pulse("beat", tmp_path, stall_s=90).start()
    (living,) = read(tmp_path)
    killed = living.path.with_name("serve-1")
    killed.write_text(living.path.read_text().replace(living.said["born"], "another boot"))

    Pulse("index", tmp_path, stall_s=90).start()

    assert not killed.exists()
    assert [found.said["role"] for found in read(tmp_path)] == ["beat", "index"]


def test_who_waits_for_a_process_hears_with_the_same_turn_that_it_is_ready_or_no_longer(tmp_path: Path) -> None:
    has = {"model": True, "index": False}
    beating = Pulse("serve", tmp_path, stall_s=90)
    beating.start()
    beating.about = lambda: has

    def lacks() -> list[str]:
        (found,) = read(tmp_path)
        return found.lacks

    beating.turn(redis=True)
    assert (beating.ready, lacks()) == (False, ["loop"])
    has["index"] = True
    beating.turn(redis=True)
    assert (beating.ready, lacks()) == (True, [])
    beating.turn(redis=False)
    assert (beating.ready, lacks()) == (False, ["redis"])


def test_a_worker_is_ready_with_the_first_round_of_its_loop_or_as_soon_as_its_index_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(consuming, "TURN_S", 600.0)
    caplog.set_level(logging.INFO, logger=consuming.__name__)
    has = {"model": True, "index": False}
    beating = Pulse("serve", tmp_path, stall_s=90)
    beating.start()
    beating.about = lambda: has
    consumer: Any = OutlivingConsumer.__new__(OutlivingConsumer)
    consumer.app = SimpleNamespace(
        conf=SimpleNamespace(broker_transport_options={"pulse": beating, "outage": SimpleNamespace(on=False)})
    )
    consumer.task_consumer = SimpleNamespace(channel=SimpleNamespace(qos=SimpleNamespace(can_consume=lambda: True)))
    consumer.blueprint = SimpleNamespace(send_all=lambda *_, **__: None)
    consumer.pool, consumer.restart_count = None, 0
    hub = Hub()
    try:
        consumer.register_with_event_loop(hub)
        rounds = hub.create_loop()
        next(rounds)
        assert beating.line["turned"] is not None
        has["index"] = True
        until(lambda: next(rounds, None) is None and beating.ready)
    finally:
        hub.close()

    (found,) = read(tmp_path)
    assert found.lacks == []
    (said,) = caplog.records
    assert said.getMessage() == "ready"


def test_a_folder_that_takes_nothing_is_said_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "EVERY_S", 0.0)
    (tmp_path / pulse.FOLDER).write_text("a file where a folder should be")
    beating = Pulse("serve", tmp_path, stall_s=90)

    beating.start()
    beating.turn(redis=True)

    (line,) = caplog.records
    assert "cannot be told" in line.getMessage()


def test_a_full_disk_takes_the_line_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written in place: no byte more is asked for."""
    monkeypatch.setattr(pulse, "EVERY_S", 0.0)
    beating = Pulse("serve", tmp_path, stall_s=90)
    beating.start()
    (path,) = (tmp_path / pulse.FOLDER).iterdir()
    before = path.stat()

    beating.turn(redis=True)

    after = path.stat()
    assert read(tmp_path)[0].since("turned") is not None
    assert (before.st_ino, before.st_size, before.st_blocks) == (after.st_ino, after.st_size, after.st_blocks)
