"""The figures of an exam, from its questions. Values in, values out; numpy, and scikit-learn where it has the measure.

A figure that cannot be computed says why. Of seen places an abstention is a miss; of unseen ones an answer is false.
docs/exam.md says what each figure means to an owner. Knows neither photos nor how an answer is found.

- `recall_at_k_D`: share of seen questions with a photo within D among the first k (Arandjelović et al., NetVLAD, 2016).
- `within_D`: share of seen questions answered within D of the truth (Vo, Jacobs and Hays, 2017: street to continent).
- `error_m_pN`: percentiles of the given answers' errors, of unseen places too.
- `answered_seen`, `right_of_given`, `false_answers_unseen`: coverage, precision, and false answers.
- `auc_pr`: average precision of the confidence as a score for "its best place is right", over all questions.
- `aurc`: area under the risk-coverage curve (Geifman and El-Yaniv, 2017): the mean, over how many are answered, of the
  share of wrong ones among the most confident.
- `ece`: expected calibration error (Naeini et al., 2015) of the given answers: how far the confidence is from the share
  of radii that hold the truth, which is what it promises; `ece_right` from the share of right answers. Bins of equal
  mass: confidences crowd near 1, where bins of equal width hold all of them or none, and equal mass is nearer to the
  truth for few answers (Roelofs et al., 2022).
- `brier`: mean square of confidence less outcome, of the given answers (Brier, 1950), by the radius as well.
- `radius_coverage`: share of the right answers whose stated radius holds the truth.
- curve `recall_area`: share of seen questions whose truth lies within that many km² around the point (Recall vs Area;
  Bianco, Eigen and Gormish, 2024, for one region that grows around a point).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from producer_client.language import to_say
from worker.core.geo import EARTH_RADIUS_M
from worker.place.exam import Bin, Curve, Examined, Figure, Figures, Group

RECALL_AT = (1, 5, 10)
RECALL_WITHIN_M = {"25m": 25.0, "100m": 100.0, "1km": 1_000.0}
WITHIN_M = {"1km": 1e3, "25km": 25e3, "200km": 200e3, "750km": 750e3, "2500km": 2500e3}
PERCENTILES = (50, 75, 90, 95)
#: Bins of the calibration error at most: what papers compare by. With fewer answers in each than this a bin shows
#: chance: of ten the share of right ones is known to 0.16 or worse.
MOST_BINS, LEAST_IN_BIN = 15, 10
#: Smallest number of neighbours of each class of density.
DENSITIES = {"0": 0, "1-4": 1, "5-19": 5, "20+": 20}
#: Points that a curve is drawn by at most: more than a screen shows.
MOST_POINTS = 400
#: Names of the figures, in the order in which people should read them.
FIGURES = (
    "right_of_given",
    "answered_seen",
    "false_answers_unseen",
    "radius_coverage",
    *(f"error_m_p{percentile}" for percentile in PERCENTILES),
    *(f"within_{distance}" for distance in WITHIN_M),
    *(f"recall_at_{k}_{distance}" for k in RECALL_AT for distance in RECALL_WITHIN_M),
    "auc_pr",
    "aurc",
    "ece",
    "ece_right",
    "brier",
)
NOTHING_ASKED = to_say("nothing was asked")
NONE_RIGHT = to_say("no best place is right, and there is no recall without one")

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def measured(examined: Sequence[Examined], *, right_m: float) -> Figures:
    """All figures: overall, by region, density and provenance, with the curves.

    right_m: an answer within it is right.
    """
    asked = _Asked(examined, right_m)
    return Figures(
        right_m=right_m,
        overall=_group(examined, right_m),
        by={
            "region": _groups(examined, right_m, lambda question: region(question.lat, question.lon)),
            "density": _groups(examined, right_m, lambda question: density(question.density)),
            "provenance": _groups(examined, right_m, lambda question: question.provenance),
        },
        curves={
            "precision_recall": _precision_recall(asked),
            "risk_coverage": _risk_coverage(asked),
            "recall_area": _recall_area(asked),
        },
        reliability=tuple(_bins(asked.confidence[asked.given], asked.held[asked.given])),
        abstained=_abstained(examined),
    )


def region(lat: float, lon: float) -> str:
    """The middle of the cell that holds a point, "+55.5 +037.2" in degrees.

    Cells are a degree high and about as wide in metres, so that none is a sliver; around a pole lies one round one.
    They part the Earth, and -180 and 180 are one meridian.
    """
    if abs(lat) >= 89:
        return f"{math.copysign(90, lat):+05.1f} +000.0"
    south = math.floor(lat)
    around = max(1, round(360 * math.cos(math.radians(south + 0.5))))
    cell = math.floor((lon + 180) % 360 * around / 360)
    return f"{south + 0.5:+05.1f} {(cell + 0.5) * 360 / around - 180:+06.1f}"


def density(neighbours: int) -> str:
    return max((least, name) for name, least in DENSITIES.items() if neighbours >= least)[1]


def likely(share: float, of: int) -> tuple[float, float]:
    """Where the share of ever more questions would lie with 95 % certainty (Wilson's score interval, 1927)."""
    z = 1.959964
    middle, wide = share + z**2 / (2 * of), z * math.sqrt(share * (1 - share) / of + z**2 / (4 * of**2))
    scale = 1 + z**2 / of
    return max(0.0, (middle - wide) / scale), min(1.0, (middle + wide) / scale)


class _Asked:
    """Columns of the questions, float64 or bool [n]. Without a best place a confidence is -1, an error infinite."""

    def __init__(self, examined: Sequence[Examined], right_m: float) -> None:
        self.seen = np.array([question.seen for question in examined], dtype=np.bool_)
        self.given = np.array([question.located for question in examined], dtype=np.bool_)
        self.right = np.array([question.right(right_m) for question in examined], dtype=np.bool_)
        errors = [question.error_m for question in examined]
        self.error_m: Floats = np.array([math.inf if error is None else error for error in errors], dtype=np.float64)
        self.held = np.array([question.held for question in examined], dtype=np.bool_)
        scores = [question.confidence for question in examined]
        self.confidence: Floats = np.array([-1.0 if score is None else score for score in scores], dtype=np.float64)
        self.neighbours_m = [question.neighbours_m for question in examined if question.seen]


def _group(examined: Sequence[Examined], right_m: float) -> Group:
    asked = _Asked(examined, right_m)
    seen = int(asked.seen.sum())
    return Group(seen, len(examined) - seen, _figures(asked))


def _groups(examined: Sequence[Examined], right_m: float, name_of: Callable[[Examined], str]) -> dict[str, Group]:
    """The largest first."""
    parts: dict[str, list[Examined]] = {}
    for question in examined:
        parts.setdefault(name_of(question), []).append(question)
    return {name: _group(parts[name], right_m) for name in sorted(parts, key=lambda name: (-len(parts[name]), name))}


def _figures(asked: _Asked) -> dict[str, Figure]:
    seen, given, right = asked.seen, asked.given, asked.right
    no_seen, no_unseen = to_say("no known place was asked about"), to_say("no place was left out to ask about it")
    none_given = to_say("no answer was given")
    errors, squares = asked.error_m[given], (asked.confidence - asked.held)[given] ** 2
    found = {
        "answered_seen": _share(given[seen], no_seen),
        "right_of_given": _share(right[given], none_given),
        "false_answers_unseen": _share(given[~seen], no_unseen),
    }
    for k in RECALL_AT:
        for name, within_m in RECALL_WITHIN_M.items():
            near = [any(away <= within_m for away in first[:k]) for first in asked.neighbours_m]
            found[f"recall_at_{k}_{name}"] = _share(np.array(near, dtype=np.bool_), no_seen)
    for name, within_m in WITHIN_M.items():
        found[f"within_{name}"] = _share((given & (asked.error_m <= within_m))[seen], no_seen)
    for percentile in PERCENTILES:
        value = float(np.percentile(errors, percentile)) if len(errors) else None
        found[f"error_m_p{percentile}"] = _figure(value, len(errors), none_given)
    return found | {
        "auc_pr": _average_precision(asked),
        "aurc": _mean(_risks(asked), NOTHING_ASKED),
        "ece": _calibration_error(asked.confidence[given], asked.held[given], none_given),
        "ece_right": _calibration_error(asked.confidence[given], right[given], none_given),
        "brier": _mean(squares, none_given),
        "radius_coverage": _share(asked.held[given & right], to_say("no answer was given that is right")),
    }


def _figure(value: float | None, of: int, why: str) -> Figure:
    return Figure(value, of) if value is not None else Figure(None, of, why)


def _share(hits: Bools, why: str) -> Figure:
    return _mean(hits.astype(np.float64), why)


def _mean(values: Floats, why: str) -> Figure:
    return _figure(float(values.mean()) if len(values) else None, len(values), why)


def _average_precision(asked: _Asked) -> Figure:
    from sklearn.metrics import average_precision_score  # takes a second to import

    if not asked.right.any():
        return Figure(None, len(asked.right), NONE_RIGHT)
    return Figure(float(average_precision_score(asked.right, asked.confidence)), len(asked.right))


def _precision_recall(asked: _Asked) -> Curve:
    """x: recall, y: precision, one point for each confidence that a threshold could have."""
    from sklearn.metrics import precision_recall_curve

    if not asked.right.any():
        return Curve((), NONE_RIGHT)
    precision, recall, _ = precision_recall_curve(asked.right, asked.confidence)
    return _curve(recall[::-1], precision[::-1])


def _risks(asked: _Asked) -> Floats:
    """Share of wrong ones among the k most confident, k from 1 to n. Of equally confident ones each is as wrong as
    their mean: the order of the questions must not matter."""
    _, group, counts = np.unique(-asked.confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(group, weights=~asked.right) / counts
    risks: Floats = np.cumsum(np.repeat(wrong, counts)) / np.arange(1, len(group) + 1)
    return risks


def _risk_coverage(asked: _Asked) -> Curve:
    """x: share of the questions that would be answered, y: share of those answers that would be wrong."""
    if not len(asked.right):
        return Curve((), NOTHING_ASKED)
    risks = _risks(asked)
    return _curve(np.arange(1, len(risks) + 1) / len(risks), risks)


def _recall_area(asked: _Asked) -> Curve:
    """x: km² around the point, y: share of seen questions, abstentions among them, whose truth lies in it."""
    errors = np.sort(asked.error_m[asked.seen & asked.given])
    if not len(errors):
        return Curve((), to_say("no answer was given about a known place"))
    # Of a spherical cap: half a sine squared keeps metres exact where a cosine would round them away.
    area_km2 = 4 * math.pi * (EARTH_RADIUS_M / 1e3 * np.sin(errors / EARTH_RADIUS_M / 2)) ** 2
    return _curve(area_km2, np.arange(1, len(errors) + 1) / asked.seen.sum())


def _curve(x: Floats, y: Floats) -> Curve:
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).round().astype(int))
    return Curve(tuple(zip(x[kept].tolist(), y[kept].tolist(), strict=True)))


def _calibration_error(confidence: Floats, came_true: Bools, why: str) -> Figure:
    apart = sum(part.count * abs(part.confidence - part.held) for part in _bins(confidence, came_true))
    return _figure(apart / len(confidence) if len(confidence) else None, len(confidence), why)


def _bins(confidence: Floats, held: Bools) -> list[Bin]:
    """Of equal mass as far as equal confidences allow, which stay together; the least confident first."""
    if not len(confidence):
        return []
    wanted = max(1, min(MOST_BINS, len(confidence) // LEAST_IN_BIN))
    _, group, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2)[group]  # rank among all, of those that are equal the mean one
    of_bin = np.floor(middle * wanted / len(confidence))
    parts = [of_bin == number for number in np.unique(of_bin)]
    return [Bin(float(confidence[part].mean()), float(held[part].mean()), int(part.sum())) for part in parts]


def _abstained(examined: Sequence[Examined]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for question in examined:
        if question.reason is not None and not question.located:
            seen, unseen = found.get(question.reason, (0, 0))
            found[question.reason] = (seen + question.seen, unseen + (not question.seen))
    return dict(sorted(found.items(), key=lambda item: (-sum(item[1]), item[0])))
