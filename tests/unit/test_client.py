"""What the client puts on the wire, and what it keeps of the replies. A fake broker is enough."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import fakeredis
import pytest
import redis

from producer_client import (
    BadRequest,
    Code,
    Handle,
    Near,
    NewPhoto,
    Pending,
    Photo,
    PhotoRefused,
    Provenance,
    Refused,
    Sightline,
    TimedOut,
    TryAgain,
    contract,
)
from producer_client.compat import CLIPSimilarityService
from producer_client.ids import SENT, now_ms
from producer_client.session import Session


@pytest.fixture
def broker() -> Iterator[redis.Redis]:
    server = fakeredis.TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with redis.Redis(host="127.0.0.1", port=server.server_address[1]) as connection:
        yield connection
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(broker: redis.Redis) -> Iterator[Sightline]:
    port = broker.connection_pool.connection_kwargs["port"]
    with Sightline(f"redis://127.0.0.1:{port}/0") as connected:
        yield connected


def sent(broker: redis.Redis, queue: str) -> tuple[dict[str, Any], dict[str, Any], int]:
    """(message, headers, bytes of the message) of the one message on a queue."""
    (raw,) = broker.lrange(f"sightline:{queue}", 0, -1)
    envelope = json.loads(raw)
    body = base64.b64decode(envelope["body"])
    (message,), _, _ = json.loads(body)
    return message, envelope["headers"], len(body)


def test_adding_a_photo_is_one_small_json_message_on_the_interactive_queue(
    client: Sightline, broker: redis.Redis
) -> None:
    client.submit_add_to_index(path="/photos/2026/11/23/01.jpg", lat=55.7, lon=13.2, provenance="exif_gps")

    message, headers, size = sent(broker, "interactive")
    assert headers["task"] == "sightline.add_to_index"
    assert message["v"] == 1
    assert message["photos"][0]["photo"]["path"] == "/photos/2026/11/23/01.jpg"
    assert message["photos"][0]["provenance"] == "exif_gps"
    assert size < 500
    assert headers["expires"] is None, "a write is never dropped for its age"
    assert 0 <= now_ms() - headers[SENT] < 10_000


def test_a_question_expires_with_the_patience_of_its_caller(client: Sightline, broker: redis.Redis) -> None:
    client.submit_search(path="/a.jpg", near=Near(1.0, 2.0, 300.0), timeout_s=5)

    message, headers, _ = sent(broker, "interactive")
    assert message["near"] == {"lat": 1.0, "lon": 2.0, "radius_m": 300.0}
    assert headers["expires"] is not None


def test_a_rebuild_goes_to_its_own_queue(client: Sightline, broker: redis.Redis) -> None:
    client.submit_rebuild_index()

    assert sent(broker, "index")[1]["task"] == "sightline.rebuild_index"


def test_a_photos_bytes_travel_only_when_given(client: Sightline, broker: redis.Redis) -> None:
    client.submit_embed(content=b"\xff\xd8 bytes")

    message, _, _ = sent(broker, "interactive")
    assert base64.b64decode(message["photos"][0]["photo"]["inline"]) == b"\xff\xd8 bytes"
    assert "bytes" in message["photos"][0]["ref"]


def test_bulk_messages_hold_64_photos_which_are_on_their_way_without_a_reply(
    client: Sightline, broker: redis.Redis
) -> None:
    items = [NewPhoto(str(i), Photo(path=f"/{i}.jpg"), 1.0, 2.0, Provenance.SURVEYED) for i in range(64 * 9)]

    outcomes = client.add_many(items, timeout_s=0)

    assert [o.ref for o in outcomes] == [item.ref for item in items]
    assert {type(o) for o in outcomes} == {Pending}
    assert {o.code for o in outcomes if isinstance(o, Pending)} == {Code.TIMED_OUT}
    assert broker.llen("sightline:bulk") == 9
    for raw in broker.lrange("sightline:bulk", 0, -1):
        (message,), _, _ = json.loads(base64.b64decode(json.loads(raw)["body"]))
        assert len(message["photos"]) == 64


def test_a_list_that_nobody_answers_is_waited_for_once_and_its_rest_is_not_sent(
    client: Sightline, broker: redis.Redis
) -> None:
    items = [NewPhoto(str(i), Photo(path=f"/{i}.jpg"), 1.0, 2.0, Provenance.SURVEYED) for i in range(64 * 12)]
    started = time.monotonic()

    outcomes = client.add_many(items, timeout_s=2)

    assert time.monotonic() - started < 8, "once for all that is on its way, not for each message"
    assert [o.ref for o in outcomes] == [item.ref for item in items]
    assert [type(o) for o in outcomes] == [Pending] * (64 * 8) + [Refused] * (64 * 4)
    assert {o.code for o in outcomes if isinstance(o, Pending | Refused)} == {Code.TIMED_OUT}
    assert all("within 2 s" in o.message for o in outcomes if isinstance(o, Pending | Refused))
    assert broker.llen("sightline:bulk") == 8


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # how Celery stores a result
def test_a_message_that_nobody_answers_keeps_none_back_that_is_answered(client: Sightline, broker: redis.Redis) -> None:
    """As where one of two workers was killed: what it has in hand comes back later, and the other goes on."""
    items = [NewPhoto(str(i), Photo(path=f"/{i}.jpg"), 1.0, 2.0, Provenance.SURVEYED) for i in range(64 * 12)]
    done = threading.Event()

    def answer_all_but_the_first() -> None:
        for number in count():
            while (raw := broker.rpop("sightline:bulk")) is None:
                if done.wait(0.005):
                    return
            if number:
                assert isinstance(raw, bytes)
                envelope = json.loads(raw)
                task_id = envelope["headers"]["id"]
                (message,), _, _ = json.loads(base64.b64decode(envelope["body"]))
                outcomes = [stored(1, photo["ref"]) for photo in message["photos"]]
                reply = {"ok": True, "reply": contract.AddReply(outcomes=list(outcomes), model_key="m").to_wire()}
                client._line().replies._store.store_result(task_id, reply, "SUCCESS")

    worker = threading.Thread(target=answer_all_but_the_first)
    worker.start()
    try:
        outcomes = client.add_many(items, timeout_s=2)
    finally:
        done.set()
        worker.join()

    assert [type(o) for o in outcomes] == [Pending] * 64 + [contract.Stored] * (64 * 11)


# ---------------------------------------------------------------------------------------- what it has seen


def stored(seq: int, ref: str = "a") -> contract.Stored:
    return contract.Stored(ref, photo_id=seq, seq=seq, content_sha256="")


REFUSED = Refused("b", Code.EMPTY_FILE, "it is empty")
ANSWER = contract.Answer(contract.Answer.ABSTAINED, reason=contract.Reason.NOTHING_SIMILAR)
REBUILT = contract.RebuildReply(2, 7, 1, 1, 0, 0, 1, 4, "model", "model@1", "cpu", 0.1, "exact", 1.0, 100)
STATS = contract.StatsReply(
    "model", "model@1", 4, "cpu", False, 1, 1, 1, 0, None, 0, None, None, None, 1, None, None, 0, 0, 7, 0, 0, 1.0, None
)

#: Every verb whose reply names a seq, with a reply that names 7.
NAMES_7: dict[str, tuple[Callable[[Sightline], Handle[Any]], contract.Message]] = {
    "add": (lambda c: c.submit_add_to_index(path="/a.jpg"), contract.AddReply([stored(7)], "model@1")),
    "remove": (
        lambda c: c.submit_remove([1, 2]),
        contract.RemoveReply([contract.Removed("1", 1, 7, True), contract.Removed("2", 2, 6, False)]),
    ),
    "purge": (lambda c: c.submit_purge(1), contract.PurgeReply([REFUSED, contract.Purged("1", 1, 7, True, [])])),
    "confirm": (lambda c: c.submit_confirm(1), contract.ConfirmReply([REFUSED, contract.Confirmed("1", 1, 7)])),
    "reject": (lambda c: c.submit_reject(1), contract.RejectReply([REFUSED, contract.Rejected("1", 1, 7)])),
    "search": (lambda c: c.submit_search(path="/a.jpg"), contract.SearchReply([], None, 7, "model@1", 1.0)),
    "locate": (lambda c: c.submit_locate(path="/a.jpg"), contract.LocateReply(ANSWER, None, 7, "model@1", 1.0)),
    "locating": (
        lambda c: c.locating(c.submit_locate(path="/a.jpg").task_id),
        contract.LocateReply(ANSWER, None, 7, "model@1", 1.0),
    ),
    "rebuild": (lambda c: c.submit_rebuild_index(), REBUILT),
    "stats": (lambda c: c.submit_stats(), STATS),
}


def answer(broker: redis.Redis, task_id: str, reply: contract.Message | dict[str, Any]) -> None:
    """As a worker that is done with it."""
    wire = reply if isinstance(reply, dict) else contract.ok(reply)
    kept = json.dumps({"task_id": task_id, "status": "SUCCESS", "result": wire, "traceback": None})
    broker.set(f"sightline:celery-task-meta-{task_id}", kept)
    broker.publish(f"sightline:celery-task-meta-{task_id}", kept)


def min_seq_of(broker: redis.Redis, ask: Callable[[], object]) -> int:
    """What the question says that must have been seen."""
    broker.delete("sightline:interactive")
    ask()
    message, _, _ = sent(broker, "interactive")
    return int(message["min_seq"])


def heard_of(broker: redis.Redis, client: Sightline, **asked: Any) -> Any:
    """The word that a question carries."""
    words = []
    for ask in (client.submit_search, client.submit_locate):
        broker.delete("sightline:interactive")
        ask(path="/b.jpg", **asked)
        words.append(sent(broker, "interactive")[0]["heard"])
    assert words[0] == words[1]
    return words[0]


@pytest.mark.parametrize("verb", NAMES_7)
def test_questions_carry_another_word_when_something_may_have_been_written(
    client: Sightline, broker: redis.Redis, verb: str
) -> None:
    """Also where the seq is no higher: after a restore of the database seqs come again."""
    submit, reply = NAMES_7[verb]
    client.join(7)
    before = heard_of(broker, client)

    handle = submit(client)
    answer(broker, handle.task_id, reply)
    handle.wait()

    assert before
    assert heard_of(broker, client) == heard_of(broker, client)
    assert (heard_of(broker, client) == before) == (verb in ("search", "locate", "locating"))


def test_who_has_seen_nothing_or_asks_for_less_sends_no_word(client: Sightline, broker: redis.Redis) -> None:
    assert heard_of(broker, client) is None
    client.join(7)
    assert heard_of(broker, client)
    assert heard_of(broker, client, min_seq=0) is None


@pytest.mark.parametrize("ends_at", [5, 7, 9])
def test_a_client_whose_writes_are_lost_begins_anew_where_the_log_ends(
    client: Sightline, broker: redis.Redis, ends_at: int
) -> None:
    client.join(7)

    handle = client.submit_locate(path="/b.jpg")
    answer(broker, handle.task_id, contract.failed(Code.STALE, "it ends there", ends_at))
    with pytest.raises(TryAgain) as caught:
        handle.wait()

    assert (caught.value.code, caught.value.seq) == (Code.STALE, ends_at)
    assert client.session == min(7, ends_at)
    assert min_seq_of(broker, lambda: client.submit_locate(path="/b.jpg")) == min(7, ends_at)


def test_a_chains_next_task_begins_anew_too(client: Sightline) -> None:
    client.join(7)

    with pytest.raises(TryAgain):
        client.read_reply(contract.failed(Code.UNAVAILABLE, "away"), contract.StatsReply.from_wire)
    assert client.session == 7
    with pytest.raises(TryAgain):
        client.read_reply(contract.failed(Code.STALE, "it ends there", 5), contract.StatsReply.from_wire)
    assert client.session == 5


@pytest.mark.parametrize("verb", NAMES_7)
def test_questions_see_what_any_reply_has_told_of(client: Sightline, broker: redis.Redis, verb: str) -> None:
    submit, reply = NAMES_7[verb]
    before = min_seq_of(broker, lambda: client.submit_locate(path="/b.jpg"))

    handle = submit(client)
    answer(broker, handle.task_id, reply)
    handle.wait()

    assert (before, client.session) == (0, 7)
    assert min_seq_of(broker, lambda: client.submit_locate(path="/b.jpg")) == 7
    assert min_seq_of(broker, lambda: client.submit_search(path="/b.jpg")) == 7


def test_an_older_reply_takes_nothing_back(client: Sightline, broker: redis.Redis) -> None:
    for seq in (9, 8):
        handle = client.submit_add_to_index(path="/a.jpg")
        answer(broker, handle.task_id, contract.AddReply([stored(seq)], "model@1"))
        handle.wait()

    assert client.session == 9


def test_a_reply_that_is_awaited_counts(client: Sightline, broker: redis.Redis) -> None:
    async def awaited(handle: Handle[Any]) -> Any:
        return await handle

    handle = client.submit_add_to_index(path="/a.jpg")
    answer(broker, handle.task_id, contract.AddReply([stored(7)], "model@1"))
    asyncio.run(awaited(handle))

    assert client.session == 7


def test_a_reply_that_was_waited_for_in_vain_counts_when_it_is_there(client: Sightline, broker: redis.Redis) -> None:
    handle = client.submit_add_to_index(path="/a.jpg")
    with pytest.raises(TimedOut):
        handle.wait(0.01)
    before = client.session

    answer(broker, handle.task_id, contract.AddReply([stored(7)], "model@1"))
    handle.wait()

    assert (before, client.session) == (0, 7)


def test_the_photos_of_a_list_count_whatever_became_of_their_neighbours(client: Sightline, broker: redis.Redis) -> None:
    items = [NewPhoto(str(i), Photo(path=f"/{i}.jpg")) for i in range(65)]
    adding = threading.Thread(target=client.add_many, args=(items,))
    adding.start()
    replies = [contract.AddReply([stored(11), REFUSED], "model@1"), contract.AddReply([REFUSED, stored(10)], "model@1")]
    for reply in replies:
        taken = broker.blpop(["sightline:bulk"])
        assert taken is not None
        answer(broker, json.loads(taken[1])["headers"]["id"], reply)
    adding.join()

    assert client.session == 11


def test_a_refused_photo_moves_nothing(client: Sightline, broker: redis.Redis) -> None:
    handle = client.submit_add_to_index(path="/a.jpg")
    answer(broker, handle.task_id, contract.AddReply([REFUSED], "model@1"))
    with pytest.raises(PhotoRefused):
        handle.wait()

    assert client.session == 0


def test_less_may_be_asked_and_more(client: Sightline, broker: redis.Redis) -> None:
    client.join(7)

    assert min_seq_of(broker, lambda: client.submit_search(path="/b.jpg", min_seq=0)) == 0
    assert min_seq_of(broker, lambda: client.submit_locate(path="/b.jpg", min_seq=0)) == 0
    assert min_seq_of(broker, lambda: client.submit_locate(path="/b.jpg", min_seq=9)) == 9
    assert client.session == 7


def test_a_session_goes_to_other_processes_as_plain_json(client: Sightline) -> None:
    client.join(7)
    carried = json.loads(json.dumps(client.session))

    with Sightline("redis://127.0.0.1:1/0", session=carried) as other, Sightline("redis://127.0.0.1:1/0") as third:
        third.join(9)
        third.join(carried)
        service = CLIPSimilarityService(broker_url="redis://127.0.0.1:1/0", session=carried)
        service.close()

        assert (other.session, third.session, service.session) == (7, 9, 7)


def test_a_chains_next_task_hears_the_reply(client: Sightline) -> None:
    reply = client.read_reply(contract.ok(STATS), contract.StatsReply.from_wire)

    assert reply == STATS
    assert client.session == 7


# ------------------------------------------------------------------------------------------- keys in Redis


@pytest.mark.parametrize("prefix", ["", "a:b:", "shop_", "x.", "x-"])
def test_the_prefix_of_keys_may_be_another_or_none(broker: redis.Redis, prefix: str) -> None:
    port = broker.connection_pool.connection_kwargs["port"]
    with Sightline(f"redis://127.0.0.1:{port}/0", key_prefix=prefix) as client:
        asked = client.submit_stats()
        task_id = json.loads(broker.lrange(f"{prefix}interactive", 0, 0)[0])["headers"]["id"]
        kept = {"task_id": task_id, "status": "SUCCESS", "result": contract.ok(STATS), "traceback": None}
        broker.set(f"{prefix}celery-task-meta-{task_id}", json.dumps(kept))

        assert asked.wait(30) == STATS
    assert [key for key in broker.scan_iter() if not key.startswith(prefix.encode())] == []


@pytest.mark.parametrize("prefix", ["sightline", "a b:", "*:", "a:\n", "й:", "{a}:", None, 3, b"a:"])
def test_what_is_no_prefix_is_said_at_once(prefix: Any) -> None:
    with pytest.raises(BadRequest, match="key_prefix"):
        Sightline("redis://127.0.0.1:1/0", key_prefix=prefix)


def test_what_looks_like_a_type_of_kombus_is_sent_as_it_is(client: Sightline, broker: redis.Redis) -> None:
    metadata = {"a": {"__type__": "thing", "__value__": "Орхус"}}

    client.submit_add_to_index(path="/a.jpg", metadata=metadata)

    (raw,) = broker.lrange("sightline:interactive", 0, -1)
    envelope = json.loads(raw)
    assert envelope["content-type"] == "application/vnd.sightline+json"
    assert "Орхус".encode() in base64.b64decode(envelope["body"])
    assert sent(broker, "interactive")[0]["photos"][0]["metadata"] == metadata


@pytest.mark.parametrize("given", [-1, 2**63, "7", 7.0, True, None])
def test_what_is_no_session_is_said_at_once(given: Any) -> None:
    with pytest.raises(BadRequest, match="session"):
        Sightline("redis://127.0.0.1:1/0", session=given)
    with Sightline("redis://127.0.0.1:1/0") as client, pytest.raises(BadRequest, match="session"):
        client.join(given)


class Slow(int):
    """A seq whose comparison lets other threads in between."""

    def __gt__(self, other: int) -> bool:
        threading.Event().wait(0.01)
        return int(self) > int(other)


def test_of_threads_that_hear_at_the_same_time_the_newest_counts() -> None:
    session = Session()
    threads = [threading.Thread(target=session.join, args=(Slow(seq),)) for seq in range(20, 0, -1)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert session.seq == 20


class Written:
    """The table of a backend, and whether anything was sent before its rows were written."""

    def __init__(self, broker: redis.Redis) -> None:
        self.broker = broker
        self.rows: list[tuple[str | None, float | None]] = []

    def __call__(self, photos: Sequence[NewPhoto]) -> list[int]:
        assert not self.broker.keys("sightline:*"), "a message went before its rows"
        self.rows += [(one.photo.path or one.photo.url, one.lat) for one in photos]
        return [100 + n for n, _ in enumerate(photos)]


def durable(broker: redis.Redis, write_rows: Callable[[Sequence[NewPhoto]], Any] | None) -> Sightline:
    return Sightline(f"redis://127.0.0.1:{broker.connection_pool.connection_kwargs['port']}/0", write_rows=write_rows)


def named(message: dict[str, Any]) -> list[Photo]:
    return [Photo.from_wire(photo["photo"]) for photo in message["photos"]]


PLACED: dict[str, Any] = {"lat": 1.0, "lon": 2.0, "provenance": Provenance.SURVEYED}


def test_a_durable_photo_has_its_row_before_its_message_which_names_it(broker: redis.Redis) -> None:
    written = Written(broker)
    with durable(broker, written) as client:
        client.submit_add_to_index(path="/a.jpg", durable=True, **PLACED)
        message, _, _ = sent(broker, "interactive")

    assert written.rows == [("/a.jpg", 1.0)]
    assert named(message) == [Photo(photo_id=100, path="/a.jpg")]


def test_of_many_durable_ones_those_without_a_row_get_one_and_what_no_row_can_hold_is_refused(
    broker: redis.Redis,
) -> None:
    written = Written(broker)
    new = [
        NewPhoto("row", Photo(photo_id=7)),
        NewPhoto("url", Photo(url="https://a/b.jpg"), **PLACED),
        NewPhoto("nowhere", Photo(path="/a.jpg")),
        NewPhoto("bytes", Photo(inline="AAAA"), **PLACED),
    ]
    with durable(broker, written) as client:
        outcomes = client.add_many(new, durable=True, timeout_s=0)
        message, _, _ = sent(broker, "bulk")

    assert written.rows == [("https://a/b.jpg", 1.0)]
    assert named(message) == [Photo(photo_id=7), Photo(photo_id=100)]
    assert [type(outcome) for outcome in outcomes] == [Pending, Pending, Refused, Refused]
    assert [o.code for o in outcomes if isinstance(o, Refused)] == [Code.BAD_REQUEST, Code.BAD_REQUEST]


def test_nothing_is_sent_of_a_durable_photo_whose_row_is_not_written(broker: redis.Redis) -> None:
    def fails(photos: Sequence[NewPhoto]) -> list[int]:
        raise ConnectionRefusedError("no Postgres")

    with durable(broker, fails) as client, pytest.raises(ConnectionRefusedError):
        client.submit_add_to_index(path="/a.jpg", durable=True, **PLACED)
    for odd in (None, lambda photos: [], lambda photos: ["1"]):
        with durable(broker, odd) as client, pytest.raises(BadRequest, match="write_rows"):
            client.submit_add_to_index(path="/a.jpg", durable=True, **PLACED)

    assert not broker.keys("sightline:*")
