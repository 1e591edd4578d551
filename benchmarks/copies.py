"""How far copies of photos are from them, and how near different photos come: by their pictures' hashes and vectors.

    python -m benchmarks.copies FOLDER [ENCODER]

FOLDER holds a manifest.csv as `make demo PHOTOS=` takes it. Prints one JSON object: for each way of copying and for
the pairs of different photos, how many the rule takes for copies.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from statistics import median
from time import perf_counter
from unittest.mock import patch

from PIL import ExifTags, Image

from benchmarks.photos import listed
from benchmarks.report import tell
from worker.core.types import TOO_PLAIN
from worker.encoder import images
from worker.encoder.load import load_encoder
from worker.place.pictures import Look, bits_apart, is_copy
from worker.settings import Settings

Copying = Callable[[bytes, Image.Image], bytes]

#: Passes over the photos for the cost of a hash, the best of which counts.
PASSES = 5


def main(folder: Path, encoder_name: str = "packaged/efficientnet-lite0") -> dict[str, object]:
    settings = Settings()
    encoder = load_encoder(encoder_name, threads=settings.threads)
    items = listed(folder)
    places = [(item.metadata or {}).get("place") for item in items]
    contents = [Path(item.photo.path or "").read_bytes() for item in items]

    def looks(files: Sequence[bytes]) -> list[Look]:
        decoded = [images.decode(file, side=encoder.input_side, max_megapixels=100) for file in files]
        vectors = encoder.encode_images([one.pixels for one in decoded])
        return [Look(vector, one.picture_hash) for vector, one in zip(vectors, decoded, strict=True)]

    originals = looks(contents)
    copied: dict[str, object] = {}
    for name, copy in COPYINGS.items():
        copies = looks([copy(content, Image.open(io.BytesIO(content)).convert("RGB")) for content in contents])
        copied[name] = _figures(list(zip(originals, copies, strict=True)))
    pairs = list(combinations(range(len(items)), 2))
    return {
        "encoder": encoder.name,
        "photos": len(items),
        "copies": copied,
        "different_of_one_place": _figures([(originals[a], originals[b]) for a, b in pairs if places[a] == places[b]]),
        "different_places": _figures([(originals[a], originals[b]) for a, b in pairs if places[a] != places[b]]),
        "decoding_with_hash_to_without": _cost(contents, encoder.input_side),
    }


def _figures(pairs: Sequence[tuple[Look, Look]]) -> dict[str, object]:
    hashes = [(one.picture_hash, other.picture_hash) for one, other in pairs]
    bits = [bits_apart(one, other) for one, other in hashes if one and other]
    cosines = [float(one.vector @ other.vector) for one, other in pairs]
    return {
        "pairs": len(pairs),
        "bits": [min(bits), median(bits), max(bits)],
        "cosine": [round(f(cosines), 3) for f in (min, median, max)],
        "taken_for_copies": sum(is_copy(one, other) for one, other in pairs),
        "without_hashes": sum(is_copy(Look(one.vector, None), Look(other.vector, None)) for one, other in pairs),
    }


def _cost(contents: Sequence[bytes], side: int) -> float:
    """Time to decode with the hash, in parts of that without it."""

    def once() -> float:
        started = perf_counter()
        for content in contents:
            images.decode(content, side=side, max_megapixels=100)
        return perf_counter() - started

    with_hash, without = [], []
    for _ in range(PASSES):  # in turns, so that drift of the machine meets both
        with_hash.append(once())
        with patch.object(images, "picture_hash", lambda _: TOO_PLAIN):
            without.append(once())
    return round(min(with_hash) / min(without), 3)


def _saved(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _smaller(image: Image.Image, factor: int) -> Image.Image:
    return image.resize((image.width // factor, image.height // factor), Image.Resampling.LANCZOS)


def _cropped(image: Image.Image, share: float) -> Image.Image:
    """Less by `share` of the width and of the height, the same on each side."""
    left, top = image.width * share / 2, image.height * share / 2
    return image.crop((round(left), round(top), round(image.width - left), round(image.height - top)))


def _turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return _saved(image.transpose(Image.Transpose.ROTATE_90), quality=90, exif=exif.tobytes())


def _thumbnail(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((256, 256))
    return small


COPYINGS: dict[str, Copying] = {
    "one more segment": lambda content, _: content[:2] + b"\xff\xfe\x00\x06copy" + content[2:],
    "quality 95": lambda _, image: _saved(image, quality=95),
    "quality 80": lambda _, image: _saved(image, quality=80),
    "quality 50": lambda _, image: _saved(image, quality=50),
    "quality 30": lambda _, image: _saved(image, quality=30),
    "half size": lambda _, image: _saved(_smaller(image, 2), quality=90),
    "quarter size": lambda _, image: _saved(_smaller(image, 4), quality=90),
    "quarter size, quality 50": lambda _, image: _saved(_smaller(image, 4), quality=50),
    "256 pixels": lambda _, image: _saved(_thumbnail(image), quality=85),
    "turned, upright by its tag": lambda _, image: _turned(image),
    "grey": lambda _, image: _saved(image.convert("L"), quality=90),
    "a seventh brighter": lambda _, image: _saved(image.point(lambda value: min(255, value * 8 // 7)), quality=90),
    "PNG": lambda _, image: _saved(image, "PNG", compress_level=1),
    "WebP": lambda _, image: _saved(image, "WEBP", quality=80, method=0),
    "crop of 2 %": lambda _, image: _saved(_cropped(image, 0.02), quality=90),
    "crop of 5 %": lambda _, image: _saved(_cropped(image, 0.05), quality=90),
    "crop of 10 %": lambda _, image: _saved(_cropped(image, 0.10), quality=90),
    "mirrored": lambda _, image: _saved(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), quality=90),
}


if __name__ == "__main__":
    tell(main(Path(sys.argv[1]), *sys.argv[2:3]))
