"""`sightline where`: what is kept of a photo, where, and until when."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from worker.commands.connections import open_store
from worker.commands.tables import PathShown, Table, moment, printable
from worker.commands.terminal import HIGHEST_ID, AsJson, out, show
from worker.core.kept import Holding, Kept, Kind, State, Until
from worker.naming import Named, in_redis
from worker.settings import Settings
from worker.settings import load as load_settings
from worker.spelling import led_to
from worker.words import say

if TYPE_CHECKING:
    from worker.storage.store import PostgresStore


def where(
    photos: Annotated[
        list[str], typer.Argument(metavar=say("PHOTOS"), help=say("Ids, paths, URLs, or SHA-256 of files."))
    ],
    as_json: AsJson = False,
) -> None:
    """Show what is kept of photos, where, and until when: rows, vectors, index files, messages and replies.

    `purge` erases what is Sightline's. What this machine cannot see, as backups, is named below the table.
    """
    settings = load_settings()
    with open_store(settings) as store:
        named = {name: _held(settings, store, name) for name in dict.fromkeys(photos)}
    known = [photo for found in named.values() for photo in found]
    messages = in_redis(settings, [Named(photo.photo_id, photo.path, photo.content_sha256) for photo in known])
    whole = iter([replace(photo, kept=(*photo.kept, *there)) for photo, there in zip(known, messages, strict=True)])
    told = {name: [next(whole) for _ in found] for name, found in named.items()}

    def table() -> None:
        for name, found in told.items():
            if not found:
                out.print(say("nothing is kept of {name}", name=escape(printable(name))))
            for photo in found:
                out.print(kept_table(photo))
        for line in elsewhere(settings):
            out.print(line)

    facts = {
        "photos": [{"name": name, **_facts(photo)} for name, found in told.items() for photo in found],
        "nothing_of": [name for name, found in told.items() if not found],
    }
    show(as_json, facts, table)


def kept_table(photo: Holding) -> Table:
    shown = Table(title=_title(photo), title_justify="left", show_lines=True)
    shown.add_column(say("kept"), min_width=20)
    shown.add_column(say("where"), min_width=16)
    shown.add_column(say("until"), min_width=20)
    for one in photo.kept:
        what = (kind_said(one.kind), f"[dim]{escape(one.says)}[/]") if one.says else kind_said(one.kind)
        shown.add_row(what, PathShown(one.place), until_said(one))
    return shown


def elsewhere(settings: Settings) -> Iterator[str]:
    """What no look at this machine's tables, keys and index files shows."""
    yield say("Not seen from here:")
    yield say(
        "- backups and replicas of Postgres: yours. Who restores one of before a purge purges again; a photo that was "
        "purged is in no backup that is made after it"
    )
    yield say(
        "- Postgres' own files: bytes of deleted rows stay in them and in its write-ahead log until others are written "
        "over them. `sightline backup` and `restore --replace` make new ones without them"
    )
    yield say(
        "- the log of Redis on disk: until it is written anew, which `sightline up` has it do every hour; other hosts' "
        "copies of the index: until their workers take over the next generation; the memory of workers: a quarter of "
        "an hour"
    )
    yield say(
        "- log lines, which may name ids and paths ({folder} keeps 20 MB of each process); photo files, pages of "
        "`sightline exam`, and what callers have made of answers: yours",
        folder=escape(str(settings.data_dir)),
    )


def kind_said(kind: Kind) -> str:
    match kind:
        case Kind.ROW:
            return say("its row, with path and position")
        case Kind.ENTRY:
            return say("path, position, address and metadata, as callers and file said them")
        case Kind.TOMBSTONE:
            return say("its bare id, so that nothing adds it again")
        case Kind.VECTOR:
            return say("its vector")
        case Kind.PICTURE:
            return say("what the picture looks like, its camera and time")
        case Kind.KEYPOINTS:
            return say("its keypoints")
        case Kind.REFUSAL:
            return say("why it was refused")
        case Kind.ATTEMPT:
            return say("tries that have begun")
        case Kind.CONFLICT:
            return say("what contradicts its position")
        case Kind.CONTRADICTS:
            return say("that it contradicts others")
        case Kind.BASELINE:
            return say("what came of it in an exam")
        case Kind.CHANGE:
            return say("that it changed, and when")
        case Kind.PURGE:
            return say("that it was purged, and when")
        case Kind.QUESTION:
            return say("who has asked where it was taken, and the answer")
        case Kind.GENERATION:
            return say("its vector and position, in index files")
        case Kind.REPLY:
            return say("a reply that names it")
        case Kind.MESSAGE:
            return say("a message that names it")
        case Kind.PARKED:
            return say("a message that could not be read")


def until_said(one: Kept) -> str:
    at = "" if one.at is None else moment(one.at)
    match one.until:
        case Until.BACKEND:
            return say("your backend deletes it: no purge does")
        case Until.PURGE:
            return say("a purge")
        case Until.SHARED:
            return say("a purge of all photos of this content")
        case Until.UNADDED:
            return say("a rebuild, a week after it was embedded, unless it is added")
        case Until.REBUILD:
            return say("the next rebuild, which the purge has asked for ({at})", at=at)
        case Until.NEWER:
            return say("newer generations take its place, or a purge")
        case Until.LOG:
            return say("a rebuild, when no kept generation needs it")
        case Until.BASELINE:
            return say("another exam takes its place, or a purge")
        case Until.EXPIRES:
            return at
        case Until.ANSWERED:
            return say("a worker has answered it")
        case Until.DROPPED:
            return say("`sightline parked {id} --drop`", id=escape(one.says))
        case Until.TAKEN:
            return say("it is taken, or a purge")
        case Until.STAYS:
            return say("for good")


def _title(photo: Holding) -> str:
    content = photo.content_sha256 or ""
    if photo.photo_id is None:
        return say("content {content}, of no photo", content=content)
    name = printable(photo.path or say("without a path"))
    match photo.state:
        case State.INDEXED:
            return say("photo {id}, in the index: {name}", id=photo.photo_id, name=escape(name))
        case State.REMOVED:
            return say("photo {id}, removed: {name}", id=photo.photo_id, name=escape(name))
        case State.PURGED:
            return say("photo {id}, purged", id=photo.photo_id)
        case State.NOT_ADDED:
            return say("photo {id}, not added: {name}", id=photo.photo_id, name=escape(name))


def _facts(photo: Holding) -> dict[str, Any]:
    return asdict(photo)


def _held(settings: Settings, store: PostgresStore, name: str) -> list[Holding]:
    """Of the photos of this name, what Postgres and the index files keep."""
    from worker.runtime import generation_folder
    from worker.storage.source import PhotoFiles

    if name.isdecimal() and int(name) <= HIGHEST_ID:
        found = [store.holdings.of(int(name))]
    elif re.fullmatch("[0-9a-f]{64}", name):
        found = store.holdings.with_content(name)
    else:
        files = PhotoFiles(settings)
        absolute = name if "://" in name else led_to(Path(name), settings.photo_roots)
        found = store.holdings.named(dict.fromkeys([*files.spellings(name), *files.spellings(absolute)]))
    folder = generation_folder(settings)
    whole = []
    for photo in found:
        numbers = [] if photo.photo_id is None else folder.holding(photo.photo_id)
        leaves = next((one for one in photo.kept if one.until is Until.REBUILD), None)
        until, at = (Until.NEWER, None) if leaves is None else (Until.REBUILD, leaves.at)
        files_kept = [Kept(Kind.GENERATION, str(folder.path(number)), until, "", at) for number in numbers]
        if settings.index_url:
            files_kept += [
                Kept(Kind.GENERATION, f"{settings.index_url}/{folder.path(number).name}", until, "", at)
                for number in numbers
            ]
        whole.append(replace(photo, kept=(*photo.kept, *files_kept)))
    return [photo for photo in whole if photo.kept]
