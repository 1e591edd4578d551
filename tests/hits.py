"""Hits, and what they look like, as tests of the place rooms make them."""

from __future__ import annotations

import math

import numpy as np

from producer_client.contract import Hit, Provenance
from worker.core.vectors import Vector
from worker.place.geometry import Seen
from worker.place.pictures import Look
from worker.place.rule import Rule

RULE = Rule(threshold=0.75, window=0.1, agree_m=150.0, min_share=0.6, min_witnesses=2, neighbours=8)
METRE = 1 / 111_195.08  #: of latitude, in degrees
HERE = (50.0, 14.0)


def hit(
    photo_id: int,
    similarity: float = 0.9,
    *,
    north_m: float = 0.0,
    at: tuple[float, float] = HERE,
    provenance: Provenance | None = Provenance.EXIF_GPS,
    content: str | None = None,
    error_m: float | None = None,
) -> Hit:
    """A hit `north_m` metres north of `at`, with a content of its own."""
    return Hit(
        photo_id,
        similarity,
        path=f"{photo_id}.jpg",
        lat=at[0] + north_m * METRE,
        lon=at[1],
        provenance=provenance,
        content_sha256=f"content {photo_id}" if content is None else content,
        position_error_m=error_m,
    )


def vector(cosine: float = 1.0) -> Vector:
    """One of the plane, at this cosine to the first axis."""
    return np.array([cosine, math.sqrt(max(0.0, 1 - cosine**2))], dtype=np.float32)


def look(bits: int | bytes | None = 0, cosine: float = 1.0) -> Look:
    """One whose hash differs in so many bits from that of `look()`, and whose vector has this cosine to its vector."""
    return Look(vector(cosine), ((1 << bits) - 1).to_bytes(32) if isinstance(bits, int) else bits)


def shows(inliers: int, *, first: int = 0, cells: int = 20) -> Seen:
    """What shows so many of the photo's keypoints, from this one on."""
    return Seen(2 * inliers, inliers, cells if inliers else 0, np.arange(first, first + inliers))
