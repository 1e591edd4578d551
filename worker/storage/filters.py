"""Which photos a filter lets pass, as Postgres says it: the word that holds, wherever the index looked first."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, and_, cast, exists, func, literal, or_, select
from sqlalchemy.dialects.postgresql import JSONB

from producer_client.contract import Near
from producer_client.words import TRUSTED, ConflictState
from worker.core.circle import unit_sphere, within
from worker.core.geo import bounding_box, distance_m
from worker.core.position import ROUNDED_DEG
from worker.core.types import Filter
from worker.core.vectors import Ids
from worker.storage import copying
from worker.storage.tables import conflicts, entries


def is_trusted() -> ColumnElement[bool]:
    """By what the provenance is stored as, and no conflict speaks against it."""
    return and_(entries.c.provenance.in_([provenance.value for provenance in sorted(TRUSTED)]), ~is_suspended())


def is_suspended() -> ColumnElement[bool]:
    """Whether something contradicts the position of an entry, and nobody has confirmed it."""
    unconfirmed = conflicts.c.state != ConflictState.CONFIRMED.value
    return exists().where(conflicts.c.photo_id == entries.c.photo_id, unconfirmed, is_about_entry())


def is_about_entry() -> ColumnElement[bool]:
    """Whether a conflict is about the position that the entry has now. What was found of another content says nothing
    of this one; what a person has rejected of a photo is wrong whatever its file is."""
    lon_apart = func.abs(conflicts.c.lon - entries.c.lon)
    return and_(
        func.abs(conflicts.c.lat - entries.c.lat) <= ROUNDED_DEG,
        or_(lon_apart <= ROUNDED_DEG, lon_apart >= 360 - ROUNDED_DEG),
        or_(conflicts.c.state == ConflictState.REJECTED.value, conflicts.c.content_sha256 == entries.c.content_sha256),
    )


def has_metadata(among: Filter) -> list[ColumnElement[bool]]:
    """No condition where none is asked."""
    if not among.where:
        return []
    return [entries.c.metadata.contains(cast(literal(json.dumps(among.where)), JSONB))]


def is_within(near: Near, lat: float | None, lon: float | None) -> bool:
    return lat is not None and lon is not None and distance_m(near.lat, near.lon, lat, lon) <= near.radius_m


def ids_where(connection: Connection, among: Filter) -> Ids:
    """Ids of the photos that pass, in any order: int64, without an object for each."""
    query: Select[Any] = select(entries.c.photo_id).where(~entries.c.removed, *has_metadata(among))
    if among.trusted_only:
        query = query.where(is_trusted())
    if among.near is None:
        parts = list(copying.rows(connection, query, [("id", ">i8")]))
        return np.concatenate([part["id"] for part in parts]).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)
    lat_min, lat_max, ranges = bounding_box(among.near.lat, among.near.lon, among.near.radius_m)
    query = query.add_columns(entries.c.lat, entries.c.lon).where(
        entries.c.lat.between(lat_min, lat_max), or_(*(entries.c.lon.between(*edges) for edges in ranges))
    )
    found = [np.zeros(0, dtype=np.int64)]
    for part in copying.rows(connection, query, [("id", ">i8"), ("lat", ">f8"), ("lon", ">f8")]):
        places = np.stack([part["lat"], part["lon"]]).astype(np.float64)
        found.append(part["id"].astype(np.int64)[within(among.near, places, unit_sphere(places))])
    return np.concatenate(found)
