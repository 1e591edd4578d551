"""Whether a generation may serve, by its exam beside a frozen baseline. Values in, values out.

docs/decisions/0033 says what holds a generation back and what does not. Knows neither generations' files nor SQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import msgspec

from worker.place.exam import Exam, Examined
from worker.place.paired import Outcome, beside, clearly_worse, outcome, places_in_common

#: Places that both exams must have asked about: with fewer to draw from, a bootstrap by place calls chance a difference
#: (Cameron, Gelbach and Miller, 2008, on few clusters).
LEAST_PLACES = 10
#: Figures that a sentence names.
NAMED = 4
#: What is compared, in a sentence.
MEASURES = (
    ("accuracy", "fewer right answers, of known places"),
    ("precision", "more wrong ones of the given answers"),
    ("coverage", "fewer answers, of known places"),
    ("false_answers", "more false answers, of places left out"),
    ("flips", "answers that were right and are not now"),
)


@dataclass(frozen=True, slots=True)
class Baseline:
    """An exam that others are compared with. generation: whose. lacking: names of its figures that could not be
    computed. No position is in it."""

    generation: int
    made_at: str
    right_m: float
    lacking: tuple[str, ...]
    outcomes: tuple[Outcome, ...]

    @classmethod
    def of(cls, exam: Exam, questions: Sequence[Examined]) -> Self:
        figures = exam.figures
        return cls(
            generation=exam.generation or 0,
            made_at=exam.made_at,
            right_m=figures.right_m,
            lacking=tuple(figures.lacking()),
            outcomes=tuple(outcome(question, figures.right_m) for question in questions),
        )

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """Raises ValueError for what is none, or of another release."""
        try:
            return msgspec.convert(kept, cls)
        except msgspec.ValidationError as exc:
            raise ValueError(f"this is no baseline: {exc}") from exc


@dataclass(frozen=True, slots=True)
class Verdict:
    """passed: None where nothing could be compared. why: a sentence. worse: names out of MEASURES. holds: the
    generation must not serve unless somebody asks for it. renews: this exam is the baseline from now on."""

    passed: bool | None
    why: str
    worse: tuple[str, ...] = ()
    holds: bool = False
    renews: bool = False

    def to_json(self) -> dict[str, Any]:
        return {"passed": self.passed, "why": self.why, "worse": list(self.worse)}


def not_examined(why: str) -> Verdict:
    return Verdict(None, f"it was not examined: {why}")


def verdict(exam: Exam, questions: Sequence[Examined], baseline: Baseline | None) -> Verdict:
    """What the exam of a new generation says beside the baseline of its model."""
    lacking = exam.figures.lacking()
    if baseline is None:
        if lacking:
            return Verdict(False, f"figures of its exam could not be computed: {_first(lacking)}")
        return Verdict(True, "its exam is the first with this model, and the baseline from now on", renews=True)
    common = places_in_common(baseline.outcomes, questions)
    if common < LEAST_PLACES:
        again = f"the baseline of generation {baseline.generation} has {common} places in common with its exam"
        if lacking:
            return Verdict(False, f"{again}, and figures could not be computed: {_first(lacking)}")
        return Verdict(None, f"{again}, too few to compare, and it is the baseline from now on", renews=True)
    lacking = {name: why for name, why in lacking.items() if name not in baseline.lacking}
    if lacking:
        return Verdict(False, f"figures of its exam could not be computed: {_first(lacking)}", holds=True)
    differences = beside(baseline.outcomes, questions, right_m=baseline.right_m)
    worse = clearly_worse(differences)
    if worse:
        named = "; ".join(words for name, words in MEASURES if name in worse)
        why = f"its exam is clearly worse than the baseline of generation {baseline.generation}: {named}"
        return Verdict(False, why, (*worse,), holds=True)
    return Verdict(
        True,
        f"its exam is no worse than the baseline of generation {baseline.generation}, by {common} places in common",
    )


def _first(lacking: Mapping[str, str]) -> str:
    """As docs/exam.md calls them; without answers a dozen lack at once."""
    names = list(lacking)
    return ", ".join(names[:NAMED] + ["..."] * (len(names) > NAMED))
