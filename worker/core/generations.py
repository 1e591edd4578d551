"""What is known of a generation of the index beside its files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Built:
    """A written generation: the hash of its manifest, how many vectors, of what kind, how good and how large."""

    manifest_sha256: str
    count: int
    kind: str
    parameters: dict[str, float]
    recall_at_10: float
    index_bytes: int
    recall_at_10_at_least: float | None = None


@dataclass(frozen=True, slots=True)
class PublishedGeneration:
    """A generation that is kept. `state`: serving, kept (to roll back to), withdrawn (rolled back from) or lost (the
    log does not hold the change at which it was built: not all of the database was restored).

    learnt_places: how many its own photos taught of; None where nothing was learnt. examined: photos that it was asked
    about. exam_passed, exam_says: see worker.place.gate.Verdict. manifest_sha256: see worker.core.types.Published."""

    number: int
    model_key: str
    count: int
    seq: int
    kind: str | None
    recall_at_10: float | None
    recall_at_10_at_least: float | None
    index_bytes: int | None
    published_at: str
    state: str
    learnt_places: int | None = None
    examined: int | None = None
    exam_passed: bool | None = None
    exam_says: str | None = None
    manifest_sha256: str | None = None
