"""From similar photos to an answer, or to an honest no. Values in, a value out.

The rule: only photos whose coordinates can be trusted are witnesses, and copies of one picture are one witness, which
is silent where they claim different places. The best one must be similar enough. The witnesses within a small window of
similarity below it vote, the more similar the heavier; one place must hold most of the votes and more than one witness.
Otherwise the answer is an abstention that says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from producer_client.contract import Answer, Hit, Point, PositionIssue, Provenance, Reason
from worker.core.geo import distance_m, weighted_centre
from worker.place.pictures import Look, is_copy

#: A vote's weight halves for every such step of similarity below the best witness.
HALF_WEIGHT_STEP = 0.03
#: No answer claims to be nearer than this: phone GPS is rarely better.
MIN_RADIUS_M = 10.0
#: Photos that a sentence names by their ids; the others it counts.
NAMED = 5

#: What hits look like, by photo id.
Looks = Mapping[int, Look]


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


@dataclass(slots=True, eq=False)
class Picture:
    """Witnesses that are one picture, the best first, who speaks for all. agrees: they claim one place; where they
    claim two, one is wrong, and nobody knows which."""

    witnesses: list[Witness]
    agrees: bool = True
    contents: set[str] = field(default_factory=set)

    @property
    def best(self) -> Witness:
        return self.witnesses[0]

    @property
    def farthest(self) -> Witness:
        return max(self.witnesses, key=lambda w: _apart_m(w, self.best))

    @property
    def error_m(self) -> float:
        """How far from the best one's point the picture may have been taken, by any of its copies."""
        return max(_apart_m(w, self.best) + (w.hit.position_error_m or 0.0) for w in self.witnesses)

    def shows(self, hit: Hit, looks: Looks) -> bool:
        """Whether the photo is a copy of any of these: a crop may be far from the best one and near to another."""
        if hit.content_sha256 in self.contents:
            return True
        look = looks.get(hit.photo_id)
        if look is None:
            return False
        others = (looks.get(w.hit.photo_id) for w in self.witnesses)
        return any(other is not None and is_copy(look, other) for other in others)

    def add(self, witnesses: Sequence[Witness], rule: Rule) -> None:
        self.witnesses += witnesses
        self.contents |= {w.hit.content_sha256 for w in witnesses} - {""}
        self.agrees = self.agrees and all(_apart_m(w, self.best) <= rule.agree_m for w in witnesses)


def answer(
    hits: Sequence[Hit], rule: Rule, *, index_count: int, looks: Looks | None = None, everywhere: bool = True
) -> Answer:
    """hits: of any provenance, in any order. index_count: photos that could have been found. looks: of photos that are
    not among these, only those with the same bytes are known for copies. everywhere: whether the hits are all there are
    but for copies of the photo itself, and not of one circle."""
    # Equally similar photos come in the order of the index, which a rebuild may change; the answer must not.
    hits = sorted(hits, key=lambda hit: (-hit.similarity, hit.photo_id))
    if index_count == 0:
        return _abstain(Reason.EMPTY_INDEX, "no photo is in the index yet", [])
    if not hits:
        only = "nothing is known but the photo itself and copies of it, which are no evidence"
        none_near = "nothing is known in this circle, but for copies of the photo itself if any, which are no evidence"
        return _abstain(Reason.NOTHING_SIMILAR, only if everywhere else none_near, [])
    if hits[0].similarity < rule.threshold:
        return _abstain(
            Reason.NOTHING_SIMILAR,
            f"nothing known looks like it: the most similar photo has {hits[0].similarity:.2f}, "
            f"{rule.threshold:.2f} is asked",
            hits[: rule.neighbours],
        )
    pictures = _pictures(hits, rule, looks or {})
    if not pictures or pictures[0].best.hit.similarity < rule.threshold:
        return _abstain(
            Reason.NO_TRUSTED_EVIDENCE,
            f"similar photos are known, but none with coordinates to trust ({_untrusted(hits, rule)})",
            hits[: rule.neighbours],
        )
    speaking, uncounted = [picture for picture in pictures if picture.agrees], _uncounted(pictures)
    if not speaking:
        return _abstain(
            Reason.NEIGHBOURS_DISAGREE,
            f"copies of one picture lie in different places{uncounted}",
            [w.hit for picture in pictures for w in (picture.best, picture.farthest)],
        )
    agreeing = max(
        ([p for p in speaking if _apart_m(p.best, centre.best) <= rule.agree_m] for centre in speaking),
        key=_votes,
    )
    share = _votes(agreeing) / _votes(speaking)
    heard = [picture.best.hit for picture in speaking]
    if share < rule.min_share:
        return _abstain(
            Reason.NEIGHBOURS_DISAGREE,
            f"similar photos lie in different places: the likeliest has {share:.0%} of the votes, "
            f"{rule.min_share:.0%} is asked{uncounted}",
            heard,
        )
    if len(agreeing) < rule.min_witnesses:
        return _abstain(
            Reason.TOO_FEW_WITNESSES,
            f"{len(agreeing)} trusted photo speaks for this place, {rule.min_witnesses} are asked{uncounted}",
            heard,
        )
    return _located(agreeing, share, uncounted)


def settled(hits: Sequence[Hit], rule: Rule, *, looks: Looks | None = None) -> bool:
    """Whether photos less similar than these could not change the answer any more."""
    pictures = _pictures(hits, rule, looks or {})
    least = pictures[0].best.hit.similarity - rule.window if pictures else rule.threshold
    return not hits or _is_full(pictures, rule) or hits[-1].similarity < least


def _pictures(hits: Sequence[Hit], rule: Rule, looks: Looks) -> list[Picture]:
    """The nearest trusted photos by the picture that they are, until enough pictures speak."""
    found: list[Picture] = []
    best = 0.0
    for hit in hits:
        if hit.provenance is None or not hit.provenance.trusted or hit.lat is None or hit.lon is None:
            continue
        best = best if found else hit.similarity
        if hit.similarity < best - rule.window or _is_full(found, rule):
            break
        witness = Witness(hit, hit.lat, hit.lon, 0.5 ** ((best - hit.similarity) / HALF_WEIGHT_STEP))
        same = [picture for picture in found if picture.shows(hit, looks)]
        if same:
            for other in same[1:]:
                same[0].add(other.witnesses, rule)
                found.remove(other)
        else:
            same = [Picture([])]
            found += same
        same[0].add([witness], rule)
    return found


def _is_full(pictures: Sequence[Picture], rule: Rule) -> bool:
    return sum(picture.agrees for picture in pictures) == rule.neighbours


def _votes(pictures: Sequence[Picture]) -> float:
    return sum(picture.best.weight for picture in pictures)


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
    copies = [w.hit.photo_id for picture in pictures if picture.agrees for w in picture.witnesses[1:]]
    torn = [w.hit.photo_id for picture in pictures if not picture.agrees for w in picture.witnesses]
    said = [f"copies: {_named(copies)}"] if copies else []
    said += [f"copies in different places: {_named(torn)}"] if torn else []
    return f" (not counted, {'; '.join(said)})" if said else ""


def _named(ids: Sequence[int]) -> str:
    first = ", ".join(map(str, ids[:NAMED]))
    if len(ids) == 1:
        return f"photo {first}"
    return f"photos {first}" if len(ids) <= NAMED else f"photos {first} and {len(ids) - NAMED} more"


def _abstain(reason: Reason, message: str, evidence: Sequence[Hit]) -> Answer:
    return Answer(status=Answer.ABSTAINED, reason=reason, message=message, evidence=list(evidence))


def _apart_m(a: Witness, b: Witness) -> float:
    return distance_m(a.lat, a.lon, b.lat, b.lon)
