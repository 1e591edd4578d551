"""The connection to Postgres: one engine, transactions, and the driver's errors as ours."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import quote, unquote
from uuid import uuid4

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Function,
    Integer,
    cast,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError, InterfaceError, NoSuchTableError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from producer_client.contract import Code
from worker.errors import Permanent, Transient, Unprepared, WorkerError
from worker.settings import Settings
from worker.storage import tables
from worker.storage.silence import CONNECT_S, KEEPALIVES, Silence

log = logging.getLogger(__name__)

#: What is wrong with the row and not with the database, by SQLSTATE or class of it: data, constraints, what triggers
#: and what they call raise, what a view with a check does not let through, a text that is too long for an index; and
#: object_not_in_prerequisite_state and feature_not_supported: a view, or a column of one, that takes no rows; and
#: generated_always: a column that the table makes of others.
OF_THE_ROW = ("22", "23", "27", "2F", "38", "39", "44", "54", "P0", "55000", "0A000", "428C9")
#: insufficient_privilege.
DENIED = "42501"
#: What only a person can put right, by SQLSTATE or class of it, and what that person does.
BY_A_PERSON = (
    (
        "42703",
        "Put the column back, or say in SIGHTLINE_PHOTOS_COLUMNS what the table calls it, as lat=latitude, and "
        "start the workers again.",
    ),
    ("42P01", "Run `sightline migrate`, or set SIGHTLINE_PHOTOS_TABLE to what the table of photos is called."),
    ("3F000", "Run `sightline migrate`, or set SIGHTLINE_DB_SCHEMA to the schema of Sightline's tables."),
    ("42804", "Make a view whose columns have the types that Sightline needs, and name it in SIGHTLINE_PHOTOS_TABLE."),
    ("42883", "Make a view whose columns have the types that Sightline needs, and name it in SIGHTLINE_PHOTOS_TABLE."),
    (
        DENIED,
        "Grant the right to the role of SIGHTLINE_DATABASE_URL: `sightline migrate --grant` as the tables' owner.",
    ),
    ("XX", "That is an error of Postgres itself: see its log."),
    ("42", "Run `sightline migrate`; `sightline doctor` tells more."),
    ("3", "Run `sightline migrate`; `sightline doctor` tells more."),
)
#: Parameters of an address that are for nobody to see (libpq takes them there, too).
SECRETS = ("password", "sslpassword")
#: What the names of our connections begin with.
SESSION = "sightline"
#: data_exception.
DATA = "22000"
#: Locks of (this space, photo id): what holds of a photo's position is decided by one writer at a time.
ENTRY_LOCKS = 5_361_904
#: read_only_sql_transaction: a standby, default_transaction_read_only, a full disk at some hosts.
READ_ONLY = "25006"


def words_of(pid: int) -> str:
    """What the words of processes of this number on this machine begin with."""
    return f"{pid}-{sha256(socket.gethostname().encode()).hexdigest()[:8]}-"


class Database:
    """Raises Transient for a database that is away or takes no writes, Unprepared for one that lacks something,
    Permanent(row_rejected) for a row that it will not take."""

    def __init__(self, settings: Settings, *, pool_size: int = 5, statement_s: float | None = None) -> None:
        """statement_s: how long a statement may take, or wait for a lock, before Postgres gives it up; as long as it
        takes unless given."""
        self._settings = settings
        self.schema = settings.db_schema
        #: By which the connections of this process are known.
        self.process = f"{words_of(os.getpid())}{uuid4().hex[:12]}"
        url = make_url(settings.database_url)
        how: dict[str, Any] = {name: value for name, value in KEEPALIVES.items() if name not in url.query}
        how |= {"connect_timeout": CONNECT_S, "application_name": f"{SESSION} {self.process}"}
        self._silence = Silence({**url.get_dialect()().create_connect_args(url)[1], **how})
        self.engine: Engine = create_engine(
            url,
            pool_pre_ping=True,
            pool_size=pool_size,
            max_overflow=2,
            json_deserializer=read_json,
            connect_args={**how, "connection_factory": self._silence.connect},
            execution_options={"schema_translate_map": {tables.SCHEMA: settings.db_schema}},
        )
        if statement_s is not None:
            # Of each transaction: behind a pooler the connection is others' as well.
            limit = f"SET LOCAL statement_timeout = {round(statement_s * 1000)}"
            event.listen(self.engine, "begin", lambda connection: connection.exec_driver_sql(limit))

    def close(self) -> None:
        self.engine.dispose()
        self._silence.close()

    @property
    def address(self) -> str:
        """Its URL as people may see it: without passwords."""
        url = self.engine.url
        hidden = {name: "***" for name in SECRETS if name in url.query}
        address, mark, query = url.update_query_dict(hidden).render_as_string(hide_password=True).partition("?")
        return address + mark + re.sub(r"(%[0-9A-F]{2})+", lambda coded: _readable(coded[0]), query)

    @property
    def address_without_password(self) -> str:
        """The same for programs of Postgres' own, which ask for the password, or find it in ~/.pgpass."""
        url = self.engine.url.difference_update_query(SECRETS).set(drivername="postgresql")
        # `set` takes no None for a password.
        address, mark, query = url._replace(password=None).render_as_string().partition("?")
        # libpq reads a plus as a plus, and wants no blanks.
        return f"{address}{mark}{query.replace('+', '%20')}".replace(" ", "%20")

    @contextmanager
    def begin(self, isolation_level: str | None = None) -> Iterator[Connection]:
        """A connection with a transaction around the block."""
        if self._silence.on:
            raise Transient(Code.UNAVAILABLE, "Postgres does not answer, and it does not refuse either")
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
            remedy = dict(BY_A_PERSON)["42P01"]
            raise Unprepared(f"there is no table {exc}. {remedy}") from exc
        except DBAPIError as exc:
            state = getattr(exc.orig, "pgcode", None) or ""
            of_connection = isinstance(exc, OperationalError | InterfaceError) or exc.connection_invalidated
            if not state and not of_connection:
                # What the driver itself does not send, whatever it is asked to.
                state = DATA
            raise self._of_state(state, first_line(exc)) from exc

    def _of_state(self, state: str, why: str) -> WorkerError:
        if state.startswith(OF_THE_ROW):
            return Permanent(
                Code.ROW_REJECTED,
                f"Postgres takes no such row in {self._settings.photos_table}: {why}. "
                "Where the table needs more columns, insert the row yourself and send its photo_id.",
            )
        if state == READ_ONLY:
            return Transient(
                Code.UNAVAILABLE,
                f"Postgres is read-only at the moment and takes no writes ({why}): a standby, or "
                "default_transaction_read_only is on",
            )
        for beginning, remedy in BY_A_PERSON:
            if state.startswith(beginning):
                return Unprepared(f"the database is not ready: {why}. {remedy}")
        if not state and "FATAL:" in why:  # what the server says to who would connect
            return Transient(
                Code.UNAVAILABLE,
                f"Postgres: {why}. It runs and lets nobody in like that: wait where it is only starting, or see that "
                "SIGHTLINE_DATABASE_URL has a database, a user and a password of it",
            )
        if not state:  # what the driver says of a connection
            return Transient(
                Code.UNAVAILABLE,
                f"Postgres: {why}. Start it, or set SIGHTLINE_DATABASE_URL to its address, with a user and their "
                "password",
            )
        # Connection, rollback, resources, lock, shutdown.
        return Transient(Code.UNAVAILABLE, f"Postgres: {why}")


def read_json(written: str) -> Any:
    """A column of the backend's or ours. None where Python cannot read what Postgres has taken: nested a thousand
    deep, or a number of thousands of digits."""
    try:
        return json.loads(written)
    except (RecursionError, ValueError):
        log.warning("JSON of a row cannot be read", extra={"characters": len(written)})
        return None


def _readable(coded: str) -> str:
    """Of a URL's query, with codes only for what is read as something else there: the folder of a socket above all."""
    characters = unquote(coded)
    return "".join(c if c.isalnum() or c in "/*" else quote(c) for c in characters)


def first_line(exc: Exception) -> str:
    return str(getattr(exc, "orig", None) or exc).strip().splitlines()[0]


def iso(moment: datetime | None) -> str | None:
    """A moment as replies carry it: ISO 8601, UTC, seconds."""
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")


def interval_of(seconds: ColumnElement[float] | float) -> Function[timedelta]:
    """So long, for Postgres to count from a moment."""
    return func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def hold(connection: Connection, photo_ids: Collection[int]) -> None:
    """Be the one writer of these photos until the transaction ends. In one order, as all: no deadlock."""
    keys = func.unnest(cast(sorted(photo_id % 2**31 for photo_id in photo_ids), ARRAY(Integer))).column_valued()
    connection.execute(select(func.pg_advisory_xact_lock(ENTRY_LOCKS, keys)))
