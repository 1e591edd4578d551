"""Photos into the index and out of it again, and their vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec.structs import replace
from rich.markup import escape

from producer_client import EmbedItem, NewPhoto, Pending, Photo, Provenance, Refused
from producer_client.contract import Purged, Removed, Stored
from producer_client.errors import short
from worker.commands.connections import open_client, open_store
from worker.commands.positions import position_lines
from worker.commands.tables import Table, printable
from worker.commands.terminal import (
    GOING_ON,
    AsJson,
    Misused,
    PhotoIds,
    TimeoutS,
    UpdateRows,
    fail,
    goes_on,
    out,
    print_pending,
    print_refused,
    show,
    told_when_stopped,
)
from worker.manifest import MANIFESTS, LeftOut, LinkedFolder, Note, NotRead, new_photos
from worker.progress import both, embed_missing, look_at_pictures, parted, progress_bar
from worker.settings import load as load_settings
from worker.spelling import led_to
from worker.words import in_language, say

#: Names of what was left out that are told.
NAMED = 5
if TYPE_CHECKING:
    from worker.library.checking import Checked


def add(
    photos: Annotated[
        list[Path],
        typer.Argument(
            metavar=say("PHOTOS"),
            help=say(
                "Files, folders, or a manifest (.csv, .tsv) with file, lat, lon, and maybe coordinate_source and place."
            ),
        ),
    ],
    lat: Annotated[
        float | None, typer.Option(min=-90, max=90, help=say("Latitude of a single photo, degrees."))
    ] = None,
    lon: Annotated[
        float | None, typer.Option(min=-180, max=180, help=say("Longitude of a single photo, degrees."))
    ] = None,
    provenance: Annotated[
        Provenance,
        typer.Option(
            metavar=say("<word>"),
            help=say(
                "How coordinates of --lat and --lon came to be, and those of a manifest that does not say it: "
                "exif_gps, surveyed, confirmed, derived or fallback."
            ),
        ),
    ] = Provenance.SURVEYED,
    update_rows: UpdateRows = None,
    everything: Annotated[
        bool, typer.Option("--all", help=say("Of folders also hidden files, and what programs keep there."))
    ] = False,
    as_json: AsJson = False,
    timeout: TimeoutS = 300.0,
) -> None:
    """Add photos to the index. Without coordinates those that the file says are taken: EXIF, XMP, Google Takeout.

    A photo without a row in the photos table gets one. Rows that are there stay as they are without --update-rows.
    """
    if (lat is None) != (lon is None):
        raise Misused(say("give both --lat and --lon, or neither"))
    if lat is not None and (len(photos) != 1 or photos[0].is_dir() or photos[0].suffix.lower() in MANIFESTS):
        raise Misused(say("--lat and --lon are for a single photo; use a manifest.csv for many"))
    settings = load_settings()
    try:
        items = list(
            new_photos(
                photos,
                lat,
                lon,
                provenance,
                everything=everything,
                methods=settings.location_methods,
                roots=settings.photo_roots,
            )
        )
    except ValueError as exc:
        if isinstance(exc.__cause__, FileNotFoundError):
            raise Misused(str(exc)) from exc
        fail(str(exc))
    left_out = [item for item in items if isinstance(item, LeftOut)]
    not_read = Counter(item.path.suffix.lower() for item in items if isinstance(item, NotRead))
    notes = [item.words for item in items if isinstance(item, Note)]
    links = [item.path for item in items if isinstance(item, LinkedFolder)]
    passed_over = [*_passed_over(left_out, not_read, links), *map(in_language, notes)]
    if len(left_out) + not_read.total() + len(links) + len(notes) == len(items):
        fail("; ".join([say("no photo there"), *passed_over]))
    outcomes: list[Stored | Refused | Pending] = [item for item in items if isinstance(item, Refused)]
    new = [replace(item, update_row=update_rows) for item in items if isinstance(item, NewPhoto)]
    if new:
        with (
            open_client(settings) as client,
            told_when_stopped(len(new)) as told,
            progress_bar(say("adding")) as progress,
        ):
            outcomes += client.add_many(new, timeout_s=timeout, progress=both(progress, told))
    stored, refused, pending = parted(outcomes)

    def table() -> None:
        print_refused(refused)
        out.print(say("[green]{stored} stored[/], {refused} refused", stored=len(stored), refused=len(refused)))
        print_pending(pending)
        for line in position_lines(stored):
            out.print(line)
        for line in passed_over:
            out.print(escape(printable(line)))

    facts = {
        "outcomes": [outcome.to_wire() for outcome in outcomes],
        "left_out": len(left_out),
        "not_read": dict(not_read.most_common()),
        "not_followed": [str(path) for path in links],
        "notes": notes,
    }
    show(as_json, facts, table, refused=[*refused, *pending])


def embed(
    photos: Annotated[list[Path] | None, typer.Argument(metavar=say("PHOTOS"), help=say("Photo files."))] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help=say("Every photo of the table that lacks a vector of the model."))
    ] = False,
    as_json: AsJson = False,
    timeout: TimeoutS = 300.0,
) -> None:
    """Compute vectors: of photo files, to be had with --json, or with --missing of the photos table.

    With --missing photos are indexed as `backfill` does, without its report, and again where their file has changed;
    those that were indexed before pictures were compared are looked at again, to know their copies. A run that was
    broken off goes on where it ended.
    """
    from worker.library.checking import Checking
    from worker.storage.source import PhotoFiles

    if missing and photos:
        raise Misused(say("give photo files or --missing, not both: they exclude each other"))
    if not missing and not photos:
        raise Misused(say("give photo files, or --missing"))
    settings = load_settings()
    if missing:
        with open_client(settings) as client, open_store(settings) as store:
            with progress_bar(say("looking")) as progress:
                files = Checking(files=store.files, source=PhotoFiles(settings))
                checked = files.all(lambda _, done, total: progress(done, total))
            model_key = client.stats().model_key
            todo = store.vectors.missing_count(model_key)
            with goes_on(say(GOING_ON)):
                stored, refused, pending = embed_missing(client, store.vectors, model_key, todo, timeout)
                unseen = store.vectors.missing_hash_count()
                seen, unread, unanswered = look_at_pictures(client, store.vectors, unseen, timeout)
        refused += unread
        pending += unanswered
        facts: dict[str, Any] = {"missing_before": todo, "embedded": stored, "without_hash_before": unseen}
        facts["files"] = asdict(checked)
        lines = checked_lines(checked)
    else:
        paths = {str(path): led_to(path, settings.photo_roots) for path in photos or ()}
        items = [EmbedItem(ref=name, photo=Photo(path=path)) for name, path in paths.items()]
        with open_client(settings) as client, progress_bar(say("embedding")) as progress:
            outcomes = client.embed_many(items, return_vectors=True, timeout_s=timeout, progress=progress)
        embedded, refused, pending = parted(outcomes)
        stored, seen = len(embedded), 0
        facts = {"embedded": [outcome.to_wire() for outcome in embedded]}
        lines = []

    def table() -> None:
        for line in lines:
            out.print(line)
        print_refused(refused)
        out.print(say("[green]{stored} embedded[/], {refused} refused", stored=stored, refused=len(refused)))
        print_pending(pending)
        if seen:
            out.print(say("pictures looked at again, to know copies of them: {count}", count=seen))

    facts["refused"] = [outcome.to_wire() for outcome in refused]
    facts["pending"] = [outcome.to_wire() for outcome in pending]
    show(as_json, facts, table, refused=[*refused, *pending])


def _passed_over(left_out: Sequence[LeftOut], not_read: Counter[str], links: Sequence[Path]) -> list[str]:
    """How many files of a folder were not added, and the commonest names and suffixes that say why."""
    lines = []
    if left_out:
        names = ", ".join(name for name, _ in Counter(item.name for item in left_out).most_common(NAMED))
        lines.append(
            say(
                "left out, hidden or put there by programs: {count} ({names}); --all takes them, and so does naming a "
                "file",
                count=len(left_out),
                names=names,
            )
        )
    if not_read:
        bare = say("without suffix")
        kinds = [f"{count} {suffix or bare}" for suffix, count in not_read.most_common(NAMED)]
        if len(not_read) > NAMED:
            kinds.append("...")
        lines.append(
            say("files of formats that are not read: {count} ({kinds})", count=not_read.total(), kinds=", ".join(kinds))
        )
    if links:
        named = [f"{path} -> {path.readlink()}" for path in links[:NAMED]]
        lines.append(
            say(
                "links to folders that were not followed: {count} ({links}); to add what is there, name them",
                count=len(links),
                links=", ".join(named) + (", ..." if len(links) > NAMED else ""),
            )
        )
    return lines


def checked_lines(checked: Checked) -> list[str]:
    lines = []
    if checked.changed:
        lines.append(say("files that have changed since they were embedded: {count}", count=checked.changed))
    if checked.gone:
        lines.append(say("[yellow]files that are gone[/]: {count}", count=checked.gone))
    if checked.unknown:
        count, why = checked.unknown, escape(in_language(short(checked.why or "")))
        lines.append(f"[yellow]{say('files of which nothing can be said: {count} ({why})', count=count, why=why)}[/]")
    return lines


def remove(
    photo_ids: PhotoIds,
    as_json: AsJson = False,
    timeout: TimeoutS = 60.0,
) -> None:
    """Take photos out of the index at once and for good. What is stored of them stays, and so do their rows.

    A photo that is added again is back. `purge` erases what is stored, too.
    """
    with open_client(load_settings()) as client:
        reply = client.remove(photo_ids, timeout_s=timeout)
    removed, refused, _ = parted(reply.outcomes)

    def table() -> None:
        if removed:
            out.print(removed_table(removed))
        print_refused(refused)

    show(as_json, reply, table, refused=refused)


def purge(
    photo_ids: PhotoIds,
    as_json: AsJson = False,
    timeout: TimeoutS = 60.0,
) -> None:
    """Remove photos and erase what is stored of them, also from the index generations on disk."""
    with open_client(load_settings()) as client:
        reply = client.purge(photo_ids, timeout_s=timeout)
    purged, refused, _ = parted(reply.outcomes)

    def table() -> None:
        if purged:
            out.print(purged_table(purged))
        print_refused(refused)
        if any(outcome.generations for outcome in purged):
            out.print(
                say(
                    "erased from Postgres and from every answer now. Generations on disk go with the next rebuild, "
                    "which the beat starts by itself; `sightline stats` shows purges pending until then"
                )
            )
        elif purged:
            out.print(say("erased from Postgres and from every answer; no generation on disk holds it"))

    show(as_json, reply, table, refused=refused)


def removed_table(removed: Sequence[Removed]) -> Table:
    shown = Table(say("photo"), "seq", say("was indexed"))
    for outcome in removed:
        shown.add_row(str(outcome.photo_id), str(outcome.seq), _yes_no(outcome.was_indexed))
    return shown


def purged_table(purged: Sequence[Purged]) -> Table:
    shown = Table(say("photo"), "seq", say("was indexed"), say("generations that may still hold it"))
    for outcome in purged:
        held = ", ".join(map(str, outcome.generations)) or say("none")
        shown.add_row(str(outcome.photo_id), str(outcome.seq), _yes_no(outcome.was_indexed), held)
    return shown


def _yes_no(holds: bool) -> str:
    return say("yes") if holds else say("no")
