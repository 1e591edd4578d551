"""Our own Postgres, stopped and started again over what a killed server, a backup or a restarted machine leaves."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis
from sqlalchemy import create_engine, make_url, text

from tests.conftest import processes_of, server_dir, until
from worker.embedded import EmbeddedServers, end_left


@pytest.fixture
def servers() -> Iterator[EmbeddedServers]:
    with server_dir() as folder, EmbeddedServers(folder) as running:
        yield running


def socket_folder(servers: EmbeddedServers) -> Path:
    return Path(str(make_url(servers.database_url).query["host"]))


@pytest.fixture
def folder(servers: EmbeddedServers) -> Path:
    """The cluster's; its socket lies in it, too."""
    return socket_folder(servers)


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


def start_and_be_killed(data_dir: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from worker.embedded import EmbeddedServers
EmbeddedServers(Path(sys.argv[1])).__enter__()
os._exit(0)  # as kill -9: nobody stops the servers
"""
    subprocess.run([sys.executable, "-c", program, str(data_dir)], check=True, timeout=60)


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
    def complaint() -> str:
        try:
            servers.check()
        except RuntimeError as exc:
            return str(exc)
        return ""

    assert complaint() == ""
    postmaster(folder).terminate()
    until(lambda: complaint() != "", 30)
    assert re.fullmatch(r"Postgres has ended: .*shut down", complaint())

    servers.start_postgres()
    assert complaint() == ""
    psutil.Process(int((folder.parent / "valkey" / "valkey.pid").read_text())).terminate()
    until(lambda: complaint() != "", 30)
    assert complaint().startswith("Valkey has ended: ")


def test_what_a_killed_sightline_left_is_ended_by_folder_and_what_lives_is_not() -> None:
    with server_dir() as data_dir:
        start_and_be_killed(data_dir)

        assert end_left(data_dir) == ["Valkey", "Postgres"]
        assert processes_of(data_dir) == []

        with EmbeddedServers(data_dir) as alive:
            with pytest.raises(RuntimeError, match="run already"):
                end_left(data_dir)
            assert answers(alive)
        assert end_left(data_dir) == []
        assert end_left(data_dir / "none") == []


def test_a_killed_server_is_started_again_when_those_who_worked_for_it_are_gone(
    servers: EmbeddedServers, folder: Path
) -> None:
    """Its children write until they notice: a second server beside them would spoil the cluster."""
    running, url = postmaster(folder), servers.database_url
    child = running.children()[0]
    child.suspend()
    running.kill()
    until(lambda: has_ended(running), 30)
    resumed = threading.Timer(0.5, child.resume)
    resumed.start()

    servers.start_postgres()

    assert has_ended(child)
    assert (servers.database_url, answers(servers)) == (url, True)
    resumed.join()


def test_what_an_interrupted_setup_left_is_no_cluster(tmp_path: Path) -> None:
    half = tmp_path / "data" / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")

    with EmbeddedServers(tmp_path / "data") as servers:
        assert answers(servers)
    assert not half.exists()


def test_what_the_environment_says_of_postgres_and_of_language_is_not_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "1", "PGDATA": "/none", "LC_ALL": "xx_YY.UTF-8", "LANG": "xx"}.items():
        monkeypatch.setenv(name, value)

    monkeypatch.setenv("SIGHTLINE_DATABASE_URL", "postgresql://me:s3cret@h/db")

    with EmbeddedServers(tmp_path, with_valkey=False) as servers:
        assert answers(servers)
        environ = Path(f"/proc/{postmaster(socket_folder(servers)).pid}/environ").read_bytes()
    assert b"s3cret" not in environ
    assert b"xx_YY" not in environ


ODD = """it's 100% "ö" #1 @home $HOME `x` +y; z\\w"""


@pytest.mark.parametrize("name", [ODD, "a, b", "Ж" * 60], ids=["odd", "comma", "long"])
def test_the_servers_start_in_a_folder_of_any_name(name: str) -> None:
    with server_dir() as folder:
        data = folder / name
        with EmbeddedServers(data) as servers:
            assert answers(servers)
            assert redis.Redis.from_url(servers.broker_url).ping()
            url = servers.database_url
            servers.stop_postgres()
            servers.start_postgres()
            assert (servers.database_url, answers(servers)) == (url, True)
            sockets = socket_folder(servers)
            assert (sockets == data / "postgres") == (name == ODD)
            assert sockets.stat().st_mode & 0o777 == 0o700

        assert sockets == data / "postgres" or not sockets.exists()
        assert processes_of(data) == []


def test_the_folder_of_a_socket_elsewhere_goes_with_who_was_killed(tmp_path: Path) -> None:
    data = tmp_path / ("x" * 100)
    start_and_be_killed(data)
    sockets = Path((data / "postgres" / "postmaster.pid").read_text().splitlines()[4])
    assert sockets.is_dir()
    assert sockets.parent == Path(tempfile.gettempdir())

    assert end_left(data) == ["Valkey", "Postgres"]

    assert not sockets.exists()


@pytest.mark.parametrize("below", ["", "data"])
def test_a_data_folder_that_is_a_file_is_a_sentence(tmp_path: Path, below: str) -> None:
    path = tmp_path / "file"
    path.touch()

    with pytest.raises(RuntimeError, match=r"file is no folder.*SIGHTLINE_DATA_DIR"):
        EmbeddedServers(path / below).__enter__()


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        with pytest.raises(RuntimeError, match="No space left on device"):
            EmbeddedServers(tmp_path / "data").__enter__()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
