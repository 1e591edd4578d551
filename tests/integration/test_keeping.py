"""`sightline backup` and `sightline restore` of the Postgres that `sightline up` keeps."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import processes_of, server_dir
from tests.integration.test_index import DIM, KEY, live_on, put, vectors
from tests.integration.test_servers import answers
from worker import upenv
from worker.embedded import EmbeddedServers
from worker.index.folder import GenerationFolder
from worker.index.live import FaissLiveIndex
from worker.settings import Settings
from worker.storage.migrate import migrate
from worker.storage.store import PostgresStore

ROOT = Path(__file__).parents[2]


def run(*arguments: str, data: Path, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SIGHTLINE_")}
    return subprocess.run(
        [sys.executable, "-m", "worker.cli", *arguments],
        env={**inherited, "SIGHTLINE_DATA_DIR": str(data), "COLUMNS": "80", "NO_COLOR": "1", **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


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
def kept() -> Iterator[tuple[Path, set[int]]]:
    """A data folder whose servers are down, with some photos; and their ids."""
    with server_dir() as folder:
        with EmbeddedServers(folder / "data", with_valkey=False) as servers:
            store = open_store(folder / "data", servers)
            there = {put(store, f"kept {n}", row)[0] for n, row in enumerate(vectors(3, seed=1))}
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
        busy = refusal("restore", str(dump), "--replace", data=data)
        assert ids(store) == {*first, *lost}
    (data / "up.env").unlink()

    assert told["bytes"] == dump.stat().st_size
    assert stat.S_IMODE(dump.stat().st_mode) == 0o600
    assert busy[0] == "not_ready"
    assert "run already" in busy[1]
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


@pytest.mark.parametrize("broken", ["half", "other", "absent"])
def test_a_file_that_is_no_whole_backup_changes_nothing(
    kept: tuple[Path, set[int]], tmp_path: Path, broken: str
) -> None:
    folder, there = kept
    dump = tmp_path / "copy.dump"
    if broken == "half":
        done("backup", str(dump), data=folder)
        dump.write_bytes(dump.read_bytes()[:-100])  # what it says of itself is whole
    elif broken == "other":
        dump.write_text("photos")

    code, message = refusal("restore", str(dump), "--replace", data=folder)

    assert code == "not_ready"
    assert "pg_restore: error" in message
    assert not (folder / "postgres.restored").exists()
    with EmbeddedServers(folder, with_valkey=False) as servers:
        store = open_store(folder, servers)
        assert ids(store) == there
        store.close()


def test_a_restore_that_is_cut_off_between_two_names_leaves_the_former(kept: tuple[Path, set[int]], data: Path) -> None:
    shutil.copytree(kept[0], data)
    (data / "postgres").rename(data / "postgres.former")

    with EmbeddedServers(data, with_valkey=False) as servers:
        assert answers(servers)
        store = open_store(data, servers)
        assert ids(store) == kept[1]
        store.close()


def test_nothing_to_back_up_and_nowhere_to_write_are_sentences(kept: tuple[Path, set[int]], tmp_path: Path) -> None:
    assert "has no database to back up" in refusal("backup", str(tmp_path / "x"), data=tmp_path / "none")[1]
    assert "No such file or directory" in refusal("backup", str(tmp_path / "no" / "x"), data=kept[0])[1]


@pytest.mark.parametrize(("command", "program"), [("backup", "pg_dump"), ("restore", "pg_restore")])
def test_who_has_a_database_of_their_own_is_told_its_command(tmp_path: Path, command: str, program: str) -> None:
    url = "postgresql://me:secret@db.example:5433/photos"

    (tmp_path / "x").touch()

    code, message = refusal(command, str(tmp_path / "x"), data=tmp_path, SIGHTLINE_DATABASE_URL=url)

    assert code == "bad_request"
    assert f"{program} " in message
    assert "--dbname=postgresql://me@db.example:5433/photos" in message
    assert "secret" not in message
