"""Photo files to ask about: drawn streets or a folder's own photos, as large and as noisy as those of phones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import count, cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageOps

from demo.scenes import write_scenes
from producer_client import NewPhoto
from worker.encoder.images import decode
from worker.errors import PhotoRefusal
from worker.manifest import photo_files, read_manifest

#: Pixels of the drawn views, and of the photos of a burst at most.
VIEW_SIZE = (1280, 960)
#: Of 255, in each pixel of an enlarged photo, without which its JPEG would be small and quick to decode.
NOISE = 5.0
#: Photos of one burst: as many as the witnesses that are heard, so that those of a query can all be of its burst.
NEAR_COPIES = 8
#: Share of each side that a crop leaves out.
CROPPED = 0.01
#: With NOISE, a JPEG of 12 MP has 3.6 MB, as those of phones have.
QUERY_QUALITY = 92
DRAWN_QUALITY = 90


@dataclass(frozen=True, slots=True)
class View:
    """A picture and where it was taken."""

    path: Path
    lat: float
    lon: float


@dataclass(frozen=True, slots=True)
class Query:
    """A photo to ask for, by path, with the truth about it."""

    path: str
    view: View


def listed(folder: Path) -> list[NewPhoto]:
    """The photos of a folder's manifest.csv."""
    return list(read_manifest(folder / "manifest.csv"))


def views(photos: Path | None, folder: Path, most: int) -> list[View]:
    """At most so many pictures with coordinates, spread over the folder of photos; drawn where none is given."""
    if photos is None:
        drawn = write_scenes(folder, places=6, views=most // 6, size=VIEW_SIZE)
        return [View(photo.path, photo.viewpoint.lat, photo.viewpoint.lon) for photo in drawn]
    found = list(_placed(photos))
    if not found:
        raise RuntimeError(f"no photo under {photos} has coordinates, in a manifest.csv or in its EXIF tags")
    return [found[number * len(found) // most] for number in range(most)] if len(found) > most else found


def _placed(folder: Path) -> Iterator[View]:
    if (folder / "manifest.csv").exists():
        for item in listed(folder):
            if item.photo.path is not None and item.lat is not None and item.lon is not None:
                yield View(Path(item.photo.path), item.lat, item.lon)
        return
    for path in photo_files(folder):
        if not isinstance(path, Path):
            continue
        with suppress(PhotoRefusal):
            gps = decode(path.read_bytes(), side=32, max_megapixels=100).gps
            if gps is not None:
                yield View(path, *gps)


def write_bursts(some: Sequence[View], folder: Path) -> list[Query]:
    """NEAR_COPIES crops of every view."""
    random = np.random.default_rng(0)
    asked = [view for view in some for _ in range(NEAR_COPIES)]

    def crops() -> Iterator[Image.Image]:
        for view in asked:
            near = _cropped(_picture(view.path), random)
            near.thumbnail(VIEW_SIZE)
            yield near

    return list(map(Query, map(str, _written(crops(), folder, QUERY_QUALITY)), asked))


def write_queries(some: Sequence[View], folder: Path, *, megapixels: float, wanted: int) -> list[Query]:
    """So many photos, each of its own bytes, of the views in turn: crops, enlarged with noise."""
    random = np.random.default_rng(1)
    noise = cache(lambda size: Image.effect_noise(size, NOISE).convert("RGB"))
    asked = list(islice(cycle(some), wanted))

    def crops() -> Iterator[Image.Image]:
        for view in asked:
            picture = _picture(view.path)
            query = _cropped(picture, random).resize(_size(picture, megapixels), Image.Resampling.BICUBIC)
            if picture.width * picture.height < megapixels * 1e6:
                moved = ImageChops.offset(noise(query.size), *random.integers(query.size).tolist())
                query = ImageChops.add(query, moved, offset=-128)
            yield query

    return list(map(Query, map(str, _written(crops(), folder, QUERY_QUALITY)), asked))


def write_drawn(folder: Path, megapixels: float, wanted: int) -> list[Path]:
    """Street scenes, enlarged with noise."""
    scenes = write_scenes(folder / "scenes", places=max(1, wanted // 4), views=4, size=VIEW_SIZE)

    def enlarged() -> Iterator[Image.Image]:
        for scene in scenes[:wanted]:
            picture = _picture(scene.path)
            size = _size(picture, megapixels)
            noise = Image.effect_noise(size, 4 * NOISE).convert("RGB")
            yield Image.blend(picture.resize(size, Image.Resampling.BICUBIC), noise, 0.25)

    return _written(enlarged(), folder / "enlarged", DRAWN_QUALITY)


def _written(pictures: Iterator[Image.Image], folder: Path, quality: int) -> list[Path]:
    folder.mkdir()
    paths = []
    for number, picture in enumerate(pictures):
        paths.append(folder / f"{number:03d}.jpg")
        picture.save(paths[-1], "JPEG", quality=quality)
    return paths


def copies(pictures: Sequence[Path], folder: Path) -> Iterator[str]:
    """Paths of files that nobody has seen, without end: copies with other comments, which cost the same and are other
    contents."""
    folder.mkdir()
    for number, picture in zip(count(), cycle(pictures)):
        content, comment = picture.read_bytes(), f"copy {number}".encode()
        # After the two bytes that every JPEG begins with: a comment, which decoders pass over.
        mark = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        path = folder / f"{number:06d}.jpg"
        path.write_bytes(content[:2] + mark + content[2:])
        yield str(path)


def megapixels_of(path: Path) -> float:
    with Image.open(path) as image:
        return image.width * image.height / 1e6


@lru_cache(maxsize=1)
def _picture(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def _size(picture: Image.Image, megapixels: float) -> tuple[int, int]:
    """Width and height of as many pixels in the picture's shape."""
    width = round(math.sqrt(megapixels * 1e6 * picture.width / picture.height))
    return width, round(megapixels * 1e6 / width)


def _cropped(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    left, top, right, bottom = random.uniform(0, CROPPED, 4)
    width, height = picture.size
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    return picture.crop((round(box[0]), round(box[1]), round(box[2]), round(box[3])))
