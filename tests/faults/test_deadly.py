"""A photo that kills whatever decodes it, gets it stuck, or takes memory for good: it costs a few restarts, is named,
and takes no neighbour with it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from producer_client import Refused, SightlineError, Stored, TryAgain
from producer_client.contract import Code, NewPhoto, Photo, Provenance
from tests.conftest import Scene
from tests.faults.conftest import hasty_stack
from worker.children import Process
from worker.signals import ENDED
from worker.stack import Stack
from worker.storage.store import PostgresStore
from worker.watching import Watch

#: Seconds for what ends three processes, each of which loads a model, and waits for their messages to come back.
LONG_S = 240.0
pytestmark = pytest.mark.timeout(2 * LONG_S)


#: Restarts that such a photo costs here; three unless set.
RESTARTS = 2
#: A moment of a test for what takes ten minutes of a service.
STUCK_S = 3.0


@pytest.fixture(scope="module")
def mortal(photo_root: Path) -> Iterator[Stack]:
    """Servers alone, of a service whose decoders end their process at photos that say so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "killing"))
        with hasty_stack(photo_root, quarantine_after=RESTARTS) as running:
            yield running


@pytest.fixture
def made(photo_root: Path, scenes: list[Scene], request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Makes a photo of this test alone that does so to every process that decodes it: `deadly`, `endless`, `heavy`."""

    def make(how: str) -> Path:
        name = request.node.name
        path = photo_root / f"{name}.jpg"
        path.write_bytes(scenes[0].path.read_bytes() + f"{name} {how}".encode())
        return path

    return make


@pytest.fixture
def deadly(made: Callable[[str], Path]) -> Path:
    return made("deadly")


def started(stack: Stack, **changed: Any) -> Process:
    """A worker by other settings, and none beside it."""
    for process in stack.processes:
        process.ask_to_stop()
        process.wait()
    stack.processes.clear()
    return stack.start("worker", settings=stack.settings.model_copy(update=changed))


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


def test_a_photo_that_kills_its_worker_is_named_after_its_restarts_whoever_asks_and_its_neighbours_are_stored(
    mortal: Stack, deadly: Path, scenes: list[Scene]
) -> None:
    mortal.start("worker")
    mortal.wait_ready()
    paths = [*(scene.path for scene in scenes[1:6]), deadly]
    new = [NewPhoto(str(p), Photo(path=str(p)), lat=1.0, lon=2.0, provenance=Provenance.SURVEYED) for p in paths]
    digest = hashlib.sha256(deadly.read_bytes()).hexdigest()
    with mortal.client(timeout_s=LONG_S) as client, ThreadPoolExecutor() as pool:
        added = pool.submit(client.add_many, new, timeout_s=LONG_S)
        ended = watched(mortal, added.done)
        outcomes = added.result()
        with pytest.raises(SightlineError) as asked:
            client.search(content=deadly.read_bytes())
        named = client.quarantined().photos
        gone = client.release(digest[:12], forget=True)
        after = client.quarantined().photos
        alive = [process.exit_code is None for process in mortal.processes]

    (refused,) = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    assert (len(ended), alive) == (RESTARTS, [True])
    assert refused.code is asked.value.code is Code.QUARANTINED
    assert f"{deadly.name} took its worker down {RESTARTS} times, the last time by SIGSEGV" in refused.message
    assert sum(isinstance(outcome, Stored) for outcome in outcomes) == 5
    assert [(p.content_sha256, p.times, p.signal, p.path) for p in named] == [
        (digest, RESTARTS, "SIGSEGV", str(deadly))
    ]
    assert (gone.released, gone.unknown, after) == (named, [], [])


def test_a_rebuild_names_the_photo_that_killed_its_process(mortal: Stack, deadly: Path, scenes: list[Scene]) -> None:
    engine = create_engine(mortal.settings.database_url)
    with engine.begin() as connection:
        for path in [deadly, *(scene.path for scene in scenes[6:9])]:
            connection.execute(
                text("INSERT INTO photos (file_path, lat, lon, location_method) VALUES (:path, 1, 2, 'exif')"),
                {"path": str(path)},
            )
    engine.dispose()
    mortal.start("worker", "--role", "index")
    with mortal.client(timeout_s=LONG_S) as client:
        for _ in range(RESTARTS):
            with pytest.raises(TryAgain, match="SIGSEGV"):
                client.rebuild_index()
        rebuilt = client.rebuild_index()

    assert rebuilt.refused == 1
    assert left_alone(mortal) == [(str(deadly), RESTARTS, "SIGSEGV")]


def test_a_photo_that_gets_threads_stuck_is_named_after_its_restarts_and_its_neighbours_are_stored(
    mortal: Stack, made: Callable[[str], Path], scenes: list[Scene]
) -> None:
    endless = made("endless")
    digest = hashlib.sha256(endless.read_bytes()).hexdigest()
    worker = started(mortal, stuck_s=STUCK_S, stop_grace_s=0.5)
    mortal.wait_ready()
    paths = [endless, *(scene.path for scene in scenes[9:11])]
    new = [NewPhoto(str(p), Photo(path=str(p)), lat=1.0, lon=2.0, provenance=Provenance.SURVEYED) for p in paths]
    with mortal.client(timeout_s=LONG_S) as client, ThreadPoolExecutor() as pool:
        added = pool.submit(client.add_many, new, timeout_s=LONG_S)
        ended = watched(mortal, added.done)
        outcomes = added.result()
        with pytest.raises(SightlineError) as asked:
            client.search(content=endless.read_bytes())
        (named,) = [one for one in client.quarantined().photos if one.content_sha256 == digest]

    (refused,) = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    assert len(ended) == RESTARTS
    assert refused.code is asked.value.code is Code.QUARANTINED
    assert (
        f"{endless.name} took its worker down {RESTARTS} times, the last time by a thread that was" in refused.message
    )
    assert sum(isinstance(outcome, Stored) for outcome in outcomes) == 2
    assert (named.times, named.signal, named.path) == (RESTARTS, "stuck", str(endless))
    assert named.error is not None
    assert "embedding.py" in named.error
    assert worker.log is not None
    assert "cut off" not in worker.log.read_text(), "nobody waits for the threads of a message that was left"


def test_a_worker_whose_memory_has_grown_beyond_its_limit_is_started_again_and_goes_on(
    mortal: Stack, made: Callable[[str], Path], scenes: list[Scene]
) -> None:
    worker = started(mortal, memory_mb=100_000)
    mortal.wait_ready()
    with mortal.client(timeout_s=LONG_S) as client:
        stored = client.add_to_index(path=str(made("heavy")), lat=1.0, lon=2.0, provenance=Provenance.SURVEYED)
        ended = watched(mortal, lambda: worker not in mortal.processes)
        found = client.search(path=str(scenes[11].path))

    (line,) = ended
    assert f"`sightline {worker.name}` has ended and starts again" in line
    assert worker.exit_code == ENDED
    assert worker.log is not None
    assert "more memory than SIGHTLINE_MEMORY_MB" in worker.log.read_text()
    assert isinstance(stored, Stored)
    assert found.model_key


def left_alone(stack: Stack) -> list[tuple[str | None, int, str | None]]:
    with closing(PostgresStore(stack.settings)) as store:
        return [(one.path, one.times, one.signal) for one in store.attempts.quarantined(RESTARTS)]
