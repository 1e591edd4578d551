"""`sightline audit`: who has asked where photos were taken, and what was told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape

from worker.commands.connections import open_store
from worker.commands.tables import Table, printable
from worker.commands.terminal import HIGHEST_ID, AsJson, Misused, out, show
from worker.core.audit import Recorded
from worker.settings import load as load_settings
from worker.words import say

#: Digits of a hash that the table shows; `--json` has it whole.
DIGITS = 12
#: Photos that were told of and are named in the table.
NAMED = 3


def audit(
    producer: Annotated[
        str | None,
        typer.Option(metavar=say("KEY"), help=say("Only questions signed with this key; '' for those without.")),
    ] = None,
    content: Annotated[
        str | None,
        typer.Option(metavar="SHA-256", help=say("Only questions about the file whose SHA-256 begins so.")),
    ] = None,
    photo_id: Annotated[
        int | None,
        typer.Option(min=0, max=HIGHEST_ID, help=say("Only questions about this photo, or that were told of it.")),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar=say("WHEN"), help=say("Only questions since then: 2026-11-29 or 2026-11-29T08:00.")),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help=say("Questions to show at the most; 0 shows all."))] = 50,
    as_json: AsJson = False,
) -> None:
    """List who has asked where photos were taken, when, and what was told, the newest first.

    It is recorded where SIGHTLINE_AUDIT_DAYS is more than 0, and kept for so many days. A purge takes the photo out of
    it.
    """
    if content is not None and not re.fullmatch("[0-9a-fA-F]{8,64}", content):
        raise Misused(say("--content wants 8 to 64 digits of a SHA-256, not {text!r}", text=content))
    settings = load_settings()
    with open_store(settings) as store:
        found = store.audit.recorded(
            producer=producer,
            content=None if content is None else content.lower(),
            photo_id=photo_id,
            since=_moment(since),
            limit=limit or None,
        )

    def table() -> None:
        if found:
            out.print(audit_table(found))
        elif settings.audit_days:
            out.print(say("nothing is recorded of such questions"))
        else:
            out.print(say("nothing is recorded: SIGHTLINE_AUDIT_DAYS is 0"))

    recorded = [{"at": one.at, "until": one.until, **asdict(one.question)} for one in found]
    show(as_json, {"questions": recorded, "audit_days": settings.audit_days}, table)


def audit_table(found: Sequence[Recorded]) -> Table:
    shown = Table(show_lines=True)
    shown.add_column(say("when"), no_wrap=True)
    shown.add_column(say("by whom"), min_width=8)
    shown.add_column(say("photo"), no_wrap=True)
    shown.add_column(say("answer"), min_width=16)
    for one in found:
        asked = one.question
        day, _, hour = one.at.partition("T")
        photo = [] if asked.photo_id is None else [str(asked.photo_id)]
        photo += [] if asked.content_sha256 is None else [asked.content_sha256[:DIGITS]]
        answer = [f"{asked.verb}: {escape(printable(asked.answer))}"]
        if asked.lat is not None and asked.lon is not None:
            answer.append(f"{asked.lat:.6f}, {asked.lon:.6f}")
        if asked.told:
            named = ", ".join(map(str, asked.told[:NAMED])) + (", ..." if len(asked.told) > NAMED else "")
            answer.append(say("positions told: {count} ({photos})", count=len(asked.told), photos=named))
        by = escape(printable(asked.producer)) or say("not signed")
        shown.add_row((day, f"{hour[:5]} UTC"), by, tuple(photo or ["-"]), tuple(answer))
    return shown


def _moment(text: str | None) -> datetime | None:
    """In UTC where it does not say another zone."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Misused(say("--since wants a day or a moment as 2026-11-29T08:00, not {text!r}", text=text)) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
