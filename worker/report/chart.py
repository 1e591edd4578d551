"""Axes, ticks and marks of a plot as inline SVG. Knows nothing of exams.

A page of a few plots needs no plotting library: docs/decisions/0029 says what was weighed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from worker.report.elements import element

WIDTH, HEIGHT = 360, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 10, 46
#: Half the width of a letter in the name of a tick, as wide as common fonts have it.
HALF_LETTER = 3.8


@dataclass(frozen=True, slots=True)
class Axis:
    """least to most is drawn; ticks: values with what they are called. by_log: both are above 0."""

    name: str
    least: float
    most: float
    ticks: Sequence[tuple[float, str]]
    by_log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, from 0 to 1; one beyond an end lies at that end."""
        least, most, at = self.least, self.most, min(max(value, self.least), self.most)
        if self.by_log:
            least, most, at = math.log10(least), math.log10(most), math.log10(at)
        return (at - least) / (most - least)


@dataclass(frozen=True, slots=True)
class Chart:
    x: Axis
    y: Axis

    def at(self, x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + self.x.share(x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - self.y.share(y) * (HEIGHT - TOP - BOTTOM),
        )

    def line(self, points: Iterable[tuple[float, float]], class_: str) -> Element:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(*point) for point in points))
        return element("polyline", points=path, class_=class_)

    def steps(self, points: Sequence[tuple[float, float]], class_: str) -> Element:
        """A curve that holds its value until the next point."""
        path = [points[0]]
        for (_, before), (x, y) in itertools.pairwise(points):
            path += [(x, before), (x, y)]
        return self.line(path, class_)

    def bar(self, x_from: float, x_to: float, y_from: float, y_to: float, class_: str, said: str) -> Element:
        (left, bottom), (right, top) = self.at(x_from, y_from), self.at(x_to, y_to)
        gap = 0.5
        return element(
            "rect",
            element("title", said),
            x=left + gap, y=top, width=max(right - left - 2 * gap, 0.5), height=max(bottom - top, 0.0), class_=class_,
        )  # fmt: skip

    def svg(self, said: str, *marks: Element | None) -> Element:
        """said: what the plot shows, for those who hear it. marks: from the back to the front."""
        return svg(WIDTH, HEIGHT, said, *self._axes(), *marks)

    def _axes(self) -> Iterable[Element]:
        left, bottom = self.at(self.x.least, self.y.least)
        right, top = self.at(self.x.most, self.y.most)
        for value, name in self.x.ticks:
            x, _ = self.at(value, self.y.least)
            yield element("line", x1=x, x2=x, y1=bottom, y2=top, class_="grid")
            yield element("text", name, x=min(x, WIDTH - len(name) * HALF_LETTER), y=bottom + 18, class_="tick middle")
        for value, name in self.y.ticks:
            _, y = self.at(self.x.least, value)
            yield element("line", x1=left, x2=right, y1=y, y2=y, class_="grid")
            yield element("text", name, x=left - 5, y=y + 3.5, class_="tick end")
        yield element("text", self.x.name, x=(left + right) / 2, y=HEIGHT - 8, class_="axis middle")
        middle = (top + bottom) / 2
        yield element("text", self.y.name, transform=f"translate(11 {middle:.1f}) rotate(-90)", class_="axis middle")


def svg(width: int, height: int, said: str, *marks: Element | None, class_: str = "plot") -> Element:
    return element("svg", marks, viewBox=f"0 0 {width} {height}", role="img", aria_label=said, class_=class_)


def steps_of(most: float, *, wanted: int = 4) -> list[float]:
    """Round numbers from 0 to most, about as many as wanted: multiples of 1, 2 or 5 of a power of ten."""
    if most <= 0:
        return [0.0]
    step = round_below(most / wanted)
    return [step * at for at in range(math.floor(most / step + 1e-9) + 1)]


def round_below(value: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... that is not above a positive value."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(step * power for step in (1, 2, 5) if step * power <= value * (1 + 1e-9))
