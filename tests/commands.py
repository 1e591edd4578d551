"""`sightline` as a process of its own, forked from one that has loaded what commands need.

Python and these modules take a second and more of each command's time, and tests run hundreds. Only the language and
the terminal are looked at while they are loaded, so there is such a process for each. How a command starts, and is
interrupted then, is tested without this.
"""

from __future__ import annotations

import array
import atexit
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path

from worker.cli import main
from worker.joined import ROOMS

ROOT = Path(__file__).parents[1]
PATIENCE_S = 120.0
LOOKED_AT = ("SIGHTLINE_LANG", "COLUMNS", "LINES", "TERM", "NO_COLOR", "FORCE_COLOR")
LOADED = (*{f"worker.commands.{room}": None for room in ROOMS.values()}, "worker.storage.store")


def sightline(*arguments: str, env: dict[str, str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` has it: exit code, standard output and standard error as text.

    Raises subprocess.TimeoutExpired after `PATIENCE_S`; the command is killed then.
    """
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        given.write(stdin or "")
        given.seek(0)
        code = _run(arguments, env, [given.fileno(), out.fileno(), err.fileno()])
        for said in (out, err):
            said.seek(0)
        return subprocess.CompletedProcess(["sightline", *arguments], code, out.read(), err.read())


def _run(arguments: tuple[str, ...], env: dict[str, str], files: list[int]) -> int:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            # The command hears of its end of this pair alone; the end of the process shows on ours.
            rights = array.array("i", [*files, theirs.fileno()])
            language = {"SIGHTLINE_LANG": "en"} if "--json" in arguments else {}
            looked_at = {name: value for name, value in (env | language).items() if name in LOOKED_AT}
            _loaded(frozenset(looked_at.items())).sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        ours.sendall(json.dumps([arguments, env]).encode() + b"\n")
        ours.settimeout(PATIENCE_S)
        with ours.makefile("r") as answers:
            pid = int(answers.readline())
            try:
                return int(answers.readline())
            except TimeoutError:
                os.kill(pid, 9)
                raise subprocess.TimeoutExpired(["sightline", *arguments], PATIENCE_S) from None


@cache
def _loaded(looked_at: frozenset[tuple[str, str]]) -> socket.socket:
    """To the process that forks, which ends with this one."""
    ours, theirs = socket.socketpair()
    env = {name: value for name, value in os.environ.items() if name not in LOOKED_AT} | dict(looked_at)
    with theirs:
        process = subprocess.Popen([sys.executable, "-m", "tests.commands"], stdin=theirs.fileno(), cwd=ROOT, env=env)

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve() -> None:
    for name in LOADED:
        import_module(name)
    gc.freeze()  # what is loaded stays the pages of all that are forked
    with socket.socket(fileno=os.dup(0)) as asked:
        while True:
            _, files, _, _ = socket.recv_fds(asked, 1, 4)
            if not files:
                return
            # A child of a child, which waits for it: nobody else does.
            if os.fork() == 0:
                _answer(*files)
                os._exit(0)
            os.wait()
            for file in files:
                os.close(file)


def _answer(given: int, out: int, err: int, line: int) -> None:
    if os.fork() != 0:
        return
    with socket.socket(fileno=line) as asked, asked.makefile("rw") as words:
        arguments, env = json.loads(words.readline())
        child = os.fork()
        if child == 0:
            _become(arguments, env, (given, out, err))
        words.write(f"{child}\n")
        words.flush()
        words.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
    os._exit(0)


def _become(arguments: list[str], env: dict[str, str], files: tuple[int, int, int]) -> None:
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["sightline", *arguments]
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    main()


if __name__ == "__main__":
    _serve()
