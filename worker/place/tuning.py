"""Which settings would answer better: chosen by what each answered at half of the places, proved at the other half.

Whoever takes the best of many by the questions that he tells of tells of luck (the winner's curse). So the places are
parted in two, the choice sees one half, and the gain is told by the other one, beside the present settings. Values in,
values out: knows neither photos nor how an answer is found. docs/decisions/0036 says why so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from worker.place.exam import Examined
from worker.place.gate import LEAST_PLACES, MEASURES
from worker.place.paired import MATTERS, Difference, clearly_better, clearly_worse, compared

#: The guide's threshold, and one and two tenths below and above it: a cosine says something else by each model.
THRESHOLDS = (0.55, 0.65, 0.75, 0.85, 0.95)
#: Times as many neighbours.
NEIGHBOURS = (0.5, 2.0)
#: Rungs that can be tried by questions alone, as they build upon each other. What else is switched on stays so: the
#: look for conflicts is of a whole library, and takes a rebuild.
STEPS: tuple[frozenset[str], ...] = (
    frozenset(),
    frozenset({"places"}),
    frozenset({"places", "calibration"}),
    frozenset({"places", "geometry"}),
    frozenset({"places", "geometry", "calibration"}),
)
TRIED: frozenset[str] = frozenset().union(*STEPS)
#: Of the parting in two: always the same, so that who asks twice is told the same.
SEED = 36
#: What can be gained, in a sentence.
GAINED = (
    ("accuracy", "more right answers, of known places"),
    ("precision", "fewer wrong ones of the given answers"),
    ("false_answers", "fewer false answers, of places left out"),
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Settings of an answer. rungs: that are switched on. guide: the guide's rule instead, which asks for a threshold
    alone."""

    threshold: float
    neighbours: int
    rungs: frozenset[str]
    guide: bool = False

    @property
    def weighs(self) -> bool:
        return not self.guide and "places" in self.rungs

    @property
    def compares(self) -> bool:
        return self.weighs and "geometry" in self.rungs

    @property
    def calibrated(self) -> bool:
        return self.weighs and "calibration" in self.rungs

    def moves(self, present: Candidate) -> tuple[bool, bool, int, float]:
        """How far it is from the present one, by what weighs most: the rule, the rungs, neighbours, threshold."""
        return (
            self.guide != present.guide,
            self.rungs != present.rungs,
            abs(self.neighbours - present.neighbours),
            round(abs(self.threshold - present.threshold), 6),
        )


@dataclass(frozen=True, slots=True)
class Counts:
    """Of some places. seen, unseen: questions with the place left in, and left out. answered: of the seen ones. right:
    of these. false: answers to unseen ones."""

    seen: int
    answered: int
    right: int
    unseen: int
    false: int

    @property
    def given(self) -> int:
        return self.answered + self.false

    @property
    def wrong(self) -> int:
        return self.given - self.right

    def keeps_to(self, most: float) -> bool:
        """Whether at most this share of the unseen questions is answered, and of the answers is wrong."""
        return self.false <= most * self.unseen and self.wrong <= most * self.given

    def is_no_worse_than(self, other: Counts) -> bool:
        """In what must be kept to. Both are of the same questions."""
        return self.false <= other.false and self.wrong * max(1, other.given) <= other.wrong * max(1, self.given)


@dataclass(frozen=True, slots=True)
class Tried:
    """first: at the half that chooses. second: at the other one."""

    candidate: Candidate
    first: Counts
    second: Counts


@dataclass(frozen=True, slots=True)
class Tuned:
    """tried: the best first, by the half that chooses. best: the first of them that keeps to the limits, or the present
    one. proposed: whether it is to be taken. decided: False where there are too few places to say anything. why: a
    sentence. differences: of the best one to the present one, at the other half. worse, better: names out of these.
    places: of each half. missing: places that would have to be known beside, if that would help. idle: of threshold and
    neighbours those that change no answer as long as the rungs are as they are."""

    present: Candidate
    tried: tuple[Tried, ...]
    best: Candidate
    why: str
    places: tuple[int, int]
    proposed: bool = False
    decided: bool = True
    missing: int = 0
    differences: Mapping[str, Difference] = field(default_factory=dict)
    worse: tuple[str, ...] = ()
    better: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()

    @property
    def learns_anew(self) -> bool:
        """Whether what the best one would have learnt is not what the present one has."""
        best, present = self.best, self.present
        like = [(one.calibrated, one.neighbours, one.compares) for one in (best, present)]
        return best.calibrated and like[0] != like[1]


def candidates(present: Candidate) -> list[Candidate]:
    """The present one, and what is tried beside it: every step of the rungs and the guide's rule, each with the present
    threshold and neighbours, and with one of both changed. One at a time: who has taken a proposal may ask again.

    Keypoints are kept where their rung is switched on, so without it nothing can be tried by them.
    """
    thresholds = [(threshold, present.neighbours) for threshold in (present.threshold, *THRESHOLDS)]
    numbers = [(present.threshold, max(1, round(times * present.neighbours))) for times in NEIGHBOURS]
    kept = present.rungs - TRIED
    steps = [step | kept for step in STEPS if "geometry" in present.rungs or "geometry" not in step]
    found = [Candidate(*both, rungs) for rungs in steps for both in (*thresholds, *numbers)]
    guided = [Candidate(*both, present.rungs, guide=True) for both in thresholds]
    return list(dict.fromkeys([present, *found, *guided]))


def tuned(answers: Mapping[Candidate, Sequence[Examined]], *, right_m: float, most_wrong: float) -> Tuned:
    """answers: of each candidate to the same questions; the first candidate is the present one. most_wrong: share of
    false answers, and of wrong ones among the given, within which the most right answers are looked for."""
    present = next(iter(answers))
    places = sorted({question.place for question in answers[present]})
    mixed = np.random.default_rng(SEED).permutation(places).tolist()
    halves = [set(mixed[: len(mixed) // 2]), set(mixed[len(mixed) // 2 :])]

    def counted(candidate: Candidate, half: int) -> Counts:
        return _counts([one for one in answers[candidate] if one.place in halves[half]], right_m)

    tried = {one: Tried(one, counted(one, 0), counted(one, 1)) for one in answers}

    def order(one: Tried) -> tuple[Any, ...]:
        first, candidate = one.first, one.candidate
        keeps, moves = first.keeps_to(most_wrong), candidate.moves(present)
        return not keeps, -first.right, candidate != present, first.wrong, *moves, candidate.threshold

    ranked = tuple(sorted(tried.values(), key=order))
    found = Tuned(
        present, ranked, best=present, why="", places=(len(halves[0]), len(halves[1])), idle=_idle(answers, right_m)
    )
    if len(halves[0]) < LEAST_PLACES:
        needed = 2 * LEAST_PLACES
        missing = needed - len(places)
        why = (
            f"trusted photos of {len(places)} places were asked about, and {needed} are needed to choose by one half "
            f"of them and prove it by the other: {missing} more"
        )
        return replace(found, why=why, decided=False, missing=missing)
    if not ranked[0].first.keeps_to(most_wrong):
        why = f"nothing that was tried keeps false and wrong answers within {most_wrong:.1%}"
        return replace(found, why=why)
    best = ranked[0].candidate
    if best == present:
        why = f"nothing that was tried has more right answers with no more than {most_wrong:.1%} false or wrong"
        return replace(found, why=why)
    before, after = ([one for one in answers[which] if one.place in halves[1]] for which in (present, best))
    differences = compared(before, after, right_m=right_m)
    found = replace(
        found,
        best=best,
        differences=differences,
        worse=tuple(clearly_worse(differences)),
        better=tuple(clearly_better(differences)),
    )
    return _proved(found, tried[present].second, tried[best].second, most_wrong)


# ---------------------------------------------------------------------------------------------- below


def _proved(found: Tuned, before: Counts, after: Counts, most_wrong: float) -> Tuned:
    """Whether what has chosen itself holds at the other half."""
    if found.worse:
        named = _named(MEASURES, found.worse)
        why = f"on the other half of the places it is clearly worse: {named}"
        return replace(found, why=why)
    if not after.keeps_to(most_wrong) and not after.is_no_worse_than(before):
        why = (
            f"on the other half of the places more than {most_wrong:.1%} of its answers are false or wrong, and "
            "more than of the present ones"
        )
        return replace(found, why=why)
    if found.better:
        named = _named(GAINED, found.better)
        why = f"on the other half of the places it is clearly better: {named}"
        return replace(found, why=why, proposed=True)
    missing = _missing(found.differences, found.places[1])
    if missing:
        why = (
            f"what it gains on the other half, of {found.places[1]} places, may be chance. If it is as large as "
            f"it looks, photos of {missing} more places would show it"
        )
        return replace(found, why=why, missing=missing)
    why = "on the other half of the places it gains less than one answer in a hundred"
    return replace(found, why=why)


def _idle(answers: Mapping[Candidate, Sequence[Examined]], right_m: float) -> tuple[str, ...]:
    present = next(iter(answers))

    def outcomes(candidate: Candidate) -> list[tuple[bool, bool]]:
        return [(one.located, one.right(right_m)) for one in answers[candidate]]

    found = []
    for name in ("threshold", "neighbours"):
        varied = [one for one in answers if replace(one, **{name: getattr(present, name)}) == present != one]
        found += [name] if varied and all(outcomes(one) == outcomes(present) for one in varied) else []
    return tuple(found)


def _missing(differences: Mapping[str, Difference], places: int) -> int:
    """How many more places it takes until the largest gain is clear, where it is one that would matter: an interval
    shrinks with the root of their number. By its wider side: of a few places that gain, the other one ends at 0. Half
    of the places only choose."""
    found = []
    for name, _ in GAINED:
        one = differences[name]
        if one.value is None or one.least is None or one.most is None:
            continue
        gain = -one.value if name == "false_answers" else one.value
        wide = max(one.value - one.least, one.most - one.value)
        if gain >= MATTERS:
            found.append(2 * (math.ceil(places * (wide / gain) ** 2) - places))
    return max(2, min(found)) if found else 0


def _named(measures: Sequence[tuple[str, str]], names: Sequence[str]) -> str:
    return "; ".join(words for name, words in measures if name in names)


def _counts(questions: Sequence[Examined], right_m: float) -> Counts:
    seen = [one for one in questions if one.seen]
    return Counts(
        seen=len(seen),
        answered=sum(one.located for one in seen),
        right=sum(one.located and one.right(right_m) for one in seen),
        unseen=len(questions) - len(seen),
        false=sum(one.located for one in questions if not one.seen),
    )
