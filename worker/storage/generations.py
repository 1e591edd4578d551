"""The published generations of the index: numbers, who serves, what is kept, the way back. Files are elsewhere."""

from __future__ import annotations

from sqlalchemy import Connection, and_, func, insert, or_, select, update

from producer_client.contract import Code
from worker.core.types import Built, PublishedGeneration
from worker.errors import Permanent
from worker.storage.database import Database, iso
from worker.storage.log import hold, prune
from worker.storage.tables import generations, kept, purges, served


class Generations:
    """See worker.core.ports.PublishedGenerations. Every method is a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reserve(self) -> int:
        with self._database.begin() as connection:
            return int(
                connection.scalar(insert(generations).values(model_key=None).returning(generations.c.number)) or 0
            )

    def publish(self, number: int, model_key: str, seq: int, built: Built, keep: int) -> list[int]:
        """Make a written generation the one that is served; returns the numbers of all that are kept.

        Fenced by its number: raises Permanent when a later one is out already, as after a lost lock.
        """
        with self._database.begin() as connection:
            hold(connection)
            own = served(model_key)
            if connection.scalar(select(func.max(generations.c.number)).where(*own, generations.c.number > number)):
                raise Permanent(Code.INTERNAL, f"generation {number} is not published: a later one is out already")
            connection.execute(
                update(generations)
                .where(generations.c.number == number)
                .values(
                    model_key=model_key,
                    seq=seq,
                    count=built.count,
                    kind=built.kind,
                    parameters=built.parameters,
                    recall_at_10=built.recall_at_10,
                    index_bytes=built.index_bytes,
                    published_at=func.now(),
                )
            )
            # What was rolled back from is not wanted any more.
            connection.execute(
                update(generations)
                .where(generations.c.withdrawn_at.is_not(None), generations.c.dropped_at.is_(None))
                .values(dropped_at=func.now())
            )
            _finish_purges(connection, number, seq)
            newest = select(generations.c.number).order_by(generations.c.number.desc())
            # Another model's newest generation stays, for the way back, until this model has `keep` of its own.
            oldest_own = newest.where(*own).offset(keep - 1).limit(1)
            newest_other = newest.where(*served(), generations.c.model_key != model_key).limit(1)
            connection.execute(
                update(generations)
                .where(
                    *served(),
                    or_(
                        generations.c.number < func.coalesce(oldest_own.scalar_subquery(), 0),
                        and_(
                            generations.c.model_key != model_key,
                            generations.c.number < func.coalesce(newest_other.scalar_subquery(), 0),
                        ),
                    ),
                )
                .values(dropped_at=func.now())
            )
            numbers = connection.scalars(newest.where(*served())).all()
            prune(connection)
        return list(numbers)

    def newest(self) -> tuple[int, str] | None:
        """(number, model key) of the last one published, of whatever model."""
        query = select(generations.c.number, generations.c.model_key).where(*served())
        with self._database.begin() as connection:
            row = connection.execute(query.order_by(generations.c.number.desc()).limit(1)).first()
        return None if row is None else (row.number, row.model_key)

    def serving(self, model_key: str) -> int | None:
        """The generation that searches with this model stand on."""
        with self._database.begin() as connection:
            number: int | None = connection.scalar(select(func.max(generations.c.number)).where(*served(model_key)))
        return number

    def kept(self) -> list[PublishedGeneration]:
        """All that are kept, of every model, the newest first."""
        with self._database.begin() as connection:
            rows = connection.execute(select(generations).where(*kept()).order_by(generations.c.number.desc())).all()
        newest: dict[str, int] = {}
        for row in rows:
            if row.withdrawn_at is None:
                newest.setdefault(row.model_key, row.number)
        return [
            PublishedGeneration(
                number=row.number,
                model_key=row.model_key,
                count=row._mapping["count"],
                seq=row.seq,
                kind=row.kind,
                recall_at_10=row.recall_at_10,
                index_bytes=row.index_bytes,
                published_at=iso(row.published_at) or "",
                state="serving"
                if newest.get(row.model_key) == row.number
                else ("kept" if row.withdrawn_at is None else "withdrawn"),
            )
            for row in rows
        ]

    def roll_back(self, number: int) -> list[int]:
        """Let a kept generation serve again; returns the numbers that are withdrawn now, newer ones of its model.

        What happened since is replayed from the log, so no photo is lost or comes back; the next rebuild goes on from
        here. A withdrawn generation can be rolled forward to in the same way until then.
        Raises Permanent(bad_request) for one that is not kept.
        """
        with self._database.begin() as connection:
            hold(connection)
            model_key = connection.scalar(
                select(generations.c.model_key).where(*kept(), generations.c.number == number)
            )
            if model_key is None:
                raise Permanent(
                    Code.BAD_REQUEST, f"generation {number} is not kept; `sightline generations` shows those that are"
                )
            of_model = (*kept(), generations.c.model_key == model_key)
            connection.execute(
                update(generations).where(*of_model, generations.c.number <= number).values(withdrawn_at=None)
            )
            return list(
                connection.scalars(
                    update(generations)
                    .where(*of_model, generations.c.number > number)
                    .values(withdrawn_at=func.now())
                    .returning(generations.c.number)
                )
            )

    def published_at(self, number: int) -> str | None:
        with self._database.begin() as connection:
            return iso(connection.scalar(select(generations.c.published_at).where(generations.c.number == number)))


def _finish_purges(connection: Connection, number: int, seq: int) -> None:
    """What was purged before `seq` is not in generation `number`; all that were built before may hold it."""
    done = connection.execute(
        update(purges)
        .where(purges.c.erased_at.is_(None), purges.c.seq <= seq)
        .values(erased_at=func.now(), generation=number)
    )
    if done.rowcount:
        connection.execute(
            update(generations)
            .where(generations.c.number < number, generations.c.dropped_at.is_(None))
            .values(dropped_at=func.now())
        )
