"""A client sees its own writes, whichever worker answers: here one adds, and another answers that lags an hour."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from producer_client import NewPhoto, Photo, Provenance, Sightline, Stored
from producer_client.compat import CLIPSimilarityService
from tests.conftest import ENCODER, Scene, server_dir, without_torch
from worker.settings import Settings
from worker.stack import Stack


@pytest.fixture(scope="module")
def parted(photo_root: Path) -> Iterator[Stack]:
    """Lists of photos go to one worker, questions to another, which lags an hour behind unless it must not. By votes,
    whose answers need no more than that the photos are there."""
    with server_dir() as data_dir:
        settings = Settings(
            data_dir=data_dir,
            photo_roots=(photo_root,),
            encoder=ENCODER,
            max_staleness_s=3600,
            rungs=(),
            **without_torch(),
        )
        with Stack(settings, log_dir=data_dir / "logs", port=0) as running:
            running.start("worker", "--queues", "bulk")
            running.start("worker", "--queues", "interactive")
            running.start("worker", "--role", "index")
            running.wait_ready()
            yield running


@pytest.fixture
def client(parted: Stack, scenes: list[Scene]) -> Iterator[Sightline]:
    """Of an index that is not empty: one photo of the first place is in it, and the worker that answers has seen it."""
    with parted.client() as connected:
        connected.add_many([new(scenes[0])])
        connected.search(path=str(scenes[1].path))
        yield connected


def new(scene: Scene) -> NewPhoto:
    return NewPhoto(str(scene.path), Photo(path=str(scene.path)), scene.lat, scene.lon, Provenance.SURVEYED)


def place(scenes: list[Scene], number: int) -> tuple[str, list[Scene]]:
    """(a photo in the middle of a walk, the others of its place)."""
    name = list(dict.fromkeys(scene.place for scene in scenes))[number]
    one, two, query, *others = (scene for scene in scenes if scene.place == name)
    return str(query.path), [one, two, *others]


def located(client: Sightline, query: str, *, min_seq: int | None = None) -> bool:
    return client.locate(path=query, min_seq=min_seq).answer.located


def test_what_its_threads_have_added_is_evidence_for_its_next_question(client: Sightline, scenes: list[Scene]) -> None:
    query, known = place(scenes, 1)

    with ThreadPoolExecutor(len(known)) as threads:
        outcomes = [outcome for done in threads.map(lambda s: client.add_many([new(s)]), known) for outcome in done]

    assert [type(outcome) for outcome in outcomes] == [Stored] * len(known)
    assert not located(client, query, min_seq=0), "who asks for less gets what is there: the worker lags"
    assert located(client, query)


def test_what_a_rebuild_has_indexed_is_evidence_for_the_next_question(
    parted: Stack, client: Sightline, scenes: list[Scene]
) -> None:
    query, known = place(scenes, 2)
    rows = [{"path": str(s.path), "lat": s.lat, "lon": s.lon} for s in known]
    engine = create_engine(parted.settings.database_url)
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO photos (file_path, lat, lon, location_method) VALUES (:path, :lat, :lon, 'exif')"), rows
        )
    engine.dispose()

    rebuilt = client.rebuild_index(timeout_s=120)

    assert rebuilt.embedded == len(known)
    assert not located(client, query, min_seq=0)
    assert located(client, query)


def test_a_session_takes_what_one_client_has_added_to_another(
    parted: Stack, client: Sightline, scenes: list[Scene]
) -> None:
    query, known = place(scenes, 3)
    with parted.client() as web, Sightline(parted.settings.broker_url) as task:
        web.search(path=query)

        task.add_many([new(scene) for scene in known])
        before = located(web, query)
        web.join(task.session)

        assert not before
        assert located(web, query)


def test_the_old_class_finds_what_it_has_built_from_rows(
    parted: Stack, client: Sightline, scenes: list[Scene], photo_root: Path
) -> None:
    folder = photo_root / "session"
    folder.mkdir()
    rows = []
    for number, scene in enumerate(scenes[:3]):
        path = folder / f"{number}.jpg"
        path.write_bytes(scene.path.read_bytes() + b"another file")
        rows.append({"file_path": str(path), "lat": scene.lat, "lon": scene.lon, "location_method": "manual"})
    service = CLIPSimilarityService(broker_url=parted.settings.broker_url, strict=True)

    built = service.build_index_from_database(rows)
    found = service.find_similar_images(scenes[4].path, top_k=50, similarity_threshold=0.0)
    service.close()

    assert built == len(rows)
    assert {row["file_path"] for row in rows} <= {match["image_path"] for match in found}
