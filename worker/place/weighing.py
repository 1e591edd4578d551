"""From similar photos to the likeliest place, the strongest other one, and what speaks for each. Values in, values out.

Witnesses are compared with the photo by their keypoints, as many as a budget allows and no more than can matter. Which
place is the likeliest the keypoints say where they clearly speak, and the similarities otherwise. Whether that is
answered is worker.place.judging's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from producer_client.contract import Answer, Hit
from worker.core.geo import distance_m
from worker.place import places
from worker.place.contrast import contrast
from worker.place.moments import NO_MOMENTS, Moments
from worker.place.pictures import Look
from worker.place.places import LatLon
from worker.place.rule import Rule, answer
from worker.place.strength import CHANCE, Strength, ratio, shows_it
from worker.place.witnesses import HALF_WEIGHT_STEP, Looks, Picture, pictures, speaking, without_own_copies

if TYPE_CHECKING:
    from worker.place.geometry import Seen  # brings OpenCV

#: The photo's keypoints with those of pictures of the library, in turn, until so many were compared: what was seen, by
#: photo id. None where no keypoints of a picture are known.
Compare = Callable[[Sequence[Hit], int], "Mapping[int, Seen | None]"]

#: Metres around a picture that are one place where keypoints speak: farther off is another answer. Phone GPS between
#: houses is 5 to 30 m off.
PLACE_M = 50.0
#: Pictures of one place that are compared at the most: what one does not show, from where it was taken, another may.
OF_ONE_PLACE = 3
#: How far below the most similar witness one may lie and be compared: of 300 pairs that keypoints confirmed none lay
#: farther below.
REACH = 0.26
#: Pictures that are looked at for places to compare.
MOST_CANDIDATES = 64


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Pictures of one place, those that speak for it most first, and the point that they stand for. radius_m: covers
    what they claim."""

    pictures: Sequence[Picture]
    point: LatLon
    spread_m: float
    radius_m: float

    def away_m(self, picture: Picture) -> float:
        return distance_m(*self.point, *picture.best.point)


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """votes: what the similarities alone say. best: the likeliest place, None where nobody testifies. rival: the
    picture that speaks most for another place. seen: what was compared, by photo id. lacking: pictures that were
    to be compared and have no keypoints. moments: what the camera took minutes before and after."""

    votes: Answer
    best: Place | None = None
    rival: Picture | None = None
    strength: Strength | None = None
    seen: Mapping[int, Seen] = field(default_factory=dict)
    lacking: int = 0
    moments: Moments = NO_MOMENTS


def weigh(
    hits: Sequence[Hit],
    rule: Rule,
    *,
    looks: Looks | None = None,
    own: Look | None = None,
    compare: Compare | None = None,
    index_count: int,
    everywhere: bool = True,
    moments: Moments = NO_MOMENTS,
) -> Weighed:
    """hits: of any provenance, in any order. looks: of photos that are not among these, only those with the same bytes
    are known for copies. own: of the photo that is asked about. index_count: photos that could have been found.
    everywhere: whether the hits are all there are, and not of one circle. moments: what the photo's camera took minutes
    before and after, without copies of it. Where the photo is seen to show a place where that was, what is out of its
    reach is not weighed."""
    looks = looks or {}
    votes = answer(hits, rule, looks=looks, own=own, index_count=index_count, everywhere=everywhere)
    others = without_own_copies(sorted(hits, key=lambda hit: (-hit.similarity, hit.photo_id)), looks, own)
    others = [hit for hit in others if hit.similarity >= rule.floor]
    known = pictures(others, looks, window=REACH, most=MOST_CANDIDATES, agree_m=rule.agree_m)
    candidates = [picture for picture in known if picture.agrees]
    if not candidates:
        return Weighed(votes)
    seen, lacking = _compared(candidates, rule, compare) if compare is not None else ({}, 0)
    return _weighed(candidates, rule, seen, votes=votes, lacking=lacking, moments=moments)


def enough_to_weigh(hits: Sequence[Hit], rule: Rule, *, looks: Looks | None = None, own: Look | None = None) -> bool:
    """Whether photos less similar than these would be compared with no more."""
    looks = looks or {}
    others = without_own_copies(hits, looks, own)
    known = pictures(others, looks, window=REACH, most=MOST_CANDIDATES, agree_m=rule.agree_m)
    least = known[0].best.hit.similarity - REACH if known else rule.floor
    places_of = places.parted([picture.best.point for picture in known if picture.agrees], _place_m(rule))
    pairs = sum(min(len(place), OF_ONE_PLACE) for place in places_of)
    return not hits or pairs >= rule.pairs or speaking(known) == MOST_CANDIDATES or hits[-1].similarity < least


# ---------------------------------------------------------------------------------------------- below


def _place_m(rule: Rule) -> float:
    return min(PLACE_M, rule.agree_m)


def _compared(candidates: Sequence[Picture], rule: Rule, compare: Compare) -> tuple[dict[int, Seen], int]:
    """What was seen, by photo id, and how many have no keypoints: the most similar first, and so many of one place that
    others have their turn."""
    groups = places.parted([picture.best.point for picture in candidates], _place_m(rule))
    turns = sorted(at for group in groups for at in group[:OF_ONE_PLACE])
    # What the budget has left after all places goes to more pictures of them: of a long hall all are a few places.
    turns += sorted(at for group in groups for at in group[OF_ONE_PLACE:])
    found = compare([candidates[at].best.hit for at in turns], rule.pairs)
    seen = {photo_id: one for photo_id, one in found.items() if one is not None}
    return seen, len(found) - len(seen)


def _within_reach(candidates: Sequence[Picture], seen: Mapping[int, Seen], moments: Moments) -> Sequence[Picture]:
    """All of them, unless keypoints say that one is where the camera was."""
    if not moments.photos:
        return candidates
    said = [moments.of(picture.best.point) for picture in candidates]
    found = [seen.get(picture.best.hit.photo_id) for picture in candidates]
    shown = [one is not None and shows_it(one.inliers, one.cells) for one in found]
    if not any(shows and at > 0 for shows, at in zip(shown, said, strict=True)):
        return candidates
    return [picture for picture, at in zip(candidates, said, strict=True) if at >= 0]


def _weighed(
    candidates: Sequence[Picture],
    rule: Rule,
    seen: Mapping[int, Seen],
    *,
    votes: Answer,
    lacking: int,
    moments: Moments,
) -> Weighed:
    least = 0.5 ** (rule.window / HALF_WEIGHT_STEP)
    heard = [picture for picture in candidates if picture.best.weight >= least][: rule.neighbours]
    among = _within_reach(candidates, seen, moments) if seen else heard
    near_m = _place_m(rule) if seen else rule.agree_m

    def inliers(picture: Picture) -> int:
        found = seen.get(picture.best.hit.photo_id)
        return 0 if found is None else found.inliers

    def shown(of: Sequence[Picture]) -> set[int]:
        """The photo's keypoints that any of these show too, by as many pictures of every place: the more are heard, the
        more keypoints they show by chance."""
        found = (seen.get(picture.best.hit.photo_id) for picture in strongest(of)[:OF_ONE_PLACE])
        return {at for one in found if one is not None for at in one.here.tolist()}

    def voted(of: Sequence[Picture]) -> float:
        return sum(picture.best.weight for picture in of if picture in heard)

    def strongest(of: Sequence[Picture]) -> list[Picture]:
        return sorted(of, key=lambda picture: (-inliers(picture), *_order(picture)))

    points = [picture.best.point for picture in among]
    around = [[among[at] for at in places.within(centre, points, near_m)] for centre in points]
    speaks = max(map(inliers, among)) > CHANCE
    here = strongest(
        max(around, key=(lambda place: (max(map(inliers, place)) > CHANCE, len(shown(place)))) if speaks else voted)
    )
    if speaks:
        # Where photos stand all along, a circle may hold what shows the most at its rim: what stands beside that and
        # shows the same would be another place.
        here = strongest([among[at] for at in places.within(here[0].best.point, points, near_m)])
    elsewhere = strongest([picture for picture in among if picture not in here])
    rivals = [[elsewhere[at] for at in place] for place in places.parted([p.best.point for p in elsewhere], near_m)]
    mine = shown(here)
    against = {at: contrast(mine, [shown(place)]) for at, place in enumerate(rivals)}
    hardest = min(against, key=lambda at: (against[at], -voted(rivals[at])), default=None)
    witnesses = [picture for picture in here if inliers(picture) > CHANCE] if speaks else here
    weights = [float(inliers(picture)) if speaks else picture.best.weight for picture in witnesses]
    best = _place(witnesses, weights)
    pair = seen.get(here[0].best.hit.photo_id)
    moment = moments.of(best.point)
    strength = Strength(
        similarity=max(picture.best.hit.similarity for picture in here),
        margin=max(picture.best.hit.similarity for picture in here)
        - max((picture.best.hit.similarity for picture in elsewhere), default=0.0),
        share=voted(here) / voted(heard),
        spread_m=best.spread_m,
        witnesses=len(witnesses),
        compared=len(seen),
        matches=0 if pair is None else pair.matches,
        inliers=inliers(here[0]),
        cells=0 if pair is None else pair.cells,
        contrast=contrast(mine, [shown(place) for place in rivals]),
        ratio=ratio(inliers(here[0]), inliers(elsewhere[0]) if elsewhere else 0),
        # Another camera of the model that was elsewhere says nothing.
        moment=moment if moments.one_camera else max(0, moment),
    )
    return Weighed(votes, best, None if hardest is None else rivals[hardest][0], strength, seen, lacking, moments)


def _place(witnesses: Sequence[Picture], weights: Sequence[float]) -> Place:
    points, errors_m = [p.best.point for p in witnesses], [p.error_m for p in witnesses]
    centre = places.median(points, weights)
    covered_m = max(distance_m(*centre, *p.best.point) + p.error_m for p in witnesses)
    return Place(witnesses, centre, places.spread_m(centre, points, weights, errors_m), covered_m)


def _order(picture: Picture) -> tuple[float, int]:
    return -picture.best.hit.similarity, picture.best.hit.photo_id
