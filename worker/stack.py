"""Everything on one machine: embedded servers, migrations, worker, index process, beat. For `up`, demo and tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import IO, Self

from producer_client import Sightline, TimedOut, TryAgain
from worker.embedded import EmbeddedServers
from worker.embedded.private import UMASK, opened_to_append
from worker.settings import Settings

#: Seconds for a process to end after it was asked to, before it is killed: tasks in hand are ended first.
STOP_TIMEOUT_S = 30.0
#: Seconds for the first worker to answer: it loads the model first, and at its very first start measures what runs it.
READY_TIMEOUT_S = 300.0
#: Seconds until an interrupt is raised again that Python could not pass on.
AGAIN_S = 0.05


def raise_on_signals() -> None:
    """KeyboardInterrupt on SIGINT and SIGTERM, wherever it falls; for the main thread of who runs a Stack.

    One that is raised within a finalizer or a weak reference's callback (an import has many) is printed and forgotten
    by Python, and the process would go on: it is raised again a moment later.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # SIGINT as well: a process that a script starts in the background inherits it ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, interrupt)
    told = sys.unraisablehook

    def again(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        else:
            told(unraisable)

    sys.unraisablehook = again


class Process:
    """One of our own processes, in a session of its own: Ctrl-C reaches us alone, and we stop it in order."""

    def __init__(self, settings: Settings, *arguments: str, log: Path | None = None) -> None:
        self.name = arguments[0] if len(arguments) == 1 else " ".join(arguments)
        self.log = log
        self._file: IO[bytes] | None = None if log is None else opened_to_append(log)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker.cli", *arguments],
            env={**os.environ, **settings.as_env(), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT if self._file else None,
            start_new_session=True,
            umask=UMASK,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def ask_to_stop(self) -> None:
        if self.exit_code is None:
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL, as a machine that loses its power."""
        self._process.kill()
        self.wait()

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._file is not None:
            self._file.close()

    def last_words(self, lines: int = 15) -> str:
        """The end of its log, for a message to people."""
        if self.log is None or not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Stack:
    """Servers and processes of one machine. Start on entering, stop on leaving, also on Ctrl-C.

    log_dir: where the processes write; their lines go to this terminal when None. own_database: a Postgres of this
    machine's folder, or else the one of the settings.
    """

    def __init__(
        self, settings: Settings, *, log_dir: Path | None = None, port: int | None = None, own_database: bool = True
    ) -> None:
        self._given = settings
        self._log_dir = log_dir
        self._own_database = own_database
        self.servers = EmbeddedServers(
            settings.data_dir, port=settings.up_port if port is None else port, with_postgres=own_database
        )
        self.settings = settings
        self.processes: list[Process] = []

    def __enter__(self) -> Self:
        try:
            self.servers.__enter__()
            # The prefix as well, or another terminal's environment would say where in this Redis to look.
            addresses = {
                "broker_url": self.servers.broker_url,
                "result_backend": "",
                "key_prefix": self._given.key_prefix,
            }
            if self._own_database:
                addresses["database_url"] = self.servers.database_url
            self.settings = self._given.model_copy(update=addresses)
            self._migrate()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self, *arguments: str, settings: Settings | None = None) -> Process:
        """Start `sightline <arguments>` as a process of this stack."""
        log = None
        if self._log_dir is not None:
            self._log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            log = self._log_dir / f"{'-'.join(a.strip('-') for a in arguments)}-{len(self.processes)}.log"
        process = Process(settings or self.settings, *arguments, log=log)
        self.processes.append(process)
        return process

    def start_all(self) -> None:
        """One worker for photos and questions, one process for rebuilds, one beat."""
        self.start("worker")
        self.start("worker", "--role", "index")
        self.start("beat")

    def client(self, timeout_s: float = 60.0) -> Sightline:
        return Sightline(self.settings.broker_url, timeout_s=timeout_s, key_prefix=self.settings.key_prefix)

    def wait_ready(self, tell: Callable[[float], None] = lambda _: None) -> None:
        """Until a worker answers. Raises RuntimeError with the last words of a process that ended instead."""
        started = time.monotonic()
        with self.client() as client:
            handle = client.submit_stats(timeout_s=READY_TIMEOUT_S)
            while True:
                self.check()
                tell(time.monotonic() - started)
                try:
                    handle.wait(0.25)
                except TimedOut:
                    if time.monotonic() - started > READY_TIMEOUT_S:
                        raise
                except TryAgain:
                    handle = client.submit_stats(timeout_s=READY_TIMEOUT_S)
                else:
                    return

    def check(self) -> None:
        """Raises RuntimeError when a process of the stack has ended by itself."""
        for process in self.processes:
            if process.exit_code is not None:
                raise RuntimeError(
                    f"`sightline {process.name}` ended with code {process.exit_code}\n{process.last_words()}".strip()
                )

    def stop(self) -> None:
        try:
            for process in self.processes:
                process.ask_to_stop()
            for process in self.processes:
                process.wait()
            self.processes.clear()
        finally:
            self.servers.stop()

    def _migrate(self) -> None:
        from worker.storage.migrate import migrate
        from worker.storage.store import PostgresStore

        with closing(PostgresStore(self.settings)) as store, store.database.guard():
            migrate(
                store.database.engine,
                schema=self.settings.db_schema,
                photos_table=self.settings.photos_table,
                columns=self.settings.photos_columns,
            )
