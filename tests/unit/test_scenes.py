"""The sample photos: the same on every run, and telling the truth about where they were taken."""

import csv
import hashlib
import math
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from demo import scenes
from demo.places import Name
from demo.street import street

#: Of the pixels of two views of every place. Figures in docs/benchmarks.md are of these drawings.
DRAWN = "e84f8011b1c118c2c4af18d9bdcd6df78a51489545734eefdce1c1f9a57e98d0"
#: Small enough for a few milliseconds each; the three first places reach west of Greenwich and south of the equator.
SIZE = (160, 120)
PLACES, VIEWS = 3, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    scenes.write_scenes(folder, places=PLACES, views=VIEWS, size=SIZE)
    return folder


def manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def metres_between(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Great-circle metres between two (lat, lon); written out here, so as not to test the scenes by themselves."""
    lat_a, lon_a, lat_b, lon_b = map(math.radians, (*a, *b))
    half = math.sin((lat_b - lat_a) / 2) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    return 2 * 6_371_008.8 * math.asin(math.sqrt(half))


def point_in_exif(path: Path) -> tuple[float, float]:
    with Image.open(path) as image:
        gps = image.getexif().get_ifd(ExifTags.IFD.GPSInfo)

    def degrees(parts: ExifTags.GPS, ref: ExifTags.GPS, negative: str) -> float:
        whole, minutes, seconds = (float(part) for part in gps[parts])
        assert minutes < 60
        assert seconds < 60
        return (whole + minutes / 60 + seconds / 3600) * (-1 if gps[ref] == negative else 1)

    return (
        degrees(ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "S"),
        degrees(ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "W"),
    )


def by_place() -> Iterator[list[scenes.Viewpoint]]:
    views = scenes.viewpoints(places=len(scenes.place_names()))
    for name in scenes.place_names():
        yield [view for view in views if view.place == name]


def test_two_runs_write_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    street.cache_clear()  # or the second run would reuse what the first one drew

    scenes.write_scenes(tmp_path, places=1, views=VIEWS, size=SIZE)

    written = sorted(tmp_path.rglob("*.jpg"))
    assert len(written) == VIEWS
    for path in written:
        assert path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes()


def test_the_manifest_lists_every_photo(folder: Path) -> None:
    rows = manifest(folder)

    assert list(rows[0]) == ["file", "place", "lat", "lon", "coordinate_source"]
    assert [row["file"] for row in rows] == sorted(
        (path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")),
        key=lambda name: (scenes.place_names().index(name.split("/")[0]), name),
    )
    assert len(rows) == PLACES * VIEWS
    for row in rows:
        assert row["coordinate_source"] == "exif"
        assert row["file"].startswith(f"{row['place']}/")
        with Image.open(folder / row["file"]) as image:
            assert image.size == SIZE


def test_the_gps_in_each_photo_is_the_point_in_the_manifest(folder: Path) -> None:
    points = {row["file"]: (float(row["lat"]), float(row["lon"])) for row in manifest(folder)}

    assert any(lat < 0 for lat, _ in points.values())
    assert any(lon < 0 for _, lon in points.values())
    for name, point in points.items():
        assert metres_between(point_in_exif(folder / name), point) < 0.5


def test_a_photo_says_which_way_up_it_is_and_what_made_it(folder: Path) -> None:
    with Image.open(folder / "canal-row" / "01.jpg") as image:
        exif = image.getexif()

    assert exif[ExifTags.Base.Orientation] == 1
    assert (exif[ExifTags.Base.Make], exif[ExifTags.Base.Model]) == ("Sightline", "renderer")


def test_the_point_is_where_the_camera_stands() -> None:
    for views in by_place():
        for a, b in combinations(views, 2):
            drawn = math.hypot(a.along_m - b.along_m, a.back_m - b.back_m)
            # 6 decimals are 0.1 m; a ball against metres a degree is 0.2 % of 40 m.
            assert metres_between((a.lat, a.lon), (b.lat, b.lon)) == pytest.approx(drawn, abs=0.3)


def test_the_viewpoints_of_a_place_lie_within_60_m_of_one_another() -> None:
    for views in by_place():
        distances = [metres_between((a.lat, a.lon), (b.lat, b.lon)) for a, b in combinations(views, 2)]

        assert max(distances) < 60
        assert min(distances) > 1


def test_places_lie_more_than_1_km_from_each_other() -> None:
    firsts = [views[0] for views in by_place()]

    assert len(firsts) >= 6
    for a, b in combinations(firsts, 2):
        assert metres_between((a.lat, a.lon), (b.lat, b.lon)) > 1000


def test_the_lights_change_within_every_place() -> None:
    for views in by_place():
        assert len({view.light for view in views}) == 5


def test_progress_is_told_after_each_photo(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    scenes.write_scenes(tmp_path, places=1, views=2, size=SIZE, progress=lambda done, of: told.append((done, of)))

    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize(("places", "views"), [(0, 8), (99, 8), (6, 0)])
def test_a_set_that_cannot_be_drawn_is_refused(places: int, views: int) -> None:
    with pytest.raises(ValueError, match="asked for"):
        scenes.viewpoints(places=places, views=views)


def test_the_drawings_are_what_they_were() -> None:
    pixels = hashlib.sha256()

    for view in scenes.viewpoints(places=len(scenes.place_names()), views=2):
        pixels.update(scenes.render(view, size=SIZE).tobytes())

    assert pixels.hexdigest() == DRAWN


def test_addresses_and_storeys_are_places_of_their_own() -> None:
    names = ["glass-quarter", "glass-quarter~1", "glass-quarter~2", "glass-quarter^1", "glass-quarter^2"]
    points = [scenes.whereabouts(name, 3.0, 7.0) for name in names]
    seen = {scenes.render(scenes.Viewpoint(name, 1, 0, 0, "noon", 3.0, 7.0, 0), size=SIZE).tobytes() for name in names}

    assert len(seen) == len(names)
    for a, b in combinations(points, 2):
        assert metres_between(a, b) > 200


def test_storeys_differ_in_their_number_and_notices_alone() -> None:
    first, second = (street(f"timber-market^{storey}") for storey in (3, 4))

    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert (a.corner, a.right, a.down, a.side) == (b.corner, b.right, b.down, b.side)
    *shared, wall = [a.sprite.paint.tobytes() == b.sprite.paint.tobytes() for a, b in zip(first, second, strict=True)]
    assert shared
    assert all(shared)
    assert not wall


@pytest.mark.parametrize("name", ["nowhere", "canal-row~0", "canal-row^", "canal-row~", "canal-row^1~2", ""])
def test_a_place_that_cannot_be_drawn_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no place is called"):
        Name.of(name)
