"""A model takes over from another while searches and uploads go on: never a mixed index, never an empty one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from producer_client.contract import Code, Photo, Search, SearchReply
from tests.conftest import ENCODER, Scene, server_dir
from tests.integration.test_library import Counting, held_back, new, stored
from worker import loading
from worker.core.ports import Encoder
from worker.core.types import START
from worker.errors import Permanent, Transient
from worker.library import Library
from worker.library.models import FILLERS
from worker.runtime import Runtime
from worker.settings import Settings
from worker.stack import Stack
from worker.storage.store import PostgresStore

OLD, NEXT = "old", "next"


class Model(Counting):
    def __init__(self, inner: Encoder, name: str) -> None:
        super().__init__(inner)
        self.model_key = f"{name}@1"


@pytest.fixture
def make_runtime(
    settings: Settings, store: PostgresStore, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Runtime]:
    """Processes with one model or two, on this test's schema."""

    def prepare(settings: Settings, name: str, sha256: str, **_: Any) -> Callable[[], Model]:
        return lambda: Model(encoder, name)

    monkeypatch.setattr(loading, "prepare", prepare)

    def make(first: str, following: str = "") -> Runtime:
        return Runtime(settings.model_copy(update={"encoder": first, "next_encoder": following}))

    return make


def search(library: Library, scene: Scene) -> SearchReply:
    return library.questions.search(Search(photo=Photo(path=str(scene.path)), threshold=-1.0, top_k=50))


def fill_all(coming: Library) -> None:
    for slot in range(FILLERS):
        after_id: int | None = -1
        while after_id is not None:
            after_id = coming.models.fill_page(slot, after_id=after_id)


def step(process: Runtime) -> bool:
    """What a tick does, and what the bulk messages that it starts do."""
    coming = process.next_library
    assert coming is not None
    started: list[int] = []
    serves = coming.models.take_over(started.append)
    if started:
        fill_all(coming)
    return serves


def test_a_model_takes_over_when_no_photo_lacks_its_vector_and_not_before(
    make_runtime: Callable[..., Runtime], scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.library.models.FILL_PHOTOS", 3)
    query, known = held_back(scenes)
    process = make_runtime(OLD, NEXT)
    old = process.library
    stored(old, [new(scene) for scene in known])
    before = search(old, query)

    serving: list[str] = []
    late = [scene for scene in scenes if scene not in known and scene is not query]
    for round_ in range(6):
        if process.next_library is None:
            break
        step(process)
        if round_ == 1:
            # Uploads go on between the steps, by the model that serves.
            stored(process.library, [new(scene, ref="late") for scene in late[:1]])
        reply = search(process.library, query)
        serving.append(reply.model_key)
        assert len(reply.hits) >= len(before.hits), "an index that is empty or half full"

    assert serving[0] == "old@1"
    assert serving[-1] == "next@1"
    assert process.library.model_key == "next@1"
    assert search(process.library, query).generation is not None
    assert len(search(process.library, query).hits) == len(known) + 1


def test_what_the_old_model_writes_after_the_change_goes_round_again(
    make_runtime: Callable[..., Runtime], scenes: list[Scene]
) -> None:
    process = make_runtime(OLD, NEXT)
    old = process.library
    stored(old, [new(scenes[0])])
    while process.next_library is not None:
        step(process)

    with pytest.raises(Transient, match="next@1 serves now"):
        old.photos.add_many([new(scenes[1])])

    (added,) = stored(process.library, [new(scenes[1])])
    assert added.photo_id in [hit.photo_id for hit in search(process.library, scenes[2]).hits]


def test_the_old_model_can_come_back_with_all_that_came_since(
    make_runtime: Callable[..., Runtime], scenes: list[Scene]
) -> None:
    there = make_runtime(OLD, NEXT)
    stored(there.library, [new(scene) for scene in scenes[:3]])
    while there.next_library is not None:
        step(there)
    stored(there.library, [new(scene) for scene in scenes[3:6]])

    back = make_runtime(NEXT, OLD)
    while back.next_library is not None:
        step(back)

    reply = search(back.library, scenes[7])
    assert (reply.model_key, len(reply.hits)) == ("old@1", 6)


def test_vectors_of_the_next_model_do_not_move_the_index_that_serves(
    make_runtime: Callable[..., Runtime], store: PostgresStore, scenes: list[Scene], encoder: Encoder
) -> None:
    process = make_runtime(OLD, NEXT)
    stored(process.library, [new(scene) for scene in scenes[:4]])
    mark = store.log.changes_after(START, "old@1", encoder.dimension).mark
    coming = process.next_library
    assert coming is not None

    fill_all(coming)

    assert store.vectors.missing_count("next@1") == 0
    assert store.log.changes_after(mark, "old@1", encoder.dimension).items == []
    assert len(store.log.changes_after(mark, "next@1", encoder.dimension).items) == 4


def test_a_chain_goes_on_where_its_last_message_ended(
    make_runtime: Callable[..., Runtime], scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.library.models.FILL_PHOTOS", 1)
    monkeypatch.setattr("worker.library.models.FILLERS", 1)
    process = make_runtime(OLD, NEXT)
    added = stored(process.library, [new(scene) for scene in scenes[:3]])
    coming = process.next_library
    assert coming is not None
    ids = sorted(photo.photo_id for photo in added)

    assert coming.models.fill_page(0, after_id=ids[0]) == ids[1], "the first is not looked at again"
    assert coming.models.fill_page(0, after_id=ids[1]) == ids[2]
    assert coming.models.fill_page(0, after_id=ids[2]) is None


def test_a_worker_without_the_model_that_serves_says_so(
    make_runtime: Callable[..., Runtime], scenes: list[Scene]
) -> None:
    stored(make_runtime(OLD).library, [new(scenes[0])])

    with pytest.raises(Permanent, match="SIGHTLINE_NEXT_ENCODER") as caught:
        _ = make_runtime(NEXT).library

    assert caught.value.code is Code.MODEL_MISMATCH


def test_a_service_that_stored_nothing_yet_may_start_with_another_model(make_runtime: Callable[..., Runtime]) -> None:
    assert make_runtime(OLD).library.model_key == "old@1"
    assert make_runtime(NEXT).library.model_key == "next@1"


def test_a_photo_that_the_next_model_refuses_does_not_hold_it_up(
    make_runtime: Callable[..., Runtime], store: PostgresStore, scenes: list[Scene], photo_root: Path
) -> None:
    gone = photo_root / "gone.jpg"
    gone.write_bytes(scenes[0].path.read_bytes()[:-2] + b"\xff\xd9")
    process = make_runtime(OLD, NEXT)
    stored(process.library, [new(scenes[1]), new(scenes[0], ref="gone", photo=Photo(path=str(gone)))])
    gone.unlink()

    for _ in range(4):
        if process.next_library is not None:
            step(process)

    assert process.next_library is None
    assert store.entries.counts("next@1").refused == 1


def test_chains_of_filling_messages_are_started_once_and_again_when_they_died(store: PostgresStore) -> None:
    assert store.models.hold_filler("next@1", 0, 60.0, new=True) is True
    assert store.models.hold_filler("next@1", 0, 60.0, new=True) is False, "it lives"
    assert store.models.hold_filler("next@1", 0, -1.0, new=False) is True, "prolonged by its own message"
    assert store.models.hold_filler("next@1", 0, 60.0, new=True) is True, "its lease had run out"
    store.models.end_filler("next@1", 0)
    assert store.models.hold_filler("next@1", 0, 60.0, new=True) is True


def test_a_model_is_changed_by_the_processes_of_a_running_service(photo_root: Path, scenes: list[Scene]) -> None:
    """Real processes: the first model is loaded beside the next, the beat's ticks and bulk messages do the rest."""
    with server_dir() as data_dir:
        common: dict[str, Any] = {"data_dir": data_dir, "photo_roots": (photo_root,), "tick_every_s": 1.0}
        first = Settings(encoder=ENCODER, **common)
        with Stack(first, log_dir=data_dir / "logs", port=0) as stack:
            stack.start_all()
            stack.wait_ready()
            with stack.client() as client:
                client.add_to_index(path=str(scenes[0].path), lat=1.0, lon=2.0, provenance="surveyed")
                before = client.search(path=str(scenes[1].path), threshold=-1.0)
            for process in stack.processes[:2]:
                process.ask_to_stop()
                process.wait()
            del stack.processes[:2]
            both = stack.settings.model_copy(update={"next_encoder": "open_clip/ViT-S-32-alt/random"})
            stack.start("worker", settings=both)
            with stack.client(timeout_s=120.0) as client:
                meanwhile = client.search(path=str(scenes[1].path), threshold=-1.0)
                # The ticks that fill and switch are done by this process, so not before.
                stack.start("worker", "--role", "index", settings=both)
                while True:
                    reply = client.search(path=str(scenes[1].path), threshold=-1.0)
                    assert len(reply.hits) == 1
                    if reply.model_key != before.model_key:
                        break
                    time.sleep(0.2)  # who loads the model needs the processor too
                stats = client.stats()

    assert meanwhile.model_key == before.model_key
    assert (stats.model_key, stats.next_model_key, stats.indexed) == (reply.model_key, None, 1)
