"""Which answers may be given so that a promised share of false ones is kept, whatever the scores are worth.

Two rules without any assumption about scores or evidence: one for questions about places that nobody knows, one for the
answers that are given. docs/decisions/0030 says what they promise. Knows neither evidence nor models.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: How often the share of wrong answers among the given ones may be larger than promised: one library in ten.
DOUBT = 0.1
#: Places without which nothing is learnt, however lax the promise: each group of them is judged by the others.
LEAST_PLACES = 5

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TooFew:
    """Why nothing can be promised, as a sentence. missing: places, or answers, that would have to be known beside."""

    missing: int
    message: str


def too_few_places(places: int, false_answers: float) -> TooFew | None:
    """Whether there are too few to promise anything, whatever is found at them."""
    # With fewer, a single unseen place would already be more than the promised share.
    needed = max(LEAST_PLACES, math.ceil(round(1 / false_answers, 9)) - 1)
    if places >= needed:
        return None
    return TooFew(
        needed - places,
        f"trusted photos of {places} places are known, and {needed} are needed to promise that at most "
        f"{false_answers:.1%} of the answers are wrong: {needed - places} more",
    )


def quantile(scores: Floats, places: Sequence[int], share: float) -> float:
    """The least score that at least this share of new places' cases does not exceed; the largest where there are too
    few. A new place counts as one more whose scores lie above all."""
    order = np.argsort(scores, kind="stable")
    mass = np.cumsum(weights_of(places)[order]) / (len(set(places)) + 1)
    return float(scores[order][min(int(np.searchsorted(mass, share - 1e-9)), len(scores) - 1)])


def weights_of(places: Sequence[int]) -> Floats:
    """Of each case; those of one place are 1 together."""
    sizes = Counter(places)
    return np.array([1 / sizes[place] for place in places])


def tested(scores: Floats, wrong: Flags, weights: Floats, share: float) -> float | TooFew:
    """The score up to which nothing may be answered, so that the share of wrong answers beyond it is tested to be no
    larger: 1 where it is larger beyond every score.

    One fixed sequence: it begins where the scores themselves promise the clearest test, and goes on to more answers
    until one fails. Cases of unequal weight count as so many fewer equal ones, whose number need not be whole (Kish;
    Korn and Graubard, Confidence intervals for proportions with small expected number of positive counts, 1998).
    """
    from scipy.special import betainc  # takes a while to import

    order = np.argsort(-scores, kind="stable")
    falling, weights = scores[order], weights[order]
    # Equal scores are answered together, so only the last of them ends a set of answers.
    ends = np.flatnonzero(np.append(falling[1:] < falling[:-1], True))
    ends = ends[falling[ends] > 0]
    if not len(ends):
        return _too_few_shown(0, 0.0, share)
    total = np.cumsum(weights)[ends]
    count = total**2 / np.cumsum(weights**2)[ends]

    def doubts(share_wrong: Floats) -> Floats:
        failed = np.cumsum(weights * share_wrong)[ends] / total * count
        found: Floats = betainc(np.maximum(count - failed, 1e-9), failed + 1, 1 - share)
        return found

    doubt = doubts(wrong[order].astype(np.float64))
    start = int(np.argmin(doubts(1 - falling)))
    failing = np.flatnonzero(doubt[start:] > DOUBT)
    accepted = int(failing[0]) if len(failing) else len(ends) - start
    if accepted:
        after = ends[start + accepted - 1] + 1
        return float(falling[after]) if after < len(falling) else 0.0
    failed = float((wrong[order] * weights)[: ends[start] + 1].sum() / total[start])
    return _too_few_shown(int(count[start]), failed, share)


def _too_few_shown(answers: int, failed: float, share: float) -> float | TooFew:
    """failed: share of these answers that are wrong."""
    from scipy.special import betainc

    needed = next((n for n in _sizes(answers) if betainc(n * (1 - failed), n * failed + 1, 1 - share) <= DOUBT), None)
    if needed is None:
        return 1.0
    return TooFew(
        needed - answers,
        f"of {answers} answers about known photos {failed:.1%} are wrong, which shows too little: {needed} are needed "
        f"to promise {share:.1%}, {needed - answers} more",
    )


def _sizes(least: int) -> Iterator[int]:
    """Numbers of answers that a library of ten thousand photos may give, each larger by a tenth."""
    while least < 10_000:
        least += max(1, least // 10)
        yield least
