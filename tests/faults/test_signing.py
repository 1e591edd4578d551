"""Signed messages between real processes: nobody without a key is served, nothing of ours is taken for a copy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import redis

from producer_client import Sightline, Stored, TryAgain, Untrusted
from producer_client.contract import Code, Fill, Stats
from producer_client.errors import BadRequest
from producer_client.signing import SIGNED
from tests.conftest import Scene, plain_celery
from tests.faults.conftest import PATIENCE_S, Gate, hasty_stack, until
from worker.parking import Parking
from worker.stack import Stack
from worker.storage.store import PostgresStore

PREFIX = "sightline:"
BULK, INTERACTIVE = PREFIX + "bulk", PREFIX + "interactive"


def keys_at(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    return path


FIRST, SECOND = f"first {'1' * 64}", f"second {'2' * 64}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def signing(photo_root: Path, folder: Path) -> Iterator[Stack]:
    """Workers and a beat that take signed messages alone, by two keys."""
    keys = keys_at(folder / "both", FIRST, SECOND)
    more: dict[str, Any] = {"rounded_for": "second=1,*=5", "audit_days": 1}
    with hasty_stack(photo_root, signing_keys_file=keys, signing_required=True, tick_every_s=0.5, **more) as running:
        running.start_all()
        running.wait_ready()
        yield running


@pytest.fixture
def server(signing: Stack) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(signing.settings.broker_url) as client:
        client.delete(PREFIX + "parked")
        yield client


@pytest.fixture
def parking(server: redis.Redis) -> Parking:
    return Parking(server, prefix=PREFIX)


@pytest.fixture
def idle(signing: Stack) -> Iterator[redis.Redis]:
    """Their Redis in a database where no worker takes anything."""
    with redis.Redis.from_url(signing.settings.broker_url.rpartition("/")[0] + "/9") as client:
        client.flushdb()
        yield client


def client_of(stack: Stack, keys: Path | None, *, timeout_s: float = PATIENCE_S) -> Sightline:
    return Sightline(stack.settings.broker_url, signing_keys_file=keys, timeout_s=timeout_s)


def item_of(stack: Stack, idle: redis.Redis, send: Callable[[Sightline], Any]) -> tuple[Any, dict[str, Any]]:
    """What a client with the keys puts into a queue, and what it holds of it."""
    url = stack.settings.broker_url.rpartition("/")[0] + "/9"
    with Sightline(url, signing_keys_file=stack.settings.signing_keys_file) as client:
        handle = send(client)
    (item,) = idle.lrange(INTERACTIVE, 0, -1) or idle.lrange(BULK, 0, -1)
    return handle, json.loads(item)


def test_who_has_a_key_is_served_and_ticks_and_chains_of_our_own_are(
    signing: Stack, server: redis.Redis, parking: Parking, scenes: list[Scene], folder: Path
) -> None:
    for lines in ((FIRST, SECOND), (SECOND, FIRST)):
        with client_of(signing, keys_at(folder / "rotated", *lines)) as client:
            stored = client.add_to_index(path=str(scenes[0].path), lat=1.0, lon=2.0, provenance="surveyed")
            assert isinstance(stored, Stored)
            assert client.rebuild_index(force=True).indexed >= 1
    until(lambda: server.llen(PREFIX + "index") == 0, "ticks are taken")

    assert parking.all() == []


def test_who_has_no_key_is_refused_and_told(signing: Stack, parking: Parking) -> None:
    with client_of(signing, None) as client, pytest.raises(BadRequest) as caught:
        client.stats()

    assert caught.value.code is Code.UNSIGNED
    until(lambda: [parked.code for parked in parking.all()] == ["unsigned"], "it is kept, and can be put back")


def test_a_task_of_our_own_that_others_send_is_kept(signing: Stack, parking: Parking) -> None:
    theirs = plain_celery(signing.settings)
    theirs.send_task("sightline.fill", args=[Fill(model_key="x", slot=0).to_wire()], queue="bulk", ignore_result=True)
    until(lambda: parking.count() == 1, "it is parked")

    assert parking.all()[0].code == "unsigned"


def test_who_has_a_key_that_was_withdrawn_is_refused_and_told(signing: Stack, parking: Parking, folder: Path) -> None:
    gone = keys_at(folder / "gone", f"third {'3' * 64}")

    with client_of(signing, gone) as client, pytest.raises(Untrusted) as caught:
        client.stats()

    assert caught.value.code is Code.BAD_SIGNATURE
    assert "third" not in str(caught.value)
    until(lambda: [parked.code for parked in parking.all()] == ["bad_signature"], "it is kept")


@pytest.mark.parametrize("altered", ["task", "body", "queue"])
def test_what_was_changed_on_its_way_is_refused(
    altered: str, signing: Stack, idle: redis.Redis, server: redis.Redis, parking: Parking
) -> None:
    _, item = item_of(signing, idle, lambda client: client.submit_stats())
    if altered == "task":
        item["headers"]["task"] = "sightline.purge"
    elif altered == "body":
        item["body"] = item["body"][:-4] + "AAAA"
    server.lpush(BULK if altered == "queue" else INTERACTIVE, json.dumps(item))
    until(lambda: parking.count() == 1, "it is parked")

    assert parking.all()[0].code == "bad_signature"


def test_what_no_signature_covers_has_no_effect(signing: Stack, idle: redis.Redis, server: redis.Redis) -> None:
    handle, item = item_of(signing, idle, lambda client: client.submit_stats())
    item["headers"] |= {"shadow": "purge", "argsrepr": "x", "stamps": {"a": 1}, "lang": "c"}
    item["properties"] |= {"correlation_id": "another", "reply_to": "them", "priority": 9}
    item["properties"]["delivery_info"] = {"exchange": "theirs", "routing_key": "bulk"}
    server.lpush(INTERACTIVE, json.dumps(item))

    with client_of(signing, signing.settings.signing_keys_file) as client:
        replies = client._line().replies
        reply = replies.wait(handle.task_id, PATIENCE_S)
        assert replies.look("another") is None

    assert reply is not None
    assert reply.value["ok"]


def test_a_copy_of_what_was_carried_out_is_refused_and_leaves_its_reply(
    signing: Stack, idle: redis.Redis, server: redis.Redis, parking: Parking
) -> None:
    handle, item = item_of(signing, idle, lambda client: client.submit_stats())
    server.lpush(INTERACTIVE, json.dumps(item))
    with client_of(signing, signing.settings.signing_keys_file) as client:
        before = client._line().replies.wait(handle.task_id, PATIENCE_S)
        until(lambda: server.hlen(PREFIX + "unacked") == 0, "it is acknowledged")
        noted = server.keys(PREFIX + "signed:*")
        server.lpush(INTERACTIVE, json.dumps(item))
        until(lambda: parking.count() == 1, "the copy is parked")

        assert parking.all()[0].code == "replayed"
        assert client._line().replies.look(handle.task_id) == before
    nonce = json.loads(item["headers"][SIGNED].split(" ", 2)[2])["nonce"]
    assert f"{PREFIX}signed:{nonce}".encode() in noted
    assert all(0 < server.ttl(name) <= 7 * 86400 + 61 for name in noted), "what is remembered has an end"


def test_what_has_waited_too_long_is_kept_and_answered(
    signing: Stack, idle: redis.Redis, server: redis.Redis, parking: Parking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("producer_client.signing").signing.GOOD_FOR_S, "interactive", -3600)
    _, item = item_of(signing, idle, lambda client: client.submit_stats())
    server.lpush(INTERACTIVE, json.dumps(item))
    with client_of(signing, signing.settings.signing_keys_file) as client, pytest.raises(TryAgain) as caught:
        client._handle(item["headers"]["id"], lambda reply: reply).wait()

    assert caught.value.code is Code.EXPIRED
    assert not isinstance(caught.value, Untrusted), "its sender is known, so the answer is signed"
    until(lambda: [parked.code for parked in parking.all()] == ["expired"], "it is kept")


def test_a_forged_reply_is_refused_and_does_not_keep_the_true_one_away(
    signing: Stack, idle: redis.Redis, server: redis.Redis
) -> None:
    handle, item = item_of(signing, idle, lambda client: client.submit_stats())
    forged: dict[str, Any] = {
        "status": "SUCCESS",
        "result": {"v": 1, "ok": True, "reply": {}},
        "traceback": None,
        "children": [],
    }
    where = f"{PREFIX}celery-task-meta-{handle.task_id}"
    server.set(where, json.dumps(forged))

    with client_of(signing, signing.settings.signing_keys_file) as client:
        mine = client._handle(handle.task_id, lambda reply: reply)
        with pytest.raises(Untrusted) as caught:
            mine.wait()
        assert caught.value.code is Code.UNSIGNED
        server.lpush(INTERACTIVE, json.dumps(item))
        until(lambda: SIGNED.encode() in (server.get(where) or b""), "the worker's reply lies there")
        assert mine.wait()["photos"] >= 0
    with client_of(signing, None) as without:
        assert without._handle(handle.task_id, lambda reply: reply).wait()["photos"] >= 0, "who has no keys reads it"


def test_each_key_is_told_as_roughly_as_the_settings_say_and_is_on_record(
    signing: Stack, scenes: list[Scene], folder: Path
) -> None:
    """Who has but a key of its own reads its replies, and is known by it."""
    told, recorded = {}, {}
    with signing.client(timeout_s=PATIENCE_S) as client:
        client.add_to_index(path=str(scenes[1].path), lat=12.345678, lon=2.0, provenance="surveyed")
    for key in (FIRST, SECOND):
        with client_of(signing, keys_at(folder / "own", key)) as client:
            handle = client.submit_search(path=str(scenes[0].path), threshold=-1.0)
            name = key.split()[0]
            told[name] = {hit.lat for hit in handle.wait().hits}
        with closing(PostgresStore(signing.settings)) as store:
            recorded[name] = [one.question.verb for one in store.audit.recorded(producer=name)]
            (newest,) = store.audit.recorded(limit=1)
        assert (newest.question.producer, newest.question.task_id) == (name, handle.task_id)
        assert newest.question.content_sha256 == sha256(scenes[0].path.read_bytes()).hexdigest()

    assert 12.34568 in told["first"]
    assert 12.3 in told["second"]
    assert not {12.345678, 12.34568} & told["second"]
    assert recorded == {"first": ["search"], "second": ["search"]}, "nothing but questions"


def test_what_a_worker_sends_again_stays_its_senders(
    signing: Stack, parking: Parking, scenes: list[Scene], folder: Path
) -> None:
    """A worker that cannot reach Postgres sends the message again itself, anew, by the key of who has sent it: else who
    has no other key could not read the reply. It is no copy."""
    log = signing.processes[0].log
    assert log is not None
    with client_of(signing, keys_at(folder / "own", SECOND)) as client:
        signing.servers.stop_postgres()
        handle = client.submit_add_to_index(path=str(scenes[0].path), lat=1.0, lon=2.0, provenance="surveyed")
        until(lambda: log.read_text().count("goes round again") >= 2, "it goes round twice")
        signing.servers.start_postgres()

        assert isinstance(handle.wait(), Stored)
    assert parking.count() == 0


def test_what_a_killed_worker_had_in_hand_is_no_copy(
    signing: Stack, parking: Parking, gate: Gate, scenes: list[Scene]
) -> None:
    worker = signing.processes[0]
    with signing.client(timeout_s=PATIENCE_S) as client:
        handles = [
            client.submit_add_to_index(url=gate.url(n), lat=s.lat, lon=s.lon, provenance="surveyed")
            for n, s in enumerate(scenes[:4])
        ]
        until(lambda: len(gate.asked) == 2, "both task threads are in the middle of an add")

        worker.kill()
        gate.open.set()
        signing.start_again(worker)

        assert len({handle.wait().photo_id for handle in handles}) == 4
    assert parking.count() == 0


def test_unsigned_messages_are_taken_until_signatures_are_required(signing: Stack) -> None:
    settings = signing.settings.model_copy(update={"signing_required": False, "key_prefix": "undecided:"})
    worker = signing.start("worker", settings=settings)
    try:
        for keys in (None, settings.signing_keys_file):
            with Sightline(
                settings.broker_url, key_prefix="undecided:", signing_keys_file=keys, timeout_s=PATIENCE_S
            ) as client:
                assert client.stats().photos >= 0
        theirs = plain_celery(settings)
        sent = theirs.send_task("sightline.stats", args=[Stats().to_wire()], queue="interactive")
        with Sightline(
            settings.broker_url, key_prefix="undecided:", signing_keys_file=settings.signing_keys_file
        ) as client:
            assert client._handle(sent.id, lambda reply: reply).wait()["photos"] >= 0
    finally:
        worker.kill()
        signing.processes.remove(worker)
