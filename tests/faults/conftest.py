"""A photo server that can be held, and a service whose dead workers' messages come back within seconds."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import create_engine, text

from tests.conftest import ENCODER, Scene, server_dir, without_torch
from tests.waiting import until as until  # of most tests here
from worker.settings import Settings
from worker.stack import Stack
from worker.storage.store import PostgresStore

#: Seconds that anything may take here before the test fails.
PATIENCE_S = 90.0


class Gate:
    """A photo server on loopback that lets requests wait: so a test knows that a task is in the middle of its work."""

    def __init__(self, scenes: list[Scene]) -> None:
        self.open = threading.Event()
        self.asked: Counter[str] = Counter()
        self._photos = {f"/{number}.jpg": scene.path for number, scene in enumerate(scenes)}
        gate = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # http.server's name
                gate.asked[self.path] += 1
                gate.open.wait(PATIENCE_S)
                content = gate._photos[self.path].read_bytes()
                try:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # the process that asked was killed

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, number: int) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/{number}.jpg"

    def close(self) -> None:
        self.open.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def gate(scenes: list[Scene]) -> Iterator[Gate]:
    gate = Gate(scenes)
    yield gate
    gate.close()


@contextmanager
def hasty_stack(photo_root: Path, **more: Any) -> Iterator[Stack]:
    """Servers alone, with settings under which a dead worker's messages come back within seconds."""
    with server_dir() as data_dir:
        settings = Settings(
            data_dir=data_dir,
            photo_roots=(photo_root,),
            encoder=ENCODER,
            concurrency=2,
            visibility_timeout_s=5,
            retry_pause_s=0.2,
            url_hosts=("127.0.0.1",),
            url_schemes=("http",),
            url_private=True,
            **(without_torch() | more),
        )
        with Stack(settings, log_dir=data_dir / "logs", port=0) as running:
            yield running


@pytest.fixture(scope="module")
def servers_of_frail(photo_root: Path) -> Iterator[Stack]:
    with hasty_stack(photo_root) as running:
        yield running


@pytest.fixture
def frail(servers_of_frail: Stack) -> Iterator[Stack]:
    """For a test that ends processes of it: its servers, as empty as at their first start, and no process yet."""
    running, settings = servers_of_frail, servers_of_frail.settings
    running.servers.start_postgres()
    engine = create_engine(settings.database_url)
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {settings.db_schema} CASCADE"))
        connection.execute(text(f"DROP TABLE {settings.photos_table}"))
    engine.dispose()
    with closing(PostgresStore(settings)) as store:
        store.migrate()
    with redis.Redis.from_url(settings.broker_url) as server:
        server.flushall()
    for folder in (settings.generations_dir, settings.data_dir / "logs"):
        shutil.rmtree(folder, ignore_errors=True)
    yield running
    for process in running.processes:
        process.ask_to_stop()
    for process in running.processes:
        process.wait()
    running.processes.clear()


@pytest.fixture(scope="module")
def sturdy(photo_root: Path) -> Iterator[Stack]:
    """Both workers and the beat, started once: no test that uses them may end one of them. Not for longer than these
    tests: their ticks take time of a core."""
    with hasty_stack(photo_root, tick_every_s=0.5, reconcile_s=3600.0) as running:
        running.start_all()
        running.wait_ready()
        yield running
