"""The backend's own table of photos, as it is there: its names for columns, its types, a view as well.

Public methods without a connection are a transaction each; those with one are for the neighbours in this folder.
"""

from __future__ import annotations

import json
import math
import warnings
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Date,
    DateTime,
    Double,
    MetaData,
    Row,
    Select,
    String,
    Table,
    Text,
    and_,
    case,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.exc import SAWarning

from producer_client.contract import Provenance
from worker.core.position import Known, is_same, may_replace
from worker.core.types import NewEntry, PhotoRow, Refusal, RowChange
from worker.errors import Unprepared
from worker.settings import Settings
from worker.storage.database import Database
from worker.storage.fitting import columns_of, kind_of, misfit
from worker.storage.granting import writes

#: Locks of (this space, hash of a path): the same new path in two messages makes one row.
PATH_LOCKS = 5_361_903
#: Types that take the time of day without a cast.
TIMES = (Date, DateTime, String)
#: Columns that messages have something to say to.
GIVEN = ("lat", "lon", "location_method", "address_data")


@dataclass(frozen=True, slots=True)
class Said:
    """What a row says: its position, if it has a possible one, and its address; and as they are compared."""

    position: Known | None
    point: str
    address_data: Any
    address: str


@dataclass(frozen=True, slots=True)
class Place:
    """The row of a photo that is stored. made_of_file: it was just made, with the position that the file says."""

    photo_id: int
    path: str
    made_of_file: bool = False


#: Of a photo whose row has gone meanwhile.
NO_ROW = Said(None, "", None, "")


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

    def changes(self, new: Sequence[NewEntry]) -> list[RowChange]:
        """What `write` would change of rows that are there, were it asked to; changes nothing."""
        p = self.table
        with self._database.begin() as connection:
            known = self.ids_by_path(connection, new)
            said = self.said(connection, set(known.values()))
            found = []
            for item in new:
                path = next((spelling for spelling in item.spellings if spelling in known), "")
                photo_id = known.get(path)
                if photo_id is None or not (values := self._changed(item, said[photo_id])):
                    continue
                row = connection.execute(select(*(p.c[name] for name in GIVEN)).where(p.c.id == photo_id)).one()
                old = {name: float(v) if isinstance(v, Decimal) else v for name, v in zip(GIVEN, row, strict=True)}
                found.append(RowChange(photo_id, path, old, old | values))
        return found

    def some_paths(self, limit: int) -> list[str]:
        """Files of the newest photos."""
        p = self.table
        query = self._query().where(p.c.file_path.is_not(None)).order_by(p.c.id.desc()).limit(limit)
        with self._database.begin() as connection:
            return [path for row in connection.execute(query) if (path := self._photo_row(row).path)]

    def named(self, paths: Collection[str]) -> set[str]:
        """Those of some paths that rows have, as they are written."""
        p = self.table
        with self._database.begin() as connection:
            return set(connection.scalars(select(p.c.file_path).where(p.c.file_path.in_(paths))))

    # ---------------------------------------------------------------------- for the neighbours in this folder

    @cached_property
    def table(self) -> Table:
        """The table or view as it is there, column types and all; columns by our names for them.

        Raises Unprepared with what to do where it is absent, or a column is, or is of another type.
        """
        schema, _, name = self._settings.photos_table.rpartition(".")
        theirs = self._settings.photos_columns
        ours = {column: mine for mine, column in theirs.items()}

        def rename(_inspector: object, _table: object, column: Any) -> None:
            # A column that has one of our names and is not meant must not stand for the one that is.
            own = column["name"]
            column["key"] = ours.get(own) or (f"{own} of the backend" if own in theirs else own)

        named = self._settings.photos_table
        with self._database.guard(), self._database.engine.connect() as connection, warnings.catch_warnings():
            # Of types that SQLAlchemy does not know, as PostGIS's: no column of ours is of one.
            warnings.simplefilter("ignore", SAWarning)
            table = Table(
                name,
                MetaData(),
                schema=schema or None,
                autoload_with=connection,
                listeners=[("column_reflect", rename)],
            )
            why = misfit(named, columns_of(connection, named), theirs, kind_of(connection, named))
        if why is not None:
            raise Unprepared(why)
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

    @property
    def point(self) -> ColumnElement[str]:
        """What each row says of its position, to be compared with what it said before; never NULL."""
        p = self.table
        return func.concat_ws(" ", p.c.lat.cast(Double), p.c.lon.cast(Double), p.c.location_method.cast(Text))

    @property
    def address(self) -> ColumnElement[str]:
        """A digest of each row's address, as `point`."""
        return func.md5(func.coalesce(self.table.c.address_data.cast(Text), ""))

    def said(self, connection: Connection, photo_ids: Collection[int]) -> dict[int, Said]:
        """What the rows say now, by id."""
        p = self.table
        query = select(
            p.c.id,
            p.c.lat,
            p.c.lon,
            p.c.location_method,
            p.c.address_data,
            self.has_coordinates.label("placed"),
            self.point.label("point"),
            self.address.label("address"),
        ).where(p.c.id.in_(photo_ids))
        return {row.id: self._said(row) for row in connection.execute(query)}

    def find(self, connection: Connection, new: Sequence[NewEntry]) -> dict[str, Place]:
        """The rows that are there, by ref. Nobody else makes one of these paths until the transaction ends."""
        for path in sorted({item.spellings[-1] for item in new if item.photo_id is None}):
            connection.execute(select(func.pg_advisory_xact_lock(PATH_LOCKS, _signed_crc(path))))
        known = self.ids_by_path(connection, new)
        found: dict[str, Place] = {}
        for item in new:
            if item.photo_id is not None:
                found[item.ref] = Place(item.photo_id, item.path)
            elif path := next((spelling for spelling in item.spellings if spelling in known), ""):
                found[item.ref] = Place(known[path], path)
        return found

    def write(self, connection: Connection, new: Sequence[NewEntry], there: Mapping[str, Place]) -> dict[str, Place]:
        """The row of every item, by ref; makes rows for new paths, and writes what messages give to those
        that are `there`, by `find`, where it is asked for."""
        p = self.table
        made: dict[str, int] = {}
        found: dict[str, Place] = {}
        for item in new:
            place, path = there.get(item.ref), next((spelling for spelling in item.spellings if spelling in made), "")
            if place is None and path:
                place = Place(made[path], path)
            if place is None:
                given = self._given(item)
                if made_of_file := item.given is None and item.exif is not None:
                    given |= _columns((*item.exif, Provenance.EXIF_GPS))
                values = {"file_path": item.path, **self._now(), **given}
                with writes(self._settings.photos_table):
                    photo_id = int(connection.execute(insert(p).values(**values).returning(p.c.id)).scalar_one())
                place = Place(photo_id, item.path, made_of_file)
                made[item.path] = photo_id
            elif self.may_write(item):
                self._update(connection, place.photo_id, item)
            found[item.ref] = place
        return found

    def may_write(self, item: NewEntry) -> bool:
        """Whether what a message says is written to a row that is there."""
        return self._settings.write_rows if item.update_row is None else item.update_row

    def correct(self, connection: Connection, photo_id: int, said: Said, position: Known | None) -> Said:
        """Put a position, or none, in place of one that Sightline had written itself; returns what the row says now."""
        p = self.table
        if not is_same(said.position, position):
            statement = update(p).where(p.c.id == photo_id, self.point == said.point).values(**_columns(position))
            with writes(self._settings.photos_table):
                connection.execute(statement)
        return self.said(connection, [photo_id]).get(photo_id, NO_ROW)

    def ids_by_path(self, connection: Connection, named: Sequence[NewEntry | Refusal]) -> dict[str, int]:
        """Rows of the spellings of these photos that have no id, the first of each."""
        p = self.table
        wanted = {spelling for one in named if one.photo_id is None for spelling in one.spellings}
        query = select(p.c.id, p.c.file_path).where(p.c.file_path.in_(wanted)).order_by(p.c.id.desc())
        return {row.file_path: row.id for row in connection.execute(query)}

    # ---------------------------------------------------------------------------------------- below

    def _update(self, connection: Connection, photo_id: int, item: NewEntry) -> None:
        p = self.table
        said = self.said(connection, [photo_id]).get(photo_id)
        values = {} if said is None else self._changed(item, said)
        if not values:
            return
        statement = update(p).where(p.c.id == photo_id).values(**values)
        if item.given is not None:
            # Asked again under the row's lock: somebody may have written stronger ones meanwhile.
            gives_way = strength(self.provenance) <= item.given[2].strength
            statement = statement.where(or_(self.has_coordinates.is_not(True), gives_way))
        with writes(self._settings.photos_table):
            connection.execute(statement)

    def _changed(self, item: NewEntry, said: Said) -> dict[str, Any]:
        """Columns of a row that writing this message to it would change. An address goes with its coordinates."""
        if item.given is not None and not may_replace(said.position, item.given):
            return {}
        values = self._given(item)
        if item.given is not None and is_same(said.position, item.given):
            # As it is, in the backend's own word for it.
            values = {name: value for name, value in values.items() if name == "address_data"}
        if "address_data" in values and values["address_data"] == said.address_data:
            del values["address_data"]
        return values

    def _said(self, row: Row[Any]) -> Said:
        position = None
        if row.placed:
            position = (float(row.lat), float(row.lon), self._settings.provenance_of(_text(row.location_method)))
        return Said(position, row.point, row.address_data, row.address)

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
            values |= _columns(item.given)
        if item.address is not None:
            values["address_data"] = self._as_column(item.address)
        return values

    def _now(self) -> dict[str, Any]:
        """When a row is made, where its column is of a kind that a time goes into; else by the column's own default."""
        column = self.table.c.created_at
        return {"created_at": func.now()} if isinstance(column.type, TIMES) and column.computed is None else {}

    def _as_column(self, address: dict[str, Any]) -> Any:
        as_json = isinstance(self.table.c.address_data.type, JSON | JSONB)
        return address if as_json else json.dumps(address, ensure_ascii=False)


def strength(provenance: ColumnElement[str]) -> ColumnElement[int]:
    """As Provenance.strength, of a column."""
    return case({p.value: p.strength for p in Provenance}, value=provenance, else_=Provenance.FALLBACK.strength)


def _columns(position: Known | None) -> dict[str, Any]:
    lat, lon, provenance = position or (None, None, None)
    return {"lat": lat, "lon": lon, "location_method": None if provenance is None else provenance.value}


def _number(value: float | Decimal | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _signed_crc(path: str) -> int:
    return zlib.crc32(path.encode()) - 2**31
