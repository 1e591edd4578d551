"""What the client puts on the wire. A fake broker is enough: nobody answers here."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
import redis

from producer_client import Code, Near, NewPhoto, Photo, Provenance, Refused, Sightline


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
    (raw,) = broker.lrange(queue, 0, -1)
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


def test_bulk_messages_hold_64_photos_and_refuse_their_own_without_a_reply(
    client: Sightline, broker: redis.Redis
) -> None:
    items = [NewPhoto(str(i), Photo(path=f"/{i}.jpg"), 1.0, 2.0, Provenance.SURVEYED) for i in range(64 * 9)]

    outcomes = client.add_many(items, timeout_s=0.1)

    assert [o.ref for o in outcomes] == [item.ref for item in items]
    assert {o.code for o in outcomes if isinstance(o, Refused)} == {Code.TIMED_OUT}
    assert broker.llen("bulk") == 9
    for raw in broker.lrange("bulk", 0, -1):
        (message,), _, _ = json.loads(base64.b64decode(json.loads(raw)["body"]))
        assert len(message["photos"]) == 64
