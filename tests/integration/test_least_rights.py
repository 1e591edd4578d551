"""Sightline as users of Redis and a role of Postgres that may do what they need and no more: deploy/redis/users.acl,
deploy/postgres/roles.sql, and TLS before both users. Where the system allows it, its processes run as in a container:
as nobody in particular, without capabilities, on a root that they cannot write to.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg2
import pytest
import redis
from redis.exceptions import NoPermissionError
from sqlalchemy.engine import make_url

from producer_client import Code, NewPhoto, Photo, PhotoRefused, Sightline, Unreachable
from producer_client.contract import Provenance, Queue, Stats, TaskName
from tests.commands import sightline
from tests.conftest import ENCODER, Scene, plain_celery, server_dir, until
from tests.guarded import ACL_FILE, ADDRESS_OF, Guarded
from worker.children import Process
from worker.embedded import EmbeddedServers
from worker.settings import Settings

#: In place of Python: the folder that may be written, then what Python is given.
CONFINED = """\
#!/bin/sh
exec unshare --mount --propagation private sh -c 'mount --bind "$1" "$1" && mount -o remount,ro,bind / && shift &&
    exec unshare --user --map-user=10001 --map-group=10001 setpriv --no-new-privs -- "$@"' sh "{folder}" \\
    env TMPDIR="{folder}" "{python}" "$@"
"""
ROLES = Path(__file__).parents[2] / "deploy" / "postgres" / "roles.sql"
SCHEMA, TABLE = "sightline", "photos"


@dataclass
class Run:
    """What a service did that ran with these rights alone."""

    guarded: Guarded
    settings: Settings
    owner: Settings
    refused: list[str] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)
    logs: str = ""
    #: Of each process, what the system says of it; none where it was not confined.
    status: list[str] = field(default_factory=list)

    def ask(self, *arguments: str, **env: str) -> tuple[int, str]:
        done = sightline(*arguments, env={**os.environ, **self.settings.as_env(), **env})
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    with server_dir() as folder, Guarded(folder, ACL_FILE.read_text()).running() as running:
        yield running


@pytest.fixture(scope="module")
def run(guarded: Guarded, photo_root: Path, scenes: list[Scene]) -> Iterator[Run]:
    """A worker, the index process, the beat, clients and commands, through all that they do with Redis."""
    with server_dir() as folder, EmbeddedServers(folder, with_valkey=False) as servers:
        # Its own user's, and ours have no capability to enter all the same.
        (folder / "postgres").chmod(0o711)
        (folder / "postgres" / ".s.PGSQL.5432").chmod(0o777)
        (folder / "keys").write_text(f"2026-11 {secrets.token_hex(32)}\n")
        (folder / "keys").chmod(0o600)
        settings = Settings(
            broker_url=guarded.url("worker"),
            database_url=_as_role(servers.database_url, "sightline_service"),
            data_dir=folder / "data",
            photo_roots=(photo_root,),
            encoder=ENCODER,
            concurrency=2,
            visibility_timeout_s=5,
            tick_every_s=1.0,
            exam_photos=0,
            signing_keys_file=folder / "keys",
        )
        owner = settings.model_copy(update={"database_url": _as_role(servers.database_url, "sightline_owner")})
        ran = Run(guarded, settings, owner)
        _make_database(servers.database_url, scenes)
        env = {**os.environ, **owner.as_env()}
        ran.said["migrate"] = sightline("migrate", "--json", env=env)
        ran.said["before"] = ran.ask("doctor", "--json")
        ran.said["grant"] = granted = sightline("migrate", "--grant", "sightline_service", "--json", env=env)
        assert granted.returncode == 0, granted.stderr
        processes: list[Process] = []
        try:
            _live(ran, scenes, processes)
        finally:
            for process in processes:
                process.ask_to_stop()
            for process in processes:
                process.wait()
            with guarded.as_user("admin") as admin:
                ran.said["alive"] = admin.keys("sightline:alive:*")
            ran.logs = "\n".join(path.read_text() for path in folder.glob("*.log"))
            ran.refused = guarded.refused()
            print(ran.logs, ran.refused)  # shown where something fails here
        yield ran


def _live(run: Run, scenes: list[Scene], processes: list[Process]) -> None:
    guarded, settings, folder = run.guarded, run.settings, run.settings.data_dir.parent
    with (
        Sightline(guarded.url("client"), timeout_s=60, signing_keys_file=settings.signing_keys_file) as client,
        guarded.as_user("admin") as admin,
    ):
        # A message that a worker had in hand when it was killed, and an item that is none.
        left = client.submit_stats(timeout_s=60)
        raw = admin.rpop("sightline:interactive")
        assert isinstance(raw, bytes)
        # The worker that had it had told where such messages belong.
        admin.sadd("sightline:_kombu.binding.interactive", "interactive\x06\x16\x06\x16interactive")
        note = json.dumps([json.loads(raw), "interactive", "interactive"])
        admin.hset("sightline:unacked", "left", note)
        admin.zadd("sightline:unacked_index", {"left": time.time() - 60})
        admin.lpush("sightline:interactive", b"no message")
        confined = _confined(folder)
        with patch.object(sys, "executable", confined or sys.executable):
            for number, arguments in enumerate((("worker",), ("worker", "--role", "index"), ("beat",))):
                processes.append(Process(settings, *arguments, log=folder / f"{number}.log"))
        run.said["left"] = left.wait(60)
        if confined:
            proc = [Path(f"/proc/{process.pid}") for process in processes]
            run.status = [
                "".join((path / name).read_text() for name in ("status", "mountinfo", "uid_map")) for path in proc
            ]

        known = [
            NewPhoto(ref=str(n), photo=Photo(path=str(s.path)), lat=s.lat, lon=s.lon, provenance=Provenance.EXIF_GPS)
            for n, s in enumerate(scenes[1:6])
        ]
        run.said["added"] = client.add_to_index(photo_id=1, path=str(scenes[0].path))
        run.said["many"] = list(client.add_many(known))
        with pytest.raises(PhotoRefused) as refused:
            client.add_to_index(path=str(scenes[7].path))
        run.said["no row"] = refused.value
        run.said["found"] = client.search(photo_id=1)
        run.said["answer"] = client.locate(path=str(scenes[6].path))
        # By a command: it waits for long enough to be told by the bell, as no other command for sure.
        run.said["rebuild"] = run.ask("rebuild", "--json")
        run.said["removed"] = client.remove(6)
        # With messages in hand, and who has them alive.
        admin.zadd("sightline:unacked_index", {"in hand": time.time()})
        run.said["metrics"] = run.ask("metrics", "--once", "--json", SIGHTLINE_BROKER_URL=guarded.url("metrics"))
        admin.zrem("sightline:unacked_index", "in hand")
        # As a backend's own Celery sends.
        plain = plain_celery(settings.model_copy(update={"broker_url": guarded.url("client")}))
        plain.send_task(TaskName.STATS.value, args=[Stats().to_wire()], queue=Queue.INTERACTIVE.value)
        plain.close()
        until(lambda: admin.llen("sightline:parked") == 1, 20)
    for arguments in (
        ("stats",),
        ("doctor", "--json"),
        ("health", "--all"),
        ("reconcile", "--dry-run"),
        ("parked",),
        ("parked", "all", "--requeue"),
    ):
        run.said[arguments[0]] = run.ask(*arguments)
    with guarded.as_user("admin") as admin:
        until(lambda: admin.llen("sightline:parked") == 1, 20)
    run.said["dropped"] = run.ask("parked", "all", "--drop")


def _confined(folder: Path) -> str | None:
    """A program in place of Python that can write to that folder alone; None where this system does not allow it."""
    program = folder / "confined"
    program.write_text(CONFINED.format(folder=folder, python=sys.executable))
    program.chmod(0o700)
    tried = subprocess.run([program, "-c", ""], capture_output=True, check=False)
    return str(program) if tried.returncode == 0 else None


def _as_role(url: str, role: str) -> str:
    """Not by a login of its own, which the tests' Postgres takes of its superuser alone: what is asked is allowed to
    this role all the same, and to no other."""
    return make_url(url).update_query_dict({"options": f"-crole={role}"}).render_as_string(hide_password=False)


def _make_database(url: str, scenes: list[Scene]) -> None:
    """The backend's tables, of its own, and our two roles."""
    connection = psycopg2.connect(make_url(url).set(drivername="postgresql").render_as_string())
    with connection, connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE public.{TABLE} (id bigint PRIMARY KEY, file_path text, lat float8, lon float8, "
            "location_method text, address_data jsonb, created_at timestamptz)"
        )
        cursor.execute("CREATE TABLE public.accounts (name text)")
        cursor.execute(ROLES.read_text())
        for number, scene in enumerate(scenes[:6], 1):
            row = (number, str(scene.path), scene.lat, scene.lon)
            cursor.execute(f"INSERT INTO public.{TABLE} VALUES (%s, %s, %s, %s, 'exif_gps')", row)
    connection.close()


# -------------------------------------------------------------------------------------------- the system


def test_processes_need_no_capability_and_no_root_that_can_be_written(run: Run) -> None:
    if not run.status:
        pytest.skip("only root makes a root that cannot be written to")

    assert len(run.status) == 3
    for status in run.status:
        assert re.search(r"^CapEff:\s0+$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s1$", status, re.MULTILINE)
        assert re.search(r" / / ro,", status)
        assert re.search(r"^\s*10001\s+\d+\s+1$", status, re.MULTILINE)


# ------------------------------------------------------------------------------------------------ Redis


def test_each_user_uses_every_command_that_it_has_and_is_refused_none(run: Run) -> None:
    granted = {user: set(re.findall(r" \+(\S+)", line)) for user, line in _users().items() if user in ADDRESS_OF}

    assert run.refused == []
    assert {user: commands - run.guarded.used[user] for user, commands in granted.items()} == {
        "worker": set(),
        "client": set(),
        "metrics": set(),
    }
    assert granted["client"] >= {"lpush", "get", "subscribe"}


def test_what_was_asked_is_answered_by_who_has_these_rights(run: Run) -> None:
    assert run.said["left"].device == "cpu"
    assert len(run.said["found"].hits) == 5
    assert run.said["alive"] == [], "who has ended is seen no more"
    metrics = json.loads(run.said["metrics"][1])["metrics"]
    values = {(one["name"], *one["labels"].values()): one["value"] for one in metrics}
    assert values["sightline_reachable", "redis"] == values["sightline_reachable", "postgres"] == 1
    assert values["sightline_processes", "serve"] == values["sightline_queue_in_hand", "other"] == 1
    assert {
        name for name in ("stats", "health", "rebuild", "parked", "dropped", "reconcile") if run.said[name][0] != 0
    } == set()
    told = json.loads(run.said["doctor"][1])
    checked = ("broker", "keys", "database", "photos table", "index", "workers")
    assert [told[name]["message"] for name in checked if not told[name]["ok"]] == []


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL", "FLUSHDB", "CONFIG GET *", "ACL LIST", "MONITOR", "SHUTDOWN", "KEYS *", "SCAN 0",
        "INFO", "EVAL return", "EVALSHA 0 0", "SCRIPT LOAD 0", "FUNCTION LIST", "CLIENT LIST", "RANDOMKEY",
        "GET theirs", "LPUSH theirs 1", "LRANGE sightline:interactive 0 -1", "BRPOP sightline:interactive 1",
        "HGETALL sightline:unacked", "DEL sightline:interactive", "SET sightline:celery-task-meta-x 1",
        "LRANGE sightline:parked 0 -1", "SUBSCRIBE theirs", "PSUBSCRIBE *", "PUBLISH sightline:celery-task-meta-x 1",
        "GET sightline:alive:x",
    ],
)  # fmt: skip
def test_a_client_sends_and_reads_replies_and_can_do_nothing_else(command: str, guarded: Guarded) -> None:
    with guarded.as_user("client") as client, pytest.raises(NoPermissionError):
        _send(client, command)


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHDB", "CONFIG SET dir /", "ACL LIST", "MONITOR", "KEYS *", "EVAL return", "GET theirs", "SET theirs 1",
        "LPUSH interactive 1", "SUBSCRIBE theirs", "MODULE LIST", "REPLICAOF a 1", "FUNCTION LIST",
    ],
)  # fmt: skip
def test_a_worker_reaches_no_keys_of_others_and_no_setting(command: str, guarded: Guarded) -> None:
    with guarded.as_user("worker") as worker, pytest.raises(NoPermissionError):
        _send(worker, command)


def test_nobody_is_served_without_a_name(guarded: Guarded) -> None:
    with redis.Redis.from_url(f"redis://127.0.0.1:{guarded.port}") as nobody, pytest.raises(redis.AuthenticationError):
        nobody.ping()


def _send(client: redis.Redis, command: str) -> None:
    name, *arguments = command.split(" ")
    if name in ("EVAL", "EVALSHA"):
        arguments = [arguments[0], "0"]
    client.execute_command(name, *arguments)  # type: ignore[no-untyped-call]  # redis has no types for it


def _users() -> dict[str, str]:
    return {line.split()[1]: line for line in ACL_FILE.read_text().splitlines()}


# -------------------------------------------------------------------------------------------------- TLS


def test_a_certificate_of_another_authority_is_not_taken(guarded: Guarded, run: Run) -> None:
    url = guarded.url("client", guarded.other_ca)

    with Sightline(url) as client, pytest.raises(Unreachable, match="signed by nobody who is trusted here"):
        client.stats(timeout_s=5)
    code, said = run.ask("parked", "--json", SIGHTLINE_BROKER_URL=guarded.url("worker", guarded.other_ca))
    assert code != 0
    assert "ssl_ca_certs=/path/ca.pem" in said


def test_a_certificate_for_another_host_is_not_taken(guarded: Guarded, run: Run) -> None:
    there = [guarded.url(user).replace("@localhost:", "@127.0.0.1:") for user in ("client", "worker")]

    with Sightline(there[0]) as client, pytest.raises(Unreachable, match="for another name of the host"):
        client.stats(timeout_s=5)
    _, said = run.ask("parked", "--json", SIGHTLINE_BROKER_URL=there[1])
    assert "for another name of the host" in said


def test_a_process_that_cannot_trust_its_redis_says_so_and_waits(guarded: Guarded, run: Run, tmp_path: Path) -> None:
    wrong = run.settings.model_copy(update={"broker_url": guarded.url("worker", guarded.other_ca)})
    beat = Process(wrong, "beat", log=tmp_path / "log")
    try:
        until(lambda: "signed by nobody who is trusted here" in (tmp_path / "log").read_text(), 30)
        assert beat.exit_code is None
    finally:
        beat.ask_to_stop()
        beat.wait()


# --------------------------------------------------------------------------------------------- Postgres


def test_a_role_without_its_rights_is_told_which_and_what_to_do(run: Run) -> None:
    told = json.loads(run.said["before"][1])["database"]

    assert not told["ok"]
    assert "the role sightline_service lacks rights on" in told["message"]
    assert "Run `sightline migrate --grant`" in told["message"]
    assert run.said["migrate"].returncode == run.said["grant"].returncode == 0


def test_a_photo_that_needs_a_row_is_refused_where_no_row_may_be_made(run: Run) -> None:
    told = run.said["no row"]

    assert told.code is Code.NOT_READY
    assert "permission denied for table photos. Insert the row yourself and send its photo_id, or grant" in told.message


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO public.photos (id) VALUES (99)",
        "UPDATE public.photos SET lat = 0",
        "DELETE FROM public.photos",
        "TRUNCATE public.photos",
        "SELECT * FROM public.accounts",
        "CREATE TABLE public.mine (x int)",
        "CREATE TABLE sightline.mine (x int)",
        "DROP TABLE sightline.entries",
        "TRUNCATE sightline.entries",
        "ALTER TABLE sightline.entries ADD COLUMN x int",
        "UPDATE sightline.alembic_version SET version_num = 'x'",
        "COPY sightline.entries TO PROGRAM 'true'",
        "SELECT pg_read_file('/etc/passwd')",
        "CREATE ROLE mine",
    ],
)
def test_the_service_may_not(statement: str, run: Run) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        _execute(run.settings, statement)


def test_tables_of_later_migrations_are_the_services_too(run: Run) -> None:
    _execute(run.owner, "CREATE TABLE sightline.later (id bigint GENERATED ALWAYS AS IDENTITY, x int)")

    _execute(run.settings, "INSERT INTO sightline.later (x) VALUES (1)")
    assert _execute(run.settings, "SELECT id, x FROM sightline.later") == [(1, 1)]


def test_the_service_sees_which_processes_live(run: Run) -> None:
    """Tries are forgiven by that (worker.storage.attempts)."""
    url = make_url(run.settings.database_url).set(drivername="postgresql")
    with psycopg2.connect(url.render_as_string(False), application_name="sightline other") as other:
        seen = _execute(
            run.settings, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sightline other'"
        )
    other.close()

    assert seen == [(1,)]


def test_the_service_notes_the_manifest_of_what_it_builds_and_takes_no_other(run: Run) -> None:
    number = json.loads(run.said["rebuild"][1])["generation"]
    manifest = run.settings.generations_dir / f"{number:06d}" / "manifest.json"
    noted = _execute(run.settings, f"SELECT manifest_sha256 FROM sightline.generations WHERE number = {number}")
    content = manifest.read_bytes()
    try:
        manifest.write_bytes(content + b"\n")
        told = json.loads(run.ask("doctor", "--json")[1])["index"]
    finally:
        manifest.write_bytes(content)

    assert noted == [(hashlib.sha256(content).hexdigest(),)]
    assert not told["ok"]
    assert f"does not hold generation {number} as it was published" in told["message"]


def test_a_right_is_granted_to_no_role_that_is_not_there(run: Run) -> None:
    done = sightline("migrate", "--grant", "nobody", env={**os.environ, **run.owner.as_env()})

    assert done.returncode != 0
    assert "deploy/postgres/roles.sql" in done.stdout + done.stderr


def _execute(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    url = make_url(settings.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return [] if cursor.description is None else cursor.fetchall()
    finally:
        connection.close()
