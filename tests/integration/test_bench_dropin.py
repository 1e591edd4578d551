"""What `make bench-dropin` measures with: a web process that asks the service, and the way of the guide's class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.dropin import WebProcess, not_located
from benchmarks.photos import Query, View
from producer_client import Provenance, Sightline
from tests.conftest import Scene, whole_stack
from worker.stack import Stack

#: What the web process of a backend may hold, Flask included.
AIM_MB = 120.0


@pytest.fixture(scope="module")
def stack(photo_root: Path) -> Iterator[Stack]:
    """Its own: what other tests say of the same photos would contradict it."""
    with whole_stack(photo_root) as running:
        yield running


def test_a_web_process_that_locates_by_the_queue_stays_small(
    stack: Stack, client: Sightline, scenes: list[Scene], tmp_path: Path
) -> None:
    street = [scene for scene in scenes if scene.place == scenes[0].place]
    for scene in street[1:]:
        client.add_to_index(path=str(scene.path), lat=scene.lat, lon=scene.lon, provenance=Provenance.SURVEYED)
    # The web process is another client, and may be up before the worker has followed the log.
    client.search(path=str(street[1].path))
    query = Query(str(street[0].path), View(street[0].path, street[0].lat, street[0].lon))

    arguments = ("no checkpoint", "no pickle", stack.settings.broker_url)
    with WebProcess(arguments, threads=1, log=tmp_path / "log") as web:
        located, unchanged = web.ask("locate", query), web.ask("unchanged", query)
        peak_mb = web.peak_rss_mb()

    for asked in (located, unchanged):
        assert asked.error_m is not None
        assert asked.error_m < 150
    assert peak_mb < AIM_MB


def test_requests_without_coordinates_are_named() -> None:
    result = {"requests": {"old": 8, "new": 8}, "old_located": 8, "new_located": 8}

    assert not_located(result) == ""
    assert "2 new" in not_located(result | {"new_located": 6})
