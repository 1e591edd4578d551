"""Where the questions lie and what became of them, as a map without a coast: equirectangular around the photos.

North is up, distances are true in the middle of the map. Photos on both sides of the date line lie side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from worker.core.geo import EARTH_RADIUS_M
from worker.place.exam import Examined, LatLon
from worker.report.chart import round_below, svg
from worker.report.elements import element
from worker.report.wording import latitude, longitude, metres
from worker.words import say

WIDTH, MOST_HEIGHT, LEAST_HEIGHT, MARGIN = 720, 560, 260, 24
#: Pixels below the map for its scale.
FOOT = 36
#: Metres that a map shows at the least: around a single place there is nothing else to tell a scale by.
LEAST_SPAN_M = 200.0
METRES_A_DEGREE = math.radians(1) * EARTH_RADIUS_M


@dataclass(frozen=True, slots=True)
class Frame:
    """middle: of the map, in degrees. scale: pixels a metre. height: of the map, pixels."""

    middle: LatLon
    scale: float
    height: float

    def at(self, point: LatLon) -> tuple[float, float]:
        """In pixels from the upper left."""
        east_m, north_m = _offset_m(self.middle, point)
        return WIDTH / 2 + east_m * self.scale, self.height / 2 - north_m * self.scale


def framed(points: Sequence[LatLon]) -> Frame:
    """A frame that holds all of them; there must be one."""
    middle = (
        (min(lat for lat, _ in points) + max(lat for lat, _ in points)) / 2,
        _middle_of_longitudes([lon for _, lon in points]),
    )
    offsets = [_offset_m(middle, point) for point in points]
    wide = max(LEAST_SPAN_M, 2 * max(abs(east) for east, _ in offsets))
    high = max(LEAST_SPAN_M / 2, 2 * max(abs(north) for _, north in offsets))
    scale = min((WIDTH - 2 * MARGIN) / wide, (MOST_HEIGHT - 2 * MARGIN) / high)
    return Frame(middle, scale, max(LEAST_HEIGHT, high * scale + 2 * MARGIN))


def drawn(examined: Sequence[Examined], right_m: float) -> Element | None:
    """None where nothing was asked. Of places that were left out only the false answers are shown."""
    shown = [question for question in examined if question.seen or question.located]
    if not shown:
        return None
    frame = framed([(question.lat, question.lon) for question in shown])
    layers: dict[str, list[Element]] = {"abstained": [], "right": [], "wrong": []}
    for question in shown:
        kind = "abstained" if not question.located else "right" if question.right(right_m) else "wrong"
        layers[kind].append(_mark(kind, *frame.at((question.lat, question.lon)), _hint(question)))
    said = say(
        "Map of the questions: {right} right, {wrong} wrong, {abstained} not answered",
        **{kind: len(marks) for kind, marks in layers.items()},
    )
    marks = [mark for kind in ("abstained", "right", "wrong") for mark in layers[kind]]
    return element(
        "div",
        svg(WIDTH, math.ceil(frame.height) + FOOT, said, *marks, *_scale_bar(frame), class_="plot map"),
        element("ul", [_key(kind, len(layers[kind])) for kind in ("right", "wrong", "abstained")], class_="key"),
    )


def _mark(kind: str, x: float, y: float, said: str) -> Element:
    """Told apart by form as well as by colour."""
    title = element("title", said)
    match kind:
        case "right":
            return element("circle", title, cx=x, cy=y, r=4.5, class_="right mark")
        case "abstained":
            return element("circle", title, cx=x, cy=y, r=3.5, class_="abstained mark")
    path = f"M{x - 4:.1f} {y - 4:.1f}l8 8M{x + 4:.1f} {y - 4:.1f}l-8 8"
    return element("path", title, d=path, class_="wrong mark")


def _key(kind: str, count: int) -> Element:
    names = {"right": say("right"), "wrong": say("wrong"), "abstained": say("not answered")}
    sign = element("svg", _mark(kind, 7, 7, names[kind]), viewBox="0 0 14 14", class_="sign", aria_hidden="true")
    return element("li", sign, f" {names[kind]}: {count}")


def _hint(question: Examined) -> str:
    where = f"{question.photo_id}: {latitude(question.lat, 5)}, {longitude(question.lon, 5)}"
    if not question.located:
        return where
    off = say("{distance} off", distance=metres(question.error_m or 0.0))
    return f"{where}; {off}"


def _scale_bar(frame: Frame) -> list[Element]:
    length_m = round_below(WIDTH / 5 / frame.scale)
    right, y = WIDTH - 12, frame.height + FOOT - 10
    left = right - length_m * frame.scale
    return [
        element("path", d=f"M{left:.1f} {y - 4:.1f}v4H{right:.1f}v-4", class_="scale"),
        element("text", metres(length_m), x=right, y=y - 8, class_="end"),
        element("text", f"{latitude(frame.middle[0])}, {longitude(frame.middle[1])}", x=12, y=y - 2),
    ]


def _offset_m(middle: LatLon, point: LatLon) -> tuple[float, float]:
    """East and north of the middle, metres; the short way round."""
    east = (point[1] - middle[1] + 180) % 360 - 180
    return east * METRES_A_DEGREE * math.cos(math.radians(middle[0])), (point[0] - middle[0]) * METRES_A_DEGREE


def _middle_of_longitudes(degrees: Sequence[float]) -> float:
    """The middle of the shortest arc that holds them all: opposite the widest gap."""
    around = sorted({degree % 360 for degree in degrees})
    after = [*around[1:], around[0] + 360]
    gap, start = max((end - begin, end) for begin, end in zip(around, after, strict=True))
    return (start + (360 - gap) / 2 + 180) % 360 - 180
