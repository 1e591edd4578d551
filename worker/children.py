"""Our own processes as a stack has them: started, followed in their log, asked to stop, killed. Knows no server."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from worker import holding
from worker.private import UMASK, opened_to_append
from worker.settings import Settings

#: Bytes of a log after which it becomes the one before, of which one is kept.
LOG_BYTES = 10_000_000
#: Bytes that are read of a log at once, and characters that are shown of one line.
READ_BYTES, LINE = 1_000_000, 300
#: Columns of a log, for what would be broken into lines as for a terminal.
LOG_COLUMNS = "10000"
#: Lines of a log by their level, as worker.logs, in either form, and Celery write it. Python's own warnings, which have
#: a level only as JSON, are for those who develop.
ORDINARY, ABOVE_ORDINARY = (
    re.compile(
        rf'^\S+ ({levels}) |^\[.*?: ({levels})/|^{{"time": "[^"]*", "level": "({levels})"(?!, "logger": "py.warnings)'
    )
    for levels in ("DEBUG|INFO", "WARNING|ERROR|CRITICAL")
)


class Process:
    """One of our own processes, in a session of its own: Ctrl-C reaches us alone, and we stop it in order."""

    def __init__(self, settings: Settings, *arguments: str, log: Path | None = None) -> None:
        self.arguments = arguments
        self.name = " ".join(arguments)
        self.log = log
        self.settings = settings
        self._begin = self._read = log.stat().st_size if log is not None and log.exists() else 0
        self._half = b""
        self._group_ended = False
        self._began = time.monotonic()
        file = None if log is None else opened_to_append(log)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "worker.cli", *arguments],
                env={
                    **os.environ,
                    **settings.as_env(),
                    "PYTHONUNBUFFERED": "1",
                    **({"COLUMNS": LOG_COLUMNS} if file else {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT if file else None,
                start_new_session=True,
                umask=UMASK,
            )
        finally:
            if file is not None:
                file.close()
        self.started = holding.started(f"sightline {self.name}", self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """As subprocess has it: that of a signal is negative."""
        code = self._process.poll()
        if code is not None and not self._group_ended:
            # A child of its own that it was killed above would go on working.
            self._group_ended = True
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        return code

    @property
    def lived_s(self) -> float:
        return time.monotonic() - self._began

    def ask_to_stop(self) -> None:
        if self.exit_code is None:
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL, as a machine that loses its power."""
        self._process.kill()
        self.wait()

    def wait(self, timeout_s: float = holding.STOP_TIMEOUT_S) -> None:
        """Until it has ended; it is killed after that time."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _ = self.exit_code

    def new_lines(self) -> list[str]:
        """Whole lines of its log since the last call. A log that has grown too large becomes the one before."""
        if self.log is None or not self.log.exists():
            # Somebody has removed it: the process goes on writing into a file without a name.
            return []
        with self.log.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._read:
                self._begin = self._read = 0
                self._half = b""
            file.seek(self._read)
            content = file.read(READ_BYTES)
        self._read += len(content)
        *lines, self._half = (self._half + content).split(b"\n")
        if self._read > LOG_BYTES:
            # The process goes on writing into the same file, at its end: what it writes just now is lost.
            shutil.copyfile(self.log, self.log.with_name(f"{self.log.name}.1"))
            os.truncate(self.log, 0)
            self._begin = self._read = 0
            self._half = b""
        return [line.decode(errors="replace") for line in lines]

    def last_words(self, lines: int = 15) -> str:
        """The end of what it has logged, for a message to people."""
        if self.log is None or not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(self._begin, self.log.stat().st_size - READ_BYTES))
            said = file.read().decode(errors="replace")
        return "\n".join([line for line in said.splitlines() if line.strip()][-lines:])


def shown(line: str) -> str:
    """A line of a log for a terminal."""
    line = line.rstrip()
    return line if len(line) <= LINE else f"{line[:LINE]}…"
