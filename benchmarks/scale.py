"""What a second worker process brings and costs: photos and searches a second, a message's cost, its memory.

    python -m benchmarks.scale [--quick]

JSON goes to stdout on one line, progress and tables to stderr.

- *Pinned apart*: each worker, with its decoders, has a core of its own. Postgres, Valkey and the client share the first
  core that is left; where there are but two, they share that of the second worker, also while only the first one runs.
- *Photos*: lists of new files to `embed`, by messages of 64: read, decoded, through the model, vectors in Postgres.
- *Searches*: by new photos, and by vectors, of 16 callers. Photos that were seen would be answered from memory.
- *By one and by two workers*, in turns. `scale` is the median of the rounds' own ratios. `cores_allow` is what it could
  be at the most, by the processor time that a piece of work takes of its worker and of the others. `machine_scale` is
  the same ratio of two processes that run the model alone, without any queue.
- *Queue*: 10,000 questions by a vector of another model, which a worker refuses at its first look at them. It has in it
  what every message costs: written, sent, taken, read, checked, answered, logged, acknowledged, its reply stored and
  fetched; and beside that one look a second at which model serves. One worker on its core, the others on theirs.
  `bare` is Celery alone with the same Redis, on the same cores (bare.py): its messages are neither checked nor logged.
- *Memory*: what each process has to itself and its share of what it has together with others (PSS). `worker_mb` is of
  whole ones, with their decoders and a small index; `index` is what scale_memory.py finds, and what searches lose while
  some are repeated to tell the recall.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks import scale_memory
from benchmarks.photos import copies, write_drawn
from benchmarks.processes import alone
from benchmarks.report import console, machine, step, table, tell, workplace
from benchmarks.scale_work import CALLERS, ENCODER, KINDS, QUICK, Size, Work, passes, pinned, prepare
from benchmarks.stack import add
from worker import alive
from worker.children import Process
from worker.encoder.choice import LEAST_SAMPLE
from worker.settings import Settings
from worker.stack import Stack

#: Of the photos; and different pictures, of which the files are copies.
MEGAPIXELS, PICTURES = 3.0, 12
#: Seconds for a worker to load its model.
READY_S = 120.0


@dataclass(frozen=True)
class Cores:
    """Which core has what. others: of Postgres, Valkey and the client."""

    workers: tuple[int, int]
    others: int

    @property
    def count(self) -> int:
        return len({*self.workers, self.others})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description="Measure a second worker.")
    parser.add_argument("--quick", action="store_true", help="fewer photos, searches and messages, one round")
    size = QUICK if parser.parse_args(arguments).quick else Size()
    about = machine("celery", "torch", "faiss-cpu")
    with workplace("scale") as folder:
        own = _cores()
        # Threads and processes that are started from here on are there, too, unless they are given another core.
        os.sched_setaffinity(0, {own.others})
        result = _measured(folder, own, size)
        console.print(*_tables(result))
        # Nothing is timed there.
        os.sched_setaffinity(0, {*own.workers, own.others})
        with step(f"an index of {size.indexed:,} vectors in two processes"):
            index = scale_memory.measured(folder / "memory", size.indexed, turns=size.turns)
    console.print(*_memory_tables(result, index))
    scale = {kind: figures["scale"] for kind, figures in result["work"].items()}
    tell(
        {
            "scale_2": scale["photos"],
            "queue_us_per_message": result["queue"]["us_per_message"],
            "extra_process_mb": result["worker_mb"]["next"],
            "extra_process_index_mb": index["next_mb"],
            "extra_process_index_share": index["share"],
            **result,
            "index": index,
            "cores": {"workers": own.workers, "others": own.others},
            "machine": about,
        }
    )


def _cores() -> Cores:
    """Raises RuntimeError where there is but one."""
    there = sorted(os.sched_getaffinity(0))
    if len(there) < 2:
        raise RuntimeError("two cores are needed, one for each worker")
    return Cores((there[0], there[1]), there[min(2, len(there) - 1)])


def _measured(folder: Path, own: Cores, size: Size) -> dict[str, Any]:
    with step("photos"):
        fresh = copies(write_drawn(folder / "pictures", MEGAPIXELS, PICTURES), folder / "photos")
    models = folder / "models"
    with step("what runs the model fastest on one core"):
        backend = alone(prepare, models, list(islice(fresh, LEAST_SAMPLE)))
    with step("the model alone, in one process and in two"):
        without_queue = statistics.median(passes(own.workers, models, backend) for _ in range(size.rounds))
    settings = Settings(
        data_dir=folder / "service",
        photo_roots=(folder,),
        encoder=ENCODER,
        models_dir=models,
        model_threads=1,
        rungs=(),
    )
    rounds: list[dict[int, dict[str, Any]]] = []
    with Stack(settings, log_dir=folder / "logs", port=0) as stack:
        first = _start(stack, own.workers[0])
        _wait_loaded(stack)
        with stack.client() as client, ThreadPoolExecutor(CALLERS) as callers:
            work = Work(stack, client, callers, fresh, size)
            add(client, ((path, 50.0, 14.0) for path in islice(fresh, 64)))
            work.warm()
            with step(f"{size.messages:,} messages that ask for nothing"):
                queue = work.queue(first)
            with step(f"{size.messages:,} of Celery alone"):
                bare = work.bare(own.workers[0])
            for number in range(size.rounds):
                found: dict[int, dict[str, Any]] = {}
                # Each of them begins every other round.
                for workers in (1, 2) if number % 2 == 0 else (2, 1):
                    with _workers(stack, own, workers), step(f"by {workers} of 2 workers"):
                        if workers == 2:
                            work.warm()
                        found[workers] = work.all()
                rounds.append(found)
        stack.check()
    told = {kind: _kind([{n: one[n][kind] for n in one} for one in rounds], own) for kind in KINDS}
    memory = [(one[1]["pss_mb"], one[2]["pss_mb"]) for one in rounds]
    first_mb, next_mb = (statistics.median(values) for values in zip(*((a, b - a) for a, b in memory), strict=True))
    return {
        "work": told,
        "machine_scale": without_queue,
        "backend": backend,
        "queue": queue | {"bare": bare, "of_bare": round(queue["us_per_message"] / bare["us_per_message"], 2)},
        "worker_mb": {"first": round(first_mb, 1), "next": round(next_mb, 1)},
    }


def _kind(rounds: Sequence[dict[int, dict[str, float]]], own: Cores) -> dict[str, Any]:
    """What became of one kind of work in all rounds."""
    worker_ms = statistics.median(one[1]["worker_ms"] for one in rounds)
    others_ms = statistics.median(one[1]["others_ms"] for one in rounds)
    return {
        "a_second": {n: round(statistics.median(one[n]["a_second"] for one in rounds), 2) for n in (1, 2)},
        "scale": round(statistics.median(one[2]["a_second"] / one[1]["a_second"] for one in rounds), 3),
        "cores_allow": round(cores_allow(worker_ms, others_ms, own.count), 3),
        "cpu_ms": {"worker": round(worker_ms, 2), "others": round(others_ms, 2)},
        "cores_busy": {n: round(statistics.median(one[n]["cores_busy"] for one in rounds), 2) for n in (1, 2)},
    }


def cores_allow(worker_ms: float, others_ms: float, count: int) -> float:
    """How many times as much two workers can do as one at the most, where each and all others have a core or, of
    `count` 2, the second worker's is the others' too. worker_ms, others_ms: processor time of a piece of work."""
    one = 1 / max(worker_ms, others_ms)
    if count == 2:
        # Of two cores, none is idle; and the others cannot have more than theirs.
        return min(2 / (worker_ms + others_ms), 1 / others_ms) / one
    return min(2 / worker_ms, 1 / others_ms) / one


def _start(stack: Stack, core: int) -> Process:
    """A worker on this core, with all that it starts."""
    with pinned(core):
        return stack.start("worker")


@contextmanager
def _workers(stack: Stack, own: Cores, wanted: int) -> Iterator[None]:
    """The first runs all the time; the second only meanwhile."""
    if wanted == 1:
        yield
        return
    second = _start(stack, own.workers[1])
    _wait_loaded(stack)
    yield
    second.ask_to_stop()
    second.wait()
    stack.processes.remove(second)


def _wait_loaded(stack: Stack) -> None:
    """Until every worker has its model, as it says of itself. Raises Ended, or RuntimeError after READY_S."""
    deadline = time.monotonic() + READY_S
    wanted = {process.pid for process in stack.processes}
    while not wanted <= {one.said["pid"] for one in alive.everywhere(stack.settings) if "encoder" in one.said}:
        stack.check()
        if time.monotonic() > deadline:
            raise RuntimeError(f"a worker did not load its model within {READY_S:g} s")
        time.sleep(0.2)


def _tables(result: dict[str, Any]) -> list[Any]:
    rows = {
        kind: {
            "1 worker": one["a_second"][1],
            "2 workers": one["a_second"][2],
            "scale": one["scale"],
            "cores allow": one["cores_allow"],
            "worker ms": one["cpu_ms"]["worker"],
            "others ms": one["cpu_ms"]["others"],
        }
        for kind, one in result["work"].items()
    }
    queue = result["queue"]
    messages = {
        name: {"wall": one["us_per_message"], **one["cpu_us"]}
        for name, one in (("Sightline", queue), ("Celery alone", queue["bare"]))
    }
    return [
        table(f"a second, of two workers; the model alone: {result['machine_scale']} x", rows),
        table(f"{queue['messages']:,} messages, us of each", messages),
    ]


def _memory_tables(result: dict[str, Any], index: dict[str, Any]) -> list[Any]:
    return [
        table("memory (PSS), MB", {"worker": result["worker_mb"], "index": index["mb"]}),
        table(
            f"searches while one in so many is repeated, {index['repeated']['exact_ms']} ms each; ms of a search",
            {str(one_in): one for one_in, one in index["repeated"]["one_in"].items()},
        ),
    ]


if __name__ == "__main__":
    main()
