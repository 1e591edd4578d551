"""The backend's table stays the backend's: ids that must fit their paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer_client.contract import Code, EmbedItem, Locate, NewPhoto, Photo, Refused, Search, Stored
from tests.conftest import Scene
from worker.errors import PhotoRefusal
from worker.library import Library


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


def test_an_id_that_is_in_no_row_names_the_database(library: Library) -> None:
    (outcome,) = library.photos.add_many([NewPhoto("a", Photo(photo_id=10**9, path="/a.jpg"))]).outcomes

    assert isinstance(outcome, Refused)
    assert outcome.code is Code.UNKNOWN_PHOTO
    assert "SIGHTLINE_DATABASE_URL" in outcome.message
