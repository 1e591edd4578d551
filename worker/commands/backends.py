"""What can run the model on this machine, as a worker has measured it, for `sightline doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape

from worker.commands.tables import Table
from worker.commands.terminal import out
from worker.settings import Settings
from worker.words import in_language, say

if TYPE_CHECKING:
    from worker.encoder.choice import Measured


def backends(settings: Settings) -> list[Measured]:
    """What can run the model here, as a worker has measured it; nothing where none has yet."""
    from worker.encoder.load import measured

    return measured(
        settings.encoder,
        sha256=settings.encoder_sha256,
        device=settings.device,
        threads=settings.threads,
        models=settings.exports_dir,
    )


def print_backends(rows: Sequence[Measured]) -> None:
    if rows:
        out.print(backends_table(rows))
    for line in backend_lines(rows):
        out.print(line, highlight=False)


def backends_table(rows: Sequence[Measured]) -> Table:
    shown = Table()
    shown.add_column(say("backend"), no_wrap=True)
    for title in (say("ms a photo"), say("in a batch"), say("cosine to float32"), say("same neighbours"), ""):
        shown.add_column(title)
    for row in rows:
        figures = [
            "" if figure is None else f"{figure:{form}}"
            for figure, form in (
                (row.ms_alone, ".1f"),
                (row.ms_in_batch, ".1f"),
                (row.cosine, ".5f"),
                (row.neighbours, ".1%"),
            )
        ]
        shown.add_row(row.backend, *figures, say("[green]ok[/]") if row.why is None else say("[red]no[/]"))
    return shown


def backend_lines(rows: Sequence[Measured]) -> Iterator[str]:
    """Why some are not taken."""
    yield from (f"{row.backend}: {escape(in_language(row.why))}" for row in rows if row.why is not None)
