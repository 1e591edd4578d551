"""From similar photos to an answer, or to an honest no. Values in, a value out.

The rule: only photos whose coordinates can be trusted are witnesses. The best one must be similar enough. The
witnesses within a small window of similarity below it vote, the more similar the heavier; one place must hold most
of the votes and more than one witness. Otherwise the answer is an abstention that says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from producer_client.contract import Answer, Hit, Point, Reason
from worker.core.geo import distance_m, weighted_centre

#: A vote's weight halves for every such step of similarity below the best witness.
HALF_WEIGHT_STEP = 0.03
#: No answer claims to be nearer than this: phone GPS is rarely better.
MIN_RADIUS_M = 10.0


@dataclass(frozen=True, slots=True)
class Rule:
    threshold: float
    window: float
    agree_m: float
    min_share: float
    min_witnesses: int
    neighbours: int


@dataclass(frozen=True, slots=True)
class Witness:
    hit: Hit
    lat: float
    lon: float
    weight: float


def answer(hits: Sequence[Hit], rule: Rule, *, index_count: int) -> Answer:
    """hits: of any provenance, in any order. index_count: photos that could have been found."""
    # Equally similar photos come in the order of the index, which a rebuild may change; the answer must not.
    hits = sorted(hits, key=lambda hit: (-hit.similarity, hit.photo_id))
    if index_count == 0:
        return _abstain(Reason.EMPTY_INDEX, "no photo is in the index yet", [])
    if not hits or hits[0].similarity < rule.threshold:
        best = f"the most similar photo has {hits[0].similarity:.2f}" if hits else "there is none to compare with"
        return _abstain(
            Reason.NOTHING_SIMILAR,
            f"nothing known looks like it: {best}, {rule.threshold:.2f} is asked",
            hits[: rule.neighbours],
        )
    witnesses = _witnesses(hits, rule)
    if not witnesses or witnesses[0].hit.similarity < rule.threshold:
        return _abstain(
            Reason.NO_TRUSTED_EVIDENCE,
            "similar photos are known, but none with coordinates to trust (derived and fallback ones are no evidence)",
            hits[: rule.neighbours],
        )
    agreeing = max(
        ([w for w in witnesses if _apart_m(w, centre) <= rule.agree_m] for centre in witnesses),
        key=lambda group: sum(w.weight for w in group),
    )
    share = sum(w.weight for w in agreeing) / sum(w.weight for w in witnesses)
    heard = [w.hit for w in witnesses]
    if share < rule.min_share:
        return _abstain(
            Reason.NEIGHBOURS_DISAGREE,
            f"similar photos lie in different places: the likeliest has {share:.0%} of the votes, "
            f"{rule.min_share:.0%} is asked",
            heard,
        )
    if len(agreeing) < rule.min_witnesses:
        return _abstain(
            Reason.TOO_FEW_WITNESSES,
            f"{len(agreeing)} trusted photo speaks for this place, {rule.min_witnesses} are asked",
            heard,
        )
    return _located(agreeing, share)


def settled(hits: Sequence[Hit], rule: Rule) -> bool:
    """Whether photos less similar than these could not change the answer any more."""
    witnesses = _witnesses(hits, rule)
    least = witnesses[0].hit.similarity - rule.window if witnesses else rule.threshold
    return not hits or len(witnesses) == rule.neighbours or hits[-1].similarity < least


def _witnesses(hits: Sequence[Hit], rule: Rule) -> list[Witness]:
    """The nearest trusted photos; copies of one file speak once."""
    found: list[Witness] = []
    contents: set[str] = set()
    for hit in hits:
        if hit.provenance is None or not hit.provenance.trusted or hit.lat is None or hit.lon is None:
            continue
        if hit.content_sha256 and hit.content_sha256 in contents:
            continue
        best = found[0].hit.similarity if found else hit.similarity
        if hit.similarity < best - rule.window or len(found) == rule.neighbours:
            break
        contents.add(hit.content_sha256)
        found.append(Witness(hit, hit.lat, hit.lon, 0.5 ** ((best - hit.similarity) / HALF_WEIGHT_STEP)))
    return found


def _located(agreeing: Sequence[Witness], share: float) -> Answer:
    weights = [w.weight for w in agreeing]
    lat, lon = weighted_centre([(w.lat, w.lon) for w in agreeing], weights)
    # A witness may be wrong by as much as its camera said.
    spread_m = max(distance_m(lat, lon, w.lat, w.lon) + (w.hit.position_error_m or 0.0) for w in agreeing)
    return Answer(
        status=Answer.LOCATED,
        point=Point(lat, lon),
        radius_m=round(max(MIN_RADIUS_M, spread_m), 1),
        confidence=round(share, 4),
        message=f"{len(agreeing)} trusted photos agree within {max(MIN_RADIUS_M, spread_m):.0f} m",
        evidence=[w.hit for w in agreeing],
    )


def _abstain(reason: Reason, message: str, evidence: Sequence[Hit]) -> Answer:
    return Answer(status=Answer.ABSTAINED, reason=reason, message=message, evidence=list(evidence))


def _apart_m(a: Witness, b: Witness) -> float:
    return distance_m(a.lat, a.lon, b.lat, b.lon)
