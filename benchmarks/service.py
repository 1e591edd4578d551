"""Sightline measured: photos into Postgres, a rebuild, searches, exact search beside the memory's bandwidth.

Every public function is meant to run in a process of its own (processes.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import psycopg2

from benchmarks import measure
from benchmarks.measure import Ids, K, VectorFile, Vectors, copy_rows, peak_rss_mb
from worker.errors import Permanent
from worker.index.folder import GenerationFolder
from worker.index.generation import INDEX, MANIFEST
from worker.index.live import FaissLiveIndex
from worker.index.repeating import Repeating
from worker.library import Library
from worker.quarantine import Quarantine
from worker.runtime import generation_folder
from worker.settings import Settings
from worker.storage.migrate import migrate
from worker.storage.source import PhotoFiles
from worker.storage.store import PostgresStore

MODEL_KEY = "benchmark@0000000000000000"
#: Rows in one COPY: 100 MB at 512 dimensions.
COPY_ROWS = 50_000
#: Where photos lie by default: no rebuild looks for them there.
URL = "'https://photos.example/' || id || '.jpg'"
#: Seconds for a process to serve a generation that is published.
OPEN_TIMEOUT_S = 600.0


def _never(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("every vector of the benchmark is stored already, and it asks by vector")


@dataclass
class NoModel:
    """Says what a model says of itself, and is never asked to encode."""

    dimension: int
    name: str = "benchmark"
    model_key: str = MODEL_KEY
    device: str = "cpu"
    backend: str = "none"
    input_side: int = 0
    has_text: bool = False
    prepare = encode_images = encode_texts = staticmethod(_never)


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of one process of the service."""

    library: Library
    live: FaissLiveIndex
    folder: GenerationFolder


@contextmanager
def service(settings: Settings, dimension: int, repeating: Repeating | None = None) -> Iterator[Service]:
    """The service as `worker.runtime` joins it, without a model, and without repeating searches unless told."""
    store = PostgresStore(settings, pool_size=settings.concurrency + 4)
    folder = generation_folder(settings)
    live = FaissLiveIndex(store.log, folder, model_key=MODEL_KEY, dimension=dimension, repeating=repeating)
    library = Library.join(
        settings,
        encoder=NoModel(dimension),
        decode=_never,
        find_keypoints=_never,
        source=PhotoFiles(settings),
        store=store,
        live=live,
        generations=folder,
        quarantine=Quarantine(store.attempts, after=settings.quarantine_after),
    )
    try:
        yield Service(library, live, folder)
    finally:
        live.close()
        store.close()


@contextmanager
def sql(database_url: str) -> Iterator[Any]:
    """A cursor for a URL of the settings, each statement committed by itself."""
    with closing(psycopg2.connect(database_url.replace("+psycopg2", "", 1))) as connection:
        connection.autocommit = True
        yield connection.cursor()


def fill(settings: Settings, vectors: VectorFile, metadata: str = "NULL", path: str = URL) -> None:
    """Make the tables and put every vector in, as if each photo had been added once; change log and all.

    metadata, path: of the photo with this `id`, as SQL.
    """
    with closing(PostgresStore(settings)) as store:
        migrate(store.database.engine, schema=settings.db_schema, photos_table=settings.photos_table)
    photos = settings.photos_table
    with sql(settings.database_url) as cursor:
        cursor.execute(f"SET search_path = {settings.db_schema}, public")
        for ids, rows in vectors.chunks(COPY_ROWS):
            hashes = np.array([hashlib.sha256(b"%d" % photo_id).hexdigest() for photo_id in ids.tolist()], dtype="S64")
            models = np.full(len(ids), MODEL_KEY, dtype=f"S{len(MODEL_KEY)}")
            copy = "COPY embeddings (content_sha256, model_key, vector) FROM STDIN (FORMAT binary)"
            cursor.copy_expert(copy, io.BytesIO(copy_rows(content=hashes, model=models, vector=rows.astype("<f4"))))
        cursor.execute(
            _FILL.format(photos=photos, metadata=metadata, path=path), {"count": vectors.count, "photos": photos}
        )
        # What autovacuum and the checkpointer would do later, in the middle of a measurement.
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")


def drop(settings: Settings) -> None:
    """Take out all that `fill` made: who fills the next schema cleans up every table that is there."""
    with sql(settings.database_url) as cursor:
        cursor.execute(f"DROP SCHEMA {settings.db_schema} CASCADE")
        cursor.execute(f"DROP TABLE {settings.photos_table}")


def rebuild(settings: Settings, dimension: int) -> dict[str, Any]:
    """Library.rebuild in this process: seconds from Postgres to published, and what came of it.

    peak_rss_mb is this process's: Postgres is not in it, pages of the written generation that it maps to check it are.
    """
    with service(settings, dimension) as own:
        started = time.monotonic()
        reply = own.library.rebuilding.rebuild()
        seconds = time.monotonic() - started
        peak = peak_rss_mb()
        if "torch" in sys.modules:
            raise RuntimeError("the rebuild's process has imported torch: its peak_rss_mb is not that of an index")
        # Read as JSON: to open a generation is to check every byte of it, and others are being timed meanwhile.
        manifest = json.loads((own.folder.path(reply.generation) / MANIFEST).read_text())
    return {
        "generation": reply.generation,
        "kind": reply.kind,
        "factory": manifest["factory"],
        "parameters": manifest["parameters"],
        "recall_at_10_of_rebuild": reply.recall_at_10,
        "build_s": round(seconds, 2),
        "peak_rss_mb": peak,
        "index_bytes": reply.index_bytes,
        "bytes_per_vector": round(reply.index_bytes / reply.indexed, 1),
    }


def rebuild_or_refusal(settings: Settings, dimension: int) -> dict[str, Any]:
    """As `rebuild`, or why the service publishes no such index."""
    try:
        return rebuild(settings, dimension)
    except Permanent as exc:
        return {"refused": exc.message}


def remove_added(settings: Settings, count: int) -> None:
    """Take out what was added after the first `count` photos, so that the exact neighbours are those of the file."""
    with sql(settings.database_url) as cursor, closing(PostgresStore(settings)) as store:
        cursor.execute(f"SELECT photo_id FROM {settings.db_schema}.entries WHERE photo_id > %s", (count,))
        store.entries.remove_many([photo_id for (photo_id,) in cursor.fetchall()])


def search(settings: Settings, generation: int, queries: Vectors, truth: Ids) -> dict[str, Any]:
    """Speed and recall of a process that serves `generation`, by FaissLiveIndex.search: no Postgres is asked."""
    with service(settings, queries.shape[1]) as own:
        return _searched(own.live, generation, queries, truth)


def exact_search(settings: Settings, generation: int, queries: Vectors, truth: Ids) -> dict[str, Any]:
    """As `search`, and how near it comes to the memory's bandwidth, both of one thread, one right after the other.

    A query reads all of index.faiss. `ratio` is its median time by the time in which the bandwidth brings these bytes,
    `ratio_to_float32` by the time for the vectors as they are stored. An index that fits into the processor's cache can
    fall below 1.
    """
    with service(settings, queries.shape[1]) as own:
        figures = _searched(own.live, generation, queries, truth)
        limit = measure.read_bandwidth_gb_s()
        scanned = (own.folder.path(generation) / INDEX).stat().st_size
        float32 = own.live.count * queries.shape[1] * 4
    seconds = figures["search_p50_ms"] / 1e3
    return figures | {
        "bytes_scanned": scanned,
        "bandwidth_gb_s": round(scanned / seconds / 1e9, 2),
        "limit_gb_s": limit,
        "ratio": round(seconds * limit * 1e9 / scanned, 3),
        "ratio_to_float32": round(seconds * limit * 1e9 / float32, 3),
    }


def wait_until_served(live: FaissLiveIndex, generation: int) -> None:
    """It may be opened in the background. Raises TimeoutError after OPEN_TIMEOUT_S."""
    deadline = time.monotonic() + OPEN_TIMEOUT_S
    while live.generation != generation:
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {OPEN_TIMEOUT_S:g} s for generation {generation} to be served")
        time.sleep(0.02)


def _searched(live: FaissLiveIndex, generation: int, queries: Vectors, truth: Ids) -> dict[str, Any]:
    def ask(query: Vectors) -> Ids:
        return live.search(query, K).ids

    live.catch_up()
    wait_until_served(live, generation)
    return {
        **measure.one_by_one(ask, queries, truth),
        "qps_2_threads": measure.queries_per_second(ask, queries, threads=2),
        "search_rss_mb": peak_rss_mb(),
    }


#: Everything but the vectors. content_sha256 is the hash of the id, as in `fill`.
_FILL = """
    INSERT INTO {photos} (id, file_path, lat, lon, location_method)
        SELECT id, {path}, (id * 7919) %% 1200000 / 1e4 - 60, (id * 104729) %% 3600000 / 1e4 - 180,
               'exif_gps'
        FROM generate_series(1, %(count)s::bigint) AS id;
    INSERT INTO entries (photo_id, content_sha256, path, lat, lon, provenance, metadata)
        SELECT id, encode(sha256(id::text::bytea), 'hex'), file_path, lat, lon, location_method, {metadata}
        FROM {photos};
    INSERT INTO changes (seq, photo_id) SELECT n, n FROM generate_series(1, %(count)s::bigint) AS n;
    SELECT setval('change_seq', %(count)s), setval(pg_get_serial_sequence(%(photos)s, 'id'), %(count)s)
"""
