"""Who has asked where photos were taken, and what was told, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """answer: `located` or `found`, the reason why not, or the code of a refusal. producer: id of the key that it was
    signed with; empty where it was not. verb: `locate` or `search`. content_sha256: None where it was not about a
    photo, or about one that could not be read; photo_id: None where it was not named by one. lat, lon, radius_m: of the
    answer as it was told, in degrees and metres. told: photos whose positions were told with it."""

    answer: str
    producer: str = ""
    verb: str = "locate"
    task_id: str | None = None
    content_sha256: str | None = None
    photo_id: int | None = None
    lat: float | None = None
    lon: float | None = None
    radius_m: float | None = None
    told: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """at: ISO 8601, UTC; until: when it is deleted."""

    at: str
    until: str
    question: Question
