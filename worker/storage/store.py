"""Postgres, the only truth: photos, vectors, the change log, what is missing. A public method is a transaction."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
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
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from producer_client.contract import Code, Near, Provenance
from worker.core.geo import bounding_box, distance_m
from worker.core.types import (
    Change,
    Changes,
    Counts,
    Entry,
    Missing,
    NewEntry,
    PhotoRow,
    Written,
)
from worker.core.vectors import Ids, Vector, from_bytes, to_bytes
from worker.errors import Permanent, Transient
from worker.settings import PHOTO_COLUMNS
from worker.storage.runs import SEQ_LOCK, Runs, concerns, served
from worker.storage.snapshot import PostgresSnapshot
from worker.storage.tables import (
    attempts,
    change_seq,
    changes,
    embeddings,
    entries,
    generations,
    purges,
    refusals,
    serving,
)

#: Locks of (this space, hash of a path): the same new path in two messages makes one row.
PATH_LOCKS = 5_361_903


class PostgresStore(Runs):
    """See worker.core.ports.Store."""

    # --------------------------------------------------------------------------------------- photos

    def rows(self, photo_ids: Collection[int]) -> dict[int, PhotoRow]:
        """Rows of the backend's table by id; unknown ids are absent."""
        p = self._photos
        with self._begin() as connection:
            found = connection.execute(self._rows_of_photos().where(p.c.id.in_(photo_ids))).all()
        return {row.id: self._photo_row(row) for row in found}

    def rows_after(self, after_id: int, limit: int) -> list[PhotoRow]:
        """The next rows of the backend's table by rising id."""
        p = self._photos
        query = self._rows_of_photos().where(p.c.id > after_id).order_by(p.c.id).limit(limit)
        with self._begin() as connection:
            return [self._photo_row(row) for row in connection.execute(query)]

    def some_paths(self, limit: int) -> list[str]:
        """Files of the backend's newest photos."""
        p = self._photos
        query = self._rows_of_photos().where(p.c.file_path.is_not(None)).order_by(p.c.id.desc()).limit(limit)
        with self._begin() as connection:
            return [path for row in connection.execute(query) if (path := self._photo_row(row).path)]

    def put_many(
        self, new: Sequence[NewEntry], model_key: str, *, revive: bool = True, filling: bool = False
    ) -> list[Written]:
        """Photo rows, vectors, entries and change log of one message in one transaction.

        revive: whether a photo that was removed comes back. filling: the model does not serve yet.
        Raises Transient when another model serves since: the photo would be found by nobody.
        """
        with self._begin() as connection:
            rows = self._rows_for(connection, new)
            for item in sorted(new, key=lambda item: rows[item.ref]):  # one order for all writers: no deadlock
                if item.vector is not None:
                    _keep_vector(connection, item.content_sha256, model_key, item.vector)
                self._put_entry(connection, *rows[item.ref], item, revive)
            photo_ids = [photo_id for photo_id, _ in rows.values()]
            connection.execute(delete(refusals).where(refusals.c.photo_id.in_(photo_ids)))
            connection.execute(delete(attempts).where(attempts.c.photo_id.in_(photo_ids)))
            stored = {row.photo_id: self._entry(row) for row in connection.execute(self._entries(photo_ids))}
            seqs = self._log(connection, photo_ids, model_key if filling else None)
            # Under the lock of the log, which the change of the model takes too.
            now_serving = connection.scalar(select(serving.c.model_key))
            if not filling and now_serving not in (None, model_key):
                raise Transient(Code.UNAVAILABLE, f"model {now_serving} serves now, no longer {model_key}")
        return [Written(item.ref, stored[rows[item.ref][0]], seqs[rows[item.ref][0]]) for item in new]

    def remove_many(self, photo_ids: Collection[int]) -> dict[int, tuple[int, bool]]:
        """Take photos out of the index; returns {photo_id: (seq, was in it)}. Their `photos` rows stay."""
        ids = sorted(set(photo_ids))
        with self._begin() as connection:
            gone = self._remove(connection, ids)
            seqs = self._log(connection, ids)
        return {photo_id: (seqs[photo_id], photo_id in gone) for photo_id in ids}

    def purge_many(self, photo_ids: Collection[int]) -> dict[int, tuple[int, bool]]:
        """Remove photos and erase what is kept of them; returns {photo_id: (seq, was in the index)}.

        What stays is the bare id, so that no rebuild adds the photo again, and a note until no generation holds it. A
        vector that another photo of the same content has too stays that photo's.
        """
        ids = sorted(set(photo_ids))
        with self._begin() as connection:
            gone = self._remove(connection, ids)
            contents = connection.scalars(select(entries.c.content_sha256).where(entries.c.photo_id.in_(ids))).all()
            connection.execute(
                update(entries)
                .where(entries.c.photo_id.in_(ids))
                .values(
                    content_sha256="",
                    path=None,
                    lat=None,
                    lon=None,
                    provenance=None,
                    from_exif=False,
                    metadata=None,
                    updated_at=func.now(),
                )
            )
            shared = exists().where(entries.c.content_sha256 == embeddings.c.content_sha256)
            connection.execute(delete(embeddings).where(embeddings.c.content_sha256.in_(contents), ~shared))
            connection.execute(delete(attempts).where(attempts.c.photo_id.in_(ids)))
            seqs = self._log(connection, ids)
            for photo_id, seq in seqs.items():
                asked = {"seq": seq, "asked_at": func.now(), "erased_at": None, "generation": None}
                connection.execute(
                    upsert(purges)
                    .values(photo_id=photo_id, **asked)
                    .on_conflict_do_update(index_elements=["photo_id"], set_=asked)
                )
        return {photo_id: (seqs[photo_id], photo_id in gone) for photo_id in ids}

    def entries(self, photo_ids: Collection[int]) -> dict[int, Entry]:
        """What the index knows of these photos; removed and unknown ones are absent."""
        with self._begin() as connection:
            found = connection.execute(self._entries(photo_ids).where(~entries.c.removed)).all()
        return {row.photo_id: self._entry(row) for row in found}

    def known_entries(self, photo_ids: Collection[int], model_key: str) -> dict[int, tuple[Entry, Vector]]:
        """Indexed photos with their vectors as stored; removed, unknown and unembedded ones are absent."""
        query = (
            self._entries(photo_ids)
            .add_columns(embeddings.c.vector)
            .join(
                embeddings,
                and_(embeddings.c.content_sha256 == entries.c.content_sha256, embeddings.c.model_key == model_key),
            )
            .where(~entries.c.removed)
        )
        with self._begin() as connection:
            return {
                row.photo_id: (self._entry(row), from_bytes(row.vector, len(row.vector) // 4))
                for row in connection.execute(query)
            }

    def ids_with_content(self, content_sha256: str) -> Ids:
        with self._begin() as connection:
            found = connection.scalars(
                select(entries.c.photo_id).where(entries.c.content_sha256 == content_sha256, ~entries.c.removed)
            ).all()
        return np.array(found, dtype=np.int64)

    def ids_where(self, near: Near | None, where: Mapping[str, Any] | None) -> Ids:
        """Ids of the indexed photos within the circle whose metadata contains `where`."""
        query = select(entries.c.photo_id, entries.c.lat, entries.c.lon).where(~entries.c.removed)
        if near is not None:
            lat_min, lat_max, ranges = bounding_box(near.lat, near.lon, near.radius_m)
            query = query.where(
                entries.c.lat.between(lat_min, lat_max),
                or_(*(entries.c.lon.between(west, east) for west, east in ranges)),
            )
        if where:
            query = query.where(entries.c.metadata.contains(dict(where)))
        with self._begin() as connection:
            found = connection.execute(query).all()
        return np.array(
            [
                row.photo_id
                for row in found
                if near is None or distance_m(near.lat, near.lon, row.lat, row.lon) <= near.radius_m
            ],
            dtype=np.int64,
        )

    # -------------------------------------------------------------------------------------- vectors

    def known_vectors(self, contents: Collection[str], model_key: str) -> dict[str, Vector]:
        """Stored vectors by content, of this model alone."""
        query = select(embeddings.c.content_sha256, embeddings.c.vector).where(
            embeddings.c.content_sha256.in_(contents), embeddings.c.model_key == model_key
        )
        with self._begin() as connection:
            return {
                row.content_sha256: from_bytes(row.vector, len(row.vector) // 4) for row in connection.execute(query)
            }

    def keep_vectors(self, vectors: Mapping[str, Vector], model_key: str) -> None:
        with self._begin() as connection:
            for content, vector in sorted(vectors.items()):
                _keep_vector(connection, content, model_key, vector)

    # ------------------------------------------------------------------------------- the change log

    def changes_after(self, seq: int, model_key: str, dimension: int, *, items: bool = True) -> Changes:
        """The newest state of every photo that changed after `seq`, with the generations kept. One snapshot.

        items: whether to read the photos too, or only where the log stands.
        """
        with self._begin(isolation_level="REPEATABLE READ") as connection:
            kept = list(
                connection.scalars(
                    select(generations.c.number).where(*served(model_key)).order_by(generations.c.number.desc())
                )
            )
            log_start, high = connection.execute(
                select(func.coalesce(func.min(changes.c.seq), 0), func.coalesce(func.max(changes.c.seq), 0))
            ).one()
            if high <= seq or not items:
                return Changes(seq=seq if high <= seq else high, items=[], generations=kept, log_start=log_start)
            changed = select(changes.c.photo_id).where(changes.c.seq > seq, concerns(model_key)).distinct().subquery()
            query = (
                select(changed.c.photo_id, embeddings.c.vector)
                .join_from(
                    changed,
                    entries,
                    and_(entries.c.photo_id == changed.c.photo_id, ~entries.c.removed),
                    isouter=True,
                )
                .join(
                    embeddings,
                    and_(
                        embeddings.c.content_sha256 == entries.c.content_sha256,
                        embeddings.c.model_key == model_key,
                    ),
                    isouter=True,
                )
            )
            changed_photos = [
                Change(row.photo_id, None if row.vector is None else from_bytes(row.vector, dimension))
                for row in connection.execute(query)
            ]
        return Changes(seq=high, items=changed_photos, generations=kept, log_start=log_start)

    @contextmanager
    def snapshot(self, model_key: str, dimension: int) -> Iterator[PostgresSnapshot]:
        """Everything that is indexed with a vector of this model, as of one moment, streamed by rising id."""
        with self._begin(isolation_level="REPEATABLE READ") as connection:
            yield PostgresSnapshot(connection, model_key, dimension)

    # ------------------------------------------------------------------------------- what is missing

    def refuse(self, photo_id: int, code: Code, message: str) -> None:
        """Remember why a photo could not be taken; the attempt is over."""
        with self._begin() as connection:
            row = {"code": code.value, "message": message, "at": func.now()}
            connection.execute(
                upsert(refusals)
                .values(photo_id=photo_id, **row)
                .on_conflict_do_update(index_elements=["photo_id"], set_=row)
            )
            if code is not Code.QUARANTINED:
                connection.execute(delete(attempts).where(attempts.c.photo_id == photo_id))

    def missing(
        self, model_key: str, *, after_id: int, limit: int, share: tuple[int, int] | None = None
    ) -> list[Missing]:
        """Photos with coordinates, or added before, that have no vector of this model or whose file moved.

        share: (slot, of so many): only photos whose id falls to this slot, and none that was refused before.
        """
        p = self._photos
        query = (
            select(p.c.id, p.c.file_path, func.coalesce(attempts.c.attempts, 0).label("attempts"))
            .join_from(p, entries, entries.c.photo_id == p.c.id, isouter=True)
            .join(attempts, attempts.c.photo_id == p.c.id, isouter=True)
            .where(p.c.id > after_id, self._is_missing(model_key))
            .order_by(p.c.id)
            .limit(limit)
        )
        if share is not None:
            slot, slots = share
            query = query.where(p.c.id % slots == slot, ~self._was_refused)
        with self._begin() as connection:
            return [Missing(row.id, row.file_path or "", row.attempts) for row in connection.execute(query)]

    def missing_count(self, model_key: str, *, refused_too: bool = True) -> int:
        with self._begin() as connection:
            return self._count_missing(connection, model_key, refused_too=refused_too)

    def switch_model(self, model_key: str) -> bool:
        """Let this model's vectors be searched from now on, unless photos lack one. Refused photos do not count.

        Nobody can write meanwhile, so no photo falls between the two models.
        """
        with self._begin() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(SEQ_LOCK)))
            if self._count_missing(connection, model_key, refused_too=False):
                return False
            row = {"only": True, "model_key": model_key, "since": func.now()}
            connection.execute(upsert(serving).values(**row).on_conflict_do_update(index_elements=["only"], set_=row))
        return True

    def begin_attempt(self, photo_ids: Collection[int]) -> None:
        """Count a try before it is made: a photo that takes the process down is found out by its count."""
        with self._begin() as connection:
            for photo_id in sorted(photo_ids):
                connection.execute(
                    upsert(attempts)
                    .values(photo_id=photo_id, attempts=1)
                    .on_conflict_do_update(index_elements=["photo_id"], set_={"attempts": attempts.c.attempts + 1})
                )

    def end_attempt(self, photo_ids: Collection[int]) -> None:
        """Take a try back that ended without being a photo's fault."""
        with self._begin() as connection:
            connection.execute(delete(attempts).where(attempts.c.photo_id.in_(photo_ids)))

    def follow_rows(self) -> int:
        """Take over what the backend changed in its table directly: coordinates, methods, deleted rows."""
        p = self._photos
        lat, lon = p.c.lat.cast(entries.c.lat.type), p.c.lon.cast(entries.c.lon.type)
        provenance = self._provenance_column(p.c.location_method)
        moved = (
            update(entries)
            .where(
                entries.c.photo_id == p.c.id,
                ~entries.c.removed,
                self._has_coordinates,
                or_(
                    entries.c.lat.is_distinct_from(lat),
                    entries.c.lon.is_distinct_from(lon),
                    entries.c.provenance.is_distinct_from(provenance),
                ),
            )
            .values(lat=lat, lon=lon, provenance=provenance, from_exif=False, updated_at=func.now())
            .returning(entries.c.photo_id)
        )
        withdrawn = (
            update(entries)
            .where(
                entries.c.photo_id == p.c.id,
                ~entries.c.removed,
                ~entries.c.from_exif,
                entries.c.lat.is_not(None),
                self._has_coordinates.is_not(True),
            )
            .values(lat=None, lon=None, provenance=None, updated_at=func.now())
            .returning(entries.c.photo_id)
        )
        deleted = (
            update(entries)
            .where(~entries.c.removed, ~exists().where(p.c.id == entries.c.photo_id))
            .values(removed=True, updated_at=func.now())
            .returning(entries.c.photo_id)
        )
        with self._begin() as connection:
            changed = [photo_id for change in (moved, withdrawn, deleted) for photo_id in connection.scalars(change)]
            if changed:
                self._log(connection, changed)
        return len(changed)

    def counts(self, model_key: str) -> Counts:
        p = self._photos
        indexed = (
            select(func.count())
            .select_from(entries)
            .join(embeddings, embeddings.c.content_sha256 == entries.c.content_sha256)
            .where(~entries.c.removed, embeddings.c.model_key == model_key)
        )
        with_coordinates = select(func.count()).select_from(p).where(self._has_coordinates)
        query = select(
            select(func.count()).select_from(p).scalar_subquery().label("photos"),
            with_coordinates.scalar_subquery().label("with_coordinates"),
            with_coordinates.where(~exists().where(refusals.c.photo_id == p.c.id))
            .scalar_subquery()
            .label("valid_files"),
            indexed.scalar_subquery().label("indexed"),
            select(func.count()).select_from(entries).where(entries.c.removed).scalar_subquery().label("removed"),
            select(func.count()).select_from(refusals).scalar_subquery().label("refused"),
            select(func.count()).where(purges.c.erased_at.is_(None)).scalar_subquery().label("purges_pending"),
            func.coalesce(select(func.max(changes.c.seq)).scalar_subquery(), 0).label("seq"),
        )
        with self._begin() as connection:
            return Counts(*connection.execute(query).one())

    # ---------------------------------------------------------------------------------------- below

    @cached_property
    def _photos(self) -> Table:
        """The backend's table or view as it is there, column types and all; columns by our names for them."""
        schema, _, name = self._settings.photos_table.rpartition(".")
        theirs = self._settings.photos_columns
        ours = {column: mine for mine, column in theirs.items()}

        def rename(_inspector: object, _table: object, column: Any) -> None:
            # A column that has one of our names and is not meant must not stand for the one that is.
            own = column["name"]
            column["key"] = ours.get(own) or (f"{own} of the backend" if own in theirs else own)

        with self.guard(), self.engine.connect() as connection:
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

    def _rows_of_photos(self) -> Select[*tuple[Any, ...]]:
        p = self._photos
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

    @property
    def _has_coordinates(self) -> ColumnElement[bool]:
        p = self._photos
        # NaN is larger than any number in Postgres, so it is left out with the impossible ones.
        return and_(p.c.lat.between(-90, 90), p.c.lon.between(-180, 180))

    def _is_missing(self, model_key: str) -> ColumnElement[bool]:
        embedded = exists().where(
            embeddings.c.content_sha256 == entries.c.content_sha256, embeddings.c.model_key == model_key
        )
        stale = and_(~entries.c.removed, or_(~embedded, entries.c.path.is_distinct_from(self._photos.c.file_path)))
        return or_(and_(entries.c.photo_id.is_(None), self._has_coordinates), stale)

    @property
    def _was_refused(self) -> ColumnElement[bool]:
        return exists().where(refusals.c.photo_id == self._photos.c.id)

    def _count_missing(self, connection: Connection, model_key: str, *, refused_too: bool) -> int:
        p = self._photos
        query = (
            select(func.count())
            .select_from(p)
            .join(entries, entries.c.photo_id == p.c.id, isouter=True)
            .where(self._is_missing(model_key))
        )
        return connection.scalar(query if refused_too else query.where(~self._was_refused)) or 0

    def _provenance_column(self, method: ColumnElement[Any]) -> ColumnElement[str]:
        known = {**self._settings.location_methods, **{p.value: p for p in Provenance}}
        # Cast, because the backend's column may be an enum or a number.
        named = {name: literal(p.value) for name, p in known.items()}
        return case(named, value=method.cast(Text), else_=literal(Provenance.DERIVED.value))

    def _rows_for(self, connection: Connection, new: Sequence[NewEntry]) -> dict[str, tuple[int, str]]:
        """(photo id, file_path) of every item, by ref; makes rows for new paths, writes what messages give."""
        p = self._photos
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

    def _remove(self, connection: Connection, ids: Sequence[int]) -> set[int]:
        """Those of the photos that were in the index; all are out of it."""
        gone = connection.scalars(
            update(entries)
            .where(entries.c.photo_id.in_(ids), ~entries.c.removed)
            .values(removed=True, updated_at=func.now())
            .returning(entries.c.photo_id)
        ).all()
        # A photo that was never added is remembered as removed too, or the next rebuild would add it.
        p = self._photos
        connection.execute(
            upsert(entries)
            .from_select(
                ["photo_id", "content_sha256", "path", "removed"],
                select(p.c.id, literal(""), p.c.file_path, literal(True)).where(p.c.id.in_(ids)),
            )
            .on_conflict_do_nothing()
        )
        connection.execute(delete(refusals).where(refusals.c.photo_id.in_(ids)))
        return set(gone)

    def _given(self, item: NewEntry) -> dict[str, Any]:
        """What a message says about a photo, as columns of the backend's table."""
        values: dict[str, Any] = {}
        if item.given is not None:
            lat, lon, provenance = item.given
            values |= {"lat": lat, "lon": lon, "location_method": provenance.value}
        if item.address is not None:
            as_json = isinstance(self._photos.c.address_data.type, JSON | JSONB)
            values["address_data"] = item.address if as_json else json.dumps(item.address, ensure_ascii=False)
        return values

    def _put_entry(self, connection: Connection, photo_id: int, path: str, item: NewEntry, revive: bool) -> None:
        """The row's coordinates hold; those of the EXIF tags only where the row has none."""
        point = self._row_coordinates(connection, photo_id)
        from_exif = point is None and item.exif is not None
        if from_exif and item.exif is not None:
            point = (*item.exif, Provenance.EXIF_GPS)
        lat, lon, provenance = point or (None, None, None)
        values: dict[str, Any] = {
            "content_sha256": item.content_sha256,
            "path": path,
            "lat": lat,
            "lon": lon,
            "provenance": provenance,
            "from_exif": from_exif,
            "removed": False,
            "updated_at": func.now(),
        }
        if item.metadata is not None:
            values["metadata"] = item.metadata
        connection.execute(
            upsert(entries)
            .values(photo_id=photo_id, **values)
            .on_conflict_do_update(
                index_elements=["photo_id"], set_=values, where=None if revive else ~entries.c.removed
            )
        )

    def _row_coordinates(self, connection: Connection, photo_id: int) -> tuple[float, float, Provenance] | None:
        p = self._photos
        query = select(p.c.lat, p.c.lon, p.c.location_method).where(p.c.id == photo_id, self._has_coordinates)
        row = connection.execute(query).first()
        if row is None:
            return None
        return float(row.lat), float(row.lon), self._settings.provenance_of(_text(row.location_method))

    def _entries(self, photo_ids: Collection[int]) -> Select[*tuple[Any, ...]]:
        p = self._photos
        return (
            select(entries, p.c.address_data.label("address"))
            .join_from(entries, p, p.c.id == entries.c.photo_id, isouter=True)
            .where(entries.c.photo_id.in_(photo_ids))
        )

    @staticmethod
    def _entry(row: Row[Any]) -> Entry:
        return Entry(
            photo_id=row.photo_id,
            path=row.path,
            content_sha256=row.content_sha256,
            lat=row.lat,
            lon=row.lon,
            provenance=None if row.provenance is None else Provenance(row.provenance),
            address=row.address,
            metadata=row.metadata,
        )

    @staticmethod
    def _log(connection: Connection, photo_ids: Sequence[int], model_key: str | None = None) -> dict[int, int]:
        """Write the change log as the last act of a transaction; returns {photo_id: seq}.

        model_key: the model that alone is concerned, because only its vectors are new.

        The lock is held until the commit. Without it a slow writer would commit a smaller seq after a reader has
        passed it, and the reader would never see that change.
        """
        connection.execute(select(func.pg_advisory_xact_lock(SEQ_LOCK)))
        if not photo_ids:
            return {}
        rows = [{"photo_id": photo_id, "model_key": model_key} for photo_id in photo_ids]
        written = connection.execute(
            insert(changes)
            .values(seq=change_seq.next_value(), at=func.now())
            .returning(changes.c.photo_id, changes.c.seq),
            rows,
        )
        return {row.photo_id: row.seq for row in written}


def _keep_vector(connection: Connection, content: str, model_key: str, vector: Vector) -> None:
    connection.execute(
        upsert(embeddings)
        .values(content_sha256=content, model_key=model_key, vector=to_bytes(vector), created_at=func.now())
        .on_conflict_do_nothing()
    )


def _number(value: float | Decimal | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _signed_crc(path: str) -> int:
    return zlib.crc32(path.encode()) - 2**31
