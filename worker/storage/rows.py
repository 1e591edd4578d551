"""The backend's own table of photos, as it is there: its names for columns, its types, a view as well.

Public methods without a connection are a transaction each; those with one are for the neighbours in this folder.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    MetaData,
    Row,
    Select,
    Table,
    Text,
    and_,
    case,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

from producer_client.contract import Code, Provenance
from worker.core.types import NewEntry, PhotoRow
from worker.errors import Permanent
from worker.settings import PHOTO_COLUMNS, Settings
from worker.storage.database import Database

#: Locks of (this space, hash of a path): the same new path in two messages makes one row.
PATH_LOCKS = 5_361_903


class Rows:
    """See worker.core.ports.Rows."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    def get(self, photo_ids: Collection[int]) -> dict[int, PhotoRow]:
        """Rows by id; unknown ids are absent."""
        with self._database.begin() as connection:
            found = connection.execute(self._query().where(self.table.c.id.in_(photo_ids))).all()
        return {row.id: self._photo_row(row) for row in found}

    def after(self, after_id: int, limit: int) -> list[PhotoRow]:
        """The next rows by rising id."""
        p = self.table
        query = self._query().where(p.c.id > after_id).order_by(p.c.id).limit(limit)
        with self._database.begin() as connection:
            return [self._photo_row(row) for row in connection.execute(query)]

    def some_paths(self, limit: int) -> list[str]:
        """Files of the newest photos."""
        p = self.table
        query = self._query().where(p.c.file_path.is_not(None)).order_by(p.c.id.desc()).limit(limit)
        with self._database.begin() as connection:
            return [path for row in connection.execute(query) if (path := self._photo_row(row).path)]

    # ---------------------------------------------------------------------- for the neighbours in this folder

    @cached_property
    def table(self) -> Table:
        """The table or view as it is there, column types and all; columns by our names for them.

        Raises Permanent(not_ready) where it is absent or lacks a column.
        """
        schema, _, name = self._settings.photos_table.rpartition(".")
        theirs = self._settings.photos_columns
        ours = {column: mine for mine, column in theirs.items()}

        def rename(_inspector: object, _table: object, column: Any) -> None:
            # A column that has one of our names and is not meant must not stand for the one that is.
            own = column["name"]
            column["key"] = ours.get(own) or (f"{own} of the backend" if own in theirs else own)

        with self._database.guard(), self._database.engine.connect() as connection:
            table = Table(
                name,
                MetaData(),
                schema=schema or None,
                autoload_with=connection,
                listeners=[("column_reflect", rename)],
            )
        lacking = [theirs.get(column, column) for column in PHOTO_COLUMNS if column not in table.c]
        if lacking:
            raise Permanent(
                Code.NOT_READY,
                f"table {self._settings.photos_table} lacks {', '.join(lacking)}; Sightline needs "
                f"{', '.join(PHOTO_COLUMNS)}. Say in SIGHTLINE_PHOTOS_COLUMNS what the table calls them, or make a "
                "view that has them",
            )
        return table

    @property
    def has_coordinates(self) -> ColumnElement[bool]:
        p = self.table
        # NaN is larger than any number in Postgres, so it is left out with the impossible ones.
        return and_(p.c.lat.between(-90, 90), p.c.lon.between(-180, 180))

    @property
    def provenance(self) -> ColumnElement[str]:
        """What each row's location_method counts as."""
        known = {**self._settings.location_methods, **{p.value: p for p in Provenance}}
        # Cast, because the backend's column may be an enum or a number.
        method = self.table.c.location_method.cast(Text)
        named = {name: literal(p.value) for name, p in known.items()}
        return case(named, value=method, else_=literal(Provenance.DERIVED.value))

    def coordinates(self, connection: Connection, photo_id: int) -> tuple[float, float, Provenance] | None:
        p = self.table
        query = select(p.c.lat, p.c.lon, p.c.location_method).where(p.c.id == photo_id, self.has_coordinates)
        row = connection.execute(query).first()
        if row is None:
            return None
        return float(row.lat), float(row.lon), self._settings.provenance_of(_text(row.location_method))

    def write(self, connection: Connection, new: Sequence[NewEntry]) -> dict[str, tuple[int, str]]:
        """(photo id, file_path) of every item, by ref; makes rows for new paths, writes what messages give."""
        p = self.table
        for path in sorted({item.spellings[-1] for item in new if item.photo_id is None}):
            connection.execute(select(func.pg_advisory_xact_lock(PATH_LOCKS, _signed_crc(path))))
        wanted = {spelling for item in new if item.photo_id is None for spelling in item.spellings}
        query = select(p.c.id, p.c.file_path).where(p.c.file_path.in_(wanted)).order_by(p.c.id.desc())
        known = {row.file_path: row.id for row in connection.execute(query)}
        found: dict[str, tuple[int, str]] = {}
        for item in new:
            photo_id, path = item.photo_id, item.path
            if photo_id is None:
                path = next((spelling for spelling in item.spellings if spelling in known), path)
                photo_id = known.get(path)
            given = self._given(item)
            if photo_id is None:
                if item.given is None and item.exif is not None:
                    given |= dict(
                        zip(("lat", "lon"), item.exif, strict=True), location_method=Provenance.EXIF_GPS.value
                    )
                photo_id = connection.scalar(
                    insert(p).values(file_path=path, created_at=func.now(), **given).returning(p.c.id)
                )
                known[path] = photo_id
            elif given:
                connection.execute(update(p).where(p.c.id == photo_id).values(**given))
            found[item.ref] = (int(photo_id), path)
        return found

    # ---------------------------------------------------------------------------------------- below

    def _query(self) -> Select[*tuple[Any, ...]]:
        p = self.table
        return select(p.c.id, p.c.file_path, p.c.lat, p.c.lon, p.c.location_method, p.c.address_data)

    def _photo_row(self, row: Row[Any]) -> PhotoRow:
        return PhotoRow(
            photo_id=row.id,
            path=row.file_path,
            lat=_number(row.lat),
            lon=_number(row.lon),
            provenance=self._settings.provenance_of(_text(row.location_method)),
            address=row.address_data,
        )

    def _given(self, item: NewEntry) -> dict[str, Any]:
        """What a message says about a photo, as columns of the backend's table."""
        values: dict[str, Any] = {}
        if item.given is not None:
            lat, lon, provenance = item.given
            values |= {"lat": lat, "lon": lon, "location_method": provenance.value}
        if item.address is not None:
            as_json = isinstance(self.table.c.address_data.type, JSON | JSONB)
            values["address_data"] = item.address if as_json else json.dumps(item.address, ensure_ascii=False)
        return values


def _number(value: float | Decimal | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _signed_crc(path: str) -> int:
    return zlib.crc32(path.encode()) - 2**31
