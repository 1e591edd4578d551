"""What a user would pick instead, asked the same queries over the same file of vectors.

    python -m benchmarks.peers REQUEST.json

Run by benchmarks.index, a process for each peer, in an environment with the packages of benchmarks/requirements.txt;
nothing of the service is imported. Prints one JSON object: the figures at the smallest search parameter that reaches
the wanted recall@10, or {"skipped": reason}.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.measure import Ids, K, Pass, VectorFile, Vectors, as_copy, one_by_one, peak_rss_mb, recall

#: Sizes of the list of candidates in a search of a graph (ef), in rising order.
EFS = (
    *(10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128),
    *(160, 192, 224, 256, 320, 384, 448, 512),
)
#: Rows added between two looks at the clock.
ADD_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class Request:
    """One peer's task.

    vectors, queries, truth: paths of a VectorFile, and of float32 [n, d] and int64 [n, K] as numpy saves them.
    recall_at_10: to be reached. limit_s: seconds for the building. threads: for the building; searches have one.
    """

    peer: str
    vectors: str
    count: int
    dimension: int
    queries: str
    truth: str
    recall_at_10: float
    limit_s: float
    threads: int
    database_url: str

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


class TooSlow(Exception):
    """The building took longer than it may."""


class Clock:
    """The time that the building may take."""

    def __init__(self, limit_s: float) -> None:
        self._began = time.monotonic()
        self._limit_s = limit_s

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self._began

    @property
    def left_s(self) -> float:
        """Raises TooSlow when nothing is left."""
        left = self._limit_s - self.spent_s
        if left <= 0:
            raise TooSlow
        return left


class Peer(Protocol):
    """Built by its constructor from (request, rows, clock); ids are those of the file. Raises TooSlow."""

    #: Search parameters to try, in rising order; None where there is nothing to choose.
    efs: tuple[int | None, ...]

    def use(self, ef: int | None) -> None: ...

    def search(self, query: Vectors) -> Ids: ...

    def facts(self) -> dict[str, Any]:
        """Version and bytes of the index; peak_rss_mb where that is not this process's."""
        ...


class FaissFlatL2:
    """The first index of FAISS's guide. On vectors of length 1, L2 gives the order of the inner product."""

    efs: tuple[int | None, ...] = (None,)

    def __init__(self, request: Request, rows: VectorFile, clock: Clock) -> None:
        self._faiss = importlib.import_module("faiss")
        self._faiss.omp_set_num_threads(1)
        self._index = self._faiss.IndexFlatL2(rows.dimension)
        for _, vectors in rows.chunks(ADD_ROWS):
            self._index.add(vectors)
            _ = clock.left_s

    def use(self, ef: int | None) -> None:
        pass

    def search(self, query: Vectors) -> Ids:
        positions: Ids = self._index.search(query[None, :], K)[1][0]
        return positions + 1

    def facts(self) -> dict[str, Any]:
        return {"version": self._faiss.__version__, "index_bytes": self._index.ntotal * self._index.code_size}


class Hnswlib:
    """M 16 and ef_construction 100: half of the default's effort in building."""

    efs: tuple[int | None, ...] = EFS

    def __init__(self, request: Request, rows: VectorFile, clock: Clock) -> None:
        self._index = importlib.import_module("hnswlib").Index("ip", rows.dimension)
        self._index.init_index(rows.count, ef_construction=100, M=16)
        self._index.set_num_threads(request.threads)
        for ids, vectors in rows.chunks(ADD_ROWS):
            self._index.add_items(vectors, ids)
            _ = clock.left_s
        self._index.set_num_threads(1)

    def use(self, ef: int | None) -> None:
        self._index.set_ef(ef)

    def search(self, query: Vectors) -> Ids:
        ids: Ids = self._index.knn_query(query, K)[0][0].astype(np.int64)
        return ids

    def facts(self) -> dict[str, Any]:
        return {"version": _version("hnswlib"), "index_bytes": self._index.index_file_size()}


class Usearch:
    """Half precision; everything else as usearch has it (connectivity 16, expansion_add 128)."""

    efs: tuple[int | None, ...] = EFS

    def __init__(self, request: Request, rows: VectorFile, clock: Clock) -> None:
        module = importlib.import_module("usearch.index")
        self._index = module.Index(ndim=rows.dimension, metric="ip", dtype="f16")
        for ids, vectors in rows.chunks(ADD_ROWS):
            self._index.add(ids, vectors, threads=request.threads)
            _ = clock.left_s

    def use(self, ef: int | None) -> None:
        self._index.expansion_search = ef

    def search(self, query: Vectors) -> Ids:
        ids: Ids = self._index.search(query, K, threads=1).keys.astype(np.int64)
        return ids

    def facts(self) -> dict[str, Any]:
        return {"version": _version("usearch"), "index_bytes": self._index.serialized_length}


class PgvectorHnsw:
    """The Postgres that is at hand, with the defaults of pgvector's README: m 16, ef_construction 64, two workers.

    In a database of its own; vectors go in as binary COPY. The graph is built in memory: maintenance_work_mem holds it.
    """

    efs: tuple[int | None, ...] = EFS

    def __init__(self, request: Request, rows: VectorFile, clock: Clock) -> None:
        connection = importlib.import_module("psycopg2").connect(request.database_url)
        connection.autocommit = True
        self._cursor = connection.cursor()
        self._run("CREATE EXTENSION vector")
        self._run(f"CREATE TABLE photos (id bigint PRIMARY KEY, vector vector({rows.dimension})) ")
        for ids, vectors in rows.chunks(ADD_ROWS):
            self._cursor.copy_expert("COPY photos FROM STDIN (FORMAT binary)", io.BytesIO(_vector_rows(ids, vectors)))
            _ = clock.left_s
        # The vectors lie beside the table, which looks too small for a second worker.
        self._run("ALTER TABLE photos SET (parallel_workers = 2)")
        self._run("SET max_parallel_maintenance_workers = 2")
        self._run(f"SET maintenance_work_mem = '{256 + rows.count * rows.dimension * 4 * 3 // 2**21}MB'")
        self._run(f"SET statement_timeout = {int(clock.left_s * 1000)}")
        try:
            self._run(
                "CREATE INDEX by_vector ON photos USING hnsw (vector vector_ip_ops) WITH (m=16, ef_construction=64)"
            )
        except importlib.import_module("psycopg2.errors").QueryCanceled as exc:
            raise TooSlow from exc
        self._run("SET statement_timeout = 0")
        self._run("VACUUM ANALYZE photos")
        self._run("SET enable_seqscan = off")  # it is the index that is measured, at 10,000 rows too

    def use(self, ef: int | None) -> None:
        self._run(f"SET hnsw.ef_search = {ef}")

    def search(self, query: Vectors) -> Ids:
        written = "[" + ",".join(map(str, query.tolist())) + "]"
        self._cursor.execute("SELECT id FROM photos ORDER BY vector <#> %s::vector LIMIT %s", (written, K))
        return np.array([row[0] for row in self._cursor.fetchall()], dtype=np.int64)

    def facts(self) -> dict[str, Any]:
        [version] = self._row("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        [size] = self._row("SELECT pg_relation_size('by_vector')")
        [buffers] = self._row("SELECT current_setting('shared_buffers')")
        # The server process that has built and searched; what it has touched of shared_buffers is in it.
        [pid] = self._row("SELECT pg_backend_pid()")
        return {"version": version, "index_bytes": size, "shared_buffers": buffers, "peak_rss_mb": peak_rss_mb(pid)}

    def _run(self, statement: str) -> None:
        self._cursor.execute(statement)

    def _row(self, query: str) -> Any:
        self._cursor.execute(query)
        return self._cursor.fetchone()


PEERS: dict[str, Callable[[Request, VectorFile, Clock], Peer]] = {
    "faiss_flat_l2": FaissFlatL2,
    "hnswlib": Hnswlib,
    "usearch": Usearch,
    "pgvector_hnsw": PgvectorHnsw,
}


def measure(request: Request) -> dict[str, Any]:
    """Build one peer and ask it; see Request."""
    queries: Vectors = np.load(request.queries)
    truth: Ids = np.load(request.truth)
    clock = Clock(request.limit_s)
    try:
        peer = PEERS[request.peer](request, VectorFile(Path(request.vectors), request.count, request.dimension), clock)
    except ImportError as exc:
        return {"skipped": f"it is not installed: {exc}"}
    except TooSlow:
        return {"skipped": f"its build exceeded {request.limit_s:g} s"}
    build_s = clock.spent_s
    ef, run = _first_good_enough(peer, queries, truth, request.recall_at_10)
    reached = recall(run.found, truth, K)
    facts = {"peak_rss_mb": peak_rss_mb(), **peer.facts()}
    return {
        "build_s": round(build_s, 2),
        "bytes_per_vector": round(facts["index_bytes"] / request.count, 1),
        "ef": ef,
        "queries": len(run.found),
        "recall_at_1": recall(run.found, truth, 1),
        "recall_at_10": reached,
        "recall_reached": reached >= request.recall_at_10,
        **run.figures,
        **facts,
    }


def _first_good_enough(peer: Peer, queries: Vectors, truth: Ids, wanted: float) -> tuple[int | None, Pass]:
    """The smallest parameter whose pass has the wanted recall@10; the largest one if none has. By bisection: recall
    rises with it."""
    low, high = 0, len(peer.efs) - 1
    passes: dict[int, Pass] = {}

    def pass_at(number: int) -> Pass:
        if number not in passes:
            peer.use(peer.efs[number])
            passes[number] = one_by_one(peer.search, queries)
        return passes[number]

    while low < high:
        middle = (low + high) // 2
        if recall(pass_at(middle).found, truth, K) >= wanted:
            high = middle
        else:
            low = middle + 1
    return peer.efs[low], pass_at(low)


def _vector_rows(ids: Ids, vectors: Vectors) -> bytes:
    """Rows of COPY's binary format; a pgvector is its dimension, two bytes of zero, and big-endian float32 numbers
    (vector_recv in pgvector's vector.c)."""
    dimension = vectors.shape[1]
    row = np.dtype(
        [
            ("fields", ">i2"),
            ("id_length", ">i4"),
            ("id", ">i8"),
            ("vector_length", ">i4"),
            ("dimension", ">i2"),
            ("unused", ">i2"),
            ("vector", ">f4", (dimension,)),
        ]
    )
    rows = np.zeros(len(ids), dtype=row)
    rows["fields"], rows["id_length"], rows["vector_length"], rows["dimension"] = 2, 8, 4 + 4 * dimension, dimension
    rows["id"], rows["vector"] = ids, vectors
    return as_copy(rows)


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Request(**json.loads(Path(sys.argv[1]).read_text())))) + "\n")
