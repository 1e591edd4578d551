"""Asks about the library's own trusted photos as if they were not there, and learns from the answers.

Each photo of a sample is asked about twice: without itself and its copies, and without its whole place, where any
answer is false. Hits are of the index that is examined, whether it serves or is not published yet; vectors and
keypoints are those that are stored, so that no file is read and no model runs.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import numpy as np

from producer_client.contract import Answer, Hit, Near, Reason
from worker import listed
from worker.core.circle import Places, unit_sphere, within
from worker.core.geo import distance_m
from worker.core.index_ports import Searched
from worker.core.keypoints import Keypoints
from worker.core.ports import Entries, Log, Progress, StoredKeypoints, StoredVectors
from worker.core.types import TOO_PLAIN, Entry
from worker.core.vectors import Vector
from worker.library.comparing import Comparing
from worker.library.finding import Finding
from worker.library.learning import as_learnt
from worker.library.locating import counted
from worker.library.mates import Mates
from worker.looks import found as known_keypoints
from worker.place.calibration import RIGHT_M, Calibration, Case, learnt
from worker.place.exam import Exam, Examined, Witnessed
from worker.place.judging import judge
from worker.place.measures import measured
from worker.place.moments import NO_MOMENTS
from worker.place.pictures import Look
from worker.place.places import parted
from worker.place.promised import LEAST_PLACES, TooFew, too_few_places
from worker.place.rule import Rule, settled
from worker.place.sampling import numbered, sampled
from worker.place.strength import Strength
from worker.place.weighing import Weighed, enough_to_weigh, weigh
from worker.place.witnesses import Looks
from worker.settings import PREFIX, Settings

log = logging.getLogger(__name__)

#: What comes of asking about one photo.
Answers = TypeVar("Answers")

#: Metres around a photo that are its place where that is left out: no witness beyond can make a right answer, and few
#: of those who stand there see the same.
LEFT_OUT_M = 2 * RIGHT_M
#: Metres within which other photos make a photo's surroundings dense.
DENSE_M = 100.0
#: Photos asked of the index at first, times as many each time that these are not enough, and at the most.
FIRST_HITS, WIDER, MOST_HITS = 64, 4, 4_096
#: Ranks whose distances are noted.
RANKS = 10
#: Photos between two notes of progress, and seconds after which the rest of a sample is left.
AT_ONCE, MOST_S = 16, 900.0
#: Settings that an answer depends on.
ANSWERS_DEPEND_ON = {name for name in Settings.model_fields if name.startswith("locate_")} | {"rungs", "false_answers"}
#: Of the choice of photos: always the same, so that two exams ask about the same ones as far as they can.
SEED = 16


@dataclass(frozen=True, slots=True)
class Question:
    """One that was asked. case: for learning. best: what was found, as without any calibration. timed: the same case,
    asked with what its camera took minutes before and after."""

    case: Case
    best: Examined
    timed: Case | None = None


@dataclass(frozen=True, slots=True)
class Examination:
    """What came of it. learnt: or why nothing was. photos: that were asked about, of so many trusted ones."""

    learnt: Calibration | TooFew
    questions: list[Examined]
    photos: int
    trusted: int
    seed: int
    seconds: float


def exam_of(examination: Examination, settings: Settings, model_key: str, *, generation: int | None, seq: int) -> Exam:
    """The figures of it. Raises nothing: a figure that could not be computed says why."""
    return Exam(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(examination.seconds, 3),
        model_key=model_key,
        generation=generation,
        seq=seq,
        sample=examination.photos,
        seed=examination.seed,
        figures=measured(examination.questions, right_m=RIGHT_M),
        settings={
            f"{PREFIX}{name.upper()}": listed.written(getattr(settings, name)) for name in sorted(ANSWERS_DEPEND_ON)
        },
    )


@dataclass(frozen=True, slots=True)
class Chosen:
    photo_id: int
    place: int
    density: int


class Examining:
    """keypoints: None where pictures are not compared. vectors: None where times are not."""

    def __init__(
        self,
        settings: Settings,
        model_key: str,
        dimension: int,
        *,
        rule: Rule,
        entries: Entries,
        keypoints: StoredKeypoints | None,
        change_log: Log,
        vectors: StoredVectors | None = None,
    ) -> None:
        self._settings = settings
        self._model_key = model_key
        self._dimension = dimension
        self._rule = rule
        self._entries = entries
        self._keypoints = keypoints
        self._vectors = vectors
        self._log = change_log

    def examine(self, index: Searched, note: Progress, *, photos: int, always: bool = True) -> Examination:
        """Ask about so many photos, and learn from what is found.

        always: also where it is clear beforehand that there are too few places to learn from. Raises Transient.
        """
        began = time.monotonic()
        promised = self._settings.false_answers
        chosen, trusted, places = self.chosen(photos)
        few = too_few_places(places, promised)
        if few is not None and places < LEAST_PLACES and not always:
            return Examination(few, [], 0, trusted, SEED, time.monotonic() - began)
        pairs, asked = self.ask(index, note, chosen, lambda one: [one.question(seen=True), one.question(seen=False)])
        questions = [question for pair in pairs for question in pair]
        timed = [question.timed for question in questions if question.timed is not None]
        found, judged = learnt([question.case for question in questions], timed=timed, false_answers=promised)
        examined = as_learnt([question.best for question in questions], found, judged)
        return Examination(found, examined, asked, trusted, SEED, time.monotonic() - began)

    def ask(
        self, index: Searched, note: Progress, chosen: Sequence[Chosen], each: Callable[[Asked], Answers]
    ) -> tuple[list[Answers], int]:
        """What comes of each photo that is still evidence, in their order, and how many of them there was time for.
        Raises Transient."""
        began = time.monotonic()
        finding = Finding(self._settings, self._model_key, entries=self._entries, index=index)
        found: list[Answers] = []
        asked = 0
        note("examine", 0, len(chosen))
        threads = min(self._settings.threads, len(chosen) or 1)
        with ThreadPoolExecutor(threads, thread_name_prefix="examine") as pool:
            while asked < len(chosen) and time.monotonic() - began < MOST_S:
                some = chosen[asked : asked + AT_ONCE]
                found += [one for one in pool.map(partial(self._ask, finding, each), some) if one is not None]
                asked += len(some)
                note("examine", asked, len(chosen))
        return found, asked

    def chosen(self, photos: int) -> tuple[list[Chosen], int, int]:
        """Photos to ask about, of how many trusted ones, at how many places."""
        with self._log.snapshot(self._model_key, self._dimension) as snapshot:
            parts = [
                (part.ids[part.trusted], part.lat[part.trusted], part.lon[part.trusted]) for part in snapshot.facts()
            ]
        ids = np.concatenate([part[0] for part in parts] or [np.zeros(0, dtype=np.int64)])
        known: Places = np.stack([np.concatenate([part[axis] for part in parts] or [np.zeros(0)]) for axis in (1, 2)])
        placed = ~np.isnan(known).any(axis=0)
        ids, known = ids[placed], known[:, placed]
        cells = numbered(known[0], known[1], RIGHT_M)
        sphere = unit_sphere(known)
        sample = sampled(cells, ids, photos, SEED).tolist()
        points = [(float(known[0, at]), float(known[1, at])) for at in sample]
        # A cell's border may part what is one place: among the few that are asked about places are told exactly.
        place_of = {at: place for place, group in enumerate(parted(points, RIGHT_M)) for at in group}
        chosen = []
        for at, (photo_id, point) in enumerate(zip(ids[sample].tolist(), points, strict=True)):
            around = within(Near(*point, DENSE_M), known, sphere)
            chosen.append(Chosen(photo_id, place_of[at], int(np.count_nonzero(around)) - 1))
        return chosen, len(ids), len(set(place_of.values()))

    # ---------------------------------------------------------------------------------------- below

    def _ask(self, finding: Finding, each: Callable[[Asked], Answers], chosen: Chosen) -> Answers | None:
        """Nothing where the photo is gone or is no evidence any more."""
        entry, vector = self._entries.known([chosen.photo_id], self._model_key).get(chosen.photo_id, (None, None))
        if entry is None or vector is None or not self._is_trusted(entry):
            return None
        if entry.picture_hash == TOO_PLAIN:
            # Whoever asks about it is told that it shows no place.
            return None
        own = None
        if self._keypoints is not None:
            own = self._keypoints.known([entry.content_sha256]).get(entry.content_sha256)
            if own is None:
                # Whoever asks about a file is answered by its keypoints; this one's are still to be found.
                return None
        mates = None if self._vectors is None else Mates(finding, self._vectors)
        return each(Asked(chosen, finding, self._rule, self._entries, entry, vector, own, self._keypoints, mates))

    def _is_trusted(self, entry: Entry) -> bool:
        provenance, _ = counted(entry, self._settings)
        return provenance is not None and provenance.trusted and entry.lat is not None and entry.lon is not None


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
        self._moments = NO_MOMENTS if mates is None else mates.of(self._own, exclude=self._exclude)
        self._hits: list[Hit] = []
        self._looks: Looks = {}
        self._count = 0
        self._k = 0

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
            all_there = self._k > 0 and len(self._hits) < self._k
            if self._k and (
                all_there
                or self._k >= MOST_HITS
                or (hits and self._is_enough(hits, self._rule, looks=self._looks, own=self._own))
            ):
                return hits
            self._k = WIDER * self._k or FIRST_HITS
            self._hits, found, self._looks = self._finding.hits(
                self._vector, k=self._k, threshold=-1.0, among=None, exclude=self._exclude, drop_copies=True
            )
            self._count = found.count

    def _away_m(self, hit: Hit) -> float:
        return math.inf if hit.lat is None or hit.lon is None else distance_m(*self.truth, hit.lat, hit.lon)

    def _at_its_place(self, hit: Hit) -> bool:
        return self._away_m(hit) <= LEFT_OUT_M

    def case(self, weighed: Weighed, seen: bool) -> Case:
        best, strength = weighed.best, weighed.strength
        if best is None or strength is None or (weighed.lacking and not strength.compared):
            return Case(None, math.inf, 0.0, self.chosen.place, seen)
        return Case(strength, distance_m(*self.truth, *best.point), best.spread_m, self.chosen.place, seen)

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
