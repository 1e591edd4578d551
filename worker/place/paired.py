"""Two exams over the same photos, compared question by question. Values in, values out.

What both asked is paired, so that photos which are hard for both cancel out; places are drawn again with replacement
(cluster bootstrap: questions about one place are not independent; Field and Welsh, 2007), and of the differences that
come out, the middle 95 % are the interval (Efron and Tibshirani, 1993). Knows no generations.
"""

from __future__ import annotations

import zlib
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one question, without where anything is. truth: what the position was that would have been right,
    as 32 bits of a checksum: where it has been corrected, it is another question."""

    photo_id: int
    seen: bool
    truth: int
    given: bool
    right: bool


def outcome(question: Examined, right_m: float) -> Outcome:
    given = question.located
    # To the metre: a position that was written in another form is the same.
    truth = zlib.crc32(f"{question.lat:.5f} {question.lon:.5f}".encode())
    return Outcome(question.photo_id, question.seen, truth, given, given and question.right(right_m))


def compared(
    before: Sequence[Examined], after: Sequence[Examined], *, right_m: float, seed: int = 0
) -> dict[str, Difference]:
    """See `beside`."""
    return beside([outcome(question, right_m) for question in before], after, right_m=right_m, seed=seed)


def beside(
    before: Sequence[Outcome], after: Sequence[Examined], *, right_m: float, seed: int = 0
) -> dict[str, Difference]:
    """`accuracy` (right answers of the seen questions), `precision` (of the given answers), `coverage` (of the seen
    questions), `false_answers` (of the unseen), and `flips`: of the answers that were right, those that are not now.

    Questions are paired by photo, its position and whether its place was left in; what only one exam asked is left out.
    """
    counts = _by_place(_pairs(before, after, right_m))
    if len(counts) < 2:
        why = to_say("both exams asked about fewer than two places in common")
        return {name: Difference(None, None, None, int(counts.sum(axis=0)[:2].sum()), why) for name in _RATIOS}
    draws = np.random.default_rng(seed).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=DRAWS)
    drawn = draws @ counts
    return {name: _difference(name, counts.sum(axis=0), drawn) for name in _RATIOS}


def places_in_common(before: Sequence[Outcome], after: Sequence[Examined]) -> int:
    return len({place for _, _, place in _pairs(before, after, right_m=0.0)})


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


def clearly_better(differences: Mapping[str, Difference]) -> list[str]:
    """Names of what got better beyond chance and by enough to matter; that more is answered alone is no gain."""
    found = []
    for name in ("accuracy", "precision", "false_answers"):
        one = differences[name]
        if one.value is None or one.least is None or one.most is None:
            continue
        gain, surely = (-one.value, -one.most) if name == "false_answers" else (one.value, one.least)
        found += [name] if surely > 0 and gain >= MATTERS else []
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


def _pairs(before: Sequence[Outcome], after: Sequence[Examined], right_m: float) -> list[tuple[Outcome, Outcome, int]]:
    """(before, after, place in the exam after)."""
    known = {(one.photo_id, one.seen, one.truth): one for one in before}
    asked = [(outcome(question, right_m), question.place) for question in after]
    return [(known[key], now, place) for now, place in asked if (key := (now.photo_id, now.seen, now.truth)) in known]


def _by_place(pairs: Sequence[tuple[Outcome, Outcome, int]]) -> Floats:
    """float64 [places, columns]: how many questions of each sort a place has."""
    places: dict[int, list[int]] = {}
    for was, now, place in pairs:
        seen = now.seen
        row = (
            seen, not seen, was.right, now.right, was.given, now.given, seen and was.given, seen and now.given,
            not seen and was.given, not seen and now.given, was.right and not now.right,
        )  # fmt: skip
        summed = places.setdefault(place, [0] * len(_COLUMNS))
        places[place] = [total + value for total, value in zip(summed, row, strict=True)]
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
