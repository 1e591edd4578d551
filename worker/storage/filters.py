"""Which photos a filter lets pass, as Postgres says it: the word that holds, wherever the index looked first."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, cast, literal, or_, select
from sqlalchemy.dialects.postgresql import JSONB

from producer_client.contract import Near
from producer_client.words import TRUSTED
from worker.core.circle import unit_sphere, within
from worker.core.geo import bounding_box, distance_m
from worker.core.types import Filter
from worker.core.vectors import Ids
from worker.storage import copying
from worker.storage.tables import entries


def is_trusted() -> ColumnElement[bool]:
    return entries.c.provenance.in_([provenance.value for provenance in sorted(TRUSTED)])


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
