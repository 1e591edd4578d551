"""One Redis, several users: ours, the backend's own Celery, another Sightline. Nobody touches the others' keys."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery

from producer_client import NewPhoto, Photo, PhotoRefused, Provenance, Sightline, Stored, TimedOut
from producer_client.contract import Stats, TaskName
from tests.conftest import Scene, plain_celery, until
from worker.commands import doctor
from worker.errors import Permanent
from worker.keys import beside
from worker.stack import Stack
from worker.storage.migrate import migrate
from worker.storage.store import PostgresStore

#: Longer than a message stays in a dead worker's hand.
MINUTES_16 = 16 * 60.0
PATIENCE_S = 60.0


@pytest.fixture
def keys(stack: Stack) -> Iterator[redis.Redis]:
    """The stack's Redis, without a prefix of anybody. What a test puts there, or into database 0, is taken away."""
    with redis.Redis.from_url(stack.settings.broker_url) as client:
        yield client
        strangers = [key for key in client.scan_iter() if not key.startswith(b"sightline:")]
        if strangers:
            client.delete(*strangers)
    with redis.Redis.from_url(f"{stack.settings.broker_url.rpartition('/')[0]}/0") as former:
        former.flushdb()


@pytest.fixture
def backend(stack: Stack) -> Iterator[Celery]:
    """The backend's own Celery as anybody sets it up, in the same database."""
    app = Celery("backend", broker=stack.settings.broker_url, backend=stack.settings.broker_url, set_as_current=False)
    yield app
    app.close()


def taken_long_ago(app: Celery, queue: str, name: str, arguments: list[Any], keys: redis.Redis, prefix: str) -> str:
    """A message that a worker took 16 minutes ago and is still at work on. Returns its task's id."""
    result = app.send_task(name, args=arguments, queue=queue)
    with app.connection_for_read() as connection:
        channel: Any = connection.channel()
        message = channel.basic_get(queue)
        assert message is not None
        tag = message.delivery_tag
        # It stays in that worker's hand: its connection ends without a word.
        channel.qos._delivered.clear()
    keys.zadd(f"{prefix}unacked_index", {tag: time.time() - MINUTES_16})
    return str(result.id)


def test_what_the_backends_own_celery_has_in_hand_is_left_alone(
    stack: Stack, client: Sightline, backend: Celery, keys: redis.Redis
) -> None:
    """Our own message, as old and in the hand of a worker that is gone, shows that it was looked for such ones."""
    ours = plain_celery(stack.settings)
    theirs = taken_long_ago(backend, "celery", "backend.report", [1], keys, "")
    lost = taken_long_ago(ours, "lost", TaskName.STATS, [Stats().to_wire()], keys, stack.settings.key_prefix)

    until(lambda: keys.llen("sightline:lost") == 1, PATIENCE_S)
    ours.close()

    (in_hand,) = keys.hvals("unacked")
    assert json.loads(in_hand)[0]["headers"]["id"] == theirs
    assert json.loads(keys.lrange("sightline:lost", 0, 0)[0])["headers"]["id"] == lost
    assert keys.llen("celery") == 0, "it was handed out again"
    assert keys.zcard("unacked_index") == 1
    keys.delete("sightline:lost")
    assert client.stats().seq >= 0


def test_every_key_of_a_busy_service_has_the_prefix(
    stack: Stack, client: Sightline, scenes: list[Scene], keys: redis.Redis
) -> None:
    before = keys.info("keyspace").keys() | {"db5"}
    items = [NewPhoto(str(s.path), Photo(path=str(s.path)), s.lat, s.lon, Provenance.SURVEYED) for s in scenes[:3]]
    stored = [outcome for outcome in client.add_many(items) if isinstance(outcome, Stored)]
    client.locate(path=str(scenes[3].path))
    client.rebuild_index(timeout_s=PATIENCE_S)
    with pytest.raises(PhotoRefused):
        client.embed(path="/nowhere.jpg")
    waiting = client.submit_search(photo_id=stored[0].photo_id)
    client.submit_stats()
    with pytest.raises(TimedOut):
        client.submit_search(vector=[1.0] * 1280, min_seq=10**12).wait(0.01)
    waiting.wait()

    seen = {name.decode() for name in [*keys.scan_iter(), *keys.pubsub_channels()]}
    assert any(name.startswith("sightline:celery-task-meta-") for name in seen)
    assert [name for name in seen if not name.startswith("sightline:")] == []
    assert keys.info("keyspace").keys() - before == set(), "and no other database is touched"


def test_two_sightlines_in_one_database_do_not_mix(
    stack: Stack, client: Sightline, scenes: list[Scene], keys: redis.Redis
) -> None:
    """The second has a prefix, a schema and a table of its own."""
    own = {"key_prefix": "other:", "db_schema": "other", "photos_table": "other_photos"}
    settings = stack.settings.model_copy(update=own)
    store = PostgresStore(settings)
    migrate(store.database.engine, schema=settings.db_schema, photos_table=settings.photos_table)
    worker = stack.start("worker", "--queues", "interactive", settings=settings)
    try:
        with Sightline(settings.broker_url, key_prefix="other:", timeout_s=PATIENCE_S) as other:
            client.add_to_index(path=str(scenes[0].path), lat=1.0, lon=2.0, provenance="surveyed")

            assert (other.stats().photos, other.search(path=str(scenes[0].path), threshold=-1.0).hits) == (0, [])
            assert client.stats(timeout_s=PATIENCE_S).photos >= 1
            assert other.add_to_index(path=str(scenes[1].path)).photo_id == 1
            other.submit_rebuild_index()
            client.rebuild_index(timeout_s=PATIENCE_S)
            assert keys.llen("other:index") == 1, "the index process of the first has done its own and left it"
    finally:
        worker.ask_to_stop()
        worker.wait()
        stack.processes.remove(worker)
        store.close()


# ------------------------------------------------------------------------------------------------- doctor


def test_doctor_says_that_all_keys_are_ours(stack: Stack) -> None:
    assert doctor.keys(stack.settings) == "all begin with sightline:"


def test_doctor_names_strangers_beside_our_keys_and_what_to_do(
    stack: Stack, backend: Celery, keys: redis.Redis
) -> None:
    sent = backend.send_task("backend.report")
    keys.set(f"celery-task-meta-{sent.id}", "{}")
    keys.set("session:1", "")

    words = doctor.keys(stack.settings)

    (named,) = re.findall("in database 5, lie those of others, as (.*): what", words)
    assert len(set(named.split(", ")) & {"_kombu.binding.celery", "celery", "celery-task-meta-*", "session:1"}) == 3
    assert "SIGHTLINE_BROKER_URL" in words


@pytest.mark.parametrize(
    ("database", "prefix", "shown"),
    [(5, "", "interactive 1"), (0, "", "interactive 1"), (0, "sightline:", "sightline:interactive 1")],
    ids=["earlier release, our database", "earlier release, its database", "a client with the old URL"],
)
def test_doctor_sees_messages_that_no_worker_looks_at(
    stack: Stack, keys: redis.Redis, database: int, prefix: str, shown: str
) -> None:
    url = f"{stack.settings.broker_url.rpartition('/')[0]}/{database}"
    with Sightline(url, key_prefix=prefix) as client:
        client.submit_stats()
        with pytest.raises(Permanent, match="messages for Sightline") as caught:
            doctor.keys(stack.settings)

    assert f"database {database}" in caught.value.message
    assert shown in caught.value.message
    del keys


def test_doctor_takes_a_backends_queue_of_the_same_name_for_the_backends(
    stack: Stack, backend: Celery, keys: redis.Redis
) -> None:
    backend.send_task("backend.report", queue="bulk")
    keys.set("index", "no list")

    assert [place.left for place in beside(stack.settings.broker_url, "sightline:", patience_s=5)] == [{}, {}]


def test_doctor_sees_what_a_dead_worker_of_an_earlier_release_had_in_hand(stack: Stack, keys: redis.Redis) -> None:
    former = plain_celery(stack.settings.model_copy(update={"key_prefix": ""}))
    taken_long_ago(former, "interactive", TaskName.STATS, [Stats().to_wire()], keys, "")
    former.close()

    first, *_ = beside(stack.settings.broker_url, "sightline:", patience_s=5)

    assert first.left == {"unacked": 1}


def test_doctor_says_so_where_no_prefix_is_set(stack: Stack) -> None:
    settings = stack.settings.model_copy(update={"key_prefix": ""})

    assert doctor.keys(settings).startswith("without a prefix")
    assert beside("memory://", "sightline:", patience_s=1) == []
