"""Photos to add, as people name them: files, folders, and tables of coordinates. Knows no queue and no terminal."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from producer_client import Code, NewPhoto, Photo, Provenance, Refused
from producer_client.arguments import read_items
from producer_client.contract import LOCATION_METHODS
from producer_client.errors import quoted, short
from producer_client.fields import LAT, LON, METHOD, PATH
from worker.spelling import led_to, on_disk
from worker.spreadsheet import degrees, read_sheet

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
#: What its coordinate_source may be beside what backends call it.
SOURCES = {**{p.value: p for p in Provenance}, "landmark": Provenance.SURVEYED}


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


@dataclass(frozen=True, slots=True)
class LinkedFolder:
    """A link to a folder within a folder. It is not followed: it may lead around in a circle."""

    path: Path


def photo_files(
    folder: Path, *, everything: bool = False
) -> Iterator[Path | LeftOut | NotRead | LinkedFolder | Refused]:
    """The photos below a folder by their suffixes, and what is no photo, in order. What programs put there is left out,
    unless `everything` is wanted; the folder itself may have any name. A folder that may not be looked into is
    refused."""
    closed: dict[Path, str] = {}

    def note(exc: OSError) -> None:
        closed[Path(exc.filename)] = exc.strerror or ""

    found: set[Path] = set()
    links: set[Path] = set()
    for inner, folders, files in os.walk(folder, onerror=note):
        at = Path(inner)
        found |= {at / name for name in files}
        links |= {at / name for name in folders if os.path.islink(at / name)}  # noqa: PTH114  # Path raises EACCES
    for path in sorted(found | links | closed.keys()):
        # Synology names the folder of a photo's thumbnails like the photo.
        name = None if everything else next(filter(_is_a_programs, path.relative_to(folder).parts), None)
        suffix = path.suffix.lower()
        if path in closed:
            if name is None:
                why = closed[path]
                yield Refused(str(path), Code.NOT_FOUND, f"{path} cannot be looked into: {why}")
        elif path in links:
            if name is None:
                yield LinkedFolder(path)
        elif suffix in PHOTO_SUFFIXES:
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
    methods: Mapping[str, Provenance] = LOCATION_METHODS,
    roots: Sequence[Path] = (),
) -> Iterator[NewPhoto | Refused | LeftOut | NotRead | LinkedFolder | Note]:
    """Photos of files, folders and manifests, in their order; lat and lon are those of a single one. provenance: of
    these, and of a manifest's coordinates that do not say theirs. methods: what backends call it. roots: of photos,
    where they are known.

    A file that is named itself is taken whatever its name; for folders see `photo_files`.
    A name in a folder that no message can carry is refused, as is a row of a manifest that says nothing sensible, and
    their neighbours come. A photo that is named again is passed over, or refused where it comes with coordinates.
    Raises ValueError with a sentence.
    """
    given = [Path(on_disk(str(named))) for named in given]
    paths: set[str | None] = set()
    refs: set[str] = set()
    for path in given:
        if path.suffix.lower() in MANIFESTS and not path.is_dir():
            items: Iterator[NewPhoto | Refused | LeftOut | NotRead | LinkedFolder | Note] = manifest_rows(
                path, provenance, methods, roots
            )
        else:
            items = _of(path, lat, lon, provenance, everything=everything, roots=roots)
        for item in items:
            if not isinstance(item, NewPhoto):
                yield item
            elif item.photo.path not in paths:
                paths.add(item.photo.path)
                # Rows of two manifests may name two photos alike.
                named = item if item.ref not in refs else replace(item, ref=str(item.photo.path))
                refs.add(named.ref)
                yield named
            elif item.lat is not None:
                again = item.photo.path
                yield Refused(item.ref, Code.BAD_REQUEST, f"{again} is named twice")


def manifest_rows(
    path: Path,
    provenance: Provenance = Provenance.SURVEYED,
    methods: Mapping[str, Provenance] = LOCATION_METHODS,
    roots: Sequence[Path] = (),
) -> Iterator[NewPhoto | Refused | Note]:
    """Rows of a CSV or TSV with file, lat, lon, and optionally coordinate_source and place, or `NAMES` for them.

    coordinate_source is a provenance, or what backends call it (`methods`); coordinates without one are of this
    `provenance`, and rows without lat and lon leave it to what their files say. A row that cannot be read is refused
    with its line, and the others come. Raises ValueError with a sentence where it is the whole file that cannot be
    read.
    """
    sheet = read_sheet(path, lambda name: _column(name) is not None)
    header = [_column(name) for name in sheet.header]
    line, names = sheet.header_line, short(", ".join(filter(None, sheet.header)))
    if not names:
        columns = ", ".join(NEEDED_COLUMNS)
        raise ValueError(f"{path} is empty; a manifest begins with a line of its columns: {columns}")
    named = list(zip(sheet.header, header, strict=True))
    if twice := ", ".join(name for name, column in named if column and header.count(column) > 1):
        why = f"{twice} are two columns for one thing"
        raise ValueError(f"{path}, line {line}: {why}")
    if lacking := ", ".join(name for name in NEEDED_COLUMNS if name not in header):
        columns = ", ".join(COLUMNS)
        why = f"{lacking} missing; the columns there are {names}, those of a manifest {columns}"
        raise ValueError(f"{path}, line {line}: {why}")
    if encoding := sheet.encoding:
        yield Note(f"{path} is no UTF-8 and was read as {encoding}. Where names are wrong, save it as UTF-8")
    if unknown := ", ".join(name for name, column in named if name and not column):
        why = f"columns that are not read: {unknown}"
        yield Note(f"{path}, line {line}: {why}")
    if "coordinate_source" not in header:
        yield Note(f"{path} has no column coordinate_source: its coordinates count as {provenance}")
    meanings = {"": provenance, **SOURCES, **{name.lower(): meaning for name, meaning in methods.items()}, **SOURCES}
    source = header.index("coordinate_source") if "coordinate_source" in header else None
    seen: dict[str, int] = {}
    unsaid = 0
    row = None
    for row in sheet.rows:
        if isinstance(row.fields, str):
            why = row.fields
            yield _refuse(path, row.line, "", why)
        elif any(field.strip() for field in row.fields):  # a spreadsheet's empty line is separators
            read = _row(path, row.line, named, [field.strip() for field in row.fields], meanings, roots)
            if isinstance(read, NewPhoto) and (before := seen.setdefault(str(read.photo.path), row.line)) != row.line:
                read = _refuse(path, row.line, read.ref, f"it is the photo of line {before} again")
            if isinstance(read, NewPhoto) and source is not None:
                unsaid += read.lat is not None and not row.fields[source].strip()
            yield read
    if row is None:
        yield Note(f"{path} has a header and no row below it")
    if unsaid:
        yield Note(f"{path}: rows with coordinates and no coordinate_source: {unsaid}; they count as {provenance}")


def read_manifest(path: Path) -> Iterator[NewPhoto]:
    """As `manifest_rows`, for who needs all of them: raises ValueError with the sentence of the first refusal."""
    for row in manifest_rows(path):
        if isinstance(row, Refused):
            raise ValueError(row.message)
        if isinstance(row, NewPhoto):
            yield row


# ---------------------------------------------------------------------------------------------- below


def _of(
    path: Path,
    lat: float | None,
    lon: float | None,
    provenance: Provenance,
    *,
    everything: bool,
    roots: Sequence[Path],
) -> Iterator[NewPhoto | Refused | LeftOut | NotRead | LinkedFolder | Note]:
    if path.is_dir():
        for found in photo_files(path, everything=everything):
            if isinstance(found, Path):
                # A name that is not UTF-8 cannot travel as JSON; it must not keep its neighbours back.
                yield from read_items(NewPhoto, [NewPhoto(ref=str(found), photo=Photo(path=led_to(found, roots)))])
                continue
            yield found
            if isinstance(found, NotRead) and found.path.suffix.lower() in MANIFESTS and found.path.stem == "manifest":
                command = f"sightline add {shlex.quote(str(found.path))}"
                yield Note(f"{found.path} lies there and was not read. To take coordinates from it: {command}")
    elif path.suffix.lower() in NO_MANIFESTS:
        columns = ", ".join(COLUMNS)
        why = f"a table is read as text alone: save it as CSV in UTF-8, with {columns}"
        yield Refused(str(path), Code.NOT_AN_IMAGE, why)
    else:
        provenance_given = None if lat is None else provenance
        yield NewPhoto(str(path), Photo(path=led_to(path, roots)), lat, lon, provenance_given)


def _is_a_programs(name: str) -> bool:
    """Whether a file or folder of this name is a program's. Hidden are AppleDouble's `._IMG_1.jpg`, too."""
    lower = name.lower()
    return name.startswith(".") or lower in PROGRAM_FOLDERS | PROGRAM_FILES or lower.endswith(PROGRAM_SUFFIXES)


def _column(name: str) -> str | None:
    """Which of `COLUMNS` a column of this name is."""
    plain = re.sub(r"[\s_-]+", "_", name.strip().lower())
    return next((column for column, names in NAMES.items() if plain in names), None)


def _row(
    path: Path,
    line: int,
    named: Sequence[tuple[str, str | None]],
    fields: Sequence[str],
    meanings: Mapping[str, Provenance],
    roots: Sequence[Path],
) -> NewPhoto | Refused:
    """named: the header's columns, each with the one of `COLUMNS` that it is. meanings: of what may stand under
    coordinate_source."""
    names = [name for name, _ in named]
    row = {column: field for (_, column), field in zip(named, fields, strict=False)}
    file, lat, lon, source = (row.get(name, "") for name in ("file", "lat", "lon", "coordinate_source"))
    if lacking := ", ".join(filter(None, names[len(fields) :])):
        return _refuse(path, line, file, f"the row ends before {lacking}")
    if any(fields[len(names) :]):
        return _refuse(
            path,
            line,
            file,
            f"the row has {len(fields)} fields, the header {len(names)}. Numbers with a decimal comma want a semicolon "
            "between the columns, or quotes",
        )
    if not file:
        return _refuse(path, line, file, "it names no file")
    if lat and not lon:
        return _refuse(path, line, file, "a latitude without a longitude", Code.BAD_COORDINATES)
    if lon and not lat:
        return _refuse(path, line, file, "a longitude without a latitude", Code.BAD_COORDINATES)
    if lat and source.lower() not in meanings:
        known = ", ".join(filter(None, meanings))
        return _refuse(path, line, file, f"coordinate_source {quoted(source)} is none of {known}")
    place = degrees(lat, "N", "S"), degrees(lon, "E", "W")
    if lat and None in place:
        why = f"{quoted(lat)}, {quoted(lon)} is no place in decimal degrees"
        return _refuse(path, line, file, why, Code.BAD_COORDINATES)
    (read,) = read_items(
        NewPhoto,
        [
            NewPhoto(
                ref=file,
                photo=Photo(path=led_to(path.parent / _at_home(file), roots)),
                lat=place[0],
                lon=place[1],
                provenance=meanings[source.lower()] if lat else None,
                metadata={"place": row["place"]} if row.get("place") else None,
            )
        ],
    )
    return read if isinstance(read, NewPhoto) else _refuse(path, line, file, read.message, read.code)


def _at_home(file: str) -> Path:
    try:
        return Path(file).expanduser()
    except RuntimeError:  # nobody has that name
        return Path(file)


def _refuse(path: Path, line: int, file: str, why: str, code: Code = Code.BAD_REQUEST) -> Refused:
    return Refused(file or f"{path}:{line}", code, f"{path}, line {line}: {why}")
