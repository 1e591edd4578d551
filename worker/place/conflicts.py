"""Whether something contradicts where a photo is said to have been taken. Values in, values out.

Who is wrong is decided by numbers, never by who came first: a claim is given up where more of the evidence lies in one
other place. One against one is nobody's proof, and several wrong ones that agree are right by that measure; see
docs/decisions/0031. Knows neither files nor SQL, nor who has compared the pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from producer_client.contract import ConflictState, Doubt, Mistake, Provenance
from worker.core.conflict import Claim, Contradiction, LatLon
from worker.core.geo import distance_m, weighted_centre

#: Photos that contradict one and are named, at the most.
NAMED = 8
#: Metres from where the evidence lies within which a mistake that is put right must come out. Turned signs and the like
#: are thousands of kilometres off, so it needs not be near; a place that is photographed from afar is as large.
PUT_RIGHT_M = 1_000.0


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


def mistake_of(claimed: LatLon, there: LatLon) -> Mistake | None:
    """What, put right, would bring a claim to where the evidence lies."""
    for mistake, (lat, lon) in _put_right(*claimed):
        if -90 <= lat <= 90 and distance_m(lat, lon, *there) <= PUT_RIGHT_M:
            return mistake
    return None


# ---------------------------------------------------------------------------------------------- below


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
