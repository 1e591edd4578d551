"""Questions about a photo: what looks like it, and where it was taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from producer_client import Near
from producer_client.contract import Hit
from producer_client.language import Language, explained
from worker.commands.connections import open_client
from worker.commands.positions import issue_said
from worker.commands.terminal import AsJson, TimeoutS, fail, out, show
from worker.settings import load as load_settings
from worker.words import say


def search(
    photo: Annotated[Path | None, typer.Argument(help=say("A photo file."))] = None,
    text: Annotated[str | None, typer.Option(help=say("Words instead of a photo."))] = None,
    photo_id: Annotated[int | None, typer.Option(help=say("A known photo instead of a file."))] = None,
    top_k: Annotated[int, typer.Option(help=say("Photos to show at the most."))] = 5,
    threshold: Annotated[float | None, typer.Option(help=say("Least cosine similarity; 0.75 unless given."))] = None,
    near: Annotated[str | None, typer.Option(help=say("LAT,LON,METRES: only photos in this circle."))] = None,
    as_json: AsJson = False,
    timeout: TimeoutS = 60.0,
) -> None:
    """Show photos that look like this one."""
    with open_client(load_settings()) as client:
        reply = client.search(
            path=None if photo is None else str(photo.resolve()),
            photo_id=photo_id,
            text=text,
            top_k=top_k,
            threshold=threshold,
            near=_circle(near),
            timeout_s=timeout,
        )

    def table() -> None:
        out.print(_hits_table(say("similar: {count}", count=len(reply.hits)), reply.hits))
        generation, seq, ms = reply.generation, reply.seq, reply.took_ms
        out.print(say("[dim]generation {generation}, seq {seq}, {ms:.0f} ms[/]", generation=generation, seq=seq, ms=ms))

    show(as_json, reply, table)


def locate(
    photo: Annotated[Path, typer.Argument(help=say("A photo file."))],
    near: Annotated[str | None, typer.Option(help=say("LAT,LON,METRES: only evidence in this circle."))] = None,
    as_json: AsJson = False,
    timeout: TimeoutS = 60.0,
) -> None:
    """Say where a photo was taken, or why that cannot be said."""
    with open_client(load_settings()) as client:
        reply = client.locate(path=str(photo.resolve()), near=_circle(near), timeout_s=timeout)
    found = reply.answer

    def table() -> None:
        if found.point is not None:
            out.print(
                say(
                    "[bold green]located[/] {lat:.6f}, {lon:.6f} within {radius_m:.0f} m, vote share {share:.0%} "
                    "(not calibrated)",
                    lat=found.point.lat,
                    lon=found.point.lon,
                    radius_m=found.radius_m,
                    share=found.confidence,
                )
            )
        else:
            out.print(say("[bold yellow]abstained[/] {reason}", reason=found.reason))
        out.print(escape(found.message if Language.chosen() is Language.EN else explained(found)))
        if found.evidence:
            out.print(_hits_table(say("evidence"), found.evidence[:8]))

    show(as_json, reply, table)


def _circle(text: str | None) -> Near | None:
    if text is None:
        return None
    try:
        lat, lon, radius_m = map(float, text.split(","))
    except ValueError:
        fail(say("--near wants LAT,LON,METRES, not {text!r}", text=text))
    return Near(lat, lon, radius_m)


def _hits_table(title: str, hits: Sequence[Hit]) -> Table:
    shown = Table(say("photo"), say("similarity"), "lat", "lon", say("provenance"), say("path"), title=title)
    for hit in hits:
        shown.add_row(
            str(hit.photo_id),
            f"{hit.similarity:.3f}",
            "" if hit.lat is None else f"{hit.lat:.6f}",
            "" if hit.lon is None else f"{hit.lon:.6f}",
            (hit.provenance or "") + ("" if hit.position_issue is None else f" ({issue_said(hit.position_issue)})"),
            escape(hit.path or ""),
        )
    return shown
