"""Server processes of a folder: whether one lives there, the end of one, the last words of its log."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from worker.holding import how_it_ended
from worker.words import say

if TYPE_CHECKING:
    import psutil

#: Seconds for a server to end. It has nothing to wait for: who is connected is cut off.
STOP_TIMEOUT_S = 30.0


def living_in(folder: Path, pid_file: Path) -> psutil.Process | None:
    """The server that works in this folder. The number in its file alone may be another process's by now, or that of
    one that has ended and that nobody has asked for its exit code yet."""
    import psutil

    try:
        process = psutil.Process(int(pid_file.read_text().split()[0]))
        # The command line is a server's own choice of title.
        return process if process.cwd() == str(folder) else None
    except (OSError, ValueError, IndexError, psutil.Error):
        return None


def end(process: psutil.Process, name: str, number: signal.Signals) -> None:
    """Returns when it has ended. Raises RuntimeError naming one that does not."""
    import psutil

    # Not by psutil's own wait, to which one that has ended and is not reaped, as in a container, is still there.
    deadline = time.monotonic() + STOP_TIMEOUT_S
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                raise RuntimeError(_does_not_end(name, process.pid))
            time.sleep(0.02)
    if isinstance(process, psutil.Popen):
        process.wait()


def wait_for_nobody_in(folder: Path, name: str) -> None:
    """Returns when no process of this user's works in the folder. Raises RuntimeError naming one that goes on."""
    import psutil

    deadline = time.monotonic() + STOP_TIMEOUT_S
    while left := [process.pid for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(folder)]:
        if time.monotonic() > deadline:
            raise RuntimeError(_does_not_end(name, left[0]))
        time.sleep(0.02)


def how_ended(process: psutil.Popen | None, log: Path) -> str | None:
    """How a server has, and the last words of its log, where it has ended by itself; None of one that runs or was
    stopped."""
    code = None if process is None else process.poll()
    return None if code is None else f"{how_it_ended(code)} / {last_words(log)}"


def last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return " / ".join(lines[-3:]) or say("it wrote no log")


def _does_not_end(name: str, pid: int) -> str:
    return say(
        "{server} (process {pid}) did not end within {seconds:g} s; end it with `kill -QUIT {pid}`",
        server=name,
        pid=pid,
        seconds=STOP_TIMEOUT_S,
    )
