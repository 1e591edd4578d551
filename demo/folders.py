"""A folder of somebody's photos for the demo: which have a position, which of them are asked for. Knows no queue.

Two ways of asking. Where there are several places, one is held out whole, and photos of the others: the first must not
be located, the others should. Where there is one place alone, or too few photos of each, single photos are held out:
all are in the index, each is asked for with the others as evidence, and no file is found by its own bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from PIL import Image

from demo.words import say
from producer_client import NewPhoto, Photo, Refused
from producer_client.language import to_say
from producer_client.positions import BROKEN, Position, of_image
from worker.core.geo import distance_m
from worker.encoder.images import FORMATS, decode
from worker.errors import PhotoRefusal
from worker.manifest import COLUMNS, Note, manifest_rows, photo_files
from worker.words import in_language

T = TypeVar("T")
#: Photos without a named place belong together when they lie this near to one another.
SAME_PLACE_M = 500.0
#: Of a place that is known, one photo in so many is held back and asked for.
HOLD_BACK_EVERY = 4
#: More photos than this would make the demo a matter of many minutes: so many of them are taken, in runs of this
#: length, because those that follow one another are mostly of one place.
MOST, RUN = 400, 10
#: Of single photos that are held out, so many are asked for.
MOST_ASKED = 100

MANIFEST = "manifest.csv"


@dataclass(frozen=True)
class Case:
    """A photo with the truth about it."""

    item: NewPhoto
    place: str
    lat: float
    lon: float

    @property
    def path(self) -> str:
        return self.item.photo.path or ""


@dataclass(frozen=True)
class Split:
    """known go into the index; held_back and unseen are asked for. single: held_back are among those that are known."""

    known: list[Case]
    held_back: list[Case]
    unseen: list[Case] = field(default_factory=list)
    single: bool = False


@dataclass(frozen=True)
class Found:
    """Photos with a position; what else is to be said of the folder, a sentence each."""

    cases: list[Case]
    remarks: list[str]


def read_folder(folder: Path, progress: Callable[[int, int], None]) -> Found:
    """Raises RuntimeError with a sentence for a folder that gives nothing to ask for."""
    if not folder.is_dir():
        raise RuntimeError(say("{folder} is not a folder", folder=folder))
    remarks: list[str] = []
    manifest = folder / MANIFEST
    placed = list(_from_manifest(manifest, remarks) if manifest.exists() else _from_files(folder, remarks, progress))
    if not placed:
        nothing = say("{manifest} gives no photo with lat and lon.", manifest=manifest)
        raise RuntimeError(" ".join([nothing if manifest.exists() else _no_position(folder), *remarks]))
    if len(placed) == 1:
        words = to_say("one photo alone under {folder} has a position: there is nothing to compare it with")
        raise RuntimeError(say(words, folder=folder))
    if len(placed) > MOST:
        words = to_say(
            "{count} photos have a position; the demo takes {most} of them, {run} at a time from all over the folder. "
            "`sightline up` and `sightline add` take all"
        )
        remarks.append(say(words, count=len(placed), most=MOST, run=RUN))
        placed = runs(placed, MOST, RUN)
    return Found(placed if all(case.place for case in placed) else _by_nearness(placed), remarks)


def split(cases: Sequence[Case]) -> Split:
    """One place is held out whole, the smallest; of the others every fourth photo. Or single photos, where that leaves
    nothing to ask for.

    Every known place keeps two photos at least, so that its witnesses can agree.
    """
    places: dict[str, list[Case]] = {}
    for case in cases:
        places.setdefault(case.place, []).append(case)
    left_out = min(places, key=lambda place: (len(places[place]), place))
    known: list[Case] = []
    held_back: list[Case] = []
    for place, photos in places.items():
        if place == left_out:
            continue
        ask = photos[1::HOLD_BACK_EVERY][: max(0, len(photos) - 2)]
        held_back += ask
        known += [photo for photo in photos if photo not in ask]
    if held_back:
        return Split(known, held_back, places[left_out])
    return Split(list(cases), _spread(cases, MOST_ASKED), single=True)


def runs(cases: Sequence[Case], most: int, length: int) -> list[Case]:
    """So many of them, in runs of neighbours that lie evenly spread."""
    starts = _spread(range(0, len(cases) - length + 1), most // length)
    return [cases[at] for at in sorted({start + step for start in starts for step in range(length)})]


# ---------------------------------------------------------------------------------------------- below


def _spread(items: Sequence[T], most: int) -> list[T]:
    return [items[number * len(items) // most] for number in range(most)] if len(items) > most else list(items)


def _from_manifest(manifest: Path, remarks: list[str]) -> Iterator[Case]:
    without = 0
    for row in manifest_rows(manifest):
        if isinstance(row, Refused):
            remarks.append(in_language(row.message))
        elif isinstance(row, Note):
            remarks.append(in_language(row.words))
        elif row.lat is None or row.lon is None:
            without += 1
        else:
            place = str((row.metadata or {}).get("place") or Path(row.ref).parent)
            yield Case(row, place, row.lat, row.lon)
    if without:
        remarks.append(say("rows without lat and lon: {count}", count=without))


def _from_files(folder: Path, remarks: list[str], progress: Callable[[int, int], None]) -> Iterator[Case]:
    files = [path for path in photo_files(folder) if isinstance(path, Path)]
    without = 0
    for done, path in enumerate(files, 1):
        gps = _position(path)
        progress(done, len(files))
        if gps is None:
            without += 1
        else:
            yield Case(NewPhoto(ref=str(path), photo=Photo(path=str(path.resolve()))), "", *gps)
    if without:
        words = to_say("photos without a position in their EXIF or XMP: {count} of {total}")
        remarks.append(say(words, count=without, total=len(files)))


def _position(path: Path) -> tuple[float, float] | None:
    """By the header alone, where the format has one that is quick to read."""
    if not path.is_file():
        # A pipe would be waited for, and a link to nothing is no photo either.
        return None
    try:
        if path.suffix.lower() == ".jxl":
            return decode(path.read_bytes(), side=32, max_megapixels=100).gps
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=[name for name in FORMATS if name != "JXL"]) as image:
                found = of_image(image)
    except (*BROKEN, PhotoRefusal):
        return None
    return (found.lat, found.lon) if isinstance(found, Position) else None


def _no_position(folder: Path) -> str:
    if not any(isinstance(path, Path) for path in photo_files(folder)):
        return say("there is no photo under {folder}", folder=folder)
    return say(
        "no photo under {folder} has GPS in its EXIF tags, and there is no {manifest} in it with the columns {columns}",
        folder=folder,
        manifest=MANIFEST,
        columns=", ".join(COLUMNS),
    )


def _by_nearness(placed: Sequence[Case]) -> list[Case]:
    """A place is a chain of photos each near the next."""
    places: list[list[Case]] = []
    for case in placed:
        near = [p for p in places if any(distance_m(case.lat, case.lon, o.lat, o.lon) <= SAME_PLACE_M for o in p)]
        places = [p for p in places if p not in near] + [[case, *(other for p in near for other in p)]]
    return [
        Case(case.item, say("place {number}", number=number), case.lat, case.lon)
        for number, photos in enumerate(places, 1)
        for case in sorted(photos, key=lambda case: case.path)
    ]
