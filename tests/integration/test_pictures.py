"""One photo and its copies are one witness: over a real model, a real Postgres and files as programs write them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image
from sqlalchemy import text

from producer_client import Sightline
from producer_client.contract import (
    Answer,
    EmbedItem,
    Locate,
    Near,
    NewPhoto,
    Photo,
    Provenance,
    Reason,
    Search,
    Stored,
)
from tests.conftest import Scene
from worker.core.ports import Encoder
from worker.core.shot import CAMERA_BYTES
from worker.core.types import TOO_PLAIN, Decoded
from worker.encoder.images import decode
from worker.library import Library
from worker.settings import Settings
from worker.storage.store import PostgresStore


def one_more_segment(content: bytes) -> bytes:
    return content[:2] + b"\xff\xfe\x00\x06copy" + content[2:]


def saved(content: bytes, *, format: str = "JPEG", scale: float = 1.0, mode: str = "RGB", quality: int = 90) -> bytes:
    image = Image.open(io.BytesIO(content)).convert(mode)
    file = io.BytesIO()
    image.resize((round(image.width * scale), round(image.height * scale))).save(file, format, quality=quality)
    return file.getvalue()


def turned(content: bytes) -> bytes:
    """The picture lies on its side, and its EXIF says so."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = 6
    Image.open(io.BytesIO(content)).transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", quality=92, exif=exif)
    return file.getvalue()


COPYINGS: dict[str, Callable[[bytes], bytes]] = {
    "one more segment": one_more_segment,
    "saved again at q80": partial(saved, quality=80),
    "half size": partial(saved, scale=0.5),
    "quarter size": partial(saved, scale=0.25),
    "PNG": partial(saved, format="PNG"),
    "WebP": partial(saved, format="WEBP"),
    "grey": partial(saved, mode="L"),
    "turned": turned,
}
each_copying = pytest.mark.parametrize("copying", COPYINGS.values(), ids=COPYINGS)


@pytest.fixture
def street(scenes: list[Scene]) -> list[Scene]:
    """One place: a photo from the middle of the walk, its neighbours, the others."""
    return walk(scenes, 0)


@pytest.fixture
def folder(photo_root: Path, request: pytest.FixtureRequest) -> Path:
    made = photo_root / "copies" / "".join(c if c.isalnum() else "-" for c in request.node.name)
    made.mkdir(parents=True, exist_ok=True)
    return made


def walk(scenes: list[Scene], number: int) -> list[Scene]:
    place = sorted({scene.place for scene in scenes})[number]
    first, before, asked, after, *rest = [scene for scene in scenes if scene.place == place]
    return [asked, before, after, first, *rest]


def new(scene: Scene, path: Path | None = None, *, north: float = 0.0) -> NewPhoto:
    """The scene, or another file at its place."""
    photo = Photo(path=str(path or scene.path))
    return NewPhoto(photo.path or "", photo, lat=scene.lat + north, lon=scene.lon, provenance=Provenance.SURVEYED)


def copy_of(scene: Scene, copying: Callable[[bytes], bytes], path: Path) -> Path:
    path.write_bytes(copying(scene.path.read_bytes()))
    return path


def stored(library: Library, *items: NewPhoto) -> list[Stored]:
    outcomes = library.photos.add_many(items).outcomes
    assert [type(outcome) for outcome in outcomes] == [Stored] * len(items), outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, Stored)]


def ask(library: Library, scene: Scene) -> Answer:
    return library.questions.locate(Locate(photo=Photo(path=str(scene.path)))).answer


def run(store: PostgresStore, settings: Settings, statement: str) -> Sequence[tuple[Any, ...]]:
    with store.database.engine.begin() as connection:
        result = connection.execute(text(statement.format(schema=settings.db_schema)))
        return [tuple(row) for row in result] if result.returns_rows else []


@each_copying
def test_a_photo_and_its_copy_are_one_witness(
    library: Library, street: list[Scene], folder: Path, copying: Callable[[bytes], bytes]
) -> None:
    asked, known, other = street[:3]
    first, copy = stored(library, new(known), new(known, copy_of(known, copying, folder / "copy")))

    alone = ask(library, asked)
    (second,) = stored(library, new(other))
    with_another = ask(library, asked)

    assert alone.message.startswith("trusted photos that show the same: 1;"), alone.message
    assert first.content_sha256 != copy.content_sha256
    assert with_another.located, "a different photo of the place is a witness"
    heard = {hit.photo_id for hit in with_another.evidence}
    assert second.photo_id in heard
    assert len(heard) == 2
    assert with_another.message.startswith("trusted photos that show the same: 2;")


def test_different_photos_of_a_place_are_each_a_witness(library: Library, street: list[Scene]) -> None:
    asked, *known = street
    stored(library, *map(new, known))

    found = ask(library, asked)

    assert len(found.evidence) >= 3
    assert "copies" not in found.message


def taken(content: bytes, *, second: int) -> bytes:
    """The photo as one camera saves it at that second."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Model] = "One"
    said = {ExifTags.Base.DateTimeOriginal: f"2024:05:01 12:00:{second:02}", ExifTags.Base.BodySerialNumber: "4711"}
    exif.get_ifd(ExifTags.IFD.Exif).update({int(tag): value for tag, value in said.items()})
    Image.open(io.BytesIO(content)).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


def of_burst(scene: Scene, second: int, folder: Path) -> NewPhoto:
    return new(scene, copy_of(scene, partial(taken, second=second), folder / f"{second}.jpg"))


def test_a_burst_of_one_camera_is_one_witness_and_later_photos_are_others(
    library: Library, street: list[Scene], folder: Path
) -> None:
    asked, *known = street
    stored(library, of_burst(known[0], 1, folder), of_burst(known[1], 3, folder))

    alone = ask(library, asked)
    stored(library, of_burst(known[2], 30, folder))
    with_a_later_one = ask(library, asked)

    assert alone.message.startswith("trusted photos that show the same: 1;"), alone.message
    assert with_a_later_one.message.startswith("trusted photos that show the same: 2;"), with_a_later_one.message


def test_what_was_looked_at_before_shots_were_kept_is_looked_at_again_and_keeps_its_hash(
    make_library: Callable[..., Library], store: PostgresStore, settings: Settings, street: list[Scene], folder: Path
) -> None:
    (outcome,) = stored(make_library(store=store), of_burst(street[0], 1, folder))
    pictures = run(store, settings, "SELECT * FROM {schema}.pictures")
    run(store, settings, "UPDATE {schema}.pictures SET camera = NULL, taken_s = NULL")

    assert store.vectors.missing_hash_count() == 1
    item = EmbedItem("1", Photo(photo_id=outcome.photo_id))
    make_library(store=store).photos.embed_many([item])

    assert run(store, settings, "SELECT * FROM {schema}.pictures") == pictures
    assert store.vectors.missing_hash_count() == 0


def test_no_serial_number_is_kept_and_a_purge_takes_the_camera_too(
    library: Library, store: PostgresStore, settings: Settings, street: list[Scene], folder: Path
) -> None:
    (outcome,) = stored(library, of_burst(street[0], 1, folder))

    ((camera, taken_s),) = run(store, settings, "SELECT camera, taken_s FROM {schema}.pictures")
    library.photos.purge_many([outcome.photo_id])

    assert len(camera) == CAMERA_BYTES
    assert taken_s % 60 == 1
    assert run(store, settings, "SELECT * FROM {schema}.pictures") == []


def test_copies_in_two_places_say_nothing(library: Library, street: list[Scene], folder: Path) -> None:
    asked, known = street[:2]
    copy = copy_of(known, COPYINGS["saved again at q80"], folder / "copy.jpg")
    stored(library, new(known), new(known, copy, north=0.1))

    found = ask(library, asked)

    assert found.reason is Reason.NEIGHBOURS_DISAGREE
    assert found.message.startswith("copies of one picture lie in different places")


def test_a_crowd_of_copies_does_not_hide_the_second_witness(
    make_library: Callable[..., Library], settings: Settings, street: list[Scene], folder: Path
) -> None:
    library = make_library(settings=settings.model_copy(update={"locate_neighbours": 2}))
    asked, *known = street
    by_id = {outcome.photo_id: scene for scene, outcome in zip(known, stored(library, *map(new, known)), strict=True)}
    hits = library.questions.search(Search(photo=Photo(path=str(asked.path)))).hits
    best = by_id[hits[0].photo_id]
    crowd = [copy_of(best, partial(saved, quality=q), folder / f"{q}.jpg") for q in range(70, 96)]
    stored(library, *(new(best, path) for path in crowd))

    found = ask(library, asked)

    assert found.located, found.message
    heard = [Path(hit.path or "") for hit in found.evidence]
    assert len(heard) >= 2
    assert len([path for path in heard if path.parent == folder or path == best.path]) == 1, "one of the crowd at most"


def test_all_plain_greys_have_no_hash_and_are_no_copies_by_it(
    library: Library, store: PostgresStore, settings: Settings, encoder: Encoder, street: list[Scene], folder: Path
) -> None:
    greys = []
    for shade in (10, 90, 200):
        Image.new("RGB", (320, 240), (shade, shade, shade)).save(folder / f"{shade}.jpg")
        greys.append(new(street[0], folder / f"{shade}.jpg"))
    outcomes = stored(library, *greys)

    hashes = run(store, settings, "SELECT hash FROM {schema}.pictures")
    known = store.entries.known([outcome.photo_id for outcome in outcomes], encoder.model_key)

    assert [bytes(picture_hash) for (picture_hash,) in hashes] == [TOO_PLAIN] * 3
    assert {entry.picture_hash for entry, _ in known.values()} == {TOO_PLAIN}


def test_a_copy_that_was_embedded_before_there_were_hashes_is_known_by_its_vector(
    library: Library, store: PostgresStore, settings: Settings, street: list[Scene], folder: Path
) -> None:
    asked, known, other = street[:3]
    copy = copy_of(known, COPYINGS["saved again at q80"], folder / "copy.jpg")
    stored(library, new(known), new(known, copy), new(other))
    run(store, settings, "DELETE FROM {schema}.pictures")

    found = ask(library, asked)

    assert found.located
    shown = "the copy does not count, and the other photo does"
    assert found.message.startswith("trusted photos that show the same: 2;"), shown


def test_embedding_what_was_embedded_before_looks_at_its_picture(
    make_library: Callable[..., Library], store: PostgresStore, settings: Settings, street: list[Scene]
) -> None:
    library = make_library(store=store)
    outcomes = stored(library, *map(new, street[:3]))
    hashes = run(store, settings, "SELECT * FROM {schema}.pictures ORDER BY 1")
    run(store, settings, "DELETE FROM {schema}.pictures")
    ids = [outcome.photo_id for outcome in outcomes]
    fresh = make_library(store=store)
    seq = store.entries.counts(library.model_key).seq

    assert store.vectors.missing_hash_count() == 3
    assert store.vectors.missing_hashes(after_id=-1, limit=2) == ids[:2]
    assert store.vectors.missing_hashes(after_id=ids[1], limit=2) == ids[2:]
    fresh.photos.embed_many([EmbedItem(str(i), Photo(photo_id=i)) for i in ids])

    assert run(store, settings, "SELECT * FROM {schema}.pictures ORDER BY 1") == hashes
    assert store.vectors.missing_hash_count() == 0
    assert store.entries.counts(library.model_key).seq == seq, "nothing that a search sees has changed"
    assert fresh.embedding.computed == 0


def test_a_photo_without_a_file_to_read_again_is_not_asked_for(
    library: Library, store: PostgresStore, settings: Settings, street: list[Scene]
) -> None:
    inline = Photo.of_bytes(street[0].path.read_bytes())
    stored(library, NewPhoto("inline", inline, lat=1.0, lon=1.0, provenance=Provenance.SURVEYED))
    run(store, settings, "DELETE FROM {schema}.pictures")

    assert store.vectors.missing_hash_count() == 0
    assert store.vectors.missing_hashes(after_id=-1, limit=9) == []


def test_a_photo_that_is_located_and_then_added_is_decoded_once_and_has_its_hash(
    make_library: Callable[..., Library], store: PostgresStore, street: list[Scene]
) -> None:
    decoded: list[bytes] = []

    def counting(content: bytes) -> Decoded:
        decoded.append(content)
        return decode(content, side=224, max_megapixels=100)

    library = make_library(store=store, decode=counting)
    ask(library, street[0])
    stored(library, new(street[0]))
    stored(library, new(street[0]))

    assert len(decoded) == 1
    assert store.vectors.missing_hash_count() == 0


def test_what_cannot_be_decoded_any_more_stays_in_by_its_vector(
    make_library: Callable[..., Library], store: PostgresStore, settings: Settings, street: list[Scene]
) -> None:
    def breaks(content: bytes) -> Decoded:
        raise ZeroDivisionError("a case that its authors did not think of")

    stored(make_library(store=store), new(street[0]))
    run(store, settings, "DELETE FROM {schema}.pictures")

    stored(make_library(store=store, decode=breaks), new(street[0]))

    assert run(store, settings, "SELECT length(hash) FROM {schema}.pictures") == [(0,)]


def test_a_purged_photo_leaves_no_hash_unless_another_one_has_it(
    library: Library, store: PostgresStore, settings: Settings, street: list[Scene], folder: Path
) -> None:
    gone, kept, same = stored(
        library,
        new(street[0]),
        new(street[1]),
        new(street[1], copy_of(street[1], lambda content: content, folder / "same.jpg")),
    )

    library.photos.purge_many([gone.photo_id, same.photo_id])

    assert run(store, settings, "SELECT content_sha256 FROM {schema}.pictures") == [(kept.content_sha256,)]


def test_a_copy_is_no_second_witness_through_the_queue(client: Sightline, scenes: list[Scene], folder: Path) -> None:
    asked, known, *_ = walk(scenes, 1)
    # What other tests have left in this service lies elsewhere.
    north = 20.0
    near = Near(known.lat + north, known.lon, 1_000.0)
    paths = [copy_of(known, copying, folder / f"{number}.jpg") for number, copying in enumerate(COPYINGS.values())]
    added = client.add_many([new(known, path, north=north) for path in paths])
    try:
        found = client.locate(path=str(asked.path), near=near).answer
    finally:
        # Other tests share the service, and have the truth in it.
        client.remove([outcome.photo_id for outcome in added if isinstance(outcome, Stored)])

    assert found.message.startswith("trusted photos that show the same: 1;"), found.message
    assert len(found.evidence) == 1
