"""Two exams over the same photos, compared question by question. Values in, values out.

What both asked is paired, so that photos which are hard for both cancel out; places are drawn again with replacement
(cluster bootstrap: questions about one place are not independent; Field and Welsh, 2007), and of the differences that
come out, the middle 95 % are the interval (Efron and Tibshirani, 1993). Knows no generations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from producer_client.language import to_say
from worker.place.exam import Examined

#: Draws. The ends of a 95 % interval move by about a fiftieth of its width between seeds.
DRAWS = 4_000
#: Ends of the interval, percentiles.
LEAST, MOST = 2.5, 97.5
#: Share of answers that must be lost for it to matter, however sure: one in a hundred.
MATTERS = 0.01
#: Right answers of before that may be wrong or missing now. Backends show them to people, who notice one in twenty even
#: where as many others were won (Yan et al., Positive-Congruent Training, 2021: negative flips).
MOST_FLIPS = 0.05

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """After less before, with a 95 % interval; `of` questions. value is None where it cannot be computed: see why."""

    value: float | None
    least: float | None
    most: float | None
    of: int
    why: str = ""


def compared(
    before: Sequence[Examined], after: Sequence[Examined], *, right_m: float, seed: int = 0
) -> dict[str, Difference]:
    """`accuracy` (right answers of the seen questions), `precision` (of the given answers), `coverage` (of the seen
    questions), `false_answers` (of the unseen), and `flips`: of the answers that were right, those that are not now.

    Questions are paired by photo and whether its place was left in; what only one exam asked is left out.
    """
    of_before = {(question.photo_id, question.seen): question for question in before}
    pairs = [
        (of_before[key], question) for question in after if (key := (question.photo_id, question.seen)) in of_before
    ]
    counts = _by_place(pairs, right_m)
    if len(counts) < 2:
        why = to_say("both exams asked about fewer than two places in common")
        return {name: Difference(None, None, None, len(pairs), why) for name in _RATIOS}
    draws = np.random.default_rng(seed).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=DRAWS)
    drawn = draws @ counts
    return {name: _difference(name, counts.sum(axis=0), drawn) for name in _RATIOS}


def clearly_worse(differences: Mapping[str, Difference]) -> list[str]:
    """Names of what got worse beyond chance and by enough to matter."""
    found = []
    for name, difference in differences.items():
        if difference.value is None or difference.least is None or difference.most is None:
            continue
        if name == "flips":
            worse = difference.least > MOST_FLIPS
        elif name == "false_answers":
            worse = difference.least > 0 and difference.value >= MATTERS
        else:
            worse = difference.most < 0 and difference.value <= -MATTERS
        found += [name] if worse else []
    return found


#: Of each measure, the columns of `_by_place`: share after, as (hits, of), less share before.
_COLUMNS = ("seen", "unseen", "right_before", "right_after", "given_before", "given_after", "answered_before",
            "answered_after", "false_before", "false_after", "flipped")  # fmt: skip
_RATIOS: Mapping[str, tuple[tuple[str, str], tuple[str, str] | None]] = {
    "accuracy": (("right_after", "seen"), ("right_before", "seen")),
    "precision": (("right_after", "given_after"), ("right_before", "given_before")),
    "coverage": (("answered_after", "seen"), ("answered_before", "seen")),
    "false_answers": (("false_after", "unseen"), ("false_before", "unseen")),
    "flips": (("flipped", "right_before"), None),
}


def _by_place(pairs: Sequence[tuple[Examined, Examined]], right_m: float) -> Floats:
    """float64 [places, columns]: how many questions of each sort a place has. Places are those of the exam after."""
    places: dict[int, list[int]] = {}
    for before, after in pairs:
        was, now = before.located and before.right(right_m), after.located and after.right(right_m)
        seen = after.seen
        row = (
            seen, not seen, was, now, before.located, after.located, seen and before.located,
            seen and after.located, not seen and before.located, not seen and after.located, was and not now,
        )  # fmt: skip
        summed = places.setdefault(after.place, [0] * len(_COLUMNS))
        places[after.place] = [total + value for total, value in zip(summed, row, strict=True)]
    return np.array(list(places.values()), dtype=np.float64).reshape(-1, len(_COLUMNS))


def _difference(name: str, total: Floats, drawn: Floats) -> Difference:
    after, before = _RATIOS[name]
    of = _column(total, after[1])
    if not of or (before is not None and not _column(total, before[1])):
        return Difference(None, None, None, 0, to_say("both exams have no question in common to tell this by"))
    value = _ratio(total, after) - (_ratio(total, before) if before else 0.0)
    spread = _ratio(drawn, after) - (_ratio(drawn, before) if before else 0.0)
    # A draw without any such question has no ratio.
    least, most = np.nanpercentile(spread, [LEAST, MOST])
    return Difference(float(value), float(least), float(most), int(of))


def _ratio(counts: Floats, columns: tuple[str, str]) -> Floats:
    hits, of = (_column(counts, name) for name in columns)
    with np.errstate(invalid="ignore"):
        shares: Floats = hits / of
    return shares


def _column(counts: Floats, name: str) -> Floats:
    column: Floats = counts[..., _COLUMNS.index(name)]
    return column
