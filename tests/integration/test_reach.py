"""What the client says when its Redis cannot be used: the address without its password, what is the matter, what to do.

By a real Valkey that is brought into each of these states, and by listeners that are none.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from producer_client import BadRequest, Code, NewPhoto, Photo, Refused, Sightline, TryAgain, Unreachable
from producer_client.line import SILENT_SHARE
from producer_client.reach import reaching, why
from tests.between import before_redis
from tests.integration.test_broker import ANSWERS
from worker.app import create_app
from worker.embedded import EmbeddedServers
from worker.settings import Settings
from worker.words import in_language


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Valkey for this file alone, with its password."""
    with EmbeddedServers(tmp_path_factory.mktemp("valkey"), with_postgres=False) as servers:
        yield servers.broker_url


@pytest.fixture
def valkey(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url) as connection:
        yield connection


def without_password(url: str) -> str:
    return re.sub(r"//.*@", "//", url)


def said_at(url: str, ask: Callable[[Sightline], object]) -> str:
    """What is raised about this address."""
    with Sightline(url) as client, pytest.raises(Unreachable) as caught:
        ask(client)
    assert isinstance(caught.value, TryAgain)
    assert caught.value.code is Code.UNAVAILABLE
    parts = urlsplit(url)
    assert f"{parts.hostname}:{parts.port}" in caught.value.message
    assert (parts.password or "no password") not in caught.value.message
    return caught.value.message


#: To send, and to look for a reply: two parts of the client, with drivers of their own.
ASKS: dict[str, Callable[[Sightline], object]] = {
    "send": lambda client: client.submit_stats(),
    "look": lambda client: client.locating("some id").ready(),
    "wait": lambda client: client.locating("some id").wait(2),
}
asks = pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)


@asks
def test_nobody_listens(ask: Callable[[Sightline], object]) -> None:
    start = time.monotonic()

    said = said_at("redis://:secret@127.0.0.1:1/5", ask)

    assert "nothing listens there" in said
    assert "`sightline up`" in said
    assert "SIGHTLINE_BROKER_URL" in said
    assert time.monotonic() - start < 20


@asks
def test_no_such_host(ask: Callable[[Sightline], object]) -> None:
    assert "no host of this name" in said_at("redis://nowhere.invalid:6379/5", ask)


@asks
def test_no_password_and_a_wrong_one(url: str, ask: Callable[[Sightline], object]) -> None:
    assert "user or password" in said_at(without_password(url), ask)
    assert "user or password" in said_at(re.sub(r"//.*@", "//:wrongword@", url), ask)


@asks
def test_no_such_database(url: str, ask: Callable[[Sightline], object]) -> None:
    assert "no database of that number" in said_at(re.sub(r"/\d+$", "/999", url), ask)


@contextmanager
def listener(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """What is at the address instead of Redis; `answer` has each connection."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"redis://127.0.0.1:{server.getsockname()[1]}/5"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@asks
def test_what_hangs_up_may_expect_tls(ask: Callable[[Sightline], object]) -> None:
    with listener(lambda connection: connection.close()) as url:
        assert "rediss://" in said_at(url, ask)


@asks
def test_a_server_without_tls(ask: Callable[[Sightline], object]) -> None:
    def refuse(connection: socket.socket) -> None:
        with connection:
            connection.recv(64)
            connection.sendall(b"-ERR what is this?\r\n")

    with listener(refuse) as url:
        assert "speaks no TLS" in said_at(url.replace("redis://", "rediss://") + "?ssl_cert_reqs=none", ask)


def test_what_does_not_answer_is_given_up() -> None:
    held: list[socket.socket] = []
    with listener(held.append) as url, Sightline(url) as client:
        store = client._line().replies._store
        store.connparams["socket_timeout"] = 0.1
        took_s = []
        for timeout_s in (0.01, 30):
            start = time.monotonic()
            with pytest.raises(Unreachable, match="nothing answers there"):
                client.locating("some id").wait(timeout_s)
            took_s.append(time.monotonic() - start)
    for connection in held:
        connection.close()
    assert took_s[0] < took_s[1] / 2, "its caller's patience counts"


def test_a_replica(url: str, valkey: redis.Redis) -> None:
    valkey.replicaof("127.0.0.1", "1")
    try:
        assert "replica" in said_at(url, ASKS["send"])
    finally:
        valkey.replicaof("NO", "ONE")


def test_a_user_who_may_not(url: str, valkey: redis.Redis) -> None:
    valkey.acl_setuser(
        "reader", enabled=True, passwords=["+reading"], categories=["+@read", "+@connection"], keys=["*"]
    )
    try:
        assert "ACL" in said_at(re.sub(r"//.*@", "//reader:reading@", url), ASKS["send"])
    finally:
        valkey.acl_deluser("reader")


def test_no_memory_left(url: str, valkey: redis.Redis) -> None:
    before = str(valkey.config_get("maxmemory")["maxmemory"])
    valkey.config_set("maxmemory", "1")
    try:
        assert "memory is full" in said_at(url, ASKS["send"])
    finally:
        valkey.config_set("maxmemory", before)


@asks
def test_as_many_clients_as_it_takes(url: str, valkey: redis.Redis, ask: Callable[[Sightline], object]) -> None:
    before = str(valkey.config_get("maxclients")["maxclients"])
    valkey.ping()
    valkey.config_set("maxclients", "1")
    try:
        assert "maxclients" in said_at(url, ask)
    finally:
        valkey.config_set("maxclients", before)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"), "starting"),
        (redis.exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"), "disk"),
        (redis.exceptions.ConnectionError("something new"), "something new. nothing answers there in time"),
        (redis.exceptions.ResponseError("WRONGTYPE Operation against a key"), "under a name of ours"),
        (redis.exceptions.ResponseError("ERR something new"), "it answers: ERR something new"),
    ],
)
def test_states_that_are_not_brought_about_here(error: Exception, words: str) -> None:
    assert words in why(error)


@pytest.mark.parametrize(
    "error",
    [
        *(redis.exceptions.ResponseError(answer) for answer in ANSWERS),
        redis.exceptions.ConnectionError("Error 111 connecting to h:1. Connection refused."),
        redis.exceptions.ConnectionError("Connection closed by server."),
        redis.exceptions.ConnectionError("Error -2 connecting to h:1. Name or service not known."),
        redis.exceptions.TimeoutError("Timeout reading from h:1"),
        ssl.SSLError("WRONG_VERSION_NUMBER"),
    ],
    ids=str,
)
@pytest.mark.parametrize("url", ["redis://h:1/5", "rediss://h:1/5"])
def test_why_redis_cannot_be_used_is_said_in_russian(
    error: Exception, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unreachable) as raised, reaching(url):
        raise error
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")

    russian = in_language(raised.value.message).replace(str(error), "")

    assert russian.startswith(f"Redis по адресу {url} использовать нельзя: ")
    assert not re.search("[a-z]{2,} [a-z]{2,}", re.sub("`[^`]*`", "", russian)), russian


def test_what_drivers_cannot_read_of_an_address_for_replies_is_said_before_anything_is_sent() -> None:
    url = "redis://:secret@host:6379/5?ssl_cert_reqs=none"
    with pytest.raises(BadRequest, match="ssl_cert_reqs cannot stand behind its question mark") as caught:
        Sightline("redis://host:6379/5", result_backend=url)
    assert "secret" not in caught.value.message


def test_replies_are_looked_for_at_a_socket_of_this_machine(tmp_path: Path) -> None:
    url = f"redis+socket://{tmp_path}/none.sock?virtual_host=5"
    backend: Any = create_app(Settings(broker_url=url)).backend
    with Sightline(url) as client, pytest.raises(redis.ConnectionError, match=r"none\.sock"):
        client._line().replies.look("a task")
    with pytest.raises(redis.ConnectionError, match=r"none\.sock"):
        backend.client.ping()


def test_a_client_goes_on_when_its_redis_is_well_again(url: str, valkey: redis.Redis) -> None:
    with Sightline(url) as client:
        valkey.replicaof("127.0.0.1", "1")
        try:
            with pytest.raises(Unreachable):
                client.submit_stats()
        finally:
            valkey.replicaof("NO", "ONE")
        client.submit_stats()
        valkey.client_kill_filter(_type="normal", skipme=True)
        client.submit_stats()
        assert not client.locating("some id").ready()


@contextmanager
def cut_at(url: str, nth: int) -> Iterator[tuple[str, list[bytes]]]:
    """The address of what passes on to Redis and hangs up, once, in place of the nth thing that a client says; and what
    was said."""
    parts, said = urlsplit(url), list[bytes]()

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", parts.port or 0)) as server:
            while some := client.recv(65536):
                said.append(some)
                if len(said) == nth:
                    return
                server.sendall(some)
                client.sendall(server.recv(65536))

    def accept() -> None:
        while True:
            try:
                client, _ = gate.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as gate:
        threading.Thread(target=accept, daemon=True).start()
        yield url.replace(f":{parts.port}/", f":{gate.getsockname()[1]}/"), said
        gate.shutdown(socket.SHUT_RDWR)


def test_a_connection_that_is_lost_at_any_word_is_made_anew(url: str) -> None:
    """kombu declares a queue before it sends, and tries that anew by itself; the message then went by the channel that
    was lost before, whose error says nothing of Redis (5.7). So what is sent declares nothing."""
    for nth in range(1, 20):
        with cut_at(url, nth) as (through, said), Sightline(through) as client:
            client.submit_stats()
            if len(said) < nth:
                break
    assert 3 < nth < 20, "every word was lost once"


def test_a_redis_that_falls_silent_is_given_up_within_its_callers_patience(url: str) -> None:
    """It takes connections and answers nothing, as one that is stopped. kombu's own tries went on for 51 s (5.7)."""
    with before_redis(url) as way, Sightline(way.url, timeout_s=4) as client:
        waiting = client.submit_stats()
        assert not waiting.ready()
        way.hang()

        for ask in (client.submit_stats, waiting.wait):
            began = time.monotonic()
            with pytest.raises(Unreachable, match="nothing answers there in time"):
                ask()
            assert time.monotonic() - began < 4 + SILENT_SHARE * 4 + 1, "the last look may begin in the last moment"


def test_connections_of_a_client_that_are_half_open_are_made_anew_within_its_callers_patience(url: str) -> None:
    with before_redis(url) as way, Sightline(way.url, timeout_s=4) as client:
        waiting = client.submit_stats()
        assert not waiting.ready()
        way.lose()

        began = time.monotonic()
        client.submit_stats()

        assert time.monotonic() - began < 4


def test_photos_that_could_not_be_sent_are_refused_and_those_before_them_are_on_their_way(
    url: str, valkey: redis.Redis
) -> None:
    items = [NewPhoto(str(n), Photo(path=f"/{n}.jpg")) for n in range(64 * 12)]

    def progress(done: int, _: int) -> None:
        if done == 64:
            valkey.replicaof("127.0.0.1", "1")

    with Sightline(url) as client:
        try:
            outcomes = client.add_many(items, timeout_s=0, progress=progress)
        finally:
            valkey.replicaof("NO", "ONE")

    assert [outcome.ref for outcome in outcomes] == [item.ref for item in items]
    assert [outcome.status for outcome in outcomes] == ["pending"] * 512 + ["refused"] * 256
    assert all("replica" in outcome.message for outcome in outcomes if isinstance(outcome, Refused))


def test_photos_of_which_none_could_be_sent_raise() -> None:
    with Sightline("redis://127.0.0.1:1/5") as client, pytest.raises(Unreachable):
        client.add_many([NewPhoto(str(n), Photo(path=f"/{n}.jpg")) for n in range(200)])
