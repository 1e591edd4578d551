"""A storey of a building: a long hall with doors and inner windows, built alike on every storey. What tells one from
the others is its number, painted on the wall twice, and the notices. Must never know streets, photos or files."""

from collections.abc import Iterator

import numpy as np

from demo.camera import Quad
from demo.canvas import Canvas, Colour, shade
from demo.places import Style

HALF_HALL_M = 37.0
HIGH_M = 3.3
#: How far floor and ceiling reach towards the camera: behind who stands at the far wall.
DEEP_M = 14.0
#: Pixels a metre: one sees a wall from 7 m, where a 640 px photo shows 70 of them.
WALL_PX = 48
#: Metres between two doors, and between two notices, on average.
DOOR_EVERY_M, NOTICE_EVERY_M = 5.2, 6.0
#: Where along the hall the storey's number stands, and how tall it is.
NUMBERS_AT_M, NUMBER_M = (-12.0, 13.0), 1.1
#: How tall the number of a corridor's door is.
DOOR_NUMBER_M = 0.15
PAPERS: tuple[Colour, ...] = ((246, 244, 236), (250, 240, 176), (214, 232, 246), (236, 214, 222), (220, 240, 214))

#: The seven strokes of a digit on a clock, as corners of a box 1 wide and 2 high, and which of them each digit has.
_STROKES = {
    "a": ((0, 2), (1, 2)),
    "b": ((1, 2), (1, 1)),
    "c": ((1, 1), (1, 0)),
    "d": ((0, 0), (1, 0)),
    "e": ((0, 1), (0, 0)),
    "f": ((0, 2), (0, 1)),
    "g": ((0, 1), (1, 1)),
}
_DIGITS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcfgd")


def storey(
    style: Style, number: int, shared: np.random.Generator, own: np.random.Generator, *, long_m: float = 0.0
) -> tuple[Quad, ...]:
    """Everything that stands on this storey. shared: the building's random numbers, own: the storey's. long_m: of a
    corridor, each of whose doors has a number beside it."""
    width = (long_m or 2 * HALF_HALL_M) + 20
    wall = Canvas(width, HIGH_M, WALL_PX)
    doors = _build(wall, style, shared)
    for door, x in enumerate(doors if long_m else [], start=1):
        _number(wall, x + 1.2, 1.85, DOOR_NUMBER_M, 100 * number + door, style.accents[-1], edge_m=0.04)
    for at in NUMBERS_AT_M if not long_m else ():
        _number(wall, width / 2 + at, 1.5, NUMBER_M, number, style.accents[-1])
    for x in _spaced(own, NOTICE_EVERY_M, width):
        _notice(wall, x, own)
    return (*_floor_and_ceiling(style, width, shared), Quad(wall.sprite(), (-width / 2, 0.0, HIGH_M)))


def _build(wall: Canvas, style: Style, rng: np.random.Generator) -> list[float]:
    """Plaster over a darker dado, pilasters, doors, and windows into the rooms. Returns where the doors are."""
    width, pale = wall.width_m, shade(style.walls[-1], 1.0)
    wall.surface([(0, 0), (0, HIGH_M), (width, HIGH_M), (width, 0)], wall.texture(pale, "plaster", rng))
    wall.box(0, 0.12, width, 1.05, shade(pale, 0.78))
    wall.box(0, 1.05, width, 1.12, style.trim)
    wall.box(0, 0, width, 0.12, shade(style.trim, 0.6))
    doors = _spaced(rng, DOOR_EVERY_M, width)
    for x in doors:
        _door(wall, x, style.accents[0])
        if rng.random() < 0.6:
            _inner_window(wall, x + 1.7, style, rng)
    for x in np.arange(4.0, width, 8.0):
        wall.box(x - 0.22, 0, x + 0.22, HIGH_M, shade(pale, 1.06))
        wall.fade(x + 0.22, 0, x + 0.34, HIGH_M, 0.3)
    wall.fade(0, HIGH_M - 0.5, width, HIGH_M, 0.25)
    return doors


def _door(wall: Canvas, x: float, colour: Colour) -> None:
    wall.box(x - 0.08, 0, x + 1.03, 2.2, shade(colour, 0.6))
    wall.box(x, 0, x + 0.95, 2.12, colour)
    wall.box(x + 0.2, 1.25, x + 0.75, 1.95, (186, 202, 206), 120)
    wall.disc(x + 0.84, 1.02, 0.05, (206, 206, 202))
    wall.box(x + 1.12, 1.5, x + 1.34, 1.64, (238, 238, 232))


def _inner_window(wall: Canvas, x: float, style: Style, rng: np.random.Generator) -> None:
    wide = float(rng.uniform(1.2, 2.4))
    wall.box(x - 0.06, 1.14, x + wide + 0.06, 2.3, style.trim)
    wall.box(x, 1.2, x + wide, 2.24, shade(style.glass, rng.uniform(0.8, 1.3)), 90)
    for slat in np.arange(1.9, 2.2, 0.07):
        wall.box(x, slat, x + wide, slat + 0.03, (214, 214, 206), 60)
    wall.box(x + wide / 2 - 0.03, 1.2, x + wide / 2 + 0.03, 2.24, style.trim)


def _number(
    wall: Canvas, x: float, z: float, high: float, number: int, colour: Colour, *, edge_m: float = 0.25
) -> None:
    """Painted on the wall, over whatever is there, on a field of its own."""
    wide, digits = high / 2, str(number)
    wall.box(x - edge_m, z - edge_m, x + len(digits) * wide * 1.5 + edge_m * 0.4, z + high + edge_m, (240, 240, 236))
    for place, digit in enumerate(digits):
        left = x + place * wide * 1.5
        for stroke in _DIGITS[int(digit)]:
            (x0, z0), (x1, z1) = _STROKES[stroke]
            ends = [(left + x0 * wide, z + z0 * high / 2), (left + x1 * wide, z + z1 * high / 2)]
            wall.line(ends, 0.13 * high, colour)


def _notice(wall: Canvas, x: float, rng: np.random.Generator) -> None:
    """A sheet of paper at eye height: a headline, lines of text, perhaps a picture."""
    wide, high, low = rng.uniform(0.4, 0.9), rng.uniform(0.5, 1.1), rng.uniform(1.15, 1.5)
    paper, ink = PAPERS[int(rng.integers(len(PAPERS)))], tuple(rng.integers(10, 190, 3).tolist())
    top = low + high
    wall.box(x, low, x + wide, top, paper)
    wall.box(x + 0.06, top - 0.2, x + rng.uniform(0.5, 0.9) * wide, top - 0.08, ink)
    for z in np.arange(low + 0.08, top - 0.3, 0.08):
        wall.box(x + 0.06, z, x + rng.uniform(0.4, 0.92) * wide, z + 0.03, (70, 70, 76))
    if rng.random() < 0.6:
        left, bottom = x + rng.uniform(0.1, 0.4) * wide, low + rng.uniform(0.1, 0.35) * high
        wall.box(left, bottom, left + 0.45 * wide, bottom + 0.35 * high, tuple(rng.integers(30, 230, 3).tolist()))
        wall.disc(left + 0.2 * wide, bottom + 0.15 * high, 0.1 * wide, tuple(rng.integers(30, 230, 3).tolist()))


def _floor_and_ceiling(style: Style, width: float, rng: np.random.Generator) -> Iterator[Quad]:
    """Two sheets; z on these canvases is y in the world, 0 at the wall's foot."""
    whole = [(0.0, 0.0), (0.0, DEEP_M), (width, DEEP_M), (width, 0.0)]
    floor = Canvas(width, DEEP_M, px=16, fine=1)
    floor.surface(whole, floor.texture(style.pavement, "slabs", rng))
    floor.fade(0, DEEP_M - 1.2, width, DEEP_M, 0.45)
    yield Quad(floor.sprite(), (-width / 2, 0.0, 0.0), down=(0.0, -1.0, 0.0))
    ceiling = Canvas(width, DEEP_M, px=16, fine=1)
    ceiling.surface(whole, ceiling.texture((206, 206, 200), "slabs", rng))
    for x in np.arange(2.0, width, 4.8):
        for z in (3.0, 7.0, 11.0):
            ceiling.box(x, z, x + 2.4, z + 0.35, (248, 248, 240), 255)
    yield Quad(ceiling.sprite(), (-width / 2, 0.0, HIGH_M), down=(0.0, -1.0, 0.0))


def _spaced(rng: np.random.Generator, every_m: float, width: float) -> list[float]:
    """Places along the wall, so far apart give or take a third of it."""
    steps = np.arange(1.0, width - 3.0, every_m)
    return [float(x) for x in steps + rng.uniform(-every_m / 3, every_m / 3, len(steps)).clip(0)]
