"""The exam, held now: as a table, as JSON, as an HTML page, and beside an earlier one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from producer_client.contract import Code, Photo
from producer_client.errors import BadRequest
from worker.commands.connections import open_store
from worker.commands.tables import Table
from worker.commands.terminal import UNWELL, AsJson, Misused, fail, out, show
from worker.errors import Permanent, PhotoRefusal, Transient
from worker.progress import progress_bar
from worker.settings import Settings
from worker.settings import load as load_settings
from worker.words import in_language, reason, say, told

if TYPE_CHECKING:
    from worker.library.examining import Examination
    from worker.place.exam import Exam, Examined
    from worker.place.paired import Difference


def exam(
    photos: Annotated[
        int | None, typer.Option(min=1, help=say("Photos to ask about; SIGHTLINE_EXAM_PHOTOS unless given."))
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar=say("FILE"), help=say("Write a page with plots there."))] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar=say("FILE"), help=say("What `sightline exam --json` said earlier, to compare with.")),
    ] = None,
    freeze: Annotated[
        bool,
        typer.Option("--freeze", help=say("Compare the exams of later generations with this one.")),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask the index about photos whose place is known, and say how often its answers are right.

    Exit code 4 says that a figure could not be computed, or that it is clearly worse than the baseline.
    """
    from worker.place.calibration import RIGHT_M
    from worker.place.exam import to_json
    from worker.place.gate import Baseline
    from worker.place.paired import clearly_worse, compared
    from worker.runtime import examine_serving

    settings = load_settings()
    before = None if baseline is None else _questions_of(baseline)
    with open_store(settings) as store, progress_bar(say("asking")) as progress:
        found, held = examine_serving(
            settings,
            store,
            lambda _, done, total: progress(done, total),
            photos=settings.exam_photos if photos is None else photos,
        )
        if freeze and (lacking := held.figures.lacking()):
            why = "; ".join(in_language(one) for one in dict.fromkeys(lacking.values()))
            raise Permanent(Code.EXAM_FAILED, f"this exam is no baseline, as figures could not be computed: {why}")
        if freeze:
            store.generations.freeze(held.model_key, Baseline.of(held, found.questions).to_json())
    differences = None if before is None else compared(before, found.questions, right_m=RIGHT_M)
    worse = clearly_worse(differences or {})
    if html is not None:
        _write(html, _page(settings, held, found.questions, differences))
    value: dict[str, Any] = {
        "exam": held.to_json(),
        "lacking": held.figures.lacking(),
        "questions": [to_json(question) for question in found.questions],
        "differences": differences and {name: dataclasses.asdict(one) for name, one in differences.items()},
        "worse": worse,
        "frozen": freeze,
    }

    def table() -> None:
        out.print(exam_table(held))
        for line in _lines(found, held, worse):
            out.print(line, highlight=False)
        if freeze:
            out.print(say("Frozen: exams of later generations are compared with this one."))
        if html is not None:
            out.print(say("the page: {path}", path=escape(str(html))), highlight=False)

    show(as_json, value, table)
    if worse or held.figures.lacking():
        raise typer.Exit(UNWELL)


def exam_table(held: Exam) -> Table:
    """The figures that a person asks for first; the page and --json have all."""
    from worker.place.measures import FIGURES
    from worker.report.wording import figure_name, figure_value, number, place_meaning

    title = say("{sample} photos asked about, twice each", sample=number(held.sample))
    caption = place_meaning(held.figures.right_m)
    shown = Table(say("figure"), say("value"), say("of"), title=title, caption=caption)
    figures = held.figures.overall.figures
    for name in FIGURES:
        if not name.startswith(("within_", "recall_at_5", "recall_at_10")):
            shown.add_row(figure_name(name), figure_value(name, figures[name]), number(figures[name].of))
    return shown


def _lines(found: Examination, held: Exam, worse: Sequence[str]) -> list[str]:
    from worker.place.calibration import proven
    from worker.place.promised import TooFew
    from worker.report.tables import COMPARED

    lines = []
    few = proven(found.learnt)
    if isinstance(few, TooFew):
        lines.append(say("[yellow]nothing can be promised by it:[/] {why}", why=escape(in_language(few.message))))
    for why, count in _counted(held.figures.lacking()).items():
        lines.append(say("[red]figures that could not be computed: {count}[/] ({why})", count=count, why=say(why)))
    lines += [say("[red]clearly worse than the baseline:[/] {what}", what=say(COMPARED[name])) for name in worse]
    return lines


def _counted(lacking: Mapping[str, str]) -> dict[str, int]:
    return {why: list(lacking.values()).count(why) for why in lacking.values()}


def _questions_of(path: Path) -> list[Examined]:
    from worker.place.exam import from_json

    try:
        return [from_json(one) for one in json.loads(path.read_text())["questions"]]
    except OSError as exc:
        raise Misused(say("{path}: {why}", path=path, why=reason(exc))) from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise Misused(say("{path} is not what `sightline exam --json` has written", path=path)) from exc


def _page(
    settings: Settings, held: Exam, questions: Sequence[Examined], differences: Mapping[str, Difference] | None
) -> str:
    from worker.encoder.thumbnails import thumbnail
    from worker.report.page import html
    from worker.report.worst import pictured
    from worker.sandbox.port import decoding
    from worker.storage.source import PhotoFiles

    source = PhotoFiles(settings)
    found: dict[int, bytes | str] = {}
    with decoding(settings) as decode:
        small = partial(thumbnail, max_megapixels=settings.max_megapixels, decode=decode)
        for photo_id, path in pictured(questions, held.figures.right_m).items():
            if path is None:
                continue
            try:
                found[photo_id] = small(source.fetch(Photo(path=path)))
            except (PhotoRefusal, BadRequest, Transient) as exc:
                found[photo_id] = told(exc.code, exc.message)
    return html(held, questions, found, differences=differences)


def _write(path: Path, page: str) -> None:
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as exc:
        fail(say("{path}: {why}", path=path, why=reason(exc)), code=Code.BAD_REQUEST)
