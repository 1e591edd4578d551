"""The record of who has asked where photos were taken (SIGHTLINE_AUDIT_DAYS)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, fields
from datetime import datetime

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    cast,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from worker.core.audit import Question, Recorded
from worker.storage.database import Database, iso
from worker.storage.tables import audit, entries

COLUMNS = tuple(field.name for field in fields(Question))


class Audit:
    """See worker.core.ports.Audit. A public method is a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, question: Question, *, days: int) -> None:
        """days: for which it is kept, whatever the settings of who forgets it say."""
        until = func.now() + text(f"interval '{days:d} days'")
        values = asdict(question) | {"told": list(question.told)}
        with self._database.begin() as connection:
            connection.execute(insert(audit).values(at=func.now(), until=until, **values))

    def forget(self, most: int) -> int:
        """Of what has been kept for so long the oldest; returns how many."""
        due = select(audit.c.id).where(audit.c.until <= func.now()).order_by(audit.c.until).limit(most)
        with self._database.begin() as connection:
            return connection.execute(delete(audit).where(audit.c.id.in_(due))).rowcount

    def recorded(
        self,
        *,
        producer: str | None = None,
        content: str | None = None,
        photo_id: int | None = None,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> list[Recorded]:
        """The newest first; of those of this producer, about contents whose SHA-256 begins so, about or telling of this
        photo, and since then, where they are given."""
        query = select(audit).order_by(audit.c.at.desc(), audit.c.id.desc()).limit(limit)
        if producer is not None:
            query = query.where(audit.c.producer == producer)
        if content is not None:
            query = query.where(audit.c.content_sha256.startswith(content, autoescape=True))
        if photo_id is not None:
            query = query.where(or_(audit.c.photo_id == photo_id, has_told([photo_id])))
        if since is not None:
            query = query.where(audit.c.at >= since)
        with self._database.begin() as connection:
            return [_recorded(row._mapping) for row in connection.execute(query)]


def has_told(ids: Sequence[int]) -> ColumnElement[bool]:
    """Whether positions of any of these were told."""
    any_of: ColumnElement[bool] = audit.c.told.overlap(cast(list(ids), ARRAY(BigInteger)))
    return any_of


def _recorded(row: RowMapping) -> Recorded:
    said = {name: row[name] for name in COLUMNS} | {"told": tuple(row["told"])}
    return Recorded(iso(row["at"]) or "", iso(row["until"]) or "", Question(**said))


def forget_photos(connection: Connection, ids: Sequence[int], contents: Collection[str]) -> None:
    """Leave of questions about these photos, and about contents that no photo has any more, who has asked, when, and
    whether there was an answer; and of others that were told their positions, that something was told."""
    of_another = exists().where(entries.c.content_sha256 == audit.c.content_sha256)
    gone = {"lat": None, "lon": None, "radius_m": None}
    about = or_(audit.c.photo_id.in_(ids), and_(audit.c.content_sha256.in_(contents), ~of_another))
    connection.execute(update(audit).where(about).values(content_sha256=None, photo_id=None, told=[], **gone))
    others = select(func.unnest(audit.c.told)).except_(select(func.unnest(cast(list(ids), ARRAY(BigInteger)))))
    connection.execute(update(audit).where(has_told(ids)).values(told=func.array(others.scalar_subquery()), **gone))
