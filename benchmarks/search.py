"""Searches and rebuilds beside what they were before, on one machine in one run.

    python -m benchmarks.search [--size 1000000] [--before CHECKOUT]

JSON goes to stdout on one line, steps and a table to stderr. "Before" is kept here and nowhere else: Postgres names
every photo that passes a filter, each as an object, and the index is told their positions. Rebuilds are compared with
those of the release in CHECKOUT.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import count, cycle
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from sqlalchemy import or_, select

from benchmarks.measure import VectorFile, Vectors, percentile_ms, times_s
from benchmarks.processes import alone, cores
from benchmarks.rebuilds import REBUILT, copies, rebuilds
from benchmarks.report import console, machine, step, table, tell, workplace
from benchmarks.service import MODEL_KEY, Service, drop, fill, rebuild, service, wait_until_served
from benchmarks.vectors import ClusteredVectors
from producer_client.contract import Near, Search
from worker.core.geo import EARTH_RADIUS_M, bounding_box, distance_m
from worker.core.types import Filter
from worker.core.vectors import Ids, Vector
from worker.embedded import EmbeddedServers
from worker.index import kinds, searching
from worker.library.finding import CANDIDATES
from worker.settings import Settings
from worker.storage.store import PostgresStore
from worker.storage.tables import entries

DIMENSION = 512
TOP_K = 10
COPIES = 10_000
#: Seconds that each filter is asked for, now and before, and how often at least.
NOW_S, BEFORE_S = 1.0, 1.0
LEAST_NOW, LEAST_BEFORE = 20, 1
#: More than half of the way around the Earth.
EVERYWHERE_M = 2.1e7
#: Of each photo: something that all have, half have, one of a thousand has, and nobody else has.
METADATA = "jsonb_build_object('all', true, 'half', mod(id, 2), 'rare', mod(id, 1000), 'serial', id)"

#: What is asked next; each time another one, where there are others.
Asked = Callable[[], Filter]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description="Measure searches.")
    parser.add_argument("--size", type=int, default=1_000_000, help="stored photos (1000000)")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="an earlier release to rebuild beside this one")
    options = parser.parse_args(arguments)
    with workplace("search") as folder, EmbeddedServers(folder) as servers:
        settings = Settings(database_url=servers.database_url, data_dir=folder)
        with step(f"{options.size:,} vectors"):
            made = ClusteredVectors(options.size, dimension=DIMENSION)
            vectors = VectorFile.write(folder / "vectors.f32", made.chunks())
        with step("into Postgres, with positions and metadata"):
            alone(fill, settings, vectors, METADATA)
            vectors.path.unlink()
        with step("rebuild"):
            built = alone(_rebuild, settings, threads=cores())
        figures: dict[str, Any] = {"size": options.size}
        with step("filtered searches, now and before"):
            figures |= alone(_filters, settings, built["generation"], made.fresh(200, stream=0))
            drop(settings)
        with step(f"a picture with {COPIES:,} copies"):
            figures |= copies(settings, folder, COPIES)
        with step(f"rebuilds of {REBUILT:,} stored vectors, now and before"):
            figures |= rebuilds(settings, folder, options.before)
    now, before = figures["filters"], figures["filters_before"]
    rows = {
        name: {"now_ms": now[name], "before_ms": before[name], "times": round(before[name] / now[name], 1)}
        for name in now
    }
    console.print(table(f"Filtered searches among {options.size:,} photos, p50", rows))
    others = {name: figure for name, figure in figures.items() if name not in ("size", "filters", "filters_before")}
    console.print(table("Copies and rebuilds", {name: {"": figure} for name, figure in others.items()}))
    tell(figures | {"machine": machine("faiss-cpu", "numpy")})


def _rebuild(settings: Settings) -> dict[str, Any]:
    """With a fifth of the training, to have it sooner: the lists are less even, and searches look at more."""
    kinds.KMEANS_ITERATIONS, kinds.TRAINED_PER_LIST = 3, 8
    return rebuild(settings, DIMENSION)


# --------------------------------------------------------------------------------------------------- filters


def _filters(settings: Settings, generation: int, queries: Vectors) -> dict[str, Any]:
    """p50 in milliseconds of searches for ten photos, Postgres included, by the name of their filter."""
    with service(settings, DIMENSION) as own:
        own.live.settle()
        wait_until_served(own.live, generation)
        store = PostgresStore(settings)
        now: dict[str, float] = {}
        before: dict[str, float] = {}
        try:
            for name, asked in _asked(store).items():
                now[name], before[name] = _compared(own, store, cycle(queries), asked)
                console.print(f"          {name}: {now[name]:,} ms, before {before[name]:,} ms", highlight=False)
        finally:
            store.close()
    return {"filters": now, "filters_before": before}


def _compared(own: Service, store: PostgresStore, queries: Iterator[Vector], asked: Asked) -> tuple[float, float]:
    return (
        _p50_ms(lambda: _search(own, next(queries), asked()), NOW_S, LEAST_NOW),
        _p50_ms(lambda: _search_by_ids(own, store, next(queries), asked()), BEFORE_S, LEAST_BEFORE),
    )


def _asked(store: PostgresStore) -> dict[str, Asked]:
    places = _places(store)
    centres = places[:, np.random.default_rng(0).permutation(places.shape[1])[:500]]
    numbers = count()

    def circle(share: float) -> Near:
        lat, lon = centres[:, next(numbers) % centres.shape[1]].tolist()
        radius_m = EVERYWHERE_M if share == 1 else float(np.quantile(_distances_m(lat, lon, places), share))
        return Near(lat, lon, radius_m)

    # A distance to every photo takes longer than a search: made beforehand.
    circles = {share: cycle([circle(share) for _ in range(10)]) for share in (0.0001, 0.01, 0.3, 1)}
    return {
        "near_0_01": lambda: Filter(next(circles[0.0001])),
        "near_1": lambda: Filter(next(circles[0.01])),
        "near_30": lambda: Filter(next(circles[0.3])),
        "near_100": lambda: Filter(next(circles[1])),
        "where_one": lambda: Filter(where={"serial": next(numbers) + 1}),
        "where_0_1": lambda: Filter(where={"rare": next(numbers) % 1000}),
        "where_50": lambda: Filter(where={"half": next(numbers) % 2}),
        "where_100": lambda: Filter(where={"all": True}),
        "both": lambda: Filter(next(circles[0.3]), {"half": next(numbers) % 2}),
    }


def _search(own: Service, query: Vector, among: Filter) -> None:
    own.library.questions.search(
        Search(
            vector=query.tolist(),
            top_k=TOP_K,
            threshold=-1.0,
            near=among.near,
            where=None if among.where is None else dict(among.where),
        )
    )


def _search_by_ids(own: Service, store: PostgresStore, query: Vector, among: Filter) -> None:
    """As an earlier release searched."""
    own.live.catch_up(max_age_s=1.0)
    only = _ids_as_objects(store, among)
    view = own.live._view
    assert view is not None
    assert view.base is not None
    base = view.base
    allowed = np.isin(base.ids, only, assume_unique=True)
    positions = np.flatnonzero(allowed)
    wanted = min(TOP_K + CANDIDATES, len(positions))
    if len(positions) <= 20_000:
        best = np.argsort(-(searching.vectors_at(base.index, positions) @ query))[:wanted]
        positions = positions[best]
    else:
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        _, positions = base.search(query[None, :], wanted, selector=selector, passing=len(positions))
    store.entries.known(base.ids[positions].tolist(), MODEL_KEY)


def _ids_as_objects(store: PostgresStore, among: Filter) -> Ids:
    query = select(entries.c.photo_id, entries.c.lat, entries.c.lon).where(~entries.c.removed)
    near = among.near
    if near is not None:
        lat_min, lat_max, ranges = bounding_box(near.lat, near.lon, near.radius_m)
        query = query.where(
            entries.c.lat.between(lat_min, lat_max),
            or_(*(entries.c.lon.between(west, east) for west, east in ranges)),
        )
    if among.where:
        query = query.where(entries.c.metadata.contains(dict(among.where)))
    with store.database.begin() as connection:
        found = connection.execute(query).all()
    inside = [
        row.photo_id
        for row in found
        if near is None or distance_m(near.lat, near.lon, row.lat, row.lon) <= near.radius_m
    ]
    return np.array(inside, dtype=np.int64)


def _places(store: PostgresStore) -> npt.NDArray[np.float64]:
    """[2, photos]: latitudes and longitudes."""
    with store.log.snapshot(MODEL_KEY, DIMENSION) as snapshot:
        return np.concatenate([np.stack([part.lat, part.lon]) for part in snapshot.facts()], axis=1)


def _distances_m(lat: float, lon: float, places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    phi, lam = np.radians(places)
    half = np.sin((phi - math.radians(lat)) / 2) ** 2
    half += math.cos(math.radians(lat)) * np.cos(phi) * np.sin((lam - math.radians(lon)) / 2) ** 2
    distances: npt.NDArray[np.float64] = 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(half))
    return distances


def _p50_ms(call: Callable[[], object], seconds: float, least: int) -> float:
    return percentile_ms(np.array(times_s(call, seconds=seconds, calls=least)), 50)


if __name__ == "__main__":
    main()
