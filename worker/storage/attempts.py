"""What failed or took its worker down, counted before it is tried again: photos and messages."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, and_, case, delete, exists, func, literal, or_, select, text, union_all
from sqlalchemy.dialects.postgresql import insert as upsert

from producer_client.contract import Code
from worker.core.types import NotTaken, Refusal
from worker.storage.database import Database, hold, iso
from worker.storage.rows import Rows
from worker.storage.tables import attempts, deliveries, entries, refusals
from worker.storage.vectors import Vectors


class Attempts:
    """See worker.core.ports.Attempts."""

    def __init__(self, database: Database, rows: Rows, vectors: Vectors) -> None:
        self._database = database
        self._rows = rows
        self._vectors = vectors

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

    def refuse(self, refused: Sequence[Refusal], model_key: str) -> None:
        """Remember why photos could not be taken, and since when for this reason; these attempts are over.

        Of photos that have a row: others have nothing to be listed by. Not of one that is in the index by this model
        as its file was, whatever a caller has tried since, nor of one that was removed.
        """
        p = self._rows.table
        with self._database.begin() as connection:
            known = self._rows.ids_by_path(connection, refused)
            newest: dict[int, Refusal] = {}
            for one in refused:
                photo_id = one.photo_id
                if photo_id is None:
                    photo_id = next((known[path] for path in one.spellings if path in known), None)
                if photo_id is not None:
                    newest[photo_id] = one
            if not newest:
                return
            hold(connection, newest)
            lacks = or_(entries.c.photo_id.is_(None), self._vectors.is_stale(model_key, changed_too=True))
            for photo_id, one in newest.items():
                row = {"code": one.code.value, "message": one.message}
                of_photo = (
                    select(p.c.id, *(literal(value) for value in row.values()), func.now())
                    .join_from(p, entries, entries.c.photo_id == p.c.id, isouter=True)
                    .where(p.c.id == photo_id, lacks)
                )
                since = case((refusals.c.code == one.code.value, refusals.c.at), else_=func.now())
                connection.execute(
                    upsert(refusals)
                    .from_select(["photo_id", *row, "at"], of_photo)
                    .on_conflict_do_update(index_elements=["photo_id"], set_={**row, "at": since})
                )
            ended = [photo_id for photo_id, one in newest.items() if one.code is not Code.QUARANTINED]
            connection.execute(delete(attempts).where(attempts.c.photo_id.in_(ended)))

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
        ).join_from(refusals, p, p.c.id == refusals.c.photo_id)
        of_files = select(
            entries.c.photo_id,
            func.concat("file_", entries.c.file_state).label("code"),
            literal("").label("message"),
            func.coalesce(entries.c.path, "").label("path"),
            entries.c.file_state_at.label("since"),
        ).where(_file_is_odd())
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

    def not_taken_counts(self) -> dict[str, int]:
        """How many there are of each code, which is asked without a look at any row of the table of photos."""
        of_rows = select(refusals.c.code, func.count().label("photos")).group_by(refusals.c.code)
        of_files = (
            select(func.concat("file_", entries.c.file_state).label("code"), func.count().label("photos"))
            .where(_file_is_odd())
            .group_by(entries.c.file_state)
        )
        with self._database.begin() as connection:
            return {row.code: row.photos for row in connection.execute(union_all(of_rows, of_files))}

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


def _file_is_odd() -> ColumnElement[bool]:
    """Of an entry: its file has changed or gone, and nothing else is the matter with the photo."""
    return and_(
        ~entries.c.removed,
        entries.c.file_state.is_not(None),
        ~exists().where(refusals.c.photo_id == entries.c.photo_id),
    )
