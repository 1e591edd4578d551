"""Questions of an exam, as tests make them up."""

from __future__ import annotations

from typing import Any

from worker.place.exam import Examined

METRE = 1 / 111_195.08  #: of latitude, in degrees


def question(
    photo_id: int = 1,
    *,
    confidence: float | None = 0.9,
    off_m: float | None = 10.0,
    seen: bool = True,
    located: bool = True,
    at: tuple[float, float] = (50.0, 14.0),
    radius_m: float = 30.0,
    reason: str = "unverified",
    **other: Any,
) -> Examined:
    """One about a photo at `at`, whose best place lies off_m metres north of it; None: there is no best place."""
    located = located and off_m is not None
    return Examined(
        photo_id=photo_id,
        seen=seen,
        place=other.pop("place", photo_id),
        lat=at[0],
        lon=at[1],
        provenance=other.pop("provenance", "exif_gps"),
        density=other.pop("density", 3),
        located=located,
        reason=None if located else reason,
        point=None if off_m is None else (at[0] + off_m * METRE, at[1]),
        radius_m=None if off_m is None else radius_m,
        confidence=None if off_m is None else confidence,
        **other,
    )
