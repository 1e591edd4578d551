"""Whether a backend's table can be used as it is, and if not, SQL of a view that can. Knows column types, no rows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql.base import PGDialect

from producer_client.fields import ADDRESS, LAT, LON, METHOD, PATH
from worker import listed
from worker.settings import PHOTO_COLUMNS

#: What each column must be, and in words. Of others any type will do.
WHOLE = re.compile(r"smallint|integer|bigint")
NUMBER = re.compile(r"smallint|integer|bigint|real|double precision|numeric.*")
TEXT = re.compile(r"text|citext|character.*|json|jsonb")
WANTED = (
    ("id", WHOLE, "a whole number (bigint)"),
    ("file_path", re.compile(r"text|citext|character.*"), "text"),
    ("lat", NUMBER, "a number (double precision)"),
    ("lon", NUMBER, "a number (double precision)"),
    ("address_data", TEXT, "jsonb, json or text"),
)
#: Other names that columns have in backends.
ALSO = {"file_path": PATH, "lat": LAT, "lon": LON, "address_data": ADDRESS, "location_method": METHOD}
#: A decimal number as text, with a comma or a point.
DECIMAL = r"^\s*[+-]?\d+([.,]\d+)?\s*$"
NO_NUMBER = "NULL::float8"
IDENTITY = "bigint GENERATED ALWAYS AS IDENTITY UNIQUE"
#: Of the column that a table with other keys is given.
OWN_ID = "sightline_id"
#: What relations are, see `kind_of`; others than these two take no column.
PLAIN, PARTITIONED = "r", "p"


class Column(NamedTuple):
    name: str
    type: str  #: as Postgres writes it


def columns_of(connection: Connection, table: str) -> list[Column]:
    """Columns of a table or view, `schema.name` or `name`, in their order; of a domain the type that it is made of."""
    query = text(
        "WITH RECURSIVE meant AS ("
        "SELECT attnum, attname, atttypid AS type, atttypmod AS modifier FROM pg_attribute "
        "WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped "
        "UNION ALL SELECT attnum, attname, typbasetype, typtypmod FROM meant JOIN pg_type ON oid = type "
        "WHERE typtype = 'd') "
        "SELECT attname, format_type(type, modifier) FROM meant JOIN pg_type ON oid = type "
        "WHERE typtype <> 'd' ORDER BY attnum"
    )
    return [Column(*row) for row in connection.execute(query, {"table": _quoted(table)})]


def kind_of(connection: Connection, table: str) -> str:
    """What it is in pg_class.relkind: `r` a table, `p` one of partitions, `v` a view."""
    query = text("SELECT relkind FROM pg_class WHERE oid = to_regclass(:table)")
    return connection.scalar(query, {"table": _quoted(table)}) or PLAIN


def misfit(table: str, columns: Sequence[Column], theirs: Mapping[str, str], kind: str = PLAIN) -> str | None:
    """Why the table cannot be used, and SQL that helps; None where it fits. theirs: its names for our columns."""
    there = {column.name: column.type for column in columns}
    names = {ours: theirs.get(ours, ours) for ours in PHOTO_COLUMNS}
    lacking = [ours for ours, name in names.items() if name not in there]
    odd: list[str] = []
    said: list[str] = []
    for ours, fine, wanted in WANTED:
        name = names[ours]
        if ours not in lacking and not fine.fullmatch(there[name]):
            odd.append(ours)
            why = f"column {name} of {table} is {there[name]}, and must be {wanted}"
            said.append(why)
    if not lacking and not odd:
        return None
    if lacking:
        columns_lacking = ", ".join(names[ours] for ours in lacking)
        why = f"table {table} lacks {columns_lacking}"
        said.insert(0, why)
    faults = "; ".join(said)
    renamed = dict(_renamed(lacking, there, set(names.values())))
    if renamed and len(renamed) == len(lacking) and not odd:
        pairs = _pairs({**theirs, **renamed})
        remedy = "unset SIGHTLINE_PHOTOS_COLUMNS"
        if pairs:
            remedy = f"set SIGHTLINE_PHOTOS_COLUMNS={pairs}"
    else:
        remedy = _remedy(table, there, names | renamed, odd, theirs, kind)
    why = f"the photos table cannot be used: {faults}. To do: {remedy}"
    return why


# ---------------------------------------------------------------------------------------------- below


def _renamed(lacking: Sequence[str], there: Mapping[str, str], taken: set[str]) -> Iterator[tuple[str, str]]:
    """Columns that are there under another name: filePath, latitude."""
    for ours in lacking:
        for name in there:
            plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
            if ours == "id" and not WHOLE.fullmatch(there[name]):
                continue
            if name not in taken and (plain == ours or plain in ALSO.get(ours, ())):
                yield ours, name
                break


def _remedy(
    table: str,
    there: Mapping[str, str],
    names: Mapping[str, str],
    odd: Sequence[str],
    theirs: Mapping[str, str],
    kind: str,
) -> str:
    if names["file_path"] not in there:
        needed = ", ".join(PHOTO_COLUMNS)
        remedy = f"make a view that has {needed}, and name it in SIGHTLINE_PHOTOS_TABLE"
        return remedy
    statements: list[str] = []
    keyed = "id" in odd or names["id"] not in there
    if keyed and kind not in (PLAIN, PARTITIONED):
        remedy = (
            f"it is a view, so give the table below it a column {OWN_ID} (ALTER TABLE ... ADD COLUMN {OWN_ID} "
            f"{IDENTITY}), take that into the view, and set SIGHTLINE_PHOTOS_COLUMNS=id={OWN_ID}"
        )
        return remedy
    if keyed:
        # Partitions took no identity before Postgres 17, and no UNIQUE without what they are divided by.
        added = IDENTITY if kind == PLAIN else "bigserial"
        statements.append(f"ALTER TABLE {_quoted(table)} ADD COLUMN {OWN_ID} {added};")
        if kind == PARTITIONED:
            statements.append(f"CREATE INDEX ON {_quoted(table)} ({OWN_ID});")
        if odd in (["id"], []) and all(name in there for ours, name in names.items() if ours != "id"):
            others = {ours: name for ours, name in names.items() if ours in theirs or name != ours}
            pairs = _pairs({**others, "id": OWN_ID})
            remedy = f"run\n{_code(statements)}\nand set SIGHTLINE_PHOTOS_COLUMNS={pairs}"
            return remedy
    selected = [
        _as(_selected(ours, OWN_ID if keyed and ours == "id" else names[ours], there, odd), ours)
        for ours in PHOTO_COLUMNS
    ]
    view = f"{table}_for_sightline"
    statements.append(f"CREATE VIEW {_quoted(view)} AS SELECT {', '.join(selected)} FROM {_quoted(table)};")
    settings = f"SIGHTLINE_PHOTOS_TABLE={shlex.quote(view)}"
    if theirs:
        settings += " SIGHTLINE_PHOTOS_COLUMNS="
    remedy = (
        f"run\n{_code(statements)}\nand set {settings}. "
        "Where it has NULL, write what you have. Photos that have rows are added by their photo_id, rows of new ones "
        "you insert"
    )
    return remedy


def _as(expression: str, name: str) -> str:
    return expression if expression == name else f"{expression} AS {name}"


def _selected(ours: str, name: str, there: Mapping[str, str], odd: Sequence[str]) -> str:
    """One column of the view."""
    column = _quote(name)
    if ours in ("lat", "lon"):
        if name not in there:
            return _of_point(ours, there)
        if ours in odd and TEXT.fullmatch(there[name]):
            written = f"{column}::text" if "json" in there[name] else column
            return f"CASE WHEN {written} ~ '{DECIMAL}' THEN replace({written}, ',', '.')::float8 END"
        return NO_NUMBER if ours in odd else column
    if ours == "id" or (name in there and ours not in odd):
        return column
    if name in there:
        return f"to_jsonb({column})" if ours == "address_data" else f"{column}::text"
    return {"address_data": "NULL::jsonb", "created_at": "NULL::timestamptz"}.get(ours, "NULL::text")


def _of_point(ours: str, there: Mapping[str, str]) -> str:
    """Of Postgres' point (x is the longitude), or of PostGIS."""
    for name, kind in there.items():
        if kind == "point":
            return f"{_quote(name)}[{int(ours == 'lat')}]"
        if kind.partition("(")[0] in ("geography", "geometry"):
            return f"ST_{'Y' if ours == 'lat' else 'X'}({_quote(name)}::geometry)"
    return NO_NUMBER


def _code(statements: Sequence[str]) -> str:
    return "\n".join(f"  {statement}" for statement in statements)


def _pairs(theirs: Mapping[str, str]) -> str:
    """As a shell takes it; nothing where nothing has another name."""
    renamed = {ours: name for ours, name in theirs.items() if ours != name}
    return shlex.quote(listed.written(renamed)) if renamed else ""


def _quoted(table: str) -> str:
    return ".".join(map(_quote, table.split(".")))


def _quote(name: str) -> str:
    return str(_PREPARER.quote(name))


_PREPARER = PGDialect().identifier_preparer  # type: ignore[no-untyped-call]  # SQLAlchemy has no types for it
