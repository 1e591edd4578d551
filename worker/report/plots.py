"""The exam's curves and histograms, each with what it shows in a sentence. Knows figures, not how they come to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from producer_client.language import to_say
from worker.place.exam import Bin, Examined, Figures
from worker.report.chart import Axis, Chart, steps_of
from worker.report.elements import element
from worker.report.wording import metres, number, percent
from worker.words import say

#: Bars of the histogram of errors for each power of ten.
BARS_A_DECADE = 3
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
NOTHING_GIVEN = to_say("no answer was given")


def figure(title: str, said: str, plot: Element | str) -> Element:
    """A plot under its title and over what it shows; in its place the reason why there is none."""
    shown = element("p", plot, class_="lacking") if isinstance(plot, str) else plot
    return element("figure", element("h3", title), shown, element("figcaption", said))


def precision_recall(figures: Figures, examined: Sequence[Examined]) -> Element:
    title = say("Precision and recall")
    said = say(
        "If fewer or more of the best places were given, by their confidence: to the right more of the right ones are "
        "given, upwards fewer wrong ones are among them. The filled dot is where the answers stop today."
    )
    curve = figures.curves["precision_recall"]
    if curve.why:
        return figure(title, said, say(curve.why))
    given, right = _given(figures, examined)
    known = sum(question.right(figures.right_m) for question in examined)
    chart = Chart(_shares(say("right places that are given")), _shares(say("right, of those given")))
    today = [_today(chart.at(right / known, right / given))] if given else []
    return figure(title, said, chart.svg(title, chart.line(curve.points, "curve"), *today))


def risk_coverage(figures: Figures, examined: Sequence[Examined]) -> Element:
    title = say("Risk and coverage")
    said = say(
        "If only the most confident share of all questions were answered, how many of these answers would be wrong. "
        "The filled dot is where the answers stop today. Places left out are among the questions."
    )
    curve = figures.curves["risk_coverage"]
    if curve.why:
        return figure(title, said, say(curve.why))
    given, right = _given(figures, examined)
    top = max(0.1, *(risk for _, risk in curve.points))
    wrong = Axis(say("wrong, of these"), 0.0, top, [(share, percent(share)) for share in steps_of(top)])
    chart = Chart(_shares(say("questions that are answered")), wrong)
    today = [_today(chart.at(given / len(examined), 1 - right / given))] if given else []
    return figure(title, said, chart.svg(title, chart.line(curve.points, "curve"), *today))


def reliability(figures: Figures) -> Element:
    title = say("Is the confidence true?")
    said = say(
        "Each dot is a group of given answers with about the same confidence; the number in it says how many. On the "
        "line, as many radii hold the truth as the confidence says. Below it the answers promise too much."
    )
    if not figures.reliability:
        return figure(title, said, say(NOTHING_GIVEN))
    least = min(min(part.confidence, part.held) for part in figures.reliability)
    start = max(0.0, math.floor((least - 0.05) * 10) / 10)
    ticks = [(start + share, percent(start + share)) for share in steps_of(1 - start)]
    chart = Chart(
        Axis(say("stated confidence"), start, 1.0, ticks), Axis(say("radius holds the truth"), start, 1.0, ticks)
    )
    ideal = chart.line([(start, start), (1, 1)], "ideal")
    groups = ", ".join(_group_said(part) for part in figures.reliability)
    return figure(title, said, chart.svg(f"{title} {groups}", ideal, *_dots(chart, figures.reliability)))


def _dots(chart: Chart, parts: Sequence[Bin]) -> list[Element]:
    """The larger, the more answers; a number that would cover another one is left to the dot's own title."""
    dots, counts = [], []
    placed: list[tuple[float, float]] = []
    for part in parts:
        x, y = chart.at(part.confidence, part.held)
        radius = 7 + 2 * math.log10(part.count)
        dots.append(element("circle", element("title", _group_said(part)), cx=x, cy=y, r=radius, class_="dot"))
        if all(math.dist((x, y), other) > 2 * radius for other in placed):
            counts.append(element("text", str(part.count), x=x, y=y + 3.5, class_="count middle"))
            placed.append((x, y))
    return dots + counts


def _group_said(part: Bin) -> str:
    return say(
        "confidence {confidence}: {held} within the radius, of {count}",
        confidence=percent(part.confidence),
        held=percent(part.held),
        count=number(part.count),
    )


def errors(figures: Figures, examined: Sequence[Examined]) -> Element:
    title = say("How far off the answers are")
    said = say(
        "The given answers by their distance from the truth, on a scale of powers of ten. The line is at {right_m}: "
        "what lies beyond counts as wrong.",
        right_m=metres(figures.right_m),
    )
    given = [question for question in examined if question.located]
    if not given:
        return figure(title, said, say(NOTHING_GIVEN))
    counts: dict[int, list[int]] = {}
    for question in given:
        # Below a metre GPS says nothing: all of it is in the first bar.
        at = math.floor(math.log10(max(question.error_m or 0.0, 1.0)) * BARS_A_DECADE)
        counts.setdefault(at, [0, 0])[0 if question.right(figures.right_m) else 1] += 1
    least, most = 0, max(3, math.ceil((max(counts) + 1) / BARS_A_DECADE))
    tallest = max(right + wrong for right, wrong in counts.values())
    ticks = [(10.0**power, metres(10.0**power)) for power in range(least, most + 1) if most <= 4 or power % 2 == 0]
    chart = Chart(
        Axis(say("distance from the truth"), 10.0**least, 10.0**most, ticks, by_log=True),
        Axis(say("answers"), 0, tallest * 1.05, [(at, number(at)) for at in steps_of(tallest) if at == round(at)]),
    )
    bars = []
    for at, (right, wrong) in sorted(counts.items()):
        start, end = 10 ** (at / BARS_A_DECADE), 10 ** ((at + 1) / BARS_A_DECADE)
        hint = say("from {least} to {most}: {right} right, {wrong} wrong",
                   least=metres(start), most=metres(end), right=right, wrong=wrong)  # fmt: skip
        if right:
            bars.append(chart.bar(start, end, 0, right, "right", hint))
        if wrong:
            bars.append(chart.bar(start, end, right, right + wrong, "wrong", hint))
    limit = chart.line([(figures.right_m, 0), (figures.right_m, tallest * 1.05)], "limit")
    return figure(title, said, chart.svg(title, *bars, limit))


def recall_area(figures: Figures) -> Element:
    title = say("How much would have to be searched")
    said = say(
        "Whoever searches such an area around each answer finds that share of all photos of known places; those that "
        "were not answered are never found."
    )
    curve = figures.curves["recall_area"]
    if curve.why:
        return figure(title, said, say(curve.why))
    # Below 10 m around the point there is nothing to search: 300 m².
    points = [(max(area, 3e-4), share) for area, share in curve.points]
    most = 10.0 ** math.ceil(math.log10(max(points[-1][0], 1e-2)))
    points = [(3e-4, 0.0), *points, (most, points[-1][1])]
    powers = range(-3, round(math.log10(most)) + 1)
    step = math.ceil(len(powers) / 5)
    ticks = [(10.0**power, _area(10.0**power)) for power in powers[::step]]
    chart = Chart(Axis(say("area around the answer"), 3e-4, most, ticks, by_log=True), _shares(say("photos found")))
    return figure(title, said, chart.svg(title, chart.steps(points, "curve")))


def _given(figures: Figures, examined: Sequence[Examined]) -> tuple[int, int]:
    """How many answers were given, and how many of these are right."""
    given = [question for question in examined if question.located]
    return len(given), sum(question.right(figures.right_m) for question in given)


def _today(at: tuple[float, float]) -> Element:
    return element("circle", element("title", say("today")), cx=at[0], cy=at[1], r=4.5, class_="today")


def _area(km2: float) -> str:
    if km2 < 0.01:
        return say("{m2} m²", m2=number(km2 * 1e6))
    return say("{km2} km²", km2=number(km2, 0 if km2 >= 1 else 2).rstrip("0") if km2 < 1 else number(km2))


def _shares(name: str) -> Axis:
    return Axis(name, 0.0, 1.0, [(share, percent(share)) for share in SHARES])
