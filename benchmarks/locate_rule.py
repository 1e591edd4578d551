"""Leave-one-out over a folder of photos: how often and how well the rule locates, and what it says of unseen places.

    python -m benchmarks.locate_rule FOLDER [ENCODER]

FOLDER holds a manifest.csv as `make demo PHOTOS=` takes it. Prints one JSON object.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.photos import listed
from benchmarks.report import tell
from producer_client.contract import DEFAULT_THRESHOLD, Hit
from worker.core.geo import distance_m
from worker.encoder.images import decode
from worker.encoder.load import load_encoder
from worker.place.rule import Rule, answer
from worker.settings import Settings


def main(folder: Path, encoder_name: str = "packaged/efficientnet-lite0") -> dict[str, object]:
    items = listed(folder)
    settings = Settings()
    encoder = load_encoder(encoder_name, threads=settings.threads)
    contents = (Path(item.photo.path or "").read_bytes() for item in items)
    side = encoder.input_side
    vectors = encoder.encode_images([decode(c, side=side, max_megapixels=100).pixels for c in contents])
    rule = Rule(
        threshold=DEFAULT_THRESHOLD,
        window=settings.locate_similarity_window,
        agree_m=settings.locate_agree_m,
        min_share=settings.locate_min_share,
        min_witnesses=settings.locate_min_witnesses,
        neighbours=settings.locate_neighbours,
    )

    def errors_m(is_known: Callable[[int, int], bool]) -> list[float]:
        """Of the photos that are located when the index holds those that `is_known(asked, other)` names."""
        errors = []
        for asked, item in enumerate(items):
            hits = [
                Hit(n, float(vectors[n] @ vectors[asked]), None, i.lat, i.lon, i.provenance, content_sha256=str(n))
                for n, i in enumerate(items)
                if is_known(asked, n)
            ]
            point = answer(hits, rule, index_count=len(hits)).point
            if point is not None and item.lat is not None and item.lon is not None:
                errors.append(distance_m(point.lat, point.lon, item.lat, item.lon))
        return errors

    places = [str((item.metadata or {}).get("place")) for item in items]
    found = errors_m(lambda asked, known: known != asked)
    return {
        "encoder": encoder.name,
        "photos": len(items),
        "located": len(found),
        "median_error_m": round(statistics.median(found), 1) if found else None,
        "largest_error_m": round(max(found), 1) if found else None,
        "located_of_unseen_places": len(errors_m(lambda asked, known: places[known] != places[asked])),
    }


if __name__ == "__main__":
    tell(main(Path(sys.argv[1]), *sys.argv[2:3]))
