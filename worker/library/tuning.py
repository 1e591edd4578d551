"""Asks about known photos by other settings too, and says which would answer better. Changes nothing.

Of each photo one search and one comparison of pictures serve all settings; what they weigh otherwise is cheap. What a
candidate would have learnt is learnt from its own cases, as an exam does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from producer_client.contract import Answer, Reason
from worker import listed
from worker.core.index_ports import Searched
from worker.core.ports import Entries, Log, Progress, StoredKeypoints
from worker.library.asking import Asked, Question
from worker.library.examining import Examining
from worker.library.learning import as_learnt
from worker.library.locating import rule_of
from worker.place import rule as votes
from worker.place.calibration import RIGHT_M, Calibration, Judged, learnt
from worker.place.exam import Examined
from worker.place.guide import by_guide
from worker.place.judging import judge
from worker.place.promised import TooFew
from worker.place.tuning import Candidate, Tuned, candidates, tuned
from worker.place.weighing import Weighed, weigh
from worker.settings import PREFIX, Rung, Settings

#: In which order rungs are written.
RUNGS: tuple[str, ...] = get_args(Rung)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What came of it. photos: that were asked about, of so many trusted ones."""

    found: Tuned
    photos: int
    trusted: int
    seconds: float


def present(settings: Settings) -> Candidate:
    return Candidate(settings.locate_threshold, settings.locate_neighbours, frozenset(settings.rungs))


def ordered(rungs: frozenset[str]) -> tuple[str, ...]:
    """As they build upon each other."""
    return tuple(sorted(rungs, key=RUNGS.index))


def to_change(candidate: Candidate, before: Candidate) -> dict[str, str]:
    """Variables of the environment that are to have other values. The guide's rule is asked for by callers, and is no
    setting."""
    values: dict[str, tuple[Any, Any]] = {
        "locate_threshold": (candidate.threshold, before.threshold),
        "locate_neighbours": (candidate.neighbours, before.neighbours),
        "rungs": (ordered(candidate.rungs), ordered(before.rungs)),
    }
    return {f"{PREFIX}{name.upper()}": listed.written(now) for name, (now, was) in values.items() if now != was}


class Tuner:
    """keypoints: None where pictures are not compared."""

    def __init__(
        self,
        settings: Settings,
        model_key: str,
        dimension: int,
        *,
        entries: Entries,
        keypoints: StoredKeypoints | None,
        change_log: Log,
    ) -> None:
        self._settings = settings
        self._rule = rule_of(settings)
        self._candidates = candidates(present(settings))
        most = max(one.neighbours for one in self._candidates)
        # Hits that are enough for this one are enough for all: where pictures are compared, those of `most` pairs are
        # the witnesses of any smaller number.
        widest = replace(
            self._rule,
            threshold=min(one.threshold for one in self._candidates),
            neighbours=most,
            pairs=max(most, self._rule.pairs),
        )
        self._examining = Examining(
            settings,
            model_key,
            dimension,
            rule=widest,
            entries=entries,
            keypoints=keypoints,
            change_log=change_log,
        )

    def tune(self, index: Searched, note: Progress, *, photos: int) -> Tuning:
        """Ask about so many photos by each candidate's settings. Raises Transient."""
        began = time.monotonic()
        chosen, trusted, _ = self._examining.chosen(photos)
        asked, count = self._examining.ask(index, note, chosen, self._answers)
        questions = [one for pair in asked for one in pair]
        said = self._settings.false_answers
        found = tuned(self._as_learnt(questions, said), right_m=RIGHT_M, most_wrong=said)
        return Tuning(found, count, trusted, time.monotonic() - began)

    # ---------------------------------------------------------------------------------------- below

    def _answers(self, asked: Asked) -> list[dict[Candidate, Question]]:
        return [self._by_each(asked, seen) for seen in (True, False)]

    def _by_each(self, asked: Asked, seen: bool) -> dict[Candidate, Question]:
        hits, about = asked.hits(seen), asked.about
        kept: dict[tuple[int, bool], Weighed] = {}
        voted: dict[tuple[float, int], Answer] = {}
        found: dict[Candidate, Question] = {}
        for one in self._candidates:
            rule = replace(self._rule, threshold=one.threshold, neighbours=one.neighbours)
            if one.guide:
                found[one] = _question(asked, seen, by_guide(hits, one.threshold))
                continue
            # The threshold is asked for by the votes alone.
            by, like = (one.threshold, one.neighbours), (one.neighbours, one.compares)
            if by not in voted:
                voted[by] = votes.answer(hits, rule, **about)
            if not one.weighs:
                found[one] = _question(asked, seen, voted[by])
                continue
            if like not in kept:
                kept[like] = weigh(hits, rule, compare=asked.compare if one.compares else None, **about)
            weighed = replace(kept[like], votes=voted[by])
            found[one] = _question(asked, seen, judge(weighed), weighed)
        return found

    def _as_learnt(
        self, questions: Sequence[Mapping[Candidate, Question]], said: float
    ) -> dict[Candidate, list[Examined]]:
        learnt_by: dict[tuple[int, bool], tuple[Calibration | TooFew, list[Judged]]] = {}
        found = {}
        for one in self._candidates:
            answers = [by_each[one].best for by_each in questions]
            if one.calibrated:
                like = (one.neighbours, one.compares)
                if like not in learnt_by:
                    learnt_by[like] = learnt([by_each[one].case for by_each in questions], false_answers=said)
                answers = as_learnt(answers, *learnt_by[like])
            found[one] = answers
        return found


def _question(asked: Asked, seen: bool, answer: Answer, weighed: Weighed | None = None) -> Question:
    """weighed: None where the answer is all there is."""
    weighed = Weighed(answer) if weighed is None else weighed
    best, told = weighed.best, answer.point
    examined = Examined(
        photo_id=asked.entry.photo_id,
        seen=seen,
        place=asked.chosen.place,
        lat=asked.truth[0],
        lon=asked.truth[1],
        provenance="",
        density=asked.chosen.density,
        located=answer.located,
        reason=None if answer.located else (answer.reason or Reason.UNVERIFIED).value,
        point=best.point if best is not None else None if told is None else (told.lat, told.lon),
        # The guide's rule names no radius, and a cosine for confidence.
        radius_m=answer.radius_m or 0.0,
        confidence=min(max(answer.confidence or 0.0, 0.0), 1.0),
    )
    return Question(asked.case(weighed, seen), examined)
