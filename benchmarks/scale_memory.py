"""What an index takes in one process of a host and in a second one, by the pages that each has and shares (PSS); and
what searches lose while some are repeated exactly (SIGHTLINE_RECALL_SAMPLE).

The processes are the service's own parts without a model (service.py), over drawn vectors (vectors.py), and have
searched. The same is taken of processes without any photo: what is more with an index is the index's.

Searches come one after the other from as many threads as there are cores, so that a repeated one takes its time from
them. Settings go in turns; the fastest pass of each counts for p50, the middle one for p99.
"""

from __future__ import annotations

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measure import K, VectorFile, Vectors, fastest_s, percentile_ms
from benchmarks.processes import alone, beside, cores
from benchmarks.report import step
from benchmarks.service import fill, rebuild, service
from benchmarks.vectors import ClusteredVectors
from worker.embedded import EmbeddedServers
from worker.index.live import FaissLiveIndex
from worker.index.repeating import Repeating, found_share
from worker.settings import Settings
from worker.storage.migrate import migrate
from worker.storage.store import PostgresStore

DIMENSION = 512
SEARCHES = 1_000
#: Settings of SIGHTLINE_RECALL_SAMPLE, and seconds that each has in its turn.
ONE_IN, PASS_S = (0, 100, 1), 4.0


def measured(folder: Path, size: int, *, turns: int) -> dict[str, Any]:
    """mb: PSS that an index of so many vectors adds to the first process and to the next; share: of the former.

    turns: of searches by each setting.
    """
    folder.mkdir()
    folder.chmod(0o755)
    with EmbeddedServers(folder / "servers", with_valkey=False) as servers:
        settings = Settings(database_url=servers.database_url, data_dir=folder, exam_photos=0, rungs=(), concurrency=4)
        empty = settings.model_copy(update={"db_schema": "empty", "photos_table": "none", "data_dir": folder / "empty"})
        store = PostgresStore(empty)
        migrate(store.database.engine, schema=empty.db_schema, photos_table=empty.photos_table)
        store.close()
        made = ClusteredVectors(size, dimension=DIMENSION)
        with step(f"{size:,} vectors into Postgres"):
            vectors = VectorFile.write(folder / "vectors.f32", made.chunks())
            alone(fill, settings, vectors)
            vectors.path.unlink()
        with step("rebuild"):
            built = alone(rebuild, settings, DIMENSION, threads=cores())
        queries = made.fresh(SEARCHES, stream=0)
        with step("in one process and in two"):
            without, within = _taken(empty, queries), _taken(settings, queries)
        with step("searches while some are repeated"):
            repeated = alone(_repeated, settings, queries, turns)
    first, following = (b - a for a, b in zip(without, within, strict=True))
    return {
        "vectors": size,
        "dimension": DIMENSION,
        "kind": built["kind"],
        "index_bytes": built["index_bytes"],
        "mb": {"first": round(first, 1), "next": round(following, 1)},
        "next_mb": round(following, 1),
        "share": round(following / first, 3),
        "repeated": repeated,
        "process_without_mb": {"first": round(without[0], 1), "next": round(without[1], 1)},
    }


def pss_mb(pid: int | str) -> float:
    """What a process has to itself, and its share of each page that it has together with others."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None, "the kernel says it of every process"
    return int(found[1]) * 1024 / 1e6


def _taken(settings: Settings, queries: Vectors) -> tuple[float, float]:
    """PSS of one process, and by how much that of all is more with a second one."""
    with ExitStack() as stack:
        first = stack.enter_context(beside(_serve, settings, queries))
        one = pss_mb(_pid(first))
        second = stack.enter_context(beside(_serve, settings, queries))
        # The first one shares now what it had to itself.
        return one, pss_mb(_pid(first)) + pss_mb(_pid(second)) - one


def _pid(process: Connection) -> int:
    process.send("pid")
    return int(process.recv())


def _serve(connection: Connection, settings: Settings, queries: Vectors) -> None:
    with service(settings, queries.shape[1]) as own:
        own.live.catch_up()
        for query in queries:
            own.live.search(np.ascontiguousarray(query), K)
        connection.send("ready")
        while True:
            connection.recv()
            connection.send(os.getpid())


def _repeated(settings: Settings, queries: Vectors, turns: int) -> dict[str, Any]:
    """ms of a search, by one in how many is repeated, and ms of repeating one."""
    passes: dict[int, list[npt.NDArray[np.float64]]] = {one_in: [] for one_in in ONE_IN}
    counted = dict.fromkeys(ONE_IN, 0)
    with ExitStack() as stack:
        running: dict[int, FaissLiveIndex] = {}
        for one_in in ONE_IN:
            own = stack.enter_context(service(settings, queries.shape[1], Repeating(one_in=one_in, gate=0.0, first=0)))
            own.live.catch_up()
            own.live.follow(60.0)
            running[one_in] = own.live
        for turn in range(turns):
            for one_in in ONE_IN if turn % 2 == 0 else ONE_IN[::-1]:
                before = running[one_in].repeated.searches
                passes[one_in].append(_latencies(running[one_in], queries))
                counted[one_in] += running[one_in].repeated.searches - before
        view = running[0]._view
        assert view is not None
        found = [(query, view.search(query, 26)) for query in queries[:50]]
        exact_s = [fastest_s(partial(found_share, view, query, each), calls=3) for query, each in found]
    return {
        "exact_ms": percentile_ms(np.array(exact_s), 50),
        "one_in": {
            one_in: {
                "p50": min(percentile_ms(each, 50) for each in passes[one_in]),
                "p99": float(np.median([percentile_ms(each, 99) for each in passes[one_in]])),
                "searches": sum(map(len, passes[one_in])),
                "repeated": counted[one_in],
            }
            for one_in in ONE_IN
        },
    }


def _latencies(live: FaissLiveIndex, queries: Vectors) -> npt.NDArray[np.float64]:
    """Seconds of each search within PASS_S."""
    until = time.perf_counter() + PASS_S

    def ask(offset: int) -> list[float]:
        took: list[float] = []
        while (started := time.perf_counter()) < until:
            live.search(queries[(offset + len(took)) % len(queries)], 26)
            took.append(time.perf_counter() - started)
        return took

    with ThreadPoolExecutor(cores()) as pool:
        return np.concatenate(list(pool.map(ask, range(0, len(queries), len(queries) // cores()))))
