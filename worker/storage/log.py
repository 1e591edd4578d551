"""The change log: what happened to photos, by seqs whose order is the order of the commits.

Every change bears a random stamp, so that a reader notices a database that was restored to an earlier time: the change
that it read last is not there, or another one has its seq.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Row,
    Select,
    Text,
    and_,
    any_,
    cast,
    column,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import REGCLASS

from producer_client.contract import Code
from worker.core.types import START, Change, Changes, Filter, Mark, Published
from worker.core.vectors import Ids, from_bytes
from worker.errors import Transient
from worker.storage.database import Database
from worker.storage.filters import ids_where, is_trusted
from worker.storage.snapshot import PostgresSnapshot
from worker.storage.tables import change_seq, changes, embeddings, entries, generations, served

#: Held from the drawing of a seq to the commit, so that seqs are committed in their own order: a reader that has
#: seen seq n will never meet a smaller one later. Publishing takes it too, since it forgets what is behind.
SEQ_LOCK = 5_361_902

#: What readers of the log read. pg_restore gives a table its primary key when all rows are in it, so one without a key
#: is still being filled: who read it would stand at the right seq with half of the photos.
READ_TABLES = (changes, embeddings, entries, generations)
pg_index = table("pg_index", column("indrelid"), column("indisprimary"))
#: By which a generation is known, see `published`.
PUBLISHED = (generations.c.number, generations.c.seq, generations.c.stamp, generations.c.manifest_sha256)


class ChangeLog:
    """See worker.core.ports.Log."""

    def __init__(self, database: Database) -> None:
        self._database = database
        names = [f'"{database.schema}".{table.name}' for table in READ_TABLES]
        self._keys = select(func.count()).where(
            pg_index.c.indisprimary, pg_index.c.indrelid == any_(cast(names, ARRAY(REGCLASS)))
        )

    def changes_after(self, since: Mark, model_key: str, dimension: int, *, items: bool = True) -> Changes:
        """The newest state of every photo that changed after `since`, with the generations kept. One snapshot.

        items: whether to read the photos too, or only where the log stands.
        Raises Transient for a database that is being filled from a dump.
        """
        with self._database.begin(isolation_level="REPEATABLE READ") as connection:
            served_now: Select[Any] = select(*PUBLISHED).where(*served(model_key)).order_by(generations.c.number.desc())
            kept = [published(row) for row in connection.execute(served_now)]
            log = connection.execute(self._position(since)).one()
            if log.keys < len(READ_TABLES):
                raise Transient(Code.UNAVAILABLE, "Postgres: tables without their keys: a dump is being restored")
            changed_photos: list[Change] = []
            if items and log.continues and log.high > since.seq:
                changed_photos = self._changed(connection, since.seq, model_key, dimension)
        return Changes(
            since=since,
            mark=Mark(log.high, log.stamp),
            items=changed_photos,
            generations=kept,
            log_start=log.start,
            continues=log.continues,
        )

    def ids_where(self, among: Filter) -> Ids:
        """Ids of the photos that pass now, of whatever model."""
        with self._database.begin() as connection:
            return ids_where(connection, among)

    @contextmanager
    def snapshot(self, model_key: str, dimension: int) -> Iterator[PostgresSnapshot]:
        """Everything that is indexed with a vector of this model, as of one moment, streamed by rising id."""
        with self._database.begin(isolation_level="REPEATABLE READ") as connection:
            yield PostgresSnapshot(connection, model_key, dimension)

    # ------------------------------------------------------------------------------------------------ below

    def _position(self, since: Mark) -> Select[Any]:
        """(start, high, stamp of high, whether the log continues what `since` has seen, keys of READ_TABLES)."""
        newest = select(changes.c.stamp).order_by(changes.c.seq.desc()).limit(1)
        start = func.coalesce(select(func.min(changes.c.seq)).scalar_subquery(), 0)
        continues = start <= 1 if since == START else exists(select(changes.c.seq).where(*bears(since)))
        return select(
            start.label("start"),
            func.coalesce(select(func.max(changes.c.seq)).scalar_subquery(), 0).label("high"),
            newest.scalar_subquery().label("stamp"),
            continues.label("continues"),
            self._keys.scalar_subquery().label("keys"),
        )

    @staticmethod
    def _changed(connection: Connection, seq: int, model_key: str, dimension: int) -> list[Change]:
        changed = select(changes.c.photo_id).where(changes.c.seq > seq, concerns(model_key)).distinct().subquery()
        query = (
            select(
                changed.c.photo_id,
                embeddings.c.vector,
                entries.c.lat,
                entries.c.lon,
                is_trusted().label("trusted"),
                cast(entries.c.metadata, Text).label("metadata"),
            )
            .join_from(
                changed,
                entries,
                and_(entries.c.photo_id == changed.c.photo_id, ~entries.c.removed),
                isouter=True,
            )
            .join(
                embeddings,
                and_(
                    embeddings.c.content_sha256 == entries.c.content_sha256,
                    embeddings.c.model_key == model_key,
                ),
                isouter=True,
            )
        )
        return [
            Change(
                row.photo_id,
                None if row.vector is None else from_bytes(row.vector, dimension),
                lat=row.lat,
                lon=row.lon,
                trusted=bool(row.trusted),
                metadata=row.metadata,
            )
            for row in connection.execute(query)
        ]

    # ---------------------------------------------------------------------- for the neighbours in this folder

    @staticmethod
    def append(connection: Connection, photo_ids: Sequence[int], model_key: str | None = None) -> dict[int, int]:
        """Write changes as the last act of a transaction; returns {photo_id: seq}.

        model_key: the model that alone is concerned, because only its vectors are new.

        The lock is held until the commit. Without it a slow writer would commit a smaller seq after a reader has
        passed it, and the reader would never see that change.
        """
        hold(connection)
        if not photo_ids:
            return {}
        rows = [{"photo_id": photo_id, "model_key": model_key} for photo_id in photo_ids]
        written = connection.execute(
            insert(changes)
            .values(seq=change_seq.next_value(), at=func.now())
            .returning(changes.c.photo_id, changes.c.seq),
            rows,
        )
        return {row.photo_id: row.seq for row in written}


def hold(connection: Connection) -> None:
    """Let nobody append until this transaction ends."""
    connection.execute(select(func.pg_advisory_xact_lock(SEQ_LOCK)))


def prune(connection: Connection) -> None:
    """Forget changes that every kept generation holds. The last of them stays: it says where the log starts."""
    oldest = select(func.min(generations.c.seq)).where(*served()).scalar_subquery()
    held = select(func.max(changes.c.seq)).where(changes.c.seq <= oldest)
    connection.execute(delete(changes).where(changes.c.seq < held.scalar_subquery()))


def published(row: Row[Any]) -> Published:
    """row: of `PUBLISHED`."""
    return Published(row.number, Mark(row.seq, row.stamp), row.manifest_sha256)


def bears(mark: Mark) -> list[ColumnElement[bool]]:
    """The change at this mark."""
    at = [changes.c.seq == mark.seq]
    return at if mark.stamp is None else [*at, changes.c.stamp == mark.stamp]


def concerns(model_key: str) -> ColumnElement[bool]:
    """Changes that a reader of this model's vectors must see."""
    return or_(changes.c.model_key.is_(None), changes.c.model_key == model_key)
