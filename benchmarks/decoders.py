"""JPEG decoding by several libraries, on one core, to RGB pixels: at full size, and as small as an encoder allows.

Asked by benchmarks.encoder in an environment with benchmarks/requirements-decoders.txt. Answers with library to file
name to milliseconds, {"full", "reduced"}. *Reduced* is by the codec itself, the smallest of 1, 1/2, 1/4 and 1/8 whose
short side has LEAST_PX pixels: the same rule as the service's.
"""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.measure import answer, fastest_s

LEAST_PX = 448
#: Seconds that a library gets for one file and size.
SECONDS = 0.3

#: The library, a file's bytes and the divisor of its sides to RGB uint8 [h, w, 3].
Decode: TypeAlias = Callable[[Any, bytes, int], Any]


def pillow(image: Any, content: bytes, divisor: int) -> Any:
    photo = image.open(io.BytesIO(content))
    if divisor > 1:
        photo.draft("RGB", (photo.width // divisor, photo.height // divisor))
    return np.asarray(photo.convert("RGB"))


def simplejpeg(library: Any, content: bytes, divisor: int) -> Any:
    height, width, *_ = library.decode_jpeg_header(content)
    least = {} if divisor == 1 else {"min_height": height // divisor, "min_width": width // divisor}
    return library.decode_jpeg(content, "RGB", **least)


def pyvips(library: Any, content: bytes, divisor: int) -> Any:
    library.cache_set_max(0)
    return library.Image.new_from_buffer(content, "", shrink=divisor, access="sequential").numpy()


#: Name to module and function.
LIBRARIES: dict[str, tuple[str, Decode]] = {
    "pillow": ("PIL.Image", pillow),
    "simplejpeg": ("simplejpeg", simplejpeg),
    "pyvips": ("pyvips", pyvips),
}


def divisor_of(short_side: int) -> int:
    return max(divisor for divisor in (1, 2, 4, 8) if divisor == 1 or short_side // divisor >= LEAST_PX)


def measure(*, files: list[str]) -> dict[str, Any]:
    os.environ["VIPS_CONCURRENCY"] = "1"
    image = importlib.import_module("PIL.Image")
    result: dict[str, Any] = {}
    for name, (module, function) in LIBRARIES.items():
        try:
            decode = partial(function, importlib.import_module(module))
        except ImportError as exc:
            result[name] = {"skipped": str(exc)}
            continue
        result[name] = {}
        for path in map(Path, files):
            content = path.read_bytes()
            divisor = divisor_of(min(image.open(path).size))
            times = {"full": _ms(decode, content, 1), "reduced": _ms(decode, content, divisor)}
            pixels = decode(content, divisor)
            result[name][path.stem] = times | {"pixels": f"{pixels.shape[1]} x {pixels.shape[0]}"}
    return result


def _ms(decode: Callable[[bytes, int], Any], content: bytes, divisor: int) -> float:
    return round(1000 * fastest_s(lambda: decode(content, divisor), seconds=SECONDS), 1)


if __name__ == "__main__":
    answer(measure)
