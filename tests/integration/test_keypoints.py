"""Keypoints by content: kept once in a real Postgres, found again, gone when nobody has the photo any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import text

from tests.integration.test_store import KEY, entry
from worker.core.keypoints import COMPONENTS, LEVELS, VERSION, Keypoints
from worker.settings import Settings
from worker.storage.store import PostgresStore


def made(seed: int, count: int = 1_500) -> Keypoints:
    some = np.random.default_rng(seed)
    return Keypoints(
        some.integers(0, 2**16, (count, 2), np.uint16),
        some.integers(0, LEVELS, (count, COMPONENTS), np.uint8),
        (640, 480),
    )


def run(store: PostgresStore, settings: Settings, statement: str) -> Sequence[tuple[Any, ...]]:
    with store.database.engine.begin() as connection:
        result = connection.execute(text(statement.format(schema=settings.db_schema)))
        return [tuple(row) for row in result] if result.returns_rows else []


def test_what_is_kept_is_found_by_its_content(store: PostgresStore, settings: Settings) -> None:
    many, none = made(1), Keypoints.none((640, 480))

    store.keypoints.keep({"many": many, "none": none})
    found = store.keypoints.known({"many", "none", "other"})

    assert {content: one.to_bytes() for content, one in found.items()} == {
        "many": many.to_bytes(),
        "none": none.to_bytes(),
    }
    assert store.keypoints.without({"many", "none", "other"}) == {"other"}
    assert store.keypoints.known(set()) == {}
    [(stored_as, longest)] = run(
        store,
        settings,
        "SELECT (SELECT attstorage::text FROM pg_attribute WHERE attrelid = '{schema}.keypoints'::regclass"
        " AND attname = 'keypoints'), max(octet_length(keypoints)) FROM {schema}.keypoints",
    )
    assert stored_as == "e", "not compressed in vain"
    assert longest <= 128_000


def test_what_is_there_stays(store: PostgresStore) -> None:
    first = made(1)
    store.keypoints.keep({"a": first})

    store.keypoints.keep({"a": made(2)})

    assert store.keypoints.known({"a"})["a"].to_bytes() == first.to_bytes()


def test_those_of_another_version_are_missing_and_replaced(store: PostgresStore, settings: Settings) -> None:
    store.entries.put_many([entry("a", keypoints=made(1))], KEY)
    run(store, settings, f"UPDATE {{schema}}.keypoints SET version = {VERSION + 1}, keypoints = '\\x01'")

    assert store.keypoints.known({"sha-a"}) == {}
    assert store.keypoints.without({"sha-a"}) == {"sha-a"}
    assert store.keypoints.missing_count() == 1

    again = made(2)
    store.keypoints.keep({"sha-a": again})

    assert store.keypoints.known({"sha-a"})["sha-a"].to_bytes() == again.to_bytes()
    assert store.keypoints.missing_count() == 0


def test_bytes_that_cannot_be_read_are_none_and_no_error(store: PostgresStore, settings: Settings) -> None:
    store.keypoints.keep({"a": made(1), "b": made(2)})
    run(store, settings, "UPDATE {schema}.keypoints SET keypoints = 'x' WHERE content_sha256 = 'a'")

    assert store.keypoints.known({"a", "b"}).keys() == {"b"}


def test_photos_that_lack_them_are_told_in_pages(store: PostgresStore, settings: Settings) -> None:
    names = ["with", "a", "removed", "b", "inline", "gone"]
    new = [entry(name, keypoints=made(1) if name == "with" else None) for name in names]
    new[4] = entry("inline", path="inline:sha-inline", spellings=("inline:sha-inline",))
    ids = {w.ref: w.entry.photo_id for w in store.entries.put_many(new, KEY)}
    store.entries.remove_many([ids["removed"]])
    run(store, settings, f"UPDATE {{schema}}.entries SET file_state = 'gone' WHERE photo_id = {ids['gone']}")
    store.attempts.begin([ids["b"]])

    first = store.keypoints.missing(after_id=-1, limit=1)
    rest = store.keypoints.missing(after_id=first[0].photo_id, limit=9)

    assert [(m.photo_id, m.path, m.attempts) for m in first] == [(ids["a"], "/photos/a.jpg", 0)]
    assert [(m.photo_id, m.path, m.attempts) for m in rest] == [(ids["b"], "/photos/b.jpg", 1)]
    assert store.keypoints.missing_count() == 2


def test_a_purge_takes_them_along_unless_another_photo_has_them(store: PostgresStore) -> None:
    gone, kept, same = store.entries.put_many(
        [
            entry("gone", keypoints=made(1)),
            entry("kept", keypoints=made(2)),
            entry("same", content_sha256="sha-kept"),
        ],
        KEY,
    )

    store.entries.purge_many([gone.entry.photo_id, same.entry.photo_id])

    assert store.keypoints.known({"sha-gone", "sha-kept"}).keys() == {"sha-kept"}
    store.entries.purge_many([kept.entry.photo_id])
    assert store.keypoints.known({"sha-kept"}) == {}


def test_those_of_a_content_that_no_photo_has_are_swept(store: PostgresStore) -> None:
    before, removed = store.entries.put_many([entry("a", keypoints=made(1)), entry("r", keypoints=made(3))], KEY)
    store.entries.remove_many([removed.entry.photo_id])
    changed = entry("a", photo_id=before.entry.photo_id, content_sha256="sha-new", keypoints=made(2))
    store.entries.put_many([changed], KEY)

    assert store.keypoints.sweep() == 1
    assert store.keypoints.sweep() == 0

    known = store.keypoints.known({"sha-a", "sha-new", "sha-r"})
    assert known.keys() == {"sha-new", "sha-r"}, "a removed photo may come back"
