"""Questions about a photo: what looks like it, and where it was taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from producer_client import Near
from producer_client.contract import DEFAULT_THRESHOLD, MAX_TOP_K, Hit
from worker.commands.connections import open_client
from worker.commands.positions import issue_said
from worker.commands.tables import PathShown, Table
from worker.commands.terminal import HIGHEST_ID, AsJson, Misused, TimeoutS, out, show
from worker.settings import load as load_settings
from worker.spelling import led_to
from worker.words import in_language, say


def search(
    photo: Annotated[Path | None, typer.Argument(metavar=say("PHOTO"), help=say("A photo file."))] = None,
    text: Annotated[str | None, typer.Option(help=say("Words instead of a photo."))] = None,
    photo_id: Annotated[
        int | None, typer.Option(min=0, max=HIGHEST_ID, help=say("A known photo instead of a file."))
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, max=MAX_TOP_K, help=say("Photos to show at the most."))] = 5,
    threshold: Annotated[
        float | None, typer.Option(min=-1, max=1, help=say("Least cosine similarity; 0.75 unless given."))
    ] = None,
    near: Annotated[str | None, typer.Option(help=say("LAT,LON,METRES: only photos in this circle."))] = None,
    as_json: AsJson = False,
    timeout: TimeoutS = 60.0,
) -> None:
    """Show photos that look like this one."""
    if (text is None) == (photo is None and photo_id is None):
        raise Misused(say("give a photo file, --photo-id or --text: one of them"))
    settings = load_settings()
    with open_client(settings) as client:
        reply = client.search(
            path=None if photo is None else led_to(photo, settings.photo_roots),
            photo_id=photo_id,
            text=text,
            top_k=top_k,
            threshold=threshold,
            near=_circle(near),
            timeout_s=timeout,
        )

    def table() -> None:
        if reply.hits:
            out.print(hits_table(say("similar: {count}", count=len(reply.hits)), reply.hits))
        elif text is None:
            least = DEFAULT_THRESHOLD if threshold is None else threshold
            out.print(
                say(
                    "nothing similar: no photo of the index looks like it with a similarity of {least} or more. "
                    "`--threshold` asks for less, `sightline stats` says how many photos are indexed.",
                    least=least,
                )
            )
        else:
            out.print(say("nothing found. `sightline stats` says how many photos are indexed."))
        out.print(f"[dim]{_state_line(reply.generation, reply.seq, reply.took_ms)}[/]")

    show(as_json, reply, table)


def locate(
    photo: Annotated[Path, typer.Argument(metavar=say("PHOTO"), help=say("A photo file."))],
    near: Annotated[str | None, typer.Option(help=say("LAT,LON,METRES: only evidence in this circle."))] = None,
    as_json: AsJson = False,
    timeout: TimeoutS = 60.0,
) -> None:
    """Say where a photo was taken, or why that cannot be said."""
    settings = load_settings()
    with open_client(settings) as client:
        reply = client.locate(path=led_to(photo, settings.photo_roots), near=_circle(near), timeout_s=timeout)
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
        out.print(escape(in_language(found.message)))
        if found.evidence:
            out.print(hits_table(say("evidence"), found.evidence[:8]))

    show(as_json, reply, table)


def hits_table(title: str, hits: Sequence[Hit]) -> Table:
    """In 80 columns: two lines a photo, and of its path at least the name."""
    shown = Table(title=title, show_lines=True)
    shown.add_column(say("photo"))
    shown.add_column(say("similarity"))
    shown.add_column(say("lat, lon"), no_wrap=True)
    shown.add_column(say("provenance"), max_width=14)
    shown.add_column(say("path"), min_width=12)
    for hit in hits:
        issue = "" if hit.position_issue is None else f"({issue_said(hit.position_issue)})"
        shown.add_row(
            str(hit.photo_id),
            f"{hit.similarity:.3f}",
            "" if hit.lat is None or hit.lon is None else f"{hit.lat:.6f}\n{hit.lon:.6f}",
            f"{hit.provenance or ''}\n{issue}".strip(),
            PathShown(hit.path or ""),
        )
    return shown


def _state_line(generation: int | None, seq: int, ms: float) -> str:
    if generation is None:
        return say("no generation yet, seq {seq}, {ms:.0f} ms", seq=seq, ms=ms)
    return say("generation {generation}, seq {seq}, {ms:.0f} ms", generation=generation, seq=seq, ms=ms)


def _circle(text: str | None) -> Near | None:
    if text is None:
        return None
    try:
        lat, lon, radius_m = map(float, text.split(","))
    except ValueError:
        raise Misused(say("--near wants LAT,LON,METRES, not {text!r}", text=text)) from None
    return Near(lat, lon, radius_m)
