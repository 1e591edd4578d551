"""What goes wrong with a photo, whether it is alone, and done by the thread that asks, or one of several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from producer_client.contract import Code, Photo
from worker.core.types import Decoded
from worker.embedding import Embedding
from worker.quarantine import Quarantine
from worker.settings import Settings

alone_and_not = pytest.mark.parametrize("photos", [1, 3])


def decoded(content: bytes) -> Decoded:
    return Decoded(pixels=np.zeros((2, 2, 3), dtype=np.uint8))


def content_of(photo: Photo) -> bytes:
    assert photo.path is not None
    return photo.path.encode()


@contextmanager
def embedding(**parts: Any) -> Iterator[Embedding]:
    encoder = SimpleNamespace(
        device="cpu",
        model_key="model",
        prepare=lambda pixels: pixels,
        encode_images=lambda pixels: np.ones((len(pixels), 4), dtype=np.float32) / 2,
    )
    nothing = SimpleNamespace(known=lambda contents, model_key: {}, without_hash=set, get=lambda photo_ids: {})
    no_keypoints = SimpleNamespace(known=lambda contents: {}, without=set)
    seen: dict[str, Any] = {"keypoints": no_keypoints, "find_keypoints": None}
    chosen: dict[str, Any] = {"fetch": content_of, "decode": decoded} | seen | parts
    uncounted: Any = SimpleNamespace(begin=lambda tries, after: {}, end=lambda contents: None)
    made = Embedding(
        Settings(),
        encoder=encoder,
        decode=chosen["decode"],
        source=SimpleNamespace(fetch=chosen["fetch"], facts=lambda paths: [None] * len(paths)),
        rows=nothing,
        vectors=nothing,
        keypoints=chosen["keypoints"],
        find_keypoints=chosen["find_keypoints"],
        quarantine=Quarantine(uncounted, after=3),
    )
    try:
        yield made
    finally:
        made.close()


def numbered(count: int) -> dict[str, Photo]:
    return {str(number): Photo(path=f"/{number}.jpg") for number in range(count)}


@alone_and_not
def test_a_decoder_that_breaks_is_its_photos_own_trouble(photos: int) -> None:
    def breaks(content: bytes) -> Decoded:
        if content == b"/0.jpg":
            raise ZeroDivisionError("a case that its authors did not think of")
        return decoded(content)

    with embedding(decode=breaks) as made:
        fetched, refused = made.vectors(numbered(photos), need_gps=set(), to_keep=True)

    assert fetched.keys() == numbered(photos).keys() - {"0"}
    assert refused.keys() == {"0"}
    assert refused["0"].code is Code.INTERNAL
    assert "ZeroDivisionError" in refused["0"].message


@alone_and_not
def test_a_fault_of_the_source_goes_up_as_it_is(photos: int) -> None:
    def forgets(photo: Photo) -> bytes:
        raise KeyError("not thought of")

    with embedding(fetch=forgets) as made, pytest.raises(KeyError, match="not thought of"):
        made.vectors(numbered(photos), need_gps=set(), to_keep=True)
