"""From similar photos to an answer, or to an honest no. Values in, a value out.

The rule: only photos whose coordinates can be trusted are witnesses, and copies of one picture are one witness, which
is silent where they claim different places. The best one must be similar enough. The witnesses within a small window of
similarity below it vote, the more similar the heavier; one place must hold most of the votes and more than one witness.
Otherwise the answer is an abstention that says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from producer_client.contract import Answer, Hit, Point, PositionIssue, Provenance, Reason
from worker.core.geo import distance_m, weighted_centre
from worker.place.pictures import Look
from worker.place.witnesses import Looks, Picture, pictures, speaking, without_own_copies

#: No answer claims to be nearer than this: phone GPS is rarely better.
MIN_RADIUS_M = 10.0
#: Photos that a sentence names by their ids; the others it counts.
NAMED = 5


@dataclass(frozen=True, slots=True)
class Rule:
    threshold: float
    window: float
    agree_m: float
    min_share: float
    min_witnesses: int
    neighbours: int
    #: Least similarity of any evidence, also where keypoints speak: what the caller asked for, if anything.
    floor: float = -1.0
    #: Pictures that a photo is compared with by keypoints at the most.
    pairs: int = 20


def answer(
    hits: Sequence[Hit],
    rule: Rule,
    *,
    index_count: int,
    looks: Looks | None = None,
    own: Look | None = None,
    everywhere: bool = True,
) -> Answer:
    """hits: of any provenance, in any order. index_count: photos that could have been found. looks: of photos that are
    not among these, only those with the same bytes are known for copies. own: of the photo that is asked about, whose
    copies are no evidence. everywhere: whether the hits are all there are but for copies of the photo itself, and not
    of one circle."""
    looks = looks or {}
    # Equally similar photos come in the order of the index, which a rebuild may change; the answer must not.
    found = sorted(hits, key=lambda hit: (-hit.similarity, hit.photo_id))
    if index_count == 0:
        return abstain(Reason.EMPTY_INDEX, "no photo is in the index yet", [])
    hits = without_own_copies(found, looks, own)
    if not hits:
        if everywhere:
            only = "nothing is known but the photo itself and copies of it, which are no evidence"
            return abstain(Reason.ONLY_OWN_COPIES, only, found[: rule.neighbours])
        none_near = "nothing is known in this circle, but for copies of the photo itself if any, which are no evidence"
        return abstain(Reason.OUTSIDE_COVERAGE, none_near, found[: rule.neighbours])
    if hits[0].similarity < rule.threshold:
        return abstain(
            Reason.NOTHING_SIMILAR,
            f"nothing known looks like it: the most similar photo has {hits[0].similarity:.2f}, "
            f"{rule.threshold:.2f} is asked",
            hits[: rule.neighbours],
        )
    heard = _heard(hits, rule, looks)
    if not heard or heard[0].best.hit.similarity < rule.threshold:
        return abstain(
            Reason.NO_TRUSTED_EVIDENCE,
            f"similar photos are known, but none with coordinates to trust ({_untrusted(hits, rule)})",
            hits[: rule.neighbours],
        )
    agreed, uncounted = [picture for picture in heard if picture.agrees], _uncounted(heard)
    if not agreed:
        return abstain(
            Reason.NEIGHBOURS_DISAGREE,
            f"copies of one picture lie in different places{uncounted}",
            [w.hit for picture in heard for w in (picture.best, picture.farthest)],
        )
    agreeing = max(
        ([p for p in agreed if p.best.away_m(centre.best) <= rule.agree_m] for centre in agreed),
        key=_votes,
    )
    share = _votes(agreeing) / _votes(agreed)
    evidence = [picture.best.hit for picture in agreed]
    if share < rule.min_share:
        return abstain(
            Reason.NEIGHBOURS_DISAGREE,
            f"similar photos lie in different places: the likeliest has {share:.0%} of the votes, "
            f"{rule.min_share:.0%} is asked{uncounted}",
            evidence,
        )
    if len(agreeing) < rule.min_witnesses:
        return abstain(
            Reason.TOO_FEW_WITNESSES,
            f"{len(agreeing)} trusted photo speaks for this place, {rule.min_witnesses} are asked{uncounted}",
            evidence,
        )
    return _located(agreeing, share, uncounted)


def settled(hits: Sequence[Hit], rule: Rule, *, looks: Looks | None = None, own: Look | None = None) -> bool:
    """Whether photos less similar than these could not change the answer any more."""
    looks = looks or {}
    heard = _heard(without_own_copies(hits, looks, own), rule, looks)
    least = heard[0].best.hit.similarity - rule.window if heard else rule.threshold
    return not hits or speaking(heard) == rule.neighbours or hits[-1].similarity < least


def _heard(hits: Sequence[Hit], rule: Rule, looks: Looks) -> list[Picture]:
    return pictures(hits, looks, window=rule.window, most=rule.neighbours, agree_m=rule.agree_m)


def _votes(of: Sequence[Picture]) -> float:
    return sum(picture.best.weight for picture in of)


def _located(agreeing: Sequence[Picture], share: float, uncounted: str) -> Answer:
    witnesses = [picture.best for picture in agreeing]
    lat, lon = weighted_centre([(w.lat, w.lon) for w in witnesses], [w.weight for w in witnesses])
    # A witness may be wrong by as much as its camera said, or as its copies are apart.
    spread_m = max(distance_m(lat, lon, p.best.lat, p.best.lon) + p.error_m for p in agreeing)
    return Answer(
        status=Answer.LOCATED,
        point=Point(lat, lon),
        radius_m=round(max(MIN_RADIUS_M, spread_m), 1),
        confidence=round(share, 4),
        message=f"{len(agreeing)} trusted photos agree within {max(MIN_RADIUS_M, spread_m):.0f} m{uncounted}",
        evidence=[w.hit for w in witnesses],
    )


def _untrusted(hits: Sequence[Hit], rule: Rule) -> str:
    """What makes similar photos no evidence, and of how many."""
    whys = [_why_untrusted(hit) for hit in hits if hit.similarity >= rule.threshold]
    return "; ".join(f"{why}: {count}" for why, count in Counter(whys).most_common())


def _why_untrusted(hit: Hit) -> str:
    match hit.position_issue:
        case PositionIssue.FILE_GONE:
            return "the file is gone"
        case PositionIssue.FILE_CHANGED:
            return "the file has changed since it was embedded"
        case PositionIssue.TOO_COARSE:
            return "the camera states too large an error"
        case PositionIssue.DEFAULT_POINT:
            return "exactly 0, 0"
        case PositionIssue.SUSPENDED:
            return "something contradicts its position"
    if hit.lat is None or hit.provenance is None:
        return "without coordinates"
    return "derived by a detector" if hit.provenance is Provenance.DERIVED else "a fallback, not a place"


def _uncounted(pictures: Sequence[Picture]) -> str:
    """Which photos were found and do not count, as the end of a sentence; empty where there are none."""
    silent = [(picture, w.hit.photo_id) for picture in pictures if picture.agrees for w in picture.witnesses[1:]]
    copies = [photo_id for picture, photo_id in silent if photo_id not in picture.burst]
    burst = [photo_id for picture, photo_id in silent if photo_id in picture.burst]
    torn = [w.hit.photo_id for picture in pictures if not picture.agrees for w in picture.witnesses]
    said = [f"copies: {_named(copies)}"] if copies else []
    said += [f"of one burst: {_named(burst)}"] if burst else []
    said += [f"copies in different places: {_named(torn)}"] if torn else []
    return f" (not counted, {'; '.join(said)})" if said else ""


def _named(ids: Sequence[int]) -> str:
    first = ", ".join(map(str, ids[:NAMED]))
    if len(ids) == 1:
        return f"photo {first}"
    return f"photos {first}" if len(ids) <= NAMED else f"photos {first} and {len(ids) - NAMED} more"


def abstain(reason: Reason, message: str, evidence: Sequence[Hit]) -> Answer:
    return Answer(status=Answer.ABSTAINED, reason=reason, message=message, evidence=list(evidence))
