"""Photos whose position something contradicts: who, why, what lies elsewhere; and what a person says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from producer_client.contract import MAX_TOP_K, Confirmed, Conflict, ConflictState, Refused, Rejected
from worker.commands.connections import open_client
from worker.commands.positions import doubt_said, issue_said, mistake_said
from worker.commands.tables import PathShown, Table
from worker.commands.terminal import (
    AsJson,
    Limit,
    Misused,
    OnlyPhotoIds,
    PhotoIds,
    TimeoutS,
    count_lines,
    out,
    print_refused,
    show,
)
from worker.progress import parted
from worker.settings import load as load_settings
from worker.words import say

#: Photos that contradict one and are named in a table; --json has all that are kept.
NAMED = 3


def conflicts(
    photo_ids: OnlyPhotoIds = None,
    settled: Annotated[
        bool, typer.Option("--settled", help=say("Also those that were confirmed or rejected."))
    ] = False,
    limit: Limit = 50,
    as_json: AsJson = False,
    timeout: TimeoutS = 60.0,
) -> None:
    """List photos whose position something contradicts. They are no evidence until somebody settles it.

    `confirm` says that a position is right, `reject` that it is wrong. The nightly rebuild looks for them.
    """
    found: list[Conflict] = []
    after_id: int | None = -1
    waiting = 0
    with open_client(load_settings()) as client:
        while after_id is not None and (limit == 0 or len(found) < limit):
            page = MAX_TOP_K if limit == 0 else min(MAX_TOP_K, limit - len(found))
            reply = client.conflicts(
                photo_ids or None, settled=settled, after_id=after_id, limit=page, timeout_s=timeout
            )
            found += reply.conflicts
            after_id, waiting = reply.after_id, reply.open

    def table() -> None:
        if not found:
            out.print(
                say("no position of these photos is contradicted")
                if photo_ids
                else say("no position is contradicted, as far as the last rebuild could tell")
            )
            return
        out.print(conflicts_table(found))
        for line in count_lines(one.doubt for one in found):
            out.print(line, highlight=False)
        if after_id is not None:
            out.print(say("and more; --limit 0 shows all of them"))
        if waiting:
            out.print(
                say(
                    "{count} wait for a person: `sightline confirm` where the position is right, `sightline reject` "
                    "where it is wrong",
                    count=waiting,
                )
            )

    facts = {"conflicts": [one.to_wire() for one in found], "open": waiting, "after_id": after_id}
    show(as_json, facts, table)


def confirm(photo_ids: PhotoIds, as_json: AsJson = False, timeout: TimeoutS = 60.0) -> None:
    """Say that the positions of these photos are right, whatever contradicts them: they are evidence again.

    They are not asked about again unless their position or their file changes.
    """
    with open_client(load_settings()) as client:
        reply = client.confirm(photo_ids, timeout_s=timeout)
    confirmed, refused, _ = parted(reply.outcomes)
    _show_settled(confirmed, refused, as_json, {"outcomes": [outcome.to_wire() for outcome in reply.outcomes]})


def reject(
    photo_ids: PhotoIds,
    lat: Annotated[
        float | None, typer.Option(min=-90, max=90, help=say("Where a single photo was taken, degrees."))
    ] = None,
    lon: Annotated[float | None, typer.Option(min=-180, max=180, help=say("Its longitude, degrees."))] = None,
    as_json: AsJson = False,
    timeout: TimeoutS = 60.0,
) -> None:
    """Say that the positions of these photos are wrong: they are no evidence for as long as they lie there.

    With --lat and --lon a single photo lies there from now on, and is evidence as `confirmed`.
    """
    if (lat is None) != (lon is None):
        raise Misused(say("give both --lat and --lon, or neither"))
    if lat is not None and len(set(photo_ids)) != 1:
        raise Misused(say("--lat and --lon are for a single photo; reject the others on their own"))
    with open_client(load_settings()) as client:
        reply = client.reject(photo_ids, lat=lat, lon=lon, timeout_s=timeout)
    rejected, refused, _ = parted(reply.outcomes)
    _show_settled(rejected, refused, as_json, {"outcomes": [outcome.to_wire() for outcome in reply.outcomes]})


def conflicts_table(found: Sequence[Conflict]) -> Table:
    shown = Table(show_lines=True)
    shown.add_column(say("photo"), min_width=12)
    shown.add_column(say("says it lies at"), no_wrap=True)
    shown.add_column(say("why that is doubted"), min_width=16)
    shown.add_column(say("evidence"), no_wrap=True)
    for one in found:
        name = (str(one.photo_id), PathShown(one.path) if one.path else say("without a path"))
        claim = (f"{one.lat:.6f}", f"{one.lon:.6f}", one.provenance.value)
        why = doubt_said(one.doubt)
        if one.mistake is not None:
            why = f"{why}; {mistake_said(one.mistake)}"
        if one.conflict_state is ConflictState.CONFIRMED:
            why += "\n" + say("[green]confirmed[/]")
        elif one.conflict_state is ConflictState.REJECTED:
            why += "\n" + say("[red]rejected[/]")
        shown.add_row(name, claim, why, _evidence(one))
    return shown


def settled_table(settled: Sequence[Confirmed | Rejected]) -> Table:
    shown = Table(say("photo"), "seq", say("lat, lon"), say("counts as"))
    for outcome in settled:
        issue = "" if outcome.position_issue is None else f"({issue_said(outcome.position_issue)})"
        where = "" if outcome.lat is None or outcome.lon is None else f"{outcome.lat:.6f}\n{outcome.lon:.6f}"
        shown.add_row(str(outcome.photo_id), str(outcome.seq), where, f"{outcome.provenance or ''}\n{issue}".strip())
    return shown


def _show_settled(
    settled: Sequence[Confirmed | Rejected], refused: Sequence[Refused], as_json: bool, facts: dict[str, object]
) -> None:
    def table() -> None:
        if settled:
            out.print(settled_table(settled))
        print_refused(refused)

    show(as_json, facts, table, refused=refused)


def _evidence(one: Conflict) -> tuple[str, ...]:
    """Who contradicts it, and where they lie."""
    named = ", ".join(map(str, one.photo_ids[:NAMED])) + (", ..." if len(one.photo_ids) > NAMED else "")
    lines = [named] if named else []
    if one.point is not None:
        lines += [f"{one.point.lat:.6f}", f"{one.point.lon:.6f}"]
    if one.distance_m is not None:
        far = one.distance_m >= 10_000
        lines.append(
            say("{km:.0f} km away", km=one.distance_m / 1000) if far else say("{m:.0f} m away", m=one.distance_m)
        )
    return tuple(lines or [say("none")])
