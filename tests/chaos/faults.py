"""How each kind of fault is done to a running service, and when it has ended. Knows processes and servers, no photos.

A fault is a generator: it does harm, yields while that is in force, and returns when it has ended: what was stopped
goes on, what was killed has been started again by who watches the stack (worker.watching), what was closed is open.
Closing it early puts right what it has done.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import psutil
import psycopg2
import redis

from tests.between import Between
from tests.chaos.plan import Fault, Kind
from worker.children import Process
from worker.embedded.processes import living_in
from worker.stack import Stack

#: A fault in force: yields until it has ended.
Course = Generator[None]
#: Bytes that a Valkey may take which is held to be full: fewer than it has.
FULL = 1_000_000
SERVE, INDEX, BEAT = ("worker",), ("worker", "--role", "index"), ("beat",)


@dataclass(frozen=True)
class Far:
    """What lies between one of the workers and its servers."""

    valkey: Between
    postgres: Between

    @property
    def addresses(self) -> dict[str, str]:
        """Settings of a worker that reaches its servers by this way."""
        return {"broker_url": self.valkey.url, "database_url": self.postgres.url}


class Harm:
    """To one stack. more: courses of kinds that need to know more than it, by how long they last."""

    def __init__(self, stack: Stack, far: Far, more: Mapping[Kind, Callable[[float], Course]]) -> None:
        self._stack = stack
        self._far = far
        self._more = more
        self._workers = sum(process.arguments == SERVE for process in stack.processes)

    def targets(self, fault: Fault) -> frozenset[str]:
        """What it falls upon: no two faults are in force on one of them."""
        kind = fault.kind
        if kind is Kind.KILL_ALL_WORKERS:
            return frozenset(f"worker {number}" for number in range(self._workers))
        if kind in (Kind.KILL_WORKER, Kind.STOP_WORKER, Kind.END_WORKER):
            return frozenset({f"worker {fault.which % self._workers}"})
        if kind in (Kind.SILENCE_VALKEY, Kind.SILENCE_POSTGRES, Kind.RESET_VALKEY, Kind.RESET_POSTGRES):
            return frozenset({"between"})
        return frozenset({kind.value.split("_")[1]})

    def course(self, fault: Fault) -> Course:
        which, lasts_s = fault.which % self._workers, fault.lasts_s
        worker, index, beat = partial(self._process, SERVE, which), partial(self._process, INDEX), self._beat
        between = self._far
        if fault.kind in self._more:
            return self._more[fault.kind](lasts_s)
        match fault.kind:
            case Kind.KILL_WORKER:
                return _killed(worker)
            case Kind.KILL_ALL_WORKERS:
                return _together(*(_killed(partial(self._process, SERVE, which)) for which in range(self._workers)))
            case Kind.KILL_INDEX:
                return _killed(index)
            case Kind.KILL_INDEX_CHILD:
                return _at_once(lambda: _kill_child(index(), fault.which))
            case Kind.KILL_BEAT:
                return _killed(beat)
            case Kind.STOP_WORKER:
                return _stopped(worker(), lasts_s)
            case Kind.STOP_INDEX:
                return _stopped(index(), lasts_s)
            case Kind.STOP_BEAT:
                return _stopped(beat(), lasts_s)
            case Kind.END_WORKER:
                return _killed(worker, signal.SIGTERM)
            case Kind.KILL_VALKEY:
                return _killed(self._valkey)
            case Kind.STOP_VALKEY:
                return _stopped(self._valkey(), lasts_s)
            case Kind.FILL_VALKEY:
                return self._valkey_says(lasts_s, f"CONFIG SET maxmemory {FULL}", "CONFIG SET maxmemory 0")
            case Kind.DEMOTE_VALKEY:
                # Of a server that is nowhere: it keeps what it has.
                return self._valkey_says(lasts_s, "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE")
            case Kind.CUT_VALKEY:
                return _at_once(self._cut_valkey)
            case Kind.FLUSH_VALKEY:
                return _at_once(self._flush_valkey)
            case Kind.KILL_POSTGRES:
                return _killed(self._postgres)
            case Kind.KILL_POSTGRES_CHILD:
                return _at_once(lambda: _kill_child(self._postgres(), fault.which))
            case Kind.STOP_POSTGRES:
                return _stopped(self._postgres(), lasts_s)
            case Kind.CLOSE_POSTGRES:
                return self._read_only(lasts_s)
            case Kind.CUT_POSTGRES:
                return _at_once(self._cut_postgres)
            case Kind.SILENCE_VALKEY:
                return _silent(between.valkey, lasts_s)
            case Kind.SILENCE_POSTGRES:
                return _silent(between.postgres, lasts_s)
            case Kind.RESET_VALKEY:
                return _at_once(between.valkey.cut)
            case Kind.RESET_POSTGRES:
                return _at_once(between.postgres.cut)
            case _:
                raise NotImplementedError(fault.kind)

    # ---------------------------------------------------------------------------------------- below

    def _process(self, arguments: tuple[str, ...], which: int = 0) -> psutil.Process | None:
        same = [process for process in self._stack.processes if process.arguments == arguments]
        return _living(same[which])

    def _beat(self) -> psutil.Process | None:
        return self._process(BEAT)

    def _valkey(self) -> psutil.Process | None:
        folder = self._stack.settings.data_dir / "valkey"
        return living_in(folder, folder / "valkey.pid")

    def _postgres(self) -> psutil.Process | None:
        folder = self._stack.settings.data_dir / "postgres"
        return living_in(folder, folder / "postmaster.pid")

    def _cut_valkey(self) -> None:
        with redis.Redis.from_url(self._stack.settings.broker_url) as client, suppress(redis.exceptions.RedisError):
            client.execute_command("CLIENT KILL TYPE normal SKIPME yes")

    def _flush_valkey(self) -> None:
        with redis.Redis.from_url(self._stack.settings.broker_url) as client, suppress(redis.exceptions.RedisError):
            client.flushall()

    def _valkey_says(self, lasts_s: float, begin: str, end: str) -> Course:
        def say(command: str) -> bool:
            with redis.Redis.from_url(self._stack.settings.broker_url, socket_timeout=2) as client:
                try:
                    client.execute_command(command)
                except redis.exceptions.RedisError:
                    return False
            return True

        try:
            say(begin)
            yield from _for(lasts_s)
        finally:
            # One that is away forgets it by itself.
            deadline = time.monotonic() + 20
            while not say(end) and time.monotonic() < deadline:
                time.sleep(0.1)

    def _cut_postgres(self) -> None:
        with suppress(psycopg2.Error), self._asked() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sightline'"
            )

    def _read_only(self, lasts_s: float) -> Course:
        def say(value: str) -> bool:
            try:
                with self._asked() as cursor:
                    cursor.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
                    cursor.execute("SELECT pg_reload_conf()")
            except psycopg2.Error:
                return False
            return True

        try:
            say("on")
            yield from _for(lasts_s)
        finally:
            deadline = time.monotonic() + 30
            while not say("off") and time.monotonic() < deadline:
                time.sleep(0.1)

    @contextmanager
    def _asked(self) -> Iterator[psycopg2.extensions.cursor]:
        url = self._stack.settings.database_url.replace("+psycopg2", "")
        connection = psycopg2.connect(url, connect_timeout=2, options="-c default_transaction_read_only=off")
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()


def _living(process: Process) -> psutil.Process | None:
    with suppress(psutil.Error):
        found = psutil.Process(process.pid)
        if found.status() != psutil.STATUS_ZOMBIE:
            return found
    return None


def _killed(part: Callable[[], psutil.Process | None], number: signal.Signals = signal.SIGKILL) -> Course:
    """Until another process is in its place."""
    before = part()
    if before is not None:
        with suppress(psutil.NoSuchProcess):
            before.send_signal(number)
    while (now := part()) is None or now == before:
        yield


def _together(*courses: Course) -> Course:
    running = list(courses)
    while running:
        running = [course for course in running if not _is_over(course)]
        yield


def _is_over(course: Course) -> bool:
    try:
        next(course)
    except StopIteration:
        return True
    return False


def _at_once(harm: Callable[[], None]) -> Course:
    harm()
    yield


def _stopped(process: psutil.Process | None, lasts_s: float) -> Course:
    """With its children: a stopped machine, not a stopped parent."""
    stopped: list[psutil.Process] = []
    try:
        if process is not None:
            with suppress(psutil.NoSuchProcess):
                for one in (process, *process.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        one.suspend()
                        stopped.append(one)
        yield from _for(lasts_s)
    finally:
        for one in reversed(stopped):
            with suppress(psutil.NoSuchProcess):
                one.resume()


def _silent(way: Between, lasts_s: float) -> Course:
    try:
        way.hang()
        yield from _for(lasts_s)
    finally:
        way.go_on()


def _for(seconds: float) -> Course:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield


def _kill_child(parent: psutil.Process | None, which: int) -> None:
    if parent is not None:
        with suppress(psutil.NoSuchProcess):
            children = parent.children()
            if children:
                children[which % len(children)].kill()
