"""The store against a real Postgres: one transaction a message, a change log that loses nothing, slots, locks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, select, text

from producer_client.contract import Code, Near, Provenance
from tests.conftest import is_killed
from tests.entries import new_entry
from tests.integration.test_index import as_of_an_earlier_release
from worker.core.audit import Question
from worker.core.generations import Built
from worker.core.shot import CAMERA_BYTES, Shot
from worker.core.tries import Deaths, Try
from worker.core.types import START, FileFacts, FileState, Filter, Mark, NewEntry, Published, Refusal
from worker.core.vectors import Vector, unit_rows
from worker.errors import Permanent, Transient, Unprepared
from worker.settings import Settings
from worker.storage import inlining
from worker.storage.database import SESSION
from worker.storage.migrate import migrate
from worker.storage.snapshot import PostgresSnapshot
from worker.storage.store import PostgresStore
from worker.storage.tables import serving

KEY = "test-model@1"
DIM = 8
BUILT = Built("a" * 64, count=1, kind="exact", parameters={}, recall_at_10=1.0, index_bytes=100)


def entry(name: str, **changed: Any) -> NewEntry:
    """A photo called `name`, with a vector of its own and surveyed coordinates."""
    vector = unit_rows(np.random.default_rng(sum(name.encode())).normal(size=(1, DIM)))[0]
    return replace(new_entry(name, vector), **changed)


def rows_of(store: PostgresStore, settings: Settings, columns: str, order: str = "id") -> list[tuple[object, ...]]:
    with store.database.engine.connect() as connection:
        found = connection.execute(text(f"SELECT {columns} FROM {settings.photos_table} ORDER BY {order}"))
        return [tuple(row) for row in found]


@contextmanager
def on_the_database(store: PostgresStore, *statements: str, undo: tuple[str, ...]) -> Iterator[None]:
    """What a backend has in its database besides."""

    def run(these: tuple[str, ...]) -> None:
        with store.database.engine.begin() as connection:
            for statement in these:
                connection.execute(text(statement))

    run(statements)
    try:
        yield
    finally:
        run(undo)


def test_a_put_photo_has_a_row_an_entry_a_vector_and_a_seq(store: PostgresStore, settings: Settings) -> None:
    (written,) = store.entries.put_many([entry("a", address={"city": "Lund"}, metadata={"walk": 1})], KEY)

    assert rows_of(store, settings, "file_path, lat, lon, location_method") == [
        ("/photos/a.jpg", 55.0, 13.0, "surveyed")
    ]
    found = store.entries.get([written.entry.photo_id])[written.entry.photo_id]
    assert (found.address, found.metadata, found.provenance) == ({"city": "Lund"}, {"walk": 1}, Provenance.SURVEYED)
    changes = store.log.changes_after(START, KEY, DIM)
    assert changes.mark.seq == written.seq
    assert [item.photo_id for item in changes.items] == [written.entry.photo_id]


def test_latitude_zero_is_a_coordinate(store: PostgresStore, settings: Settings) -> None:
    (written,) = store.entries.put_many([entry("a", given=(0.0, 0.0, Provenance.SURVEYED))], KEY)

    assert rows_of(store, settings, "lat, lon") == [(0.0, 0.0)]
    assert store.entries.counts(KEY).with_coordinates == 1
    assert store.log.ids_where(Filter(Near(0.0, 0.0, 10.0))).tolist() == [written.entry.photo_id]


def test_coordinates_beside_a_row_that_has_none_are_counted(store: PostgresStore, settings: Settings) -> None:
    with store.database.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO {settings.photos_table} (file_path) VALUES ('/photos/a.jpg'), ('/b')"))
    store.entries.put_many([entry("a", update_row=False)], KEY)

    assert rows_of(store, settings, "lat") == [(None,), (None,)]
    assert (store.entries.counts(KEY).photos, store.entries.counts(KEY).with_coordinates) == (2, 1)
    store.entries.remove_many([1])
    assert store.entries.counts(KEY).with_coordinates == 0


def test_the_same_path_put_twice_is_one_photo(store: PostgresStore) -> None:
    (first,) = store.entries.put_many([entry("a")], KEY)
    (second,) = store.entries.put_many([entry("a", given=(56.0, 14.0, Provenance.CONFIRMED))], KEY)

    assert second.entry.photo_id == first.entry.photo_id
    assert (second.entry.lat, second.entry.provenance) == (56.0, Provenance.CONFIRMED)
    assert second.seq > first.seq
    assert store.entries.counts(KEY).photos == 1


@dataclass
class Held:
    """A writer that stops between its last row and its commit, until it is told to go on."""

    store: PostgresStore
    arrived: threading.Event
    go_on: threading.Event

    @classmethod
    def on(cls, store: PostgresStore) -> Held:
        held = cls(store, threading.Event(), threading.Event())
        original = store.log.append

        def log_and_wait(
            connection: Connection, photo_ids: Sequence[int], model_key: str | None = None
        ) -> dict[int, int]:
            seqs = original(connection, photo_ids, model_key)
            held.arrived.set()
            held.go_on.wait(10)
            return seqs

        store.log.append = log_and_wait  # type: ignore[method-assign]
        return held


def test_one_new_path_in_two_messages_at_once_makes_one_row(make_store: Callable[..., PostgresStore]) -> None:
    slow, fast = Held.on(make_store()), make_store()
    slow_thread = threading.Thread(target=slow.store.entries.put_many, args=([entry("a")], KEY))
    fast_thread = threading.Thread(target=fast.entries.put_many, args=([entry("a"), entry("b")], KEY))

    slow_thread.start()
    slow.arrived.wait(10)
    fast_thread.start()
    # Without the lock on the path the fast writer would find no row yet, and make a second one now.
    fast_thread.join(0.5)
    slow.go_on.set()
    slow_thread.join()
    fast_thread.join()

    assert fast.entries.counts(KEY).photos == 2


def test_a_slow_writer_loses_no_change(make_store: Callable[..., PostgresStore]) -> None:
    """Two writers, one held open: a reader in between must not pass the seq that is still to come."""
    slow, fast = Held.on(make_store()), make_store()
    fast.entries.put_many([entry("before")], KEY)
    slow_thread = threading.Thread(target=slow.store.entries.put_many, args=([entry("slow")], KEY))
    fast_thread = threading.Thread(target=fast.entries.put_many, args=([entry("fast")], KEY))
    reader = make_store()

    slow_thread.start()
    slow.arrived.wait(10)
    fast_thread.start()
    # Without the lock the fast writer would commit now, with the larger seq, and the reader would move past "slow".
    fast_thread.join(0.5)
    seen = reader.log.changes_after(START, KEY, DIM)
    slow.go_on.set()
    slow_thread.join()
    fast_thread.join()
    later = reader.log.changes_after(seen.mark, KEY, DIM)

    paths = {e.path for e in reader.entries.get([item.photo_id for item in [*seen.items, *later.items]]).values()}
    assert paths == {"/photos/before.jpg", "/photos/slow.jpg", "/photos/fast.jpg"}


def test_a_snapshot_and_its_seq_are_one_moment(make_store: Callable[..., PostgresStore]) -> None:
    store, writer = make_store(), make_store()
    (first,) = store.entries.put_many([entry("a")], KEY)

    with store.log.snapshot(KEY, DIM) as snapshot:
        writer.entries.put_many([entry("b")], KEY)
        ids = [photo_id for chunk in snapshot.chunks() for photo_id in chunk.ids.tolist()]

    assert (snapshot.mark.seq, snapshot.count, ids) == (first.seq, 1, [first.entry.photo_id])


def test_a_removed_photo_is_gone_and_no_rebuild_finds_it_missing(store: PostgresStore, settings: Settings) -> None:
    (written,) = store.entries.put_many([entry("a")], KEY)
    photo_id = written.entry.photo_id

    removed = store.entries.remove_many([photo_id])

    assert removed[photo_id][1] is True
    assert store.entries.get([photo_id]) == {}
    assert [c.vector for c in store.log.changes_after(Mark(written.seq), KEY, DIM).items] == [None]
    assert store.vectors.missing_count("another-model") == 0
    assert len(rows_of(store, settings, "id")) == 1, "the backend's row stays"
    assert store.entries.remove_many([photo_id])[photo_id][1] is False


def test_a_row_removed_before_it_was_added_is_not_missing(store: PostgresStore, settings: Settings) -> None:
    with store.database.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO {settings.photos_table} (file_path, lat, lon) VALUES ('/x.jpg', 1, 2)"))
    assert store.vectors.missing_count(KEY) == 1

    store.entries.remove_many([1])

    assert store.vectors.missing_count(KEY) == 0


def test_a_removed_photo_comes_back_only_by_being_added(store: PostgresStore) -> None:
    (first,) = store.entries.put_many([entry("a")], KEY)
    store.entries.remove_many([first.entry.photo_id])

    (again,) = store.entries.put_many([entry("a")], KEY)

    assert again.entry.photo_id == first.entry.photo_id
    assert store.entries.counts(KEY).removed == 0
    assert store.log.changes_after(Mark(first.seq), KEY, DIM).items[0].vector is not None


def test_vectors_of_another_model_are_not_seen(store: PostgresStore) -> None:
    (written,) = store.entries.put_many([entry("a")], KEY)

    assert store.vectors.known(["sha-a"], "other@1") == {}
    assert store.log.changes_after(START, "other@1", DIM).items[0].vector is None
    with store.log.snapshot("other@1", DIM) as snapshot:
        assert snapshot.count == 0
    assert [m.photo_id for m in store.vectors.missing("other@1", after_id=0, limit=9)] == [written.entry.photo_id]


def test_a_stored_vector_of_another_length_is_refused(store: PostgresStore) -> None:
    store.entries.put_many([entry("a")], KEY)

    with pytest.raises(Permanent) as caught:
        store.log.changes_after(START, KEY, DIM + 1)

    assert caught.value.code is Code.BAD_VECTOR


def test_rows_are_followed_when_the_backend_changes_them(store: PostgresStore, settings: Settings) -> None:
    written = store.entries.put_many([entry("a"), entry("b"), entry("c")], KEY)
    a, b, c = (w.entry.photo_id for w in written)
    seq = written[-1].seq
    with store.database.engine.begin() as connection:
        table = settings.photos_table
        connection.execute(text(f"UPDATE {table} SET lat = 1.5, location_method = 'city_center' WHERE id = {a}"))
        connection.execute(text(f"DELETE FROM {table} WHERE id = {b}"))

    changed = store.entries.follow_rows()

    assert changed == 2
    found = store.entries.get([a, b, c])
    assert (found[a].lat, found[a].provenance) == (1.5, Provenance.FALLBACK)
    assert b not in found
    assert found[c].lat == 55.0
    assert {i.photo_id for i in store.log.changes_after(Mark(seq), KEY, DIM).items} == {a, b}
    assert store.entries.follow_rows() == 0


def test_coordinates_that_the_backend_takes_back_are_evidence_no_more(store: PostgresStore, settings: Settings) -> None:
    (from_row, from_exif) = store.entries.put_many([entry("a"), entry("b", given=None, exif=(5.0, 6.0))], KEY)
    with store.database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {settings.photos_table} SET lat = NULL"))
        connection.execute(text(f"UPDATE {settings.photos_table} SET lat = 'NaN' WHERE id = {from_row.entry.photo_id}"))

    store.entries.follow_rows()

    found = store.entries.get([from_row.entry.photo_id, from_exif.entry.photo_id])
    assert (found[from_row.entry.photo_id].lat, found[from_row.entry.photo_id].provenance) == (None, None)
    assert store.rows.get([from_row.entry.photo_id])[from_row.entry.photo_id].lat is None
    assert store.entries.follow_rows() == 0


def backend_row(store: PostgresStore, settings: Settings, *columns: object) -> None:
    """A row of the backend's own: file_path, lat, lon, location_method, address_data as JSON."""
    values = ":p, :lat, :lon, :m, CAST(:a AS json)"
    with store.database.engine.begin() as connection:
        connection.execute(
            text(f"INSERT INTO {settings.photos_table} (file_path, {ROW}) VALUES ({values})"),
            dict(zip(("p", "lat", "lon", "m", "a"), columns, strict=True)),
        )


def change_rows(store: PostgresStore, settings: Settings, what: str) -> None:
    with store.database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {settings.photos_table} SET {what}"))


ROW = "lat, lon, location_method, address_data"
HOME, AWAY = {"street": "Home"}, {"street": "Away"}


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("gps", Provenance.FALLBACK),
        ("gps", Provenance.DERIVED),
        ("manual", Provenance.DERIVED),
        ("manual", Provenance.EXIF_GPS),
        ("clip", Provenance.FALLBACK),
    ],
)
@pytest.mark.parametrize("update_row", [None, True])
def test_weaker_coordinates_replace_no_stronger_ones_nor_does_their_address(
    store: PostgresStore, settings: Settings, method: str, given: Provenance, update_row: bool | None
) -> None:
    backend_row(store, settings, "/photos/a.jpg", 56.0, 12.0, method, '{"street": "Home"}')

    (written,) = store.entries.put_many([entry("a", given=(1.0, 2.0, given), address=AWAY, update_row=update_row)], KEY)

    assert (written.entry.lat, written.entry.lon) == (56.0, 12.0)
    assert written.entry.provenance is settings.provenance_of(method)
    assert written.entry.address == HOME
    assert rows_of(store, settings, ROW) == [(56.0, 12.0, method, HOME)]
    assert store.entries.follow_rows() == 0


@pytest.mark.parametrize("method", [None, "city_center", "clip", "gps", "manual"])
def test_a_callers_coordinates_are_kept_beside_a_row_that_stays_as_it_is(
    store: PostgresStore, settings: Settings, method: str | None
) -> None:
    where = (None, None) if method is None else (56.0, 12.0)
    backend_row(store, settings, "/photos/a.jpg", *where, method, '{"street": "Home"}')

    (written,) = store.entries.put_many([entry("a", given=(1.0, 2.0, Provenance.CONFIRMED), address=AWAY)], KEY)
    followed = store.entries.follow_rows()
    # As the nightly rebuild embeds a photo again: by its id, without coordinates.
    (again,) = store.entries.put_many([entry("a", photo_id=1, given=None)], "next@1", revive=False, filling=True)

    for found in (written.entry, again.entry):
        assert (found.lat, found.lon, found.provenance) == (1.0, 2.0, Provenance.CONFIRMED)
        assert found.address == AWAY
    assert followed == store.entries.follow_rows() == 0
    assert rows_of(store, settings, ROW) == [(*where, method, HOME)]


def test_coordinates_of_the_same_strength_are_the_newest_callers(store: PostgresStore) -> None:
    def put(lat: float, provenance: Provenance) -> float | None:
        (written,) = store.entries.put_many([entry("a", given=(lat, 2.0, provenance))], KEY)
        return written.entry.lat

    said = [
        put(1.0, Provenance.DERIVED),
        put(2.0, Provenance.DERIVED),
        put(3.0, Provenance.SURVEYED),
        put(4.0, Provenance.EXIF_GPS),
        put(5.0, Provenance.CONFIRMED),
        put(6.0, Provenance.DERIVED),
        put(7.0, Provenance.SURVEYED),
    ]

    assert said == [1.0, 2.0, 3.0, 3.0, 5.0, 5.0, 7.0]


def test_a_row_that_changes_later_is_followed_if_it_is_no_weaker_than_what_a_caller_said(
    store: PostgresStore, settings: Settings
) -> None:
    backend_row(store, settings, "/photos/a.jpg", 56.0, 12.0, "gps", None)
    store.entries.put_many([entry("a", given=(1.0, 2.0, Provenance.SURVEYED), address=AWAY)], KEY)

    def after(what: str) -> tuple[int, float | None, Provenance | None]:
        change_rows(store, settings, what)
        followed, found = store.entries.follow_rows(), store.entries.get([1])[1]
        return followed, found.lat, found.provenance

    assert after("lat = 57") == (0, 1.0, Provenance.SURVEYED)
    assert after("lat = NULL, lon = NULL") == (0, 1.0, Provenance.SURVEYED)
    assert after("lat = 58, lon = 12, location_method = 'city_center'") == (0, 1.0, Provenance.SURVEYED)
    assert after("lat = 59, location_method = 'manual'") == (1, 59.0, Provenance.CONFIRMED)
    assert store.entries.get([1])[1].address is None, "the address was that of the caller's place"
    # From now on it is the row's again, whatever becomes of it.
    assert after("lat = 60, location_method = 'city_center'") == (1, 60.0, Provenance.FALLBACK)
    assert after("lat = NULL") == (1, None, None)


def test_a_row_that_becomes_stronger_than_what_a_caller_said_is_followed(
    store: PostgresStore, settings: Settings
) -> None:
    backend_row(store, settings, "/photos/a.jpg", 56.0, 12.0, "clip", None)
    store.entries.put_many([entry("a", given=(1.0, 2.0, Provenance.DERIVED))], KEY)
    assert store.entries.follow_rows() == 0

    change_rows(store, settings, "location_method = 'gps'")

    assert store.entries.follow_rows() == 1
    assert (store.entries.get([1])[1].lat, store.entries.get([1])[1].provenance) == (56.0, Provenance.EXIF_GPS)


def test_a_row_that_goes_while_its_photo_is_stored_does_no_harm_to_the_others(store: PostgresStore) -> None:
    gone, there = store.entries.put_many([entry("gone", photo_id=12345, given=None), entry("there")], KEY)

    assert (gone.entry.lat, there.entry.lat) == (None, 55.0)
    assert store.entries.follow_rows() == 1
    assert store.entries.get([12345]) == {}


def test_a_backend_that_takes_a_callers_coordinates_over_owns_them(store: PostgresStore, settings: Settings) -> None:
    backend_row(store, settings, "/photos/a.jpg", None, None, None, None)
    store.entries.put_many([entry("a", given=(1.0, 2.0, Provenance.SURVEYED))], KEY)

    change_rows(store, settings, "lat = 1, lon = 2, location_method = 'surveyed'")
    store.entries.follow_rows()
    change_rows(store, settings, "lat = NULL, lon = NULL")
    store.entries.follow_rows()

    assert store.entries.get([1])[1].lat is None


def test_a_default_in_the_row_does_not_hide_what_the_camera_wrote(store: PostgresStore, settings: Settings) -> None:
    backend_row(store, settings, "/photos/a.jpg", None, None, None, None)
    (first,) = store.entries.put_many([entry("a", given=None, exif=(5.0, 6.0))], KEY)

    change_rows(store, settings, "lat = 56, lon = 12, location_method = 'city_center'")
    followed = store.entries.follow_rows()
    (again,) = store.entries.put_many([entry("a", given=None, exif=(5.0, 6.0))], KEY)
    (derived,) = store.entries.put_many([entry("a", given=(1.0, 2.0, Provenance.DERIVED))], KEY)
    (other_file,) = store.entries.put_many(
        [entry("a", given=(1.0, 2.0, Provenance.DERIVED), content_sha256="sha-other")], KEY
    )

    assert followed == 0
    for written in (first, again, derived):
        assert (written.entry.lat, written.entry.provenance) == (5.0, Provenance.EXIF_GPS)
    assert (other_file.entry.lat, other_file.entry.provenance) == (1.0, Provenance.DERIVED), "that file has gone"


@pytest.mark.parametrize("read", [None, (5.0, 6.0)])
def test_a_message_is_not_weighed_against_what_its_file_happens_to_have_been_read_for(
    store: PostgresStore, settings: Settings, read: tuple[float, float] | None
) -> None:
    """A file is decoded, and so read, only where its vector is not known."""
    backend_row(store, settings, "/photos/a.jpg", None, None, None, None)

    (written,) = store.entries.put_many([entry("a", given=(1.0, 2.0, Provenance.DERIVED), exif=read)], KEY)

    assert (written.entry.lat, written.entry.provenance) == (1.0, Provenance.DERIVED)


@pytest.mark.parametrize("in_table", [True, False])
def test_the_cameras_error_stays_while_weaker_coordinates_are_given(
    store: PostgresStore, settings: Settings, in_table: bool
) -> None:
    if in_table:
        backend_row(store, settings, "/photos/a.jpg", None, None, None, None)
    store.entries.put_many([entry("a", given=None, exif=(5.0, 6.0), exif_error_m=12.0)], KEY)

    (weaker,) = store.entries.put_many([entry("a", given=(1.0, 2.0, Provenance.DERIVED))], KEY)
    (equal,) = store.entries.put_many([entry("a", given=(7.0, 8.0, Provenance.EXIF_GPS))], KEY)

    assert (weaker.entry.lat, weaker.entry.position_error_m) == (5.0, 12.0)
    assert (equal.entry.lat, equal.entry.position_error_m) == (7.0, None)


@pytest.mark.parametrize(("by_setting", "update_row"), [(False, True), (True, None), (True, True)])
def test_a_row_is_written_where_it_is_asked_for(
    make_store: Callable[..., PostgresStore], settings: Settings, by_setting: bool, update_row: bool | None
) -> None:
    store = make_store(write_rows=by_setting)
    backend_row(store, settings, "/photos/a.jpg", 56.0, 12.0, "clip", '{"street": "Home"}')

    (written,) = store.entries.put_many([entry("a", address=AWAY, update_row=update_row)], KEY)

    assert rows_of(store, settings, ROW) == [(55.0, 13.0, "surveyed", AWAY)]
    assert (written.entry.lat, written.entry.address) == (55.0, AWAY)
    # It is the row's now.
    change_rows(store, settings, "lat = NULL")
    store.entries.follow_rows()
    assert store.entries.get([1])[1].lat is None


@pytest.mark.parametrize(("by_setting", "update_row"), [(False, None), (False, False), (True, False)])
def test_a_row_is_not_written_where_it_is_not_asked_for(
    make_store: Callable[..., PostgresStore], settings: Settings, by_setting: bool, update_row: bool | None
) -> None:
    store = make_store(write_rows=by_setting)
    backend_row(store, settings, "/photos/a.jpg", None, None, None, None)

    store.entries.put_many([entry("a", address=AWAY, update_row=update_row)], KEY)

    assert rows_of(store, settings, ROW) == [(None, None, None, None)]


def test_what_the_row_says_already_is_left_in_the_backends_own_words(store: PostgresStore, settings: Settings) -> None:
    backend_row(store, settings, "/photos/a.jpg", 56.0, 12.0, "gps", '{"street": "Home"}')
    given = (56.000001, 12.0, Provenance.EXIF_GPS)

    store.entries.put_many([entry("a", given=given, address=HOME, update_row=True)], KEY)
    same = rows_of(store, settings, ROW)
    store.entries.put_many([entry("a", given=given, address=AWAY, update_row=True)], KEY)

    assert same == [(56.0, 12.0, "gps", HOME)]
    assert rows_of(store, settings, ROW) == [(56.0, 12.0, "gps", AWAY)]


def test_a_callers_address_holds_until_the_rows_changes(store: PostgresStore, settings: Settings) -> None:
    backend_row(store, settings, "/photos/a.jpg", 56.0, 12.0, "gps", '{"street": "Home"}')

    (written,) = store.entries.put_many([entry("a", given=None, address=AWAY)], KEY)
    change_rows(store, settings, """address_data = '{"street": "New"}'""")

    assert written.entry.address == AWAY
    assert store.entries.get([1])[1].address == {"street": "New"}
    assert store.entries.get([1])[1].lat == 56.0


def test_an_address_goes_with_the_callers_place_that_the_row_takes_back(
    store: PostgresStore, settings: Settings
) -> None:
    backend_row(store, settings, "/photos/a.jpg", 56.0, 12.0, "gps", '{"street": "Home"}')
    store.entries.put_many([entry("a", given=(1.0, 2.0, Provenance.EXIF_GPS), address=AWAY)], KEY)

    change_rows(store, settings, "lat = 57")
    (again,) = store.entries.put_many([entry("a", given=None)], KEY)

    assert (again.entry.lat, again.entry.address) == (57.0, HOME)


def test_a_purge_leaves_nothing_of_what_the_file_said_or_was(store: PostgresStore, settings: Settings) -> None:
    store.entries.put_many([entry("a", given=None, exif=(56.0, 12.0), file=FileFacts(9, 9))], KEY)
    (known,) = store.files.after(-1, 9)
    store.files.note([known._replace(state=FileState.CHANGED)])
    columns = f"SELECT lat, file_point, file_size, file_mtime_ns, file_state FROM {settings.db_schema}.entries"
    with store.database.engine.connect() as connection:
        before = connection.execute(text(columns)).one()

    store.entries.purge_many([1])

    with store.database.engine.connect() as connection:
        kept = connection.execute(text(columns)).one()
    assert tuple(before) == (56.0, "56 12 exif_gps", 9, 9, "changed")
    assert tuple(kept) == (None, "", None, None, None), "but that the row was made of it"


def test_a_purge_leaves_nothing_of_what_callers_said(store: PostgresStore, settings: Settings) -> None:
    backend_row(store, settings, "/photos/a.jpg", 56.0, 12.0, "gps", '{"street": "Home"}')
    store.entries.put_many([entry("a", address=AWAY)], KEY)

    store.entries.purge_many([1])

    with store.database.engine.connect() as connection:
        kept = connection.execute(
            text(f"SELECT lat, row_point, own_address, row_address FROM {settings.db_schema}.entries")
        ).one()
    assert tuple(kept) == (None, None, None, None)


def test_what_would_change_is_what_changes(store: PostgresStore, settings: Settings) -> None:
    rows = {"weaker": "gps", "stronger": "city_center", "same": "surveyed", "address": "surveyed", "empty": None}
    for name, method in rows.items():
        where = (55.0, 13.0) if method else (None, None)
        backend_row(store, settings, f"/photos/{name}.jpg", *where, method, '{"street": "Home"}')
    given = {"weaker": Provenance.DERIVED}
    addresses = {"weaker": AWAY, "address": AWAY, "same": HOME}
    new = [
        entry(
            name,
            given=(55.0, 13.0, given.get(name, Provenance.SURVEYED)),
            address=addresses.get(name),
            update_row=True,
        )
        for name in (*rows, "not there")
    ]
    before = rows_of(store, settings, f"file_path, {ROW}")

    told = store.rows.changes(new)
    untouched = rows_of(store, settings, f"file_path, {ROW}")
    store.entries.put_many(new, KEY)
    after = rows_of(store, settings, f"file_path, {ROW}")

    assert untouched == before
    changed = [(a, b) for a, b in zip(before, after, strict=False) if a != b]
    assert {row[0] for row, _ in changed} == {f"/photos/{name}.jpg" for name in ("stronger", "address", "empty")}
    assert [((c.path, *c.old.values()), (c.path, *c.new.values())) for c in told] == changed


def test_a_strong_and_a_weak_word_at_once_leave_the_strong_one(make_store: Callable[..., PostgresStore]) -> None:
    """Neither has seen the other's: the photo has no entry yet, as when a caller adds it during a backfill."""
    slow, fast = Held.on(make_store()), make_store()
    backend_row(fast, fast.settings, "/photos/a.jpg", 3.0, 4.0, "city_center", None)
    strong = entry("a", photo_id=1, given=(1.0, 2.0, Provenance.CONFIRMED))
    # Its vector is known: keeping one would have it wait for the other's.
    weak = entry("a", photo_id=1, given=None, vector=None)
    slow_thread = threading.Thread(target=slow.store.entries.put_many, args=([strong], KEY))
    fast_thread = threading.Thread(target=fast.entries.put_many, args=([weak], KEY))

    slow_thread.start()
    slow.arrived.wait(10)
    fast_thread.start()
    # Without the lock on the photo it would find no entry now, and write its own over the other's later.
    fast_thread.join(0.5)
    slow.go_on.set()
    slow_thread.join()
    fast_thread.join()

    assert fast.entries.get([1])[1].provenance is Provenance.CONFIRMED


def test_a_row_that_is_being_written_takes_no_weaker_coordinates_afterwards(
    make_store: Callable[..., PostgresStore],
) -> None:
    slow, fast = Held.on(make_store()), make_store()
    backend_row(fast, fast.settings, "/photos/a.jpg", None, None, None, None)
    strong = entry("a", photo_id=1, given=(1.0, 2.0, Provenance.CONFIRMED), update_row=True)
    weak = entry("a", photo_id=1, given=(3.0, 4.0, Provenance.DERIVED), update_row=True)
    slow_thread = threading.Thread(target=slow.store.entries.put_many, args=([strong], KEY))
    fast_thread = threading.Thread(target=fast.entries.put_many, args=([weak], KEY))

    slow_thread.start()
    slow.arrived.wait(10)
    fast_thread.start()
    fast_thread.join(0.5)
    slow.go_on.set()
    slow_thread.join()
    fast_thread.join()

    assert rows_of(fast, fast.settings, "lat, location_method") == [(1.0, "confirmed")]


def test_a_known_path_keeps_its_rows_coordinates_over_those_of_the_exif_tags(
    store: PostgresStore, settings: Settings
) -> None:
    store.entries.put_many([entry("a", given=(56.0, 12.0, Provenance.CONFIRMED))], KEY)

    (again,) = store.entries.put_many([entry("a", given=None, exif=(10.0, 20.0))], KEY)

    assert (again.entry.lat, again.entry.lon, again.entry.provenance) == (56.0, 12.0, Provenance.CONFIRMED)
    assert rows_of(store, settings, "lat, lon, location_method") == [(56.0, 12.0, "confirmed")]


def error_of(store: PostgresStore, photo_id: int) -> float | None:
    return store.entries.get([photo_id])[photo_id].position_error_m


def test_the_error_that_a_camera_states_stays_with_its_point_alone(store: PostgresStore, settings: Settings) -> None:
    def of_file(name: str, given: object) -> NewEntry:
        return entry(name, given=given, exif=(5.0, 6.0), exif_error_m=65_000.0)

    items = [
        of_file("new", None),
        of_file("by the backend", (5.00001, 6.0, Provenance.EXIF_GPS)),
        of_file("elsewhere", (5.2, 6.0, Provenance.EXIF_GPS)),
        of_file("confirmed", (5.0, 6.0, Provenance.CONFIRMED)),
    ]
    written = [w.entry for w in store.entries.put_many(items, KEY)]
    assert [e.position_error_m for e in written] == [65_000.0, 65_000.0, None, None]

    new, moved = written[0].photo_id, written[1].photo_id
    table = settings.photos_table
    with store.database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {table} SET location_method = 'exif' WHERE id = {new}"))
        connection.execute(text(f"UPDATE {table} SET lat = 7 WHERE id = {moved}"))
    store.entries.follow_rows()
    assert (error_of(store, new), error_of(store, moved)) == (65_000.0, None)

    with store.database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {table} SET location_method = 'manual' WHERE id = {new}"))
    store.entries.follow_rows()
    assert error_of(store, new) is None, "somebody has confirmed it"


def test_an_error_goes_with_the_point_that_is_withdrawn_or_purged(store: PostgresStore, settings: Settings) -> None:
    items = [entry(name, given=None, exif=(5.0, 6.0), exif_error_m=9.0) for name in ("withdrawn", "purged")]
    withdrawn, purged = (w.entry.photo_id for w in store.entries.put_many(items, KEY))

    store.entries.purge_many([purged])
    with store.database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {settings.photos_table} SET lat = NULL WHERE id = {withdrawn}"))
    store.entries.follow_rows()

    with store.database.engine.connect() as connection:
        left = connection.execute(text(f"SELECT lat, position_error_m FROM {settings.db_schema}.entries")).all()
    assert [tuple(row) for row in left] == [(None, None)] * 2


def test_the_spellings_of_one_path_are_one_photo(store: PostgresStore, settings: Settings) -> None:
    with store.database.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO {settings.photos_table} (file_path) VALUES ('a.jpg')"))

    (written,) = store.entries.put_many([entry("a", spellings=("/photos/a.jpg", "a.jpg", "/photos/a.jpg"))], KEY)

    assert (written.entry.photo_id, written.entry.path) == (1, "a.jpg")
    assert store.vectors.missing_count(KEY) == 0


def test_a_photo_with_id_zero_is_a_photo(store: PostgresStore, settings: Settings) -> None:
    with store.database.engine.begin() as connection:
        connection.execute(
            text(f"INSERT INTO {settings.photos_table} (id, file_path, lat, lon) VALUES (0, '/x', 1, 2)")
        )

    assert [m.photo_id for m in store.vectors.missing(KEY, after_id=-1, limit=9)] == [0]


def test_a_removed_photo_stays_removed_unless_its_return_is_asked_for(store: PostgresStore) -> None:
    (first,) = store.entries.put_many([entry("a")], KEY)
    store.entries.remove_many([first.entry.photo_id])

    store.entries.put_many([entry("a")], KEY, revive=False)

    assert store.entries.get([first.entry.photo_id]) == {}
    assert store.log.changes_after(Mark(first.seq), KEY, DIM).items[0].vector is None


def test_methods_may_be_an_enum_of_the_backends(settings: Settings, make_store: Callable[..., PostgresStore]) -> None:
    first = make_store()
    with on_the_database(
        first,
        "CREATE TYPE how AS ENUM ('exif', 'guess', 'surveyed')",
        """CREATE TABLE enum_photos (id serial PRIMARY KEY, file_path text, lat float, lon float,
            address_data json, location_method how, created_at timestamp)""",
        "INSERT INTO enum_photos (file_path, lat, lon, location_method) VALUES ('/x', 1, 2, 'exif')",
        undo=("DROP TABLE enum_photos", "DROP TYPE how"),
    ):
        store = make_store(photos_table="enum_photos")
        (written,) = store.entries.put_many([entry("x", photo_id=1, given=None)], KEY)

        assert written.entry.provenance is Provenance.EXIF_GPS
        assert store.entries.follow_rows() == 0


@pytest.mark.parametrize(
    ("sql", "kind", "code"),
    [
        ("SELECT 1/0", Permanent, Code.ROW_REJECTED),
        ("DO $$ BEGIN RAISE EXCEPTION 'no'; END $$", Permanent, Code.ROW_REJECTED),
        ("SET TRANSACTION READ ONLY; CREATE TABLE nope (a int)", Transient, Code.UNAVAILABLE),
        ("SELECT pg_terminate_backend(pg_backend_pid())", Transient, Code.UNAVAILABLE),
        ("SELECT * FROM no_such_table", Unprepared, Code.NOT_READY),
        ("SET ROLE nobody_at_all", Permanent, Code.ROW_REJECTED),
        ("SET LOCAL ROLE pg_monitor; CREATE SCHEMA nope", Unprepared, Code.NOT_READY),
    ],
)
def test_what_postgres_says_decides_whether_to_try_again(
    store: PostgresStore, sql: str, kind: type[Permanent | Transient], code: Code
) -> None:
    with pytest.raises(kind) as caught, store.database.begin() as connection:
        connection.execute(text(sql))

    assert caught.value.code is code


def test_another_models_newest_generation_stays_until_this_one_has_enough_of_its_own(store: PostgresStore) -> None:
    def publish(key: str) -> list[int]:
        return sorted(store.generations.publish(store.generations.reserve(), key, START, BUILT, keep=2))

    publish("old@1")
    before = publish("old@1")
    first, second = publish(KEY), publish(KEY)

    assert first == [before[-1], before[-1] + 1]
    assert second == [before[-1] + 1, before[-1] + 2]
    assert store.log.changes_after(START, "old@1", DIM).generations == []


def test_another_models_generation_of_an_earlier_release_stays_for_the_way_back(store: PostgresStore) -> None:
    old, own = store.generations.reserve(), store.generations.reserve()
    store.generations.publish(old, "old@1", START, BUILT, keep=2)
    store.generations.publish(own, KEY, START, BUILT, keep=2)
    as_of_an_earlier_release(store)

    new = store.generations.reserve()
    kept = store.generations.publish(new, KEY, START, BUILT, keep=2)

    assert sorted(kept) == [old, new]
    assert [g.manifest_sha256 for g in store.generations.kept()] == [BUILT.manifest_sha256, None]


def test_a_photo_purged_after_the_snapshot_waits_for_the_next_generation(store: PostgresStore) -> None:
    before, after = (store.entries.put_many([entry(name)], KEY)[0] for name in ("before", "after"))
    ((seq, *_),) = store.entries.purge_many([before.entry.photo_id]).values()
    store.entries.purge_many([after.entry.photo_id])

    store.generations.publish(store.generations.reserve(), KEY, Mark(seq), BUILT, keep=2)

    assert store.entries.counts(KEY).purges_pending == 1


def test_a_model_does_not_serve_while_a_photo_lacks_its_vector(store: PostgresStore) -> None:
    store.models.serving(KEY)
    (written,) = store.entries.put_many([entry("a")], KEY)

    assert store.models.switch("next@1") is False
    assert store.models.serving(KEY) == KEY
    store.entries.put_many([entry("a", photo_id=written.entry.photo_id)], "next@1", filling=True)
    assert store.models.switch("next@1") is True
    assert store.models.serving(KEY) == "next@1"


def test_who_looks_which_model_serves_writes_nothing_once_it_is_noted(store: PostgresStore) -> None:
    def noted() -> datetime | None:
        with store.database.begin() as connection:
            return connection.scalar(select(serving.c.since))

    store.models.serving(KEY)
    before = noted()
    store.models.serving(KEY)

    assert noted() == before


def test_photos_that_lack_a_vector_are_shared_out_without_those_refused(store: PostgresStore) -> None:
    ids = [store.entries.put_many([entry(f"p{i}")], KEY)[0].entry.photo_id for i in range(6)]
    store.attempts.refuse([Refusal(ids[0], (), Code.NOT_FOUND, "gone")], "next@1")

    shares = [
        [photo.photo_id for photo in store.vectors.missing("next@1", after_id=-1, limit=10, share=(slot, 3))]
        for slot in range(3)
    ]

    assert sorted(photo_id for share in shares for photo_id in share) == ids[1:]
    assert all(photo_id % 3 == slot for slot, share in enumerate(shares) for photo_id in share)


def test_deliveries_of_a_message_are_counted(store: PostgresStore) -> None:
    assert [store.attempts.count_delivery("task") for _ in range(3)] == [1, 2, 3]
    assert store.attempts.count_delivery("another") == 1


def test_a_row_whose_file_moved_is_missing_again(store: PostgresStore, settings: Settings) -> None:
    store.entries.put_many([entry("a")], KEY)
    assert store.vectors.missing_count(KEY) == 0

    with store.database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {settings.photos_table} SET file_path = '/elsewhere.jpg'"))

    assert [m.path for m in store.vectors.missing(KEY, after_id=0, limit=9)] == ["/elsewhere.jpg"]


@pytest.mark.parametrize(
    ("method", "provenance"),
    [
        ("exif", Provenance.EXIF_GPS),
        ("surveyed", Provenance.SURVEYED),
        ("city_center", Provenance.FALLBACK),
        ("clip_similarity", Provenance.DERIVED),
        (None, Provenance.DERIVED),
    ],
)
def test_an_existing_rows_method_says_its_provenance(
    store: PostgresStore, settings: Settings, method: str | None, provenance: Provenance
) -> None:
    with store.database.engine.begin() as connection:
        connection.execute(
            text(f"INSERT INTO {settings.photos_table} (file_path, lat, lon, location_method) VALUES ('/x', 1, 2, :m)"),
            {"m": method},
        )

    (written,) = store.entries.put_many([entry("x", photo_id=1, given=None)], KEY)

    assert store.rows.get([1])[1].provenance is provenance
    assert (written.entry.lat, written.entry.provenance) == (1.0, provenance)


def test_an_impossible_point_in_the_backends_table_is_no_coordinate(store: PostgresStore, settings: Settings) -> None:
    with store.database.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO {settings.photos_table} (file_path, lat, lon) VALUES ('/x', 91, 2)"))

    (written,) = store.entries.put_many([entry("x", photo_id=1, given=None)], KEY)

    assert written.entry.lat is None
    assert store.entries.follow_rows() == 0


def test_filters_are_exact_at_the_date_line_and_by_metadata(store: PostgresStore) -> None:
    def at(name: str, lat: float, lon: float, **metadata: object) -> NewEntry:
        return entry(name, given=(lat, lon, Provenance.SURVEYED), metadata=metadata)

    written = store.entries.put_many(
        [at("w", 0, 179.9995, k=1), at("e", 0, -179.9995, k=2), at("f", 0, 179.9, k=1)], KEY
    )
    west, east, _ = (w.entry.photo_id for w in written)

    assert sorted(store.log.ids_where(Filter(Near(0, 180, 100))).tolist()) == sorted([west, east])
    assert store.log.ids_where(Filter(Near(0, 180, 100), {"k": 1})).tolist() == [west]
    assert store.log.ids_where(Filter(where={"k": 3})).tolist() == []


def test_a_backends_own_table_with_text_addresses_and_numeric_coordinates_works(
    settings: Settings, make_store: Callable[..., PostgresStore]
) -> None:
    first = make_store()
    with on_the_database(
        first,
        """CREATE TABLE backend_photos (id serial PRIMARY KEY, file_path varchar(500) NOT NULL,
            lat numeric(9, 6), lon numeric(9, 6), address_data text, location_method varchar(50),
            created_at timestamp, owner text DEFAULT 'somebody')""",
        undo=("DROP TABLE backend_photos",),
    ):
        store = make_store(photos_table="backend_photos")
        (written,) = store.entries.put_many([entry("a", address={"город": "Лунд"})], KEY)

        assert store.rows.get([written.entry.photo_id])[written.entry.photo_id].lat == 55.0
        assert rows_of(
            store, settings.model_copy(update={"photos_table": "backend_photos"}), "address_data, owner"
        ) == [('{"город": "Лунд"}', "somebody")]
        assert store.entries.follow_rows() == 0


def test_a_row_that_the_backends_table_rejects_is_refused_with_what_to_do(
    settings: Settings, make_store: Callable[..., PostgresStore]
) -> None:
    store = make_store()
    with store.database.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {settings.photos_table} ADD COLUMN owner text NOT NULL"))

    with pytest.raises(Permanent) as caught:
        store.entries.put_many([entry("a")], KEY)

    assert caught.value.code is Code.ROW_REJECTED
    assert "photo_id" in caught.value.message
    assert store.entries.counts(KEY).seq == 0


def test_columns_of_other_names_are_read_and_written_by_the_mapping(
    settings: Settings, make_store: Callable[..., PostgresStore]
) -> None:
    first = make_store()
    columns = {"id": "nr", "file_path": "file", "lat": "latitude", "lon": "longitude", "location_method": "how"}
    with on_the_database(
        first,
        """CREATE TABLE pictures (nr serial PRIMARY KEY, file varchar(500) NOT NULL, latitude float,
            longitude float, lat text DEFAULT 'no latitude', address_data json, how text, created_at timestamp)""",
        "INSERT INTO pictures (file, latitude, longitude, how) VALUES ('/old.jpg', 56.5, 14.5, 'manual')",
        undo=("DROP TABLE pictures",),
    ):
        store = make_store(photos_table="pictures", photos_columns=columns)
        old = store.rows.get([1])[1]
        (missing,) = store.vectors.missing(KEY, after_id=-1, limit=10)
        (again,) = store.entries.put_many([entry("a", photo_id=1, given=None, path="/old.jpg")], KEY)
        (new,) = store.entries.put_many([entry("b")], KEY)

        assert (old.path, old.lat, old.lon, old.provenance) == ("/old.jpg", 56.5, 14.5, Provenance.CONFIRMED)
        assert missing.photo_id == again.entry.photo_id == 1
        assert (again.entry.lat, again.entry.provenance) == (56.5, Provenance.CONFIRMED)
        assert rows_of(
            store, settings.model_copy(update={"photos_table": "pictures"}), "file, latitude, lat", order="nr"
        ) == [("/old.jpg", 56.5, "no latitude"), ("/photos/b.jpg", new.entry.lat, "no latitude")]
        assert [row.path for row in store.rows.after(0, 10)] == ["/old.jpg", "/photos/b.jpg"]
        assert (
            store.entries.counts(KEY).photos,
            store.entries.counts(KEY).with_coordinates,
            store.entries.follow_rows(),
        ) == (2, 2, 0)


def test_a_table_that_is_made_has_the_columns_of_the_mapping(settings: Settings) -> None:
    columns = {"lat": "latitude", "lon": "longitude"}
    store = PostgresStore(settings.model_copy(update={"photos_columns": columns}))
    try:
        migrate(store.database.engine, schema=settings.db_schema, photos_table=settings.photos_table, columns=columns)
        (written,) = store.entries.put_many([entry("a")], KEY)

        assert rows_of(store, settings, "latitude, longitude") == [(written.entry.lat, written.entry.lon)]
    finally:
        store.close()


def test_a_view_is_read_and_one_that_takes_no_rows_refuses_new_photos_at_once(
    make_store: Callable[..., PostgresStore],
) -> None:
    first = make_store()
    with on_the_database(
        first,
        "CREATE TABLE shots (nr serial PRIMARY KEY, file text NOT NULL, at_lat float, at_lon float)",
        "INSERT INTO shots (file, at_lat, at_lon) VALUES ('/a.jpg', 55, 13)",
        """CREATE VIEW shots_for_sightline AS SELECT DISTINCT nr AS id, file AS file_path, at_lat AS lat,
            at_lon AS lon, NULL::jsonb AS address_data, 'manual' AS location_method, now() AS created_at
            FROM shots""",
        undo=("DROP VIEW shots_for_sightline", "DROP TABLE shots"),
    ):
        store = make_store(photos_table="shots_for_sightline")
        (known,) = store.entries.put_many([entry("a", photo_id=1, given=None, path="/a.jpg")], KEY)

        assert (known.entry.lat, known.entry.provenance) == (55.0, Provenance.CONFIRMED)
        with pytest.raises(Permanent, match="send its photo_id") as caught:
            store.entries.put_many([entry("b")], KEY)
        assert caught.value.code is Code.ROW_REJECTED


def test_a_table_without_the_needed_columns_is_named(make_store: Callable[..., PostgresStore]) -> None:
    first = make_store()
    with on_the_database(
        first,
        "CREATE TABLE half_photos (id serial PRIMARY KEY, file_path text)",
        undo=("DROP TABLE half_photos",),
    ):
        with pytest.raises(Unprepared) as caught:
            make_store(photos_table="half_photos").rows.get([1])

        assert caught.value.code is Code.NOT_READY
        assert "lat, lon" in caught.value.message


def test_a_database_that_is_not_migrated_says_so(settings: Settings) -> None:
    store = PostgresStore(settings)
    try:
        with pytest.raises(Unprepared, match="sightline migrate"):
            store.entries.counts(KEY)
    finally:
        store.close()


def test_a_database_that_is_away_is_transient(settings: Settings) -> None:
    store = PostgresStore(settings.model_copy(update={"database_url": "postgresql+psycopg2://postgres@127.0.0.1:1/x"}))
    try:
        with pytest.raises(Transient):
            store.runs.last()
    finally:
        store.close()


def test_migrating_twice_and_at_once_is_one_migration(settings: Settings) -> None:
    stores = [PostgresStore(settings) for _ in range(3)]
    start = threading.Barrier(3)
    reached: list[str] = []

    def run(store: PostgresStore) -> None:
        start.wait()
        reached.append(migrate(store.database.engine, schema=settings.db_schema, photos_table=settings.photos_table))

    threads = [threading.Thread(target=run, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert reached == ["0024"] * 3
    for store in stores:
        store.close()


def test_digests_that_may_stand_for_one_camera_or_for_many_are_made_again(
    store: PostgresStore, settings: Settings
) -> None:
    timed, untimed = entry("a", shot=Shot(b"of both", 60.0), picture_hash=b"1"), entry("b", picture_hash=b"2")
    store.entries.put_many([timed, untimed], KEY)
    with store.database.engine.begin() as connection:
        connection.execute(text(f"DROP INDEX {settings.db_schema}.pictures_shots"))
        connection.execute(text(f"DROP TABLE {settings.db_schema}.lacking, {settings.db_schema}.reconciled"))
        connection.execute(text(f"DROP TABLE {settings.db_schema}.audit"))
        connection.execute(text(f"ALTER TABLE {settings.db_schema}.entries DROP COLUMN asked_ms"))
        connection.execute(text(f"ALTER TABLE {settings.db_schema}.generations DROP COLUMN manifest_sha256"))
        connection.execute(text(f"UPDATE {settings.db_schema}.alembic_version SET version_num = '0017'"))

    migrate(store.database.engine, schema=settings.db_schema, photos_table=settings.photos_table)

    contents = {timed.content_sha256, untimed.content_sha256}
    assert store.vectors.without_hash(contents) == {timed.content_sha256}
    plan = "EXPLAIN SELECT 1 FROM {schema}.pictures WHERE camera = 'x' AND taken_s BETWEEN 1 AND 9"
    with store.database.engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        said = connection.scalars(text(plan.format(schema=settings.db_schema))).all()
    assert any("pictures_shots" in line for line in said), said


def test_what_one_camera_took_within_minutes_is_found_the_nearest_in_time_first(
    store: PostgresStore, settings: Settings
) -> None:
    camera, other = b"c" * CAMERA_BYTES, b"o" * CAMERA_BYTES
    shots = {"far": (camera, 400.0), "after": (camera, 130.0), "other": (other, 100.0), "before": (camera, 90.0)}
    new = [entry(name, shot=Shot(*said), picture_hash=name.encode()) for name, said in shots.items()]
    weak = (1.0, 2.0, Provenance.DERIVED)
    for name, given in (("derived", {"given": weak}), ("unplaced", {"given": None}), ("removed", {})):
        new.append(entry(name, shot=Shot(camera, 100.0), picture_hash=name.encode(), **given))
    ids = {written.ref: written.entry.photo_id for written in store.entries.put_many(new, KEY)}
    store.entries.remove_many([ids["removed"]])

    def near(at_s: float = 100.0, limit: int = 9) -> list[int]:
        return store.vectors.taken_near(Shot(camera, at_s), within_s=300.0, limit=limit)

    assert near() == [ids["before"], ids["after"], ids["far"]]
    assert near(limit=1) == [ids["before"]]
    assert near(99.9) == [ids["before"], ids["after"]], "the window has an end"
    store.entries.purge_many([ids["before"]])
    assert near() == [ids["after"], ids["far"]]


def outside_their_rows(store: PostgresStore) -> list[str]:
    """Contents whose vectors Postgres keeps beside the table: such a value has no header of 4 bytes."""
    with store.database.engine.connect() as connection:
        found = connection.scalars(
            text(
                f"""SELECT content_sha256 FROM {store.settings.db_schema}.embeddings
                WHERE pg_column_size(vector) = octet_length(vector) ORDER BY content_sha256"""
            )
        )
        return list(found)


def vectors_of(dimension: int, *names: str) -> dict[str, Vector]:
    rows = unit_rows(np.random.default_rng(dimension).normal(size=(len(names), dimension)))
    return dict(zip(names, rows, strict=True))


#: Of the models that are used: ViT-B/32, ViT-L/14, ViT-H/14, EfficientNet-Lite0. A page has room for one row of the
#: last two.
DIMENSIONS = (512, 768, 1024, 1280)


def test_a_vector_lies_in_its_row_where_two_such_rows_fit_a_page(store: PostgresStore) -> None:
    for dimension in DIMENSIONS:
        stored = vectors_of(dimension, f"{dimension}")
        store.vectors.keep(stored, KEY)
        assert np.array_equal(store.vectors.known(stored, KEY)[f"{dimension}"], stored[f"{dimension}"])

    assert outside_their_rows(store) == ["1024", "1280"]


def test_vectors_stored_by_an_earlier_release_move_into_their_rows(
    store: PostgresStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = f"{settings.db_schema}.embeddings"
    with store.database.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {table} RESET (toast_tuple_target)"))
    before = vectors_of(512, *(f"{number:03}" for number in range(300))) | vectors_of(1024, "long")
    store.vectors.keep(before, KEY)
    assert outside_their_rows(store) == sorted(before)
    with store.database.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {table} SET (toast_tuple_target = 4064)"))
    monkeypatch.setattr(inlining, "PAGES_AT_ONCE", 2)

    def again() -> None:
        migrate(store.database.engine, schema=settings.db_schema, photos_table=settings.photos_table)

    with store.database.engine.begin() as deleting:
        deleting.execute(text(f"DELETE FROM {table} WHERE content_sha256 = '007'"))
        again()  # who is about to delete a row keeps it, and nobody waits
        assert outside_their_rows(store) == ["007", "long"]
        deleting.rollback()
    again()

    assert outside_their_rows(store) == ["long"]
    assert {name: vector.tolist() for name, vector in store.vectors.known(before, KEY).items()} == {
        name: vector.tolist() for name, vector in before.items()
    }


def test_a_snapshot_is_sorted_without_its_vectors(store: PostgresStore) -> None:
    """Vectors that lie in their rows would be sorted with them, on disk: a gigabyte of 512 numbers each is no great
    library."""
    store.entries.put_many([entry(name, vector=vectors_of(512, name)[name]) for name in "abc"], KEY)

    with store.database.begin() as connection:
        query = PostgresSnapshot(connection, KEY, 512)._in_order()
        schema = connection.get_execution_options()["schema_translate_map"]
        sql = query.compile(
            connection,
            schema_translate_map=schema,
            render_schema_translate=True,
            compile_kwargs={"literal_binds": True},
        )
        plan = connection.execute(text(f"EXPLAIN (VERBOSE, FORMAT JSON) {sql}")).scalar_one()

    def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield node
        for child in node.get("Plans", []):
            yield from nodes(child)

    sorted_by_it = [words for node in nodes(plan[0]["Plan"]) if node["Node Type"] == "Sort" for words in node["Output"]]
    assert sorted_by_it
    assert not [words for words in sorted_by_it if "vector" in words or "SubPlan" in words]


def test_one_holder_in_the_cluster_has_the_lock(make_store: Callable[..., PostgresStore]) -> None:
    one, other = make_store(), make_store()

    with (
        one.runs.exclusive("rebuild") as first,
        other.runs.exclusive("rebuild") as second,
        other.runs.exclusive("else") as third,
    ):
        assert (first, second, third) == (True, False, True)
    with other.runs.exclusive("rebuild") as later:
        assert later is True


def test_the_newest_generation_is_the_published_one_and_old_ones_are_dropped(store: PostgresStore) -> None:
    numbers = [store.generations.reserve() for _ in range(4)]
    kept = [store.generations.publish(number, KEY, START, BUILT, keep=2) for number in numbers]

    assert [sorted(k) for k in kept] == [numbers[:1], numbers[:2], numbers[1:3], numbers[2:]]
    assert store.generations.newest() == (Published(numbers[-1], START, BUILT.manifest_sha256), KEY)
    assert store.log.changes_after(START, "other", DIM).generations == []


def test_a_late_publisher_cannot_go_back_behind_a_newer_generation(store: PostgresStore) -> None:
    """The fence: a rebuild that lost its lock finishes after its successor."""
    early, late = store.generations.reserve(), store.generations.reserve()
    store.generations.publish(late, KEY, START, BUILT, keep=2)

    with pytest.raises(Permanent):
        store.generations.publish(early, KEY, START, BUILT, keep=2)

    assert store.generations.newest() == (Published(late, START, BUILT.manifest_sha256), KEY)


def test_the_log_is_forgotten_only_behind_every_kept_generation(store: PostgresStore) -> None:
    seqs = [store.entries.put_many([entry(name)], KEY)[0].seq for name in "abcd"]

    for seq in seqs[:3]:
        store.generations.publish(store.generations.reserve(), KEY, Mark(seq), BUILT, keep=2)

    changes = store.log.changes_after(Mark(seqs[1]), KEY, DIM)
    assert changes.log_start == seqs[1]
    assert len(changes.items) == 2
    with store.database.engine.connect() as connection:
        kept = connection.execution_options(schema_translate_map=None).scalar(
            text(f"SELECT min(seq) FROM {store.settings.db_schema}.changes")
        )
    assert kept == seqs[1]


NIGHT = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)


def claim(store: PostgresStore, slot: datetime, retry_after_s: float = 3600.0) -> bool:
    return store.runs.due("job", slot, max_attempts=2, retry_after_s=retry_after_s)


def test_what_was_due_before_the_installation_is_not_missed(store: PostgresStore) -> None:
    assert claim(store, NIGHT) is False
    assert claim(store, NIGHT + timedelta(days=1)) is True


def test_a_due_slot_is_claimed_once(make_store: Callable[..., PostgresStore]) -> None:
    stores = [make_store() for _ in range(4)]
    claim(stores[0], NIGHT - timedelta(days=1))
    start = threading.Barrier(4)
    claims: list[bool] = []

    def tick(store: PostgresStore) -> None:
        start.wait()
        claims.append(claim(store, NIGHT))

    threads = [threading.Thread(target=tick, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(claims) == [False, False, False, True]


def test_a_claim_that_nobody_finished_is_claimed_again_but_not_for_ever(store: PostgresStore) -> None:
    claim(store, NIGHT - timedelta(days=1))

    assert claim(store, NIGHT, retry_after_s=0.0) is True
    assert claim(store, NIGHT) is False, "it may still run"
    assert claim(store, NIGHT, retry_after_s=0.0) is True
    assert claim(store, NIGHT, retry_after_s=0.0) is False, "two claims are the limit here"


def test_a_finished_slot_is_done(store: PostgresStore) -> None:
    claim(store, NIGHT - timedelta(days=1))
    claim(store, NIGHT)
    store.runs.slot_done("job", NIGHT)

    assert claim(store, NIGHT, retry_after_s=0.0) is False


def test_a_run_that_ended_without_a_word_is_closed_by_the_next(store: PostgresStore) -> None:
    store.runs.start()
    second = store.runs.start()
    store.runs.note_progress(second, "embed", 3, 9)
    running = store.runs.last()
    store.runs.finish(second, summary={"indexed": 9}, error=None)
    done = store.runs.last()

    assert running is not None
    assert (running.run_id, running.state, running.done, running.total) == (second, "running", 3, 9)
    assert done is not None
    assert (done.state, done.summary, done.error) == ("done", {"indexed": 9}, None)
    with store.database.engine.connect() as connection:
        states = connection.scalars(
            text(f"SELECT state FROM {store.settings.db_schema}.rebuilds ORDER BY run_id")
        ).all()
    assert states == ["failed", "done"]


def test_deaths_count_and_tries_of_processes_that_live_do_not(
    store: PostgresStore, make_store: Callable[..., PostgresStore]
) -> None:
    tries = [Try("sha-x", 7, "/x.jpg", "task")]
    first, second = make_store(), make_store()

    assert first.attempts.begin(tries, after=3) == {}
    assert second.attempts.begin(tries, after=3) == {}, "several have it in hand"
    assert store.attempts.begin(tries, after=3) == {}
    is_killed(first)
    is_killed(second)

    assert store.attempts.begin(tries, after=3) == {"sha-x": Deaths(2)}
    assert make_store().attempts.begin([Try("sha-y")], after=3) == {}

    store.attempts.end(["sha-x"])
    assert store.attempts.begin(tries, after=3) == {"sha-x": Deaths(2)}, "that it was given up clears it of nothing"
    store.attempts.end(["sha-x"], cleared=True)
    assert store.attempts.begin(tries, after=3) == {}


def test_one_that_waits_to_be_tried_alone_is_not_counted(
    store: PostgresStore, make_store: Callable[..., PostgresStore]
) -> None:
    tries = [Try("sha-x")]
    for alone in (False, False, True):
        process = make_store()
        process.attempts.begin(tries, after=3)
        if alone:
            process.attempts.alone("sha-x")
        is_killed(process)

    assert store.attempts.begin(tries, after=3) == {"sha-x": Deaths(2)}


def test_what_is_quarantined_is_listed_tried_once_more_and_forgotten(
    store: PostgresStore, make_store: Callable[..., PostgresStore], settings: Settings
) -> None:
    with store.database.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO {settings.photos_table} (file_path, lat, lon) VALUES ('/x.jpg', 1, 2)"))
    tries = [Try("sha-x", 1, "/x.jpg")]

    def dies(how: str | None) -> None:
        process = make_store()
        process.attempts.begin(tries, after=3)
        process.attempts.alone("sha-x")
        is_killed(process)
        if how is not None:
            store.attempts.note_end(how, "", pid=os.getpid())

    dies(None)
    dies(None)
    assert store.attempts.quarantined(3) == []
    dies("SIGSEGV")
    store.attempts.refuse([Refusal(1, (), Code.QUARANTINED, "x")], KEY)
    assert [(q.content_sha256, q.times, q.signal, q.photo_id, q.path) for q in store.attempts.quarantined(3)] == [
        ("sha-x", 3, "SIGSEGV", 1, "/x.jpg")
    ]
    assert store.attempts.quarantined(3, ["sha-y"]) == []

    store.attempts.retry(["sha-x"], 3)
    assert store.attempts.quarantined(3) == []
    assert store.attempts.not_taken() == [], "so that it is sent again"
    assert store.attempts.begin(tries, after=3)["sha-x"].times == 2, "one try is left"
    dies("SIGABRT")
    assert [q.signal for q in store.attempts.quarantined(3, ["sha-"])] == ["SIGABRT"]

    store.attempts.forget(["sha-x"])
    assert make_store().attempts.begin(tries, after=3) == {}


def test_a_death_with_contents_in_hand_is_not_held_against_their_message(
    store: PostgresStore, make_store: Callable[..., PostgresStore]
) -> None:
    for times in (0, 0):
        process = make_store()
        process.attempts.begin([Try("sha-x", task_id="task")], after=3)
        is_killed(process)
        assert store.attempts.count_delivery("task") == times

    assert [store.attempts.count_delivery("task") for _ in range(2)] == [1, 2]


def test_a_content_that_a_thread_is_stuck_at_is_listed_with_where_and_not_held_against_its_message(
    store: PostgresStore, make_store: Callable[..., PostgresStore]
) -> None:
    process = make_store()
    process.attempts.begin([Try("sha-x", path="/photos/x.jpg", task_id="task")], after=1)
    process.attempts.leave((), {"task": "images.py:1 decode"})
    is_killed(process)

    (named,) = store.attempts.quarantined(1)
    assert (named.path, named.signal, named.error) == ("/photos/x.jpg", "stuck", "images.py:1 decode")
    assert store.attempts.count_delivery("task") == 0


def test_a_message_that_was_handed_back_in_order_was_nobodys_death(store: PostgresStore) -> None:
    for _ in range(3):
        store.attempts.leave(["task"], {})
        assert store.attempts.count_delivery("task") == 0

    assert store.attempts.count_delivery("task") == 1


def test_a_role_without_rights_sees_which_processes_live(store: PostgresStore) -> None:
    """By the names of others' connections, which Postgres shows to all: else every try in hand would be a death."""
    with store.database.engine.connect() as connection, connection.begin() as transaction:
        connection.execute(text("CREATE ROLE sees_little NOINHERIT"))
        connection.execute(text("SET LOCAL ROLE sees_little"))
        seen = connection.scalars(text("SELECT application_name FROM pg_stat_activity")).all()
        transaction.rollback()

    assert f"{SESSION} {store.database.process}" in seen


# ------------------------------------------------------------------------------------------------- who has asked


def asked(store: PostgresStore, **named: Any) -> list[Question]:
    return [one.question for one in store.audit.recorded(**named)]


def test_questions_are_listed_by_who_has_asked_about_what_and_when(store: PostgresStore) -> None:
    first = Question(answer="located", producer="web", task_id="t", content_sha256="ab12", photo_id=7, lat=1.5, lon=2.5)
    other = Question(answer="found", verb="search", content_sha256="ab", told=(7, 8))
    for question in (first, other):
        store.audit.record(question, days=1)
    at = datetime.fromisoformat(store.audit.recorded()[1].at)

    assert asked(store) == [other, first], "the newest first"
    assert asked(store, producer="web") == asked(store, content="ab1") == [first]
    assert asked(store, producer="") == asked(store, photo_id=8) == asked(store, limit=1) == [other]
    assert asked(store, photo_id=7) == [other, first], "one is about it, the other was told of it"
    assert asked(store, content="%") == asked(store, since=at + timedelta(days=1)) == []
    assert asked(store, since=at) == [other, first]


def test_a_record_is_kept_for_as_long_as_was_said_then(store: PostgresStore, settings: Settings) -> None:
    for days in (1, 2, 3, 30):
        store.audit.record(Question(answer=f"{days}"), days=days)
    with store.database.begin() as connection:
        connection.execute(text(f"UPDATE {settings.db_schema}.audit SET until = until - interval '10 days'"))

    assert [store.audit.forget(2), store.audit.forget(2), store.audit.forget(2)] == [2, 1, 0]
    assert [question.answer for question in asked(store)] == ["30"]


def test_a_purge_leaves_of_questions_who_has_asked_and_when(store: PostgresStore) -> None:
    """And of a photo that is asked about by its content for as long as another has that content."""
    ids = [written.entry.photo_id for name in "abc" for written in store.entries.put_many([entry(name)], KEY)]
    twin = store.entries.put_many([entry("d", content_sha256="sha-c")], KEY)[0].entry.photo_id
    place: dict[str, Any] = {"lat": 1.5, "lon": 2.5, "radius_m": 30.0}
    by: dict[str, Any] = {"answer": "located", "producer": "web", "task_id": "t"}
    about = [
        Question(photo_id=ids[0], content_sha256="sha-a", told=(ids[1],), **place, **by),
        Question(content_sha256="sha-a", **place, **by),
        Question(content_sha256="sha-b", told=(ids[0], ids[1]), **place, **by),
        Question(content_sha256="sha-c", told=(ids[1],), **place, **by),
    ]
    for question in about:
        store.audit.record(question, days=1)

    store.entries.purge_many([ids[0]])
    left = asked(store)[::-1]
    store.entries.purge_many([ids[2]])
    of_twin = asked(store, content="sha-c")
    store.entries.purge_many([twin])

    assert left[0] == left[1] == Question(**by)
    assert left[2] == Question(content_sha256="sha-b", told=(ids[1],), **by), "what it was told stood on the photo, too"
    assert left[3] == about[3]
    assert of_twin == [about[3]]
    assert asked(store, content="sha-c") == []
