"""Small pictures of photos: upright, small, and nothing of the photo's metadata in them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from producer_client.contract import Code
from worker.encoder.thumbnails import SIDE_PX, thumbnail
from worker.errors import PhotoRefusal


def photo(width: int, height: int, *, orientation: int = 1) -> bytes:
    """Red above, blue below, with noise that no JPEG makes small, and a GPS position."""
    pixels = np.random.default_rng(1).integers(0, 60, (height, width, 3), dtype=np.uint8)
    pixels[: height // 2, :, 0] += 180
    pixels[height // 2 :, :, 2] += 180
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8825)[1] = "N"
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "JPEG", exif=exif)
    return made.getvalue()


@pytest.mark.parametrize(
    ("size", "shown"), [((1_600, 1_200), (240, 180)), ((600, 1_200), (120, 240)), ((100, 80), (100, 80))]
)
def test_the_longer_side_is_small_and_a_small_photo_is_left_as_it_is(
    size: tuple[int, int], shown: tuple[int, int]
) -> None:
    made = thumbnail(photo(*size), max_megapixels=100)

    assert Image.open(io.BytesIO(made)).size == shown
    assert max(shown) <= SIDE_PX
    assert len(made) < 25_000


def test_it_is_upright_and_carries_no_metadata() -> None:
    made = Image.open(io.BytesIO(thumbnail(photo(800, 600, orientation=3), max_megapixels=100)))

    red, _, blue = made.getpixel((100, 20))  # type: ignore[misc]
    assert blue > red, "turned by half a turn, the blue is above"
    assert not dict(made.getexif())


def test_what_is_no_photo_is_refused_as_everywhere() -> None:
    with pytest.raises(PhotoRefusal) as refused:
        thumbnail(b"no photo", max_megapixels=100)

    assert refused.value.code is Code.NOT_AN_IMAGE
