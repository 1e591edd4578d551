"""Vectors by content and model, hashes of pictures by content, and which photos lack one."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, delete, exists, func, or_, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from producer_client.contract import RETRYABLE
from worker.core.shot import Picture, Shot
from worker.core.types import INLINE, FileState, Missing
from worker.core.vectors import Vector, from_bytes, to_bytes
from worker.storage.database import Database
from worker.storage.filters import is_trusted
from worker.storage.log import ChangeLog
from worker.storage.rows import Rows
from worker.storage.tables import embeddings, entries, keypoints, pictures, refusals

#: Days for which what is kept of a content waits for the photo to be added that was embedded.
UNADDED_DAYS = 7


class Vectors:
    """See worker.core.ports.StoredVectors. A public method without a connection is a transaction."""

    def __init__(self, database: Database, rows: Rows) -> None:
        self._database = database
        self._rows = rows

    def known(self, contents: Collection[str], model_key: str) -> dict[str, Vector]:
        """Stored vectors by content, of this model alone."""
        query = select(embeddings.c.content_sha256, embeddings.c.vector).where(
            embeddings.c.content_sha256.in_(contents), embeddings.c.model_key == model_key
        )
        with self._database.begin() as connection:
            return {
                row.content_sha256: from_bytes(row.vector, len(row.vector) // 4) for row in connection.execute(query)
            }

    def keep(
        self, vectors: Mapping[str, Vector], model_key: str, *, looked: Mapping[str, Picture] | None = None
    ) -> None:
        """looked: hashes of pictures and their shots. Photos of the index that lacked one of these vectors are found
        from now on, so the log has them."""
        waiting = select(entries.c.photo_id).where(entries.c.content_sha256.in_(vectors), ~entries.c.removed)
        with self._database.begin() as connection:
            for content, vector in sorted(vectors.items()):
                keep_vector(connection, content, model_key, vector)
            for content, (picture_hash, shot) in sorted((looked or {}).items(), key=lambda item: item[0]):
                keep_picture(connection, content, picture_hash, shot)
            if photo_ids := connection.scalars(waiting).all():
                ChangeLog.append(connection, photo_ids, model_key)

    def without_hash(self, contents: Collection[str]) -> set[str]:
        """Those contents whose picture has not been looked at."""
        query = select(pictures.c.content_sha256).where(
            pictures.c.content_sha256.in_(contents), pictures.c.camera.is_not(None)
        )
        with self._database.begin() as connection:
            return set(contents).difference(connection.scalars(query))

    def taken_near(self, shot: Shot, *, within_s: float, limit: int) -> list[int]:
        """Ids of the indexed photos of this camera that were taken within so many seconds of the shot and whose
        position may be trusted, the nearest in time first."""
        apart_s = func.abs(pictures.c.taken_s - shot.taken_s)
        query = (
            select(entries.c.photo_id)
            .join_from(pictures, entries, entries.c.content_sha256 == pictures.c.content_sha256)
            .where(
                pictures.c.camera == shot.camera,
                pictures.c.taken_s.between(shot.taken_s - within_s, shot.taken_s + within_s),
                ~entries.c.removed,
                is_trusted(),
            )
            .order_by(apart_s, entries.c.photo_id)
            .limit(limit)
        )
        with self._database.begin() as connection:
            return list(connection.scalars(query))

    def missing(
        self,
        model_key: str,
        *,
        after_id: int,
        limit: int,
        share: tuple[int, int] | None = None,
        changed_too: bool = True,
    ) -> list[Missing]:
        """Photos with coordinates, or added before, that have no vector of this model or whose file moved or changed.

        share: (slot, of so many): only photos whose id falls to this slot, and none that was refused before. The model
        is then one that does not serve yet: what has changed is left to the one that does.
        """
        p = self._rows.table
        query = (
            select(p.c.id, p.c.file_path)
            .join_from(p, entries, entries.c.photo_id == p.c.id, isouter=True)
            .where(p.c.id > after_id, self._is_missing(model_key, changed_too=changed_too and share is None))
            .order_by(p.c.id)
            .limit(limit)
        )
        if share is not None:
            slot, slots = share
            query = query.where(p.c.id % slots == slot, ~self._was_refused)
        with self._database.begin() as connection:
            return [Missing(row.id, row.file_path or "") for row in connection.execute(query)]

    def missing_among(self, photo_ids: Collection[int], model_key: str, *, changed_too: bool) -> list[Missing]:
        """Those of these photos that lack a vector as in `missing`, and are not refused for good."""
        p = self._rows.table
        query = self.lacking(model_key, changed_too=changed_too).where(p.c.id.in_(photo_ids)).order_by(p.c.id)
        with self._database.begin() as connection:
            return [Missing(row.id, row.file_path or "") for row in connection.execute(query)]

    def missing_count(self, model_key: str, *, refused_too: bool = True, changed_too: bool = True) -> int:
        with self._database.begin() as connection:
            return self.count_missing(connection, model_key, refused_too=refused_too, changed_too=changed_too)

    def missing_hashes(self, *, after_id: int, limit: int) -> list[int]:
        """Ids of the indexed photos, rising, whose picture has not been looked at and whose file can be read again: it
        is not known to have changed, which embedding it again is for, or to be gone."""
        query = select(entries.c.photo_id).where(entries.c.photo_id > after_id, *self._without_hash)
        with self._database.begin() as connection:
            return list(connection.scalars(query.order_by(entries.c.photo_id).limit(limit)))

    def missing_hash_count(self) -> int:
        with self._database.begin() as connection:
            return connection.scalar(select(func.count()).select_from(entries).where(*self._without_hash)) or 0

    def sweep(self) -> int:
        """Erase what was embedded and never added, a week ago or earlier; returns of how many contents."""
        old = embeddings.c.created_at < func.now() - text(f"interval '{UNADDED_DAYS} days'")
        swept = delete(embeddings).where(old, ~is_of_a_photo(embeddings)).returning(embeddings.c.content_sha256)
        with self._database.begin() as connection:
            contents = set(connection.scalars(swept))
            forget_contents(connection, contents)
        return len(contents)

    # ---------------------------------------------------------------------- for the neighbours in this folder

    def count_missing(
        self, connection: Connection, model_key: str, *, refused_too: bool, changed_too: bool = True
    ) -> int:
        p = self._rows.table
        query = (
            select(func.count())
            .select_from(p)
            .join(entries, entries.c.photo_id == p.c.id, isouter=True)
            .where(self._is_missing(model_key, changed_too=changed_too and refused_too))
        )
        return connection.scalar(query if refused_too else query.where(~self._was_refused)) or 0

    def is_stale(self, model_key: str, *, changed_too: bool) -> ColumnElement[bool]:
        """Whether an indexed photo, beside its row, lacks a vector of this model, or its file moved or changed."""
        embedded = exists().where(
            embeddings.c.content_sha256 == entries.c.content_sha256, embeddings.c.model_key == model_key
        )
        moved = entries.c.path.is_distinct_from(self._rows.table.c.file_path)
        changed = entries.c.file_state.is_not_distinct_from(FileState.CHANGED.value)
        return and_(~entries.c.removed, or_(~embedded, moved, *([changed] if changed_too else [])))

    def lacking(self, model_key: str, *, changed_too: bool) -> Select[tuple[int, str | None]]:
        """Id and path of the photos that lack a vector as in `missing`, but for those that are refused for good."""
        p = self._rows.table
        return (
            select(p.c.id, p.c.file_path)
            .join_from(p, entries, entries.c.photo_id == p.c.id, isouter=True)
            .where(self._is_missing(model_key, changed_too=changed_too), ~self._was_refused_for_good)
        )

    # ---------------------------------------------------------------------------------------- below

    def _is_missing(self, model_key: str, *, changed_too: bool) -> ColumnElement[bool]:
        """Of a row, beside its entry if it has one."""
        stale = self.is_stale(model_key, changed_too=changed_too)
        return or_(and_(entries.c.photo_id.is_(None), self._rows.has_coordinates), stale)

    @property
    def _was_refused_for_good(self) -> ColumnElement[bool]:
        """Whether a photo, by its row, is refused and would be again: what a server did not answer is not."""
        again = [code.value for code in RETRYABLE]
        return exists().where(refusals.c.photo_id == self._rows.table.c.id, refusals.c.code.not_in(again))

    @property
    def _without_hash(self) -> list[ColumnElement[bool]]:
        hashed = exists().where(pictures.c.content_sha256 == entries.c.content_sha256, pictures.c.camera.is_not(None))
        return [~hashed, *can_be_looked_at()]

    @property
    def _was_refused(self) -> ColumnElement[bool]:
        return exists().where(refusals.c.photo_id == self._rows.table.c.id)


def can_be_looked_at() -> list[ColumnElement[bool]]:
    """Of an entry: it is indexed, and its file as it was, as far as is known, so that it can be decoded again."""
    as_it_was = entries.c.file_state.is_(None)
    return [~entries.c.removed, as_it_was, ~entries.c.path.startswith(INLINE, autoescape=True)]


def keep_vector(connection: Connection, content: str, model_key: str, vector: Vector) -> None:
    connection.execute(
        upsert(embeddings)
        .values(content_sha256=content, model_key=model_key, vector=to_bytes(vector), created_at=func.now())
        .on_conflict_do_nothing()
    )


def keep_picture(connection: Connection, content: str, picture_hash: bytes, shot: Shot) -> None:
    said = {"camera": shot.camera, "taken_s": shot.taken_s if shot.camera else None}
    row = upsert(pictures).values(content_sha256=content, hash=picture_hash, **said)
    connection.execute(row.on_conflict_do_update(index_elements=[pictures.c.content_sha256], set_=said))


def forget_contents(connection: Connection, contents: Collection[str]) -> None:
    """Erase what is kept of those of these contents that no photo has any more: their vectors, and their pictures'
    hashes and keypoints."""
    for kept in (embeddings, pictures, keypoints):
        connection.execute(delete(kept).where(kept.c.content_sha256.in_(contents), ~is_of_a_photo(kept)))


def is_of_a_photo(kept: Table) -> ColumnElement[bool]:
    """Whether a photo has the content of a row of such a table."""
    return exists().where(entries.c.content_sha256 == kept.c.content_sha256)
