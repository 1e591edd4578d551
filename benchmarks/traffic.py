"""Sightline measured while it changes: how soon an added photo is found, and searches while a generation is swapped.

Every public function is meant to run in a process of its own (processes.py), and starts others.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measure import Ids, K, Vectors, percentile_ms
from benchmarks.processes import alone, beside
from benchmarks.service import MODEL_KEY, Service, rebuild, service, sql, wait_until_served
from producer_client import Provenance
from producer_client.contract import Search
from worker.core.types import NewEntry
from worker.settings import Settings
from worker.storage.store import PostgresStore

#: Adds before those that count: connections are opened, tables are read.
WARM_UP_ADDS = 10
#: Searches a second while the generation is swapped.
RATE = 100.0
#: Tasks at once in one worker process (SIGHTLINE_CONCURRENCY).
SEARCH_THREADS = 4
#: Seconds of searches before the rebuild starts; the first of them are not counted.
STEADY_S, STEADY_WARM_UP_S = 10.0, 2.0
#: Seconds between two adds meanwhile.
ADD_EVERY_S = 0.2
#: Seconds before the publishing and after the last answer of the old generation that belong to the swap.
MARGIN_S = 1.0

#: What came of a search.
RIGHT, WRONG, FAILED = 0, 1, 2
#: One search: when it was due and when it was answered (monotonic seconds), by which generation (-1: none), what came.
SAMPLE = np.dtype([("due", "f8"), ("answered", "f8"), ("generation", "i8"), ("outcome", "i1")])


def add_to_visible(settings: Settings, vectors: Vectors) -> dict[str, Any]:
    """Milliseconds from before the transaction that adds a photo to a search with `min_seq` elsewhere that finds it.

    The reader is another process, which gets the seq through a pipe. Queue, file and model are not in it: they differ
    with the installation.
    """
    latencies: list[float] = []
    missed = 0
    with closing(PostgresStore(settings)) as store, beside(_find_each, settings, vectors.shape[1]) as reader:
        for number, vector in enumerate(vectors):
            started = time.monotonic()
            reader.send((*_add(store, f"visible/{number}", vector), vector))
            found_at: float | None = reader.recv()
            if found_at is None:
                missed += 1
            elif number >= WARM_UP_ADDS:
                latencies.append(found_at - started)
    figures = _latencies(np.array(latencies))
    figures |= {"missed": missed, "repeats": figures.pop("searches")}
    return {f"add_to_visible_{name}": figure for name, figure in figures.items()}


def _find_each(connection: Connection, settings: Settings, dimension: int) -> None:
    """Answer each (photo_id, seq, vector) with the moment at which a search has found it, or None."""
    with service(settings, dimension) as own:
        own.library.questions.follow()
        own.live.catch_up()
        connection.send("ready")
        while True:
            photo_id, seq, vector = connection.recv()
            request = Search(vector=vector.tolist(), model_key=MODEL_KEY, top_k=K, threshold=-1.0, min_seq=seq)
            hits = own.library.questions.search(request).hits
            connection.send(time.monotonic() if photo_id in {hit.photo_id for hit in hits} else None)


def swap(settings: Settings, known: Ids, vectors: Vectors, newcomers: Vectors) -> dict[str, Any]:
    """This process answers RATE searches a second while another adds photos and a third one rebuilds and publishes.

    known, vectors: stored photos that are asked for; each must be found first. newcomers: photos to add, in turn.
    A search is what the service does for one, but for reading the hits' rows: `catch_up`, where the last one is older
    than SIGHTLINE_MAX_STALENESS_S, then `search`. Its latency counts from when it was due, whether or not a thread was
    free then. The rebuild competes for the cores, so three spans are told apart: `steady` before it, `build` while it
    runs, and `swap` from MARGIN_S before the publishing to MARGIN_S after the last answer of the old generation.
    Failed are searches that raised, and those that did not find the photo, over all spans.
    """
    stopped, tickets = threading.Event(), itertools.count()
    with service(settings, vectors.shape[1]) as own, ThreadPoolExecutor(SEARCH_THREADS) as pool:
        own.library.questions.follow()
        own.live.catch_up()
        # An approximate index does not find every photo by its own vector. Those that it finds must stay found.
        found = [own.live.search(vector, 1).ids[:1].tolist() == [i] for i, vector in zip(known, vectors, strict=True)]
        known, vectors = known[found], vectors[found]
        began = time.monotonic()

        def work() -> list[tuple[float, float, int, int]]:
            """Take up what is due next, until it is over."""
            samples = []
            while not stopped.is_set():
                ticket = next(tickets)
                due, which = began + ticket / RATE, ticket % len(known)
                time.sleep(max(0.0, due - time.monotonic()))
                generation, outcome = _ask(own, vectors[which], known[which], settings.max_staleness_s)
                samples.append((due, time.monotonic(), generation, outcome))
            return samples

        working = [pool.submit(work) for _ in range(SEARCH_THREADS)]
        try:
            with beside(_add_steadily, settings, newcomers):
                time.sleep(STEADY_WARM_UP_S + STEADY_S)
                rebuild_at = time.monotonic()
                rebuilt = alone(rebuild, settings, vectors.shape[1], threads=settings.threads)
                wait_until_served(own.live, rebuilt["generation"])
                time.sleep(2 * MARGIN_S)
        finally:
            stopped.set()
        samples = sorted(sample for each in working for sample in each.result())
    published_at = _published_at(settings, rebuilt["generation"])
    return _spans(np.array(samples, dtype=SAMPLE), rebuilt, rebuild_at, published_at)


def _spans(
    samples: npt.NDArray[np.void], rebuilt: dict[str, Any], rebuild_at: float, published_at: float
) -> dict[str, Any]:
    due, answered = samples["due"], samples["answered"]
    latencies = answered - due
    new = samples["generation"] == rebuilt["generation"]
    old = ~new & (samples["outcome"] != FAILED)
    swap_from, swap_to = published_at - MARGIN_S, answered[old].max() + MARGIN_S
    steady = latencies[(due >= due.min() + STEADY_WARM_UP_S) & (due < rebuild_at)]
    building = latencies[(due >= rebuild_at) & (answered < swap_from)]
    # In flight at any moment of it, however long ago they were due.
    swapping = latencies[(answered >= swap_from) & (due <= swap_to)]
    return {
        "swap_failed": int((samples["outcome"] != RIGHT).sum()),
        "swap_worst_ms": percentile_ms(swapping, 100),
        "swap_steady_p99_ms": percentile_ms(steady, 99),
        "swap": {
            "searches": len(samples),
            "searches_per_s": RATE,
            "raised": int((samples["outcome"] == FAILED).sum()),
            "wrong": int((samples["outcome"] == WRONG).sum()),
            "rebuild_s": rebuilt["build_s"],
            "published_to_served_s": round(float(answered[new].min()) - published_at, 2),
            "steady": _latencies(steady),
            "build": _latencies(building),
            "swap": _latencies(swapping),
        },
    }


def _latencies(spent: npt.NDArray[np.float64]) -> dict[str, float | None]:
    names = {"p50_ms": 50, "p99_ms": 99, "worst_ms": 100}
    figures = {name: percentile_ms(spent, p) if len(spent) else None for name, p in names.items()}
    return {"searches": len(spent), **figures}


def _ask(own: Service, vector: Vectors, photo_id: int, max_age_s: float) -> tuple[int, int]:
    """(generation, outcome) of a search for a stored photo by its own vector."""
    try:
        own.live.catch_up(max_age_s=max_age_s)
        found = own.live.search(vector, K)
    except Exception:  # others' code: FAISS and the driver, which raise what they like; counted  # noqa: BLE001
        return -1, FAILED
    right = len(found.ids) > 0 and found.ids[0] == photo_id
    return -1 if found.generation is None else found.generation, RIGHT if right else WRONG


def _add_steadily(connection: Connection, settings: Settings, newcomers: Vectors) -> None:
    """Add a photo every ADD_EVERY_S until the connection is closed."""
    with closing(PostgresStore(settings)) as store:
        connection.send("ready")
        for number in itertools.count():
            _add(store, f"swap/{number}", newcomers[number % len(newcomers)])
            if connection.poll(ADD_EVERY_S):
                connection.recv()


def _published_at(settings: Settings, generation: int) -> float:
    """When a generation was published, on this machine's monotonic clock (seconds)."""
    with sql(settings.database_url) as cursor:
        of_generation = f"FROM {settings.db_schema}.generations WHERE number = %s"
        cursor.execute(f"SELECT extract(epoch FROM published_at) {of_generation}", (generation,))
        [published_at] = cursor.fetchone()
    return float(published_at) - time.time() + time.monotonic()


def _add(store: PostgresStore, name: str, vector: Vectors) -> tuple[int, int]:
    """Add a photo in a transaction of its own; returns its id and its seq."""
    entry = NewEntry(
        ref=name,
        photo_id=None,
        path=f"{name}.jpg",
        spellings=(f"{name}.jpg",),
        content_sha256=hashlib.sha256(name.encode()).hexdigest(),
        vector=vector,
        given=(48.2, 16.37, Provenance.EXIF_GPS),
        exif=None,
        address=None,
        metadata=None,
    )
    [written] = store.entries.put_many([entry], MODEL_KEY)
    return written.entry.photo_id, written.seq
