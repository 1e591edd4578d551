"""One consistent view of everything that is indexed, streamed by binary COPY: no row is ever a Python object."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg2
from sqlalchemy import Connection, Select, func, select, tablesample
from sqlalchemy.exc import OperationalError

from worker.core.types import Chunk
from worker.core.vectors import BadVector
from worker.storage.tables import changes, embeddings, entries

#: Rows of one chunk: 10,000 vectors of 1280 numbers are 51 MB.
CHUNK_ROWS = 10_000
#: Before the first row: signature, flags, length of an extension (PostgreSQL manual, COPY, "Binary Format").
HEADER_BYTES = 19
#: After the last row: a field count of -1.
TRAILER = b"\xff\xff"


class PostgresSnapshot:
    """See worker.core.ports.Snapshot. Lives as long as its transaction."""

    def __init__(self, connection: Connection, model_key: str, dimension: int) -> None:
        self._connection = connection
        self._model_key = model_key
        self._dimension = dimension
        self.seq = connection.scalar(select(func.max(changes.c.seq))) or 0
        self.count = connection.scalar(select(func.count()).select_from(self._rows().subquery())) or 0

    def chunks(self) -> Iterator[Chunk]:
        """All rows by rising id. Raises BadVector for a stored vector of another length."""
        yield from self._copy(self._in_order())

    def sample(self, rows: int) -> Chunk:
        """About so many rows, each as likely as the other; all of them where there are no more."""
        share = None if rows >= self.count else 100 * rows / self.count
        parts = list(self._copy(self._rows(share)))
        if not parts:
            return Chunk(np.zeros(0, dtype=np.int64), np.zeros((0, self._dimension), dtype=np.float32))
        return Chunk(np.concatenate([part.ids for part in parts]), np.concatenate([part.vectors for part in parts]))

    def _rows(self, percent: float | None = None) -> Select[Any]:
        e = entries if percent is None else tablesample(entries, func.bernoulli(percent))
        return (
            select(e.c.photo_id, embeddings.c.vector)
            .join_from(e, embeddings, embeddings.c.content_sha256 == e.c.content_sha256)
            .where(~e.c.removed, embeddings.c.model_key == self._model_key)
        )

    def _in_order(self) -> Select[Any]:
        """All rows by rising id. Places of vectors are sorted, not vectors: those would go to disk for it."""
        placed = (
            self._rows()
            .with_only_columns(entries.c.photo_id, embeddings.c.ctid.label("place"))
            .order_by(entries.c.photo_id)
            .subquery()
        )
        stored = embeddings.alias()
        vector = select(stored.c.vector).where(stored.c.ctid == placed.c.place).scalar_subquery()
        return select(placed.c.photo_id, vector).order_by(placed.c.photo_id)

    def _copy(self, query: Select[Any]) -> Iterator[Chunk]:
        row = np.dtype(
            [("fields", ">i2"), ("id_size", ">i4"), ("id", ">i8"), ("size", ">i4"), ("v", "<f4", (self._dimension,))]
        )
        reading, writing = os.pipe()
        failure: list[BaseException] = []
        feeder = threading.Thread(target=self._feed, args=(query, writing, failure), name="copy", daemon=True)
        feeder.start()
        try:
            with os.fdopen(reading, "rb", buffering=1 << 20) as stream:
                stream.read(HEADER_BYTES)
                while True:
                    content = stream.read(CHUNK_ROWS * row.itemsize)
                    whole = len(content) // row.itemsize
                    if whole:
                        yield self._chunk(np.frombuffer(content, dtype=row, count=whole))
                    if whole < CHUNK_ROWS:
                        rest = content[whole * row.itemsize :]
                        break
        finally:
            # A reader that gave up has closed its end: COPY then breaks off.
            feeder.join()
        if failure:
            raise OperationalError("COPY", None, failure[0])
        if rest != TRAILER:
            # A last row that is short, or one that reaches into the trailer.
            last = np.frombuffer(rest.ljust(row.itemsize, b"\0"), dtype=row, count=1)
            self._chunk(last)
            raise BadVector("the stream of stored vectors ends in the middle of a row")

    def _chunk(self, rows: np.ndarray[Any, Any]) -> Chunk:
        """A vector of another length shifts all that follows it, so every row's own words are looked at."""
        odd = np.flatnonzero((rows["fields"] != 2) | (rows["id_size"] != 8) | (rows["size"] != 4 * self._dimension))
        if len(odd):
            first = rows[odd[0]]
            raise BadVector(
                f"the stored vector of photo {first['id']} has {first['size']} bytes; "
                f"{self._dimension} numbers need {4 * self._dimension}"
            )
        return Chunk(ids=rows["id"].astype(np.int64), vectors=np.ascontiguousarray(rows["v"], dtype=np.float32))

    def _feed(self, query: Select[Any], writing: int, failure: list[BaseException]) -> None:
        raw: Any = self._connection.connection.dbapi_connection
        options = self._connection.get_execution_options()
        compiled = query.compile(
            self._connection.engine,
            schema_translate_map=options.get("schema_translate_map"),
            render_schema_translate=True,
        )
        try:
            with os.fdopen(writing, "wb", buffering=1 << 20) as pipe, raw.cursor() as cursor:
                statement = cursor.mogrify(str(compiled), compiled.params).decode()
                cursor.copy_expert(f"COPY ({statement}) TO STDOUT (FORMAT binary)", pipe)
        except (psycopg2.Error, OSError) as exc:
            failure.append(exc)
