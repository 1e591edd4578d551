"""Keypoints of pictures by content, and which photos lack them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Select, delete, exists, func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from worker.core.keypoints import VERSION, Keypoints
from worker.core.types import Missing
from worker.storage.copying import whole_rows
from worker.storage.database import Database
from worker.storage.tables import entries, keypoints
from worker.storage.vectors import can_be_looked_at, is_of_a_photo

log = logging.getLogger(__name__)


class KeptKeypoints:
    """See worker.core.ports.StoredKeypoints. A public method is a transaction.

    What another version has found counts as missing, and is replaced where it is found again.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def known(self, contents: Collection[str]) -> dict[str, Keypoints]:
        """Those that are kept and can be read, by content."""
        query = select(keypoints.c.content_sha256, keypoints.c.keypoints).where(
            keypoints.c.content_sha256.in_(contents), keypoints.c.version == VERSION
        )
        found: dict[str, Keypoints] = {}
        with self._database.begin() as connection:
            for name, kept in whole_rows(connection, query):
                content = str(name, "ascii")
                try:
                    found[content] = Keypoints.from_bytes(kept)
                except ValueError as exc:
                    log.warning("keypoints cannot be read", extra={"content": content, "why": str(exc)})
        return found

    def keep(self, found: Mapping[str, Keypoints]) -> None:
        with self._database.begin() as connection:
            for content, one in sorted(found.items()):
                keep_keypoints(connection, content, one)

    def without(self, contents: Collection[str]) -> set[str]:
        """Those of these contents that lack them."""
        query = select(keypoints.c.content_sha256).where(
            keypoints.c.content_sha256.in_(contents), keypoints.c.version == VERSION
        )
        with self._database.begin() as connection:
            return set(contents).difference(connection.scalars(query))

    def missing(self, *, after_id: int, limit: int) -> list[Missing]:
        """Indexed photos that lack them, by rising ids, whose file can be read again: it is not known to have changed,
        which embedding it again is for, or to be gone."""
        query = (
            _lacking(select(entries.c.photo_id, entries.c.path))
            .where(entries.c.photo_id > after_id)
            .order_by(entries.c.photo_id)
            .limit(limit)
        )
        with self._database.begin() as connection:
            return [Missing(row.photo_id, row.path) for row in connection.execute(query)]

    def missing_count(self) -> int:
        """How many photos `missing` finds in all."""
        with self._database.begin() as connection:
            return connection.scalar(_lacking(select(func.count()))) or 0

    def sweep(self) -> int:
        """Erase those of contents that no photo has any more, as a file has changed; returns how many."""
        with self._database.begin() as connection:
            return connection.execute(delete(keypoints).where(~is_of_a_photo(keypoints))).rowcount


def keep_keypoints(connection: Connection, content: str, found: Keypoints) -> None:
    row = {"version": VERSION, "keypoints": found.to_bytes()}
    connection.execute(
        upsert(keypoints)
        .values(content_sha256=content, **row)
        .on_conflict_do_update(index_elements=["content_sha256"], set_=row, where=keypoints.c.version != VERSION)
    )


# ---------------------------------------------------------------------------------------------- below


def _lacking(query: Select[Any]) -> Select[Any]:
    there = exists().where(keypoints.c.content_sha256 == entries.c.content_sha256, keypoints.c.version == VERSION)
    return query.select_from(entries).where(~there, *can_be_looked_at())
