"""Photos to add, as people name them: files, folders, and tables of coordinates. Knows no queue and no terminal."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from producer_client import BadRequest, NewPhoto, Photo, Provenance, Refused
from worker.words import say

#: Suffixes that `sightline add FOLDER` takes for photos; the content decides in the end.
PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".tif", ".tiff", ".gif"}


def new_photos(
    given: Sequence[Path], lat: float | None, lon: float | None, provenance: Provenance
) -> Iterator[NewPhoto | Refused]:
    """Photos of files, folders and manifests (.csv), in their order; lat, lon and provenance are those of a single one.

    A name in a folder that no message can carry is refused, and its neighbours come. Raises ValueError with a sentence,
    BadRequest for impossible coordinates, OSError for a manifest that cannot be read.
    """
    if (lat is None) != (lon is None):
        raise ValueError(say("give both --lat and --lon, or neither"))
    if lat is not None and (len(given) != 1 or given[0].is_dir()):
        raise ValueError(say("--lat and --lon are for a single photo; use a manifest.csv for many"))
    for path in given:
        if path.suffix == ".csv":
            yield from read_manifest(path)
        elif path.is_dir():
            for found in sorted(p for p in path.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES):
                try:
                    yield NewPhoto(ref=str(found), photo=Photo(path=str(found.resolve())))
                except BadRequest as exc:
                    # A name that is not UTF-8 cannot travel as JSON; it must not keep its neighbours back.
                    yield Refused(str(found), exc.code, exc.message)
        else:
            yield NewPhoto(
                ref=str(path),
                photo=Photo(path=str(path.resolve())),
                lat=lat,
                lon=lon,
                provenance=None if lat is None else provenance,
            )


def read_manifest(path: Path) -> Iterator[NewPhoto]:
    """Rows of a CSV with file, lat, lon, coordinate_source, and optionally place.

    coordinate_source is a provenance, `exif` or `landmark`; rows without lat and lon leave it to the EXIF tags.
    Raises ValueError naming the row.
    """
    sources = {**{p.value: p for p in Provenance}, "exif": Provenance.EXIF_GPS, "landmark": Provenance.SURVEYED}
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                known = bool(row["lat"] and row["lon"])
                yield NewPhoto(
                    ref=row["file"],
                    photo=Photo(path=str((path.parent / row["file"]).resolve())),
                    lat=float(row["lat"]) if known else None,
                    lon=float(row["lon"]) if known else None,
                    provenance=sources[row["coordinate_source"]] if known else None,
                    metadata={"place": row["place"]} if row.get("place") else None,
                )
            except KeyError as exc:
                raise ValueError(
                    f"{path}, line {number}: {exc} is missing or unknown; columns are file, lat, lon, "
                    f"coordinate_source (one of {', '.join(sources)}) and place"
                ) from exc
            except (ValueError, BadRequest) as exc:
                raise ValueError(f"{path}, line {number}: {exc}") from exc
