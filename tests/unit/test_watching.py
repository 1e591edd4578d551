"""What `sightline up` stands on: pauses that grow, ports that stay, logs that end, signals that are not lost."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.conftest import until
from worker import children, holding, pulse, watching
from worker.children import Process
from worker.embedded import EmbeddedServers, port
from worker.holding import Hold
from worker.settings import Settings
from worker.stack import Ended, Stack
from worker.watching import FIRST_PAUSE_S, FORGETS_EVERY_S, LIVED_S, LONGEST_PAUSE_S, Restarts, Watch

ROOT = Path(__file__).parents[2]


def test_pauses_double_up_to_a_minute_and_begin_anew_after_a_long_life() -> None:
    restarts = Restarts(began=0.0)

    pauses = []
    for now in range(10):
        pauses.append(restarts.has_ended(float(now)))
        restarts.is_started(float(now))

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert restarts.has_ended(9 + LIVED_S) == FIRST_PAUSE_S
    assert max(pauses) == LONGEST_PAUSE_S
    shorter = Restarts(began=0.0, longest_pause_s=2.0)
    assert [shorter.has_ended(float(now)) for now in range(3)] == [1, 2, 2]


class Servers:
    """Two servers, of which one has ended and fails to start twice. Then it has no word of its own end any more."""

    names = ("Postgres", "Valkey")

    def __init__(self) -> None:
        self.words: str | None = "its last words"
        self.tried = 0
        self.forgot = 0

    def ended(self, name: str) -> str | None:
        return self.words if name == "Valkey" else None

    def start_again(self, name: str) -> None:
        assert name == "Valkey"
        self.words = None
        self.tried += 1
        if self.tried < 3:
            raise RuntimeError("it does\nnot start")

    def forget(self) -> None:
        self.forgot += 1
        if self.forgot == 2:
            raise ConnectionRefusedError


class OneOfOurs:
    """A process that has ended with a code."""

    name, arguments = "worker", ("worker",)

    def __init__(self, exit_code: int | None) -> None:
        self.exit_code = exit_code

    def new_lines(self) -> list[str]:
        return []

    def last_words(self, lines: int = 15) -> str:
        return "the last\nwords"


class Half:
    """As much of a stack as is watched."""

    def __init__(self, *processes: OneOfOurs) -> None:
        self.servers = Servers()
        self.processes = list(processes)

    def start_again(self, process: OneOfOurs) -> None:
        self.processes[self.processes.index(process)] = OneOfOurs(None)


def watch(half: Half, said: list[str]) -> Watch:
    return Watch(cast(Stack, half), said.append, pointless=frozenset({2, 3}))


def test_what_does_not_start_again_is_tried_again_after_a_longer_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    half, said, now = Half(), list[str](), [1000.0]
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: now[0]))
    looking = watch(half, said)

    for _ in range(40):
        looking.look()
        now[0] += 0.25

    assert half.servers.tried == 3
    assert said == [
        "Valkey has ended and starts again in 1 s: its last words",
        "Valkey has ended and starts again in 2 s: it does not start",
        "Valkey has ended and starts again in 4 s: it does not start",
    ]


def test_what_redis_has_forgotten_goes_from_its_log_on_disk_every_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    half, now = Half(), [1000.0]
    half.servers.words = None
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: now[0]))
    looking = watch(half, [])

    forgot = []
    for _ in range(4):
        looking.look()
        looking.look()
        forgot.append(half.servers.forgot)
        now[0] += FORGETS_EVERY_S

    assert forgot == [0, 1, 2, 3], "also after an hour in which it did not answer"


@pytest.mark.parametrize("code", [0, 1, 5, -9])
def test_a_process_of_whatever_other_code_is_started_again(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    half, said, now = Half(OneOfOurs(code)), list[str](), [1000.0]
    half.servers.words = None
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: now[0]))
    looking = watch(half, said)

    looking.look()
    now[0] += 0.5
    looking.look()
    assert [one.exit_code for one in half.processes] == [code]
    now[0] += 1
    looking.look()

    assert [one.exit_code for one in half.processes] == [None]
    how = "SIGKILL" if code < 0 else f"code {code}"
    assert said == [f"`sightline worker` has ended and starts again in 1 s: {how} / the last / words"]


def test_of_two_processes_of_one_name_the_one_that_has_died_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    alive, now = OneOfOurs(None), [1000.0]
    half = Half(alive, OneOfOurs(-9))
    half.servers.words = None
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: now[0]))
    looking = watch(half, [])

    for _ in range(8):
        looking.look()
        now[0] += 0.5

    assert [one.exit_code for one in half.processes] == [None, None]
    assert half.processes[0] is alive


@pytest.mark.parametrize("code", [2, 3])
def test_a_code_that_would_only_come_again_ends_it_all(code: int) -> None:
    half = Half(OneOfOurs(code))
    half.servers.words = None

    with pytest.raises(Ended, match=f"`sightline worker` ended with code {code}\nthe last") as ended:
        watch(half, []).look()

    assert ended.value.exit_code == code


def test_why_it_ends_is_told_without_the_ordinary_lines_of_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "2026-11-28T19:52:21Z INFO worker.runtime starting model=m\nno such model\nuse another"
    monkeypatch.setattr(OneOfOurs, "last_words", lambda _: words)

    ended = Ended(cast(Process, OneOfOurs(3)))

    assert str(ended) == "`sightline worker` ended with code 3\nno such model\nuse another"


# ------------------------------------------------------------------------------------------------ ports


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


def test_any_free_port_stays_the_same_until_another_takes_it(tmp_path: Path) -> None:
    first, nothing = port.choose(0, tmp_path)

    assert nothing is None
    assert port.choose(0, tmp_path) == (first, None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        taken.listen()
        other, said = port.choose(0, tmp_path)
        assert other != first
        assert said == first
    assert port.choose(0, tmp_path) == (other, None)


@pytest.mark.parametrize("kept", ["", "x", "0", "-1", "70000"])
def test_a_kept_port_that_is_none_is_forgotten(tmp_path: Path, kept: str) -> None:
    (tmp_path / port.KEPT).write_text(kept)

    chosen, _ = port.choose(0, tmp_path)

    assert 0 < chosen < 65536


def test_a_wanted_port_is_never_another_one(tmp_path: Path, listener: socket.socket) -> None:
    taken = listener.getsockname()[1]

    with pytest.raises(RuntimeError, match=rf"port {taken} .*process \d+ .*SIGHTLINE_UP_PORT to another"):
        port.choose(taken, tmp_path)
    listener.close()

    assert port.choose(taken, tmp_path) == (taken, None)
    assert not (tmp_path / port.KEPT).exists()


# ----------------------------------------------------------------------------------------- who is who


def test_a_process_is_known_by_more_than_its_number() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        known = holding.started("it", process.pid)
        assert known.lives
        assert not holding.Started("it", process.pid, known.born + "0").lives
        holding.end([holding.Started("it", process.pid, "another boot 1")], timeout_s=0.1)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.kill()
        # Also while nobody has asked for its exit code yet.
        until(lambda: pulse.born(process.pid) == "")
    assert pulse.born(process.pid) == ""


def test_what_does_not_end_when_it_is_asked_to_is_killed_with_what_it_started() -> None:
    program = "import signal, subprocess, sys, time; signal.signal(15, signal.SIG_IGN)\n"
    program += "print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())

        holding.end([holding.started("it", process.pid)], timeout_s=0.2)

        until(lambda: not pulse.born(child))


# --------------------------------------------------------------------------------------- a data folder of no use


@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.parametrize("below", ["", "data", "data/deeper"])
def test_what_is_no_folder_is_called_so_by_all(tmp_path: Path, below: str, language: str) -> None:
    file = tmp_path / "file"
    file.touch()
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_LANG", language)
        for take in (Hold(file / below).take, EmbeddedServers(file / below).__enter__):
            with pytest.raises(RuntimeError, match="SIGHTLINE_DATA_DIR") as caught:
                take()
            said.append(str(caught.value))

    assert said[0] == said[1]
    assert {"en": f"{file} is no folder", "ru": f"{file} — не папка"}[language] in said[0]


def test_what_lies_elsewhere_is_not_laid_at_the_data_folders_door(tmp_path: Path) -> None:
    there = tmp_path / "data"

    inside = holding.unusable(there, OSError(errno.ENOSPC, "No space left on device", str(there / "up.json")))
    nameless = holding.unusable(there, OSError(errno.ENOSPC, "No space left on device"))
    elsewhere = holding.unusable(there, OSError(errno.EACCES, "Permission denied", "/bin/postgres"))

    assert f"folder {there} cannot be used: {there / 'up.json'}: No space left on device. Set" in inside
    assert f"folder {there} cannot be used: No space left on device. Set" in nameless
    assert elsewhere == "/bin/postgres cannot be used: Permission denied"


# ------------------------------------------------------------------------------------------------ logs


@pytest.fixture
def process(tmp_path: Path) -> Process:
    """One that says a line and ends."""
    log = tmp_path / "logs" / "worker.log"
    log.parent.mkdir()
    log.write_text("of an earlier one\n")
    ended = Process(Settings(data_dir=tmp_path), "worker", "--role", "none", log=log)
    ended.wait()
    return ended


def test_the_words_of_a_process_are_its_own(process: Process) -> None:
    lines = process.new_lines()

    assert process.exit_code == 2
    assert "--role is one of" in " ".join(lines)
    assert "of an earlier one" not in lines
    assert "of an earlier one" not in process.last_words()
    assert process.new_lines() == []


def test_a_log_does_not_grow_without_end_and_no_half_line_is_shown(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = cast(Path, process.log)
    process.new_lines()
    with log.open("a") as file:
        file.write("half of")
        file.flush()
        assert process.new_lines() == []
        file.write(" a line\n")
        file.flush()
        assert process.new_lines() == ["half of a line"]
        before = log.read_text()
        monkeypatch.setattr(children, "LOG_BYTES", 10)
        process.new_lines()
        assert log.read_text() == ""
        assert log.with_name("worker.log.1").read_text() == before
        file.write("and on\n")
        file.flush()
        assert process.new_lines() == ["and on"]


def test_a_log_that_somebody_clears_or_removes_ends_nothing(process: Process) -> None:
    log = cast(Path, process.log)
    process.new_lines()
    os.truncate(log, 0)
    assert process.new_lines() == []
    log.write_text("anew\n")
    assert process.new_lines() == ["anew"]
    assert process.last_words() == "anew"
    log.unlink()
    assert process.new_lines() == []
    assert process.last_words() == ""


def test_a_sentence_in_a_log_is_one_line(tmp_path: Path) -> None:
    """And not broken as for a terminal: of several lines the last two would be shown."""
    option = "--" + "x" * 150
    process = Process(Settings(data_dir=tmp_path), "generations", option, log=tmp_path / "log")
    process.wait()

    (line,) = [line for line in process.new_lines() if line.startswith("sightline: ")]
    assert option in line


@pytest.mark.parametrize(
    ("line", "above"),
    [
        ("2026-11-28T02:00:00Z WARNING worker.library odd photo_id=3", True),
        ("2026-11-28T02:00:00Z ERROR celery.worker lost", True),
        ("[2026-11-28 02:00:00,000: CRITICAL/MainProcess] Unrecoverable error", True),
        ("2026-11-28T02:00:00Z INFO worker.library a WARNING that is none", False),
        ("Traceback (most recent call last):", False),
        ("", False),
    ],
)
def test_what_is_above_the_ordinary_is_known_by_its_level(line: str, above: bool) -> None:
    assert bool(children.ABOVE_ORDINARY.match(line)) == above


# --------------------------------------------------------------------------------------------- signals


def run_program(program: str, *, then: tuple[tuple[str, signal.Signals], ...], **more: Any) -> str:
    """What a program says that is sent each signal after it has said its word."""
    code = f"import signal, time\nfrom worker import signals\nsignals.raise_on_signals()\n{program}"
    said = ""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, **more) as running:
        try:
            assert running.stdout is not None
            for word, number in then:
                line = running.stdout.readline()
                said += line
                assert line == f"{word}\n"
                running.send_signal(number)
            return said + str(running.stdout.read())
        finally:
            running.kill()


def test_what_is_held_is_not_broken_off_and_the_interrupt_comes_after_it() -> None:
    program = """
try:
    with signals.held():
        print("holding", flush=True)
        while not signals.times_asked():
            time.sleep(0.01)
        with signals.held():
            pass
        print("whole", flush=True)
    print("never", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    assert run_program(program, then=(("holding", signal.SIGTERM),)) == "holding\nwhole\ninterrupted\n"


def test_a_second_signal_right_after_the_first_is_counted_and_not_raised() -> None:
    """It would break off what the first one has begun to end."""
    program = """
try:
    print("waiting", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("ending", flush=True)
    while signals.times_asked() < 2:
        time.sleep(0.01)
    print("ended", flush=True)
"""
    said = run_program(program, then=(("waiting", signal.SIGINT), ("ending", signal.SIGHUP)))

    assert said == "waiting\nending\nended\n"


def test_the_last_words_are_said_once_whoever_asks_again() -> None:
    program = """
try:
    print("waiting", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    signals.GRACE_S = -1.0
    signals.ignore_signals()
    for number in signals.ENDING:
        signal.raise_signal(number)
    print("stopped", flush=True)
"""
    assert run_program(program, then=(("waiting", signal.SIGINT),)) == "waiting\nstopped\n"


def test_ctrl_c_is_for_whoever_runs_in_the_foreground_of_a_terminal() -> None:
    program = """
print(signals.hears_ctrl_c(), flush=True)
import os
if os.fork() == 0:
    os.setpgid(0, 0)
    print(signals.hears_ctrl_c(), flush=True)
    os._exit(0)
os.wait()
"""
    ours, its = os.openpty()

    def takes_terminal() -> None:
        fcntl.ioctl(its, termios.TIOCSCTTY, 0)

    try:
        without = run_program(program, then=(), start_new_session=True)
        with_one = run_program(program, then=(), start_new_session=True, preexec_fn=takes_terminal)
    finally:
        os.close(ours)
        os.close(its)

    assert without.split() == ["False", "False"]
    assert with_one.split() == ["True", "False"], "of what it runs in the background no one hears it"


def test_who_says_nohup_means_it() -> None:
    program = """
print("waiting", flush=True)
until = time.monotonic() + 0.5
while time.monotonic() < until:
    time.sleep(0.01)
print("went on", flush=True)
"""

    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    said = run_program(program, then=(("waiting", signal.SIGHUP),), preexec_fn=nohup)

    assert said == "waiting\nwent on\n"
