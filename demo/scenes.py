"""Sample photos: streets that exist nowhere, drawn by us, with a true camera position in each photo's EXIF.

A place is a row of textured facades, roofs, trees and lamps in metres; a viewpoint is a pinhole camera in
front of it. Knows numpy and Pillow; must never know the service, the network or anybody's real photos.
"""

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Floats = NDArray[np.floating]
#: Called after each written photo with (photos done, photos in all).
Progress = Callable[[int, int], None]

#: Texture pixels a metre. At 20 m a 640 px photo shows 25 px a metre: neither blurred nor wasted.
PX = 24
#: Textures are drawn this many times larger, then reduced: ImageDraw has no smooth edges of its own.
FINE = 2
#: Pictures are warped this many times larger, then reduced, against jagged facade edges.
OVERSAMPLE = 1.25
#: Ground pixels a metre: it is seen at a grazing angle, where finer detail would only flicker.
GROUND_PX = 12
#: Half the street: at the outermost viewpoint the picture still ends on a house.
HALF_STREET_M = 37.0
HOUSE_DEPTH_M = 11.0
ROAD_EDGE_M = -5.0
GROUND_NEAR_M, GROUND_FAR_M = -30.0, 34.0
EYE_M = 1.65
#: 66 degrees across, like a phone's main camera (26 mm equivalent).
FIELD_OF_VIEW = math.radians(66)
#: The horizon lies this far down the picture (a shifted lens): walls stay upright and roofs in view.
HORIZON = 0.66
#: Hills start this far below the ground, so that no sky shows between them and where the ground sheet ends.
HILL_FOOT_M = 4.0
#: Camera spread along the street: neighbours are about 5 m apart and share most of what they see.
SPREAD_M = 34.0
METRES_PER_DEGREE = 111_320.0
JPEG_QUALITY = 88


@dataclass(frozen=True)
class Viewpoint:
    """Where one photo is taken.

    lat, lon: degrees, WGS 84, as the EXIF tells them. along_m: metres right of the place's origin.
    back_m: metres from the facades. yaw_deg: degrees turned right of straight on.
    """

    place: str
    number: int
    lat: float
    lon: float
    light: str
    along_m: float
    back_m: float
    yaw_deg: float


@dataclass(frozen=True)
class ScenePhoto:
    """One written photo and where it was taken."""

    path: Path
    viewpoint: Viewpoint


@dataclass(frozen=True)
class _Light:
    """Colour of the sky and of what it shines on. Tints are factors on the painted colour."""

    sky_top: Colour
    sky_low: Colour
    front: tuple[float, float, float]
    side: tuple[float, float, float]
    clouds: float
    lamps: float
    hour: str


_LIGHTS = {
    "noon": _Light((74, 132, 205), (186, 212, 232), (1.04, 1.02, 0.98), (0.66, 0.68, 0.74), 0.55, 0.0, "12:10:00"),
    "morning": _Light((98, 150, 206), (232, 222, 204), (1.03, 0.97, 0.88), (0.58, 0.61, 0.70), 0.35, 0.0, "08:20:00"),
    "overcast": _Light((168, 176, 184), (206, 210, 212), (0.86, 0.88, 0.90), (0.72, 0.74, 0.77), 0.9, 0.05, "15:30:00"),
    "evening": _Light((92, 124, 176), (246, 206, 158), (1.06, 0.93, 0.78), (0.56, 0.53, 0.60), 0.5, 0.2, "19:40:00"),
    "dusk": _Light((62, 82, 130), (190, 158, 160), (0.70, 0.68, 0.78), (0.48, 0.48, 0.60), 0.6, 0.65, "21:15:00"),
}
_LAMP_GLOW = (255, 205, 125, 255)


@dataclass(frozen=True)
class _Style:
    """What makes a street itself. Lengths in metres; every choice here is visible from across the road."""

    lat: float
    lon: float
    bearing_deg: float
    walls: tuple[Colour, ...]
    texture: str
    width_m: tuple[float, float]
    storeys: tuple[int, int]
    storey_m: float
    bay_m: float
    window_m: tuple[float, float]
    trim: Colour
    glass: Colour
    roof: str
    roof_colour: Colour
    base: str
    accents: tuple[Colour, ...]
    pavement: Colour
    road: Colour
    road_kind: str
    hills: Colour
    hill_m: float
    arched: bool = False
    shutters: bool = False
    balconies: bool = False
    timber: bool = False
    trees: str = ""
    leaf: Colour = (70, 110, 50)
    landmark: str = ""
    wires: bool = False


_PLACES = {
    "canal-row": _Style(
        56.151200, 10.204300, 70.0,
        ((214, 160, 52), (168, 58, 46), (62, 104, 150), (226, 212, 184), (196, 106, 74), (72, 122, 104)),
        "plaster", (6.0, 7.6), (2, 3), 2.8, 1.95, (1.05, 1.6), (244, 242, 236), (58, 70, 84),
        "stepped", (128, 62, 44), "doors", ((40, 66, 60), (120, 34, 34), (36, 48, 80)),
        (150, 142, 134), (52, 84, 92), "water", (96, 112, 110), 9.0,
    ),
    "brick-mills": _Style(
        53.482600, -2.236900, 155.0,
        ((144, 72, 54), (122, 58, 48), (158, 88, 62)),
        "brick", (11.0, 15.0), (2, 3), 3.4, 2.7, (1.35, 2.2), (206, 194, 168), (46, 52, 58),
        "slope", (66, 70, 80), "shops", ((28, 72, 52), (34, 46, 84), (110, 28, 34), (150, 110, 40)),
        (122, 118, 114), (72, 72, 76), "tram", (92, 88, 92), 12.0,
        arched=True, landmark="stack", wires=True,
    ),
    "white-mission": _Style(
        -33.934700, 18.861500, 20.0,
        ((246, 243, 234), (240, 236, 226), (250, 246, 240)),
        "plaster", (9.5, 13.0), (1, 2), 3.3, 3.3, (1.1, 1.6), (226, 222, 214), (44, 54, 66),
        "slope", (190, 98, 62), "doors", ((34, 96, 170), (40, 140, 110), (200, 120, 40)),
        (222, 196, 152), (206, 170, 122), "sand", (118, 128, 96), 34.0,
        shutters=True, trees="palm", leaf=(74, 124, 56), landmark="dome",
    ),
    "glass-quarter": _Style(
        35.690300, 139.752400, 100.0,
        ((150, 184, 206), (150, 120, 92), (206, 210, 210), (78, 116, 108)),
        "panel", (17.0, 23.0), (5, 8), 3.6, 1.9, (1.78, 3.1), (150, 162, 172), (70, 128, 158),
        "flat", (120, 126, 132), "lobby", ((20, 150, 160), (236, 120, 40), (40, 80, 190)),
        (196, 198, 198), (92, 96, 102), "lanes", (140, 158, 176), 30.0,
        trees="slim", leaf=(120, 168, 72),
    ),
    "timber-market": _Style(
        49.454100, 11.077800, 310.0,
        ((242, 228, 192), (226, 176, 120), (240, 236, 220), (214, 196, 120), (222, 160, 140)),
        "plaster", (7.0, 9.5), (2, 3), 2.7, 2.3, (1.1, 1.3), (250, 246, 232), (60, 62, 58),
        "gable", (172, 84, 48), "doors", ((96, 52, 26), (58, 84, 44), (130, 36, 32)),
        (138, 126, 112), (126, 114, 102), "cobbles", (58, 92, 50), 26.0,
        timber=True, trees="round", leaf=(64, 116, 40),
    ),
    "arcade-walk": _Style(
        44.495600, 11.342200, 245.0,
        ((222, 142, 62), (206, 112, 62), (228, 164, 84), (196, 96, 66)),
        "plaster", (11.0, 14.0), (2, 3), 3.5, 3.1, (1.15, 2.0), (226, 206, 176), (56, 58, 54),
        "slope", (180, 104, 72), "arcade", ((44, 92, 60), (50, 104, 74)),
        (196, 160, 146), (170, 138, 128), "slabs", (152, 132, 124), 10.0,
        shutters=True, landmark="tower",
    ),
    "plane-boulevard": _Style(
        -34.603900, -58.389700, 5.0,
        ((222, 212, 190), (214, 202, 178), (228, 220, 204)),
        "stone", (12.0, 16.0), (2, 3), 3.2, 2.5, (1.25, 2.3), (238, 232, 218), (64, 70, 76),
        "mansard", (98, 110, 124), "shops", ((176, 32, 40), (40, 90, 70), (196, 110, 30), (40, 60, 110)),
        (164, 160, 152), (84, 84, 88), "lanes", (150, 154, 158), 14.0,
        balconies=True, trees="round", leaf=(112, 142, 52),
    ),
}  # fmt: skip


def place_names() -> list[str]:
    """Every place that can be drawn, in the order in which `viewpoints` takes them."""
    return list(_PLACES)


def viewpoints(*, places: int = 6, views: int = 8) -> list[Viewpoint]:
    """The cameras of the first `places` places, `views` each, numbered from 1 along the street.

    Raises ValueError if there are not that many places, or fewer than one of either is asked for.
    """
    if not 1 <= places <= len(_PLACES) or views < 1:
        raise ValueError(f"{places} places of {views} views asked for; there are 1 to {len(_PLACES)} places")
    return [_viewpoint(name, number, views) for name in place_names()[:places] for number in range(1, views + 1)]


def render(viewpoint: Viewpoint, *, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """Draw what the camera sees. size: width, height in pixels. Returns RGB, always the same."""
    camera = _Camera.at(viewpoint, (round(size[0] * OVERSAMPLE), round(size[1] * OVERSAMPLE)))
    picture = _sky(camera.size, viewpoint.light).copy()
    for quad in _street(viewpoint.place):
        camera.paint(picture, quad, _LIGHTS[viewpoint.light])
    if _PLACES[viewpoint.place].wires:
        _draw_wires(picture, camera)
    return _develop(picture.resize(size, Image.Resampling.BOX), _rng(viewpoint.place, 900 + viewpoint.number))


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
    _write_manifest(folder, photos, size)
    return photos


def _write_manifest(folder: Path, photos: list[ScenePhoto], size: tuple[int, int]) -> None:
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file", "place", "lat", "lon", "coordinate_source", "width", "height"])
        for photo in photos:
            view, name = photo.viewpoint, photo.path.relative_to(folder).as_posix()
            rows.writerow([name, view.place, f"{view.lat:.6f}", f"{view.lon:.6f}", "exif", *size])


def _exif(view: Viewpoint) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Sightline"
    exif[ExifTags.Base.Model] = "renderer"
    exif[ExifTags.Base.Orientation] = 1
    exif[ExifTags.Base.DateTime] = f"2024:06:{view.number % 28 + 1:02d} {_LIGHTS[view.light].hour}"
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


def _rng(place: str, purpose: int) -> np.random.Generator:
    """Random numbers that depend on the place and what they are for, never on the order of calls."""
    return np.random.default_rng([place_names().index(place), purpose])


def _viewpoint(place: str, number: int, views: int) -> Viewpoint:
    style, rng = _PLACES[place], _rng(place, number)
    share = (number - 1) / (views - 1) if views > 1 else 0.5
    along = (share - 0.5) * (SPREAD_M - 2.0) + rng.uniform(-1.0, 1.0)
    # A walk that crosses the street: who stands nearer along it also sees houses of nearly the same size.
    back = 21.0 + (share - 0.5) * (-6.0 if place_names().index(place) % 2 else 6.0) + rng.uniform(-0.8, 0.8)
    # Turned a little towards the middle of the street, as people do who photograph a sight.
    yaw = -0.15 * along + rng.uniform(-4.0, 4.0)
    bearing = math.radians(style.bearing_deg)  # which way the camera looks when it faces the facades
    north = -math.sin(bearing) * along - math.cos(bearing) * back
    east = math.cos(bearing) * along - math.sin(bearing) * back
    lat = style.lat + north / METRES_PER_DEGREE
    lon = style.lon + east / (METRES_PER_DEGREE * math.cos(math.radians(style.lat)))
    light = list(_LIGHTS)[(number * 2 + place_names().index(place)) % len(_LIGHTS)]
    return Viewpoint(place, number, round(lat, 6), round(lon, 6), light, along, back, yaw)


@lru_cache(maxsize=32)
def _levels(factors: tuple[float, ...]) -> list[int]:
    """Pillow's lookup table for `Image.point`: each band's 256 levels times its factor."""
    return [min(255, round(level * factor)) for factor in factors for level in range(256)]


@dataclass(frozen=True)
class _Sprite:
    """A painted surface: RGBA, and how much of each pixel shines by itself after dark (L)."""

    paint: Image.Image
    glow: Image.Image


@dataclass(frozen=True)
class _Quad:
    """A sprite hung in the world: its top left corner, and which way its pixels run (unit vectors).

    World metres: x right along the street, y away from the camera, z up; facades stand at y = 0.
    side: -1 or 1 for a wall that faces left or right along the street, 0 for what faces the camera.
    """

    sprite: _Sprite
    corner: tuple[float, float, float]
    right: tuple[float, float, float] = (1.0, 0.0, 0.0)
    down: tuple[float, float, float] = (0.0, 0.0, -1.0)
    side: int = 0
    px: int = PX


@dataclass(frozen=True)
class _Camera:
    """An upright pinhole camera. `matrix` [3, 3] takes metres from the eye to homogeneous pixels."""

    eye: Floats
    matrix: Floats
    size: tuple[int, int]

    @classmethod
    def at(cls, view: Viewpoint, size: tuple[int, int]) -> "_Camera":
        width, height = size
        focal, yaw = width / 2 / math.tan(FIELD_OF_VIEW / 2), math.radians(view.yaw_deg)
        lens = np.array([[focal, 0, width / 2], [0, focal, height * HORIZON], [0, 0, 1]])
        turn = np.array([[math.cos(yaw), -math.sin(yaw), 0], [0, 0, -1], [math.sin(yaw), math.cos(yaw), 0]])
        return cls(np.array([view.along_m, -view.back_m, EYE_M]), lens @ turn, size)

    def pixel(self, point: tuple[float, float, float]) -> tuple[float, float, float]:
        """Picture x, y and the depth in metres of a world point."""
        x, y, depth = self.matrix @ (np.array(point) - self.eye)
        return float(x / depth), float(y / depth), float(depth)

    def paint(self, picture: Image.Image, quad: _Quad, light: _Light) -> None:
        """Warp the quad onto the picture, its plane being one homography away, and light what shows of it."""
        if quad.side * (self.eye[0] - quad.corner[0]) < 0:
            return
        axes = [
            np.array(quad.right) / quad.px,
            np.array(quad.down) / quad.px,
            np.array(quad.corner) - self.eye,
        ]
        forward = self.matrix @ np.stack(axes, axis=1)
        box = self._bounds(forward, quad.sprite.paint.size)
        if box is None:
            return
        left, top, right, bottom = box
        back = np.linalg.inv(forward) @ np.array([[1, 0, left], [0, 1, top], [0, 0, 1]])
        coefficients = (back / back[2, 2]).ravel()[:8].tolist()

        def warp(image: Image.Image) -> Image.Image:
            frame = (right - left, bottom - top)
            return image.transform(frame, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR)

        patch = warp(quad.sprite.paint).point(_levels((*(light.side if quad.side else light.front), 1.0)))
        if light.lamps:
            patch.paste(_LAMP_GLOW, (0, 0), warp(quad.sprite.glow).point(_levels((light.lamps,))))
        picture.paste(patch, (left, top), patch)

    def _bounds(self, forward: Floats, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
        """The part of the picture that the quad can touch: left, top, right, bottom; None if unseen."""
        rim = np.linspace(0.0, 1.0, 33)
        s, t = (grid.ravel() for grid in np.meshgrid(rim * size[0], rim * size[1]))
        x, y, depth = forward @ np.stack([s, t, np.ones_like(s)])
        ahead = depth > 0.5
        if not ahead.any():
            return None
        x, y = x[ahead] / depth[ahead], y[ahead] / depth[ahead]
        # 2 px of room, and more where the rim is cut off behind the camera.
        room = 2 if ahead.all() else self.size[0]
        left, right = max(0, int(x.min()) - room), min(self.size[0], int(x.max()) + room)
        top, bottom = max(0, int(y.min()) - 2), min(self.size[1], int(y.max()) + 2 + room)
        return (left, top, right, bottom) if left < right and top < bottom else None


class _Canvas:
    """Paints a sprite in metres: x from the left, z up from the bottom."""

    def __init__(self, width_m: float, height_m: float, px: int = PX, fine: int = FINE) -> None:
        self.width_m, self.height_m, self.scale, self.fine = width_m, height_m, px * fine, fine
        # Whole multiples of `fine`, so that the reduction leaves no half-filled rim.
        size = (round(width_m * px) * fine, round(height_m * px) * fine)
        self.image, self.glow = Image.new("RGBA", size), Image.new("L", size)
        self._draw, self._shine = ImageDraw.Draw(self.image), ImageDraw.Draw(self.glow)

    def at(self, x: float, z: float) -> tuple[float, float]:
        return x * self.scale, (self.height_m - z) * self.scale

    def box(self, x0: float, z0: float, x1: float, z1: float, colour: Colour, glow: int = 0) -> None:
        self.poly([(x0, z0), (x1, z0), (x1, z1), (x0, z1)], colour, glow)

    def poly(self, corners: list[tuple[float, float]], colour: Colour, glow: int = 0) -> None:
        pixels = [self.at(x, z) for x, z in corners]
        self._draw.polygon(pixels, fill=(*colour, 255))
        self._shine.polygon(pixels, fill=glow)

    def arch(self, x0: float, z0: float, x1: float, z1: float, colour: Colour, glow: int = 0) -> None:
        """A box whose top is half a circle."""
        radius = (x1 - x0) / 2
        turns = [math.pi * step / 16 for step in range(17)]
        bow = [(x0 + radius + radius * math.cos(a), z1 - radius + radius * math.sin(a)) for a in turns]
        self.poly([(x0, z0), (x1, z0), *bow], colour, glow)

    def disc(self, x: float, z: float, radius: float, colour: Colour, glow: int = 0) -> None:
        turns = [math.tau * step / 20 for step in range(20)]
        self.poly([(x + radius * math.cos(a), z + radius * math.sin(a)) for a in turns], colour, glow)

    def line(self, corners: list[tuple[float, float]], width_m: float, colour: Colour) -> None:
        pixels = [self.at(x, z) for x, z in corners]
        self._draw.line(pixels, fill=(*colour, 255), width=max(1, round(width_m * self.scale)), joint="curve")

    def fade(self, x0: float, z0: float, x1: float, z1: float, strength: float) -> None:
        """A soft shadow, strongest (0..1) at the top edge z1, gone at z0; over painted parts only."""
        (left, bottom), (right, top) = self.at(x0, z0), self.at(x1, z1)
        size = (max(1, round(right - left)), max(1, round(bottom - top)))
        ramp = Image.linear_gradient("L").transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize(size)
        box = (round(left), round(top))
        self.image.paste((18, 18, 26, 255), box, ramp.point(_levels((strength,))))

    def surface(self, corners: list[tuple[float, float]], texture: Image.Image) -> None:
        """Fill the polygon with a texture of the canvas's size."""
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon([self.at(x, z) for x, z in corners], fill=255)
        self.image.paste(texture, (0, 0), mask)

    def texture(self, colour: Colour, kind: str, rng: np.random.Generator) -> Image.Image:
        size = (self.image.width // self.fine, self.image.height // self.fine)
        return _texture(size, colour, kind, self.scale / self.fine, rng).resize(
            self.image.size, Image.Resampling.NEAREST
        )

    def sprite(self) -> _Sprite:
        return _Sprite(self.image.reduce(self.fine), self.glow.reduce(self.fine))


def _noise(size: tuple[int, int], grain: float, rng: np.random.Generator) -> Floats:
    """Smooth noise [height, width] of mean 0, spread about 1; its largest blobs are `grain` pixels wide."""
    total = np.zeros((size[1], size[0]), dtype=np.float32)
    for octave in range(3):
        cell = max(1.0, grain / 3**octave)
        coarse = rng.normal(size=(math.ceil(size[1] / cell) + 1, math.ceil(size[0] / cell) + 1)).astype(np.float32)
        total += np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)) / 2**octave
    return total


#: Masonry by name: block width and height in metres, how much blocks differ, how dark the joints are.
_COURSES = {
    "brick": (0.50, 0.19, 0.10, 0.30),
    "stone": (1.30, 0.55, 0.035, 0.16),
    "tile": (0.34, 0.42, 0.09, 0.34),
    "cobbles": (0.55, 0.60, 0.11, 0.30),
    "slabs": (1.20, 1.60, 0.05, 0.22),
}


def _texture(size: tuple[int, int], colour: Colour, kind: str, scale: float, rng: np.random.Generator) -> Image.Image:
    """A surface of `size` pixels at `scale` pixels a metre: masonry of `_COURSES`, or plain."""
    shade = 1.0 + _noise(size, 1.6 * scale, rng) * (0.012 if kind == "panel" else 0.026)
    if kind in _COURSES:
        wide, high, differ, joint = _COURSES[kind]
        rows = np.arange(size[1])[:, None] / (high * scale)
        columns = np.arange(size[0])[None, :] / (wide * scale) + 0.5 * (rows.astype(int) % 2)
        blocks = rng.normal(1.0, differ, (int(rows.max()) + 1, int(columns.max()) + 1)).astype(np.float32)
        shade *= blocks[rows.astype(int), columns.astype(int)]
        thin = max(1.2 / scale, 0.03)
        shade *= 1 - joint * ((rows % 1 < thin / high) | (columns % 1 < thin / wide))
    bands = [Image.fromarray(np.clip(shade * channel, 0, 255).astype(np.uint8)) for channel in colour]
    return Image.merge("RGB", bands)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (max(0, min(255, round(channel * factor))) for channel in colour)
    return red, green, blue


def _pick(colours: tuple[Colour, ...], rng: np.random.Generator) -> Colour:
    return colours[int(rng.integers(len(colours)))]


def _window(
    canvas: _Canvas, style: _Style, x: float, z: float, size: tuple[float, float], rng: np.random.Generator
) -> None:
    """One window whose lower left corner is at (x, z): frame, panes, and what this street hangs on it."""
    wide, high = size
    shape = canvas.arch if style.arched else canvas.box
    glow = int(rng.choice([0, 0, 150, 230]))
    glass = _shade(style.glass, rng.uniform(0.75, 1.35))
    shape(x - 0.14, z - 0.1, x + wide + 0.14, z + high + 0.14, style.trim)
    shape(x, z, x + wide, z + high, glass, glow)
    canvas.fade(x, z, x + wide, z + high, 0.45)
    if style.texture != "panel":
        # A strip of reflected sky across the glass.
        tilt = rng.uniform(0.2, 0.4) * high
        sky = [
            (x, z + tilt),
            (x + wide, z + tilt + 0.3 * wide),
            (x + wide, z + tilt + 0.65),
            (x, z + tilt + 0.35),
        ]
        canvas.poly(sky, _shade(glass, 1.28), glow)
        canvas.box(x + wide / 2 - 0.04, z, x + wide / 2 + 0.04, z + high, style.trim)
        canvas.box(x, z + high * 0.62, x + wide, z + high * 0.62 + 0.07, style.trim)
        canvas.box(x - 0.22, z - 0.22, x + wide + 0.22, z - 0.06, style.trim)
        canvas.fade(x - 0.2, z - 0.6, x + wide + 0.2, z - 0.22, 0.35)
    if style.shutters:
        leaf = style.accents[0]
        for left in (x - 0.14 - wide * 0.52, x + wide + 0.14):
            canvas.box(left, z - 0.05, left + wide * 0.52, z + high + 0.05, leaf)
            for slat in np.arange(z + 0.1, z + high - 0.1, 0.22):
                canvas.box(left + 0.07, slat, left + wide * 0.52 - 0.07, slat + 0.07, _shade(leaf, 0.72))
    if style.balconies:
        _railing(canvas, x - 0.35, z - 0.15, wide + 0.7)
    if style.timber:
        canvas.box(x - 0.2, z - 0.42, x + wide + 0.2, z - 0.16, (92, 58, 34))
        for bloom in np.arange(x - 0.1, x + wide + 0.1, 0.2):
            canvas.disc(bloom, z - 0.1 + rng.uniform(0, 0.12), 0.14, ((204, 38, 56), (62, 112, 44))[rng.integers(2)])


def _railing(canvas: _Canvas, x: float, z: float, wide: float) -> None:
    iron = (30, 32, 36)
    canvas.box(x, z - 0.2, x + wide, z - 0.05, (176, 168, 152))
    for rail in (z, z + 0.85):
        canvas.box(x, rail, x + wide, rail + 0.06, iron)
    for bar in np.arange(x, x + wide, 0.16):
        canvas.box(bar, z, bar + 0.045, z + 0.85, iron)


def _door(canvas: _Canvas, style: _Style, x: float, colour: Colour) -> None:
    canvas.arch(x - 0.15, 0, x + 1.35, 2.95, style.trim)
    canvas.arch(x, 0, x + 1.2, 2.8, colour)
    canvas.arch(x + 0.12, 2.05, x + 1.08, 2.65, (230, 200, 140), 160)
    for panel in (0.3, 1.2):
        canvas.box(x + 0.18, panel, x + 0.55, panel + 0.7, _shade(colour, 0.72))
        canvas.box(x + 0.65, panel, x + 1.02, panel + 0.7, _shade(colour, 0.72))


def _doors_floor(canvas: _Canvas, style: _Style, high: float, rng: np.random.Generator) -> None:
    door_at, count = rng.uniform(0.9, 1.6), max(2, round((canvas.width_m - 0.6) / style.bay_m))
    bay = canvas.width_m / count
    _door(canvas, style, door_at, _pick(style.accents, rng))
    for index in range(count):
        x = (index + 0.5) * bay - style.window_m[0] / 2
        if x > door_at + 1.8 and x + style.window_m[0] < canvas.width_m - 0.3:
            _window(canvas, style, x, 1.05, (style.window_m[0], min(style.window_m[1], high - 1.5)), rng)


def _shops_floor(canvas: _Canvas, style: _Style, high: float, rng: np.random.Generator) -> None:
    """Shop fronts: large lit panes, a fascia with a sign, a striped awning over every other one."""
    count = max(2, round(canvas.width_m / 4.6))
    wide = canvas.width_m / count
    for index in range(count):
        x, paint = index * wide + 0.3, _pick(style.accents, rng)
        canvas.box(x, 0, x + wide - 0.6, high - 0.25, paint)
        canvas.box(x + 0.2, 0.6, x + wide - 1.9, high - 1.1, (96, 92, 82), 235)
        canvas.fade(x + 0.2, 0.6, x + wide - 1.9, high - 1.1, 0.6)
        canvas.box(x + wide - 1.7, 0.1, x + wide - 0.8, high - 1.1, (70, 68, 64), 200)
        for goods in rng.uniform(x + 0.5, x + wide - 2.2, 5):
            canvas.disc(goods, 0.9, 0.25, _pick(((190, 150, 90), (150, 60, 50), (80, 110, 90)), rng), 90)
        sign = rng.uniform(1.2, wide - 2.0)
        canvas.box(x + 0.5, high - 0.75, x + 0.5 + sign, high - 0.5, (236, 214, 150), 60)
        if index % 2 == 0:
            _awning(canvas, x, high - 0.85, wide - 0.6, _shade(paint, 1.5))


def _awning(canvas: _Canvas, x: float, z: float, wide: float, colour: Colour) -> None:
    stripes = 9
    for stripe in range(stripes):
        left, right = x + wide * stripe / stripes, x + wide * (stripe + 1) / stripes
        fill = colour if stripe % 2 == 0 else (240, 234, 220)
        canvas.poly([(left, z - 0.95), (right, z - 0.95), (right, z), (left, z)], fill)
        canvas.disc((left + right) / 2, z - 0.95, (right - left) / 2, _shade(fill, 0.85))
    canvas.fade(x, z - 1.9, x + wide, z - 1.1, 0.5)


def _arcade_floor(canvas: _Canvas, style: _Style, high: float, rng: np.random.Generator) -> None:
    count = max(2, round(canvas.width_m / 3.9))
    wide = canvas.width_m / count
    for index in range(count):
        x = index * wide + 0.45
        canvas.arch(x - 0.2, 0, x + wide - 0.7, high - 0.15, style.trim)
        canvas.arch(x, 0, x + wide - 0.9, high - 0.4, (92, 64, 50), 70)
        canvas.box(x + 0.5, 0.1, x + wide - 1.5, 2.3, _pick(((50, 40, 36), (58, 66, 58)), rng), 190)
        canvas.fade(x, 1.2, x + wide - 0.9, high - 0.9, 0.75)
        canvas.box(x - 0.5, high - 2.0, x - 0.15, high - 1.8, _shade(style.trim, 0.85))


def _lobby_floor(canvas: _Canvas, style: _Style, high: float, rng: np.random.Generator) -> None:
    canvas.box(0.4, 0, canvas.width_m - 0.4, high - 0.4, (62, 84, 96), 170)
    canvas.fade(0.4, 0.5, canvas.width_m - 0.4, high - 0.4, 0.55)
    for x in np.arange(0.4, canvas.width_m, 2.4):
        canvas.box(x, 0, x + 0.3, high - 0.3, (206, 208, 208))
    sign = rng.uniform(2.0, canvas.width_m - 7.0)
    colour = _pick(style.accents, rng)
    canvas.box(sign, high - 1.2, sign + 4.5, high - 0.1, colour, 200)
    for mark in range(3):
        canvas.disc(sign + 0.8 + mark * 1.3, high - 0.65, 0.36, (244, 244, 240), 220)


_BASES = {"doors": _doors_floor, "shops": _shops_floor, "arcade": _arcade_floor, "lobby": _lobby_floor}
_BASE_M = {"doors": 3.4, "shops": 4.1, "arcade": 4.6, "lobby": 5.0}


def _beams(canvas: _Canvas, style: _Style, eave: float, high: float) -> None:
    """Half-timbering: posts, rails, braces, and rafters in the gable."""
    beam, width = (84, 52, 34), canvas.width_m
    floors = [*np.arange(_BASE_M[style.base], eave + 0.1, style.storey_m)]
    for z in floors:
        canvas.box(0, z - 0.15, width, z + 0.2, beam)
    count = max(2, round((width - 0.6) / style.bay_m))
    for z0, z1 in pairwise(floors):
        for post in range(count + 1):
            x = min(max(post * width / count, 0.13), width - 0.13)
            canvas.box(x - 0.13, z0, x + 0.13, z1, beam)
        for x, way in ((0.2, 1), (width - 0.2, -1)):
            canvas.line([(x, z1), (x + way * 0.75, z0)], 0.2, beam)
    ridge = (width / 2, high - 0.3)
    canvas.line([(0.1, eave), ridge, (width - 0.1, eave)], 0.55, beam)
    canvas.line([ridge, (width / 2, eave)], 0.24, beam)
    knee = (eave + high * 0.4) / 1.4
    canvas.line([(width * 0.2, knee), (width / 2, eave), (width * 0.8, knee)], 0.2, beam)


def _outline(roof: str, width: float, eave: float, high: float) -> list[tuple[float, float]]:
    """The front's edge: a box up to the eave, and a gable over it where the roof has one."""
    corners = [(0.0, 0.0), (0.0, eave)]
    if roof == "gable":
        corners.append((width / 2, high))
    elif roof == "stepped":
        steps, rise = 4, (high - eave) / 4
        for step in range(steps):
            x = width / 2 * (step + 0.35) / steps
            corners += [(x, eave + rise * step), (x, eave + rise * (step + 1))]
        corners += [(width - x, z) for x, z in reversed(corners[2:])]
    return [*corners, (width, eave), (width, 0.0)]


def _front(style: _Style, width: float, storeys: int, wall: Colour, rng: np.random.Generator) -> tuple[_Sprite, float]:
    """A facade and the height of its eaves in metres."""
    base = _BASE_M[style.base]
    eave = base + storeys * style.storey_m + 0.35
    high = eave + {"gable": width * 0.62, "stepped": 3.8, "mansard": 3.4}.get(style.roof, 0.0)
    canvas = _Canvas(width, high)
    if style.roof == "mansard":
        slope = [(0.1, eave), (0.7, high), (width - 0.7, high), (width - 0.1, eave)]
        canvas.surface(slope, canvas.texture(style.roof_colour, "tile", rng))
    outline = _outline(style.roof, width, eave, high)
    canvas.surface(outline, canvas.texture(wall, style.texture, rng))
    if style.roof == "stepped":
        canvas.line(outline[1:-1], 0.22, style.trim)
    if style.timber:
        _beams(canvas, style, eave, high)
    _upper_windows(canvas, style, base, eave, storeys, rng)
    _BASES[style.base](canvas, style, base, rng)
    if style.texture != "panel" and not style.timber:
        for z, thick in ((base, 0.28), (eave - 0.4, 0.4)):
            canvas.box(0, z - 0.1, width, z - 0.1 + thick, style.trim)
            canvas.fade(0, z - 0.8, width, z - 0.1, 0.32)
    canvas.fade(0, 0.0, 0.12, eave, 0.3)
    return canvas.sprite(), eave


def _upper_windows(
    canvas: _Canvas, style: _Style, base: float, eave: float, storeys: int, rng: np.random.Generator
) -> None:
    count = max(2, round((canvas.width_m - 0.6) / style.bay_m))
    bay, (wide, high) = canvas.width_m / count, style.window_m
    sill = (style.storey_m - high) * 0.55
    for storey in range(storeys):
        for index in range(count):
            x = (index + 0.5) * bay - wide / 2
            _window(canvas, style, x, base + storey * style.storey_m + sill, style.window_m, rng)
    if style.roof in ("gable", "stepped"):
        _window(canvas, style, canvas.width_m / 2 - 0.45, eave + 0.6, (0.9, 1.3), rng)
    if style.roof == "mansard":
        for index in range(count):
            x = (index + 0.5) * bay
            canvas.box(x - 0.95, eave, x + 0.95, eave + 2.1, style.trim)
            canvas.poly([(x - 0.95, eave + 2.1), (x + 0.95, eave + 2.1), (x, eave + 2.8)], style.trim)
            canvas.box(x - 0.6, eave + 0.3, x + 0.6, eave + 2.0, style.glass, int(rng.choice([0, 220])))


def _sheet(
    width: float, high: float, colour: Colour, kind: str, rng: np.random.Generator, *, gable_m: float = 0.0
) -> _Sprite:
    """A plain surface, with a gable over it where a roof ends."""
    canvas = _Canvas(width, high + gable_m)
    outline = _outline("gable" if gable_m else "", width, high, high + gable_m)
    canvas.surface(outline, canvas.texture(colour, kind, rng))
    return canvas.sprite()


def _variant(style: _Style, house: int) -> _Style:
    """The street's style with one house's own colours: so neighbours differ, and the street's ends."""
    wall = style.walls[house % len(style.walls)]
    glass = style.glass
    if style.texture == "panel":
        glass = (glass[0] + wall[0]) // 2, (glass[1] + wall[1]) // 2, (glass[2] + wall[2]) // 2
    return replace(style, walls=(wall,), accents=(style.accents[house % len(style.accents)],), glass=glass)


def _house(style: _Style, x: float, y: float, width: float, rng: np.random.Generator) -> list[_Quad]:
    """One house whose front's left foot is at (x, y): side walls, roof, front, in painting order."""
    wall, storeys = style.walls[0], int(rng.integers(style.storeys[0], style.storeys[1] + 1))
    sprite, eave = _front(style, width, storeys, wall, rng)
    rise, run = 2.6 if style.roof == "slope" else 0.0, HOUSE_DEPTH_M / 2
    side = _sheet(HOUSE_DEPTH_M, eave, wall, style.texture, rng, gable_m=rise)
    walls = ((x, -1), (x + width, 1))
    quads = [_Quad(side, (edge, y, eave + rise), right=(0.0, 1.0, 0.0), side=way) for edge, way in walls]
    if style.roof == "slope":
        length = math.hypot(rise, run)
        tiles = _sheet(width, length, style.roof_colour, "tile", rng)
        quads.append(_Quad(tiles, (x, y + run, eave + rise), down=(0.0, -run / length, -rise / length)))
        for chimney in rng.uniform(x + 1, x + width - 2, 2):
            stack = _sheet(1.1, 2.2, _shade(style.walls[0], 0.85), style.texture, rng)
            quads.append(_Quad(stack, (float(chimney), y + run - 0.3, eave + rise + 1.2)))
    return [*quads, _Quad(sprite, (x, y, sprite.paint.height / PX))]


def _dome(style: _Style, rng: np.random.Generator) -> _Sprite:
    """A white church: portal, round window, two belfries, a blue dome behind."""
    canvas, white, blue = _Canvas(15.0, 18.0), style.walls[0], (40, 104, 176)
    canvas.disc(7.5, 11.2, 4.0, blue)
    for rib in range(-3, 4):
        canvas.line([(7.5, 15.2), (7.5 + rib * 1.25, 11.0)], 0.12, _shade(blue, 0.75))
    canvas.box(7.3, 15.0, 7.7, 17.6, (206, 170, 70))
    canvas.box(6.8, 16.5, 8.2, 16.8, (206, 170, 70))
    walls = canvas.texture(white, "plaster", rng)
    canvas.surface([(3, 0), (3, 10.4), (7.5, 12.4), (12, 10.4), (12, 0)], walls)
    for x in (0.2, 11.8):
        canvas.surface([(x, 0), (x, 13), (x + 3, 13), (x + 3, 0)], walls)
        canvas.poly([(x - 0.1, 13), (x + 3.1, 13), (x + 1.5, 15.2)], blue)
        canvas.arch(x + 0.8, 9.6, x + 2.2, 12.2, (52, 50, 56), 120)
        for z in (4.4, 8.6):
            canvas.box(x - 0.1, z, x + 3.1, z + 0.3, (222, 206, 170))
    canvas.disc(7.5, 8.2, 1.3, (222, 206, 170))
    canvas.disc(7.5, 8.2, 1.0, (60, 84, 120), 220)
    canvas.arch(5.6, 0, 9.4, 5.2, (222, 206, 170))
    canvas.arch(6.0, 0, 9.0, 4.8, (104, 62, 38), 60)
    canvas.line([(7.5, 0), (7.5, 4.8)], 0.1, (60, 36, 24))
    return canvas.sprite()


def _tower(style: _Style, rng: np.random.Generator) -> _Sprite:
    """A square brick bell tower with a belfry and a pointed roof."""
    canvas, brick = _Canvas(7.0, 29.0), (158, 88, 60)
    canvas.surface([(0.5, 0), (0.5, 23), (6.5, 23), (6.5, 0)], canvas.texture(brick, "brick", rng))
    canvas.poly([(0.1, 23), (6.9, 23), (3.5, 28.6)], style.roof_colour)
    for z in (12.0, 16.6, 22.6):
        canvas.box(0.2, z, 6.8, z + 0.5, style.trim)
    for x in (1.3, 4.0):
        canvas.arch(x, 17.8, x + 1.7, 21.8, (48, 40, 40), 140)
    canvas.disc(3.5, 14.6, 1.3, (240, 234, 216), 200)
    canvas.line([(3.5, 15.6), (3.5, 14.6), (4.2, 14.3)], 0.14, (40, 36, 36))
    for z in (3.0, 7.5):
        canvas.arch(3.0, z, 4.0, z + 2.4, (48, 40, 40))
    canvas.arch(2.3, 0, 4.7, 2.8, (70, 44, 34))
    return canvas.sprite()


def _stack(style: _Style, rng: np.random.Generator) -> _Sprite:
    """A mill's round chimney with banded crown."""
    canvas = _Canvas(5.0, 31.0)
    body = [(0.4, 0.0), (1.2, 29.0), (3.8, 29.0), (4.6, 0.0)]
    canvas.surface(body, canvas.texture(_shade(style.walls[0], 1.1), "brick", rng))
    for z in (25.0, 27.4, 28.8):
        canvas.box(0.9, z, 4.1, z + 0.6, style.trim)
    return canvas.sprite()


#: Landmark by name: its painter, how far behind the fronts it stands, how wide its gap is; in metres.
_LANDMARKS: dict[str, tuple[Callable[[_Style, np.random.Generator], _Sprite], float, float]] = {
    "dome": (_dome, 5.0, 16.6),
    "tower": (_tower, 6.0, 9.5),
    "stack": (_stack, 30.0, 9.0),
}


def _foliage(wide: float, high: float, crown_z: float, style: _Style, rng: np.random.Generator) -> _Sprite:
    """A leafy tree: a trunk, then blots of leaves from shaded to sunlit, the light from the upper left."""
    canvas, middle = _Canvas(wide, high), wide / 2
    canvas.line([(middle, 0), (middle, high * 0.7)], 0.36, (86, 70, 56))
    rx, rz, centre = wide / 2 - 0.5, (high - crown_z) / 2 - 0.4, (high + crown_z) / 2
    for layer, factor in enumerate((0.5, 0.7, 0.9, 1.15)):
        for _ in range(170):
            angle, far = rng.uniform(0, math.tau), math.sqrt(rng.uniform()) * (1 - 0.1 * layer)
            x, z = (
                middle + rx * far * math.cos(angle) - 0.12 * layer,
                centre + rz * far * math.sin(angle) + 0.1 * layer,
            )
            canvas.disc(x, z, rng.uniform(0.1, 0.34), _shade(style.leaf, factor * rng.uniform(0.85, 1.15)))
    return canvas.sprite()


def _palm(style: _Style, rng: np.random.Generator) -> _Sprite:
    canvas = _Canvas(6.0, 9.0)
    canvas.line([(2.9, 0), (3.1, 3), (3.0, 6.8)], 0.36, (134, 108, 80))
    for ring in np.arange(0.3, 6.6, 0.35):
        canvas.line([(2.82, ring), (3.2, ring)], 0.06, (100, 80, 60))
    for angle in np.linspace(-0.5, math.pi + 0.5, 15):
        reach, leaf = rng.uniform(2.3, 2.8), _shade(style.leaf, rng.uniform(0.6, 1.2))
        tip = [(3 + reach * t * math.cos(angle), 6.8 + reach * (t * math.sin(angle) - 0.75 * t * t))
               for t in np.linspace(0, 1, 9)]  # fmt: skip
        canvas.line(tip, 0.14, leaf)
        for x, z in tip[2:]:
            canvas.line([(x - 0.3, z - 0.55), (x, z), (x + 0.3, z - 0.55)], 0.07, leaf)
    return canvas.sprite()


def _tree(style: _Style, rng: np.random.Generator) -> _Sprite:
    if style.trees == "palm":
        return _palm(style, rng)
    return _foliage(3.4, 6.6, 1.9, style, rng) if style.trees == "slim" else _foliage(5.4, 7.0, 2.3, style, rng)


def _lamp() -> _Sprite:
    canvas, iron = _Canvas(1.2, 5.0), (38, 44, 46)
    canvas.box(0.54, 0, 0.66, 4.2, iron)
    canvas.box(0.45, 0, 0.75, 0.8, iron)
    canvas.poly([(0.4, 4.15), (0.8, 4.15), (0.95, 4.75), (0.25, 4.75)], (226, 220, 196), 255)
    canvas.poly([(0.2, 4.72), (1.0, 4.72), (0.6, 5.0)], iron)
    return canvas.sprite()


def _houses(style: _Style, rng: np.random.Generator) -> Iterator[list[_Quad]]:
    """Houses side by side along the whole street; a gap in the middle where a landmark stands back."""
    x, house, landmark = -HALF_STREET_M, 0, style.landmark
    while x < HALF_STREET_M:
        width = round(float(rng.uniform(*style.width_m)), 2)
        if landmark and x + width / 2 > -_LANDMARKS[landmark][2] / 2:
            paint, back, gap = _LANDMARKS[landmark]
            landmark = ""
            sprite = paint(style, rng)
            yield [_Quad(sprite, (x + (gap - sprite.paint.width / PX) / 2, back, sprite.paint.height / PX))]
            x += gap
            continue
        # Modern blocks stand apart; old streets are closed rows with fronts a hand's breadth out of line.
        y = float(rng.uniform(0, 3.0 if style.roof == "flat" else 0.3))
        yield _house(_variant(style, house), x, y, width, rng)
        house += 1
        x += width + (2.5 if style.roof == "flat" else 0.0)


def _ground(style: _Style, rng: np.random.Generator) -> _Quad:
    """Pavement, kerb and road (or quay and water) seen as one sheet; z on this canvas is y in the world."""
    deep, width = GROUND_FAR_M - GROUND_NEAR_M, 2 * HALF_STREET_M + 40
    canvas, kerb, foot = _Canvas(width, deep, GROUND_PX, fine=1), ROAD_EDGE_M - GROUND_NEAR_M, -GROUND_NEAR_M
    kind = style.road_kind if style.road_kind in _COURSES else "plaster"
    paving = kind if kind in _COURSES else ("plaster" if style.road_kind == "sand" else "slabs")
    canvas.surface([(0, 0), (0, kerb), (width, kerb), (width, 0)], canvas.texture(style.road, kind, rng))
    canvas.surface([(0, kerb), (0, deep), (width, deep), (width, kerb)], canvas.texture(style.pavement, paving, rng))
    canvas.box(0, kerb - 0.15, width, kerb + 0.2, _shade(style.pavement, 1.18))
    canvas.box(0, kerb - 0.4, width, kerb - 0.15, _shade(style.road, 0.7))
    if style.road_kind == "water":
        canvas.box(0, kerb - 2.2, width, kerb - 0.15, (92, 84, 76))
        for x, z, long in zip(*rng.uniform((0, 0, 0.6), (width, kerb - 2.2, 3.0), (1400, 3)).T, strict=True):
            canvas.line([(x, z), (x + long, z)], 0.09, _shade(style.road, rng.uniform(0.75, 1.5)))
    if style.road_kind == "tram":
        for rail in (2.6, 4.05, 6.2, 7.65):
            canvas.box(0, kerb - rail - 0.28, width, kerb - rail + 0.28, (98, 96, 96))
            canvas.box(0, kerb - rail - 0.08, width, kerb - rail + 0.08, (168, 172, 178))
    if style.road_kind == "lanes":
        for x in np.arange(0, width, 6.0):
            canvas.box(x, kerb - 4.2, x + 3.0, kerb - 4.0, (226, 226, 220))
        for x in np.arange(width / 2 - 1.6, width / 2 + 2.0, 1.1):
            canvas.box(x, kerb - 8.0, x + 0.55, kerb - 0.5, (232, 232, 226))
    canvas.fade(0, foot - 1.6, width, foot + 0.3, 0.5)
    return _Quad(canvas.sprite(), (-width / 2, GROUND_FAR_M, 0), down=(0, -1, 0), px=GROUND_PX)


def _hills(style: _Style, rng: np.random.Generator) -> _Quad:
    """What closes the street behind the roofs: hills, or far blocks where the place is modern. 90 m away."""
    width, px = 420.0, 4
    canvas, x = _Canvas(width, style.hill_m * 1.9, px), 0.0
    if style.roof == "flat":
        while x < width:
            wide, high = rng.uniform(8, 18), style.hill_m * rng.uniform(0.6, 1.8)
            canvas.box(x, 0, x + wide, high, _shade(style.hills, rng.uniform(0.85, 1.1)))
            x += wide * rng.uniform(0.7, 1.3)
    else:
        along = np.linspace(0, width, 160)
        waves = [rng.uniform(0.6, 1) * np.sin(along / rng.uniform(9, 50) + rng.uniform(0, 6)) for _ in range(6)]
        crest = style.hill_m * (1 + 0.16 * np.sum(waves, axis=0))
        edge = [(float(x), float(z)) for x, z in zip(along, crest, strict=True)]
        canvas.surface([(0, 0), *edge, (width, 0)], canvas.texture(style.hills, "plaster", rng))
    return _Quad(canvas.sprite(), (-width / 2, 90.0, style.hill_m * 1.9 - HILL_FOOT_M), px=px)


def _furniture(style: _Style, rng: np.random.Generator) -> Iterator[_Quad]:
    """Lamps and trees in a row along the kerb, and the trees' shadows."""
    trees, lamp = [_tree(style, rng) for _ in range(3)] if style.trees else [], _lamp()
    for index, x in enumerate(np.arange(-HALF_STREET_M + 3, HALF_STREET_M, 8.5)):
        x += float(rng.uniform(-0.6, 0.6))
        if index % 2 and trees:
            tree = trees[int(rng.integers(len(trees)))]
            wide, high = tree.paint.width / PX, tree.paint.height / PX
            shadow = Image.new("RGBA", (96, 48), (24, 24, 34, 0))
            shadow.putalpha(_blot((96, 48)))
            yield _Quad(_Sprite(shadow, Image.new("L", (96, 48))), (x - wide / 2, -2.2, 0), down=(0, -1, 0),
                        px=round(96 / wide))  # fmt: skip
            yield _Quad(tree, (x - wide / 2, -3.6, high))
        else:
            yield _Quad(lamp, (x - 0.6, -4.3, 5.0))


def _blot(size: tuple[int, int]) -> Image.Image:
    """A soft ellipse, at most half opaque."""
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse((12, 8, size[0] - 12, size[1] - 8), fill=120)
    return mask.filter(ImageFilter.GaussianBlur(5))


@lru_cache(maxsize=len(_PLACES))
def _street(place: str) -> tuple[_Quad, ...]:
    """Everything that stands in a place, farthest layer first."""
    style = _PLACES[place]
    houses = list(_houses(style, _rng(place, 1001)))
    fronts = sorted((house[-1] for house in houses), key=lambda quad: -quad.corner[1])
    flanks = [quad for house in houses for quad in house[:-1] if quad.side]
    roofs = [quad for house in houses for quad in house[:-1] if not quad.side]
    backdrop = [_hills(style, _rng(place, 1002)), _ground(style, _rng(place, 1003))]
    return (*backdrop, *flanks, *roofs, *fronts, *_furniture(style, _rng(place, 1004)))


@lru_cache(maxsize=64)
def _sky(size: tuple[int, int], light_name: str) -> Image.Image:
    """A gradient down to the horizon, with clouds. The same over every place: it must not tell them apart."""
    light, (width, height) = _LIGHTS[light_name], size
    down = np.clip(np.linspace(0, 1 / HORIZON, height), 0, 1)[:, None, None] ** 0.8
    sky = np.array(light.sky_top) * (1 - down) + np.array(light.sky_low) * down
    puffs = _noise(size, width / 3, np.random.default_rng(list(_LIGHTS).index(light_name)))
    cover = np.clip(puffs * 0.5 + light.clouds - 0.45, 0, 1)[..., None] * 0.75
    bright = np.minimum(np.array(light.sky_low) * 1.08, 255)
    return Image.fromarray((sky * (1 - cover) + bright * cover).astype(np.uint8))


def _draw_wires(picture: Image.Image, camera: _Camera) -> None:
    """Tram wires: two sagging lines over the rails."""
    draw = ImageDraw.Draw(picture)
    for y, z in ((-8.3, 6.2), (-11.9, 6.2)):
        points = [camera.pixel((x, y, z - 0.25 * math.sin(math.pi * (x % 24) / 24))) for x in range(-60, 61, 3)]
        draw.line([(u, v) for u, v, depth in points if depth > 1], fill=(44, 46, 52), width=2)


def _develop(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """What a small camera adds: darker corners and grain."""
    pixels = np.asarray(picture, dtype=np.float32)
    y, x = np.mgrid[-1 : 1 : pixels.shape[0] * 1j, -1 : 1 : pixels.shape[1] * 1j]
    vignette = (1 - 0.10 * (x**2 + y**2)).astype(np.float32)[..., None]
    grain = rng.normal(0, 3.0, pixels.shape[:2]).astype(np.float32)[..., None]
    return Image.fromarray(np.clip(pixels * vignette + grain, 0, 255).astype(np.uint8))
