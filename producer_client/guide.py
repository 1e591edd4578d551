"""Answers and similar photos in the forms of the class that Sightline replaces. Knows no queue."""

from __future__ import annotations

from typing import Any

from producer_client.contract import Answer, Hit, LocateReply

#: What the guide's result calls this source of coordinates.
SOURCE = "clip_similarity"
#: Where a photo that travelled in its message keeps the path that its backend knows it by.
SENT_AS = "image_path"


def to_guide_json(answer: Answer | LocateReply) -> dict[str, Any]:
    """The result that the guide prints for a photo, and what it did not know: `status`, `reason` and `message` (why
    not), `radius_m`, and `confidence_kind`, because a similarity is not a confidence.

    `coordinates` is None where the answer is no. `all_matches` are the photos that speak for it, or were too little.
    """
    if isinstance(answer, LocateReply):
        answer = answer.answer
    matches = [match(hit) for hit in answer.evidence]
    coordinates = None
    if answer.point is not None:
        coordinates = {
            "latitude": answer.point.lat,
            "longitude": answer.point.lon,
            "source": SOURCE,
            "confidence": answer.confidence,
            "matched_image": matches[0]["image_path"] if matches else None,
            "radius_m": answer.radius_m,
            "confidence_kind": answer.confidence_kind,
        }
    return {
        "success": answer.located,
        "coordinates": coordinates,
        "clip_similarity": {
            "similarity": matches[0]["similarity"] if matches else None,
            "all_matches": matches,
        },
        "status": answer.status,
        "reason": None if answer.reason is None else answer.reason.value,
        "message": answer.message,
    }


def match(hit: Hit) -> dict[str, Any]:
    """A similar photo in the old class's form."""
    known: dict[str, Any] = dict(hit.metadata or {})
    path = known.pop(SENT_AS, hit.path)
    if hit.lat is not None and hit.lon is not None:
        known |= {
            "lat": hit.lat,
            "lon": hit.lon,
            "provenance": None if hit.provenance is None else hit.provenance.value,
        }
    if hit.address is not None:
        known["address"] = hit.address
    return {"image_path": path, "similarity": hit.similarity, "metadata": known}
