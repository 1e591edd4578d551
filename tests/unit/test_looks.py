"""What is seen of pictures beside their vectors: found once, while the model works, and never a photo's trouble."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from producer_client.contract import Code, Photo
from tests.conftest import until
from worker.core.keypoints import COMPONENTS, Keypoints
from worker.core.ports import Decode, FindKeypoints
from worker.core.types import Decoded, Fetched
from worker.embedding import Embedding
from worker.errors import PhotoRefusal
from worker.quarantine import Quarantine
from worker.settings import Settings

SOME = Keypoints(np.ones((3, 2), np.uint16), np.ones((3, COMPONENTS), np.uint8), (640, 480))


class Stored:
    """Keypoints and hashes that Postgres has."""

    def __init__(self, keypoints: Mapping[str, Keypoints] = {}) -> None:
        self.keypoints = dict(keypoints)

    def known(self, contents: set[str], model_key: str = "") -> dict[str, Any]:
        return {} if model_key else {content: self.keypoints[content] for content in contents & self.keypoints.keys()}

    def without(self, contents: set[str]) -> set[str]:
        return contents - self.keypoints.keys()

    def without_hash(self, contents: set[str]) -> set[str]:
        return set(contents)


@contextmanager
def embedding(
    find: FindKeypoints | None,
    *,
    stored: Stored | None = None,
    decode: Decode = lambda content: Decoded(np.zeros((2, 2, 3), np.uint8), picture_hash=b"seen"),
    encode: Callable[[Any], Any] = lambda pixels: np.ones((len(pixels), 4), np.float32) / 2,
) -> Iterator[Embedding]:
    kept: Any = stored or Stored()
    encoder: Any = SimpleNamespace(device="cpu", model_key="model", prepare=lambda pixels: pixels, encode_images=encode)
    source: Any = SimpleNamespace(
        fetch=lambda photo: photo.path.encode(), facts=lambda paths: [None] * len(paths), beside=lambda *_, **__: ()
    )
    nobody: Any = None
    uncounted: Any = SimpleNamespace(begin=lambda tries, after: {}, end=lambda contents: None)
    made = Embedding(
        Settings(),
        encoder=encoder,
        decode=decode,
        source=source,
        rows=nobody,
        vectors=kept,
        keypoints=kept,
        find_keypoints=find,
        quarantine=Quarantine(uncounted, after=3),
    )
    try:
        yield made
    finally:
        made.close()


def ask(made: Embedding, path: str = "/a.jpg") -> Fetched:
    fetched, _ = made.vectors({"one": Photo(path=path)}, need_gps=set(), to_keep=False, keypoints=True)
    return fetched["one"]


def known(of: Fetched) -> Keypoints | None:
    assert of.finding is not None
    return of.finding.result(10)


def add(made: Embedding, *paths: str, read_all: bool = False) -> dict[str, Fetched]:
    """read_all: each file is decoded, to see where it was taken."""
    photos = {str(number): Photo(path=path) for number, path in enumerate(paths or ["/a.jpg"])}
    return made.vectors(photos, need_gps=set(photos) if read_all else set(), to_keep=True, keypoints=True)[0]


def counting(into: list[bytes]) -> FindKeypoints:
    def find(content: bytes, decoded: Decoded) -> Keypoints:
        into.append(content)
        return SOME

    return find


def test_keypoints_are_found_while_the_model_works() -> None:
    at_work, found = threading.Event(), threading.Event()

    def encode(pixels: Any) -> Any:
        at_work.set()
        assert found.wait(10), "the model is done first"
        return np.ones((len(pixels), 4), np.float32) / 2

    def find(content: bytes, decoded: Decoded) -> Keypoints:
        assert at_work.wait(10), "the model waits for the keypoints"
        found.set()
        return SOME

    with embedding(find, encode=encode) as made:
        assert known(ask(made)) is SOME


def test_a_question_has_its_vector_while_its_keypoints_are_still_found() -> None:
    go_on = threading.Event()

    def find(content: bytes, decoded: Decoded) -> Keypoints:
        assert go_on.wait(10), "the question waits for the keypoints"
        return SOME

    with embedding(find) as made:
        asked = ask(made)
        go_on.set()

        assert known(asked) is SOME
        assert asked.keypoints is None, "nothing of a question is to be stored"


def test_who_adds_a_photo_waits_for_who_asks_about_it() -> None:
    looked: list[bytes] = []
    go_on = threading.Event()

    def find(content: bytes, decoded: Decoded) -> Keypoints:
        looked.append(content)
        assert go_on.wait(10)
        return SOME

    with embedding(find) as made, ThreadPoolExecutor(1) as threads:
        ask(made)
        adding = threads.submit(add, made)
        until(lambda: made.cache_hits > 0)
        go_on.set()

        assert adding.result(10)["0"].keypoints is SOME
    assert looked == [b"/a.jpg"]


def test_of_a_picture_that_shows_no_place_no_question_wants_keypoints() -> None:
    looked: list[bytes] = []

    with embedding(counting(looked), decode=lambda content: Decoded(np.zeros((2, 2, 3), np.uint8))) as made:
        assert known(ask(made)) is None
        assert add(made)["0"].keypoints is SOME, "it may be added all the same"

    assert looked == [b"/a.jpg"]


def test_an_upload_that_is_located_and_then_added_is_looked_at_once() -> None:
    looked: list[bytes] = []

    with embedding(counting(looked)) as made:
        ask(made)
        again, added = ask(made), add(made)["0"]

    assert known(again) is SOME
    assert added.keypoints is SOME
    assert looked == [b"/a.jpg"]


def test_what_postgres_has_is_neither_found_nor_stored_again() -> None:
    looked: list[bytes] = []

    with embedding(counting(looked)) as made:
        content = ask(made).content_sha256
        looked.clear()
        with embedding(counting(looked), stored=Stored({content: SOME})) as other:
            asked, added = ask(other), add(other)["0"]

    assert known(asked) is SOME
    assert added.keypoints is None
    assert looked == []


def test_a_content_with_a_vector_and_without_keypoints_is_looked_at() -> None:
    looked: list[bytes] = []

    with embedding(counting(looked)) as made:
        made.vectors({"one": Photo(path="/a.jpg")}, need_gps=set(), to_keep=True)
        assert looked == []
        assert add(made)["0"].keypoints is SOME

    assert looked == [b"/a.jpg"]
    assert made.computed == 1


@pytest.mark.parametrize("read_all", [True, False])
def test_copies_in_one_message_have_the_same(read_all: bool) -> None:
    with embedding(counting([])) as made:
        added = add(made, "/a.jpg", "/b.jpg", "/a.jpg", read_all=read_all)

    assert [added[ref].keypoints for ref in ("0", "1", "2")] == [SOME, SOME, SOME]


def test_who_asks_at_the_same_time_waits_for_who_looks() -> None:
    looked: list[bytes] = []
    looking, go_on = threading.Event(), threading.Event()

    def find(content: bytes, decoded: Decoded) -> Keypoints:
        looked.append(content)
        looking.set()
        assert go_on.wait(10)
        return SOME

    with embedding(find) as made, ThreadPoolExecutor(2) as threads:
        first = threads.submit(ask, made)
        assert looking.wait(10)
        until(lambda: made.computed == 1)
        # This one has its vector, and is at the end but for the keypoints.
        second = threads.submit(ask, made)
        until(lambda: made.cache_hits > 0)
        go_on.set()

        assert known(first.result(10)) is known(second.result(10)) is SOME
    assert looked == [b"/a.jpg"]


@pytest.mark.parametrize(
    ("failure", "stored"),
    [(ZeroDivisionError("not thought of"), 0), (PhotoRefusal(Code.DAMAGED_IMAGE, "no"), 0), (MemoryError(), None)],
)
def test_a_picture_that_cannot_be_looked_at_is_taken_all_the_same(failure: Exception, stored: int | None) -> None:
    def find(content: bytes, decoded: Decoded) -> Keypoints:
        raise failure

    with embedding(find) as made:
        added = add(made)["0"]

    assert added.fresh
    assert (None if added.keypoints is None else len(added.keypoints)) == stored, "what lacked memory is tried again"


def test_nobody_waits_for_a_photo_that_is_refused() -> None:
    decoding, go_on = threading.Event(), threading.Event()

    def breaks(content: bytes) -> Decoded:
        decoding.set()
        assert go_on.wait(10)
        raise PhotoRefusal(Code.DAMAGED_IMAGE, "no")

    with embedding(counting([]), decode=breaks) as made, ThreadPoolExecutor(2) as threads:
        photo = {"one": Photo(path="/a.jpg")}
        first = threads.submit(made.vectors, photo, need_gps=set(), to_keep=True, keypoints=True)
        assert decoding.wait(10)
        second = threads.submit(made.vectors, photo, need_gps=set(), to_keep=True, keypoints=True)
        go_on.set()

        for request in (first, second):
            fetched, refused = request.result(10)
            assert fetched == {}
            assert refused["one"].code is Code.DAMAGED_IMAGE


def test_without_the_rung_nobody_looks() -> None:
    with embedding(None, stored=None) as made:
        assert ask(made).finding is None
        assert add(made)["0"].keypoints is None
