"""Another user of the machine: what the embedded servers and the processes of `sightline up` keep is not theirs to see.

Where the tests run as root, a child of the test becomes that other user. Otherwise those tests are skipped.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg2
import pytest
import redis

from demo.__main__ import DRAWN
from producer_client import Sightline
from tests.conftest import Scene, server_dir
from tests.integration.test_servers import answers, socket_folder
from worker.embedded import EmbeddedServers
from worker.embedded.postgres import program
from worker.embedded.private import DEMO_MARKER, close_data_dir
from worker.stack import Stack

#: A number that is no account's here.
STRANGER = 61999
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def as_user(uid: int, act: Callable[[], Any]) -> Any:
    """What `act` gives, as JSON has it, in a child of this process that is that user."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            words = json.dumps(act())
        except BaseException as exc:  # noqa: BLE001  (told to the parent, whatever it is)
            words = json.dumps(f"{type(exc).__name__}: {exc}")
        with os.fdopen(writing, "w") as pipe:
            pipe.write(words)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said)


@pytest.fixture(scope="module")
def house() -> Iterator[Path]:
    """A folder of root's own, 0700, in one that everybody may enter."""
    with server_dir() as folder:
        folder.chmod(0o755)
        (folder / "house").mkdir(mode=0o700)
        yield folder / "house"


@pytest.fixture(scope="module")
def servers(house: Path) -> Iterator[EmbeddedServers]:
    with EmbeddedServers(house / "data") as running:
        yield running


@pytest.fixture
def data(servers: EmbeddedServers, house: Path) -> Iterator[Path]:
    """The data folder, for once below folders that everybody may enter."""
    house.chmod(0o755)
    yield house / "data"
    house.chmod(0o700)


def opened(paths: list[Path]) -> list[str]:
    seen = []
    for path in paths:
        with suppress(OSError):
            os.close(os.open(path, os.O_RDONLY))
            seen.append(str(path))
        with suppress(OSError):
            path.touch()
            seen.append(f"{path}, to write")
    return seen


def said_by_valkey(port: int, *commands: str) -> list[str]:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection, connection.makefile("rw") as lines:
        lines.write("".join(f"{command}\r\n" for command in commands))
        lines.flush()
        return [lines.readline().split()[0] for _ in commands]


def said_by_postgres(folder: Path) -> str:
    try:
        psycopg2.connect(host=str(folder), port=5432, user="postgres", dbname="postgres").close()
    except psycopg2.OperationalError as exc:
        return str(exc)
    return "welcome"


def seen_in_proc(secret: str) -> list[str]:
    seen = []
    for path in (*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")):
        with suppress(OSError):
            if secret.encode() in path.read_bytes():
                seen.append(str(path))
    return seen


@as_root
def test_another_user_opens_no_file_and_reaches_no_server(servers: EmbeddedServers, data: Path) -> None:
    paths = [data, *data.rglob("*")]
    broker = urlsplit(servers.broker_url)
    assert broker.port
    assert broker.password
    password, port = broker.password, broker.port
    assert {data / "postgres" / ".s.PGSQL.5432", data / "valkey" / "password", data / "postgres.log"} <= set(paths)

    assert as_user(STRANGER, lambda: opened(paths)) == []
    assert "Permission denied" in as_user(STRANGER, lambda: said_by_postgres(data / "postgres"))
    said = as_user(STRANGER, lambda: said_by_valkey(port, "PING", "GET x", "AUTH wrong"))
    assert said == ["-NOAUTH", "-NOAUTH", "-WRONGPASS"]
    assert as_user(STRANGER, lambda: seen_in_proc(password)) == []
    # Whoever may is served.
    assert answers(servers)
    assert redis.Redis.from_url(servers.broker_url).ping()


@as_root
def test_another_user_who_gets_at_the_socket_is_refused_by_name(servers: EmbeddedServers, data: Path) -> None:
    shut = [data, data / "postgres", data / "postgres" / ".s.PGSQL.5432"]
    for path in shut:
        path.chmod(0o777)
    try:
        unknown = as_user(STRANGER, lambda: said_by_postgres(data / "postgres"))
        known = as_user(pwd.getpwnam("nobody").pw_uid, lambda: said_by_postgres(data / "postgres"))
    finally:
        for path in shut:
            path.chmod(0o700)

    assert "failed" in unknown
    assert "Peer authentication failed" in known


def test_folders_above_are_as_they_were_and_those_of_ours_are_closed(servers: EmbeddedServers, house: Path) -> None:
    assert stat.S_IMODE(house.stat().st_mode) == 0o700
    assert stat.S_IMODE(house.parent.stat().st_mode) == 0o755
    data = house / "data"
    assert [path for path in (data, *data.rglob("*")) if path.lstat().st_mode & 0o077 and not path.is_symlink()] == []


def test_the_password_stays_and_lies_in_a_file_that_is_closed(tmp_path: Path) -> None:
    urls = []
    for _ in range(2):
        with EmbeddedServers(tmp_path / "data", with_postgres=False) as servers:
            urls.append(urlsplit(servers.broker_url))
    file = tmp_path / "data" / "valkey" / "password"

    assert urls[0].password == urls[1].password == file.read_text().strip()
    assert len(file.read_text()) > 24
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {url.path for url in urls} == {"/5"}


def test_the_password_is_on_no_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for the moment until Valkey gives itself another title."""
    commands: list[list[str]] = []

    class Noting(psutil.Popen):  # type: ignore[misc]  # untyped
        def __init__(self, command: list[str], **options: Any) -> None:
            commands.append(command)
            super().__init__(command, **options)

    monkeypatch.setattr(psutil, "Popen", Noting)
    with EmbeddedServers(tmp_path / "data", with_postgres=False) as servers:
        password = str(urlsplit(servers.broker_url).password)

    assert len(commands) == 1
    assert password not in " ".join(commands[0])


def test_a_data_folder_of_before_is_closed_at_the_next_start(tmp_path: Path) -> None:
    """As earlier releases left it: open to read, `trust` for whoever connects, as root another account's."""
    data = tmp_path / "data"
    with EmbeddedServers(data):
        pass
    hba = data / "postgres" / "pg_hba.conf"
    hba.write_text("local all all trust\n")
    (data / "index").mkdir()
    for folder in (data, data / "valkey", data / "index"):
        folder.chmod(0o755)
    (data / "valkey" / "password").chmod(0o644)
    (data / "up.env").touch(0o644)
    if os.geteuid() == 0:
        for path in (data / "postgres", *(data / "postgres").rglob("*")):
            os.chown(path, STRANGER, STRANGER)

    with EmbeddedServers(data) as servers:
        assert answers(servers)
        closed = (data, data / "valkey", data / "up.env", data / "valkey" / "password", data / "postgres")
        assert [path for path in closed if path.stat().st_mode & 0o077] == []
        assert "trust" not in hba.read_text()


def test_a_folder_in_which_other_things_lie_stays_open(tmp_path: Path) -> None:
    """Else SIGHTLINE_DATA_DIR=. would shut a backend out of its own folder."""
    for name in ("app.py", "models/weights.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    tmp_path.chmod(0o755)
    (tmp_path / "models").chmod(0o755)

    with EmbeddedServers(tmp_path, with_postgres=False):
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path, *tmp_path.iterdir())}

    assert (modes[tmp_path.name], modes["models"], modes["valkey"]) == (0o755, 0o755, 0o700)
    assert modes["servers.lock"] == 0o600


def test_what_the_demo_has_left_is_no_stranger_to_the_data_folder(tmp_path: Path) -> None:
    data, others = tmp_path / "data", tmp_path / "others"
    for folder in (data / DRAWN.name, data / "demo", data / "soak", data / "models", others / "demo"):
        folder.mkdir(parents=True)
    for made in (data / "demo", data / "soak"):
        (made / DEMO_MARKER).touch()
    for folder in (data, others):
        folder.chmod(0o755)

        close_data_dir(folder)

    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE(others.stat().st_mode) == 0o755, "the demo of somebody else"


@as_root
def test_an_ordinary_user_has_servers_of_their_own_beside_roots(servers: EmbeddedServers, house: Path) -> None:
    user = pwd.getpwnam("nobody").pw_uid
    if not as_user(user, lambda: os.access(program("postgres"), os.X_OK)):
        pytest.skip("what is installed here is root's alone")
    home = house.parent / "home"
    home.mkdir()
    os.chown(home, user, user)

    def live() -> Any:
        with EmbeddedServers(home / "data") as own:
            return answers(own), said_by_valkey(urlsplit(own.broker_url).port or 0, "PING"), str(socket_folder(own))

    assert as_user(user, live) == [True, ["-NOAUTH"], str(home / "data" / "postgres")]
    assert {path.lstat().st_uid for path in home.rglob("*")} == {user}
    assert answers(servers)


@as_root
def test_root_of_a_container_has_servers_in_a_folder_of_its_own(house: Path) -> None:
    """It lacks the weaker capability, and has the stronger one."""
    program = """
import sys
from pathlib import Path
from tests.integration.test_servers import answers
from worker.embedded import EmbeddedServers
with EmbeddedServers(Path(sys.argv[1]), with_valkey=False) as servers:
    assert answers(servers)
"""
    command = ["setpriv", "--bounding-set=-dac_read_search", sys.executable, "-c", program, str(house / "container")]

    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(house.stat().st_mode) == 0o700


@as_root
def test_a_folder_of_another_user_is_a_sentence(house: Path) -> None:
    theirs = house.parent / "theirs"
    theirs.mkdir(mode=0o755)

    for folder in (theirs, theirs / "new"):
        said = as_user(STRANGER, EmbeddedServers(folder).__enter__)
        assert said.startswith("RuntimeError: ")
        assert re.search(r"(Permission denied|Operation not permitted).*SIGHTLINE_DATA_DIR", said)


@as_root
def test_a_user_without_an_account_is_a_sentence(house: Path) -> None:
    home = house.parent / "nameless"
    home.mkdir()
    os.chown(home, STRANGER, STRANGER)

    said = as_user(STRANGER, lambda: EmbeddedServers(home / "data").__enter__())

    assert said == f"RuntimeError: this machine has no account for the user number {STRANGER}: Postgres needs one"


def test_what_the_processes_of_up_make_is_theirs_alone(stack: Stack, client: Sightline, scenes: list[Scene]) -> None:
    client.add_to_index(path=str(scenes[0].path))
    client.rebuild_index()
    data = stack.settings.data_dir

    open_to_others = [
        path for path in data.rglob("*") if not path.is_symlink() and path.lstat().st_mode & 0o077 and path.exists()
    ]
    umasks = {
        line.split()[1]
        for process in psutil.Process().children(recursive=True)
        if str(data) in (*process.cmdline(), process.cwd()) or process.pid in {p.pid for p in stack.processes}
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if line.startswith("Umask")
    }

    password = str(urlsplit(stack.settings.broker_url).password)

    assert [log.name for log in (data / "logs").iterdir() if password in log.read_text(errors="replace")] == []
    assert open_to_others == []
    assert (data / "index").is_dir()
    assert (data / "logs").is_dir()
    assert umasks == {"0077"}
