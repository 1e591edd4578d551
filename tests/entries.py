"""Photos as they are written to Postgres, as tests make them."""

from __future__ import annotations

from typing import Any

from producer_client.contract import Provenance
from worker.core.types import NewEntry
from worker.core.vectors import Vector

SURVEYED = (55.0, 13.0, Provenance.SURVEYED)


def new_entry(name: str, vector: Vector, *, path: str | None = None, **changed: Any) -> NewEntry:
    """A photo called `name`, of a content of its own, without a row. Surveyed unless `given` says otherwise."""
    path = path or f"/photos/{name}.jpg"
    values: dict[str, Any] = {
        "ref": name,
        "photo_id": None,
        "path": path,
        "spellings": (path,),
        "content_sha256": f"sha-{name}",
        "vector": vector,
        "given": SURVEYED,
        "exif": None,
        "address": None,
        "metadata": None,
    }
    return NewEntry(**(values | changed))
