"""What the index knows of each photo: written with its vector and its change in one transaction, read, filtered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sqlalchemy import (
    Connection,
    Row,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from producer_client.contract import Code, PositionFrom, Provenance
from worker.core.shot import NO_SHOT, Shot
from worker.core.types import Counts, Entry, FileState, Filter, NewEntry, Written
from worker.core.vectors import Ids, Vector, from_bytes
from worker.errors import Transient
from worker.storage.database import Database, hold
from worker.storage.erasing import erase
from worker.storage.filters import has_metadata, is_suspended, is_within
from worker.storage.following import news
from worker.storage.keypoints import keep_keypoints
from worker.storage.log import ChangeLog
from worker.storage.removing import remove, superseded, to_remove
from worker.storage.rows import NO_ROW, Place, Rows, Said
from worker.storage.settling import is_former_reading, of_file, settled
from worker.storage.tables import changes, embeddings, entries, pictures, purges, refusals, serving
from worker.storage.vectors import forget_contents, keep_picture, keep_vector


class Entries:
    """See worker.core.ports.Entries. A public method is a transaction."""

    def __init__(self, database: Database, rows: Rows, log: ChangeLog) -> None:
        self._database = database
        self._rows = rows
        self._log = log

    def put_many(
        self,
        new: Sequence[NewEntry],
        model_key: str,
        *,
        revive: bool = True,
        filling: bool = False,
        sent_ms: int | None = None,
    ) -> list[Written]:
        """Photo rows, vectors, entries and change log of one message in one transaction.

        revive: whether a photo that was removed comes back; but for those, absent from what is returned, whose removal
        was sent later than `sent_ms`. filling: the model does not serve yet.
        Raises Transient when another model serves since: the photo would be found by nobody.
        """
        with self._database.begin() as connection:
            rows = self._rows.find(connection, new)
            there = {place.photo_id for place in rows.values()}
            hold(connection, there)
            if revive and (late := superseded(connection, there, sent_ms, removed=True)):
                new = [item for item in new if item.ref not in rows or rows[item.ref].photo_id not in late]
            # Not before: a request that comes too late says nothing to the backend's table either.
            rows = self._rows.write(connection, new, rows)
            photo_ids = sorted({place.photo_id for place in rows.values()})
            before = self._told(connection, photo_ids) if filling else {}
            said = self._rows.said(connection, photo_ids)
            former: set[str] = set()
            for item in sorted(new, key=lambda item: rows[item.ref].photo_id):
                if item.vector is not None:
                    keep_vector(connection, item.content_sha256, model_key, item.vector)
                if item.picture_hash is not None:
                    keep_picture(connection, item.content_sha256, item.picture_hash, item.shot or NO_SHOT)
                if item.keypoints is not None:
                    keep_keypoints(connection, item.content_sha256, item.keypoints)
                place = rows[item.ref]
                former.add(self._put_entry(connection, place, item, said.get(place.photo_id, NO_ROW), revive, sent_ms))
            # Of a file that was replaced nothing would be found any more by who purges the photo.
            forget_contents(connection, former)
            connection.execute(delete(refusals).where(refusals.c.photo_id.in_(photo_ids)))
            stored = {row.photo_id: self._entry(row) for row in connection.execute(self._entries(photo_ids))}
            seqs: dict[int, int] = {}
            if before:
                # A vector of another model is nothing to the index that serves; what filters ask of its photos is.
                after = self._told(connection, before)
                retold = [photo_id for photo_id in before if before[photo_id] != after[photo_id]]
                seqs = self._log.append(connection, retold)
            others = [photo_id for photo_id in photo_ids if photo_id not in seqs]
            seqs |= self._log.append(connection, others, model_key if filling else None)
            # Under the lock of the log, which the change of the model takes too.
            now_serving = connection.scalar(select(serving.c.model_key))
            if not filling and now_serving not in (None, model_key):
                raise Transient(Code.UNAVAILABLE, f"model {now_serving} serves now, no longer {model_key}")
        ids = {ref: place.photo_id for ref, place in rows.items()}
        return [Written(item.ref, stored[ids[item.ref]], seqs[ids[item.ref]]) for item in new]

    def remove_many(
        self, photo_ids: Collection[int], *, sent_ms: int | None = None, again: bool = False
    ) -> dict[int, tuple[int, bool]]:
        """Take photos out of the index; returns {photo_id: (seq, was in it)}. Their `photos` rows stay.

        Absent, and left as they are: ids that neither the index nor the backend's table knows; and, where the request
        was handed out before (`again`), those that one which was sent later than `sent_ms` has put into the index.
        """
        with self._database.begin() as connection:
            ids = to_remove(connection, self._rows.table, photo_ids, sent_ms, again=again)
            gone = remove(connection, self._rows.table, ids, sent_ms)
            seqs = self._log.append(connection, ids)
        return {photo_id: (seqs[photo_id], photo_id in gone) for photo_id in ids}

    def purge_many(
        self, photo_ids: Collection[int], *, sent_ms: int | None = None, again: bool = False
    ) -> dict[int, tuple[int, bool, bool]]:
        """Remove photos and erase what is kept of them; returns {photo_id: (seq, was in the index, whether a generation
        may still hold it)}. Unknown ids are absent, as in `remove_many`.

        What stays is the bare id, so that no rebuild adds the photo again, and a note until no generation holds it. A
        vector that another photo of the same content has too stays that photo's. A photo of which nothing was kept, as
        it was never added or has been purged before, is in no further generation: it gets no note, for which a rebuild
        would drop all generations.
        """
        with self._database.begin() as connection:
            ids = to_remove(connection, self._rows.table, photo_ids, sent_ms, again=again)
            gone = remove(connection, self._rows.table, ids, sent_ms)
            kept = erase(connection, ids)
            seqs = self._log.append(connection, ids)
            for photo_id in sorted(kept):
                asked = {"seq": seqs[photo_id], "asked_at": func.now(), "erased_at": None, "generation": None}
                connection.execute(
                    upsert(purges)
                    .values(photo_id=photo_id, **asked)
                    .on_conflict_do_update(index_elements=["photo_id"], set_=asked)
                )
            waiting = select(purges.c.photo_id).where(purges.c.photo_id.in_(ids), purges.c.erased_at.is_(None))
            waits = set(connection.scalars(waiting))
        return {photo_id: (seqs[photo_id], photo_id in gone, photo_id in waits) for photo_id in ids}

    def get(self, photo_ids: Collection[int]) -> dict[int, Entry]:
        """What the index knows of these photos; removed and unknown ones are absent."""
        with self._database.begin() as connection:
            found = connection.execute(self._entries(photo_ids).where(~entries.c.removed)).all()
        return {row.photo_id: self._entry(row) for row in found}

    def known(
        self, photo_ids: Collection[int], model_key: str, among: Filter | None = None
    ) -> dict[int, tuple[Entry, Vector]]:
        """Indexed photos with their vectors as stored and their pictures' hashes and shots; removed, unknown and
        unembedded ones are absent.

        among: only those that pass its circle and its metadata.
        """
        query = (
            self._entries(photo_ids)
            .add_columns(embeddings.c.vector, pictures.c.hash, pictures.c.camera, pictures.c.taken_s)
            .join(
                embeddings,
                and_(embeddings.c.content_sha256 == entries.c.content_sha256, embeddings.c.model_key == model_key),
            )
            .join(pictures, pictures.c.content_sha256 == entries.c.content_sha256, isouter=True)
            .where(~entries.c.removed)
        )
        near = None
        if among is not None:
            near = among.near
            query = query.where(*has_metadata(among))
        with self._database.begin() as connection:
            return {
                row.photo_id: (
                    replace(self._entry(row), picture_hash=row.hash, shot=_shot(row)),
                    from_bytes(row.vector, len(row.vector) // 4),
                )
                for row in connection.execute(query)
                if near is None or is_within(near, row.lat, row.lon)
            }

    def ids_with_content(self, content_sha256: str) -> Ids:
        # One row: of ten thousand, each would be an object of its own.
        query = select(func.array_agg(entries.c.photo_id)).where(
            entries.c.content_sha256 == content_sha256, ~entries.c.removed
        )
        with self._database.begin() as connection:
            return np.array(connection.scalar(query) or [], dtype=np.int64)

    def follow_rows(self) -> int:
        """Take over what the backend changed in its table directly; returns of how many photos."""
        with self._database.begin() as connection:
            changed = [photo_id for change in news(self._rows) for photo_id in connection.scalars(change)]
            if changed:
                self._log.append(connection, changed)
            p = self._rows.table
            connection.execute(delete(refusals).where(~exists().where(p.c.id == refusals.c.photo_id)))
        return len(changed)

    def counts(self, model_key: str) -> Counts:
        p = self._rows.table
        indexed = (
            select(func.count())
            .select_from(entries)
            .join(embeddings, embeddings.c.content_sha256 == entries.c.content_sha256)
            .where(~entries.c.removed, embeddings.c.model_key == model_key)
        )
        # In the row, or beside it.
        with_coordinates = (
            select(func.count())
            .select_from(p.join(entries, entries.c.photo_id == p.c.id, isouter=True))
            .where(or_(self._rows.has_coordinates, and_(entries.c.lat.is_not(None), ~entries.c.removed)))
        )
        query = select(
            select(func.count()).select_from(p).scalar_subquery().label("photos"),
            with_coordinates.scalar_subquery().label("with_coordinates"),
            with_coordinates.where(
                ~exists().where(refusals.c.photo_id == p.c.id),
                entries.c.file_state.is_(None),
            )
            .scalar_subquery()
            .label("valid_files"),
            indexed.scalar_subquery().label("indexed"),
            select(func.count()).select_from(entries).where(entries.c.removed).scalar_subquery().label("removed"),
            select(func.count())
            .select_from(refusals.join(p, p.c.id == refusals.c.photo_id))
            .scalar_subquery()
            .label("refused"),
            select(func.count()).where(purges.c.erased_at.is_(None)).scalar_subquery().label("purges_pending"),
            func.coalesce(select(func.max(changes.c.seq)).scalar_subquery(), 0).label("seq"),
            *(
                select(func.count()).where(entries.c.file_state == state, ~entries.c.removed).scalar_subquery()
                for state in (FileState.CHANGED, FileState.GONE)
            ),
        )
        with self._database.begin() as connection:
            return Counts(*connection.execute(query).one())

    # ---------------------------------------------------------------------------------------- below

    def _put_entry(
        self, connection: Connection, place: Place, item: NewEntry, said: Said, revive: bool, sent_ms: int | None
    ) -> str:
        """Returns the content that the photo had before; empty where it had none."""
        photo_id = place.photo_id
        row = connection.execute(select(entries).where(entries.c.photo_id == photo_id)).first()
        made_of_file = place.made_of_file
        if self._rows.may_write(item) and is_former_reading(row, said, item):
            position = of_file(item) if item.given is None else item.given
            said = self._rows.correct(connection, photo_id, said, position)
            made_of_file = item.given is None and position is not None
        values: dict[str, Any] = {
            "content_sha256": item.content_sha256,
            "path": place.path,
            **settled(row, said, item, made_of_file=made_of_file),
            "file_size": None if item.file is None else item.file.size,
            "file_mtime_ns": None if item.file is None else item.file.mtime_ns,
            "file_state": None,
            "file_state_at": None,
            "removed": False,
            "updated_at": func.now(),
        }
        if item.metadata is not None:
            values["metadata"] = item.metadata
        if revive:
            values["asked_ms"] = sent_ms
        connection.execute(
            upsert(entries)
            .values(photo_id=photo_id, **values)
            .on_conflict_do_update(
                index_elements=["photo_id"], set_=values, where=None if revive else ~entries.c.removed
            )
        )
        return "" if row is None else str(row.content_sha256)

    @staticmethod
    def _told(connection: Connection, photo_ids: Collection[int]) -> dict[int, tuple[Any, ...]]:
        """What filters ask of these photos."""
        query = select(entries.c.photo_id, entries.c.lat, entries.c.lon, entries.c.provenance, entries.c.metadata)
        return {row.photo_id: tuple(row) for row in connection.execute(query.where(entries.c.photo_id.in_(photo_ids)))}

    def _entries(self, photo_ids: Collection[int]) -> Select[*tuple[Any, ...]]:
        p = self._rows.table
        # A caller's address, as long as the row's own is what it was then.
        own = case((entries.c.row_address == self._rows.address, entries.c.own_address))
        return (
            select(entries, p.c.address_data.label("of_row"), own.label("of_caller"), is_suspended().label("suspended"))
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
            address=row.of_row if row.of_caller is None else row.of_caller,
            metadata=row.metadata,
            position_error_m=row.position_error_m,
            file_state=None if row.file_state is None else FileState(row.file_state),
            position_from=None if row.position_from is None else PositionFrom(row.position_from),
            suspended=row.suspended,
        )


def _shot(row: Any) -> Shot | None:
    return None if row.camera is None else Shot(bytes(row.camera), row.taken_s or 0.0)
