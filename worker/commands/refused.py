"""Photos of the table that were not taken, and those whose file has changed or gone: who, why, since when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from producer_client import Code, NewPhoto, Pending, Photo, Refused
from producer_client.contract import PositionIssue, Stored
from worker.commands.connections import open_client, open_store
from worker.commands.positions import issue_said
from worker.commands.tables import PathShown, Table
from worker.commands.terminal import (
    AsJson,
    Limit,
    Misused,
    OnlyPhotoIds,
    TimeoutS,
    count_lines,
    named_shortly,
    out,
    print_pending,
    print_refused,
    show,
    told_when_stopped,
)
from worker.progress import both, parted, progress_bar
from worker.settings import load as load_settings
from worker.words import say, told

if TYPE_CHECKING:
    from worker.core.types import NotTaken

#: Codes of photos that were taken, and whose file is not as it was since.
OF_FILES = (PositionIssue.FILE_CHANGED.value, PositionIssue.FILE_GONE.value)


def refused(
    photo_ids: OnlyPhotoIds = None,
    code: Annotated[
        list[str] | None,
        typer.Option(
            metavar=say("<code>"), help=say("Only those of this code, as not_found or file_gone; repeatable.")
        ),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help=say("Try them again now, quarantined ones too."))] = False,
    limit: Limit = 50,
    as_json: AsJson = False,
    timeout: TimeoutS = 300.0,
) -> None:
    """List photos that were refused, and those whose file has changed or is gone, with the reason.

    What callers added without a row in the photos table was refused in their reply alone, and is not here.
    """
    known = {*Code, *OF_FILES}
    if unknown := [name for name in code or () if name not in known]:
        raise Misused(say("{code} is no code; they are {codes}", code=unknown[0], codes=", ".join(sorted(known))))
    settings = load_settings()
    with open_store(settings) as store:
        found = store.attempts.not_taken(photo_ids or None, code or None)
        asked = dict.fromkeys(photo_ids or ())
        there = {*store.rows.get(asked), *(photo.photo_id for photo in found)} if asked else set()
    unknown_ids = [
        Refused(f"photo {photo_id}", Code.UNKNOWN_PHOTO, f"photo {photo_id} is not in the photos table")
        for photo_id in asked
        if photo_id not in there
    ]
    outcomes: list[Stored | Refused | Pending] = []
    if retry and found:
        new = [NewPhoto(ref=f"photo {photo.photo_id}", photo=Photo(photo_id=photo.photo_id)) for photo in found]
        with (
            open_client(settings) as client,
            told_when_stopped(len(new)) as hear,
            progress_bar(say("trying again")) as progress,
        ):
            outcomes = client.add_many(new, timeout_s=timeout, progress=both(progress, hear))
    stored, again, pending = parted(outcomes)

    def table() -> None:
        if found and retry:
            print_refused(again)
            out.print(say("[green]{stored} stored[/], {refused} refused", stored=len(stored), refused=len(again)))
            print_pending(pending)
        elif found:
            shown = found if limit == 0 else found[:limit]
            out.print(refused_table(shown))
            for line in count_lines(photo.code for photo in found):
                out.print(line, highlight=False)
            if len(shown) < len(found):
                out.print(say("and {count} more; --limit 0 shows all of them", count=len(found) - len(shown)))
        elif not asked and not code:
            out.print(
                say(
                    "no photo of the table is refused, and no file has changed or gone; what was refused without a row "
                    "was told to whoever added it"
                )
            )
        elif not asked or len(unknown_ids) < len(asked):
            out.print(say("none of those that were asked for is refused, and none of their files has changed or gone"))
        print_refused(unknown_ids)

    facts = {
        "photos": [asdict(photo) for photo in found],
        "outcomes": [outcome.to_wire() for outcome in [*outcomes, *unknown_ids]],
    }
    show(as_json, facts, table, refused=[*again, *pending, *unknown_ids])


def refused_table(photos: Sequence[NotTaken]) -> Table:
    shown = Table(show_lines=True)
    shown.add_column(say("photo"), min_width=16)
    shown.add_column(say("code"))
    shown.add_column(say("why"))
    shown.add_column(say("since"), no_wrap=True)
    for photo in photos:
        of_file = photo.code in OF_FILES
        why = (
            issue_said(PositionIssue(photo.code))
            if of_file
            else told(Code(photo.code), named_shortly(photo.message, photo.path))
        )
        day, _, hour = (photo.since or "").partition("T")
        name = (str(photo.photo_id), PathShown(photo.path) if photo.path else say("without a path"))
        since = f"{day}\n{hour[:5]} UTC" if photo.since else ""
        shown.add_row(name, f"[red]{photo.code}[/]", escape(why), since)
    return shown
