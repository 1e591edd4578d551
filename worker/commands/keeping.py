"""`sightline backup` and `restore`: the Postgres that `sightline up` keeps, as one file.

It is the truth: vectors, photos, provenance. The index is built of it again, and photo files are the backend's to keep.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from producer_client.contract import Code
from worker.commands.connections import open_store
from worker.commands.terminal import AsJson, Misused, err, out, show
from worker.errors import Permanent
from worker.settings import Settings
from worker.settings import load as load_settings
from worker.signals import INTERRUPTED, raise_on_signals
from worker.words import say

MB = 1e6


def backup(
    file: Annotated[
        Path, typer.Argument(metavar=say("FILE"), help=say("The file to write; one that is there is replaced."))
    ],
    as_json: AsJson = False,
) -> None:
    """Write the Postgres that `sightline up` keeps into one file, while it runs or not.

    All that cannot be made again is in it but for the photo files and messages on their way.
    """
    if file.exists() and not file.is_file():
        raise Misused(say("{file} is a folder or a device; give the name of a file", file=file))
    if not file.resolve().parent.is_dir():
        raise Misused(say("the folder {folder} does not exist; make it first", folder=file.resolve().parent))
    settings = _of_own_servers("pg_dump", "--format=custom", f"--file={file}")
    from worker.embedded import EmbeddedServers, has_cluster, is_running

    started, there = time.monotonic(), file.exists()
    with _in_words():
        _see_that_none_is_left(settings)
        if is_running(settings.data_dir):
            _write(_running(settings).database_url, file)
        elif not has_cluster(settings.data_dir):
            raise RuntimeError(
                f"{settings.data_dir} has no database to back up. Go to where `sightline up` was started, or set "
                "SIGHTLINE_DATA_DIR to its data folder"
            )
        else:
            with EmbeddedServers(settings.data_dir, with_valkey=False) as servers:
                _write(servers.database_url, file)
    told: dict[str, Any] = {"file": str(file), "bytes": file.stat().st_size, "took_s": time.monotonic() - started}
    mb = told["bytes"] / MB
    words = (
        say("[green]written[/] {file}, {mb:.1f} MB, in place of the one that was there", file=escape(str(file)), mb=mb)
        if there
        else say("[green]written[/] {file}, {mb:.1f} MB", file=escape(str(file)), mb=mb)
    )
    show(as_json, told, lambda: out.print(words, soft_wrap=True))


def restore(
    file: Annotated[
        Path, typer.Argument(metavar=say("FILE"), exists=True, help=say("What `sightline backup` has written."))
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help=say("Also where there is a database, whose place it takes."))
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the Postgres that `sightline up` keeps out of a file of `sightline backup`; `up` must not run.

    The database that is there goes when the new one is complete.
    """
    if not file.is_file():
        raise Misused(say("{file} is a folder or a device; give the name of a file", file=file))
    settings = _of_own_servers("pg_restore", "--clean", "--if-exists", "--single-transaction", str(file))
    from worker.embedded import dumps, has_cluster, is_running, new_cluster

    started = time.monotonic()
    with _in_words():
        about = dumps.look_into(file, settings.db_schema)
        if is_running(settings.data_dir):
            raise Permanent(
                Code.NOT_READY, f"the `sightline up` of {settings.data_dir} runs: end it first, by `sightline down`"
            )
        _see_that_none_is_left(settings)
        there = has_cluster(settings.data_dir)
        if there and not replace:
            raise Permanent(
                Code.BAD_REQUEST,
                f"{settings.data_dir} has a database: --replace puts this one in its place",
            )
        with new_cluster(settings.data_dir) as url, err.status(say("restoring")) as status:
            dumps.restore(file, url, lambda: status.update(_since(say("restoring"), started)))
            status.update(say("bringing it to this release's schema"))
            with open_store(settings.model_copy(update={"database_url": url})) as store:
                revision = store.migrate()
                if not about.has_statistics:
                    store.analyze()
    told: dict[str, Any] = {"file": str(file), "revision": revision, "as_of": about.as_of, "replaced": there}
    told["took_s"] = time.monotonic() - started
    words = say(
        "[green]restored[/] {file}, at revision {revision}, as of {as_of}. What was added, changed, removed or purged "
        "after that is lost: do it again, purges first. Start `sightline up`, then `sightline rebuild`: until its end "
        "workers hold all vectors in memory.",
        file=escape(str(file)),
        revision=revision,
        as_of=about.as_of,
    )
    show(as_json, told, lambda: out.print(words, soft_wrap=True))


def _of_own_servers(*command: str) -> Settings:
    """The settings as `up` begins from. Raises Permanent with a command where the database is another's to back up."""
    settings = load_settings(note=False)
    if "database_url" in settings.model_fields_set:
        with open_store(settings) as store:
            address = store.database.address_without_password
        to_run = shlex.join([*command, f"--dbname={address}"])
        raise Permanent(
            Code.BAD_REQUEST,
            f"SIGHTLINE_DATABASE_URL names a database of your own, which is backed up and restored by your own means, "
            f"or by\n  {to_run}",
        )
    return settings


def _see_that_none_is_left(settings: Settings) -> None:
    """Raises Permanent where workers may still use a Postgres that both commands would end."""
    from worker.embedded import has_left

    if has_left(settings.data_dir):
        raise Permanent(
            Code.NOT_READY,
            f"a `sightline up` of {settings.data_dir} was killed, and what it has left runs on: end it first, by "
            "`sightline down`, or go on with it, by `sightline up`",
        )


def _running(settings: Settings) -> Settings:
    noted = load_settings()
    if "database_url" not in noted.model_fields_set:
        raise RuntimeError(f"the `sightline up` of {settings.data_dir} is starting or stopping: try again")
    return noted


def _write(url: str, file: Path) -> None:
    from worker.embedded import dumps

    part = dumps.growing(file)
    with err.status(say("writing")) as status:

        def tell() -> None:
            size = part.stat().st_size if part.exists() else 0
            status.update(say("writing, {mb:.1f} MB", mb=size / MB))

        dumps.dump(url, file, tell)


def _since(doing: str, started: float) -> str:
    return say("{doing}, {seconds:.0f} s", doing=doing, seconds=time.monotonic() - started)


@contextmanager
def _in_words() -> Iterator[None]:
    """What servers, programs and files raise, with a code; an interrupt ends what was started first."""
    raise_on_signals()
    try:
        yield
    except KeyboardInterrupt:
        err.print(say("stopped"))
        raise typer.Exit(INTERRUPTED) from None
    except OSError as exc:
        raise Permanent(Code.UNAVAILABLE, f"{exc.filename or ''}: {exc.strerror or exc}") from exc
    except RuntimeError as exc:
        raise Permanent(Code.NOT_READY, str(exc)) from exc
