"""Photos to add, as people name them: files, folders, and tables of coordinates. Knows no queue and no terminal."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from producer_client import Code, NewPhoto, Photo, Provenance, Refused
from producer_client.arguments import read_items
from producer_client.contract import LOCATION_METHODS
from producer_client.fields import LAT, LON, METHOD, PATH
from producer_client.language import to_say
from worker.spelling import on_disk
from worker.spreadsheet import degrees, read_sheet
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

#: Suffixes of manifests, and of tables that are no text.
MANIFESTS = (".csv", ".tsv")
NO_MANIFESTS = (".xlsx", ".xls", ".ods", ".numbers")
#: Columns of a manifest, and those without which it is none.
COLUMNS = ("file", "lat", "lon", "coordinate_source", "place")
NEEDED_COLUMNS = COLUMNS[:3]
#: What columns are called, in small letters and with an underscore for spaces.
NAMES = {
    "file": ("file", "file_name", "filename", *PATH),
    "lat": LAT,
    "lon": (*LON, "long"),
    "coordinate_source": METHOD,
    "place": ("place",),
}
#: What its coordinate_source may be.
SOURCES = {**{p.value: p for p in Provenance}, **LOCATION_METHODS, "landmark": Provenance.SURVEYED}


@dataclass(frozen=True, slots=True)
class Note:
    """What is to be said of a manifest beside its rows."""

    words: str


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
) -> Iterator[NewPhoto | Refused | LeftOut | NotRead | Note]:
    """Photos of files, folders and manifests, in their order; lat, lon and provenance are those of a single one.

    A file that is named itself is taken whatever its name; for folders see `photo_files`.
    A name in a folder that no message can carry is refused, as is a row of a manifest that says nothing sensible, and
    their neighbours come. A photo that is named again is passed over, or refused where it comes with coordinates.
    Raises ValueError with a sentence, OSError for a manifest that cannot be read.
    """
    given = [Path(on_disk(str(named))) for named in given]
    paths: set[str | None] = set()
    refs: set[str] = set()
    for path in given:
        for item in _of(path, lat, lon, provenance, everything=everything):
            if not isinstance(item, NewPhoto):
                yield item
            elif item.photo.path not in paths:
                paths.add(item.photo.path)
                # Rows of two manifests may name two photos alike.
                named = item if item.ref not in refs else replace(item, ref=str(item.photo.path))
                refs.add(named.ref)
                yield named
            elif item.lat is not None:
                yield Refused(item.ref, Code.BAD_REQUEST, say("{path} is named twice", path=item.photo.path))


def manifest_rows(path: Path) -> Iterator[NewPhoto | Refused | Note]:
    """Rows of a CSV or TSV with file, lat, lon, coordinate_source, and optionally place, or `NAMES` for them.

    coordinate_source is a provenance, or what backends call it; rows without lat and lon leave it to what their files
    say. A row that cannot be read is refused with its line, and the others come. Raises ValueError with a sentence
    where it is the whole file that cannot be read.
    """
    sheet = read_sheet(path, lambda name: _column(name) is not None)
    header = [_column(name) for name in sheet.header]
    where = say("{path}, line {line}", path=path, line=sheet.header_line)
    named = list(zip(sheet.header, header, strict=True))
    if twice := [name for name, column in named if column and header.count(column) > 1]:
        words = say("{names} are two columns for one thing", names=", ".join(twice))
        raise ValueError(f"{where}: {words}")
    if lacking := [name for name in NEEDED_COLUMNS if name not in header]:
        columns = ", ".join(COLUMNS)
        words = say("{lacking} missing; the columns are {columns}", lacking=", ".join(lacking), columns=columns)
        raise ValueError(f"{where}: {words}")
    if sheet.encoding:
        words = to_say("{path} is no UTF-8 and was read as {encoding}. Where names are wrong, save it as UTF-8")
        yield Note(say(words, path=path, encoding=sheet.encoding))
    if unknown := [name for name, column in named if name and not column]:
        yield Note(say("{where}: columns that are not read: {names}", where=where, names=", ".join(unknown)))
    seen: dict[str, int] = {}
    for row in sheet.rows:
        if isinstance(row.fields, str):
            yield _refused(path, row.line, "", row.fields)
        elif any(field.strip() for field in row.fields):  # a spreadsheet's empty line is separators
            read = _row(path, row.line, header, [field.strip() for field in row.fields])
            if isinstance(read, NewPhoto) and (before := seen.setdefault(str(read.photo.path), row.line)) != row.line:
                read = _refused(path, row.line, read.ref, say("it is the photo of line {line} again", line=before))
            yield read


def read_manifest(path: Path) -> Iterator[NewPhoto]:
    """As `manifest_rows`, for who needs all of them: raises ValueError with the sentence of the first refusal."""
    for row in manifest_rows(path):
        if isinstance(row, Refused):
            raise ValueError(row.message)
        if isinstance(row, NewPhoto):
            yield row


# ---------------------------------------------------------------------------------------------- below


def _of(
    path: Path, lat: float | None, lon: float | None, provenance: Provenance, *, everything: bool
) -> Iterator[NewPhoto | Refused | LeftOut | NotRead | Note]:
    if path.is_dir():
        for found in photo_files(path, everything=everything):
            if isinstance(found, Path):
                # A name that is not UTF-8 cannot travel as JSON; it must not keep its neighbours back.
                yield from read_items(NewPhoto, [NewPhoto(ref=str(found), photo=Photo(path=str(found.resolve())))])
                continue
            yield found
            if isinstance(found, NotRead) and found.path.suffix.lower() in MANIFESTS and found.path.stem == "manifest":
                command = f"sightline add {shlex.quote(str(found.path))}"
                words = to_say("{path} lies there and was not read. To take coordinates from it: {command}")
                yield Note(say(words, path=found.path, command=command))
    elif path.suffix.lower() in MANIFESTS:
        yield from manifest_rows(path)
    elif path.suffix.lower() in NO_MANIFESTS:
        words = say(
            "a table is read as text alone: save it as CSV in UTF-8, with {columns}", columns=", ".join(COLUMNS)
        )
        yield Refused(str(path), Code.NOT_AN_IMAGE, words)
    else:
        provenance_given = None if lat is None else provenance
        yield NewPhoto(str(path), Photo(path=str(path.resolve())), lat, lon, provenance_given)


def _is_a_programs(name: str) -> bool:
    """Whether a file or folder of this name is a program's. Hidden are AppleDouble's `._IMG_1.jpg`, too."""
    lower = name.lower()
    return name.startswith(".") or lower in PROGRAM_FOLDERS | PROGRAM_FILES or lower.endswith(PROGRAM_SUFFIXES)


def _column(name: str) -> str | None:
    """Which of `COLUMNS` a column of this name is."""
    plain = re.sub(r"[\s_-]+", "_", name.strip().lower())
    return next((column for column, names in NAMES.items() if plain in names), None)


def _row(path: Path, line: int, header: Sequence[str | None], fields: Sequence[str]) -> NewPhoto | Refused:
    row = dict(zip(header, fields, strict=False))
    file, lat, lon, source = (row.get(name, "") for name in ("file", "lat", "lon", "coordinate_source"))
    if len(fields) < len(header) or any(fields[len(header) :]):
        why = say("{there} fields, the header has {columns}", there=len(fields), columns=len(header))
        if len(fields) > len(header):
            why = say("{why}. Numbers with a decimal comma want a semicolon between the columns, or quotes", why=why)
        return _refused(path, line, file, why)
    if not file:
        return _refused(path, line, file, say("it names no file"))
    if bool(lat) != bool(lon):
        why = say("a latitude without a longitude") if lat else say("a longitude without a latitude")
        return _refused(path, line, file, why, Code.BAD_COORDINATES)
    if lat and source.lower() not in SOURCES:
        sources = ", ".join(SOURCES)
        why = say("coordinate_source {source!r} is none of {sources}", source=source, sources=sources)
        return _refused(path, line, file, why)
    place = degrees(lat, "N", "S"), degrees(lon, "E", "W")
    if lat and None in place:
        why = say("{lat}, {lon} is no place in decimal degrees", lat=repr(lat), lon=repr(lon))
        return _refused(path, line, file, why, Code.BAD_COORDINATES)
    (read,) = read_items(
        NewPhoto,
        [
            NewPhoto(
                ref=file,
                photo=Photo(path=_resolved(path.parent, file)),
                lat=place[0],
                lon=place[1],
                provenance=SOURCES[source.lower()] if lat else None,
                metadata={"place": row["place"]} if row.get("place") else None,
            )
        ],
    )
    return read if isinstance(read, NewPhoto) else _refused(path, line, file, read.message, read.code)


def _resolved(folder: Path, file: str) -> str:
    try:
        return str((folder / Path(file).expanduser()).resolve())
    except (OSError, ValueError, RuntimeError):
        # No home of that name, a loop of links, a NUL: whoever opens the file says so.
        return str(folder.absolute() / file)


def _refused(path: Path, line: int, file: str, why: str, code: Code = Code.BAD_REQUEST) -> Refused:
    said = say("{path}, line {line}: {why}", path=path, line=line, why=why)
    return Refused(file or f"{path}:{line}", code, said)
