"""Questions about a photo: what looks like it, and where it was taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.markup import escape

from producer_client import Near
from producer_client.contract import DEFAULT_THRESHOLD, MAX_TOP_K, Answer, ConfidenceKind, Hit, Policy
from producer_client.language import to_say
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
    allow_stale: Annotated[
        bool, typer.Option("--allow-stale", help=say("While Postgres is away: by what a worker remembers."))
    ] = False,
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
            allow_stale=allow_stale,
            timeout_s=timeout,
        )

    def table() -> None:
        if reply.stale_s is not None:
            out.print(
                say(
                    "[yellow]Postgres is away:[/] as of {seconds:.0f} s ago, and what was removed since may be shown.",
                    seconds=reply.stale_s,
                )
            )
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
    policy: Annotated[
        Policy | None, typer.Option(help=say("`guide`: by the rule of the guide, to compare with."))
    ] = None,
    as_json: AsJson = False,
    timeout: TimeoutS = 60.0,
) -> None:
    """Say where a photo was taken, or why that cannot be said."""
    settings = load_settings()
    with open_client(settings) as client:
        reply = client.locate(
            path=led_to(photo, settings.photo_roots), near=_circle(near), policy=policy, timeout_s=timeout
        )

    def tables() -> None:
        for shown in answer_shown(reply.answer):
            out.print(shown)

    show(as_json, reply, tables)


def answer_shown(found: Answer) -> Iterator[RenderableType]:
    """An answer, what speaks for it, and what speaks most against it."""
    if found.point is None:
        yield say("[bold yellow]abstained[/] {reason}", reason=found.reason)
    elif found.radius_m is None:
        yield say(
            "[bold green]located[/] {lat:.6f}, {lon:.6f}, {confidence}",
            lat=found.point.lat,
            lon=found.point.lon,
            confidence=confidence_said(found),
        )
    else:
        yield say(
            "[bold green]located[/] {lat:.6f}, {lon:.6f} within {radius_m:.0f} m, {confidence}",
            lat=found.point.lat,
            lon=found.point.lon,
            radius_m=found.radius_m,
            confidence=confidence_said(found),
        )
    yield escape(in_language(found.message))
    if found.within:
        shares = (say("{metres} m {share:.0%}", metres=metres, share=share) for metres, share in found.within.items())
        yield say("probability within {shares}", shares=", ".join(shares))
    if found.evidence:
        title = say("evidence") if found.located else say("the likeliest, and not sure enough")
        yield hits_table(title, found.evidence[:8])
    if found.contrary is not None:
        yield hits_table(say("the strongest against it"), [found.contrary])


#: What the confidence of an answer is, by its kind.
_CONFIDENCES: Mapping[str, str] = {
    ConfidenceKind.PROBABILITY: to_say("probability {share:.0%}"),
    ConfidenceKind.UNCALIBRATED: to_say("strength {share:.0%} (not calibrated)"),
    ConfidenceKind.VOTE_SHARE: to_say("vote share {share:.0%} (not calibrated)"),
    ConfidenceKind.COSINE: to_say("similarity {share:.0%} (no confidence)"),
}


def confidence_said(found: Answer) -> str:
    # One of a later release is said by its name.
    known = _CONFIDENCES.get(found.confidence_kind, escape(found.confidence_kind) + " {share:.0%}")
    return say(known, share=found.confidence or 0.0)


def hits_table(title: str, hits: Sequence[Hit]) -> Table:
    """In 80 columns: two lines a photo, and of its path at least the name. Points in common where any is compared, and
    seconds after the photo asked about where its camera took any."""
    shown = Table(title=title, show_lines=True)
    shown.add_column(say("photo"))
    shown.add_column(say("similarity"))
    compared = any(hit.inliers is not None for hit in hits)
    if compared:
        shown.add_column(say("points"), justify="right")
    timed = any(hit.apart_s is not None for hit in hits)
    if timed:
        shown.add_column(say("apart, s"), justify="right")
    shown.add_column(say("lat, lon"), no_wrap=True)
    shown.add_column(say("provenance"), max_width=14)
    shown.add_column(say("path"), min_width=12)
    for hit in hits:
        issue = "" if hit.position_issue is None else f"({issue_said(hit.position_issue)})"
        shown.add_row(
            str(hit.photo_id),
            f"{hit.similarity:.3f}",
            *(["" if hit.inliers is None else str(hit.inliers)] if compared else []),
            *(["" if hit.apart_s is None else f"{hit.apart_s:+.0f}"] if timed else []),
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
