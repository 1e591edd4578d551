"""The places and the lights they are seen in, as data. Must never know how they are drawn."""

import re
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from demo.canvas import Colour

#: "canal-row~2" is another address in the style of canal-row: other houses of the same kinds. "glass-quarter^3" is the
#: third storey of a building there: the halls of all its storeys are alike (storeys.py). "canal-row=400" is 400 m long,
#: and so is the hall of "glass-quarter^3=400", which has numbers on its doors.
_NAME = re.compile(
    r"(?P<style>[a-z-]+)(?:~(?P<address>[1-9]\d*))?(?:\^(?P<storey>[1-9]\d*))?(?:=(?P<long_m>[1-9]\d*))?"
)
#: Each address in this style is of a kind of its own.
MIXED = "mixed"
#: Degrees of latitude between two addresses (2.2 km), and between two storeys: maps have no height, so they lie 220 m
#: apart here.
ADDRESS_STEP, STOREY_STEP = 0.02, 0.002


@dataclass(frozen=True)
class Name:
    """A place's name in its parts; 0 where it has no such part."""

    style: str
    address: int
    storey: int
    long_m: int = 0

    @classmethod
    def of(cls, place: str) -> "Name":
        """Raises ValueError where there is no such place."""
        found = _NAME.fullmatch(place)
        if found is None or found["style"] not in (*PLACES, MIXED):
            raise ValueError(f"no place is called {place!r}: a style ({', '.join(PLACES)}), with ~2 or ^3 after it")
        return cls(found["style"], *(int(found[part] or 0) for part in ("address", "storey", "long_m")))


def style_of(place: str) -> "Style":
    """What a place looks like and where it lies."""
    name = Name.of(place)
    style = _mixed(name.address) if name.style == MIXED else PLACES[name.style]
    return replace(style, lat=style.lat + name.address * ADDRESS_STEP + name.storey * STOREY_STEP)


def rng_of(place: str, purpose: int) -> np.random.Generator:
    """Random numbers that depend on the place and what they are for, never on the order of calls. All storeys of a
    building have the same."""
    name = Name.of(place)
    seed = [_number(name.style), purpose]
    return np.random.default_rng([*seed, name.address] if name.address else seed)


def storey_rng(place: str) -> np.random.Generator:
    """Random numbers of a storey's own."""
    name = Name.of(place)
    return np.random.default_rng([_number(name.style), name.address, name.storey])


def _number(style: str) -> int:
    return [*PLACES, MIXED].index(style)


def _mixed(number: int) -> "Style":
    """Each part of what a street looks like from one of the known ones; its place is of its own."""
    rng, known = np.random.default_rng([_number(MIXED), number]), list(PLACES.values())
    found = replace(known[0], lat=47.1, lon=8.3, bearing_deg=float(rng.integers(360)))
    for together in _PARTS:
        of = known[int(rng.integers(len(known)))]
        found = replace(found, **{part: getattr(of, part) for part in together})
    return found


@dataclass(frozen=True)
class Light:
    """Colour of the sky and of what it shines on. Tints are factors on the painted colour."""

    sky_top: Colour
    sky_low: Colour
    front: tuple[float, float, float]
    side: tuple[float, float, float]
    clouds: float
    lamps: float
    hour: str


LIGHTS = {
    "noon": Light((74, 132, 205), (186, 212, 232), (1.04, 1.02, 0.98), (0.66, 0.68, 0.74), 0.55, 0.0, "12:10:00"),
    "morning": Light((98, 150, 206), (232, 222, 204), (1.03, 0.97, 0.88), (0.58, 0.61, 0.70), 0.35, 0.0, "08:20:00"),
    "overcast": Light((168, 176, 184), (206, 210, 212), (0.86, 0.88, 0.90), (0.72, 0.74, 0.77), 0.9, 0.05, "15:30:00"),
    "evening": Light((92, 124, 176), (246, 206, 158), (1.06, 0.93, 0.78), (0.56, 0.53, 0.60), 0.5, 0.2, "19:40:00"),
    "dusk": Light((62, 82, 130), (190, 158, 160), (0.70, 0.68, 0.78), (0.48, 0.48, 0.60), 0.6, 0.65, "21:15:00"),
}


@dataclass(frozen=True)
class Style:
    """What makes a street itself. Lengths in metres; every choice here is visible from across the road."""

    lat: float
    lon: float
    bearing_deg: float
    walls: tuple[Colour, ...]
    texture: Literal["plaster", "panel", "brick", "stone"]
    width_m: tuple[float, float]
    storeys: tuple[int, int]
    storey_m: float
    bay_m: float
    window_m: tuple[float, float]
    trim: Colour
    glass: Colour
    roof: Literal["flat", "slope", "gable", "stepped", "mansard"]
    roof_colour: Colour
    base: Literal["doors", "shops", "arcade", "lobby"]
    accents: tuple[Colour, ...]
    pavement: Colour
    road: Colour
    road_kind: Literal["water", "tram", "sand", "lanes", "cobbles", "slabs"]
    hills: Colour
    hill_m: float
    arched: bool = False
    shutters: bool = False
    balconies: bool = False
    timber: bool = False
    trees: Literal["", "palm", "slim", "round"] = ""
    leaf: Colour = (70, 110, 50)
    landmark: Literal["", "stack", "dome", "tower"] = ""


PLACES = {
    "canal-row": Style(
        56.151200, 10.204300, 70.0,
        ((214, 160, 52), (168, 58, 46), (62, 104, 150), (226, 212, 184), (196, 106, 74), (72, 122, 104)),
        "plaster", (6.0, 7.6), (2, 3), 2.8, 1.95, (1.05, 1.6), (244, 242, 236), (58, 70, 84),
        "stepped", (128, 62, 44), "doors", ((40, 66, 60), (120, 34, 34), (36, 48, 80)),
        (150, 142, 134), (52, 84, 92), "water", (96, 112, 110), 9.0,
    ),
    "brick-mills": Style(
        53.482600, -2.236900, 155.0,
        ((144, 72, 54), (122, 58, 48), (158, 88, 62)),
        "brick", (11.0, 15.0), (2, 3), 3.4, 2.7, (1.35, 2.2), (206, 194, 168), (46, 52, 58),
        "slope", (66, 70, 80), "shops", ((28, 72, 52), (34, 46, 84), (110, 28, 34), (150, 110, 40)),
        (122, 118, 114), (72, 72, 76), "tram", (92, 88, 92), 12.0,
        arched=True, landmark="stack",
    ),
    "white-mission": Style(
        -33.934700, 18.861500, 20.0,
        ((246, 243, 234), (240, 236, 226), (250, 246, 240)),
        "plaster", (9.5, 13.0), (1, 2), 3.3, 3.3, (1.1, 1.6), (226, 222, 214), (44, 54, 66),
        "slope", (190, 98, 62), "doors", ((34, 96, 170), (40, 140, 110), (200, 120, 40)),
        (222, 196, 152), (206, 170, 122), "sand", (118, 128, 96), 34.0,
        shutters=True, trees="palm", leaf=(74, 124, 56), landmark="dome",
    ),
    "glass-quarter": Style(
        35.690300, 139.752400, 100.0,
        ((150, 184, 206), (150, 120, 92), (206, 210, 210), (78, 116, 108)),
        "panel", (17.0, 23.0), (5, 8), 3.6, 1.9, (1.78, 3.1), (150, 162, 172), (70, 128, 158),
        "flat", (120, 126, 132), "lobby", ((20, 150, 160), (236, 120, 40), (40, 80, 190)),
        (196, 198, 198), (92, 96, 102), "lanes", (140, 158, 176), 30.0,
        trees="slim", leaf=(120, 168, 72),
    ),
    "timber-market": Style(
        49.454100, 11.077800, 310.0,
        ((242, 228, 192), (226, 176, 120), (240, 236, 220), (214, 196, 120), (222, 160, 140)),
        "plaster", (7.0, 9.5), (2, 3), 2.7, 2.3, (1.1, 1.3), (250, 246, 232), (60, 62, 58),
        "gable", (172, 84, 48), "doors", ((96, 52, 26), (58, 84, 44), (130, 36, 32)),
        (138, 126, 112), (126, 114, 102), "cobbles", (58, 92, 50), 26.0,
        timber=True, trees="round", leaf=(64, 116, 40),
    ),
    "arcade-walk": Style(
        44.495600, 11.342200, 245.0,
        ((222, 142, 62), (206, 112, 62), (228, 164, 84), (196, 96, 66)),
        "plaster", (11.0, 14.0), (2, 3), 3.5, 3.1, (1.15, 2.0), (226, 206, 176), (56, 58, 54),
        "slope", (180, 104, 72), "arcade", ((44, 92, 60), (50, 104, 74)),
        (196, 160, 146), (170, 138, 128), "slabs", (152, 132, 124), 10.0,
        shutters=True, landmark="tower",
    ),
    "plane-boulevard": Style(
        -34.603900, -58.389700, 5.0,
        ((222, 212, 190), (214, 202, 178), (228, 220, 204)),
        "stone", (12.0, 16.0), (2, 3), 3.2, 2.5, (1.25, 2.3), (238, 232, 218), (64, 70, 76),
        "mansard", (98, 110, 124), "shops", ((176, 32, 40), (40, 90, 70), (196, 110, 30), (40, 60, 110)),
        (164, 160, 152), (84, 84, 88), "lanes", (150, 154, 158), 14.0,
        balconies=True, trees="round", leaf=(112, 142, 52),
    ),
}  # fmt: skip

#: Parts of a style that go together: a shop needs a front that is wide enough for it.
_PARTS = (
    ("walls", "texture"), ("width_m", "base", "bay_m", "window_m", "arched"), ("storeys", "storey_m"), ("accents",),
    ("trim", "glass"), ("roof", "roof_colour"), ("pavement", "road", "road_kind"), ("hills", "hill_m"), ("shutters",),
    ("balconies",), ("timber",), ("trees", "leaf"), ("landmark",),
)  # fmt: skip
