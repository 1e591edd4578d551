"""Files and messages as strangers send them, all at once: each with its code, and nothing else the worse for it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from producer_client import NewPhoto, Photo, contract
from producer_client.contract import Code
from producer_client.contract import Refused as PhotoRefused
from producer_client.errors import BadRequest
from producer_client.positions import Position
from tests.conftest import ENCODER, server_dir, until, without_torch
from tests.zoo import files, messages
from tests.zoo.messages import EXPIRED, FINE, MESSAGES, PHOTOS, QUEUE, UNTOLD, Answered, Refused
from worker.encoder import images
from worker.errors import PhotoRefusal
from worker.parking import Parking
from worker.settings import Settings
from worker.stack import Stack
from worker.storage.source import PhotoFiles
from worker.unfit import Unfit

PATIENCE_S = 90.0
LIMITS: dict[str, Any] = {"side": 224, "max_megapixels": 100.0}

# --------------------------------------------------------------------------------------------- each alone


def read(content: bytes) -> files.Outcome:
    try:
        decoded = images.decode(content, **LIMITS)
    except PhotoRefusal as exc:
        return Code(exc.code)
    height, width, _ = decoded.pixels.shape
    return files.Taken((width, height), None if isinstance(decoded.position, Position) else decoded.position)


def fetched(path: str, root: Path) -> files.Outcome:
    photo = Photo(path=path)
    try:
        photo.check()
        return read(PhotoFiles(Settings(photo_roots=(root,))).fetch(photo))
    except (BadRequest, PhotoRefusal) as exc:
        return Code(exc.code)


def test_the_zoo_has_sixty_files_and_sixty_messages() -> None:
    assert len(files.CONTENTS) + len(files.PLACES) >= 60
    assert len(MESSAGES) >= 60
    assert len(PHOTOS) >= 30


@pytest.mark.parametrize("name", files.CONTENTS)
def test_a_strange_file_is_a_photo_of_its_size_or_has_its_code(name: str) -> None:
    make, outcome = files.CONTENTS[name]

    assert read(make()) == outcome


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", files.PLACES)
def test_a_strange_place_is_read_or_has_its_code(name: str, tmp_path: Path) -> None:
    put, outcome = files.PLACES[name]
    (tmp_path / "a good one.jpg").write_bytes(files.GOOD)

    assert fetched(put(tmp_path), tmp_path) == outcome


# ------------------------------------------------------------------------------------------------ all at once


class Nobody:
    """A server on this machine that a worker must not ask."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.asked = 0
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                self._listening.accept()[0].close()
            except OSError:
                return
            self.asked += 1

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture(scope="module")
def nobody() -> Iterator[Nobody]:
    nobody = Nobody()
    yield nobody
    nobody.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    (folder / "a good one.jpg").write_bytes(files.GOOD)
    return folder


@pytest.fixture(scope="module")
def zoo(root: Path) -> Iterator[Stack]:
    """One worker, and nothing that would start it again."""
    with server_dir() as folder:
        settings = Settings(
            data_dir=folder,
            photo_roots=(root,),
            encoder=ENCODER,
            concurrency=4,
            url_hosts=tuple(messages.HOSTS),
            url_schemes=("http", "https", "s3", "file"),
            **without_torch(),
        )
        with Stack(settings, log_dir=folder / "logs", port=0) as running:
            running.start("worker")
            running.wait_ready()
            yield running
            assert [process.exit_code for process in running.processes] == [None]


def told(outcome: Any) -> Any:
    return outcome.code if isinstance(outcome, PhotoRefused) else outcome.position_issue


def test_every_strange_file_of_one_message_has_its_own_outcome_and_the_good_ones_between_are_stored(
    zoo: Stack, root: Path
) -> None:
    """None of the batch is lost by the worst of it."""
    expected: dict[str, Any] = {}
    batch = []

    def take(name: str, path: str, outcome: files.Outcome) -> None:
        expected[name] = outcome.issue if isinstance(outcome, files.Taken) else outcome
        batch.append(NewPhoto(name, Photo(path=path)))

    for number, (name, (make, outcome)) in enumerate(files.CONTENTS.items()):
        (root / f"{number}.jpg").write_bytes(make())
        take(name, str(root / f"{number}.jpg"), outcome)
        if number % 20 == 0:
            take(f"good {number}", str(root / "a good one.jpg"), files.TAKEN)
    for name, (put, outcome) in files.PLACES.items():
        take(f"place: {name}", put(root), outcome)

    wire = contract.AddToIndex(photos=[photo.to_wire() for photo in batch]).to_wire()
    with zoo.client(timeout_s=PATIENCE_S) as client:
        outcomes = client.add_many(batch)

    assert len(wire["photos"]) <= contract.MAX_PHOTOS_PER_MESSAGE
    assert {outcome.ref: told(outcome) for outcome in outcomes} == expected


def items(nobody: Nobody, root: Path) -> dict[str, tuple[bytes, messages.Outcome]]:
    """By the id of each."""
    made = {f"message: {name}": (make(f"message: {name}"), outcome) for name, (make, outcome) in MESSAGES.items()}
    for name, (photo, refused) in PHOTOS.items():
        named = {key: _filled(value, nobody, root) for key, value in photo.items()}
        made[f"photo: {name}"] = (messages.add(named)(f"photo: {name}"), refused)
    return made


def _filled(value: Any, nobody: Nobody, root: Path) -> Any:
    return value.replace("{port}", str(nobody.port)).replace("{root}", str(root)) if isinstance(value, str) else value


def answer(server: redis.Redis, key: str) -> messages.Outcome | None:
    lies = server.get(key)
    if lies is None:
        return None
    said = json.loads(lies)
    if said["status"] == "REVOKED":
        return EXPIRED
    if said["status"] == "FAILURE":
        return str(said["result"])
    result = said["result"]
    if not result["ok"]:
        return Answered(Code(result["error"]["code"]))
    outcomes = result["reply"].get("outcomes", [])
    refused = [Refused(Code(outcome["code"])) for outcome in outcomes if outcome["status"] == "refused"]
    return refused[0] if refused else FINE


def test_one_worker_answers_or_parks_every_strange_message_and_then_answers_a_good_one(
    zoo: Stack, root: Path, nobody: Nobody
) -> None:
    made = items(nobody, root)
    prefix = zoo.settings.key_prefix
    (process,) = zoo.processes
    before_mb = psutil.Process(process.pid).memory_info().rss / 1e6
    with redis.Redis.from_url(zoo.settings.broker_url) as server, zoo.client(timeout_s=PATIENCE_S) as client:
        parking = Parking(server, prefix=prefix)
        server.lpush(prefix + QUEUE, *[item for item, _ in made.values()])
        until(lambda: server.llen(prefix + QUEUE) == 0 == server.hlen(prefix + "unacked"), PATIENCE_S)

        client.stats()
        parked = {one.content: one.code for one in parking.all()}
        became = {
            name: parked.get(item) or answer(server, f"{prefix}celery-task-meta-{name}") or UNTOLD
            for name, (item, _) in made.items()
        }
        count = parking.count()
        parking.drop([one.id for one in parking.all()])

    assert became == {name: outcome for name, (_, outcome) in made.items()}
    assert count == sum(isinstance(outcome, Unfit) for _, outcome in made.values()), "none twice"
    assert nobody.asked == 0
    assert psutil.Process(process.pid).memory_info().rss / 1e6 < before_mb + 300
