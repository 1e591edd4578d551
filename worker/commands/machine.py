"""Everything on this machine: `up`, in this terminal or in the background, and `down`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from producer_client.language import to_say
from worker import upenv
from worker.commands.connections import open_store
from worker.commands.terminal import BAD_SETTINGS, FAILED, NO_MODEL, RUNS_ALREADY, AsJson, err, fail, out, show
from worker.holding import Hold, Run, RunsAlready, unusable, who_runs
from worker.private import UMASK
from worker.roots import faults, which_folders
from worker.settings import Settings
from worker.settings import load as load_settings
from worker.signals import hears_ctrl_c, ignore_signals, raise_on_signals
from worker.words import say

#: Exit codes of a worker that would only end so again.
POINTLESS = frozenset({BAD_SETTINGS, NO_MODEL})
#: Seconds between two looks at what runs.
LOOK_EVERY_S = 0.25
#: Seconds that an `up` may take to end: tasks in hand are ended, then the servers. Asked again it is quicker.
DOWN_TIMEOUT_S, HURRIED_TIMEOUT_S = 45.0, 75.0
LOGS, OWN_LOG = "logs", "up.log"

Detach = Annotated[
    bool, typer.Option("--detach", "-d", help=say("Return when it is up; it goes on in the background."))
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "--logs", help=say("Show every line of the logs, not warnings and errors alone."))
]


def up(detach: Detach = False, verbose: Verbose = False) -> None:
    """Run everything on this machine, with its own Postgres and Valkey, until Ctrl-C or `sightline down`.

    With SIGHTLINE_DATABASE_URL it runs on that Postgres: your backend's, whose photos table is then used as it is.
    What dies is started again. The logs lie in the data folder. Exit codes: 0 it was asked to end, 1 it could not
    start, 2 the settings are wrong, 3 the model cannot be had, 6 it runs in this folder already.
    """
    settings = load_settings(note=False)
    # Nobody else on this machine is to read what is kept, nor what the logs say.
    os.umask(UMASK)
    raise_on_signals()
    with _in_sentences(settings.data_dir):
        if detach:
            _in_background(settings, verbose=verbose)
        else:
            _up(settings, verbose=verbose)


def down(as_json: AsJson = False) -> None:
    """End what `sightline up` runs in this folder, or what a killed one left behind."""
    from worker.stack import end_left

    folder = load_settings(note=False).data_dir
    with _in_sentences(folder):
        run = who_runs(folder)
        if run is not None:
            _ask_to_end(folder, run)
            ended = [run.me.name, *(process.name for process in run.processes), *run.servers]
        elif not folder.is_dir():
            ended = []
        else:
            hold = Hold(folder)
            hold.take()
            try:
                ended = end_left(hold)
                (folder / upenv.NAME).unlink(missing_ok=True)
            finally:
                hold.release()
    show(as_json, {"was_running": run is not None, "ended": ended}, lambda: _show_ended(run, ended, folder))


def _up(settings: Settings, *, verbose: bool) -> None:
    from worker.stack import Stack
    from worker.watching import Watch

    own_database = "database_url" not in settings.model_fields_set
    note = settings.data_dir / upenv.NAME
    logs = settings.data_dir / LOGS
    faulty = faults(settings.photo_roots)
    for fault in faulty.values():
        _tell(fault)
    try:
        with (
            err.status(say("starting Postgres and Valkey")) as status,
            Stack(settings, log_dir=logs, own_database=own_database, tell=_tell) as stack,
            _noted(note, stack.settings),
        ):
            watch = Watch(stack, _tell, pointless=POINTLESS, all_lines=verbose)

            def wait(seconds: float) -> None:
                watch.pass_on()
                status.update(say("the worker loads its model, {seconds:.0f} s", seconds=seconds))

            try:
                # The note is there before the model: what is asked meanwhile waits in the queue.
                stack.start_all()
                stack.wait_ready(wait)
                status.stop()
                roots = [root for root in settings.photo_roots if root not in faulty]
                _show_up(stack.settings, roots, broker=stack.broker, own_database=own_database, logs=logs)
                stack.note_ready()
                while True:
                    watch.look()
                    time.sleep(LOOK_EVERY_S)
            except KeyboardInterrupt:
                status.stop()
                _tell(say("ending: what is in hand is finished first; to end it at once, ask again"))
                raise
    except KeyboardInterrupt:
        ignore_signals()
        _tell(say("stopped"))


def _in_background(settings: Settings, *, verbose: bool) -> None:
    """Start an `up` that nothing of this terminal reaches, and show what it says until it is up. Ends with its exit
    code where it ends instead."""
    if (run := who_runs(settings.data_dir)) is not None:
        raise RunsAlready(settings.data_dir, run)
    folder = settings.data_dir / LOGS
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = folder / OWN_LOG
    with suppress(FileNotFoundError):
        log.replace(log.with_name(f"{OWN_LOG}.1"))
    command = [sys.executable, "-m", "worker.cli", "up", *(["--verbose"] if verbose else [])]
    with log.open("ab") as file:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        began = time.monotonic()
        waiting = to_say(
            "starting in the background; the first time it measures what can run the model, {seconds:.0f} s"
        )
        with err.status(say(waiting, seconds=0)) as status, log.open(errors="replace") as lines:
            while not _is_up(settings.data_dir, started.pid):
                code = started.poll()
                _relay(lines.read())
                if code is not None:
                    raise SystemExit(code or FAILED)
                status.update(say(waiting, seconds=time.monotonic() - began))
                time.sleep(LOOK_EVERY_S)
            _relay(lines.read())
    except BaseException:
        started.terminate()
        started.wait()
        raise
    _tell(
        say(
            "It goes on in the background (process {pid}). Its log: {log}",
            pid=started.pid,
            log=log,
        )
    )


def _is_up(folder: Path, pid: int) -> bool:
    try:
        run = who_runs(folder)
    except RunsAlready:
        return False
    return run is not None and run.me.pid == pid and run.ready


def _ask_to_end(folder: Path, run: Run) -> None:
    """Returns when it has ended. Raises RuntimeError where it does not although it was asked twice."""
    for timeout_s in (DOWN_TIMEOUT_S, HURRIED_TIMEOUT_S):
        deadline = time.monotonic() + timeout_s
        with suppress(ProcessLookupError):
            os.kill(run.me.pid, signal.SIGTERM)
        while run.me.lives and time.monotonic() < deadline:
            time.sleep(0.05)
        if not run.me.lives:
            return
    raise RuntimeError(
        say(
            "`sightline up` (process {pid}) in {folder} does not end. `kill -9 {pid}`, then `sightline down` again "
            "ends what is left",
            pid=run.me.pid,
            folder=folder,
        )
    )


@contextmanager
def _noted(note: Path, settings: Settings) -> Iterator[None]:
    """Tell the other commands of this folder the settings and addresses, for as long as they hold."""
    try:
        upenv.write(note, settings.as_env())
        yield
    finally:
        note.unlink(missing_ok=True)


@contextmanager
def _in_sentences(folder: Path) -> Iterator[None]:
    """What a stack in this folder raises for people ends the command with its sentence and an exit code."""
    from worker.stack import Ended

    try:
        yield
    except RunsAlready as exc:
        fail(str(exc), RUNS_ALREADY)
    except Ended as exc:
        fail(str(exc), exc.exit_code if exc.exit_code in POINTLESS else FAILED)
    except RuntimeError as exc:
        fail(str(exc))
    except OSError as exc:
        # A disk that is full by now, most of all.
        fail(unusable(folder, exc))


def _tell(sentence: str) -> None:
    """A line on the terminal. One that is gone ends nothing."""
    with suppress(OSError):
        err.print(escape(sentence), soft_wrap=True, highlight=False)


def _relay(text: str) -> None:
    if text:
        with suppress(OSError):
            err.out(text, end="", highlight=False)


def _show_up(settings: Settings, roots: list[Path], *, broker: str, own_database: bool, logs: Path) -> None:
    """roots: folders in which photos can be read."""
    lines = [
        say("[bold green]Sightline is up.[/]"),
        say(
            "Broker [cyan]{broker}[/]; with its password it is SIGHTLINE_BROKER_URL in {note}, for your backend.",
            broker=escape(broker),
            note=escape(str(settings.data_dir / upenv.NAME)),
        ),
        _which_database(settings, own=own_database),
        which_folders(settings.photo_roots, roots),
        *_what_next(logs),
    ]
    with suppress(OSError):
        err.print("\n".join(lines), soft_wrap=True, highlight=False)


def _what_next(logs: Path) -> list[str]:
    """In a terminal that is kept busy, or in the background."""
    if hears_ctrl_c():
        return [
            say("Logs in [cyan]{logs}[/]; what is above the ordinary is shown here, too.", logs=escape(str(logs))),
            say(
                "Next, in another terminal of this folder: [bold]sightline add FOLDER[/], then [bold]sightline "
                "stats[/]."
            ),
            say("Ctrl-C or [bold]sightline down[/] ends it all."),
        ]
    return [
        say("Logs in [cyan]{logs}[/].", logs=escape(str(logs))),
        say("Next, in this folder: [bold]sightline add FOLDER[/], then [bold]sightline stats[/]."),
        say("[bold]sightline down[/] in this folder ends it all."),
    ]


def _which_database(settings: Settings, *, own: bool) -> str:
    with open_store(settings) as store:
        address = escape(store.database.address)
    if own:
        return say(
            "Photos are rows of the table [cyan]{table}[/] in a Postgres of its own: [cyan]{address}[/]. To use your "
            "backend's table and ids, set [bold]SIGHTLINE_DATABASE_URL[/] to your backend's Postgres and start again.",
            table=settings.photos_table,
            address=address,
        )
    return say(
        "Photos are rows of the table [cyan]{table}[/] in the Postgres of SIGHTLINE_DATABASE_URL: [cyan]{address}[/].",
        table=settings.photos_table,
        address=address,
    )


def _show_ended(run: Run | None, ended: list[str], folder: Path) -> None:
    if not ended:
        out.print(
            say("nothing runs in {folder}, and nothing was left there", folder=escape(str(folder.absolute()))),
            soft_wrap=True,
        )
    elif run is not None:
        out.print(say("ended: {names}", names=escape(", ".join(ended))), soft_wrap=True)
    else:
        out.print(say("ended what was left: {names}", names=escape(", ".join(ended))), soft_wrap=True)
