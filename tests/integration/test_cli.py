"""The `sightline` command as people and programs meet it: a terminal, exit codes, `--json`."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
import redis
from PIL import Image
from sqlalchemy import create_engine, text

from producer_client import Provenance, Sightline
from producer_client.bulk import BULK_SIZE
from tests import commands
from tests.conftest import ENCODER, Scene, processes_of, server_dir, until, without_torch
from worker import upenv
from worker.embedded import EmbeddedServers
from worker.manifest import read_manifest
from worker.settings import Settings
from worker.stack import Stack

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90.0


def sightline(*arguments: str, settings: Settings, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **settings.as_env(), "COLUMNS": "300", "NO_COLOR": "1"}
    return commands.sightline(*arguments, env=env, stdin=stdin)


def as_json(*arguments: str, settings: Settings) -> Any:
    done = sightline(*arguments, "--json", settings=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout, parse_constant=no_json)


def no_json(constant: str) -> None:
    pytest.fail(f"{constant} is no JSON")


def as_json_whatever(*arguments: str, settings: Settings) -> Any:
    """Also where the exit code says that something else is wrong: other tests' photos are refused, say."""
    return json.loads(sightline(*arguments, "--json", settings=settings).stdout, parse_constant=no_json)


def test_people_who_read_russian_are_spoken_to_in_russian(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")

    help_page = sightline("backfill", "--help", settings=stack.settings)
    stats = sightline("stats", settings=stack.settings)
    refused = sightline("search", "/etc/passwd", settings=stack.settings)
    as_data = as_json("stats", settings=stack.settings)

    assert "прерванный проход продолжается" in help_page.stdout
    assert "последнее перестроение" in stats.stdout
    assert "вне разрешённых папок" in refused.stderr
    assert "last_rebuild" in as_data


def test_add_rebuild_search_locate_and_stats_from_the_command_line(
    stack: Stack, scenes: list[Scene], tmp_path: Path
) -> None:
    manifest = scenes[0].path.parents[1] / "manifest.csv"
    query = next(scene for scene in scenes if scene.path.name == "03.jpg")

    added = as_json("add", str(manifest), settings=stack.settings)
    rebuilt = as_json("rebuild", settings=stack.settings)
    found = as_json("search", str(query.path), "--threshold", "0", settings=stack.settings)
    located = as_json("locate", str(query.path), settings=stack.settings)
    stats = as_json("stats", settings=stack.settings)

    assert {outcome["status"] for outcome in added["outcomes"]} == {"stored"}
    assert rebuilt["indexed"] >= len(scenes)
    assert Path(found["hits"][0]["path"]).parent.name == query.place
    assert located["answer"]["status"] == "located"
    assert stats["generation"] == rebuilt["generation"]


def test_people_get_tables(stack: Stack, scenes: list[Scene]) -> None:
    added = sightline("add", str(scenes[0].path), settings=stack.settings)
    rebuilt = sightline("rebuild", settings=stack.settings)
    found = sightline("search", str(scenes[1].path), "--threshold", "0", settings=stack.settings)
    located = sightline("locate", str(scenes[1].path), settings=stack.settings)
    stats = sightline("stats", settings=stack.settings)

    assert "1 stored, 0 refused" in added.stdout
    assert "photos with coordinates:" in rebuilt.stdout
    assert "valid files:" in rebuilt.stdout
    assert "similarity" in found.stdout
    assert "located" in located.stdout.split() or "abstained" in located.stdout.split()
    assert "last rebuild" in stats.stdout
    assert {done.returncode for done in (added, rebuilt, found, located, stats)} == {0}


def test_what_programs_put_into_a_folder_is_left_out_and_counted(
    stack: Stack, scenes: list[Scene], photo_root: Path
) -> None:
    folder = photo_root / "synced"
    for name in ("01.jpg", "@eaDir/01.jpg/SYNOPHOTO_THUMB_XL.jpg", "._01.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(scenes[0].path, folder / name)
    for name in ("01.CR2", "02.cr2", "03.mov"):
        (folder / name).touch()

    added = as_json("add", str(folder), settings=stack.settings)
    told = sightline("add", str(folder), settings=stack.settings)
    nothing = sightline("add", str(folder / "@eaDir" / ".."), "--json", settings=stack.settings)
    everything = as_json("add", str(folder), "--all", settings=stack.settings)
    named = as_json("add", str(folder / "._01.jpg"), settings=stack.settings)
    (folder / "01.jpg").unlink()
    empty = sightline("add", str(folder), settings=stack.settings)

    assert (len(added["outcomes"]), added["left_out"]) == (1, 2)
    assert "left out, hidden or put there by programs: 2 (._01.jpg, @eaDir)" in told.stdout
    assert added["not_read"] == {".cr2": 2, ".mov": 1}
    assert "files of formats that are not read: 3 (2 .cr2, 1 .mov)" in " ".join(told.stdout.split())
    assert "formats that are not read: 3 (2 .cr2, 1 .mov)" in " ".join(empty.stderr.split())
    assert json.loads(nothing.stdout)["left_out"] == 2
    assert (len(everything["outcomes"]), everything["left_out"]) == (3, 0)
    assert (len(named["outcomes"]), named["left_out"]) == (1, 0)
    assert empty.returncode != 0
    assert "--all takes them" in empty.stderr


def test_what_was_indexed_before_pictures_were_compared_is_looked_at_again(
    stack: Stack, client: Sightline, scenes: list[Scene]
) -> None:
    stored = client.add_to_index(path=str(scenes[0].path))
    engine = create_engine(stack.settings.database_url)
    with engine.begin() as connection:
        gone = text("DELETE FROM sightline.pictures WHERE content_sha256 = :content")
        connection.execute(gone, {"content": stored.content_sha256})

    told = as_json_whatever("doctor", settings=stack.settings)["pictures"]
    done = as_json_whatever("embed", "--missing", settings=stack.settings)
    after = as_json_whatever("doctor", settings=stack.settings)["pictures"]

    assert not told["ok"]
    assert "`sightline embed --missing`" in told["message"]
    assert after["ok"]
    with engine.connect() as connection:
        there = text("SELECT length(hash) FROM sightline.pictures WHERE content_sha256 = :content")
        assert connection.scalar(there, {"content": stored.content_sha256}) == 32
    assert done["without_hash_before"] >= 1


def test_embedding_what_is_missing_tells_of_files_that_have_changed_or_gone(
    stack: Stack, client: Sightline, scenes: list[Scene], photo_root: Path
) -> None:
    before = as_json_whatever("embed", "--missing", settings=stack.settings)["files"]
    replaced, gone = photo_root / "to change" / "1.jpg", photo_root / "to change" / "2.jpg"
    replaced.parent.mkdir()
    for path, scene in zip((replaced, gone), scenes, strict=False):
        shutil.copyfile(scene.path, path)
        client.add_to_index(path=str(path))
    shutil.copyfile(scenes[2].path, replaced)
    gone.unlink()

    told = sightline("embed", "--missing", settings=stack.settings).stdout
    after = as_json_whatever("embed", "--missing", settings=stack.settings)["files"]

    assert f"files that have changed since they were embedded: {before['changed'] + 1}" in told
    assert f"files that are gone: {before['gone'] + 1}" in told
    assert (after["changed"], after["gone"]) == (before["changed"], before["gone"] + 1)
    assert after["files"] == before["files"] + 2


def test_vectors_of_files_from_the_command_line(stack: Stack, scenes: list[Scene], tmp_path: Path) -> None:
    done = sightline("embed", str(scenes[0].path), str(tmp_path / "no such.jpg"), "--json", settings=stack.settings)
    nothing = sightline("embed", settings=stack.settings)

    said = json.loads(done.stdout)
    (embedded,) = said["embedded"]
    assert embedded["ref"] == str(scenes[0].path)
    assert np.linalg.norm(embedded["vector"]) == pytest.approx(1, abs=1e-4)
    assert [refusal["code"] for refusal in said["refused"]] == ["outside_roots"]
    assert done.returncode == 1
    assert "give photo files, or --missing" in nothing.stderr


def test_embedding_what_is_missing_goes_on_where_it_was_broken_off(
    stack: Stack, client: Sightline, photo_root: Path
) -> None:
    folder = photo_root / "many"
    folder.mkdir()
    random = np.random.default_rng(5)
    paths = [folder / f"{number}.png" for number in range(3 * BULK_SIZE)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    engine = create_engine(stack.settings.database_url)
    with engine.begin() as connection:
        statement = text("INSERT INTO photos (file_path, lat, lon, location_method) VALUES (:p, 1, 2, 'manual')")
        connection.execute(statement, [{"p": str(path)} for path in paths])
    before = client.stats()
    env = {**os.environ, **stack.settings.as_env(), "COLUMNS": "300", "NO_COLOR": "1"}
    broken_off = subprocess.Popen([sys.executable, "-m", "worker.cli", "embed", "--missing"], env=env, cwd=ROOT)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while client.stats().indexed == before.indexed and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        broken_off.kill()
        broken_off.wait()

    done = as_json_whatever("embed", "--missing", settings=stack.settings)
    again = as_json_whatever("embed", "--missing", settings=stack.settings)

    seq = client.stats().seq
    assert client.search(vector=client.embed(path=str(paths[0]), return_vector=True).vector, min_seq=seq).hits
    after = client.stats()
    # Photos of other tests whose files are gone may be refused, by name.
    assert after.indexed - before.indexed >= len(paths)
    assert after.cache_misses - before.cache_misses == len(paths), "none of them went through the model twice"
    assert done["embedded"] < len(paths)
    assert again["embedded"] == 0


def test_a_refused_photo_is_a_table_row_and_an_exit_code(stack: Stack, photo_root: Path) -> None:
    empty = photo_root / "nothing.jpg"
    empty.touch()

    done = sightline("add", str(empty), settings=stack.settings)

    assert done.returncode == 1
    assert "empty_file" in done.stdout
    assert "Traceback" not in done.stderr


def test_photos_that_nobody_answers_for_are_on_their_way_and_not_refused(stack: Stack, scenes: list[Scene]) -> None:
    # A database that no worker listens at.
    server = stack.settings.broker_url.rpartition("/")[0]
    nobody = stack.settings.model_copy(update={"broker_url": f"{server}/9"})

    try:
        said = sightline("add", str(scenes[0].path), "--timeout", "0.2", settings=nobody)
        told = sightline("add", str(scenes[0].path), "--timeout", "0.2", "--json", settings=nobody)
    finally:
        with redis.Redis.from_url(nobody.broker_url) as keys:
            keys.flushdb()

    assert (said.returncode, told.returncode) == (1, 1)
    assert "0 stored, 0 refused" in said.stdout
    assert "1 on their way" in said.stdout
    assert "sightline doctor" in said.stdout
    assert [outcome["status"] for outcome in json.loads(told.stdout)["outcomes"]] == ["pending"]


def test_doctor_finds_a_healthy_stack_healthy(stack: Stack, client: Any) -> None:
    client.rebuild_index(timeout_s=60)

    checks = as_json("doctor", settings=stack.settings)

    assert {name: check["ok"] for name, check in checks.items()} == dict.fromkeys(checks, True)
    assert set(checks) == {
        *(
            "broker",
            "keys",
            "queues",
            "database",
            "photos table",
            "model",
            "index",
            "pictures",
            "answers",
            "exam",
            "photo folders",
            "decoders",
            "photos",
            "workers",
        )
    }
    assert checks["model"]["message"].endswith("on cpu by onnxruntime-float32")
    assert [row["backend"] for row in checks["model"]["backends"]] == ["onnxruntime-float32"]
    assert "confined by rlimits" in checks["decoders"]["message"]
    assert client.stats().sandbox in checks["decoders"]["message"]


def test_doctor_says_what_to_do_where_nothing_runs(tmp_path: Path) -> None:
    settings = Settings(
        broker_url="redis://127.0.0.1:1/0",
        database_url="postgresql+psycopg2://postgres@127.0.0.1:1/postgres",
        data_dir=tmp_path,
        encoder="open_clip/ViT-B-32/no-such-tag",
        photo_roots=(tmp_path / "nowhere",),
    )

    done = sightline("doctor", "--json", settings=settings)

    assert done.returncode == 4
    checks = json.loads(done.stdout)
    # A decoder needs nobody else.
    assert [name for name, check in checks.items() if check["ok"]] == ["decoders"]
    assert "SIGHTLINE_BROKER_URL" in checks["broker"]["message"]
    assert "no-such-tag" in checks["model"]["message"]
    assert "SIGHTLINE_PHOTO_ROOTS" in checks["photo folders"]["message"]
    said = [check["message"] for check in checks.values()]
    assert [message for message in said if "failed: Connection refused" in message] == [checks["database"]["message"]]
    assert checks["queues"]["message"] == "not checked: see above, broker"
    assert checks["index"]["message"] == "not checked: see above, database"
    assert checks["workers"]["message"] == "not checked: see above, broker, database"
    assert not any(".." in message or "**" in message for message in said)


def test_a_worker_without_its_weights_stops_and_says_how_to_get_them(stack: Stack) -> None:
    lacking = stack.settings.model_copy(update={"encoder": "open_clip/ViT-B-32//no/such/checkpoint.pt"})

    done = sightline("worker", settings=lacking)

    assert done.returncode == 3
    assert "checkpoint" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ("name,lat,lon\na.jpg,1,2\n", "line 1: file missing; the columns there are name, lat, lon,"),
        ("file,place\na.jpg,x\n", "line 1: lat, lon missing"),
        ("", "is empty; a manifest begins with a line of its columns: file, lat, lon"),
        ("file;lat\na.jpg;1\n", "line 1: lon missing"),
        (None, "No such file"),
    ],
)
def test_a_manifest_that_is_wrong_is_a_sentence_with_its_line(
    stack: Stack, tmp_path: Path, manifest: str | None, said: str
) -> None:
    path = tmp_path / "m.csv"
    if manifest is not None:
        path.write_text(manifest)

    done = sightline("add", str(path), settings=stack.settings)

    # What is not there was named wrongly on the command line.
    assert done.returncode == (2 if manifest is None else 1)
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_manifest_in_another_encoding_is_read_and_said_aloud(stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes("file;place;lat;lon\nнет.jpg;Москва;;\n".encode("cp1251"))

    done = sightline("add", str(path), settings=stack.settings)

    assert done.returncode == 1
    assert "нет.jpg" in done.stdout
    assert "read as cp1251" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stderr


def test_a_manifest_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes("\ufefffile,place,lat,lon,coordinate_source\r\na.jpg,x,1.5,2,derived\r\nb.jpg,,,,\r\n".encode())

    first, second = read_manifest(path)

    assert (first.lat, first.provenance, first.metadata) == (1.5, Provenance.DERIVED, {"place": "x"})
    assert (second.lat, second.provenance, second.metadata) == (None, None, None)


def test_what_looks_like_markup_is_printed_as_it_is(stack: Stack, photo_root: Path) -> None:
    odd = photo_root / "a[final][" / "x].jpg"
    odd.parent.mkdir()
    odd.write_bytes(b"nothing")

    done = sightline("add", str(odd), settings=stack.settings)

    assert done.returncode == 1
    assert "a[final][/x].jpg" in done.stdout


def test_a_second_sightline_in_one_folder_is_refused() -> None:
    with server_dir() as folder, EmbeddedServers(folder), pytest.raises(RuntimeError, match="run already"):
        EmbeddedServers(folder).__enter__()


def test_a_server_that_outlived_a_killed_sightline_is_ended_before_the_next_one_starts() -> None:
    """Two servers on one append-only file would each drop what the other wrote."""
    program = """
import os, sys
from pathlib import Path
from worker.embedded import EmbeddedServers
EmbeddedServers(Path(sys.argv[1])).__enter__()
os._exit(0)  # as kill -9: nobody stops the servers
"""
    with server_dir() as folder:
        subprocess.run([sys.executable, "-c", program, str(folder)], cwd=ROOT, check=True, timeout=60)
        left = psutil.Process(int((folder / "valkey" / "valkey.pid").read_text()))
        assert left.is_running()

        with EmbeddedServers(folder):
            assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE
        assert processes_of(folder) == []


def test_wrong_settings_are_a_sentence(tmp_path: Path) -> None:
    env = {
        **os.environ,
        "SIGHTLINE_CONCURRENCY": "many",
        "SIGHTLINE_REBUILD_AT": "25:00",
        "SIGHTLINE_BROKER_URL": "redis://host:port/0",
        "SIGHTLINE_DB_SCHEMA": "a-b",
        "SIGHTLINE_LOCATION_METHODS": "exif",
        "NO_COLOR": "1",
    }

    done = commands.sightline("stats", env=env)

    assert done.returncode == 2
    assert "SIGHTLINE_CONCURRENCY" in done.stderr
    for name in ("REBUILD_AT", "BROKER_URL", "DB_SCHEMA", "LOCATION_METHODS"):
        assert f"SIGHTLINE_{name}" in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr


def test_generations_rollback_and_purge_from_the_command_line(stack: Stack, scenes: list[Scene]) -> None:
    def states() -> dict[int, str]:
        kept = as_json("generations", settings=stack.settings)["generations"]
        return {generation["number"]: generation["state"] for generation in kept}

    added = as_json("add", str(scenes[0].path), "--lat", "1", "--lon", "2", settings=stack.settings)
    [outcome] = added["outcomes"]
    older, newer = (as_json("rebuild", settings=stack.settings)["generation"] for _ in range(2))
    assert (states()[older], states()[newer]) == ("kept", "serving")

    back = as_json("rollback", str(older), settings=stack.settings)
    assert back == {"serving": older, "withdrawn": [newer]}
    assert (states()[older], states()[newer]) == ("serving", "withdrawn")
    assert as_json("rollback", str(newer), settings=stack.settings) == {"serving": newer, "withdrawn": []}
    in_words = [" ".join(sightline("rollback", str(n), settings=stack.settings).stdout.split()) for n in (older, newer)]
    assert f"Withdrawn, and deleted by the next rebuild: {newer}" in in_words[0]
    assert f"generation {newer} serves. Workers hear of it within" in in_words[1]
    assert "Withdrawn" not in in_words[1]

    [purged] = as_json("purge", str(outcome["photo_id"]), settings=stack.settings)["outcomes"]
    assert (purged["status"], purged["was_indexed"]) == ("purged", True)
    assert newer in purged["generations"]

    assert "serving" in sightline("generations", settings=stack.settings).stdout


@pytest.mark.parametrize("number", ["999999", "0", "99999999999999999999", "the last one"])
def test_a_rollback_to_what_is_not_kept_is_a_sentence(stack: Stack, number: str) -> None:
    done = sightline("rollback", number, "--json", settings=stack.settings)

    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    if number == "999999":
        assert json.loads(done.stdout)["error"]["code"] == "bad_request"
        assert "`sightline generations`" in done.stderr


def test_a_database_that_is_away_is_a_sentence_and_a_code(tmp_path: Path) -> None:
    away = Settings(database_url="postgresql://postgres@127.0.0.1:1/x", data_dir=tmp_path)

    done = sightline("generations", "--json", settings=away)

    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "unavailable"
    assert "Postgres" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broker_that_is_away_is_a_sentence(tmp_path: Path) -> None:
    done = sightline("stats", settings=Settings(broker_url="redis://127.0.0.1:1/0", data_dir=tmp_path))

    assert done.returncode == 1
    assert "redis://127.0.0.1:1/0 cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------- `sightline up` and the README


def readme_code() -> str:
    """The backend's code of the README, as printed."""
    page = (ROOT / "README.md").read_text()
    (code,) = re.findall(r"<!-- backend -->\n```python\n(.*?)```", page, re.DOTALL)
    return str(code)


def readme_address() -> str:
    """Its line that gives the backend the address of the queue."""
    (line,) = re.findall(r"^export .*BROKER_URL .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    return str(line)


@pytest.fixture
def up_folder() -> Iterator[Path]:
    with server_dir() as folder:
        yield folder


def test_up_in_one_terminal_and_the_readmes_code_in_another(up_folder: Path, scenes: list[Scene]) -> None:
    """As the README says it: only the folder of photos and the port are this test's own, and the note of an `up` that
    was killed, which must not move the new one to another database."""
    photos = scenes[0].path.parents[1]
    given: dict[str, Any] = {"data_dir": up_folder / "data", "photo_roots": (photos,), "encoder": ENCODER, "up_port": 0}
    settings = Settings(**given, **without_torch())
    env = {**os.environ, **settings.as_env(), "NO_COLOR": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "300"}
    note = up_folder / "data" / "up.env"
    note.parent.mkdir()
    note.write_text("SIGHTLINE_DATABASE_URL='postgresql+psycopg2://postgres@127.0.0.1:1/gone'\n")
    log = (up_folder / "up.log").open("w")
    up = subprocess.Popen(
        [sys.executable, "-m", "worker.cli", "up"],
        env=env,
        cwd=up_folder,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while "SIGHTLINE_BROKER_URL" not in note.read_text():
            assert up.poll() is None, (up_folder / "up.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        password = str(urlsplit(upenv.read(note)["SIGHTLINE_BROKER_URL"]).password)
        assert len(password) > 24
        assert upenv.read(note)["SIGHTLINE_KEY_PREFIX"] == "sightline:"
        code = readme_code()
        assert len(code.splitlines()) <= 30
        code = code.replace("/photos", str(photos / scenes[0].place))
        shell = ["sh", "-c", f'{readme_address().replace(".sightline", str(note.parent))}; exec "$@"', "sh"]
        backend = subprocess.run(
            [*shell, sys.executable, "-c", code],
            env=env,
            cwd=up_folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert backend.returncode == 0, backend.stderr
        lines = backend.stdout.splitlines()
        assert [line.split()[:3] for line in lines[:1]] == [["none.jpg", "refused:", "not_found"]]
        assert lines[1].startswith("located 56.15")
        assert lines[2] == "outside_roots"

        # Another command in the same folder finds the servers by itself.
        def another_command(name: str) -> Any:
            bare = {k: v for k, v in env.items() if not k.startswith("SIGHTLINE_")}
            done = subprocess.run(
                [sys.executable, "-m", "worker.cli", name, "--json"],
                env=bare | {"SIGHTLINE_DATA_DIR": str(note.parent)},
                cwd=up_folder,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
            )
            return json.loads(done.stdout)

        assert another_command("stats")["indexed"] >= 1
        unwell = {name for name, check in another_command("doctor").items() if not check["ok"]}
        assert unwell == {"index"}, "no rebuild has run yet; all else is as `up` was told"
        children = psutil.Process(up.pid).children(recursive=True)
        assert len(children) >= 4
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(60)
        log.close()

    said = (up_folder / "up.log").read_text()
    assert up.returncode == 0, said
    assert "a Postgres of its own" in said
    assert "SIGHTLINE_DATABASE_URL" in said
    assert password not in said
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == [], "Ctrl-C stops everything that was started"
    assert not note.exists()
    assert processes_of(up_folder) == [], "the servers are gone too"


def test_up_runs_on_the_backends_database_where_it_is_told_to(up_folder: Path, scenes: list[Scene]) -> None:
    data = up_folder / "data"
    note = data / "up.env"
    with EmbeddedServers(up_folder / "backend") as backend:
        url = backend.database_url.replace("postgres@/", "postgres:secret@/")
        engine = create_engine(backend.database_url)
        with engine.begin() as connection:
            columns = (
                "id int PRIMARY KEY, file_path text, lat float, lon float, address_data json, location_method text"
            )
            connection.execute(text(f"CREATE TABLE photos ({columns}, created_at timestamp)"))
            statement = text("INSERT INTO photos VALUES (77, :p, 1, 2, NULL, 'gps')")
            connection.execute(statement, {"p": str(scenes[0].path)})
        engine.dispose()
        settings = Settings(
            data_dir=data,
            photo_roots=(scenes[0].path.parents[1],),
            encoder=ENCODER,
            up_port=0,
            database_url=url,
            **without_torch(),
        )
        env = {**os.environ, **settings.as_env(), "NO_COLOR": "1", "COLUMNS": "300"}
        with (up_folder / "up.log").open("w") as log:
            up = subprocess.Popen(
                [sys.executable, "-m", "worker.cli", "up"], env=env, cwd=up_folder, stdout=log, stderr=log
            )
        try:
            until(lambda: up.poll() is not None or (note.exists() and note.stat().st_size > 0), PATIENCE_S)
            assert up.poll() is None, (up_folder / "up.log").read_text()
            mode = note.stat().st_mode & 0o777
            # In another terminal, which has the note alone.
            added = as_json("add", str(scenes[0].path), settings=Settings(data_dir=data))["outcomes"]
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(60)

    said = (up_folder / "up.log").read_text()
    assert [(outcome["photo_id"], outcome["lat"]) for outcome in added] == [(77, 1.0)]
    assert "in the Postgres of SIGHTLINE_DATABASE_URL" in said
    assert "secret" not in said
    assert mode == 0o600
    assert not (data / "postgres").exists(), "no Postgres of its own"


# ---------------------------------------------------------------------------------- what was there before


def old_pickle(folder: Path, photos: list[Scene], vectors: Any, **more: Any) -> Path:
    """As build_clip_index.py of the guide writes it, with a file that is gone."""
    path = folder / "embeddings.pkl"
    content = {
        "paths": [*(str(scene.path) for scene in photos), str(folder / "gone.jpg")],
        "metadata": [{"lat": scene.lat, "lon": scene.lon, "tag": "legacy"} for scene in photos] + [{}],
        "embeddings": np.array([*vectors, vectors[0]], dtype=np.float32),
    }
    path.write_bytes(pickle.dumps(content | more))
    return path


def fresh_copies(scenes: list[Scene], folder: Path) -> list[Scene]:
    """The same photos as other files, which no worker has seen."""
    folder.mkdir()
    copies = [replace(scene, path=folder / f"{n}.jpg") for n, scene in enumerate(scenes)]
    for scene, copy in zip(scenes, copies, strict=True):
        copy.path.write_bytes(scene.path.read_bytes() + folder.name.encode())
    return copies


def test_an_old_pickle_of_the_same_model_is_imported_with_its_vectors(
    stack: Stack, client: Sightline, scenes: list[Scene], photo_root: Path, tmp_path: Path
) -> None:
    photos = fresh_copies(scenes[:6], photo_root / "legacy")
    vectors = [client.embed(path=str(scene.path), return_vector=True).vector for scene in scenes[:6]]
    file = old_pickle(tmp_path, photos, vectors)

    looked = as_json("import-legacy", str(file), "--dry-run", settings=stack.settings)
    nothing = client.search(path=str(scenes[0].path), threshold=-1.0, where={"tag": "legacy"}).hits
    misses = client.stats().cache_misses
    imported = as_json("import-legacy", str(file), "--trust", "surveyed", settings=stack.settings)
    embedded_again = client.stats().cache_misses - misses
    seq = client.stats().seq
    found = client.search(path=str(scenes[7].path), threshold=-1.0, top_k=50, where={"tag": "legacy"}, min_seq=seq).hits

    assert (looked["report"]["photos"], looked["report"]["missing"], looked["to_import"]) == (7, [6], 6)
    assert nothing == []
    assert (imported["imported"], imported["vectors_reused"], imported["refused"]) == (6, 6, [])
    # The sample was embedded again, and nothing more.
    assert embedded_again == 6
    assert {hit.path for hit in found} == {str(scene.path) for scene in photos}
    assert {hit.provenance for hit in found} == {Provenance.SURVEYED}
    again = as_json("import-legacy", str(file), settings=stack.settings)
    assert again["imported"] == 6


def test_ctrl_c_before_anything_is_imported_says_so(
    stack: Stack, scenes: list[Scene], photo_root: Path, tmp_path: Path
) -> None:
    photos = fresh_copies(scenes[:6], photo_root / "stopped")
    program = f"""
import sys
from worker import joined, legacy

def stopped(*_: object, **__: object) -> object:
    raise KeyboardInterrupt

legacy.reusable_vectors = stopped
sys.argv = ["sightline", "import-legacy", {str(old_pickle(tmp_path, photos, [[0.0] * 1280] * 6))!r}]
joined.run()
"""
    env = {**os.environ, **stack.settings.as_env(), "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=env, cwd=ROOT, capture_output=True, text=True)

    assert (done.returncode, "nothing is imported yet" in " ".join(done.stderr.split())) == (130, True), done.stderr


def test_rows_of_the_table_stay_as_they_are_unless_told_otherwise_and_a_dry_run_lists_them(
    stack: Stack, scenes: list[Scene], photo_root: Path, tmp_path: Path
) -> None:
    names = ["gps", "manual", "clip", "city_center", "nothing"]
    photos = fresh_copies(scenes[:5], photo_root / "rows of the backend")
    engine = create_engine(stack.settings.database_url)
    with engine.begin() as connection:
        statement = text(
            "INSERT INTO photos (file_path, lat, lon, location_method, address_data) "
            "VALUES (:p, :lat, :lon, :m, CAST(:a AS jsonb)) RETURNING id"
        )
        ids = {}
        for name, photo in zip(names, photos, strict=True):
            lat, lon = (None, None) if name == "nothing" else (photo.lat, photo.lon)
            row = {"p": str(photo.path), "lat": lat, "lon": lon, "m": name, "a": '{"street": "Own"}'}
            ids[name] = connection.scalar(statement, row)

    def rows() -> dict[int, tuple[Any, ...]]:
        with engine.connect() as connection:
            query = text("SELECT id, lat, lon, location_method, address_data FROM photos WHERE id = ANY(:ids)")
            return {row.id: tuple(row)[1:] for row in connection.execute(query, {"ids": list(ids.values())})}

    # As the old system's detector left them: every photo at a place of its own making, with an address to it.
    file = tmp_path / "embeddings.pkl"
    facts = [{"lat": 40.0 + n, "lon": 20.123456, "address": {"street": "Old"}} for n in range(5)]
    vectors = np.random.default_rng(0).normal(size=(5, 512))
    content = {"paths": [str(photo.path) for photo in photos], "metadata": facts, "embeddings": vectors}
    file.write_bytes(pickle.dumps(content))
    before = rows()

    looked = as_json("import-legacy", str(file), "--dry-run", settings=stack.settings)
    asked = as_json("import-legacy", str(file), "--dry-run", "--update-rows", settings=stack.settings)
    env = {**os.environ, **stack.settings.as_env(), "COLUMNS": "80", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "worker.cli", "import-legacy", str(file), "--dry-run", "--update-rows"]
    people = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S).stdout
    untouched = rows()
    kept = as_json("import-legacy", str(file), settings=stack.settings)
    still_untouched = rows()
    written = as_json("import-legacy", str(file), "--update-rows", settings=stack.settings)
    after = rows()
    engine.dispose()

    assert before == untouched == still_untouched
    assert (kept["imported"], written["imported"]) == (5, 5)
    assert (looked["rows_written"], asked["rows_written"]) == (False, True)
    assert looked["rows"] == asked["rows"]
    # A detector's coordinates do not replace those of a camera or a person.
    changed = [photo_id for photo_id in ids.values() if before[photo_id] != after[photo_id]]
    assert changed == [ids[name] for name in ("clip", "city_center", "nothing")]
    assert [row["photo_id"] for row in asked["rows"]] == changed
    for row in asked["rows"]:
        columns = ("lat", "lon", "location_method", "address_data")
        assert tuple(row["old"][name] for name in columns) == before[row["photo_id"]]
        assert tuple(row["new"][name] for name in columns) == after[row["photo_id"]]
        assert row["new"]["location_method"] == "derived"
        for said in (row["photo_id"], row["old"]["lat"], row["new"]["lat"], row["new"]["lon"]):
            assert said is None or str(said) in people
    assert "rows that would change: 3" in people
    assert max(map(len, people.splitlines())) <= 80


def test_adding_photos_writes_to_rows_only_where_asked(stack: Stack, scenes: list[Scene], photo_root: Path) -> None:
    (photo,) = fresh_copies(scenes[:1], photo_root / "added twice")
    engine = create_engine(stack.settings.database_url)

    def add(lat: str, *more: str) -> tuple[float, float]:
        added = as_json("add", str(photo.path), "--lat", lat, "--lon", "2", *more, settings=stack.settings)
        with engine.connect() as connection:
            query = text("SELECT lat FROM photos WHERE file_path = :p")
            return added["outcomes"][0]["lat"], connection.scalar(query, {"p": str(photo.path)})

    said = [add("1"), add("3"), add("4", "--update-rows"), add("5", "--update-rows", "--provenance", "derived")]
    engine.dispose()

    assert said == [(1, 1), (3, 1), (4, 4), (4, 4)]


def test_vectors_of_another_model_are_left_and_its_photos_embedded_again(
    stack: Stack, client: Sightline, scenes: list[Scene], photo_root: Path, tmp_path: Path
) -> None:
    photos = fresh_copies(scenes[:4], photo_root / "legacy2")
    file = old_pickle(tmp_path, photos, np.random.default_rng(0).normal(size=(4, 512)))

    done = as_json("import-legacy", str(file), settings=stack.settings)
    seq = client.stats().seq
    found = client.search(path=str(scenes[8].path), threshold=-1.0, top_k=50, where={"tag": "legacy"}, min_seq=seq).hits

    assert (done["imported"], done["vectors_reused"]) == (4, 0)
    mine = [hit for hit in found if hit.path in {str(scene.path) for scene in photos}]
    assert [hit.provenance for hit in mine] == [Provenance.DERIVED] * 4


def test_one_vector_of_another_model_in_the_sample_is_enough_to_embed_all_again(
    stack: Stack, client: Sightline, scenes: list[Scene], photo_root: Path, tmp_path: Path
) -> None:
    photos = fresh_copies(scenes[:4], photo_root / "legacy3")
    vectors = [client.embed(path=str(scene.path), return_vector=True).vector or [] for scene in scenes[:4]]
    vectors[2] = vectors[2][::-1]
    file = old_pickle(tmp_path, photos, vectors)

    done = as_json("import-legacy", str(file), settings=stack.settings)

    assert (done["imported"], done["vectors_reused"]) == (4, 0)


def test_a_pickle_that_runs_something_ends_with_a_sentence_and_runs_nothing(stack: Stack, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "it ran",)

    file = tmp_path / "embeddings.pkl"
    file.write_bytes(pickle.dumps({"paths": [], "embeddings": [], "metadata": Evil()}))

    done = sightline("import-legacy", str(file), settings=stack.settings)

    assert done.returncode == 1
    assert "Nothing of it was run" in re.sub(r"\s+", " ", done.stderr)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "it ran").exists()


def test_a_table_that_is_there_is_looked_at_and_indexed_and_not_twice(
    stack: Stack, client: Sightline, scenes: list[Scene], photo_root: Path
) -> None:
    photos = fresh_copies(scenes[:7], photo_root / "table")
    rows: list[tuple[Any, ...]] = [(str(scene.path), scene.lat, scene.lon, "manual") for scene in photos[:2]]
    rows += [(str(scene.path), 55.7558, 37.6176, None) for scene in photos[2:]]
    (photo_root / "table" / "no photo.jpg").write_text("no photo")
    rows += [(str(photo_root / "table" / "no photo.jpg"), 1.0, 2.0, "exif")]
    rows += [(str(photo_root / "table" / "gone.jpg"), 1.0, 2.0, "exif"), (str(photos[0].path) + "x", None, None, None)]
    engine = create_engine(stack.settings.database_url)
    with engine.begin() as connection:
        for row in rows:
            connection.execute(
                text("INSERT INTO photos (file_path, lat, lon, location_method) VALUES (:p, :lat, :lon, :m)"),
                dict(zip(("p", "lat", "lon", "m"), row, strict=True)),
            )
    engine.dispose()

    looked = as_json("backfill", "--dry-run", settings=stack.settings)
    people = sightline("backfill", "--dry-run", settings=stack.settings)
    first = sightline("backfill", "--json", settings=stack.settings)
    second = sightline("backfill", "--json", settings=stack.settings)

    (point,) = [point for point in looked["report"]["points"] if (point["lat"], point["lon"]) == (55.7558, 37.6176)]
    assert (len(point["numbers"]), point["is_default"]) == (5, False)
    assert str(photo_root / "table" / "gone.jpg") in [missing["path"] for missing in looked["missing_files"]]
    assert str(photo_root / "table" / "gone.jpg") in people.stdout
    assert len(looked["report"]["missing"]) >= 2
    assert [(refusal["code"]) for refusal in looked["report"]["unreadable"]] == ["not_an_image"]
    assert looked["indexed"] == 0
    assert "5 photos lie at exactly 55.7558, 37.6176: one place, or a default?" in people.stdout
    assert "UPDATE" not in people.stdout, "one point alone proves nothing"
    # The rows' files that are gone are refused, by name, every time.
    assert (first.returncode, second.returncode) == (1, 1)
    assert json.loads(first.stdout)["indexed"] >= 7
    assert json.loads(second.stdout)["indexed"] == 0
    assert {refusal["code"] for refusal in json.loads(second.stdout)["refused"]} == {"not_found", "not_an_image"}
    found = client.search(path=str(scenes[8].path), threshold=-1.0, top_k=200, min_seq=client.stats().seq).hits
    assert {str(scene.path) for scene in photos} <= {hit.path for hit in found}
