"""Which photos of the table are refused, and since when: known at once, whoever has tried them, while it holds."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from producer_client.contract import AddReply, Code, NewPhoto, Photo, Refused, Stored
from tests.conftest import Scene
from worker.core.types import NotTaken, Refusal
from worker.library import Library
from worker.settings import Settings
from worker.storage.store import PostgresStore


@pytest.fixture
def folder(photo_root: Path, tmp_path: Path) -> Path:
    """A folder of this test alone that workers may read."""
    made = photo_root / tmp_path.name
    made.mkdir()
    return made


def add(library: Library, *photos: Photo) -> list[Stored | Refused]:
    reply: AddReply = library.photos.add_many([NewPhoto(str(n), photo) for n, photo in enumerate(photos)])
    return reply.outcomes


def insert(store: PostgresStore, settings: Settings, *paths: Path | None) -> list[int]:
    """Rows as the backend writes them."""
    query = text(f"INSERT INTO {settings.photos_table} (file_path, lat, lon) VALUES (:path, 1, 2) RETURNING id")
    with store.database.engine.begin() as connection:
        return [connection.scalar(query, {"path": path and str(path)}) or 0 for path in paths]


def listed(store: PostgresStore) -> list[tuple[int, str]]:
    return [(photo.photo_id, photo.code) for photo in store.attempts.not_taken()]


def refused(library: Library) -> int:
    """As the statistics count them."""
    return library.statistics.stats(rss_mb=0).refused


@pytest.mark.parametrize("who", ["its id, as backfill", "its path", "another spelling of it", "a rebuild"])
def test_a_photo_of_the_table_is_listed_at_once_whoever_has_tried_it(
    who: str, library: Library, store: PostgresStore, settings: Settings, folder: Path
) -> None:
    broken, gone = folder / "broken.jpg", folder / "gone.jpg"
    broken.write_text("no photo")
    ids = insert(store, settings, broken, gone)

    match who:
        case "its id, as backfill":
            add(library, *(Photo(photo_id=photo_id) for photo_id in ids))
        case "its path":
            add(library, Photo(path=str(broken)), Photo(path=str(gone)))
        case "another spelling of it":
            add(library, *(Photo(path=f"{folder.parent}/./{folder.name}//{name}") for name in (broken.name, gone.name)))
        case _:
            library.rebuilding.rebuild()

    assert listed(store) == [(ids[0], "not_an_image"), (ids[1], "not_found")]
    assert refused(library) == 2


def test_all_that_try_a_photo_remember_the_same_of_it(
    library: Library, store: PostgresStore, settings: Settings, folder: Path
) -> None:
    broken = folder / "broken.jpg"
    broken.write_text("no photo")
    (photo_id,) = insert(store, settings, broken)

    def at() -> Any:
        with store.database.engine.connect() as connection:
            return connection.scalar(text(f"SELECT at FROM {settings.db_schema}.refusals"))

    seen: list[tuple[NotTaken, Any]] = []
    for again in (Photo(photo_id=photo_id), Photo(path=str(broken)), None):
        if again is None:
            library.rebuilding.rebuild()
        else:
            add(library, again)
        seen += [(photo, at()) for photo in store.attempts.not_taken()]

    assert len(seen) == 3
    assert len(set(seen)) == 1, "the sentence, and since when"


def test_of_what_is_no_fault_of_a_photo_nothing_is_listed(
    library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene], folder: Path
) -> None:
    (photo_id,) = insert(store, settings, scenes[0].path)

    outcomes = add(
        library,
        Photo(photo_id=photo_id, path=str(scenes[1].path)),
        Photo(photo_id=photo_id + 100),
        Photo(path=str(folder / "without a row.jpg")),
        Photo(inline="bm8gcGhvdG8="),
    )

    assert [outcome.code for outcome in outcomes if isinstance(outcome, Refused)] == [
        Code.ROW_MISMATCH,
        Code.UNKNOWN_PHOTO,
        Code.NOT_FOUND,
        Code.NOT_AN_IMAGE,
    ]
    assert listed(store) == []
    assert refused(library) == 0


def test_a_photo_that_is_taken_after_all_is_listed_no_longer(
    library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene], folder: Path
) -> None:
    path = folder / "late.jpg"
    (photo_id,) = insert(store, settings, path)
    add(library, Photo(photo_id=photo_id))
    before = listed(store)
    path.write_bytes(scenes[0].path.read_bytes())

    add(library, Photo(path=str(path)))

    assert before == [(photo_id, "not_found")]
    assert (listed(store), refused(library)) == ([], 0)


def test_a_photo_that_is_in_the_index_is_not_listed_for_a_try_that_failed(
    library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene], folder: Path
) -> None:
    path = folder / "a.jpg"
    path.write_bytes(scenes[0].path.read_bytes())
    (stored,) = add(library, Photo(path=str(path)))
    content = path.read_bytes()
    path.write_bytes(content[:300])
    (again,) = add(library, Photo(path=str(path)))
    path.write_bytes(content)

    assert isinstance(stored, Stored)
    assert isinstance(again, Refused)
    assert listed(store) == []


def test_a_photo_whose_file_has_changed_into_none_is_listed_by_why_it_is_refused(
    library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene], folder: Path
) -> None:
    path = folder / "a.jpg"
    path.write_bytes(scenes[0].path.read_bytes())
    (stored,) = add(library, Photo(path=str(path)))
    path.write_text("no photo")
    library.rebuilding.rebuild()

    assert isinstance(stored, Stored)
    assert listed(store) == [(stored.photo_id, "not_an_image")]


@pytest.mark.parametrize("verb", ["remove_many", "purge_many"])
def test_a_photo_that_was_removed_is_not_listed_even_when_it_is_tried_again(
    verb: str, library: Library, store: PostgresStore, settings: Settings, folder: Path
) -> None:
    (photo_id,) = insert(store, settings, folder / "gone.jpg")
    add(library, Photo(photo_id=photo_id))
    before = listed(store)

    getattr(library.photos, verb)([photo_id])
    after = listed(store)
    add(library, Photo(photo_id=photo_id))

    assert before == [(photo_id, "not_found")]
    assert after == listed(store) == []
    assert refused(library) == 0


def test_a_photo_whose_row_the_backend_deletes_is_listed_no_longer_and_forgotten_at_night(
    library: Library, store: PostgresStore, settings: Settings, folder: Path
) -> None:
    (photo_id,) = insert(store, settings, folder / "gone.jpg")
    add(library, Photo(photo_id=photo_id))
    with store.database.engine.begin() as connection:
        connection.execute(text(f"DELETE FROM {settings.photos_table}"))

    at_once = listed(store), refused(library)
    library.rebuilding.rebuild()

    with store.database.engine.connect() as connection:
        kept: Any = connection.scalar(text(f"SELECT count(*) FROM {settings.db_schema}.refusals"))
    assert at_once == ([], 0)
    assert kept == 0


def test_many_refuse_the_same_photos_at_the_same_time_without_a_deadlock(
    store: PostgresStore, settings: Settings, folder: Path
) -> None:
    ids = insert(store, settings, *(folder / f"{n}.jpg" for n in range(40)))

    def refuse(some: Sequence[int]) -> None:
        for _ in range(10):
            store.attempts.refuse([Refusal(i, (), Code.NOT_FOUND, "gone") for i in some], "model@1")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(refuse, (ids, ids[::-1], ids[20:] + ids[:20])))

    assert len(listed(store)) == 40
