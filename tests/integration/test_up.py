"""`sightline up` as people and service managers meet it: what dies comes back, what ends leaves nothing behind."""

from __future__ import annotations

import fcntl
import importlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from producer_client.contract import Code
from producer_client.errors import Unreachable
from tests.conftest import ENCODER, processes_of, server_dir, until, without_torch
from worker import cli, holding, pulse, upenv
from worker import settings as settings_page
from worker.commands.connections import open_client
from worker.embedded import EmbeddedServers
from worker.holding import Run, Started
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0
#: Names that people give to folders.
ODD = 'it\'s "all" $HOME & Фото'
#: A number that is no account's here.
STRANGER = 61999
COMMAND = [sys.executable, "-m", "worker.cli"]


class Folder:
    """A folder in which `sightline up` runs, told only what a person would tell it."""

    def __init__(self, path: Path, cluster: Path) -> None:
        self.path = path
        self._cluster = cluster
        self.data = path / "data"
        self.roots = (path / "photos, old", path / "with a\nnewline")
        for root in self.roots:
            root.mkdir()
        given: Any = {"data_dir": self.data, "photo_roots": self.roots, "up_port": 0, "tick_every_s": 2.0}
        given |= {"encoder": ENCODER, **without_torch()}
        self.settings = Settings(**given)
        self.env = {**os.environ, **self.settings.as_env(), "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}

    def command(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        how: Any = {"env": self.env, "cwd": self.path, "capture_output": True, "text": True, "timeout": PATIENCE_S}
        done: subprocess.CompletedProcess[str] = subprocess.run([*COMMAND, *arguments], **how | more)
        return done

    @contextmanager
    def up(self, *arguments: str, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Whatever becomes of it, nothing of it is left afterwards."""
        self.lay_cluster()
        with self.said_to.open("ab") as file:
            how: Any = {"env": self.env, "cwd": self.path, "stdout": file, "stderr": file}
            running: subprocess.Popen[bytes] = subprocess.Popen([*COMMAND, "up", *arguments], **how | more)
        try:
            yield running
        finally:
            if running.poll() is None:
                running.terminate()
                running.wait(PATIENCE_S)
            self.down()

    def lay_cluster(self) -> None:
        """As one that has been here before has left it: to make it takes a second and more."""
        if not self.data.exists():
            self.data.mkdir(mode=0o700)
            shutil.copytree(self._cluster, self.data / "postgres")

    def down(self) -> dict[str, Any]:
        done = self.command("down", "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    @property
    def said_to(self) -> Path:
        return self.path / "said.txt"

    @property
    def said(self) -> str:
        return self.said_to.read_text() if self.said_to.exists() else ""

    @property
    def run(self) -> Run | None:
        return holding.noted(self.data)

    def process(self, name: str) -> Started:
        run = self.run
        assert run is not None
        (found,) = [process for process in run.processes if process.name == f"sightline {name}"]
        return found

    def server(self, name: str) -> int:
        pid_file = {"Postgres": "postgres/postmaster.pid", "Valkey": "valkey/valkey.pid"}[name]
        return int((self.data / pid_file).read_text().split()[0])

    def has_started(self) -> bool:
        return (run := self.run) is not None and len([one for one in run.processes if one.lives]) == 3

    def is_up(self) -> bool:
        return (run := self.run) is not None and run.ready

    def answers(self) -> bool:
        return self.command("stats", "--json").returncode == 0

    def wait(self, running: subprocess.Popen[bytes], holds: Callable[[], bool]) -> None:
        until(lambda: running.poll() is not None or holds(), PATIENCE_S)
        assert running.poll() is None, self.said


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    with server_dir() as path:
        with EmbeddedServers(path, with_valkey=False):
            pass
        yield path / "postgres"


@pytest.fixture
def folder(cluster: Path) -> Iterator[Folder]:
    with server_dir() as path:
        yield Folder(path, cluster)
        assert processes_of(path) == []


@pytest.fixture(scope="module")
def running(cluster: Path) -> Iterator[Folder]:
    """One in the background, below a folder of an odd name. Every test leaves it up."""
    with server_dir() as path:
        (path / ODD).mkdir()
        one = Folder(path / ODD, cluster)
        (one.roots[0] / "notes.txt").touch()
        one.roots[1].rmdir()
        started = one.command("up", "--detach")
        one.said_to.write_text(started.stderr)
        try:
            assert started.returncode == 0, started.stderr
            yield one
        finally:
            one.down()
        assert processes_of(path) == []


# ------------------------------------------------------------------------------------------ what it says


def test_what_up_says_is_short_and_its_processes_lines_lie_in_files(running: Folder) -> None:
    fault = f"no photo can be read in {running.roots[1]} (SIGHTLINE_PHOTO_ROOTS): it is not there.\n"
    assert running.said.startswith(fault), "before anybody waits for the model"
    lines = running.said.removeprefix(fault).splitlines()

    assert lines[0] == "Sightline is up."
    assert len(lines) < 10, "and nothing before or after that"
    assert f"Photos under {running.roots[0]}.\n" in running.said
    assert "%2F" not in running.said
    assert "Ctrl-C" not in running.said
    assert running.said.count("`sightline down`") + running.said.count("sightline down in this folder ends it") == 1
    assert "redis://:**@127.0.0.1:" in running.said
    assert "a Postgres of its own" in running.said
    assert "sightline add" in running.said
    assert "in the background" in lines[-1]
    logs = {path.name for path in (running.data / "logs").iterdir()}
    assert logs >= {"worker.log", "worker-role-index.log", "beat.log", "up.log"}
    assert (
        "celery@" in (running.data / "logs" / "worker.log").read_text()
        or (running.data / "logs" / "worker.log").read_text()
    )
    assert (running.data / "logs" / "up.log").read_text() == fault + "".join(f"{line}\n" for line in lines[:-1])
    for name in ("worker.log", "worker-role-index.log"):
        assert (running.data / "logs" / name).read_text().count(fault) == 1


def test_nothing_that_up_makes_is_for_other_users(running: Folder) -> None:
    open_to_others = [
        path
        for path in (running.data, *running.data.rglob("*"))
        if path.lstat().st_mode & 0o077 and not path.is_symlink()
    ]

    assert [path for path in open_to_others if "postgres" not in path.parts] == []
    assert running.data / "postgres" not in open_to_others


def test_other_commands_are_told_every_path_as_it_is(running: Folder) -> None:
    bare = {name: value for name, value in running.env.items() if not name.startswith("SIGHTLINE_")}

    read = settings_page.load(data_dir=running.data)
    stats = subprocess.run(
        [*COMMAND, "stats", "--json"],
        env=bare | {"SIGHTLINE_DATA_DIR": str(running.data)},
        cwd=running.path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert read.photo_roots == running.roots
    assert stats.returncode == 0, stats.stderr


def test_a_warning_in_a_log_is_one_line_on_the_terminal(running: Folder) -> None:
    log = running.data / "logs" / "beat.log"
    with log.open("a") as file:
        file.write(
            "2026-11-28T02:00:00Z INFO worker as ever\n2026-11-28T02:00:00Z WARNING worker odd " + "x" * 1000 + "\n"
        )

    said = running.data / "logs" / "up.log"
    until(lambda: "WARNING worker odd" in said.read_text(), PATIENCE_S)

    (line,) = [line for line in said.read_text().splitlines() if "WARNING worker odd" in line]
    assert line.startswith("beat: 2026")
    assert len(line) < 400
    assert "as ever" not in said.read_text()


# ------------------------------------------------------------------------------------------- what dies


@pytest.mark.parametrize("name", ["worker", "worker --role index", "beat"])
def test_a_killed_process_is_started_again_and_one_line_says_so(running: Folder, name: str) -> None:
    before = running.process(name)
    children = psutil.Process(before.pid).children(recursive=True)

    os.kill(before.pid, signal.SIGKILL)
    until(lambda: running.process(name).pid != before.pid, PATIENCE_S)

    assert running.answers()
    words = (running.data / "logs" / "up.log").read_text().splitlines()
    (said,) = [
        line for line in words if line.startswith(f"`sightline {name}` has ended and starts again in 1 s: SIGKILL")
    ]
    assert len(said) < 500
    assert not psutil.wait_procs(children, timeout=10)[1], "what it had forked does not work on beside the new one"


@pytest.mark.parametrize("name", ["Valkey", "Postgres"])
def test_a_killed_server_is_started_again_at_its_address(running: Folder, name: str) -> None:
    note = (running.data / upenv.NAME).read_text()
    before = running.server(name)

    os.kill(before, signal.SIGKILL)

    def is_back() -> bool:
        with suppress(OSError, IndexError, ValueError):
            return running.server(name) != before and psutil.pid_exists(running.server(name))
        return False

    until(is_back, PATIENCE_S)
    assert running.answers()
    said = (running.data / "logs" / "up.log").read_text()
    assert f"{name} has ended and starts again in 1 s: SIGKILL / " in said
    assert (running.data / upenv.NAME).read_text() == note


# ------------------------------------------------------------------------------------ a second one, ports


@pytest.mark.parametrize("arguments", [[], ["--detach"]])
def test_a_second_up_changes_nothing_for_the_first(running: Folder, arguments: list[str]) -> None:
    run = running.run
    assert run is not None
    files = {path: path.read_bytes() for path in (running.data / upenv.NAME, running.data / "logs" / "up.log")}

    second = running.command("up", *arguments)

    words = " ".join(second.stderr.split())
    assert second.returncode == 6
    assert f"since {run.since} (process {run.me.pid})" in words
    assert run.broker in words.replace("** @", "**@")
    assert "Traceback" not in second.stderr
    assert running.run == run
    assert {path: path.read_bytes() for path in files} == files
    assert running.answers()


def test_a_port_that_is_taken_is_an_error_that_says_by_whom(folder: Folder) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        folder.env["SIGHTLINE_UP_PORT"] = str(port)

        done = folder.command("up")

    words = " ".join(done.stderr.split())
    assert done.returncode == 1
    assert f"port {port} (SIGHTLINE_UP_PORT) cannot be used: process {os.getpid()} (" in words
    assert "or to 0, which takes a free one" in words
    assert not (folder.data / "postgres").exists()
    assert not (folder.data / upenv.NAME).exists()


# -------------------------------------------------------------------------------------------- how it ends


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_whatever_asks_it_to_end_it_ends_what_it_has_started(folder: Folder, number: signal.Signals) -> None:
    with folder.up("--verbose") as up:
        folder.wait(up, folder.has_started)
        run = folder.run
        assert run is not None

        up.send_signal(number)
        up.wait(60)

        assert up.returncode == 0, folder.said
        assert folder.said.endswith("stopped\n")
        assert folder.said.count("stopped\n") == 1
        assert folder.said.count("ending: what is in hand is finished first; to end it at once, ask again\n") == 1
        assert not any(process.lives for process in run.processes)
        assert processes_of(folder.path) == []
        assert sorted(path.name for path in folder.data.glob("up.*")) == ["up.lock", "up.port"]


def test_who_is_impatient_ends_it_at_once_and_leaves_no_server(folder: Folder) -> None:
    with folder.up() as up:
        folder.wait(up, folder.has_started)
        worker = folder.process("worker")
        # As one that does not end in time.
        os.kill(worker.pid, signal.SIGSTOP)
        # Or a SIGTERM would be taken before it, as the lower number of the two, and end the worker.
        until(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED, PATIENCE_S)

        up.send_signal(signal.SIGINT)
        until(lambda: not folder.process("beat").lives if folder.run else True, PATIENCE_S)
        assert pulse.born(worker.pid), "it is waited for"
        asked = time.monotonic()
        up.send_signal(signal.SIGINT)
        up.wait(60)

        assert time.monotonic() - asked < holding.STOP_TIMEOUT_S / 2
        assert processes_of(folder.path) == []


def test_a_closed_terminal_ends_it(folder: Folder) -> None:
    ours, its = os.openpty()
    with ExitStack() as closing:
        closing.callback(os.close, its)

        def takes_terminal() -> None:
            fcntl.ioctl(its, termios.TIOCSCTTY, 0)

        with folder.up(stdin=its, stdout=its, stderr=its, start_new_session=True, preexec_fn=takes_terminal) as up:
            folder.wait(up, folder.has_started)
            closing.pop_all().close()
            os.close(ours)
            up.wait(60)

            assert up.returncode == 0
            assert processes_of(folder.path) == []


def test_down_ends_what_a_killed_one_left_and_no_process_that_has_its_number_by_now(folder: Folder) -> None:
    with folder.up() as up, subprocess.Popen(["sleep", "600"]) as stranger:
        folder.wait(up, folder.has_started)
        up.kill()
        up.wait()
        run = folder.run
        assert run is not None
        reused = Started("sightline worker", stranger.pid, f"{run.me.born}1")
        changed = msgspec.structs.replace(run, processes=(*run.processes, reused))
        (folder.data / holding.NOTE).write_bytes(msgspec.json.encode(changed))
        assert all(process.lives for process in run.processes)

        ended = folder.down()

        assert ended["was_running"] is False
        assert ended["ended"] == [*(process.name for process in run.processes), "Valkey", "Postgres"]
        assert processes_of(folder.path) == []
        assert stranger.poll() is None
        assert folder.down() == {"was_running": False, "ended": []}
        stranger.kill()


def test_the_next_up_ends_what_a_killed_one_left_and_has_its_address(folder: Folder) -> None:
    with folder.up() as killed:
        folder.wait(killed, folder.has_started)
        address = upenv.read(folder.data / upenv.NAME)["SIGHTLINE_BROKER_URL"]
        run = folder.run
        assert run is not None
        killed.kill()
        killed.wait()

        with folder.up() as up:
            folder.wait(up, lambda: not any(process.lives for process in run.processes) and folder.has_started())

            assert upenv.read(folder.data / upenv.NAME)["SIGHTLINE_BROKER_URL"] == address
            assert "ended what a killed `sightline up` had left here: sightline worker," in folder.said


def test_down_ends_one_that_runs_and_says_what(folder: Folder) -> None:
    with folder.up() as up:
        folder.wait(up, folder.has_started)

        done = folder.command("down")

        assert done.returncode == 0, done.stderr
        assert "ended: up, sightline worker, sightline worker --role index, sightline beat" in " ".join(
            done.stdout.split()
        )
        assert up.wait(10) == 0
        assert processes_of(folder.path) == []


# -------------------------------------------------------------------------------------- what cannot start


@pytest.mark.parametrize("arguments", [[], ["--detach"]])
def test_a_model_that_is_not_there_ends_it_with_that_code(folder: Folder, arguments: list[str]) -> None:
    folder.env["SIGHTLINE_ENCODER"] = "packaged/no-such-model"

    done = folder.command("up", *arguments)

    assert done.returncode == 3
    assert "`sightline worker` ended with code 3" in done.stderr
    assert "no-such-model" in done.stderr
    assert "Traceback" not in done.stderr
    assert processes_of(folder.path) == []
    assert not (folder.data / upenv.NAME).exists()


def test_wrong_settings_end_it_before_anything_starts(folder: Folder) -> None:
    folder.env["SIGHTLINE_CONCURRENCY"] = "many"

    done = folder.command("up")

    assert done.returncode == 2
    assert not folder.data.exists()


def test_a_file_in_place_of_the_data_folder_is_a_sentence(folder: Folder) -> None:
    folder.data.write_text("a file")

    for arguments in (["up"], ["up", "-d"], ["down"]):
        done = folder.command(*arguments)

        assert done.returncode == (0 if arguments == ["down"] else 1)
        assert "Traceback" not in done.stderr
        if arguments != ["down"]:
            assert f"cannot be used: {folder.data} is no folder. Set SIGHTLINE_DATA_DIR" in " ".join(
                done.stderr.split()
            )


def as_stranger(folder: Folder, *arguments: str) -> tuple[int, str]:
    """Exit code and words of a command of another user: in a child of this process, whose modules it has already."""
    importlib.import_module("worker.joined").join()  # what commands load: another user may not read where Python lies
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code, words = 0, io.StringIO()
        try:
            os.setgroups([])
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            os.environ.clear()
            os.environ |= {"SIGHTLINE_DATA_DIR": str(folder.data), "COLUMNS": "300", "NO_COLOR": "1"}
            sys.argv = ["sightline", *arguments]
            with redirect_stderr(words), redirect_stdout(words):
                cli.main()
        except SystemExit as exc:
            code = int(exc.code or 0)
        except BaseException:  # noqa: BLE001  (told to the parent, whatever it is)
            words.write(traceback.format_exc())
        os.write(writing, words.getvalue().encode())
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_folder_of_another_user_is_a_sentence(folder: Folder) -> None:
    folder.path.chmod(0o755)
    folder.data.mkdir(mode=0o700)
    (folder.data / upenv.NAME).write_text("SIGHTLINE_BROKER_URL='x://'\n")
    before = sorted(folder.data.iterdir())

    for arguments in (["up"], ["up", "-d"], ["down"], ["stats"]):
        code, said = as_stranger(folder, *arguments)

        assert code == 1, said
        assert "Permission denied" in " ".join(said.split())
        assert "SIGHTLINE_DATA_DIR to a folder of your own" in " ".join(said.split())
        assert "Traceback" not in said
    assert sorted(folder.data.iterdir()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can use a folder of another user")
def test_root_does_not_take_a_folder_in_which_another_user_runs_it(folder: Folder) -> None:
    folder.data.mkdir()
    (folder.data / holding.LOCK).touch()
    for path in (folder.data, folder.data / holding.LOCK):
        shutil.chown(path, STRANGER, STRANGER)

    done = folder.command("up")

    assert done.returncode == 1
    assert "another user" in done.stderr
    assert sorted(path.name for path in folder.data.iterdir()) == [holding.LOCK]


@pytest.mark.parametrize(
    ("variable", "command", "scheme"),
    [
        ("SIGHTLINE_BROKER_URL", "stats", "redis"),
        ("SIGHTLINE_BROKER_URL", "parked", "redis"),
        ("SIGHTLINE_DATABASE_URL", "generations", "postgresql+psycopg2"),
    ],
)
def test_where_one_was_killed_other_commands_say_that_none_runs(
    folder: Folder, variable: str, command: str, scheme: str
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        # Bound and not listening: nobody answers there.
        address = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/5"
        folder.data.mkdir()
        upenv.write(folder.data / upenv.NAME, {variable: address})

        noted = folder.command(command)
        given = folder.command(command, env=folder.env | {variable: f"{address}1"})
        russian = folder.command(command, env=folder.env | {"SIGHTLINE_LANG": "ru"})

    hint = f"No `sightline up` runs in this folder ({folder.data}): start it in another terminal, or set {variable}"
    assert hint.replace(" ", "") in "".join(noted.stderr.split())
    assert "No`sightlineup`" not in "".join(given.stderr.split())
    assert (noted.returncode, given.returncode) == (1, 1)
    assert "Traceback" not in noted.stderr
    assert not re.search(r"[.?!]\.", noted.stderr + russian.stderr), "no sentence ends twice"
    assert not re.search("[a-z]{3,} [a-z]{3,}", re.sub("`[^`]*`", "", " ".join(russian.stderr.split()))), russian.stderr


def test_where_nobody_gave_an_address_nobody_looks_for_redis(tmp_path: Path) -> None:
    with (
        pytest.raises(Unreachable, match=r"away\. No `sightline up` runs in this folder"),
        open_client(Settings(data_dir=tmp_path)),
    ):
        raise Unreachable(Code.UNAVAILABLE, "away")
    with (
        pytest.raises(Unreachable, match=r"^away \[unavailable\]$"),
        open_client(Settings(data_dir=tmp_path, broker_url="redis://127.0.0.1:6379/5")),
    ):
        raise Unreachable(Code.UNAVAILABLE, "away")
