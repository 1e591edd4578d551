"""Whether the likeliest place is the answer, how sure that is, and else why not. Values in, a value out.

With a calibration the answer is given where its probability reaches what was promised. Without one, or with one that
can promise nothing yet, it is given where a picture was seen to show the same, point by point, and no other place shows
nearly as much, unless what was learnt speaks against that. Where nothing could be compared the votes decide, as they
did before there were keypoints. No place is the answer to which the camera cannot have come.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec.structs import replace

from producer_client.contract import Answer, ConfidenceKind, Hit, Point, Reason
from worker.place.moments import away_m, seconds_apart
from worker.place.rule import MIN_RADIUS_M, abstain
from worker.place.strength import LEAST_CELLS, LEAST_INLIERS, Strength
from worker.place.weighing import Place, Weighed

#: Without a calibration no answer claims to be nearer than this: whoever sees the same may stand so far off. Of 127
#: answers about photos whose truth is known 126 were nearer.
UNCALIBRATED_RADIUS_M = 25.0
#: Photos of the same camera that an answer shows beside those that look like it.
MOST_MOMENTS = 3


class Calibration(Protocol):
    """What evidence is worth in this library. probability: that the place is right. least_for: up to which nothing like
    this is answered. unproven: what lacks to promise that, None where nothing does. confidence: that the truth is no
    farther from the point than the radius. within: than some distances in metres."""

    @property
    def unproven(self) -> object | None: ...

    def least_for(self, strength: Strength) -> float: ...

    def probability(self, strength: Strength) -> float: ...

    def answers(self, strength: Strength) -> bool: ...

    def confidence(self, strength: Strength) -> float: ...

    def radius_m(self, spread_m: float) -> float: ...

    def within(self, strength: Strength, spread_m: float) -> Mapping[float, float]: ...


def judge(weighed: Weighed, calibration: Calibration | None = None) -> Answer:
    best, strength = weighed.best, weighed.strength
    if best is None or strength is None:
        return weighed.votes
    if weighed.lacking and not strength.compared:
        # No keypoints are there yet: what was learnt by them says nothing of this.
        found = _by_votes(weighed, best)
    elif calibration is not None and calibration.unproven is None:
        found = _calibrated(weighed, best, strength, calibration)
    elif not strength.compared:
        found = _by_votes(weighed, best)
    elif strength.verified and calibration is not None and not calibration.answers(strength):
        # Too few of its kind are known for a promise, and enough to know better than to answer.
        found = _no(weighed, best, strength, by=calibration)
    elif strength.verified:
        found = _verified(best, strength)
    else:
        found = _no(weighed, best, strength)
    contrary = None if weighed.rival is None else weighed.rival.best.hit
    evidence = list(found.evidence)
    if found.located and strength.out_of_reach:
        contrary = weighed.moments.out_of_reach(best.point)[0]
        found = _out_of_reach(best, contrary)
    elif found.located and strength.moment > 0:
        there = weighed.moments.near(best.point)
        known = {hit.photo_id for hit in evidence}
        evidence += [hit for hit in there[:MOST_MOMENTS] if hit.photo_id not in known]
        found = replace(found, message=f"{found.message}; {_beside(best, there[0], weighed)}")
    return replace(
        found,
        evidence=[_shown(hit, weighed) for hit in evidence],
        contrary=None if contrary is None else _shown(contrary, weighed),
    )


# ---------------------------------------------------------------------------------------------- below


def _by_votes(weighed: Weighed, best: Place) -> Answer:
    """The point that the witnesses stand for, where their votes are enough."""
    votes = weighed.votes
    if not votes.located:
        return votes
    return replace(votes, point=Point(*best.point), radius_m=_radius_m(MIN_RADIUS_M, best))


def _calibrated(weighed: Weighed, best: Place, strength: Strength, calibration: Calibration) -> Answer:
    # What was learnt from this library's places says little of a kind of place that it has none of.
    unlike = strength.compared > 0 and not strength.is_seen
    if unlike or not calibration.answers(strength):
        return _no(weighed, best, strength, by=calibration)
    confidence, radius_m = calibration.confidence(strength), calibration.radius_m(best.spread_m)
    within = calibration.within(strength, best.spread_m)
    return Answer(
        status=Answer.LOCATED,
        point=Point(*best.point),
        radius_m=round(radius_m, 1),
        confidence=round(confidence, 4),
        confidence_kind=ConfidenceKind.PROBABILITY,
        message=f"trusted photos that speak for this place: {len(best.pictures)}; "
        f"it lies within {radius_m:.0f} m with a probability of {confidence:.0%}",
        evidence=_hits(best),
        within={f"{metres:.0f}": round(share, 4) for metres, share in within.items()},
    )


def _verified(best: Place, strength: Strength) -> Answer:
    return Answer(
        status=Answer.LOCATED,
        point=Point(*best.point),
        radius_m=_radius_m(UNCALIBRATED_RADIUS_M, best),
        confidence=round(strength.clearness, 4),
        confidence_kind=ConfidenceKind.UNCALIBRATED,
        message=f"trusted photos that show the same: {len(best.pictures)}; the best of them has {strength.inliers} "
        "points in common with it, and no photo of another place nearly as many",
        evidence=_hits(best),
    )


def _no(weighed: Weighed, best: Place, strength: Strength, *, by: Calibration | None = None) -> Answer:
    """by: what withholds the answer; None where it has no say."""
    rival = weighed.rival
    if strength.is_seen and not strength.stands_out and rival is not None:
        found = weighed.seen.get(rival.best.hit.photo_id)
        return abstain(
            Reason.LOOK_ALIKE_PLACES,
            f"several places look like it: photo {best.pictures[0].best.hit.photo_id} has {strength.inliers} points in "
            f"common with it, and photo {rival.best.hit.photo_id}, {best.away_m(rival):.0f} m away, "
            f"has {0 if found is None else found.inliers}. A photo from another side, or with a sign on it, may tell "
            "them apart",
            _hits(best),
        )
    if by is not None and (strength.is_seen or not strength.compared):
        probability, least = by.probability(strength), by.least_for(strength)
        return abstain(
            Reason.UNVERIFIED,
            f"the likeliest place is right with a probability of {probability:.0%}, more than "
            f"{least:.0%} is asked. "
            "More photos of this place with coordinates to trust make it surer",
            _hits(best),
        )
    if weighed.votes.reason in (Reason.NOTHING_SIMILAR, Reason.NO_TRUSTED_EVIDENCE):
        return weighed.votes
    if strength.inliers >= LEAST_INLIERS:
        return abstain(
            Reason.UNVERIFIED,
            f"what photo {best.pictures[0].best.hit.photo_id} has in common with it lies together, as a frame or a "
            f"watermark does: in {strength.cells} cells of the picture, {LEAST_CELLS} are asked",
            _hits(best),
        )
    return abstain(
        Reason.UNVERIFIED,
        f"similar photos do not show the same: of {strength.compared} that were compared the best has "
        f"{strength.inliers} points in common with it, {LEAST_INLIERS} are asked. More photos of this place with "
        f"coordinates to trust make it known{_lacking(weighed)}",
        _hits(best),
    )


def _out_of_reach(best: Place, there: Hit) -> Answer:
    return abstain(
        Reason.LOOK_ALIKE_PLACES,
        f"it looks like photo {best.pictures[0].best.hit.photo_id}, and its camera took photo {there.photo_id} "
        f"{seconds_apart(there):.0f} s before or after, {away_m(there, best.point):.0f} m from there, farther than "
        "anybody gets meanwhile. It shows a place that looks the same, or a position or the time is wrong",
        _hits(best),
    )


def _beside(best: Place, there: Hit, weighed: Weighed) -> str:
    """What was taken where it is, minutes before or after."""
    seconds, metres = seconds_apart(there), away_m(there, best.point)
    if weighed.moments.one_camera:
        return f"its camera took photo {there.photo_id} {seconds:.0f} s before or after, {metres:.0f} m from there"
    return (
        f"a camera of its model took photo {there.photo_id} {seconds:.0f} s before or after, {metres:.0f} m from there"
    )


def _lacking(weighed: Weighed) -> str:
    """Which photos could not be compared, as the end of a sentence; empty where all could be."""
    if not weighed.lacking:
        return ""
    return f" ({weighed.lacking} could not be compared: `sightline rebuild` makes their keypoints)"


def _hits(of: Place) -> list[Hit]:
    return [picture.best.hit for picture in of.pictures]


def _shown(hit: Hit, weighed: Weighed) -> Hit:
    found = weighed.seen.get(hit.photo_id)
    apart_s = next((one.apart_s for one in weighed.moments.photos if one.photo_id == hit.photo_id), None)
    return replace(hit, inliers=None if found is None else found.inliers, apart_s=apart_s)


def _radius_m(least_m: float, best: Place) -> float:
    return round(max(least_m, best.radius_m), 1)
