"""What every contender is measured with: the same file of vectors, clock, percentiles and recall, and a peer's answer.

Runs in the service's environment and in those of the peers, so it knows numpy and the standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Vectors: TypeAlias = npt.NDArray[np.float32]
Ids: TypeAlias = npt.NDArray[np.int64]
#: One query, float32 [d], to the ids of its neighbours, best first.
Search: TypeAlias = Callable[[Vectors], Ids]
Clock: TypeAlias = Callable[[], float]

#: Neighbours asked for everywhere.
K = 10
#: A pass over the queries ends after this many seconds, but not before LEAST_QUERIES are answered: slow contenders
#: answer the first of the queries, which are in random order.
PASS_S = 8.0
LEAST_QUERIES = 200
#: Seconds that several threads ask side by side.
THREADS_S = 3.0
#: Queries before a pass that are not counted.
WARM_UP = 100
#: Bytes that are read to measure the memory's bandwidth: many times any cache.
BANDWIDTH_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class VectorFile:
    """Float32 rows on disk, one after the other. Row i is the photo with id i + 1."""

    path: Path
    count: int
    dimension: int

    @classmethod
    def write(cls, path: Path, chunks: Iterable[Vectors]) -> VectorFile:
        count = dimension = 0
        with path.open("wb") as file:
            for chunk in chunks:
                chunk.tofile(file)
                count, dimension = count + len(chunk), chunk.shape[1]
        return cls(path, count, dimension)

    def chunks(self, rows: int) -> Iterator[tuple[Ids, Vectors]]:
        """(ids, vectors), up to `rows` at a time. Read, not mapped: mapped pages would count as the reader's memory."""
        with self.path.open("rb") as file:
            for start in range(0, self.count, rows):
                count = min(rows, self.count - start)
                vectors = np.fromfile(file, dtype=np.float32, count=count * self.dimension)
                yield np.arange(start + 1, start + count + 1), vectors.reshape(count, self.dimension)


def one_by_one(search: Search, queries: Vectors, truth: Ids) -> dict[str, Any]:
    """Recall and speed of one query after the other in one thread, after some that are not counted.

    truth: the exact neighbours, int64 [n, K].
    """
    for query in queries[:WARM_UP]:
        search(query)
    found = np.full((len(queries), K), -1, dtype=np.int64)
    latencies: list[float] = []
    began, worked = time.perf_counter(), time.thread_time()
    for query in queries:
        started = time.perf_counter()
        if started - began > PASS_S and len(latencies) >= LEAST_QUERIES:
            break
        ids = search(query)
        latencies.append(time.perf_counter() - started)
        found[len(latencies) - 1, : len(ids)] = ids
    seconds, worked = time.perf_counter() - began, time.thread_time() - worked
    answered, spent = found[: len(latencies)], np.array(latencies)
    return {
        "queries": len(answered),
        "recall_at_1": recall(answered, truth, 1),
        "recall_at_10": recall(answered, truth, K),
        "search_p50_ms": percentile_ms(spent, 50),
        "search_p99_ms": percentile_ms(spent, 99),
        "qps_1_thread": round(len(answered) / seconds, 1),
        # Of a contender that works in the calling thread.
        "qps_of_processor": round(len(answered) / worked, 1),
    }


def best_of(passes: int, search: Search, queries: Vectors, truth: Ids) -> dict[str, Any]:
    """The fastest pass of one_by_one."""
    return max((one_by_one(search, queries, truth) for _ in range(passes)), key=lambda pass_: pass_["qps_of_processor"])


def queries_per_second(search: Search, queries: Vectors, *, threads: int) -> float:
    """Answered by `threads` threads of this process that ask without a pause, for THREADS_S."""
    ready = threading.Barrier(threads)

    def ask(offset: int) -> tuple[float, float, int]:
        ready.wait()
        began, answered = time.perf_counter(), 0
        while time.perf_counter() < began + THREADS_S:
            search(queries[(offset + answered * threads) % len(queries)])
            answered += 1
        return began, time.perf_counter(), answered

    with ThreadPoolExecutor(threads) as pool:
        runs = np.array(list(pool.map(ask, range(threads))))
    began, ended, answered = runs.T
    return round(float(answered.sum() / (ended.max() - began.min())), 1)


def times_s(call: Callable[[], object], *, seconds: float, calls: int, clock: Clock = time.perf_counter) -> list[float]:
    """What each call took within the time, `calls` at least."""
    until, took = time.perf_counter() + seconds, list[float]()
    while len(took) < calls or time.perf_counter() < until:
        started = clock()
        call()
        took.append(clock() - started)
    return took


def fastest_s(call: Callable[[], object], *, seconds: float = 0.0, calls: int = 1) -> float:
    """The fastest of them: whatever else runs on a machine only adds to a time."""
    return min(times_s(call, seconds=seconds, calls=calls))


def percentile_ms(latencies_s: npt.NDArray[np.float64], percentile: float) -> float:
    return round(float(np.percentile(latencies_s, percentile)) * 1000, 3)


def recall(found: Ids, truth: Ids, k: int) -> float:
    """Share of the k exact neighbours that are among the k found. found: [n, >= k]; truth: [>= n, >= k]."""
    hits = (found[:, :k, None] == truth[: len(found), None, :k]).any(axis=2)
    return round(float(hits.mean()), 4)


def exact_neighbours(chunks: Iterable[tuple[Ids, Vectors]], queries: Vectors) -> Ids:
    """Ids of the K rows of largest float32 inner product with each query, best first: int64 [n, K]."""
    count = len(queries)
    best, best_ids = np.full((count, K), -np.inf, dtype=np.float32), np.full((count, K), -1, dtype=np.int64)
    for ids, vectors in chunks:
        similarities = np.concatenate([best, queries @ vectors.T], axis=1)
        known = np.concatenate([best_ids, np.broadcast_to(ids, (count, len(ids)))], axis=1)
        top = np.argpartition(-similarities, K - 1, axis=1)[:, :K]
        best, best_ids = np.take_along_axis(similarities, top, axis=1), np.take_along_axis(known, top, axis=1)
    return np.take_along_axis(best_ids, np.argsort(-best, axis=1, kind="stable"), axis=1)


def copy_rows(**columns: npt.NDArray[Any]) -> bytes:
    """Columns, [n] or [n, d] of what their types keep, as a stream in COPY's binary format (PostgreSQL manual, COPY):
    each row is a count of fields, then length and bytes of every field, numbers big-endian."""
    fields = [
        (part, *kind)
        for name, column in columns.items()
        for part, kind in ((f"bytes of {name}", (">i4",)), (name, (column.dtype, column.shape[1:])))
    ]
    rows = np.empty(len(next(iter(columns.values()))), dtype=[("fields", ">i2"), *fields])
    rows["fields"] = len(columns)
    for name, column in columns.items():
        rows[f"bytes of {name}"], rows[name] = rows.dtype[name].itemsize, column
    return b"PGCOPY\n\xff\r\n\0" + bytes(8) + rows.tobytes() + b"\xff\xff"


def peak_rss_mb(pid: int | str = "self") -> float | None:
    """Largest resident memory of a process so far, mapped files included; None where the kernel does not say.

    VmHWM and not ru_maxrss: what was resident in the parent before the exec counts in the latter.
    """
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return None
    return None if found is None else round(int(found[1]) * 1024 / 1e6, 1)


def read_bandwidth_gb_s() -> float:
    """What one thread reads from memory at best, 10^9 bytes a second: the fastest of some passes over 1 GiB.

    Three ways, because which of them the processor likes best differs: the BLAS's dot product of an array with itself,
    the largest of its numbers, all of its bits or-ed. Call with one BLAS thread.
    """
    numbers = np.ones(BANDWIDTH_BYTES // 4, dtype=np.float32)
    bits = numbers.view(np.int64)
    ways: list[Callable[[], Any]] = [
        lambda: np.dot(numbers, numbers),
        lambda: numbers.max(),
        lambda: np.bitwise_or.reduce(bits),
    ]
    return round(BANDWIDTH_BYTES / min(fastest_s(way, calls=3) for way in ways) / 1e9, 2)


def answer(measure: Callable[..., dict[str, Any]]) -> None:
    """A peer's side of processes.ask: call with the request's fields, write the figures, end the process."""
    # What the packages print goes beside the answer.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            result = measure(**json.load(sys.stdin))
        except ImportError as exc:
            result = {"skipped": f"it is not installed: {exc}"}
        except Exception as exc:  # others' code: a peer, which raises what it likes; the table says why  # noqa: BLE001
            result = {"skipped": f"{type(exc).__name__}: {exc}"}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    # Some leave threads behind that would keep the interpreter.
    os._exit(0)
