"""One of the library's own photos, asked about as if it was not there: without itself, its copies and its burst, and
without its whole place, where any answer is false.

Knows no sample and nothing of what is learnt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from producer_client.contract import Answer, Hit, Reason
from worker.core.geo import distance_m
from worker.core.keypoints import Keypoints
from worker.core.ports import Entries, StoredKeypoints
from worker.core.shot import is_burst
from worker.core.types import Entry
from worker.core.vectors import Vector
from worker.library.comparing import Comparing
from worker.library.finding import Finding
from worker.library.mates import Mates
from worker.looks import found as known_keypoints
from worker.place.calibration import RIGHT_M, Case
from worker.place.exam import Examined, Witnessed
from worker.place.judging import judge
from worker.place.moments import NO_MOMENTS
from worker.place.pictures import Look
from worker.place.rule import Rule, settled
from worker.place.strength import Strength
from worker.place.weighing import Weighed, enough_to_weigh, weigh
from worker.place.witnesses import Looks, is_trusted, without_own_copies

#: Metres around a photo that are its place where that is left out: no witness beyond can make a right answer, and few
#: of those who stand there see the same.
LEFT_OUT_M = 2 * RIGHT_M
#: Photos asked of the index at first, times as many each time that these are not enough, and at the most.
FIRST_HITS, WIDER, MOST_HITS = 64, 4, 4_096
#: Ranks whose distances are noted.
RANKS = 10


@dataclass(frozen=True, slots=True)
class Question:
    """One that was asked. case: for learning. best: what was found, as without any calibration. timed: the same case,
    asked with what its camera took minutes before and after."""

    case: Case
    best: Examined
    timed: Case | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    photo_id: int
    place: int
    density: int


class Asked:
    """One photo, asked about in two ways: what is found and compared once serves both."""

    def __init__(
        self,
        chosen: Chosen,
        finding: Finding,
        rule: Rule,
        entries: Entries,
        entry: Entry,
        vector: Vector,
        keypoints: Keypoints | None,
        stored: StoredKeypoints | None,
        mates: Mates | None,
    ) -> None:
        assert entry.lat is not None
        assert entry.lon is not None
        self.chosen, self.entry = chosen, entry
        self._finding, self._rule, self._vector = finding, rule, vector
        # The photo's own place apart, both questions are about the same pictures: each is compared once.
        self.compare = None if stored is None else Comparing(stored, known_keypoints(keypoints))
        self._is_enough = settled if keypoints is None else enough_to_weigh
        self.truth = (entry.lat, entry.lon)
        self._own = Look(vector, entry.picture_hash, entry.shot)
        own_id = np.array([entry.photo_id], dtype=np.int64)
        self._exclude = np.union1d(entries.ids_with_content(entry.content_sha256), own_id)
        self._moments = NO_MOMENTS
        if mates is not None:
            self._moments = mates.of(self._own, exclude=self._exclude, left_out=self._is_of_its_burst)
        self._hits: list[Hit] = []
        self._looks: Looks = {}
        self._count = 0
        self._k = 0
        self._all_there = False

    def question(self, *, seen: bool) -> Question:
        hits = self.hits(seen)
        weighed = weigh(hits, self._rule, compare=self.compare, **self.about)
        case = timed = self.case(weighed, seen)
        photos = [hit for hit in self._moments.photos if seen or not self._at_its_place(hit)]
        if photos:
            moments = replace(self._moments, photos=photos)
            timed = self.case(weigh(hits, self._rule, compare=self.compare, moments=moments, **self.about), seen)
        return Question(case, self._examined(weighed, hits, seen), timed)

    @property
    def about(self) -> dict[str, Any]:
        """What answers depend on beside the hits, which are asked for first."""
        return {"looks": self._looks, "own": self._own, "index_count": self._count}

    def hits(self, seen: bool) -> list[Hit]:
        """As many as the rule needs."""
        while True:
            hits = self._hits if seen else [hit for hit in self._hits if not self._at_its_place(hit)]
            if self._k and (
                self._all_there
                or self._k >= MOST_HITS
                or (hits and self._is_enough(hits, self._rule, looks=self._looks, own=self._own))
            ):
                return hits
            self._k = WIDER * self._k or FIRST_HITS
            nearest, found, self._looks = self._finding.hits(
                self._vector, k=self._k, threshold=-1.0, among=None, exclude=self._exclude, drop_copies=True
            )
            self._hits = [hit for hit in nearest if not self._is_of_its_burst(hit, self._looks[hit.photo_id])]
            self._count, self._all_there = found.count, len(nearest) < self._k

    def _is_of_its_burst(self, hit: Hit, look: Look) -> bool:
        """Frames of its own burst have its fix: they would say that it is found again, whether or not that is right."""
        if hit.lat is None or hit.lon is None:
            return False
        there = hit.lat, hit.lon
        return is_burst(self._own.shot, self.truth, look.shot, there, agree_m=self._rule.agree_m)

    def _away_m(self, hit: Hit) -> float:
        return math.inf if hit.lat is None or hit.lon is None else distance_m(*self.truth, hit.lat, hit.lon)

    def _at_its_place(self, hit: Hit) -> bool:
        return self._away_m(hit) <= LEFT_OUT_M

    def case(self, weighed: Weighed, seen: bool) -> Case:
        best, strength = weighed.best, weighed.strength
        there = [hit for hit in self._hits if is_trusted(hit) and self._away_m(hit) <= RIGHT_M]
        alone = not without_own_copies(there, self._looks, self._own)
        if best is None or strength is None or (weighed.lacking and not strength.compared):
            return Case(None, math.inf, 0.0, self.chosen.place, seen, alone)
        return Case(strength, distance_m(*self.truth, *best.point), best.spread_m, self.chosen.place, seen, alone)

    def _examined(self, weighed: Weighed, hits: Sequence[Hit], seen: bool) -> Examined:
        answer, best, strength = judge(weighed), weighed.best, weighed.strength
        evidence = best.pictures[0].best.hit if best is not None else None
        rival = weighed.rival.best.hit if weighed.rival is not None else None
        entry, chosen = self.entry, self.chosen
        placed = best is not None and strength is not None
        return Examined(
            photo_id=entry.photo_id,
            seen=seen,
            place=chosen.place,
            lat=self.truth[0],
            lon=self.truth[1],
            provenance="" if entry.provenance is None else entry.provenance.value,
            density=chosen.density,
            located=placed and answer.located,
            reason=None if placed and answer.located else (answer.reason or Reason.UNVERIFIED).value,
            point=best.point if best is not None and placed else None,
            radius_m=(answer.radius_m or round(best.radius_m, 1)) if best is not None and placed else None,
            confidence=_plain_confidence(answer, strength) if placed and strength is not None else None,
            neighbours_m=tuple(away for hit in hits if (away := self._away_m(hit)) < math.inf)[:RANKS],
            path=entry.path,
            evidence=self._witnessed(evidence, weighed),
            contrary=self._witnessed(rival, weighed),
        )

    def _witnessed(self, hit: Hit | None, weighed: Weighed) -> Witnessed | None:
        if hit is None:
            return None
        seen = weighed.seen.get(hit.photo_id)
        return Witnessed(
            hit.photo_id, round(self._away_m(hit), 1), hit.path, hit.similarity, None if seen is None else seen.inliers
        )


def _plain_confidence(answer: Answer, strength: Strength) -> float:
    """What orders answers that no calibration judges."""
    if answer.located and answer.confidence is not None:
        return answer.confidence
    return round(strength.clearness, 4) if strength.compared else strength.share
