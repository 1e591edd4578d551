"""An honest look at photos that were there before: what is odd about the rows of a table or of an old pickle.

Nothing here changes anything. It knows neither SQL nor files: who asks says what is there and what opens a photo.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from producer_client.contract import Provenance, Refused
from producer_client.positions import at_default_point
from worker.core.geo import distance_m
from worker.core.ports import Rows
from worker.core.vectors import Vector
from worker.errors import WorkerError
from worker.points import COMPARED, MANY, SharedPoint, compare
from worker.prefixes import Prefixes

#: Metres beyond which two positions of one file contradict each other.
CONFLICT_M = 200.0
#: Rows of the backend's table that are read at once.
PAGE = 5_000


@dataclass(frozen=True, slots=True)
class LegacyPhoto:
    """One entry of the pickle, `number` its position there, the only name that is surely its own; or one row of the
    table, `number` its id.
    """

    number: int
    path: str
    lat: float | None
    lon: float | None
    provenance: Provenance
    metadata: dict[str, Any]
    vector: Vector | None = None
    written: str = ""  #: as the pickle names it, where `path` is what that means here


@dataclass(frozen=True, slots=True)
class PrefixUse:
    """What a prefix of paths from another machine holds for."""

    old: str
    new: str
    photos: int
    with_file: int


@dataclass(slots=True)
class Report:
    """What is odd about some photos. Lists hold the numbers (or ids) of photos."""

    photos: int = 0
    with_coordinates: int = 0
    beside: int = 0  #: others whose coordinates are known in Sightline's own tables
    missing: list[int] = field(default_factory=list)
    without_path: list[int] = field(default_factory=list)  #: they name no file at all
    duplicates: list[list[int]] = field(default_factory=list)  #: groups of one file
    conflicts: list[list[int]] = field(default_factory=list)  #: groups of one file and points too far apart
    points: list[SharedPoint] = field(default_factory=list)  #: of many photos each, the one of most first
    bad_coordinates: list[int] = field(default_factory=list)
    trusted: int = 0
    with_file: int = 0  #: of those with coordinates
    unreadable: list[Refused] = field(default_factory=list)  #: only where files are opened, see `unreadable`
    prefixes: list[PrefixUse] = field(default_factory=list)  #: in the order in which they are given

    def at_points(self, *, default: bool) -> set[int]:
        """Photos at points that many share: at those that all facts call a default, or at all others."""
        return {number for point in self.points if point.is_default is default for number in point.numbers}

    def trust(self, photos: Sequence[LegacyPhoto], counted: Mapping[int, Provenance]) -> None:
        """Count as trusted what will be, where that is not what the photos say of themselves."""
        self.trusted = sum(
            counted[photo.number].trusted and not at_default_point(photo.lat, photo.lon)
            for photo in photos
            if photo.number in counted and photo.lat is not None and photo.lon is not None
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"unreadable": [refused.to_wire() for refused in self.unreadable]}


def rows_of_table(rows: Rows, progress: Callable[[int, int], None], total: int) -> list[LegacyPhoto]:
    """The backend's table as it is, numbered by its ids. It is held in memory: some hundred bytes a row."""
    photos: list[LegacyPhoto] = []
    after_id = -(2**63)
    while page := rows.after(after_id, PAGE):
        after_id = page[-1].photo_id
        photos += [LegacyPhoto(r.photo_id, r.path or "", r.lat, r.lon, r.provenance, {}) for r in page]
        progress(len(photos), total)
    return photos


def examine(
    photos: Sequence[LegacyPhoto], is_there: Callable[[str], bool], file_of: Callable[[str], str] = str
) -> Report:
    """Duplicates, contradictions, default points and missing files among some photos.

    file_of: one name for all spellings of a file's path.
    """
    report = Report(photos=len(photos))
    paths = {photo.path for photo in photos if photo.path}
    there = {"": False} | {path: is_there(path) for path in paths}
    files = {path: file_of(path) for path in paths}
    by_file: dict[str, list[LegacyPhoto]] = defaultdict(list)
    by_point: dict[tuple[float, float], list[LegacyPhoto]] = defaultdict(list)
    for photo in photos:
        if not photo.path:
            report.without_path.append(photo.number)
        else:
            by_file[files[photo.path]].append(photo)
            if not there[photo.path]:
                report.missing.append(photo.number)
        if photo.lat is None or photo.lon is None:
            continue
        if not (-90 <= photo.lat <= 90 and -180 <= photo.lon <= 180):
            report.bad_coordinates.append(photo.number)
            continue
        report.with_coordinates += 1
        report.with_file += there[photo.path]
        report.trusted += photo.provenance.trusted and not at_default_point(photo.lat, photo.lon)
        by_point[photo.lat, photo.lon].append(photo)
    for group in by_file.values():
        if len(group) > 1:
            report.duplicates.append([photo.number for photo in group])
            if _apart_m(group) > CONFLICT_M:
                report.conflicts.append([photo.number for photo in group])
    for (lat, lon), group in sorted(by_point.items(), key=lambda item: -len(item[1])):
        # Exactly 0, 0 is no question.
        if len({files.get(photo.path) for photo in group}) >= MANY and not at_default_point(lat, lon):
            trusted = sum(photo.provenance.trusted for photo in group)
            report.points.append(SharedPoint(lat, lon, [photo.number for photo in group], trusted=trusted))
    return report


def compare_points(
    report: Report,
    photos: Sequence[LegacyPhoto],
    *,
    changed_at: Callable[[str], float | None],
    vectors: Callable[[Sequence[int]], Mapping[int, Vector]],
) -> None:
    """What speaks for a place or for a default at the points that most photos share, into the report.

    changed_at: the time of a file, seconds. vectors: of photos by their numbers, as far as they are known.
    """
    bad = set(report.bad_coordinates)
    placed = [photo for photo in photos if photo.lat is not None and photo.lon is not None and photo.number not in bad]
    paths = {photo.number: photo.path for photo in placed}
    for i, point in enumerate(report.points[:COMPARED]):
        report.points[i] = compare(
            placed,
            point.numbers,
            trusted=point.trusted,
            changed_at=lambda number: changed_at(paths[number]),
            vectors=vectors,
        )


def uses(pairs: Mapping[str, str], photos: Sequence[LegacyPhoto], missing: Collection[int]) -> list[PrefixUse]:
    """Of each `old: new` pair the photos that it holds for. missing: numbers of those without a file."""
    prefixes = Prefixes(pairs)
    without = set(missing)
    found = Counter[str]()
    there = Counter[str]()
    for photo in photos:
        if (old := prefixes.of(photo.written or photo.path)) is not None:
            found[old] += 1
            there[old] += photo.number not in without
    return [PrefixUse(old, new, found[old], there[old]) for old, new in pairs.items()]


def unreadable(
    photos: Sequence[LegacyPhoto],
    missing: Collection[int],
    read: Callable[[str], object],
    progress: Callable[[int, int], None],
    *,
    threads: int,
) -> list[Refused]:
    """Photos with coordinates that `read` refuses, as a worker would. URLs are not fetched; `missing` is known."""
    absent = set(missing)
    todo = [p for p in photos if p.lat is not None and p.path and p.number not in absent and "://" not in p.path]

    def look(photo: LegacyPhoto) -> Refused | None:
        try:
            read(photo.path)
        except WorkerError as exc:
            return Refused(f"photo {photo.number}", exc.code, exc.message)
        return None

    refused: list[Refused] = []
    with ThreadPoolExecutor(threads) as pool:
        for done, outcome in enumerate(pool.map(look, todo), 1):
            refused += [outcome] if outcome is not None else []
            progress(done, len(todo))
    return refused


def _apart_m(photos: Sequence[LegacyPhoto]) -> float:
    points = list({(p.lat, p.lon) for p in photos if p.lat is not None and p.lon is not None})
    return max(
        (distance_m(*a, *b) for i, a in enumerate(points) for b in points[i + 1 :]),
        default=0.0,
    )
