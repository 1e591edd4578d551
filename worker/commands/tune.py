"""Which settings of an answer would do better on the library's own photos. Proposes, and changes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from worker.commands.connections import open_store
from worker.commands.tables import Table
from worker.commands.terminal import UNWELL, AsJson, out, show
from worker.progress import progress_bar
from worker.settings import Settings
from worker.settings import load as load_settings
from worker.words import in_language, say

if TYPE_CHECKING:
    from worker.library.tuning import Tuning
    from worker.place.tuning import Candidate, Counts, Tried, Tuned

#: Rows of the table beside the present settings.
ROWS = 8


def tune(
    photos: Annotated[
        int | None, typer.Option(min=1, help=say("Photos to ask about; SIGHTLINE_EXAM_PHOTOS unless given."))
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which threshold, number of neighbours and rungs would answer better on your own photos; nothing is changed.

    Chosen by half of the places, and proved on the other half. Exit code 4 says that there are too few of them.
    """
    from worker.runtime import tune_serving

    settings = load_settings()
    with open_store(settings) as store, progress_bar(say("asking")) as progress:
        found = tune_serving(
            settings,
            store,
            lambda _, done, total: progress(done, total),
            photos=settings.exam_photos if photos is None else photos,
        )

    def table() -> None:
        out.print(_table(found.found, found.photos))
        for line in _lines(found, settings):
            out.print(line, highlight=False)

    show(as_json, _json(found, settings), table)
    if not found.found.decided:
        raise typer.Exit(UNWELL)


def _table(found: Tuned, photos: int) -> Table:
    from worker.place.calibration import RIGHT_M
    from worker.report.wording import number, place_meaning

    title = say(
        "{settings} settings tried on {photos} photos. The figures are of the half of the places that did not choose: "
        "{places}",
        settings=number(len(found.tried)),
        photos=number(photos),
        places=number(found.places[1]),
    )
    shown = Table(title=title, caption=place_meaning(RIGHT_M))
    shown.add_column(say("settings"), min_width=22)
    for head in (say("threshold"), say("k"), say("right"), say("answered"), say("right, of given"), say("false")):
        shown.add_column(head, justify="right")
    for one in _told(found):
        shown.add_row(*_row(one, found))
    return shown


def _told(found: Tuned) -> Iterator[Tried]:
    """The present one first, then the best; of those that answer alike the one that changes least."""
    told: dict[tuple[Counts, Counts], Tried] = {}
    for one in sorted(found.tried, key=lambda one: one.candidate != found.present):
        told.setdefault((one.first, one.second), one)
    yield from list(told.values())[: ROWS + 1]


def _row(one: Tried, found: Tuned) -> list[str]:
    from worker.report.wording import number

    second, candidate = one.second, one.candidate
    name = escape(_named(candidate))
    if candidate == found.present:
        name = say("[bold]{settings}[/] (now)", settings=name)
    elif candidate == found.best and found.proposed:
        name = say("[green]{settings}[/] (proposed)", settings=name)
    return [
        name,
        number(candidate.threshold, 2),
        "" if candidate.guide else number(candidate.neighbours),
        number(second.right),
        _share(second.answered, second.seen),
        _share(second.right, second.given),
        _share(second.false, second.unseen),
    ]


def _share(count: int, of: int) -> str:
    from worker.report.wording import percent

    return percent(count / of) if of else "\N{EM DASH}"


def _named(candidate: Candidate) -> str:
    """By what is tried; the other rungs are the same for all."""
    from worker.library.tuning import ordered
    from worker.place.tuning import TRIED

    if candidate.guide:
        return say("the guide's rule")
    return ", ".join(ordered(candidate.rungs & TRIED)) if candidate.weighs else say("votes alone")


def _lines(tuning: Tuning, settings: Settings) -> Iterator[str]:
    found = tuning.found
    why = escape(in_language(found.why))
    if found.proposed:
        yield say("[green]proposed:[/] {why}", why=why)
    else:
        yield say("[yellow]keep what you have:[/] {why}", why=why)
    if found.best != found.present:
        yield from _gains(found)
    if found.missing and tuning.photos < tuning.trusted:
        yield say(
            "You have {trusted} photos with coordinates to trust: `--photos {trusted}` asks about all of them.",
            trusted=tuning.trusted,
        )
    yield from _not_tried(found)
    if found.proposed:
        yield from _to_do(found)


def _gains(found: Tuned) -> Iterator[str]:
    from worker.report.tables import COMPARED
    from worker.report.wording import points

    for name, words in COMPARED.items():
        one = found.differences[name]
        if one.value is not None and one.least is not None and one.most is not None:
            yield say(
                "  {what}: {points} points ({least} to {most})",
                what=say(words),
                points=points(one.value),
                least=points(one.least),
                most=points(one.most),
            )


def _not_tried(found: Tuned) -> Iterator[str]:
    if "geometry" not in found.present.rungs:
        yield say(
            "Nothing was tried by keypoints, which are not kept here: set SIGHTLINE_RUNGS to its default, run "
            "`sightline rebuild`, and ask again."
        )
    elif len(found.idle) == 2:
        yield say("As the rungs are, neither threshold nor k changes any answer: keypoints decide.")


def _to_do(found: Tuned) -> Iterator[str]:
    from worker.library.tuning import to_change

    best, present = found.best, found.present
    if lines := to_change(best, present):
        yield say("Set where workers start, and start them again:")
        yield from (f"  {escape(f'{name}={value}')}" for name, value in lines.items())
    if best.guide:
        yield say('Callers ask for it with policy="guide"; its answers have neither a radius nor a probability.')
    elif present.calibrated and not best.calibrated:
        yield say(
            "Without `calibration` no answer has a probability, nothing promises SIGHTLINE_FALSE_ANSWERS, and rebuilds "
            "are not examined."
        )
    if found.learns_anew:
        yield say("Then `sightline rebuild`, which learns anew how sure an answer must be.")
    if best.calibrated:
        yield say("`sightline exam --freeze` then makes these answers what later generations are compared with.")


def _json(tuning: Tuning, settings: Settings) -> dict[str, Any]:
    from worker.library.tuning import to_change
    from worker.place.calibration import RIGHT_M

    found = tuning.found
    return {
        "proposed": found.proposed,
        "why": found.why,
        "environment": to_change(found.best, found.present) if found.proposed else {},
        "policy": "guide" if found.proposed and found.best.guide else None,
        "rebuild": found.proposed and found.learns_anew,
        "present": _candidate(found.present),
        "best": _candidate(found.best),
        "differences": {name: dataclasses.asdict(one) for name, one in found.differences.items()},
        "better": list(found.better),
        "worse": list(found.worse),
        "idle": list(found.idle),
        "missing_places": found.missing,
        "places": {"first": found.places[0], "second": found.places[1]},
        "candidates": [
            {
                **_candidate(one.candidate),
                "first": dataclasses.asdict(one.first),
                "second": dataclasses.asdict(one.second),
            }
            for one in found.tried
        ],
        "false_answers": settings.false_answers,
        "right_m": RIGHT_M,
        "photos": tuning.photos,
        "trusted": tuning.trusted,
        "seconds": round(tuning.seconds, 3),
    }


def _candidate(one: Candidate) -> dict[str, Any]:
    from worker.library.tuning import ordered

    return {
        "threshold": one.threshold,
        "neighbours": one.neighbours,
        "rungs": list(ordered(one.rungs)),
        "policy": "guide" if one.guide else None,
    }
