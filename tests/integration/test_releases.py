"""Changes from earlier releases, with their real code: the one before the prefix of keys, and the one before the newest
migration, whose workers go on beside those of this release. Nothing is missed or lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from producer_client import Provenance, Sightline
from tests.conftest import Scene, until
from worker.commands import doctor
from worker.encoder.choice import REFERENCE
from worker.errors import Permanent
from worker.settings import Settings
from worker.stack import Stack

ROOT = Path(__file__).parents[2]
MIGRATIONS = ROOT / "worker" / "storage" / "migrations" / "versions"
#: The last commit before keys had a prefix and messages a serializer of our own.
FORMER = "4340bf1"
#: The last commit before migration 0024, the newest one.
UNMIGRATED, NEWEST = "61d8ec0", "0024"
#: Asks everything of the service, as a backend would, and prints what came back.
ASKS = """
import json, sys
from producer_client import (
    BadRequest, EmbedItem, NewPhoto, Photo, PhotoRefused, Provenance, Sightline, Stored,
)
url, sent_before, first, second, third = sys.argv[1:]
told = {}
with Sightline(url, timeout_s=60) as client:
    told["located"] = client.locating(sent_before).wait().answer.status
    metadata = {"город": "Орхус", "views": [1, 2.5, None]}
    added = client.add_to_index(path=first, lat=1.0, lon=2.0, provenance="surveyed", metadata=metadata)
    many = [NewPhoto(p, Photo(path=p), 1.0, 2.0, Provenance.SURVEYED) for p in (second, "/nowhere.jpg")]
    told["many"] = [type(outcome).__name__ for outcome in client.add_many(many)]
    hits = client.search(path=third, threshold=-1.0, top_k=1000).hits
    told["metadata"] = next(hit.metadata for hit in hits if hit.photo_id == added.photo_id)
    told["answer"] = client.locate(path=third).answer.status
    told["vector"] = len(client.embed(path=third, return_vector=True).vector)
    told["rebuilt"] = client.rebuild_index().indexed
    told["stats"] = client.stats().indexed
    for name, ask in {
        "outside": lambda: client.embed(path="/etc/passwd"),
        "text": lambda: client.embed_text("a street"),
        "unknown": lambda: client.search(photo_id=10**9),
    }.items():
        try:
            ask()
        except (BadRequest, PhotoRefused) as exc:
            told[name] = exc.code
    told["removed"] = [type(outcome).__name__ for outcome in client.remove(added.photo_id).outcomes]
    told["purged"] = [type(outcome).__name__ for outcome in client.purge(added.photo_id).outcomes]
    last = client.add_to_index(path=first)
    told["last"] = [last.photo_id, client.session]
print(json.dumps(told))
"""
SENDS = """
import sys
from producer_client import Sightline
with Sightline(sys.argv[1]) as client:
    print(client.submit_locate(path=sys.argv[2]).task_id)
"""


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checked_out(FORMER, tmp_path_factory.mktemp("former"))


def checked_out(commit: str, folder: Path) -> Path:
    """That release, whole."""
    if subprocess.run(["git", "cat-file", "-e", commit], cwd=ROOT, capture_output=True).returncode:
        pytest.skip(f"this checkout has no history that reaches back to {commit}")
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    return folder


def run_former(former: Path, script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=former,
        env={**os.environ, "PYTHONPATH": str(former)},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def former_place(stack: Stack) -> Settings:
    """Where workers of that release take their messages from; the database of photos is the one that is used on."""
    server = stack.settings.broker_url.rpartition("/")[0]
    return stack.settings.model_copy(update={"broker_url": f"{server}/0", "key_prefix": ""})


@pytest.fixture(scope="module")
def told(stack: Stack, former: Path, former_place: Settings, scenes: list[Scene]) -> dict[str, Any]:
    """What an earlier client is told by a worker of this release; a question was sent while there was no worker."""
    photos = [str(scene.path) for scene in scenes]
    sent_before = run_former(former, SENDS, former_place.broker_url, photos[3]).strip()
    with pytest.raises(Permanent) as caught:
        doctor.keys(stack.settings)
    worker = stack.start("worker", "--queues", "interactive,bulk,index", settings=former_place)
    try:
        said = run_former(former, ASKS, former_place.broker_url, sent_before, *photos[:3])
        # As its last worker leaves it.
        left = doctor.keys(stack.settings)
    finally:
        worker.ask_to_stop()
        worker.wait()
        stack.processes.remove(worker)
        with redis.Redis.from_url(former_place.broker_url) as keys:
            keys.flushdb()
    return {**json.loads(said), "doctor": caught.value.message, "left": left}


def test_a_worker_without_a_prefix_serves_clients_of_the_release_before(told: dict[str, Any]) -> None:
    assert told["located"] in ("located", "abstained"), "what lay in the queue before the change was answered"
    assert told["many"] == ["Stored", "Refused"]
    assert told["metadata"] == {"город": "Орхус", "views": [1, 2.5, None]}
    assert told["answer"] in ("located", "abstained")
    assert told["vector"] == 1280
    assert told["rebuilt"] == told["stats"] > 0
    assert (told["outside"], told["text"], told["unknown"]) == ("outside_roots", "no_text_encoder", "unknown_photo")
    assert (told["removed"], told["purged"]) == (["Removed"], ["Purged"])


def test_doctor_had_named_what_lay_in_the_queue_of_the_release_before(told: dict[str, Any]) -> None:
    assert "database 0" in told["doctor"]
    assert "interactive 1" in told["doctor"]
    assert told["left"].startswith("all begin with"), "and nothing is left"


def test_clients_of_both_releases_see_each_others_photos(
    client: Sightline, scenes: list[Scene], told: dict[str, Any]
) -> None:
    """Each at its own place in Redis; a session is carried over as the number that it is."""
    photo_id, session = told["last"]

    client.join(session)

    found = client.search(path=str(scenes[3].path), threshold=-1.0, top_k=1000)
    assert photo_id in {hit.photo_id for hit in found.hits}


# ------------------------------------------------------------------- before the newest migration


@pytest.fixture
def unmigrated(stack: Stack, tmp_path: Path) -> Iterator[Sightline]:
    """A client whose messages are taken by a worker of before the newest migration, over the database that has it."""
    release, log = checked_out(UNMIGRATED, tmp_path), tmp_path / "worker.log"
    server = stack.settings.broker_url.rpartition("/")[0]
    # Torch gives the same vectors, and asks for no export of this release's.
    place = stack.settings.model_copy(update={"broker_url": f"{server}/0", "backend": REFERENCE})
    command = [sys.executable, "-m", "worker.cli", "worker", "--queues", "interactive,bulk,index"]
    with (
        log.open("w") as said,
        subprocess.Popen(
            command, cwd=release, env={**os.environ, **place.as_env()}, stdout=said, stderr=said
        ) as worker,
    ):
        try:
            with Sightline(place.broker_url, key_prefix=place.key_prefix, timeout_s=60.0) as client:
                yield client
        finally:
            worker.terminate()
            worker.wait(30)
            with redis.Redis.from_url(place.broker_url) as keys:
                keys.flushdb()
    assert "Traceback" not in log.read_text()


def test_a_worker_of_before_the_newest_migration_goes_on_beside_this_release(
    client: Sightline, unmigrated: Sightline, scenes: list[Scene], photo_root: Path
) -> None:
    """As while workers are exchanged one by one: both store, search, rebuild and serve what the other has built."""
    assert max(path.name for path in MIGRATIONS.glob("0*.py")).startswith(NEWEST), "then UNMIGRATED is the one before"
    both = [unmigrated, client]
    ids = []
    for number, one in enumerate(both):
        path = photo_root / f"beside-{number}.jpg"
        # Another last byte: another file.
        path.write_bytes(scenes[number].path.read_bytes() + b"beside")
        ids.append(one.add_to_index(path=path, lat=1.0, lon=2.0, provenance=Provenance.SURVEYED).photo_id)

    def found(one: Sightline) -> set[int]:
        one.join(max(each.session for each in both))
        return {hit.photo_id for hit in one.search(path=scenes[2].path, threshold=-1.0, top_k=1000).hits}

    def serves_everywhere(number: int) -> bool:
        return {one.stats().generation for one in both} == {number}

    assert [set(ids) <= found(one) for one in both] == [True, True]
    for one in both:
        number = one.rebuild_index(force=True).generation
        until(partial(serves_everywhere, number))
        assert [set(ids) <= found(each) for each in both] == [True, True]
    assert {one.locate(path=scenes[3].path).generation for one in both} == {number}
    unmigrated.remove(ids[1])
    client.purge(ids[0])
    assert [set(ids) & found(one) for one in both] == [set(), set()]
