"""Keypoints by content: kept once in a real Postgres, found again, gone when nobody has the photo any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select, text

from producer_client.contract import Code, Embedded, EmbedItem, NewPhoto, Photo, Provenance, Stored
from tests.conftest import Scene, is_killed
from tests.integration.test_store import KEY, entry
from worker.core.keypoints import COMPONENTS, LEVELS, VERSION, Keypoints
from worker.core.types import Decoded
from worker.errors import PhotoRefusal, Transient
from worker.library import Library
from worker.settings import Settings
from worker.storage.copying import whole_rows
from worker.storage.keypoints import keep_keypoints
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


def test_where_postgres_breaks_off_it_is_tried_again(store: PostgresStore) -> None:
    def read_too_slowly() -> None:
        with store.database.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 1"))
            list(whole_rows(connection, select(func.pg_sleep(60))))

    with pytest.raises(Transient, match="statement timeout"):
        read_too_slowly()

    assert store.keypoints.known({"a"}) == {}


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

    first = store.keypoints.missing(after_id=-1, limit=1)
    rest = store.keypoints.missing(after_id=first[0].photo_id, limit=9)

    assert [(m.photo_id, m.path) for m in first] == [(ids["a"], "/photos/a.jpg")]
    assert [(m.photo_id, m.path) for m in rest] == [(ids["b"], "/photos/b.jpg")]
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


def test_those_of_a_file_that_was_replaced_go_with_it_and_of_a_content_that_no_photo_has_are_swept(
    store: PostgresStore,
) -> None:
    before, removed = store.entries.put_many([entry("a", keypoints=made(1)), entry("r", keypoints=made(3))], KEY)
    store.entries.remove_many([removed.entry.photo_id])
    changed = entry("a", photo_id=before.entry.photo_id, content_sha256="sha-new", keypoints=made(2))
    store.entries.put_many([changed], KEY)
    with store.database.begin() as connection:
        keep_keypoints(connection, "sha-of-none", made(4))

    known = store.keypoints.known({"sha-a", "sha-new", "sha-r", "sha-of-none"})
    assert known.keys() == {"sha-new", "sha-r", "sha-of-none"}, "a removed photo may come back"
    assert store.keypoints.sweep() == 1
    assert store.keypoints.sweep() == 0
    assert store.keypoints.known({"sha-new", "sha-r", "sha-of-none"}).keys() == {"sha-new", "sha-r"}


def new(scene: Scene) -> NewPhoto:
    return NewPhoto(scene.path.name, Photo(path=str(scene.path)), 1.0, 2.0, Provenance.SURVEYED)


def test_an_added_photo_has_its_keypoints_and_the_vector_that_it_has_without(
    make_library: Callable[..., Library],
    make_store: Callable[..., PostgresStore],
    settings: Settings,
    scenes: list[Scene],
) -> None:
    without = settings.model_copy(update={"rungs": (), "db_schema": f"{settings.db_schema}_b"})
    store = make_store()
    other = PostgresStore(without)
    other.migrate()
    new_photos = [new(scene) for scene in scenes[:3]]

    added = make_library(store=store).photos.add_many(new_photos).outcomes
    make_library(store=other, settings=without).photos.add_many(new_photos)
    try:
        contents = {outcome.content_sha256 for outcome in added if isinstance(outcome, Stored)}
        key = make_library(store=store).model_key
        vectors, same = (one.vectors.known(contents, key) for one in (store, other))
        kept = store.keypoints.known(contents)

        assert len(contents) == len(new_photos)
        assert {content: vector.tobytes() for content, vector in vectors.items()} == {
            content: vector.tobytes() for content, vector in same.items()
        }
        assert {content: len(one) > 100 for content, one in kept.items()} == dict.fromkeys(contents, True)
        assert other.keypoints.known(contents) == {}
        unsaid = [without, settings.model_copy(update={"key_prefix": ""})]
        for chosen in unsaid:
            stats = make_library(store=other, settings=chosen).statistics.stats(rss_mb=0)
            assert "without_keypoints" not in stats.to_wire()
    finally:
        other.close()


def test_a_rebuild_looks_at_pictures_that_nobody_has_looked_at(
    make_library: Callable[..., Library],
    store: PostgresStore,
    settings: Settings,
    scenes: list[Scene],
    photo_root: Path,
) -> None:
    gone = Scene(photo_root / "gone.jpg", "", 1.0, 2.0)
    gone.path.write_bytes(scenes[9].path.read_bytes())
    before = settings.model_copy(update={"rungs": ()})
    make_library(store=store, settings=before).photos.add_many([new(scene) for scene in [*scenes[:4], gone]])
    run(store, settings, "DELETE FROM {schema}.pictures")
    gone.path.unlink()
    library = make_library(store=store)
    told: list[tuple[str, int, int]] = []

    assert library.statistics.stats(rss_mb=0).without_keypoints == 5
    library.rebuilding.rebuild(lambda *facts: told.append(facts))

    assert store.keypoints.missing_count() == 0
    assert library.statistics.stats(rss_mb=0).to_wire()["without_keypoints"] == 0
    assert store.vectors.missing_hash_count() == 0
    assert ("look", 4, 4) in told
    assert library.embedding.computed == 0
    assert run(store, settings, "SELECT count(*) FROM {schema}.attempts") == [(0,)]
    told.clear()
    library.rebuilding.rebuild(lambda *facts: told.append(facts))
    assert "look" not in {phase for phase, _, _ in told}


def test_what_takes_the_process_down_is_left_alone_in_the_end(
    make_library: Callable[..., Library],
    make_store: Callable[..., PostgresStore],
    store: PostgresStore,
    settings: Settings,
    scenes: list[Scene],
) -> None:
    """As a picture on which OpenCV ends the process."""
    before = settings.model_copy(update={"rungs": ()})
    outcomes = make_library(store=store, settings=before).photos.add_many([new(scene) for scene in scenes[:3]]).outcomes
    bad = outcomes[1]
    assert isinstance(bad, Stored)
    tries: list[int] = []

    class Down(BaseException):
        pass

    def find(content: bytes, decoded: Decoded) -> Keypoints:
        if content == scenes[1].path.read_bytes():
            tries.append(1)
            raise Down
        return made(1, 3)

    for _ in range(settings.quarantine_after):
        process = make_store()
        with pytest.raises(Down):
            make_library(store=process, find_keypoints=find).rebuilding.rebuild()
        is_killed(process)
    make_library(store=store, find_keypoints=find).rebuilding.rebuild()

    assert len(tries) == settings.quarantine_after
    assert [missing.photo_id for missing in store.keypoints.missing(after_id=-1, limit=9)] == [bad.photo_id]


def test_what_cannot_be_decoded_any_more_is_not_tried_every_night(
    make_library: Callable[..., Library], store: PostgresStore, settings: Settings, scenes: list[Scene]
) -> None:
    def breaks(content: bytes) -> Decoded:
        raise PhotoRefusal(Code.DAMAGED_IMAGE, "no")

    before = settings.model_copy(update={"rungs": ()})
    make_library(store=store, settings=before).photos.add_many([new(scenes[0])])

    make_library(store=store, decode=breaks).rebuilding.rebuild()

    assert store.keypoints.missing_count() == 0
    assert [len(one) for one in store.keypoints.known(set(contents_of(store, settings))).values()] == [0]


def test_vectors_alone_leave_no_keypoints(library: Library, store: PostgresStore, scenes: list[Scene]) -> None:
    reply = library.photos.embed_many([EmbedItem("a", Photo(path=str(scenes[0].path)))])
    [outcome] = reply.outcomes
    assert isinstance(outcome, Embedded)

    assert store.keypoints.without({outcome.content_sha256}) == {outcome.content_sha256}


def contents_of(store: PostgresStore, settings: Settings) -> list[str]:
    return [content for (content,) in run(store, settings, "SELECT content_sha256 FROM {schema}.entries")]
