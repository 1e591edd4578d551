"""A rebuild of stored vectors beside an earlier release's, and a search for a picture of which there are thousands.

Part of benchmarks.search; each function runs in a process of its own or starts some.
"""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.earlier import EarlierRelease
from benchmarks.measure import VectorFile, percentile_ms, times_s
from benchmarks.processes import alone, cores
from benchmarks.service import fill, rebuild, service, sql, wait_until_served
from benchmarks.vectors import ClusteredVectors
from producer_client import contract
from producer_client.contract import Photo
from worker.core.vectors import unit_rows
from worker.settings import Settings

DIMENSION = 512
#: Stored vectors of the rebuilds, and rebuilds of each release, by turns.
REBUILT, TURNS = 100_000, 2
#: Other photos beside the copies: enough for an index that does not compare with everything.
OTHERS = 45_000
#: What copies of one picture differ by in each number: another order of summing up.
COPY_NOISE = 1e-7
SEARCHES = 40
#: When the files were written, in nanoseconds since 1970.
WRITTEN_NS = 1_700_000_000_000_000_000


def rebuilds(settings: Settings, folder: Path, earlier: Path | None) -> dict[str, Any]:
    """Seconds of a rebuild from Postgres to published, and the ratio to the release that lies in `earlier`."""
    vectors = VectorFile.write(folder / "rebuilt.f32", ClusteredVectors(REBUILT, dimension=DIMENSION).chunks())
    now = _in_schema(settings, folder, "rebuilt_now").model_copy(update={"photo_roots": (folder / "rebuilt_files",)})
    alone(fill, now, vectors, "NULL", "id || '.jpg'")
    alone(_with_files, now)
    if earlier is None:
        figures = {"rebuild_s": alone(rebuild, now, DIMENSION, threads=cores())["build_s"], "rebuild_vs_before": None}
    else:
        before = EarlierRelease(earlier, _in_schema(settings, folder, "rebuilt_before"), vectors)
        before.fill()
        turns = [
            (before.rebuild()["build_s"], alone(rebuild, now, DIMENSION, threads=cores())["build_s"])
            for _ in range(TURNS)
        ]
        theirs, ours = (min(seconds) for seconds in zip(*turns, strict=True))
        figures = {
            "rebuild_s": ours,
            "rebuild_before_s": theirs,
            "rebuild_vs_before": round(ours / theirs, 3),
        }
    vectors.path.unlink()
    return figures


def _with_files(settings: Settings) -> None:
    """The photos' files, as `fill` says that they are, and that they were so when they were embedded: a rebuild looks
    at each. Of the earlier release none is there, which does not look."""
    (root,) = settings.photo_roots
    root.mkdir(parents=True)
    for photo_id in range(1, REBUILT + 1):
        path = root / f"{photo_id}.jpg"
        path.write_bytes(b"%d" % photo_id)
        os.utime(path, ns=(WRITTEN_NS, WRITTEN_NS))
    with sql(settings.database_url) as cursor:
        known = "file_size = length(photo_id::text), file_mtime_ns = %s"
        cursor.execute(f"UPDATE {settings.db_schema}.entries SET {known}", (WRITTEN_NS,))
        cursor.execute("VACUUM ANALYZE")


def copies(settings: Settings, folder: Path, of_one: int) -> dict[str, Any]:
    """p50 in milliseconds of searches for ten photos by one of `of_one` copies of a picture, Postgres included."""
    made = ClusteredVectors(OTHERS, dimension=DIMENSION)
    noise = np.random.default_rng(0).normal(size=(of_one, DIMENSION))
    alike = unit_rows(made.fresh(1, stream=0) + COPY_NOISE * noise)
    vectors = VectorFile.write(folder / "copies.f32", [*made.chunks(), alike])
    own = _in_schema(settings, folder, "copies")
    alone(fill, own, vectors)
    vectors.path.unlink()
    built = alone(rebuild, own, DIMENSION, threads=cores())
    return {f"copies_{of_one}_ms": alone(_searched, own, built["generation"])}


def _searched(settings: Settings, generation: int) -> float:
    with service(settings, DIMENSION) as own:
        own.live.settle()
        wait_until_served(own.live, generation)
        numbers = count(1)

        def search() -> None:
            request = contract.Search(photo=Photo(photo_id=OTHERS + next(numbers)), top_k=10, threshold=-1.0)
            hits = own.library.questions.search(request).hits
            if len(hits) != 10 or max(hit.photo_id for hit in hits) > OTHERS:
                raise RuntimeError(f"a copy was found, or not all others: {[hit.photo_id for hit in hits]}")

        return percentile_ms(np.array(times_s(search, seconds=0, calls=SEARCHES)), 50)


def _in_schema(settings: Settings, folder: Path, name: str) -> Settings:
    return settings.model_copy(update={"data_dir": folder / name, "db_schema": name, "photos_table": f"photos_{name}"})
