"""The files of the photos that are indexed: how they were when these were embedded, and what has become of them.

Knows Postgres, not the disk.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import BigInteger, DateTime, Text, and_, case, cast, delete, exists, func, null, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from worker.core.types import INLINE, FileFacts, FileState, KnownFile
from worker.storage.database import Database
from worker.storage.tables import entries, refusals

ON_DISK = and_(
    ~entries.c.removed,
    ~entries.c.path.contains("://"),
    ~entries.c.path.startswith(INLINE),
)


class Files:
    """See worker.core.ports.KnownFiles. A public method is a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count(self) -> int:
        with self._database.begin() as connection:
            return connection.scalar(select(func.count()).select_from(entries).where(ON_DISK)) or 0

    def after(self, after_id: int, limit: int) -> list[KnownFile]:
        """The next ones by rising photo id."""
        e = entries.c
        query = (
            select(e.photo_id, e.path, e.content_sha256, e.file_size, e.file_mtime_ns, e.file_state, e.updated_at)
            .where(ON_DISK, e.photo_id > after_id)
            .order_by(e.photo_id)
            .limit(limit)
        )
        with self._database.begin() as connection:
            return [
                KnownFile(
                    photo_id,
                    path,
                    content_sha256,
                    None if size is None else FileFacts(size, mtime_ns),
                    None if state is None else FileState(state),
                    at,
                )
                for photo_id, path, content_sha256, size, mtime_ns, state, at in connection.execute(query)
            ]

    def note(self, looked_at: Sequence[KnownFile]) -> None:
        """Keep what has been seen of these; of one that was stored again meanwhile it is old and not kept."""
        columns = func.unnest(
            cast([file.photo_id for file in looked_at], ARRAY(BigInteger)),
            cast([file.at for file in looked_at], ARRAY(DateTime(timezone=True))),
            cast([file.facts and file.facts.size for file in looked_at], ARRAY(BigInteger)),
            cast([file.facts and file.facts.mtime_ns for file in looked_at], ARRAY(BigInteger)),
            cast([file.state for file in looked_at], ARRAY(Text)),
        )
        seen = columns.table_valued("photo_id", "at", "size", "mtime_ns", "state").render_derived(name="seen")
        with self._database.begin() as connection:
            # A file that is back as it was: what was refused was another one.
            connection.execute(
                delete(refusals).where(
                    refusals.c.photo_id == seen.c.photo_id,
                    seen.c.state.is_(None),
                    exists().where(
                        entries.c.photo_id == seen.c.photo_id,
                        entries.c.updated_at == seen.c.at,
                        entries.c.file_state.is_not(None),
                    ),
                )
            )
            connection.execute(
                update(entries)
                .where(entries.c.photo_id == seen.c.photo_id, entries.c.updated_at == seen.c.at)
                .values(
                    file_size=seen.c.size,
                    file_mtime_ns=seen.c.mtime_ns,
                    file_state=seen.c.state,
                    file_state_at=case(
                        (seen.c.state.is_(None), null()),
                        (seen.c.state == entries.c.file_state, entries.c.file_state_at),
                        else_=func.now(),
                    ),
                )
            )
