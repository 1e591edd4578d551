"""The class that backends have, through the real queue and workers."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from producer_client import Sightline
from producer_client.compat import CLIPSimilarityService, to_guide_json
from producer_client.contract import Near, Provenance
from producer_client.errors import BadRequest
from producer_client.sources import Chain, Source, exif_gps, sightline
from tests.conftest import Scene
from worker.stack import Stack


@pytest.fixture
def make_service(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., CLIPSimilarityService]]:
    """As a backend constructs it: without arguments."""
    made: list[CLIPSimilarityService] = []
    monkeypatch.setenv("SIGHTLINE_BROKER_URL", stack.settings.broker_url)

    def make(**options: Any) -> CLIPSimilarityService:
        made.append(CLIPSimilarityService(**options))
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.fixture
def service(make_service: Callable[..., CLIPSimilarityService]) -> CLIPSimilarityService:
    return make_service(strict=True)


@pytest.fixture
def open_minded(make_service: Callable[..., CLIPSimilarityService]) -> CLIPSimilarityService:
    """One that shows photos whose coordinates cannot be trusted, too."""
    return make_service(strict=True, trusted_only=False)


def place_of(scenes: list[Scene], number: int) -> list[Scene]:
    names = sorted({scene.place for scene in scenes})
    return [scene for scene in scenes if scene.place == names[number]]


def copy_in(folder: Path, scene: Scene, name: str) -> Path:
    """The same photo with another last byte: another file, which has not been seen."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    shutil.copy(scene.path, path)
    with path.open("ab") as file:
        file.write(name.encode())
    return path


def test_it_adds_finds_and_shows_what_was_given(
    open_minded: CLIPSimilarityService, photo_root: Path, scenes: list[Scene]
) -> None:
    first, second, *_ = place_of(scenes, 0)
    # One of its own: of those that are shared other tests may have said where they are, and what is stronger stays.
    path = copy_in(photo_root / "given", first, "own.jpg")

    added = open_minded.add_image_to_index(
        path, {"lat": first.lat, "lon": first.lon, "address": {"city": "Lund"}, "tags": ["dropin"]}
    )
    found = open_minded.find_similar_images(second.path, top_k=50, similarity_threshold=0.0)

    assert added is True
    (mine,) = [match for match in found if match["image_path"] == str(path)]
    assert set(mine) == {"image_path", "similarity", "metadata"}
    assert mine["metadata"] == {
        "tags": ["dropin"],
        "lat": first.lat,
        "lon": first.lon,
        "provenance": "derived",
        "address": {"city": "Lund"},
    }
    similarities = [match["similarity"] for match in found]
    assert similarities == sorted(similarities, reverse=True)
    assert open_minded.find_similar_images(second.path, similarity_threshold=1.0) == []


def test_what_a_detector_said_is_no_evidence_and_what_was_surveyed_is(
    service: CLIPSimilarityService, client: Sightline, photo_root: Path, scenes: list[Scene]
) -> None:
    query, *known = place_of(scenes, 1)
    others = [(scene, copy_in(photo_root / "said", scene, scene.path.name)) for scene in known]
    # Other tests may have added photos of this place that can be trusted.
    here = Near(query.lat, query.lon, 1000.0)
    seq = client.stats().seq
    for hit in client.search(path=str(query.path), threshold=-1.0, top_k=500, near=here, min_seq=seq).hits:
        client.remove(hit.photo_id)
    for scene, path in others:
        service.add_image_to_index(path, {"latitude": scene.lat, "longitude": scene.lon})

    derived = to_guide_json(client.locate(path=str(query.path), near=here, min_seq=client.stats().seq))
    for scene, path in others:
        service.add_image_to_index(path, {"lat": scene.lat, "lon": scene.lon, "provenance": "surveyed"})
    surveyed = to_guide_json(client.locate(path=str(query.path), near=here, min_seq=client.stats().seq))

    assert (derived["success"], derived["reason"]) == (False, "no_trusted_evidence")
    assert surveyed["success"] is True
    assert surveyed["coordinates"]["latitude"] == pytest.approx(query.lat, abs=1e-3)
    assert surveyed["coordinates"]["matched_image"] in {str(path) for _, path in others}


def test_a_file_that_workers_cannot_see_travels_in_the_message(
    open_minded: CLIPSimilarityService, scenes: list[Scene], tmp_path: Path
) -> None:
    scene, other, *_ = place_of(scenes, 2)
    upload = copy_in(tmp_path, scene, "upload.jpg")

    assert open_minded.add_image_to_index(upload, {"lat": scene.lat, "lon": scene.lon}) is True
    found = open_minded.find_similar_images(other.path, top_k=50, similarity_threshold=0.0)
    by_upload = open_minded.find_similar_images(upload, top_k=50, similarity_threshold=0.0)

    assert str(upload) in {match["image_path"] for match in found}
    assert str(upload) not in {match["image_path"] for match in by_upload}


def test_what_a_detector_said_does_not_come_back_to_it_as_a_find(
    make_service: Callable[..., CLIPSimilarityService], scenes: list[Scene], photo_root: Path
) -> None:
    """The detector of the guide takes the first match for the answer, however its coordinates came to be."""
    query, derived, default, surveyed, *_ = place_of(scenes, 3)
    folder = photo_root / "detector"
    paths = [copy_in(folder, scene, f"{n}.jpg") for n, scene in enumerate((derived, default, surveyed))]
    clip_service, all_of_it = make_service(strict=True), make_service(strict=True, trusted_only=False)
    methods: list[dict[str, Any]] = [{}, {"location_method": "city_center"}, {"location_method": "surveyed"}]
    for path, method in zip(paths, methods, strict=True):
        all_of_it.add_image_to_index(path, {"lat": query.lat, "lon": query.lon} | method)
        clip_service.add_image_to_index(path, {"lat": query.lat, "lon": query.lon} | method)

    found = clip_service.find_similar_images(query.path, top_k=500, similarity_threshold=0.0)
    everything = all_of_it.find_similar_images(query.path, top_k=500, similarity_threshold=0.0)

    mine = {str(path) for path in paths}
    assert {match["image_path"] for match in found} & mine == {str(paths[2])}
    assert {match["metadata"]["provenance"] for match in found} <= {"exif_gps", "surveyed", "confirmed"}
    assert {match["image_path"] for match in everything} & mine == mine


@pytest.mark.parametrize("update_rows", [None, True])
def test_a_detector_that_adds_what_it_has_found_leaves_the_backends_row(
    make_service: Callable[..., CLIPSimilarityService],
    stack: Stack,
    client: Sightline,
    scenes: list[Scene],
    photo_root: Path,
    update_rows: bool | None,
) -> None:
    """The old class wrote nothing to the table. Coordinates that a camera gave are not even replaced where rows are."""
    path = copy_in(photo_root / "rows", scenes[0], f"mine{update_rows}.jpg")
    engine = create_engine(stack.settings.database_url)
    query = text("SELECT lat, lon, location_method, address_data FROM photos WHERE file_path = :p")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO photos (file_path, lat, lon, location_method, address_data) "
                """VALUES (:p, 56.5, 12.5, 'gps', '{"street": "Own"}')"""
            ),
            {"p": str(path)},
        )
    service = make_service(strict=True, update_rows=update_rows)

    added = service.add_image_to_index(path, {"lat": 1.0, "lon": 2.0, "address": "Nowhere", "floor": 3})
    seq = client.stats().seq
    near = Near(56.5, 12.5, 10.0)
    hits = client.search(path=str(scenes[1].path), threshold=-1.0, top_k=500, near=near, min_seq=seq).hits

    with engine.connect() as connection:
        row = connection.execute(query, {"p": str(path)}).one()
    engine.dispose()
    assert added is True
    assert tuple(row) == (56.5, 12.5, "gps", {"street": "Own"})
    (mine,) = [hit for hit in hits if hit.path == str(path)]
    assert (mine.provenance, mine.address, mine.metadata) == (Provenance.EXIF_GPS, {"street": "Own"}, {"floor": 3})
    client.remove(mine.photo_id)


def test_a_file_that_is_nowhere_or_too_large_to_travel_is_refused_with_its_reason(
    make_service: Callable[..., CLIPSimilarityService], tmp_path: Path
) -> None:
    strict, kind = make_service(strict=True), make_service()
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(1_000_001))

    with pytest.raises(BadRequest, match=r"outside_roots|not_found"):
        strict.find_similar_images(tmp_path / "nowhere.jpg")
    with pytest.raises(Exception, match="SIGHTLINE_PHOTO_ROOTS"):
        strict.add_image_to_index(large)
    assert kind.find_similar_images(tmp_path / "nowhere.jpg") == []
    assert kind.add_image_to_index(large) is False


def test_vectors_have_length_one_and_are_numpy_where_it_is_there(
    service: CLIPSimilarityService, scenes: list[Scene]
) -> None:
    vector = service.encode_image(scenes[0].path)

    assert (vector.dtype, vector.ndim) == (np.float32, 1)
    assert float(vector @ vector) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(BadRequest, match="no_text_encoder"):
        service.encode_text("a church")


def test_an_index_is_built_from_rows_and_the_count_is_of_those_that_are_in_it(
    service: CLIPSimilarityService, scenes: list[Scene], photo_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = [copy_in(photo_root / "rows", scene, f"row{n}.jpg") for n, scene in enumerate(scenes[:3])]
    rows = [
        {"file_path": str(good[0]), "lat": 1.0, "lon": 2.0, "location_method": "manual"},
        SimpleNamespace(file_path=str(good[1]), lat=1.0, lon=2.0, address_data=None),
        {"file_path": str(photo_root / "gone.jpg"), "lat": 1.0, "lon": 2.0},
        {"file_path": str(good[2]), "lat": 95.0, "lon": 2.0},
    ]

    count = service.build_index_from_database(rows)

    assert count == 2
    assert "gone.jpg was not taken" in caplog.text
    assert "bad_coordinates" in caplog.text


def test_ids_of_another_database_build_no_index_of_photos_that_were_never_looked_at(
    service: CLIPSimilarityService,
    client: Sightline,
    scenes: list[Scene],
    photo_root: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The backend's rows have ids that the workers' database gives to other photos, and paths of their own."""
    theirs = [copy_in(photo_root / "theirs", scene, f"theirs{n}.jpg") for n, scene in enumerate(scenes[:3])]
    ids = [client.add_to_index(path=str(path)).photo_id for path in theirs]
    mine = [copy_in(photo_root / "mine", scene, f"mine{n}.jpg") for n, scene in enumerate(scenes[:3])]
    indexed = client.stats().indexed

    def rows(paths: list[Path]) -> list[dict[str, Any]]:
        named = zip(ids, paths, strict=True)
        return [{"id": photo_id, "file_path": str(path), "lat": 1.0, "lon": 2.0} for photo_id, path in named]

    count = service.build_index_from_database(rows(mine))
    of_this_database = service.build_index_from_database(rows(theirs))

    assert (count, of_this_database) == (0, 3)
    assert client.stats().indexed == indexed
    for photo_id, here, there in zip(ids, mine, theirs, strict=True):
        (said,) = [r.getMessage() for r in caplog.records if f"photo {photo_id} was not taken" in r.getMessage()]
        assert "row_mismatch" in said
        assert f"{there}, not {here}" in said
        assert "SIGHTLINE_DATABASE_URL" in said


def test_statistics_have_the_old_fields_and_the_new(service: CLIPSimilarityService, client: Sightline) -> None:
    client.rebuild_index(timeout_s=120)

    stats = service.get_statistics()

    assert {"total_images", "dimension", "model", "device", "cache_exists"} <= set(stats)
    assert (stats["dimension"], stats["device"], stats["cache_exists"]) == (1280, "cpu", True)
    assert stats["total_images"] == stats["indexed"] > 0


@pytest.mark.parametrize("page", ["guide.en.md", "guide.ru.md"])
def test_the_code_of_the_guides_runs(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], scenes: list[Scene], page: str
) -> None:
    monkeypatch.setenv("SIGHTLINE_BROKER_URL", stack.settings.broker_url)
    pages = Path(__file__).parents[2] / "docs"
    blocks = re.findall(r"```python\n(.*?)```", (pages / page).read_text(), re.DOTALL)
    told = {"/photos/2.jpg": str(scenes[0].path)}
    backend: dict[str, Any] = {
        "image_path": str(scenes[0].path),
        "look_up_in_reference_db": lambda path: None,
        "detect": lambda path: None,
    }
    for block in blocks:
        for of_the_page, here in told.items():
            block = block.replace(of_the_page, here)
        exec(compile(textwrap.dedent(block), page, "exec"), backend)

    backend["clip_service"].close()
    backend["client"].close()
    assert len(blocks) == 4
    assert "EXIF GPS" in capsys.readouterr().out


def test_the_service_is_a_source_among_others(
    service: CLIPSimilarityService, client: Sightline, scenes: list[Scene]
) -> None:
    query, *others = place_of(scenes, 3)
    for scene in others:
        service.add_image_to_index(scene.path, {"lat": scene.lat, "lon": scene.lon, "provenance": "surveyed"})
    reference, ours = Source("reference_db", lambda path: None, 2), sightline(client, min_seq=client.stats().seq)

    result = Chain([ours, reference]).locate(query.path)
    by_camera = Chain([exif_gps(), reference, ours]).locate(query.path)

    assert result.best is not None
    assert (result.best.source, result.best.provenance) == ("clip_similarity", Provenance.DERIVED)
    assert [finding.status.value for finding in result.findings] == ["nothing", "found"]
    # The drawn photos carry their position; nobody else needs to be asked then.
    assert [finding.status.value for finding in by_camera.findings] == ["found", "not_asked", "not_asked"]
    assert "clip_similarity" in result.card()
