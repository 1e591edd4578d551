"""A picture's hash: near for copies, far for others, and none for a picture that shows nothing."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.scenes import render, viewpoints
from worker.core.types import TOO_PLAIN
from worker.encoder.images import decode
from worker.encoder.picture import picture_hash
from worker.place.pictures import MOST_BITS

SIZE = (640, 480)


@pytest.fixture(scope="module")
def drawn() -> list[Image.Image]:
    return [render(viewpoint, size=SIZE) for viewpoint in viewpoints(places=3, views=3)]


def bits(one: bytes, other: bytes) -> int:
    assert len(one) == len(other) == 32
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def of_pixels(pixels: object) -> bytes:
    return picture_hash(Image.fromarray(np.asarray(pixels, dtype=np.uint8)))


@pytest.mark.parametrize("quality", [95, 80, 50, 30])
@pytest.mark.parametrize("scale", [1.0, 0.5, 0.25])
def test_a_picture_saved_again_keeps_its_hash_within_the_bound(
    drawn: list[Image.Image], quality: int, scale: float
) -> None:
    for picture in drawn:
        file = io.BytesIO()
        picture.resize((round(SIZE[0] * scale), round(SIZE[1] * scale))).save(file, "JPEG", quality=quality)

        copy = decode(file.getvalue(), side=224, max_megapixels=100).picture_hash

        assert bits(picture_hash(picture), copy) <= MOST_BITS // 2


def test_the_hash_is_the_pictures_whatever_the_model(drawn: list[Image.Image]) -> None:
    file = io.BytesIO()
    drawn[0].resize((2560, 1920)).save(file, "JPEG", quality=90)

    hashes = [decode(file.getvalue(), side=side, max_megapixels=100).picture_hash for side in (64, 224, 384)]

    assert max(bits(hashes[0], other) for other in hashes) <= MOST_BITS // 2


def test_neighbouring_views_of_a_place_are_different_pictures(drawn: list[Image.Image]) -> None:
    hashes = [picture_hash(picture) for picture in drawn]

    nearest = min(bits(one, other) for number, one in enumerate(hashes) for other in hashes[:number])

    assert nearest > 2 * MOST_BITS


@pytest.mark.parametrize("shade", [0, 1, 40, 128, 200, 254, 255])
def test_a_plain_grey_has_no_hash(shade: int) -> None:
    assert picture_hash(Image.new("RGB", SIZE, (shade,) * 3)) == TOO_PLAIN


def test_what_shows_next_to_nothing_has_no_hash() -> None:
    noise = np.random.default_rng(0).normal(0, 10, (480, 640, 3))
    down = np.tile(np.linspace(90, 220, 480)[:, None, None], (1, 640, 3))
    rows, columns = np.mgrid[0:480, 0:640]
    round_the_sun = np.repeat((255 - np.hypot(rows - 200, columns - 300) / 3)[:, :, None], 3, axis=2)
    framed = np.full((480, 640, 3), 128.0)
    framed[:40] = framed[-40:] = 0

    for pixels in (128 + noise, down, down + noise, round_the_sun, framed):
        assert of_pixels(np.clip(pixels, 0, 255)) == TOO_PLAIN


def test_little_contrast_is_enough(drawn: list[Image.Image]) -> None:
    pale = np.asarray(drawn[0], dtype=np.float64) * 0.3 + 160

    assert bits(of_pixels(pale), picture_hash(drawn[0])) <= MOST_BITS // 2


@pytest.mark.parametrize("size", [(16, 16), (16, 480), (33, 20)])
def test_the_smallest_photos_have_a_hash_or_none_and_no_error(drawn: list[Image.Image], size: tuple[int, int]) -> None:
    assert len(picture_hash(drawn[0].resize(size))) == 32


def test_real_photos_of_one_place_are_different_pictures(real_photos: Path) -> None:
    hashes = [
        decode(path.read_bytes(), side=224, max_megapixels=100).picture_hash
        for path in sorted(real_photos.parent.glob("photos/*/*.jpg"))
    ]

    nearest = min(bits(one, other) for number, one in enumerate(hashes) for other in hashes[:number])

    assert len(hashes) == 53
    assert nearest > MOST_BITS
