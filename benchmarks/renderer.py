"""Real features: the demo's drawn streets, seen by the packaged network.

Few places, and cameras a step apart: most of a query's neighbours are almost equal, as the photos of one burst are.
That is the hard case for codes of few bits, and the one which the generator (vectors.py) does not imitate.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.measure import VectorFile, Vectors
from benchmarks.processes import spawn
from demo.scenes import JPEG_QUALITY, Viewpoint, place_names, render, viewpoints

if TYPE_CHECKING:
    from worker.core.ports import Encoder

ENCODER = "packaged/efficientnet-lite0"
#: Pixels, width and height; the network sees 224 x 224.
SIZE = (320, 240)
#: One view in so many is not stored but asked for.
HOLD_BACK_EVERY = 10
#: Views that a process draws and encodes at a time.
BATCH = 10


def write_features(path: Path, views: int) -> tuple[VectorFile, Vectors]:
    """Draw `views` views of every place and encode them; returns (stored vectors, queries). A process for each core."""
    wanted = viewpoints(places=len(place_names()), views=views)
    batches = [wanted[start : start + BATCH] for start in range(0, len(wanted), BATCH)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=spawn) as pool:
        vectors = np.concatenate(list(pool.map(_features, batches)))
    asked = np.arange(len(vectors)) % HOLD_BACK_EVERY == 0
    return VectorFile.write(path, [vectors[~asked]]), vectors[asked]


def _features(views: list[Viewpoint]) -> Vectors:
    from worker.encoder.images import decode

    encoder = _encoder()
    return encoder.encode_images([decode(_photo(v), side=encoder.input_side, max_megapixels=1).pixels for v in views])


@cache
def _encoder() -> Encoder:
    # torch is imported in the processes that encode, not in the one whose children are measured.
    from worker.encoder.load import load_encoder

    return load_encoder(ENCODER, device="cpu", threads=1)


def _photo(view: Viewpoint) -> bytes:
    file = io.BytesIO()
    render(view, size=SIZE).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
