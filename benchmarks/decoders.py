"""JPEG decoding by several libraries, on one core, to RGB pixels: at full size, and as small as an encoder allows.

    python -m benchmarks.decoders FILE [FILE ...]

Run by benchmarks.encoder in an environment with benchmarks/requirements-decoders.txt. Prints one JSON object: library
to file name to milliseconds, {"full", "reduced"}. *Reduced* is by the codec itself, the smallest of 1, 1/2, 1/4 and
1/8 whose short side has LEAST_PX pixels: the same rule as the service's.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

LEAST_PX = 448
#: Seconds that a library gets for one file and size.
SECONDS = 0.3

#: File's bytes and the divisor of its sides to RGB uint8 [h, w, 3].
Decode: TypeAlias = Callable[[bytes, int], Any]


def pillow() -> Decode:
    image = importlib.import_module("PIL.Image")

    def decode(content: bytes, divisor: int) -> Any:
        photo = image.open(io.BytesIO(content))
        if divisor > 1:
            photo.draft("RGB", (photo.width // divisor, photo.height // divisor))
        return np.asarray(photo.convert("RGB"))

    return decode


def simplejpeg() -> Decode:
    library = importlib.import_module("simplejpeg")

    def decode(content: bytes, divisor: int) -> Any:
        height, width, *_ = library.decode_jpeg_header(content)
        least = {} if divisor == 1 else {"min_height": height // divisor, "min_width": width // divisor}
        return library.decode_jpeg(content, "RGB", **least)

    return decode


def pyvips() -> Decode:
    library = importlib.import_module("pyvips")
    library.cache_set_max(0)

    def decode(content: bytes, divisor: int) -> Any:
        return library.Image.new_from_buffer(content, "", shrink=divisor, access="sequential").numpy()

    return decode


LIBRARIES: dict[str, Callable[[], Decode]] = {"pillow": pillow, "simplejpeg": simplejpeg, "pyvips": pyvips}


def divisor_of(short_side: int) -> int:
    return max(divisor for divisor in (1, 2, 4, 8) if divisor == 1 or short_side // divisor >= LEAST_PX)


def _ms(decode: Decode, content: bytes, divisor: int) -> float:
    """The fastest of the calls within SECONDS: whatever else runs on the machine only adds to it."""
    until, fastest = time.perf_counter() + SECONDS, np.inf
    while time.perf_counter() < until or fastest == np.inf:
        started = time.perf_counter()
        decode(content, divisor)
        fastest = min(fastest, time.perf_counter() - started)
    return round(float(fastest) * 1000, 1)


def main() -> None:
    os.environ["VIPS_CONCURRENCY"] = "1"
    image = importlib.import_module("PIL.Image")
    result: dict[str, Any] = {}
    for name, make in LIBRARIES.items():
        try:
            decode = make()
        except ImportError as exc:
            result[name] = {"skipped": str(exc)}
            continue
        result[name] = {}
        for path in map(Path, sys.argv[1:]):
            content = path.read_bytes()
            divisor = divisor_of(min(image.open(path).size))
            times = {"full": _ms(decode, content, 1), "reduced": _ms(decode, content, divisor)}
            pixels = decode(content, divisor)
            result[name][path.stem] = times | {"pixels": f"{pixels.shape[1]} x {pixels.shape[0]}"}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
