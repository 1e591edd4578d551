"""The change log: what happened to photos, by seqs whose order is the order of the commits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import ColumnElement, Connection, Text, and_, cast, delete, func, insert, or_, select

from worker.core.types import Change, Changes, Filter
from worker.core.vectors import Ids, from_bytes
from worker.storage.database import Database
from worker.storage.filters import ids_where, is_trusted
from worker.storage.snapshot import PostgresSnapshot
from worker.storage.tables import change_seq, changes, embeddings, entries, generations, served

#: Held from the drawing of a seq to the commit, so that seqs are committed in their own order: a reader that has
#: seen seq n will never meet a smaller one later. Publishing takes it too, since it forgets what is behind.
SEQ_LOCK = 5_361_902


class ChangeLog:
    """See worker.core.ports.Log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def changes_after(self, seq: int, model_key: str, dimension: int, *, items: bool = True) -> Changes:
        """The newest state of every photo that changed after `seq`, with the generations kept. One snapshot.

        items: whether to read the photos too, or only where the log stands.
        """
        with self._database.begin(isolation_level="REPEATABLE READ") as connection:
            kept = list(
                connection.scalars(
                    select(generations.c.number).where(*served(model_key)).order_by(generations.c.number.desc())
                )
            )
            log_start, high = connection.execute(
                select(func.coalesce(func.min(changes.c.seq), 0), func.coalesce(func.max(changes.c.seq), 0))
            ).one()
            if high <= seq or not items:
                return Changes(seq=seq if high <= seq else high, items=[], generations=kept, log_start=log_start)
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
            changed_photos = [
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
        return Changes(seq=high, items=changed_photos, generations=kept, log_start=log_start)

    def ids_where(self, among: Filter) -> Ids:
        """Ids of the photos that pass now, of whatever model."""
        with self._database.begin() as connection:
            return ids_where(connection, among)

    @contextmanager
    def snapshot(self, model_key: str, dimension: int) -> Iterator[PostgresSnapshot]:
        """Everything that is indexed with a vector of this model, as of one moment, streamed by rising id."""
        with self._database.begin(isolation_level="REPEATABLE READ") as connection:
            yield PostgresSnapshot(connection, model_key, dimension)

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


def concerns(model_key: str) -> ColumnElement[bool]:
    """Changes that a reader of this model's vectors must see."""
    return or_(changes.c.model_key.is_(None), changes.c.model_key == model_key)
