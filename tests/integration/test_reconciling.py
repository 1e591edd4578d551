"""What lacks a vector is sent again, whatever has lost its message, and files are looked at all day."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from producer_client.contract import Code, NewPhoto, Photo, Provenance, Reconcile, ReconcileReply, Stored
from tests.conftest import Scene
from worker.core.types import FileState, Refusal
from worker.library import Library, reconciling
from worker.settings import Settings
from worker.storage.store import PostgresStore

#: Seconds of a look in these tests, and of a photo until it is sent again.
LOOK_S = 0.05


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"reconcile_s": LOOK_S})


class Sent:
    """What goes on the queue, in its order."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.ids: list[int] = []

    def look(self, *, dry_run: bool = False) -> ReconcileReply:
        return self.library.reconciling.run(Reconcile(now=True, dry_run=dry_run), self.ids.extend)

    def twice(self) -> ReconcileReply:
        """What is seen first, and what lacks a vector still when its grace is over."""
        self.look()
        time.sleep(LOOK_S)
        return self.look()


@pytest.fixture
def sent(library: Library) -> Sent:
    return Sent(library)


def insert(store: PostgresStore, settings: Settings, *paths: Path | str, lat: float | None = 1.0) -> list[int]:
    """Rows as the backend writes them."""
    query = text(f"INSERT INTO {settings.photos_table} (file_path, lat, lon) VALUES (:path, :lat, :lat) RETURNING id")
    with store.database.engine.begin() as connection:
        return [connection.scalar(query, {"path": str(path), "lat": lat}) or 0 for path in paths]


def add(library: Library, *photos: Path | int) -> list[int]:
    new = [
        NewPhoto(str(n), Photo(photo_id=one))
        if isinstance(one, int)
        else NewPhoto(str(n), Photo(path=str(one)), lat=1.0, lon=2.0, provenance=Provenance.SURVEYED)
        for n, one in enumerate(photos)
    ]
    return [outcome.photo_id for outcome in library.photos.add_many(new).outcomes if isinstance(outcome, Stored)]


def own(photo_root: Path, tmp_path: Path, scenes: list[Scene], count: int) -> list[Path]:
    """Files of this test alone."""
    folder = photo_root / tmp_path.name
    folder.mkdir()
    paths = [folder / f"{n}.jpg" for n in range(count)]
    for path, scene in zip(paths, scenes, strict=False):
        path.write_bytes(scene.path.read_bytes())
    return paths


def test_a_photo_whose_message_is_lost_is_sent_again_after_a_grace_and_embedded(
    sent: Sent, store: PostgresStore, settings: Settings, scenes: list[Scene]
) -> None:
    ids = insert(store, settings, *(scene.path for scene in scenes[:3]))

    first = sent.look()
    assert (first.ran, first.seen, first.sent, sent.ids) == (True, 3, [], [])
    time.sleep(LOOK_S)
    second = sent.look()

    assert (second.seen, second.sent, sent.ids) == (0, ids, ids)
    assert sent.library.reconciling.embed(ids) == 3
    third = sent.twice()
    assert (third.seen, third.waiting, third.sent) == (0, 0, [])


def test_none_is_sent_again_within_its_grace(
    make_library: Callable[..., Library], store: PostgresStore, settings: Settings, scenes: list[Scene]
) -> None:
    sent = Sent(make_library(settings=settings.model_copy(update={"reconcile_s": 3600.0}), store=store))
    insert(store, settings, scenes[0].path)

    assert [sent.look().sent for _ in range(3)] == [[], [], []]


def test_one_that_is_not_there_yet_is_sent_again_after_twice_as_long_and_not_before(
    sent: Sent, store: PostgresStore, settings: Settings, scenes: list[Scene]
) -> None:
    (photo_id,) = insert(store, settings, scenes[0].path)
    sent.twice()

    with store.database.engine.begin() as connection:
        schema = settings.db_schema
        pause = text(f"SELECT extract(epoch FROM until - at) FROM {schema}.lacking, {schema}.reconciled")
        left_s = connection.scalar(pause)
        connection.execute(text(f"UPDATE {settings.db_schema}.lacking SET until = now() + interval '1 hour'"))
    waits = sent.look()
    with store.database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {settings.db_schema}.lacking SET until = now()"))
    over = sent.look()

    assert left_s is not None
    assert float(left_s) == pytest.approx(2 * LOOK_S)
    assert (waits.waiting, waits.sent) == (1, [])
    assert (over.sent, sent.ids) == ([photo_id], [photo_id, photo_id]), "an expired claim is taken over"


def test_what_is_refused_for_good_removed_or_nowhere_is_left_in_peace(
    sent: Sent, store: PostgresStore, settings: Settings, scenes: list[Scene], photo_root: Path, tmp_path: Path
) -> None:
    broken = photo_root / f"{tmp_path.name}.jpg"
    broken.write_text("no photo")
    refused, removed = insert(store, settings, broken, scenes[0].path)
    insert(store, settings, scenes[1].path, lat=None)
    add(sent.library, refused, removed)
    sent.library.photos.remove_many([removed])

    assert (sent.look().seen, sent.twice().sent) == (0, [])


def test_the_oldest_go_first_and_no_more_than_may_be_on_their_way(
    sent: Sent, store: PostgresStore, settings: Settings, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = insert(store, settings, *(scene.path for scene in scenes[3:6]))
    sent.look()
    new = insert(store, settings, *(scene.path for scene in scenes[:3]))
    sent.look()
    lacking = f"UPDATE {settings.db_schema}.lacking SET"
    with store.database.engine.begin() as connection:
        connection.execute(text(f"{lacking} until = now(), times = 0"))
        connection.execute(text(f"{lacking} seen_at = now() WHERE photo_id = {old[0]}"))
        connection.execute(text(f"{lacking} until = now() + interval '1 hour', times = 1 WHERE photo_id = {new[0]}"))
    monkeypatch.setattr(reconciling, "MOST", 2)

    assert sent.look().sent == [old[1]]


def test_those_whose_server_is_away_hold_no_other_up(
    sent: Sent, store: PostgresStore, settings: Settings, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciling, "MOST", 2)
    away = insert(store, settings, "http://127.0.0.1:9/1.jpg", "http://127.0.0.1:9/2.jpg")
    sent.twice()
    with store.database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {settings.db_schema}.lacking SET until = now() + interval '1 hour'"))
    (lost,) = insert(store, settings, scenes[0].path)
    assert sent.twice().sent == [], "they are on their way"

    store.attempts.refuse([Refusal(one, (), Code.UNAVAILABLE, "away") for one in away], sent.library.model_key)
    assert sent.look().sent == [lost]


def test_what_was_embedded_or_removed_meanwhile_is_not_touched(
    sent: Sent, store: PostgresStore, settings: Settings, scenes: list[Scene]
) -> None:
    stored, removed, lacks = insert(store, settings, *(scene.path for scene in scenes[:3]))
    sent.twice()
    add(sent.library, stored, removed)
    sent.library.photos.remove_many([removed])

    assert sent.library.reconciling.embed([stored, removed, lacks]) == 1
    assert sent.library.reconciling.embed([stored, removed, lacks]) == 0


def test_a_dry_run_tells_the_same_and_changes_nothing(
    sent: Sent, store: PostgresStore, settings: Settings, scenes: list[Scene], photo_root: Path, tmp_path: Path
) -> None:
    ids = insert(store, settings, *(scene.path for scene in scenes[:3]))
    gone, _ = own(photo_root, tmp_path, scenes[4:], 2)
    (gone_id, _) = add(sent.library, gone, scenes[5].path)
    sent.look()
    time.sleep(LOOK_S)
    gone.unlink()

    def kept() -> list[object]:
        tables = ("lacking", "reconciled", "entries")
        with store.database.engine.connect() as connection:
            return [
                connection.execute(text(f"SELECT * FROM {settings.db_schema}.{t} ORDER BY 1")).all() for t in tables
            ]

    before = kept()
    dry = sent.look(dry_run=True)
    assert (kept(), sent.ids) == (before, [])
    wet = sent.look()

    assert (dry.dry_run, dry.sent, dry.gone) == (True, wet.sent, wet.gone) == (True, ids, [gone_id])


def test_of_two_that_look_at_the_same_time_one_does(
    sent: Sent, make_library: Callable[..., Library], settings: Settings
) -> None:
    slow = make_library(settings=settings.model_copy(update={"reconcile_s": 3600.0}))

    ran = [slow.reconciling.run(Reconcile(), sent.ids.extend).ran for _ in range(3)]

    assert ran == [True, False, False]
    assert sent.look().ran, "whoever asks by hand need not wait"


@pytest.mark.parametrize("handled", ["re-embed", "report"])
def test_files_that_changed_or_vanished_are_marked_and_handled_as_the_setting_says(
    handled: str,
    make_library: Callable[..., Library],
    store: PostgresStore,
    settings: Settings,
    scenes: list[Scene],
    photo_root: Path,
    tmp_path: Path,
) -> None:
    library = make_library(settings=settings.model_copy(update={"changed_files": handled}), store=store)
    paths = own(photo_root, tmp_path, scenes, 3)
    changed, touched, gone = add(library, *paths)
    paths[0].write_bytes(scenes[9].path.read_bytes())
    os.utime(paths[1], (1, 1))
    paths[2].unlink()
    sent = Sent(library)

    looked = sent.look()
    time.sleep(LOOK_S)
    sent.look()
    time.sleep(LOOK_S)
    sent.look()

    assert (looked.files, looked.changed, looked.gone) == (3, [changed], [gone]), (
        "whose content is the same is as it was"
    )
    assert sent.ids == ([changed] if handled == "re-embed" else [])
    assert library.reconciling.embed([changed, touched, gone]) == (1 if handled == "re-embed" else 0)
    states = {file.photo_id: file.state for file in store.files.after(-1, 9)}
    assert states == {
        changed: None if handled == "re-embed" else FileState.CHANGED,
        touched: None,
        gone: FileState.GONE,
    }


def test_all_files_have_their_turn_and_no_look_marks_more_than_so_many(
    sent: Sent, scenes: list[Scene], photo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *paths, _ = own(photo_root, tmp_path, scenes, 6)  # one stays: of a folder that is empty nothing is concluded
    ids = add(sent.library, *paths)
    for path in paths:
        path.unlink()
    monkeypatch.setattr(reconciling, "FILES", 2)

    turns = [sent.look().gone for _ in range(4)]
    monkeypatch.setattr(reconciling, "FILES", 9)
    for path, scene in zip(paths, scenes, strict=False):
        path.write_bytes(scene.path.read_bytes())
    for _ in range(2):
        sent.look()
    for path in paths:
        path.unlink()
    monkeypatch.setattr(reconciling, "MOST", 3)
    capped = [sent.look().gone for _ in range(2)]

    assert turns == [ids[:2], ids[2:4], ids[4:], []]
    assert capped == [ids[:3], ids[3:]]
