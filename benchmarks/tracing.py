"""What traces cost: searches a second without them and with them, side by side, and what a collector that is away does.

    python -m benchmarks.tracing [--seconds N] [--rounds N]

JSON goes to stdout on one line. A worker for each mode runs all the time, on queues of its own; they are asked in
turns, so that a slow minute of the machine meets all. A search by the id of a photo that is stored is the shortest
question there is: nothing is decoded and no model runs, so that spans are as large a part as they can be. `share` is
the median of the rounds' own ratios to `off`, 1 where nothing is lost. `cpu_ms` is the worker's own time for a search,
which says the same on a busy machine.

on: the collector takes all, in a process of its own. sampled: a hundredth of it. refused: nobody listens. silent: it
takes connections and answers nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from benchmarks.report import machine, step, tell, workplace
from demo.scenes import write_scenes
from producer_client import Provenance, Sightline
from worker.encoder.choice import REFERENCE
from worker.settings import Settings
from worker.stack import Stack

MODES = ("off", "sampled", "on", "refused", "silent")
#: Who asks at the same time.
ASKING = 4
#: Searches of each worker before the clock runs.
WARM = 100
#: A collector that reads what comes and keeps nothing; with an argument it answers nothing either.
COLLECTOR = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if sys.argv[1:]:
            time.sleep(3600)
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracing", description="Measure what traces cost.")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each mode in each round (5)")
    parser.add_argument("--rounds", type=int, default=5, help="(5)")
    options = parser.parse_args(arguments)
    with workplace("tracing") as folder:
        tell({**_measured(folder, options.seconds, options.rounds), "machine": machine("celery", "opentelemetry-sdk")})


def _measured(folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    write_scenes(folder / "photos", places=2, views=4)
    photos = sorted((folder / "photos").glob("*/*.jpg"))
    settings = Settings(
        data_dir=folder / "data",
        photo_roots=(folder,),
        encoder="packaged/efficientnet-lite0",
        backend=REFERENCE,
        model_threads=1,
        reconcile_s=3600.0,
        log_level="WARNING",
    )
    with ExitStack() as closing:
        stack = closing.enter_context(Stack(settings, log_dir=folder / "logs", port=0))
        processes, clients = {}, {}
        for mode in MODES:
            own = stack.settings.model_copy(update={"key_prefix": f"{mode}:"})
            clients[mode] = closing.enter_context(Sightline(own.broker_url, key_prefix=own.key_prefix, timeout_s=300))
            with step(f"a worker: {mode}"), patch.dict(os.environ, closing.enter_context(_collector(mode))):
                processes[mode] = stack.start("worker", settings=own)
                clients[mode].stats()
        ids = [
            clients["off"].add_to_index(path=str(p), lat=55.0, lon=13.0, provenance=Provenance.SURVEYED).photo_id
            for p in photos
        ]
        for mode in MODES:
            _asked(clients[mode], ids, least=WARM)
        before = {mode: _own_mb(processes[mode].pid) for mode in MODES}
        told: dict[str, list[float]] = {mode: [] for mode in MODES}
        spent: dict[str, list[float]] = {mode: [] for mode in MODES}
        for number in range(rounds):
            with step(f"round {number + 1}"):
                for mode in MODES:
                    began_s = _cpu_s(processes[mode].pid)
                    asked, seconds_taken = _asked(clients[mode], ids, seconds=seconds)
                    told[mode].append(asked / seconds_taken)
                    spent[mode].append(1000 * (_cpu_s(processes[mode].pid) - began_s) / asked)
        grown = {mode: round(_own_mb(processes[mode].pid) - before[mode], 1) for mode in MODES}
        return {
            "searches_s": {mode: round(statistics.median(rates), 1) for mode, rates in told.items()},
            "share": {
                mode: round(statistics.median(a / b for a, b in zip(rates, told["off"], strict=True)), 3)
                for mode, rates in told.items()
            },
            "cpu_ms": {mode: round(statistics.median(ms), 2) for mode, ms in spent.items()},
            "rounds": {mode: [round(rate, 1) for rate in rates] for mode, rates in told.items()},
            "grown_mb": grown,
            "ends_s": {mode: _ended(stack, processes[mode]) for mode in MODES},
        }


@contextmanager
def _collector(mode: str) -> Iterator[dict[str, str]]:
    """What a worker needs in its environment."""
    if mode == "off":
        yield {}
        return
    if mode == "refused":
        # Nobody may listen on it without being root.
        yield {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
        return
    silent = ["silent"] if mode == "silent" else []
    with subprocess.Popen([sys.executable, "-c", COLLECTOR, *silent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        few = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        yield {"OTEL_EXPORTER_OTLP_ENDPOINT": url, **(few if mode == "sampled" else {})}
        process.kill()


def _asked(client: Sightline, ids: list[int], *, seconds: float = 0.0, least: int = 0) -> tuple[int, float]:
    """How many searches, in how many seconds."""
    began = time.monotonic()

    def ask(first: int) -> int:
        done = 0
        while done < least / ASKING or time.monotonic() - began < seconds:
            client.search(photo_id=ids[(first + done) % len(ids)], top_k=3)
            done += 1
        return done

    with ThreadPoolExecutor(ASKING) as pool:
        done = sum(pool.map(ask, range(ASKING)))
    return done, time.monotonic() - began


def _cpu_s(pid: int) -> float:
    spent = psutil.Process(pid).cpu_times()
    return float(spent.user + spent.system)


def _own_mb(pid: int) -> float:
    memory = psutil.Process(pid).memory_full_info()
    return float(memory.uss) / 1e6


def _ended(stack: Stack, process: Any) -> float:
    began = time.monotonic()
    process.ask_to_stop()
    process.wait()
    stack.processes.remove(process)
    return round(time.monotonic() - began, 1)


if __name__ == "__main__":
    main()
