"""Work for worker processes, and what it takes: lists to embed, searches, messages that ask for nothing; and the model
without a queue. See scale.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import bare
from benchmarks.encoder_queue import cpu_s, members
from benchmarks.processes import ROOT, beside
from benchmarks.scale_memory import pss_mb
from producer_client import Sightline
from producer_client.contract import Code, Embedded, EmbedItem, Photo
from producer_client.errors import Declined
from worker.children import Process
from worker.core.types import Pixels
from worker.encoder.choice import AUTO
from worker.encoder.images import decode
from worker.encoder.load import load_encoder
from worker.stack import Stack

#: A network whose passes cost little, so that all else is as large a part as it can be.
ENCODER = "packaged/efficientnet-lite0"
DIMENSION = 1280
CALLERS = 16
#: What is counted.
KINDS = ("photos", "searches", "searches by vector")


@dataclass(frozen=True)
class Size:
    photos: int = 256
    searches: int = 128
    by_vector: int = 600
    messages: int = 10_000
    indexed: int = 200_000
    rounds: int = 2
    turns: int = 5


QUICK = Size(photos=256, searches=64, by_vector=400, messages=1_000, indexed=20_000, rounds=1, turns=1)


class Work:
    """What is asked of the workers, and what it takes. fresh: paths of files that nobody has seen."""

    def __init__(
        self, stack: Stack, client: Sightline, callers: ThreadPoolExecutor, fresh: Iterator[str], size: Size
    ) -> None:
        self._stack = stack
        self._client = client
        self._callers = callers
        self._fresh = fresh
        self._size = size
        self._random = np.random.default_rng(0)

    def warm(self) -> None:
        self._embed(self._paths(128))
        self._search(self._paths(2 * CALLERS))

    def all(self) -> dict[str, Any]:
        size = self._size
        # Files are written, and vectors drawn, before the clock runs.
        photos, searched, vectors = self._paths(size.photos), self._paths(size.searches), self._vectors(size.by_vector)
        pieces = (
            ("photos", len(photos), lambda: self._embed(photos)),
            ("searches", len(searched), lambda: self._search(searched)),
            ("searches by vector", len(vectors), lambda: self._search_by_vector(vectors)),
        )
        running = self._running
        figures: dict[str, Any] = {name: self._timed(count, call, running) for name, count, call in pieces}
        return figures | {"pss_mb": sum(pss_mb(member.pid) for worker in running for member in members(worker))}

    def queue(self, worker: Process) -> dict[str, Any]:
        """One message after the other is sent; then their replies are fetched, in that order."""
        own = self._client
        vector = [1.0, *[0.0] * 7]

        def ask() -> None:
            sent = [own.submit_search(vector=vector, model_key="another", timeout_s=600) for _ in range(count)]
            for handle in sent:
                try:
                    handle.wait(600)
                except Declined as exc:
                    if exc.code != Code.MODEL_MISMATCH:
                        raise RuntimeError(f"a message was answered by something else: {exc.message}") from exc
                else:
                    raise RuntimeError("a question by a vector of another model was answered")

        count = self._size.messages
        return {"messages": count, **_of_each(self._timed(count, ask, [worker]))}

    def bare(self, core: int) -> dict[str, Any]:
        """The same of Celery alone, by a worker on this core with as many threads."""
        url, vector = self._stack.settings.broker_url, [1.0, *[0.0] * 7]
        bare.app.conf.update(broker_url=url, result_backend=url)

        def ask() -> None:
            sent = [bare.same.delay(vector) for _ in range(count)]
            for result in sent:
                result.get(600)

        count, concurrency = self._size.messages, self._stack.settings.concurrency
        options = f"--without-gossip --without-mingle --pool threads --concurrency {concurrency} --loglevel WARNING"
        command = [sys.executable, "-m", "celery", "--quiet", "--app", bare.__name__, "worker", *options.split()]
        # It warns of root, who is welcome in a benchmark.
        env = os.environ | {bare.URL: url, "PYTHONWARNINGS": "ignore::RuntimeWarning"}
        with pinned(core):
            worker = subprocess.Popen(command, cwd=ROOT, env=env, stdout=sys.stderr)
        try:
            bare.same.delay(vector).get(60)
            return _of_each(self._timed(count, ask, [worker]))
        finally:
            worker.terminate()
            worker.wait()

    @property
    def _running(self) -> list[Process]:
        return [process for process in self._stack.processes if process.arguments[0] == "worker"]

    def _paths(self, count: int) -> list[str]:
        return list(islice(self._fresh, count))

    def _vectors(self, count: int) -> list[list[float]]:
        drawn = self._random.standard_normal((count, DIMENSION))
        found: list[list[float]] = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).round(6).tolist()
        return found

    def _embed(self, paths: Sequence[str]) -> None:
        for outcome in self._client.embed_many([EmbedItem(path, Photo(path=path)) for path in paths]):
            if not isinstance(outcome, Embedded):
                raise RuntimeError(f"{outcome.ref} was not embedded: {outcome}")

    def _search(self, paths: Sequence[str]) -> None:
        list(self._callers.map(lambda path: self._client.search(path=path, threshold=-1.0), paths))

    def _search_by_vector(self, vectors: Sequence[list[float]]) -> None:
        list(self._callers.map(lambda vector: self._client.search(vector=vector, threshold=-1.0), vectors))

    def _timed(self, count: int, call: Callable[[], None], workers: Sequence[Any]) -> dict[str, Any]:
        """workers: whose processor time is counted; anything with a pid."""
        before, began = self._cpu_s(workers), time.perf_counter()
        call()
        seconds = time.perf_counter() - began
        spent = {name: after - before[name] for name, after in self._cpu_s(workers).items()}
        others = sum(spent.values()) - spent["worker"]
        return {
            "a_second": round(count / seconds, 2),
            "worker_ms": round(1000 * spent["worker"] / count, 3),
            "others_ms": round(1000 * others / count, 3),
            "cores_busy": round((spent["worker"] + others) / seconds, 2),
            "by_part_ms": {name: 1000 * cpu_s / count for name, cpu_s in spent.items()},
        }

    def _cpu_s(self, workers: Sequence[Any]) -> dict[str, float]:
        """Processor time so far, of the client too, which is this process."""
        return cpu_s(self._stack, workers) | {"client": time.process_time()}


def _of_each(figures: dict[str, Any]) -> dict[str, Any]:
    """What one message takes."""
    return {
        "us_per_message": round(1e6 / figures["a_second"], 1),
        "cpu_us": {name: round(1000 * ms, 1) for name, ms in figures["by_part_ms"].items()},
    }


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """What this thread starts meanwhile is on that core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def prepare(models: Path, paths: Sequence[str]) -> str:
    """Export the model, and say what runs it fastest on one core. paths: photos to compare on, LEAST_SAMPLE or more,
    so that no worker loads torch to do so."""

    def known(side: int) -> list[Pixels]:
        return [decode(Path(path).read_bytes(), side=side, max_megapixels=100).pixels for path in paths]

    return load_encoder(ENCODER, device="cpu", threads=1, backend=AUTO, models=models, known_photos=known).backend


def passes(own: Sequence[int], models: Path, backend: str) -> float:
    """How many times as many passes of the model two processes do as one, each on its core."""
    with ExitStack() as stack:
        running = [stack.enter_context(beside(_model, core, models, backend)) for core in own]
        alone = _asked(running[:1])
        return round(_asked(running) / alone, 3)


def _asked(running: Sequence[Connection]) -> float:
    for one in running:
        one.send(None)
    return float(sum(one.recv() for one in running))


def _model(connection: Connection, core: int, models: Path, backend: str) -> None:
    """Passes a second, whenever they are asked for."""
    os.sched_setaffinity(0, {core})
    encoder = load_encoder(ENCODER, device="cpu", threads=1, backend=backend, models=models)
    squares = list(np.zeros((8, encoder.input_side, encoder.input_side, 3), dtype=np.uint8))
    encoder.encode_images(squares)
    connection.send("ready")
    while True:
        connection.recv()
        began, done = time.perf_counter(), 0
        while time.perf_counter() < began + 4.0:
            encoder.encode_images(squares)
            done += 1
        connection.send(done / (time.perf_counter() - began))
