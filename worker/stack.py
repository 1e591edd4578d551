"""Everything on one machine: embedded servers, migrations, worker, index process, beat. For `up`, demo and tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Self

from producer_client import Sightline, TimedOut, TryAgain
from producer_client.reach import shown
from worker import embedded, holding, signals
from worker.children import ORDINARY, Process
from worker.embedded import EmbeddedServers, port
from worker.settings import Settings
from worker.words import say

#: Seconds for the first worker to answer: it loads the model first, and at its very first start measures what runs it.
READY_TIMEOUT_S = 300.0


class Ended(RuntimeError):
    """A process of the stack has ended by itself. exit_code: as subprocess has it."""

    def __init__(self, process: Process) -> None:
        self.exit_code = process.exit_code or 0
        ended = say("`sightline {name}` ended with {how}", name=process.name, how=holding.how_it_ended(self.exit_code))
        words = [line for line in process.last_words().splitlines() if not ORDINARY.match(line)]
        super().__init__("\n".join([ended, *words]))


class Stack:
    """Servers and processes of one machine. Start on entering, stop on leaving, also on Ctrl-C.

    Entering ends what a killed one left in the data folder, and raises holding.RunsAlready where one runs there.
    log_dir: where the processes write; their lines go to this terminal when None. port: of Valkey, the one of the
    settings unless given; see worker.embedded.port. own_database: a Postgres of this machine's folder, or else the one
    of the settings. tell: is given a sentence for people about what they may not expect.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        log_dir: Path | None = None,
        port: int | None = None,
        own_database: bool = True,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._given = settings
        self._log_dir = log_dir
        self._port = settings.up_port if port is None else port
        self._own_database = own_database
        self._tell = tell
        self._hold = holding.Hold(settings.data_dir)
        self._ready = False
        self._servers: EmbeddedServers | None = None
        self.settings = settings
        self.processes: list[Process] = []

    @property
    def servers(self) -> EmbeddedServers:
        assert self._servers is not None, "a stack has servers once it is entered"
        return self._servers

    @property
    def broker(self) -> str:
        """The address of the broker, without its password."""
        return shown(self.settings.broker_url)

    def __enter__(self) -> Self:
        self._hold.take()
        try:
            with signals.held():
                self._end_left()
                self._start_servers()
            # The prefix as well, or another terminal's environment would say where in this Redis to look.
            addresses = {
                "broker_url": self.servers.broker_url,
                "result_backend": "",
                "key_prefix": self._given.key_prefix,
            }
            if self._own_database:
                addresses["database_url"] = self.servers.database_url
            self.settings = self._given.model_copy(update=addresses)
            self._note()
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
            name = "-".join(a.strip("-") for a in arguments)
            same = sum(process.arguments == arguments for process in self.processes)
            log = self._log_dir / (f"{name}-{same + 1}.log" if same else f"{name}.log")
        return self._start(settings or self.settings, arguments, log, len(self.processes))

    def start_again(self, process: Process) -> Process:
        """In place of one that has ended, with its settings and its log. How it was killed is kept with what it had in
        hand."""
        if process.exit_code is not None and process.exit_code < 0:
            self._note_death(process)
        return self._start(process.settings, process.arguments, process.log, self.processes.index(process))

    def start_all(self) -> None:
        """One worker for photos and questions, one process for rebuilds, one beat."""
        self.start("worker")
        self.start("worker", "--role", "index")
        self.start("beat")

    def client(self, timeout_s: float = 60.0) -> Sightline:
        return Sightline(
            self.settings.broker_url,
            timeout_s=timeout_s,
            key_prefix=self.settings.key_prefix,
            signing_keys_file=self.settings.signing_keys_file,
        )

    def wait_ready(self, tell: Callable[[float], None] = lambda _: None) -> None:
        """Until a worker answers. Raises Ended, or RuntimeError naming a server, where one ends instead."""
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
                    self.check()
                    handle = client.submit_stats(timeout_s=READY_TIMEOUT_S)
                else:
                    return

    def note_ready(self) -> None:
        """Let others know that it is up."""
        self._ready = True
        self._note()

    def check(self) -> None:
        """Raises Ended when a process of the stack has ended by itself, RuntimeError naming a server that has."""
        self.servers.check()
        for process in self.processes:
            if process.exit_code is not None:
                raise Ended(process)

    def stop(self) -> None:
        """Processes end their tasks in hand, then the servers stop. Who is asked again meanwhile ends them at once."""
        asked = signals.times_asked()
        with signals.held():
            try:
                holding.end(
                    [process.started for process in self.processes if process.exit_code is None],
                    timeout_s=holding.STOP_TIMEOUT_S,
                    hurry=lambda: signals.times_asked() > max(asked, 1),
                )
                for process in self.processes:
                    process.wait()
                self.processes.clear()
            finally:
                if self._servers is not None:
                    self._servers.stop()
                self._hold.release()

    def _start(self, settings: Settings, arguments: tuple[str, ...], log: Path | None, place: int) -> Process:
        with signals.held():
            process = Process(settings, *arguments, log=log)
            self.processes[place : place + 1] = [process]
            self._note()
        return process

    def _start_servers(self) -> None:
        chosen, taken = port.choose(self._port, self._hold.folder)
        if taken is not None:
            self._tell(say("port {taken} of the last start is taken by now: {port}", taken=taken, port=chosen))
        self._servers = EmbeddedServers(self._given.data_dir, port=chosen, with_postgres=self._own_database)
        self._servers.__enter__()

    def _end_left(self) -> None:
        ended = end_left(self._hold)
        if ended:
            self._tell(say("ended what a killed `sightline up` had left here: {names}", names=", ".join(ended)))

    def _note(self) -> None:
        self._hold.note(
            broker=self.broker,
            ready=self._ready,
            processes=[process.started for process in self.processes],
            servers=self.servers.names,
        )

    def _note_death(self, process: Process) -> None:
        from worker.storage.store import note_end

        how = holding.how_it_ended(process.exit_code or 0)
        note_end(self.settings, how, process.last_words(2), pid=process.pid)

    def _migrate(self) -> None:
        from worker.storage.store import PostgresStore

        with closing(PostgresStore(self.settings)) as store:
            store.migrate()
            store.rows.table  # noqa: B018  # a table that is of no use is said before anything starts


def end_left(hold: holding.Hold) -> list[str]:
    """End what a killed one left in a folder that is held now; returns the names, none where nothing was left."""
    holding.end(hold.left, timeout_s=holding.LEFT_TIMEOUT_S)
    return [process.name for process in hold.left] + embedded.end_left(hold.folder)
