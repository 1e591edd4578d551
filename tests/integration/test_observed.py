"""A service whose logs programs read, as they see it: real processes, what they say in their lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from producer_client import BadRequest, Provenance, Sightline
from tests.conftest import ENCODER, Scene, plain_celery, server_dir
from worker.settings import Settings
from worker.stack import Stack


@pytest.fixture(scope="module")
def watched(photo_root: Path) -> Iterator[Stack]:
    with server_dir() as data_dir:
        settings = Settings(
            data_dir=data_dir,
            photo_roots=(photo_root, data_dir / "gone"),
            encoder=ENCODER,
            tick_every_s=1.0,
            reconcile_s=3600.0,
            exam_photos=0,
            log_format="json",
        )
        with Stack(settings, log_dir=data_dir / "logs", port=0) as running:
            running.start_all()
            running.wait_ready()
            yield running


@pytest.fixture
def client(watched: Stack) -> Iterator[Sightline]:
    with watched.client() as connected:
        yield connected


def said(log: Path | None) -> list[dict[str, Any]]:
    """Every line of standard output and error, as a program reads it."""
    assert log is not None
    return [json.loads(line) for line in log.read_text(encoding="ascii").split("\n")[:-1]]


def test_every_line_of_running_processes_is_a_json_object(
    watched: Stack, client: Sightline, scenes: list[Scene]
) -> None:
    scene = scenes[0]
    added = client.add_to_index(path=str(scene.path), lat=scene.lat, lon=scene.lon, provenance=Provenance.SURVEYED)
    found = client.locate(photo_id=added.photo_id)
    with pytest.raises(BadRequest):
        client.search(text="a model without texts")
    plain_celery(watched.settings).send_task("unheard_of", queue="interactive")
    rebuilt = client.rebuild_index(force=True)

    processes = list(watched.processes)
    for process in processes:
        process.ask_to_stop()
    for process in processes:
        process.wait()
        lines = said(process.log)
        assert lines, process.name
        assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)

    serve, index = (said(process.log) for process in processes[:2])
    (stored,) = [line for line in serve if line["message"] == "task done" and line["task"].endswith("add_to_index")]
    assert (stored["photo_id"], stored["seq"]) == (added.photo_id, added.seq)
    (asked,) = [line for line in serve if line["message"] == "task done" and line["task"].endswith("locate")]
    assert (asked["photo_id"], asked["seq"]) == (added.photo_id, found.seq)
    (during,) = [line for line in serve if line["message"] == "photos added"]
    assert during["task_id"] == stored["task_id"] != asked["task_id"]
    # For people, before a process begins.
    assert any("gone" in line["message"] and line["logger"] == "printed" for line in serve)
    (done,) = [line for line in index if line["message"] == "task done" and line["task"].endswith("rebuild_index")]
    assert done["seq"] == rebuilt.seq
