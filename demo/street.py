"""What stands in a place: hills, ground, houses, a landmark, trees and lamps. Must never know photos or files."""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from demo.camera import Camera, Quad
from demo.canvas import Canvas, Colour, Sprite, shade
from demo.houses import house
from demo.places import Name, Style, rng_of, storey_rng, style_of
from demo.storeys import storey

#: Places that are drawn once for all their views.
STREETS_KEPT = 8
#: Half the street: at the outermost viewpoint the picture still ends on a house.
HALF_STREET_M = 37.0
ROAD_EDGE_M = -5.0
GROUND_NEAR_M, GROUND_FAR_M = -30.0, 34.0
#: How far the ground before a long street reaches towards whoever sees it from afar.
SQUARE_NEAR_M = -180.0
#: Ground pixels a metre: it is seen at a grazing angle, where finer detail would only flicker.
GROUND_PX = 12
#: Hills start this far below the ground, so that no sky shows between them and where the ground sheet ends.
HILL_FOOT_M = 4.0


@lru_cache(maxsize=STREETS_KEPT)
def street(place: str) -> tuple[Quad, ...]:
    """Everything that stands in a place, farthest layer first."""
    name, style = Name.of(place), style_of(place)
    if name.storey:
        return storey(style, name.storey, rng_of(place, 1001), storey_rng(place), long_m=name.long_m)
    half_m, near_m = (name.long_m / 2, SQUARE_NEAR_M) if name.long_m else (HALF_STREET_M, GROUND_NEAR_M)
    row = list(_row(style, rng_of(place, 1001), half_m))
    fronts = sorted((building[-1] for building in row), key=lambda quad: -quad.corner[1])
    flanks = [quad for building in row for quad in building[:-1] if quad.side]
    roofs = [quad for building in row for quad in building[:-1] if not quad.side]
    backdrop = [_hills(style, rng_of(place, 1002), half_m), _ground(style, rng_of(place, 1003), half_m, near_m)]
    return (*backdrop, *flanks, *roofs, *fronts, *_furniture(style, rng_of(place, 1004), half_m))


def draw_wires(picture: Image.Image, camera: Camera) -> None:
    """Tram wires: two sagging lines over the rails."""
    draw = ImageDraw.Draw(picture)
    for y, z in ((-8.3, 6.2), (-11.9, 6.2)):
        points = [camera.pixel((x, y, z - 0.25 * math.sin(math.pi * (x % 24) / 24))) for x in range(-60, 61, 3)]
        draw.line([(u, v) for u, v, depth in points if depth > 1], fill=(44, 46, 52), width=2)


def _hills(style: Style, rng: np.random.Generator, half_m: float) -> Quad:
    """What closes the street behind the roofs: hills, or far blocks where the place is modern. 90 m away."""
    width, top = 2 * (173.0 + half_m), style.hill_m * 1.9
    canvas, x = Canvas(width, top, px=4), 0.0
    if style.roof == "flat":
        while x < width:
            wide, high = rng.uniform(8, 18), style.hill_m * rng.uniform(0.6, 1.8)
            canvas.box(x, 0, x + wide, high, shade(style.hills, rng.uniform(0.85, 1.1)))
            x += wide * rng.uniform(0.7, 1.3)
    else:
        along = np.linspace(0, width, 160)
        waves = [rng.uniform(0.6, 1) * np.sin(along / rng.uniform(9, 50) + rng.uniform(0, 6)) for _ in range(6)]
        crest = style.hill_m * (1 + 0.16 * np.sum(waves, axis=0))
        edge = [(float(x), float(z)) for x, z in zip(along, crest, strict=True)]
        canvas.surface([(0, 0), *edge, (width, 0)], canvas.texture(style.hills, "plaster", rng))
    return Quad(canvas.sprite(), (-width / 2, 90.0, top - HILL_FOOT_M))


def _ground(style: Style, rng: np.random.Generator, half_m: float, near_m: float) -> Quad:
    """Pavement, kerb and road (or quay and water) seen as one sheet; z on this canvas is y in the world."""
    deep, width = GROUND_FAR_M - near_m, 2 * half_m + 40
    canvas, kerb, foot = Canvas(width, deep, GROUND_PX, fine=1), ROAD_EDGE_M - near_m, -near_m
    paving = style.road_kind if style.road_kind in ("sand", "cobbles") else "slabs"
    canvas.surface([(0, 0), (0, kerb), (width, kerb), (width, 0)], canvas.texture(style.road, style.road_kind, rng))
    canvas.surface([(0, kerb), (0, deep), (width, deep), (width, kerb)], canvas.texture(style.pavement, paving, rng))
    canvas.box(0, kerb - 0.15, width, kerb + 0.2, shade(style.pavement, 1.18))
    canvas.box(0, kerb - 0.4, width, kerb - 0.15, shade(style.road, 0.7))
    if style.road_kind == "water":
        canvas.box(0, kerb - 2.2, width, kerb - 0.15, (92, 84, 76))
        for x, z, long in zip(*rng.uniform((0, 0, 0.6), (width, kerb - 2.2, 3.0), (1400, 3)).T, strict=True):
            canvas.line([(x, z), (x + long, z)], 0.09, shade(style.road, rng.uniform(0.75, 1.5)))
    if style.road_kind == "tram":
        for rail in (2.6, 4.05, 6.2, 7.65):
            canvas.box(0, kerb - rail - 0.28, width, kerb - rail + 0.28, (98, 96, 96))
            canvas.box(0, kerb - rail - 0.08, width, kerb - rail + 0.08, (168, 172, 178))
    if style.road_kind == "lanes":
        for x in np.arange(0, width, 6.0):
            canvas.box(x, kerb - 4.2, x + 3.0, kerb - 4.0, (226, 226, 220))
        for x in np.arange(width / 2 - 1.6, width / 2 + 2.0, 1.1):
            canvas.box(x, kerb - 8.0, x + 0.55, kerb - 0.5, (232, 232, 226))
    canvas.fade(0, foot - 1.6, width, foot + 0.3, 0.5)
    return Quad(canvas.sprite(), (-width / 2, GROUND_FAR_M, 0), down=(0, -1, 0))


def _row(style: Style, rng: np.random.Generator, half_m: float) -> Iterator[list[Quad]]:
    """Houses side by side along the whole street; a gap in the middle where a landmark stands back."""
    x, number, landmark = -half_m, 0, style.landmark
    while x < half_m:
        width = round(float(rng.uniform(*style.width_m)), 2)
        if landmark and x + width / 2 > -_LANDMARKS[landmark][2] / 2:
            paint, back, gap = _LANDMARKS[landmark]
            landmark = ""
            sprite = paint(style, rng)
            yield [Quad(sprite, (x + (gap - sprite.width_m) / 2, back, sprite.height_m))]
            x += gap
            continue
        # Modern blocks stand apart; old streets are closed rows with fronts a hand's breadth out of line.
        y = float(rng.uniform(0, 3.0 if style.roof == "flat" else 0.3))
        yield house(style, number, (x, y), width, rng)
        number += 1
        x += width + (2.5 if style.roof == "flat" else 0.0)


def _dome(style: Style, rng: np.random.Generator) -> Sprite:
    """A white church: portal, round window, two belfries, a blue dome behind."""
    canvas, white, blue = Canvas(15.0, 18.0), style.walls[0], (40, 104, 176)
    canvas.disc(7.5, 11.2, 4.0, blue)
    for rib in range(-3, 4):
        canvas.line([(7.5, 15.2), (7.5 + rib * 1.25, 11.0)], 0.12, shade(blue, 0.75))
    canvas.box(7.3, 15.0, 7.7, 17.6, (206, 170, 70))
    canvas.box(6.8, 16.5, 8.2, 16.8, (206, 170, 70))
    walls = canvas.texture(white, "plaster", rng)
    canvas.surface([(3, 0), (3, 10.4), (7.5, 12.4), (12, 10.4), (12, 0)], walls)
    for x in (0.2, 11.8):
        canvas.surface([(x, 0), (x, 13), (x + 3, 13), (x + 3, 0)], walls)
        canvas.poly([(x - 0.1, 13), (x + 3.1, 13), (x + 1.5, 15.2)], blue)
        canvas.arch(x + 0.8, 9.6, x + 2.2, 12.2, (52, 50, 56), 120)
        for z in (4.4, 8.6):
            canvas.box(x - 0.1, z, x + 3.1, z + 0.3, (222, 206, 170))
    canvas.disc(7.5, 8.2, 1.3, (222, 206, 170))
    canvas.disc(7.5, 8.2, 1.0, (60, 84, 120), 220)
    canvas.arch(5.6, 0, 9.4, 5.2, (222, 206, 170))
    canvas.arch(6.0, 0, 9.0, 4.8, (104, 62, 38), 60)
    canvas.line([(7.5, 0), (7.5, 4.8)], 0.1, (60, 36, 24))
    return canvas.sprite()


def _tower(style: Style, rng: np.random.Generator) -> Sprite:
    """A square brick bell tower with a belfry and a pointed roof."""
    canvas, brick = Canvas(7.0, 29.0), (158, 88, 60)
    canvas.surface([(0.5, 0), (0.5, 23), (6.5, 23), (6.5, 0)], canvas.texture(brick, "brick", rng))
    canvas.poly([(0.1, 23), (6.9, 23), (3.5, 28.6)], style.roof_colour)
    for z in (12.0, 16.6, 22.6):
        canvas.box(0.2, z, 6.8, z + 0.5, style.trim)
    for x in (1.3, 4.0):
        canvas.arch(x, 17.8, x + 1.7, 21.8, (48, 40, 40), 140)
    canvas.disc(3.5, 14.6, 1.3, (240, 234, 216), 200)
    canvas.line([(3.5, 15.6), (3.5, 14.6), (4.2, 14.3)], 0.14, (40, 36, 36))
    for z in (3.0, 7.5):
        canvas.arch(3.0, z, 4.0, z + 2.4, (48, 40, 40))
    canvas.arch(2.3, 0, 4.7, 2.8, (70, 44, 34))
    return canvas.sprite()


def _stack(style: Style, rng: np.random.Generator) -> Sprite:
    """A mill's round chimney with banded crown."""
    canvas = Canvas(5.0, 31.0)
    body = [(0.4, 0.0), (1.2, 29.0), (3.8, 29.0), (4.6, 0.0)]
    canvas.surface(body, canvas.texture(shade(style.walls[0], 1.1), "brick", rng))
    for z in (25.0, 27.4, 28.8):
        canvas.box(0.9, z, 4.1, z + 0.6, style.trim)
    return canvas.sprite()


#: Landmark by name: its painter, how far behind the fronts it stands, how wide its gap is; in metres.
_LANDMARKS: dict[str, tuple[Callable[[Style, np.random.Generator], Sprite], float, float]] = {
    "dome": (_dome, 5.0, 16.6),
    "tower": (_tower, 6.0, 9.5),
    "stack": (_stack, 30.0, 9.0),
}


def _furniture(style: Style, rng: np.random.Generator, half_m: float) -> Iterator[Quad]:
    """Lamps and trees in a row along the kerb, and the trees' shadows."""
    trees, lamp = [_tree(style, rng) for _ in range(3)] if style.trees else [], _lamp()
    for index, x in enumerate(np.arange(-half_m + 3, half_m, 8.5)):
        x += float(rng.uniform(-0.6, 0.6))
        if index % 2 and trees:
            tree = trees[int(rng.integers(len(trees)))]
            yield Quad(_shadow(tree.width_m), (x - tree.width_m / 2, -2.2, 0), down=(0, -1, 0))
            yield Quad(tree, (x - tree.width_m / 2, -3.6, tree.height_m))
        else:
            yield Quad(lamp, (x - 0.6, -4.3, 5.0))


def _lamp() -> Sprite:
    canvas, iron = Canvas(1.2, 5.0), (38, 44, 46)
    canvas.box(0.54, 0, 0.66, 4.2, iron)
    canvas.box(0.45, 0, 0.75, 0.8, iron)
    canvas.poly([(0.4, 4.15), (0.8, 4.15), (0.95, 4.75), (0.25, 4.75)], (226, 220, 196), 255)
    canvas.poly([(0.2, 4.72), (1.0, 4.72), (0.6, 5.0)], iron)
    return canvas.sprite()


def _shadow(width_m: float) -> Sprite:
    """A soft dark ellipse, at most half opaque."""
    blot, paint = Image.new("L", (96, 48)), Image.new("RGBA", (96, 48), (24, 24, 34, 0))
    ImageDraw.Draw(blot).ellipse((12, 8, 84, 40), fill=120)
    paint.putalpha(blot.filter(ImageFilter.GaussianBlur(5)))
    return Sprite(paint, Image.new("L", paint.size), px=round(paint.width / width_m))


def _tree(style: Style, rng: np.random.Generator) -> Sprite:
    if style.trees == "palm":
        return _palm(style.leaf, rng)
    wide, high, crown_z = (3.4, 6.6, 1.9) if style.trees == "slim" else (5.4, 7.0, 2.3)
    return _foliage(wide, high, crown_z, style.leaf, rng)


def _foliage(wide: float, high: float, crown_z: float, leaf: Colour, rng: np.random.Generator) -> Sprite:
    """A leafy tree: a trunk, then blots of leaves from shaded to sunlit, the light from the upper left."""
    canvas, middle = Canvas(wide, high), wide / 2
    canvas.line([(middle, 0), (middle, high * 0.7)], 0.36, (86, 70, 56))
    rx, rz, centre = wide / 2 - 0.5, (high - crown_z) / 2 - 0.4, (high + crown_z) / 2
    for layer, factor in enumerate((0.5, 0.7, 0.9, 1.15)):
        for _ in range(170):
            angle, far = rng.uniform(0, math.tau), math.sqrt(rng.uniform()) * (1 - 0.1 * layer)
            x = middle + rx * far * math.cos(angle) - 0.12 * layer
            z = centre + rz * far * math.sin(angle) + 0.1 * layer
            canvas.disc(x, z, rng.uniform(0.1, 0.34), shade(leaf, factor * rng.uniform(0.85, 1.15)))
    return canvas.sprite()


def _palm(leaf: Colour, rng: np.random.Generator) -> Sprite:
    canvas = Canvas(6.0, 9.0)
    canvas.line([(2.9, 0), (3.1, 3), (3.0, 6.8)], 0.36, (134, 108, 80))
    for ring in np.arange(0.3, 6.6, 0.35):
        canvas.line([(2.82, ring), (3.2, ring)], 0.06, (100, 80, 60))
    for angle in np.linspace(-0.5, math.pi + 0.5, 15):
        reach, green, steps = rng.uniform(2.3, 2.8), shade(leaf, rng.uniform(0.6, 1.2)), np.linspace(0, 1, 9)
        rib = [(3 + reach * t * math.cos(angle), 6.8 + reach * (t * math.sin(angle) - 0.75 * t * t)) for t in steps]
        canvas.line(rib, 0.14, green)
        for x, z in rib[2:]:
            canvas.line([(x - 0.3, z - 0.55), (x, z), (x + 0.3, z - 0.55)], 0.07, green)
    return canvas.sprite()
