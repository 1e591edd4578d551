"""What ran, what is published, what is due: rebuilds, generations, the schedule, deliveries of messages."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, literal, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from producer_client.contract import Code, RebuildRun
from worker.core.types import Built, PublishedGeneration
from worker.errors import Permanent
from worker.storage.database import Database
from worker.storage.tables import (
    changes,
    deliveries,
    embeddings,
    fillers,
    generations,
    purges,
    rebuilds,
    schedule,
    serving,
)

#: Held from the drawing of a seq to the commit, so that seqs are committed in their own order: a reader that has
#: seen seq n will never meet a smaller one later. Publishing takes it too, since it forgets what is behind.
SEQ_LOCK = 5_361_902


#: Stands for the moment of a publication that has not been.
NEVER = datetime(2000, 1, 1, tzinfo=UTC)


class Runs(Database):
    """The part of worker.core.ports.Store that is about the service itself; every method is one transaction."""

    def count_delivery(self, task_id: str) -> int:
        """Count one more delivery of a message whose worker died, before it is tried; returns how many there were."""
        with self._begin() as connection:
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

    # ------------------------------------------------------------------------------------- rebuilds

    @contextmanager
    def exclusive(self, name: str) -> Iterator[bool]:
        """True for one holder in the cluster. The lock dies with its connection, so with its process."""
        key = zlib.crc32(f"{self._settings.db_schema}/{name}".encode())
        with self.guard(), self.engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            held = bool(connection.scalar(select(func.pg_try_advisory_lock(key))))
            try:
                yield held
            finally:
                if held:
                    connection.execute(select(func.pg_advisory_unlock(key)))

    def start_run(self) -> int:
        """Note that a rebuild runs. Runs that ended without a word (their process died) are closed here."""
        with self._begin() as connection:
            connection.execute(
                update(rebuilds)
                .where(rebuilds.c.state == "running")
                .values(state="failed", error="its process ended without a word", finished_at=func.now())
            )
            row = {"state": "running", "phase": "start", "done": 0, "total": 0, "started_at": func.now()}
            return int(connection.scalar(insert(rebuilds).values(**row).returning(rebuilds.c.run_id)) or 0)

    def note_progress(self, run_id: int, phase: str, done: int, total: int) -> None:
        with self._begin() as connection:
            connection.execute(
                update(rebuilds).where(rebuilds.c.run_id == run_id).values(phase=phase, done=done, total=total)
            )

    def finish_run(self, run_id: int, *, summary: Mapping[str, Any] | None, error: str | None) -> None:
        with self._begin() as connection:
            connection.execute(
                update(rebuilds)
                .where(rebuilds.c.run_id == run_id)
                .values(
                    state="failed" if error else "done",
                    summary=None if summary is None else dict(summary),
                    error=error,
                    finished_at=func.now(),
                )
            )

    def last_run(self) -> RebuildRun | None:
        with self._begin() as connection:
            row = connection.execute(select(rebuilds).order_by(rebuilds.c.run_id.desc()).limit(1)).first()
        if row is None:
            return None
        return RebuildRun(
            run_id=row.run_id,
            state=row.state,
            phase=row.phase,
            done=row.done,
            total=row.total,
            started_at=_iso(row.started_at) or "",
            finished_at=_iso(row.finished_at),
            summary=row.summary,
            error=row.error,
        )

    # ---------------------------------------------------------------------------------- generations

    def reserve_generation(self) -> int:
        with self._begin() as connection:
            return int(
                connection.scalar(insert(generations).values(model_key=None).returning(generations.c.number)) or 0
            )

    def publish_generation(self, number: int, model_key: str, seq: int, built: Built, keep: int) -> list[int]:
        """Make a written generation the one that is served; returns the numbers of all that are kept.

        Fenced by its number: raises Permanent when a later one is out already, as after a lost lock.
        """
        with self._begin() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(SEQ_LOCK)))
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
            self._finish_purges(connection, number, seq)
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
            self._prune_log(connection)
        return list(numbers)

    def newest_generation(self) -> tuple[int, str] | None:
        """(number, model key) of the last one published, of whatever model."""
        query = select(generations.c.number, generations.c.model_key).where(*served())
        with self._begin() as connection:
            row = connection.execute(query.order_by(generations.c.number.desc()).limit(1)).first()
        return None if row is None else (row.number, row.model_key)

    def serving_generation(self, model_key: str) -> int | None:
        """The generation that searches with this model stand on."""
        with self._begin() as connection:
            number: int | None = connection.scalar(select(func.max(generations.c.number)).where(*served(model_key)))
        return number

    def generations(self) -> list[PublishedGeneration]:
        """All that are kept, of every model, the newest first."""
        with self._begin() as connection:
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
                published_at=_iso(row.published_at) or "",
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
        with self._begin() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(SEQ_LOCK)))
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
        with self._begin() as connection:
            return _iso(connection.scalar(select(generations.c.published_at).where(generations.c.number == number)))

    # --------------------------------------------------------------------------------------- models

    def serving_model(self, default: str) -> str:
        """The model whose vectors are searched; `default` where nothing is stored of another one yet."""
        first = upsert(serving).values(only=True, model_key=default, since=func.now())
        with self._begin() as connection:
            connection.execute(first.on_conflict_do_nothing())
            found = connection.scalar(select(serving.c.model_key))
            used = select(literal(True)).where(embeddings.c.model_key == found).limit(1)
            if found != default and not connection.scalar(used):
                unused = update(serving).where(serving.c.model_key == found)
                connection.execute(unused.values(model_key=default, since=func.now()))
                found = connection.scalar(select(serving.c.model_key))
        return str(found)

    def hold_filler(self, model_key: str, slot: int, lease_s: float, *, new: bool) -> bool:
        """Take (`new`) or prolong one chain of filling messages; False where another one lives."""
        until = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, lease_s)
        row = upsert(fillers).values(model_key=model_key, slot=slot, until=until)
        with self._begin() as connection:
            taken = connection.execute(
                row.on_conflict_do_update(
                    index_elements=["model_key", "slot"],
                    set_={"until": until},
                    where=fillers.c.until < func.now() if new else None,
                ).returning(fillers.c.slot)
            ).first()
        return taken is not None

    def end_filler(self, model_key: str, slot: int) -> None:
        with self._begin() as connection:
            connection.execute(delete(fillers).where(fillers.c.model_key == model_key, fillers.c.slot == slot))

    # ------------------------------------------------------------------------------------- schedule

    def rebuild_asked(self, model_key: str, *, share: float, least: int) -> list[tuple[str, datetime]]:
        """What asks for a rebuild beside the clock, as (job, moment since when): the log has grown by more than
        `share` of the generation and by `least` photos, or a purged photo may still be in a generation."""
        newest = (
            select(generations.c.seq, generations.c.count, generations.c.published_at)
            .where(*served(model_key))
            .order_by(generations.c.number.desc())
            .limit(1)
        )
        with self._begin() as connection:
            seq, count, published_at = connection.execute(newest).first() or (0, 0, NEVER)
            changed = connection.scalar(
                select(func.count(changes.c.photo_id.distinct())).where(changes.c.seq > seq, concerns(model_key))
            )
            purge = connection.scalar(select(func.max(purges.c.asked_at)).where(purges.c.erased_at.is_(None)))
        asked = [] if (changed or 0) < max(least, share * count) else [("compaction", published_at)]
        return asked if purge is None else [*asked, ("purge", purge)]

    def due(
        self, name: str, slot: datetime, *, max_attempts: int, retry_after_s: float, first_counts: bool = False
    ) -> bool:
        """Claim the slot `slot` of the job `name`: True for the one caller that should run it now.

        The very first slot that a database ever sees is only noted, unless `first_counts`: what was before the
        installation is not missed.
        A slot that was claimed and not finished within `retry_after_s` may be claimed again.
        """
        key = (schedule.c.name == name, schedule.c.scheduled_for == slot)
        with self._begin() as connection:
            seen = connection.scalar(select(func.count()).select_from(schedule).where(schedule.c.name == name))
            first = not seen and not first_counts
            connection.execute(
                upsert(schedule)
                .values(
                    name=name,
                    scheduled_for=slot,
                    state="done" if first else "due",
                    attempts=0,
                    changed_at=func.now(),
                )
                .on_conflict_do_nothing()
            )
            late = schedule.c.changed_at < func.now() - func.make_interval(0, 0, 0, 0, 0, 0, retry_after_s)
            claimed = connection.scalar(
                update(schedule)
                .where(
                    *key,
                    schedule.c.attempts < max_attempts,
                    or_(schedule.c.state == "due", and_(schedule.c.state == "claimed", late)),
                )
                .values(state="claimed", attempts=schedule.c.attempts + 1, changed_at=func.now())
                .returning(schedule.c.attempts)
            )
        return claimed is not None

    def slot_done(self, name: str, slot: datetime) -> None:
        with self._begin() as connection:
            connection.execute(
                update(schedule)
                .where(schedule.c.name == name, schedule.c.scheduled_for == slot)
                .values(state="done", changed_at=func.now())
            )

    @staticmethod
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

    @staticmethod
    def _prune_log(connection: Connection) -> None:
        """Forget changes that every kept generation holds. The last of them stays: it says where the log starts."""
        oldest = select(func.min(generations.c.seq)).where(*served()).scalar_subquery()
        held = select(func.max(changes.c.seq)).where(changes.c.seq <= oldest)
        connection.execute(delete(changes).where(changes.c.seq < held.scalar_subquery()))


def concerns(model_key: str) -> ColumnElement[bool]:
    """Changes that a reader of this model's vectors must see."""
    return or_(changes.c.model_key.is_(None), changes.c.model_key == model_key)


def kept() -> list[ColumnElement[bool]]:
    """Generations that are published and not dropped, of all models."""
    return [generations.c.published_at.is_not(None), generations.c.dropped_at.is_(None)]


def served(model_key: str | None = None) -> list[ColumnElement[bool]]:
    """Generations that are published, kept and not rolled back from, of one model or of all."""
    of_all = [*kept(), generations.c.withdrawn_at.is_(None)]
    return of_all if model_key is None else [*of_all, generations.c.model_key == model_key]


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")
