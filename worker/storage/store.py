"""Postgres, the only truth: the ports of worker.core.ports over one database."""

from __future__ import annotations

from contextlib import closing, suppress

from sqlalchemy import text

from worker.errors import WorkerError
from worker.settings import Settings
from worker.storage.attempts import Attempts
from worker.storage.audit import Audit
from worker.storage.conflicts import Conflicts
from worker.storage.database import Database
from worker.storage.entries import Entries
from worker.storage.figures import Figures
from worker.storage.files import Files
from worker.storage.generations import Generations
from worker.storage.holdings import Holdings
from worker.storage.keypoints import KeptKeypoints
from worker.storage.log import ChangeLog
from worker.storage.models import Models
from worker.storage.reconciling import Reconciled
from worker.storage.rows import Rows
from worker.storage.runs import Runs
from worker.storage.vectors import Vectors
from worker.storage.verdicts import Verdicts


class PostgresStore:
    """See worker.core.store_ports.Store. Only joins: each room has its own page beside this one."""

    def __init__(self, settings: Settings, *, pool_size: int = 5, statement_s: float | None = None) -> None:
        """statement_s: see Database."""
        self.settings = settings
        self.database = Database(settings, pool_size=pool_size, statement_s=statement_s)
        self.rows = Rows(self.database, settings)
        self.log = ChangeLog(self.database)
        self.vectors = Vectors(self.database, self.rows)
        self.keypoints = KeptKeypoints(self.database)
        self.entries = Entries(self.database, self.rows, self.log)
        self.files = Files(self.database)
        self.conflicts = Conflicts(self.database, settings)
        self.verdicts = Verdicts(self.database, self.rows)
        self.audit = Audit(self.database)
        self.attempts = Attempts(self.database, self.rows, self.vectors)
        self.reconciled = Reconciled(self.database, self.rows, self.vectors)
        self.generations = Generations(self.database)
        self.models = Models(self.database, self.vectors)
        self.runs = Runs(self.database, settings)
        self.figures = Figures(
            self.database,
            entries=self.entries,
            vectors=self.vectors,
            keypoints=self.keypoints if "geometry" in settings.rungs else None,
            verdicts=self.verdicts,
            attempts=self.attempts,
            generations=self.generations,
        )
        self.holdings = Holdings(self.database, self.rows, settings)

    def migrate(self) -> str:
        """Bring the database to this release's schema; returns the revision reached."""
        from worker.storage.migrate import migrate  # alembic, which nothing else needs

        with self.database.guard():
            return migrate(
                self.database.engine,
                schema=self.settings.db_schema,
                photos_table=self.settings.photos_table,
                columns=self.settings.photos_columns,
            )

    def grant(self, role: str) -> None:
        """Let a role serve with this database (worker.storage.granting)."""
        from worker.storage.granting import grant

        with self.database.guard():
            names = {"schema": self.settings.db_schema, "photos_table": self.settings.photos_table}
            grant(self.database.engine, role, **names)

    def analyze(self) -> None:
        """Learn what queries are planned by, where no statistics came with the rows."""
        with self.database.begin() as connection:
            connection.execute(text("ANALYZE"))

    def close(self) -> None:
        self.database.close()


def note_end(
    settings: Settings, signal: str, error: str, *, pid: int | None = None, task_id: str | None = None
) -> None:
    """How a process has died, for people who ask about what it had in hand (see Attempts.note_end): lost where Postgres
    is away. By whoever has seen it, without a store of its own."""
    with suppress(WorkerError), closing(PostgresStore(settings)) as store:
        store.attempts.note_end(signal, error, pid=pid, task_id=task_id)
