"""What backends have called a photo's fields, and their values as JSON. Knows nothing of queues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from producer_client import plain

#: Names that a photo's fields have had, the first that is there counts.
LAT, LON = ("lat", "latitude"), ("lon", "longitude", "lng")
PATH, ADDRESS = ("file_path", "image_path", "path"), ("address_data", "address")
METHOD = ("provenance", "location_method", "coordinate_source")


def first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first of these that is there and not None."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def take(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    """As `first`; all of them leave the row."""
    found = first(row, names)
    for name in names:
        row.pop(name, None)
    return found


def as_mapping(row: Any) -> dict[str, Any]:
    """A mapping as it is, of an object what is named like a photo's fields."""
    if isinstance(row, Mapping):
        return dict(row)
    names = ("id", *LAT, *LON, *PATH, *ADDRESS, *METHOD)
    return {name: getattr(row, name) for name in names if hasattr(row, name)}


def as_json(name: str, value: Any) -> dict[str, Any]:
    """As `plain.json_object`, and as text what that knows no form of; NaN and what holds itself raise BadRequest."""
    return plain.json_object(name, value, otherwise=str)
