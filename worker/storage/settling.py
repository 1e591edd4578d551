"""What holds of a photo's position, out of its entry, its row and what is being stored. Values in, columns out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from producer_client.contract import PositionFrom, Provenance
from worker.core.geo import same_point
from worker.core.position import Held, Known, is_same, settle
from worker.core.types import NewEntry
from worker.storage.rows import Said

#: In place of what a row said, for a photo that was purged: that Sightline had written its file's position there.
FORGOTTEN = ""
#: What an entry says of a position that it has no more, whoever said it.
NO_POSITION: Mapping[str, None] = dict.fromkeys(("lat", "lon", "provenance", "position_from", "position_error_m"))


def is_former_reading(row: Row[Any] | None, said: Said, item: NewEntry) -> bool:
    """Whether the photo's row says what Sightline itself once read from the file, and that may be the file's no more:
    it has another content, or has been read again."""
    if row is None or said.position is None:
        return False
    if row.file_point == FORGOTTEN:
        by_us = said.position[2] is Provenance.EXIF_GPS
    else:
        by_us = bool(row.file_point == said.point)
    return by_us and (item.given is None or row.content_sha256 != item.content_sha256)


def of_file(item: NewEntry) -> Known | None:
    return None if item.exif is None else (*item.exif, Provenance.EXIF_GPS)


def settled(row: Row[Any] | None, said: Said, item: NewEntry, *, made_of_file: bool) -> dict[str, Any]:
    """Columns of the entry.

    row: the entry before. said: what the photo's row says now. made_of_file: this transaction has written the file's
    position into it.
    """
    held = _held(row)
    same_file = row is not None and row.content_sha256 == item.content_sha256
    former = is_former_reading(row, said, item) and not made_of_file
    said_by_file, error_m = _said_by_file(row, item)
    # Coordinates of a message are not weighed against what its file happens to have been read for.
    exif = said_by_file if item.given is None else held.position if held.from_exif and same_file else None
    found = settle(row=None if former else said.position, row_point=said.point, held=held, exif=exif, given=item.given)
    if found.from_exif and is_same(found.position, said.position):
        found = Held(said.position)
    lat, lon, provenance = found.position or (None, None, None)
    # Also where the backend, or this transaction, has written the file's point into the row. Not where somebody
    # has confirmed it: the camera's error is the camera's.
    by_camera = (
        found.position is not None
        and said_by_file is not None
        and found.position[2] is Provenance.EXIF_GPS
        and same_point(found.position[:2], said_by_file[:2])
    )
    still_of_file = row is not None and said.position is not None and row.file_point == said.point
    values: dict[str, Any] = {
        "lat": lat,
        "lon": lon,
        "provenance": provenance,
        "from_exif": found.from_exif,
        "position_from": _origin(row, held, found, item),
        "row_point": found.row_point,
        "file_point": said.point if made_of_file or former or still_of_file else None,
        "position_error_m": error_m if by_camera else None,
    }
    # An address goes with its coordinates: that of some that do not count is not kept.
    if item.address is not None and (item.given is None or is_same(found.position, item.given)):
        return values | {"own_address": item.address, "row_address": said.address}
    of_another_place = not is_same(held.position, found.position)
    if (held.row_point is not None and found.row_point is None) or (of_another_place and not same_file):
        values["own_address"] = None
    return values


# ---------------------------------------------------------------------------------------------- below


def _held(row: Row[Any] | None) -> Held:
    """What an entry says of the position."""
    if row is None or row.lat is None:
        return Held(None)
    return Held((row.lat, row.lon, Provenance(row.provenance)), row.from_exif, row.row_point)


def _origin(row: Row[Any] | None, held: Held, found: Held, item: NewEntry) -> PositionFrom | None:
    """Who has said the position that holds. A row that says what was known already is nobody else's word, as Sightline
    may have written it, unless a caller's was known and the row has changed since."""
    if found.position is None:
        return None
    if item.given is not None and is_same(found.position, item.given):
        return PositionFrom.GIVEN
    if item.exif is not None and is_same(found.position, of_file(item)):
        return item.exif_from
    is_news = held.row_point is not None and found.row_point is None
    if row is not None and is_same(found.position, held.position) and not is_news:
        return None if row.position_from is None else PositionFrom(row.position_from)
    return PositionFrom.ROW


def _said_by_file(row: Row[Any] | None, item: NewEntry) -> tuple[Known | None, float | None]:
    """What a photo's file says of its position, and the error in metres; what is known of it where nobody has asked
    the file, because the message says it all, and its content is the same."""
    if item.exif is not None:
        return of_file(item), item.exif_error_m
    same = row is not None and item.given is not None and row.content_sha256 == item.content_sha256
    if row is None or not same or row.provenance != Provenance.EXIF_GPS:
        return None, None
    return (row.lat, row.lon, Provenance.EXIF_GPS), row.position_error_m
