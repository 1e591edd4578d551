"""Leave-one-out over a folder of photos: how often and how well the rule locates, and what it says of unseen places.

    python -m benchmarks.locate_rule FOLDER [ENCODER]

FOLDER holds a manifest.csv as `make demo PHOTOS=` takes it. Prints one JSON object.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from producer_client.contract import DEFAULT_THRESHOLD, Hit, NewPhoto
from worker.core.geo import distance_m
from worker.core.vectors import Vectors
from worker.encoder.images import decode
from worker.encoder.load import load_encoder
from worker.manifest import read_manifest
from worker.place.rule import Rule, answer
from worker.settings import Settings


def main(folder: Path, encoder_name: str = "packaged/efficientnet-lite0") -> dict[str, object]:
    items = list(read_manifest(folder / "manifest.csv"))
    places = [str((item.metadata or {}).get("place")) for item in items]
    settings = Settings()
    encoder = load_encoder(encoder_name, threads=settings.threads)
    pixels = [
        decode(Path(i.photo.path or "").read_bytes(), side=encoder.input_side, max_megapixels=100).pixels for i in items
    ]
    vectors = encoder.encode_images(pixels)
    rule = Rule(
        threshold=DEFAULT_THRESHOLD,
        window=settings.locate_similarity_window,
        agree_m=settings.locate_agree_m,
        min_share=settings.locate_min_share,
        min_witnesses=settings.locate_min_witnesses,
        neighbours=settings.locate_neighbours,
    )
    errors = _errors(items, vectors, rule, lambda asked, known: known != asked)
    unseen = _errors(items, vectors, rule, lambda asked, known: places[known] != places[asked])
    found = [error for error in errors if error is not None]
    return {
        "encoder": encoder.name,
        "photos": len(items),
        "located": len(found),
        "median_error_m": round(statistics.median(found), 1) if found else None,
        "largest_error_m": round(max(found), 1) if found else None,
        "located_of_unseen_places": sum(error is not None for error in unseen),
    }


def _errors(
    items: list[NewPhoto], vectors: Vectors, rule: Rule, is_known: Callable[[int, int], bool]
) -> list[float | None]:
    """Per photo, the error in metres when it is asked for and `is_known(asked, other)` photos are in the index.

    None where the rule abstains.
    """
    errors: list[float | None] = []
    for asked, item in enumerate(items):
        similarities = vectors @ vectors[asked]
        hits = [
            Hit(n, float(similarities[n]), None, items[n].lat, items[n].lon, items[n].provenance, content_sha256=str(n))
            for n in map(int, np.argsort(-similarities))
            if is_known(asked, n)
        ]
        point = answer(hits, rule, index_count=len(hits)).point
        if point is None or item.lat is None or item.lon is None:
            errors.append(None)
        else:
            errors.append(distance_m(point.lat, point.lon, item.lat, item.lon))
    return errors


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), *sys.argv[2:3])) + "\n")
