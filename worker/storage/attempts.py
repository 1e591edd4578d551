"""What failed or took its worker down, counted before it is tried again: photos and messages."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import delete, func, text
from sqlalchemy.dialects.postgresql import insert as upsert

from producer_client.contract import Code
from worker.storage.database import Database
from worker.storage.tables import attempts, deliveries, refusals


class Attempts:
    """See worker.core.ports.Attempts."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        """Remember why a photo could not be taken; the attempt is over."""
        with self._database.begin() as connection:
            row = {"code": code.value, "message": message, "at": func.now()}
            connection.execute(
                upsert(refusals)
                .values(photo_id=photo_id, **row)
                .on_conflict_do_update(index_elements=["photo_id"], set_=row)
            )
            if code is not Code.QUARANTINED:
                connection.execute(delete(attempts).where(attempts.c.photo_id == photo_id))

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
