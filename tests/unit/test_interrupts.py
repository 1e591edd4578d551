"""Ctrl-C at any moment of a command ends it, and shows nobody where in the code it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import until

#: The script that pip makes of the entry point.
SIGHTLINE = Path(sys.executable).with_name("sightline")
PATIENCE_S = 60.0
#: As a shell tells both: 130.
INTERRUPTED = (-signal.SIGINT, 130)


def started(*words: str) -> subprocess.Popen[str]:
    # Nobody answers there, and it is asked for about a second.
    env = {**os.environ, "SIGHTLINE_BROKER_URL": "redis://127.0.0.1:1/5"}
    command = [str(SIGHTLINE), *words]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def handles(process: subprocess.Popen[str], *, interrupts: bool) -> None:
    """Returns when the process has a handler of SIGINT, or none, or is over. Python has one from its beginning on, and
    the entry point takes it away while modules are loaded."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt")), 0)
        if bool(caught >> (signal.SIGINT - 1) & 1) == interrupts:
            return
        time.sleep(0.0005)


def interrupted(process: subprocess.Popen[str], delay_s: float) -> bool:
    """Whether it was before it had said anything."""
    time.sleep(delay_s)  # not for anything: the moment is what is tried
    over = process.poll() is not None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    for word in ("Traceback", "Exception ignored", "Error"):
        assert word not in out + err, (delay_s, err)
    assert over or process.returncode in INTERRUPTED, (delay_s, process.returncode, err)
    return not over and out + err == ""


@pytest.mark.parametrize("words", ["--version", "search x --json", "up --x"])
def test_ctrl_c_while_a_command_is_loaded_ends_it_without_a_traceback(words: str) -> None:
    hit = []
    for delay_s in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4):
        process = started(*words.split())
        handles(process, interrupts=True)
        handles(process, interrupts=False)

        hit.append(interrupted(process, delay_s))

    assert any(hit)


@pytest.mark.parametrize("words", ["stats", "search x --json"])
def test_ctrl_c_while_a_command_runs_ends_it_without_a_traceback(words: str) -> None:
    hit = []
    for delay_s in (0.0, 0.1, 0.3, 0.6):
        process = started(*words.split())
        for loaded in (True, False, True):
            handles(process, interrupts=loaded)

        hit.append(interrupted(process, delay_s))

    assert any(hit)


def test_a_command_that_a_script_has_put_into_the_background_ignores_the_ctrl_c_of_its_terminal() -> None:
    mine = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = started("--version")
    finally:
        signal.signal(signal.SIGINT, mine)

    def asked_again_and_over() -> bool:
        process.send_signal(signal.SIGINT)
        return process.poll() is not None

    until(asked_again_and_over, PATIENCE_S)
    out, err = process.communicate()

    assert (process.returncode, out.split()[:1], err) == (0, ["sightline"], "")
