"""What a service has in the end: rows, vectors, generations, messages, files. Reads, and changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import redis
from sqlalchemy import create_engine, text

from producer_client.contract import Queue
from tests.chaos.verdict import Entry, Found, Generation
from worker.core.ports import Encoder
from worker.core.vectors import Vector, from_bytes
from worker.encoder.images import decode
from worker.errors import BadGeneration
from worker.index import searching
from worker.index.folder import GenerationFolder
from worker.parking import KEY as PARKED
from worker.settings import Settings
from worker.storage.store import PostgresStore

#: Keys of messages that a worker has in hand, as kombu calls them.
IN_HAND = ("unacked", "unacked_index")
#: Tables of ours with a row for each content.
OF_CONTENTS = ("embeddings", "pictures", "keypoints")
#: Photos that go through the model together.
AT_ONCE = 16


def messages(settings: Settings) -> dict[str, int]:
    """How many lie under each key of Redis, parked ones too."""
    prefix = settings.key_prefix
    with redis.Redis.from_url(settings.broker_url, socket_timeout=5) as client:
        counts = {queue.value: int(client.llen(prefix + queue.value)) for queue in Queue}
        counts["unacked"] = int(client.hlen(prefix + IN_HAND[0]))
        counts["unacked_index"] = int(client.zcard(prefix + IN_HAND[1]))
        counts[PARKED] = int(client.llen(prefix + PARKED))
    return counts


def without_vector(settings: Settings, model_key: str) -> set[int]:
    """Photos with a row that are in no entry, or have no vector."""
    schema = settings.db_schema
    query = text(
        f"SELECT p.id FROM {settings.photos_table} p LEFT JOIN {schema}.entries e ON e.photo_id = p.id "
        f"LEFT JOIN {schema}.embeddings v ON v.content_sha256 = e.content_sha256 AND v.model_key = :model "
        "WHERE e.photo_id IS NULL OR NOT e.removed AND v.vector IS NULL"
    )
    engine = create_engine(settings.database_url)
    with engine.connect() as connection:
        lacking = set(connection.scalars(query, {"model": model_key}))
    engine.dispose()
    return lacking


def found(settings: Settings, model_key: str, dimension: int, searches: Sequence[Sequence[tuple[int, float]]]) -> Found:
    engine = create_engine(settings.database_url)
    schema = settings.db_schema
    with engine.connect() as connection:
        rows = {row.id: row.file_path for row in connection.execute(text(f"SELECT * FROM {settings.photos_table}"))}
        query = text(
            f"SELECT e.*, v.vector FROM {schema}.entries e LEFT JOIN {schema}.embeddings v "
            "ON v.content_sha256 = e.content_sha256 AND v.model_key = :model"
        )
        entries = [
            Entry(
                row.photo_id,
                row.path,
                row.content_sha256,
                row.removed,
                None if row.vector is None else from_bytes(row.vector, dimension),
            )
            for row in connection.execute(query, {"model": model_key})
        ]
        contents = {
            content
            for table in OF_CONTENTS
            for content in connection.scalars(text(f"SELECT content_sha256 FROM {schema}.{table}"))
        }
    engine.dispose()
    kept = list(generations(settings, model_key))
    return Found(
        rows=rows,
        entries=entries,
        searches=searches,
        generations=kept,
        messages=messages(settings),
        files=_strange_files(settings.generations_dir, {generation.number for generation in kept}),
        contents=contents,
    )


def vectors_of(encoder: Encoder, photos: dict[str, Path], *, max_megapixels: float) -> dict[str, Vector]:
    """By name: as this process gives them."""
    pixels = partial(decode, side=encoder.input_side, max_megapixels=max_megapixels)
    names = list(photos)
    vectors: dict[str, Vector] = {}
    for start in range(0, len(names), AT_ONCE):
        some = names[start : start + AT_ONCE]
        encoded = encoder.encode_images([pixels(photos[name].read_bytes()).pixels for name in some])
        vectors.update(zip(some, encoded, strict=True))
    return vectors


def generations(settings: Settings, model_key: str) -> Iterator[Generation]:
    """Those that are kept, the newest last."""
    folder = GenerationFolder(settings.generations_dir)
    with closing(PostgresStore(settings)) as store:
        kept = store.generations.kept()
    for generation in reversed(kept):
        try:
            opened = folder.open(generation.number, model_key=model_key, sha256=generation.manifest_sha256)
        except BadGeneration as exc:
            absent = not folder.path(generation.number).exists()
            yield Generation(generation.number, absent=absent, fault=exc.message)
            continue
        ids = opened.ids.tolist()
        vectors = searching.vectors_at(opened.index, np.arange(len(ids)))
        yield Generation(generation.number, ids=ids, vectors=dict(zip(ids, vectors, strict=True)))


def _strange_files(folder: Path, kept: set[int]) -> list[str]:
    known = {f"{number:06d}" for number in kept}
    return [f"{path.name} in the folder of generations" for path in folder.iterdir() if path.name not in known]


def until(condition: Callable[[], bool], patience_s: float) -> bool:
    """Whether it held within that time."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
