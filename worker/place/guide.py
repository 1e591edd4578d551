"""The guide's rule, for comparison alone: the most similar photo's position, and its cosine as confidence."""

from __future__ import annotations

from collections.abc import Sequence

from producer_client.contract import Answer, ConfidenceKind, Hit, Point, Reason
from worker.place.rule import abstain

#: Photos that the guide shows.
SHOWN = 5


def by_guide(hits: Sequence[Hit], threshold: float) -> Answer:
    """hits: by falling similarity. Whoever has coordinates is believed, wherever they are from; there is no radius."""
    placed = [hit for hit in hits if hit.lat is not None and hit.lon is not None]
    if not placed or placed[0].similarity < threshold:
        return abstain(
            Reason.NOTHING_SIMILAR, f"no photo with coordinates has a similarity of {threshold:.2f}", placed[:SHOWN]
        )
    best = placed[0]
    assert best.lat is not None
    assert best.lon is not None
    return Answer(
        status=Answer.LOCATED,
        point=Point(best.lat, best.lon),
        confidence=best.similarity,
        confidence_kind=ConfidenceKind.COSINE,
        message=f"the position of the most similar photo, {best.photo_id}; its similarity is no confidence",
        evidence=[hit for hit in placed[:SHOWN] if hit.similarity >= threshold],
    )
