"""Pictures that show no place: pages and screens of text, and what is blank; and photos that are none of these."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from demo.scenes import Viewpoint, place_names, render
from worker.core.types import TOO_PLAIN
from worker.encoder.images import decode
from worker.encoder.picture import picture_hash
from worker.encoder.plain import is_page

WORDS = "terms and conditions of the street that is named below, signed on the date above"


def written(image: Image.Image, box: tuple[int, int, int, int], size: int, colour: str) -> Image.Image:
    left, top, right, bottom = box
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    line = (WORDS + " ") * 4
    for row, y in enumerate(range(top, bottom - size, round(1.4 * size))):
        characters = int((right - left) / draw.textlength("n", font=font))
        draw.text((left, y), line[row : row + characters], colour, font)
    return image


def page() -> Image.Image:
    return written(Image.new("RGB", (1240, 1754), "white"), (120, 120, 1120, 1640), 24, "black")


def scan() -> Image.Image:
    """Off-white, a little askew, noisy."""
    grey = np.asarray(page(), dtype=np.float64) * 0.9 + np.random.default_rng(1).normal(12, 2, (1754, 1240, 1))
    turned = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    return turned.rotate(0.7, Image.Resampling.BICUBIC, fillcolor=(235, 235, 235))


def screen(ground: str, ink: str) -> Image.Image:
    image = Image.new("RGB", (1920, 1080), ground)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 1920, 40), fill=(30, 80, 160))
    draw.rectangle((0, 40, 300, 1080), fill="grey")
    return written(image, (330, 70, 1880, 1060), 20, ink)


def chat() -> Image.Image:
    image = Image.new("RGB", (1080, 2340), (236, 229, 221))
    for n in range(9):
        top, left = 200 + n * 230, 40 + 260 * (n % 2)
        ImageDraw.Draw(image).rounded_rectangle((left, top, left + 740, top + 200), 20, "white")
        written(image, (left + 20, top + 15, left + 600, top + 195), 34, "black")
    return image


PAGES: dict[str, Callable[[], Image.Image]] = {
    "page": page,
    "scan": scan,
    "screen": lambda: screen("white", "black"),
    "dark screen": lambda: screen("#282c34", "white"),
    "chat": chat,
}


def noise(mean: float, strength: float) -> Image.Image:
    grey = np.random.default_rng(2).normal(mean, strength, (480, 640, 3))
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8))


BLANK: dict[str, Callable[[], Image.Image]] = {
    "black": lambda: Image.new("RGB", (640, 480)),
    "grey": lambda: Image.new("RGB", (640, 480), (128, 128, 128)),
    "white": lambda: Image.new("RGB", (640, 480), "white"),
    "noise": lambda: noise(128, 20),
    "finger": lambda: noise(8, 4).filter(ImageFilter.GaussianBlur(3)),
}


def hash_of(image: Image.Image, kind: str, **options: int) -> bytes:
    """Of the picture as it is saved and read again."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return decode(file.getvalue(), side=224, max_megapixels=100).picture_hash


@pytest.mark.parametrize("name", [*PAGES, *BLANK])
def test_pages_screens_and_blank_pictures_have_no_hash_however_they_are_saved(name: str) -> None:
    image = (PAGES | BLANK)[name]()

    assert (
        hash_of(image, "PNG") == hash_of(image, "JPEG", quality=90) == hash_of(image, "JPEG", quality=75) == TOO_PLAIN
    )


def test_the_same_greys_are_no_copies_of_each_other_by_a_hash() -> None:
    assert hash_of(BLANK["grey"](), "PNG") == hash_of(BLANK["white"](), "PNG") == b"", "an empty one is near to none"


def street(light: str) -> Image.Image:
    return render(Viewpoint(place_names()[0], 3, 0.0, 0.0, light, 0.0, 21.0, 0.0))


@pytest.mark.parametrize("share", [1.0, 0.28, 0.15])
@pytest.mark.parametrize("light", ["noon", "dusk"])
def test_a_street_is_neither_by_day_nor_by_night(light: str, share: float) -> None:
    """Dark ones with the noise of a camera that sees little."""
    dark = np.asarray(street(light), dtype=np.float64) * share
    noisy = dark + np.random.default_rng(3).normal(0, 4, dark.shape) * (share < 1)

    assert hash_of(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), "JPEG", quality=85) != TOO_PLAIN


def test_a_tower_before_a_white_sky_is_a_place() -> None:
    pixels = np.array(street("noon"))
    pixels[: pixels.shape[0] * 2 // 3] = 255
    pixels[100:, 280:330] = np.array(street("noon"))[100:, 280:330]

    assert not is_page(pixels)
    assert picture_hash(Image.fromarray(pixels)) != TOO_PLAIN


def test_few_colours_or_sharp_edges_alone_make_no_page() -> None:
    rng = np.random.default_rng(5)
    mosaic = np.kron(rng.integers(0, 256, (48, 64, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    chart = np.full((480, 640, 3), 255, dtype=np.uint8)
    chart[100:, 100:140] = chart[200:, 300:340] = 30
    columns = np.arange(640) // 10 % 2 * 176 + 24
    slats = (columns[None, :, None] + rng.integers(-7, 8, (480, 640, 1))).repeat(3, axis=2).astype(np.uint8)

    assert not any(is_page(pixels) for pixels in (mosaic, chart, slats)), "many colours; few edges; shades between"
    assert is_page(columns[None, :, None].repeat(480, axis=0).repeat(3, axis=2).astype(np.uint8)), "without shades"
