"""The whole page: first what matters, in words for the owner of the photos, then the plots, cases and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from producer_client.language import Language
from worker.place.exam import Exam, Examined, Figure
from worker.place.measures import likely
from worker.place.paired import Difference
from worker.report import map, plots, tables
from worker.report.elements import Child, element, written
from worker.report.wording import figure_name, metres, number, percent, place_meaning
from worker.report.worst import Thumbnails, cards
from worker.words import say

STYLE = Path(__file__).with_name("page.css")
#: A browser that honours it asks nobody for anything, whatever the page holds.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def html(
    exam: Exam,
    examined: Sequence[Examined],
    thumbnails: Thumbnails,
    *,
    differences: Mapping[str, Difference] | None = None,
) -> str:
    """The page as HTML, in the language that is set. thumbnails: of the photos that `worst.pictured` names, JPEGs, or
    why one cannot be shown. differences: from the frozen baseline, where there is one."""
    figures = exam.figures
    title = (
        say("Exam of the index that has no generation yet")
        if exam.generation is None
        else say("Exam of generation {generation}", generation=exam.generation)
    )
    curves = [
        plots.reliability(figures),
        plots.risk_coverage(figures, examined),
        plots.precision_recall(figures, examined),
    ]
    distances = [plots.errors(figures, examined), plots.recall_area(figures)]
    shown_map = map.drawn(examined, figures.right_m)
    cases = cards(examined, figures.right_m, thumbnails)
    body = [
        element("header", element("h1", title), element("p", _introduction(exam))),
        _failed(exam),
        _section(say("In short"), element("div", _tiles(exam), class_="tiles")),
        None if differences is None else _section(say("Compared"), tables.differences(differences)),
        _section(say("How far the confidence can be trusted"), element("div", curves, class_="plots")),
        _section(say("Distances"), element("div", distances, class_="plots")),
        None if shown_map is None else _section(say("Map"), shown_map),
        _section(
            say("Worst cases"),
            element(
                "p", say("The most confident wrong answers first. A wrong one may be a photo with wrong coordinates.")
            ),
            element("div", cases, class_="cases") if cases else element("p", say(plots.NOTHING_GIVEN)),
        ),
        _section(say("Not answered"), tables.abstentions(figures) or element("p", say("Every question was answered."))),
        _section(say("Where it is good, and where not"), *tables.groups(figures)),
        _section(say("Figures and settings"), tables.all_figures(figures.overall), tables.settings(exam)),
    ]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"Sightline: {title}"),
        element("style", STYLE.read_text()),
    )
    return written(element("html", head, element("body", element("main", body)), lang=Language.chosen().value))


def _section(title: str, *children: Child) -> Element:
    return element("section", element("h2", title), *children)


def _introduction(exam: Exam) -> str:
    overall = exam.figures.overall
    asked = say(
        "{sample} photos whose position is known were asked about as if they were not there: {seen} questions with the "
        "other photos of their place left in (known places), {unseen} with all of them left out, where every answer "
        "would be false. An answer is right within {right_m} of the true position.",
        sample=number(exam.sample),
        seen=number(overall.seen),
        unseen=number(overall.unseen),
        right_m=metres(exam.figures.right_m),
    )
    return f"{asked} {place_meaning(exam.figures.right_m)}"


def _failed(exam: Exam) -> Element | None:
    lacking = exam.figures.lacking()
    if not lacking:
        return None
    curves = {
        "precision_recall": say("Precision and recall"),
        "risk_coverage": say("Risk and coverage"),
        "recall_area": say("How much would have to be searched"),
    }
    items = [f"{curves.get(name) or figure_name(name)}: {say(why)}" for name, why in lacking.items()]
    return element(
        "section",
        element("h2", say("This exam has failed")),
        element("p", say("Some figures could not be computed, and an exam without them proves nothing:")),
        element("ul", [element("li", item) for item in items]),
        class_="failed",
        role="alert",
    )


def _tiles(exam: Exam) -> list[Element]:
    found = exam.figures.overall.figures
    half, nine = found["error_m_p50"], found["error_m_p90"]
    return [
        _share_tile(found["right_of_given"], say("of the given answers are right")),
        _share_tile(found["answered_seen"], say("of the photos of known places get an answer")),
        _share_tile(found["false_answers_unseen"], say("of the photos of places left out get a false answer")),
        _share_tile(found["radius_coverage"], say("of the right answers lie within the radius that they state")),
        _tile(
            None if half.value is None else metres(half.value),
            say("is how far off half of the answers are at the most"),
            say(half.why) if nine.value is None else say("nine of ten: {distance}", distance=metres(nine.value)),
        ),
        _tile(
            None if found["ece"].value is None else number(found["ece"].value * 100, 1),
            say("percentage points lie between the stated confidence and what comes true, on average"),
            say(found["ece"].why) if found["ece"].why else say("answers: {count}", count=number(found["ece"].of)),
        ),
    ]


def _share_tile(figure: Figure, said: str) -> Element:
    if figure.value is None:
        return _tile(None, said, say(figure.why))
    least, most = likely(figure.value, figure.of)
    of = say(
        "{hits} of {of}; chance leaves it between {least} and {most}",
        hits=number(round(figure.value * figure.of)),
        of=number(figure.of),
        least=percent(least),
        most=percent(most),
    )
    return _tile(percent(figure.value), said, of)


def _tile(value: str | None, said: str, more: str) -> Element:
    return element(
        "p",
        element("strong", value or "\N{EM DASH}"),
        element("span", said),
        element("small", more),
        class_="tile",
    )
