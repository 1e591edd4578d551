"""Laws of the index over a real Postgres: what it finds is what a dictionary says, whatever happened before."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from sqlalchemy import Connection, event, text

from producer_client.contract import Code, Near, NewPhoto, Photo, Provenance, Stored
from producer_client.words import TRUSTED
from tests.conftest import until
from tests.integration.test_index import DIM, KEY, entry, live_on, number_serving, put, vectors
from worker.core.keypoints import Keypoints
from worker.core.types import Changes, Decoded, Entry, FileFacts, Filter, Mark, Neighbours, Pixels, UnknownFile
from worker.core.vectors import Vector, Vectors, unit_rows
from worker.errors import Permanent, PhotoRefusal, Transient
from worker.index import columns as columns_module
from worker.index import live as live_module
from worker.index import searching
from worker.index import view as view_module
from worker.index.folder import GenerationFolder
from worker.index.generation import Generation
from worker.index.live import FaissLiveIndex
from worker.index.view import Layers, View
from worker.library import Library
from worker.quarantine import Quarantine
from worker.settings import Settings
from worker.storage import tables
from worker.storage.store import PostgresStore

T = TypeVar("T")

#: float16 keeps 11 bits, so that the cosine of two unit vectors moves by less than 2^-11 = 0.0005.
ROUNDING = 1e-3

#: What photos may show: some pictures far from each other, and some that float16 cannot always tell apart.
PICTURES = np.concatenate(
    [vectors(32, seed=1), unit_rows(vectors(32, seed=1)[:16] + 2e-4 * np.random.default_rng(2).normal(size=(16, DIM)))]
)


def publish(store: PostgresStore, folder: GenerationFolder, keep: int = 2) -> int:
    """A rebuild as the library runs it, without the embedding."""
    number = store.generations.reserve()
    previous = store.generations.serving(KEY)
    with store.log.snapshot(KEY, DIM) as snapshot:
        built = folder.write(number, snapshot, model_key=KEY, dimension=DIM, previous=previous)
        mark = snapshot.mark
    folder.keep_only(store.generations.publish(number, KEY, mark, built, keep))
    return number


def empty(store: PostgresStore) -> None:
    """A database as it is after the installation: migrating anew for each example would take most of the time."""
    settings = store.settings
    names = [f"{settings.db_schema}.{table.name}" for table in tables.metadata.sorted_tables]
    with store.database.engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {', '.join([*names, settings.photos_table])} RESTART IDENTITY"))


def assert_equals_truth(found: Neighbours, k: int, truth: dict[int, float]) -> None:
    """Same photos in the same order, but for those that rounding may exchange. truth: cosine of each photo."""
    ids = found.ids.tolist()
    assert len(set(ids)) == len(ids) == min(k, len(truth))
    assert set(ids) <= set(truth)
    # Numbers that moved by a little keep their ranks' values by that little.
    best = np.array(sorted(truth.values(), reverse=True)[:k])
    assert np.abs(found.similarities - best).max(initial=0) < ROUNDING
    assert np.abs(found.similarities - [truth[photo_id] for photo_id in ids]).max(initial=0) < ROUNDING
    pairs = list(zip(-found.similarities, ids, strict=True))
    assert pairs == sorted(pairs), "best first, equal ones by id"
    if len(best):
        assert {photo_id for photo_id, cosine in truth.items() if cosine > best[-1] + 2 * ROUNDING} <= set(ids)


@pytest.fixture
def folder(tmp_path: Path) -> GenerationFolder:
    return GenerationFolder(tmp_path / "index")


# --------------------------------------------------------------------------- the index and a dictionary


#: What is known of photos beside what they show: metadata, and a position of some provenance.
TOLD: list[tuple[dict[str, Any], tuple[float, float, Provenance]]] = [
    ({}, (1.0, 2.0, Provenance.SURVEYED)),
    ({"walk": 1, "tags": ["a", "b"]}, (0.0, 179.9999, Provenance.SURVEYED)),
    ({"walk": 1.0, "tags": ["b"]}, (0.0, -179.9999, Provenance.DERIVED)),
    ({"walk": True, "tags": []}, (89.9999, -100.0, Provenance.EXIF_GPS)),
    ({"walk": 2, "camera": {"make": "x"}}, (1.0005, 2.0, Provenance.FALLBACK)),
]
#: Filters, with what they say of an entry.
FILTERS: list[tuple[dict[str, Any], Callable[[Entry], bool]]] = [
    ({"near": Near(0.0, 180.0, 100.0)}, lambda entry: abs(entry.lon or 0) > 179),
    ({"near": Near(90.0, 0.0, 20.0)}, lambda entry: (entry.lat or 0) > 89),
    ({"near": Near(1.0, 2.0, 40.0)}, lambda entry: entry.lat == 1.0),
    ({"near": Near(0.0, 0.0, 3e7), "trusted_only": True}, lambda entry: entry.provenance in TRUSTED),
    ({"where": {"walk": 1}}, lambda entry: _walks(entry)),
    ({"where": {"tags": ["b"]}}, lambda entry: "b" in (entry.metadata or {}).get("tags", [])),
    ({"where": {"tags": []}}, lambda entry: "tags" in (entry.metadata or {})),
    ({"where": {"camera": {"make": "x"}, "walk": 2}}, lambda entry: "camera" in (entry.metadata or {})),
    ({"where": {"walk": 1}, "near": Near(0.0, 180.0, 30.0)}, lambda entry: abs(entry.lon or 0) > 179 and _walks(entry)),
    ({"where": {"walk": 7}}, lambda entry: False),
]


def _walks(entry: Entry) -> bool:
    return isinstance(walk := (entry.metadata or {}).get("walk"), int | float) and walk == 1 and walk is not True


#: A picture, k, a filter and exclude: photos as they are picked, or those that show the picture.
Asked = tuple[int, int, int | None, list[int] | str | None]


@dataclass
class OldView:
    """A view that was searched, with what it said then."""

    view: View
    query: Vector
    said: Neighbours


class IndexAndDictionary(RuleBasedStateMachine):
    """Whatever is added, changed, removed, rebuilt, rolled back and restarted: the index finds what `shows` says."""

    pictures = st.integers(0, len(PICTURES) - 1)
    #: Positions among the photos there are, counted round.
    picks = st.lists(st.integers(0, 150), max_size=12)
    queries = st.tuples(
        pictures,
        st.sampled_from([1, 3, 10, 60, 400]),
        st.none() | st.integers(0, len(FILTERS) - 1),
        st.none() | picks | st.just("copies"),
    )

    def __init__(self, store: PostgresStore, folder: Path) -> None:
        super().__init__()
        empty(store)
        self.store = store
        self.path = folder
        self.folder = GenerationFolder(folder)
        self.names = count()
        self.name_of: dict[int, str] = {}  #: every photo there ever was
        self.shows: dict[int, int] = {}  #: the picture of every photo that is indexed
        self.known: dict[int, Entry] = {}  #: what was said last of every photo there ever was
        self.told = count()
        self.live = live_on(store, self.folder)
        self.purged: set[int] = set()  #: since the last rebuild
        self.lagging = live_on(store, self.folder)
        self.old: list[OldView] = []

    def teardown(self) -> None:
        self.look_at_old_views()
        self.live.close()
        self.lagging.close()
        shutil.rmtree(self.path, ignore_errors=True)

    def write(self, names: Sequence[str], shown: Sequence[int]) -> None:
        new = [
            replace(entry(name, PICTURES[picture]), content_sha256=f"picture-{picture}", metadata=metadata, given=given)
            for name, picture in zip(names, shown, strict=True)
            for metadata, given in [TOLD[next(self.told) % len(TOLD)]]
        ]
        for written, picture in zip(self.store.entries.put_many(new, KEY), shown, strict=True):
            self.name_of[written.entry.photo_id] = written.ref
            self.shows[written.entry.photo_id] = picture
            self.known[written.entry.photo_id] = written.entry

    def picked(self, among: Collection[int], picks: list[int]) -> list[int]:
        photos = list(among)
        return list(dict.fromkeys(photos[pick % len(photos)] for pick in picks)) if photos else []

    @initialize(shown=st.lists(pictures, min_size=1, max_size=30))
    def begin(self, shown: list[int]) -> None:
        self.add(shown)

    @rule(shown=st.lists(pictures, min_size=1, max_size=12))
    def add(self, shown: list[int]) -> None:
        self.write([f"photo {next(self.names)}" for _ in shown], shown)

    @rule(picks=picks, picture=pictures)
    def update(self, picks: list[int], picture: int) -> None:
        photos = self.picked(self.shows, picks)
        self.write(
            [self.name_of[photo] for photo in photos],
            [(self.shows[photo] + picture) % len(PICTURES) for photo in photos],
        )

    @rule(picks=picks)
    def put_again(self, picks: list[int]) -> None:
        photos = self.picked(self.shows, picks)
        self.write([self.name_of[photo] for photo in photos], [self.shows[photo] for photo in photos])

    @rule(picks=picks)
    def remove(self, picks: list[int]) -> None:
        photos = self.picked(self.name_of, picks)
        removed = self.store.entries.remove_many(photos)
        assert {photo: was for photo, (_, was) in removed.items()} == {photo: photo in self.shows for photo in photos}
        for photo in photos:
            self.shows.pop(photo, None)

    @rule(picks=picks)
    def purge(self, picks: list[int]) -> None:
        photos = self.picked(self.name_of, picks[:3])
        self.store.entries.purge_many(photos)
        for photo in photos:
            self.shows.pop(photo, None)
            self.purged.add(photo)

    @rule(picks=picks, picture=pictures)
    def bring_back(self, picks: list[int], picture: int) -> None:
        photos = self.picked(self.name_of.keys() - self.shows.keys(), picks)
        self.write([self.name_of[photo] for photo in sorted(photos)], [picture] * len(photos))

    @rule(keep=st.sampled_from([1, 2, 3]))
    def rebuild(self, keep: int) -> None:
        number = publish(self.store, self.folder, keep)
        assert self.folder.open(number, model_key=KEY).ids.tolist() == sorted(self.shows)
        assert {path.name for path in self.path.iterdir()} == {f"{g.number:06d}" for g in self.store.generations.kept()}
        for kept in self.store.generations.kept():
            held = set(self.folder.open(kept.number, model_key=KEY).ids.tolist())
            assert not held & (self.purged - self.shows.keys()), "a purged photo is in no generation any more"
        self.purged.clear()

    @precondition(lambda self: len(self.store.generations.kept()) > 1)
    @rule(pick=st.integers(0, 2))
    def roll_back(self, pick: int) -> None:
        kept = self.store.generations.kept()
        self.store.generations.roll_back(kept[pick % len(kept)].number)

    @rule()
    def restart(self) -> None:
        self.live.close()
        self.live = live_on(self.store, self.folder)

    @rule()
    def settle(self) -> None:
        # The first may wait for a generation that was wanted earlier.
        self.live.settle()
        self.live.settle()
        assert self.live.generation == number_serving(self.store)

    @rule(query=queries)
    def search(self, query: Asked) -> None:
        self.look_for(query, self.live)

    @rule(query=queries)
    def search_where_it_is_long_ago(self, query: Asked) -> None:
        self.look_for(query, self.lagging)

    def look_for(self, asked: Asked, live: FaissLiveIndex) -> None:
        picture, k, filtered, exclude = asked
        query = PICTURES[picture]
        asked_for, passes = FILTERS[filtered] if filtered is not None else ({}, lambda _: True)
        if isinstance(exclude, str):
            denied = [photo for photo, shown in self.shows.items() if shown == picture]
        else:
            denied = [] if exclude is None else self.picked(self.name_of, exclude)

        live.catch_up()
        found = live.search(
            query,
            k,
            among=Filter(**asked_for) if asked_for else None,
            exclude=None if exclude is None else np.array([*denied, 2**62], dtype=np.int64),
        )

        truth = {
            photo: float(PICTURES[shown] @ query)
            for photo, shown in self.shows.items()
            if photo not in denied and passes(self.known[photo])
        }
        assert_equals_truth(found, k, truth)
        assert live.count == len(self.shows)
        assert found.seq == live.seq

    @rule(picture=pictures)
    def keep_a_view(self, picture: int) -> None:
        self.live.settle()
        view = self.live._view
        assert view is not None
        self.old.append(OldView(view, PICTURES[picture], self.live.search(PICTURES[picture], 400)))

    @rule()
    def look_at_old_views(self) -> None:
        """A search that began long ago sees what it saw, whatever has happened to the layers since."""
        reader = live_on(self.store, self.folder)
        for old in self.old:
            reader._view = old.view
            found = reader.search(old.query, 400)
            # A generation that was brought between the two looks of keep_a_view answers in other precision.
            if found.generation == old.said.generation and found.seq == old.said.seq:
                assert found.ids.tolist() == old.said.ids.tolist()


def test_the_index_finds_what_a_dictionary_finds(
    make_store: Callable[..., PostgresStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So few that both ways of leaving photos out are taken.
    monkeypatch.setattr(view_module, "SPARE", 3)
    # Some pairs of metadata are common and some are left to Postgres.
    monkeypatch.setattr(columns_module, "COMMON", 6)
    store, numbers = make_store(), count()

    class Example(IndexAndDictionary):
        def __init__(self) -> None:
            super().__init__(store, tmp_path / f"example {next(numbers)}")

    run_state_machine_as_test(
        Example,
        settings=hypothesis_settings(
            derandomize=True,
            max_examples=20,
            stateful_step_count=25,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("copies_count", [5, 60])
@pytest.mark.parametrize("put_again", [False, True])
def test_the_copies_of_a_photo_push_no_others_out(
    store: PostgresStore, folder: GenerationFolder, copies_count: int, put_again: bool
) -> None:
    """Uploads of one file, left out of the answer. Put again since the last rebuild, they are hidden in it too."""
    rows = vectors(20, seed=6)
    same = replace(entry("copy 0", rows[0]), content_sha256="same")
    copies = [replace(same, ref=f"copy {i}", path=f"/{i}", spellings=(f"/{i}",)) for i in range(copies_count)]
    copy_ids = [written.entry.photo_id for written in store.entries.put_many(copies, KEY)]
    others = [put(store, f"other {i}", row)[0] for i, row in enumerate(rows[1:])]
    publish(store, folder)
    if put_again:
        store.entries.put_many(copies, KEY)
    live = live_on(store, folder)
    live.settle()

    found = live.search(rows[0], 10, exclude=np.array(copy_ids, dtype=np.int64))

    truth = dict(zip(others, (rows[1:] @ rows[0]).tolist(), strict=True))
    assert_equals_truth(found, 10, truth)


@pytest.mark.parametrize("gone_count", [5, 60])
def test_photos_that_are_gone_push_no_others_out(
    store: PostgresStore, folder: GenerationFolder, gone_count: int
) -> None:
    rows = vectors(20, seed=6)
    new = [replace(entry(f"gone {i}", rows[0]), content_sha256="same") for i in range(gone_count)]
    gone_ids = [written.entry.photo_id for written in store.entries.put_many(new, KEY)]
    others = [put(store, f"other {i}", row)[0] for i, row in enumerate(rows[1:])]
    publish(store, folder)
    store.entries.remove_many(gone_ids)
    live = live_on(store, folder)
    live.settle()

    found = live.search(rows[0], 10)

    assert_equals_truth(found, 10, dict(zip(others, (rows[1:] @ rows[0]).tolist(), strict=True)))


def test_a_delta_that_outgrows_its_room_keeps_what_it_held(store: PostgresStore, folder: GenerationFolder) -> None:
    rows = vectors(2 * view_module.FIRST_ROOM, seed=16)
    live = live_on(store, folder)
    live.catch_up()
    truth = {put(store, f"photo {i}", rows[i])[0]: rows[i] for i in range(5)}
    ids = list(truth)
    live.catch_up()
    store.entries.remove_many(ids[:1])
    (moved,) = store.entries.put_many([replace(entry("photo 1", rows[5]), content_sha256="moved")], KEY)
    live.catch_up()
    view = live._view

    many = [entry(f"photo {i}", row) for i, row in enumerate(rows[6:], start=6)]
    new = store.entries.put_many(many, KEY)
    live.catch_up()

    assert moved.entry.photo_id == ids[1]
    truth |= {ids[1]: rows[5]} | {w.entry.photo_id: row for w, row in zip(new, rows[6:], strict=True)}
    del truth[ids[0]]
    assert live.count == len(truth) > view_module.FIRST_ROOM
    found = live.search(rows[0], 1_000)
    assert_equals_truth(found, 1_000, {photo_id: float(row @ rows[0]) for photo_id, row in truth.items()})
    old = live_on(store, folder)
    old._view = view
    assert sorted(old.search(rows[0], 1_000).ids.tolist()) == ids[1:]


@pytest.mark.parametrize("more", [1, 2])
def test_a_reader_that_the_log_has_left_behind_begins_anew(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder, more: int
) -> None:
    """By one change, which is enough to miss one, or by more."""
    store, rows = make_store(), vectors(9, seed=7)
    ids = [put(store, f"photo {i}", rows[i])[0] for i in range(2)]
    sleeper = live_on(make_store(), folder)
    sleeper.catch_up()
    store.entries.remove_many(ids[:1])
    ids += [put(store, f"photo {i}", rows[i])[0] for i in range(2, 2 + more)]
    publish(store, folder, keep=1)
    ids.append(put(store, "last", rows[8])[0])

    sleeper.catch_up()

    assert sorted(sleeper.search(rows[0], 9).ids.tolist()) == ids[1:]


@pytest.mark.parametrize("meanwhile", ["while it is opened", "after the log was read"])
@pytest.mark.parametrize("process", ["runs", "starts"])
def test_a_generation_that_is_brought_loses_nothing_when_the_log_is_forgotten_meanwhile(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder, tmp_path: Path, process: str, meanwhile: str
) -> None:
    rows = vectors(4, seed=7)
    store = make_store()
    gone, seq = put(store, "gone", rows[0])
    photos_at = {seq: [gone]}
    first: list[int] = []

    def replace_the_first(number: int, moment: str) -> None:
        """Two photos come, one goes, and a second generation takes the place of the first."""
        if moment == meanwhile and first == [number]:
            first.clear()
            early, _ = put(store, "early", rows[1])
            store.entries.remove_many([gone])
            late, seq = put(store, "late", rows[2])
            photos_at[seq] = [early, late]
            publish(store, folder, keep=1)

    class Opening(GenerationFolder):
        def open(self, number: int, **which: Any) -> Generation:
            opened = super().open(number, **which)
            replace_the_first(number, "while it is opened")
            return opened

    class Interrupted(FaissLiveIndex):
        def _onto(self, base: Generation) -> tuple[Layers, View] | None:
            served = super()._onto(base)
            replace_the_first(base.manifest.number, "after the log was read")
            return served

    live = Interrupted(make_store().log, Opening(tmp_path / "index"), model_key=KEY, dimension=DIM)
    if process == "runs":
        live.catch_up()
    first.append(publish(store, folder))

    live.settle()
    found = live.search(rows[0], 10)

    assert first == [], "so that it happened"
    assert sorted(found.ids.tolist()) == photos_at[found.seq]
    live.settle()
    live.settle()
    assert live.seq == max(photos_at)
    assert live.generation == number_serving(store)


def test_a_generation_without_photos_goes_on_serving_when_the_first_photo_comes(
    store: PostgresStore, folder: GenerationFolder
) -> None:
    number = publish(store, folder)
    put(store, "first", vectors(1)[0])
    live = live_on(store, folder)

    live.settle()

    assert live.generation == number


# ------------------------------------------------------------------- whose vector stands at which position


def vector_of(content: bytes) -> Vector:
    own: Vector = vectors(1, seed=int.from_bytes(hashlib.sha256(content).digest()[:8], "little"))[0]
    return own


class Bytes:
    """Photos without pixels: what a file holds decides its vector, and whether there is one."""

    name, model_key, dimension, device, backend, input_side, has_text = "bytes", KEY, DIM, "cpu", "none", 8, False

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def fetch(self, photo: Photo) -> bytes:
        content = self.files.get(photo.path or "", b"")
        if not content:
            raise PhotoRefusal(Code.NOT_FOUND, f"{photo.path} is not there")
        return content

    def facts(self, paths: Sequence[str]) -> list[FileFacts | UnknownFile | None]:
        return [None for _ in paths]

    def beside(self, path: str, names: Iterable[tuple[T, str]], *, limit: int) -> Iterator[tuple[T, bytes]]:
        return iter(())

    def spellings(self, path: str) -> tuple[str, ...]:
        return (path,)

    def decode(self, content: bytes) -> Decoded:
        if content.startswith(b"torn"):
            raise PhotoRefusal(Code.DAMAGED_IMAGE, "torn")
        return Decoded(np.frombuffer(content, dtype=np.uint8))

    def prepare(self, pixels: Pixels) -> Pixels:
        return pixels

    def encode_images(self, photos: Sequence[Pixels]) -> Vectors:
        contents = [pixels.tobytes() for pixels in photos]
        if any(content.startswith(b"poison") for content in contents):
            raise Permanent(Code.INTERNAL, "the model fails on one of these")
        return np.array([vector_of(content) for content in contents], dtype=np.float32).reshape(-1, DIM)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        raise NotImplementedError


paths = st.integers(0, 11).map("/{}.jpg".format)
#: A few whole pictures, so that some photos share one, among files that fail in each of three ways.
contents = st.sampled_from([b"picture %d" % i for i in range(9)] + [b"torn", b"poison", b""])
sent = st.dictionaries(paths, contents, min_size=1, max_size=9).map(lambda files: ("sent", files))
inserted = st.dictionaries(paths, contents, min_size=1, max_size=4).map(lambda files: ("inserted", files))
removed = st.dictionaries(paths, st.just(b""), min_size=1, max_size=3).map(lambda files: ("removed", files))
#: What happens before each of several rebuilds.
rounds = st.lists(st.lists(sent | inserted | removed, min_size=1, max_size=4), min_size=2, max_size=4)


def test_every_stored_vector_is_its_own_photos(
    settings: Settings, make_store: Callable[..., PostgresStore], tmp_path: Path
) -> None:
    """Photos fail, are removed, come in any order and share batches with others; then all positions are looked at."""
    store, numbers = make_store(), count()
    few_at_once = settings.model_copy(update={"encode_batch": 4})

    @hypothesis_settings(derandomize=True, max_examples=15)
    @given(rounds)
    def holds(rounds: list[list[tuple[str, dict[str, bytes]]]]) -> None:
        empty(store)
        photos, folder = Bytes(), GenerationFolder(tmp_path / f"example {next(numbers)}")
        library = Library.join(
            few_at_once,
            encoder=photos,
            decode=photos.decode,
            find_keypoints=lambda content, decoded: Keypoints.none(),
            source=photos,
            store=store,
            live=live_on(store, folder),
            generations=folder,
            quarantine=Quarantine(store.attempts, after=3),
        )
        own: dict[int, bytes] = {}
        waiting: dict[int, str] = {}

        for happenings in rounds:
            for what, files in happenings:
                known = id_by_path(store)
                if what == "removed":
                    gone = [known[path] for path in files if path in known]
                    library.photos.remove_many(gone)
                    for photo_id in gone:
                        own.pop(photo_id, None)
                        waiting.pop(photo_id, None)
                elif what == "inserted":
                    new = {path: content for path, content in files.items() if path not in known}
                    photos.files |= new
                    waiting |= insert_rows(store, new)
                else:
                    photos.files |= files
                    items = [
                        NewPhoto(path, Photo(path=path), lat=1.0, lon=2.0, provenance=Provenance.SURVEYED)
                        for path in files
                    ]
                    for outcome in library.photos.add_many(items).outcomes:
                        if isinstance(outcome, Stored):
                            own[outcome.photo_id] = files[outcome.ref]
                            waiting.pop(outcome.photo_id, None)
            number = library.rebuilding.rebuild().generation
            own |= {i: photos.files[path] for i, path in waiting.items() if photos.files[path].startswith(b"picture")}
            waiting = {photo_id: path for photo_id, path in waiting.items() if photo_id not in own}

            generation = folder.open(number, model_key=KEY)
            assert generation.ids.tolist() == sorted(own)
            if own:
                stored = searching.vectors_at(generation.index, np.arange(len(generation.ids)))
                theirs = np.array([vector_of(own[photo_id]) for photo_id in generation.ids.tolist()])
                assert np.allclose(stored, theirs, atol=ROUNDING)

    holds()


def id_by_path(store: PostgresStore) -> dict[str, int]:
    with store.database.engine.connect() as connection:
        rows = connection.execute(text(f"SELECT file_path, id FROM {store.settings.photos_table}"))
        return {row.file_path: row.id for row in rows}


def insert_rows(store: PostgresStore, files: Collection[str]) -> dict[int, str]:
    """Rows that the backend inserts itself, with coordinates, so that the next rebuild takes them in."""
    insert = f"INSERT INTO {store.settings.photos_table} (file_path, lat, lon) VALUES (:path, 1, 2) RETURNING id"
    with store.database.engine.begin() as connection:
        return {int(connection.scalar(text(insert), {"path": path}) or 0): path for path in files}


# ------------------------------------------------------------------------------ many writers, many readers


def waiting_for_a_lock(store: PostgresStore) -> int:
    with store.database.engine.connect() as connection:
        query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return int(connection.scalar(text(query)) or 0)


def test_readers_between_the_seq_and_the_commit_of_a_slow_writer_lose_nothing(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder
) -> None:
    rows = vectors(6, seed=8)
    store = make_store()
    put(store, "before", rows[0])
    lives = [live_on(make_store(), folder) for _ in range(2)]
    slow = make_store()
    arrived, go_on = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        arrived.set()
        go_on.wait(10)

    event.listen(slow.database.engine, "commit", hold)
    writers = [threading.Thread(target=put, args=(slow, "slow", rows[1]))]
    writers += [threading.Thread(target=put, args=(make_store(), f"fast {i}", rows[i])) for i in range(2, 6)]

    writers[0].start()
    assert arrived.wait(10)
    for writer in writers[1:]:
        writer.start()
    # The fast ones draw their seqs and wait behind the slow one, or have committed larger ones already.
    until(lambda: waiting_for_a_lock(store) + sum(not writer.is_alive() for writer in writers) >= 4)
    for live in lives:
        live.catch_up()
    go_on.set()
    for writer in writers:
        writer.join()

    for live in lives:
        live.catch_up()
        found = {int(live.search(row, 1).ids[0]): float(live.search(row, 1).similarities[0]) for row in rows}
        assert len(found) == live.count == 6
        assert min(found.values()) > 1 - ROUNDING


def test_many_writers_at_once_are_all_seen_and_each_write_at_once(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder
) -> None:
    """Every writer reads its own writes through two other processes' indexes, which never stop catching up."""
    rows = vectors(40, seed=9)
    lives = [live_on(make_store(), folder) for _ in range(2)]
    stop = threading.Event()
    kept: set[int] = set()
    wrong: list[str] = []

    def write(store: PostgresStore, mine: Sequence[int], seed: int) -> None:
        pauses = np.random.default_rng(seed)
        # Between its seq and its commit, so that the others come in between, if they can.
        event.listen(store.database.engine, "commit", lambda _: time.sleep(pauses.uniform(0, 0.004)))
        for i in mine:
            photo_id, seq = put(store, f"photo {i}", rows[i])
            kept.add(photo_id)
            for live in lives:
                if live.catch_up() < seq or live.search(rows[i], 1).ids.tolist() != [photo_id]:
                    wrong.append(f"photo {i} is not there after its write")
            if i % 3 == 0:
                ((seq, _),) = store.entries.remove_many([photo_id]).values()
                kept.discard(photo_id)
                for live in lives:
                    if live.catch_up() < seq or photo_id in live.search(rows[i], 3).ids:
                        wrong.append(f"photo {i} is there after its removal")

    def read(live: FaissLiveIndex) -> None:
        reached = 0
        while not stop.is_set():
            before, reached = reached, live.catch_up()
            if reached < before:
                wrong.append(f"from {before} back to {reached}")

    writers = [threading.Thread(target=write, args=(make_store(), range(i, 40, 5), i)) for i in range(5)]
    readers = [threading.Thread(target=read, args=(live,)) for live in lives]

    for thread in [*readers, *writers]:
        thread.start()
    for writer in writers:
        writer.join()
    stop.set()
    for reader in readers:
        reader.join()

    assert wrong == []
    for live in lives:
        live.catch_up()
        assert set(live.search(rows[0], 99).ids.tolist()) == kept
        assert live.count == len(kept) == 26


# ------------------------------------------------------------------------------------------ how fresh


@dataclass
class Reads:
    """How often the change log was read, and what happens while it is."""

    store: PostgresStore
    times: int = 0
    after: list[Callable[[], None]] = field(default_factory=list)

    @classmethod
    def of(cls, store: PostgresStore) -> Reads:
        reads = cls(store)
        original = store.log.changes_after

        def counted(since: Mark, model_key: str, dimension: int, *, items: bool = True) -> Changes:
            reads.times += 1
            changes = original(since, model_key, dimension, items=items)
            if reads.after:
                reads.after.pop()()
            return changes

        store.log.changes_after = counted  # type: ignore[method-assign]
        return reads


@dataclass
class Clock:
    now: float = 1000.0

    def monotonic(self) -> float:
        self.now += 1e-6
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(live_module, "time", clock)
    return clock


def test_a_search_that_may_be_stale_reads_the_log_only_when_it_is_old(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder, clock: Clock
) -> None:
    store, reads = make_store(), Reads.of(make_store())
    live = live_on(reads.store, folder)
    live.catch_up()
    at_first = reads.times
    photo_id, seq = put(store, "a", vectors(1)[0])

    clock.now += 4.9
    fresh = live.catch_up(max_age_s=5.0)
    reads_while_fresh = reads.times
    clock.now += 0.2
    old = live.catch_up(max_age_s=5.0)
    reads_when_old = reads.times

    assert (fresh, reads_while_fresh) == (0, at_first)
    assert old == seq
    assert reads_when_old > at_first
    assert live.search(vectors(1)[0], 1).ids.tolist() == [photo_id]
    assert reads.times == reads_when_old, "a search by itself reads nothing"


def test_how_old_a_view_is_counts_from_before_the_log_was_read(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder, clock: Clock
) -> None:
    """A slow read is as old as its snapshot: what was committed while it ran is not in it."""
    store, reads = make_store(), Reads.of(make_store())
    live = live_on(reads.store, folder)
    live.catch_up()
    seqs: list[int] = []

    def meanwhile() -> None:
        seqs.append(put(store, "meanwhile", vectors(1)[0])[1])
        clock.now += 10.0

    reads.after.append(meanwhile)
    live.catch_up()
    clock.now += 1.0

    assert live.catch_up(max_age_s=5.0) == seqs[0]


def test_who_waits_for_a_catch_up_that_began_earlier_makes_one_of_its_own(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder
) -> None:
    store, reads = make_store(), Reads.of(make_store())
    live = live_on(reads.store, folder)
    live.catch_up()
    has_read, go_on = threading.Event(), threading.Event()
    reached: list[int] = []

    def hold() -> None:
        has_read.set()
        go_on.wait(10)

    reads.after.append(hold)
    early = threading.Thread(target=live.catch_up)
    late = threading.Thread(target=lambda: reached.append(live.catch_up()))

    early.start()
    assert has_read.wait(10)
    _, seq = put(store, "a", vectors(1)[0])
    late.start()
    go_on.set()
    early.join()
    late.join()

    assert reached == [seq]


def test_many_that_wait_for_one_catch_up_share_the_next(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder
) -> None:
    reads = Reads.of(make_store())
    live = live_on(reads.store, folder)
    live.catch_up()
    has_read, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        has_read.set()
        go_on.wait(10)

    before = reads.times
    reads.after.append(hold)
    threads = [threading.Thread(target=live.catch_up) for _ in range(20)]

    threads[0].start()
    assert has_read.wait(10)
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join()

    assert reads.times - before < 20


def test_an_index_that_postgres_fails_says_so_and_goes_on_later(
    make_store: Callable[..., PostgresStore], folder: GenerationFolder
) -> None:
    store, reads = make_store(), Reads.of(make_store())
    live = live_on(reads.store, folder)
    first_id, _ = put(store, "a", vectors(2)[0])
    live.catch_up()
    second_id, seq = put(store, "b", vectors(2)[1])

    def away() -> None:
        raise Transient(Code.UNAVAILABLE, "Postgres is away")

    reads.after.append(away)
    with pytest.raises(Transient):
        live.catch_up()

    assert live.search(vectors(2)[1], 9).ids.tolist() == [first_id], "what it knows it still finds"
    assert live.catch_up(max_age_s=0.0) == seq
    assert live.search(vectors(2)[1], 1).ids.tolist() == [second_id]
