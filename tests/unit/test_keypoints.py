"""A picture's keypoints: what is found in pictures of all kinds, and the bytes as which they are kept."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import ExifTags, Image, ImageDraw

from worker.core.keypoints import COMPONENTS, LEVELS, POINT_STEPS, VERSION, Keypoints
from worker.core.types import Decoded
from worker.encoder.images import decode
from worker.encoder.keypoints import MOST, SIDE_PX, find_keypoints, keypoints
from worker.place.geometry import seen_in_both

SIDE = 224


@st.composite
def some_keypoints(draw: st.DrawFn) -> Keypoints:
    count = draw(st.integers(0, 9))
    return Keypoints(
        draw(arrays.arrays(np.uint16, (count, 2))),
        draw(arrays.arrays(np.uint8, (count, COMPONENTS), elements=st.integers(0, LEVELS - 1))),
        (draw(st.integers(0, 65_535)), draw(st.integers(0, 65_535))),
    )


@given(some_keypoints())
def test_what_is_kept_is_read_as_it_was(made: Keypoints) -> None:
    read = Keypoints.from_bytes(made.to_bytes())

    assert (read.points.tolist(), read.descriptions.tolist()) == (made.points.tolist(), made.descriptions.tolist())
    assert read.points.dtype == np.uint16
    assert read.descriptions.dtype == np.uint8
    assert read.descriptions.shape == made.descriptions.shape
    assert read.frame == made.frame
    assert len(made.to_bytes()) == 8 + 84 * len(made)


def test_what_was_read_keeps_nothing_of_the_bytes_that_it_was_read_from() -> None:
    many = bytearray(Keypoints(np.ones((9, 2), np.uint16), np.ones((9, COMPONENTS), np.uint8), (640, 480)).to_bytes())

    read = Keypoints.from_bytes(memoryview(many))
    # A bytearray that something looks into cannot change its size.
    many.clear()

    assert len(read) == 9


@pytest.mark.parametrize("cut", ["", "head", "last byte", "one more", "another version"])
def test_what_is_none_is_said_to_be_none(cut: str) -> None:
    content = Keypoints(
        np.ones((3, 2), np.uint16), np.full((3, COMPONENTS), LEVELS - 1, np.uint8), (640, 480)
    ).to_bytes()
    wrong = {
        "": b"",
        "head": content[:7],
        "last byte": content[:-1],
        "one more": content + b"\0",
        "another version": bytes([VERSION + 1]) + content[1:],
    }

    with pytest.raises(ValueError):
        Keypoints.from_bytes(wrong[cut])
    assert len(Keypoints.from_bytes(content)) == 3


def test_points_are_told_in_pixels() -> None:
    made = Keypoints(
        np.array([[0, 0], [POINT_STEPS, POINT_STEPS // 2]], np.uint16), np.zeros((2, COMPONENTS), np.uint8), (2, 2)
    )

    assert made.pixels(np.array([1])).tolist() == [[1.0, 0.5]]
    assert made.pixels(np.array([1])).dtype == np.float32


def drawn(width: int, height: int, seed: int = 1, shapes: int = 400) -> Image.Image:
    """Boxes and ellipses of all sizes, with many more corners than are kept."""
    some = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(shapes):
        left, top = some.uniform(0, width), some.uniform(0, height)
        across, down = some.uniform(0.01, 0.12, 2) * max(width, height)
        shape = draw.rectangle if some.random() < 0.7 else draw.ellipse
        shape((left, top, left + across, top + down), fill=tuple(some.integers(0, 256, 3).tolist()))
    return image


def written(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def found_in(content: bytes) -> Keypoints:
    """As a worker finds them."""
    decoded = decode(content, side=SIDE, max_megapixels=100)
    return find_keypoints(content, decoded, side=SIDE, max_megapixels=100, decode=decode)


def test_of_many_the_strongest_are_kept_in_few_bytes() -> None:
    spots = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    found = keypoints(Image.fromarray(spots).resize((1280, 960)))

    assert len(found) == MOST
    assert found.frame == (640, 480)
    assert len(found.to_bytes()) <= 128_000
    assert found.descriptions.max() < LEVELS
    at = found.pixels(np.arange(len(found)))
    assert at.min() >= 0
    assert (at.max(axis=0) < found.frame).all()


def test_of_equally_strong_ones_no_more_are_kept() -> None:
    spots = np.random.default_rng(1).integers(0, 256, (16, 16), np.uint8).repeat(4, 0).repeat(4, 1)

    assert len(keypoints(Image.fromarray(np.tile(spots, (7, 10))))) == MOST


@pytest.mark.parametrize("size", [(640, 480), (16, 16), (480, 16), (16, 480)])
def test_a_plain_picture_has_none(size: tuple[int, int]) -> None:
    found = keypoints(Image.new("RGB", size, (90, 120, 150)))

    assert (len(found), found.frame) == (0, size)
    assert len(Keypoints.from_bytes(found.to_bytes())) == 0


def test_a_dark_picture_shows_what_it_shows_by_day() -> None:
    day = drawn(640, 480)
    night = Image.fromarray(
        (np.asarray(day) * 0.1 + np.random.default_rng(1).normal(0, 1, (480, 640, 1))).clip(0).astype(np.uint8)
    )

    assert seen_in_both(keypoints(night), keypoints(day)).inliers > 200


def test_noise_alone_shows_next_to_nothing() -> None:
    noise = np.random.default_rng(1).normal(90, 3, (480, 640, 3)).clip(0, 255).astype(np.uint8)

    assert len(keypoints(Image.fromarray(noise))) < 30


@pytest.mark.parametrize("size", [(16, 16), (17, 16), (480, 16), (3000, 100)])
def test_a_small_or_thin_picture_is_looked_at(size: tuple[int, int]) -> None:
    found = keypoints(drawn(*size, shapes=40))

    assert max(found.frame) == min(640, max(size))
    assert len(found) <= MOST


def test_points_lie_where_they_are_in_the_picture() -> None:
    """A quarter of a pixel to one side is to the other side in the mirror."""
    image = drawn(640, 480)
    one, mirrored = keypoints(image), keypoints(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    here, there = (found.pixels(np.arange(len(found))) for found in (one, mirrored))

    there[:, 0] = 639 - there[:, 0]
    apart = here[:, None] - there
    nearest = np.hypot(apart[..., 0], apart[..., 1]).argmin(axis=1)
    apart_x = apart[np.arange(len(here)), nearest, 0]

    assert np.abs(np.median(apart_x[np.abs(apart_x) < 1])) < 0.05


def test_what_is_not_rgb_is_looked_at_as_what_it_shows() -> None:
    image = drawn(600, 450)
    grey = image.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    hidden = Image.fromarray(np.dstack([np.asarray(drawn(600, 450, seed=2)), np.full((450, 600), 0, np.uint8)]))

    as_grey, as_deep, unseen = (found_in(written(one, "PNG")) for one in (grey, deep, hidden))

    assert len(as_grey) > 300
    assert as_deep.to_bytes() == as_grey.to_bytes()
    assert len(unseen) == 0, "colours that nobody sees"


def test_a_picture_that_lies_on_its_side_is_looked_at_upright() -> None:
    image = drawn(600, 450)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    lying = written(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)

    assert found_in(lying).to_bytes() == found_in(written(image, "PNG")).to_bytes()


def test_threads_find_what_one_finds() -> None:
    images = [drawn(640, 480, seed) for seed in range(4)]
    alone = [keypoints(image).to_bytes() for image in images]

    with ThreadPoolExecutor(8) as threads:
        beside = list(threads.map(lambda image: keypoints(image).to_bytes(), images * 4))

    assert beside == alone * 4
    assert len(set(alone)) == 4
    assert cv2.getNumThreads() == 1, "or each of these threads would take all cores"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_what_the_model_needs_no_more_of_is_decoded_again(kind: str) -> None:
    content = written(drawn(1000, 950), kind)
    decoded = decode(content, side=SIDE, max_megapixels=100)
    assert max(decoded.pixels.shape) < SIDE_PX, "or there is nothing to decode again"

    assert found_in(content).frame == (640, 608)


@pytest.mark.parametrize(
    ("size", "frame"), [((2000, 1500), (640, 480)), ((500, 400), (500, 400)), ((4500, 460), (640, 65))]
)
def test_what_was_decoded_is_enough_for_most(size: tuple[int, int], frame: tuple[int, int]) -> None:
    content = written(drawn(*size), "JPEG")
    decoded = decode(content, side=SIDE, max_megapixels=100)

    def again(*_: object, **__: object) -> Decoded:
        raise AssertionError("decoded again")

    assert find_keypoints(content, decoded, side=SIDE, max_megapixels=100, decode=again).frame == frame
