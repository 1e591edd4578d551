"""The index, measured beside what a user would pick instead, on one machine in one run.

    python -m benchmarks.index --size 100000 [--size 1000000 ...] [--json-file FILE]

JSON goes to stdout: one object for one size, a list for several. Progress and a table for people go to stderr.
The variable SIGHTLINE_INDEX_KIND chooses another kind of index than the service would choose by itself.

Everything runs on CORES cores, one thing after the other, in a folder of its own that is deleted at the end; at a
million photos it needs some 25 GB of disk. What is measured how stands with the functions: vectors.py the generator,
measure.py clock, recall and bandwidth, service.py rebuild and searches, traffic.py adds and the swap, peers.py the
others, renderer.py real features.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from benchmarks.measure import Ids, VectorFile, Vectors, exact_neighbours
from benchmarks.peers import PEERS, Request
from benchmarks.processes import alone
from benchmarks.renderer import ENCODER, write_features
from benchmarks.report import console, machine, step
from benchmarks.service import connect, exact_search, fill, rebuild, rebuild_or_refusal, remove_added, search
from benchmarks.traffic import WARM_UP_ADDS, add_to_visible, swap
from benchmarks.vectors import ClusteredVectors
from worker.embedded import EmbeddedServers
from worker.settings import Settings

CORES = 2
DIMENSION = 512
QUERIES = 1_000
ADDS = 200
#: Stored photos that are asked for during the swap, and others that are added meanwhile, again and again.
KNOWN, NEWCOMERS = 200, 1_000
#: A peer's recall@10 is equal when it lies at most this far below ours: half a standard error of 1,000 queries.
EQUAL_RECALL = 0.002
#: Seconds that a peer may take to answer, beyond those for its build.
PEER_ANSWER_S = 300.0
#: Kinds of index that the renderer's features are put into.
KINDS = ("exact", "ivf", "hnsw")
ROOT = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    about = machine("sightline-worker", "faiss-cpu", "numpy")
    drawn = _renderer(options.renderer_views) if options.renderer_views else {"skipped": "--renderer-views 0"}
    results = []
    for size in options.size or [100_000]:
        result = _measure(size, options) | {"renderer": drawn, "machine": about}
        results.append(result)
        console.print(_speed_table(result), _service_table(result))
    written = json.dumps(results[0] if len(results) == 1 else results, indent=2)
    sys.stdout.write(written + "\n")
    if options.json_file is not None:
        options.json_file.write_text(written + "\n")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index", description="Measure the index and its peers.")
    parser.add_argument("--size", type=int, action="append", help="stored vectors; may be given again (100000)")
    parser.add_argument("--json-file", type=Path, help="write the JSON here, too")
    parser.add_argument("--seed", type=int, default=0, help="of the generated vectors")
    parser.add_argument(
        "--peer-limit-s", type=float, default=60.0, help="seconds for a peer's build; longer ones are skipped (60)"
    )
    parser.add_argument("--peer", choices=list(PEERS), action="append", help="one of them alone; may be given again")
    parser.add_argument(
        "--peers-python",
        type=Path,
        default=ROOT / ".venv-bench" / "bin" / "python",
        help="interpreter with benchmarks/requirements.txt",
    )
    parser.add_argument(
        "--renderer-views", type=int, default=8, help="views of each of the renderer's places, 0 leaves it out (8)"
    )
    return parser.parse_args(arguments)


def _measure(size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Every figure of one size but the renderer's."""
    with _servers() as (folder, servers):
        with step(f"{size:,} vectors: generate, with exact neighbours"):
            vectors, queries, truth, newcomers = alone(_generate, folder, size, options.seed, threads=CORES)
        settings = _settings(folder, servers.database_url, "clustered")
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
    return {
        "size": size,
        "dimension": DIMENSION,
        **built,
        **searched,
        **visible,
        **swapped,
        "exact": exact,
        "peers": peers,
    }


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
    with _servers() as (folder, servers):
        with step(f"renderer: draw and encode {views} views of each place"):
            vectors, queries = write_features(folder / "features.f32", views)
        truth = exact_neighbours(vectors.chunks(vectors.count), queries)
        settings = _settings(folder, servers.database_url, "drawn")
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
    if not options.peers_python.exists():
        reason = "its environment is not there; `make bench-index` makes it"
        return {name: {"skipped": reason} for name in PEERS}
    database_url = _database_for_pgvector(servers)
    figures = {}
    for name in options.peer or PEERS:
        request = Request(
            peer=name,
            vectors=str(vectors.path),
            count=vectors.count,
            dimension=vectors.dimension,
            queries=str(folder / "queries.npy"),
            truth=str(folder / "truth.npy"),
            recall_at_10=wanted_recall,
            limit_s=options.peer_limit_s,
            threads=CORES,
            database_url=database_url,
        )
        with step(f"peer: {name}"):
            figures[name] = _peer(options.peers_python, request, folder)
    return figures


def _peer(python: Path, request: Request, folder: Path) -> dict[str, Any]:
    request.write(folder / "request.json")
    try:
        done = subprocess.run(
            [str(python), "-m", "benchmarks.peers", str(folder / "request.json")],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": str(CORES), "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=request.limit_s + PEER_ANSWER_S,
        )
    except subprocess.TimeoutExpired as exc:
        return {"skipped": f"it did not end within {exc.timeout:g} s"}
    if done.returncode != 0:
        return {"skipped": f"it failed: {(done.stderr.strip().splitlines() or [f'exit status {done.returncode}'])[-1]}"}
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _database_for_pgvector(servers: EmbeddedServers) -> str:
    """An empty database in the same server, which gets a quarter of the memory, as the PostgreSQL manual advises."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    connection = connect(servers.database_url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER SYSTEM SET shared_buffers = '{memory // 4 // 2**20}MB'")
        cursor.execute("CREATE DATABASE peers")
    connection.close()
    servers.stop_postgres()
    servers.start_postgres()
    return servers.database_url.replace("+psycopg2", "", 1).replace("/postgres?", "/peers?", 1)


@contextmanager
def _servers() -> Iterator[tuple[Path, EmbeddedServers]]:
    """Postgres on a new folder, which any user may enter: as root, it runs as a user of its own."""
    folder = Path(tempfile.mkdtemp(prefix="sightline-benchmark-"))
    try:
        folder.chmod(0o755)
        with EmbeddedServers(folder) as servers:
            yield folder, servers
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _settings(folder: Path, database_url: str, schema: str) -> Settings:
    return Settings(
        database_url=database_url, data_dir=folder, db_schema=schema, photos_table=f"photos_{schema}", encoder=ENCODER
    )


def _speed_table(result: dict[str, Any]) -> Table:
    """Ours, exact, and the peers, a row each."""
    columns = {
        "build_s": "build s",
        "peak_rss_mb": "peak MB",
        "bytes_per_vector": "bytes/vector",
        "recall_at_1": "recall@1",
        "recall_at_10": "recall@10",
        "search_p50_ms": "p50 ms",
        "search_p99_ms": "p99 ms",
        "qps_1_thread": "queries/s",
    }
    table = Table(title=f"{result['size']:,} vectors of {result['dimension']} dimensions, searches in one thread")
    table.add_column("", no_wrap=True)
    for heading in columns.values():
        table.add_column(heading, justify="right")
    rows = [(f"Sightline: {result['kind']}", result), ("Sightline, told to be exact", result["exact"])]
    skipped: list[str] = []
    for name, figures in [*rows, *result["peers"].items()]:
        if "skipped" in figures:
            skipped.append(f"{name} is left out: {figures['skipped']}")
            continue
        ef = f", ef {figures['ef']}" if figures.get("ef") else ""
        below = "" if figures.get("recall_reached", True) else ", recall not reached"
        table.add_row(name + ef + below, *(_shown(figures[key]) for key in columns))
    table.caption, table.caption_justify = escape("\n".join(skipped)), "left"
    return table


def _service_table(result: dict[str, Any]) -> Table:
    """What holds for the service alone, a row each."""
    exact, spans = result["exact"], result["swap"]
    rows = {
        "queries/s in two threads": _shown(result["qps_2_threads"]),
        "exact search by the memory's bandwidth": f"{_shown(exact['ratio'])} x "
        f"({exact['bandwidth_gb_s']} of {exact['limit_gb_s']} GB/s)",
        "add to visible, p50 / p99": f"{result['add_to_visible_p50_ms']} / {result['add_to_visible_p99_ms']} ms",
        "swap, failed searches": f"{result['swap_failed']} of {spans['searches']}",
        "steady": _span(spans["steady"]),
        "during the rebuild": _span(spans["build"]),
        "swap": _span(spans["swap"]),
        **{
            f"recall@10 on drawn photos, {kind}": _shown(figures.get("recall_at_10", "not good enough to be published"))
            for kind, figures in result["renderer"].get("kinds", {}).items()
        },
    }
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _span(latencies: dict[str, Any]) -> str:
    p50, p99, worst = (_shown(latencies[key]) for key in ("p50_ms", "p99_ms", "worst_ms"))
    return f"p50 {p50}, p99 {p99}, worst {worst} ms"


def _shown(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:,}"


if __name__ == "__main__":
    main()
