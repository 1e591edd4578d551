"""Through the queue: a client, a real broker, real worker processes. Bad input gets a code, its neighbours live."""

from __future__ import annotations

import asyncio
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import redis
from PIL import Image

from producer_client import (
    BadRequest,
    Code,
    EmbedItem,
    Handle,
    NewPhoto,
    Photo,
    PhotoRefused,
    Provenance,
    Refused,
    Sightline,
    Stored,
    TimedOut,
    TryAgain,
)
from producer_client.contract import TaskName
from tests.conftest import Scene, plain_celery
from worker.app import create_app
from worker.stack import Stack

Send = Callable[[str, Any], Any]


def new(scene: Scene, **metadata: Any) -> NewPhoto:
    return NewPhoto(
        str(scene.path),
        Photo(path=str(scene.path)),
        scene.lat,
        scene.lon,
        Provenance.SURVEYED,
        metadata=metadata or None,
    )


@pytest.fixture
def send(stack: Stack) -> Iterator[Send]:
    """Put any message on the queue, as a client of another make would; returns the raw reply."""
    app = plain_celery(stack.settings)

    def put(name: str, *arguments: Any) -> Any:
        return app.send_task(name, args=list(arguments), queue="interactive").get(timeout=60)

    yield put
    app.close()


# ------------------------------------------------------------------------------------------ the main job


def test_add_search_locate_and_remove_through_the_queue(client: Sightline, scenes: list[Scene]) -> None:
    photos = [scene for scene in scenes if scene.place == scenes[0].place]
    query, known = photos[2], photos[:2] + photos[3:]

    outcomes = client.add_many([new(scene, test="main") for scene in known])
    added = [o for o in outcomes if isinstance(o, Stored)]
    found = client.search(path=str(query.path), threshold=0.0, where={"test": "main"})
    located = client.locate(path=str(query.path)).answer
    by_id = client.search(photo_id=added[0].photo_id, threshold=0.0, where={"test": "main"})
    removed = client.remove(added[0].photo_id)
    after = client.search(path=str(query.path), threshold=0.0, top_k=50)

    assert len(added) == len(known)
    assert {hit.photo_id for hit in found.hits} <= {a.photo_id for a in added}
    assert found.hits[0].metadata == {"test": "main"}
    assert located.located, located.message
    assert added[0].photo_id not in {hit.photo_id for hit in by_id.hits}
    assert [type(o).__name__ for o in removed.outcomes] == ["Removed"]
    assert added[0].photo_id not in {hit.photo_id for hit in after.hits}


def test_a_rebuild_on_demand_publishes_a_generation(client: Sightline, scenes: list[Scene]) -> None:
    client.add_to_index(path=str(scenes[-1].path))

    rebuilt = client.rebuild_index(timeout_s=120)
    stats = client.stats()

    assert rebuilt.indexed >= 1
    assert stats.generation == rebuilt.generation
    assert stats.last_rebuild is not None
    assert (stats.last_rebuild.state, stats.last_rebuild.summary) == ("done", rebuilt.to_wire())


def test_what_one_worker_process_adds_another_finds_at_once(
    stack: Stack, scenes: list[Scene], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two processes with queues of their own: adds go to one, searches to the other."""
    adds, searches = (
        stack.settings.model_copy(update={"key_prefix": f"only-{what}:"}) for what in ("adds", "searches")
    )
    adder = stack.start("worker", settings=adds)
    searcher = stack.start("worker", settings=searches)
    apps = {"only-adds": plain_celery(adds), "only-searches": plain_celery(searches)}

    def ask(which: str, name: str, wire: dict[str, Any]) -> dict[str, Any]:
        reply = apps[which].send_task(name, args=[wire], queue="interactive").get(timeout=90)
        assert reply["ok"], reply
        return dict(reply["reply"])

    try:
        assert ask("only-searches", TaskName.STATS, {"v": 1})["model_key"]
        query, *known = [scene for scene in scenes if scene.place == scenes[-1].place]
        for number, scene in enumerate(known):
            item = new(scene, process=number).to_wire()
            (added,) = ask("only-adds", TaskName.ADD_TO_INDEX, {"v": 1, "photos": [item]})["outcomes"]
            found = ask(
                "only-searches",
                TaskName.SEARCH,
                {
                    "v": 1,
                    "photo": {"path": str(query.path)},
                    "threshold": -1.0,
                    "where": {"process": number},
                    "min_seq": added["seq"],
                },
            )
            assert [hit["photo_id"] for hit in found["hits"]] == [added["photo_id"]]
            assert found["seq"] >= added["seq"]
        assert adder.exit_code is None
        assert searcher.exit_code is None
    finally:
        for process in (adder, searcher):
            process.ask_to_stop()
            process.wait()
            stack.processes.remove(process)
        for app in apps.values():
            app.close()
        with redis.Redis.from_url(stack.settings.broker_url) as keys:
            keys.delete(*keys.scan_iter("only-*"))


def test_vectors_come_back_only_when_asked_for(client: Sightline, scenes: list[Scene]) -> None:
    with_vector = client.embed(path=str(scenes[1].path), return_vector=True)
    without = client.embed(path=str(scenes[1].path))

    assert with_vector.vector is not None
    assert len(with_vector.vector) == 1280
    assert without.vector is None
    assert without.embedded is False
    hits = client.search(vector=with_vector.vector, threshold=-1.0).hits
    assert hits == sorted(hits, key=lambda hit: -hit.similarity)


def test_a_large_list_is_split_and_its_progress_told(client: Sightline, scenes: list[Scene]) -> None:
    items = [EmbedItem(f"item {i}", Photo(path=str(scenes[i % 3].path))) for i in range(150)]
    told: list[tuple[int, int]] = []

    outcomes = client.embed_many(items, progress=lambda done, total: told.append((done, total)))

    assert [o.ref for o in outcomes] == [item.ref for item in items]
    assert told == [(64, 150), (128, 150), (150, 150)]


def test_a_handle_can_be_awaited(client: Sightline, scenes: list[Scene]) -> None:
    async def both() -> tuple[Any, Any]:
        one, other = await asyncio.gather(
            _wait(client.submit_stats()), _wait(client.submit_embed(path=str(scenes[0].path)))
        )
        return one, other

    async def _wait(handle: Any) -> Any:
        return await handle

    stats, embedded = asyncio.run(both())

    assert stats.model_key
    assert embedded.status == "embedded"


# --------------------------------------------------------------------------------------------- bad input


def png(width: int, height: int, rows: bytes, *, bits: int = 1, colour: int = 0) -> bytes:
    """A PNG written by hand, so that a bomb costs nothing to make."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo_of(scene: Scene) -> Image.Image:
    return Image.open(scene.path).convert("RGB").resize((320, 240))


def refused_files(scene: Scene) -> dict[str, tuple[bytes, Code]]:
    whole = scene.path.read_bytes()
    return {
        "empty.jpg": (b"", Code.EMPTY_FILE),
        "truncated.jpg": (whole[: len(whole) // 2], Code.DAMAGED_IMAGE),
        "text.jpg": (b"<html>no photo here</html>" * 40, Code.NOT_AN_IMAGE),
        "zip.png": (b"PK\x03\x04" + b"\0" * 4000, Code.NOT_AN_IMAGE),
        "bomb.png": (png(20_000, 20_000, b"\0" * 2501 * 20_000), Code.TOO_MANY_PIXELS),
        "1x1.png": (png(1, 1, b"\0\0"), Code.TOO_SMALL),
    }


def accepted_files(scene: Scene) -> dict[str, bytes]:
    photo = photo_of(scene)
    frames = [photo, photo.rotate(180)]
    grey16 = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "wrong suffix.txt": saved(photo, "JPEG"),
        "really a png.jpg": saved(photo, "PNG"),
        "animated.gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "cmyk.jpg": saved(photo.convert("CMYK"), "JPEG"),
        "16 bit.png": saved(grey16, "PNG"),
        "rotated by exif.jpg": saved(photo.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif),
        "with alpha.webp": saved(photo.convert("RGBA"), "WEBP"),
        "фото ☕.jpg": saved(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "JPEG"),
    }


@pytest.fixture(scope="module")
def odd(photo_root: Path, scenes: list[Scene]) -> Path:
    """A folder of every odd file that backends have sent."""
    folder = photo_root / "odd"
    folder.mkdir()
    for name, (content, _) in refused_files(scenes[0]).items():
        (folder / name).write_bytes(content)
    for name, content in accepted_files(scenes[0]).items():
        (folder / name).write_bytes(content)
    (folder / "folder.jpg").mkdir()
    (folder / "out.jpg").symlink_to("/etc/hostname")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    os.mkfifo(folder / "fifo.jpg")
    return folder


REFUSED = {
    "empty.jpg": Code.EMPTY_FILE,
    "truncated.jpg": Code.DAMAGED_IMAGE,
    "text.jpg": Code.NOT_AN_IMAGE,
    "zip.png": Code.NOT_AN_IMAGE,
    "bomb.png": Code.TOO_MANY_PIXELS,
    "1x1.png": Code.TOO_SMALL,
    "missing.jpg": Code.NOT_FOUND,
    "folder.jpg": Code.NOT_A_FILE,
    "out.jpg": Code.OUTSIDE_ROOTS,
    "loop.jpg": Code.NOT_FOUND,
    "fifo.jpg": Code.NOT_A_FILE,
    "../../../../etc/hostname": Code.OUTSIDE_ROOTS,
    "/etc/hostname": Code.OUTSIDE_ROOTS,
    "/no/such/place.jpg": Code.OUTSIDE_ROOTS,
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_file_is_refused_with_its_code_and_its_neighbours_are_stored(
    client: Sightline, scenes: list[Scene], odd: Path, name: str
) -> None:
    bad = NewPhoto("bad", Photo(path=str(odd / name)), 1.0, 2.0, Provenance.SURVEYED)

    before, refused, after = client.add_many([new(scenes[0]), bad, new(scenes[1])])

    assert isinstance(refused, Refused)
    assert refused.ref == "bad"
    assert refused.code is REFUSED[name]
    assert len(refused.message) > 10
    assert "Traceback" not in refused.message
    assert isinstance(before, Stored)
    assert isinstance(after, Stored)


@pytest.mark.parametrize("name", sorted(REFUSED)[:3])
def test_a_single_bad_file_raises_its_code_at_the_caller(client: Sightline, odd: Path, name: str) -> None:
    path = str(odd / name)

    for verb in (client.add_to_index, client.embed):
        with pytest.raises(PhotoRefused) as caught:
            verb(path=path)
        assert (caught.value.code, caught.value.ref) == (REFUSED[name], path)
    with pytest.raises(BadRequest) as asked:
        client.search(path=path)
    assert asked.value.code is REFUSED[name]


@pytest.mark.parametrize(
    "name",
    [
        "wrong suffix.txt",
        "really a png.jpg",
        "animated.gif",
        "cmyk.jpg",
        "16 bit.png",
        "rotated by exif.jpg",
        "with alpha.webp",
        "фото ☕.jpg",
    ],
)
def test_an_odd_but_whole_photo_is_stored_and_found(
    client: Sightline, odd: Path, scenes: list[Scene], name: str
) -> None:
    added = client.add_to_index(path=str(odd / name), lat=1, lon=2, provenance="surveyed", metadata={"odd": name})

    hits = client.search(path=str(scenes[0].path), threshold=-1.0, top_k=1, where={"odd": name}).hits

    assert [hit.photo_id for hit in hits] == [added.photo_id]


GOOD_ITEM = {"ref": "good"}
BAD_ITEMS: dict[str, tuple[dict[str, Any], Code]] = {
    "latitude 91": ({"lat": 91.0, "lon": 0.0, "provenance": "surveyed"}, Code.BAD_COORDINATES),
    "longitude -181": ({"lat": 0.0, "lon": -181.0, "provenance": "surveyed"}, Code.BAD_COORDINATES),
    "NaN": ({"lat": float("nan"), "lon": 0.0, "provenance": "surveyed"}, Code.BAD_COORDINATES),
    "infinite": ({"lat": float("inf"), "lon": 0.0, "provenance": "surveyed"}, Code.BAD_COORDINATES),
    "half a point": ({"lat": 1.0}, Code.BAD_COORDINATES),
    "latitude as text": ({"lat": "1", "lon": 0.0, "provenance": "surveyed"}, Code.BAD_REQUEST),
    "no provenance": ({"lat": 1.0, "lon": 0.0}, Code.BAD_REQUEST),
    "unknown provenance": ({"lat": 1.0, "lon": 0.0, "provenance": "guessed"}, Code.BAD_REQUEST),
    "unknown field": ({"latitude": 1.0}, Code.UNKNOWN_FIELD),
    "two photos in one": ({"photo": {"path": "/a", "url": "https://b"}}, Code.BAD_REQUEST),
    "no photo": ({"photo": {}}, Code.BAD_REQUEST),
    "a url, which is off": ({"photo": {"url": "https://example.org/a.jpg"}}, Code.URL_NOT_ALLOWED),
    "an unknown photo": ({"photo": {"photo_id": 2**40}}, Code.UNKNOWN_PHOTO),
    "inline that is not base64": ({"photo": {"inline": "***"}}, Code.BAD_REQUEST),
    "a path with NUL": ({"photo": {"path": "/a\0b"}}, Code.BAD_REQUEST),
    "metadata with NUL": ({"metadata": {"a": "\0"}}, Code.BAD_REQUEST),
    "metadata with NaN": ({"metadata": {"a": float("nan")}}, Code.BAD_REQUEST),
}


@pytest.mark.parametrize("name", BAD_ITEMS)
def test_a_bad_item_is_refused_with_its_code_and_its_neighbours_are_stored(
    send: Send, scenes: list[Scene], name: str
) -> None:
    changed, code = BAD_ITEMS[name]
    bad = {"ref": "bad", "photo": {"path": str(scenes[2].path)}} | changed

    reply = send(TaskName.ADD_TO_INDEX, {"v": 1, "photos": [new(scenes[0]).to_wire(), bad, new(scenes[1]).to_wire()]})

    assert reply["ok"], reply
    before, refused, after = reply["reply"]["outcomes"]
    assert (refused["status"], refused["ref"], refused["code"]) == ("refused", "bad", code)
    assert len(refused["message"]) > 10
    assert (before["status"], after["status"]) == ("stored", "stored")


BAD_MESSAGES: dict[str, tuple[TaskName, Any, Code]] = {
    "no object": (TaskName.SEARCH, "hello", Code.BAD_REQUEST),
    "null": (TaskName.SEARCH, None, Code.BAD_REQUEST),
    "a version of tomorrow": (TaskName.SEARCH, {"v": 2, "text": "a"}, Code.UNKNOWN_VERSION),
    "no version": (TaskName.SEARCH, {"text": "a"}, Code.UNKNOWN_VERSION),
    "an unknown field": (TaskName.STATS, {"v": 1, "verbose": True}, Code.UNKNOWN_FIELD),
    "nothing to search for": (TaskName.SEARCH, {"v": 1}, Code.BAD_REQUEST),
    "two things to search for": (TaskName.SEARCH, {"v": 1, "text": "a", "vector": [1.0]}, Code.BAD_REQUEST),
    "a vector of the wrong length": (TaskName.SEARCH, {"v": 1, "vector": [1.0, 2.0]}, Code.BAD_VECTOR),
    "a vector of zeros": (TaskName.SEARCH, {"v": 1, "vector": [0.0] * 1280}, Code.BAD_VECTOR),
    "a vector with NaN": (TaskName.SEARCH, {"v": 1, "vector": [float("nan")] * 1280}, Code.BAD_VECTOR),
    "a vector of texts": (TaskName.SEARCH, {"v": 1, "vector": ["1"]}, Code.BAD_REQUEST),
    "text without a text encoder": (TaskName.SEARCH, {"v": 1, "text": "a church"}, Code.NO_TEXT_ENCODER),
    "no text to embed": (TaskName.EMBED_TEXT, {"v": 1, "text": " "}, Code.BAD_REQUEST),
    "a text to embed without a text encoder": (
        TaskName.EMBED_TEXT,
        {"v": 1, "text": "a church"},
        Code.NO_TEXT_ENCODER,
    ),
    "top_k of zero": (TaskName.SEARCH, {"v": 1, "text": "a", "top_k": 0}, Code.BAD_REQUEST),
    "a circle without a radius": (
        TaskName.SEARCH,
        {"v": 1, "text": "a", "near": {"lat": 1, "lon": 1}},
        Code.BAD_REQUEST,
    ),
    "a circle at latitude 91": (
        TaskName.SEARCH,
        {"v": 1, "text": "a", "near": {"lat": 91, "lon": 1, "radius_m": 5}},
        Code.BAD_COORDINATES,
    ),
    "locate without a photo": (TaskName.LOCATE, {"v": 1}, Code.BAD_REQUEST),
    "locate of an unknown photo": (TaskName.LOCATE, {"v": 1, "photo": {"photo_id": 2**40}}, Code.UNKNOWN_PHOTO),
    "no photos to add": (TaskName.ADD_TO_INDEX, {"v": 1, "photos": []}, Code.BAD_REQUEST),
    "too many photos": (TaskName.ADD_TO_INDEX, {"v": 1, "photos": [GOOD_ITEM] * 257}, Code.BAD_REQUEST),
    "a negative id to remove": (TaskName.REMOVE, {"v": 1, "photo_ids": [-1]}, Code.BAD_REQUEST),
    "an id as text": (TaskName.REMOVE, {"v": 1, "photo_ids": ["1"]}, Code.BAD_REQUEST),
    "a seq that never comes": (TaskName.SEARCH, {"v": 1, "vector": [1.0] * 1280, "min_seq": 10**12}, Code.STALE),
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_a_bad_message_is_answered_with_its_code(send: Send, name: str) -> None:
    task, wire, code = BAD_MESSAGES[name]

    reply = send(task, wire)

    assert reply["ok"] is False
    assert reply["error"]["code"] == code
    assert len(reply["error"]["message"]) > 10
    assert "Traceback" not in reply["error"]["message"]


def test_a_task_without_its_message_is_answered_too(stack: Stack) -> None:
    app = plain_celery(stack.settings)
    try:
        none = app.send_task(TaskName.SEARCH, queue="interactive").get(timeout=60)
        many = app.send_task(TaskName.SEARCH, args=[{}, {}], queue="interactive").get(timeout=60)
        named = app.send_task(TaskName.SEARCH, kwargs={"wire": {}}, queue="interactive").get(timeout=60)
    finally:
        app.close()

    assert {reply["error"]["code"] for reply in (none, many, named)} == {Code.BAD_REQUEST}


# ---------------------------------------------------------------------------------------- what metadata may be


LOOKS_LIKE_KOMBUS = [
    {"a": {"__type__": "thing", "__value__": 1}},
    {"__type__": "datetime", "__value__": "2026-11-28T10:00:00"},
    {"__type__": "bytes", "__value__": "text", "Город": "Орхус"},
]


@pytest.mark.parametrize("metadata", LOOKS_LIKE_KOMBUS)
def test_metadata_that_looks_like_kombus_types_comes_back_as_it_was(
    client: Sightline, send: Send, scenes: list[Scene], metadata: dict[str, Any]
) -> None:
    """From our client, and from another Celery application, whose JSON is kombu's."""
    ours = new(scenes[0], **metadata)
    (theirs,) = send(TaskName.ADD_TO_INDEX, {"v": 1, "photos": [new(scenes[1], **metadata).to_wire()]})["reply"][
        "outcomes"
    ]

    (added,) = client.add_many([ours], timeout_s=30)
    assert isinstance(added, Stored)
    hits = client.search(photo_id=theirs["photo_id"], threshold=-1.0, top_k=1000).hits
    hits += client.search(photo_id=added.photo_id, threshold=-1.0, top_k=1000).hits
    shown = {hit.photo_id: hit.metadata for hit in hits}
    # Clients of the release before, which other tests run, break on it wherever it is shown.
    client.purge([added.photo_id, theirs["photo_id"]])

    assert (shown[added.photo_id], shown[theirs["photo_id"]]) == (metadata, metadata)


# ---------------------------------------------------------------------------------------- the client's side


def test_a_request_that_nobody_answers_times_out_and_can_be_waited_for_again(stack: Stack) -> None:
    with stack.client() as client:
        handle = client.submit_search(vector=[1.0] * 1280, min_seq=10**12)
        with pytest.raises(TimedOut) as caught:
            handle.wait(0.2)
        assert caught.value.code is Code.TIMED_OUT
        with pytest.raises(TryAgain) as later:
            handle.wait(30)

    assert later.value.code is Code.STALE


def test_a_question_that_expired_in_the_queue_is_timed_out(stack: Stack, client: Sightline) -> None:
    app = plain_celery(stack.settings)
    result = app.send_task(TaskName.STATS, args=[{"v": 1}], queue="interactive", expires=-1)

    with pytest.raises(TimedOut, match="patience"):
        client.locating(result.id).wait(30)

    app.close()


def test_an_answer_is_read_in_another_process_by_its_task_id(
    stack: Stack, client: Sightline, scenes: list[Scene]
) -> None:
    asked = client.submit_locate(path=str(scenes[0].path))

    with stack.client() as other:
        answer = other.locating(asked.task_id).wait(30)

    assert answer.answer.status in ("located", "abstained")
    assert client.locating(asked.task_id).wait(30) == answer


def test_a_broker_that_is_away_is_said_at_once() -> None:
    with Sightline("redis://127.0.0.1:1/0") as client, pytest.raises(TryAgain) as caught:
        client.stats(timeout_s=5)

    assert caught.value.code is Code.UNAVAILABLE


def test_the_celery_of_the_backend_around_does_not_move_the_client(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.setenv(name, "redis://127.0.0.1:1/0")

    with stack.client() as client:
        stats = client.stats(timeout_s=30)
    app = create_app(stack.settings)

    assert stats.dimension == 1280
    backend: Any = app.backend
    for connection in (app.connection_for_read(), app.connection_for_write()):
        assert connection.port == urlsplit(stack.settings.broker_url).port
    assert backend.connparams["port"] == urlsplit(stack.settings.replies_url).port
    app.close()


def test_more_awaited_replies_than_asyncio_has_threads_leave_it_free(stack: Stack) -> None:
    async def wait_for_many() -> list[bool]:
        with stack.client() as client:
            # Nobody answers these: their queue has no worker.
            waits = [asyncio.ensure_future(_awaited(client.locating(f"nobody {n}"))) for n in range(40)]
            await asyncio.sleep(0)
            await asyncio.to_thread(lambda: None)
            ended = [wait.done() for wait in waits]
            for wait in waits:
                with pytest.raises(TimedOut):
                    await wait
        return ended

    async def _awaited(handle: Handle[Any]) -> Any:
        handle._timeout_s = 3.0
        return await handle

    assert asyncio.run(wait_for_many()) == [False] * 40, "something else ran before any of them gave its thread back"


def test_looking_for_a_reply_while_redis_is_away_says_to_try_again() -> None:
    with Sightline("redis://127.0.0.1:1/0") as client, pytest.raises(TryAgain):
        client.locating("some id").ready()


def test_what_is_wrong_in_a_call_is_said_before_anything_is_sent() -> None:
    with Sightline("redis://127.0.0.1:1/0") as client:
        with pytest.raises(BadRequest, match="latitude"):
            client.submit_add_to_index(path="/a.jpg", lat=91, lon=0, provenance="surveyed")
        with pytest.raises(BadRequest, match="provenance"):
            client.submit_add_to_index(path="/a.jpg", lat=1, lon=0, provenance="guess")
        with pytest.raises(BadRequest, match="one of"):
            client.submit_search()
        with pytest.raises(BadRequest, match="twice"):
            client.add_many([NewPhoto("a", Photo(path="/a")), NewPhoto("a", Photo(path="/b"))])
