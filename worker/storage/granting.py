"""What a role that services run as may do, and what it lacks (docs/decisions/0050)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from producer_client.contract import Code
from worker.errors import Permanent, Unprepared
from worker.storage.database import DENIED, first_line

#: On the tables of our own schema.
OWN = ("SELECT", "INSERT", "UPDATE", "DELETE")
#: Nobody but migrations writes to it.
REVISION = "alembic_version"
#: Tables that are named where more lack a right.
NAMED = 3


def grant(engine: Engine, role: str, *, schema: str, photos_table: str) -> None:
    """Let a role serve: read and write every table of our schema, those of later migrations, too, and read the photos.

    Run it as the owner of the schema. Raises Permanent(bad_request) where there is no such role.
    """
    with engine.begin() as connection:
        if not connection.scalar(text("SELECT count(*) FROM pg_roles WHERE rolname = :role"), {"role": role}):
            raise Permanent(Code.BAD_REQUEST, f"there is no role {role} in Postgres: see deploy/postgres/roles.sql")
        to, own, on = _quoted(role), _quoted(schema), _quoted(photos_table)
        of_photos = connection.scalar(
            text("SELECT relnamespace::regnamespace FROM pg_class WHERE oid = to_regclass(:table)"), {"table": on}
        )
        for statement in (
            f"GRANT USAGE ON SCHEMA {own}, {of_photos} TO {to}",
            f"GRANT {', '.join(OWN)} ON ALL TABLES IN SCHEMA {own} TO {to}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {own} TO {to}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {own} GRANT {', '.join(OWN)} ON TABLES TO {to}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {own} GRANT USAGE ON SEQUENCES TO {to}",
            f"REVOKE INSERT, UPDATE, DELETE ON {own}.{REVISION} FROM {to}",
            f"GRANT SELECT ON {on} TO {to}",
        ):
            connection.execute(text(statement))


def see_rights(connection: Connection, *, schema: str, photos_table: str) -> None:
    """Raises Unprepared naming what the role of this connection may not do and needs to."""
    rights = ",".join(OWN)
    lacking = connection.execute(
        text(
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(:schema) AND relkind IN ('r', 'p') "
            "AND NOT (SELECT bool_and(has_table_privilege(pg_class.oid, one)) "
            "         FROM unnest(string_to_array(:rights, ',')) one WHERE relname <> :revision OR one = 'SELECT') "
            "ORDER BY relname"
        ),
        {"schema": _quoted(schema), "rights": rights, "revision": REVISION},
    )
    tables = [f"{schema}.{name}" for (name,) in lacking]
    reads = text("SELECT has_table_privilege(to_regclass(:table), 'SELECT')")
    if connection.scalar(reads, {"table": _quoted(photos_table)}) is False:
        tables.append(photos_table)
    if tables:
        role = connection.scalar(text("SELECT current_user"))
        named = ", ".join(tables[:NAMED]) + (" …" if len(tables) > NAMED else "")
        raise Unprepared(
            f"the role {role} lacks rights on {named}. Run `sightline migrate --grant` with its name and with the "
            "address of the role that owns the tables"
        )


@contextmanager
def writes(photos_table: str) -> Iterator[None]:
    """Around a statement that writes to the backend's table. The right to is its owner's to give, and may never come:
    whoever asks for what needs it is told so, Permanent(not_ready), and does not wait for it."""
    try:
        yield
    except ProgrammingError as exc:
        if getattr(exc.orig, "pgcode", None) != DENIED:
            raise
        why = first_line(exc)
        raise Permanent(
            Code.NOT_READY,
            f"Sightline may not write to {photos_table}: {why}. Insert the row yourself and send its photo_id, or "
            "grant INSERT on the table, and USAGE on the sequence of its ids, to the role of SIGHTLINE_DATABASE_URL "
            "(UPDATE for what SIGHTLINE_WRITE_ROWS or update_row asks for)",
        ) from exc


def _quoted(name: str) -> str:
    """A name as the settings have it, its schema before it where it has one."""
    return ".".join('"{}"'.format(part.replace('"', '""')) for part in name.split("."))
