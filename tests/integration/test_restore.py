"""A database that is restored to an earlier time, by a dump or as a whole: nobody goes on from what was lost.

After a point-in-time recovery Postgres skips some numbers of its sequences; after a dump none.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from sqlalchemy import text

from producer_client import NewPhoto, Photo, Provenance, Sightline, Stored, TryAgain
from producer_client.contract import Code, Search
from tests.conftest import Scene, server_dir, until, without_torch
from tests.integration.test_index import DIM, KEY, entry, live_on, number_serving, publish, put, vectors
from tests.integration.test_index_laws import Bytes, IndexAndDictionary
from worker.commands import doctor
from worker.core.request import Request, current
from worker.core.types import START
from worker.embedded import EmbeddedServers
from worker.errors import BadGeneration, Permanent, Stale, Transient
from worker.index.folder import GenerationFolder
from worker.index.generation import Generation
from worker.index.live import FaissLiveIndex
from worker.library import Library
from worker.settings import Settings
from worker.stack import Stack
from worker.storage.migrate import migrate
from worker.storage.objects import ObjectFolder
from worker.storage.store import PostgresStore

#: What a worker says when it sees another history.
ANEW = "the database was restored to an earlier time, the index starts anew"

_numbers = count(1)


@pytest.fixture(scope="module")
def own_servers() -> Iterator[EmbeddedServers]:
    """A cluster that these tests may stop and exchange."""
    with server_dir() as folder, EmbeddedServers(folder) as running:
        yield running


@pytest.fixture
def settings(own_servers: EmbeddedServers, settings: Settings) -> Settings:
    return settings.model_copy(update={"database_url": own_servers.database_url})


@pytest.fixture
def folder(settings: Settings) -> GenerationFolder:
    return GenerationFolder(settings.generations_dir)


class Programs:
    """What comes with the server that runs."""

    def __init__(self, store: PostgresStore) -> None:
        self._url = store.settings.database_url.replace("+psycopg2", "")
        with store.database.engine.connect() as connection:
            server = psutil.Process(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
        self._folder_of_programs = Path(server.exe()).parent

    def _run(self, program: str, *arguments: str, sql: bytes = b"") -> bytes:
        command = [str(self._folder_of_programs / program), f"--dbname={self._url}", *arguments]
        return subprocess.run(command, input=sql, capture_output=True, check=True, timeout=60).stdout


class Dump(Programs):
    """pg_dump of our schema and the photos, read back by psql."""

    def __init__(self, settings: Settings, store: PostgresStore, tables: str = "*") -> None:
        super().__init__(store)
        self._named = [f"--table={settings.db_schema}.{tables}", f"--table={settings.photos_table}"]
        self.sql = b""

    def take(self, *options: str) -> bytes:
        self.sql = self._run("pg_dump", "--clean", "--if-exists", *self._named, *options)
        return self.sql

    def restore(self) -> None:
        self.read(self.sql, "--single-transaction")

    def read(self, sql: bytes, *options: str) -> None:
        self._run("psql", "--quiet", "--set=ON_ERROR_STOP=1", *options, sql=sql)


class Recovery(Programs):
    """A base backup of the running server, recovered to its end: another timeline of the same system."""

    def __init__(self, servers: EmbeddedServers, store: PostgresStore) -> None:
        super().__init__(store)
        self._servers = servers
        self._store = store
        self._folder = servers._dir / "postgres"
        self._copy = servers._dir / "backup"

    def take(self) -> None:
        shutil.rmtree(self._copy, ignore_errors=True)
        self._run("pg_basebackup", "--checkpoint=fast", f"--pgdata={self._copy}")
        # The lock of the socket, which lies in the data folder here.
        for lock in self._copy.glob(".s.PGSQL.*"):
            lock.unlink()
        with (self._copy / "postgresql.auto.conf").open("a") as settings:
            settings.write("restore_command = 'false'\nrecovery_target = 'immediate'\n")
            settings.write("recovery_target_action = 'promote'\n")
        (self._copy / "recovery.signal").touch()

    def restore(self) -> None:
        """Raises RuntimeError for a backup that does not start; the cluster is as it was before."""
        url, before = self._servers.database_url, self._system()
        self._servers.stop_postgres()
        former = self._folder.rename(self._folder.with_name("former"))
        self._copy.rename(self._folder)
        for path in (self._folder, *self._folder.rglob("*")):
            os.chown(path, former.stat().st_uid, former.stat().st_gid)
        try:
            self._servers.start_postgres()
        except RuntimeError:
            shutil.rmtree(self._folder)
            former.rename(self._folder)
            self._servers.start_postgres()
            raise
        shutil.rmtree(former)
        until(lambda: not self._asked("pg_is_in_recovery()"), patience_s=60)
        assert self._servers.database_url == url
        assert self._system() == (before[0], before[1] + 1)

    def _system(self) -> tuple[int, int]:
        return (
            self._asked("(SELECT system_identifier FROM pg_control_system())"),
            self._asked("(SELECT timeline_id FROM pg_control_checkpoint())"),
        )

    def _asked(self, what: str) -> Any:
        with self._store.database.engine.connect() as connection:
            return connection.execute(text(f"SELECT {what}")).scalar_one()


@pytest.fixture(params=["a dump", "point in time"])
def backup(
    request: pytest.FixtureRequest, own_servers: EmbeddedServers, settings: Settings, store: PostgresStore
) -> Dump | Recovery:
    return Dump(settings, store) if request.param == "a dump" else Recovery(own_servers, store)


@pytest.fixture
def dump(settings: Settings, store: PostgresStore) -> Dump:
    return Dump(settings, store)


def test_a_restore_that_fails_leaves_the_servers_to_the_next_test(
    own_servers: EmbeddedServers, store: PostgresStore, folder: GenerationFolder
) -> None:
    rows = vectors(2, seed=3)
    photos = dict(zip(put_all(store, "kept", rows), rows, strict=True))
    recovery = Recovery(own_servers, store)
    recovery.take()
    (recovery._copy / "global" / "pg_control").unlink()

    with pytest.raises(RuntimeError, match="did not start"):
        recovery.restore()

    live = live_on(store, folder)
    live.catch_up()
    assert_finds(live, photos)


def put_all(store: PostgresStore, name: str, rows: Any) -> dict[int, int]:
    """{photo id: seq} of one photo for each row."""
    return dict(put(store, f"{name} {next(_numbers)}", row) for row in rows)


def assert_finds(live: FaissLiveIndex, photos: dict[int, Any]) -> None:
    """These photos and no others, each by its own vector."""
    for photo_id, vector in photos.items():
        found = live.search(vector, 100)
        assert set(found.ids.tolist()) == set(photos)
        assert found.ids[0] == photo_id
        assert found.similarities[0] == pytest.approx(1.0, abs=1e-3)
    assert live.count == len(photos)


def said(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.message == ANEW]


# ------------------------------------------------------------------------------------ what a worker finds


@pytest.mark.parametrize("based_on", ["Postgres", "a generation", "a lost generation"])
@pytest.mark.parametrize("added", [1, 6, 9], ids=["below", "to", "beyond"])
def test_a_worker_begins_anew_from_what_was_restored(
    backup: Dump | Recovery,
    store: PostgresStore,
    make_store: Callable[..., PostgresStore],
    folder: GenerationFolder,
    caplog: pytest.LogCaptureFixture,
    added: int,
    based_on: str,
) -> None:
    """`added` photos bring the log again to below, to or beyond the change that the worker has applied last."""
    rows = vectors(20, seed=3)
    live = live_on(make_store(), folder)
    photos = dict(zip(put_all(store, "kept", rows[:4]), rows[:4], strict=True))
    if based_on == "a generation":
        publish(store, folder)
    live.settle()
    backup.take()
    lost = put_all(store, "lost", rows[4:8])
    store.entries.remove_many(list(photos)[:1])
    store.entries.put_many([replace(entry("lost", rows[0]), photo_id=next(iter(photos)))], KEY)
    if based_on == "a lost generation":
        publish(store, folder)
    live.settle()
    reached = live.seq

    backup.restore()
    new = put_all(store, "new", rows[8 : 8 + added])
    photos |= dict(zip(new, rows[8:], strict=False))
    again = live.catch_up()

    assert isinstance(backup, Recovery) or set(new) & set(lost), "ids are given out again"
    assert isinstance(backup, Recovery) or (again > reached) == (added == 9)
    assert again == max(new.values())
    assert_finds(live, photos)
    (warning,) = said(caplog)
    assert warning.levelno == logging.WARNING
    facts = warning.__dict__
    assert (facts["seq"], facts["database_seq"]) == (reached, again)
    live.settle()
    assert_finds(live, photos)
    assert len(said(caplog)) == 1, "said once"
    live.close()


def test_a_worker_notices_a_restore_after_which_nothing_was_written(
    backup: Dump | Recovery, store: PostgresStore, folder: GenerationFolder, caplog: pytest.LogCaptureFixture
) -> None:
    rows = vectors(4, seed=3)
    backup.take()
    put_all(store, "lost", rows)
    live = live_on(store, folder)
    live.catch_up()

    backup.restore()

    assert live.catch_up() == 0
    assert_finds(live, {})
    assert len(said(caplog)) == 1


def test_a_worker_notices_a_restore_of_a_later_backup(
    dump: Dump, store: PostgresStore, folder: GenerationFolder
) -> None:
    """Back to what was lost: by its seqs this log goes on where the worker stands."""
    rows = vectors(9, seed=3)
    live = live_on(store, folder)
    early = dump.take()
    first = put_all(store, "first", rows[:3])
    late = dump.take()
    dump.read(early, "--single-transaction")
    put_all(store, "between", rows[3:5])
    live.catch_up()

    dump.read(late, "--single-transaction")
    live.catch_up()

    assert_finds(live, dict(zip(first, rows, strict=False)))


def test_a_server_that_restarts_without_loss_is_no_other_history(
    own_servers: EmbeddedServers, store: PostgresStore, folder: GenerationFolder, caplog: pytest.LogCaptureFixture
) -> None:
    rows = vectors(6, seed=3)
    live = live_on(store, folder)
    photos = dict(zip(put_all(store, "before", rows[:3]), rows, strict=False))
    live.settle()
    delta = live._layers

    own_servers.stop_postgres()
    with pytest.raises(Transient):
        live.catch_up()
    own_servers.start_postgres()
    live.catch_up()
    photos |= dict(zip(put_all(store, "after", rows[3:]), rows[3:], strict=True))
    live.catch_up()

    assert_finds(live, photos)
    assert live._layers is delta, "not read again"
    assert said(caplog) == []


def test_a_log_that_is_forgotten_and_a_rollback_are_no_other_history(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Seqs that were drawn by transactions which failed are no gap either."""
    store, rows = make_store(), vectors(20, seed=3)
    live, lagging = live_on(make_store(), folder), live_on(make_store(), folder)
    photos: dict[int, Any] = {}
    numbers = []
    lagging.catch_up()
    for round_ in range(4):
        with store.database.engine.connect() as connection:
            connection.execute(text(f"SELECT nextval('{store.settings.db_schema}.change_seq')"))
        some = rows[3 * round_ : 3 * round_ + 3]
        photos |= dict(zip(put_all(store, "some", some), some, strict=True))
        numbers.append(publish(store, folder))
        live.settle()
        live.settle()
        assert live.generation == numbers[-1]
        if round_ == 1:
            lagging.catch_up()
            assert_finds(lagging, photos)
    store.generations.roll_back(numbers[-2])
    live.settle()
    lagging.settle()

    assert live.generation == numbers[-2]
    assert_finds(live, photos)
    assert_finds(lagging, photos)
    assert said(caplog) == []


def test_a_dump_that_is_still_being_read_is_not_taken_for_the_whole(
    dump: Dump, store: PostgresStore, folder: GenerationFolder, settings: Settings
) -> None:
    """Table after table, each on its own: the log is there before the photos that it speaks of."""
    rows = vectors(6, seed=3)
    photos = dict(zip(put_all(store, "kept", rows[:3]), rows, strict=False))
    schema = dump.take("--section=pre-data").decode()
    only_log = Dump(settings, store, "changes").take("--section=data", f"--exclude-table={settings.photos_table}")
    rest = dump.take("--section=data", f"--exclude-table={settings.db_schema}.changes")
    keys = dump.take("--section=post-data")
    put_all(store, "lost", rows[3:])
    live = live_on(store, folder)
    live.catch_up()

    dump.read(schema.encode())
    for part in (only_log, rest):
        dump.read(part)
        with pytest.raises(Transient, match="a dump is being restored"):
            live.catch_up()
    dump.read(keys)
    live.catch_up()

    assert_finds(live, photos)


class RestoredIndex(IndexAndDictionary):
    """Whatever happens between a backup and its restore: the index finds what the dictionary said at the backup."""

    def __init__(self, store: PostgresStore, folder: Path, dump: Dump) -> None:
        super().__init__(store, folder)
        self.dump = dump
        self.saved: tuple[bytes, dict[int, str], dict[int, int]] | None = None

    # Of a restored database, the files of generations may have been deleted since the backup.
    @rule(keep=st.sampled_from([1, 2, 3]))
    def rebuild(self, keep: int) -> None:
        number = publish(self.store, self.folder, keep)
        assert self.folder.open(number, model_key=KEY).ids.tolist() == sorted(self.shows)

    @rule()
    def settle(self) -> None:
        self.live.settle()
        self.live.settle()
        assert self.live.generation in (None, *(g.number for g in self.store.generations.kept()))

    @rule()
    def back_up(self) -> None:
        self.saved = (self.dump.take(), dict(self.name_of), dict(self.shows))

    @precondition(lambda self: self.saved is not None)
    @rule()
    def restore(self) -> None:
        assert self.saved is not None
        sql, name_of, shows = self.saved
        self.dump.read(sql, "--single-transaction")
        self.name_of, self.shows = dict(name_of), dict(shows)


def test_the_index_finds_what_a_dictionary_finds_over_restores(
    make_store: Callable[..., PostgresStore], tmp_path: Path, dump: Dump
) -> None:
    store = make_store()

    class Example(RestoredIndex):
        def __init__(self) -> None:
            super().__init__(store, tmp_path / f"example {next(_numbers)}", dump)

    run_state_machine_as_test(
        Example,
        settings=hypothesis_settings(
            derandomize=True,
            max_examples=15,
            stateful_step_count=25,
            suppress_health_check=list(HealthCheck),
        ),
    )


# ---------------------------------------------------------------------------------------------- questions


@pytest.fixture
def library(make_library: Callable[..., Library], settings: Settings) -> Library:
    bytes_ = Bytes()
    impatient = settings.model_copy(update={"min_seq_timeout_s": 0.05})
    return make_library(settings=impatient, encoder=bytes_, decode=bytes_.decode, source=bytes_)


def test_a_search_finds_what_was_added_after_a_restore_with_and_without_min_seq(
    backup: Dump | Recovery, store: PostgresStore, library: Library
) -> None:
    rows = vectors(12, seed=3)

    def asked(vector: Any, min_seq: int = 0) -> list[tuple[int, float]]:
        request = Search(vector=vector.tolist(), threshold=0.9, min_seq=min_seq)
        return [(hit.photo_id, round(hit.similarity, 3)) for hit in library.questions.search(request).hits]

    put_all(store, "kept", rows[:2])
    backup.take()
    lost = put_all(store, "lost", rows[2:6])
    assert asked(rows[5])
    backup.restore()

    for row in rows[6:]:
        ((photo_id, seq),) = put_all(store, "new", [row]).items()
        assert asked(row) == asked(row, seq) == [(photo_id, 1.0)]
    assert seq > max(lost.values())
    for row in rows[2:6]:
        assert asked(row) == []


def test_a_client_that_saw_what_was_lost_is_told_what_to_do(
    backup: Dump | Recovery, store: PostgresStore, library: Library
) -> None:
    rows = vectors(3, seed=3)
    put_all(store, "kept", rows[:1])
    backup.take()
    (seen,) = put_all(store, "lost", rows[1:2]).values()
    backup.restore()

    with pytest.raises(Stale, match=r"restored to an earlier time.*min_seq=0") as caught:
        library.questions.search(Search(vector=rows[2].tolist(), min_seq=seen))

    assert (caught.value.code, caught.value.seq) == (Code.STALE, seen - 1)
    assert library.questions.search(Search(vector=rows[0].tolist(), min_seq=0)).hits


def test_who_has_seen_the_log_set_back_is_told_at_once_and_does_not_wait_for_what_is_lost(
    dump: Dump, store: PostgresStore, make_library: Callable[..., Library], settings: Settings
) -> None:
    """Callers may wait for less time than a seq is waited for: they would never hear of it."""
    rows, bytes_ = vectors(2, seed=3), Bytes()
    patient = settings.model_copy(update={"min_seq_timeout_s": 30})
    library = make_library(settings=patient, encoder=bytes_, decode=bytes_.decode, source=bytes_)
    dump.take()
    (seen,) = put_all(store, "lost", rows[:1]).values()
    library.questions.search(Search(vector=rows[0].tolist(), min_seq=seen))
    dump.restore()

    with pytest.raises(Stale, match=rf"the write that was {seen} is lost") as caught:
        library.questions.search(Search(vector=rows[1].tolist(), min_seq=seen))

    assert caught.value.seq == seen - 1


def test_who_waits_for_less_than_a_seq_is_waited_for_hears_in_time_that_it_does_not_come(
    make_library: Callable[..., Library], settings: Settings
) -> None:
    """By a process that began after the restore, and cannot know of it."""
    bytes_ = Bytes()
    patient = settings.model_copy(update={"min_seq_timeout_s": 20})
    library = make_library(settings=patient, encoder=bytes_, decode=bytes_.decode, source=bytes_)
    ends = time.monotonic() + 2.0
    waiting = current.set(Request(deadline=ends))

    with pytest.raises(Stale, match=r"did not reach 7 within [01]\."):
        library.questions.search(Search(vector=vectors(1)[0].tolist(), min_seq=7))

    current.reset(waiting)
    assert time.monotonic() < ends


@pytest.fixture
def parted(settings: Settings, backup: Dump | Recovery) -> Iterator[Stack]:
    """Lists of photos go to one worker, questions to another, which looks at the log once an hour unless it must. Votes
    alone decide: what is asked here is what a worker has seen of the log."""
    changed = {"max_staleness_s": 3600, "min_seq_timeout_s": 0.2, "rungs": (), **without_torch()}
    lagging = settings.model_copy(update=changed)
    with Stack(lagging, log_dir=settings.data_dir / "logs", port=0, own_database=False) as running:
        running.start("worker", "--queues", "bulk")
        running.start("worker", "--queues", "interactive")
        running.wait_ready()
        yield running


def test_a_client_goes_on_over_a_restore_under_running_workers(
    backup: Dump | Recovery, parted: Stack, scenes: list[Scene]
) -> None:
    """The worker that answers stands beyond the restored log, and has seen neither the restore nor what came after it
    when it is asked; the one that writes holds the vectors of lost photos in memory."""
    (kept, lost, new, last) = (
        [scene for scene in scenes if scene.place == place] for place in dict.fromkeys(scene.place for scene in scenes)
    )

    def add(client: Sightline, place: list[Scene]) -> list[Stored]:
        photos = [
            NewPhoto(str(s.path), Photo(path=str(s.path)), s.lat, s.lon, Provenance.SURVEYED)
            for s in place
            if s is not place[2]
        ]
        outcomes = client.add_many(photos)
        return [outcome for outcome in outcomes if isinstance(outcome, Stored)]

    def located(client: Sightline, place: list[Scene], **asked: int) -> bool:
        return client.locate(path=str(place[2].path), **asked).answer.located

    with parted.client() as client, parted.client() as other:
        add(client, kept)
        backup.take()
        # More than a recovered sequence skips.
        ids = {photo.photo_id for _ in range(8) for photo in add(client, lost)}
        assert located(client, lost)
        seen = client.session
        backup.restore()

        added = add(client, new)
        ends_at = max(photo.seq for photo in added)
        assert ends_at < seen == client.session
        assert isinstance(backup, Recovery) or ids & {photo.photo_id for photo in added}, "ids are given out again"
        with pytest.raises(TryAgain, match="restored to an earlier time") as caught:
            located(client, new)

        assert (caught.value.code, caught.value.seq, client.session) == (Code.STALE, ends_at, ends_at)
        for asking in ({}, {"min_seq": 0}):
            assert [located(client, place, **asking) for place in (kept, lost, new)] == [True, False, True]
        add(other, last)
        assert located(other, last), "without having seen what is lost"
        for _ in range(8):
            add(client, lost)
        assert client.session > seen
        assert [located(client, place) for place in (kept, lost, new, last)] == [True] * 4


# -------------------------------------------------------------------------------------------- generations


def test_a_generation_whose_number_comes_again_is_not_the_lost_one(
    dump: Dump, make_store: Callable[..., PostgresStore], store: PostgresStore, tmp_path: Path
) -> None:
    """One host builds; the folder of another one still holds the lost generation under that number."""
    rows = vectors(12, seed=3)
    photos = dict(zip(put_all(store, "kept", rows[:3]), rows, strict=False))
    builder, other = GenerationFolder(tmp_path / "builder"), GenerationFolder(tmp_path / "other")
    first = publish(store, builder)
    dump.take()
    put_all(store, "lost", rows[3:6])
    lost = publish(store, builder)
    shutil.copytree(tmp_path / "builder", tmp_path / "other")
    builds, reads = live_on(store, builder), live_on(make_store(), other)
    for live in (builds, reads):
        live.settle()
        assert live.generation == lost
    lost_mark = builder.open(lost, model_key=KEY).manifest.mark

    dump.restore()
    for live in (builds, reads):
        live.catch_up()
        assert live.generation == first
    new = put_all(store, "new", rows[6:9])
    photos |= dict(zip(new, rows[6:], strict=False))
    number = publish(store, builder)

    mark = builder.open(number, model_key=KEY).manifest.mark
    assert (number, mark.seq) == (lost, lost_mark.seq)
    with pytest.raises(BadGeneration, match="another history"):
        other.open(number, model_key=KEY, mark=mark)
    assert builder.open(number, model_key=KEY, mark=mark).ids.tolist() == sorted(photos)
    for live in (builds, reads, live_on(store, builder), live_on(store, other)):
        live.settle()
        live.settle()
        assert_finds(live, photos)
    assert (builds.generation, reads.generation) == (number, first)


def test_an_index_whose_generations_are_not_here_says_once_where_it_is_read_from_and_what_to_do(
    dump: Dump, store: PostgresStore, folder: GenerationFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Rebuilt since the dump, so the generation that the database has is deleted."""
    rows = vectors(3, seed=4)
    photos = dict(zip(put_all(store, "kept", rows), rows, strict=True))
    first = publish(store, folder)
    dump.take()
    folder.keep_only([publish(store, folder)])
    dump.restore()
    caplog.clear()

    live = live_on(store, folder)
    live.settle()
    live.settle()

    assert_finds(live, photos)
    (line,) = [record for record in caplog.records if record.name == "worker.index.live"]
    assert line.levelname == "WARNING"
    assert vars(line)["generation"] == first
    assert "`sightline rebuild`" in line.message
    number = publish(store, folder)
    live.settle()
    assert live.generation == number


def test_a_lost_generation_that_serves_gives_way_to_the_one_that_has_its_number(
    dump: Dump, store: PostgresStore, folder: GenerationFolder
) -> None:
    """Built after the backup, and nothing was written in between: the worker stands where the restored log ends."""
    rows = vectors(4, seed=3)
    photos = dict(zip(put_all(store, "kept", rows[:3]), rows, strict=False))
    dump.take()
    lost = publish(store, folder)
    live = live_on(store, folder)
    live.settle()
    dump.restore()
    photos |= dict(zip(put_all(store, "new", rows[3:]), rows[3:], strict=True))
    live.settle()

    assert publish(store, folder) == lost
    live.settle()

    layers = live._layers
    assert layers is not None
    assert layers.base is not None
    assert layers.base.manifest.count == 4
    assert_finds(live, photos)


def test_a_generation_that_was_refused_by_its_number_may_come_with_that_number(
    dump: Dump, store: PostgresStore, folder: GenerationFolder
) -> None:
    rows = vectors(6, seed=3)
    put_all(store, "kept", rows[:3])
    dump.take()
    put_all(store, "lost", rows[3:5])
    lost = publish(store, folder)
    (folder.path(lost) / "index.faiss").write_bytes(b"torn")
    live = live_on(store, folder)
    live.settle()
    assert live.generation is None
    dump.restore()
    live.catch_up()

    put_all(store, "new", rows[5:])
    number = publish(store, folder)
    live.settle()

    assert number == lost == live.generation


def test_a_host_fetches_a_generation_again_whose_number_was_another_ones(
    dump: Dump, store: PostgresStore, tmp_path: Path
) -> None:
    rows = vectors(9, seed=3)
    host = partial(GenerationFolder, remote=ObjectFolder(f"file://{tmp_path}/shared"))
    photos = dict(zip(put_all(store, "kept", rows[:3]), rows, strict=False))
    dump.take()
    put_all(store, "lost", rows[3:6])
    lost = publish(store, host(tmp_path / "builder"))
    live = live_on(store, host(tmp_path / "reader"))
    live.settle()
    dump.restore()
    photos |= dict(zip(put_all(store, "new", rows[6:]), rows[6:], strict=True))
    assert publish(store, host(tmp_path / "builder")) == lost

    live.settle()
    live.settle()
    fresh = live_on(store, host(tmp_path / "reader"))

    for reader in (live, fresh):
        reader.settle()
        assert reader.generation == lost
        assert_finds(reader, photos)


@pytest.mark.parametrize("reserved_again", [False, True])
@pytest.mark.parametrize("written", [False, True])
def test_a_generation_that_was_being_built_over_a_restore_is_not_published(
    dump: Dump, store: PostgresStore, folder: GenerationFolder, written: bool, reserved_again: bool
) -> None:
    """written: since the backup, so that the restored log does not hold the change at which it is built."""
    put_all(store, "kept", vectors(3))
    dump.take()
    if written:
        put_all(store, "lost", vectors(2, seed=1))
    number = store.generations.reserve()
    with store.log.snapshot(KEY, DIM) as snapshot:
        built = folder.write(number, snapshot, model_key=KEY, dimension=DIM)
        mark = snapshot.mark
    dump.restore()
    if reserved_again:
        assert store.generations.reserve() == number

    if reserved_again and not written:
        store.generations.publish(number, KEY, mark, built, 2)
        assert number_serving(store) == number, "what it holds is what was restored"
        return
    with pytest.raises(Permanent, match="restored"):
        store.generations.publish(number, KEY, mark, built, 2)
    assert store.generations.kept() == []


@pytest.mark.parametrize("when", ["while it is opened", "after the log was read"])
@pytest.mark.parametrize("added", [1, 9])
def test_a_restore_while_a_generation_is_brought_leaves_nothing_of_it(
    dump: Dump,
    make_store: Callable[..., PostgresStore],
    store: PostgresStore,
    folder: GenerationFolder,
    when: str,
    added: int,
) -> None:
    rows = vectors(20, seed=3)
    photos = dict(zip(put_all(store, "kept", rows[:3]), rows, strict=False))
    dump.take()
    restored: list[int] = []

    def restore(moment: str) -> None:
        if moment == when and not restored:
            restored.append(1)
            dump.restore()
            photos.update(zip(put_all(store, "new", rows[6 : 6 + added]), rows[6:], strict=False))

    class Opening(GenerationFolder):
        def open(self, number: int, **which: Any) -> Generation:
            opened = super().open(number, **which)
            restore("while it is opened")
            return opened

    class Interrupted(FaissLiveIndex):
        def _onto(self, base: Generation) -> Any:
            served = super()._onto(base)
            restore("after the log was read")
            return served

    live = Interrupted(make_store().log, Opening(folder.path(1).parent), model_key=KEY, dimension=DIM)
    live.catch_up()
    put_all(store, "lost", rows[3:6])
    publish(store, folder)

    live.settle()
    live.settle()

    assert restored
    assert live.generation is None
    assert_finds(live, photos)


def test_generations_of_a_log_that_was_restored_without_them_are_not_trusted(
    settings: Settings, store: PostgresStore, folder: GenerationFolder
) -> None:
    """Of the database all was restored but the table of the generations, which still names a later one."""
    rows = vectors(9, seed=3)
    kept = put_all(store, "kept", rows[:3])
    whole = Dump(settings, store)
    whole.take(f"--exclude-table={settings.db_schema}.generations*")
    put_all(store, "lost", rows[3:6])
    for _ in range(3):
        number = publish(store, folder)
    whole.restore()
    live = live_on(store, folder)

    live.settle()

    assert live.delta_count == live.count
    assert_finds(live, dict(zip(kept, rows, strict=False)))
    assert {g.state for g in store.generations.kept()} == {"lost"}
    with pytest.raises(Permanent, match="not kept"):
        store.generations.roll_back(number)
    with pytest.raises(Permanent, match="run `sightline rebuild`"):
        doctor.index(settings)
    again = publish(store, folder)
    assert [(g.number, g.state) for g in store.generations.kept()] == [(again, "serving")]
    live.settle()
    assert live.generation == again
    assert "files whole" in doctor.index(settings)


def test_doctor_knows_the_files_of_another_history(
    dump: Dump, settings: Settings, store: PostgresStore, folder: GenerationFolder, tmp_path: Path
) -> None:
    rows = vectors(9, seed=3)
    put_all(store, "kept", rows[:3])
    dump.take()
    put_all(store, "lost", rows[3:6])
    publish(store, folder)
    dump.restore()
    with pytest.raises(Permanent, match=r"no generation is published yet.*restored.* generations 1 on this host"):
        doctor.index(settings)
    put_all(store, "new", rows[6:])
    publish(store, GenerationFolder(tmp_path / "of another host"))

    with pytest.raises(Permanent, match=r"another history.*restored.*sightline rebuild"):
        doctor.index(settings)

    publish(store, folder)
    assert "files whole" in doctor.index(settings)


def test_doctor_knows_files_beyond_what_was_restored(
    backup: Dump | Recovery, settings: Settings, store: PostgresStore, folder: GenerationFolder
) -> None:
    rows = vectors(9, seed=3)
    put_all(store, "kept", rows[:3])
    publish(store, folder)
    assert doctor.index(settings).endswith("files whole")
    backup.take()
    put_all(store, "lost", rows[3:6])
    lost = publish(store, folder)

    backup.restore()

    told = doctor.index(settings)
    assert "files whole" in told
    assert f"restored to an earlier time since: the files of the generations {lost} on this host" in told


def test_a_rebuild_over_which_the_database_is_restored_fails_and_the_next_one_does_not(
    backup: Dump | Recovery,
    make_library: Callable[..., Library],
    settings: Settings,
    store: PostgresStore,
    folder: GenerationFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lock, the run and the number that it had are of another time."""
    rows = vectors(9, seed=3)
    bytes_ = Bytes()
    library = make_library(encoder=bytes_, decode=bytes_.decode, source=bytes_, generations=folder)
    published = library.rebuilding._published
    really_publish = published.publish

    def restored_before(*built: Any, **learnt: Any) -> list[int]:
        backup.restore()
        return really_publish(*built, **learnt)

    photos = dict(zip(put_all(store, "kept", rows[:3]), rows, strict=False))
    backup.take()
    put_all(store, "lost", rows[3:6])

    with monkeypatch.context() as interrupted:
        interrupted.setattr(published, "publish", restored_before)
        with pytest.raises((Permanent, Transient), match=r"restored|Postgres"):
            library.rebuilding.rebuild()
    photos |= dict(zip(put_all(store, "new", rows[6:]), rows[6:], strict=True))
    reply = library.rebuilding.rebuild()

    assert reply.indexed == 6
    live = live_on(store, folder)
    live.settle()
    assert live.generation == reply.generation
    assert_finds(live, photos)


# -------------------------------------------------------------------------------------- earlier releases


def test_a_log_and_a_generation_of_an_earlier_release_go_on_serving(
    store: PostgresStore, folder: GenerationFolder, settings: Settings
) -> None:
    """Neither the row nor the manifest has a stamp; the changes get theirs from the migration."""
    schema = settings.db_schema
    rows = vectors(5, seed=3)
    photos = dict(zip(put_all(store, "kept", rows[:3]), rows, strict=False))
    number = publish(store, folder)
    photos |= dict(zip(put_all(store, "later", rows[3:]), rows[3:], strict=True))
    manifest = folder.path(number) / "manifest.json"
    stamp = folder.open(number, model_key=KEY).manifest.stamp
    manifest.write_text(manifest.read_text().replace(f',\n  "stamp": "{stamp}"', ""))
    with store.database.engine.begin() as connection:
        for table in ("changes", "generations"):
            connection.execute(text(f"ALTER TABLE {schema}.{table} DROP COLUMN stamp"))
        for column in ("recall_at_10_at_least", "learnt", "exam", "verdict", "manifest_sha256"):
            connection.execute(text(f"ALTER TABLE {schema}.generations DROP COLUMN {column}"))
        for column in ("position_from", "file_state_at", "asked_ms"):
            connection.execute(text(f"ALTER TABLE {schema}.entries DROP COLUMN {column}"))
        for column in ("camera", "taken_s"):
            connection.execute(text(f"ALTER TABLE {schema}.pictures DROP COLUMN {column}"))
        for table in ("keypoints", "conflicts", "examined", "exam_baselines", "lacking", "reconciled", "audit"):
            connection.execute(text(f"DROP TABLE {schema}.{table}"))
        connection.execute(text(f"UPDATE {schema}.alembic_version SET version_num = '0008'"))
    migrate(store.database.engine, schema=schema, photos_table=settings.photos_table)
    with store.database.engine.connect() as connection:
        stamps = connection.execute(text(f"SELECT stamp FROM {schema}.changes")).scalars().all()
    assert len(set(stamps)) == 3

    live = live_on(store, folder)
    live.settle()

    assert live.generation == number
    assert_finds(live, photos)
    assert live._mark.stamp is not None


def test_every_change_has_a_stamp_of_its_own(store: PostgresStore) -> None:
    store.entries.put_many([entry(name, row) for name, row in zip("abcdef", vectors(6), strict=True)], KEY)

    with store.database.engine.connect() as connection:
        stamps = connection.execute(text(f"SELECT stamp FROM {store.settings.db_schema}.changes")).scalars().all()

    assert len(set(stamps)) == 6
    assert store.log.changes_after(START, KEY, DIM).mark.stamp in {str(stamp) for stamp in stamps}
    assert np.all([stamp.version == 4 for stamp in stamps])


def test_doctor_says_in_one_language_what_is_wrong_with_a_generation(
    settings: Settings, store: PostgresStore, folder: GenerationFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_all(store, "kept", vectors(3, seed=3))
    publish(store, folder)
    (damaged,) = tmp_path.rglob("index.faiss")
    damaged.write_bytes(b"no index")
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")

    with pytest.raises(Permanent, match="sightline rebuild") as told:
        doctor.index(settings)

    assert not re.search("[a-z]{2,} [a-z]{2,}", re.sub("`[^`]*`", "", told.value.message)), told.value.message
