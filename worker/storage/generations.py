"""The published generations of the index: numbers, who serves, what is kept, the way back. Files are elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from producer_client.contract import Code
from worker.core.generations import Built, PublishedGeneration
from worker.core.types import START, Mark, Published
from worker.errors import Permanent, Transient
from worker.storage.database import Database, iso
from worker.storage.erasing import clean
from worker.storage.log import PUBLISHED, bears, hold, prune, published
from worker.storage.tables import changes, exam_baselines, generations, in_log, kept, purges, served

log = logging.getLogger(__name__)

#: What is told of those that are kept: not what an exam has found, which is large.
SHOWN = (
    "number",
    "model_key",
    "count",
    "seq",
    "kind",
    "recall_at_10",
    "recall_at_10_at_least",
    "index_bytes",
    "published_at",
    "withdrawn_at",
    "verdict",
    "manifest_sha256",
)


class Generations:
    """See worker.core.index_ports.PublishedGenerations. Every method is a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reserve(self) -> int:
        with self._database.begin() as connection:
            return int(
                connection.scalar(insert(generations).values(model_key=None).returning(generations.c.number)) or 0
            )

    def publish(
        self,
        number: int,
        model_key: str,
        mark: Mark,
        built: Built,
        keep: int,
        *,
        learnt: Mapping[str, Any] | None = None,
        exam: Mapping[str, Any] | None = None,
        verdict: Mapping[str, Any] | None = None,
        baseline: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Make a written generation the one that is served; returns the numbers of all that are kept.

        mark: where its snapshot stood in the log. learnt, exam, verdict: JSON that stays with it.
        baseline: what exams of this model are compared with from now on; None leaves what there is.
        What was purged before `mark` is in no kept generation then, and in no statistics of Postgres'.
        Fenced by its number: raises Permanent when a later one is out already, as after a lost lock, and by the log:
        when the database was restored to an earlier time meanwhile.
        """
        with self._database.begin() as connection:
            hold(connection)
            own = served(model_key)
            if connection.scalar(select(func.max(generations.c.number)).where(*own, generations.c.number > number)):
                raise Permanent(Code.INTERNAL, f"generation {number} is not published: a later one is out already")
            reserved = connection.execute(
                update(generations)
                .where(generations.c.number == number, generations.c.published_at.is_(None))
                .values(
                    model_key=model_key,
                    manifest_sha256=built.manifest_sha256,
                    seq=mark.seq,
                    stamp=mark.stamp,
                    count=built.count,
                    kind=built.kind,
                    parameters=built.parameters,
                    recall_at_10=built.recall_at_10,
                    recall_at_10_at_least=built.recall_at_10_at_least,
                    index_bytes=built.index_bytes,
                    learnt=learnt,
                    exam=exam,
                    verdict=verdict,
                    published_at=func.now(),
                )
            )
            in_this_log = mark == START or connection.scalar(select(changes.c.seq).where(*bears(mark)))
            if not reserved.rowcount or not in_this_log:
                raise Permanent(
                    Code.INTERNAL,
                    f"generation {number} is not published: the database was restored to an earlier time while it was "
                    "built. Ask for the rebuild again",
                )
            if baseline is not None:
                _freeze(connection, model_key, baseline)
            # What was rolled back from, or is of another history, is not wanted any more, nor of this model what an
            # earlier release has published: nothing says which manifest it had.
            unheld = and_(generations.c.model_key == model_key, generations.c.manifest_sha256.is_(None))
            connection.execute(
                update(generations)
                .where(*kept(), or_(generations.c.withdrawn_at.is_not(None), ~in_log(), unheld))
                .values(dropped_at=func.now())
            )
            erased = _finish_purges(connection, number, mark.seq)
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
        if erased:
            try:
                clean(self._database)
            except Transient as exc:
                # Autovacuum comes to the rows, and the next purge to the rest.
                log.warning("erased rows are not freed yet", extra={"why": exc.message})
        return list(numbers)

    def hold_back(
        self, number: int, model_key: str, *, exam: Mapping[str, Any] | None, verdict: Mapping[str, Any]
    ) -> list[int]:
        """Note of a written generation why it is not published; returns the numbers of all that are kept."""
        with self._database.begin() as connection:
            connection.execute(
                update(generations)
                .where(generations.c.number == number, generations.c.published_at.is_(None))
                .values(model_key=model_key, exam=exam, verdict=verdict)
            )
            return list(connection.scalars(select(generations.c.number).where(*kept())))

    def held_back(self, model_key: str) -> tuple[int, Mapping[str, Any]] | None:
        """The number and the verdict of the last one, where nothing has been published since."""
        g = generations.c
        last = select(func.coalesce(func.max(g.number), 0)).where(*kept(), g.model_key == model_key).scalar_subquery()
        wanted = (g.published_at.is_(None), g.verdict.is_not(None), g.model_key == model_key, g.number > last)
        with self._database.begin() as connection:
            row = connection.execute(select(g.number, g.verdict).where(*wanted).order_by(g.number.desc())).first()
        return None if row is None else (row.number, row.verdict)

    def baseline(self, model_key: str) -> Mapping[str, Any] | None:
        """What exams with this model are compared with."""
        query = select(exam_baselines.c.baseline).where(exam_baselines.c.model_key == model_key)
        with self._database.begin() as connection:
            found: Mapping[str, Any] | None = connection.scalar(query)
        return found

    def freeze(self, model_key: str, baseline: Mapping[str, Any]) -> None:
        """Compare exams with this model with it from now on."""
        with self._database.begin() as connection:
            _freeze(connection, model_key, baseline)

    def newest(self) -> tuple[Published, str] | None:
        """The last one published, and its model key, of whatever model."""
        query: Select[Any] = (
            select(*PUBLISHED, generations.c.model_key).where(*served()).order_by(generations.c.number.desc())
        )
        with self._database.begin() as connection:
            row = connection.execute(query.limit(1)).first()
        return None if row is None else (published(row), row.model_key)

    def highest(self) -> int:
        """The last number that was given out; 0 before the first."""
        with self._database.begin() as connection:
            return int(connection.scalar(select(func.max(generations.c.number))) or 0)

    def serving(self, model_key: str) -> Published | None:
        """The generation that searches with this model stand on."""
        query: Select[Any] = select(*PUBLISHED).where(*served(model_key)).order_by(generations.c.number.desc())
        with self._database.begin() as connection:
            row = connection.execute(query.limit(1)).first()
        return None if row is None else published(row)

    def kept(self) -> list[PublishedGeneration]:
        """All that are kept, of every model, the newest first."""
        with self._database.begin() as connection:
            shown = [generations.c[name] for name in SHOWN]
            # Of what was learnt and examined only so much: the figures are large.
            learnt = generations.c.learnt["calibration"]["places"].as_integer().label("learnt_places")
            asked = generations.c.exam["sample"].as_integer().label("examined")
            query: Select[Any] = select(*shown, learnt, asked, in_log().label("in_log")).where(*kept())
            rows = connection.execute(query.order_by(generations.c.number.desc())).all()
        newest: dict[str, int] = {}
        for row in rows:
            if row.in_log and row.withdrawn_at is None:
                newest.setdefault(row.model_key, row.number)
        return [
            PublishedGeneration(
                number=row.number,
                model_key=row.model_key,
                count=row._mapping["count"],
                seq=row.seq,
                kind=row.kind,
                recall_at_10=row.recall_at_10,
                recall_at_10_at_least=row.recall_at_10_at_least,
                index_bytes=row.index_bytes,
                published_at=iso(row.published_at) or "",
                state=_state(row, newest),
                learnt_places=row.learnt_places,
                examined=row.examined,
                exam_passed=None if row.verdict is None else row.verdict.get("passed"),
                exam_says=None if row.verdict is None else row.verdict.get("why"),
                manifest_sha256=row.manifest_sha256,
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
                select(generations.c.model_key).where(*kept(), in_log(), generations.c.number == number)
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

    def learnt(self, number: int) -> Mapping[str, Any] | None:
        """What was kept with it of evidence; None where nothing was, or it is not there."""
        with self._database.begin() as connection:
            kept: Mapping[str, Any] | None = connection.scalar(
                select(generations.c.learnt).where(generations.c.number == number)
            )
        return kept

    def exam(self, number: int) -> Mapping[str, Any] | None:
        """The figures that were kept with it."""
        with self._database.begin() as connection:
            kept: Mapping[str, Any] | None = connection.scalar(
                select(generations.c.exam).where(generations.c.number == number)
            )
        return kept

    def said(self, number: int) -> Mapping[str, Any] | None:
        """What its exam said beside the baseline, as worker.place.gate.Verdict has it."""
        with self._database.begin() as connection:
            kept: Mapping[str, Any] | None = connection.scalar(
                select(generations.c.verdict).where(generations.c.number == number)
            )
        return kept

    def published(self, number: int) -> tuple[str | None, float | None]:
        """When a generation was published, and the recall that it promises; None where there is none."""
        g = generations.c
        with self._database.begin() as connection:
            row = connection.execute(select(g.published_at, g.recall_at_10_at_least).where(g.number == number)).first()
        return (None, None) if row is None else (iso(row.published_at), row.recall_at_10_at_least)


def _freeze(connection: Connection, model_key: str, baseline: Mapping[str, Any]) -> None:
    values = {"baseline": baseline, "frozen_at": func.now()}
    row = insert(exam_baselines).values(model_key=model_key, **values)
    connection.execute(row.on_conflict_do_update(index_elements=[exam_baselines.c.model_key], set_=values))


def _state(row: Row[Any], newest: dict[str, int]) -> str:
    if not row.in_log:
        return "lost"
    if newest.get(row.model_key) == row.number:
        return "serving"
    return "kept" if row.withdrawn_at is None else "withdrawn"


def _finish_purges(connection: Connection, number: int, seq: int) -> bool:
    """What was purged before `seq` is not in generation `number`; all that were built before may hold it. Returns
    whether anything was."""
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
    return bool(done.rowcount)
