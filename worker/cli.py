"""`sightline`: run the service, use it, look into it. Tables for people, `--json` for programs."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from producer_client import (
    EmbedItem,
    Near,
    NewPhoto,
    Photo,
    Provenance,
    Refused,
    Sightline,
    SightlineError,
)
from producer_client.contract import Embedded, Hit, Message, Purged, StatsReply
from producer_client.language import Language, explained
from worker.errors import EncoderUnavailable, Permanent, WorkerError
from worker.manifest import new_photos
from worker.progress import progress_bar, rebuild_lines, statistics_lines, wait_for_rebuild
from worker.settings import PREFIX, Settings
from worker.settings import load as load_settings
from worker.words import say, why

if TYPE_CHECKING:
    from worker.encoder.choice import Measured
    from worker.storage.source import PhotoFiles
    from worker.storage.store import PostgresStore
    from worker.survey import Report

#: Exit codes beside 0: the request failed, the settings are wrong, the model is missing, a check of `doctor` failed.
FAILED, BAD_SETTINGS, NO_MODEL, UNWELL = 1, 2, 3, 4
#: Photos that lack a vector are sent for in pages of this many, 64 messages.
MISSING_PAGE = 4096

cli = typer.Typer(
    help=say("Where was this photo taken, judging by the photos we already know?"),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help=say("Print one JSON object instead of a table."))]
TimeoutS = Annotated[float, typer.Option("--timeout", help=say("Seconds to wait for a reply."))]


# ------------------------------------------------------------------------------------- run the service


@cli.command()
def up() -> None:
    """Run everything on this machine, with its own Postgres and Valkey, until Ctrl-C."""
    from worker.stack import Stack, raise_on_signals

    settings = _settings()
    raise_on_signals()
    note = settings.data_dir / "up.env"
    try:
        with Stack(settings) as stack:
            stack.start_all()
            with err.status(say("starting: servers are up, the worker loads its model")) as status:
                stack.wait_ready(
                    lambda seconds: status.update(say("the worker loads its model, {seconds:.0f} s", seconds=seconds))
                )
            _write_note(note, stack.settings)
            err.print(
                say(
                    "[bold green]Sightline is up.[/] Broker [cyan]{broker}[/]; photos under [cyan]{roots}[/].\n"
                    "In another terminal of this folder: [bold]sightline stats[/]. Ctrl-C stops it.",
                    broker=stack.settings.broker_url,
                    roots=", ".join(map(str, settings.photo_roots)) or say("no folder: set SIGHTLINE_PHOTO_ROOTS"),
                )
            )
            while True:
                stack.check()
                time.sleep(1)
    except KeyboardInterrupt:
        err.print(say("stopped"))
    except RuntimeError as exc:
        _fail(str(exc))
    finally:
        note.unlink(missing_ok=True)


@cli.command()
def worker(
    role: Annotated[str, typer.Option(help=say("serve: photos and questions. index: rebuilds."))] = "serve",
    queues: Annotated[str, typer.Option(help=say("Queues to serve, with commas, instead of the role's own."))] = "",
) -> None:
    """Run one worker process. Start as many as you like, on as many machines."""
    from worker import logs
    from worker.app import ROLES, create_app

    settings = _settings()
    if role not in ROLES:
        _fail(say("--role is one of {roles}", roles=", ".join(ROLES)), BAD_SETTINGS)
    logs.configure(settings.log_level)
    app = create_app(settings)
    if role == "serve":
        # The model is loaded before the first message is taken: a worker without one must not start.
        try:
            app.runtime.start(follow=True)  # type: ignore[attr-defined]  # set by create_app
        except EncoderUnavailable as exc:
            _fail(exc.message, NO_MODEL)
        except Permanent as exc:
            _fail(exc.message)
    if role == "index":
        # Celery reads this when its worker starts. SIGTERM then waits for a rebuild in hand no longer than
        # worker_soft_shutdown_timeout; a rebuild that is cut off has published nothing.
        os.environ["REMAP_SIGTERM"] = "SIGQUIT"
    # The index role forks its child before anything of torch or FAISS is imported (faiss #5206).
    pool = ["--pool=threads", f"--concurrency={settings.concurrency}"] if role == "serve" else ["--pool=prefork", "-c1"]
    app.worker_main(
        [
            "worker",
            *pool,
            f"--queues={queues or ','.join(queue.value for queue in ROLES[role])}",
            f"--hostname={role}-{os.getpid()}@%h",
            f"--loglevel={settings.log_level}",
            # Workers of this kind have nothing to say to each other.
            "--without-gossip",
            "--without-mingle",
        ]
    )


@cli.command()
def beat() -> None:
    """Run the beat. Any number of them is safe: what is due is decided in Postgres."""
    from worker.app import create_app

    settings = _settings()
    create_app(settings).start(["beat", f"--loglevel={settings.log_level}"])


@cli.command()
def migrate(as_json: AsJson = False) -> None:
    """Bring the database to this release's schema."""
    from worker.storage.migrate import migrate as run

    settings = _settings()
    with _store() as store, store.database.guard():
        revision = run(
            store.database.engine,
            schema=settings.db_schema,
            photos_table=settings.photos_table,
            columns=settings.photos_columns,
        )
    _print(
        as_json,
        {"revision": revision},
        lambda: out.print(say("the database is at revision [cyan]{revision}[/]", revision=revision)),
    )


# ---------------------------------------------------------------------------------------- use it


@cli.command()
def add(
    photos: Annotated[list[Path], typer.Argument(help=say("Files, folders, or a manifest.csv with file, lat, lon."))],
    lat: Annotated[float | None, typer.Option(help=say("Latitude of a single photo, degrees."))] = None,
    lon: Annotated[float | None, typer.Option(help=say("Longitude of a single photo, degrees."))] = None,
    provenance: Annotated[
        Provenance, typer.Option(help=say("How given coordinates came to be."))
    ] = Provenance.SURVEYED,
    as_json: AsJson = False,
    timeout: TimeoutS = 300.0,
) -> None:
    """Add photos to the index. Without coordinates those of the EXIF tags are taken."""
    items: list[NewPhoto] = []
    try:
        for item in new_photos(photos, lat, lon, provenance):
            if isinstance(item, NewPhoto):
                items.append(item)
            else:
                name, words = escape(repr(item.ref)), escape(item.message)
                err.print(say("[yellow]left out[/] {name}: {why}", name=name, why=words))
    except (OSError, ValueError) as exc:
        _fail(str(exc))
    if not items:
        _fail(say("no photo there"))
    with _client() as client, progress_bar(say("adding")) as progress:
        outcomes = client.add_many(items, timeout_s=timeout, progress=progress)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]

    def table() -> None:
        _print_refused(refused)
        stored = len(outcomes) - len(refused)
        out.print(say("[green]{stored} stored[/], {refused} refused", stored=stored, refused=len(refused)))

    _print(as_json, {"outcomes": [outcome.to_wire() for outcome in outcomes]}, table)
    raise typer.Exit(FAILED if refused else 0)


@cli.command()
def import_legacy(
    file: Annotated[Path, typer.Argument(help=say("embeddings.pkl of the system before."))],
    root: Annotated[Path, typer.Option(help=say("Folder that relative paths in it start from."))] = Path(),
    trust: Annotated[
        Provenance | None,
        typer.Option(help=say("What coordinates count as of which it is not said how they came to be.")),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=say("Look and report; change nothing."))] = False,
    as_json: AsJson = False,
    timeout: TimeoutS = 300.0,
) -> None:
    """Take over the photos of an old embeddings.pkl, which is read without running anything in it.

    Its coordinates are evidence only by a rule (SIGHTLINE_LOCATION_METHODS) or with --trust. Its vectors are kept if
    a sample, embedded again, shows that they are of the model that serves.
    """
    from worker.legacy import read_pickle, reusable_vectors, to_add
    from worker.storage.source import is_file
    from worker.survey import examine

    settings = _settings()
    try:
        photos = read_pickle(file, settings.provenance_of, root=root.resolve())
    except (OSError, Permanent) as exc:
        _fail(str(exc))
    report = examine(photos, lambda path: is_file(Path(path)))
    to_send = to_add(photos, report, trust=trust)
    new = [item for item in to_send if isinstance(item, NewPhoto)]
    refused = [item for item in to_send if isinstance(item, Refused)]
    stored = 0
    reused = 0
    if not dry_run and new:
        with _client() as client, _store() as store, progress_bar(say("importing")) as progress:
            vectors, model_key = reusable_vectors(photos, new, client)
            store.vectors.keep(vectors, model_key)
            reused = len(vectors)
            outcomes = client.add_many(new, timeout_s=timeout, progress=progress)
        refused += [outcome for outcome in outcomes if isinstance(outcome, Refused)]
        stored = sum(not isinstance(outcome, Refused) for outcome in outcomes)

    def table() -> None:
        out.print(_report_table(str(file), report))
        _print_refused([dataclasses.replace(r, ref=photos[int(r.ref)].path) for r in refused])
        if dry_run:
            out.print(say("[yellow]nothing was changed[/]; photos to import: {count}", count=len(new)))
            return
        kept = say("all embedded again: its vectors are not of this model")
        if reused:
            kept = say("vectors kept: {count}", count=reused)
        out.print(
            say(
                "[green]{stored} imported[/], {refused} refused; {kept}", stored=stored, refused=len(refused), kept=kept
            )
        )

    facts = {
        "report": dataclasses.asdict(report),
        "dry_run": dry_run,
        "to_import": len(new),
        "imported": stored,
        "vectors_reused": reused,
        "refused": [outcome.to_wire() for outcome in refused],
    }
    _print(as_json, facts, table)
    raise typer.Exit(FAILED if refused else 0)


@cli.command()
def backfill(
    dry_run: Annotated[bool, typer.Option("--dry-run", help=say("Look and report; change nothing."))] = False,
    as_json: AsJson = False,
    timeout: TimeoutS = 300.0,
) -> None:
    """Index the photos of an existing table (SIGHTLINE_PHOTOS_TABLE) where they are.

    Photos that are indexed are passed over, so a run that was broken off goes on where it ended.
    """
    from worker.storage.source import PhotoFiles
    from worker.survey import examine, rows_of_table, unreadable

    settings = _settings()
    source = PhotoFiles(settings)
    with _client() as client, _store() as store:
        stats = client.stats()
        with progress_bar(say("looking")) as progress:
            photos = rows_of_table(store.rows, progress, stats.photos)
            report = examine(photos, source.is_there)
        if dry_run:
            # A run that indexes meets these by itself.
            with progress_bar(say("opening the files")) as progress:
                read = _reader(source, settings)
                report.unreadable = unreadable(photos, report.missing, read, progress, threads=settings.decoders)
        if not as_json:
            out.print(_report_table(settings.photos_table, report, opened=dry_run))
        todo = store.vectors.missing_count(stats.model_key)
        stored = 0
        refused: list[Refused] = []
        if not dry_run:
            stored, refused = _embed_missing(client, store, stats.model_key, todo, timeout)
            stats = client.stats()

    def table() -> None:
        if report.default_points:
            out.print(say("They count as `fallback` once the table says so:"))
            for statement in _as_fallback(report, settings):
                out.print(f"  {escape(statement)}", highlight=False, soft_wrap=True)
        _print_refused(report.unreadable + refused)
        if dry_run:
            out.print(say("[yellow]nothing was changed[/]; photos not in the index yet: {count}", count=todo))
            return
        out.print(say("[green]{stored} indexed[/], {refused} refused", stored=stored, refused=len(refused)))
        for line in statistics_lines(stats):
            out.print(line)

    facts = {
        "report": dataclasses.asdict(report),
        "dry_run": dry_run,
        "not_indexed_before": todo,
        "indexed": stored,
        "refused": [outcome.to_wire() for outcome in refused],
    }
    _print(as_json, facts, table)
    raise typer.Exit(FAILED if refused else 0)


@cli.command()
def embed(
    photos: Annotated[list[Path] | None, typer.Argument(help=say("Photo files."))] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help=say("Every photo of the table that lacks a vector of the model."))
    ] = False,
    as_json: AsJson = False,
    timeout: TimeoutS = 300.0,
) -> None:
    """Compute vectors: of photo files, to be had with --json, or with --missing of the photos table.

    With --missing photos are indexed as `backfill` does, without its report. A run that was broken off goes on where
    it ended.
    """
    if missing == bool(photos):
        _fail(say("give photo files, or --missing"))
    if missing:
        with _client() as client, _store() as store:
            model_key = client.stats().model_key
            todo = store.vectors.missing_count(model_key)
            stored, refused = _embed_missing(client, store, model_key, todo, timeout)
        facts: dict[str, Any] = {"missing_before": todo, "embedded": stored}
    else:
        items = [EmbedItem(ref=str(path), photo=Photo(path=str(path.resolve()))) for path in photos or ()]
        with _client() as client, progress_bar(say("embedding")) as progress:
            outcomes = client.embed_many(items, return_vectors=True, timeout_s=timeout, progress=progress)
        refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
        stored = len(outcomes) - len(refused)
        facts = {"embedded": [outcome.to_wire() for outcome in outcomes if isinstance(outcome, Embedded)]}

    def table() -> None:
        _print_refused(refused)
        out.print(say("[green]{stored} embedded[/], {refused} refused", stored=stored, refused=len(refused)))

    _print(as_json, facts | {"refused": [outcome.to_wire() for outcome in refused]}, table)
    raise typer.Exit(FAILED if refused else 0)


@cli.command()
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
    with _client() as client:
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

    _print(as_json, reply, table)


@cli.command()
def locate(
    photo: Annotated[Path, typer.Argument(help=say("A photo file."))],
    near: Annotated[str | None, typer.Option(help=say("LAT,LON,METRES: only evidence in this circle."))] = None,
    as_json: AsJson = False,
    timeout: TimeoutS = 60.0,
) -> None:
    """Say where a photo was taken, or why that cannot be said."""
    with _client() as client:
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

    _print(as_json, reply, table)


@cli.command()
def rebuild(as_json: AsJson = False, timeout: TimeoutS = 3600.0) -> None:
    """Rebuild the index now, and show how far it is."""
    with _client() as client, progress_bar(say("rebuilding")) as progress:
        reply = wait_for_rebuild(client, progress, timeout)

    def table() -> None:
        for line in rebuild_lines(reply):
            out.print(line)

    _print(as_json, reply, table)


@cli.command()
def purge(
    photo_ids: Annotated[list[int], typer.Argument(help=say("Ids of rows of the photos table."))],
    as_json: AsJson = False,
    timeout: TimeoutS = 60.0,
) -> None:
    """Remove photos and erase what is stored of them, also from the index generations on disk."""
    with _client() as client:
        reply = client.purge(photo_ids, timeout_s=timeout)

    def table() -> None:
        shown = Table(say("photo"), "seq", say("was indexed"), say("generations that may still hold it"))
        for outcome in reply.outcomes:
            if isinstance(outcome, Purged):
                held = ", ".join(map(str, outcome.generations)) or say("none")
                was = say("yes") if outcome.was_indexed else say("no")
                shown.add_row(str(outcome.photo_id), str(outcome.seq), was, held)
        out.print(shown)
        out.print(
            say(
                "erased from Postgres and from every answer now. Generations on disk go with the next rebuild, which "
                "the beat starts by itself; `sightline stats` shows purges pending until then"
            )
        )

    _print(as_json, reply, table)


@cli.command()
def generations(as_json: AsJson = False) -> None:
    """Show the index generations that are kept, and which one serves."""
    with _store() as store:
        kept = store.generations.kept()

    def table() -> None:
        shown = Table(
            say("generation"), "", say("photos"), say("kind"), "recall@10", "MB", "seq", say("published"), say("model")
        )
        states = {"serving": say("[green]serving[/]"), "withdrawn": say("[yellow]withdrawn[/]")}
        for g in kept:
            shown.add_row(
                str(g.number),
                states.get(g.state, g.state),
                str(g.count),
                g.kind or "",
                "" if g.recall_at_10 is None else f"{g.recall_at_10:.3f}",
                "" if g.index_bytes is None else f"{g.index_bytes / 1e6:.1f}",
                str(g.seq),
                g.published_at,
                g.model_key,
            )
        out.print(shown if kept else say("no generation is published yet. Run `sightline rebuild`."))

    _print(as_json, {"generations": [dataclasses.asdict(g) for g in kept]}, table)


@cli.command()
def rollback(
    number: Annotated[
        int, typer.Argument(min=1, max=2**63 - 1, help=say("One that is kept; see `sightline generations`."))
    ],
    as_json: AsJson = False,
) -> None:
    """Let a kept generation serve again. No photo is lost: what came since is replayed from the log."""
    with _store() as store:
        withdrawn = store.generations.roll_back(number)
    _print(
        as_json,
        {"serving": number, "withdrawn": withdrawn},
        lambda: out.print(
            say(
                "generation [cyan]{number}[/] serves; workers take it over within {seconds:g} s and its reading. "
                "Withdrawn, and deleted by the next rebuild: {withdrawn}",
                number=number,
                seconds=_settings().max_staleness_s,
                withdrawn=", ".join(map(str, withdrawn)) or say("none"),
            )
        ),
    )


@cli.command()
def stats(as_json: AsJson = False, timeout: TimeoutS = 30.0) -> None:
    """Show what the service knows: photos, index, model, last rebuild."""
    with _client() as client:
        reply = client.stats(timeout_s=timeout)
    _print(as_json, reply, lambda: out.print(_stats_table(reply)))


@cli.command()
def doctor(as_json: AsJson = False) -> None:
    """Check settings, broker, database, model, index and workers, and say what to do."""
    from worker.commands.doctor import backends

    settings = _settings()
    checks = [(name, *_checked(check)) for name, check in _checks(settings)]
    rows = backends(settings)

    def table() -> None:
        shown = Table(say("check"), "", say("what it says"))
        for name, fine, words in checks:
            shown.add_row(say(name), say("[green]ok[/]") if fine else say("[red]no[/]"), escape(words))
        out.print(shown)
        if rows:
            out.print(_backends(rows))

    told: dict[str, dict[str, Any]] = {name: {"ok": fine, "message": words} for name, fine, words in checks}
    told["model"]["backends"] = [asdict(row) for row in rows]
    _print(as_json, told, table)
    raise typer.Exit(0 if all(fine for _, fine, _ in checks) else UNWELL)


def main() -> None:
    """Entry point: every expected error is a sentence and an exit code, never a traceback."""
    for command in cli.registered_commands:
        command.help = say(inspect.cleandoc(getattr(command.callback, "__doc__", None) or ""))
    try:
        cli()
    except (SightlineError, WorkerError) as exc:
        if "--json" in sys.argv:
            sys.stdout.write(json.dumps({"error": {"code": exc.code, "message": exc.message}}) + "\n")
        _fail(f"{why(exc.code)}{exc}")
    except ValidationError as exc:
        wrong = "; ".join(f"{PREFIX}{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in exc.errors())
        _fail(say("the settings are wrong: {wrong}", wrong=wrong), BAD_SETTINGS)


# ------------------------------------------------------------------------------------------- shared


def _store() -> closing[PostgresStore]:
    """The database itself, for what needs no worker."""
    from worker.storage.store import PostgresStore

    return closing(PostgresStore(_settings()))


def _embed_missing(
    client: Sightline, store: PostgresStore, model_key: str, todo: int, timeout_s: float
) -> tuple[int, list[Refused]]:
    """Send for every photo that lacks a vector, with progress; returns how many have one now, and the refusals.

    What is done is seen in Postgres, a message's photos at once, so that nothing has to be noted here.
    """
    stored = 0
    refused: list[Refused] = []
    after_id = -1
    with progress_bar(say("embedding")) as progress:
        while page := store.vectors.missing(model_key, after_id=after_id, limit=MISSING_PAGE):
            after_id = page[-1].photo_id
            done = stored + len(refused)
            new = [NewPhoto(ref=f"photo {photo.photo_id}", photo=Photo(photo_id=photo.photo_id)) for photo in page]

            def further(now: int, _: int, before: int = done) -> None:
                progress(before + now, todo)

            outcomes = client.add_many(new, timeout_s=timeout_s, progress=further)
            refused += [outcome for outcome in outcomes if isinstance(outcome, Refused)]
            stored += sum(not isinstance(outcome, Refused) for outcome in outcomes)
    return stored, refused


def _as_fallback(report: Report, settings: Settings) -> Iterator[str]:
    """SQL for the backend's own hands: its rows are never changed by what they look like."""
    lat, lon, method = (settings.photos_columns.get(name, name) for name in ("lat", "lon", "location_method"))
    for at_lat, at_lon, _ in report.default_points:
        yield (
            f"UPDATE {settings.photos_table} SET {method} = '{Provenance.FALLBACK}' "
            f"WHERE {lat} = {at_lat} AND {lon} = {at_lon};"
        )


def _reader(source: PhotoFiles, settings: Settings) -> Callable[[str], object]:
    """Opens a photo as a worker does, as small as can be."""
    from worker.encoder.images import MIN_SIDE_PX, decode

    def read(path: str) -> object:
        content = source.fetch(Photo(path=path))
        return decode(content, side=MIN_SIDE_PX, max_megapixels=settings.max_megapixels)

    return read


def _print_refused(refused: Sequence[Refused]) -> None:
    if refused:
        shown = Table(say("photo"), say("code"), say("why"), title=say("refused: {count}", count=len(refused)))
        for outcome in refused:
            words = f"{why(outcome.code)}{outcome.message}"
            shown.add_row(escape(outcome.ref), f"[red]{outcome.code}[/]", escape(words))
        out.print(shown)


def _hits_table(title: str, hits: Sequence[Hit]) -> Table:
    shown = Table(say("photo"), say("similarity"), "lat", "lon", say("provenance"), say("path"), title=title)
    for hit in hits:
        shown.add_row(
            str(hit.photo_id),
            f"{hit.similarity:.3f}",
            "" if hit.lat is None else f"{hit.lat:.6f}",
            "" if hit.lon is None else f"{hit.lon:.6f}",
            hit.provenance or "",
            escape(hit.path or ""),
        )
    return shown


def _report_table(title: str, report: Report, *, opened: bool = False) -> Table:
    shown = Table("", say("photos"), title=title)
    shown.add_row(say("in it"), str(report.photos))
    shown.add_row(say("with coordinates"), str(report.with_coordinates))
    shown.add_row(say("of these with a file"), str(report.with_file))
    shown.add_row(say("of these to be trusted"), str(report.trusted))
    shown.add_row(say("file missing"), str(len(report.missing)))
    shown.add_row(say("file unreadable"), str(len(report.unreadable)) if opened else say("not looked at"))
    shown.add_row(say("impossible coordinates"), str(len(report.bad_coordinates)))
    shown.add_row(say("paths that occur again"), str(len(report.duplicates)))
    shown.add_row(say("of these in contradiction"), str(len(report.conflicts)))
    for lat, lon, numbers in report.default_points:
        point = say("[yellow]at exactly {lat}, {lon}: a default, not a place[/]", lat=lat, lon=lon)
        shown.add_row(point, str(len(numbers)))
    return shown


def _stats_table(reply: StatsReply) -> Table:
    shown = Table(show_header=False, title="Sightline")
    for name, value in dataclasses.asdict(reply).items():
        if name != "last_rebuild":
            shown.add_row(say(name.replace("_", " ")), escape(str(value)))
    run = reply.last_rebuild
    if run is None:
        shown.add_row(say("last rebuild"), say("none yet"))
    else:
        detail = run.error or (f"{run.done}/{run.total}" if run.state == "running" else "")
        words = f"{run.state} {run.phase} {detail}".strip().replace("  ", " ")
        shown.add_row(say("last rebuild"), say("{run}, started {at}", run=escape(words), at=run.started_at))
    return shown


def _checks(settings: Settings) -> Iterator[tuple[str, Callable[[], str]]]:
    from worker.commands.doctor import broker, database, index, model, photo_roots, workers

    yield "broker", lambda: broker(settings)
    yield "database", lambda: database(settings)
    yield "model", lambda: model(settings)
    yield "index", lambda: index(settings)
    yield "photo folders", lambda: photo_roots(settings)
    yield "workers", lambda: workers(settings)


def _backends(rows: Sequence[Measured]) -> Table:
    shown = Table(
        say("backend"), say("ms a photo"), say("in a batch"), say("cosine to float32"), say("same neighbours"), ""
    )
    for row in rows:
        figures = [
            "" if figure is None else f"{figure:{form}}"
            for figure, form in (
                (row.ms_alone, ".1f"),
                (row.ms_in_batch, ".1f"),
                (row.cosine, ".5f"),
                (row.neighbours, ".1%"),
            )
        ]
        verdict = say("[green]ok[/]") if row.why is None else escape(row.why)
        shown.add_row(row.backend, *figures, verdict)
    return shown


def _checked(check: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, check()
    except (WorkerError, SightlineError) as exc:
        return False, exc.message
    except (ValueError, OSError) as exc:
        return False, str(exc)


def _circle(text: str | None) -> Near | None:
    if text is None:
        return None
    try:
        lat, lon, radius_m = map(float, text.split(","))
    except ValueError:
        _fail(say("--near wants LAT,LON,METRES, not {text!r}", text=text))
    return Near(lat, lon, radius_m)


def _settings() -> Settings:
    return load_settings()


@contextmanager
def _client() -> Iterator[Sightline]:
    with Sightline(_settings().broker_url, result_backend=_settings().replies_url) as client:
        yield client


def _write_note(note: Path, settings: Settings) -> None:
    """Gives the other commands of this folder the settings and servers of `sightline up` (see worker.settings)."""
    lines = [f"{name}='{value}'" for name, value in settings.as_env().items()]
    note.write_text("\n".join(lines) + "\n")


def _print(as_json: bool, value: Message | dict[str, Any], table: Callable[[], None]) -> None:
    if as_json:
        wire = value if isinstance(value, dict) else value.to_wire()
        sys.stdout.write(json.dumps(wire, ensure_ascii=False) + "\n")
    else:
        table()


def _fail(message: str, code: int = FAILED) -> NoReturn:
    err.print(f"[bold red]sightline:[/] {escape(message)}", highlight=False)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
