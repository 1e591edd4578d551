"""A photo that kills whatever decodes it: it costs a few restarts, is named, and takes no neighbour with it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from producer_client import Refused, SightlineError, Stored, TryAgain
from producer_client.contract import Code, NewPhoto, Photo, Provenance
from tests.conftest import Scene
from worker.stack import Stack
from worker.storage.store import PostgresStore
from worker.watching import Watch

#: Seconds for what ends three processes, each of which loads a model, and waits for their messages to come back.
LONG_S = 240.0
pytestmark = pytest.mark.timeout(2 * LONG_S)


@pytest.fixture
def deadly(photo_root: Path, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photo that ends the process of every worker that is started from here on and decodes it."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "killing"))
    path = photo_root / "deadly.jpg"
    path.write_bytes(scenes[0].path.read_bytes() + b"deadly")
    return path


def watched(stack: Stack, done: Callable[[], bool]) -> list[str]:
    """What dies until it is done starts again, as under `sightline up`; returns what is said of that."""
    ended: list[str] = []
    watch = Watch(stack, lambda line: ended.append(line) if "has ended" in line else None, pointless=frozenset())
    deadline = time.monotonic() + LONG_S
    while not done():
        assert time.monotonic() < deadline, f"after {len(ended)} deaths it is not done"
        watch.look()
        time.sleep(0.05)
    return ended


def test_a_photo_that_kills_its_worker_is_named_after_three_restarts_whoever_asks_and_its_neighbours_are_stored(
    frail: Stack, deadly: Path, scenes: list[Scene]
) -> None:
    frail.start("worker")
    frail.wait_ready()
    paths = [*(scene.path for scene in scenes[1:6]), deadly]
    new = [NewPhoto(str(p), Photo(path=str(p)), lat=1.0, lon=2.0, provenance=Provenance.SURVEYED) for p in paths]
    digest = hashlib.sha256(deadly.read_bytes()).hexdigest()
    with frail.client(timeout_s=LONG_S) as client, ThreadPoolExecutor() as pool:
        added = pool.submit(client.add_many, new, timeout_s=LONG_S)
        ended = watched(frail, added.done)
        outcomes = added.result()
        with pytest.raises(SightlineError) as asked:
            client.search(content=deadly.read_bytes())
        named = client.quarantined().photos
        gone = client.release(digest[:12], forget=True)
        after = client.quarantined().photos
        alive = [process.exit_code is None for process in frail.processes]

    (refused,) = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    assert (len(ended), alive) == (3, [True])
    assert refused.code is asked.value.code is Code.QUARANTINED
    assert "deadly.jpg took its worker down 3 times, the last time by SIGSEGV" in refused.message
    assert sum(isinstance(outcome, Stored) for outcome in outcomes) == 5
    assert [(p.content_sha256, p.times, p.signal, p.path) for p in named] == [(digest, 3, "SIGSEGV", str(deadly))]
    assert (gone.released, gone.unknown, after) == (named, [], [])


def test_a_rebuild_names_the_photo_that_killed_its_process(frail: Stack, deadly: Path, scenes: list[Scene]) -> None:
    engine = create_engine(frail.settings.database_url)
    with engine.begin() as connection:
        for path in [deadly, *(scene.path for scene in scenes[1:4])]:
            connection.execute(
                text("INSERT INTO photos (file_path, lat, lon, location_method) VALUES (:path, 1, 2, 'exif')"),
                {"path": str(path)},
            )
    engine.dispose()
    frail.start("worker", "--role", "index")
    with frail.client(timeout_s=LONG_S) as client:
        for _ in range(3):
            with pytest.raises(TryAgain, match="SIGSEGV"):
                client.rebuild_index()
        rebuilt = client.rebuild_index()

    assert (rebuilt.indexed, rebuilt.refused) == (3, 1)
    assert left_alone(frail) == [(str(deadly), 3, "SIGSEGV")]


def left_alone(stack: Stack) -> list[tuple[str | None, int, str | None]]:
    with closing(PostgresStore(stack.settings)) as store:
        return [(one.path, one.times, one.signal) for one in store.attempts.quarantined(3)]
