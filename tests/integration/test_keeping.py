"""`sightline backup` and `sightline restore` of the Postgres that `sightline up` keeps."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from tests import commands
from tests.conftest import processes_of, server_dir, until
from tests.integration.test_index import DIM, KEY, live_on, put, vectors
from tests.integration.test_servers import answers
from worker import upenv
from worker.embedded import EmbeddedServers, dumps
from worker.embedded.postgres import Postgres, program
from worker.index.folder import GenerationFolder
from worker.index.live import FaissLiveIndex
from worker.settings import Settings
from worker.storage.migrate import migrate
from worker.storage.store import PostgresStore

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
AS_OF_LATER = (
    "CREATE SCHEMA sightline CREATE TABLE alembic_version (version_num varchar(32)); "
    "INSERT INTO sightline.alembic_version VALUES ('9999')"
)


def environment(data: Path, **env: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SIGHTLINE_")}
    return {**inherited, "SIGHTLINE_DATA_DIR": str(data), "COLUMNS": "80", "NO_COLOR": "1", **env}


def run(*arguments: str, data: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return commands.sightline(*arguments, env=environment(data, **env))


def done(*arguments: str, data: Path, **env: str) -> Any:
    process = run(*arguments, "--json", data=data, **env)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def refusal(*arguments: str, data: Path, **env: str) -> tuple[str, str]:
    process = run(*arguments, "--json", data=data, **env)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    error = json.loads(process.stdout)["error"]
    return error["code"], error["message"]


def left_beside(data: Path) -> list[str]:
    """What a restore makes beside the cluster."""
    return [path.name for path in data.glob("postgres.*") if path.is_dir()]


def open_store(data: Path, servers: EmbeddedServers) -> PostgresStore:
    settings = Settings(data_dir=data, database_url=servers.database_url)
    store = PostgresStore(settings)
    migrate(store.database.engine, schema=settings.db_schema, photos_table=settings.photos_table)
    return store


def ids(store: PostgresStore) -> set[int]:
    with store.log.snapshot(KEY, DIM) as snapshot:
        return {int(photo_id) for chunk in snapshot.chunks() for photo_id in chunk.ids}


@pytest.fixture
def data() -> Iterator[Path]:
    with server_dir() as folder:
        yield folder / "data"


@pytest.fixture(scope="module")
def whole(kept: tuple[Path, set[int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of it."""
    dump = tmp_path_factory.mktemp("whole") / "it's whole.dump"
    done("backup", str(dump), data=kept[0])
    return dump


@pytest.fixture(scope="module")
def kept() -> Iterator[tuple[Path, set[int]]]:
    """A data folder whose servers are down, with some photos; and their ids."""
    with server_dir() as folder:
        with EmbeddedServers(folder / "data", with_valkey=False) as servers:
            store = open_store(folder / "data", servers)
            there = {put(store, f"kept {n}", row)[0] for n, row in enumerate(vectors(3, seed=1))}
            store.analyze()
            with store.database.begin() as connection:
                connection.execute(text("CREATE ROLE service"))
                connection.execute(text("GRANT SELECT ON sightline.entries TO service"))
            store.close()
        yield folder / "data", there


def test_a_backup_of_what_runs_is_restored_and_who_has_seen_more_goes_on(data: Path, tmp_path: Path) -> None:
    dump = tmp_path / "it's a copy.dump"
    rows = vectors(5, seed=2)
    with EmbeddedServers(data) as servers:
        store = open_store(data, servers)
        upenv.write(data / "up.env", store.settings.as_env())
        first = [put(store, f"first {n}", row)[0] for n, row in enumerate(rows[:2])]

        told = done("backup", str(dump), data=data)

        lost = [put(store, f"lost {n}", row)[0] for n, row in enumerate(rows[2:4])]
        live: FaissLiveIndex = live_on(store, GenerationFolder(tmp_path / "index"))
        live.catch_up()
        assert live.search(rows[3], 1).ids[0] == lost[1]
        busy = refusal("restore", str(dump), "--replace", data=data, SIGHTLINE_LANG="ru")
        in_russian = run("restore", str(dump), "--replace", data=data, SIGHTLINE_LANG="ru").stderr
        assert ids(store) == {*first, *lost}
    (data / "up.env").unlink()

    assert told["bytes"] == dump.stat().st_size
    assert stat.S_IMODE(dump.stat().st_mode) == 0o600
    assert busy[0] == "not_ready"
    assert "end it first, by `sightline down`" in busy[1]
    assert "сначала завершите его" in " ".join(in_russian.split())
    assert refusal("restore", str(dump), data=data)[0] == "bad_request"
    restored = done("restore", str(dump), "--replace", data=data)
    assert restored["replaced"]

    with EmbeddedServers(data):
        assert ids(store) == set(first)
        again = put(store, "again", rows[4])[0]
        live.catch_up()
        found = {int(live.search(row, 1).ids[0]) for row in rows}
        store.close()
    assert found == {*first, again}
    assert sorted(path.name for path in data.glob("postgres*")) == ["postgres", "postgres.log"]
    assert processes_of(data) == []


def test_a_backup_of_what_is_down_is_restored_elsewhere(
    kept: tuple[Path, set[int]], data: Path, tmp_path: Path
) -> None:
    dump = tmp_path / "copy.dump"
    dump.write_text("one of before")

    # What the environment says of another Postgres is not for ours.
    done("backup", str(dump), data=kept[0], PGOPTIONS="-c no_such=1", PGPORT="1")
    shown = run("restore", str(dump), data=data)

    assert shown.returncode == 0
    assert "at revision" in shown.stdout
    with EmbeddedServers(data, with_valkey=False) as servers:
        store = open_store(data, servers)
        assert ids(store) == kept[1]
        store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["copy.dump"]


def test_what_a_killed_up_has_left_is_not_ended_by_a_backup_or_a_restore(
    whole: Path, data: Path, tmp_path: Path
) -> None:
    with EmbeddedServers(data, with_valkey=False):
        pass
    left = Postgres(data.resolve() / "postgres")
    left.start()
    try:
        told = [refusal("backup", str(tmp_path / "a.dump"), data=data)]
        told.append(refusal("restore", str(whole), "--replace", data=data))
        with create_engine(left.url).connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
    finally:
        left.close()

    assert {code for code, _ in told} == {"not_ready"}
    assert all("was killed" in words and "`sightline down`" in words for _, words in told)
    assert not (tmp_path / "a.dump").exists()


@pytest.mark.parametrize("carried", [True, False], ids=["with statistics", "of an earlier release"])
def test_what_queries_are_planned_by_comes_with_a_backup_or_is_learnt_anew(
    carried: bool, kept: tuple[Path, set[int]], whole: Path, data: Path, tmp_path: Path
) -> None:
    dump = whole
    if not carried:
        dump = tmp_path / "without.dump"
        with EmbeddedServers(kept[0], with_valkey=False) as servers:
            url = servers.database_url.replace("+psycopg2", "")
            dumps._run("pg_dump", "--format=custom", f"--file={dump}", f"--dbname={url}", tell=lambda: None)

    told = done("restore", str(dump), data=data)

    with EmbeddedServers(data, with_valkey=False) as servers:
        engine = create_engine(servers.database_url)
        with engine.connect() as connection:
            known = connection.scalar(text("SELECT count(*) FROM pg_stats WHERE tablename = 'entries'"))
            learnt = connection.scalar(text("SELECT last_analyze FROM pg_stat_user_tables WHERE relname = 'entries'"))
        engine.dispose()
    assert known > 0
    assert (learnt is None) is carried
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", told["as_of"])


@pytest.mark.parametrize("broken", ["half", "text", "empty", "of another database", "of a later release"])
def test_a_file_that_is_no_whole_backup_changes_nothing(
    kept: tuple[Path, set[int]], whole: Path, tmp_path: Path, broken: str
) -> None:
    folder, there = kept
    dump = tmp_path / "a copy of [it].dump"
    match broken:
        case "half":
            dump.write_bytes(whole.read_bytes()[:-100])  # what it says of itself is whole
        case "text":
            dump.write_text("photos")
        case "empty":
            dump.touch()
        case _:
            schema = "CREATE TABLE theirs (id int)" if "another" in broken else AS_OF_LATER
            with server_dir() as elsewhere, EmbeddedServers(elsewhere, with_valkey=False) as servers:
                engine = create_engine(servers.database_url)
                with engine.begin() as connection:
                    connection.execute(text(schema))
                engine.dispose()
                dumps.dump(servers.database_url, dump, lambda: None)
    says = {
        "half": "не удалось восстановить целиком",
        "text": "не читается как резервная копия",
        "empty": "не читается как резервная копия",
        "of another database": "копия другой базы данных",
        "of a later release": "ревизию базы данных, 9999,",
    }

    shown = run("restore", str(dump), "--replace", data=folder, SIGHTLINE_LANG="ru")

    assert (shown.returncode, shown.stdout) == (1, "")
    ours, words = re.split(r"\s\[not_ready\]\n", shown.stderr)
    assert says[broken] in " ".join(ours.split())
    assert "сервис не готов" not in ours
    assert words.startswith("  pg_restore сообщает: error: ") == (not broken.startswith("of"))
    assert left_beside(folder) == []
    with EmbeddedServers(folder, with_valkey=False) as servers:
        store = open_store(folder, servers)
        assert ids(store) == there
        store.close()


def test_a_backup_that_fails_leaves_the_one_of_before(tmp_path: Path) -> None:
    dump = tmp_path / "copy.dump"
    dump.write_text("the one of before")

    with pytest.raises(RuntimeError, match=r"was not written.*\n  pg_dump says: error: connection to server"):
        dumps.dump(f"postgresql+psycopg2://postgres@/postgres?host={tmp_path}", dump, lambda: None)

    assert dump.read_text() == "the one of before"
    assert list(tmp_path.iterdir()) == [dump]


def test_a_restore_that_is_cut_off_between_two_names_leaves_the_former(
    kept: tuple[Path, set[int]], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(kept[0], data)
    (data / "postgres").rename(data / "postgres.former")
    dump = tmp_path / "copy.dump"

    # Not to be lost to who believes that there is none.
    done("backup", str(dump), data=data)
    (data / "postgres").rename(data / "postgres.former")
    assert refusal("restore", str(dump), data=data)[0] == "bad_request"

    with EmbeddedServers(data, with_valkey=False) as servers:
        assert answers(servers)
        store = open_store(data, servers)
        assert ids(store) == kept[1]
        store.close()


@pytest.mark.parametrize(
    ("number", "then"),
    [(signal.SIGINT, "up"), (signal.SIGTERM, "up"), (signal.SIGKILL, "restore"), (signal.SIGKILL, "down")],
)
def test_a_restore_that_is_broken_off_leaves_the_former_and_nothing_of_its_own(
    kept: tuple[Path, set[int]], whole: Path, data: Path, number: signal.Signals, then: str
) -> None:
    shutil.copytree(kept[0], data)
    command = [sys.executable, "-m", "worker.cli", "restore", str(whole), "--replace"]
    with subprocess.Popen(command, env=environment(data), cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: (data / "postgres.restored" / "postmaster.pid").exists(), PATIENCE_S)
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE_S)

    assert "Traceback" not in said
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert "stopped" in said
        assert left_beside(data) == processes_of(data) == []
    match then:
        case "restore":
            done("restore", str(whole), "--replace", data=data)
        case "down":
            run("down", data=data)
            assert left_beside(data) == processes_of(data) == []
    with EmbeddedServers(data, with_valkey=False) as servers:
        store = open_store(data, servers)
        assert ids(store) == kept[1]
        store.close()
    assert left_beside(data) == processes_of(data) == []


def test_nothing_to_back_up_and_nowhere_to_write_are_sentences(kept: tuple[Path, set[int]], tmp_path: Path) -> None:
    assert "has no database to back up" in refusal("backup", str(tmp_path / "x"), data=tmp_path / "none")[1]


@pytest.mark.parametrize(
    ("command", "file", "why"),
    [
        ("backup", "no/x", "no does not exist; make it first"),
        ("backup", ".", "is a folder or a device"),
        ("backup", "/dev/null", "is a folder or a device"),
        ("restore", ".", "is a folder or a device"),
        ("restore", "/dev/null", "is a folder or a device"),
        ("restore", "no/x", "no/x"),
    ],
)
def test_a_name_that_can_be_no_backup_is_told_before_anything_is_done(
    tmp_path: Path, command: str, file: str, why: str
) -> None:
    process = run(command, str(tmp_path / file), data=tmp_path)

    assert process.returncode == 2
    assert why in " ".join(process.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_a_backup_by_the_name_of_a_link_replaces_what_it_leads_to(kept: tuple[Path, set[int]], tmp_path: Path) -> None:
    (tmp_path / "other disk").mkdir()
    dump = tmp_path / "other disk" / "copy"
    (tmp_path / "latest").symlink_to(dump)

    done("backup", str(tmp_path / "latest"), data=kept[0])

    assert (tmp_path / "latest").is_symlink()
    assert dump.stat().st_size > 1000
    assert [path.name for path in dump.parent.iterdir()] == ["copy"]


@pytest.mark.parametrize("command", ["backup", "restore"])
@pytest.mark.parametrize("language", ["en", "ru"])
def test_who_has_a_database_of_their_own_is_told_its_command_to_paste(
    tmp_path: Path, command: str, language: str
) -> None:
    url = "postgresql://me:secret@db.example:5433/our%20photos?sslmode=require&password=secret"

    (tmp_path / "it's a copy").touch()
    shown = run(
        command, str(tmp_path / "it's a copy"), data=tmp_path, SIGHTLINE_DATABASE_URL=url, SIGHTLINE_LANG=language
    ).stderr

    (line,) = (line for line in shown.splitlines() if line.startswith("  "))
    words = shlex.split(line)
    assert words[0] == {"backup": "pg_dump", "restore": "pg_restore"}[command]
    assert "--dbname=postgresql://me@db.example:5433/our%20photos?sslmode=require" in words
    assert any(word.endswith(f"{tmp_path}/it's a copy") for word in words)
    assert "secret" not in shown


def test_the_command_that_is_shown_works(tmp_path: Path) -> None:
    with server_dir() as folder, EmbeddedServers(folder / "our own's + data", with_valkey=False) as servers:
        store = open_store(folder, servers)
        there = put(store, "kept", vectors(1, seed=5)[0])[0]
        dump = str(tmp_path / "it's a copy")
        for command in ("backup", "restore"):
            shown = run(command, dump, data=tmp_path, SIGHTLINE_DATABASE_URL=servers.database_url).stderr
            (line,) = (line for line in shown.splitlines() if line.startswith("  "))
            path = f"{program('pg_dump').parent}:{os.environ['PATH']}"
            done = subprocess.run(["sh", "-c", line], env={"PATH": path}, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        assert ids(store) == {there}
        store.close()
