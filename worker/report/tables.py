"""The exam's tables: figures with what they mean, by region, density and provenance, abstentions, settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from xml.etree.ElementTree import Element

from producer_client.language import to_say
from worker.place.exam import Exam, Figure, Figures, Group
from worker.place.measures import DENSITIES, FIGURES
from worker.place.paired import Difference, clearly_worse
from worker.report.elements import Child, element
from worker.report.wording import (
    figure_meaning,
    figure_name,
    figure_value,
    number,
    percent,
    points,
    reason_said,
    region_said,
)
from worker.words import say

#: Groups of one kind that are shown; the rest is counted.
MOST_GROUPS = 30
#: Figures that tell groups apart.
BY_GROUP = ("answered_seen", "right_of_given", "false_answers_unseen", "error_m_p50", "recall_at_1_100m")
#: What two exams are compared by.
COMPARED = {
    "accuracy": to_say("right answers, of known places"),
    "precision": to_say("right, of the given answers"),
    "coverage": to_say("answered, of known places"),
    "false_answers": to_say("false answers, of places left out"),
    "flips": to_say("answers that were right and are not now"),
}


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Child]]) -> Element:
    """The first cell of a row names it. Each cell knows its column's name, which stands before it on a narrow page."""
    body = []
    for first, *rest in rows:
        cells = [
            element("td", element("span", cell), data_name=head) for head, cell in zip(heads[1:], rest, strict=True)
        ]
        body.append(element("tr", element("th", first, scope="row"), cells))
    return element(
        "table",
        element("caption", caption),
        element("thead", element("tr", [element("th", head, scope="col") for head in heads])),
        element("tbody", body),
    )


def all_figures(overall: Group) -> Element:
    rows = [
        (
            [element("span", figure_name(name)), element("small", figure_meaning(name))],
            figure_value(name, figure) if figure.value is not None else say(figure.why),
            number(figure.of),
        )
        for name in FIGURES
        if (figure := overall.figures.get(name))
    ]
    return table(say("All figures"), [say("figure"), say("value"), say("of")], rows)


def groups(figures: Figures) -> list[Element]:
    by_size = {kind: sorted(parts, key=lambda name: (-_size(parts[name]), name)) for kind, parts in figures.by.items()}
    classes = [name for name in DENSITIES if name in figures.by["density"]]
    return [
        _by(say("By region, in cells of a degree"), figures.by["region"], by_size["region"], region_said),
        _by(say("By how many other photos lie within 100 m"), figures.by["density"], classes, _range),
        _by(say("By where the position is from"), figures.by["provenance"], by_size["provenance"], str),
    ]


def _by(caption: str, parts: Mapping[str, Group], order: Sequence[str], said: Callable[[str], str]) -> Element:
    heads = ["", say("questions"), *(figure_name(name) for name in BY_GROUP)]
    rows: list[Sequence[Child]] = [
        (
            said(group),
            number(_size(parts[group])),
            *(_with_count(name, parts[group].figures.get(name)) for name in BY_GROUP),
        )
        for group in order[:MOST_GROUPS]
    ]
    left_out = order[MOST_GROUPS:]
    if left_out:
        questions = sum(_size(parts[group]) for group in left_out)
        rows.append((say("{count} more", count=len(left_out)), number(questions), *[""] * len(BY_GROUP)))
    return table(caption, heads, rows)


def _size(part: Group) -> int:
    return part.seen + part.unseen


def _range(name: str) -> str:
    return name.replace("-", "\N{EN DASH}\N{WORD JOINER}")


def _with_count(name: str, figure: Figure | None) -> Child:
    """Of how many, where a share of a few says little."""
    said = figure_value(name, figure)
    if figure is None or figure.value is None:
        return said
    return [said, element("small", say("of {count}", count=number(figure.of)))]


def abstentions(figures: Figures) -> Element | None:
    if not figures.abstained:
        return None
    whole = figures.overall
    rows = [
        (
            [element("span", reason_said(reason)), element("small", element("code", reason))],
            _counted(seen, whole.seen),
            _counted(unseen, whole.unseen),
        )
        for reason, (seen, unseen) in sorted(figures.abstained.items(), key=lambda item: (-sum(item[1]), item[0]))
    ]
    heads = [say("reason"), say("of known places"), say("of places left out")]
    return table(say("Questions by the reason of the silence"), heads, rows)


def _counted(count: int, of: int) -> Child:
    return [number(count), element("small", percent(count / of))] if of else number(count)


def differences(found: Mapping[str, Difference]) -> Element:
    worse = clearly_worse(found)
    rows = [
        (
            say(COMPARED[name]),
            say(difference.why) if difference.value is None else points(difference.value),
            "\N{EM DASH}"
            if difference.least is None or difference.most is None
            else say("{least} to {most}", least=points(difference.least), most=points(difference.most)),
            element("strong", say("clearly worse")) if name in worse else "",
        )
        for name in COMPARED
        if (difference := found.get(name))
    ]
    heads = [say("what is compared"), say("percentage points"), say("with 95 % certainty"), ""]
    return table(say("Beside the frozen baseline"), heads, rows)


def settings(exam: Exam) -> Element:
    rows: list[Sequence[Child]] = [
        (say("made"), exam.made_at),
        (say("generation"), say("none yet") if exam.generation is None else str(exam.generation)),
        (say("last change (seq)"), str(exam.seq)),
        (say("model"), element("code", exam.model_key)),
        (say("photos asked about"), number(exam.sample)),
        (say("seed of the sample"), str(exam.seed)),
        (say("took"), say("{seconds} s", seconds=number(exam.seconds, 1))),
    ]
    rows += [(element("code", name), element("code", _setting(value))) for name, value in sorted(exam.settings.items())]
    return table(say("Settings"), ["", say("value")], rows)


def _setting(value: str | int | float | bool | None) -> str:
    return "\N{EM DASH}" if value is None or value == "" else str(value)
