"""A web process for dropin.py: a line of JSON in is a request, a line of JSON out is its answer and what it took.

    python -m benchmarks.web CHECKPOINT PICKLE BROKER_URL

Both sides are this program; what is asked first decides which it is. A handler imports what it needs at its first
request, so that a process holds what a backend of that side would hold, and Flask where it is installed. Nothing
heavier than the standard library may be imported here.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any, TypeAlias

#: (lat, lon) or None where there is no answer, and the milliseconds of each part that is known.
Reply: TypeAlias = tuple[tuple[float, float] | None, dict[str, float]]


class Handlers:
    """`guide`: the old way. `locate`: Sightline's. `unchanged`: the code of the old way, with the class of the same
    name from producer_client, which is built for every request as the old one is."""

    def __init__(self, checkpoint: Path, pickled: Path, broker_url: str) -> None:
        self._checkpoint = checkpoint
        self._pickled = pickled
        self._broker_url = broker_url
        self._sightline: Any = None

    def guide(self, photo: str) -> Reply:
        started = time.perf_counter()
        from benchmarks.guide import ModelPerRequest

        imported = time.perf_counter()
        service = ModelPerRequest(self._checkpoint, self._pickled)
        found = service.find(photo)
        return _of_best(found), {"import": (imported - started) * 1000, **service.took_ms}

    def locate(self, photo: str) -> Reply:
        from producer_client import Sightline
        from producer_client.compat import to_guide_json

        if self._sightline is None:
            self._sightline = Sightline(self._broker_url)
        reply = self._sightline.locate(path=photo)
        result = to_guide_json(reply)
        if not result["success"]:
            return None, {}
        return (result["coordinates"]["latitude"], result["coordinates"]["longitude"]), {"worker": reply.took_ms}

    def unchanged(self, photo: str) -> Reply:
        from producer_client.compat import CLIPSimilarityService

        service = CLIPSimilarityService(broker_url=self._broker_url, strict=True)
        return _of_best(service.find_similar_images(photo, top_k=5, similarity_threshold=0.75)), {}


def main() -> None:
    checkpoint, pickled, broker_url = sys.argv[1:]
    handlers = Handlers(Path(checkpoint), Path(pickled), broker_url)
    try:
        importlib.import_module("flask")
        flask = True
    except ImportError:
        flask = False
    _say({"flask": flask})
    for line in sys.stdin:
        request = json.loads(line)
        handle = getattr(handlers, request["handler"])
        started = time.perf_counter()
        point, parts_ms = handle(request["photo"])
        _say({"ms": (time.perf_counter() - started) * 1000, "point": point, "parts_ms": parts_ms})


def _of_best(found: list[dict[str, Any]]) -> tuple[float, float] | None:
    return (found[0]["metadata"]["lat"], found[0]["metadata"]["lon"]) if found else None


def _say(words: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
