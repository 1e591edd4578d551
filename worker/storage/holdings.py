"""What Postgres keeps of a photo, table by table, and when it goes. Reads alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import Connection, Row, false, func, or_, select

from worker.core.kept import Holding, Kept, Kind, State, Until
from worker.settings import Settings
from worker.storage.audit import has_told
from worker.storage.database import Database, iso
from worker.storage.rows import Rows
from worker.storage.tables import (
    attempts,
    audit,
    changes,
    conflicts,
    embeddings,
    entries,
    exam_baselines,
    keypoints,
    lacking,
    pictures,
    purges,
    refusals,
)


class Holdings:
    """A public method is a transaction."""

    def __init__(self, database: Database, rows: Rows, settings: Settings) -> None:
        self._database = database
        self._rows = rows
        self._settings = settings

    def of(self, photo_id: int) -> Holding:
        with self._database.begin() as connection:
            return self._of(connection, photo_id)

    def named(self, spellings: Collection[str]) -> list[Holding]:
        """Of the photos whose row or entry has one of these paths."""
        p = self._rows.table
        with self._database.begin() as connection:
            ids = {
                *connection.scalars(select(p.c.id).where(p.c.file_path.in_(spellings))),
                *connection.scalars(select(entries.c.photo_id).where(entries.c.path.in_(spellings))),
            }
            return [self._of(connection, photo_id) for photo_id in sorted(ids)]

    def with_content(self, content_sha256: str) -> list[Holding]:
        """Of the photos that have this content; where none has, of the content alone."""
        with self._database.begin() as connection:
            ids = _ids_with(connection, content_sha256)
            if ids:
                return [self._of(connection, photo_id) for photo_id in ids]
            tried = attempts.c.content_sha256 == content_sha256
            kept = [*self._of_content(connection, content_sha256, Until.UNADDED), *self._tries(connection, tried)]
            kept += self._asked(connection, None, content_sha256)
            return [Holding(None, None, content_sha256, State.NOT_ADDED, tuple(kept))] if kept else []

    # ---------------------------------------------------------------------------------------- below

    def _of(self, connection: Connection, photo_id: int) -> Holding:
        p = self._rows.table
        row = connection.execute(select(p.c.id, p.c.file_path).where(p.c.id == photo_id)).first()
        entry = connection.execute(select(entries).where(entries.c.photo_id == photo_id)).first()
        purge = connection.execute(select(purges).where(purges.c.photo_id == photo_id)).first()
        content = None if entry is None else entry.content_sha256 or None
        path = (None if entry is None else entry.path) or (None if row is None else row.file_path)
        kept: list[Kept] = []
        if row is not None:
            kept.append(Kept(Kind.ROW, self._settings.photos_table, Until.BACKEND))
        if entry is not None:
            bare = content is None
            kind = Kind.TOMBSTONE if bare else Kind.ENTRY
            kept.append(Kept(kind, self._in("entries"), Until.STAYS if bare else Until.PURGE))
        if content is not None:
            others = [other for other in _ids_with(connection, content) if other != photo_id]
            kept += self._of_content(connection, content, Until.SHARED if others else Until.PURGE)
        tried = or_(
            attempts.c.photo_id == photo_id, attempts.c.content_sha256 == content, attempts.c.path == (path or "")
        )
        kept += self._tries(connection, tried)
        kept += self._said(connection, photo_id)
        kept += self._asked(connection, photo_id, content)
        if purge is not None:
            erased = Until.STAYS if purge.erased_at is not None else Until.REBUILD
            kept.append(Kept(Kind.PURGE, self._in("purges"), erased, _generation(purge), iso(purge.asked_at)))
        return Holding(photo_id, path, content, _state(entry, purge), tuple(kept))

    def _of_content(self, connection: Connection, content: str, until: Until) -> Iterator[Kept]:
        size = func.octet_length(embeddings.c.vector).label("size")
        of = select(embeddings.c.model_key, size).where(embeddings.c.content_sha256 == content)
        for row in connection.execute(of.order_by(embeddings.c.model_key)):
            yield Kept(Kind.VECTOR, self._in("embeddings"), until, f"{row.model_key}, {row.size} B")
        for kind, table, column in (
            (Kind.PICTURE, pictures, pictures.c.hash),
            (Kind.KEYPOINTS, keypoints, keypoints.c.keypoints),
        ):
            for size in connection.scalars(select(func.octet_length(column)).where(table.c.content_sha256 == content)):
                yield Kept(kind, self._in(table.name), until, f"{size} B")

    def _tries(self, connection: Connection, which: Any) -> Iterator[Kept]:
        for content in connection.scalars(select(attempts.c.content_sha256).where(which).distinct()):
            yield Kept(Kind.ATTEMPT, self._in("attempts"), Until.TAKEN, content)

    def _said(self, connection: Connection, photo_id: int) -> Iterator[Kept]:
        """What is said of the photo by its id."""
        for row in connection.execute(select(refusals).where(refusals.c.photo_id == photo_id)):
            yield Kept(Kind.REFUSAL, self._in("refusals"), Until.TAKEN, row.code, iso(row.at))
        for row in connection.execute(select(lacking).where(lacking.c.photo_id == photo_id)):
            yield Kept(Kind.ATTEMPT, self._in("lacking"), Until.TAKEN, str(row.times), iso(row.seen_at))
        for row in connection.execute(select(conflicts).where(conflicts.c.photo_id == photo_id)):
            yield Kept(Kind.CONFLICT, self._in("conflicts"), Until.PURGE, f"{row.doubt}, {row.state}")
        others = select(func.count()).where(conflicts.c.other_ids.contains([photo_id]))
        if count := connection.scalar(others):
            yield Kept(Kind.CONTRADICTS, self._in("conflicts"), Until.PURGE, str(count))
        asked = exam_baselines.c.baseline["outcomes"].contains([{"photo_id": photo_id}])
        for model_key in connection.scalars(select(exam_baselines.c.model_key).where(asked)):
            yield Kept(Kind.BASELINE, self._in("exam_baselines"), Until.BASELINE, model_key)
        logged = select(func.count(), func.max(changes.c.at)).where(changes.c.photo_id == photo_id)
        count, at = connection.execute(logged).one()
        if count:
            yield Kept(Kind.CHANGE, self._in("changes"), Until.LOG, str(count), iso(at))

    def _asked(self, connection: Connection, photo_id: int | None, content: str | None) -> Iterator[Kept]:
        """That somebody has asked where the photo was taken, or was told so."""
        by_content = [] if content is None else [audit.c.content_sha256 == content]
        by_id = [] if photo_id is None else [audit.c.photo_id == photo_id, has_told([photo_id])]
        kept = select(func.count(), func.max(audit.c.until)).where(or_(false(), *by_content, *by_id))
        count, until = connection.execute(kept).one()
        if count:
            yield Kept(Kind.QUESTION, self._in("audit"), Until.EXPIRES, str(count), iso(until))

    def _in(self, table: str) -> str:
        return f"{self._settings.db_schema}.{table}"


def _ids_with(connection: Connection, content: str) -> list[int]:
    same = select(entries.c.photo_id).where(entries.c.content_sha256 == content)
    return list(connection.scalars(same.order_by(entries.c.photo_id)))


def _state(entry: Row[Any] | None, purge: Row[Any] | None) -> State:
    if entry is None:
        return State.NOT_ADDED
    if not entry.removed:
        return State.INDEXED
    return State.REMOVED if purge is None or entry.content_sha256 else State.PURGED


def _generation(purge: Row[Any]) -> str:
    return "" if purge.generation is None else str(purge.generation)
