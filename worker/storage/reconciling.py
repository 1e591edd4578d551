"""Which photos lack a vector for how long, and who sends for them. Knows Postgres, not the queue."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, exists, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from worker.core.upkeep import Claimed
from worker.storage.database import Database, interval_of
from worker.storage.rows import Rows
from worker.storage.tables import lacking, reconciled, refusals
from worker.storage.vectors import Vectors

#: Seconds until a photo is sent for again at the most: each time twice as long as before, whatever the reason.
LONGEST_S = 3600.0


class Reconciled:
    """See worker.core.ports.Reconciled. A public method is a transaction."""

    def __init__(self, database: Database, rows: Rows, vectors: Vectors) -> None:
        self._database = database
        self._rows = rows
        self._vectors = vectors

    def claim(
        self, model_key: str, *, every_s: float, grace_s: float, most: int, changed_too: bool, dry_run: bool
    ) -> Claimed | None:
        """Note photos that lack a vector of this model, and take those over that have lacked it for `grace_s`, the
        oldest first: nobody else takes them before twice that time is over, then four times, and so on.

        None where somebody has done so within `every_s`. most: photos that may be taken over and not be there yet.
        dry_run: tells the same, and changes nothing.
        """
        with self._database.begin() as connection:
            after_id = self._turn(connection, every_s)
            if after_id is None:
                return None
            p = self._rows.table
            missing = self._vectors.lacking(model_key, changed_too=changed_too).with_only_columns(p.c.id)
            lacks = lacking.c.photo_id.in_(missing.where(p.c.id == lacking.c.photo_id))
            # A fresh look, at what it takes over, too.
            connection.execute(delete(lacking).where(~lacks))
            expired = lacking.c.until <= func.now()
            # Of one that is refused since, as while its server is away, the message has come.
            refused = exists().where(refusals.c.photo_id == lacking.c.photo_id)
            on_their_way = select(func.count()).where(lacking.c.times > 0, ~expired, ~refused)
            waiting = connection.scalar(on_their_way) or 0
            due = (
                select(lacking.c.photo_id)
                .where(expired)
                .order_by(lacking.c.seen_at, lacking.c.photo_id)
                .limit(max(0, most - waiting))
            )
            pause_s = func.least(grace_s * func.power(2, lacking.c.times + 1), LONGEST_S)
            taken = connection.scalars(
                update(lacking)
                .where(lacking.c.photo_id.in_(due))
                .values(times=lacking.c.times + 1, until=_in(pause_s))
                .returning(lacking.c.photo_id)
            ).all()
            new = missing.where(~select(lacking).where(lacking.c.photo_id == p.c.id).exists()).order_by(p.c.id)
            seen = connection.execute(
                upsert(lacking).from_select(
                    ["photo_id", "seen_at", "times", "until"],
                    new.add_columns(func.now(), literal(0), _in(grace_s)).limit(most),
                )
            ).rowcount
            if dry_run:
                connection.rollback()
        return Claimed(seen, sorted(taken), waiting, after_id)

    def looked(self, after_id: int) -> None:
        """The files of the photos up to this id were looked at."""
        with self._database.begin() as connection:
            connection.execute(update(reconciled).values(after_id=after_id))

    # ---------------------------------------------------------------------------------------- below

    def _turn(self, connection: Connection, every_s: float) -> int | None:
        """The photo whose file was looked at last, where it is time again. One at a time: others wait here."""
        row = upsert(reconciled).values(only=True, at=func.now(), after_id=-1)
        waited = reconciled.c.at <= func.now() - interval_of(every_s)
        taken = row.on_conflict_do_update(index_elements=["only"], set_={"at": func.now()}, where=waited)
        after_id: int | None = connection.scalar(taken.returning(reconciled.c.after_id))
        return after_id


def _in(seconds: ColumnElement[float] | float) -> ColumnElement[datetime]:
    return func.now() + interval_of(seconds)
