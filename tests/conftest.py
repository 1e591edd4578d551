"""Real servers, a real model and real worker processes, started once and shared; a schema of its own for each test."""

from __future__ import annotations

import csv
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
import redis
from celery import Celery
from hypothesis import HealthCheck
from hypothesis import settings as properties
from sqlalchemy import Connection, Engine, event, text

from benchmarks.again import Again, digest, of_two
from demo.scenes import write_scenes
from producer_client import Sightline
from tests import waiting
from tests.between import Between, before_postgres
from worker.core.ports import Encoder
from worker.core.types import Decoded, Pixels
from worker.core.vectors import Vectors
from worker.embedded import EmbeddedServers, postgres
from worker.embedded.postgres import Postgres
from worker.embedded.private import Account
from worker.encoder.choice import LEAST_SAMPLE, REFERENCE, Choice, Measured, Sample
from worker.encoder.exported import FLOAT32, Export
from worker.encoder.images import decode
from worker.encoder.keypoints import find_keypoints
from worker.encoder.load import load_encoder, torch_model
from worker.index.folder import GenerationFolder
from worker.index.live import FaissLiveIndex
from worker.library import Library, comparing
from worker.place.geometry import seen_in_both
from worker.quarantine import Quarantine
from worker.settings import Settings
from worker.stack import Stack
from worker.storage.database import SESSION
from worker.storage.migrate import migrate
from worker.storage.source import PhotoFiles
from worker.storage.store import PostgresStore

ROOT = Path(__file__).parents[1]
REAL_PHOTOS = ROOT.parent / "shared" / "photos"
ENCODER = "packaged/efficientnet-lite0"
# Measuring what runs a model takes half a minute for every new folder. test_backends.py and the demo do it.
os.environ["SIGHTLINE_BACKEND"] = REFERENCE
# Commands and workers are started hundreds of times: what one has compiled is there for the next.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# What `nohup`, or a script's background, has ignored would be ignored by all that tests start and end by these signals.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes, or the making of some, says how busy the machine is: neither makes a property false.
properties.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
properties.load_profile("suite")

_numbers = itertools.count(1)
_shared: list[Stack] = []
# A photo's keypoints and vectors, and what two photos have in common: many tests store and compare the same photos.
_known = Again()


@dataclass(frozen=True)
class Scene:
    """One of our rendered photos."""

    path: Path
    place: str
    lat: float
    lon: float


@pytest.fixture(scope="session")
def photo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that workers may read. Tests put their own files under it."""
    return tmp_path_factory.mktemp("photos")


@pytest.fixture(scope="session")
def scenes(photo_root: Path) -> list[Scene]:
    """Four places, six views each."""
    folder = photo_root / "scenes"
    write_scenes(folder, places=4, views=6)
    with (folder / "manifest.csv").open(newline="") as file:
        return [
            Scene((folder / row["file"]).resolve(), row["place"], float(row["lat"]), float(row["lon"]))
            for row in csv.DictReader(file)
        ]


def until(holds: Callable[[], object], patience_s: float = 60.0) -> None:
    """Wait on a condition; the test fails where it never holds."""
    waiting.until(holds, "what was waited for", patience_s)


def plain_celery(settings: Settings) -> Celery:
    """Celery as others use it, kombu's JSON and all, on the queues of these settings."""
    app = Celery(broker=settings.broker_url, backend=settings.replies_url, set_as_current=False)
    keys = {"global_keyprefix": settings.key_prefix}
    app.conf.update(broker_transport_options=keys, result_backend_transport_options=keys)
    return app


def _of_file(content: bytes, decoded: Decoded, **limits: Any) -> tuple[Any, ...]:
    return digest(content), *_of_pixels([decoded.pixels]), *limits.items()


def _of_pixels(photos: Sequence[Pixels]) -> tuple[Any, ...]:
    return tuple((pixels.shape, digest(pixels.tobytes())) for pixels in photos)


find_keypoints_once = _known.once(partial(find_keypoints, decode=decode), _of_file)


@pytest.fixture(scope="session", autouse=True)
def no_power_is_cut() -> Iterator[None]:
    """Whatever is killed here, the machine goes on: that what is written has reached the disk is waited for neither
    at a generation of this process, nor at each commit, start and end of a Postgres."""
    make = Postgres._make

    def unsynced(command: list[str], **how: Any) -> Any:
        return subprocess.run([*command, "--no-sync", "--set=fsync=off"], **how)

    def made(cluster: Postgres, account: Account) -> None:
        with patch.object(postgres, "subprocess", SimpleNamespace(run=unsynced)):
            make(cluster, account)

    with patch.object(Postgres, "_make", made), patch.object(os, "fsync", lambda _: None):
        yield


@pytest.fixture(scope="session", autouse=True)
def compares_no_two_again() -> Iterator[None]:
    with patch.object(comparing, "seen_in_both", _known.once(seen_in_both, of_two)):
        yield


@contextmanager
def server_dir() -> Iterator[Path]:
    """A folder for servers, of a short name: Postgres' socket lies in it then. Below pytest's it lies elsewhere."""
    folder = Path(tempfile.mkdtemp(prefix="sightline-test-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedServers]:
    """A Valkey of the module's own, for tests that stop it, empty it or change its settings."""
    with server_dir() as folder, EmbeddedServers(folder, with_postgres=False) as running:
        yield running


def processes_of(folder: Path) -> list[str]:
    """Processes that work in this folder, or name it in their command."""
    found = psutil.process_iter(["name", "cwd", "cmdline"])
    facts = [f"{p.info['name']} in {p.info['cwd']}: {' '.join(p.info['cmdline'] or [])}" for p in found]
    return [words for words in facts if str(folder) in words]


@pytest.fixture(scope="session")
def servers() -> Iterator[EmbeddedServers]:
    with server_dir() as folder, EmbeddedServers(folder) as running:
        yield running


@pytest.fixture(scope="session")
def encoder() -> Iterator[Encoder]:
    """Photos that were encoded together, by any test, are not encoded together again."""
    model = load_encoder(ENCODER, device="cpu", threads=2)
    encode = _known.once(model.encode_images, _of_pixels)

    def encode_once(photos: Sequence[Pixels]) -> Vectors:
        vectors: Vectors = encode(photos)
        return vectors.copy()

    with patch.object(model, "encode_images", encode_once):
        yield model


@pytest.fixture
def settings(servers: EmbeddedServers, photo_root: Path, tmp_path: Path) -> Settings:
    """Settings with a schema, a photos table and folders that no other test touches."""
    number = next(_numbers)
    return Settings(
        broker_url=servers.broker_url,
        database_url=servers.database_url,
        data_dir=tmp_path,
        photo_roots=(photo_root,),
        db_schema=f"test_{number}",
        photos_table=f"photos_{number}",
        encoder=ENCODER,
        backend=REFERENCE,
        max_staleness_s=0,
    )


@pytest.fixture
def between(settings: Settings) -> Iterator[Between]:
    """The way to Postgres of who has the settings `far`: it can be cut off, or hang."""
    with server_dir() as folder, before_postgres(settings.database_url, folder) as way:
        yield way


@pytest.fixture
def far(settings: Settings, between: Between) -> Settings:
    return settings.model_copy(update={"database_url": between.url})


#: In place of names in what `_migrations` gives.
SCHEMA_THERE, TABLE_THERE = "schema_of_a_test", "photos_of_a_test"
_migrations: list[str] = []


def _make_schema(engine: Engine, settings: Settings) -> None:
    """As `migrate` does, by the statements that it has run once: in half the time, for a thousand tests."""
    if not _migrations:

        @event.listens_for(engine, "before_cursor_execute")
        def note(_: Connection, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
            if not statement.lstrip().startswith("SELECT"):
                _migrations.append(cursor.mogrify(statement, parameters).decode())

        migrate(engine, schema=SCHEMA_THERE, photos_table=TABLE_THERE)
        event.remove(engine, "before_cursor_execute", note)
    script = ";".join(_migrations)
    script = script.replace(SCHEMA_THERE, settings.db_schema).replace(TABLE_THERE, settings.photos_table)
    with engine.begin() as connection:
        connection.connection.cursor().execute(script)


@pytest.fixture
def make_store(settings: Settings) -> Iterator[Callable[..., PostgresStore]]:
    """Stores on this test's schema, migrated: several play several processes."""
    made: list[PostgresStore] = []

    def make(**changed: Any) -> PostgresStore:
        store = PostgresStore(settings.model_copy(update=changed))
        if not made:
            _make_schema(store.database.engine, settings)
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


def is_killed(process: PostgresStore) -> None:
    """What plays a process has no connection any more, and Postgres has seen that."""
    process.close()
    mine = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")
    name = {"name": f"{SESSION} {process.database.process}"}
    with closing(PostgresStore(process.settings)) as other:

        def gone() -> bool:
            with other.database.begin() as connection:
                return not connection.scalar(mine, name)

        until(gone)


@pytest.fixture
def store(make_store: Callable[..., PostgresStore]) -> PostgresStore:
    return make_store()


@pytest.fixture
def make_library(
    settings: Settings, make_store: Callable[..., PostgresStore], encoder: Encoder
) -> Callable[..., Library]:
    """Libraries as the runtime joins them, on this test's schema; parts may be replaced by keyword."""

    def make(**parts: Any) -> Library:
        chosen: Settings = parts.pop("settings", settings)
        model: Encoder = parts.pop("encoder", encoder)
        store = parts.pop("store", None) or make_store()
        folder = parts.pop("generations", None) or GenerationFolder(chosen.generations_dir)
        limits: dict[str, Any] = {"side": model.input_side, "max_megapixels": chosen.max_megapixels}
        joined: dict[str, Any] = {
            "encoder": model,
            "decode": partial(decode, **limits),
            "find_keypoints": partial(find_keypoints_once, **limits),
            "source": PhotoFiles(chosen),
            "store": store,
            "live": FaissLiveIndex(store.log, folder, model_key=model.model_key, dimension=model.dimension),
            "generations": folder,
            "quarantine": Quarantine(store.attempts, after=chosen.quarantine_after),
        }
        return Library.join(chosen, **(joined | parts))

    return make


@pytest.fixture
def library(make_library: Callable[..., Library]) -> Library:
    return make_library()


@cache
def without_torch() -> dict[str, Any]:
    """Settings of workers that start without torch, which takes them two seconds of a core: their model lies exported,
    for all processes of this checkout. Nothing is measured for it, which takes half a minute."""
    from worker.encoder.tower import add_towers

    backend, export = "onnxruntime-float32", Export(ROOT / ".pytest_cache" / "models", ENCODER, "")
    with export.locked():
        if not export.has(FLOAT32):
            model = torch_model(ENCODER, "", "cpu", REFERENCE, threads=2)
            export.describe(model.spec)
            add_towers(export, model)
        known = Sample(np.zeros((LEAST_SAMPLE, 1, 1, 3), np.uint8), known=True)
        for threads in {2, len(os.sched_getaffinity(0))}:
            Choice(export, device="cpu", threads=threads).keep([Measured(backend, 1.0, 1.0, 1.0, 1.0)], known)
    return {"backend": backend, "models_dir": export.folder.parent}


@contextmanager
def whole_stack(photo_root: Path) -> Iterator[Stack]:
    """Servers, a worker, the index process and the beat, as `sightline up` starts them, without a photo yet."""
    with server_dir() as data_dir:
        settings = Settings(
            data_dir=data_dir,
            photo_roots=(photo_root,),
            encoder=ENCODER,
            tick_every_s=2.0,
            # What tests want to see is as they left it.
            reconcile_s=3600.0,
            # Photos of many tests lie in it, of which every rebuild would ask.
            exam_photos=0,
            **without_torch(),
        )
        with Stack(settings, log_dir=data_dir / "logs", port=0) as running:
            running.start_all()
            running.wait_ready()
            yield running


@pytest.fixture(scope="session")
def stack(photo_root: Path) -> Iterator[Stack]:
    """One for all tests that bear each other's photos."""
    with whole_stack(photo_root) as running:
        _shared.append(running)
        yield running
        _shared.clear()


@pytest.fixture(scope="module", autouse=True)
def leaves_no_strange_keys() -> Iterator[None]:
    """Keys that are not ours stay in the shared Redis for the tests of other files, whose order nobody knows."""
    yield
    for running in _shared:
        with redis.Redis.from_url(running.settings.broker_url) as client:
            ours = running.settings.key_prefix.encode()
            assert [key for key in client.scan_iter() if not key.startswith(ours)] == []
            assert client.info("keyspace").keys() <= {f"db{urlsplit(running.settings.broker_url).path.strip('/')}"}


@pytest.fixture
def client(stack: Stack) -> Iterator[Sightline]:
    with stack.client() as connected:
        yield connected


@pytest.fixture
def real_photos() -> Path:
    if not (REAL_PHOTOS / "manifest.csv").exists():
        pytest.skip("the folder of real photos is not beside the project")
    return REAL_PHOTOS
