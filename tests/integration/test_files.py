"""What becomes of photos whose files are replaced, changed or gone: their positions, and whether they are evidence."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from threading import Barrier, Thread, current_thread
from typing import Any

import pytest
from sqlalchemy import text

from producer_client.contract import (
    Code,
    EmbedItem,
    Hit,
    NewPhoto,
    Photo,
    PositionFrom,
    PositionIssue,
    Provenance,
    Reason,
    Search,
)
from tests.conftest import Scene
from tests.exif import Tag
from tests.integration.test_library import held_back, of_place, stored
from tests.integration.test_positions import TAKEOUT, add, at_place, copied, located
from tests.unit.test_positions import HERE
from worker.core.types import FileFacts, FileState, KnownFile, UnknownFile
from worker.errors import PhotoRefusal, Transient
from worker.library import Library, checking
from worker.library.checking import Checked, Checking
from worker.library.questions import FIRST_LOOK
from worker.progress import rebuild_lines
from worker.settings import Settings
from worker.storage.database import iso
from worker.storage.source import PhotoFiles
from worker.storage.store import PostgresStore

ISSUE = PositionIssue


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root of this test's own, as a share that is mounted there."""
    root = tmp_path / "share"
    root.mkdir()
    return root


@pytest.fixture
def settings(settings: Settings, root: Path, photo_root: Path) -> Settings:
    return settings.model_copy(update={"photo_roots": (root, photo_root)})


@pytest.fixture
def library(make_library: Callable[..., Library], store: PostgresStore) -> Library:
    return make_library(store=store)


@pytest.fixture
def writing_store(make_store: Callable[..., PostgresStore]) -> PostgresStore:
    return make_store(write_rows=True)


@pytest.fixture
def writing(make_library: Callable[..., Library], writing_store: PostgresStore) -> Library:
    """A library that writes what it reads of files into the backend's rows."""
    return make_library(store=writing_store)


@pytest.fixture
def made_of_file(writing: Library, scenes: list[Scene], root: Path) -> Path:
    """A file whose position was written into its row."""
    path = copied(scenes[0], root / "a.jpg", tags_at(55.6761, 12.5683))
    add(writing, path)
    return path


def tags_at(lat: float, lon: float) -> list[Tag]:
    return at_place(Scene(Path(), "", lat, lon))


def replaced(scene: Scene, path: Path, tags: list[Tag] | None = None) -> None:
    """Another photo over it, at another time."""
    before = path.stat().st_mtime_ns
    copied(scene, path, tags)
    os.utime(path, ns=(before + 1_000_000_000, before + 1_000_000_000))


def checked(store: PostgresStore, settings: Settings, **how: Any) -> Checked:
    return Checking(files=store.files, source=PhotoFiles(settings), **how).all(lambda *_: None)


def hits_like(library: Library, path: Path) -> list[Hit]:
    return library.questions.search(Search(photo=Photo(path=str(path)), threshold=-1.0, top_k=50)).hits


def rows_say(store: PostgresStore, settings: Settings) -> list[tuple[Any, ...]]:
    with store.database.engine.connect() as connection:
        found = connection.execute(text(f"SELECT lat, lon, location_method FROM {settings.photos_table} ORDER BY id"))
        return [tuple(row) for row in found]


# -------------------------------------------------------------------------------------------- added again


@pytest.mark.parametrize("again", ["path", "id", "vector known", "rebuild", "removed", "purged"])
def test_five_replaced_files_do_not_locate_a_street_in_another_country(
    again: str, library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene], root: Path
) -> None:
    query, known = held_back(scenes)
    paths = [root / f"{number}.jpg" for number in range(len(known))]
    for path, scene in zip(paths, of_place(scenes, 1), strict=False):
        assert add(library, copied(scene, path, tags_at(55.6761, 12.5683))).lat == pytest.approx(55.6761)

    for path, scene in zip(paths, known, strict=True):
        replaced(scene, path)
    if again == "vector known":
        library.photos.embed_many([EmbedItem(str(path), Photo(path=str(path))) for path in paths])
    if again == "removed":
        library.photos.remove_many([1, 2, 3, 4, 5])
    if again == "purged":
        library.photos.purge_many([1, 2, 3, 4, 5])
    if again == "rebuild":
        assert library.rebuilding.rebuild().embedded == 5
    elif again == "id":
        outcomes = stored(library, [NewPhoto(f"{i}", Photo(photo_id=i)) for i in (1, 2, 3, 4, 5)])
        assert {(o.lat, o.position_issue) for o in outcomes} == {(None, ISSUE.ABSENT)}
    else:
        outcomes = [add(library, path) for path in paths]
        assert {(o.lat, o.position_issue) for o in outcomes} == {(None, ISSUE.ABSENT)}
    store.entries.follow_rows()

    assert located(library, query).reason is Reason.NO_TRUSTED_EVIDENCE
    hits = hits_like(library, query.path)
    assert len(hits) == 5
    assert {(hit.lat, hit.provenance) for hit in hits} == {(None, None)}
    assert [row[2] for row in rows_say(store, settings)] == ["exif_gps"] * 5, "rows are written where it is asked for"


def test_what_the_new_file_says_holds(
    library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene], root: Path
) -> None:
    query, known = held_back(scenes)
    for number, scene in enumerate(known):
        add(library, copied(of_place(scenes, 1)[number], root / f"{number}.jpg", tags_at(55.6761, 12.5683)))
        replaced(scene, root / f"{number}.jpg", at_place(scene, Tag(31, 5, ((7, 1),))))

    outcomes = [add(library, root / f"{number}.jpg") for number in range(len(known))]
    followed = store.entries.follow_rows()

    answer = located(library, query)
    assert answer.located
    assert (answer.point.lat, answer.point.lon) == pytest.approx((query.lat, query.lon), abs=1e-3)
    assert {(o.position_from, o.provenance, o.position_error_m) for o in outcomes} == {
        (PositionFrom.EXIF, Provenance.EXIF_GPS, 7.0)
    }
    assert followed == 0
    # Back to the first one, whose position the rows still have.
    copied(of_place(scenes, 1)[0], root / "0.jpg", tags_at(55.6761, 12.5683))
    assert add(library, root / "0.jpg").lat == pytest.approx(55.6761)


def test_what_a_caller_or_the_row_said_stays_with_the_photo(
    library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene], root: Path
) -> None:
    path, other = root / "given.jpg", root / "row.jpg"
    add(library, copied(scenes[0], path, tags_at(55.6761, 12.5683)), lat=1.0, lon=2.0, provenance=Provenance.SURVEYED)
    copied(scenes[0], other, tags_at(55.6761, 12.5683))
    with store.database.engine.begin() as connection:
        insert = f"INSERT INTO {settings.photos_table} (file_path, lat, lon, location_method) VALUES (:p, 3, 4, 'exif')"
        connection.execute(text(insert), {"p": str(other)})
    add(library, other)

    replaced(scenes[7], path)
    replaced(scenes[8], other)

    assert (add(library, path).lat, add(library, other).lat) == (1.0, 3.0)


def test_a_row_that_the_backend_has_changed_since_is_its_own_word(
    library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene], root: Path
) -> None:
    path = copied(scenes[0], root / "a.jpg", tags_at(55.6761, 12.5683))
    add(library, path)
    with store.database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {settings.photos_table} SET lat = 3, lon = 4"))
    store.entries.follow_rows()

    replaced(scenes[7], path)

    assert (add(library, path).lat, add(library, path).position_from) == (3.0, PositionFrom.ROW)


@pytest.mark.parametrize("meanwhile", ["lat = 3", "lat = NULL"])
def test_what_the_backend_has_put_back_as_the_file_had_it_is_its_own_word_too(
    meanwhile: str, library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene], root: Path
) -> None:
    path = copied(scenes[0], root / "a.jpg", tags_at(55.0, 12.0))
    add(library, path)
    for change in (meanwhile, "lat = 55"):
        with store.database.engine.begin() as connection:
            connection.execute(text(f"UPDATE {settings.photos_table} SET {change}"))
        assert store.entries.follow_rows() == 1

    replaced(scenes[7], path)

    assert (add(library, path).lat, add(library, path).position_from) == (55.0, PositionFrom.ROW)


@pytest.mark.parametrize("tags", [None, tags_at(5.0, 6.0)])
def test_a_row_that_was_made_of_the_file_follows_it_where_rows_are_written(
    tags: list[Tag] | None,
    writing: Library,
    writing_store: PostgresStore,
    settings: Settings,
    scenes: list[Scene],
    made_of_file: Path,
) -> None:
    replaced(scenes[7], made_of_file, tags)
    outcome = add(writing, made_of_file)

    (row,) = rows_say(writing_store, settings)
    assert row == ((None, None, None) if tags is None else (outcome.lat, outcome.lon, "exif_gps"))
    assert outcome.lat == (None if tags is None else pytest.approx(5.0))
    assert writing_store.entries.follow_rows() == 0
    replaced(scenes[8], made_of_file)
    assert add(writing, made_of_file).lat is None
    assert rows_say(writing_store, settings) == [(None, None, None)]


def test_a_row_that_was_made_of_the_file_takes_a_weaker_word_of_the_new_one_and_keeps_it(
    writing: Library,
    store: PostgresStore,
    settings: Settings,
    scenes: list[Scene],
    made_of_file: Path,
) -> None:
    replaced(scenes[7], made_of_file)
    given = add(writing, made_of_file, lat=3.0, lon=4.0, provenance=Provenance.DERIVED)
    replaced(scenes[8], made_of_file)
    kept = add(writing, made_of_file)

    assert [(outcome.lat, outcome.provenance) for outcome in (given, kept)] == 2 * [(3.0, Provenance.DERIVED)]
    assert rows_say(store, settings) == [(3.0, 4.0, "derived")]


def test_what_the_backend_writes_into_a_row_that_was_emptied_is_its_own_word(
    writing: Library,
    store: PostgresStore,
    settings: Settings,
    scenes: list[Scene],
    made_of_file: Path,
) -> None:
    replaced(scenes[7], made_of_file)
    emptied = add(writing, made_of_file).lat
    with store.database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {settings.photos_table} SET lat = 3, lon = 4, location_method = 'exif'"))

    assert (emptied, add(writing, made_of_file).lat) == (None, 3.0)


def test_a_row_that_says_what_the_file_says_keeps_the_backends_name_for_it(
    writing: Library,
    store: PostgresStore,
    settings: Settings,
    scenes: list[Scene],
    root: Path,
) -> None:
    path = copied(scenes[0], root / "a.jpg", tags_at(55.0, 12.0))
    add(writing, path)
    writing.photos.purge_many([1])
    with store.database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {settings.photos_table} SET location_method = 'exif'"))

    assert add(writing, path).lat == 55.0
    assert rows_say(store, settings) == [(55.0, 12.0, "exif")]


def test_a_row_that_the_backend_changes_at_the_same_moment_is_not_corrected(
    store: PostgresStore, settings: Settings, library: Library, scenes: list[Scene], root: Path
) -> None:
    add(library, copied(scenes[0], root / "a.jpg", tags_at(55.0, 12.0)))
    with store.database.engine.begin() as connection:
        before = store.rows.said(connection, [1])[1]
        connection.execute(text(f"UPDATE {settings.photos_table} SET lat = 3"))

        after = store.rows.correct(connection, 1, before, None)

    assert after.position == (3.0, 12.0, Provenance.EXIF_GPS)
    assert rows_say(store, settings) == [(3.0, 12.0, "exif_gps")]


def test_an_address_goes_with_the_picture_that_it_was_said_of(
    library: Library, scenes: list[Scene], root: Path
) -> None:
    path = copied(scenes[0], root / "a.jpg", tags_at(55.6761, 12.5683))
    add(library, path)
    add(library, path, address={"city": "Copenhagen"})

    replaced(scenes[7], path, tags_at(5.0, 6.0))
    add(library, path)

    (hit,) = hits_like(library, scenes[8].path)
    assert hit.address is None


def test_a_sidecar_that_goes_takes_its_position_along(library: Library, scenes: list[Scene], root: Path) -> None:
    path = copied(scenes[0], root / "a.jpg")
    sidecar = root / "a.jpg.json"
    sidecar.write_text(TAKEOUT)
    first = add(library, path)

    sidecar.write_text(TAKEOUT.replace(str(HERE[0]), "1.5"))
    changed = add(library, path)
    sidecar.unlink()
    gone = add(library, path)

    assert first.lat == pytest.approx(HERE[0])
    assert (changed.lat, gone.lat, gone.position_issue) == (1.5, None, ISSUE.ABSENT)


def test_a_row_whose_path_changes_leaves_the_old_files_position(
    library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene], root: Path
) -> None:
    add(library, copied(scenes[0], root / "a.jpg", tags_at(55.6761, 12.5683)))
    moved = copied(scenes[7], root / "b.jpg")
    with store.database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {settings.photos_table} SET file_path = :p"), {"p": str(moved)})

    library.rebuilding.rebuild()

    (hit,) = hits_like(library, scenes[8].path)
    assert (hit.path, hit.lat) == (str(moved), None)


# ------------------------------------------------------------------------------------------- looked at


@pytest.fixture
def street(library: Library, scenes: list[Scene], root: Path) -> tuple[Scene, list[Path]]:
    """A photo, and files of the same place that locate it."""
    query, known = held_back(scenes)
    paths = [copied(scene, root / "walk" / f"{n}.jpg", at_place(scene)) for n, scene in enumerate(known)]
    for path in paths:
        add(library, path)
    # An empty folder says nothing.
    (root / "walk" / "album.txt").touch()
    assert located(library, query).located
    return query, paths


def test_files_that_are_gone_are_no_evidence_until_they_are_back(
    library: Library, store: PostgresStore, settings: Settings, street: tuple[Scene, list[Path]], root: Path
) -> None:
    query, paths = street
    aside = root / "aside"
    aside.mkdir()
    for path in paths:
        shutil.move(path, aside / path.name)

    library.rebuilding.rebuild()
    answer, hits, stats = located(library, query), hits_like(library, query.path), library.statistics.stats(rss_mb=1)
    trusted = library.questions.search(
        Search(photo=Photo(path=str(query.path)), threshold=-1.0, top_k=1, trusted_only=True)
    ).hits
    for path in paths:
        shutil.move(aside / path.name, path)
    back = checked(store, settings)

    assert answer.reason is Reason.NO_TRUSTED_EVIDENCE
    assert {(hit.provenance, hit.position_issue) for hit in hits} == {(Provenance.FALLBACK, ISSUE.FILE_GONE)}
    assert (len(hits), stats.gone, stats.changed, trusted) == (5, 5, 0, [])
    assert (back.gone, back.changed) == (0, 0)
    assert located(library, query).located
    assert library.statistics.stats(rss_mb=1).gone == 0


@pytest.mark.parametrize("generation", [True, False])
def test_a_search_for_trusted_photos_finds_those_beyond_the_changed_and_the_gone(
    generation: bool,
    library: Library,
    store: PostgresStore,
    settings: Settings,
    scenes: list[Scene],
    street: tuple[Scene, list[Path]],
) -> None:
    query, paths = street
    beyond = add(library, of_place(scenes, 1)[0].path, lat=1.0, lon=2.0, provenance=Provenance.SURVEYED)
    if generation:
        library.rebuilding.rebuild()
    for path in paths[:2]:
        path.unlink()
    for path in paths[2:]:
        path.write_bytes(b"another picture")
    checked(store, settings)

    hits = library.questions.search(
        Search(photo=Photo(path=str(query.path)), threshold=-1.0, top_k=1, trusted_only=True)
    ).hits

    assert len(paths) > FIRST_LOOK, "more than are looked at first"
    assert [hit.photo_id for hit in hits] == [beyond.photo_id]


@pytest.mark.parametrize("same_size", [True, False])
def test_changed_files_are_no_evidence_until_they_are_embedded_again(
    same_size: bool,
    library: Library,
    store: PostgresStore,
    settings: Settings,
    street: tuple[Scene, list[Path]],
) -> None:
    query, paths = street
    for path in paths:
        content, facts = path.read_bytes(), path.stat()
        path.write_bytes(content[:-2] + b"xx" if same_size else content + b"x")
        os.utime(path, ns=(facts.st_mtime_ns + 5, facts.st_mtime_ns + 5))

    found = checked(store, settings)
    answer, hits, stats = located(library, query), hits_like(library, query.path), library.statistics.stats(rss_mb=1)
    rebuilt = library.rebuilding.rebuild()

    assert (found.files, found.changed, found.gone, found.unknown) == (5, 5, 0, 0)
    assert answer.reason is Reason.NO_TRUSTED_EVIDENCE
    assert {(hit.provenance, hit.position_issue) for hit in hits} == {(Provenance.FALLBACK, ISSUE.FILE_CHANGED)}
    assert (stats.changed, stats.gone) == (5, 0)
    assert rebuilt.embedded == 5
    assert located(library, query).located
    assert checked(store, settings).changed == 0


def test_a_changed_file_that_is_put_back_is_evidence_again(
    library: Library, store: PostgresStore, settings: Settings, street: tuple[Scene, list[Path]]
) -> None:
    query, paths = street
    contents = [path.read_bytes() for path in paths]
    for path in paths:
        path.write_bytes(b"something else")
    changed = checked(store, settings).changed
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)  # with the time of now

    again = checked(store, settings)

    assert (changed, again.changed) == (5, 0)
    assert located(library, query).located


def test_files_that_are_gone_or_changed_are_not_counted_as_valid(
    library: Library, store: PostgresStore, settings: Settings, street: tuple[Scene, list[Path]]
) -> None:
    _, paths = street
    with store.database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {settings.photos_table} SET lat = 3, lon = 4"))
    all_there = store.entries.counts(library.model_key).valid_files
    paths[0].unlink()
    paths[1].write_bytes(b"another picture")
    checked(store, settings)

    assert (all_there, store.entries.counts(library.model_key).valid_files) == (5, 3)


def test_it_is_told_since_when_a_file_has_changed_or_is_gone(
    library: Library, store: PostgresStore, settings: Settings, street: tuple[Scene, list[Path]]
) -> None:
    _, (gone, changed, back, *_) = street
    content = back.read_bytes()
    gone.unlink()
    changed.write_bytes(b"another picture")
    back.unlink()

    def since() -> dict[str, datetime]:
        checked(store, settings)
        told = {photo.photo_id: (photo, photo.since) for photo in store.attempts.not_taken()}
        with store.database.engine.connect() as connection:
            of = text(f"SELECT photo_id, file_state_at FROM {settings.db_schema}.entries WHERE file_state IS NOT NULL")
            exactly: dict[int, datetime] = {row.photo_id: row.file_state_at for row in connection.execute(of)}
        assert {photo_id: iso(at) for photo_id, at in exactly.items()} == {i: at for i, (_, at) in told.items()}
        return {f"{Path(photo.path).name} {photo.code}": exactly[i] for i, (photo, _) in told.items()}

    first = since()
    again = since()
    changed.unlink()
    back.write_bytes(content)
    later = since()
    back.unlink()
    at_last = since()

    assert first.keys() == {f"{changed.name} file_changed", f"{gone.name} file_gone", f"{back.name} file_gone"}
    assert None not in first.values()
    assert again == first, "the first time that it was seen, not the last"
    assert later.keys() == {f"{changed.name} file_gone", f"{gone.name} file_gone"}
    of_gone, of_changed, of_back = f"{gone.name} file_gone", f"{changed.name} file_gone", f"{back.name} file_gone"
    assert later[of_gone] == first[of_gone]
    assert later[of_changed] > first[f"{changed.name} file_changed"]
    assert at_last[of_back] > first[of_back], "it was back in between"


def test_of_two_who_see_at_the_same_time_that_a_file_is_gone_the_first_has_said_since_when(
    library: Library, store: PostgresStore, settings: Settings, street: tuple[Scene, list[Path]]
) -> None:
    gone = store.files.after(-1, 1)[0]._replace(state=FileState.GONE)

    def noted() -> datetime:
        store.files.note([gone])
        with store.database.engine.connect() as connection:
            of = text(f"SELECT file_state_at FROM {settings.db_schema}.entries WHERE photo_id = :id")
            at: datetime = connection.execute(of, {"id": gone.photo_id}).scalar_one()
        return at

    assert noted() == noted()


def test_a_file_that_was_refused_and_is_back_as_it_was_is_refused_no_longer(
    library: Library, store: PostgresStore, settings: Settings, street: tuple[Scene, list[Path]]
) -> None:
    _, paths = street
    content = paths[0].read_bytes()
    paths[0].write_bytes(content[:300])
    paths[1].write_bytes(paths[1].read_bytes()[:300])
    refused = library.rebuilding.rebuild().refused
    paths[0].write_bytes(content)

    checked(store, settings)

    assert refused == 2
    assert library.statistics.stats(rss_mb=1).refused == 1


def test_a_setting_keeps_them_evidence(
    make_library: Callable[..., Library],
    make_store: Callable[..., PostgresStore],
    settings: Settings,
    street: tuple[Scene, list[Path]],
    root: Path,
) -> None:
    query, paths = street
    for path in paths:
        path.rename(root / path.name)
    counting = settings.model_copy(update={"stale_files_count": True})
    store = make_store(stale_files_count=True)
    library = make_library(settings=counting, store=store)
    library.rebuilding.rebuild()

    assert located(library, query).located
    assert library.statistics.stats(rss_mb=1).gone == 5


@pytest.mark.parametrize("how", ["missing", "empty", "hidden files alone", "below the root", "not a folder to enter"])
def test_of_a_root_that_is_not_mounted_nothing_is_concluded_and_a_warning_says_so(
    how: str,
    library: Library,
    store: PostgresStore,
    settings: Settings,
    street: tuple[Scene, list[Path]],
    root: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    query, _ = street
    if how == "below the root":
        # The share is a folder of the root, as a host's folder that is mounted into a container.
        settings = settings.model_copy(update={"photo_roots": (root.parent,)})
        (root.parent / "other").mkdir()
    root.rename(root.parent / "away")
    if how not in ("missing", "not a folder to enter"):
        root.mkdir()
    if how == "hidden files alone":
        (root / ".keep").touch()
        (root / "lost+found").mkdir()
    if how == "not a folder to enter":
        root.touch()

    with caplog.at_level(logging.WARNING):
        found = checked(store, settings)

    assert (found.gone, found.changed, found.unknown) == (0, 0, 5)
    (warned,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "nothing is concluded" in warned.message
    assert str(root) in vars(warned)["why_one"]
    assert located(library, query).located
    if how != "below the root":
        rebuilt = library.rebuilding.rebuild()
        assert (rebuilt.unknown_files, rebuilt.unknown_why) == (5, vars(warned)["why_one"])
        assert any(str(root) in line for line in rebuild_lines(rebuilt))


def test_a_disk_that_answers_with_an_error_says_nothing_of_its_files(
    library: Library,
    store: PostgresStore,
    settings: Settings,
    street: tuple[Scene, list[Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    query, paths = street
    stat = os.stat

    def stale_handle(path: Any, **how: Any) -> os.stat_result:
        if path in map(str, paths):
            raise OSError(116, "Stale file handle")
        return stat(path, **how)

    monkeypatch.setattr(os, "stat", stale_handle)
    found = checked(store, settings)
    monkeypatch.undo()

    assert (found.gone, found.changed, found.unknown) == (0, 0, 5)
    assert "Stale file handle" in (found.why or "")
    assert located(library, query).located


def test_of_files_outside_of_the_roots_nothing_is_concluded_and_the_others_are_looked_at(
    store: PostgresStore, settings: Settings, street: tuple[Scene, list[Path]], root: Path
) -> None:
    _, paths = street
    inside = root / "walk" / "inside"
    inside.mkdir()
    (inside / "other.jpg").touch()
    with store.database.engine.begin() as connection:
        statement = f"UPDATE {settings.db_schema}.entries SET path = :p WHERE photo_id = 1"
        connection.execute(text(statement), {"p": str(inside / "gone.jpg")})

    found = checked(store, settings.model_copy(update={"photo_roots": (inside,)}))
    paths[1].unlink()
    gone_too = checked(store, settings.model_copy(update={"photo_roots": (inside,)}))

    assert (found.gone, found.changed) == (1, 0)
    assert (gone_too.gone, gone_too.unknown) == (1, 1)
    assert "outside the allowed folders" in (gone_too.why or "")


def test_a_mark_stays_while_the_disk_is_away(
    store: PostgresStore, settings: Settings, street: tuple[Scene, list[Path]], root: Path
) -> None:
    _, paths = street
    paths[0].unlink()
    gone = checked(store, settings).gone
    root.rename(root.parent / "away")

    assert (gone, checked(store, settings).unknown) == (1, 5)
    assert [file.state for file in store.files.after(-1, 10)] == [FileState.GONE, *[None] * 4]


def test_only_files_on_disk_are_looked_at(
    store: PostgresStore, settings: Settings, library: Library, scenes: list[Scene]
) -> None:
    stored(
        library,
        [
            NewPhoto(
                "inline",
                Photo.of_bytes(scenes[0].path.read_bytes()),
                lat=1.0,
                lon=2.0,
                provenance=Provenance.SURVEYED,
            )
        ],
    )
    with store.database.engine.begin() as connection:
        entries = f"{settings.db_schema}.entries"
        for number, url in enumerate(("https://photos.example/a.jpg", "s3://photos/a.jpg", "file:///a.jpg"), 10):
            values = {"i": number, "p": url}
            connection.execute(
                text(
                    f"INSERT INTO {entries} (photo_id, content_sha256, path, from_exif, removed, updated_at) "
                    "VALUES (:i, 'x', :p, false, false, now())"
                ),
                values,
            )

    found = checked(store, settings)

    assert (found.files, found.gone, found.unknown) == (0, 0, 0)


def test_a_file_is_read_only_where_size_and_time_leave_it_open(
    store: PostgresStore,
    settings: Settings,
    street: tuple[Scene, list[Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, paths = street
    read: list[str | None] = []
    noted: list[list[int]] = []
    note = store.files.note

    def note_that(files: Sequence[KnownFile]) -> None:
        noted.append([file.photo_id for file in files])
        note(files)

    monkeypatch.setattr(store.files, "note", note_that)

    class Counting(PhotoFiles):
        def fetch(self, photo: Photo) -> bytes:
            read.append(photo.path)
            return super().fetch(photo)

    def look() -> Checked:
        return Checking(files=store.files, source=Counting(settings)).all(lambda *_: None)

    as_stored = look()
    paths[0].write_bytes(b"another picture")
    os.utime(paths[1], ns=(1, 1))
    one_larger = look()
    again = look()

    assert [checked.changed for checked in (as_stored, one_larger, again)] == [0, 1, 1]
    assert read == [str(paths[1])], "and its new time is remembered"
    assert noted == [[1, 2]], "what is news is written, once"


def test_a_disk_that_cannot_be_read_says_nothing_of_its_files(
    store: PostgresStore, settings: Settings, street: tuple[Scene, list[Path]]
) -> None:
    _, paths = street
    answers: dict[str | None, Exception] = {
        str(paths[0]): Transient(Code.UNAVAILABLE, "Input/output error"),
        str(paths[1]): PhotoRefusal(Code.NOT_FOUND, "Permission denied"),
        str(paths[2]): PhotoRefusal(Code.EMPTY_FILE, "it is empty"),
    }
    for path in paths:
        os.utime(path, ns=(1, 1))

    class Ailing(PhotoFiles):
        def fetch(self, photo: Photo) -> bytes:
            if photo.path in answers:
                raise answers[photo.path]
            return super().fetch(photo)

    found = Checking(files=store.files, source=Ailing(settings)).all(lambda *_: None)

    assert (found.unknown, found.changed, found.open) == (2, 1, 0)
    assert [file.state for file in store.files.after(-1, 10)] == [None, None, FileState.CHANGED, None, None]


def test_photos_that_are_not_in_the_index_are_neither_looked_at_nor_counted(
    store: PostgresStore, settings: Settings, library: Library, street: tuple[Scene, list[Path]]
) -> None:
    _, paths = street
    for path in paths[:2]:
        path.unlink()
    paths[2].write_bytes(b"another picture")
    checked(store, settings)

    library.photos.remove_many([1, 3])
    found, stats = checked(store, settings), library.statistics.stats(rss_mb=1)

    assert (found.files, found.gone, found.changed) == (3, 1, 0)
    assert (stats.gone, stats.changed) == (1, 0)


def test_pictures_of_changed_and_gone_files_are_not_looked_at_again(
    store: PostgresStore, settings: Settings, street: tuple[Scene, list[Path]]
) -> None:
    _, paths = street
    with store.database.engine.begin() as connection:
        connection.execute(text(f"DELETE FROM {settings.db_schema}.pictures"))
    before = store.vectors.missing_hash_count()
    paths[0].write_bytes(b"another picture")
    paths[1].unlink()
    checked(store, settings)

    assert (before, store.vectors.missing_hash_count()) == (5, 3)
    assert store.vectors.missing_hashes(after_id=-1, limit=9) == [3, 4, 5]


def test_a_row_of_the_backends_own_is_its_word_after_a_purge_too(
    library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene], root: Path
) -> None:
    path = copied(scenes[0], root / "row.jpg", tags_at(55.6761, 12.5683))
    with store.database.engine.begin() as connection:
        insert = f"INSERT INTO {settings.photos_table} (file_path, lat, lon, location_method) VALUES (:p, 3, 4, 'exif')"
        connection.execute(text(insert), {"p": str(path)})
    add(library, path)
    library.photos.purge_many([1])

    replaced(scenes[7], path)

    assert add(library, path).lat == 3.0


def test_what_was_embedded_before_anybody_noted_its_file_is_learnt_by_its_content(
    store: PostgresStore, settings: Settings, street: tuple[Scene, list[Path]]
) -> None:
    _, paths = street
    with store.database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {settings.db_schema}.entries SET file_size = NULL, file_mtime_ns = NULL"))
    size = paths[0].stat().st_size
    paths[1].write_bytes(b"another picture")

    too_little = checked(store, settings, read_bytes=size + len(b"another picture"))
    rest = checked(store, settings)

    assert (too_little.changed, too_little.open) == (1, 3), "what is left open stays as it was"
    assert (rest.changed, rest.open) == (1, 0)
    known = store.files.after(-1, 10)
    assert known[0].facts is not None
    assert known[0].facts.size == size
    assert [file.facts is None for file in known] == [False, True, False, False, False]


def test_what_was_stored_while_it_was_looked_at_is_not_marked_by_what_was_seen_before(
    store: PostgresStore, settings: Settings, library: Library, street: tuple[Scene, list[Path]]
) -> None:
    _, paths = street

    class Late(PhotoFiles):
        def facts(self, asked: Sequence[str]) -> list[FileFacts | UnknownFile | None]:
            found = super().facts(asked)
            if asked[0] == str(paths[0]):
                add(library, paths[0])
                found[0] = None
            return found

    Checking(files=store.files, source=Late(settings)).all(lambda *_: None)

    assert [file.state for file in store.files.after(-1, 1)] == [None]


@pytest.mark.parametrize(("slow_s", "at_once"), [(1e9, 1), (0.0, 4)])
def test_only_a_disk_that_is_slow_to_answer_is_asked_by_many_threads(
    slow_s: float,
    at_once: int,
    store: PostgresStore,
    settings: Settings,
    street: tuple[Scene, list[Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checking, "SHARE", 1)
    monkeypatch.setattr(checking, "SLOW_S", slow_s)
    together = Barrier(at_once, timeout=20)

    threads: list[Thread] = []

    class Waiting(PhotoFiles):
        def facts(self, paths: Sequence[str]) -> list[FileFacts | UnknownFile | None]:
            threads.append(current_thread())
            if len(threads) > 1:
                together.wait()
            return super().facts(paths)

    found = Checking(files=store.files, source=Waiting(settings)).all(lambda *_: None)

    assert (found.files, found.changed, found.gone, found.unknown) == (5, 0, 0, 0)
    assert (len(threads), len(set(threads))) == (5, 1 if at_once == 1 else 5)


def test_a_file_that_is_replaced_while_it_is_stored_is_noticed(
    make_library: Callable[..., Library], store: PostgresStore, settings: Settings, scenes: list[Scene], root: Path
) -> None:
    path = copied(scenes[0], root / "a.jpg")

    class Overtaken(PhotoFiles):
        def fetch(self, photo: Photo) -> bytes:
            content = super().fetch(photo)
            replaced(scenes[1], path)
            return content

    add(make_library(store=store, source=Overtaken(settings)), path)

    assert checked(store, settings).changed == 1


def test_a_rebuild_shows_how_many_files_it_has_looked_at(library: Library, street: tuple[Scene, list[Path]]) -> None:
    seen: list[tuple[str, int, int]] = []

    library.rebuilding.rebuild(lambda *facts: seen.append(facts))

    assert ("check", 5, 5) in seen[: [phase for phase, *_ in seen].index("embed")]


def test_a_rebuild_for_a_model_that_does_not_serve_yet_looks_at_no_file(
    library: Library, street: tuple[Scene, list[Path]]
) -> None:
    """It would mark photos that the one which serves has not embedded again."""
    seen: list[str] = []

    library.rebuilding.rebuild(lambda phase, *_: seen.append(phase), filling=True)

    assert list(dict.fromkeys(seen)) == ["embed", "train", "write", "check"], "the last is of the index"


def test_a_model_that_does_not_serve_yet_leaves_changed_files_to_the_one_that_does(
    store: PostgresStore, settings: Settings, library: Library, street: tuple[Scene, list[Path]]
) -> None:
    _, paths = street
    paths[0].write_bytes(b"another picture")
    checked(store, settings)
    key = library.model_key

    assert [photo.photo_id for photo in store.vectors.missing(key, after_id=-1, limit=9)] == [1]
    assert store.vectors.missing(key, after_id=-1, limit=9, share=(0, 1)) == []
    assert (store.vectors.missing_count(key), store.vectors.missing_count(key, refused_too=False)) == (1, 0)


# ---------------------------------------------------------------------------------------------- the disk


def test_a_relative_path_is_gone_only_if_all_roots_are_there(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "other.jpg").touch()
    files = PhotoFiles(Settings(photo_roots=(one, two)))

    assert files.facts(["a.jpg"]) == [None]
    (two / "other.jpg").unlink()
    assert_not_mounted(two, files.facts(["a.jpg"]))


def test_a_link_into_another_root_is_gone_only_if_that_is_there(tmp_path: Path) -> None:
    one, share = tmp_path / "one", tmp_path / "share"
    one.mkdir()
    share.mkdir()
    (one / "to share").symlink_to(share)
    (one / "link.jpg").symlink_to(share / "a.jpg")
    links = [str(one / "link.jpg"), str(one / "to share" / "a.jpg")]
    files = PhotoFiles(Settings(photo_roots=(one, share)))

    assert_not_mounted(share, files.facts(links))
    (share / "other.jpg").touch()
    assert files.facts(links) == [None, None]


def test_a_link_to_where_nothing_is_mounted_below_a_root_is_not_gone(tmp_path: Path) -> None:
    (tmp_path / "mounted here").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "mounted here" / "2024" / "a.jpg")

    files = PhotoFiles(Settings(photo_roots=(tmp_path,)))

    assert_not_mounted(tmp_path / "mounted here", files.facts([str(tmp_path / "link.jpg")]))


@pytest.mark.parametrize("lost", ["share/a.jpg", "share/2024/a.jpg", "a.jpg"])
def test_an_empty_place_to_mount_at_says_nothing_of_what_lay_in_it(lost: str, tmp_path: Path) -> None:
    """Nor does a root that has nothing but such places."""
    (tmp_path / "share").mkdir()
    (tmp_path / "empty, too").mkdir()
    files = PhotoFiles(Settings(photo_roots=(tmp_path,)))

    assert_not_mounted(tmp_path, files.facts([str(tmp_path / lost)]))
    (tmp_path / "other.jpg").touch()
    if lost.startswith("share"):
        assert_not_mounted(tmp_path / "share", files.facts([str(tmp_path / lost)]))
        (tmp_path / "share" / "other.jpg").touch()
    assert files.facts([str(tmp_path / lost)]) == [None]


def test_what_is_said_of_one_file_is_not_said_of_the_others_that_are_asked_for_with_it(tmp_path: Path) -> None:
    root, empty = tmp_path / "root", tmp_path / "empty"
    root.mkdir()
    empty.mkdir()
    (root / "b.jpg").write_bytes(b"12")
    files = PhotoFiles(Settings(photo_roots=(root, empty)))

    gone, there, unmounted, outside = files.facts(
        [str(root / "a.jpg"), str(root / "b.jpg"), str(empty / "a.jpg"), str(tmp_path / "a.jpg")]
    )

    assert gone is None
    assert there == FileFacts(2, (root / "b.jpg").stat().st_mtime_ns)
    assert_not_mounted(empty, [unmounted])
    assert isinstance(outside, UnknownFile)
    assert "SIGHTLINE_PHOTO_ROOTS" in outside.why


@pytest.mark.parametrize("asked", [1, 2])
def test_what_is_mounted_or_no_longer_while_files_are_looked_for_is_not_gone(asked: int, tmp_path: Path) -> None:
    """Before the second look for the file, or after it."""
    (tmp_path / "other.jpg").touch()
    paths = [str(tmp_path / "a.jpg")]

    class Changing(PhotoFiles):
        looked = 0

        def _unmounted(self, place: Any) -> UnknownFile | None:
            self.looked += 1
            return UnknownFile("is empty") if self.looked == asked else None

    assert Changing(Settings(photo_roots=(tmp_path,))).facts(paths) == [UnknownFile("is empty")]


def test_a_file_that_comes_while_it_is_looked_for_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"

    class Mounting(PhotoFiles):
        def _unmounted(self, place: Any) -> UnknownFile | None:
            path.touch()
            return UnknownFile("is empty")

    (facts,) = Mounting(Settings(photo_roots=(tmp_path,))).facts([str(path)])

    assert isinstance(facts, FileFacts)


def test_of_what_lies_outside_the_roots_nothing_is_said(tmp_path: Path) -> None:
    (facts,) = PhotoFiles(Settings(photo_roots=(tmp_path / "roots",))).facts([str(tmp_path / "a.jpg")])
    assert isinstance(facts, UnknownFile)


def test_a_folder_in_the_place_of_a_photo_is_no_photo(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    (tmp_path / "b.jpg").touch()
    assert PhotoFiles(Settings(photo_roots=(tmp_path,))).facts([str(tmp_path / "a.jpg")]) == [None]


def assert_not_mounted(folder: Path, found: list[FileFacts | UnknownFile | None]) -> None:
    for facts in found:
        assert isinstance(facts, UnknownFile)
        assert facts.why == f"{folder} is empty: is nothing mounted there?"
