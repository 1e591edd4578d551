"""Whether something contradicts where a photo is said to have been taken. Values in, values out.

Who is wrong is decided by numbers, never by who came first: a claim is given up where more of the evidence lies in one
other place. One against one is nobody's proof, and several wrong ones that agree are right by that measure; see
docs/decisions/0031. Knows neither files nor SQL, nor who has compared the pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from producer_client.contract import ConflictState, Doubt, Mistake, Provenance
from worker.core.conflict import Claim, Contradiction, LatLon
from worker.core.geo import distance_m, weighted_centre
from worker.place.contrast import contrast
from worker.place.strength import CHANCE, LEAST_CELLS, LEAST_INLIERS

if TYPE_CHECKING:
    from worker.place.geometry import Seen  # brings OpenCV

#: Photos that contradict one and are named, at the most.
NAMED = 8
#: Metres from where the evidence lies within which a mistake that is put right must come out. Turned signs and the like
#: are thousands of kilometres off, so it needs not be near; a place that is photographed from afar is as large.
PUT_RIGHT_M = 1_000.0
#: And by how many times nearer: at Greenwich a turned sign moves a photo by some streets, and is no news.
PUT_RIGHT_NEARER = 10
#: Pictures of one other place that must show it, one of them clearly and the others beyond chance: one may be the wrong
#: one itself.
LEAST_PICTURES = 2
#: Least contrast of that place to the photo's own, and to any other: of drawn look-alike streets that nobody had seen
#: the best reached 3.7.
LEAST_CONTRAST = 4.0
#: Nothing is said of a photo that is alone where it lies, as long as what shows the same lies nearer than this: a
#: landmark is photographed from afar.
ALONE_M = 1_000.0


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """A photo that looks like the one that is examined, the best of its picture. seen: what both show by their
    keypoints; None where they were not compared."""

    photo_id: int
    point: LatLon
    similarity: float
    error_m: float = 0.0
    seen: Seen | None = None

    @property
    def shows_it(self) -> bool:
        return self.seen is not None and self.seen.inliers >= LEAST_INLIERS and self.seen.cells >= LEAST_CELLS


def of_one_picture(claims: Sequence[Claim], doubt: Doubt, *, agree_m: float) -> list[Contradiction]:
    """Claims of one picture that cannot all hold: those that are not in the majority. Where there is none, all of them.

    A person's word goes before: what they have said of a conflict, then what came as `confirmed`.
    """
    best = max(map(_weight, claims), default=0)
    heard = [claim for claim in claims if _weight(claim) == best]
    agreeing = {claim.photo_id: [other for other in heard if _agree(claim, other, agree_m)] for claim in claims}
    found = []
    for claim in claims:
        against = [other for other in heard if not _agree(claim, other, agree_m)]
        most = max((len(agreeing[other.photo_id]) for other in against), default=0)
        if claim.state is ConflictState.CONFIRMED or len(agreeing[claim.photo_id]) > most:
            continue
        strongest = [other for other in against if len(agreeing[other.photo_id]) == most]
        together = [other for other in strongest if _agree(other, strongest[0], agree_m)]
        point = _centre(together) if len(together) == len(strongest) else None
        found.append(
            Contradiction(
                claim,
                doubt,
                others=[other.photo_id for other in strongest[:NAMED]],
                point=point,
                mistake=None if point is None else mistake_of(claim.point, point),
            )
        )
    return found


def of_one_point(claims: Sequence[Claim]) -> list[Contradiction]:
    """Photos at a point that is a default (see worker.points): each of them has the others against it."""
    named = [claim.photo_id for claim in claims[: NAMED + 1]]
    return [
        Contradiction(claim, Doubt.SHARED_POINT, [other for other in named if other != claim.photo_id][:NAMED])
        for claim in claims
        if claim.state is not ConflictState.CONFIRMED
    ]


def elsewhere(claim: Claim, sightings: Sequence[Sighting], *, agree_m: float, threshold: float) -> Contradiction | None:
    """Whether photos that lie in one other place show what this one does, and those that lie where it does not.

    sightings: of trusted photos, those of its own place too as far as they were looked at. threshold: cosine from which
    on photos count as similar where keypoints do not say it: they do so only of a mistake that explains all.
    """
    here = [one for one in sightings if _away_m(claim, one) <= agree_m + claim.error_m + one.error_m]
    far = [one for one in sightings if _away_m(claim, one) > 2 * agree_m + claim.error_m + one.error_m]
    if not far:
        return None
    places = _around_each(far, agree_m)
    showing = [place for place in places if _show_it(place)]
    against = _shown_most(claim, here, far, showing, agree_m) if showing else _similar(claim, here, places, threshold)
    if not against:
        return None
    point = _middle(against)
    mistake = mistake_of(claim.point, point)
    if mistake is None and any(one.point == claim.point for one in here):
        mistake = Mistake.OF_ANOTHER_PHOTO
    doubt = Doubt.GPS_ELSEWHERE if claim.provenance is Provenance.EXIF_GPS else Doubt.SEEN_ELSEWHERE
    return Contradiction(claim, doubt, [one.photo_id for one in against[:NAMED]], point, mistake)


def mistake_of(claimed: LatLon, there: LatLon) -> Mistake | None:
    """What, put right, would bring a claim to where the evidence lies."""
    near_m = min(PUT_RIGHT_M, distance_m(*claimed, *there) / PUT_RIGHT_NEARER)
    for mistake, (lat, lon) in _put_right(*claimed):
        if -90 <= lat <= 90 and distance_m(lat, lon, *there) <= near_m:
            return mistake
    return None


# ---------------------------------------------------------------------------------------------- below


def _shown_most(
    claim: Claim,
    here: Sequence[Sighting],
    far: Sequence[Sighting],
    showing: Sequence[Sequence[Sighting]],
    agree_m: float,
) -> list[Sighting]:
    """The photos of one other place that clearly show more of it than any third one, or explain the mistake."""
    mine = _shown(here)

    def explained(place: Sequence[Sighting]) -> bool:
        return mistake_of(claim.point, _middle(_speaking(place))) is not None and _clearer(place, mine)

    # By what they show together: of a look-alike more pictures may show some of it.
    best = max(showing, key=lambda place: (explained(place), len(_shown(place))))
    against = sorted(_speaking(best), key=lambda one: -len(_shown([one])))
    point = _middle(against)
    thirds = _around_each([one for one in far if distance_m(*one.point, *point) > 2 * agree_m], agree_m)
    known_here = any(one.seen is not None for one in here)
    if not _clearer(best, mine) or (not known_here and distance_m(*claim.point, *point) < ALONE_M):
        return []
    if not explained(best) and not all(_clearer(best, _shown(third)) for third in thirds):
        return []
    return against


def _similar(
    claim: Claim, here: Sequence[Sighting], places: Sequence[Sequence[Sighting]], threshold: float
) -> list[Sighting]:
    """The photos of one other place that are similar to it and explain the mistake."""
    best = max(places, key=lambda place: sum(one.similarity >= threshold for one in place))
    against = [one for one in best if one.similarity >= threshold]
    alike_here = any(one.similarity >= threshold or one.shows_it for one in here)
    if len(against) < LEAST_PICTURES or alike_here or mistake_of(claim.point, _middle(against)) is None:
        return []
    return against


def _around_each(sightings: Sequence[Sighting], agree_m: float) -> list[list[Sighting]]:
    return [[o for o in sightings if distance_m(*o.point, *centre.point) <= agree_m] for centre in sightings]


def _clearer(place: Sequence[Sighting], than: set[int]) -> bool:
    return contrast(_shown(place), [than]) >= LEAST_CONTRAST


def _put_right(lat: float, lon: float) -> Iterator[tuple[Mistake, LatLon]]:
    yield Mistake.LAT_SIGN, (-lat, lon)
    yield Mistake.LON_SIGN, (lat, -lon)
    yield Mistake.BOTH_SIGNS, (-lat, -lon)
    yield Mistake.SWAPPED, (lon, lat)
    yield Mistake.MINUTES_AS_DECIMALS, (_of_minutes(lat), _of_minutes(lon))


def _of_minutes(degrees: float) -> float:
    """55.419 where 55 degrees 41.9 minutes were meant."""
    whole = float(int(degrees))
    return whole + (degrees - whole) * 100 / 60


def _weight(claim: Claim) -> int:
    if claim.state is ConflictState.CONFIRMED:
        return 2
    return int(claim.provenance is Provenance.CONFIRMED)


def _agree(one: Claim, other: Claim, agree_m: float) -> bool:
    return distance_m(*one.point, *other.point) <= agree_m + one.error_m + other.error_m


def _centre(claims: Sequence[Claim]) -> LatLon:
    return weighted_centre([claim.point for claim in claims], [1.0] * len(claims))


def _away_m(claim: Claim, one: Sighting) -> float:
    return distance_m(*claim.point, *one.point)


def _show_it(place: Sequence[Sighting]) -> bool:
    return any(one.shows_it for one in place) and len(_speaking(place)) >= LEAST_PICTURES


def _speaking(place: Sequence[Sighting]) -> list[Sighting]:
    return [one for one in place if one.seen is not None and one.seen.inliers > CHANCE]


def _shown(sightings: Sequence[Sighting]) -> set[int]:
    """The photo's keypoints that any of these show, too."""
    return {at for one in sightings if one.seen is not None for at in one.seen.here.tolist()}


def _middle(sightings: Sequence[Sighting]) -> LatLon:
    return weighted_centre([one.point for one in sightings], [1.0] * len(sightings))
