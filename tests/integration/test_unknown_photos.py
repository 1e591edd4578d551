"""Removing and purging what is not there: unknown ids are named, and nothing happens for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text

from producer_client.contract import Code, NewPhoto, Photo, Provenance, Purged, Refused, Removed, Stored
from tests.conftest import Scene
from worker.library import Library
from worker.settings import Settings
from worker.storage.store import PostgresStore

UNKNOWN = 99_999


@pytest.fixture
def ids(library: Library, scenes: list[Scene]) -> list[int]:
    """Two photos that are in two generations."""
    photos = [
        NewPhoto(str(n), Photo(path=str(s.path)), s.lat, s.lon, Provenance.SURVEYED) for n, s in enumerate(scenes[:2])
    ]
    stored = [outcome.photo_id for outcome in library.photos.add_many(photos).outcomes if isinstance(outcome, Stored)]
    library.rebuilding.rebuild()
    library.rebuilding.rebuild()
    return stored


def is_due(library: Library) -> bool:
    return library.rebuilding.catch_up_generations(claims=3, claim_s=900.0)


def kept(store: PostgresStore) -> list[int]:
    return [generation.number for generation in store.generations.kept()]


@pytest.mark.parametrize("verb", ["remove_many", "purge_many"])
def test_an_id_that_nobody_knows_is_named_and_nothing_happens(
    library: Library, store: PostgresStore, ids: list[int], verb: str
) -> None:
    before, held = store.entries.counts(library.model_key), kept(store)

    outcomes = getattr(library.photos, verb)([UNKNOWN, 2**63 - 1, 0]).outcomes

    assert [(o.ref, o.code) for o in outcomes if isinstance(o, Refused)] == [
        (f"photo {photo_id}", Code.UNKNOWN_PHOTO) for photo_id in (UNKNOWN, 2**63 - 1, 0)
    ]
    assert str(UNKNOWN) in outcomes[0].message
    assert store.entries.counts(library.model_key) == before
    assert is_due(library) is False
    assert kept(store) == held


def test_a_mix_of_known_and_unknown_is_answered_in_order_and_the_known_are_done(
    library: Library, store: PostgresStore, ids: list[int]
) -> None:
    asked = [UNKNOWN, ids[1], UNKNOWN, ids[0], ids[1]]

    removed = library.photos.remove_many(asked).outcomes
    purged = library.photos.purge_many(asked).outcomes

    assert [type(outcome) for outcome in removed] == [Refused, Removed, Removed]
    assert [o.photo_id for o in removed if isinstance(o, Removed)] == [ids[1], ids[0]]
    assert [type(outcome) for outcome in purged] == [Refused, Purged, Purged]
    assert [(o.photo_id, o.was_indexed, o.generations) for o in purged if isinstance(o, Purged)] == [
        (ids[1], False, kept(store)),
        (ids[0], False, kept(store)),
    ]
    assert store.entries.counts(library.model_key).purges_pending == 2


def test_purging_twice_asks_for_one_rebuild(library: Library, store: PostgresStore, ids: list[int]) -> None:
    held = kept(store)
    library.photos.purge_many(ids[:1])
    (while_it_waits,) = library.photos.purge_many(ids[:1]).outcomes
    assert is_due(library) is True
    newest = library.rebuilding.rebuild().generation

    (again,) = library.photos.purge_many(ids[:1]).outcomes

    assert isinstance(while_it_waits, Purged)
    assert while_it_waits.generations == held
    assert isinstance(again, Purged)
    assert (again.was_indexed, again.generations) == (False, [])
    assert is_due(library) is False
    assert kept(store)[0] == newest
    assert len(kept(store)) == 2, "those that one could roll back to are still there"


def test_a_photo_that_was_added_again_is_purged_again(
    library: Library, store: PostgresStore, ids: list[int], scenes: list[Scene]
) -> None:
    library.photos.purge_many(ids[:1])
    is_due(library)
    library.photos.add_many([NewPhoto("again", Photo(path=str(scenes[0].path)))])

    (purged,) = library.photos.purge_many(ids[:1]).outcomes

    assert isinstance(purged, Purged)
    assert purged.was_indexed is True
    assert store.entries.counts(library.model_key).purges_pending == 1


def test_a_photo_whose_row_the_backend_has_deleted_is_known(
    library: Library, store: PostgresStore, settings: Settings, ids: list[int]
) -> None:
    with store.database.engine.begin() as connection:
        connection.execute(text(f"DELETE FROM {settings.photos_table}"))

    (removed,) = library.photos.remove_many(ids[:1]).outcomes
    (purged,) = library.photos.purge_many(ids[1:]).outcomes

    assert isinstance(removed, Removed)
    assert isinstance(purged, Purged)
    assert (removed.was_indexed, purged.was_indexed) == (True, True)
    assert store.entries.counts(library.model_key).indexed == 0


def test_a_row_that_was_never_added_is_purged_without_a_rebuild(
    library: Library, store: PostgresStore, settings: Settings, ids: list[int], scenes: list[Scene]
) -> None:
    with store.database.engine.begin() as connection:
        insert = text(f"INSERT INTO {settings.photos_table} (file_path, lat, lon) VALUES (:p, 1, 2) RETURNING id")
        photo_id = connection.scalar(insert, {"p": str(scenes[5].path)})
    assert store.vectors.missing_count(library.model_key) == 1

    (purged,) = library.photos.purge_many([photo_id]).outcomes

    assert isinstance(purged, Purged)
    assert (purged.was_indexed, purged.generations) == (False, [])
    assert store.vectors.missing_count(library.model_key) == 0, "no rebuild adds it"
    assert is_due(library) is False


def test_ids_of_a_narrower_column_are_told_apart(make_store: Callable[..., PostgresStore], settings: Settings) -> None:
    with make_store().database.engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {settings.photos_table}"))
        columns = "id smallint PRIMARY KEY, file_path text, lat float, lon float, address_data json"
        connection.execute(
            text(f"CREATE TABLE {settings.photos_table} ({columns}, location_method text, created_at timestamp)")
        )
        connection.execute(text(f"INSERT INTO {settings.photos_table} (id, file_path) VALUES (7, '/a.jpg')"))

    assert list(make_store().entries.remove_many([7, 2**40])) == [7]
