"""What failed or took its worker down, counted before it is tried again: photos and messages."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import case, delete, exists, func, literal, null, select, text, union_all
from sqlalchemy.dialects.postgresql import insert as upsert

from producer_client.contract import Code
from worker.core.types import NotTaken
from worker.storage.database import Database, iso
from worker.storage.rows import Rows
from worker.storage.tables import attempts, deliveries, entries, refusals


class Attempts:
    """See worker.core.ports.Attempts."""

    def __init__(self, database: Database, rows: Rows) -> None:
        self._database = database
        self._rows = rows

    def begin(self, photo_ids: Collection[int]) -> None:
        """Count a try before it is made: a photo that takes the process down is found out by its count."""
        with self._database.begin() as connection:
            for photo_id in sorted(photo_ids):
                connection.execute(
                    upsert(attempts)
                    .values(photo_id=photo_id, attempts=1)
                    .on_conflict_do_update(index_elements=["photo_id"], set_={"attempts": attempts.c.attempts + 1})
                )

    def end(self, photo_ids: Collection[int]) -> None:
        """Take a try back that ended without being a photo's fault."""
        with self._database.begin() as connection:
            connection.execute(delete(attempts).where(attempts.c.photo_id.in_(photo_ids)))

    def refuse(self, photo_id: int, code: Code, message: str) -> None:
        """Remember why a photo could not be taken, and since when for this reason; the attempt is over."""
        with self._database.begin() as connection:
            row = {"code": code.value, "message": message}
            since = case((refusals.c.code == code.value, refusals.c.at), else_=func.now())
            connection.execute(
                upsert(refusals)
                .values(photo_id=photo_id, **row, at=func.now())
                .on_conflict_do_update(index_elements=["photo_id"], set_={**row, "at": since})
            )
            if code is not Code.QUARANTINED:
                connection.execute(delete(attempts).where(attempts.c.photo_id == photo_id))

    def not_taken(
        self, photo_ids: Collection[int] | None = None, codes: Collection[str] | None = None
    ) -> list[NotTaken]:
        """Photos that are refused, and those whose file has changed or gone, by their ids; of these ids or codes alone
        where they are given. The code of a file is that of its PositionIssue."""
        p = self._rows.table
        of_rows = select(
            refusals.c.photo_id,
            refusals.c.code,
            refusals.c.message,
            func.coalesce(p.c.file_path, "").label("path"),
            refusals.c.at.label("since"),
        ).join_from(refusals, p, p.c.id == refusals.c.photo_id, isouter=True)
        of_files = select(
            entries.c.photo_id,
            func.concat("file_", entries.c.file_state).label("code"),
            literal("").label("message"),
            func.coalesce(entries.c.path, "").label("path"),
            null().label("since"),
        ).where(
            ~entries.c.removed,
            entries.c.file_state.is_not(None),
            ~exists().where(refusals.c.photo_id == entries.c.photo_id),
        )
        both = union_all(of_rows, of_files).subquery()
        query = select(both).order_by(both.c.photo_id)
        if photo_ids is not None:
            query = query.where(both.c.photo_id.in_(photo_ids))
        if codes is not None:
            query = query.where(both.c.code.in_(codes))
        with self._database.begin() as connection:
            return [
                NotTaken(row.photo_id, row.code, row.message, row.path, iso(row.since))
                for row in connection.execute(query)
            ]

    def count_delivery(self, task_id: str) -> int:
        """Count one more delivery of a message whose worker died, before it is tried; returns how many there were."""
        with self._database.begin() as connection:
            connection.execute(delete(deliveries).where(deliveries.c.at < func.now() - text("interval '7 days'")))
            times = upsert(deliveries).values(task_id=task_id, times=1, at=func.now())
            return int(
                connection.scalar(
                    times.on_conflict_do_update(
                        index_elements=["task_id"], set_={"times": deliveries.c.times + 1, "at": func.now()}
                    ).returning(deliveries.c.times)
                )
                or 0
            )
