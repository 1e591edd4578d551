"""What speaks against a photo's position, as values: what is claimed, what contradicts it, what people have said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from producer_client.contract import ConflictState, Doubt, Mistake, Provenance

#: Latitude and longitude in degrees.
LatLon = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Claim:
    """Where a photo was taken, as is said of it. error_m: as its camera states it. state: of a conflict that it is in.
    changed_at: when its file was made or changed, seconds since 1970; None where that is not known."""

    photo_id: int
    content_sha256: str
    lat: float
    lon: float
    provenance: Provenance
    error_m: float = 0.0
    state: ConflictState | None = None
    changed_at: float | None = None

    @property
    def point(self) -> LatLon:
        return self.lat, self.lon


@dataclass(frozen=True, slots=True)
class Contradiction:
    """others: photos that contradict it, the strongest first. point: where these lie, if that is one place."""

    claim: Claim
    doubt: Doubt
    others: Sequence[int]
    point: LatLon | None = None
    mistake: Mistake | None = None


@dataclass(frozen=True, slots=True)
class KnownConflict:
    """One that is stored, with the photo as it is now. found_at, settled_at: ISO 8601, UTC."""

    photo_id: int
    path: str | None
    provenance: Provenance
    lat: float
    lon: float
    doubt: Doubt
    mistake: Mistake | None
    others: list[int]
    point: LatLon | None
    state: ConflictState
    found_at: str
    settled_at: str | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """A photo whose position a person calls wrong. point: the right one, where they know it."""

    photo_id: int
    point: LatLon | None = None
