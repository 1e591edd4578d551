"""Photos a second, from the machine's limit to the end of the queue, beside the guide's way and what others use.

    python -m benchmarks.encoder [--quick] [--photos FOLDER]

JSON goes to stdout, progress and tables for people to stderr. Everything is measured on the same JPEG files with the
same weights, ViT-B-32 of true shape with random numbers (which cost what trained ones cost), on all cores of this
process's affinity, one thing after the other, each in processes of its own.

- *Limit*: the fastest product of matrices that was seen in a precision, by the GFLOP of one photo.
- *Backends*: the exported tower alone, squares in memory to vectors. The fastest pass counts: whatever else runs on a
  machine only adds to a time. Two rounds (one with --quick), so that a slow minute does not meet one backend alone.
- *Decode*: decoders.py on one core, and the service's own `decode` with its resizing.
- *Profile*: the CPU time that a photo costs in each stage, measured alone, beside what the worker takes in all, and
  what a pass consists of, as the backend's own profiler says.
- *Queue*: client, Valkey, a worker process, Postgres. Bulk ends when the last photo is committed. Interactive is one
  search by photo after the other for every caller, of photos that were never seen. `unbatched` is the same with
  passes of one photo, `beside_bulk` one caller's while lists are added.
- *Guide*: its way of one request (guide.py) with the model in memory, and with a model for every request.
- *Peers*: encoder_peers.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from rich.markup import escape
from rich.table import Table

from benchmarks import encoder_parts as parts
from benchmarks.encoder_parts import ARCHITECTURE, BATCHES, COMPILED
from benchmarks.encoder_peers import PEERS, Request
from benchmarks.measure import percentile_ms
from benchmarks.processes import alone
from benchmarks.report import console, machine, step
from demo.scenes import write_scenes
from producer_client import NewPhoto, Photo, Provenance, Refused, Sightline
from worker.settings import Settings
from worker.stack import Process, Stack, raise_on_signals

#: Of one photo: twice the multiplications of the image tower.
GFLOP = 8.7
#: Of the photos; smaller ones with --quick.
MEGAPIXELS, QUICK_MEGAPIXELS = 8.0, 3.0
#: Sizes that decoding is measured on.
DECODED_MEGAPIXELS = (1, 8, 24)
#: Different pictures; further files are copies with another comment, which cost the same and are other contents.
PICTURES = 12
NOISE = 5.0
JPEG_QUALITY = 90
CALLERS = 8
ROUNDS, QUICK_ROUNDS = 2, 1
PRECISIONS = ("float32", "bfloat16", "int8")
ROOT = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoder", description="Measure photos a second.")
    parser.add_argument("--photos", type=Path, help="a folder of JPEG files of yours (drawn ones)")
    parser.add_argument("--megapixels", type=float, help="size of the drawn photos")
    parser.add_argument("--quick", action="store_true", help="shorter passes, fewer and smaller photos")
    options = parser.parse_args(arguments)
    raise_on_signals()
    folder = Path(tempfile.mkdtemp(prefix="sightline-encoder-"))
    # Postgres runs as a user of its own when started by root.
    folder.chmod(0o755)
    try:
        result = _Run(folder, quick=options.quick, megapixels=options.megapixels).measure(options.photos)
    except KeyboardInterrupt:
        sys.exit("stopped; everything that the benchmark started is stopped, too")
    except (RuntimeError, OSError, ValueError) as exc:
        sys.exit(f"the benchmark failed: {exc}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print(_backends_table(result), _queue_table(result), _profile_table(result), _decode_table(result))
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


class _Run:
    """One run of all parts, in a folder of its own."""

    def __init__(self, folder: Path, *, quick: bool, megapixels: float | None = None) -> None:
        self._folder = folder
        self._quick = quick
        self._threads = len(os.sched_getaffinity(0))
        self._seconds = 0.6 if quick else 2.5
        self._rounds = QUICK_ROUNDS if quick else ROUNDS
        self._bulk = 192 if quick else 1024
        self._megapixels = megapixels or (QUICK_MEGAPIXELS if quick else MEGAPIXELS)
        self._asked = 40 if quick else 200

    def measure(self, given: Path | None) -> dict[str, Any]:
        about = machine("torch", "open-clip-torch", "onnxruntime", "openvino", "pillow", "celery")
        with step("photos"):
            if given:
                self._pictures = sorted(given.rglob("*.jp*g"))
            else:
                self._pictures = _drawn(self._folder / "pictures", self._megapixels)
            if not self._pictures:
                raise RuntimeError(f"no JPEG file under {given}")
            # A stored copy of a searched photo is passed over, which takes time and is not what is asked here.
            half = max(1, len(self._pictures) // 2)
            self._stored = self._fresh(self._pictures[:half], "stored")
            self._searched = self._fresh(self._pictures[half:] or self._pictures, "searched")
        peers_root = self._folder / "peers"
        with step("checkpoint, exports, and the table that `backend=auto` chooses from"):
            self._checkpoint = self._folder / "model" / f"{ARCHITECTURE}.safetensors"
            self._checkpoint.parent.mkdir()
            chosen, rows = self._alone(_prepare, self._checkpoint, self._models, self._pictures, peers_root)
            self._sha256 = hashlib.sha256(self._checkpoint.read_bytes()).hexdigest()
        limits = self._limits()
        times = self._backends([row["backend"] for row in rows if row["ms_in_batch"] is not None])
        compiled = {"skipped": "--quick"} if self._quick else self._compiled()
        limits = {name: max(limits[name], again) for name, again in self._limits().items()}
        with step("where the time goes"):
            stages = self._alone(parts.stages_cpu_ms, chosen, *self._given, self._seconds)
            operators = self._alone(parts.operators_ms, chosen, *self._given)
        with step("decoding"):
            decode = self._decode()
        queue = self._queue()
        with step("the guide's way"):
            loaded, per_request = self._alone(_guide, self._checkpoint, self._paths(24), self._seconds)
        peers = {name: self._peer(name, peers_root) for name in PEERS}
        limit = {name: round(gflop_s / GFLOP, 2) for name, gflop_s in limits.items()}
        backends = {row["backend"]: _judged(row, times.get(row["backend"]), limit) for row in rows}
        raw = backends[chosen]["batches"][str(BATCHES[-1])]
        bulk = queue["bulk"]["photos_s"]
        return {
            "limit_photos_s": limit,
            "backends": backends,
            "chosen": chosen,
            "torch_compile": compiled,
            "decode": decode,
            "queue_bulk_photos_s": bulk,
            "queue_interactive_ms": queue["interactive"],
            "guide_photos_s": loaded,
            "guide_model_per_request_photos_s": per_request,
            "peers": peers,
            "ratio_queue_to_raw": round(bulk / raw["photos_s"], 3),
            "ratio_to_guide": round(bulk / loaded, 2),
            "ratio_to_guide_model_per_request": round(bulk / per_request, 1),
            "ratio_to_limit": raw["share_of_limit"],
            "gemm_gflop_s": {name: round(gflop_s, 1) for name, gflop_s in limits.items()},
            "queue_bulk": queue["bulk"],
            "profile": _profile(stages, queue["bulk"]["cpu_ms_per_photo"]),
            "operators_ms": operators,
            "start": queue["start"],
            "weights": f"{ARCHITECTURE}, random",
            "megapixels": round(statistics.median(_megapixels(path) for path in self._pictures), 2),
            "file_mb": round(statistics.median(path.stat().st_size / 1e6 for path in self._pictures), 2),
            "threads": self._threads,
            "quick": self._quick,
            "machine": about,
        }

    # ------------------------------------------------------------------------------------- parts

    def _limits(self) -> dict[str, float]:
        with step("the limit: products of matrices"):
            return {name: self._alone(parts.gemm_gflop_s, name, self._seconds) for name in PRECISIONS}

    def _backends(self, names: list[str]) -> dict[str, dict[int, float]]:
        """Backend to batch to the fastest milliseconds of a pass."""
        fastest: dict[str, dict[int, float]] = {}
        for number in range(self._rounds):
            with step(f"backends, round {number + 1} of {self._rounds}"):
                for name in names:
                    now = self._alone(parts.pass_ms, name, *self._given, self._seconds)
                    before = fastest.get(name, now)
                    fastest[name] = {batch: min(before[batch], now[batch]) for batch in now}
        return fastest

    def _compiled(self) -> dict[str, Any]:
        """What torch.compile makes of the quick form: photos/s by batch, and the seconds it takes before."""
        with step("torch.compile"):
            began = time.monotonic()
            try:
                ms = self._alone(parts.pass_ms, COMPILED, *self._given, self._seconds)
            except RuntimeError as exc:
                return {"skipped": str(exc).splitlines()[0]}
            took = time.monotonic() - began - self._seconds * len(BATCHES)
        return {str(batch): round(1000 * batch / took_ms, 2) for batch, took_ms in ms.items()} | {
            "seconds_to_begin": round(took, 1)
        }

    def _decode(self) -> dict[str, Any]:
        files = []
        for megapixels in DECODED_MEGAPIXELS:
            (drawn,) = _drawn(self._folder / f"decoded-{megapixels}", megapixels, count=1)
            files.append(drawn.rename(self._folder / f"{megapixels} MP.jpg"))
        found: dict[str, Any] = self._other("decoders", "benchmarks.decoders", *map(str, files))
        found["the service's decode and resize"] = self._alone(parts.decode_ms, files, threads=1)
        return found

    def _queue(self) -> dict[str, Any]:
        settings = Settings(
            data_dir=self._folder / "service",
            models_dir=self._models,
            photo_roots=(self._folder,),
            encoder=f"open_clip/{ARCHITECTURE}/{self._checkpoint}",
            encoder_sha256=self._sha256,
            device="cpu",
            backend="auto",
            model_threads=self._threads,
        )
        with Stack(settings, log_dir=self._folder / "logs", port=0) as stack:
            with step("the service starts"):
                began = time.monotonic()
                worker = stack.start("worker")
                stack.wait_ready()
                start: dict[str, Any] = {"ready_s": round(time.monotonic() - began, 2)}
                others = [stack.start("worker", "--role", "index"), stack.start("beat")]
            with stack.client() as client:
                with step("bulk through the queue"):
                    _add(client, self._paths(64))
                    bulk = _bulk(stack, worker, client, self._paths(self._bulk))
                with step("searches through the queue"):
                    client.rebuild_index(timeout_s=120)
                    interactive = {"batched": self._interactive(client)}
                    interactive["beside_bulk"] = self._beside_bulk(client)
            processes = {"worker": worker, "index": others[0], "beat": others[1]}
            start["rss_mb"] = {name: _rss_mb(process) for name, process in processes.items()}
            worker.ask_to_stop()
            worker.wait()
            stack.processes.remove(worker)
            with step("searches without batching"):
                single = {"encode_batch": 1, "encode_bulk_batch": 1}
                stack.start("worker", settings=stack.settings.model_copy(update=single))
                stack.wait_ready()
                with stack.client() as client:
                    interactive["unbatched"] = self._interactive(client)
            stack.check()
        many, single_s = (interactive[kind][f"callers_{CALLERS}"]["photos_s"] for kind in ("batched", "unbatched"))
        return {
            "start": start,
            "bulk": bulk,
            "interactive": interactive | {"batching_gain": round(many / single_s, 2)},
        }

    def _interactive(self, client: Sightline) -> dict[str, Any]:
        _searches(client, list(islice(self._searched, 2 * CALLERS)), CALLERS)
        return {
            f"callers_{callers}": _searches(client, list(islice(self._searched, self._asked)), callers)
            for callers in (1, CALLERS)
        }

    def _beside_bulk(self, client: Sightline) -> dict[str, Any]:
        """One caller's searches while a list is being added. bulk_to_the_end: it was not done before they were."""
        paths, searched = self._paths(self._bulk), list(islice(self._searched, self._asked // 4))
        with ThreadPoolExecutor(1) as bulk:
            adding = bulk.submit(_add, client, paths)
            # The first messages are in hand.
            time.sleep(1.0)
            found = _searches(client, searched, 1)
            still = not adding.done()
            adding.result()
        return found | {"bulk_to_the_end": still}

    def _peer(self, name: str, root: Path) -> dict[str, Any]:
        from benchmarks import clip_folder

        with step(f"peer: {name}"):
            request = Request(
                root=str(root),
                folder=str(root / clip_folder.FOLDER),
                rclip=str(root / clip_folder.RCLIP),
                imgbeddings=str(root / clip_folder.IMGBEDDINGS),
                photos=[str(path) for path in self._pictures],
                threads=self._threads,
                batch=BATCHES[-1],
                seconds=2 * self._seconds,
                calls=1 if self._quick else 3,
                vectors=str(root / f"{name}.npy"),
            )
            request.write(root / f"{name}.json")
            result = self._other(name, "benchmarks.encoder_peers", name, str(root / f"{name}.json"))
        if "skipped" not in result:
            result["least_cosine"] = _least_cosine(np.load(request.vectors), np.load(root / "truth.npy"))
        return result

    # ------------------------------------------------------------------------------------ shared

    @property
    def _given(self) -> tuple[Path, Path, list[Path]]:
        return self._checkpoint, self._models, self._pictures

    @property
    def _models(self) -> Path:
        return self._folder / "models"

    def _alone(self, function: Callable[..., Any], *given: Any, threads: int = 0) -> Any:
        return alone(function, *given, threads=threads or self._threads)

    def _other(self, name: str, module: str, *given: str) -> dict[str, Any]:
        """What a module of this package prints in the environment .venv-bench-NAME."""
        python = ROOT / f".venv-bench-{name}" / "bin" / "python"
        if not python.exists():
            return {"skipped": f"benchmarks/requirements-{name}.txt could not be installed"}
        done = subprocess.run(
            [python, "-m", module, *given],
            cwd=ROOT,
            env=os.environ | {n: str(self._threads) for n in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")},
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode != 0 or not done.stdout:
            return {"skipped": " ".join(done.stderr.strip().splitlines()[-1:]) or f"exit status {done.returncode}"}
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def _fresh(self, pictures: list[Path], name: str) -> Iterator[str]:
        """Paths of files that nobody has seen, without end."""
        folder = self._folder / name
        folder.mkdir()
        number = 0
        while True:
            for picture in pictures:
                content = picture.read_bytes()
                comment = f"copy {number}".encode()
                path = folder / f"{number:06d}.jpg"
                # After the two bytes that every JPEG begins with: a comment, which decoders pass over.
                mark = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
                path.write_bytes(content[:2] + mark + content[2:])
                number += 1
                yield str(path)

    def _paths(self, count: int) -> list[str]:
        return list(islice(self._stored, count))


# ------------------------------------------------------------------- in processes of their own


def _prepare(
    checkpoint: Path, models: Path, pictures: list[Path], peers_root: Path
) -> tuple[str, list[dict[str, Any]]]:
    """Write the checkpoint, the exports and what the peers load; returns what `auto` takes, and the table."""
    from dataclasses import asdict

    from benchmarks import clip_folder
    from benchmarks.guide import ModelPerRequest, prepare
    from worker.encoder.images import decode
    from worker.encoder.load import table

    prepare(checkpoint, checkpoint.with_name("none.pkl"), [(str(pictures[0]), {})])
    peers_root.mkdir()
    clip_folder.write(checkpoint, peers_root)
    guide = ModelPerRequest(checkpoint, checkpoint.with_name("nothing"))
    np.save(peers_root / "truth.npy", np.stack([guide.encode(str(path)) for path in pictures]))

    def known(side: int) -> list[Any]:
        some = [decode(path.read_bytes(), side=side, max_megapixels=100).pixels for path in pictures]
        # Enough of them to be compared on: parts of the pictures.
        halves = [part for pixels in some for part in np.array_split(pixels, 4, axis=1)]
        return some + halves

    choice = table(
        f"open_clip/{ARCHITECTURE}/{checkpoint}",
        sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        device="cpu",
        threads=len(os.sched_getaffinity(0)),
        models=models,
        known_photos=known,
    )
    return choice.backend("auto"), [asdict(row) for row in choice.rows]


def _guide(checkpoint: Path, paths: list[str], seconds: float) -> tuple[float, float]:
    """(photos a second with the model in memory, with a model for every photo)."""
    import torch

    from benchmarks.guide import ModelPerRequest

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    nothing = checkpoint.with_name("nothing")
    service = ModelPerRequest(checkpoint, nothing)
    service.encode(paths[0])

    def photos_s(encode: Callable[[str], object], least: int) -> float:
        times = []
        until = time.perf_counter() + seconds
        for path in paths * 100:
            started = time.perf_counter()
            encode(path)
            times.append(time.perf_counter() - started)
            if len(times) >= least and time.perf_counter() > until:
                break
        return round(1 / statistics.median(times), 2)

    return photos_s(service.encode, 10), photos_s(lambda path: ModelPerRequest(checkpoint, nothing).encode(path), 3)


# --------------------------------------------------------------------------------- the queue


def _add(client: Sightline, paths: Sequence[str]) -> None:
    new = [NewPhoto(path, Photo(path=path), lat=50.0, lon=14.0, provenance=Provenance.SURVEYED) for path in paths]
    for outcome in client.add_many(new):
        if isinstance(outcome, Refused):
            raise RuntimeError(f"{outcome.ref} was not taken: {outcome.message}")


def _bulk(stack: Stack, worker: Process, client: Sightline, paths: Sequence[str]) -> dict[str, Any]:
    before, own = _cpu_s(stack, worker), time.process_time()
    began = time.perf_counter()
    _add(client, paths)
    seconds = time.perf_counter() - began
    spent = {name: after - before[name] for name, after in _cpu_s(stack, worker).items()}
    spent["client"] = time.process_time() - own
    return {
        "photos": len(paths),
        "photos_s": round(len(paths) / seconds, 2),
        "cpu_ms_per_photo": {name: round(1000 * cpu_s / len(paths), 2) for name, cpu_s in spent.items()},
        "cores_busy": round(sum(spent.values()) / seconds, 2),
    }


def _cpu_s(stack: Stack, worker: Process) -> dict[str, float]:
    """CPU seconds so far of the worker, and of the servers: processes that work in the stack's folder."""
    spent = {"worker": _cpu_of(psutil.Process(worker.pid)), "postgres": 0.0, "valkey": 0.0}
    home = str(stack.settings.data_dir.resolve())
    for process in psutil.process_iter(["name", "cwd"]):
        if (process.info["cwd"] or "").startswith(home):
            for name in ("postgres", "valkey"):
                if name in process.info["name"]:
                    spent[name] += _cpu_of(process)
    return spent


def _cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _rss_mb(process: Process) -> float:
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    return round(float(sum(member.memory_info().rss for member in family)) / 1e6, 1)


def _searches(client: Sightline, paths: Sequence[str], callers: int) -> dict[str, float]:
    def search(path: str) -> tuple[float, float]:
        started = time.perf_counter()
        reply = client.search(path=path, threshold=-1.0)
        return time.perf_counter() - started, reply.took_ms / 1000

    with ThreadPoolExecutor(callers) as pool:
        began = time.perf_counter()
        took = np.array(list(pool.map(search, paths)))
        seconds = time.perf_counter() - began
    return {
        "p50": percentile_ms(took[:, 0], 50),
        "p99": percentile_ms(took[:, 0], 99),
        "photos_s": round(len(paths) / seconds, 2),
        "in_the_worker_p50": percentile_ms(took[:, 1], 50),
        "beside_the_worker_p50": percentile_ms(took[:, 0] - took[:, 1], 50),
    }


# ----------------------------------------------------------------------------------- photos


def _drawn(folder: Path, megapixels: float, count: int = PICTURES) -> list[Path]:
    """Street scenes enlarged to the size of a phone's photo, with noise: without it they would decode too quickly."""
    scenes = write_scenes(folder / "scenes", places=max(1, count // 4), views=4, size=(1280, 960))
    written = []
    for number, scene in enumerate(scenes[:count]):
        with Image.open(scene.path) as image:
            width = round((megapixels * 1e6 * image.width / image.height) ** 0.5)
            size = (width, round(megapixels * 1e6 / width))
            picture = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        noise = Image.effect_noise(size, 4 * NOISE).convert("RGB")
        path = folder / f"{number:02d}.jpg"
        Image.blend(picture, noise, 0.25).save(path, "JPEG", quality=JPEG_QUALITY)
        written.append(path)
    return written


def _megapixels(path: Path) -> float:
    with Image.open(path) as image:
        return image.width * image.height / 1e6


def _least_cosine(vectors: Any, truth: Any) -> float | None:
    """Of a photo's vector to open_clip's own; None where they are not of the same space."""
    if vectors.shape != truth.shape:
        return None
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return round(float((unit * truth).sum(axis=1).min()), 6)


# ----------------------------------------------------------------------------------- tables


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
    return (
        of_bulk
        | {
            "the rest of the worker": round(rest, 2),
            "Postgres, Valkey and client": round(others, 2),
            "in all": round(sum(spent.values()), 2),
        }
        | {f"for comparison: {parts.ALONE}": stages[parts.ALONE]}
    )


def _profile_table(result: dict[str, Any]) -> Table:
    table = Table(title="A photo through the queue in bulk, CPU ms of all cores together")
    table.add_column("stage")
    table.add_column("ms", justify="right")
    for name, ms in result["profile"].items():
        table.add_row(name, f"{ms:.1f}")
    spent = result["operators_ms"]
    for name, ms in spent.items():
        table.add_row(f"  operator {name}, of a pass of {parts.BULK_PASS}", f"{ms / sum(spent.values()):.0%}")
    return table


def _backends_table(result: dict[str, Any]) -> Table:
    limits = ", ".join(f"{name} {photos_s:g}" for name, photos_s in result["limit_photos_s"].items())
    table = Table(title=f"The encoder alone, photos/s and share of the limit ({limits})")
    table.add_column("backend", no_wrap=True)
    for batch in BATCHES:
        table.add_column(f"batch {batch}", justify="right", no_wrap=True)
    table.add_column("")
    for name, row in result["backends"].items():
        cells = [
            f"{row['batches'][str(batch)]['photos_s']:.1f}  {row['batches'][str(batch)]['share_of_limit']:.0%}"
            if str(batch) in row["batches"]
            else ""
            for batch in BATCHES
        ]
        verdict = "chosen" if name == result["chosen"] else "" if row["accepted"] else row["why"]
        table.add_row(name, *cells, escape(verdict))
    return table


def _queue_table(result: dict[str, Any]) -> Table:
    table = Table(title=f"JPEG files of {result['megapixels']:g} MP to vectors, photos/s")
    table.add_column("")
    table.add_column("in batches", justify="right")
    table.add_column("one by one", justify="right")
    table.add_column("")
    interactive = result["queue_interactive_ms"]
    batched, single = interactive["batched"], interactive["unbatched"]
    one, many = batched["callers_1"], batched[f"callers_{CALLERS}"]
    words = f"a search: p50 {one['p50']:.0f} ms, p99 {one['p99']:.0f}"
    table.add_row("through the queue", f"{result['queue_bulk_photos_s']:.1f}", f"{one['photos_s']:.1f}", words)
    words = (
        f"p50 {many['p50']:.0f} ms, p99 {many['p99']:.0f}; unbatched {single[f'callers_{CALLERS}']['photos_s']:.1f}/s"
    )
    table.add_row(f"  {CALLERS} callers", "", f"{many['photos_s']:.1f}", words)
    beside = interactive["beside_bulk"]
    table.add_row(
        "  beside bulk", "", f"{beside['photos_s']:.1f}", f"p50 {beside['p50']:.0f} ms, p99 {beside['p99']:.0f}"
    )
    words = f"with a model for every request {result['guide_model_per_request_photos_s']:.2f}"
    table.add_row("the guide's way", "", f"{result['guide_photos_s']:.1f}", words)
    for name, peer in result["peers"].items():
        if "skipped" in peer:
            table.add_row(name, "", "", escape(peer["skipped"]))
        else:
            table.add_row(name, f"{peer['photos_s']:.1f}", f"{peer['photos_s_one_by_one']:.1f}", escape(peer["how"]))
    return table


def _decode_table(result: dict[str, Any]) -> Table:
    table = Table(title="Decoding on one core, ms: at full size, reduced")
    table.add_column("")
    for megapixels in DECODED_MEGAPIXELS:
        table.add_column(f"{megapixels} MP", justify="right", no_wrap=True)
    for name, sizes in result["decode"].items():
        if "skipped" in sizes:
            table.add_row(name, escape(sizes["skipped"]))
            continue
        cells = [sizes[f"{megapixels} MP"] for megapixels in DECODED_MEGAPIXELS]
        table.add_row(name, *(f"{cell.get('full', '')}  {cell['reduced']}" for cell in cells))
    return table


if __name__ == "__main__":
    main()
