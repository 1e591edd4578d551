"""What is kept of a photo, where, and until when, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is kept."""

    ROW = "row"  #: of the backend's table
    ENTRY = "entry"  #: path, position, address, metadata
    TOMBSTONE = "tombstone"  #: the bare id of a photo that was removed or purged
    VECTOR = "vector"
    PICTURE = "picture"  #: what the picture looks like, by which camera it was taken, and when
    KEYPOINTS = "keypoints"
    REFUSAL = "refusal"
    ATTEMPT = "attempt"
    CONFLICT = "conflict"
    CONTRADICTS = "contradicts"  #: named by the conflicts of others
    BASELINE = "baseline"  #: what came of it in the exam that others are compared with
    CHANGE = "change"
    PURGE = "purge"  #: that it was purged, when, and which generation was the first without it
    QUESTION = "question"  #: that somebody has asked where it was taken, and what was answered
    GENERATION = "generation"
    REPLY = "reply"
    MESSAGE = "message"  #: in a queue, or in the hand of a worker
    PARKED = "parked"


class Until(StrEnum):
    """When it goes."""

    BACKEND = "backend"  #: the backend deletes it; no purge does
    PURGE = "purge"
    SHARED = "shared"  #: the last photo of this content is purged
    UNADDED = "unadded"  #: with the first rebuild a week after it was embedded
    REBUILD = "rebuild"  #: the next one, which a purge has asked for
    NEWER = "newer"  #: newer generations take its place, or a purge
    LOG = "log"  #: a rebuild whose generations need it no more
    BASELINE = "baseline"  #: another exam is the baseline, or a purge
    EXPIRES = "expires"  #: at a moment
    ANSWERED = "answered"  #: a worker has answered it
    DROPPED = "dropped"  #: a person drops it
    TAKEN = "taken"  #: the photo is taken after all, or a purge
    STAYS = "stays"


class State(StrEnum):
    """What became of a photo."""

    INDEXED = "indexed"
    REMOVED = "removed"
    PURGED = "purged"
    NOT_ADDED = "not_added"


@dataclass(frozen=True, slots=True)
class Kept:
    """place: a table, a folder or a key of Redis. says: what of it, as a model's key. at: ISO 8601, UTC: when it
    expires; of what waits for a rebuild, since when; else when it was written last, where that is known."""

    kind: Kind
    place: str
    until: Until
    says: str = ""
    at: str | None = None


@dataclass(frozen=True, slots=True)
class Holding:
    """All that is kept of one photo, or of a content that no photo has (photo_id None)."""

    photo_id: int | None
    path: str | None
    content_sha256: str | None
    state: State
    kept: tuple[Kept, ...]
