"""What people say of conflicts: that a position holds, or that it is wrong and which is right."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, case, func, select, update

from producer_client.contract import Code, ConflictState, Doubt, Mistake, PositionFrom, Provenance
from worker.core.conflict import KnownConflict, LatLon, Rejection
from worker.core.position import is_same
from worker.core.types import NewEntry
from worker.storage.conflicts import about, listed
from worker.storage.database import Database, hold, iso
from worker.storage.log import ChangeLog
from worker.storage.rows import NO_ROW, Rows
from worker.storage.settling import settled
from worker.storage.tables import conflicts, entries


class Verdicts:
    """See worker.core.ports.Verdicts. A public method is a transaction."""

    def __init__(self, database: Database, rows: Rows) -> None:
        self._database = database
        self._rows = rows

    def known(
        self, photo_ids: Collection[int] | None, state: ConflictState | None, *, after_id: int, limit: int
    ) -> list[KnownConflict]:
        """By rising id: of these photos, and of this state alone where they are given."""
        query = listed(state).where(entries.c.photo_id > after_id)
        if photo_ids is not None:
            query = query.where(entries.c.photo_id.in_(photo_ids))
        with self._database.begin() as connection:
            return [_known(row) for row in connection.execute(query.order_by(entries.c.photo_id).limit(limit))]

    def count_open(self) -> int:
        with self._database.begin() as connection:
            return connection.scalar(select(func.count()).select_from(listed(ConflictState.OPEN).subquery())) or 0

    def confirm(self, photo_ids: Collection[int]) -> dict[int, int | Code]:
        """The positions of these photos hold; returns {photo_id: seq, or the code why nothing was done}."""
        return self._settle([Rejection(photo_id) for photo_id in photo_ids], ConflictState.CONFIRMED)

    def reject(self, rejections: Sequence[Rejection]) -> dict[int, int | Code]:
        """The positions of these photos are wrong; returns as `confirm`. A right one that is given takes their place,
        in the photo's row only where the settings have such things written there."""
        return self._settle(rejections, ConflictState.REJECTED)

    # ---------------------------------------------------------------------------------------- below

    def _settle(self, rejections: Sequence[Rejection], state: ConflictState) -> dict[int, int | Code]:
        by_id = {one.photo_id: one for one in rejections}
        p = self._rows.table
        with self._database.begin() as connection:
            hold(connection, by_id)
            known = {*connection.scalars(select(p.c.id).where(p.c.id.in_(by_id)))}
            known |= {*connection.scalars(select(entries.c.photo_id).where(entries.c.photo_id.in_(by_id)))}
            found = {row.photo_id: row for row in connection.execute(about(by_id, entries))}
            moved = {row.photo_id: row for row in connection.execute(_moved(by_id))}
            outcomes: dict[int, int | Code] = {}
            done = []
            for photo_id, one in sorted(by_id.items()):
                wanted = None if one.point is None else (*one.point, Provenance.CONFIRMED)
                row = found.get(photo_id)
                if row is None:
                    # A message that is handed out again finds what it has done itself.
                    was_done = wanted is not None and photo_id in moved and is_same(_held(moved[photo_id]), wanted)
                    if was_done:
                        done.append(photo_id)
                    else:
                        outcomes[photo_id] = Code.NO_CONFLICT if photo_id in known else Code.UNKNOWN_PHOTO
                elif one.point is not None and is_same((row.lat, row.lon, Provenance.CONFIRMED), wanted):
                    outcomes[photo_id] = Code.BAD_COORDINATES
                else:
                    _note(connection, row, state)
                    if one.point is not None:
                        self._move(connection, row, one.point)
                    done.append(photo_id)
            return outcomes | ChangeLog.append(connection, done)

    def _move(self, connection: Connection, row: Row[Any], point: LatLon) -> None:
        """As if a caller had added the photo with this position, but that nobody has looked at its file."""
        item = NewEntry(
            ref=str(row.photo_id),
            photo_id=row.photo_id,
            path=row.path,
            spellings=(row.path,),
            content_sha256=row.content_sha256,
            vector=None,
            given=(*point, Provenance.CONFIRMED),
            exif=None,
            address=None,
            metadata=None,
        )
        self._rows.write(connection, [item], self._rows.find(connection, [item]))
        said = self._rows.said(connection, [row.photo_id]).get(row.photo_id, NO_ROW)
        values = settled(row, said, item, made_of_file=False)
        # An address is of its coordinates.
        values |= {"own_address": None, "row_address": None, "updated_at": func.now()}
        connection.execute(update(entries).where(entries.c.photo_id == row.photo_id).values(**values))


def _moved(photo_ids: Collection[int]) -> Select[Any]:
    """Those of the photos that lie elsewhere since their position was rejected."""
    return (
        select(entries)
        .join(conflicts, conflicts.c.photo_id == entries.c.photo_id)
        .where(entries.c.photo_id.in_(photo_ids), ~entries.c.removed, conflicts.c.state == ConflictState.REJECTED.value)
        .where(entries.c.position_from == PositionFrom.GIVEN.value)
    )


def _note(connection: Connection, row: Row[Any], state: ConflictState) -> None:
    """What a person says of the position that an entry has."""
    connection.execute(
        update(conflicts)
        .where(conflicts.c.photo_id == row.photo_id)
        .values(
            content_sha256=row.content_sha256,
            lat=row.lat,
            lon=row.lon,
            state=state.value,
            settled_at=case((conflicts.c.state == state.value, conflicts.c.settled_at), else_=func.now()),
        )
    )


def _held(row: Row[Any]) -> tuple[float, float, Provenance] | None:
    return None if row.lat is None else (row.lat, row.lon, Provenance(row.provenance))


def _known(row: Row[Any]) -> KnownConflict:
    return KnownConflict(
        photo_id=row.photo_id,
        path=row.path,
        provenance=Provenance(row.provenance),
        lat=row.lat_now,
        lon=row.lon_now,
        doubt=Doubt(row.doubt),
        mistake=None if row.mistake is None else Mistake(row.mistake),
        others=list(row.other_ids),
        point=None if row.other_lat is None else (row.other_lat, row.other_lon),
        state=ConflictState(row.state),
        found_at=iso(row.found_at) or "",
        settled_at=iso(row.settled_at),
    )
