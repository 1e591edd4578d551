"""Houses in the style of their street: fronts, flanks, roofs. Must never know what else stands in it."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np

from demo.camera import Quad
from demo.canvas import Canvas, Colour, Sprite, shade
from demo.places import Style

HOUSE_DEPTH_M = 11.0


def house(street: Style, number: int, foot: tuple[float, float], width: float, rng: np.random.Generator) -> list[Quad]:
    """House `number` of a street, its front's left foot at x, y: side walls, roof, front, in painting order."""
    style, (x, y) = _variant(street, number), foot
    wall = style.walls[0]
    front, eave = _front(style, width, rng)
    rise, run = 2.6 if style.roof == "slope" else 0.0, HOUSE_DEPTH_M / 2
    side = _sheet(HOUSE_DEPTH_M, eave, wall, style.texture, rng, gable_m=rise)
    walls = ((x, -1), (x + width, 1))
    quads = [Quad(side, (edge, y, eave + rise), right=(0.0, 1.0, 0.0), side=way) for edge, way in walls]
    if style.roof == "slope":
        length = math.hypot(rise, run)
        tiles = _sheet(width, length, style.roof_colour, "tile", rng)
        quads.append(Quad(tiles, (x, y + run, eave + rise), down=(0.0, -run / length, -rise / length)))
        for chimney in rng.uniform(x + 1, x + width - 2, 2):
            stack = _sheet(1.1, 2.2, shade(wall, 0.85), style.texture, rng)
            quads.append(Quad(stack, (float(chimney), y + run - 0.3, eave + rise + 1.2)))
    return [*quads, Quad(front, (x, y, front.height_m))]


def _variant(style: Style, number: int) -> Style:
    """The street's style with the one wall and accent of this house: so neighbours differ, and the street's ends."""
    wall = style.walls[number % len(style.walls)]
    glass = style.glass
    if style.texture == "panel":
        glass = (glass[0] + wall[0]) // 2, (glass[1] + wall[1]) // 2, (glass[2] + wall[2]) // 2
    return replace(style, walls=(wall,), accents=(style.accents[number % len(style.accents)],), glass=glass)


def _sheet(
    width: float, high: float, colour: Colour, kind: str, rng: np.random.Generator, *, gable_m: float = 0.0
) -> Sprite:
    """A plain surface, with a gable over it where a roof ends."""
    canvas = Canvas(width, high + gable_m)
    outline = _outline("gable", width, high, high + gable_m)
    canvas.surface(outline, canvas.texture(colour, kind, rng))
    return canvas.sprite()


def _front(style: Style, width: float, rng: np.random.Generator) -> tuple[Sprite, float]:
    """A facade and the height of its eaves in metres."""
    storeys = int(rng.integers(style.storeys[0], style.storeys[1] + 1))
    base, draw_base = _BASES[style.base]
    eave = base + storeys * style.storey_m + 0.35
    high = eave + {"gable": width * 0.62, "stepped": 3.8, "mansard": 3.4}.get(style.roof, 0.0)
    canvas = Canvas(width, high)
    if style.roof == "mansard":
        slope = [(0.1, eave), (0.7, high), (width - 0.7, high), (width - 0.1, eave)]
        canvas.surface(slope, canvas.texture(style.roof_colour, "tile", rng))
    outline = _outline(style.roof, width, eave, high)
    canvas.surface(outline, canvas.texture(style.walls[0], style.texture, rng))
    if style.roof == "stepped":
        canvas.line(outline[1:-1], 0.22, style.trim)
    if style.timber:
        _beams(canvas, style, eave, high)
    _upper_windows(canvas, style, storeys, eave, rng)
    draw_base(canvas, style, base, rng)
    if style.texture != "panel" and not style.timber:
        for z, thick in ((base, 0.28), (eave - 0.4, 0.4)):
            canvas.box(0, z - 0.1, width, z - 0.1 + thick, style.trim)
            canvas.fade(0, z - 0.8, width, z - 0.1, 0.32)
    canvas.fade(0, 0.0, 0.12, eave, 0.3)
    return canvas.sprite(), eave


def _outline(roof: str, width: float, eave: float, high: float) -> list[tuple[float, float]]:
    """The front's edge: a box up to the eave, and a gable over it where the roof has one."""
    corners = [(0.0, 0.0), (0.0, eave)]
    if roof == "gable":
        corners.append((width / 2, high))
    elif roof == "stepped":
        steps, rise = 4, (high - eave) / 4
        for step in range(steps):
            x = width / 2 * (step + 0.35) / steps
            corners += [(x, eave + rise * step), (x, eave + rise * (step + 1))]
        corners += [(width - x, z) for x, z in reversed(corners[2:])]
    return [*corners, (width, eave), (width, 0.0)]


def _beams(canvas: Canvas, style: Style, eave: float, high: float) -> None:
    """Half-timbering: posts, rails, braces, and rafters in the gable."""
    beam, width = (84, 52, 34), canvas.width_m
    floors = [*np.arange(_BASES[style.base][0], eave + 0.1, style.storey_m)]
    for z in floors:
        canvas.box(0, z - 0.15, width, z + 0.2, beam)
    count = _bays(style, width)
    for z0, z1 in pairwise(floors):
        for post in range(count + 1):
            x = min(max(post * width / count, 0.13), width - 0.13)
            canvas.box(x - 0.13, z0, x + 0.13, z1, beam)
        for x, way in ((0.2, 1), (width - 0.2, -1)):
            canvas.line([(x, z1), (x + way * 0.75, z0)], 0.2, beam)
    ridge = (width / 2, high - 0.3)
    canvas.line([(0.1, eave), ridge, (width - 0.1, eave)], 0.55, beam)
    canvas.line([ridge, (width / 2, eave)], 0.24, beam)
    knee = (eave + high * 0.4) / 1.4
    canvas.line([(width * 0.2, knee), (width / 2, eave), (width * 0.8, knee)], 0.2, beam)


def _bays(style: Style, width: float) -> int:
    """How many windows stand side by side."""
    return max(2, round((width - 0.6) / style.bay_m))


def _upper_windows(canvas: Canvas, style: Style, storeys: int, eave: float, rng: np.random.Generator) -> None:
    count = _bays(style, canvas.width_m)
    bay, (wide, high) = canvas.width_m / count, style.window_m
    base, sill = _BASES[style.base][0], (style.storey_m - high) * 0.55
    for storey in range(storeys):
        for index in range(count):
            x = (index + 0.5) * bay - wide / 2
            _window(canvas, style, x, base + storey * style.storey_m + sill, style.window_m, rng)
    if style.roof in ("gable", "stepped"):
        _window(canvas, style, canvas.width_m / 2 - 0.45, eave + 0.6, (0.9, 1.3), rng)
    if style.roof == "mansard":
        for index in range(count):
            x = (index + 0.5) * bay
            canvas.box(x - 0.95, eave, x + 0.95, eave + 2.1, style.trim)
            canvas.poly([(x - 0.95, eave + 2.1), (x + 0.95, eave + 2.1), (x, eave + 2.8)], style.trim)
            canvas.box(x - 0.6, eave + 0.3, x + 0.6, eave + 2.0, style.glass, int(rng.choice([0, 220])))


def _window(
    canvas: Canvas, style: Style, x: float, z: float, size: tuple[float, float], rng: np.random.Generator
) -> None:
    """One window whose lower left corner is at (x, z): frame, panes, and what this street hangs on it."""
    wide, high = size
    shape = canvas.arch if style.arched else canvas.box
    glow = int(rng.choice([0, 0, 150, 230]))
    glass = shade(style.glass, rng.uniform(0.75, 1.35))
    shape(x - 0.14, z - 0.1, x + wide + 0.14, z + high + 0.14, style.trim)
    shape(x, z, x + wide, z + high, glass, glow)
    canvas.fade(x, z, x + wide, z + high, 0.45)
    if style.texture != "panel":
        # A strip of reflected sky across the glass.
        tilt = rng.uniform(0.2, 0.4) * high
        sky = [
            (x, z + tilt),
            (x + wide, z + tilt + 0.3 * wide),
            (x + wide, z + tilt + 0.65),
            (x, z + tilt + 0.35),
        ]
        canvas.poly(sky, shade(glass, 1.28), glow)
        canvas.box(x + wide / 2 - 0.04, z, x + wide / 2 + 0.04, z + high, style.trim)
        canvas.box(x, z + high * 0.62, x + wide, z + high * 0.62 + 0.07, style.trim)
        canvas.box(x - 0.22, z - 0.22, x + wide + 0.22, z - 0.06, style.trim)
        canvas.fade(x - 0.2, z - 0.6, x + wide + 0.2, z - 0.22, 0.35)
    if style.shutters:
        leaf = style.accents[0]
        for left in (x - 0.14 - wide * 0.52, x + wide + 0.14):
            canvas.box(left, z - 0.05, left + wide * 0.52, z + high + 0.05, leaf)
            for slat in np.arange(z + 0.1, z + high - 0.1, 0.22):
                canvas.box(left + 0.07, slat, left + wide * 0.52 - 0.07, slat + 0.07, shade(leaf, 0.72))
    if style.balconies:
        _railing(canvas, x - 0.35, z - 0.15, wide + 0.7)
    if style.timber:
        canvas.box(x - 0.2, z - 0.42, x + wide + 0.2, z - 0.16, (92, 58, 34))
        for bloom in np.arange(x - 0.1, x + wide + 0.1, 0.2):
            canvas.disc(bloom, z - 0.1 + rng.uniform(0, 0.12), 0.14, ((204, 38, 56), (62, 112, 44))[rng.integers(2)])


def _railing(canvas: Canvas, x: float, z: float, wide: float) -> None:
    iron = (30, 32, 36)
    canvas.box(x, z - 0.2, x + wide, z - 0.05, (176, 168, 152))
    for rail in (z, z + 0.85):
        canvas.box(x, rail, x + wide, rail + 0.06, iron)
    for bar in np.arange(x, x + wide, 0.16):
        canvas.box(bar, z, bar + 0.045, z + 0.85, iron)


def _doors_floor(canvas: Canvas, style: Style, high: float, rng: np.random.Generator) -> None:
    door_at, count = rng.uniform(0.9, 1.6), _bays(style, canvas.width_m)
    bay = canvas.width_m / count
    _door(canvas, style, door_at)
    for index in range(count):
        x = (index + 0.5) * bay - style.window_m[0] / 2
        if x > door_at + 1.8 and x + style.window_m[0] < canvas.width_m - 0.3:
            _window(canvas, style, x, 1.05, (style.window_m[0], min(style.window_m[1], high - 1.5)), rng)


def _door(canvas: Canvas, style: Style, x: float) -> None:
    colour = style.accents[0]
    canvas.arch(x - 0.15, 0, x + 1.35, 2.95, style.trim)
    canvas.arch(x, 0, x + 1.2, 2.8, colour)
    canvas.arch(x + 0.12, 2.05, x + 1.08, 2.65, (230, 200, 140), 160)
    for panel in (0.3, 1.2):
        canvas.box(x + 0.18, panel, x + 0.55, panel + 0.7, shade(colour, 0.72))
        canvas.box(x + 0.65, panel, x + 1.02, panel + 0.7, shade(colour, 0.72))


def _shops_floor(canvas: Canvas, style: Style, high: float, rng: np.random.Generator) -> None:
    """Shop fronts: large lit panes, a fascia with a sign, a striped awning over every other one."""
    count = max(2, round(canvas.width_m / 4.6))
    wide = canvas.width_m / count
    for index in range(count):
        x, paint = index * wide + 0.3, style.accents[0]
        canvas.box(x, 0, x + wide - 0.6, high - 0.25, paint)
        canvas.box(x + 0.2, 0.6, x + wide - 1.9, high - 1.1, (96, 92, 82), 235)
        canvas.fade(x + 0.2, 0.6, x + wide - 1.9, high - 1.1, 0.6)
        canvas.box(x + wide - 1.7, 0.1, x + wide - 0.8, high - 1.1, (70, 68, 64), 200)
        for goods in rng.uniform(x + 0.5, x + wide - 2.2, 5):
            canvas.disc(goods, 0.9, 0.25, _pick(((190, 150, 90), (150, 60, 50), (80, 110, 90)), rng), 90)
        sign = rng.uniform(1.2, wide - 2.0)
        canvas.box(x + 0.5, high - 0.75, x + 0.5 + sign, high - 0.5, (236, 214, 150), 60)
        if index % 2 == 0:
            _awning(canvas, x, high - 0.85, wide - 0.6, shade(paint, 1.5))


def _awning(canvas: Canvas, x: float, z: float, wide: float, colour: Colour) -> None:
    stripes = 9
    for stripe in range(stripes):
        left, right = x + wide * stripe / stripes, x + wide * (stripe + 1) / stripes
        fill = colour if stripe % 2 == 0 else (240, 234, 220)
        canvas.poly([(left, z - 0.95), (right, z - 0.95), (right, z), (left, z)], fill)
        canvas.disc((left + right) / 2, z - 0.95, (right - left) / 2, shade(fill, 0.85))
    canvas.fade(x, z - 1.9, x + wide, z - 1.1, 0.5)


def _arcade_floor(canvas: Canvas, style: Style, high: float, rng: np.random.Generator) -> None:
    count = max(2, round(canvas.width_m / 3.9))
    wide = canvas.width_m / count
    for index in range(count):
        x = index * wide + 0.45
        canvas.arch(x - 0.2, 0, x + wide - 0.7, high - 0.15, style.trim)
        canvas.arch(x, 0, x + wide - 0.9, high - 0.4, (92, 64, 50), 70)
        canvas.box(x + 0.5, 0.1, x + wide - 1.5, 2.3, _pick(((50, 40, 36), (58, 66, 58)), rng), 190)
        canvas.fade(x, 1.2, x + wide - 0.9, high - 0.9, 0.75)
        canvas.box(x - 0.5, high - 2.0, x - 0.15, high - 1.8, shade(style.trim, 0.85))


def _lobby_floor(canvas: Canvas, style: Style, high: float, rng: np.random.Generator) -> None:
    canvas.box(0.4, 0, canvas.width_m - 0.4, high - 0.4, (62, 84, 96), 170)
    canvas.fade(0.4, 0.5, canvas.width_m - 0.4, high - 0.4, 0.55)
    for x in np.arange(0.4, canvas.width_m, 2.4):
        canvas.box(x, 0, x + 0.3, high - 0.3, (206, 208, 208))
    sign = rng.uniform(2.0, canvas.width_m - 7.0)
    canvas.box(sign, high - 1.2, sign + 4.5, high - 0.1, style.accents[0], 200)
    for mark in range(3):
        canvas.disc(sign + 0.8 + mark * 1.3, high - 0.65, 0.36, (244, 244, 240), 220)


def _pick(colours: tuple[Colour, ...], rng: np.random.Generator) -> Colour:
    return colours[int(rng.integers(len(colours)))]


#: Ground floor by name: its height in metres and its painter.
_BASES = {
    "doors": (3.4, _doors_floor),
    "shops": (4.1, _shops_floor),
    "arcade": (4.6, _arcade_floor),
    "lobby": (5.0, _lobby_floor),
}
