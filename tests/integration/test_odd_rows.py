"""Rows whose address is JSON of any kind: Postgres has taken it, so a search that finds the photo shows the photo."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import create_engine, text

from producer_client import Near, Sightline
from tests.conftest import Scene
from worker.stack import Stack

#: As it lies in `address_data`, and as a hit has it.
ADDRESSES: dict[str, tuple[str, Any]] = {
    "a type of kombu's": (
        '{"a": {"__type__": "thing", "__value__": 1}}',
        {"a": {"__type__": "thing", "__value__": 1}},
    ),
    "a date of kombu's": (
        '{"__type__": "datetime", "__value__": "2026-11-28"}',
        {"__type__": "datetime", "__value__": "2026-11-28"},
    ),
    "letters": ('{"город": "Орхус 😀"}', {"город": "Орхус 😀"}),
    "a list": ('["Орхус", 1.5]', ["Орхус", 1.5]),
    "a text": ('"Орхус"', "Орхус"),
    "a null": ("null", None),
    "twice the same key": ('{"a": 1, "a": 2}', {"a": 2}),
    "a large number": ("[" + "9" * 300 + "]", [10**300 - 1]),
    "no finite float": ('{"height": 1e400}', {"height": 10**400}),
    "too many digits": ("[" + "9" * 5000 + "]", None),
    "too deep for a message": ("[" * 65 + "]" * 65, None),
    "too deep for Python": ("[" * 3000 + "]" * 3000, None),
    "too large": ('["' + "x" * 70_000 + '"]', None),
}
HERE = (-41.25, 100.5)


@pytest.fixture(scope="module")
def addressed(stack: Stack, photo_root: Path, scenes: list[Scene]) -> Iterator[dict[str, int]]:
    """Photos of these rows, all at one place, in the index: their ids by the kind of their address."""
    folder = photo_root / "odd rows"
    folder.mkdir()
    statement = text(
        "INSERT INTO photos (file_path, lat, lon, location_method, address_data) "
        "VALUES (:path, :lat, :lon, 'gps', CAST(:address AS jsonb)) RETURNING id"
    )
    engine = create_engine(stack.settings.database_url)
    ids = {}
    with engine.begin() as connection:
        for number, (kind, (address, _)) in enumerate(ADDRESSES.items()):
            path = folder / f"{number}.jpg"
            shutil.copy(scenes[0].path, path)
            with path.open("ab") as file:
                file.write(bytes([number]))
            values = {"path": str(path), "lat": HERE[0], "lon": HERE[1], "address": address}
            ids[kind] = connection.execute(statement, values).scalar_one()
    with stack.client() as client:
        for photo_id in ids.values():
            client.add_to_index(photo_id=photo_id)
        yield ids
        # Clients of the release before, which other tests run, break on the types of kombu's wherever they are shown.
        client.purge(list(ids.values()))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM photos WHERE id = ANY(:ids)"), {"ids": list(ids.values())})
    engine.dispose()


def test_a_search_shows_photos_whatever_their_address_is(
    client: Sightline, scenes: list[Scene], addressed: dict[str, int]
) -> None:
    seq = client.stats().seq

    reply = client.search(path=str(scenes[1].path), threshold=-1.0, top_k=1000, near=Near(*HERE, 10.0), min_seq=seq)

    shown = {hit.photo_id: hit.address for hit in reply.hits}
    assert shown == {addressed[kind]: address for kind, (_, address) in ADDRESSES.items()}


@pytest.mark.usefixtures("addressed")
def test_a_reply_lies_in_redis_as_plain_json_in_utf_8(stack: Stack, client: Sightline, scenes: list[Scene]) -> None:
    near = Near(*HERE, 10.0)
    asked = client.submit_search(path=str(scenes[1].path), threshold=-1.0, top_k=1000, near=near, min_seq=1)
    reply = asked.wait()

    with redis.Redis.from_url(stack.settings.broker_url) as keys:
        kept = keys.get(f"{stack.settings.key_prefix}celery-task-meta-{asked.task_id}")

    assert isinstance(kept, bytes)
    assert '"город":"Орхус 😀"'.encode() in kept
    refused: list[str] = []
    read = json.loads(kept, parse_constant=refused.append)
    assert refused == [], "NaN and Infinity are no JSON"
    assert read["result"]["reply"] == reply.to_wire()
