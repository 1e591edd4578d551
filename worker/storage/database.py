"""The connection to Postgres: one engine, transactions, and the driver's errors as ours."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError, InterfaceError, NoSuchTableError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from producer_client.contract import Code
from worker.errors import Permanent, Transient, WorkerError
from worker.settings import Settings
from worker.storage import tables

log = logging.getLogger(__name__)

#: object_not_in_prerequisite_state and feature_not_supported: a view, or a column of one, that takes no rows.
READ_ONLY_VIEW = ("55000", "0A000")


class Database:
    """Raises Transient for a database that is away, Permanent(row_rejected) for a row that it will not take."""

    def __init__(self, settings: Settings, *, pool_size: int = 5) -> None:
        self._settings = settings
        self.schema = settings.db_schema
        self.engine: Engine = create_engine(
            settings.database_url,
            pool_pre_ping=True,
            pool_size=pool_size,
            max_overflow=2,
            json_deserializer=read_json,
            connect_args={"connect_timeout": 5, "application_name": "sightline"},
            execution_options={"schema_translate_map": {tables.SCHEMA: settings.db_schema}},
        )

    def close(self) -> None:
        self.engine.dispose()

    @property
    def address(self) -> str:
        """Its URL as people may see it: without the password."""
        return self.engine.url.render_as_string(hide_password=True)

    @contextmanager
    def begin(self, isolation_level: str | None = None) -> Iterator[Connection]:
        """A connection with a transaction around the block."""
        with self.guard(), self.engine.connect() as connection:
            if isolation_level:
                connection = connection.execution_options(isolation_level=isolation_level)
            with connection.begin():
                yield connection

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Turn the driver's errors into ours, by SQLSTATE (PostgreSQL manual, appendix A)."""
        try:
            yield
        except WorkerError:
            raise
        except PoolTimeout as exc:
            raise Transient(Code.UNAVAILABLE, f"Postgres: {first_line(exc)}") from exc
        except NoSuchTableError as exc:
            raise Permanent(Code.NOT_READY, f"there is no table {exc}. Run `sightline migrate`.") from exc
        except DBAPIError as exc:
            state = getattr(exc.orig, "pgcode", None) or ""
            # The driver counts a view that takes no rows among the errors of its operation.
            if isinstance(exc, OperationalError | InterfaceError) and state not in READ_ONLY_VIEW:
                raise Transient(Code.UNAVAILABLE, f"Postgres: {first_line(exc)}") from exc
            raise self._of_state(state, first_line(exc)) from exc

    def _of_state(self, state: str, why: str) -> WorkerError:
        if state == "42501":
            return Permanent(Code.NOT_READY, f"the database role lacks a right: {why}. Grant it to the role.")
        # Data, constraints, what triggers raise, and what a view does not let through.
        if state[:2] in ("22", "23", "P0") or state in READ_ONLY_VIEW:
            return Permanent(
                Code.ROW_REJECTED,
                f"Postgres takes no such row in {self._settings.photos_table}: {why}. "
                "Where the table needs more columns, insert the row yourself and send its photo_id.",
            )
        # Read-only (a standby after a failover), connection, rollback, resources, lock, shutdown.
        if state == "25006" or state[:2] in ("08", "40", "53", "55", "57"):
            return Transient(Code.UNAVAILABLE, f"Postgres: {why}")
        return Permanent(Code.NOT_READY, f"the database is not ready: {why}. Run `sightline migrate`.")


def read_json(written: str) -> Any:
    """A column of the backend's or ours. None where Python cannot read what Postgres has taken: nested a thousand
    deep, or a number of thousands of digits."""
    try:
        return json.loads(written)
    except (RecursionError, ValueError):
        log.warning("JSON of a row cannot be read", extra={"characters": len(written)})
        return None


def first_line(exc: Exception) -> str:
    return str(getattr(exc, "orig", None) or exc).strip().splitlines()[0]


def iso(moment: datetime | None) -> str | None:
    """A moment as replies carry it: ISO 8601, UTC, seconds."""
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")
