"""What evidence is worth, learnt from photos whose truth is known: a probability that holds, and when to keep silent.

Cases come from a library's own photos, each asked about as if it were not there: once as it is, and once with its whole
place left out, where every answer is false. From them: a logistic model of "the answer is at the right place", whose
cases are judged by models that have seen nothing of their place; the probability beyond which an answer is given; and
the radius within which nine of ten right answers lie. docs/decisions/0030 says what is promised, and to whom.

Knows neither photos nor how evidence is found.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from worker.place.promised import LEAST_PLACES, TooFew, quantile, tested, too_few_places, weights_of
from worker.place.strength import NAMES, Strength

#: An answer farther off than this is another place, and not a worse point of the same: what two phones state of one
#: street corner is up to 20 or 30 m off each.
RIGHT_M = 50.0
#: Places are parted into so many groups; each is judged by a model that has seen none of it.
GROUPS = 5
#: Share of right answers that lie within the stated radius.
COVERED = 0.9
#: No radius claims more than phone GPS gives.
LEAST_RADIUS_M = 10.0
#: What is as likely wrong as right is no answer, also where the promise would bear a few such.
LEAST_PROBABILITY = 0.5
#: Right answers which no odds are learnt: some for each of a few features.
LEAST_CASES = 20
#: Distances whose probability is told (25 m, 100 m and 1 km are those that maps and papers ask for).
LEVELS_M = (25.0, 100.0, 1_000.0)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Case:
    """A question whose truth is known.

    strength: of the best place's evidence; None where nothing was found that could be answered. error_m: from the truth
    to the point that would be the answer, infinite where there is none. spread_m: of the witnesses around it. place: a
    number that questions about one place share. seen: the place was left in. alone: but nobody was there to find.
    """

    strength: Strength | None
    error_m: float
    spread_m: float
    place: int
    seen: bool
    alone: bool = False

    @property
    def right(self) -> bool:
        return self.seen and self.strength is not None and self.error_m <= RIGHT_M


@dataclass(frozen=True, slots=True)
class Judged:
    """What would have been answered to a case, by a model that has seen nothing of its place. probability: that the
    place is right. confidence: that the truth lies within radius_m. Without a point all are 0."""

    case: Case
    probability: float
    confidence: float
    radius_m: float
    answered: bool


@dataclass(frozen=True, slots=True)
class Calibration:
    """names: of the features, in their order. surest: a probability claims no more than so many cases can show.
    least: nothing is answered up to this probability; 1 where nothing can be. least_timed: nor up to this one where the
    camera's other photos speak for the place. unproven: what lacks to promise anything; until then answers are given by
    verified evidence alone, and only where what was learnt does not speak against it. radius_factor: radius by spread.
    covered: share of right answers within their radius. near: of right answers, and of wrong ones, the share within
    each of LEVELS_M. false_answers: the share that was promised. cases, places: from how many it was learnt."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    bias: float
    surest: float
    least: float
    radius_factor: float
    covered: float
    near: tuple[tuple[float, float], ...]
    false_answers: float
    cases: int
    places: int
    unproven: TooFew | None = None
    least_timed: float = 0.0

    def __post_init__(self) -> None:
        figures = [*self.weights, self.bias, self.radius_factor, *(share for both in self.near for share in both)]
        shares = [self.surest, self.least, self.covered, self.false_answers]
        if not all(map(math.isfinite, figures)) or not all(0 < share <= 1 for share in shares):
            raise ValueError("a calibration of figures that are no numbers, or shares beyond 1")
        if len(self.weights) != len(self.names) or len(self.near) != len(LEVELS_M):
            raise ValueError("a calibration with more weights than features, or fewer")

    def probability(self, strength: Strength) -> float:
        """That the answer is at the right place; never 0 or 1."""
        return self.of(strength.features())

    def of(self, features: Sequence[float]) -> float:
        odds = self.bias + float(np.dot(self.weights, features))
        share = 1.0 / (1.0 + math.exp(-min(max(odds, -30.0), 30.0)))
        return min(max(share, 1 - self.surest), self.surest)

    def answers(self, strength: Strength) -> bool:
        return self.may_answer(strength) and self.probability(strength) > self.least_for(strength)

    def least_for(self, strength: Strength) -> float:
        """The probability up to which nothing like this is answered."""
        return max(self.least, self.least_timed) if strength.moment > 0 else self.least

    def may_answer(self, strength: Strength | None) -> bool:
        return is_answerable(strength) if self.unproven is None else strength is not None and strength.verified

    def confidence(self, strength: Strength) -> float:
        """That the truth lies within the radius: the right place, and no farther from the point than most."""
        return self.probability(strength) * self.covered

    def radius_m(self, spread_m: float) -> float:
        return max(LEAST_RADIUS_M, self.radius_factor * max(spread_m, LEAST_RADIUS_M))

    def within(self, strength: Strength, spread_m: float) -> dict[float, float]:
        """Of each of LEVELS_M the probability that the truth is no farther from the point. None denies what is said of
        the radius."""
        right, radius_m, inside = self.probability(strength), self.radius_m(spread_m), self.confidence(strength)
        shares = {m: right * here + (1 - right) * there for m, (here, there) in zip(LEVELS_M, self.near, strict=True)}
        return {m: max(share, inside) if m >= radius_m else min(share, inside) for m, share in shares.items()}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """Raises ValueError for what is none, or speaks of other evidence than this release has."""
        found = msgspec.convert(kept, cls)
        if found.names != NAMES:
            raise ValueError(f"learnt from {', '.join(found.names)}; this release has {', '.join(NAMES)}")
        return found


def calibrated(cases: Sequence[Case], *, false_answers: float) -> Calibration | TooFew:
    """What was learnt from these, with a promise kept for new places like them. false_answers: see _least."""
    return learnt(cases, false_answers=false_answers)[0]


def learnt(
    cases: Sequence[Case], *, false_answers: float, timed: Sequence[Case] = ()
) -> tuple[Calibration | TooFew, list[Judged]]:
    """The same, and what would have been answered to each, in their order; none where nothing was learnt.

    timed: the same questions, asked with what their cameras took minutes before and after. Nothing is learnt from them
    but when to keep silent: whoever asks without such photos is answered as if there were none, and a library added by
    trips would teach that all places are right that the camera was at, as those that are left out take them along.
    """
    asked = [*cases, *timed]
    found = [at for at, case in enumerate(asked) if case.strength is not None]
    features = np.array([_features(asked[at]) for at in found], dtype=np.float64).reshape(len(found), len(NAMES))
    all_right = np.array([case.right for case in asked], dtype=np.bool_)
    right = all_right[: len(cases)]
    teaches = np.array(found, dtype=np.int64) < len(cases)
    places = len({case.place for case in cases if not case.seen})
    few = too_few_places(places, false_answers)
    few_right = _too_few_right(int(right.sum()))
    if few_right is not None:
        return _only_a_veto(cases, few or few_right, false_answers)
    if few is not None and places < LEAST_PLACES:
        return few, []
    groups = _groups(cases, asked)
    all_scores, of_found = np.zeros(len(asked)), np.zeros(len(found))
    for group in range(GROUPS):
        inside = groups[found] == group
        taught = teaches & ~inside
        weights, bias = _fitted(features[taught], all_right[found][taught])
        of_found[inside] = 1.0 / (1.0 + np.exp(-np.clip(features[inside] @ weights + bias, -30, 30)))
    surest = 1 - 1 / (len(cases) + 2)
    all_scores[found] = of_found.clip(1 - surest, surest)
    scores = all_scores[: len(cases)]
    answerable = np.array([is_answerable(case.strength) for case in cases], dtype=np.bool_)
    least, few_shown = _least(cases, np.where(answerable, scores, 0.0), right, false_answers)
    weights, bias = _fitted(features[teaches], all_right[found][teaches])
    given = right & answerable & (scores > least)
    factor, covered = _radius(cases, given if given.sum() >= LEAST_CASES else right)
    calibration = Calibration(
        names=NAMES,
        weights=tuple(weights.tolist()),
        bias=bias,
        surest=surest,
        least=least,
        radius_factor=factor,
        covered=covered,
        near=_near(cases, right),
        false_answers=false_answers,
        cases=len(cases),
        places=len({case.place for case in cases}),
        unproven=few or few_shown,
        least_timed=_least_timed(timed, all_scores[len(cases) :], all_right[len(cases) :], false_answers),
    )
    return calibration, [_judged(case, score, calibration) for case, score in zip(cases, scores.tolist(), strict=True)]


def proven(learnt: Calibration | TooFew) -> Calibration | TooFew:
    """What was learnt, where that is enough for the promise, else what lacks."""
    return learnt if isinstance(learnt, TooFew) else learnt.unproven or learnt


def _judged(case: Case, score: float, by: Calibration) -> Judged:
    if case.strength is None:
        return Judged(case, 0.0, 0.0, 0.0, False)
    answered = by.may_answer(case.strength) and score > by.least_for(case.strength)
    return Judged(case, score, score * by.covered, by.radius_m(case.spread_m), answered)


def is_answerable(strength: Strength | None) -> bool:
    """Whether there is anything to be sure of: where pictures were compared, one must show the same, whatever the odds
    of those that do not."""
    return strength is not None and (strength.is_seen or not strength.compared)


def _features(case: Case) -> list[float]:
    assert case.strength is not None
    return case.strength.features()


def _only_a_veto(cases: Sequence[Case], few: TooFew, false_answers: float) -> tuple[Calibration | TooFew, list[Judged]]:
    """Too few are right to learn odds from. Where verified evidence led astray more often than not, that is known of it
    all the same, and it is no answer. Of places where nobody else was nothing is known so: it cannot be right."""
    known = {case.place for case in cases if case.seen and not case.alone}
    counted = [case for case in cases if case.place in known and case.strength is not None and case.strength.verified]
    right = np.array([case.right for case in counted], dtype=np.bool_)
    if len(known) < LEAST_PLACES or right.sum() >= len(right) / 2:
        return few, []
    share = _share(right)
    calibration = Calibration(
        names=NAMES,
        weights=(0.0,) * len(NAMES),
        bias=math.log(share / (1 - share)),
        surest=1 - 1 / (len(cases) + 2),
        least=LEAST_PROBABILITY,
        radius_factor=1.0,
        covered=COVERED,
        near=_near(cases, np.array([case.right for case in cases], dtype=np.bool_)),
        false_answers=false_answers,
        cases=len(cases),
        places=len({case.place for case in cases}),
        unproven=few,
    )
    return calibration, [_judged(case, share, calibration) for case in cases]


def _too_few_right(rights: int) -> TooFew | None:
    if rights >= LEAST_CASES:
        return None
    return TooFew(
        LEAST_CASES - rights,
        f"{rights} trusted photos were found again at their place when they were left out, and {LEAST_CASES} are "
        f"needed to learn from: {LEAST_CASES - rights} more",
    )


def _least(cases: Sequence[Case], scores: Floats, right: Flags, false_answers: float) -> tuple[float, TooFew | None]:
    """The probability up to which nothing is answered, by two rules; the stricter one holds, and LEAST_PROBABILITY. And
    what lacks for the second one to show anything.

    Of questions about places that nobody knows, and are like those that were left out, at most the share is answered,
    whatever the model is worth: conformal prediction with whole places as its sample (Lee, Barber and Willett,
    Distribution-free inference with hierarchical data, 2023). And of the answers given, where half of the questions
    are about such places, at most the share is wrong, but for one library in ten (Angelopoulos et al., Learn then
    Test, 2021). Every place counts as much as any other, however many photos it has.
    """
    unseen = np.array([not case.seen for case in cases])
    silent = quantile(scores[unseen], [case.place for case in cases if not case.seen], 1 - false_answers)
    shown = tested(scores, ~right, weights_of([case.place for case in cases]), false_answers)
    if isinstance(shown, TooFew):
        return max(silent, LEAST_PROBABILITY), shown
    return max(silent, shown, LEAST_PROBABILITY), None


def _least_timed(timed: Sequence[Case], scores: Floats, right: Flags, false_answers: float) -> float:
    """By the same two rules, as far as there are enough of those whose place the camera was at."""
    there = [case.strength is not None and case.strength.moment > 0 and is_answerable(case.strength) for case in timed]
    if not any(there):
        return 0.0
    least, _ = _least(timed, np.where(there, scores, 0.0), right, false_answers)
    return least


def _radius(cases: Sequence[Case], which: Flags) -> tuple[float, float]:
    """Radius by spread, and the share of these that it covers, as of one more."""
    chosen = [case for case, taken in zip(cases, which.tolist(), strict=True) if taken]
    factors = np.array([case.error_m / max(case.spread_m, LEAST_RADIUS_M) for case in chosen])
    factor = quantile(factors, [case.place for case in chosen], COVERED)
    radii = np.array([max(LEAST_RADIUS_M, factor * max(case.spread_m, LEAST_RADIUS_M)) for case in chosen])
    inside = np.array([case.error_m for case in chosen]) <= radii
    return factor, float((inside.sum() + COVERED) / (len(chosen) + 1))


def _near(cases: Sequence[Case], right: Flags) -> tuple[tuple[float, float], ...]:
    errors = np.array([case.error_m for case in cases])
    found = np.array([case.strength is not None for case in cases])
    # What is right is no farther off than RIGHT_M.
    return tuple(
        (1.0 if m >= RIGHT_M else _share(errors[right] <= m), _share(errors[found & ~right] <= m)) for m in LEVELS_M
    )


def _share(flags: Flags) -> float:
    """Never 0 or 1: as of two more, one of each."""
    return float((flags.sum() + 1) / (len(flags) + 2))


def _groups(cases: Sequence[Case], asked: Sequence[Case]) -> NDArray[np.int64]:
    """A group for each that was asked: places by falling size into the emptiest group, whole."""
    sizes = Counter(case.place for case in cases)
    filled, group_of = [0] * GROUPS, {}
    for place in sorted(sizes, key=lambda place: (-sizes[place], place)):
        group_of[place] = filled.index(min(filled))
        filled[group_of[place]] += sizes[place]
    return np.array([group_of[case.place] for case in asked])


def _fitted(features: Floats, right: Flags) -> tuple[Floats, float]:
    """Weights and bias for features as they are. The penalty keeps separable cases from certainty."""
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    if right.all() or not right.any():
        share = _share(right)
        return np.zeros(features.shape[1]), math.log(share / (1 - share))
    middle, scale = features.mean(axis=0), features.std(axis=0)
    # A feature that is the same everywhere says nothing, also where a new case differs.
    scale[scale < 1e-9] = np.inf
    # What is multiplied is small, and the BLAS's helpers wait for the next by spinning.
    with threadpool_limits(1, user_api="blas"):
        model = LogisticRegression(max_iter=2_000).fit((features - middle) / scale, right)
    weights = model.coef_[0] / scale
    return weights, float(model.intercept_[0] - weights @ middle)
