"""What probes are told: a process that stands still is to be started again, one whose servers are away is not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.commands import sightline
from tests.conftest import ENCODER, Scene, server_dir
from tests.faults.conftest import PATIENCE_S, Gate, hasty_stack, until
from worker.embedded import VALKEY
from worker.health import UNWELL, WELL
from worker.settings import Settings
from worker.stack import Stack

#: Of the stacks here: half a minute of a test for what takes minutes of a service.
STALL_S = 6.0


@pytest.fixture(scope="module")
def watched(photo_root: Path) -> Iterator[Stack]:
    """All three kinds of processes. Whoever stops one lets it go on."""
    with hasty_stack(photo_root, tick_every_s=0.5, stall_s=STALL_S) as running:
        running.start_all()
        running.wait_ready()
        yield running


def asked(settings: Settings, *flags: str) -> tuple[int, dict[str, Any]]:
    """The exit code of `sightline health`, and what it says by role."""
    done = subprocess.run(
        [sys.executable, "-m", "worker.cli", "health", "--json", *flags],
        env={**os.environ, "SIGHTLINE_DATA_DIR": str(settings.data_dir)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.stderr == ""
    return done.returncode, {process["role"]: process for process in json.loads(done.stdout)["processes"]}


def until_ready(stack: Stack) -> None:
    def all_are() -> bool:
        code, said = asked(stack.settings, "--ready")
        # One that is only about to begin has said nothing yet, and nothing is said of it.
        return code == WELL and len(said) == len(stack.processes)

    until(all_are, "they are ready")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_processes_go_on_whether_they_wait_for_work_or_have_all_hands_full(
    watched: Stack, gate: Gate, scenes: list[Scene]
) -> None:
    until_ready(watched)
    with watched.client(timeout_s=PATIENCE_S) as client:
        handles = [client.submit_add_to_index(url=gate.url(n)) for n in range(watched.settings.concurrency)]
        until(lambda: len(gate.asked) == len(handles), "the worker asks for nothing more")

        time.sleep(2 * STALL_S)
        code, said = asked(watched.settings)
        gate.open.set()
        for handle in handles:
            handle.wait()

    assert code == WELL
    assert sorted(said) == ["beat", "index", "serve"]
    assert {role: process["lacks"] for role, process in said.items()} == {"beat": [], "index": [], "serve": []}
    assert (said["serve"]["model"], said["serve"]["index"]) == (True, True)
    assert [process["pid"] for process in (said["serve"], said["index"], said["beat"])] == [
        process.pid for process in watched.processes
    ]


def test_all_processes_of_one_redis_are_seen_with_what_they_have(watched: Stack) -> None:
    until_ready(watched)

    done = sightline("health", "--all", "--json", env={**os.environ, **watched.settings.as_env()})
    said = {process["role"]: process for process in json.loads(done.stdout)["processes"]}

    assert done.returncode == WELL, done.stderr
    assert [said[role]["pid"] for role in ("serve", "index", "beat")] == [p.pid for p in watched.processes]
    assert {process["host"] for process in said.values()} == {socket.gethostname()}
    assert all(process["turned_s_ago"] < STALL_S for process in said.values())
    assert all(process["memory_mb"] > 10 for process in said.values())
    serve = said["serve"]
    assert (serve["encoder"], serve["generation"], serve["model"]) == (ENCODER, None, True)
    assert "rlimits" in serve["sandbox"]


def test_a_process_that_stands_still_is_not_live_until_it_goes_on(watched: Stack) -> None:
    until_ready(watched)
    serve, index, beat = (process.pid for process in watched.processes)

    def lacking() -> dict[str, Any]:
        return {role: process["lacks"] for role, process in asked(watched.settings)[1].items() if process["lacks"]}

    with stopped(beat):
        with stopped(serve), stopped(index):
            before, _ = asked(watched.settings, "--live")
            until(lambda: lacking() == {"beat": ["loop"], "index": ["loop"], "serve": ["loop"]}, "it is noticed")
        until(lambda: lacking() == {"beat": ["loop"]}, "the others go on")
        one_of_three, _ = asked(watched.settings, "--live")

    assert (before, one_of_three) == (WELL, UNWELL)
    until_ready(watched)


def test_while_redis_is_away_all_are_live_and_none_is_ready(watched: Stack) -> None:
    until_ready(watched)

    with redis.Redis.from_url(watched.settings.broker_url) as server:
        server.shutdown(nosave=True)
    until(lambda: watched.servers.ended(VALKEY) is not None, "Redis has ended")
    until(lambda: asked(watched.settings, "--ready")[0] == UNWELL, "it is noticed")
    time.sleep(1.5 * STALL_S)
    live, said = asked(watched.settings, "--live")
    watched.servers.start_again(VALKEY)

    assert live == WELL
    assert {role: process["lacks"] for role, process in said.items()} == {
        "beat": ["redis"],
        "index": ["redis"],
        "serve": ["redis"],
    }
    until_ready(watched)


def test_a_worker_that_takes_no_messages_although_it_could_is_not_live(watched: Stack) -> None:
    code = (
        "import sys; import worker.broker as room\n"
        "room.Taking._brpop_start = lambda self, timeout=None: None\n"
        "from worker.cli import main; sys.argv[1:] = ['worker', '--role', 'index']; main()"
    )
    with server_dir() as folder:
        settings = watched.settings.model_copy(update={"data_dir": folder})
        process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **settings.as_env()})
        try:
            until(lambda: asked(settings)[1].get("index", {}).get("lacks") == ["polls"], "it is noticed")
            live, _ = asked(settings, "--live")
        finally:
            process.kill()
            process.wait()
        killed = asked(settings, "--live")

    assert live == UNWELL
    assert killed == (UNWELL, {})


def test_a_folder_in_which_nothing_runs_is_not_live(tmp_path: Path) -> None:
    assert asked(Settings(data_dir=tmp_path), "--live") == (UNWELL, {})
