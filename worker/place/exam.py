"""What an exam asks and what it finds, as values: questions whose truth is known, figures, and both as JSON and back.

A question is one photo, asked about as if it were not there: once with the rest of its place left in (`seen`), once
with all of it left out. A figure that could not be computed says why; none is NaN or infinite, in memory or in JSON.
Knows neither how an answer is found nor how a figure is computed (measures.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from worker.core.geo import distance_m

#: Of this form; a release that reads another one says so instead of guessing.
FORM = 1

LatLon = tuple[float, float]
Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A known photo that speaks for an answer, or against it. away_m: from where the asked photo was taken."""

    photo_id: int
    away_m: float
    path: str | None = None
    similarity: float | None = None
    inliers: int | None = None

    def __post_init__(self) -> None:
        _check_finite(self)


@dataclass(frozen=True, slots=True)
class Examined:
    """One question. lat, lon: the truth. seen: other photos of its place were left in. place: a number that questions
    about one place share. density: other trusted photos within 100 m of the truth.

    point, radius_m, confidence: of the best place, also where the answer was withheld (`located` is False, `reason`
    says why); None where there was no best place. neighbours_m: how far from the truth the first ten found photos
    with coordinates lie, the most similar first.
    """

    photo_id: int
    seen: bool
    place: int
    lat: float
    lon: float
    provenance: str
    density: int
    located: bool
    reason: str | None = None
    point: LatLon | None = None
    radius_m: float | None = None
    confidence: float | None = None
    neighbours_m: tuple[float, ...] = ()
    path: str | None = None
    evidence: Witnessed | None = None
    contrary: Witnessed | None = None

    def __post_init__(self) -> None:
        _check_finite(self)
        if self.located and (self.point is None or self.radius_m is None or self.confidence is None):
            raise ValueError(f"photo {self.photo_id} was located, but without a point, a radius or a confidence")
        if not self.located and self.reason is None:
            raise ValueError(f"photo {self.photo_id} was not located, and nothing says why")
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise ValueError(f"photo {self.photo_id} has a confidence of {self.confidence}; it lies between 0 and 1")

    @property
    def error_m(self) -> float | None:
        """From the truth to the best place's point."""
        return None if self.point is None else distance_m(self.lat, self.lon, *self.point)

    def right(self, right_m: float) -> bool:
        """Whether the best place is the true one, given or withheld. Of a place that was left out nothing is right."""
        return self.seen and self.error_m is not None and self.error_m <= right_m

    @property
    def held(self) -> bool:
        """Whether the radius holds the truth, which is what the confidence speaks of."""
        return self.error_m is not None and self.radius_m is not None and self.error_m <= self.radius_m


@dataclass(frozen=True, slots=True)
class Figure:
    """of: questions, or answers, that it stands on. why: what is the matter where there is no value."""

    value: float | None
    of: int
    why: str = ""

    def __post_init__(self) -> None:
        _check_finite(self)
        if (self.value is None) != bool(self.why):
            raise ValueError("a figure has either a value or a reason why there is none")


@dataclass(frozen=True, slots=True)
class Group:
    """Figures of some of the questions: how many of each sort there were, and the figures by name."""

    seen: int
    unseen: int
    figures: Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class Curve:
    """(x, y) from left to right. why: what is the matter where there are no points."""

    points: tuple[tuple[float, float], ...]
    why: str = ""

    def __post_init__(self) -> None:
        if not all(math.isfinite(number) for point in self.points for number in point):
            raise ValueError("a curve goes through a point that is no number")
        if bool(self.points) == bool(self.why):
            raise ValueError("a curve has either points or a reason why there are none")


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of about one confidence: its mean, the share of them whose radius holds the truth, how many they are."""

    confidence: float
    held: float
    count: int

    def __post_init__(self) -> None:
        _check_finite(self)


@dataclass(frozen=True, slots=True)
class Figures:
    """overall, and by `region`, `density` and `provenance`. curves: `precision_recall`, `risk_coverage`, `recall_area`
    (km²). reliability: of the given answers. abstained: questions by reason, first of seen places, then of unseen."""

    right_m: float
    overall: Group
    by: Mapping[str, Mapping[str, Group]]
    curves: Mapping[str, Curve]
    reliability: tuple[Bin, ...]
    abstained: Mapping[str, tuple[int, int]]

    def lacking(self) -> dict[str, str]:
        """Overall figures and curves that could not be computed, each with why. An exam that has any has failed."""
        figures = {name: figure.why for name, figure in self.overall.figures.items() if figure.value is None}
        return figures | {name: curve.why for name, curve in self.curves.items() if not curve.points}


@dataclass(frozen=True, slots=True)
class Exam:
    """The figures, and what they are of. made_at: ISO 8601, UTC. sample: photos that were asked about. seed: of their
    choice. settings: those that an answer depends on, as their variables are called."""

    made_at: str
    seconds: float
    model_key: str
    generation: int | None
    seq: int
    sample: int
    seed: int
    figures: Figures
    settings: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    form: int = FORM

    def __post_init__(self) -> None:
        _check_finite(self)
        if self.form != FORM:
            raise ValueError(f"an exam of form {self.form}; this release reads form {FORM}: run `sightline exam` again")

    def to_json(self) -> dict[str, Any]:
        return _plain(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Exam:
        """Raises ValueError naming the field that is not what it should be."""
        return _read(kept, cls)


def to_json(examined: Examined) -> dict[str, Any]:
    return _plain(examined)


def from_json(kept: Mapping[str, Any]) -> Examined:
    """Raises ValueError naming the field that is not what it should be."""
    return _read(kept, Examined)


def _plain(value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(value, str_keys=True)
    return plain


def _read(kept: Mapping[str, Any], kind: type[Read]) -> Read:
    try:
        return msgspec.convert(kept, kind, strict=True)
    except msgspec.ValidationError as exc:
        raise ValueError(f"this is no {kind.__name__.lower()}: {exc}") from exc


def _check_finite(value: Any) -> None:
    for name, number in _numbers(value):
        if not math.isfinite(number):
            raise ValueError(f"{type(value).__name__}.{name} is {number}, which is no number that JSON has")


def _numbers(value: Any) -> Iterator[tuple[str, float]]:
    for name in value.__slots__:
        held = getattr(value, name)
        for number in held if isinstance(held, tuple) else (held,):
            if isinstance(number, float):
                yield name, number
