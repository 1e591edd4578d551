"""Brings the database to this release's schema. Safe to run from any number of processes at once."""

from __future__ import annotations

from collections.abc import Mapping

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from worker.errors import Unprepared
from worker.storage.granting import see_rights
from worker.storage.inlining import move_in

#: Two processes that start together migrate one after the other.
LOCK = 5_361_901


def migrate(engine: Engine, *, schema: str, photos_table: str, columns: Mapping[str, str] | None = None) -> str:
    """Run what is missing; returns the revision reached. One transaction: it happens whole or not at all.

    Rows that an earlier release has stored otherwise are brought over after it, in transactions of their own.

    columns: what a photos table that must be made is to call its columns, by our names (Settings.photos_columns).
    """
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        # Also where it is there, it needs a right that only its maker has.
        if connection.scalar(text("SELECT to_regnamespace(:schema)"), {"schema": f'"{schema}"'}) is None:
            connection.execute(text(f'CREATE SCHEMA "{schema}"'))
        config = _config()
        _see_that_it_is_not_later(connection, schema)
        config.attributes.update(connection=connection, schema=schema, photos_table=photos_table, columns=columns or {})
        command.upgrade(config, "head")
        reached = _current(connection, schema) or ""
    move_in(engine, schema=schema)
    return reached


def revisions(engine: Engine, *, schema: str, photos_table: str) -> tuple[str | None, str | None]:
    """(revision of the database, revision of this release). Raises Unprepared where our role lacks a right."""
    with engine.connect() as connection:
        see_rights(connection, schema=schema, photos_table=photos_table)
        return _current(connection, schema), ScriptDirectory.from_config(_config()).get_current_head()


def _see_that_it_is_not_later(connection: Connection, schema: str) -> None:
    ours = ScriptDirectory.from_config(_config())
    there = _current(connection, schema)
    if there is not None and there not in {script.revision for script in ours.walk_revisions()}:
        raise Unprepared(
            f"the database is at revision {there}, which a later release has made; this one goes up to "
            f"{ours.get_current_head()}. Use that release, or a database or a backup of before"
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "worker.storage:migrations")
    return config


def _current(connection: Connection, schema: str) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table_schema": schema}).get_current_revision()
