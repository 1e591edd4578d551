"""What the workers answer about photos. A list of outcomes carries the caller's names; what was not taken: Refused."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from producer_client.contract.values import Point, Refused
from producer_client.contract.wire import Outcome, Reply, without_nothing
from producer_client.words import (
    ConfidenceKind,
    ConflictState,
    Doubt,
    Mistake,
    PositionFrom,
    PositionIssue,
    Provenance,
    Reason,
)


class Stored(Outcome, frozen=True):
    """One photo that is in Postgres and visible to every search with `min_seq >= seq`.

    `provenance` is what its position counts as: `fallback` where `position_issue` says why it is never evidence."""

    ref: str
    photo_id: int
    seq: int
    content_sha256: str
    lat: float | None = None
    lon: float | None = None
    provenance: Provenance | None = None
    embedded: bool = True  #: False when the vector was known already and no forward pass was needed
    position_from: PositionFrom | None = None
    position_issue: PositionIssue | None = None
    position_error_m: float | None = None  #: metres, as the camera states it


class Embedded(Outcome, frozen=True):
    """One photo whose vector is stored under (content_sha256, model_key)."""

    ref: str
    content_sha256: str
    photo_id: int | None = None
    model_key: str = ""
    vector: list[float] | None = None
    embedded: bool = True


class Removed(Outcome, frozen=True):
    """`was_indexed` is False when there was nothing to remove; the photo is out of the index either way."""

    ref: str
    photo_id: int
    seq: int
    was_indexed: bool


class Purged(Outcome, frozen=True):
    """The photo is in no answer and in no table of Sightline's from now on; its row in `photos` is the backend's.

    `generations` are the kept index generations that may still hold its vector on disk. They are deleted when the next
    rebuild is published, which this asks for; `stats` counts those that wait as `purges_pending`.
    """

    ref: str
    photo_id: int
    seq: int
    was_indexed: bool
    generations: list[int]


class Confirmed(Outcome, frozen=True):
    """The position holds: the photo is a witness, and is not asked about again unless position or content change.

    `provenance` and `position_issue` as in Stored.
    """

    ref: str
    photo_id: int
    seq: int
    lat: float | None = None
    lon: float | None = None
    provenance: Provenance | None = None
    position_issue: PositionIssue | None = None


class Rejected(Outcome, frozen=True):
    """The position was wrong: the photo is no witness as long as it lies there. The fields say what holds now, which is
    another position where one was given."""

    ref: str
    photo_id: int
    seq: int
    lat: float | None = None
    lon: float | None = None
    provenance: Provenance | None = None
    position_issue: PositionIssue | None = None


class AddReply(Reply, frozen=True):
    outcomes: list[Stored | Refused]
    model_key: str


class EmbedReply(Reply, frozen=True):
    outcomes: list[Embedded | Refused]
    model_key: str
    dimension: int


class TextVector(Reply, frozen=True):
    """Length 1, of the same space as the photos' vectors of this model."""

    vector: list[float]
    model_key: str


class RemoveReply(Reply, frozen=True):
    outcomes: list[Removed | Refused]


class PurgeReply(Reply, frozen=True):
    outcomes: list[Purged | Refused]


class Conflict(Reply, frozen=True):
    """A photo whose position something contradicts. `lat`, `lon`, `provenance`: what is said of it. `photo_ids`:
    some of the photos that contradict it. `point`, `distance_m`: where they lie, and how far away; None where that is
    no one place."""

    photo_id: int
    path: str | None
    lat: float
    lon: float
    provenance: Provenance
    doubt: Doubt
    conflict_state: ConflictState
    since: str  #: ISO 8601, UTC: when it was found
    photo_ids: list[int]
    point: Point | None = None
    distance_m: float | None = None
    mistake: Mistake | None = None  #: that would explain it
    settled_at: str | None = None  #: ISO 8601, UTC: when somebody confirmed or rejected it


class ConflictsReply(Reply, frozen=True):
    """`open`: how many wait for a person in all. `after_id`: from which to ask for the next ones; None at the end."""

    conflicts: list[Conflict]
    open: int
    after_id: int | None = None


class ConfirmReply(Reply, frozen=True):
    outcomes: list[Confirmed | Refused]


class RejectReply(Reply, frozen=True):
    outcomes: list[Rejected | Refused]


class Hit(Reply, frozen=True):
    """One similar photo. `similarity` is the cosine of the two vectors; it is not a probability of anything."""

    photo_id: int
    similarity: float
    path: str | None
    lat: float | None
    lon: float | None
    provenance: Provenance | None
    address: Any = None
    metadata: dict[str, Any] | None = None
    content_sha256: str = ""
    position_error_m: float | None = None  #: metres, as the camera states it
    position_issue: PositionIssue | None = None  #: why its position is no evidence, whatever its provenance was
    position_from: PositionFrom | None = None  #: who has said its position; None of one that an earlier release stored
    inliers: int | None = None  #: points that it has in common with the photo asked about; None where not compared
    #: Seconds after the photo asked about, negative before it, by the same camera or one of its model; else None.
    apart_s: float | None = None

    def to_wire(self) -> dict[str, Any]:
        """Without what says nothing of the later fields: clients of the release before them take no field more."""
        return without_nothing(super().to_wire(), "position_from", "inliers", "apart_s")


class SearchReply(Reply, frozen=True):
    """`generation` and `seq` say which state of the index answered. `stale_s`: Postgres was away, and the worker had
    read all that was written until so many seconds before; hits have no path then, and may have been removed since."""

    hits: list[Hit]
    generation: int | None
    seq: int
    model_key: str
    took_ms: float
    stale_s: float | None = None

    def to_wire(self) -> dict[str, Any]:
        return without_nothing(super().to_wire(), "stale_s")


class Answer(Reply, frozen=True):
    """`located` with point, radius and evidence, or `abstained` with a reason and a sentence.

    What `confidence` is, `confidence_kind` says: only a `probability` says how often such answers are right.
    `within` has, with such a one, the probability that the truth is no farther from the point, by metres ("25", "100",
    "1000"). `evidence` speaks for the answer, or for what is the likeliest; `contrary` is the photo that speaks most
    for another place. `timings_ms`: what took how long, in the worker.
    """

    status: str
    point: Point | None = None
    radius_m: float | None = None
    confidence: float | None = None
    confidence_kind: ConfidenceKind = ConfidenceKind.VOTE_SHARE
    reason: Reason | None = None
    message: str = ""
    evidence: list[Hit] = msgspec.field(default_factory=list)
    contrary: Hit | None = None
    within: dict[str, float] = msgspec.field(default_factory=dict)
    timings_ms: dict[str, float] = msgspec.field(default_factory=dict)

    LOCATED: ClassVar[str] = "located"
    ABSTAINED: ClassVar[str] = "abstained"

    @property
    def located(self) -> bool:
        return self.status == self.LOCATED

    def to_wire(self) -> dict[str, Any]:
        return without_nothing(super().to_wire(), "contrary", "within", "timings_ms")


class LocateReply(Reply, frozen=True):
    answer: Answer
    generation: int | None
    seq: int
    model_key: str
    took_ms: float
