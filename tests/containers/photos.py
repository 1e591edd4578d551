"""The photos of the test: those beside the project, or drawn streets, and small ones drawn to be added under load."""

from __future__ import annotations

import csv
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.containers.engine import Engine
from tests.containers.images import ROOT

#: Where the workers see them.
MOUNTED = "/photos"
#: Of each place every so many photos is held out; those of the first of them are in the middle of others.
HOLD_OUT_EVERY = 5
METRES_PER_DEGREE = 111_320.0
#: Small photos for the time of the faults.
SMALL = 1500
DRAW_STREETS = (
    "from demo.scenes import write_scenes; from pathlib import Path; write_scenes(Path('/made/streets'), places=7)"
)
DRAW_SMALL = (
    "from tests.chaos.ledger import draw; from pathlib import Path; "
    f"[draw(Path('/made/small'), number, 1) for number in range({SMALL})]"
)


@dataclass(frozen=True)
class Taken:
    """A photo as the workers see it, and where it was taken: degrees."""

    path: str
    lat: float
    lon: float


@dataclass(frozen=True)
class Photos:
    folder: Path
    known: list[Taken]
    asked: list[Taken]
    small: list[Taken]


def metres(taken: Taken, lat: float, lon: float) -> float:
    """From there to where it was taken, as far as a few kilometres are flat."""
    north, east = lat - taken.lat, (lon - taken.lon) * math.cos(math.radians(lat))
    return math.hypot(north, east) * METRES_PER_DEGREE


def gather(engine: Engine) -> Photos:
    """All in one folder, which is mounted. What is drawn is drawn once, in the image: it has what that takes."""
    folder = engine.folder / "photos"
    (folder / "small").mkdir(parents=True, exist_ok=True)
    if len(list((folder / "small").iterdir())) < SMALL:
        _draw(engine, folder, DRAW_SMALL)
    beside = ROOT.parent / "shared" / "photos"
    if beside.exists():
        streets = folder / "real"
        shutil.copytree(beside, streets, dirs_exist_ok=True)
    else:
        streets = folder / "streets"
        if not (streets / "manifest.csv").exists():
            _draw(engine, folder, DRAW_STREETS)
    # What user 10001 is to read.
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    known, asked = _split(streets)
    small = [
        Taken(f"{MOUNTED}/small/{path.name}", 55.0 + number * 1e-3, 13.0 + number % 7 * 1e-2)
        for number, path in enumerate(sorted((folder / "small").iterdir()))
    ]
    return Photos(folder, known, asked, small)


def _draw(engine: Engine, folder: Path, program: str) -> None:
    mounts = [f"--volume={ROOT}:/source:ro", f"--volume={folder}:/made"]
    command = ["--workdir=/source", "--user=0", "--network=none", "--entrypoint=python", "sightline:cpu", "-c", program]
    engine.podman("run", "--rm", *mounts, *command, told="drawing photos")


def _split(streets: Path) -> tuple[list[Taken], list[Taken]]:
    places: dict[str, list[Taken]] = {}
    with (streets / "manifest.csv").open() as file:
        for row in csv.DictReader(file):
            taken = Taken(f"{MOUNTED}/{streets.name}/{row['file']}", float(row["lat"]), float(row["lon"]))
            places.setdefault(row["place"], []).append(taken)
    asked = [taken for photos in places.values() for taken in photos[2::HOLD_OUT_EVERY]]
    return [taken for photos in places.values() for taken in photos if taken not in asked], asked
