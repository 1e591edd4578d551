"""File bytes to pixels: every format, upright and of the right colours; every broken file a refusal with a code."""

from __future__ import annotations

import io
import logging
import re
import struct
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import brotli
import numpy as np
import numpy.typing as npt
import pillow_jxl  # noqa: F401  # writes JPEG XL
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from producer_client.contract import Code
from tests.exif import Tag, exif, position
from worker.core.types import Decoded
from worker.encoder import images, jxl
from worker.errors import PhotoRefusal
from worker.words import in_language

SIDE = 224
Colour = tuple[int, int, int]


def decode(content: bytes, *, side: int = SIDE, max_megapixels: float = 100.0) -> Decoded:
    return images.decode(content, side=side, max_megapixels=max_megapixels)


def refusal(content: bytes, *, max_megapixels: float = 100.0) -> PhotoRefusal:
    with pytest.raises(PhotoRefusal) as caught:
        decode(content, max_megapixels=max_megapixels)
    return caught.value


def outcome(content: bytes) -> Code | None:
    """The code of a refusal, None for a decoded photo; anything else escapes and fails the test."""
    try:
        decoded = images.decode(content, side=16, max_megapixels=4)
    except PhotoRefusal as exc:
        return exc.code
    assert decoded.pixels.ndim == 3
    return None


def written(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain(
    colour: Colour | int | float = (200, 60, 20), size: tuple[int, int] = (64, 48), mode: str = "RGB"
) -> Image.Image:
    return Image.new(mode, size, colour)


def quarters(width: int = 64, height: int = 48) -> npt.NDArray[np.uint8]:
    """Red, green / blue, white: every turn and mirroring of it looks different."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = (255, 255, 255)
    return pixels


def corners(pixels: npt.NDArray[np.uint8]) -> list[str]:
    """Names of the colours a little inside of the four corners."""
    height, width, _ = pixels.shape
    names = {"100": "red", "010": "green", "001": "blue", "111": "white"}
    spots = [(y, x) for y in (height // 8, height - height // 8) for x in (width // 8, width - width // 8)]
    return [names.get("".join(str(int(value > 127)) for value in pixels[spot]), "?") for spot in spots]


# -------------------------------------------------------------------------------------------- formats

FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"lossless": True},
    "HEIF": {"quality": 95},
    "TIFF": {},
    "GIF": {},
    "AVIF": {"quality": 95},
    "JXL": {"lossless": True},
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_decodes_to_its_colours(kind: str) -> None:
    decoded = decode(written(Image.fromarray(quarters()), kind, **FORMATS[kind]))

    assert decoded.pixels.shape == (48, 64, 3)
    assert decoded.pixels.dtype == np.uint8
    assert corners(decoded.pixels) == ["red", "green", "blue", "white"]
    assert decoded.gps is None


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@pytest.mark.parametrize("brand", [b"mif1", b"msf1"])
def test_a_container_that_does_not_say_which_format_it_holds_is_read(kind: str, brand: bytes) -> None:
    content = written(Image.fromarray(quarters()), kind, **FORMATS[kind])

    decoded = decode(content[:8] + brand + content[12:])

    assert corners(decoded.pixels) == ["red", "green", "blue", "white"]


def test_the_list_of_formats_is_the_one_tested_here() -> None:
    assert set(images.FORMATS) == set(FORMATS)


@pytest.mark.parametrize("kind", ["BMP", "ICO", "PPM", "TGA", "PCX", "PDF", "JPEG2000"])
def test_other_formats_of_pillow_are_not_opened(kind: str) -> None:
    assert refusal(written(plain(), kind)).code is Code.NOT_AN_IMAGE


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"subsampling": 2, "quality": 50},
        {"compression": "tiff_lzw"},
        {"compression": "tiff_adobe_deflate"},
        {"compression": "jpeg"},
    ],
)
def test_variants_of_formats_decode(options: dict[str, Any]) -> None:
    kind = "TIFF" if "compression" in options else "JPEG"

    assert corners(decode(written(Image.fromarray(quarters()), kind, **options)).pixels)[0] == "red"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO", "HEIF", "AVIF"])
def test_of_several_pictures_in_a_file_the_first_is_the_photo(kind: str) -> None:
    first, second = plain((250, 0, 0)), plain((0, 0, 250))

    decoded = decode(written(first, kind, save_all=True, append_images=[second]))

    assert decoded.pixels.shape == (48, 64, 3)
    red, _, blue = decoded.pixels[24, 32]
    assert red > 200
    assert blue < 50


def about(pixels: npt.NDArray[np.uint8], colour: Colour, tolerance: int = 3) -> bool:
    return bool(np.all(np.abs(pixels.astype(int) - colour) <= tolerance))


def test_cmyk_becomes_the_colour_it_prints() -> None:
    cyan_free = Image.new("CMYK", (64, 48), (0, 255, 255, 0))

    assert about(decode(written(cyan_free, "TIFF")).pixels, (255, 0, 0))
    assert about(decode(written(cyan_free, "JPEG", quality=95)).pixels, (255, 0, 0), 8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("stored", "seen"), [(0, 0), (257, 1), (32_768, 128), (65_535, 255)])
def test_sixteen_bits_keep_their_brightness(kind: str, stored: int, seen: int) -> None:
    grey = Image.fromarray(np.full((48, 64), stored, dtype=np.uint16))

    assert about(decode(written(grey, kind)).pixels, (seen, seen, seen), 1)


def test_big_endian_sixteen_bits_keep_their_brightness() -> None:
    grey = Image.frombytes("I;16B", (64, 48), struct.pack(">H", 0x8001) * (64 * 48))

    assert about(decode(written(grey, "TIFF")).pixels, (128, 128, 128), 1)


@pytest.mark.parametrize(("value", "seen"), [(128.0, 128), (255.0, 255), (32_896.0, 128), (65_535.0, 255), (-5.0, 0)])
def test_numbers_of_a_scientific_tiff_become_a_grey(value: float, seen: int) -> None:
    assert about(decode(written(plain(value, mode="F"), "TIFF")).pixels, (seen, seen, seen), 1)


def test_numbers_that_are_none_become_black() -> None:
    assert about(decode(written(plain(float("nan"), mode="F"), "TIFF")).pixels, (0, 0, 0))


def test_see_through_parts_are_seen_on_white_paper() -> None:
    half = Image.new("RGBA", (64, 48), (255, 0, 0, 255))
    half.paste((0, 0, 255, 0), (0, 0, 32, 48))

    for kind in ("PNG", "WEBP", "TIFF"):
        pixels = decode(written(half, kind, **FORMATS[kind])).pixels
        assert about(pixels[:, :28], (255, 255, 255))
        assert about(pixels[:, 36:], (255, 0, 0))


def test_a_palette_with_transparency_is_seen_on_white_paper() -> None:
    image = Image.new("P", (64, 48), 0)
    image.putpalette([255, 0, 0, 0, 0, 255, 0, 255, 0])
    image.paste(1, (0, 0, 32, 48))

    one_index = decode(written(image, "PNG", transparency=1)).pixels
    a_byte_each = decode(written(image, "PNG", transparency=bytes([255, 0, 255]))).pixels
    gif = decode(written(image, "GIF", transparency=1)).pixels

    for pixels in (one_index, a_byte_each, gif):
        assert about(pixels[:, :32], (255, 255, 255))
        assert about(pixels[:, 32:], (255, 0, 0))


def test_grey_with_a_transparent_value_is_seen_on_white_paper() -> None:
    grey = plain(10, mode="L")
    grey.paste(90, (0, 0, 32, 48))

    pixels = decode(written(grey, "PNG", transparency=10)).pixels

    assert about(pixels[:, :32], (90, 90, 90))
    assert about(pixels[:, 32:], (255, 255, 255))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF"])
def test_one_bit_is_black_and_white(kind: str) -> None:
    image = plain(0, mode="1")
    image.paste(1, (0, 0, 32, 48))

    pixels = decode(written(image, kind)).pixels

    assert about(pixels[:, :32], (255, 255, 255))
    assert about(pixels[:, 32:], (0, 0, 0))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "PA", "I", "RGBX", "YCbCr", "LAB"])
def test_every_mode_of_a_tiff_becomes_three_colours(mode: str) -> None:
    assert decode(written(plain(0, mode=mode), "TIFF")).pixels.shape == (48, 64, 3)


# --------------------------------------------------------------------------------------- orientation

#: Where the first row and the first column of the stored picture lie in the seen one (EXIF 2.32, 4.6.5.1.6).
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def stored_as(orientation: int, seen: npt.NDArray[np.uint8]) -> Image.Image:
    """The picture that a camera held that way would store."""
    first_row, first_column = SIDES[orientation]
    rows = seen.transpose(1, 0, 2) if first_row in ("left", "right") else seen
    if first_row in ("bottom", "right"):
        rows = rows[::-1]
    if first_column in ("bottom", "right"):
        rows = rows[:, ::-1]
    return Image.fromarray(np.ascontiguousarray(rows))


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "HEIF", "AVIF", "JXL"])
def test_a_photo_comes_out_upright(kind: str, orientation: int) -> None:
    how = FORMATS.get(kind, FORMATS["JPEG"])
    content = written(stored_as(orientation, quarters()), kind, exif=exif(orientation), **how)

    pixels = decode(content).pixels

    assert pixels.shape == (48, 64, 3)
    assert corners(pixels) == ["red", "green", "blue", "white"]


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_photo_comes_out_small_and_upright(kind: str, orientation: int) -> None:
    content = written(stored_as(orientation, quarters(1600, 1200)), kind, exif=exif(orientation))

    pixels = decode(content).pixels

    assert pixels.shape == (600, 800, 3)
    assert corners(pixels) == ["red", "green", "blue", "white"]


@pytest.fixture
def transcoded(tmp_path: Path) -> Callable[[int], bytes]:
    """A JPEG of this orientation as JPEG XL, from which it can be had back: its turn is in the header and in EXIF."""

    def make(orientation: int) -> bytes:
        path = tmp_path / "photo.jpg"
        how = {"quality": 95, "exif": exif(orientation, position())}
        path.write_bytes(written(stored_as(orientation, quarters()), "JPEG", **how))
        with Image.open(path) as image:
            return written(image, "JXL", lossless_jpeg=True)

    return make


def without_box(content: bytes, kind: bytes) -> bytes:
    """JPEG XL without its boxes of this kind."""
    kept, at = b"", 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big") or len(content) - at
        kept += b"" if content[at + 4 : at + 8] == kind else content[at : at + length]
        at += length
    return kept


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("with_jpeg", [True, False])
def test_jpeg_xl_made_of_a_jpeg_is_turned_once(
    with_jpeg: bool, orientation: int, transcoded: Callable[[int], bytes]
) -> None:
    content = transcoded(orientation)
    assert without_box(content, b"jbrd") != content

    decoded = decode(content if with_jpeg else without_box(content, b"jbrd"))

    assert decoded.pixels.shape == (48, 64, 3)
    assert corners(decoded.pixels) == ["red", "green", "blue", "white"]
    assert decoded.gps == pytest.approx((50.0875, 14.425))


def with_other_exif(content: bytes, said: bytes) -> bytes:
    """A file whose EXIF is overwritten by one that is no longer."""
    at = content.index(b"MM\0*")
    return content[:at] + said[6:] + content[at + len(said) - 6 :]


def test_avif_is_turned_by_its_header_whatever_its_exif_says() -> None:
    longer = [*position(status="A"), Tag(18, 2, ("WGS-84 and some more",))]
    content = written(stored_as(6, quarters()), "AVIF", exif=exif(6, longer), **FORMATS["AVIF"])
    assert b"irot" in content

    for orientation in (1, 3, 6, 8):
        decoded = decode(with_other_exif(content, exif(orientation, position())))

        assert corners(decoded.pixels) == ["red", "green", "blue", "white"]
        assert decoded.gps == pytest.approx((50.0875, 14.425))


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    content = written(Image.fromarray(quarters()), "JPEG", quality=95, exif=exif(orientation))

    assert corners(decode(content).pixels) == ["red", "green", "blue", "white"]


# ---------------------------------------------------------------------------------------- small enough


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((4000, 3000), (1000, 750)),  # libjpeg decodes a quarter
        ((3000, 4000), (750, 1000)),
        ((1800, 900), (900, 450)),
        ((8000, 460), (8000, 460)),
        ((890, 890), (890, 890)),
        ((300, 200), (300, 200)),
    ],
)
def test_a_jpeg_is_decoded_no_larger_than_the_encoder_needs(size: tuple[int, int], decoded: tuple[int, int]) -> None:
    height, width, _ = decode(written(plain(size=size), "JPEG")).pixels.shape

    assert (width, height) == decoded
    assert min(width, height) >= min(2 * SIDE, *size)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("size", [(3000, 2000), (2001, 3001), (897, 896), (895, 2000)])
def test_a_large_png_is_reduced_by_a_whole_factor(size: tuple[int, int], mode: str) -> None:
    height, width, _ = decode(written(plain(size=size, mode=mode, colour=0), "PNG")).pixels.shape

    factor = min(size) // (2 * SIDE)
    assert (width, height) == tuple(-(-length // factor) for length in size)
    assert min(width, height) >= 2 * SIDE


def test_reducing_keeps_colours_and_transparency() -> None:
    large = Image.new("RGBA", (2000, 1500), (255, 0, 0, 255))
    large.paste((0, 0, 0, 0), (0, 0, 1000, 1500))

    pixels = decode(written(large, "PNG")).pixels

    assert pixels.shape[0] < 1500
    assert about(pixels[:, : pixels.shape[1] // 2 - 1], (255, 255, 255))
    assert about(pixels[:, pixels.shape[1] // 2 + 1 :], (255, 0, 0))


def test_reducing_keeps_a_transparent_value() -> None:
    pixels = decode(written(plain(10, (2000, 1500), mode="L"), "PNG", transparency=10)).pixels

    assert pixels.shape[0] < 1500
    assert about(pixels, (255, 255, 255))


# ------------------------------------------------------------------------------------------------ GPS


def gps_of(tags: list[Tag], kind: str = "JPEG") -> tuple[float, float] | None:
    return decode(written(plain(), kind, exif=exif(6, tags))).gps


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP", "HEIF", "TIFF", "AVIF", "JXL"])
def test_the_position_of_a_phone_is_read_from_every_format_that_has_one(kind: str) -> None:
    assert gps_of(position(), kind) == pytest.approx((50.0875, 14.425))


XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:GPSLatitude="50,5.25N" exif:GPSLongitude="14,25.5E"/>
</rdf:RDF></x:xmpmeta>"""


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "HEIF", "AVIF", "JXL"])
def test_the_position_in_the_xmp_of_a_file_is_read_from_every_format_that_has_one(kind: str) -> None:
    assert decode(written(plain(), kind, xmp=XMP)).gps == pytest.approx((50.0875, 14.425))


@pytest.mark.parametrize(
    ("refs", "expected"),
    [
        (("N", "E"), (50.0875, 14.425)),
        (("S", "E"), (-50.0875, 14.425)),
        (("N", "W"), (50.0875, -14.425)),
        (("S", "W"), (-50.0875, -14.425)),
        (("s", "w"), (-50.0875, -14.425)),
        (("S ", "W\0"), (-50.0875, -14.425)),
    ],
)
def test_south_and_west_are_negative(refs: tuple[str, str], expected: tuple[float, float]) -> None:
    assert gps_of(position(refs=refs)) == pytest.approx(expected)


@pytest.mark.parametrize("refs", [(None, "E"), ("N", None), (None, None), ("", "E"), ("E", "N"), ("north", "E")])
def test_a_position_without_a_hemisphere_is_none(refs: tuple[str | None, str | None]) -> None:
    assert gps_of(position(refs=refs)) is None


@pytest.mark.parametrize(("status", "heard"), [("A", True), ("V", False), ("v", False), (None, True)])
def test_a_void_fix_is_no_position(status: str | None, heard: bool) -> None:
    assert (gps_of(position(status=status)) is not None) is heard


ZERO = ((0, 1), (0, 1), (0, 1))
ONE = ((1, 1), (0, 1), (0, 1))


def test_the_zeros_of_a_camera_without_a_fix_are_no_position() -> None:
    assert gps_of(position(ZERO, ZERO)) is None


def test_a_photo_on_the_equator_or_on_the_meridian_has_a_position() -> None:
    assert gps_of(position(ZERO, ONE)) == (0.0, 1.0)
    assert gps_of(position(ONE, ZERO)) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("lat", "lon"),
    [
        (((0, 0), (0, 0), (0, 0)), ONE),
        (((50, 1), (5, 0), (15, 1)), ONE),
        (ONE, ((14, 1), (25, 1), (1, 0))),
        (((91, 1), (0, 1), (0, 1)), ONE),
        (((90, 1), (0, 1), (1, 1)), ONE),
        (ONE, ((180, 1), (0, 1), (1, 100))),
        (((50, 1), (5, 1)), ONE),
        (((50, 1),), ONE),
        (((50, 1), (5, 1), (15, 1), (0, 1)), ONE),
    ],
)
def test_a_position_that_is_nowhere_is_none(lat: tuple[tuple[int, int], ...], lon: tuple[tuple[int, int], ...]) -> None:
    assert gps_of(position(lat, lon)) is None


@pytest.mark.parametrize("missing", [2, 4])
def test_half_a_position_is_none(missing: int) -> None:
    assert gps_of([tag for tag in position() if tag.number != missing]) is None


def test_a_position_in_words_is_none() -> None:
    assert gps_of([*position()[1:], Tag(2, 2, ("50 N",))]) is None


def test_the_poles_and_the_date_line_are_positions() -> None:
    assert gps_of(position(((90, 1), (0, 1), (0, 1)), ((180, 1), (0, 1), (0, 1)))) == (90.0, 180.0)


# ------------------------------------------------------------------------------------------ broken EXIF


def decoded_quietly(content: bytes) -> Decoded:
    """Fails for any warning, whoever has put which filter before ours."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        decoded = decode(content)
    assert [str(warning.message) for warning in said] == []
    return decoded


def test_broken_exif_does_not_make_a_good_photo_bad() -> None:
    good = exif(6, position(status="A"))

    for place in range(6, len(good)):
        for value in (0, 1, 5, 127, 255):
            content = written(plain(), "JPEG", exif=good[:place] + bytes([value]) + good[place + 1 :])
            assert decoded_quietly(content).pixels.size == 64 * 48 * 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "HEIF", "AVIF", "JXL"])
def test_exif_that_breaks_off_does_not_make_a_good_photo_bad(kind: str) -> None:
    good = exif(6, position(status="A"))

    for length in range(6, len(good), 5):
        if kind == "AVIF":  # its encoder refuses such EXIF
            content = with_other_exif(written(plain(), kind, exif=good), (good[:length] + bytes(99))[: len(good) - 12])
        else:
            content = written(plain(), kind, exif=good[:length])
        assert decoded_quietly(content).pixels.size == 64 * 48 * 3


def test_exif_that_points_beyond_every_file_does_not_make_a_good_photo_bad() -> None:
    at_2_to_the_64 = struct.pack(">HHHII", 1, 0x8825, 16, 1, 26) + b"\0" * 4 + b"\xff" * 8

    content = written(plain(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08" + at_2_to_the_64)

    assert decoded_quietly(content).gps is None


def test_a_broken_position_still_leaves_the_photo_upright() -> None:
    broken = exif(6, [Tag(1, 3, (1,)), *position()[:2], Tag(3, 4, (7,))])
    content = written(stored_as(6, quarters()), "JPEG", quality=95, exif=broken)

    decoded = decoded_quietly(content)

    assert corners(decoded.pixels) == ["red", "green", "blue", "white"]
    assert decoded.gps is None


def test_a_palette_with_bytes_of_transparency_draws_no_warning() -> None:
    image = Image.new("P", (64, 48), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])

    decoded_quietly(written(image, "PNG", transparency=bytes([10, 200])))


# ---------------------------------------------------------------------------------------- no photo at all


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("photo.jpg", written(plain(), "JPEG"))
    return file.getvalue()


def test_an_empty_file_is_said_to_be_empty() -> None:
    assert refusal(b"").code is Code.EMPTY_FILE


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"just some text",
        b"<!doctype html><html><body>404 Not Found</body></html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"\0" * 5000,
        zipped(),
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"RIFF\0\0\0\0WEBP",
        b"II*\0\x08\0\0\0",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    ],
    # Without the time of day that a zip begins with: processes that share the tests out must have the same ones.
    ids=lambda content: content[:10].decode("latin-1").encode("unicode_escape").decode(),
)
def test_what_is_no_photo_is_refused(content: bytes) -> None:
    assert refusal(content).code in (Code.NOT_AN_IMAGE, Code.DAMAGED_IMAGE)


def test_a_web_page_called_jpg_is_said_to_be_no_photo() -> None:
    error = refusal(b"<html>this was photo.jpg</html>")

    assert error.code is Code.NOT_AN_IMAGE
    assert "JPEG, PNG" in error.message


def test_the_thumbnail_of_a_raw_file_is_not_taken_for_the_photo() -> None:
    """As DNG, NEF and ARW begin: a TIFF whose first picture is a smaller version of another."""
    error = refusal(written(plain(size=(160, 120)), "TIFF", tiffinfo={254: 1}))

    assert error.code is Code.NOT_AN_IMAGE
    assert "RAW" in error.message
    assert decode(written(plain(), "TIFF", tiffinfo={254: 0})).pixels.shape == (48, 64, 3)


# ------------------------------------------------------------------------------------------------ sizes


def png_header(width: int, height: int, *, bits: int = 1, rows: bytes = b"") -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_bomb_of_400_megapixels_is_refused_from_its_header() -> None:
    bomb = png_header(20_000, 20_000, rows=zlib.compress(b"\0" * (20_000 * 2_501), 9))
    started = time.thread_time()

    error = refusal(bomb)

    assert len(bomb) < 100_000
    assert error.code is Code.TOO_MANY_PIXELS
    assert "20000 x 20000 is 400 MP, the limit is 100 MP (SIGHTLINE_MAX_MEGAPIXELS)" in error.message
    assert time.thread_time() - started < 1.0


def jxl_header(width: int, height: int) -> bytes:
    """The beginning of a JPEG XL of this size: two sides of 30 bits, and metadata as usual."""
    bits = 0b0 | 0b11 << 1 | (height - 1) << 3 | 0b000 << 33 | 0b11 << 36 | (width - 1) << 38 | 1 << 68
    return b"\xff\x0a" + bits.to_bytes(9, "little")


@pytest.mark.parametrize("boxed", [False, True])
def test_a_jpeg_xl_is_judged_before_its_plugin_decodes_it(boxed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "opened", lambda _: pytest.fail("decoded"))

    def judged(width: int, height: int) -> Code:
        start = b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\0jxlc" if boxed else b""
        return Code(refusal(start + jxl_header(width, height)).code)

    assert judged(20_000, 20_000) is Code.TOO_MANY_PIXELS
    assert judged(200, 15) is Code.TOO_SMALL
    assert judged(10_000, 20) is Code.TOO_THIN


@pytest.mark.parametrize("size", [(64, 48), (256, 256), (1201, 997), (320, 200), (9000, 17), (1920, 1080), (30, 41)])
@pytest.mark.parametrize("boxed", [False, True])
def test_the_size_in_the_header_of_a_jpeg_xl_is_that_of_the_picture(size: tuple[int, int], boxed: bool) -> None:
    header = jxl.header_of(written(plain(size=size), "JXL", effort=1, use_container=boxed))

    assert header == (size, 1)


@pytest.mark.parametrize("compressed", [False, True])
def test_what_a_jpeg_xl_says_of_itself_is_read_whether_compressed_or_not(compressed: bool) -> None:
    content = written(plain(), "JXL", exif=exif(6, position()), use_container=True, compress_metadata=compressed)
    assert (b"brob" in content) is compressed

    assert decode(content).gps == pytest.approx((50.0875, 14.425))


def test_a_box_with_a_length_of_64_bits_is_read() -> None:
    whole = written(plain(), "JXL", lossless=True, use_container=True, exif=exif(6, position()))
    at = next(whole.index(kind) for kind in (b"jxlc", b"jxlp") if kind in whole) - 4
    length = int.from_bytes(whole[at : at + 4], "big") or len(whole) - at
    longer = struct.pack(">I", 1) + whole[at + 4 : at + 8] + struct.pack(">Q", length + 8)

    content = whole[:at] + longer + whole[at + 8 :]

    assert jxl.header_of(content) == jxl.header_of(whole)
    assert np.array_equal(decode(content).pixels, decode(whole).pixels)


def test_compressed_metadata_that_breaks_off_says_nothing() -> None:
    said = exif(6, [*position(), Tag(18, 2, ("".join(map(chr, range(33, 126))) * 20,))])
    packed = brotli.compress(b"\0\0\0\0" + said[6:])
    whole = written(plain(), "JXL", use_container=True)

    def with_box(content: bytes) -> bytes:
        return whole[:32] + struct.pack(">I", 12 + len(content)) + b"brobExif" + content + whole[32:]

    assert jxl.metadata(with_box(packed), limit=10_000) == {"exif": said[6:]}
    assert jxl.metadata(with_box(packed[:-20]), limit=10_000) == {}


def test_metadata_that_unpacks_to_more_than_is_read_says_nothing() -> None:
    bomb = brotli.compress(b"\0" * 10_000_000)
    box = struct.pack(">I", 12 + len(bomb)) + b"brobExif" + bomb
    whole = written(plain(), "JXL", use_container=True)
    assert len(bomb) < 1000

    assert jxl.metadata(whole[:32] + box + whole[32:], limit=4_000_000) == {}
    assert decode(whole[:32] + box + whole[32:]).gps is None


def test_a_size_is_judged_before_anything_is_decoded() -> None:
    assert refusal(png_header(20_000, 20_000, rows=b"no pixels here")).code is Code.TOO_MANY_PIXELS
    assert refusal(png_header(15, 15, rows=b"no pixels here")).code is Code.TOO_SMALL
    assert refusal(png_header(16, 16, rows=b"no pixels here")).code is Code.DAMAGED_IMAGE


def test_a_photo_beyond_every_limit_of_pillow_draws_no_warning() -> None:
    with pytest.raises(PhotoRefusal, match="MP"):
        decoded_quietly(png_header(200_000, 200_000))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF"])
def test_the_limit_itself_is_allowed(kind: str) -> None:
    at, over = written(plain(size=(1000, 500)), kind), written(plain(size=(1000, 501)), kind)

    assert decode(at, max_megapixels=0.5).pixels.shape[2] == 3
    assert refusal(over, max_megapixels=0.5).code is Code.TOO_MANY_PIXELS


@pytest.mark.parametrize("size", [(1, 1), (15, 15), (15, 4000), (4000, 15)])
def test_a_photo_that_shows_nothing_is_refused(size: tuple[int, int]) -> None:
    assert refusal(written(plain(size=size), "PNG")).code is Code.TOO_SMALL


def test_sixteen_pixels_on_a_side_are_enough() -> None:
    assert decode(written(plain(size=(16, 16)), "PNG")).pixels.shape == (16, 16, 3)


@pytest.mark.parametrize("turned", [False, True])
def test_a_stripe_is_refused_before_it_grows_with_its_short_side(turned: bool) -> None:
    longest = 16 * images.MAX_ASPECT
    at, over = (longest, 16), (longest + 1, 16)

    assert decode(written(plain(size=at[::-1] if turned else at), "PNG")).pixels.size == 16 * longest * 3
    assert refusal(written(plain(size=over[::-1] if turned else over), "PNG")).code is Code.TOO_THIN


# --------------------------------------------------------------------------------------- damaged photos


def noise(width: int = 48, height: int = 36) -> Image.Image:
    pixels = np.random.default_rng(7).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


GOOD: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: written(noise(), "JPEG", exif=exif(6, position())),
    "progressive jpeg": lambda: written(noise(), "JPEG", progressive=True),
    "mpo": lambda: written(noise(), "MPO", save_all=True, append_images=[noise()]),
    "png": lambda: written(noise(), "PNG", exif=exif(6, position())),
    "palette png": lambda: written(noise().convert("P"), "PNG", transparency=b"\0\1\2"),
    "gif": lambda: written(noise(), "GIF", save_all=True, append_images=[plain(size=(48, 36))]),
    "webp": lambda: written(noise(), "WEBP", exif=exif(6, position())),
    "lossless webp": lambda: written(noise(), "WEBP", lossless=True),
    "tiff": lambda: written(noise(), "TIFF", exif=exif(6, position())),
    "lzw tiff": lambda: written(noise(), "TIFF", compression="tiff_lzw"),
    "jpeg tiff": lambda: written(noise(), "TIFF", compression="jpeg"),
    "heic": lambda: written(noise(), "HEIF", exif=exif(6, position())),
    "avif": lambda: written(noise(), "AVIF", exif=exif(6, position())),
    "jxl": lambda: written(noise(), "JXL", exif=exif(6, position())),
    "bare jxl": lambda: written(noise(), "JXL", lossless=True),
}
DAMAGED = {Code.DAMAGED_IMAGE, Code.NOT_AN_IMAGE}
#: What a broken header may say.
WRONG_SIZE = {Code.TOO_MANY_PIXELS, Code.TOO_SMALL, Code.TOO_THIN}


@pytest.mark.parametrize("kind", GOOD)
def test_a_photo_that_breaks_off_is_damaged_wherever_it_does(kind: str) -> None:
    content = GOOD[kind]()
    assert outcome(content) is None

    outcomes = {length: outcome(content[:length]) for length in range(1, len(content), max(1, len(content) // 300))}

    assert set(outcomes.values()) <= DAMAGED | {None}
    # What is cut from the end may be a trailer that no pixel needs; an MPO's second picture is half of it.
    needed = 0.4 if kind in ("mpo", "gif", "lzw tiff", "jpeg tiff") else 0.9
    assert {code for length, code in outcomes.items() if length < needed * len(content)} <= DAMAGED


def test_a_large_jpeg_that_breaks_off_is_damaged_also_when_it_is_reduced() -> None:
    content = written(noise(1200, 1000), "JPEG")

    for share in (0.1, 0.5, 0.9):
        assert refusal(content[: int(share * len(content))]).code is Code.DAMAGED_IMAGE


@pytest.mark.parametrize("kind", GOOD)
def test_flipped_bytes_give_a_photo_or_a_refusal_and_nothing_else(kind: str) -> None:
    good = GOOD[kind]()
    places = st.integers(0, len(good) - 1) | st.integers(0, min(250, len(good) - 1))
    changes = st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=6)

    @settings(derandomize=True, max_examples=150)
    @given(changes)
    def check(changed: list[tuple[int, int]]) -> None:
        content = bytearray(good)
        for place, value in changed:
            content[place] = value

        assert outcome(bytes(content)) in DAMAGED | WRONG_SIZE | {None}

    check()


@settings(derandomize=True, max_examples=150)
@given(st.binary(max_size=300), st.sampled_from(sorted(GOOD)))
def test_a_true_beginning_with_a_wrong_rest_is_refused(rest: bytes, kind: str) -> None:
    assert outcome(GOOD[kind]()[:24] + rest) in DAMAGED | WRONG_SIZE


# ------------------------------------------------------------------------------------------ the two decoders of JPEG


def by_pillow(content: bytes, monkeypatch: pytest.MonkeyPatch) -> npt.NDArray[np.uint8]:
    with monkeypatch.context() as patched:
        patched.setattr(images, "_jpeg", lambda *_: None)
        return decode(content).pixels


def soft_picture(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(width * height)
    small = Image.fromarray(random.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(640, 480), (1801, 1203), (3601, 2403), (4001, 6007), (8009, 6001)])
@pytest.mark.parametrize("options", [{"quality": 92}, {"quality": 75, "progressive": True}, {"subsampling": 0}])
def test_both_decoders_of_jpeg_give_the_same_pixels(
    size: tuple[int, int], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = written(soft_picture(*size), "JPEG", **options)

    ours, pillows = decode(content).pixels, by_pillow(content, monkeypatch)

    assert ours.shape == pillows.shape
    # Both are libjpeg-turbo, which rounds differently in its code for vector units.
    assert np.abs(ours.astype(int) - pillows).max() <= 3


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_printers_jpegs_come_out_alike(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(soft_picture(1200, 900).convert(mode), "JPEG")

    assert np.abs(decode(content).pixels.astype(int) - by_pillow(content, monkeypatch)).max() <= 3


def test_a_jpeg_that_the_quick_decoder_does_not_like_is_pillows_to_judge() -> None:
    content = written(soft_picture(640, 480), "JPEG")
    # Bytes that belong to nothing before a table: a warning of libjpeg's, and a photo all the same.
    table = content.index(b"\xff\xc4")
    odd = content[:table] + b"\x01\x02" + content[table:]

    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(odd, "RGB")
    assert decode(odd).pixels.shape == (480, 640, 3)


def test_jpegs_do_not_go_through_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(soft_picture(640, 480), "JPEG", exif=exif(6, position()))
    monkeypatch.setattr(Image.Image, "draft", lambda *_: pytest.fail("decoded twice"))

    decoded = decode(content)

    assert decoded.pixels.shape == (640, 480, 3), "upright by its tag"
    assert decoded.gps is not None


# ------------------------------------------------------------------------------------- photos that break off

BROKEN_OFF: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "with restarts": {"restart_marker_blocks": 3},
    "grey": {"mode": "L"},
    "of printers": {"mode": "CMYK"},
}


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    return written(soft_picture(160, 128).convert(mode), "JPEG", exif=exif(6, position()), **options)


@pytest.mark.parametrize("kind", BROKEN_OFF)
@pytest.mark.parametrize("lacking", [1, 2])
def test_a_jpeg_that_lacks_only_its_end_marker_is_the_same_photo(kind: str, lacking: int) -> None:
    whole = jpeg(**BROKEN_OFF[kind])
    assert whole.endswith(b"\xff\xd9")

    decoded = decode(whole[:-lacking])

    assert np.array_equal(decoded.pixels, decode(whole).pixels)
    assert decoded.gps == pytest.approx((50.0875, 14.425))


@pytest.mark.parametrize("kind", BROKEN_OFF)
def test_a_jpeg_that_lacks_a_byte_of_its_picture_is_damaged(kind: str) -> None:
    whole = jpeg(**BROKEN_OFF[kind])

    for lacking in [*range(3, 40), *range(40, len(whole) - 300, 61)]:
        assert refusal(whole[:-lacking]).code is Code.DAMAGED_IMAGE, lacking


#: What may stand behind a photo, or where its end marker should.
BEHIND = {
    "zeros of a recovered sector": b"\0" * 4096,
    "a line end": b"\r\n",
    "filler": b"\xff" * 64,
    "a motion photo's video": b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 40,
}


@pytest.mark.parametrize("kind", BROKEN_OFF)
@pytest.mark.parametrize("behind", BEHIND)
def test_what_stands_behind_a_jpeg_does_not_matter(kind: str, behind: str) -> None:
    whole = jpeg(**BROKEN_OFF[kind])

    assert np.array_equal(decode(whole + BEHIND[behind]).pixels, decode(whole).pixels)


@pytest.mark.parametrize("kind", BROKEN_OFF)
@pytest.mark.parametrize("instead", sorted(BEHIND.keys() - {"a motion photo's video"}))
def test_what_stands_in_the_place_of_the_end_marker_does_not_matter(kind: str, instead: str) -> None:
    whole = jpeg(**BROKEN_OFF[kind])

    assert np.array_equal(decode(whole[:-2] + BEHIND[instead]).pixels, decode(whole).pixels)


def test_a_picture_whose_own_last_byte_is_zero_keeps_it_before_padding() -> None:
    """0xFF in the data is followed by a zero that belongs to it."""
    some = (written(noise(16 + 8 * n, 16), "JPEG", quality=q) for n in range(60) for q in range(96, 101))
    whole = next(jpeg for jpeg in some if jpeg[-4:-2] == b"\xff\x00")

    assert np.array_equal(decode(whole[:-2] + b"\0" * 512).pixels, decode(whole).pixels)


@pytest.mark.parametrize("kind", BROKEN_OFF)
@pytest.mark.parametrize("zeros", [100, 400_000])
def test_a_jpeg_whose_rest_was_not_downloaded_is_damaged(kind: str, zeros: int) -> None:
    """Zeros are a picture to decoders: a grey one, for as long as there are enough of them."""
    whole = jpeg(**BROKEN_OFF[kind])
    head = whole.index(b"\xff\xda") + 20

    for share in (0.1, 0.5, 0.9):
        cut = head + int(share * (len(whole) - head))
        assert refusal(whole[:cut] + b"\0" * zeros).code is Code.DAMAGED_IMAGE, share


@pytest.mark.parametrize("kind", BROKEN_OFF)
@pytest.mark.parametrize("end", [b"\xff\xd9", b"\0" * 300 + b"\xff\xd9", b"\xff\xd9" + b"\0" * 512])
def test_a_jpeg_that_breaks_off_is_damaged_also_with_an_end_marker(kind: str, end: bytes) -> None:
    """libjpeg fills the rest with grey and goes on; Pillow says nothing of it."""
    whole = jpeg(**BROKEN_OFF[kind])
    head = whole.index(b"\xff\xda") + 20

    for share in (0.1, 0.5, 0.9):
        cut = head + int(share * (len(whole) - head))
        assert refusal(whole[:cut] + end).code is Code.DAMAGED_IMAGE, share


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_photo_whose_trailer_alone_is_missing_is_the_same_photo(kind: str) -> None:
    whole = written(soft_picture(160, 128), kind)
    trailer = {"PNG": 12, "GIF": 1}[kind]

    assert np.array_equal(decode(whole[:-trailer]).pixels, decode(whole).pixels)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "TIFF", "HEIF", "AVIF", "JXL"])
@pytest.mark.parametrize("behind", BEHIND)
def test_what_stands_behind_a_photo_does_not_matter(kind: str, behind: str) -> None:
    whole = written(soft_picture(160, 128), kind)

    assert np.array_equal(decode(whole + BEHIND[behind]).pixels, decode(whole).pixels)


WEBP: dict[str, dict[str, Any]] = {
    "lossy": {},
    "lossless": {"lossless": True},
    "with a position": {"exif": exif(6, position())},
}


@pytest.mark.parametrize("kind", WEBP)
@pytest.mark.parametrize("off", [-1000, -9, -2, 1, 2, 5000])
def test_a_webp_with_a_wrong_length_in_its_header_is_the_same_photo(kind: str, off: int) -> None:
    whole = written(soft_picture(160, 128), "WEBP", **WEBP[kind])

    decoded = decode(whole[:4] + struct.pack("<I", max(len(whole) - 8 + off, 0)) + whole[8:])

    assert np.array_equal(decoded.pixels, decode(whole).pixels)
    assert decoded.gps == decode(whole).gps


def test_a_webp_whose_length_reads_like_the_name_of_another_format_is_the_same_photo() -> None:
    whole = written(soft_picture(160, 128), "WEBP")
    said = b"JXL\0"
    more = 8 + int.from_bytes(said, "little") - len(whole) - 8

    decoded = decode(whole[:4] + said + whole[8:] + b"JUNK" + struct.pack("<I", more) + bytes(more))

    assert np.array_equal(decoded.pixels, decode(whole).pixels)


def test_a_webp_that_lacks_a_byte_of_its_picture_is_damaged() -> None:
    whole = written(soft_picture(160, 128), "WEBP")
    (length,) = struct.unpack_from("<I", whole, 16)
    picture_ends = 20 + length

    for cut in (picture_ends - 1, picture_ends - 2, picture_ends // 2):
        for said in (cut - 8, len(whole) - 8):
            assert refusal(whole[:4] + struct.pack("<I", said) + whole[8:cut]).code is Code.DAMAGED_IMAGE


def test_a_webp_that_lacks_its_last_byte_of_padding_is_the_same_photo() -> None:
    sizes = ((160, 128 + 16 * n) for n in range(20))
    whole = next(w for w in (written(soft_picture(*size), "WEBP", lossless=True) for size in sizes) if w[16] % 2)

    assert np.array_equal(decode(whole[:-1]).pixels, decode(whole).pixels)


def test_a_jpeg_that_breaks_off_between_two_scans_is_damaged() -> None:
    """Every decoder takes it for a whole one of less detail."""
    whole = jpeg(progressive=True)
    places = [at for at in range(len(whole)) if whole[at : at + 2] in (b"\xff\xda", b"\xff\xc4")][2:]
    assert len(places) > 5

    for at in places:
        assert refusal(whole[:at]).code is Code.DAMAGED_IMAGE


@given(st.integers(0, 4000), st.binary(max_size=3))
@settings(derandomize=True, max_examples=200)
def test_bytes_that_belong_nowhere_do_not_break_the_look_for_the_end(place: int, some: bytes) -> None:
    whole = jpeg(progressive=True)[:-2]

    outcome(whole[:place] + some + whole[place + len(some) :])


# ------------------------------------------------------------------------------------- what is said of a damaged photo


def damaged(kind: str) -> Iterator[bytes]:
    """Cut off, and with a hole, at many places."""
    good = GOOD[kind]()
    for length in range(40, len(good), max(1, len(good) // 40)):
        yield good[:length]
        yield good[:length] + bytes(len(good) // 4) + good[length + len(good) // 4 :]


@pytest.mark.parametrize("kind", GOOD)
def test_of_a_damaged_photo_our_own_sentence_is_said_in_both_languages_and_the_librarys_words_go_to_the_log(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, images.__name__)
    said: dict[Code, set[str]] = {}
    for content in damaged(kind):
        try:
            decode(content)
        except PhotoRefusal as exc:
            said.setdefault(exc.code, set()).add(exc.message)

    sentences = said[Code.DAMAGED_IMAGE]
    assert {sentence.removeprefix("the photo cannot be decoded: its file ") for sentence in sentences} <= {
        "breaks off. Copy it again from where it came from",
        "is damaged. Copy it again from where it came from",
    }
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")
    for sentence in sentences:
        assert not re.search("[a-z]", in_language(sentence))
    assert all("\n" not in str(vars(record)["why"]) for record in caplog.records)
    assert caplog.records


@pytest.mark.parametrize("kind", ["jpeg", "progressive jpeg", "png", "gif"])
def test_of_a_photo_that_breaks_off_that_is_said(kind: str) -> None:
    content = GOOD[kind]()

    assert "breaks off" in refusal(content[: len(content) // 2]).message


@pytest.mark.parametrize("kind", sorted(set(GOOD) - {"tiff", "lzw tiff", "jpeg tiff"}))  # as RAW files begin
def test_a_photo_of_which_its_beginning_alone_is_there_is_damaged_and_not_called_no_photo(kind: str) -> None:
    assert outcome(GOOD[kind]()[:40]) is Code.DAMAGED_IMAGE
