"""The verbs over a real model, a real Postgres and real files: add, search, locate, rebuild."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text

from producer_client.contract import (
    Code,
    Embedded,
    EmbedItem,
    Locate,
    Near,
    NewPhoto,
    Photo,
    Provenance,
    Purged,
    Reason,
    Refused,
    Removed,
    Search,
    Stored,
    Stuck,
)
from tests.conftest import Scene, is_killed, until
from worker.core.batcher import Expected
from worker.core.generations import Built
from worker.core.ports import Encoder
from worker.core.types import Decoded, Filter, Pixels
from worker.core.vectors import BadVector, Vector, Vectors
from worker.embedding import READ_AHEAD
from worker.encoder.images import decode
from worker.encoder.load import load_encoder
from worker.errors import Permanent, PhotoRefusal, Stale, Transient
from worker.index.folder import GenerationFolder
from worker.library import Library
from worker.library.questions import Recent
from worker.settings import Settings
from worker.storage.entries import Entries
from worker.storage.source import PhotoFiles
from worker.storage.store import PostgresStore

#: Seconds that anything may take here before its test fails.
PATIENCE_S = 20.0


def new(scene: Scene, provenance: Provenance | None = Provenance.SURVEYED, **changed: Any) -> NewPhoto:
    values: dict[str, Any] = {
        "ref": str(scene.path),
        "photo": Photo(path=str(scene.path)),
        "lat": scene.lat,
        "lon": scene.lon,
        "provenance": provenance,
    }
    return NewPhoto(**(values | changed))


def stored(library: Library, items: Sequence[NewPhoto]) -> list[Stored]:
    outcomes = library.photos.add_many(items).outcomes
    assert [type(outcome) for outcome in outcomes] == [Stored] * len(items), outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, Stored)]


def of_place(scenes: list[Scene], number: int) -> list[Scene]:
    place = sorted({scene.place for scene in scenes})[number]
    return [scene for scene in scenes if scene.place == place]


def held_back(scenes: list[Scene]) -> tuple[Scene, list[Scene]]:
    """One photo from the middle of a walk, and the others of that place."""
    photos = of_place(scenes, 0)
    return photos[2], [photo for photo in photos if photo != photos[2]]


def counting_decode(decoded: list[bytes]) -> Callable[[bytes], Decoded]:
    def count(content: bytes) -> Decoded:
        decoded.append(content)
        return decode(content, side=224, max_megapixels=100)

    return count


def insert_rows(store: PostgresStore, settings: Settings, rows: list[tuple[str, float | None, float | None]]) -> None:
    """Rows as the backend writes them."""
    with store.database.engine.begin() as connection:
        for path, lat, lon in rows:
            connection.execute(
                text(
                    f"INSERT INTO {settings.photos_table} (file_path, lat, lon, location_method) "
                    "VALUES (:path, :lat, :lon, 'exif')"
                ),
                {"path": path, "lat": lat, "lon": lon},
            )


class Counting:
    """A real encoder that counts the photos that it is given, and fails on those it is told to."""

    def __init__(self, inner: Encoder, poison: Sequence[Pixels] = ()) -> None:
        self._inner = inner
        self._poison = poison
        self.photos = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def encode_images(self, photos: Sequence[Pixels]) -> Vectors:
        if any(np.array_equal(photo, bad) for photo in photos for bad in self._poison):
            raise BadVector("row 0 is zero or not finite")
        self.photos += len(photos)
        return self._inner.encode_images(photos)


class OfAnotherModel(Counting):
    model_key = "other@1"


# ------------------------------------------------------------------------------------------------ add


def test_an_added_photo_is_found_by_the_next_search(library: Library, scenes: list[Scene]) -> None:
    first, second, *_ = of_place(scenes, 0)
    (added,) = stored(library, [new(first, address={"street": "Long Street"}, metadata={"walk": 7})])

    reply = library.questions.search(Search(photo=Photo(path=str(second.path)), threshold=0.0, min_seq=added.seq))

    (hit,) = reply.hits
    assert (hit.photo_id, hit.path) == (added.photo_id, str(first.path))
    assert (hit.lat, hit.lon, hit.provenance) == (first.lat, first.lon, Provenance.SURVEYED)
    assert (hit.address, hit.metadata) == ({"street": "Long Street"}, {"walk": 7})
    assert 0 < hit.similarity < 1
    assert reply.seq >= added.seq


def test_coordinates_come_from_the_exif_tags_where_none_are_given(library: Library, scenes: list[Scene]) -> None:
    (added,) = stored(library, [new(scenes[0], lat=None, lon=None, provenance=None)])

    assert added.provenance is Provenance.EXIF_GPS
    assert (added.lat, added.lon) == pytest.approx((scenes[0].lat, scenes[0].lon), abs=1e-5)


def test_a_batch_survives_its_worst_items(library: Library, scenes: list[Scene], photo_root: Path) -> None:
    torn = photo_root / "torn.jpg"
    torn.write_bytes(scenes[0].path.read_bytes()[:5000])
    items: list[NewPhoto | Refused] = [
        new(scenes[0]),
        NewPhoto("torn", Photo(path=str(torn))),
        NewPhoto("missing", Photo(path=str(photo_root / "no such.jpg"))),
        NewPhoto("outside", Photo(path="/etc/hostname")),
        NewPhoto("row", Photo(photo_id=4711)),
        Refused("read before", Code.BAD_COORDINATES, "latitude 91"),
        new(scenes[1]),
    ]

    outcomes = library.photos.add_many(items).outcomes

    assert [o.ref for o in outcomes] == [
        str(scenes[0].path),
        "torn",
        "missing",
        "outside",
        "row",
        "read before",
        str(scenes[1].path),
    ]
    assert [o.code if isinstance(o, Refused) else "stored" for o in outcomes] == [
        "stored",
        Code.DAMAGED_IMAGE,
        Code.NOT_FOUND,
        Code.OUTSIDE_ROOTS,
        Code.UNKNOWN_PHOTO,
        Code.BAD_COORDINATES,
        "stored",
    ]


def test_every_vector_is_its_own_photos_whatever_fails_beside_it(
    library: Library, store: PostgresStore, scenes: list[Scene], encoder: Encoder, photo_root: Path
) -> None:
    broken = photo_root / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 not a photo")
    items: list[NewPhoto] = []
    for number, scene in enumerate(scenes[:12]):
        items.append(new(scene))
        if number % 3 == 0:
            items.append(NewPhoto(f"broken {number}", Photo(path=str(broken))))

    outcomes = library.photos.add_many(items).outcomes

    for outcome in outcomes:
        if isinstance(outcome, Stored):
            own = decode(Path(outcome.ref).read_bytes(), side=224, max_megapixels=100).pixels
            (alone,) = encoder.encode_images([own])
            kept = store.vectors.known([outcome.content_sha256], encoder.model_key)[outcome.content_sha256]
            assert float(kept @ alone) > 0.9999
    assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 4


def test_a_photo_that_the_model_cannot_take_fails_alone(
    make_library: Callable[..., Library], scenes: list[Scene], encoder: Encoder
) -> None:
    poison = encoder.prepare(decode(scenes[1].path.read_bytes(), side=224, max_megapixels=100).pixels)
    library = make_library(encoder=Counting(encoder, [poison]))

    outcomes = library.photos.add_many([new(scene) for scene in scenes[:3]]).outcomes

    assert [o.status for o in outcomes] == ["stored", "refused", "stored"]
    assert isinstance(outcomes[1], Refused)
    assert outcomes[1].code is Code.BAD_VECTOR


def test_a_photo_on_which_the_decoder_itself_breaks_fails_alone(
    make_library: Callable[..., Library], scenes: list[Scene]
) -> None:
    poison = scenes[1].path.read_bytes()

    def breaks(content: bytes) -> Decoded:
        if content == poison:
            raise ZeroDivisionError("a case that its authors did not think of")
        return decode(content, side=224, max_megapixels=100)

    library = make_library(decode=breaks)

    outcomes = library.photos.add_many([new(scene) for scene in scenes[:3]]).outcomes

    assert [o.status for o in outcomes] == ["stored", "refused", "stored"]
    assert isinstance(outcomes[1], Refused)
    assert outcomes[1].code is Code.INTERNAL
    assert "decoding failed on this photo: ZeroDivisionError" in outcomes[1].message


def test_a_known_content_costs_no_forward_pass(
    make_library: Callable[..., Library], scenes: list[Scene], encoder: Encoder, photo_root: Path
) -> None:
    counting = Counting(encoder)
    library = make_library(encoder=counting)
    copy = photo_root / "a copy of one.jpg"
    shutil.copyfile(scenes[0].path, copy)
    (first,) = stored(library, [new(scenes[0])])

    (again, other) = stored(library, [new(scenes[0]), new(scenes[0], ref="copy", photo=Photo(path=str(copy)))])

    assert counting.photos == 1
    assert (first.embedded, again.embedded, other.embedded) == (True, False, False)
    assert again.photo_id == first.photo_id
    assert other.photo_id != first.photo_id
    assert other.content_sha256 == first.content_sha256
    assert library.statistics.stats(rss_mb=0).cache_hits == 2


def test_who_has_no_prefix_is_told_neither_what_confines_decoders_nor_what_was_stuck(
    library: Library, make_library: Callable[..., Library], settings: Settings
) -> None:
    """Clients of the releases before it take no field more."""
    stuck = [Stuck("sightline.search", "an id", 601, "2026-11-29T12:00:00+00:00", "images.py:1 decode")]
    former = make_library(settings=settings.model_copy(update={"key_prefix": ""}))

    told, untold = (of.statistics.stats(rss_mb=0, sandbox="rlimits", stuck=stuck).to_wire() for of in (library, former))

    assert (told["sandbox"], len(told["stuck"])) == ("rlimits", 1)
    assert not {"sandbox", "stuck"} & untold.keys()


def test_one_content_is_decoded_once_in_a_message(
    make_library: Callable[..., Library], scenes: list[Scene], encoder: Encoder, photo_root: Path
) -> None:
    decoded: list[bytes] = []
    library = make_library(decode=counting_decode(decoded), encoder=Counting(encoder))
    copy = photo_root / "the same under another name.jpg"
    shutil.copyfile(scenes[0].path, copy)

    first, other = stored(library, [new(scenes[0]), new(scenes[0], ref="copy", photo=Photo(path=str(copy)))])

    assert first.content_sha256 == other.content_sha256
    assert len(decoded) == 1
    assert library.statistics.stats(rss_mb=0).cache_misses == 1


def test_what_two_ask_for_at_the_same_time_is_decoded_by_one_of_them(
    make_library: Callable[..., Library], scenes: list[Scene], encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    expected: list[Expected] = []
    begun, both = threading.Event(), threading.Event()

    def decode_slowly(content: bytes) -> Decoded:
        begun.set()
        assert both.wait(PATIENCE_S)
        return counting_decode(decoded)(content)

    def expect(keys: Iterable[str]) -> Expected:
        expected.append(asked(keys))
        return expected[-1]

    library = make_library(decode=decode_slowly, encoder=Counting(encoder))
    asked = library.embedding.batcher.expect
    monkeypatch.setattr(library.embedding.batcher, "expect", expect)
    embed = EmbedItem("one", Photo(path=str(scenes[0].path)))
    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(library.photos.embed_many, [embed], return_vectors=True)
        assert begun.wait(PATIENCE_S)
        second = callers.submit(library.photos.embed_many, [embed], return_vectors=True)
        until(lambda: len(expected) == 2)
        both.set()
        replies = [first.result(), second.result()]

    vectors = [outcome.vector for reply in replies for outcome in reply.outcomes if isinstance(outcome, Embedded)]
    assert vectors[0] == vectors[1]
    assert len(decoded) == 1


def test_the_next_photos_are_read_while_the_model_works_on_some(
    make_library: Callable[..., Library], settings: Settings, scenes: list[Scene], encoder: Encoder
) -> None:
    last_is_read = threading.Event()

    class Waits(Counting):
        def encode_images(self, photos: Sequence[Pixels]) -> Vectors:
            assert last_is_read.wait(PATIENCE_S), "the model holds up the reading"
            return super().encode_images(photos)

    class Tells(PhotoFiles):
        def fetch(self, photo: Photo) -> bytes:
            if photo.path == str(scenes[READ_AHEAD].path):
                last_is_read.set()
            return super().fetch(photo)

    library = make_library(encoder=Waits(encoder), source=Tells(settings))

    assert len(stored(library, [new(scene) for scene in scenes[: READ_AHEAD + 1]])) == READ_AHEAD + 1


def test_a_message_that_breaks_off_ends_what_it_has_begun_and_leaves_nothing_waiting(
    make_library: Callable[..., Library],
    settings: Settings,
    store: PostgresStore,
    scenes: list[Scene],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken_off = threading.Event()
    known, calls = store.vectors.known, list[int]()

    def decode_late(content: bytes) -> Decoded:
        assert broken_off.wait(PATIENCE_S)
        return counting_decode([])(content)

    def fails_once(contents: Collection[str], model_key: str) -> dict[str, Vector]:
        calls.append(len(contents))
        if len(calls) == 2:
            broken_off.set()
            raise Transient(Code.UNAVAILABLE, "Postgres: no route to host")
        return known(contents, model_key)

    threads = settings.model_copy(update={"decode_threads": len(scenes)})  # reading waits behind decoding
    library = make_library(settings=threads, store=store, decode=decode_late)
    monkeypatch.setattr(store.vectors, "known", fails_once)

    with pytest.raises(Transient):
        library.photos.add_many([new(scene) for scene in scenes])

    assert calls == [READ_AHEAD, len(scenes) - READ_AHEAD]
    until(lambda: not library.embedding.batcher._in_hand)
    assert library.embedding.batcher.computed == READ_AHEAD
    assert len(stored(library, [new(scene) for scene in scenes])) == len(scenes)
    assert library.embedding.batcher.computed == len(scenes), "nothing twice"


def test_a_photo_that_is_located_and_then_added_goes_through_the_model_once(
    make_library: Callable[..., Library], store: PostgresStore, scenes: list[Scene], encoder: Encoder
) -> None:
    counting = Counting(encoder)
    library, scene = make_library(encoder=counting), scenes[0]
    photo = Photo(path=str(scene.path))

    library.questions.locate(Locate(photo=photo))
    library.questions.search(Search(photo=photo))
    (added,) = stored(library, [new(scene)])

    assert counting.photos == 1
    assert not added.embedded
    assert library.statistics.stats(rss_mb=0).cache_hits == 2
    assert library.statistics.stats(rss_mb=0).cache_misses == 1
    assert store.vectors.known([added.content_sha256], encoder.model_key), "its vector lies in Postgres all the same"


def test_a_process_remembers_no_more_vectors_than_it_is_told(
    make_library: Callable[..., Library], settings: Settings, scenes: list[Scene], encoder: Encoder
) -> None:
    counting = Counting(encoder)
    library = make_library(encoder=counting, settings=settings.model_copy(update={"recent_vectors": 1}))

    for scene in (scenes[0], scenes[1], scenes[0]):
        library.questions.locate(Locate(photo=Photo(path=str(scene.path))))

    assert counting.photos == 3


def test_what_a_process_remembers_is_forgotten_in_a_while(
    make_library: Callable[..., Library], scenes: list[Scene], encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.embedding.REMEMBER_S", 0.0)
    counting = Counting(encoder)
    library = make_library(encoder=counting)

    for _ in range(2):
        library.questions.locate(Locate(photo=Photo(path=str(scenes[0].path))))

    assert counting.photos == 2, "what is purged must not live on in a worker's memory"


def test_a_row_of_the_backend_is_added_by_its_id_and_not_rewritten(
    library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene]
) -> None:
    insert_rows(store, settings, [(str(scenes[0].path), None, None), (str(scenes[1].path), 1.0, 2.0)])

    first, second = stored(library, [NewPhoto("1", Photo(photo_id=1)), NewPhoto("2", Photo(photo_id=2))])

    assert first.provenance is Provenance.EXIF_GPS, "the photo's own tags fill what the row leaves open"
    assert (second.lat, second.lon, second.provenance) == (1.0, 2.0, Provenance.EXIF_GPS)
    with store.database.engine.connect() as connection:
        rows = connection.execute(text(f"SELECT lat, lon FROM {settings.photos_table} ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [(None, None), (1.0, 2.0)]


def test_inline_bytes_are_added_and_found(library: Library, scenes: list[Scene]) -> None:
    first, second, *_ = of_place(scenes, 0)
    (added,) = stored(library, [new(first, photo=Photo.of_bytes(first.path.read_bytes()))])

    hits = library.questions.search(Search(photo=Photo.of_bytes(second.path.read_bytes()), threshold=0.0)).hits

    assert [hit.photo_id for hit in hits] == [added.photo_id]


def test_a_database_that_takes_no_such_row_refuses_that_photo_alone(
    library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene]
) -> None:
    with store.database.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {settings.photos_table} ADD CHECK (lat <> 7)"))

    outcomes = library.photos.add_many([new(scenes[0]), new(scenes[1], lat=7.0), new(scenes[2])]).outcomes

    assert [o.status for o in outcomes] == ["stored", "refused", "stored"]
    assert isinstance(outcomes[1], Refused)
    assert outcomes[1].code is Code.ROW_REJECTED


def test_a_row_that_may_not_be_written_is_told_once_and_says_nothing_of_the_photo(
    library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene], encoder: Encoder
) -> None:
    insert_rows(store, settings, [(str(scene.path), None, None) for scene in scenes[:2]])
    with store.database.engine.begin() as connection:
        connection.execute(
            text(
                f"CREATE FUNCTION {settings.db_schema}.no() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE insufficient_privilege; END $$"
            )
        )
        connection.execute(
            text(
                f"CREATE TRIGGER no BEFORE INSERT OR UPDATE ON {settings.photos_table} "
                f"FOR EACH ROW EXECUTE FUNCTION {settings.db_schema}.no()"
            )
        )

    wanted = [new(scenes[0]), new(scenes[1], update_row=True), new(scenes[2])]
    stored_one, *refused = library.photos.add_many(wanted).outcomes

    assert isinstance(stored_one, Stored)
    for outcome in refused:
        assert isinstance(outcome, Refused)
        assert outcome.code is Code.NOT_READY
        assert "grant INSERT" in outcome.message
    assert store.entries.counts(encoder.model_key).refused == 0, "the reconciler sends for the one that has a row"


# ------------------------------------------------------------------------------------- embed and remove


def test_embedding_keeps_the_vector_without_adding_the_photo(library: Library, scenes: list[Scene]) -> None:
    item = EmbedItem("a", Photo(path=str(scenes[0].path)))

    (first,) = library.photos.embed_many([item], return_vectors=True).outcomes
    (again,) = library.photos.embed_many([item]).outcomes

    assert isinstance(first, Embedded)
    assert isinstance(again, Embedded)
    assert first.vector is not None
    assert np.linalg.norm(first.vector) == pytest.approx(1.0, abs=1e-5)
    assert (first.embedded, again.embedded, again.vector) == (True, False, None)
    assert library.questions.search(Search(vector=first.vector)).hits == []


def test_a_photo_of_the_index_that_lacked_this_models_vector_is_found_when_it_is_embedded(
    library: Library, make_library: Callable[..., Library], encoder: Encoder, scenes: list[Scene]
) -> None:
    of_other = make_library(encoder=OfAnotherModel(encoder))
    query, known = held_back(scenes)
    (first, *_) = stored(library, [new(scene) for scene in known])
    search = Search(photo=Photo(path=str(query.path)), threshold=0.0)
    before = of_other.questions.search(search).hits

    of_other.photos.embed_many([EmbedItem("a", Photo(path=str(known[0].path)))])

    assert before == []
    assert [hit.photo_id for hit in of_other.questions.search(search).hits] == [first.photo_id]
    assert len(library.questions.search(search).hits) == len(known)


def test_a_removed_photo_is_found_no_more_and_a_rebuild_does_not_bring_it_back(
    library: Library, scenes: list[Scene]
) -> None:
    first, second, third, *_ = of_place(scenes, 0)
    one, two = stored(library, [new(first), new(second)])

    (removed,) = library.photos.remove_many([one.photo_id]).outcomes
    after = library.questions.search(Search(photo=Photo(path=str(third.path)), threshold=0.0))
    library.rebuilding.rebuild()
    library.statistics.stats(rss_mb=0)  # waits until the new generation serves
    rebuilt = library.questions.search(Search(photo=Photo(path=str(third.path)), threshold=0.0))

    assert isinstance(removed, Removed)
    assert removed.was_indexed is True
    assert [hit.photo_id for hit in after.hits] == [two.photo_id]
    assert [hit.photo_id for hit in rebuilt.hits] == [two.photo_id]
    assert rebuilt.generation is not None


def test_what_a_generation_promises_is_told_by_the_rebuild_the_statistics_and_the_list(
    make_library: Callable[..., Library],
    store: PostgresStore,
    settings: Settings,
    scenes: list[Scene],
) -> None:
    class Promising(GenerationFolder):
        def write(self, *facts: Any, **how: Any) -> Built:
            return replace(super().write(*facts, **how), recall_at_10_at_least=promise)

    library = make_library(store=store, generations=Promising(settings.generations_dir))
    stored(library, [new(scenes[0])])
    before = library.statistics.stats(rss_mb=0).recall_at_10_at_least

    for promise in (0.971, 0.982):
        told = library.rebuilding.rebuild().recall_at_10_at_least
        assert (told, library.statistics.stats(rss_mb=0).recall_at_10_at_least) == (promise, promise)

    assert before is None
    assert [generation.recall_at_10_at_least for generation in store.generations.kept()] == [0.982, 0.971]


# ---------------------------------------------------------------------------------------------- search


def test_a_photo_and_its_copies_are_no_matches_of_themselves(
    library: Library, scenes: list[Scene], photo_root: Path
) -> None:
    first, second, *_ = of_place(scenes, 0)
    copy, stripped = photo_root / "copy.jpg", photo_root / "stripped.png"
    shutil.copyfile(first.path, copy)
    Image.open(first.path).save(stripped)
    added = stored(
        library,
        [
            new(first),
            new(first, ref="copy", photo=Photo(path=str(copy))),
            new(first, ref="same pixels", photo=Photo(path=str(stripped))),
            new(second),
        ],
    )
    other = added[3].photo_id

    by_path = library.questions.search(Search(photo=Photo(path=str(first.path)), top_k=1, threshold=0.0)).hits
    by_id = library.questions.search(Search(photo=Photo(photo_id=added[0].photo_id), top_k=1, threshold=0.0)).hits
    by_copy = library.questions.search(Search(photo=Photo.of_bytes(copy.read_bytes()), top_k=1, threshold=0.0)).hits

    assert [hit.photo_id for hit in by_path] == [other]
    assert [hit.photo_id for hit in by_id] == [other]
    assert [hit.photo_id for hit in by_copy] == [other]


def test_top_k_threshold_near_and_where_narrow_a_search(library: Library, scenes: list[Scene]) -> None:
    query, rest = held_back(scenes)
    added = stored(library, [new(scene, metadata={"even": i % 2 == 0}) for i, scene in enumerate(rest)])
    photo = Photo(path=str(query.path))

    everything = library.questions.search(Search(photo=photo, top_k=50, threshold=-1.0)).hits
    assert len(everything) == len(rest)
    assert [h.similarity for h in everything] == sorted((h.similarity for h in everything), reverse=True)
    assert library.questions.search(Search(photo=photo, top_k=2, threshold=-1.0)).hits == everything[:2]
    limit = everything[1].similarity
    assert [
        h.photo_id for h in library.questions.search(Search(photo=photo, top_k=50, threshold=limit - 1e-6)).hits
    ] == [h.photo_id for h in everything[:2]]
    even = library.questions.search(Search(photo=photo, top_k=50, threshold=-1.0, where={"even": True})).hits
    assert {h.photo_id for h in even} == {a.photo_id for i, a in enumerate(added) if i % 2 == 0}
    here = library.questions.search(Search(photo=photo, threshold=-1.0, near=Near(rest[0].lat, rest[0].lon, 0.5))).hits
    assert added[0].photo_id in {h.photo_id for h in here}
    assert library.questions.search(Search(photo=photo, threshold=-1.0, near=Near(0, 0, 1000))).hits == []


def test_a_vector_of_another_length_is_refused(library: Library) -> None:
    with pytest.raises(Permanent) as caught:
        library.questions.search(Search(vector=[1.0, 0.0]))

    assert caught.value.code is Code.BAD_VECTOR


def test_text_on_an_encoder_without_text_is_refused(library: Library) -> None:
    with pytest.raises(Permanent) as caught:
        library.questions.search(Search(text="a church"))

    assert caught.value.code is Code.NO_TEXT_ENCODER


def test_text_finds_photos_with_an_encoder_that_reads_text(
    make_library: Callable[..., Library], scenes: list[Scene]
) -> None:
    """Random weights: the order means nothing, the path is the real one."""
    library = make_library(encoder=load_encoder("open_clip/ViT-B-32/random", device="cpu", threads=2))
    added = stored(library, [new(scene) for scene in scenes[:3]])

    reply = library.questions.search(Search(text="a street with a church tower", top_k=2, min_seq=added[-1].seq))

    assert len(reply.hits) == 2
    assert {hit.photo_id for hit in reply.hits} <= {a.photo_id for a in added}
    assert reply.model_key.startswith("ViT-B-32-random@")
    embedded = library.photos.embed_text("a street with a church tower")
    by_vector = library.questions.search(
        Search(vector=embedded.vector, model_key=embedded.model_key, top_k=2, threshold=-1.0)
    )
    assert [hit.photo_id for hit in by_vector.hits] == [hit.photo_id for hit in reply.hits]


def test_a_write_that_never_comes_is_waited_for_and_then_stale(
    make_library: Callable[..., Library], settings: Settings
) -> None:
    library = make_library(settings=settings.model_copy(update={"min_seq_timeout_s": 0.1}))

    with pytest.raises(Stale) as caught:
        library.questions.search(Search(vector=[1.0] * 1280, min_seq=10))

    assert (caught.value.code, caught.value.seq) == (Code.STALE, 0)
    assert "min_seq=0" in caught.value.message, "it says what to do where the write is lost"


def test_a_search_waits_for_a_write_that_comes(library: Library, scenes: list[Scene]) -> None:
    first, second, *_ = of_place(scenes, 0)
    writer = threading.Timer(0.3, library.photos.add_many, [[new(first)]])
    writer.start()

    hits = library.questions.search(Search(photo=Photo(path=str(second.path)), threshold=0.0, min_seq=1)).hits

    writer.join()
    assert len(hits) == 1


# ---------------------------------------------------------------------------------------------- locate


def test_a_held_back_photo_is_located_near_the_truth(library: Library, scenes: list[Scene]) -> None:
    from worker.core.geo import distance_m

    query, known = held_back(scenes)
    stored(library, [new(scene) for scene in known + of_place(scenes, 1)])

    answer = library.questions.locate(Locate(photo=Photo(path=str(query.path)))).answer

    assert answer.located
    assert answer.point is not None
    assert distance_m(answer.point.lat, answer.point.lon, query.lat, query.lon) < 40
    assert {Path(hit.path or "").parent.name for hit in answer.evidence} == {query.place}


def test_a_place_never_seen_is_not_located(library: Library, scenes: list[Scene]) -> None:
    stored(library, [new(scene) for scene in of_place(scenes, 0)])

    answer = library.questions.locate(Locate(photo=Photo(path=str(of_place(scenes, 1)[0].path)))).answer

    assert (answer.status, answer.reason, answer.point) == ("abstained", Reason.NOTHING_SIMILAR, None)
    assert answer.message


def test_an_empty_index_says_so(library: Library, scenes: list[Scene]) -> None:
    answer = library.questions.locate(Locate(photo=Photo(path=str(scenes[0].path)))).answer

    assert answer.reason is Reason.EMPTY_INDEX


@pytest.fixture
def patient(make_library: Callable[..., Library], settings: Settings) -> Library:
    """Another process, which does not look at Postgres for an hour after it has looked."""
    return make_library(settings=settings.model_copy(update={"max_staleness_s": 3600}))


def test_an_index_that_others_have_filled_meanwhile_is_not_called_empty(
    library: Library, patient: Library, scenes: list[Scene]
) -> None:
    query, known = held_back(scenes)
    asked = Photo(path=str(query.path))
    before = patient.questions.locate(Locate(photo=asked)).answer
    nothing = patient.questions.search(Search(photo=asked, threshold=0.0)).hits

    stored(library, [new(scene) for scene in known])

    assert (before.reason, nothing) == (Reason.EMPTY_INDEX, [])
    assert patient.questions.locate(Locate(photo=asked)).answer.located


def test_a_search_of_an_index_that_others_have_filled_meanwhile_finds_them(
    library: Library, patient: Library, scenes: list[Scene]
) -> None:
    query, known = held_back(scenes)
    search = Search(photo=Photo(path=str(query.path)), threshold=0.0)
    patient.questions.search(search)

    stored(library, [new(scene) for scene in known])

    assert len(patient.questions.search(search).hits) == len(known)


def test_a_question_reads_the_log_for_every_word_that_this_process_meets_for_the_first_time(
    library: Library, patient: Library, scenes: list[Scene]
) -> None:
    """Whatever the seqs say: those of a restored database say nothing to who has not noticed."""
    query, known = held_back(scenes)
    stored(library, [new(known[0])])
    photo = Photo(path=str(query.path))

    def found(heard: str | None) -> int:
        return len(patient.questions.search(Search(photo=photo, threshold=0.0, heard=heard)).hits)

    assert found(None) == 1
    stored(library, [new(known[1])])
    assert (found(None), found("a"), found(None)) == (1, 2, 2)
    stored(library, [new(known[2])])
    assert (found("a"), found("b")) == (2, 3)
    stored(library, [new(known[3])])
    assert patient.questions.locate(Locate(photo=photo, heard="b")).seq == 3
    assert patient.questions.locate(Locate(photo=photo, heard="c")).seq == 4


def test_a_word_counts_as_met_only_when_the_log_was_read(
    patient: Library, library: Library, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    query, known = held_back(scenes)
    search = Search(photo=Photo(path=str(query.path)), threshold=0.0, heard="a")
    stored(library, [new(known[0])])
    patient.questions.search(msgspec.structs.replace(search, heard=None))
    stored(library, [new(known[1])])

    def away(**_: Any) -> int:
        raise Transient(Code.UNAVAILABLE, "Postgres is away")

    with monkeypatch.context() as broken:
        broken.setattr(patient.questions._live, "catch_up", away)
        with pytest.raises(Transient):
            patient.questions.search(search)

    assert len(patient.questions.search(search).hits) == 2


def test_the_words_that_are_remembered_are_the_last_ones() -> None:
    recent = Recent(2)

    for word in "abac":
        recent.add(word)

    assert [word in recent for word in "abc"] == [False, True, True]


def test_an_index_that_others_have_emptied_meanwhile_is_called_empty(
    library: Library, patient: Library, scenes: list[Scene]
) -> None:
    query, known = held_back(scenes)
    asked = Locate(photo=Photo(path=str(query.path)))
    added = stored(library, [new(scene) for scene in known])
    before = patient.questions.locate(asked).answer

    library.photos.remove_many([photo.photo_id for photo in added])

    assert before.located
    assert patient.questions.locate(asked).answer.reason is Reason.EMPTY_INDEX


def test_an_index_that_is_emptied_while_its_witnesses_are_heard_is_not_called_empty_in_that_answer(
    library: Library, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    query, known = held_back(scenes)
    added = stored(library, [new(scene) for scene in known])
    questions = library.questions
    really_known = questions._entries.known

    def known_and_then_gone(photo_ids: Collection[int], model_key: str, among: Filter | None = None) -> Any:
        found = really_known(photo_ids, model_key, among)
        library.photos.remove_many([photo.photo_id for photo in added])
        questions._live.catch_up()
        return found

    monkeypatch.setattr(questions._entries, "known", known_and_then_gone)

    assert questions.locate(Locate(photo=Photo(path=str(query.path)))).answer.located


@pytest.mark.parametrize("provenance", [Provenance.DERIVED, Provenance.FALLBACK])
def test_what_was_derived_or_a_default_is_never_evidence(
    library: Library, scenes: list[Scene], provenance: Provenance
) -> None:
    query, known = held_back(scenes)
    stored(library, [new(scene, provenance) for scene in known])

    answer = library.questions.locate(Locate(photo=Photo(path=str(query.path)))).answer

    assert answer.reason is Reason.NO_TRUSTED_EVIDENCE


def test_locate_can_be_kept_to_a_circle(library: Library, scenes: list[Scene]) -> None:
    query, known = held_back(scenes)
    stored(library, [new(scene) for scene in known])

    elsewhere = library.questions.locate(Locate(photo=Photo(path=str(query.path)), near=Near(0, 0, 1000))).answer
    here = library.questions.locate(
        Locate(photo=Photo(path=str(query.path)), near=Near(query.lat, query.lon, 500))
    ).answer

    assert elsewhere.reason is Reason.OUTSIDE_COVERAGE
    assert here.located


# --------------------------------------------------------------------------------------------- rebuild


def test_a_rebuild_embeds_what_is_missing_and_records_what_is_broken(
    make_library: Callable[..., Library],
    store: PostgresStore,
    settings: Settings,
    scenes: list[Scene],
    encoder: Encoder,
    photo_root: Path,
) -> None:
    empty = photo_root / "empty.jpg"
    empty.touch()
    rows: list[tuple[str, float | None, float | None]] = [(str(s.path), s.lat, s.lon) for s in scenes[:4]]
    rows += [(str(empty), 1.0, 1.0), (str(photo_root / "gone.jpg"), 1.0, 1.0), (str(scenes[5].path), None, None)]
    insert_rows(store, settings, rows)
    counting = Counting(encoder)
    library = make_library(encoder=counting, store=store)
    seen: list[tuple[str, int, int]] = []

    first = library.rebuilding.rebuild(lambda *facts: seen.append(facts))
    second = library.rebuilding.rebuild()

    assert (first.with_coordinates, first.valid_files, first.embedded, first.refused, first.indexed) == (6, 4, 4, 2, 4)
    assert (first.dimension, first.model, first.device) == (1280, encoder.name, encoder.device)
    assert ("embed", 6, 6) in seen
    assert ("write", 4, 4) in seen
    assert (second.embedded, second.refused, second.indexed) == (0, 2, 4)
    assert counting.photos == 4
    with store.database.engine.connect() as connection:
        refusals = connection.execute(
            text(f"SELECT photo_id, code FROM {settings.db_schema}.refusals ORDER BY photo_id")
        ).all()
    assert [tuple(row) for row in refusals] == [(5, "empty_file"), (6, "not_found")]
    run = library.statistics.stats(rss_mb=0).last_rebuild
    assert run is not None
    assert (run.state, run.summary) == ("done", second.to_wire())


def test_a_photo_that_is_mended_is_taken_by_the_next_rebuild(
    library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene], photo_root: Path
) -> None:
    path = photo_root / "late.jpg"
    path.unlink(missing_ok=True)
    insert_rows(store, settings, [(str(path), 1.0, 2.0)])
    before = library.rebuilding.rebuild()

    shutil.copyfile(scenes[0].path, path)
    after = library.rebuilding.rebuild()

    assert (before.indexed, before.refused, after.indexed, after.refused) == (0, 1, 1, 0)
    assert library.statistics.stats(rss_mb=0).refused == 0


def test_one_rebuild_runs_at_a_time(
    make_library: Callable[..., Library], make_store: Callable[..., PostgresStore]
) -> None:
    other_process = make_store()
    library = make_library()

    with other_process.runs.exclusive("rebuild"), pytest.raises(Permanent) as caught:
        library.rebuilding.rebuild()

    assert caught.value.code is Code.ALREADY_RUNNING
    assert library.rebuilding.rebuild().indexed == 0


@pytest.mark.parametrize(
    "said", [OSError(28, "No space left on device"), RuntimeError("write error: 7 != 9 (No space left on device)")]
)
def test_a_rebuild_that_fails_leaves_the_old_generation_serving(
    said: Exception, make_library: Callable[..., Library], settings: Settings, scenes: list[Scene]
) -> None:
    """As the system and FAISS say that a disk is full."""

    class FullDisk(GenerationFolder):
        def write(self, *args: Any, **named: Any) -> Built:
            def full(phase: str, done: int, total: int) -> None:
                if phase == "check":
                    raise said

            return super().write(*args, **(named | {"progress": full}))

    query, known = held_back(scenes)
    library = make_library()
    stored(library, [new(scene) for scene in known])
    # In another process, as ever: who looks for conflicts has read the index before there was a generation.
    published = make_library().rebuilding.rebuild().generation
    failing = make_library(generations=FullDisk(settings.generations_dir))

    with pytest.raises(Permanent, match="No space left") as told:
        failing.rebuilding.rebuild()

    assert told.value.code is Code.UNAVAILABLE
    reply = library.questions.search(Search(photo=Photo(path=str(query.path))))
    assert reply.generation == published
    assert reply.hits
    assert sorted(p.name for p in settings.generations_dir.iterdir()) == [f"{published:06d}"]
    run = library.statistics.stats(rss_mb=0).last_rebuild
    assert run is not None
    assert run.state == "failed"
    assert run.error is not None
    assert "No space left" in run.error
    assert library.rebuilding.rebuild().indexed == len(known)


def test_only_so_many_generations_are_kept(library: Library, settings: Settings) -> None:
    numbers = [library.rebuilding.rebuild().generation for _ in range(5)]

    kept = sorted(int(p.name) for p in settings.generations_dir.iterdir())

    assert kept == numbers[-settings.keep_generations :]


def test_a_photo_that_takes_its_process_down_goes_alone_and_is_quarantined(
    make_library: Callable[..., Library],
    make_store: Callable[..., PostgresStore],
    store: PostgresStore,
    settings: Settings,
    scenes: list[Scene],
    encoder: Encoder,
) -> None:
    class Killed(BaseException):
        """Stands for kill -9: nothing below catches it."""

    killer = scenes[2].path.read_bytes()

    def fatal(content: bytes) -> Decoded:
        if content == killer:
            raise Killed
        return decode(content, side=encoder.input_side, max_megapixels=100)

    insert_rows(store, settings, [(str(s.path), s.lat, s.lon) for s in scenes[:5]])

    for _ in range(settings.quarantine_after):
        process = make_store()
        with pytest.raises(Killed):
            make_library(store=process, decode=fatal).rebuilding.rebuild()
        is_killed(process)
    reply = make_library(store=store, decode=fatal).rebuilding.rebuild()

    assert (reply.indexed, reply.refused) == (4, 1)
    with store.database.engine.connect() as connection:
        refused = connection.execute(text(f"SELECT photo_id, code FROM {settings.db_schema}.refusals")).all()
    assert [tuple(row) for row in refused] == [(3, "quarantined")]


def test_a_database_that_goes_away_is_held_against_no_photo(
    make_library: Callable[..., Library], store: PostgresStore, settings: Settings, scenes: list[Scene]
) -> None:
    insert_rows(store, settings, [(str(scenes[0].path), 1.0, 2.0)])

    class Away(Entries):
        def put_many(self, *args: Any, **kwargs: Any) -> Any:
            raise Transient(Code.UNAVAILABLE, "Postgres: no route to host")

    away = PostgresStore(settings)
    away.entries = Away(away.database, away.rows, away.log)
    for _ in range(settings.quarantine_after + 1):
        with pytest.raises(Transient):
            make_library(store=away).rebuilding.rebuild()
    away.close()

    assert make_library(store=store).rebuilding.rebuild().indexed == 1


def test_a_photo_whose_server_does_not_answer_stops_neither_a_batch_nor_a_rebuild(
    make_library: Callable[..., Library], store: PostgresStore, settings: Settings, scenes: list[Scene]
) -> None:
    class Silent(PhotoFiles):
        def fetch(self, photo: Photo) -> bytes:
            if photo.path == str(scenes[1].path):
                raise Transient(Code.UNAVAILABLE, "the file server does not answer")
            return super().fetch(photo)

    insert_rows(store, settings, [(str(s.path), s.lat, s.lon) for s in scenes[:3]])
    library = make_library(store=store, source=Silent(settings))

    outcomes = library.photos.add_many([new(scene) for scene in scenes[:3]]).outcomes
    first = library.rebuilding.rebuild()
    mended = make_library(store=store).rebuilding.rebuild()

    assert [o.status for o in outcomes] == ["stored", "refused", "stored"]
    assert isinstance(outcomes[1], Refused)
    assert outcomes[1].retryable
    assert (first.indexed, first.refused, first.valid_files) == (2, 1, 2)
    assert (mended.indexed, mended.refused, mended.valid_files) == (3, 0, 3)


def test_a_photo_removed_in_the_middle_of_a_rebuild_stays_removed(
    make_library: Callable[..., Library], store: PostgresStore, settings: Settings, scenes: list[Scene]
) -> None:
    class Remover(PhotoFiles):
        def fetch(self, photo: Photo) -> bytes:
            store.entries.remove_many([1])
            return super().fetch(photo)

    insert_rows(store, settings, [(str(s.path), s.lat, s.lon) for s in scenes[:2]])

    rebuilt = make_library(store=store, source=Remover(settings)).rebuilding.rebuild()

    assert rebuilt.indexed == 1
    assert list(store.entries.get([1, 2])) == [2]


def test_untrusted_photos_do_not_crowd_out_the_witnesses(
    make_library: Callable[..., Library], settings: Settings, scenes: list[Scene], photo_root: Path
) -> None:
    query, known = held_back(scenes)
    library = make_library(settings=settings.model_copy(update={"locate_neighbours": 2}))
    folder = photo_root / "crowd"
    folder.mkdir(exist_ok=True)
    crowd = []
    for quality in range(60, 84):
        copy = folder / f"{quality}.jpg"
        Image.open(query.path).save(copy, quality=quality)
        crowd.append(new(query, Provenance.DERIVED, ref=copy.name, photo=Photo(path=str(copy))))
    stored(library, crowd + [new(scene) for scene in known])

    answer = library.questions.locate(Locate(photo=Photo(path=str(query.path)))).answer

    assert answer.located, answer.message
    assert {hit.provenance for hit in answer.evidence} == {Provenance.SURVEYED}


def test_a_vector_of_another_model_is_refused(library: Library, encoder: Encoder) -> None:
    with pytest.raises(Permanent) as caught:
        library.questions.search(Search(vector=[1.0] * 1280, model_key="another@1"))

    assert caught.value.code is Code.MODEL_MISMATCH
    assert library.questions.search(Search(vector=[1.0] * 1280, model_key=encoder.model_key)).hits == []


def test_a_new_model_fills_its_own_vectors_and_never_mixes(
    make_library: Callable[..., Library],
    store: PostgresStore,
    settings: Settings,
    scenes: list[Scene],
    encoder: Encoder,
) -> None:
    class OtherModel(Counting):
        model_key = "other-model@1"

    query, known = held_back(scenes)
    old = make_library(store=store)
    stored(old, [new(scene) for scene in known])
    # In another process, as ever: who looks for conflicts has read the index before there was a generation.
    make_library(store=store).rebuilding.rebuild()
    young = make_library(store=store, encoder=OtherModel(encoder))

    before = young.questions.search(Search(photo=Photo(path=str(query.path))))
    rebuilt = young.rebuilding.rebuild()
    young.statistics.stats(rss_mb=0)  # waits until the new generation serves
    after = young.questions.search(Search(photo=Photo(path=str(query.path))))
    still = old.questions.search(Search(photo=Photo(path=str(query.path))))

    assert before.hits == []
    assert (rebuilt.embedded, rebuilt.indexed, rebuilt.model_key) == (len(known), len(known), "other-model@1")
    assert after.generation == rebuilt.generation
    assert still.generation not in (None, rebuilt.generation)
    assert len(still.hits) == len(after.hits) > 0


def test_a_purged_photo_is_erased_from_postgres_at_once_and_from_the_disk_by_the_next_rebuild(
    library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene], photo_root: Path
) -> None:
    first, second, third, *_ = of_place(scenes, 0)
    twin = photo_root / "twin.jpg"
    shutil.copyfile(second.path, twin)
    purged, kept, same = stored(
        library,
        [
            new(first, metadata={"who": "somebody"}),
            new(second),
            new(second, ref="twin", photo=Photo(path=str(twin))),
        ],
    )
    held = [library.rebuilding.rebuild().generation, library.rebuilding.rebuild().generation]

    outcomes = library.photos.purge_many([purged.photo_id, same.photo_id]).outcomes

    assert [(o.photo_id, o.was_indexed, o.generations) for o in outcomes if isinstance(o, Purged)] == [
        (purged.photo_id, True, held[::-1]),
        (same.photo_id, True, held[::-1]),
    ]
    assert store.vectors.known([purged.content_sha256], library.encoder.model_key) == {}
    assert store.vectors.known([kept.content_sha256], library.encoder.model_key) != {}, "another photo has it too"
    hits = library.questions.search(Search(photo=Photo(path=str(third.path)), threshold=-1.0)).hits
    assert [hit.photo_id for hit in hits] == [kept.photo_id]
    assert library.statistics.stats(rss_mb=0).purges_pending == 2

    assert library.rebuilding.catch_up_generations(claims=3, claim_s=900.0) is True

    assert library.statistics.stats(rss_mb=0).purges_pending == 0
    assert [int(p.name) for p in settings.generations_dir.iterdir()] == [held[-1] + 1]
    ids = GenerationFolder(settings.generations_dir).open(held[-1] + 1, model_key=library.encoder.model_key).ids
    assert ids.tolist() == [kept.photo_id]
    assert library.rebuilding.catch_up_generations(claims=3, claim_s=900.0) is False
    with store.database.engine.connect() as connection:
        row = connection.execute(
            text(f"SELECT * FROM {settings.db_schema}.entries WHERE photo_id = {purged.photo_id}")
        ).one()
    assert (row.content_sha256, row.path, row.lat, row.lon, row.metadata) == ("", None, None, None, None)


def test_a_log_that_has_grown_asks_for_a_rebuild_whatever_the_hour(
    make_library: Callable[..., Library], settings: Settings, scenes: list[Scene]
) -> None:
    library = make_library(settings=settings.model_copy(update={"compact_least": 2, "compact_share": 0.5}))

    def compact() -> bool:
        return library.rebuilding.catch_up_generations(claims=3, claim_s=900.0)

    assert compact() is False
    stored(library, [new(scene) for scene in scenes[:1]])
    assert compact() is False, "one photo is fewer than the least"
    stored(library, [new(scene) for scene in scenes[1:6]])
    assert compact() is True
    stored(library, [new(scene) for scene in scenes[6:8]])
    assert compact() is False, "two changes are less than half of six photos"
    stored(library, [new(scene) for scene in scenes[8:9]])
    assert compact() is True
    assert library.statistics.stats(rss_mb=0).delta == 0


def test_a_rolled_back_generation_serves_with_all_that_came_after_it(
    library: Library, store: PostgresStore, scenes: list[Scene]
) -> None:
    query, known = held_back(scenes)
    stored(library, [new(scene) for scene in known[:3]])
    good = library.rebuilding.rebuild().generation
    stored(library, [new(scene) for scene in known[3:]])
    bad = library.rebuilding.rebuild().generation
    assert library.statistics.stats(rss_mb=0).generation == bad

    assert store.generations.roll_back(good) == [bad]

    assert library.statistics.stats(rss_mb=0).generation == good
    assert len(library.questions.search(Search(photo=Photo(path=str(query.path)), threshold=-1.0)).hits) == len(known)
    assert [(g.number, g.state) for g in store.generations.kept()] == [(bad, "withdrawn"), (good, "serving")]
    assert store.generations.roll_back(bad) == []
    assert library.statistics.stats(rss_mb=0).generation == bad, "and forward again"
    store.generations.roll_back(good)
    newest = library.rebuilding.rebuild().generation
    assert [(g.number, g.state) for g in store.generations.kept()] == [(newest, "serving"), (good, "kept")]
    with pytest.raises(Permanent, match="not kept"):
        store.generations.roll_back(bad)


def test_a_night_is_rebuilt_once_by_whoever_comes_first_and_made_up_when_missed(library: Library) -> None:
    night = datetime(2026, 5, 1, 3, 0, tzinfo=UTC)

    def tick(slot: datetime) -> bool:
        return library.rebuilding.nightly("nightly", slot, claims=3, claim_s=3600.0)

    assert tick(night - timedelta(days=1)) is False, "before the installation"
    assert tick(night) is True
    assert tick(night) is False
    assert tick(night + timedelta(days=3)) is True, "two nights were missed: one rebuild makes them up"
    assert library.statistics.stats(rss_mb=0).generation_count == 0


def test_the_refusal_of_a_query_names_its_code(library: Library, photo_root: Path) -> None:
    with pytest.raises(PhotoRefusal) as caught:
        library.questions.search(Search(photo=Photo(path=str(photo_root / "none.jpg"))))

    assert caught.value.code is Code.NOT_FOUND


# -------------------------------------------------------------------------------------------- real photos


@pytest.mark.real_photos
def test_every_real_photo_is_most_similar_to_one_of_its_own_place(
    make_library: Callable[..., Library], settings: Settings, real_photos: Path
) -> None:
    from worker.manifest import read_manifest

    library = make_library(settings=settings.model_copy(update={"photo_roots": (real_photos.resolve(),)}))
    items = list(read_manifest(real_photos / "manifest.csv"))
    places = {str((real_photos / i.ref).resolve()): i.metadata["place"] for i in items if i.metadata}
    stored(library, items)

    for item in items:
        hits = library.questions.search(Search(photo=item.photo, top_k=1, threshold=-1.0)).hits
        assert places[hits[0].path or ""] == places[item.photo.path or ""]


# ----------------------------------------------------------------------------------------------- stats


def test_statistics_name_a_seq_at_which_all_that_they_count_is_there(
    library: Library, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(library, [new(scenes[0])])
    really_counted = library.statistics._entries.counts

    def counted_and_then_one_more(model_key: str) -> Any:
        counts = really_counted(model_key)
        stored(library, [new(scenes[1])])
        return counts

    monkeypatch.setattr(library.statistics._entries, "counts", counted_and_then_one_more)

    stats = library.statistics.stats(rss_mb=1.0)

    assert (stats.indexed, stats.seq) == (2, 2)
