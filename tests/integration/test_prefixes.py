"""A table whose rows name files as another machine had them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from producer_client.contract import NewPhoto, Photo
from tests.conftest import Scene
from tests.integration.test_library import held_back, stored
from tests.integration.test_positions import located
from worker.library import Library
from worker.settings import Settings
from worker.storage.source import PhotoFiles
from worker.storage.store import PostgresStore

OLD = "D:\\Backend\\uploads"


@pytest.fixture
def moved(settings: Settings, photo_root: Path) -> Settings:
    return settings.model_copy(update={"path_prefixes": {OLD: str(photo_root)}})


def test_rows_of_another_machine_are_embedded_found_and_located_and_stay_as_they_are(
    moved: Settings,
    make_library: Callable[..., Library],
    store: PostgresStore,
    scenes: list[Scene],
    photo_root: Path,
) -> None:
    query, known = held_back(scenes)
    names = [f"{OLD}\\{scene.path.relative_to(photo_root)}".replace("/", "\\") for scene in known]
    rows = text(
        f"INSERT INTO {moved.photos_table} (file_path, lat, lon, location_method) VALUES (:path, :lat, :lon, 'gps') "
        "RETURNING id"
    )
    with store.database.begin() as connection:
        ids = [
            connection.execute(rows, {"path": name, "lat": scene.lat, "lon": scene.lon}).scalar_one()
            for name, scene in zip(names, known, strict=True)
        ]
    library = make_library(store=store, source=PhotoFiles(moved))

    stored(library, [NewPhoto(str(i), Photo(photo_id=i)) for i in ids[1:]])
    (by_path,) = stored(library, [NewPhoto("here", Photo(path=str(known[0].path)))])
    rebuilt = library.rebuilding.rebuild()
    answer = located(library, query)

    assert by_path.photo_id == ids[0]  # no second row for the file
    assert (rebuilt.indexed, rebuilt.valid_files) == (len(known), len(known))
    assert answer.point.lat == pytest.approx(query.lat, abs=0.01)
    with store.database.begin() as connection:
        found = connection.scalars(text(f"SELECT file_path FROM {moved.photos_table} ORDER BY id")).all()
    assert found == names
