"""Photos that are left alone because workers have died with them: which, how they died, and what lets them go."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape

from producer_client.contract import LeftAlone, Quarantined, Release
from worker.commands.connections import open_store
from worker.commands.tables import PathShown, Table
from worker.commands.terminal import FAILED, AsJson, Limit, Misused, out, show
from worker.core.tries import STUCK
from worker.settings import load as load_settings
from worker.words import say

#: Digits of a content that are shown in a table, and enough to name it.
DIGITS = 12


class Act(StrEnum):
    LIST = "list"
    SHOW = "show"
    RETRY = "retry"
    FORGET = "forget"


def quarantine(
    act: Annotated[Act, typer.Argument(metavar=say("ACT"), show_default=False)] = Act.LIST,
    contents: Annotated[
        list[str] | None,
        typer.Argument(
            metavar=say("CONTENTS"), help=say("SHA-256 of photos as `list` shows them: 8 digits or more of it.")
        ),
    ] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List photos with which workers have died too often, by content; `show` says all of one.

    `retry` has them tried once more, and those with a row without being asked for; another death counts on. `forget`
    holds nothing against them any more.
    """
    from worker.quarantine import Quarantine

    wanted = [content.lower() for content in contents or ()]
    if act is Act.LIST and wanted:
        raise Misused(say("`quarantine list` takes no contents: `quarantine show` does"))
    if act is not Act.LIST and not wanted:
        raise Misused(say("name the photos by their contents, as `sightline quarantine list` shows them"))
    if wanted:
        Quarantined(contents=wanted)  # what is wrong with them is said
    settings = load_settings()
    with open_store(settings) as store:
        left_alone = Quarantine(store.attempts, after=settings.quarantine_after)
        unknown: list[str] = []
        if act in (Act.RETRY, Act.FORGET):
            reply = left_alone.release(Release(contents=wanted).contents, forget=act is Act.FORGET)
            photos, unknown = reply.released, reply.unknown
        else:
            photos = left_alone.known(wanted or None, limit or None)
            unknown = [one for one in wanted if not any(p.content_sha256.startswith(one) for p in photos)]

    def table() -> None:
        match act:
            case Act.RETRY if photos:
                out.print(say("{count} may be tried once more", count=len(photos)))
            case Act.FORGET if photos:
                out.print(say("nothing is held against {count} any more", count=len(photos)))
            case Act.SHOW:
                for photo in photos:
                    out.print(shown_whole(photo))
            case Act.LIST if photos:
                out.print(left_alone_table(photos))
            case Act.LIST:
                out.print(say("no photo is quarantined"))
        for content in unknown:
            out.print(say("no quarantined photo begins with {content}", content=escape(content)))

    show(as_json, {"photos": [photo.to_wire() for photo in photos], "unknown": unknown}, table)
    if unknown:
        raise typer.Exit(FAILED)


def left_alone_table(photos: Sequence[LeftAlone]) -> Table:
    shown = Table(show_lines=True)
    shown.add_column(say("photo"), min_width=16)
    shown.add_column(say("content"), no_wrap=True)
    shown.add_column(say("deaths"), justify="right")
    shown.add_column(say("the last one"), min_width=10)
    for photo in photos:
        day, _, hour = photo.at.partition("T")
        shown.add_row(
            _named(photo),
            photo.content_sha256[:DIGITS],
            str(photo.times),
            (_how(photo), day, f"{hour[:5]} UTC"),
        )
    return shown


def shown_whole(photo: LeftAlone) -> Table:
    shown = Table(show_header=False)
    shown.add_column()
    shown.add_column(min_width=20)
    shown.add_row(say("photo"), _named(photo))
    shown.add_row(say("content"), photo.content_sha256)
    shown.add_row(say("deaths"), str(photo.times))
    shown.add_row(say("the last one"), photo.at)
    shown.add_row(say("how"), _how(photo))
    shown.add_row(say("last words"), escape(photo.error or ""))
    return shown


def _how(photo: LeftAlone) -> str:
    if photo.signal == STUCK:
        return say("a thread was stuck")
    return photo.signal or say("nobody saw how")


def _named(photo: LeftAlone) -> tuple[str | PathShown, ...]:
    named: list[str | PathShown] = [] if photo.photo_id is None else [str(photo.photo_id)]
    if photo.path:
        named.append(PathShown(photo.path))
    return tuple(named or [say("without a path")])
