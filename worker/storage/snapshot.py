"""One consistent view of everything that is indexed, streamed by binary COPY: no row is ever a Python object."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from sqlalchemy import Connection, Double, Select, Text, cast, func, literal, select, tablesample

from worker.core.types import START, Chunk, Documents, Facts, Mark
from worker.core.vectors import BadVector
from worker.storage import copying
from worker.storage.copying import TRAILER, copied
from worker.storage.filters import is_trusted
from worker.storage.tables import changes, embeddings, entries

#: Rows of one chunk: 10,000 vectors of 1280 numbers are 51 MB.
CHUNK_ROWS = 10_000
#: A row of an id and a text, before its text: field count, length and value of the id, length of the text.
TEXT_HEAD = struct.Struct(">hiqi")


class PostgresSnapshot:
    """See worker.core.ports.Snapshot. Lives as long as its transaction."""

    def __init__(self, connection: Connection, model_key: str, dimension: int) -> None:
        self._connection = connection
        self._model_key = model_key
        self._dimension = dimension
        newest = connection.execute(select(changes.c.seq, changes.c.stamp).order_by(changes.c.seq.desc()).limit(1))
        self.mark = next((Mark(row.seq, row.stamp) for row in newest), START)
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

    def facts(self) -> Iterator[Facts]:
        """Where each photo was taken, of whatever model, in any order."""
        nowhere = cast(literal("NaN"), Double)
        query = select(
            entries.c.photo_id,
            func.coalesce(entries.c.lat, nowhere),
            func.coalesce(entries.c.lon, nowhere),
            func.coalesce(is_trusted(), False),
        ).where(~entries.c.removed)
        fields = [("id", ">i8"), ("lat", ">f8"), ("lon", ">f8"), ("trusted", "?")]
        for part in copying.rows(self._connection, query, fields):
            yield Facts(
                part["id"].astype(np.int64),
                part["lat"].astype(np.float64),
                part["lon"].astype(np.float64),
                part["trusted"],
            )

    def documents(self) -> Iterator[Documents]:
        """The metadata of each photo that has some, of whatever model, in any order."""
        query = select(entries.c.photo_id, func.convert_to(cast(entries.c.metadata, Text), "UTF8")).where(
            ~entries.c.removed, entries.c.metadata.is_not(None)
        )
        ids: list[int] = []
        texts: list[str] = []
        with copied(self._connection, query) as stream:
            while len(head := stream.read(TEXT_HEAD.size)) == TEXT_HEAD.size:
                _, _, photo_id, length = TEXT_HEAD.unpack(head)
                content = stream.read(length)
                if len(content) < length:
                    break
                ids.append(photo_id)
                texts.append(content.decode())
                if len(ids) == CHUNK_ROWS:
                    yield Documents(np.array(ids, dtype=np.int64), texts)
                    ids, texts = [], []
        yield Documents(np.array(ids, dtype=np.int64), texts)

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
        with copied(self._connection, query) as stream:
            while True:
                content = stream.read(CHUNK_ROWS * row.itemsize)
                whole = len(content) // row.itemsize
                if whole:
                    yield self._chunk(np.frombuffer(content, dtype=row, count=whole))
                if whole < CHUNK_ROWS:
                    rest = content[whole * row.itemsize :]
                    break
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
