"""Photos a second, from the machine's limit to the end of the queue, beside the guide's way and what others use.

    python -m benchmarks.encoder [--quick] [--photos FOLDER]

JSON goes to stdout on one line, progress and tables to stderr. Everything is measured on the same JPEG files with the
same weights, ViT-B-32 of true shape with random numbers (which cost what trained ones cost), on all cores, one thing
after the other, each in processes of its own.

- *Limit*: the fastest product of matrices that was seen in a precision, by the GFLOP of one photo.
- *Backends*: the exported tower alone, squares in memory to vectors. The fastest pass counts: whatever else runs on a
  machine only adds to a time. Two rounds (one with --quick), so that a slow minute does not meet one backend alone.
- *Decode*: decoders.py on one core, and the service's own `decode` with its resizing.
- *Profile*: the CPU time that a photo costs in each stage, measured alone, beside what the worker takes in all, and
  what a pass consists of, as the backend's own profiler says.
- *Queue* (encoder_queue.py): client, Valkey, a worker process, Postgres. Bulk ends when the last photo is committed.
  Interactive is one search by photo after the other for every caller, of photos that were never seen. `unbatched` is
  the same with passes of one photo, `beside_bulk` one caller's while lists are added.
- *Guide*: its way of one request (guide.py) with the model in memory, and with a model for every request.
- *Peers*: encoder_peers.py.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import encoder_parts as parts
from benchmarks.encoder_parts import BATCHES, COMPILED, Tower
from benchmarks.encoder_peers import PEERS
from benchmarks.encoder_queue import queue
from benchmarks.photos import copies, megapixels_of, write_drawn
from benchmarks.processes import alone, ask, cores, python_of
from benchmarks.report import console, machine, step, table, tell, workplace
from benchmarks.stack import ARCHITECTURE, Checkpoint
from worker.commands.tables import Table

#: Of one photo: twice the multiplications of the image tower.
GFLOP = 8.7
#: Of the photos; smaller ones with --quick.
MEGAPIXELS, QUICK_MEGAPIXELS = 8.0, 3.0
#: Sizes that decoding is measured on.
DECODED_MEGAPIXELS = (1, 8, 24)
#: Different pictures; further files are copies of them.
PICTURES = 12
PRECISIONS = ("float32", "bfloat16", "int8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoder", description="Measure photos a second.")
    parser.add_argument("--photos", type=Path, help="a folder of JPEG files of yours (drawn ones)")
    parser.add_argument("--megapixels", type=float, help="size of the drawn photos")
    parser.add_argument("--quick", action="store_true", help="shorter passes, fewer and smaller photos")
    options = parser.parse_args(arguments)
    with workplace("encoder") as folder:
        result = _Run(folder, quick=options.quick, megapixels=options.megapixels).measure(options.photos)
    console.print(*_tables(result))
    tell(result)


class _Run:
    """One run of all parts, in a folder of its own."""

    def __init__(self, folder: Path, *, quick: bool, megapixels: float | None = None) -> None:
        self._folder = folder
        self._quick = quick
        self._seconds = 0.6 if quick else 2.5
        self._megapixels = megapixels or (QUICK_MEGAPIXELS if quick else MEGAPIXELS)

    def measure(self, given: Path | None) -> dict[str, Any]:
        about = machine("torch", "open-clip-torch", "onnxruntime", "openvino", "pillow", "celery")
        with step("photos"):
            if given is None:
                pictures = write_drawn(self._folder / "pictures", self._megapixels, PICTURES)
            elif not (pictures := sorted(given.rglob("*.jp*g"))):
                raise RuntimeError(f"no JPEG file under {given}")
            # A stored copy of a searched photo is passed over, which takes time and is not what is asked here.
            half = max(1, len(pictures) // 2)
            stored = self._fresh(pictures[:half], "stored")
            searched = self._fresh(pictures[half:] or pictures, "searched")
        tower = self._tower = Tower(Checkpoint(self._folder / "model"), self._folder / "models", pictures)
        peers_root = self._folder / "peers"
        with step("checkpoint, exports, and the table that `backend=auto` chooses from"):
            chosen, rows = _alone(parts.prepare, tower, peers_root)
        limits = self._limits()
        times = self._backends([row["backend"] for row in rows if row["ms_in_batch"] is not None])
        compiled = {"skipped": "--quick"} if self._quick else self._compiled()
        limits = {name: max(limits[name], again) for name, again in self._limits().items()}
        with step("where the time goes"):
            stages = _alone(parts.stages_cpu_ms, tower, chosen, self._seconds)
            operators = _alone(parts.operators_ms, tower, chosen)
        with step("decoding"):
            decode = self._decode()
        bulk, asked = (192, 40) if self._quick else (1024, 200)
        told = queue(self._folder, tower, stored=stored, searched=searched, bulk=bulk, asked=asked)
        with step("the guide's way"):
            paths = list(islice(stored, 24))
            loaded, per_request = _alone(parts.guide_photos_s, tower.checkpoint, paths, self._seconds)
        peers = {name: self._peer(name, peers_root) for name in PEERS}
        limit = {name: round(gflop_s / GFLOP, 2) for name, gflop_s in limits.items()}
        backends = {row["backend"]: _judged(row, times.get(row["backend"]), limit) for row in rows}
        raw = backends[chosen]["batches"][str(BATCHES[-1])]
        photos_s = told["bulk"]["photos_s"]
        return {
            "limit_photos_s": limit,
            "backends": backends,
            "chosen": chosen,
            "torch_compile": compiled,
            "decode": decode,
            "queue_bulk_photos_s": photos_s,
            "queue_interactive_ms": told["interactive"],
            "guide_photos_s": loaded,
            "guide_model_per_request_photos_s": per_request,
            "peers": peers,
            "ratio_queue_to_raw": round(photos_s / raw["photos_s"], 3),
            "ratio_to_guide": round(photos_s / loaded, 2),
            "ratio_to_guide_model_per_request": round(photos_s / per_request, 1),
            "ratio_to_limit": raw["share_of_limit"],
            "gemm_gflop_s": {name: round(gflop_s, 1) for name, gflop_s in limits.items()},
            "queue_bulk": told["bulk"],
            "profile": _profile(stages, told["bulk"]["cpu_ms_per_photo"]),
            "operators_ms": operators,
            "start": told["start"],
            "weights": f"{ARCHITECTURE}, random",
            "megapixels": round(statistics.median(map(megapixels_of, pictures)), 2),
            "file_mb": round(statistics.median(path.stat().st_size / 1e6 for path in pictures), 2),
            "threads": cores(),
            "quick": self._quick,
            "machine": about,
        }

    def _limits(self) -> dict[str, float]:
        with step("the limit: products of matrices"):
            return {name: _alone(parts.gemm_gflop_s, name, self._seconds) for name in PRECISIONS}

    def _backends(self, names: list[str]) -> dict[str, dict[int, float]]:
        """Backend to batch to the fastest milliseconds of a pass."""
        fastest: dict[str, dict[int, float]] = {}
        rounds = 1 if self._quick else 2
        for number in range(rounds):
            with step(f"backends, round {number + 1} of {rounds}"):
                for name in names:
                    now = _alone(parts.pass_ms, self._tower, name, self._seconds)
                    before = fastest.get(name, now)
                    fastest[name] = {batch: min(before[batch], now[batch]) for batch in now}
        return fastest

    def _compiled(self) -> dict[str, Any]:
        """What torch.compile makes of the quick form: photos/s by batch, and the seconds it takes before."""
        with step("torch.compile"):
            began = time.monotonic()
            try:
                ms = _alone(parts.pass_ms, self._tower, COMPILED, self._seconds)
            except RuntimeError as exc:
                return {"skipped": str(exc).splitlines()[0]}
            took = time.monotonic() - began - self._seconds * len(BATCHES)
        by_batch = {str(batch): round(1000 * batch / took_ms, 2) for batch, took_ms in ms.items()}
        return by_batch | {"seconds_to_begin": round(took, 1)}

    def _decode(self) -> dict[str, Any]:
        files = []
        for megapixels in DECODED_MEGAPIXELS:
            [drawn] = write_drawn(self._folder / f"decoded-{megapixels}", megapixels, 1)
            files.append(drawn.rename(self._folder / f"{megapixels} MP.jpg"))
        found = ask(python_of("decoders"), "benchmarks.decoders", {"files": list(map(str, files))})
        return found | {"the service's decode and resize": alone(parts.decode_ms, files)}

    def _peer(self, name: str, root: Path) -> dict[str, Any]:
        request = {
            "peer": name,
            "root": str(root),
            "photos": list(map(str, self._tower.pictures)),
            "threads": cores(),
            "batch": BATCHES[-1],
            "seconds": 2 * self._seconds,
            "calls": 1 if self._quick else 3,
            "vectors": str(root / f"{name}.npy"),
        }
        with step(f"peer: {name}"):
            result = ask(python_of(name), "benchmarks.encoder_peers", request)
        if "skipped" not in result:
            result["least_cosine"] = _least_cosine(np.load(root / f"{name}.npy"), np.load(root / "truth.npy"))
        return result

    def _fresh(self, pictures: list[Path], name: str) -> Iterator[str]:
        return copies(pictures, self._folder / name)


def _alone(function: Callable[..., Any], *given: Any) -> Any:
    return alone(function, *given, threads=cores())


def _least_cosine(vectors: Any, truth: Any) -> float | None:
    """Of a photo's vector to open_clip's own; None where they are not of the same space."""
    if vectors.shape != truth.shape:
        return None
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return round(float((unit * truth).sum(axis=1).min()), 6)


def _judged(row: dict[str, Any], times: dict[int, float] | None, limit: dict[str, float]) -> dict[str, Any]:
    """One backend's entry. times: batch to milliseconds of a pass."""
    precision = row["backend"].rpartition("-")[2]
    batches = {}
    for batch, ms in (times or {}).items():
        photos_s = 1000 * batch / ms
        share = round(photos_s / limit[precision], 3)
        batches[str(batch)] = {"photos_s": round(photos_s, 2), "ms": round(ms, 1), "share_of_limit": share}
    known = {name: row[name] for name in ("cosine", "neighbours", "ms_alone") if row.get(name) is not None}
    return {"accepted": row["why"] is None, "why": row["why"], "batches": batches, **known}


def _profile(stages: dict[str, float], spent: dict[str, float]) -> dict[str, float]:
    """CPU milliseconds of a bulk photo: the stages as measured alone, and what else the processes took."""
    of_bulk = {name: ms for name, ms in stages.items() if name != parts.ALONE}
    rest = spent["worker"] - sum(of_bulk.values())
    others = sum(ms for name, ms in spent.items() if name != "worker")
    return {
        **of_bulk,
        "the rest of the worker": round(rest, 2),
        "Postgres, Valkey and client": round(others, 2),
        "in all": round(sum(spent.values()), 2),
        f"for comparison: {parts.ALONE}": stages[parts.ALONE],
    }


def _tables(result: dict[str, Any]) -> Iterator[Table]:
    def batches(backend: dict[str, Any]) -> dict[str, str]:
        told = {
            batch: f"{row['photos_s']:.1f}  {row['share_of_limit']:.0%}" for batch, row in backend["batches"].items()
        }
        return {f"batch {batch}": words for batch, words in told.items()} | {"refused": backend["why"]}

    limits = ", ".join(f"{name} {photos_s:g}" for name, photos_s in result["limit_photos_s"].items())
    backends = {name + " (chosen)" * (name == result["chosen"]): row for name, row in result["backends"].items()}
    title = f"The encoder alone, photos/s and share of the limit ({limits})"
    yield table(title, {name: batches(row) for name, row in backends.items()})
    searches = dict(result["queue_interactive_ms"])
    beside, gain = searches.pop("beside_bulk"), searches.pop("batching_gain")
    one = searches["batched"]["callers_1"]["photos_s"]
    contenders = {
        "through the queue": {"photos_s": result["queue_bulk_photos_s"], "photos_s_one_by_one": one},
        "the guide's way": {"photos_s_one_by_one": result["guide_photos_s"]},
        "with a model for every request": {"photos_s_one_by_one": result["guide_model_per_request_photos_s"]},
    }
    title = f"JPEG files of {result['megapixels']:g} MP to vectors"
    yield table(title, contenders | result["peers"], ("photos_s", "photos_s_one_by_one", "how"))
    found = {f"{kind}, {callers}": row for kind, rows in searches.items() for callers, row in rows.items()}
    yield table(f"Searches through the queue, ms; batching gains {gain}", found | {"beside bulk": beside})
    yield table("A photo in bulk, CPU ms of all cores", {name: {"ms": ms} for name, ms in result["profile"].items()})
    operators = {name: {"ms": ms} for name, ms in result["operators_ms"].items()}
    yield table(f"Operators of a pass of {parts.BULK_PASS}", operators)
    libraries: dict[str, dict[str, Any]] = {}
    for name, found in result["decode"].items():
        if isinstance(found, str):
            libraries["decoders"] = {name: found}
        else:
            libraries[name] = found if "skipped" in found else {size: list(ms.values()) for size, ms in found.items()}
    yield table("Decoding on one core, ms: at full size, reduced", libraries)


if __name__ == "__main__":
    main()
