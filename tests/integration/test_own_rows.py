"""The backend's table stays the backend's: ids that must fit their paths."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import pytest
from sqlalchemy import insert

from producer_client.contract import Code, EmbedItem, Locate, NewPhoto, Photo, Refused, Search, Stored
from tests.conftest import Scene
from worker.errors import PhotoRefusal
from worker.library import Library
from worker.settings import Settings
from worker.storage.source import PhotoFiles
from worker.storage.store import PostgresStore


@pytest.fixture
def known(library: Library, scenes: list[Scene]) -> Stored:
    """A photo of the table, by its path."""
    (outcome,) = library.photos.add_many([NewPhoto("known", Photo(path=str(scenes[0].path)))]).outcomes
    assert isinstance(outcome, Stored)
    return outcome


def test_an_id_whose_row_has_another_file_is_refused_by_both_names(
    library: Library, scenes: list[Scene], known: Stored
) -> None:
    wrong = Photo(photo_id=known.photo_id, path=str(scenes[1].path))

    added = library.photos.add_many([NewPhoto("wrong", wrong), NewPhoto("right", Photo(path=str(scenes[2].path)))])
    embedded = library.photos.embed_many([EmbedItem("wrong", wrong)])

    refused, right = added.outcomes
    assert isinstance(refused, Refused)
    assert isinstance(right, Stored)
    assert (refused.ref, refused.code, refused.retryable) == ("wrong", Code.ROW_MISMATCH, False)
    assert f"photo {known.photo_id}" in refused.message
    assert f"{scenes[0].path}, not {scenes[1].path}" in refused.message
    (not_embedded,) = embedded.outcomes
    assert isinstance(not_embedded, Refused)
    assert not_embedded.code is Code.ROW_MISMATCH


def test_a_question_by_an_id_and_another_path_is_refused_too(
    library: Library, scenes: list[Scene], known: Stored
) -> None:
    wrong = Photo(photo_id=known.photo_id, path=str(scenes[1].path))

    with pytest.raises(PhotoRefusal) as searched:
        library.questions.search(Search(photo=wrong))
    with pytest.raises(PhotoRefusal) as located:
        library.questions.locate(Locate(photo=wrong))

    assert {searched.value.code, located.value.code} == {Code.ROW_MISMATCH}


def test_every_spelling_of_the_rows_path_fits_its_id(
    library: Library, scenes: list[Scene], known: Stored, photo_root: Path, tmp_path: Path
) -> None:
    path = scenes[0].path
    (tmp_path / "link").symlink_to(path)
    below = path.relative_to(photo_root.resolve())

    for spelling in (path, below, path.parent / ".." / path.parent.name / path.name, tmp_path / "link"):
        photo = Photo(photo_id=known.photo_id, path=str(spelling))
        (outcome,) = library.photos.add_many([NewPhoto("again", photo)]).outcomes
        assert isinstance(outcome, Stored), (spelling, outcome)
        assert (outcome.photo_id, outcome.content_sha256) == (known.photo_id, known.content_sha256)
    library.questions.search(Search(photo=Photo(photo_id=known.photo_id, path=str(path))))


@pytest.mark.parametrize("of_the_row", ["NFC", "NFD"])
@pytest.mark.parametrize("of_the_disk", ["NFC", "NFD"])
def test_a_photo_is_one_in_both_forms_of_its_name(
    library: Library,
    store: PostgresStore,
    scenes: list[Scene],
    photo_root: Path,
    tmp_path: Path,
    of_the_row: Literal["NFC", "NFD"],
    of_the_disk: Literal["NFC", "NFD"],
) -> None:
    name = f"{tmp_path.name} Ёлка/Café.jpg"
    there = photo_root / normalize(of_the_disk, name)
    there.parent.mkdir()
    shutil.copy(scenes[0].path, there)
    there.with_suffix(".xmp").write_bytes(b"<x/>")
    rows = store.rows.table
    with store.database.begin() as connection:
        row_id = connection.scalar(insert(rows).values(file_path=normalize(of_the_row, name)).returning(rows.c.id))

    ways = [f"{start}{normalize(form, name)}" for form in ("NFC", "NFD") for start in ("", f"{photo_root}/")]
    outcomes = library.photos.add_many([NewPhoto(way, Photo(path=way)) for way in ways]).outcomes
    outcomes += library.photos.add_many([NewPhoto("again", Photo(photo_id=row_id, path=ways[-1]))]).outcomes

    assert {outcome.photo_id for outcome in outcomes if isinstance(outcome, Stored)} == {row_id}, outcomes
    assert len(outcomes) == 5
    for way in ways:
        library.questions.search(Search(photo=Photo(photo_id=row_id, path=way)))
    (checked,) = store.files.after(0, 10)
    assert PhotoFiles(Settings(photo_roots=(photo_root,))).facts([checked.path]) == [checked.facts]


def test_a_photo_under_a_root_that_is_a_link_is_one_by_both_names(
    make_library: Callable[..., Library], settings: Settings, scenes: list[Scene], photo_root: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(photo_root)
    below = scenes[0].path.relative_to(photo_root.resolve())
    library = make_library(settings=settings.model_copy(update={"photo_roots": (link,)}))

    ids = set()
    for way in (link / below, scenes[0].path, below, link / below):
        (outcome,) = library.photos.add_many([NewPhoto("a", Photo(path=str(way)))]).outcomes
        assert isinstance(outcome, Stored), outcome
        ids.add(outcome.photo_id)

    assert len(ids) == 1


def test_an_id_that_is_in_no_row_names_the_database(library: Library) -> None:
    (outcome,) = library.photos.add_many([NewPhoto("a", Photo(photo_id=10**9, path="/a.jpg"))]).outcomes

    assert isinstance(outcome, Refused)
    assert outcome.code is Code.UNKNOWN_PHOTO
    assert "SIGHTLINE_DATABASE_URL" in outcome.message
