"""From the start of a worker's process until it is ready, without torch and with it, in turns; and megabytes of both.

    python -m benchmarks.start --serve PYTHON [--runs N] [--before FOLDER]

JSON goes to stdout on one line, progress and tables to stderr. PYTHON is that of an environment with
requirements/lock.txt alone, as the image `serve` has it; `full` is the one that runs this. Both serve the same exports
of each model, with a small generation of the index: `small` is the packaged EfficientNet, `clip` a ViT-B-32 of true
shape with random weights, which cost what trained ones cost. A worker is ready where `sightline health --ready` says
so; `ready_s` is the median. `steps_s` is when a worker has reached what, by its own log, in the run nearest to
the median; several go on beside each other. The first run of each is not counted: it measures what can run the model.
`mb` are the files of the packages that the locks name, without Python and without ours.

--before: a checkout of another release, whose worker is measured in turns with these, by the same Pythons.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.photos import write_drawn
from benchmarks.processes import alone, cores
from benchmarks.report import console, machine, step, table, tell, workplace
from benchmarks.stack import Checkpoint, add
from worker.encoder.base import PACKAGED
from worker.health import judged
from worker.pulse import read
from worker.settings import Settings
from worker.stack import Stack

ROOT = Path(__file__).parents[1]
LOCKS = {"serve": ("lock",), "full": ("lock", "lock-models", "lock-torch")}
#: Seconds that a worker may take, a first one that measures among them, and between two looks at it.
PATIENCE_S, LOOK_S = 300.0, 0.005
PHOTOS = 24
#: Run by the Python that is measured.
SIZE = """
import os, re, sys
from importlib.metadata import distributions
wanted, total = set(sys.argv[1].split()), {}
for found in distributions():
    name = re.sub("[-_.]+", "-", found.metadata["Name"]).lower()
    if name in wanted:
        paths = [found.locate_file(file) for file in found.files or ()]
        total[name] = sum(os.path.getsize(path) for path in paths if os.path.isfile(path))
lacking = wanted - total.keys()
assert not lacking, lacking
print(sum(total.values()) / 1e6)
"""


class Start(NamedTuple):
    """ready_s: seen from outside. steps: as the worker says them."""

    ready_s: float
    steps: dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description="Measure how workers start.")
    parser.add_argument("--serve", required=True, help="the Python of an environment with requirements/lock.txt alone")
    parser.add_argument("--runs", type=int, default=10, help="starts of each that count (10)")
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    options = parser.parse_args(arguments)
    pythons = {"serve": options.serve, "full": sys.executable}
    workers = {kind: (python, ROOT) for kind, python in pythons.items()}
    if options.before:
        workers |= {f"{kind}_before": (python, options.before.resolve()) for kind, python in pythons.items()}
    # Before other processes of this have run.
    ran_by = machine("openvino", "onnxruntime")
    with workplace("start") as folder:
        checkpoint = Checkpoint(folder / "checkpoint")
        with step("random weights"):
            alone(checkpoint.write, folder / "nothing")
        encoders = {
            "small": {"encoder": PACKAGED},
            "clip": {"encoder": checkpoint.encoder, "encoder_sha256": checkpoint.sha256},
        }
        found = {
            name: _measured(folder / name, encoder, workers, runs=options.runs) for name, encoder in encoders.items()
        }
    for name, of_model in found.items():
        rows = {kind: {"ready_s": told["ready_s"], **told["steps_s"]} for kind, told in of_model.items()}
        console.print(table(f"{name}: seconds since the process began", rows))
    tell(
        {
            **found,
            "mb": {kind: round(_megabytes(python, kind)) for kind, python in pythons.items()},
            "ratio": {name: round(of["serve"]["ready_s"] / of["full"]["ready_s"], 2) for name, of in found.items()},
            "machine": ran_by,
        }
    )


def _measured(
    folder: Path, encoder: Mapping[str, str], workers: Mapping[str, tuple[str, Path]], *, runs: int
) -> dict[str, Any]:
    """Of one model, by the name of the worker."""
    folder.mkdir()
    folder.chmod(0o755)
    settings = Settings(
        data_dir=folder / "service",
        models_dir=folder / "models",
        photo_roots=(folder,),
        device="cpu",
        model_threads=cores(),
        exam_photos=0,
        log_format="json",
        **encoder,  # type: ignore[arg-type]  # texts
    )
    started: dict[str, list[Start]] = {kind: [] for kind in workers}
    with Stack(settings, log_dir=folder / "logs", port=0) as stack:
        with step(f"{folder.name}: an export, and a generation of a few photos"):
            _export(stack.settings)
            stack.start_all()
            stack.wait_ready()
            with stack.client() as client:
                add(client, [(str(path), 51.5, -0.1) for path in write_drawn(folder, 1.0, PHOTOS)])
                client.rebuild_index()
            for process in stack.processes:
                process.ask_to_stop()
                process.wait()
        for run in range(runs + 1):
            with step(f"{folder.name}: start {run or 'that is not counted'} of each"):
                for kind, (python, code) in workers.items():
                    start = _start(python, code, stack.settings, folder / f"{kind}-{run}")
                    if run:
                        started[kind].append(start)
    return {kind: _told(starts) for kind, starts in started.items()}


def _export(settings: Settings) -> None:
    # Not as one of the stack, which takes whatever ends for gone.
    command, env = [sys.executable, "-m", "worker.cli", "export"], os.environ | settings.as_env()
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the model is not exported: {done.stderr[-2000:]}")


def _told(starts: Sequence[Start]) -> dict[str, Any]:
    median = statistics.median(start.ready_s for start in starts)
    nearest = min(starts, key=lambda start: abs(start.ready_s - median))
    return {
        "ready_s": round(median, 2),
        "runs_s": [round(start.ready_s, 2) for start in starts],
        "steps_s": nearest.steps,
    }


def _start(python: str, code: Path, settings: Settings, data_dir: Path) -> Start:
    """Of a worker with a data folder of its own. Raises RuntimeError where it is not ready in time, or ends instead."""
    data_dir.mkdir()
    own = settings.model_copy(update={"data_dir": data_dir, "index_dir": settings.generations_dir})
    log = data_dir / "log"
    with log.open("w") as written:
        started = time.monotonic()
        worker = subprocess.Popen(
            [python, "-m", "worker.cli", "worker"],
            cwd=code,
            env=os.environ | own.as_env() | {"SIGHTLINE_INDEX_DIR": str(settings.generations_dir)},
            stdout=written,
            stderr=written,
        )
        try:
            while not judged([process for process in read(data_dir) if process.lives])[1]:
                if worker.poll() is not None or time.monotonic() - started > PATIENCE_S:
                    raise RuntimeError(f"the worker is not ready: {log.read_text()[-2000:]}")
                time.sleep(LOOK_S)
            took_s = time.monotonic() - started
        finally:
            worker.terminate()
            worker.wait(PATIENCE_S)
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    (ready,) = [line for line in lines if line["message"] == "ready"] or [{}]
    return Start(took_s, {name: value for name, value in ready.items() if name.endswith("_s") and name != "took_s"})


def _megabytes(python: str, kind: str) -> float:
    lines = [line for name in LOCKS[kind] for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()]
    names = " ".join(line.partition("==")[0] for line in lines if "==" in line)
    done = subprocess.run([python, "-c", SIZE, names], capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
