"""Real features: the demo's drawn streets, seen by the packaged network.

Few places, and cameras a step apart: most of a query's neighbours are almost equal, as the photos of one burst are.
That is the hard case for codes of few bits, and the one which the generator (vectors.py) does not imitate.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.measure import VectorFile, Vectors
from benchmarks.processes import cores
from demo.scenes import place_names, write_scenes

ENCODER = "packaged/efficientnet-lite0"
#: Pixels, width and height; the network sees 224 x 224.
SIZE = (320, 240)
#: One view in so many is not stored but asked for.
HOLD_BACK_EVERY = 10


def write_features(folder: Path, views: int) -> tuple[VectorFile, Vectors]:
    """Draw `views` views of every place and encode them; returns (stored vectors, queries).

    To be run in a process of its own: torch is imported in it, and not in the one whose children are measured.
    """
    from worker.encoder.images import decode
    from worker.encoder.load import load_encoder

    encoder = load_encoder(ENCODER, device="cpu", threads=cores())
    drawn = write_scenes(folder / "drawn", places=len(place_names()), views=views, size=SIZE)
    contents = (photo.path.read_bytes() for photo in drawn)
    vectors = encoder.encode_images([decode(c, side=encoder.input_side, max_megapixels=1).pixels for c in contents])
    asked = np.arange(len(vectors)) % HOLD_BACK_EVERY == 0
    return VectorFile.write(folder / "features.f32", [vectors[~asked]]), vectors[asked]
