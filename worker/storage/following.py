"""What the backend changed in its table directly, as changes of what the index knows. Runs nothing."""

from __future__ import annotations

from sqlalchemy import and_, case, exists, func, or_, update
from sqlalchemy.sql.dml import ReturningUpdate

from producer_client.contract import PositionFrom, Provenance
from worker.storage.rows import Rows, strength
from worker.storage.settling import NO_POSITION
from worker.storage.tables import entries


def news(rows: Rows) -> tuple[ReturningUpdate[int], ...]:
    """Statements for coordinates and methods that are new, coordinates that are taken back, and rows that are deleted;
    each returns the ids of the photos that it has changed.

    A position that is a caller's, or the file's, gives way to a row's that is no weaker, and a caller's only if the row
    has changed since.
    """
    p = rows.table
    lat, lon = p.c.lat.cast(entries.c.lat.type), p.c.lon.cast(entries.c.lon.type)
    provenance = rows.provenance
    from_row = and_(~entries.c.from_exif, entries.c.row_point.is_(None))
    has_news = or_(entries.c.from_exif, entries.c.row_point.is_distinct_from(rows.point))
    of_row, of_entry = strength(provenance), strength(entries.c.provenance)
    moved = (
        update(entries)
        .where(
            entries.c.photo_id == p.c.id,
            ~entries.c.removed,
            rows.has_coordinates,
            # What Sightline has written there of a file is no news; the file may say something else by now.
            entries.c.file_point.is_distinct_from(rows.point),
            or_(
                and_(
                    from_row,
                    or_(
                        entries.c.lat.is_distinct_from(lat),
                        entries.c.lon.is_distinct_from(lon),
                        entries.c.provenance.is_distinct_from(provenance),
                    ),
                ),
                and_(~from_row, or_(of_row > of_entry, and_(has_news, of_row == of_entry))),
            ),
        )
        .values(
            lat=lat,
            lon=lon,
            provenance=provenance,
            from_exif=False,
            position_from=PositionFrom.ROW.value,
            # As in _put_entry: the error of a point that is still the camera's.
            position_error_m=case(
                (
                    and_(entries.c.lat == lat, entries.c.lon == lon, provenance == Provenance.EXIF_GPS.value),
                    entries.c.position_error_m,
                )
            ),
            row_point=None,
            file_point=None,
            own_address=None,
            row_address=None,
            updated_at=func.now(),
        )
        .returning(entries.c.photo_id)
    )
    withdrawn = (
        update(entries)
        .where(
            entries.c.photo_id == p.c.id,
            ~entries.c.removed,
            from_row,
            entries.c.lat.is_not(None),
            rows.has_coordinates.is_not(True),
        )
        .values(
            **NO_POSITION,
            file_point=None,
            updated_at=func.now(),
        )
        .returning(entries.c.photo_id)
    )
    deleted = (
        update(entries)
        .where(~entries.c.removed, ~exists().where(p.c.id == entries.c.photo_id))
        .values(removed=True, updated_at=func.now())
        .returning(entries.c.photo_id)
    )
    return moved, withdrawn, deleted
