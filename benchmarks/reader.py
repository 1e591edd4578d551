"""How long a worker takes to read a bulk message, beside an earlier release in the same run.

    python -m benchmarks.reader [--before CHECKOUT] [--turns 6]

The message holds 256 photos with coordinates, address and metadata, decoded from JSON already, as celery gives it. The
releases read it by turns, 50 times each in a process of its own. Prints one line of JSON: medians in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PHOTOS = 256
#: Readings in one turn, after one that is not counted.
READINGS = 50
ROOT = Path(__file__).parents[1]


def message() -> dict[str, Any]:
    return {"v": 1, "photos": [photo(number) for number in range(PHOTOS)]}


def photo(number: int) -> dict[str, Any]:
    path = f"2026/11/23/IMG_{number:05}.jpg"
    return {
        "ref": path,
        "photo": {"photo_id": None, "path": f"/photos/{path}", "url": None, "inline": None},
        "lat": 55.7 + number / 10_000,
        "lon": 13.2 - number / 10_000,
        "provenance": "exif_gps",
        "address": {"country": "Sverige", "city": "Lund", "street": "Stora Södergatan", "house": f"{number}"},
        "metadata": {"camera": "Pixel 9", "taken_at": "2026-11-23T12:00:00Z", "iso": 100, "tags": ["street", "winter"]},
    }


def turn(checkout: Path) -> list[float]:
    """Milliseconds of each reading by the release that lies there."""
    command = [sys.executable, "-P", __file__, "--read-as", str(checkout)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(checkout)}, stdout=subprocess.PIPE, check=True)
    times: list[float] = json.loads(done.stdout)
    return times


def read_as(checkout: Path) -> list[float]:
    """What a turn does in its process."""
    from producer_client import contract

    if not Path(contract.__file__).is_relative_to(checkout):
        raise SystemExit(f"{contract.__file__} does not lie in {checkout}")
    wire = json.loads(json.dumps(message()))
    times: list[float] = []
    for _ in range(1 + READINGS):
        started = time.perf_counter()
        photos = contract.AddToIndex.from_wire(wire).read_new_photos()
        times.append((time.perf_counter() - started) * 1000)
        if not all(isinstance(photo, contract.NewPhoto) for photo in photos):
            raise SystemExit(f"a photo of the message was refused: {photos}")
    return times[1:]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reader", description="Measure the reader of messages.")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="an earlier release to read beside this one")
    parser.add_argument("--turns", type=int, default=6, help=f"of {READINGS} readings by each")
    parser.add_argument("--read-as", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.read_as:
        sys.stdout.write(json.dumps(read_as(options.read_as)))
        return
    releases = {"now": ROOT} | ({"before": options.before.resolve()} if options.before else {})
    turns = [{name: turn(checkout) for name, checkout in releases.items()} for _ in range(options.turns)]
    ms = {name: statistics.median(time for by_name in turns for time in by_name[name]) for name in releases}
    told = {"photos": PHOTOS, "readings": options.turns * READINGS, **{f"{name}_ms": round(ms[name], 3) for name in ms}}
    if options.before:
        told["times_as_fast"] = round(ms["before"] / ms["now"], 2)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
