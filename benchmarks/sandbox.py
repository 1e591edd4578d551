"""What decoders of their own cost: photos a second through the whole service, without and with them, in turns.

    python -m benchmarks.sandbox [--photos N] [--rounds N] [--megapixels N]

JSON goes to stdout on one line. Every round starts a worker for each setting of SIGHTLINE_SANDBOX and adds as many new
photos as a list; a slow minute of the machine so meets both. The model is the smallest there is, so that decoding is
as large a part as it can be. `share` is the median of the rounds' own ratios, 1 where nothing is lost.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from benchmarks.photos import copies, write_drawn
from benchmarks.report import machine, step, tell, workplace
from benchmarks.stack import add
from worker.encoder.choice import REFERENCE
from worker.settings import Settings
from worker.stack import Stack

MODES = ("off", "auto")
#: Photos that go before the clock runs: whatever is loaded with the first ones is there.
WARM = 24
#: Different pictures; further files are copies of them.
PICTURES = 12


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sandbox", description="Measure what decoders cost.")
    parser.add_argument("--photos", type=int, default=160, help="photos of a round (160)")
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument("--megapixels", type=float, default=8.0, help="of each photo (8)")
    options = parser.parse_args(arguments)
    with workplace("sandbox") as folder:
        rounds = _rounds(folder, options.photos, options.rounds, options.megapixels)
    told = {mode: [one[mode] for one in rounds] for mode in MODES}
    shares = [one["auto"]["photos_s"] / one["off"]["photos_s"] for one in rounds]
    tell(
        {
            "photos": options.photos,
            "megapixels": options.megapixels,
            "photos_s": {mode: statistics.median(one["photos_s"] for one in told[mode]) for mode in MODES},
            "cpu_ms_per_photo": {mode: statistics.median(one["cpu_ms"] for one in told[mode]) for mode in MODES},
            "share": round(statistics.median(shares), 3),
            "rounds": rounds,
            "machine": machine("pillow", "simplejpeg"),
        }
    )


def _rounds(folder: Path, photos: int, rounds: int, megapixels: float) -> list[dict[str, Any]]:
    with step("photos"):
        pictures = write_drawn(folder / "pictures", megapixels, PICTURES)
        fresh = copies(pictures, folder / "photos")
    settings = Settings(
        data_dir=folder / "service", photo_roots=(folder,), encoder="packaged/efficientnet-lite0", backend=REFERENCE
    )
    found: list[dict[str, Any]] = []
    with Stack(settings, log_dir=folder / "logs", port=0) as stack:
        for number in range(rounds):
            # Each of them begins every other round.
            turn = MODES if number % 2 == 0 else MODES[::-1]
            found.append({mode: _round(stack, mode, list(islice(fresh, WARM + photos))) for mode in turn})
    return found


def _round(stack: Stack, mode: str, paths: Sequence[str]) -> dict[str, Any]:
    with step(f"SIGHTLINE_SANDBOX={mode}"):
        worker = stack.start("worker", settings=stack.settings.model_copy(update={"sandbox": mode}))
        stack.wait_ready()
        with stack.client() as client:
            add(client, ((path, 50.0, 14.0) for path in paths[:WARM]))
            before, began = _cpu_s(worker.pid), time.perf_counter()
            add(client, ((path, 50.0, 14.0) for path in paths[WARM:]))
            seconds, spent = time.perf_counter() - began, _cpu_s(worker.pid) - before
            level = client.stats().sandbox
        worker.ask_to_stop()
        worker.wait()
        stack.processes.remove(worker)
    count = len(paths) - WARM
    return {
        "photos_s": round(count / seconds, 2),
        "cpu_ms": round(1000 * spent / count, 2),
        "level": level,
    }


def _cpu_s(pid: int) -> float:
    """Of a worker and its decoders."""
    first = psutil.Process(pid)
    times = [member.cpu_times() for member in (first, *first.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


if __name__ == "__main__":
    main()
