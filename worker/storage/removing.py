"""Photos out of the index: which of those that are named, and that they are. What is kept of them stays.

Of two requests about one photo the one that was sent later holds (docs/decisions/0055). sent_ms: when this one was
sent, by its sender's clock, milliseconds of Unix time; None where nobody says.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, Table, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from worker.storage.database import hold
from worker.storage.tables import entries, refusals


def to_remove(
    connection: Connection, photos: Table, photo_ids: Collection[int], sent_ms: int | None, *, again: bool
) -> list[int]:
    """Those that the backend's table `photos` has or the index has had, rising; this transaction alone writes them now.

    again: the request was handed out before. Without those then that one which was sent later has put into the index.
    What is handed out for the first time is done whatever two clocks say: better gone than kept against a wish.
    """
    of_rows = select(photos.c.id).where(photos.c.id.in_(photo_ids))
    of_entries = select(entries.c.photo_id).where(entries.c.photo_id.in_(photo_ids))
    ids = sorted({*connection.scalars(of_rows), *connection.scalars(of_entries)})
    hold(connection, ids)
    late = superseded(connection, ids, sent_ms, removed=False) if again else set()
    return [photo_id for photo_id in ids if photo_id not in late]


def superseded(connection: Connection, ids: Collection[int], sent_ms: int | None, *, removed: bool) -> set[int]:
    """Those that a request which was sent later has removed, or else put into the index."""
    if sent_ms is None:
        return set()
    later = (entries.c.photo_id.in_(ids), entries.c.removed == removed, entries.c.asked_ms > sent_ms)
    return set(connection.scalars(select(entries.c.photo_id).where(*later)))


def remove(connection: Connection, photos: Table, ids: Sequence[int], sent_ms: int | None) -> set[int]:
    """Those of the photos that were in the index; all are out of it."""
    gone = connection.scalars(
        update(entries)
        .where(entries.c.photo_id.in_(ids), ~entries.c.removed)
        .values(removed=True, updated_at=func.now())
        .returning(entries.c.photo_id)
    ).all()
    # A photo that was never added is remembered as removed too, or the next rebuild would add it.
    connection.execute(
        upsert(entries)
        .from_select(
            ["photo_id", "content_sha256", "path", "removed"],
            select(photos.c.id, literal(""), photos.c.file_path, literal(True)).where(photos.c.id.in_(ids)),
        )
        .on_conflict_do_nothing()
    )
    if sent_ms is not None:
        last = func.greatest(entries.c.asked_ms, sent_ms)
        connection.execute(update(entries).where(entries.c.photo_id.in_(ids)).values(asked_ms=last))
    connection.execute(delete(refusals).where(refusals.c.photo_id.in_(ids)))
    return set(gone)
