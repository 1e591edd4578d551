"""What the demo found, in tables for people: whole in a terminal of 60 columns. Knows no queue."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import RenderableType
from rich.markup import escape

from demo.folders import Case
from demo.words import say
from producer_client.contract import DEFAULT_THRESHOLD, Answer, Hit, Reason
from producer_client.language import to_say
from worker.commands.questions import answer_shown, confidence_said, hits_table
from worker.commands.tables import PathShown, Table
from worker.core.geo import distance_m

#: Photos that are shown one by one.
SHOWN = 40
#: Why a photo was not located, in the room that a table has.
REASONS: Mapping[Reason, str] = {
    Reason.EMPTY_INDEX: to_say("the index is empty"),
    Reason.NOTHING_SIMILAR: to_say("nothing similar"),
    Reason.NO_TRUSTED_EVIDENCE: to_say("no evidence to trust"),
    Reason.TOO_FEW_WITNESSES: to_say("too few witnesses"),
    Reason.NEIGHBOURS_DISAGREE: to_say("neighbours disagree"),
    Reason.LOOK_ALIKE_PLACES: to_say("look-alike places"),
    Reason.UNVERIFIED: to_say("not verified"),
    Reason.ONLY_OWN_COPIES: to_say("only its own copies"),
    Reason.OUTSIDE_COVERAGE: to_say("outside coverage"),
    Reason.NO_PLACE_IN_PICTURE: to_say("no place in it"),
    Reason.WITHHELD: to_say("not told"),
}


@dataclass(frozen=True)
class Asked:
    """What was answered about a held-back photo. unseen: the index has none of its place."""

    case: Case
    unseen: bool
    answer: Answer

    @property
    def error_m(self) -> float | None:
        point = self.answer.point
        return None if point is None else distance_m(point.lat, point.lon, self.case.lat, self.case.lon)


def noted(label: str, words: str, colour: str = "green") -> Table:
    """A line of what goes on: a word for the eye, and beside it what there is to say."""
    line = Table(box=None, show_header=False, show_edge=False, pad_edge=False, padding=(0, 1))
    line.add_column(min_width=9, no_wrap=True)
    line.add_column()
    line.add_row(f"[{colour}]{label}[/]", words)
    return line


def asked_table(asked: Sequence[Asked], *, single: bool) -> Iterator[RenderableType]:
    """Every photo that was asked for with its answer, place by place; of many the first and the last."""
    title = say("Photos, each asked for without itself") if single else say("Photos that are not in the index")
    table = Table(title=title, caption=_caption(asked))
    table.add_column(say("place, photo"))
    table.add_column(say("answer"))
    table.add_column(say("error"), no_wrap=True, justify="right")
    table.add_column(say("for it"), justify="right")
    table.add_column(say("against"), justify="right")
    place = None
    for a in (*asked[: SHOWN // 2], *asked[SHOWN // 2 :][-SHOWN // 2 :]):
        if a.case.place != place:
            place = a.case.place
            table.add_section()
            table.add_row(_place(a))
        evidence, point = a.answer.evidence, a.answer.point
        table.add_row(
            PathShown(Path(a.case.path).name),
            f"[green]{point.lat:.5f}, {point.lon:.5f}[/]\n{_sure(a.answer)}" if point else _why_not(a.answer),
            _error(a),
            _witness(evidence[0] if evidence else None),
            _witness(a.answer.contrary),
        )
    yield table
    if len(asked) > SHOWN:
        yield say("[dim]the first and the last {half} of {count}[/]", half=SHOWN // 2, count=len(asked))


def places_table(asked: Sequence[Asked]) -> Iterator[RenderableType]:
    table = Table(title=say("By place"), caption=_caption(asked))
    table.add_column(say("place"))
    for column in (say("asked"), say("located"), say("abstained"), say("median error")):
        table.add_column(column, justify="right")
    for place in dict.fromkeys(a.case.place for a in asked):
        of_place = [a for a in asked if a.case.place == place]
        errors = [a.error_m for a in of_place if a.error_m is not None]
        table.add_row(
            _place(of_place[0]),
            str(len(of_place)),
            str(len(errors)),
            str(len(of_place) - len(errors)),
            _metres(statistics.median(errors)) if errors else "",
        )
    yield table
    if not any(a.answer.located for a in asked):
        words = say("none was located: no two photos of the index are like enough to one that was asked for")
        yield noted(say("note"), words, "yellow")


def similar_table(path: str, hits: Sequence[Hit]) -> RenderableType:
    """path: of the photo that was searched by."""
    near = os.path.relpath(path)
    named = escape(path if near.startswith("..") else near)
    if not hits:
        words = say(
            "Nothing in the index looks like {path} (similarity {least} or more).", path=named, least=DEFAULT_THRESHOLD
        )
        return noted(say("search"), words, "yellow")
    return hits_table(say("Most similar to {path}", path=named), hits)


def found_by_words_table(words: str, hits: Sequence[Hit]) -> RenderableType:
    if not hits:
        return noted(say("search"), say("Nothing was found by the words “{words}”.", words=words), "yellow")
    return hits_table(say("Most similar to the words “{words}”", words=words), hits)


# ---------------------------------------------------------------------------------------------- below


def _caption(asked: Sequence[Asked]) -> str | None:
    return say("* a place that the index has never seen") if any(a.unseen for a in asked) else None


def example_shown(asked: Sequence[Asked]) -> Iterator[RenderableType]:
    """The first answer in full, with what speaks for it and against it."""
    for a in (one for one in asked if one.answer.located):
        yield say("[bold]{photo}[/], in full:", photo=escape(str(Path(a.case.path).name)))
        yield from answer_shown(a.answer)
        return


def _why_not(answer: Answer) -> str:
    # One of a later release is known by its code alone.
    known = None if answer.reason is None else REASONS.get(answer.reason)
    return f"[yellow]{answer.reason if known is None else say(known)}[/]"


def _sure(answer: Answer) -> str:
    """How near it claims to be, and how sure of that it is."""
    near = say("within {radius_m:.0f} m", radius_m=answer.radius_m or 0.0)
    return f"[dim]{near}, {confidence_said(answer)}[/]"


def _witness(hit: Hit | None) -> str:
    """What a photo shows of the one that was asked for: points in common, or else its similarity."""
    if hit is None:
        return ""
    return f"{hit.similarity:.2f}" if hit.inliers is None else str(hit.inliers)


def _place(asked: Asked) -> PathShown:
    return PathShown(f"{asked.case.place} *" if asked.unseen else asked.case.place)


def _error(asked: Asked) -> str:
    """Red where there should be no answer at all."""
    if asked.error_m is None:
        return ""
    return f"[red]{_metres(asked.error_m)}[/]" if asked.unseen else _metres(asked.error_m)


def _metres(error_m: float) -> str:
    """In whole metres: GPS is no nearer than that, and photos of a landmark may all bear its one position."""
    if error_m >= 9999.5:
        return say("{error_km:.0f} km", error_km=error_m / 1000)
    return say("{error_m:.0f} m", error_m=error_m) if error_m >= 1 else say("< 1 m")
