"""The index, measured beside what a user would pick instead, on one machine in one run.

    python -m benchmarks.index --size 100000 [--size 1000000 ...] [--json-file FILE]
    python -m benchmarks.index --seeds 20           recall and speed on so many sets of vectors (seeds.py)

JSON goes to stdout on one line, an object for one size and a list for several; progress and tables go to stderr. The
variable SIGHTLINE_INDEX_KIND chooses another kind of index than the service would choose by itself.

Everything runs on CORES cores, one thing after the other, in a folder that is deleted at the end; a million photos need
some 25 GB of disk. What is measured how stands with the functions: vectors.py the generator, measure.py clock, recall
and bandwidth, service.py rebuild and searches, traffic.py adds and the swap, peers.py the others, renderer.py real
features.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Ids, VectorFile, Vectors, exact_neighbours
from benchmarks.peers import PEERS
from benchmarks.processes import ANSWER_S, alone, ask, python_of
from benchmarks.renderer import ENCODER, write_features
from benchmarks.report import console, machine, step, table, tell, workplace
from benchmarks.seeds import DIMENSION, EQUAL_RECALL, FASTEST_PEERS, QUERIES, measure_seeds
from benchmarks.seeds import SHOWN as SEED_SHOWN
from benchmarks.service import exact_search, fill, rebuild, rebuild_or_refusal, remove_added, search, sql
from benchmarks.traffic import WARM_UP_ADDS, add_to_visible, swap
from benchmarks.vectors import ClusteredVectors
from worker.commands.tables import Table
from worker.embedded import EmbeddedServers
from worker.settings import Settings

CORES = 2
ADDS = 200
#: Stored photos that are asked for during the swap, and others that are added meanwhile, again and again.
KNOWN, NEWCOMERS = 200, 1_000
#: Kinds of index that the renderer's features are put into.
KINDS = ("exact", "ivf", "hnsw")
#: What is shown of every contender.
SHOWN = (
    *("build_s", "peak_rss_mb", "bytes_per_vector", "ef", "recall_at_1", "recall_at_10"),
    *("search_p50_ms", "search_p99_ms", "qps_1_thread"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index", description="Measure the index and its peers.")
    add = parser.add_argument
    add("--size", type=int, action="append", help="stored vectors; may be given again (100000)")
    add("--json-file", type=Path, help="write the JSON here, too")
    add("--seed", type=int, default=0, help="of the generated vectors")
    add("--peer-limit-s", type=float, default=60.0, help="seconds for a peer's build; longer ones are skipped (60)")
    add("--peer", choices=list(PEERS), action="append", help="one of them alone; may be given again")
    add("--peers-python", type=Path, default=python_of("index"), help="with benchmarks/requirements-index.txt")
    add("--renderer-views", type=int, default=8, help="views of each of the renderer's places, 0 leaves it out (8)")
    add("--seeds", type=int, help="so many sets of vectors, recall and speed alone, beside the fastest peer")
    add("--peer-seeds", type=int, help="of these, so many beside the peer (all); the others are of recall alone")
    options = parser.parse_args(arguments)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    about = machine("sightline-worker", "faiss-cpu", "numpy")
    if options.seeds:
        _seeds(options, about)
        return
    drawn = _renderer(options.renderer_views) if options.renderer_views else {"skipped": "--renderer-views 0"}
    results = []
    for size in options.size or [100_000]:
        results.append(_measure(size, options) | {"renderer": drawn, "machine": about})
        console.print(*_tables(results[-1]))
    line = tell(results[0] if len(results) == 1 else results)
    if options.json_file is not None:
        options.json_file.write_text(line)


def _seeds(options: argparse.Namespace, about: dict[str, Any]) -> None:
    """Of one size."""
    (size,) = options.size or [100_000]
    result = measure_seeds(
        options.seeds,
        size,
        options.peer or FASTEST_PEERS,
        beside_peers=options.seeds if options.peer_seeds is None else options.peer_seeds,
        python=options.peers_python,
        limit_s=options.peer_limit_s,
        threads=CORES,
    )
    rows = {
        f"seed {row['seed']}": row
        | {"peers": [f"{name} {figures.get('qps_of_processor', '')}" for name, figures in row["peers"].items()]}
        for row in result["seeds"]
    }
    console.print(table(f"{size:,} vectors of {DIMENSION} dimensions, searches in one thread", rows, SEED_SHOWN))
    console.print(table("All seeds", {name: {"": value} for name, value in result["summary"].items()}))
    line = tell({"size": size, "dimension": DIMENSION, **result, "machine": about})
    if options.json_file is not None:
        options.json_file.write_text(line)


def _measure(size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Every figure of one size but the renderer's."""
    with _servers("clustered") as (folder, servers, settings):
        with step(f"{size:,} vectors: generate, with exact neighbours"):
            vectors, queries, truth, newcomers = alone(_generate, folder, size, options.seed, threads=CORES)
        with step("fill Postgres"):
            alone(fill, settings, vectors)
        with step("rebuild"):
            built = alone(rebuild, settings, DIMENSION, threads=CORES)
        with step(f"search, {built['kind']}"):
            searched = alone(search, settings, built["generation"], queries, truth)
        with step("add to visible"):
            visible = alone(add_to_visible, settings, newcomers[: WARM_UP_ADDS + ADDS])
        known = np.random.default_rng(options.seed).choice(size, min(KNOWN, size), replace=False)
        with step("swap"):
            rows = np.array(np.memmap(vectors.path, dtype=np.float32, shape=(size, DIMENSION), mode="r")[known])
            swapped = alone(swap, settings, known + 1, rows, newcomers[WARM_UP_ADDS + ADDS :])
        with step("rebuild, told to be exact"):
            alone(remove_added, settings, size)
            exact = alone(rebuild, settings.model_copy(update={"index_kind": "exact"}), DIMENSION, threads=CORES)
        with step("search, exact"):
            exact |= alone(exact_search, settings, exact["generation"], queries, truth)
        peers = _peers(folder, servers, vectors, searched["recall_at_10"] - EQUAL_RECALL, options)
    figures = built | searched | visible | swapped
    return {"size": size, "dimension": DIMENSION, **figures, "exact": exact, "peers": peers}


def _generate(folder: Path, size: int, seed: int) -> tuple[VectorFile, Vectors, Ids, Vectors]:
    """(stored vectors, queries, their exact neighbours, photos to add), in files and in memory."""
    made = ClusteredVectors(size, dimension=DIMENSION, seed=seed)
    vectors = VectorFile.write(folder / "vectors.f32", made.chunks())
    queries = made.fresh(QUERIES, stream=0)
    truth = exact_neighbours(vectors.chunks(20_000), queries)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "truth.npy", truth)
    return vectors, queries, truth, made.fresh(WARM_UP_ADDS + ADDS + NEWCOMERS, stream=1)


def _renderer(views: int) -> dict[str, Any]:
    """Recall and size of every kind of index on features of drawn photos; too few of them make exact ones alone."""
    kinds: dict[str, dict[str, Any]] = {}
    with _servers("drawn") as (folder, _, settings):
        with step(f"renderer: draw and encode {views} views of each place"):
            vectors, queries = alone(write_features, folder, views, threads=CORES)
        truth = exact_neighbours(vectors.chunks(vectors.count), queries)
        alone(fill, settings, vectors)
        for kind in KINDS:
            chosen = settings.model_copy(update={"index_kind": kind})
            with step(f"renderer: {kind}"):
                built = alone(rebuild_or_refusal, chosen, vectors.dimension, threads=CORES)
                if "refused" not in built:
                    if built["kind"] != kind:
                        break
                    built |= alone(search, chosen, built["generation"], queries, truth)
                kinds[kind] = built
    return {"encoder": ENCODER, "size": vectors.count, "dimension": vectors.dimension, "kinds": kinds}


def _peers(
    folder: Path, servers: EmbeddedServers, vectors: VectorFile, wanted_recall: float, options: argparse.Namespace
) -> dict[str, Any]:
    """Each peer's figures at the wanted recall@10, or why there are none."""
    request = {
        "vectors": str(vectors.path),
        "count": vectors.count,
        "dimension": vectors.dimension,
        "queries": str(folder / "queries.npy"),
        "truth": str(folder / "truth.npy"),
        "wanted_recall": wanted_recall,
        "limit_s": options.peer_limit_s,
        "threads": CORES,
        "database_url": _database_for_pgvector(servers),
    }
    python, timeout_s = options.peers_python, options.peer_limit_s + ANSWER_S
    figures = {}
    for name in options.peer or PEERS:
        with step(f"peer: {name}"):
            figures[name] = ask(python, "benchmarks.peers", request | {"peer": name}, timeout_s=timeout_s)
    return figures


def _database_for_pgvector(servers: EmbeddedServers) -> str:
    """An empty database in the same server, which gets a quarter of the memory, as the PostgreSQL manual advises."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with sql(servers.database_url) as cursor:
        cursor.execute(f"ALTER SYSTEM SET shared_buffers = '{memory // 4 // 2**20}MB'")
        cursor.execute("CREATE DATABASE peers")
    servers.stop_postgres()
    servers.start_postgres()
    return servers.database_url.replace("+psycopg2", "", 1).replace("/postgres?", "/peers?", 1)


@contextmanager
def _servers(schema: str) -> Iterator[tuple[Path, EmbeddedServers, Settings]]:
    """A new folder with Postgres on it, and what the service is told of them."""
    with workplace("index") as folder, EmbeddedServers(folder) as servers:
        url, photos = servers.database_url, f"photos_{schema}"
        yield (
            folder,
            servers,
            Settings(database_url=url, data_dir=folder, db_schema=schema, photos_table=photos, encoder=ENCODER),
        )


def _tables(result: dict[str, Any]) -> Iterator[Table]:
    """Ours, exact, and the peers, a row each; then what holds for the service alone."""
    ours = {f"Sightline: {result['kind']}": result, "Sightline, told to be exact": result["exact"]}
    title = f"{result['size']:,} vectors of {result['dimension']} dimensions, searches in one thread"
    peers = {
        name + ("" if row.get("recall_reached", True) else ", recall not reached"): row
        for name, row in result["peers"].items()
    }
    yield table(title, ours | peers, SHOWN)
    spans = {f"swap: {span}": result["swap"][span] for span in ("steady", "build", "swap")}
    yield table("Searches beside adds and a rebuild", spans)
    names = ("qps_2_threads", "add_to_visible_p50_ms", "add_to_visible_p99_ms", "swap_failed")
    figures = {name: result[name] for name in names}
    figures |= {f"exact: {name}": result["exact"][name] for name in ("ratio", "bandwidth_gb_s", "limit_gb_s")}
    yield table("The service alone", {name: {"": figure} for name, figure in figures.items()})
    if drawn := result["renderer"].get("kinds"):
        yield table("On drawn photos", drawn, ("recall_at_10", "search_p50_ms", "bytes_per_vector", "refused"))


if __name__ == "__main__":
    main()
