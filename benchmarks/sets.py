"""Other drawn libraries than look-alike streets: floors, a corridor, places that differ, views from afar, a few places.

All photos are taken along a stretch of some place; most questions are photos as they are, one of three is spoiled as
in lookalikes.py. Positions are true. Knows neither the service nor how it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.lookalikes import BUILDING, QUALITY, SPOILERS, Asked, Drawn, Known, Rng, all_drawn
from demo.places import LIGHTS, MIXED
from demo.scenes import EYE_M, Viewpoint, place_names, render, whereabouts

#: Of so many questions one is spoiled.
ONE_SPOILED_OF = 3
#: Lengths of what is longer than a street or a hall, in metres.
CORRIDOR_M, FLOWN_M = 240, 300

#: From and to, in metres or degrees.
Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Where photos are taken: so far along a place and back from its walls, at this height and turned so far. known,
    asked: how many; nothing is known of what nobody has seen."""

    place: str
    kind: str
    known: int
    asked: int
    along: Range
    back: Range
    eye: Range = (EYE_M, EYE_M)
    yaw: Range = (-6.0, 6.0)

    @property
    def name(self) -> str:
        return f"{self.place} {self.along[0]:+.0f}"


@dataclass(frozen=True, slots=True)
class Library:
    """stretches: of all its photos. right_m: an answer within it is right."""

    stretches: tuple[Stretch, ...]
    right_m: float
    picture: tuple[int, int] = (640, 480)


def _floors() -> Iterator[Stretch]:
    """A building of 26 floors, of which five were never seen, as in a hotel: halls alike but for number and notices."""
    for floor in range(1, 27):
        known, asked = (0, 8) if floor % 5 == 0 else (6, 3)
        yield Stretch(f"{BUILDING}^{floor}", "floor", known, asked, (-16, 16), (5.5, 8.5))


def _corridor() -> Iterator[Stretch]:
    """One hall of 240 m. Between the parts that were seen lie two of 40 m that nobody took, asked about where no photo
    shows them."""
    where = f"{BUILDING}^1={CORRIDOR_M}"
    for start in range(-CORRIDOR_M // 2, CORRIDOR_M // 2, 40):
        if start in (-80, 40):
            yield Stretch(where, "corridor", 0, 12, (start + 16, start + 24), (5.5, 8.5))
        else:
            yield Stretch(where, "corridor", 20, 12, (start, start + 40), (5.5, 8.5), yaw=(-12, 12))


def _apart() -> Iterator[Stretch]:
    """Streets, each of a kind of its own; of 34 nobody has seen ten."""
    for address in range(1, 35):
        known, asked = (6, 3) if address <= 24 else (0, 6)
        yield Stretch(f"{MIXED}~{address}", "street", known, asked, (-16, 16), (17, 25))


def _series() -> Iterator[Stretch]:
    """Flights along streets of 300 m, low over the square before them: each house is seen from points that lie up to
    150 m apart. Of seven streets nobody flew along two."""
    for style in place_names():
        known, asked = (0, 10) if style in place_names()[-2:] else (24, 10)
        long_m = FLOWN_M / 2 - 50
        yield Stretch(f"{style}={FLOWN_M}", "flight", known, asked, (-long_m, long_m), (50, 130), (5, 12), (-12, 12))


def _small() -> Iterator[Stretch]:
    """Five streets of five photos, and two that nobody has seen."""
    for style in place_names():
        known, asked = (0, 8) if style in place_names()[-2:] else (5, 6)
        yield Stretch(style, "street", known, asked, (-16, 16), (17, 25))


#: By their names.
SETS = {
    "floors": Library(tuple(_floors()), right_m=100.0),
    "corridor": Library(tuple(_corridor()), right_m=25.0),
    "apart": Library(tuple(_apart()), right_m=100.0),
    "series": Library(tuple(_series()), right_m=50.0),
    "small": Library(tuple(_small()), right_m=100.0),
}


def draw(
    folder: Path, library: Library, *, processes: int = 1, progress: Callable[[int, int], None] | None = None
) -> Drawn:
    """Write all photos into the folder; the same on every run. progress: called with stretches done, in all."""
    return all_drawn(partial(_draw, folder, library.picture), library.stretches, processes, progress)


def _draw(folder: Path, size: tuple[int, int], stretch: Stretch) -> tuple[list[Known], list[Asked]]:
    known: list[Known] = []
    asked: list[Asked] = []
    # By the name, not by its turn: the same photos of a stretch, however many others are drawn.
    rng = np.random.default_rng(list(stretch.name.encode()))
    count = stretch.known + stretch.asked
    questions = set(rng.permutation(count)[: stretch.asked].tolist())
    for at, view in enumerate(_views(stretch, count, rng)):
        path = folder / f"{stretch.name.replace(' ', '')}-{view.number:02d}.jpg"
        picture = render(view, size=size)
        if at in questions:
            spoiled = str(rng.choice(list(SPOILERS))) if len(asked) % ONE_SPOILED_OF == 0 else ""
            picture = SPOILERS[spoiled](picture, rng) if spoiled else picture
            asked.append(Asked(path, stretch.name, view.lat, view.lon, stretch.known > 0, stretch.kind, spoiled))
        else:
            known.append(Known(path, stretch.name, view.lat, view.lon))
        picture.save(path, "JPEG", quality=QUALITY)
    return known, asked


def _views(stretch: Stretch, count: int, rng: Rng) -> Iterator[Viewpoint]:
    """Cameras all along the stretch, one in each of as many parts of it, in any light."""
    low, high = stretch.along
    for at in range(count):
        along = low + (at + rng.uniform()) / count * (high - low)
        back, eye, yaw = (float(rng.uniform(*values)) for values in (stretch.back, stretch.eye, stretch.yaw))
        position = whereabouts(stretch.place, along, back)
        yield Viewpoint(stretch.place, at + 1, *position, str(rng.choice(list(LIGHTS))), along, back, yaw, eye)
