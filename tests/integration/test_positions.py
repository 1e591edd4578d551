"""Where stored photos are said to be, and what of it is evidence: every way in, through the library and the command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PIL import Image
from sqlalchemy import text

from producer_client.contract import (
    EmbedItem,
    Locate,
    NewPhoto,
    Photo,
    PositionFrom,
    PositionIssue,
    Provenance,
    Reason,
    Refused,
    Search,
    Stored,
)
from tests.conftest import Scene
from tests.exif import Tag, exif, position
from tests.integration.test_cli import sightline
from tests.integration.test_library import held_back, new, of_place, stored
from tests.unit.test_positions import CASES, HERE, TABLE, at
from worker.library import Library
from worker.settings import Settings
from worker.stack import Stack
from worker.storage.source import PhotoFiles
from worker.storage.store import PostgresStore

T = TypeVar("T")
ISSUE = PositionIssue
TAKEOUT = json.dumps({"title": "a.jpg", "geoData": {"latitude": HERE[0], "longitude": HERE[1]}})


def copied(scene: Scene, to: Path, tags: list[Tag] | None = None) -> Path:
    """The scene's photo without its position, or with these tags."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(scene.path) as image:
        image.save(to, "JPEG", quality=90, exif=exif(None, tags) if tags is not None else b"")
    return to


def add(library: Library, path: Path, **given: Any) -> Stored:
    (outcome,) = stored(library, [NewPhoto(str(path), Photo(path=str(path)), **given)])
    return outcome


def located(library: Library, query: Scene) -> Any:
    return library.questions.locate(Locate(photo=Photo(path=str(query.path)))).answer


@pytest.fixture
def folder(photo_root: Path, tmp_path: Path) -> Path:
    """A folder of this test below the workers' root."""
    return photo_root / "positions" / tmp_path.name


# ------------------------------------------------------------------------------------------------ no evidence


def test_zero_zero_is_never_evidence_whichever_way_it_came(
    make_library: Callable[..., Library], store: PostgresStore, settings: Settings, scenes: list[Scene]
) -> None:
    query, known = held_back(scenes)
    library = make_library(store=store)
    with store.database.engine.begin() as connection:
        insert = f"INSERT INTO {settings.photos_table} (file_path, lat, lon, location_method) VALUES (:p, 0, 0, :m)"
        for scene, method in zip(known[:2], ("exif", "manual"), strict=True):
            connection.execute(text(insert), {"p": str(scene.path), "m": method})
    by_row = stored(library, [NewPhoto(f"row {i}", Photo(photo_id=i)) for i in (1, 2)])
    by_call = stored(library, [new(scene, lat=0.0, lon=0.0) for scene in known[2:4]])
    stored(library, [new(known[4], lat=0.0, lon=0.0, provenance=Provenance.CONFIRMED)])
    library.rebuilding.rebuild()

    answer = located(library, query)
    hits = library.questions.search(Search(photo=Photo(path=str(query.path)), threshold=-1.0)).hits

    assert answer.reason is Reason.NO_TRUSTED_EVIDENCE
    assert {(hit.lat, hit.lon, hit.provenance) for hit in hits} == {(0.0, 0.0, Provenance.FALLBACK)}
    assert len(hits) == 5, "stored and searched all the same"
    said = {(o.lat, o.lon, o.provenance, o.position_issue) for o in by_row + by_call}
    assert said == {(0.0, 0.0, Provenance.FALLBACK, ISSUE.DEFAULT_POINT)}
    assert [o.position_from for o in by_row + by_call] == [PositionFrom.ROW] * 2 + [PositionFrom.GIVEN] * 2
    with store.database.engine.connect() as connection:
        methods = connection.execute(text(f"SELECT location_method FROM {settings.photos_table} ORDER BY id")).scalars()
        assert list(methods) == ["exif", "manual", "surveyed", "surveyed", "confirmed"], "the row is the backend's"


#: What is said of one photo, one after the other; and who has said the position that holds in the end.
FROM = PositionFrom
SAID: dict[str, tuple[str, list[str], PositionFrom | None]] = {
    "nobody": ("", ["plain"], None),
    "the file": ("exif", ["plain", "plain"], FROM.EXIF),
    "a sidecar": ("sidecar", ["plain", "rebuild", "plain"], FROM.XMP_SIDECAR),
    "the file, a caller less": ("exif", ["plain", "derived"], FROM.EXIF),
    "a sidecar, a caller less": ("sidecar", ["plain", "derived", "rebuild"], FROM.XMP_SIDECAR),
    "a caller": ("exif", ["surveyed", "plain"], FROM.GIVEN),
    "a caller of a photo that says nothing": ("", ["surveyed", "rebuild", "plain"], FROM.GIVEN),
    "a caller, then another less": ("", ["surveyed", "derived", "plain"], FROM.GIVEN),
    "the row": ("", ["row", "plain", "plain"], FROM.ROW),
    "the row, by a rebuild": ("", ["row", "rebuild"], FROM.ROW),
    "the row, the file no more than that": ("exif", ["row", "plain"], FROM.ROW),
    "a caller beside the row": ("", ["row", "surveyed", "plain", "rebuild"], FROM.GIVEN),
    "a caller beside the row that is emptied": ("", ["row", "surveyed", "no row", "rebuild", "plain"], FROM.GIVEN),
    "a caller who writes the row": ("", ["row", "written", "plain", "rebuild"], FROM.GIVEN),
    "the row that has changed since": ("", ["row", "surveyed", "other row", "plain"], FROM.ROW),
    "the row that has changed since, by a rebuild": ("", ["row", "surveyed", "other row", "rebuild"], FROM.ROW),
    "the row that takes over a caller's word": ("", ["row", "surveyed", "same row", "plain"], FROM.ROW),
    "the row that was made of a caller's word": ("", ["surveyed", "other row", "rebuild", "plain"], FROM.ROW),
    "the row that was made of the file": ("exif", ["plain", "other row", "rebuild"], FROM.ROW),
    "a caller, until it is emptied": ("", ["surveyed", "no row", "rebuild"], None),
    "nobody after a purge": ("", ["surveyed", "no row", "purge", "plain"], None),
}


@pytest.mark.parametrize("case", SAID)
def test_who_has_said_a_position_is_told_by_the_reply_and_by_what_is_found(
    case: str, library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene], folder: Path
) -> None:
    file, steps, origin = SAID[case]
    path = copied(scenes[0], folder / "a.jpg", at_place(scenes[0]) if file == "exif" else None)
    if file == "sidecar":
        (folder / "a.xmp").write_bytes(at("56,9.072N"))
    row = {"p": str(path)}
    into = f"INSERT INTO {settings.photos_table} (file_path, lat, lon, location_method)"
    statements = {
        "row": f"{into} VALUES (:p, 3, 4, 'manual')",
        "other row": f"UPDATE {settings.photos_table} SET lat = 5, lon = 6, location_method = 'manual'",
        "same row": f"UPDATE {settings.photos_table} SET lat = 1, lon = 2, location_method = 'surveyed'",
        "no row": f"UPDATE {settings.photos_table} SET lat = NULL, lon = NULL",
    }
    given = {"lat": 1.0, "lon": 2.0, "provenance": Provenance.SURVEYED}
    last: Stored | None = None
    for step in steps:
        match step:
            case "plain":
                last = add(library, path)
            case "surveyed":
                last = add(library, path, **given)
            case "written":
                last = add(library, path, **given, update_row=True)
            case "derived":
                last = add(library, path, **(given | {"lat": 7.0, "provenance": Provenance.DERIVED}))
            case "rebuild":
                library.rebuilding.rebuild()
            case "purge":
                library.photos.purge_many([1])
            case _:
                with store.database.engine.begin() as connection:
                    connection.execute(text(statements[step]), row)

    (hit,) = library.questions.search(Search(photo=Photo(path=str(scenes[1].path)), threshold=-1.0)).hits

    assert hit.position_from == origin
    assert (hit.lat is None) == (origin is None)
    if steps[-1] not in ("rebuild", "no row"):
        assert last is not None
        assert last.position_from == origin


def test_who_has_said_it_stands_beside_the_evidence(library: Library, scenes: list[Scene]) -> None:
    query, known = held_back(scenes)
    stored(library, [new(scene) for scene in known])
    stored(library, [NewPhoto("again", Photo(path=str(known[0].path)))])

    evidence = located(library, query).evidence

    assert evidence
    assert {hit.position_from for hit in evidence} == {FROM.GIVEN}


def error(metres: int) -> Tag:
    return Tag(31, 5, ((metres, 1),))


def at_place(scene: Scene, *more: Tag) -> list[Tag]:
    def parts(degrees: float) -> tuple[tuple[int, int], ...]:
        return ((round(abs(degrees) * 1_000_000), 1_000_000), (0, 1), (0, 1))

    letters = "S" if scene.lat < 0 else "N", "W" if scene.lon < 0 else "E"
    at_lat, at_lon = Tag(2, 5, parts(scene.lat)), Tag(4, 5, parts(scene.lon))
    return [Tag(1, 2, (letters[0],)), at_lat, Tag(3, 2, (letters[1],)), at_lon, *more]


@pytest.mark.parametrize("way", ["file", "call", "row"])
def test_a_fix_of_65_km_is_shown_with_its_error_and_is_no_witness(
    way: str,
    make_library: Callable[..., Library],
    store: PostgresStore,
    settings: Settings,
    scenes: list[Scene],
    folder: Path,
) -> None:
    query, known = held_back(scenes)
    library = make_library(store=store)
    place = known[0]
    coarse = []
    for number, scene in enumerate(known):
        path = copied(scene, folder / f"{number}.jpg", at_place(place, error(65_000)))
        if way == "row":
            with store.database.engine.begin() as connection:
                insert = f"INSERT INTO {settings.photos_table} (file_path, lat, lon, location_method) "
                values = {"p": str(path), "lat": place.lat, "lon": place.lon}
                connection.execute(text(insert + "VALUES (:p, :lat, :lon, 'exif')"), values)
            coarse += stored(library, [NewPhoto(str(path), Photo(photo_id=number + 1))])
        else:
            said = {"lat": place.lat, "lon": place.lon, "provenance": Provenance.EXIF_GPS}
            coarse.append(add(library, path, **said if way == "call" else {}))
    library.rebuilding.rebuild()

    answer = located(library, query)
    hits = library.questions.search(Search(photo=Photo(path=str(query.path)), threshold=-1.0)).hits

    assert answer.reason is Reason.NO_TRUSTED_EVIDENCE
    assert {(hit.provenance, hit.position_error_m) for hit in hits} == {(Provenance.FALLBACK, 65_000.0)}
    for outcome in coarse:
        assert (outcome.lat, outcome.lon) == pytest.approx((place.lat, place.lon), abs=1e-5)
        assert (outcome.position_issue, outcome.position_error_m) == (ISSUE.TOO_COARSE, 65_000.0)


def test_a_fix_of_120_m_is_heard_and_the_answer_is_no_surer_than_it(
    library: Library, scenes: list[Scene], folder: Path
) -> None:
    query, known = held_back(scenes)
    for number, scene in enumerate(known):
        add(library, copied(scene, folder / f"{number}.jpg", at_place(known[0], error(120))))

    answer = located(library, query)

    assert answer.located
    assert 120 <= answer.radius_m < 125


def test_a_point_that_was_surveyed_has_no_error_of_the_cameras(
    library: Library, scenes: list[Scene], folder: Path
) -> None:
    scene = scenes[0]
    path = copied(scene, folder / "a.jpg", at_place(scene, error(65_000)))

    outcome = add(library, path, lat=scene.lat, lon=scene.lon, provenance=Provenance.SURVEYED)

    assert (outcome.provenance, outcome.position_issue, outcome.position_error_m) == (Provenance.SURVEYED, None, None)
    assert outcome.position_from is PositionFrom.GIVEN


def test_the_error_is_found_although_the_photos_vector_is_known(
    library: Library, scenes: list[Scene], folder: Path
) -> None:
    scene = scenes[0]
    path = copied(scene, folder / "a.jpg", at_place(scene, error(65_000)))
    library.photos.embed_many([EmbedItem("a", Photo(path=str(path)))])

    outcome = add(library, path, lat=scene.lat, lon=scene.lon, provenance=Provenance.EXIF_GPS)

    assert not outcome.embedded
    assert (outcome.position_issue, outcome.position_error_m) == (ISSUE.TOO_COARSE, 65_000.0)


# ------------------------------------------------------------------------------------------------- where from


@pytest.mark.parametrize("name", ["minutes that lost their denominator", "zeros", "status V", "no letter"])
def test_a_photo_without_a_position_says_why(name: str, library: Library, scenes: list[Scene], folder: Path) -> None:
    tags, issue = TABLE[name]

    outcome = add(library, copied(scenes[0], folder / "a.jpg", tags))

    assert (outcome.lat, outcome.lon, outcome.provenance) == (None, None, None)
    assert (outcome.position_from, outcome.position_issue) == (None, issue)


@pytest.mark.parametrize(
    ("names", "origin"),
    [
        ({"a.jpg.xmp": at("56,9.072N").decode()}, PositionFrom.XMP_SIDECAR),
        ({"a.xmp": at("56,9.072N").decode()}, PositionFrom.XMP_SIDECAR),
        ({"a.jpg.json": TAKEOUT}, PositionFrom.TAKEOUT),
        ({"a.jpg.supplemental-metadata.json": TAKEOUT}, PositionFrom.TAKEOUT),
        ({"a.jpg.xmp": "not XML", "a.xmp": at("91,0.0N").decode(), "a.jpg.json": TAKEOUT}, PositionFrom.TAKEOUT),
    ],
)
def test_a_position_beside_a_photo_is_evidence_like_one_in_it(
    names: dict[str, str], origin: PositionFrom, library: Library, scenes: list[Scene], folder: Path
) -> None:
    path = copied(scenes[0], folder / "a.jpg")
    for name, content in names.items():
        (folder / name).write_text(content)

    outcome = add(library, path)
    again = add(library, path)

    assert (outcome.lat, outcome.lon) == pytest.approx(HERE, abs=1e-6)
    assert (outcome.provenance, outcome.position_issue) == (Provenance.EXIF_GPS, None)
    assert outcome.position_from is again.position_from is origin
    assert again.seq > outcome.seq


def test_what_the_file_says_comes_before_what_lies_beside_it(
    library: Library, scenes: list[Scene], folder: Path
) -> None:
    path = copied(scenes[0], folder / "a.jpg", position())
    (folder / "a.xmp").write_bytes(at("56,9.072N"))

    outcome = add(library, path)

    assert outcome.position_from is PositionFrom.EXIF
    assert (outcome.lat, outcome.lon) == pytest.approx((50.0875, 14.425))


def test_a_broken_file_beside_a_photo_is_the_reason_told(library: Library, scenes: list[Scene], folder: Path) -> None:
    path = copied(scenes[0], folder / "a.jpg")
    (folder / "a.xmp").write_text('<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>')

    assert add(library, path).position_issue is ISSUE.UNREADABLE


def test_a_row_of_the_table_has_files_beside_it_too_and_a_photo_that_travels_has_none(
    library: Library, store: PostgresStore, settings: Settings, scenes: list[Scene], folder: Path
) -> None:
    path = copied(scenes[0], folder / "a.jpg")
    (folder / "a.xmp").write_bytes(at("56,9.072N"))
    with store.database.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO {settings.photos_table} (file_path) VALUES (:p)"), {"p": str(path)})

    by_row, inline = stored(
        library, [NewPhoto("row", Photo(photo_id=1)), NewPhoto("inline", Photo.of_bytes(path.read_bytes()))]
    )

    assert by_row.position_from is PositionFrom.XMP_SIDECAR
    assert (inline.position_from, inline.position_issue) == (None, ISSUE.ABSENT)


def test_a_file_beside_a_photo_that_leads_out_of_the_roots_is_not_read(
    library: Library, scenes: list[Scene], folder: Path, tmp_path: Path
) -> None:
    path = copied(scenes[0], folder / "a.jpg")
    (tmp_path / "elsewhere.xmp").write_bytes(at("56,9.072N"))
    (folder / "a.xmp").symlink_to(tmp_path / "elsewhere.xmp")

    assert add(library, path).position_issue is ISSUE.ABSENT


def test_nobody_looks_beside_a_photo_whose_place_is_given_or_that_only_asks(
    make_library: Callable[..., Library], settings: Settings, scenes: list[Scene], folder: Path
) -> None:
    looked: list[str] = []

    class Watched(PhotoFiles):
        def beside(self, path: str, names: Iterable[tuple[T, str]], *, limit: int) -> Iterator[tuple[T, bytes]]:
            looked.append(path)
            return super().beside(path, names, limit=limit)

    library = make_library(source=Watched(settings))
    given, asks, without = (copied(scenes[n], folder / f"{n}.jpg") for n in range(3))

    add(library, given, lat=1.0, lon=2.0, provenance=Provenance.SURVEYED)
    library.questions.search(Search(photo=Photo(path=str(asks))))
    add(library, without)

    assert looked == [str(without)]


# ------------------------------------------------------------------------------------------------ the command


def manifest(folder: Path, rows: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text(rows)
    return path


@pytest.fixture
def two_photos(scenes: list[Scene], folder: Path) -> Sequence[Path]:
    folder.mkdir(parents=True)
    return [Path(shutil.copy(scene.path, folder / f"{n}.jpg")) for n, scene in enumerate(of_place(scenes, 1)[:2])]


HEADER = "file,lat,lon,coordinate_source\n"
GOOD = "0.jpg,56.15,10.2,surveyed\n"


@pytest.mark.parametrize(
    ("rows", "line", "said"),
    [
        (
            "place,lat,lon,coordinate_source,file\nx,56.15,10.2,surveyed,0.jpg\nTotal 1\n",
            3,
            "the row ends before lat, lon, coordinate_source, file",
        ),
        (HEADER + GOOD + "1.jpg,56.15,,surveyed\n", 3, "a latitude without a longitude"),
        (HEADER + "1.jpg,,10.2,surveyed\n" + GOOD, 2, "a longitude without a latitude"),
        (HEADER + "1.jpg,91,10.2,exif\n" + GOOD, 2, "latitude 91"),
        (HEADER + "1.jpg,here,10.2,exif\n" + GOOD, 2, "'here', '10.2' is no place in decimal degrees"),
        (HEADER + "1.jpg,nan,10.2,exif\n" + GOOD, 2, "'nan', '10.2' is no place in decimal degrees"),
        (HEADER + "1.jpg,56,10.2,guessed\n" + GOOD, 2, "'guessed' is none of exif_gps"),
        (HEADER + ",56,10.2,exif\n" + GOOD, 2, "names no file"),
        (HEADER + "1.jpg,56,10.2,exif,more\n" + GOOD, 2, "the row has 5 fields, the header 4"),
        (HEADER + "x" * 200_000 + ",,,\n" + GOOD, 2, "a field has more than 131072 characters"),
        (HEADER + '0.jpg,56.15,10.2,"exif"\n\n,,,,\n1.jpg\n', 5, "the row ends before lat, lon, coordinate_source"),
    ],
    ids=lambda value: value[:24].strip() if isinstance(value, str) else None,
)
def test_a_row_that_says_nothing_sensible_is_named_with_its_line_and_the_others_go_on(
    rows: str, line: int, said: str, stack: Stack, two_photos: Sequence[Path], folder: Path
) -> None:
    path = manifest(folder, rows)

    done = sightline("add", str(path), "--json", settings=stack.settings)

    outcomes = json.loads(done.stdout)["outcomes"]
    (refused,) = (outcome for outcome in outcomes if outcome["status"] == "refused")
    (kept,) = (outcome for outcome in outcomes if outcome["status"] == "stored")
    assert done.returncode == 1
    assert f"{path}, line {line}: " in refused["message"]
    assert said in refused["message"]
    assert refused["code"] in ("bad_request", "bad_coordinates")
    assert kept["ref"] == "0.jpg"
    assert "Traceback" not in done.stderr


def test_a_refused_row_is_in_the_table_of_refusals(stack: Stack, two_photos: Sequence[Path], folder: Path) -> None:
    path = manifest(folder, HEADER + GOOD + "1.jpg,56.15,,surveyed\n")

    done = sightline("add", str(path), settings=stack.settings)

    assert done.returncode == 1
    assert "1 stored, 1 refused" in done.stdout
    assert "line 3: a latitude without a longitude" in " ".join(done.stdout.split())


def test_add_says_which_photos_have_no_position_and_why(
    stack: Stack, scenes: list[Scene], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    misread, zeros = TABLE["minutes that lost their denominator"][0], TABLE["zeros"][0]
    for name, tags in (("a", misread), ("b", misread), ("c", zeros), ("d", at_place(scenes[0], error(65_000)))):
        copied(scenes[0], folder / f"{name}.jpg", tags)
    copied(scenes[0], folder / "e.jpg", at_place(scenes[0]))

    english = sightline("add", str(folder), settings=stack.settings)
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")
    russian = sightline("add", str(folder), settings=stack.settings)

    assert english.returncode == russian.returncode == 0
    assert "without a position: 3 (minutes out of range: 2, exactly 0, 0 in the file: 1)" in english.stdout
    assert "shown, but no evidence: 1 (its error is too large: 1)" in english.stdout
    assert "без координат: 3 (минуты вне пределов: 2, в файле ровно 0, 0: 1)" in russian.stdout
    assert "показываются, но не служат свидетельством: 1 (слишком большая погрешность: 1)" in russian.stdout


def test_a_name_that_cannot_travel_is_refused_and_its_neighbours_come(
    stack: Stack, two_photos: Sequence[Path], folder: Path
) -> None:
    odd = folder / b"\xff.jpg".decode(errors="surrogateescape")
    shutil.copy(two_photos[0], odd)

    done = sightline("add", str(folder), "--json", settings=stack.settings)
    shown = sightline("add", str(folder), settings=stack.settings)

    refused = [outcome for outcome in json.loads(done.stdout)["outcomes"] if outcome["status"] == "refused"]
    assert [outcome["ref"].endswith("\\udcff.jpg") for outcome in refused] == [True]
    assert (done.returncode, shown.returncode) == (1, 1)
    assert "2 stored, 1 refused" in shown.stdout


def test_a_manifest_of_bad_rows_alone_asks_no_worker(tmp_path: Path) -> None:
    path = manifest(tmp_path, HEADER + "1.jpg,56.15,,surveyed\n")
    nowhere = Settings(broker_url="redis://127.0.0.1:1/0", data_dir=tmp_path)

    done = sightline("add", str(path), "--json", settings=nowhere)

    assert done.returncode == 1
    (outcome,) = json.loads(done.stdout)["outcomes"]
    assert Refused.from_wire(outcome).ref == "1.jpg"


def test_the_cases_of_manifests_come_out_as_their_readme_says(
    stack: Stack, two_photos: Sequence[Path], folder: Path
) -> None:
    if not CASES.is_dir():
        pytest.skip("the folder of cases is not beside the project")
    shutil.copy(two_photos[0], folder / "01.jpg")

    said = {}
    for name in ("m5_short_row.csv", "m6_half.csv"):
        path = Path(shutil.copy(CASES / name, folder / name))
        done = sightline("add", str(path), "--json", settings=stack.settings)
        outcomes = json.loads(done.stdout)["outcomes"]
        said[name] = [(o["status"], o.get("message", "").removeprefix(f"{path}, ")) for o in outcomes]
        assert done.returncode == 1

    assert said["m5_short_row.csv"] == [
        ("refused", "line 3: the row ends before lat, lon, coordinate_source, file"),
        ("stored", ""),
    ]
    assert said["m6_half.csv"] == [("refused", "line 2: a latitude without a longitude")]
