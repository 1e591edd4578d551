"""Photos through the whole service: client, Valkey, a worker process, Postgres; lists of them, and searches."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.encoder_parts import Tower
from benchmarks.measure import percentile_ms
from benchmarks.report import step
from benchmarks.stack import add, servers
from producer_client import Sightline
from worker.children import Process
from worker.stack import Stack

CALLERS = 8


def queue(
    folder: Path, tower: Tower, *, stored: Iterator[str], searched: Iterator[str], bulk: int, asked: int
) -> dict[str, Any]:
    """The service's start, a list of photos, and searches of one caller and of many, batched and not.

    stored, searched: paths of files to add and to ask for, each new. bulk, asked: how many of them.
    """
    with servers(folder, tower.checkpoint, models_dir=tower.models, backend="auto") as stack:
        with step("the service starts"):
            began = time.monotonic()
            worker = stack.start("worker")
            stack.wait_ready()
            start: dict[str, Any] = {"ready_s": round(time.monotonic() - began, 2)}
            processes = {"worker": worker, "index": stack.start("worker", "--role", "index")}
            processes["beat"] = stack.start("beat")
        with stack.client() as client:
            with step("bulk through the queue"):
                _add(client, islice(stored, 64))
                told = _bulk(stack, worker, client, list(islice(stored, bulk)))
            with step("searches through the queue"):
                client.rebuild_index(timeout_s=120)
                batched = _interactive(client, searched, asked)
                beside = _beside_bulk(client, list(islice(stored, bulk)), list(islice(searched, asked // 4)))
        start["rss_mb"] = {name: _rss_mb(process) for name, process in processes.items()}
        worker.ask_to_stop()
        worker.wait()
        stack.processes.remove(worker)
        with step("searches without batching"):
            single = {"encode_batch": 1, "encode_bulk_batch": 1}
            stack.start("worker", settings=stack.settings.model_copy(update=single))
            stack.wait_ready()
            with stack.client() as client:
                unbatched = _interactive(client, searched, asked)
    many, one_by_one = (found[f"callers_{CALLERS}"]["photos_s"] for found in (batched, unbatched))
    interactive = {"batched": batched, "beside_bulk": beside, "unbatched": unbatched}
    interactive["batching_gain"] = round(many / one_by_one, 2)
    return {"start": start, "bulk": told, "interactive": interactive}


def _add(client: Sightline, paths: Iterable[str]) -> None:
    add(client, ((path, 50.0, 14.0) for path in paths))


def _bulk(stack: Stack, worker: Process, client: Sightline, paths: Sequence[str]) -> dict[str, Any]:
    before, own = cpu_s(stack, [worker]), time.process_time()
    began = time.perf_counter()
    _add(client, paths)
    seconds = time.perf_counter() - began
    spent = {name: after - before[name] for name, after in cpu_s(stack, [worker]).items()}
    spent["client"] = time.process_time() - own
    return {
        "photos": len(paths),
        "photos_s": round(len(paths) / seconds, 2),
        "cpu_ms_per_photo": {name: round(1000 * cpu_s / len(paths), 2) for name, cpu_s in spent.items()},
        "cores_busy": round(sum(spent.values()) / seconds, 2),
    }


def _interactive(client: Sightline, searched: Iterator[str], asked: int) -> dict[str, Any]:
    _searches(client, islice(searched, 2 * CALLERS), CALLERS)
    return {f"callers_{callers}": _searches(client, islice(searched, asked), callers) for callers in (1, CALLERS)}


def _beside_bulk(client: Sightline, paths: Sequence[str], searched: Sequence[str]) -> dict[str, Any]:
    """One caller's searches while a list is being added. bulk_to_the_end: it was not done before they were."""
    with ThreadPoolExecutor(1) as bulk:
        adding = bulk.submit(_add, client, paths)
        # The first messages are in hand.
        time.sleep(1.0)
        found = _searches(client, searched, 1)
        still = not adding.done()
        adding.result()
    return found | {"bulk_to_the_end": still}


def _searches(client: Sightline, searched: Iterable[str], callers: int) -> dict[str, Any]:
    def search(path: str) -> tuple[float, float]:
        started = time.perf_counter()
        reply = client.search(path=path, threshold=-1.0)
        return time.perf_counter() - started, reply.took_ms / 1000

    # The files are written before the clock runs.
    paths = list(searched)
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


def cpu_s(stack: Stack, workers: Sequence[Process]) -> dict[str, float]:
    """CPU seconds so far of workers with their decoders, and of the servers: processes that work in the stack's
    folder."""
    spent = {"worker": sum(_cpu_of(member) for worker in workers for member in members(worker))}
    spent |= {"postgres": 0.0, "valkey": 0.0}
    home = str(stack.settings.data_dir.resolve())
    for process in psutil.process_iter(["name", "cwd"]):
        for name in ("postgres", "valkey"):
            if (process.info["cwd"] or "").startswith(home) and name in process.info["name"]:
                spent[name] += _cpu_of(process)
    return spent


def members(worker: Process) -> list[psutil.Process]:
    """It, and what it has started."""
    first = psutil.Process(worker.pid)
    return [first, *first.children(recursive=True)]


def _cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _rss_mb(process: Process) -> float:
    resident = sum(member.memory_info().rss for member in members(process))
    return round(float(resident) / 1e6, 1)
