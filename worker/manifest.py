"""Photos to add, as people name them: files, folders, and tables of coordinates. Knows no queue and no terminal."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer_client import BadRequest, Code, NewPhoto, Photo, Provenance, Refused
from worker.spelling import on_disk
from worker.words import say

#: Suffixes that `sightline add FOLDER` takes for photos, by the formats that are read (worker/encoder/images.py); the
#: content decides in the end.
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),  # .mpo: of two lenses, or with a depth map
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heif", ".hif"),  # .hif: of Canon, Fujifilm and Sony
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "JXL": (".jxl",),
}
PHOTO_SUFFIXES = {suffix for suffixes in SUFFIXES.values() for suffix in suffixes}
#: Suffixes of what is read with the photo beside it.
SIDECAR_SUFFIXES = {".xmp", ".json"}

#: Folders, in small letters, in which programs keep previews of photos, and photos that were deleted or damaged. Those
#: of other programs are hidden ones: .thumbnails, .Trash-1000, .@__thumb, .picasaoriginals.
PROGRAM_FOLDERS = {
    "@eadir",  # Synology: thumbnails of each photo, named like it
    "#recycle",
    "#snapshot",
    "@recycle",  # QNAP
    "@recently-snapshot",
    "$recycle.bin",  # Windows
    "recycler",
    "system volume information",
    "__macosx",  # AppleDouble files of a ZIP that macOS packed
    "lost+found",
    "lost.dir",  # Android: what a file system check found
}
#: Of Windows.
PROGRAM_FILES = {"thumbs.db", "desktop.ini"}
#: Lightroom's previews and smart previews.
PROGRAM_SUFFIXES = (".lrdata",)

#: Columns of a manifest, and those without which it is none.
COLUMNS = ("file", "lat", "lon", "coordinate_source", "place")
NEEDED_COLUMNS = COLUMNS[:3]
#: What its coordinate_source may be.
SOURCES = {**{p.value: p for p in Provenance}, "exif": Provenance.EXIF_GPS, "landmark": Provenance.SURVEYED}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file by the suffix of a photo that a program put into the folder. name: the part of its path that says so."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class NotRead:
    """A file that is neither a photo by its suffix nor read with one: RAW, video, whatever lies in folders."""

    path: Path


def photo_files(folder: Path, *, everything: bool = False) -> Iterator[Path | LeftOut | NotRead]:
    """The photos below a folder by their suffixes, and what is no photo, in order. What programs put there is left out,
    unless `everything` is wanted; the folder itself may have any name."""
    # Synology names the folder of a photo's thumbnails like the photo.
    for path in sorted(p for p in folder.rglob("*") if not p.is_dir()):
        name = None if everything else next(filter(_is_a_programs, path.relative_to(folder).parts), None)
        suffix = path.suffix.lower()
        if suffix in PHOTO_SUFFIXES:
            yield path if name is None else LeftOut(path, name)
        elif name is None and suffix not in SIDECAR_SUFFIXES:
            yield NotRead(path)


def new_photos(
    given: Sequence[Path],
    lat: float | None,
    lon: float | None,
    provenance: Provenance,
    *,
    everything: bool = False,
) -> Iterator[NewPhoto | Refused | LeftOut | NotRead]:
    """Photos of files, folders and manifests (.csv), in their order; lat, lon and provenance are those of a single one.

    A file that is named itself is taken whatever its name; for folders see `photo_files`.
    A name in a folder that no message can carry is refused, as is a row of a manifest that says nothing sensible, and
    their neighbours come. Raises ValueError with a sentence, BadRequest for impossible coordinates, OSError for a
    manifest that cannot be read.
    """
    if (lat is None) != (lon is None):
        raise ValueError(say("give both --lat and --lon, or neither"))
    given = [Path(on_disk(str(named))) for named in given]
    if lat is not None and (len(given) != 1 or given[0].is_dir()):
        raise ValueError(say("--lat and --lon are for a single photo; use a manifest.csv for many"))
    for path in given:
        if path.suffix == ".csv":
            yield from manifest_rows(path)
        elif path.is_dir():
            for found in photo_files(path, everything=everything):
                if isinstance(found, LeftOut | NotRead):
                    yield found
                    continue
                try:
                    yield NewPhoto(ref=str(found), photo=Photo(path=str(found.resolve())))
                except BadRequest as exc:
                    # A name that is not UTF-8 cannot travel as JSON; it must not keep its neighbours back.
                    yield Refused(str(found).encode(errors="backslashreplace").decode(), exc.code, exc.message)
        else:
            yield NewPhoto(
                ref=str(path),
                photo=Photo(path=str(path.resolve())),
                lat=lat,
                lon=lon,
                provenance=None if lat is None else provenance,
            )


def manifest_rows(path: Path) -> Iterator[NewPhoto | Refused]:
    """Rows of a CSV with file, lat, lon, coordinate_source, and optionally place.

    coordinate_source is a provenance, `exif` or `landmark`; rows without lat and lon leave it to what their files say.
    A row that cannot be read is refused with its line, and the others come. Raises ValueError with a sentence where
    it is the whole file that cannot be read.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        try:
            header = next(rows, [])
            lacking = ", ".join(name for name in NEEDED_COLUMNS if name not in header)
            if lacking:
                columns = ", ".join(COLUMNS)
                raise ValueError(
                    say(
                        "{path}, line 1: {lacking} missing; the columns are {columns}",
                        path=path,
                        lacking=lacking,
                        columns=columns,
                    )
                )
            for line, fields in _lines(rows):
                if isinstance(fields, str):
                    yield _refused(path, line, "", fields)
                elif any(fields):  # a spreadsheet's empty line is commas
                    yield _row(path, line, header, fields)
        except UnicodeDecodeError as exc:
            raise ValueError(say("{path} is not UTF-8 text: {why}", path=path, why=exc)) from exc


def read_manifest(path: Path) -> Iterator[NewPhoto]:
    """As `manifest_rows`, for who needs all of them: raises ValueError with the sentence of the first refusal."""
    for row in manifest_rows(path):
        if isinstance(row, Refused):
            raise ValueError(row.message)
        yield row


# ---------------------------------------------------------------------------------------------- below


def _is_a_programs(name: str) -> bool:
    """Whether a file or folder of this name is a program's. Hidden are AppleDouble's `._IMG_1.jpg`, too."""
    lower = name.lower()
    return name.startswith(".") or lower in PROGRAM_FOLDERS | PROGRAM_FILES or lower.endswith(PROGRAM_SUFFIXES)


def _lines(rows: Any) -> Iterator[tuple[int, list[str] | str]]:
    """Number and fields of each line, or what csv says of it."""
    while True:
        try:
            fields: list[str] | str = next(rows)
        except StopIteration:
            return
        except csv.Error as exc:
            fields = str(exc)
        yield rows.line_num, fields


def _row(path: Path, line: int, header: list[str], fields: list[str]) -> NewPhoto | Refused:
    row = dict(zip(header, fields, strict=False))
    file, lat, lon, source = (row.get(name, "") for name in ("file", "lat", "lon", "coordinate_source"))
    if len(fields) < len(header) or any(fields[len(header) :]):
        why = say("{there} fields, the header has {columns}", there=len(fields), columns=len(header))
        return _refused(path, line, file, why)
    if not file:
        return _refused(path, line, file, say("it names no file"))
    if bool(lat) != bool(lon):
        why = say("a latitude without a longitude") if lat else say("a longitude without a latitude")
        return _refused(path, line, file, why, Code.BAD_COORDINATES)
    if lat and source not in SOURCES:
        sources = ", ".join(SOURCES)
        why = say("coordinate_source {source!r} is none of {sources}", source=source, sources=sources)
        return _refused(path, line, file, why)
    try:
        return NewPhoto(
            ref=file,
            photo=Photo(path=str((path.parent / file).resolve())),
            lat=float(lat) if lat else None,
            lon=float(lon) if lon else None,
            provenance=SOURCES[source] if lat else None,
            metadata={"place": row["place"]} if row.get("place") else None,
        )
    except BadRequest as exc:
        return _refused(path, line, file, exc.message, exc.code)
    except ValueError as exc:  # no number, or a name that no file can have
        return _refused(path, line, file, str(exc))


def _refused(path: Path, line: int, file: str, why: str, code: Code = Code.BAD_REQUEST) -> Refused:
    said = say("{path}, line {line}: {why}", path=path, line=line, why=why)
    return Refused(file or f"{path}:{line}", code, said)
