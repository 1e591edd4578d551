"""Asks about the library's own trusted photos as if they were not there, and learns from the answers.

How one is asked about is worker.library.asking's to say. Hits are of the index that is examined, whether it serves or
is not published yet; vectors and keypoints are those that are stored, so that no file is read and no model runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import numpy as np

from producer_client.contract import Near
from worker import listed
from worker.core.circle import Places, unit_sphere, within
from worker.core.index_ports import Searched
from worker.core.ports import Entries, Log, Progress, StoredKeypoints, StoredVectors
from worker.core.types import TOO_PLAIN, Entry
from worker.library.asking import Asked, Chosen
from worker.library.finding import Finding
from worker.library.learning import as_learnt
from worker.library.locating import counted
from worker.library.mates import Mates
from worker.place.calibration import RIGHT_M, Calibration, learnt
from worker.place.exam import Exam, Examined
from worker.place.measures import measured
from worker.place.places import parted
from worker.place.promised import LEAST_PLACES, TooFew, too_few_places
from worker.place.rule import Rule
from worker.place.sampling import numbered, sampled
from worker.settings import PREFIX, Settings

#: What comes of asking about one photo.
Answers = TypeVar("Answers")

#: Metres within which other photos make a photo's surroundings dense.
DENSE_M = 100.0
#: Photos between two notes of progress, and seconds after which the rest of a sample is left.
AT_ONCE, MOST_S = 16, 900.0
#: Settings that an answer depends on.
ANSWERS_DEPEND_ON = {name for name in Settings.model_fields if name.startswith("locate_")} | {"rungs", "false_answers"}
#: Of the choice of photos: always the same, so that two exams ask about the same ones as far as they can.
SEED = 16


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
