"""Requests about one photo that come in another order than they were sent, late or twice: what was sent last holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from sqlalchemy import text

from producer_client import Code, NewPhoto, Photo, Provenance, Refused, Sightline, contract, ids
from producer_client.contract import TaskName
from tests.conftest import Scene, plain_celery
from tests.entries import new_entry
from worker.core.types import NewEntry
from worker.core.vectors import unit_rows
from worker.settings import Settings
from worker.stack import Stack
from worker.storage.store import PostgresStore

KEY = "test-model@1"
PHOTO = new_entry("a", unit_rows(np.random.default_rng(1).normal(size=(1, 8)))[0])


def add(store: PostgresStore, sent_ms: int | None, photo: NewEntry = PHOTO) -> int | None:
    """The photo's id, None where it was not taken."""
    written = store.entries.put_many([photo], KEY, sent_ms=sent_ms)
    return written[0].entry.photo_id if written else None


def test_an_add_that_comes_after_a_removal_that_was_sent_later_changes_nothing(store: PostgresStore) -> None:
    photo_id = add(store, 10) or 0
    store.entries.remove_many([photo_id], sent_ms=20)
    before = store.entries.counts(KEY)

    assert add(store, 10) is None

    assert store.entries.counts(KEY) == before
    assert store.vectors.missing_count(KEY) == 0, "nor does a rebuild bring it back"
    assert add(store, 30) == photo_id, "one that was sent later does"


def test_what_comes_too_late_says_nothing_to_the_row_of_the_backend_either(
    store: PostgresStore, settings: Settings
) -> None:
    store.entries.remove_many([add(store, 10) or 0], sent_ms=20)
    moved = replace(PHOTO, given=(57.0, 15.0, Provenance.CONFIRMED), update_row=True)

    def row() -> tuple[Any, ...]:
        with store.database.begin() as connection:
            found = connection.execute(text(f"SELECT lat, lon, location_method FROM {settings.photos_table}"))
            return tuple(found.one())

    before = row()
    late, after = add(store, 15, moved), row()
    add(store, 30, moved)

    assert late is None
    assert after == before
    assert row() == (57.0, 15.0, "confirmed"), "what was sent later does"


def test_its_neighbours_are_taken(store: PostgresStore) -> None:
    other = new_entry("b", PHOTO.vector)  # type: ignore[arg-type]  # it has one
    store.entries.remove_many([add(store, 10) or 0], sent_ms=20)

    written = store.entries.put_many([PHOTO, other], KEY, sent_ms=10)

    assert [one.ref for one in written] == ["b"]


def test_an_add_that_comes_after_a_purge_keeps_nothing_of_the_photo(store: PostgresStore) -> None:
    photo_id = add(store, 10) or 0
    store.entries.purge_many([photo_id], sent_ms=20)

    assert add(store, 10) is None

    assert store.vectors.known([PHOTO.content_sha256], KEY) == {}


@pytest.mark.parametrize("verb", ["remove_many", "purge_many"])
def test_a_removal_that_comes_again_leaves_a_photo_that_was_added_later(store: PostgresStore, verb: str) -> None:
    remove: Callable[..., dict[int, Any]] = getattr(store.entries, verb)
    photo_id = add(store, 10) or 0
    remove([photo_id], sent_ms=20)
    add(store, 30)

    assert remove([photo_id], sent_ms=20, again=True) == {}

    assert photo_id in store.entries.get([photo_id])
    assert photo_id in remove([photo_id], sent_ms=20), "one that comes first is done, whatever two clocks say"
    assert store.entries.get([photo_id]) == {}


def test_a_removal_that_comes_again_leaves_a_later_one_the_last_word(store: PostgresStore) -> None:
    photo_id = add(store, 10) or 0
    store.entries.remove_many([photo_id], sent_ms=40)
    store.entries.remove_many([photo_id], sent_ms=20, again=True)

    assert add(store, 30) is None


@pytest.mark.parametrize(("removed_ms", "added_ms"), [(20, 20), (20, None), (None, 10)])
def test_where_nobody_says_what_was_sent_later_what_comes_later_holds(
    store: PostgresStore, removed_ms: int | None, added_ms: int | None
) -> None:
    photo_id = add(store, 10) or 0
    store.entries.remove_many([photo_id], sent_ms=removed_ms)

    assert add(store, added_ms) == photo_id


def test_a_photo_that_was_removed_before_it_was_ever_added_is_not_added_by_what_was_sent_before(
    store: PostgresStore,
) -> None:
    (written,) = store.entries.put_many([PHOTO], KEY)
    with store.database.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {store.database.schema}.entries")
    store.entries.remove_many([written.entry.photo_id], sent_ms=20)

    assert add(store, 10) is None


def test_an_id_says_when_it_was_made_and_never_that_it_will_be() -> None:
    before = ids.now_ms()
    made = ids.made_ms(ids.new_id())

    assert made is not None
    assert before <= made <= ids.now_ms()
    assert ids.made_ms("5b3e2f0c-0a6b-4a8e-9d5e-2f1d6c7b8a90") is None, "Celery's own say nothing of that"
    assert ids.made_ms("no id") is None
    with patch.object(ids, "now_ms", lambda: before + 3_600_000):
        fast = ids.new_id()
    assert before <= (ids.made_ms(fast) or 0) <= ids.now_ms()
    assert ids.new_id() < fast, "they sort as they were made"


def test_a_message_that_is_delivered_late_changes_nothing(stack: Stack, client: Sightline, scenes: list[Scene]) -> None:
    def late(task: TaskName, request: contract.Request, task_id: str) -> dict[str, Any]:
        app = plain_celery(stack.settings)
        sent = app.send_task(task, args=[request.to_wire()], queue="interactive", task_id=task_id, retries=1)
        reply: dict[str, Any] = sent.get(timeout=60)["reply"]
        return reply

    photo: dict[str, Any] = {"path": scenes[5].path, "lat": 1.0, "lon": 2.0, "provenance": "surveyed"}
    before_it_all = ids.new_id()
    added = client.add_to_index(**photo)
    client.remove(added.photo_id)
    item = NewPhoto("late", Photo(photo_id=added.photo_id), 1.0, 2.0, Provenance.SURVEYED)
    not_added = late(TaskName.ADD_TO_INDEX, contract.AddToIndex(photos=[item.to_wire()]), before_it_all)
    client.add_to_index(**photo)
    not_removed = late(TaskName.REMOVE, contract.Remove(photo_ids=[added.photo_id]), before_it_all)
    not_purged = late(TaskName.PURGE, contract.Purge(photo_ids=[added.photo_id]), before_it_all)

    outcomes = [
        *contract.AddReply.from_wire(not_added).outcomes,
        *contract.RemoveReply.from_wire(not_removed).outcomes,
        *contract.PurgeReply.from_wire(not_purged).outcomes,
    ]
    assert [one.code for one in outcomes if isinstance(one, Refused)] == [Code.SUPERSEDED] * 3
    hits = client.search(path=scenes[4].path, threshold=-1.0, top_k=1000).hits
    assert added.photo_id in [hit.photo_id for hit in hits]
