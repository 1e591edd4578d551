"""Moving in: photos of the backend's own table and of the old pickle."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec.structs import replace
from rich.markup import escape

from producer_client import NewPhoto, Pending, Photo, Provenance, Refused
from worker import listed
from worker.commands.connections import open_client, open_store
from worker.commands.reports import kept_line, named_lines, none_there_line, point_lines, prefix_lines, report_table
from worker.commands.tables import PathShown, Table
from worker.commands.terminal import (
    GOING_ON,
    AsJson,
    Misused,
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
from worker.errors import Permanent
from worker.progress import both, embed_missing, parted, progress_bar, statistics_lines
from worker.settings import Settings
from worker.settings import load as load_settings
from worker.words import say

if TYPE_CHECKING:
    from worker.core.types import NewEntry, RowChange
    from worker.core.vectors import Vector
    from worker.storage.source import PhotoFiles
    from worker.survey import LegacyPhoto, Report

DryRun = Annotated[bool, typer.Option("--dry-run", help=say("Look and report; change nothing."))]
PathPrefix = Annotated[
    list[str] | None,
    typer.Option(
        "--path-prefix",
        metavar=say("OLD=NEW"),
        help=say("Folder of another machine that paths begin with, and which it is here. As often as needed."),
    ),
]


def import_legacy(
    file: Annotated[
        Path, typer.Argument(metavar=say("FILE"), exists=True, help=say("embeddings.pkl of the system before."))
    ],
    root: Annotated[Path, typer.Option(help=say("Folder that relative paths in it start from."))] = Path(),
    trust: Annotated[
        Provenance | None,
        typer.Option(
            metavar=say("<word>"),
            help=say("What coordinates count as of which it is not said how they came to be, as surveyed."),
        ),
    ] = None,
    update_rows: UpdateRows = None,
    path_prefix: PathPrefix = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    timeout: TimeoutS = 300.0,
) -> None:
    """Take over the photos of an old embeddings.pkl, which is read without running anything in it.

    Its coordinates are evidence only by a rule (SIGHTLINE_LOCATION_METHODS) or with --trust. Its vectors are kept if
    a sample, embedded again, shows that they are of the model that serves.

    Rows of the photos table that are there stay as they are without --update-rows. With --dry-run every one is listed
    that the old file says something else of, no weaker than what it has: as it is, and as it would be.
    """
    from worker.legacy import counted_as, read_pickle, reusable_vectors, to_add
    from worker.storage.source import PhotoFiles, is_file
    from worker.survey import compare_points, examine, uses

    settings, extra = _with_prefixes(load_settings(), path_prefix)
    pairs = settings.path_prefixes
    try:
        photos = read_pickle(file, settings.provenance_of, root=root.resolve(), prefixes=pairs)
    except Permanent as exc:
        fail(str(exc))
    source = PhotoFiles(settings)
    report = examine(photos, lambda path: is_file(Path(path)), source.file_of)
    report.prefixes = uses(pairs, photos, report.missing)
    old = {photo.number: photo.vector for photo in photos if photo.vector is not None}
    compare_points(
        report,
        photos,
        changed_at=_time_of,
        vectors=lambda numbers: {number: old[number] for number in numbers if number in old},
    )
    report.trust(photos, counted_as(photos, report, trust=trust))
    to_send = to_add(photos, report, trust=trust)
    written = settings.write_rows if update_rows is None else update_rows
    new = [replace(item, update_row=written) for item in to_send if isinstance(item, NewPhoto)]
    refused = [item for item in to_send if isinstance(item, Refused)]
    changes: list[RowChange] = []
    if dry_run and new:
        with open_store(settings) as store:
            changes = store.rows.changes([_as_entry(item, source) for item in new])
    stored = reused = 0
    kept = ""
    pending: list[Pending] = []
    if not dry_run and new:
        with open_client(settings) as client, open_store(settings) as store, progress_bar(say("importing")) as progress:
            if extra and store.rows.named([photo.written for photo in photos if photo.written != photo.path]):
                raise Misused(_not_told(settings))
            with goes_on(say("stopped: nothing is imported yet. The same command again begins anew.")):
                vectors, model_key = reusable_vectors(photos, new, client, written_at=file.stat().st_mtime)
            store.vectors.keep(vectors, model_key)
            reused = len(vectors)
            kept = kept_line(reused, compared=bool(model_key))
            with told_when_stopped(len(new)) as told:
                outcomes = client.add_many(new, timeout_s=timeout, progress=both(progress, told))
        imported, refused_now, pending = parted(outcomes)
        refused += refused_now
        stored = len(imported)

    none_there = none_there_line(report)

    def table() -> None:
        out.print(report_table(str(file), report))
        for line in [
            *prefix_lines(report),
            *named_lines(report, photos),
            *point_lines(report, trust=trust is not None),
        ]:
            out.print(line, highlight=False, soft_wrap=True)
        print_refused([Refused(photos[int(r.ref)].path, r.code, r.message) for r in refused])
        if none_there:
            out.print(none_there, highlight=False)
        if dry_run:
            if changes:
                out.print(changes_table(changes, written=written))
            out.print(say("[yellow]nothing was changed[/]; photos to import: {count}", count=len(new)))
            return
        done = say("[green]{stored} imported[/], {refused} refused", stored=stored, refused=len(refused))
        out.print(f"{done}; {kept}" if stored else done)
        print_pending(pending)

    facts = {
        "report": report.to_json(),
        "missing_files": _missing(report, photos),
        "dry_run": dry_run,
        "to_import": len(new),
        "rows_written": written,
        "rows": [asdict(change) for change in changes],
        "imported": stored,
        "vectors_reused": reused,
        "refused": [outcome.to_wire() for outcome in refused],
        "pending": [outcome.to_wire() for outcome in pending],
    }
    show(as_json, facts, table, refused=[*refused, *pending, *([none_there] if none_there and not dry_run else [])])


def backfill(
    path_prefix: PathPrefix = None, dry_run: DryRun = False, as_json: AsJson = False, timeout: TimeoutS = 300.0
) -> None:
    """Index the photos of an existing table (SIGHTLINE_PHOTOS_TABLE) where they are.

    Photos that are indexed are passed over, so a run that was broken off goes on where it ended.

    Where rows name files as another machine had them, try --path-prefix with --dry-run. The workers read these files,
    now and later, so they are told by SIGHTLINE_PATH_PREFIXES.
    """
    from worker.storage.source import PhotoFiles
    from worker.survey import compare_points, examine, rows_of_table, unreadable, uses

    settings, extra = _with_prefixes(load_settings(), path_prefix)
    if extra and not dry_run:
        raise Misused(_not_told(settings))
    source = PhotoFiles(settings)
    with open_client(settings) as client, open_store(settings) as store:
        stats = client.stats()
        with progress_bar(say("looking")) as progress:
            photos = rows_of_table(store.rows, progress, stats.photos)
            report = examine(photos, source.is_there, source.file_of)
            report.beside = max(0, stats.with_coordinates - report.with_coordinates)
            report.prefixes = uses(settings.path_prefixes, photos, report.missing)

        def look_at_points() -> None:
            def vectors(ids: Sequence[int]) -> dict[int, Vector]:
                return {i: vector for i, (_, vector) in store.entries.known(ids, stats.model_key).items()}

            compare_points(report, photos, changed_at=lambda path: _time_in(source, path), vectors=vectors)

        if dry_run:
            # A run that indexes meets these by itself.
            with progress_bar(say("opening the files")) as progress, _reader(source, settings) as read:
                report.unreadable = unreadable(photos, report.missing, read, progress, threads=settings.decoders)
        if not as_json:
            out.print(report_table(settings.photos_table, report, opened=dry_run))
            for line in [*prefix_lines(report), *named_lines(report, photos)]:
                out.print(line, highlight=False, soft_wrap=True)
        todo = store.vectors.missing_count(stats.model_key)
        stored = 0
        refused: list[Refused] = []
        pending: list[Pending] = []
        if not dry_run:
            with goes_on(say(GOING_ON)):
                stored, refused, pending = embed_missing(client, store.vectors, stats.model_key, todo, timeout)
            stats = client.stats()
        # After it: more vectors are known by then.
        look_at_points()

    def table() -> None:
        for line in point_lines(report, settings=settings):
            out.print(line, highlight=False, soft_wrap=True)
        print_refused(report.unreadable + refused)
        if dry_run:
            out.print(say("[yellow]nothing was changed[/]; photos not in the index yet: {count}", count=todo))
            return
        out.print(say("[green]{stored} indexed[/], {refused} refused", stored=stored, refused=len(refused)))
        print_pending(pending)
        for line in statistics_lines(stats):
            out.print(line)

    facts = {
        "report": report.to_json(),
        "missing_files": _missing(report, photos),
        "dry_run": dry_run,
        "not_indexed_before": todo,
        "indexed": stored,
        "refused": [outcome.to_wire() for outcome in refused],
        "pending": [outcome.to_wire() for outcome in pending],
    }
    show(as_json, facts, table, refused=[*refused, *pending])


def _with_prefixes(settings: Settings, given: Sequence[str] | None) -> tuple[Settings, bool]:
    """The settings with these prefixes, and whether any is new in them."""
    from worker import prefixes

    pairs = dict(settings.path_prefixes)
    for each in given or ():
        try:
            pairs |= prefixes.pair(each)
        except ValueError as exc:
            raise Misused(str(exc)) from exc
    return settings.model_copy(update={"path_prefixes": pairs}), pairs != settings.path_prefixes


def _not_told(settings: Settings) -> str:
    """Workers read the files of rows later, too."""
    setting = f"SIGHTLINE_PATH_PREFIXES={shlex.quote(listed.written(settings.path_prefixes))}"
    return say(
        "Rows of {table} name files as another machine had them, and the workers read these by their own settings. Set "
        "{setting} for this command and for every worker, start the workers again, and leave --path-prefix away. "
        "Nothing was changed.",
        table=settings.photos_table,
        setting=setting,
    )


def _as_entry(item: NewPhoto, source: PhotoFiles) -> NewEntry:
    """What a worker would store of it, as far as rows are concerned."""
    from worker.core.types import NewEntry

    path = item.photo.path or ""
    given = None
    if item.lat is not None and item.lon is not None and item.provenance is not None:
        given = (item.lat, item.lon, item.provenance)
    return NewEntry(
        ref=item.ref,
        photo_id=None,
        path=path,
        spellings=source.spellings(path),
        content_sha256="",
        vector=None,
        given=given,
        exif=None,
        address=item.address,
        metadata=None,
    )


def changes_table(changes: Sequence[RowChange], *, written: bool) -> Table:
    title = say("rows that would change: {count}", count=len(changes))
    if not written:
        title = say(
            "rows that stay as they are, of which only Sightline's own tables would say something else (--update-rows "
            "writes them): {count}",
            count=len(changes),
        )
    shown = Table(title=title, show_lines=True)
    shown.add_column(say("photo"), min_width=24)
    shown.add_column(say("in the row"))
    shown.add_column(say("in the old file"))
    for change in changes:
        name = (str(change.photo_id), PathShown(change.path))
        shown.add_row(name, _in_words(change.old), _in_words(change.new))
    return shown


def _in_words(columns: dict[str, Any]) -> str:
    said = [str(columns[name]) for name in ("lat", "lon", "location_method") if columns[name] is not None]
    address = columns["address_data"]
    if address is not None:
        said.append(address if isinstance(address, str) else json.dumps(address, ensure_ascii=False))
    return escape("\n".join(said))


def _missing(report: Report, photos: Sequence[LegacyPhoto]) -> list[dict[str, Any]]:
    paths = {photo.number: photo.path for photo in photos}
    return [{"number": number, "path": paths[number]} for number in report.missing]


def _time_of(path: str) -> float | None:
    try:
        return Path(path).stat().st_mtime
    except (OSError, ValueError):
        return None


def _time_in(source: PhotoFiles, path: str) -> float | None:
    from worker.core.types import FileFacts

    (facts,) = source.facts([path])
    return facts.mtime_ns / 1e9 if isinstance(facts, FileFacts) else None


@contextmanager
def _reader(source: PhotoFiles, settings: Settings) -> Iterator[Callable[[str], object]]:
    """Opens a photo as a worker does, as small as can be."""
    from worker.encoder.images import MIN_SIDE_PX
    from worker.sandbox.port import decoding

    with decoding(settings) as decode:
        small = partial(decode, side=MIN_SIDE_PX, max_megapixels=settings.max_megapixels)
        yield lambda path: small(source.fetch(Photo(path=path)))
