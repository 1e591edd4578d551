"""Sightline measured while it changes: how soon an added photo is found, and searches while a generation is swapped.

Every public function is meant to run in a process of its own (processes.py), and starts others.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measure import Ids, K, Vectors, percentile_ms
from benchmarks.processes import beside
from benchmarks.service import MODEL_KEY, Service, connect, rebuild, service, wait_for
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


# ------------------------------------------------------------------------------------- add to visible


def add_to_visible(settings: Settings, vectors: Vectors) -> dict[str, Any]:
    """Milliseconds from before the transaction that adds a photo to a search with `min_seq` elsewhere that finds it.

    The reader is another process, which gets the seq through a pipe. Queue, file and model are not in it: they differ
    with the installation.
    """
    latencies: list[float] = []
    missed = 0
    store = PostgresStore(settings)
    with beside(_find_each, settings, vectors.shape[1]) as reader:
        reader.recv()
        for number, vector in enumerate(vectors):
            started = time.monotonic()
            [written] = store.entries.put_many([_new_entry(f"visible/{number}", vector)], MODEL_KEY)
            reader.send((written.entry.photo_id, written.seq, vector))
            found_at: float | None = reader.recv()
            if found_at is None:
                missed += 1
            elif number >= WARM_UP_ADDS:
                latencies.append(found_at - started)
    store.close()
    spent = np.array(latencies)
    return {
        "add_to_visible_p50_ms": percentile_ms(spent, 50),
        "add_to_visible_p99_ms": percentile_ms(spent, 99),
        "add_to_visible_worst_ms": percentile_ms(spent, 100),
        "add_to_visible_missed": missed,
        "add_to_visible_repeats": len(spent),
    }


def _find_each(connection: Connection, settings: Settings, dimension: int) -> None:
    """Answer each (photo_id, seq, vector) with the moment at which a search has found it, or None."""
    with service(settings, dimension) as own:
        own.library.questions.follow()
        own.live.catch_up()
        connection.send("ready")
        try:
            while True:
                photo_id, seq, vector = connection.recv()
                request = Search(vector=vector.tolist(), model_key=MODEL_KEY, top_k=K, threshold=-1.0, min_seq=seq)
                hits = own.library.questions.search(request).hits
                connection.send(time.monotonic() if photo_id in {hit.photo_id for hit in hits} else None)
        except EOFError:
            return


# ---------------------------------------------------------------------------------------------- swap


def swap(settings: Settings, known: Ids, vectors: Vectors, newcomers: Vectors) -> dict[str, Any]:
    """One process answers RATE searches a second while a second one adds photos and a third one rebuilds and publishes.

    known, vectors: stored photos that are asked for; each must be found first. newcomers: photos to add, in turn.
    A search is what the service does for one, but for reading the hits' rows: `catch_up`, where the last one is older
    than SIGHTLINE_MAX_STALENESS_S, then `search`. Its latency counts from the moment at which it was due, whether or
    not a thread was free then. The rebuild competes with the searches for the cores, so three spans are told apart:
    `steady` before it, `build` while it runs, and `swap` from MARGIN_S before the publishing to MARGIN_S after the last
    answer that came from the old generation. Failed are searches that raised, and those that did not find the photo,
    over all spans.
    """
    dimension = vectors.shape[1]
    with (
        beside(_answer_steadily, settings, known, vectors) as reader,
        beside(_add_steadily, settings, newcomers) as adder,
    ):
        reader.recv()
        adder.recv()
        time.sleep(STEADY_WARM_UP_S + STEADY_S)
        rebuild_at = time.monotonic()
        with beside(_rebuild, settings, dimension, threads=settings.threads) as builder:
            rebuilt: dict[str, Any] = builder.recv()
        reader.send(rebuilt["generation"])
        samples: npt.NDArray[np.void] = reader.recv()
        adder.close()
    return _spans(samples, rebuilt, rebuild_at, _published_at(settings, rebuilt["generation"]))


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


def _answer_steadily(connection: Connection, settings: Settings, known: Ids, vectors: Vectors) -> None:
    """Search RATE times a second until the generation that the connection names has served for a while."""
    with service(settings, vectors.shape[1]) as own:
        own.library.questions.follow()
        own.live.catch_up()
        # An approximate index does not find every photo by its own vector. Those that it finds must stay found.
        found = [own.live.search(vector, 1).ids[:1].tolist() == [i] for i, vector in zip(known, vectors, strict=True)]
        load = _Load(own, known[found], vectors[found], settings.max_staleness_s)
        load.start()
        connection.send("ready")
        generation: int = connection.recv()
        wait_for(lambda: own.live.generation == generation, f"generation {generation} to be served")
        time.sleep(2 * MARGIN_S)
        connection.send(load.stop())


class _Load:
    """Searches that are due at fixed moments, taken up by whichever thread is free."""

    def __init__(self, own: Service, known: Ids, vectors: Vectors, max_age_s: float) -> None:
        self._own, self._known, self._vectors, self._max_age_s = own, known, vectors, max_age_s
        self._tickets = itertools.count()
        self._stopped = threading.Event()
        self._samples: list[tuple[float, float, int, int]] = []
        self._threads = [threading.Thread(target=self._work) for _ in range(SEARCH_THREADS)]

    def start(self) -> None:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> npt.NDArray[np.void]:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        return np.array(sorted(self._samples), dtype=SAMPLE)

    def _work(self) -> None:
        while not self._stopped.is_set():
            ticket = next(self._tickets)
            due = self._began + ticket / RATE
            time.sleep(max(0.0, due - time.monotonic()))
            generation, outcome = self._ask(ticket % len(self._known))
            self._samples.append((due, time.monotonic(), generation, outcome))

    def _ask(self, which: int) -> tuple[int, int]:
        try:
            self._own.live.catch_up(max_age_s=self._max_age_s)
            found = self._own.live.search(self._vectors[which], K)
        except Exception:  # noqa: BLE001  # whatever it is, it is what is counted
            return -1, FAILED
        right = len(found.ids) > 0 and found.ids[0] == self._known[which]
        return -1 if found.generation is None else found.generation, RIGHT if right else WRONG


def _add_steadily(connection: Connection, settings: Settings, newcomers: Vectors) -> None:
    """Add a photo every ADD_EVERY_S until the connection is closed."""
    store = PostgresStore(settings)
    connection.send("ready")
    try:
        for number in itertools.count():
            vector = newcomers[number % len(newcomers)]
            store.entries.put_many([_new_entry(f"swap/{number}", vector)], MODEL_KEY)
            if connection.poll(ADD_EVERY_S):
                connection.recv()
    except EOFError:
        store.close()


def _rebuild(connection: Connection, settings: Settings, dimension: int) -> None:
    connection.send(rebuild(settings, dimension))


def _published_at(settings: Settings, generation: int) -> float:
    """When a generation was published, on this machine's monotonic clock (seconds)."""
    with connect(settings.database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"SELECT extract(epoch FROM published_at) FROM {settings.db_schema}.generations WHERE number = %s",
            (generation,),
        )
        [published_at] = cursor.fetchone()
    connection.close()
    return float(published_at) - time.time() + time.monotonic()


# --------------------------------------------------------------------------------------------- below


def _new_entry(name: str, vector: Vectors) -> NewEntry:
    return NewEntry(
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
