"""One channel of a worker over a real Valkey: what it takes is noted, parked or back in its queue, never lost."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any
from unittest.mock import patch

import kombu
import pytest
import redis
from celery.app.base import Celery
from celery.exceptions import Reject
from celery.signals import worker_shutdown
from kombu.transport import virtual
from redis._parsers import BaseParser

from producer_client.contract import Code, TaskName
from tests.conftest import until
from tests.zoo.messages import MESSAGES, item
from worker import unfit
from worker.app import create_app
from worker.broker import LARGEST_ITEM, Channel, SentinelTransport, Taken, Transport
from worker.embedded import EmbeddedServers
from worker.errors import Transient
from worker.parking import MOST, Parking
from worker.settings import Settings
from worker.unfit import Unfit

QUEUE = "interactive"


@pytest.fixture
def server(valkey: EmbeddedServers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey.broker_url) as client:
        client.flushall()
        yield client
        client.replicaof("NO", "ONE")
        client.config_set("maxmemory", 0)


@pytest.fixture(params=["", "sightline:"])
def prefix(request: pytest.FixtureRequest) -> str:
    """What our keys begin with."""
    return str(request.param)


@pytest.fixture
def app(valkey: EmbeddedServers, server: redis.Redis, prefix: str) -> Iterator[Celery]:
    app = create_app(Settings(broker_url=valkey.broker_url, key_prefix=prefix, visibility_timeout_s=5))
    yield app
    app.close()


class Taker:
    """Takes messages as the worker's consumer does; after an error it connects again, as that one does."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self.taken: list[Any] = []
        self.connection: kombu.Connection = app.connection_for_read()
        self._consume()

    def _consume(self) -> None:
        self.channel: Any = self.connection.channel()
        consumer = kombu.Consumer(self.channel, [kombu.Queue(QUEUE)], on_message=self.taken.append)
        consumer.consume()

    def round(self) -> None:
        """Take what is there, once."""
        try:
            self.connection.drain_events(timeout=0.2)
        except TimeoutError:
            pass
        except self.connection.connection_errors:
            self.connection.collect()
            self.connection = self._app.connection_for_read()
            self._consume()
            raise

    def until(self, holds: Callable[[], bool]) -> None:
        def holds_after_a_round() -> bool:
            self.round()
            return holds()

        until(holds_after_a_round)


@pytest.fixture
def taker(app: Celery) -> Iterator[Taker]:
    taker = Taker(app)
    yield taker
    taker.connection.collect()


@pytest.fixture
def parking(server: redis.Redis, prefix: str) -> Parking:
    return Parking(server, prefix=prefix)


@pytest.fixture
def queue(prefix: str) -> str:
    """The key of the list in Redis."""
    return prefix + QUEUE


def message(**changed: Any) -> dict[str, Any]:
    """An item as our client puts it on the queue, with some of its parts changed; Ellipsis takes a part away."""
    whole = {
        "body": base64.b64encode(b"[[], {}, {}]").decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "sightline.stats", "id": "1"},
        "properties": {
            "delivery_tag": "tag",
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "body_encoding": "base64",
        },
        **changed,
    }
    return {name: part for name, part in whole.items() if part is not ...}


UNREADABLE = {
    name: (make("strange"), code)
    for name, (make, code) in MESSAGES.items()
    if code in (Unfit.NO_JSON, Unfit.NO_MESSAGE) or name == "a million values"
}


@pytest.mark.parametrize(("item", "code"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_item_that_is_no_message_is_parked_with_its_reason_and_the_next_one_is_taken(
    item: bytes, code: Unfit, queue: str, server: redis.Redis, taker: Taker, parking: Parking
) -> None:
    server.lpush(queue, item)
    server.lpush(queue, json.dumps(message()))

    taker.until(lambda: len(taker.taken) == 1)

    (parked,) = parking.all()
    expected = unfit.no_message(item, LARGEST_ITEM)
    assert (parked.content, parked.key) == (item, queue)
    assert (parked.code, parked.why) == (expected.code, expected.why)
    assert parked.code == code
    assert server.llen(queue) == 0
    assert taker.taken[0].headers["task"] == "sightline.stats"


def test_a_larger_item_than_any_message_is_parked_unread(
    queue: str, server: redis.Redis, taker: Taker, parking: Parking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.broker.LARGEST_ITEM", 1000)
    server.lpush(queue, json.dumps(message(body="A" * 2000)))

    taker.until(lambda: parking.count() == 1)

    (parked,) = parking.all()
    assert parked.code == Unfit.TOO_LARGE
    assert "1,000 at most" in parked.why
    assert taker.taken == []


@pytest.mark.parametrize("why", ["a replica", "full"])
def test_a_message_that_cannot_be_noted_when_it_is_taken_is_back_in_its_queue_afterwards(
    why: str, prefix: str, queue: str, server: redis.Redis, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis gives an item away and refuses the note of it: it changes in between, or it is full."""
    popped = Transport.Channel._read

    def read(channel: Channel, item: bytes) -> Any:
        if why == "full":
            server.config_set("maxmemory", 1)
        else:
            server.replicaof("127.0.0.1", 1)
        return popped(channel, item)

    monkeypatch.setattr(Channel, "_read", read)
    server.lpush(queue, json.dumps(message()))

    with pytest.raises(redis.ResponseError):
        taker.until(lambda: False)
    monkeypatch.undo()
    with pytest.raises(redis.ResponseError):
        taker.round()
    assert (server.llen(queue), taker.taken) == (0, []), "neither taken nor lost: in the worker's hands"
    server.config_set("maxmemory", 0)
    server.replicaof("NO", "ONE")
    taker.until(lambda: len(taker.taken) == 1)

    assert server.hlen(prefix + "unacked") == 1


def test_redis_serves_again_when_a_message_is_noted_and_not_when_one_is_only_taken(
    app: Celery,
    queue: str,
    server: redis.Redis,
    taker: Taker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    popped = Transport.Channel._read

    def read(channel: Channel, item: bytes) -> Any:
        server.config_set("maxmemory", 1)
        return popped(channel, item)

    app.conf.broker_transport_options["outage"].met(redis.ResponseError("OOM command not allowed"))
    monkeypatch.setattr(Channel, "_read", read)
    server.lpush(queue, json.dumps(message()))

    with pytest.raises(redis.ResponseError):
        taker.until(lambda: False)
    assert "Redis serves again" not in caplog.messages
    monkeypatch.undo()
    server.config_set("maxmemory", 0)
    taker.until(lambda: len(taker.taken) == 1)

    assert "Redis serves again" in caplog.messages


@pytest.mark.parametrize("away", [False, True])
def test_what_a_worker_that_ends_could_note_nowhere_is_back_in_its_queue_or_in_the_log(
    away: bool, queue: str, app: Celery, server: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    app.conf.broker_transport_options["in_hand"].taken = Taken(queue, b"hello")
    if away:
        server.replicaof("127.0.0.1", 1)

    worker_shutdown.send(sender=None)

    assert server.lrange(queue, 0, -1) == ([] if away else [b"hello"])
    assert any(vars(record).get("item") == b"hello" for record in caplog.records) is away
    app.conf.broker_transport_options["in_hand"].taken = None


def test_an_item_that_cannot_be_parked_is_back_in_its_queue_until_it_can(
    queue: str, server: redis.Redis, taker: Taker, parking: Parking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(channel: Channel, item: bytes) -> Any:
        server.config_set("maxmemory", 1)
        raise ValueError("nothing that one can read")

    monkeypatch.setattr(Channel, "_read", read)
    server.lpush(queue, b"hello")

    with pytest.raises(redis.ResponseError):
        taker.until(lambda: False)
    monkeypatch.undo()
    server.config_set("maxmemory", 0)
    taker.until(lambda: parking.count() == 1)

    assert parking.all()[0].content == b"hello"


def test_a_note_that_cannot_be_read_is_parked_and_holds_no_other_back(
    prefix: str, server: redis.Redis, taker: Taker, parking: Parking
) -> None:
    """Notes of what a dead worker had in hand, due since long; the oldest cannot be read."""
    good = json.dumps([message(), "", QUEUE])
    for number, note in enumerate(["hello", "[1, 2]", json.dumps([{}, "", QUEUE]), good]):
        server.hset(prefix + "unacked", str(number), note)
        server.zadd(prefix + "unacked_index", {str(number): 100 - number})

    # The worker's event loop does it every few seconds.
    taker.channel.connection.cycle.maybe_restore_messages()
    taker.until(lambda: len(taker.taken) == 1)

    assert {parked.content for parked in parking.all()} == {b"hello", b"[1, 2]", b'[{}, "", "interactive"]'}
    assert {parked.code for parked in parking.all()} == {Unfit.BAD_NOTE}
    assert parking.requeue([parked.id for parked in parking.all()]) == [], "there is no queue to go back to"
    (tag,) = server.zrange(prefix + "unacked_index", 0, -1)
    assert tag not in (b"0", b"1", b"2", b"3", b"tag"), "the note is of who has it now"
    assert taker.taken[0].headers["redelivered"]


def test_the_lock_of_one_that_was_killed_while_it_looked_for_the_dead_is_gone_within_seconds(
    prefix: str, server: redis.Redis, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redis.lock.Lock.release", lambda _: None)  # who is killed gives nothing back

    taker.channel.connection.cycle.maybe_restore_messages()

    assert 0 < server.pttl(prefix + "unacked_mutex") <= 10_000


def test_what_is_parked_is_dropped_or_put_back_by_its_id(queue: str, server: redis.Redis, parking: Parking) -> None:
    first, second, third = (parking.park(queue, item, unfit.bad_task()) for item in (b"1", b"\xff", b"3"))

    assert parking.requeue([second.id, "none"]) == [second.id]
    assert parking.drop([first.id]) == [first.id]

    assert parking.all() == [third]
    assert server.lrange(queue, 0, -1) == [b"\xff"]


def test_what_others_have_written_into_the_list_of_what_is_parked_is_shown_and_dropped_with_the_rest(
    prefix: str, queue: str, server: redis.Redis, parking: Parking
) -> None:
    ours = parking.park(queue, b"1", unfit.bad_task())
    not_base64 = json.dumps({**asdict(ours), "item": "A"}).encode()
    entries = [b"hello", b"7", b"\xff\x00", b'{"id": "1"}', not_base64]
    for entry in entries:
        server.rpush(prefix + "parked", entry)

    first, *odd = parking.all()
    ids = [parked.id for parked in odd]

    assert first == ours
    assert [(parked.content, parked.code) for parked in odd] == [(entry, Unfit.BAD_ENTRY) for entry in entries]
    assert len({ours.id, *ids}) == 6
    assert parking.requeue(ids) == [], "there is no queue to go back to"
    assert parking.drop([*ids, ours.id]) == [ours.id, *ids]
    assert parking.count() == 0


def test_of_what_is_parked_the_newest_are_kept(queue: str, parking: Parking) -> None:
    for number in range(MOST + 2):
        parking.park(queue, str(number).encode(), unfit.bad_task())

    assert parking.count() == MOST
    assert parking.all()[-1].content == b"2"


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # how Celery stores a result
def test_a_reply_is_stored_though_redis_is_gone_while_an_earlier_one_is_looked_for(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    backend: Any = app.backend
    get = backend.client.get

    def is_back_at_the_third(key: str) -> Any:
        looks.append(key)
        if len(looks) < 3:
            raise redis.exceptions.ConnectionError("Connection refused")
        return get(key)

    monkeypatch.setattr(backend.client, "get", is_back_at_the_third)

    backend.store_result("1", {"code": "ok"}, "SUCCESS")

    assert len(looks) == 3
    assert backend.get_task_meta("1")["result"] == {"code": "ok"}


def test_a_write_that_goes_round_again_while_redis_takes_nothing_is_handed_out_again(
    app: Celery, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery's retry would drop it: it rejects for good what it cannot send again (5.7)."""
    app.loader.import_default_modules()
    task: Any = app.tasks[TaskName.ADD_TO_INDEX]
    monkeypatch.setattr(task, "run", partial(raises, Transient(Code.UNAVAILABLE, "Postgres is away")))
    task.push_request(id="1", args=[{}], kwargs={}, delivery_info={"routing_key": QUEUE}, called_directly=False)
    server.config_set("maxmemory", 1)

    try:
        with pytest.raises(Reject) as rejected:
            task({})
    finally:
        task.pop_request()

    refused: Any = rejected.value
    assert refused.requeue


def raises(exc: Exception, *_: Any) -> None:
    raise exc


ANSWERS = [
    "READONLY You can't write against a read only replica.",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "NOREPLICAS Not enough good replicas to write.",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "NOPERM this user has no permissions to run the 'brpop' command",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "BUSY Redis is busy running a script.",
    "EXECABORT Transaction discarded because of previous errors.",
    "CLUSTERDOWN Hash slot not served",
    "MOVED 1234 127.0.0.1:6380",
    "ERR max number of clients reached",
    "ERR unknown command 'BRPOP'",
]


@pytest.mark.parametrize("transport", [Transport, SentinelTransport])
@pytest.mark.parametrize("answer", ANSWERS, ids=lambda words: words.split()[0])
def test_whatever_redis_answers_instead_of_serving_counts_as_a_lost_connection(
    answer: str, transport: type[virtual.Transport]
) -> None:
    parser: Any = BaseParser

    assert isinstance(parser.parse_error(answer), transport.connection_errors)


@pytest.mark.parametrize("end", ["ack", "reject", "requeue"])
def test_what_cannot_be_acknowledged_as_redis_is_away_is_in_hand_no_longer(
    queue: str, prefix: str, server: redis.Redis, taker: Taker, end: str
) -> None:
    """Or it keeps its place for ever, and a worker whose places are all kept takes nothing more, nor does kombu notice
    then that its connection is gone (5.7). Its note stays in Redis, and it is handed out again."""
    for tag in ("one", "two"):
        server.lpush(queue, item([[], {}, {}], named=tag))
    taker.channel.basic_qos(0, 2, False)
    taker.until(lambda: len(taker.taken) == 2)
    assert not taker.channel.qos.can_consume()

    lost = redis.exceptions.ConnectionError("away")
    for one in taker.taken:
        with patch.object(redis.client.Pipeline, "execute", side_effect=lost), pytest.raises(redis.ConnectionError):
            getattr(one, end)()

    assert taker.channel.qos.can_consume()
    assert server.hlen(f"{prefix}unacked") == 2
