"""Painting in metres: shapes, soft shadows, masonry. Must never know what is painted, or where it hangs."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Floats = NDArray[np.floating]

#: Texture pixels a metre. At 20 m a 640 px photo shows 25 px a metre: neither blurred nor wasted.
PX = 24
#: Textures are drawn this many times larger, then reduced: ImageDraw has no smooth edges of its own.
FINE = 2
#: Masonry by name: block width and height in metres, how much blocks differ, how dark the joints are.
_COURSES = {
    "brick": (0.50, 0.19, 0.10, 0.30),
    "stone": (1.30, 0.55, 0.035, 0.16),
    "tile": (0.34, 0.42, 0.09, 0.34),
    "cobbles": (0.55, 0.60, 0.11, 0.30),
    "slabs": (1.20, 1.60, 0.05, 0.22),
}


@dataclass(frozen=True)
class Sprite:
    """A painted surface: RGBA, and how much of each pixel shines by itself after dark (L). px: pixels a metre."""

    paint: Image.Image
    glow: Image.Image
    px: int = PX

    @property
    def width_m(self) -> float:
        return self.paint.width / self.px

    @property
    def height_m(self) -> float:
        return self.paint.height / self.px


class Canvas:
    """Paints a sprite in metres: x from the left, z up from the bottom."""

    def __init__(self, width_m: float, height_m: float, px: int = PX, fine: int = FINE) -> None:
        self.width_m, self.height_m, self.px, self.fine = width_m, height_m, px, fine
        # Whole multiples of `fine`, so that the reduction leaves no half-filled rim.
        size = (round(width_m * px) * fine, round(height_m * px) * fine)
        self._image, self._glow = Image.new("RGBA", size), Image.new("L", size)
        self._draw, self._shine = ImageDraw.Draw(self._image), ImageDraw.Draw(self._glow)

    def box(self, x0: float, z0: float, x1: float, z1: float, colour: Colour, glow: int = 0) -> None:
        self.poly([(x0, z0), (x1, z0), (x1, z1), (x0, z1)], colour, glow)

    def poly(self, corners: list[tuple[float, float]], colour: Colour, glow: int = 0) -> None:
        pixels = [self._at(x, z) for x, z in corners]
        self._draw.polygon(pixels, fill=(*colour, 255))
        self._shine.polygon(pixels, fill=glow)

    def arch(self, x0: float, z0: float, x1: float, z1: float, colour: Colour, glow: int = 0) -> None:
        """A box whose top is half a circle."""
        radius = (x1 - x0) / 2
        turns = [math.pi * step / 16 for step in range(17)]
        bow = [(x0 + radius + radius * math.cos(a), z1 - radius + radius * math.sin(a)) for a in turns]
        self.poly([(x0, z0), (x1, z0), *bow], colour, glow)

    def disc(self, x: float, z: float, radius: float, colour: Colour, glow: int = 0) -> None:
        turns = [math.tau * step / 20 for step in range(20)]
        self.poly([(x + radius * math.cos(a), z + radius * math.sin(a)) for a in turns], colour, glow)

    def line(self, corners: list[tuple[float, float]], width_m: float, colour: Colour) -> None:
        pixels = [self._at(x, z) for x, z in corners]
        self._draw.line(pixels, fill=(*colour, 255), width=max(1, round(width_m * self.px * self.fine)), joint="curve")

    def fade(self, x0: float, z0: float, x1: float, z1: float, strength: float) -> None:
        """A soft shadow, strongest (0..1) at the top edge z1, gone at z0; over painted parts only."""
        (left, bottom), (right, top) = self._at(x0, z0), self._at(x1, z1)
        size = (max(1, round(right - left)), max(1, round(bottom - top)))
        ramp = Image.linear_gradient("L").transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize(size)
        box = (round(left), round(top))
        self._image.paste((18, 18, 26, 255), box, ramp.point(levels((strength,))))

    def surface(self, corners: list[tuple[float, float]], texture: Image.Image) -> None:
        """Fill the polygon with a texture of the canvas's size."""
        mask = Image.new("L", self._image.size)
        ImageDraw.Draw(mask).polygon([self._at(x, z) for x, z in corners], fill=255)
        self._image.paste(texture, (0, 0), mask)

    def texture(self, colour: Colour, kind: str, rng: np.random.Generator) -> Image.Image:
        """A wall, roof or ground as large as the canvas: masonry of `_COURSES`, or plain."""
        size = (self._image.width // self.fine, self._image.height // self.fine)
        factors = _relief(size, kind, self.px, rng)
        bands = [Image.fromarray(np.clip(factors * channel, 0, 255).astype(np.uint8)) for channel in colour]
        return Image.merge("RGB", bands).resize(self._image.size, Image.Resampling.NEAREST)

    def sprite(self) -> Sprite:
        return Sprite(self._image.reduce(self.fine), self._glow.reduce(self.fine), self.px)

    def _at(self, x: float, z: float) -> tuple[float, float]:
        scale = self.px * self.fine
        return x * scale, (self.height_m - z) * scale


def noise(size: tuple[int, int], grain: float, rng: np.random.Generator) -> Floats:
    """Smooth noise [height, width] of mean 0, spread about 1; its largest blobs are `grain` pixels wide."""
    total = np.zeros((size[1], size[0]), dtype=np.float32)
    for octave in range(3):
        cell = max(1.0, grain / 3**octave)
        coarse = rng.normal(size=(math.ceil(size[1] / cell) + 1, math.ceil(size[0] / cell) + 1)).astype(np.float32)
        total += np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)) / 2**octave
    return total


def shade(colour: Colour, factor: float) -> Colour:
    """The colour, darker or brighter."""
    red, green, blue = (max(0, min(255, round(channel * factor))) for channel in colour)
    return red, green, blue


@lru_cache(maxsize=32)
def levels(factors: tuple[float, ...]) -> list[int]:
    """Pillow's lookup table for `Image.point`: each band's 256 levels times its factor."""
    return [min(255, round(level * factor)) for factor in factors for level in range(256)]


def _relief(size: tuple[int, int], kind: str, px: int, rng: np.random.Generator) -> Floats:
    """Factors [height, width] on a surface's colour: stains, and the blocks and joints of its masonry."""
    factors = 1.0 + noise(size, 1.6 * px, rng) * (0.012 if kind == "panel" else 0.026)
    if kind in _COURSES:
        wide, high, differ, joint = _COURSES[kind]
        rows = np.arange(size[1])[:, None] / (high * px)
        columns = np.arange(size[0])[None, :] / (wide * px) + 0.5 * (rows.astype(int) % 2)
        blocks = rng.normal(1.0, differ, (int(rows.max()) + 1, int(columns.max()) + 1)).astype(np.float32)
        factors *= blocks[rows.astype(int), columns.astype(int)]
        thin = max(1.2 / px, 0.03)
        factors *= 1 - joint * ((rows % 1 < thin / high) | (columns % 1 < thin / wide))
    return factors
