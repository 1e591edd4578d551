"""What runs and what is due: the one rebuild at a time, its progress, the schedule."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import and_, delete, func, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from producer_client.contract import RebuildRun
from worker.settings import Settings
from worker.storage.database import Database, interval_of, iso
from worker.storage.log import concerns
from worker.storage.tables import changes, generations, purges, rebuilds, schedule, served

#: Stands for the moment of a publication that has not been.
NEVER = datetime(2000, 1, 1, tzinfo=UTC)
#: Days for which it is known how a rebuild went.
KEPT_DAYS = 30


class Runs:
    """See worker.core.ports.Runs. Every method but `exclusive` is a transaction."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    @contextmanager
    def exclusive(self, name: str) -> Iterator[bool]:
        """True for one holder in the cluster. The lock dies with its connection, so with its process."""
        key = zlib.crc32(f"{self._settings.db_schema}/{name}".encode())
        with self._database.guard(), self._database.engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            held = bool(connection.scalar(select(func.pg_try_advisory_lock(key))))
            try:
                yield held
            finally:
                if held:
                    connection.execute(select(func.pg_advisory_unlock(key)))

    def start(self) -> int:
        """Note that a rebuild runs. Runs that ended without a word (their process died) are closed here, and those of
        long ago are forgotten: what they say may name a file."""
        with self._database.begin() as connection:
            old = rebuilds.c.finished_at < func.now() - text(f"interval '{KEPT_DAYS} days'")
            connection.execute(delete(rebuilds).where(old))
            connection.execute(
                update(rebuilds)
                .where(rebuilds.c.state == "running")
                .values(state="failed", error="its process ended without a word", finished_at=func.now())
            )
            row = {"state": "running", "phase": "start", "done": 0, "total": 0, "started_at": func.now()}
            return int(connection.scalar(insert(rebuilds).values(**row).returning(rebuilds.c.run_id)) or 0)

    def note_progress(self, run_id: int, phase: str, done: int, total: int) -> None:
        with self._database.begin() as connection:
            connection.execute(
                update(rebuilds).where(rebuilds.c.run_id == run_id).values(phase=phase, done=done, total=total)
            )

    def finish(self, run_id: int, *, summary: Mapping[str, Any] | None, error: str | None) -> None:
        ended = {"state": "failed"} if error else {"state": "done", "phase": "done", "done": rebuilds.c.total}
        with self._database.begin() as connection:
            connection.execute(
                update(rebuilds)
                .where(rebuilds.c.run_id == run_id)
                .values(
                    **ended,
                    summary=None if summary is None else dict(summary),
                    error=error,
                    finished_at=func.now(),
                )
            )

    def last(self) -> RebuildRun | None:
        with self._database.begin() as connection:
            row = connection.execute(select(rebuilds).order_by(rebuilds.c.run_id.desc()).limit(1)).first()
        if row is None:
            return None
        return RebuildRun(
            run_id=row.run_id,
            state=row.state,
            phase=row.phase,
            done=row.done,
            total=row.total,
            started_at=iso(row.started_at) or "",
            finished_at=iso(row.finished_at),
            summary=row.summary,
            error=row.error,
        )

    # ------------------------------------------------------------------------------------- schedule

    def asked(self, model_key: str, *, share: float, least: int) -> list[tuple[str, datetime]]:
        """What asks for a rebuild beside the clock, as (job, moment since when): the log has grown by more than
        `share` of the generation and by `least` photos, or a purged photo may still be in a generation."""
        newest = (
            select(generations.c.seq, generations.c.count, generations.c.published_at)
            .where(*served(model_key))
            .order_by(generations.c.number.desc())
            .limit(1)
        )
        with self._database.begin() as connection:
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
        with self._database.begin() as connection:
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
            late = schedule.c.changed_at < func.now() - interval_of(retry_after_s)
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
        with self._database.begin() as connection:
            connection.execute(
                update(schedule)
                .where(schedule.c.name == name, schedule.c.scheduled_for == slot)
                .values(state="done", changed_at=func.now())
            )
