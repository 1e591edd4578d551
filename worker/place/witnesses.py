"""Who testifies of a place: photos whose coordinates can be trusted, and copies of one picture as one witness.

What a photo's position counts as is decided before (worker.place.evidence); here whoever is not trusted is not heard.
Copies speak once, by the best of them, and are silent where they claim different places. A burst of one camera in one
place speaks once, too. A copy of the photo that is asked about is no witness. Values in, values out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from producer_client.contract import Hit
from worker.core.geo import distance_m
from worker.core.shot import is_burst
from worker.place.pictures import Look, is_copy

#: A vote's weight halves for every such step of similarity below the best witness.
HALF_WEIGHT_STEP = 0.03

#: What hits look like, by photo id.
Looks = Mapping[int, Look]


@dataclass(frozen=True, slots=True)
class Witness:
    hit: Hit
    lat: float
    lon: float
    weight: float

    @property
    def point(self) -> tuple[float, float]:
        return self.lat, self.lon

    def away_m(self, other: Witness) -> float:
        return distance_m(self.lat, self.lon, other.lat, other.lon)


@dataclass(slots=True, eq=False)
class Picture:
    """Witnesses that are one picture or of one burst, the best first, who speaks for all. agrees: they claim one place;
    where they claim two, one is wrong, and nobody knows which. burst: ids of those that are no copies, and were taken
    with the best one."""

    witnesses: list[Witness]
    agrees: bool = True
    contents: set[str] = field(default_factory=set)
    burst: set[int] = field(default_factory=set)

    @property
    def best(self) -> Witness:
        return self.witnesses[0]

    @property
    def farthest(self) -> Witness:
        return max(self.witnesses, key=self.best.away_m)

    @property
    def error_m(self) -> float:
        """How far from the best one's point the picture may have been taken, by any of its copies."""
        return max(w.away_m(self.best) + (w.hit.position_error_m or 0.0) for w in self.witnesses)

    def shows(self, hit: Hit, looks: Looks) -> bool:
        """Whether the photo is a copy of any of these: a crop may be far from the best one and near to another."""
        if hit.content_sha256 in self.contents:
            return True
        look = looks.get(hit.photo_id)
        if look is None:
            return False
        others = (looks.get(w.hit.photo_id) for w in self.witnesses)
        return any(other is not None and is_copy(look, other) for other in others)

    def is_burst_of(self, witness: Witness, looks: Looks, agree_m: float) -> bool:
        """Of the best one, so that a walk that is filmed is no burst of any length."""
        one, other = looks.get(self.best.hit.photo_id), looks.get(witness.hit.photo_id)
        if one is None or other is None:
            return False
        return is_burst(one.shot, self.best.point, other.shot, witness.point, agree_m=agree_m)

    def add(self, witnesses: Sequence[Witness], agree_m: float) -> None:
        self.witnesses += witnesses
        self.contents |= {w.hit.content_sha256 for w in witnesses} - {""}
        self.agrees = self.agrees and all(w.away_m(self.best) <= agree_m for w in witnesses)


def is_trusted(hit: Hit) -> bool:
    return hit.provenance is not None and hit.provenance.trusted and hit.lat is not None and hit.lon is not None


def without_own_copies(hits: Sequence[Hit], looks: Looks, own: Look | None) -> list[Hit]:
    """Those that are another picture than the photo that is asked about, as far as hash and vector tell."""
    if own is None:
        return list(hits)
    return [hit for hit in hits if (look := looks.get(hit.photo_id)) is None or not is_copy(look, own)]


def pictures(hits: Sequence[Hit], looks: Looks, *, window: float, most: int, agree_m: float) -> list[Picture]:
    """The nearest trusted photos by the picture that they are, until so many speak.

    hits: by falling similarity. window: how far below the best witness's similarity another's may lie. agree_m: farther
    apart, copies claim two places.
    """
    found: list[Picture] = []
    best = 0.0
    for hit in hits:
        if not is_trusted(hit):
            continue
        assert hit.lat is not None
        assert hit.lon is not None
        best = best if found else hit.similarity
        if hit.similarity < best - window or speaking(found) == most:
            break
        witness = Witness(hit, hit.lat, hit.lon, 0.5 ** ((best - hit.similarity) / HALF_WEIGHT_STEP))
        same = [picture for picture in found if picture.shows(hit, looks)]
        together = [] if same else [picture for picture in found if picture.is_burst_of(witness, looks, agree_m)]
        if same:
            for other in same[1:]:
                same[0].add(other.witnesses, agree_m)
                same[0].burst |= other.burst
                found.remove(other)
        elif together:
            same = together[:1]
            same[0].burst.add(hit.photo_id)
        else:
            same = [Picture([])]
            found += same
        same[0].add([witness], agree_m)
    return found


def speaking(found: Sequence[Picture]) -> int:
    return sum(picture.agrees for picture in found)
