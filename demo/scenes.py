"""Sample photos: streets that exist nowhere, drawn by us, with a true camera position in each photo's EXIF.

A place is a row of textured facades, roofs, trees and lamps in metres; a viewpoint is a pinhole camera in
front of it. Must never know the service, the network or anybody's real photos.

The rest, bottom up: canvas.py paints in metres, places.py says what each street is like, camera.py takes the picture,
houses.py, street.py and storeys.py are what stands in front of it.
"""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image

from demo.camera import Camera, develop, sky
from demo.places import LIGHTS, PLACES, Name, rng_of, style_of
from demo.street import draw_wires, street

#: Called after each written photo with (photos done, photos in all).
Progress = Callable[[int, int], None]

#: Pictures are warped this many times larger, then reduced, against jagged facade edges.
OVERSAMPLE = 1.25
EYE_M = 1.65
#: Camera spread along the street: neighbours are about 5 m apart and share most of what they see.
SPREAD_M = 34.0
METRES_PER_DEGREE = 111_320.0
JPEG_QUALITY = 88


@dataclass(frozen=True)
class Viewpoint:
    """Where one photo is taken.

    lat, lon: degrees, WGS 84, as the EXIF tells them. along_m: metres right of the place's origin.
    back_m: metres from the facades. yaw_deg: degrees turned right of straight on. eye_m: metres above the ground.
    """

    place: str
    number: int
    lat: float
    lon: float
    light: str
    along_m: float
    back_m: float
    yaw_deg: float
    eye_m: float = EYE_M


@dataclass(frozen=True)
class ScenePhoto:
    """One written photo and where it was taken."""

    path: Path
    viewpoint: Viewpoint


def place_names() -> list[str]:
    """Every place that can be drawn, in the order in which `viewpoints` takes them."""
    return list(PLACES)


def viewpoints(*, places: int = 6, views: int = 8) -> list[Viewpoint]:
    """The cameras of the first `places` places, `views` each, numbered from 1 along the street.

    Raises ValueError if there are not that many places, or fewer than one of either is asked for.
    """
    if not 1 <= places <= len(PLACES) or views < 1:
        raise ValueError(f"{places} places of {views} views asked for; there are 1 to {len(PLACES)} places")
    return [_viewpoint(name, number, views) for name in place_names()[:places] for number in range(1, views + 1)]


def render(viewpoint: Viewpoint, *, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """Draw what the camera sees. size: width, height in pixels. Returns RGB, always the same."""
    eye = (viewpoint.along_m, -viewpoint.back_m, viewpoint.eye_m)
    camera = Camera.at(eye, viewpoint.yaw_deg, (round(size[0] * OVERSAMPLE), round(size[1] * OVERSAMPLE)))
    picture = sky(camera.size, viewpoint.light).copy()
    for quad in street(viewpoint.place):
        camera.paint(picture, quad, LIGHTS[viewpoint.light])
    if style_of(viewpoint.place).road_kind == "tram" and not Name.of(viewpoint.place).storey:
        draw_wires(picture, camera)
    return develop(picture.resize(size, Image.Resampling.BOX), rng_of(viewpoint.place, 900 + viewpoint.number))


def whereabouts(place: str, along_m: float, back_m: float) -> tuple[float, float]:
    """Latitude and longitude in degrees, to 0.1 m, of who stands there in the place."""
    style = style_of(place)
    bearing = math.radians(style.bearing_deg)  # which way the camera looks when it faces the facades
    north = -math.sin(bearing) * along_m - math.cos(bearing) * back_m
    east = math.cos(bearing) * along_m - math.sin(bearing) * back_m
    lat = style.lat + north / METRES_PER_DEGREE
    lon = style.lon + east / (METRES_PER_DEGREE * math.cos(math.radians(style.lat)))
    return round(lat, 6), round(lon, 6)


def write_scenes(
    folder: Path,
    *,
    places: int = 6,
    views: int = 8,
    size: tuple[int, int] = (640, 480),
    progress: Progress | None = None,
) -> list[ScenePhoto]:
    """Write <folder>/<place>/<nn>.jpg for each viewpoint, GPS in the EXIF, and <folder>/manifest.csv.

    size: width, height in pixels. The same bytes on every run. Existing files of those names are replaced.
    """
    wanted = viewpoints(places=places, views=views)
    photos = [ScenePhoto(folder / view.place / f"{view.number:02d}.jpg", view) for view in wanted]
    for done, photo in enumerate(photos, start=1):
        photo.path.parent.mkdir(parents=True, exist_ok=True)
        image = render(photo.viewpoint, size=size)
        image.save(photo.path, "JPEG", quality=JPEG_QUALITY, exif=_exif(photo.viewpoint))
        if progress is not None:
            progress(done, len(photos))
    _write_manifest(folder, photos)
    return photos


def _viewpoint(place: str, number: int, views: int) -> Viewpoint:
    rng = rng_of(place, number)
    share = (number - 1) / (views - 1) if views > 1 else 0.5
    along = (share - 0.5) * (SPREAD_M - 2.0) + rng.uniform(-1.0, 1.0)
    # A walk that crosses the street: who stands nearer along it also sees houses of nearly the same size.
    back = 21.0 + (share - 0.5) * (-6.0 if place_names().index(place) % 2 else 6.0) + rng.uniform(-0.8, 0.8)
    # Turned a little towards the middle of the street, as people do who photograph a sight.
    yaw = -0.15 * along + rng.uniform(-4.0, 4.0)
    lat, lon = whereabouts(place, along, back)
    light = list(LIGHTS)[(number * 2 + place_names().index(place)) % len(LIGHTS)]
    return Viewpoint(place, number, lat, lon, light, along, back, yaw)


def _exif(view: Viewpoint) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Sightline"
    exif[ExifTags.Base.Model] = "renderer"
    exif[ExifTags.Base.Orientation] = 1
    exif[ExifTags.Base.DateTime] = f"2024:06:{view.number % 28 + 1:02d} {LIGHTS[view.light].hour}"
    exif[ExifTags.IFD.GPSInfo] = {
        ExifTags.GPS.GPSLatitudeRef: "N" if view.lat >= 0 else "S",
        ExifTags.GPS.GPSLatitude: _degrees_minutes_seconds(view.lat),
        ExifTags.GPS.GPSLongitudeRef: "E" if view.lon >= 0 else "W",
        ExifTags.GPS.GPSLongitude: _degrees_minutes_seconds(view.lon),
        ExifTags.GPS.GPSMapDatum: "WGS-84",
    }
    return exif


def _degrees_minutes_seconds(degrees: float) -> tuple[float, float, float]:
    """Whole degrees, whole minutes, and seconds to 0.0001 (3 mm); carried over, so that no part reads 60."""
    minutes, ticks = divmod(round(abs(degrees) * 3600 * 10_000), 60 * 10_000)
    return float(minutes // 60), float(minutes % 60), ticks / 10_000


def _write_manifest(folder: Path, photos: list[ScenePhoto]) -> None:
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file", "place", "lat", "lon", "coordinate_source"])
        for photo in photos:
            view, name = photo.viewpoint, photo.path.relative_to(folder).as_posix()
            rows.writerow([name, view.place, f"{view.lat:.6f}", f"{view.lon:.6f}", "exif"])
