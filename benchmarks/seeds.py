"""The index on many sets of vectors: whether what it promises holds for new photos, and how fast it is beside peers.

A part of benchmarks.index. Of each seed a generation is built from a file, without Postgres, and asked as a process of
the service asks it (View.search), before and after each peer: ours is the mean of both. Times are those of the
searching thread's processor (`time.thread_time`), the best of PASSES: what else runs on the machine disturbs them less.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from benchmarks.measure import Ids, K, VectorFile, Vectors, best_of, exact_neighbours
from benchmarks.processes import ANSWER_S, alone, ask
from benchmarks.report import console, step, workplace
from benchmarks.vectors import ClusteredVectors
from worker.core.types import START, Chunk, Documents, Facts, Mark
from worker.index.building import Build
from worker.index.folder import GenerationFolder
from worker.index.view import Layers

MODEL_KEY = "benchmark@0000000000000000"
DIMENSION = 512
#: Searches for fresh photos of each seed.
QUERIES = 1_000
PASSES = 3
#: The fastest one everywhere (docs/benchmarks.md).
FASTEST_PEERS = ("hnswlib",)
GATE = Build().gate
#: A peer's recall@10 is equal when it lies at most this far below ours: half a standard error of 1,000 queries.
EQUAL_RECALL = 0.002
#: What is shown of every seed.
SHOWN = ("fresh", "published", "promised", "build_s", "qps", "peers", "ratio")


@dataclass(frozen=True, slots=True)
class FileSnapshot:
    """What a rebuild reads of Postgres, read from a file. See worker.core.ports.Snapshot."""

    rows: VectorFile
    mark: Mark = START

    @property
    def count(self) -> int:
        return self.rows.count

    def chunks(self) -> Iterator[Chunk]:
        for ids, vectors in self.rows.chunks(10_000):
            yield Chunk(ids, vectors)

    def sample(self, rows: int) -> Chunk:
        shape = (self.count, self.rows.dimension)
        stored = np.memmap(self.rows.path, dtype=np.float32, mode="r", shape=shape)
        chosen = np.sort(np.random.default_rng(rows).permutation(self.count)[:rows])
        return Chunk(chosen + 1, np.array(stored[chosen]))

    def facts(self) -> Iterator[Facts]:
        return iter(())

    def documents(self) -> Iterator[Documents]:
        return iter(())


def measure_seeds(
    count: int, size: int, peers: Sequence[str], *, beside_peers: int, python: Path, limit_s: float, threads: int
) -> dict[str, Any]:
    """{"seeds": a row each, "summary": what holds of all}.

    beside_peers: so many of the seeds, the first. python: with benchmarks/requirements-index.txt. limit_s: for a
    peer's build.
    """
    began = time.monotonic()
    rows = []
    for seed in range(count):
        with step(f"seed {seed}"):
            asked = peers if seed < beside_peers else ()
            rows.append(_measure(seed, size, asked, python=python, limit_s=limit_s, threads=threads))
        found = f"fresh {rows[-1]['fresh']:.4f}, published {rows[-1]['published']:.4f}"
        console.print(f"          {found}, promised {rows[-1]['promised']:.4f}, ratio {rows[-1]['ratio']}")
    return {"seeds": rows, "summary": _summary(rows) | {"took_s": round(time.monotonic() - began)}}


def _measure(
    seed: int, size: int, peers: Sequence[str], *, python: Path, limit_s: float, threads: int
) -> dict[str, Any]:
    with workplace("seeds") as folder:
        vectors = alone(_generate, folder, size, seed, threads=threads)
        built = alone(_build, folder, vectors, threads, threads=threads)
        asked = [alone(_ask, folder, size)]
        wanted_recall = asked[0]["recall_at_10"] - EQUAL_RECALL
        request = {
            "vectors": str(vectors.path),
            "count": size,
            "dimension": DIMENSION,
            "queries": str(folder / "queries.npy"),
            "truth": str(folder / "truth.npy"),
            "wanted_recall": wanted_recall,
            "limit_s": limit_s,
            "passes": PASSES,
            "threads": threads,
            "database_url": "",
        }
        figures, ratios = {}, []
        for peer in peers:
            figures[peer] = ask(python, "benchmarks.peers", request | {"peer": peer}, timeout_s=limit_s + ANSWER_S)
            asked.append(alone(_ask, folder, size))
            if figures[peer].get("recall_reached"):
                ours = fmean(row["qps_of_processor"] for row in asked[-2:])
                ratios.append(ours / figures[peer]["qps_of_processor"])
    return {
        "seed": seed,
        "fresh": asked[0]["recall_at_10"],
        "published": built["recall_at_10"],
        "promised": built["recall_at_10_at_least"],
        "parameters": built["parameters"],
        "build_s": built["build_s"],
        "qps": round(fmean(row["qps_of_processor"] for row in asked)),
        "peers": figures,
        # Of the fastest peer.
        "ratio": round(min(ratios), 3) if ratios else None,
    }


def _generate(folder: Path, size: int, seed: int) -> VectorFile:
    made = ClusteredVectors(size, dimension=DIMENSION, seed=seed)
    vectors = VectorFile.write(folder / "vectors.f32", made.chunks())
    queries = made.fresh(QUERIES, stream=0)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "truth.npy", exact_neighbours(vectors.chunks(20_000), queries))
    return vectors


def _build(folder: Path, vectors: VectorFile, threads: int) -> dict[str, Any]:
    how = Build(kind=os.environ.get("SIGHTLINE_INDEX_KIND", "auto"), threads=threads)
    generations = GenerationFolder(folder / "generations", build=how)
    began = time.monotonic()
    generations.write(1, FileSnapshot(vectors), model_key=MODEL_KEY, dimension=DIMENSION)
    build_s = round(time.monotonic() - began, 2)
    manifest = generations.open(1, model_key=MODEL_KEY).manifest
    return {
        "build_s": build_s,
        "parameters": manifest.parameters,
        "recall_at_10": manifest.recall_at_10,
        "recall_at_10_at_least": manifest.recall_at_10_at_least,
    }


def _ask(folder: Path, size: int) -> dict[str, Any]:
    generation = GenerationFolder(folder / "generations").open(1, model_key=MODEL_KEY)
    view = Layers(generation, DIMENSION).view(generation.manifest.mark)
    queries: Vectors = np.load(folder / "queries.npy")
    truth: Ids = np.load(folder / "truth.npy")
    return best_of(PASSES, lambda query: view.search(query, K).ids, queries, truth)


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    fresh, promised = (np.array([row[name] for row in rows], dtype=float) for name in ("fresh", "promised"))
    ratios = [row["ratio"] for row in rows if row["ratio"] is not None]
    return {
        "seeds": len(rows),
        "gate": GATE,
        "fresh_reach_gate": int((fresh >= GATE).sum()),
        "fresh_reach_promise": int((fresh >= promised).sum()),
        "fresh_least": float(fresh.min()),
        "fresh_median": float(np.median(fresh)),
        "published_minus_fresh_mean": round(fmean(row["published"] - row["fresh"] for row in rows), 4),
        "build_s_median": median(row["build_s"] for row in rows),
        "ratios": len(ratios),
        "ratio_least": min(ratios, default=None),
        "ratio_median": round(median(ratios), 3) if ratios else None,
    }
