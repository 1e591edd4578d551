"""What a user would pick instead, asked the same queries over the same file of vectors.

Asked by benchmarks.index, in a process for each peer, in an environment with benchmarks/requirements-index.txt; nothing
of the service is imported. Answers with the figures at the smallest search parameter that reaches the wanted recall@10,
or {"skipped": reason}.
"""

from __future__ import annotations

import importlib
import io
import signal
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import K, Search, VectorFile, Vectors, answer, best_of, copy_rows, one_by_one, peak_rss_mb

#: Sizes of the list of candidates in a search of a graph (ef), in rising order.
EFS = (
    *(10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128),
    *(160, 192, 224, 256, 320, 384, 448, 512),
)
#: Rows added at a time: a build that takes too long is ended between two such calls.
ADD_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class Built:
    """A peer's index. Ids found are those of the file."""

    search: Search
    #: At last: version, bytes of the index, and what else there is to say; peak_rss_mb where it is another process's.
    facts: Callable[[], dict[str, Any]]
    #: Takes a search parameter of EFS; None where there is nothing to choose.
    use: Callable[[int], object] | None = None


class TooSlow(Exception):
    """The building took longer than it may."""


def faiss_flat_l2(rows: VectorFile, *, threads: int, database_url: str) -> Built:
    """The first index of FAISS's guide. On vectors of length 1, L2 gives the order of the inner product."""
    faiss = importlib.import_module("faiss")
    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatL2(rows.dimension)
    for _, vectors in rows.chunks(ADD_ROWS):
        index.add(vectors)
    return Built(
        lambda query: index.search(query[None, :], K)[1][0] + 1,
        lambda: {"version": faiss.__version__, "index_bytes": index.ntotal * index.code_size},
    )


def hnswlib(rows: VectorFile, *, threads: int, database_url: str) -> Built:
    """M 16 and ef_construction 100: half of the default's effort in building."""
    index = importlib.import_module("hnswlib").Index("ip", rows.dimension)
    index.init_index(rows.count, ef_construction=100, M=16)
    index.set_num_threads(threads)
    for ids, vectors in rows.chunks(ADD_ROWS):
        index.add_items(vectors, ids)
    index.set_num_threads(1)
    return Built(
        lambda query: index.knn_query(query, K)[0][0],
        lambda: {"version": _version("hnswlib"), "index_bytes": index.index_file_size()},
        index.set_ef,
    )


def usearch(rows: VectorFile, *, threads: int, database_url: str) -> Built:
    """Half precision; everything else as usearch has it (connectivity 16, expansion_add 128)."""
    index = importlib.import_module("usearch.index").Index(ndim=rows.dimension, metric="ip", dtype="f16")
    for ids, vectors in rows.chunks(ADD_ROWS):
        index.add(ids, vectors, threads=threads)
    return Built(
        lambda query: index.search(query, K, threads=1).keys,
        lambda: {"version": _version("usearch"), "index_bytes": index.serialized_length},
        lambda ef: setattr(index, "expansion_search", ef),
    )


def pgvector_hnsw(rows: VectorFile, *, threads: int, database_url: str) -> Built:
    """The Postgres that is at hand, with the defaults of pgvector's README: m 16, ef_construction 64, two workers.

    In a database of its own; vectors go in as binary COPY. The graph is built in memory: maintenance_work_mem holds it.
    """
    connection = importlib.import_module("psycopg2").connect(database_url)
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("CREATE EXTENSION vector")
    cursor.execute(f"CREATE TABLE photos (id bigint PRIMARY KEY, vector vector({rows.dimension}))")
    # A pgvector is its dimension, two bytes of zero, and the numbers (vector_recv in pgvector's vector.c).
    kind = np.dtype([("dimension", ">i2"), ("unused", ">i2"), ("numbers", ">f4", (rows.dimension,))])
    for ids, vectors in rows.chunks(ADD_ROWS):
        sent = np.zeros(len(ids), dtype=kind)
        sent["dimension"], sent["numbers"] = rows.dimension, vectors
        copied = io.BytesIO(copy_rows(id=ids.astype(">i8"), vector=sent))
        cursor.copy_expert("COPY photos FROM STDIN (FORMAT binary)", copied)
    # The vectors lie beside the table, which looks too small for a second worker.
    cursor.execute("ALTER TABLE photos SET (parallel_workers = 2)")
    cursor.execute("SET max_parallel_maintenance_workers = 2")
    cursor.execute(f"SET maintenance_work_mem = '{256 + rows.count * rows.dimension * 4 * 3 // 2**21}MB'")
    # The server is told of the limit, too: this process waits for it in C.
    cursor.execute(f"SET statement_timeout = {int(signal.getitimer(signal.ITIMER_REAL)[0] * 1000) + 1}")
    try:
        cursor.execute(
            "CREATE INDEX by_vector ON photos USING hnsw (vector vector_ip_ops) WITH (m=16, ef_construction=64)"
        )
    except importlib.import_module("psycopg2.errors").QueryCanceled as exc:
        raise TooSlow from exc
    cursor.execute("SET statement_timeout = 0")
    cursor.execute("VACUUM ANALYZE photos")
    cursor.execute("SET enable_seqscan = off")  # it is the index that is measured, at 10,000 rows too

    def search(query: Vectors) -> Any:
        written = "[" + ",".join(map(str, query.tolist())) + "]"
        cursor.execute("SELECT id FROM photos ORDER BY vector <#> %s::vector LIMIT %s", (written, K))
        return np.array([row[0] for row in cursor.fetchall()], dtype=np.int64)

    def facts() -> dict[str, Any]:
        # The server process that has built and searched; what it has touched of shared_buffers is in its memory.
        cursor.execute(
            "SELECT extversion, pg_relation_size('by_vector'), current_setting('shared_buffers'), pg_backend_pid() "
            "FROM pg_extension WHERE extname = 'vector'"
        )
        pgvector, size, buffers, pid = cursor.fetchone()
        return {"version": pgvector, "index_bytes": size, "shared_buffers": buffers, "peak_rss_mb": peak_rss_mb(pid)}

    return Built(search, facts, lambda ef: cursor.execute(f"SET hnsw.ef_search = {ef}"))


PEERS = {build.__name__: build for build in (faiss_flat_l2, hnswlib, usearch, pgvector_hnsw)}


def measure(
    *,
    peer: str,
    vectors: str,
    count: int,
    dimension: int,
    queries: str,
    truth: str,
    wanted_recall: float,
    limit_s: float,
    passes: int = 1,
    **how: Any,
) -> dict[str, Any]:
    """Build one peer and ask it.

    vectors, queries, truth: paths of a VectorFile, and of float32 [n, d] and int64 [n, K] as numpy saves them.
    wanted_recall: of 10 neighbours, to be reached. limit_s: seconds for the building. passes: with more than one, the
    fastest of so many at the chosen parameter. how: threads for the building (searches have one), and database_url.
    """
    asked, neighbours = np.load(queries), np.load(truth)
    rows = VectorFile(Path(vectors), count, dimension)
    began = time.monotonic()
    signal.signal(signal.SIGALRM, _too_slow)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        built = PEERS[peer](rows, **how)
    except TooSlow:
        return {"skipped": f"its build exceeded {limit_s:g} s"}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    build_s = time.monotonic() - began

    @cache
    def pass_at(ef: int | None) -> dict[str, Any]:
        if built.use is not None and ef is not None:
            built.use(ef)
        return one_by_one(built.search, asked, neighbours)

    def good_enough(ef: int) -> bool:
        return bool(pass_at(ef)["recall_at_10"] >= wanted_recall)

    # The smallest parameter that is good enough, the largest one if none is; recall rises with it.
    ef = None if built.use is None else EFS[bisect_left(EFS[:-1], True, key=good_enough)]
    figures = pass_at(ef)
    if passes > 1:
        if built.use is not None and ef is not None:
            built.use(ef)
        figures = best_of(passes, built.search, asked, neighbours)
    facts = {"peak_rss_mb": peak_rss_mb(), **built.facts()}
    return {
        "build_s": round(build_s, 2),
        "bytes_per_vector": round(facts["index_bytes"] / count, 1),
        "ef": ef,
        **figures,
        "recall_reached": figures["recall_at_10"] >= wanted_recall,
        **facts,
    }


def _version(package: str) -> str:
    # Imported when the memory is measured already, which this would be some MB of.
    from importlib.metadata import version

    return version(package)


def _too_slow(*_: object) -> None:
    """Between two calls into C."""
    raise TooSlow


if __name__ == "__main__":
    answer(measure)
