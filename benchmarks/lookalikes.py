"""Drawn photos among which it is easy to be wrong: streets of one style at several addresses, storeys of one building,
questions by night, in rain, cropped, zoomed and half hidden, places that nobody has seen, and a few wrong positions.
Known photos were taken on trips along a place, by a camera that says its number or by one of many of the same model at
the same minutes; half of the questions come from such a trip, also those about a place to which it went on from there.

Knows neither the service nor how it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from PIL.ExifTags import IFD, Base

from benchmarks.processes import spawn
from demo.places import LIGHTS
from demo.scenes import Viewpoint, place_names, render, whereabouts
from worker.core.geo import distance_m

BUILDING = "glass-quarter"
#: Of so many known photos one has a wrong position.
ONE_WRONG_OF = 50
#: Metres along a place over which its photos are spread, and by which a viewpoint is off where it would be.
SPREAD_M, ALONG_M, YAW_DEG = 32.0, 1.5, 6.0
#: Metres from the walls, and by which a viewpoint is off that.
STREET_BACK_M, STOREY_BACK_M = (21.0, 4.0), (7.0, 1.5)
QUALITY = 88
#: When all trips begin: the minutes are the same for all cameras of one model.
NOON = datetime(2025, 6, 1, 12)
#: Seconds between two photos of a trip, more than those of a burst.
PAUSE_S = (10.0, 40.0)
#: Metres a second on foot within a building, and by car between streets; farther than this nobody goes on.
WALKED_MPS, DRIVEN_MPS, FARTHEST_M = 1.4, 12.0, 10_000.0
#: What a question's file says of when it was taken: nothing, as messengers leave it; by which camera, to its number; or
#: by which model.
UNTIMED, TIMED, BY_MODEL = "untimed", "timed", "timed by model"

Rng = np.random.Generator
#: What one process draws at a time.
Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class Size:
    """How much is drawn. Of `styles` streets each stands at `addresses`, the last of which nobody has seen; one style
    more and `unseen_storeys` of the building's `storeys` are unseen, too. known, asked: photos of a place that was
    seen; of others all are asked about. picture: width, height in pixels."""

    styles: int = 6
    addresses: int = 4
    storeys: int = 10
    unseen_storeys: int = 3
    known: int = 8
    asked: int = 4
    picture: tuple[int, int] = (640, 480)


@dataclass(frozen=True, slots=True)
class Known:
    """A photo of the library. lat, lon: as the library has them, in degrees. wrong: how they came to be far from the
    truth, empty where they are not."""

    path: Path
    place: str
    lat: float
    lon: float
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """A photo to ask about. lat, lon: the truth. seen: the library has photos of its place. kind: `street` or `storey`.
    spoiled: what was done to it, empty for nothing. timed: UNTIMED, TIMED or BY_MODEL."""

    path: Path
    place: str
    lat: float
    lon: float
    seen: bool
    kind: str
    spoiled: str
    timed: str = UNTIMED


@dataclass(frozen=True, slots=True)
class Drawn:
    known: list[Known]
    asked: list[Asked]


@dataclass(frozen=True, slots=True)
class _Place:
    """after: the known place where its trip was before, empty where it begins here. serial: of the camera, empty where
    it names its model alone."""

    name: str
    seen: bool
    kind: str
    after: str
    serial: str


def draw(folder: Path, size: Size, *, processes: int = 1, progress: Callable[[int, int], None] | None = None) -> Drawn:
    """Write all photos into the folder; the same on every run. All positions are true (see `with_wrong_ones`).

    progress: called with places done, in all.
    """
    return all_drawn(partial(_draw, folder, size), list(_places(size)), processes, progress)


def all_drawn(
    draw_one: Callable[[Part], tuple[list[Known], list[Asked]]],
    parts: Sequence[Part],
    processes: int,
    progress: Callable[[int, int], None] | None,
) -> Drawn:
    """What each part draws, in their order, by so many processes at a time."""
    drawn = Drawn([], [])
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        for done, (known, asked) in enumerate(pool.map(draw_one, parts), start=1):
            drawn.known.extend(known)
            drawn.asked.extend(asked)
            if progress is not None:
                progress(done, len(parts))
    return drawn


def with_wrong_ones(known: Sequence[Known], seed: int) -> list[Known]:
    """One of fifty far from where it was taken: a sign that has flipped, latitude and longitude changed over, a point
    in the sea, or the position of another photo whose file had the same name."""
    rng = np.random.default_rng([seed, ONE_WRONG_OF])
    chosen = rng.choice(len(known), max(1, len(known) // ONE_WRONG_OF), replace=False)
    found = list(known)
    for n, at in enumerate(chosen.tolist()):
        one = known[at]
        others = [other for other in known if other.place != one.place]
        other = others[int(rng.integers(len(others)))]
        ways = {
            "sign flipped": (-one.lat, one.lon),
            "changed over": (one.lon, one.lat),
            "another's position": (other.lat, other.lon),
            "in the sea": (one.lat - 40.0 if one.lat > 0 else one.lat, -30.0),
        }
        if abs(one.lon) > 90:
            del ways["changed over"]
        wrong = list(ways)[(n + seed) % len(ways)]
        found[at] = replace(one, lat=ways[wrong][0], lon=ways[wrong][1], wrong=wrong)
    return found


def _places(size: Size) -> Iterator[_Place]:
    known: list[_Place] = []
    for name, seen, kind in _names(size):
        before = None if seen or not known or _apart_m(known[-1].name, name) > FARTHEST_M else known[-1]
        # Every second trip is by a phone.
        serial = before.serial if before is not None else f"{len(known)} {name}" if len(known) % 2 == 0 else ""
        place = _Place(name, seen, kind, "" if before is None else before.name, serial)
        known += [place] if seen else []
        yield place


def _names(size: Size) -> Iterator[tuple[str, bool, str]]:
    for name in place_names()[: size.styles]:
        for address in range(size.addresses):
            yield f"{name}~{address}" if address else name, address < size.addresses - 1, "street"
    yield place_names()[-1], False, "street"
    for number in range(1, size.storeys + 1):
        yield f"{BUILDING}^{number}", number <= size.storeys - size.unseen_storeys, "storey"


def _apart_m(one: str, other: str) -> float:
    return distance_m(*whereabouts(one, 0, 0), *whereabouts(other, 0, 0))


def _times(place: _Place, views: int) -> list[float]:
    """Seconds after NOON of each view, and of when the last one is done."""
    start_s = 0.0
    if place.after:
        before = replace(place, name=place.after, after="")
        way_mps = WALKED_MPS if place.kind == "storey" else DRIVEN_MPS
        start_s = _times(before, views)[-1] + _apart_m(place.after, place.name) / way_mps
    # Of its own: pictures are the same whether or not they have times.
    pauses = np.random.default_rng([*place.name.encode(), 1]).uniform(*PAUSE_S, views)
    return [start_s, *(start_s + np.cumsum(pauses)).tolist()]


def _said(place: _Place, after_s: float) -> Image.Exif:
    """EXIF of a photo of its trip."""
    at = NOON + timedelta(seconds=after_s)
    exif = Image.Exif()
    exif[Base.Make], exif[Base.Model] = "Sightline", "camera" if place.serial else "phone"
    detail = exif.get_ifd(IFD.Exif)
    detail[Base.DateTimeOriginal] = f"{at:%Y:%m:%d %H:%M:%S}"
    detail[Base.SubsecTimeOriginal] = f"{at.microsecond // 10_000:02d}"
    if place.serial:
        detail[Base.BodySerialNumber] = place.serial
    return exif


def _draw(folder: Path, size: Size, place: _Place) -> tuple[list[Known], list[Asked]]:
    known, asked = [], []
    # By the name, not by its turn: the same photos of a place, however many others are drawn.
    rng = np.random.default_rng(list(place.name.encode()))
    views = size.known + size.asked
    step = views // (size.asked + 1)
    questions = set(range(views)) if not place.seen else set(range(step, views, step)[: size.asked])
    times_s = _times(place, views)
    named = np.random.default_rng([*place.name.encode(), 2]).random(views) < 0.5
    for at, view in enumerate(_views(place, views, rng)):
        spoiled = str(rng.choice(["", *SPOILERS])) if at in questions else ""
        # After dusk lamps and windows shine.
        picture = render(replace(view, light="dusk") if spoiled == "night" else view, size=size.picture)
        path = folder / f"{place.name}-{view.number:02d}.jpg"
        exif = _said(place, times_s[at])
        if at in questions:
            picture = SPOILERS[spoiled](picture, rng) if spoiled else picture
            timed = (TIMED if place.serial else BY_MODEL) if named[at] else UNTIMED
            exif = Image.Exif() if timed == UNTIMED else exif
            asked.append(Asked(path, place.name, view.lat, view.lon, place.seen, place.kind, spoiled, timed))
        else:
            known.append(Known(path, place.name, view.lat, view.lon))
        picture.save(path, "JPEG", quality=QUALITY, exif=exif)
    return known, asked


def _views(place: _Place, count: int, rng: Rng) -> Iterable[Viewpoint]:
    """Cameras along a place, in any light, turned a little towards its middle."""
    middle_m, off_m = STREET_BACK_M if place.kind == "street" else STOREY_BACK_M
    for at in range(count):
        along = (at / max(1, count - 1) - 0.5) * SPREAD_M + rng.uniform(-ALONG_M, ALONG_M)
        back = middle_m + rng.uniform(-off_m, off_m)
        yaw = -0.15 * along + rng.uniform(-YAW_DEG, YAW_DEG)
        light = str(rng.choice(list(LIGHTS)))
        yield Viewpoint(place.name, at + 1, *whereabouts(place.name, along, back), light, along, back, yaw)


# ------------------------------------------------------------------------------------ what is done to what is asked


def _night(picture: Image.Image, rng: Rng) -> Image.Image:
    dark = np.asarray(picture, dtype=np.float32) * 0.4
    return Image.fromarray((dark + rng.normal(0, 9, dark.shape)).clip(0, 255).astype(np.uint8))


def _rain(picture: Image.Image, rng: Rng) -> Image.Image:
    wet = ImageEnhance.Contrast(picture.filter(ImageFilter.GaussianBlur(0.8))).enhance(0.75)
    draw_on = ImageDraw.Draw(wet, "RGBA")
    for x, y, long in rng.uniform((0, 0, 8), (*wet.size, 26), (350, 3)):
        draw_on.line([(x, y), (x - long * 0.2, y + long)], fill=(210, 215, 225, 90), width=1)
    return wet


def _cut(picture: Image.Image, rng: Rng, *, least: float, most: float, enlarge: bool) -> Image.Image:
    share = rng.uniform(least, most)
    width, height = picture.size
    left, top = rng.uniform(0, 1 - share, 2) * picture.size
    cut = picture.crop((int(left), int(top), int(left + share * width), int(top + share * height)))
    return cut.resize(picture.size, Image.Resampling.BICUBIC) if enlarge else cut


def _half_hidden(picture: Image.Image, rng: Rng) -> Image.Image:
    """Three passers-by in front of the camera."""
    hidden = picture.copy()
    draw_on = ImageDraw.Draw(hidden)
    width, height = hidden.size
    for left, wide, high in rng.uniform((0, 0.1, 0.4), (0.9, 0.2, 0.8), (3, 3)) * (width, width, height):
        coat = tuple(rng.integers(20, 200, 3).tolist())
        draw_on.ellipse([left, height - high, left + wide, height + 40], fill=coat)
        head = [left + wide / 4, height - high - wide * 0.4, left + wide * 3 / 4, height - high + wide * 0.2]
        draw_on.ellipse(head, fill=(200, 160, 130))
    return hidden


SPOILERS: dict[str, Callable[[Image.Image, Rng], Image.Image]] = {
    "night": _night,
    "rain": _rain,
    "crop": partial(_cut, least=0.6, most=0.85, enlarge=False),
    "zoom": partial(_cut, least=0.45, most=0.6, enlarge=True),
    "half-hidden": _half_hidden,
}
