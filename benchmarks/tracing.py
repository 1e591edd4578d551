"""What traces and metrics cost: questions a second without them and with them, side by side, and what a collector that
is away does.

    python -m benchmarks.tracing [--seconds N] [--rounds N] [--modes off,again,metrics] [--ask id|photo]

JSON goes to stdout on one line. A worker for each mode runs all the time, on queues of its own; they are asked in
turns, so that a slow minute of the machine meets all. By the id of a photo that is stored is the shortest question
there is: nothing is decoded and no model runs, so that what is told is as large a part as it can be. By a photo, that
one is read, decoded and put through the model each time: its `questions_s` are photos a second. `share` is the median
of the rounds' own ratios to `off`, 1 where nothing is lost, with the least and the largest of them. `cpu_ms` is the
worker's own time for a question, which says the same on a busy machine.

again: a second worker without anything, which says how far two that are equal differ. metrics: at a port that is
scraped every five seconds, three times as often as in deploy/prometheus. on: traces, and the collector takes all, in a
process of its own. sampled: a hundredth of it. refused: nobody listens. silent: it takes connections and answers
nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
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
from worker.alive import everywhere
from worker.encoder.choice import REFERENCE
from worker.settings import Settings
from worker.stack import Stack

MODES = ("off", "again", "metrics", "sampled", "on", "refused", "silent")
#: Of these none has traces.
UNTRACED = ("off", "again", "metrics")
#: Seconds between two scrapes.
SCRAPED_S = 5.0
#: Of `--ask`: by the ids of photos that are stored, or by photos that are not.
ASKED = ("id", "photo")
#: Who asks at the same time.
ASKING = 4
#: Questions of each worker before the clock runs.
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
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tracing", description="Measure what traces and metrics cost."
    )
    parser.add_argument("--modes", type=_modes, default=MODES, help=f"with commas, off first ({','.join(MODES)})")
    parser.add_argument("--ask", choices=ASKED, default="id", help="by stored photos' ids, or by photos (id)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each mode in each round (5)")
    parser.add_argument("--rounds", type=int, default=5, help="(5)")
    options = parser.parse_args(arguments)
    with workplace("tracing") as folder:
        found = _measured(folder, options.modes, options.ask, options.seconds, options.rounds)
        tell({"asked": options.ask, **found, "machine": machine("celery", "opentelemetry-sdk", "prometheus-client")})


def _modes(said: str) -> tuple[str, ...]:
    modes = tuple(said.split(","))
    if modes[0] != "off" or not set(modes) <= set(MODES):
        raise argparse.ArgumentTypeError(f"off and then of {', '.join(MODES[1:])}")
    return modes


def _measured(folder: Path, modes: Sequence[str], ask: str, seconds: float, rounds: int) -> dict[str, Any]:
    write_scenes(folder / "photos", places=4, views=4)
    photos = sorted((folder / "photos").glob("*/*.jpg"))
    stored, others = photos[:8], photos[8:]
    settings = Settings(
        data_dir=folder / "data",
        photo_roots=(folder,),
        encoder="packaged/efficientnet-lite0",
        backend=REFERENCE,
        model_threads=1,
        reconcile_s=3600.0,
        recent_vectors=1,  # the same few photos are asked about again and again, each time anew
        log_level="WARNING",
    )
    with ExitStack() as closing:
        stack = closing.enter_context(Stack(settings, log_dir=folder / "logs", port=0))
        processes, clients, scraping = {}, {}, closing.enter_context(ExitStack())
        for mode in modes:
            port = 0 if mode == "metrics" else None
            own = stack.settings.model_copy(update={"key_prefix": f"{mode}:", "metrics_port": port})
            clients[mode] = closing.enter_context(Sightline(own.broker_url, key_prefix=own.key_prefix, timeout_s=300))
            with step(f"a worker: {mode}"), patch.dict(os.environ, closing.enter_context(_collector(mode))):
                processes[mode] = stack.start("worker", settings=own)
                clients[mode].stats()
            if mode == "metrics":
                scraping.enter_context(_scraped(own))
        ids = [
            clients["off"].add_to_index(path=str(p), lat=55.0, lon=13.0, provenance=Provenance.SURVEYED).photo_id
            for p in stored
        ]
        questions = [{"photo_id": one} for one in ids] if ask == "id" else [{"path": str(one)} for one in others]
        for mode in modes:
            _asked(clients[mode], questions, least=WARM)
        before = {mode: _own_mb(processes[mode].pid) for mode in modes}
        told: dict[str, list[float]] = {mode: [] for mode in modes}
        spent: dict[str, list[float]] = {mode: [] for mode in modes}
        for number in range(rounds):
            with step(f"round {number + 1}"):
                # There and back, so that none is always the first.
                for mode in modes if number % 2 == 0 else modes[::-1]:
                    began_s = _cpu_s(processes[mode].pid)
                    asked, seconds_taken = _asked(clients[mode], questions, seconds=seconds)
                    told[mode].append(asked / seconds_taken)
                    spent[mode].append(1000 * (_cpu_s(processes[mode].pid) - began_s) / asked)
        scraping.close()
        grown = {mode: round(_own_mb(processes[mode].pid) - before[mode], 1) for mode in modes}
        return {
            "questions_s": {mode: round(statistics.median(rates), 1) for mode, rates in told.items()},
            "share": {mode: _spread([a / b for a, b in zip(told[mode], told["off"], strict=True)]) for mode in modes},
            "share_cpu": {
                mode: _spread([a / b for a, b in zip(spent[mode], spent["off"], strict=True)]) for mode in modes
            },
            "cpu_ms": {mode: round(statistics.median(ms), 2) for mode, ms in spent.items()},
            "rounds": {mode: [round(rate, 1) for rate in rates] for mode, rates in told.items()},
            "grown_mb": grown,
            "ends_s": {mode: _ended(stack, processes[mode]) for mode in modes},
        }


@contextmanager
def _collector(mode: str) -> Iterator[dict[str, str]]:
    """What a worker needs in its environment."""
    if mode in UNTRACED:
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


@contextmanager
def _scraped(settings: Settings) -> Iterator[None]:
    """By a thread, until it is left, the one process with metrics on these queues."""
    ended = threading.Event()
    while not (found := [process.said["metrics"] for process in everywhere(settings) if process.said.get("metrics")]):
        time.sleep(0.1)

    def scrape() -> None:
        while not ended.wait(SCRAPED_S):
            with urllib.request.urlopen(f"http://{found[0]}/metrics") as answer:
                answer.read()

    with ThreadPoolExecutor(1) as pool:
        scraping = pool.submit(scrape)
        yield
        ended.set()
        scraping.result()


def _asked(
    client: Sightline, questions: list[dict[str, Any]], *, seconds: float = 0.0, least: int = 0
) -> tuple[int, float]:
    """How many questions, in how many seconds."""
    began = time.monotonic()

    def ask(first: int) -> int:
        done = 0
        while done < least / ASKING or time.monotonic() - began < seconds:
            client.search(**questions[(first + done) % len(questions)], top_k=3)
            done += 1
        return done

    with ThreadPoolExecutor(ASKING) as pool:
        done = sum(pool.map(ask, range(ASKING)))
    return done, time.monotonic() - began


def _spread(ratios: list[float]) -> list[float]:
    """Their median, the least and the largest."""
    return [round(one, 3) for one in (statistics.median(ratios), min(ratios), max(ratios))]


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
