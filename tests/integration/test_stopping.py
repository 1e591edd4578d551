"""Servers of the recipes are told to stop while a page listens: they do within seconds, and the page asks again."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import httpx2
import pytest

from examples.answers import tickets
from tests.conftest import until
from tests.integration.test_fork import running
from tests.served import SECRET
from worker.embedded import EmbeddedServers

PATIENCE_S = 60.0
#: Seconds that a stop may take.
STOP_S = 5.0

UVICORN = ["-m", "uvicorn", "--factory", "tests.served:fast", "--uds"]
GUNICORN = [
    "-m",
    "gunicorn",
    "tests.served:flask()",
    "-k",
    "gthread",
    "--threads",
    "8",
    "--graceful-timeout",
    "3",
    "-b",
]


@pytest.mark.parametrize("command", [UVICORN, GUNICORN], ids=["fastapi", "flask"])
def test_a_server_stops_while_a_page_listens_and_the_page_is_served_again(
    command: list[str], servers: EmbeddedServers, tmp_path: Path
) -> None:
    socket = tmp_path / "socket"
    listen = [*command[:-1], command[-1], f"unix:{socket}" if command is GUNICORN else str(socket)]
    url = f"/photos/requests/{tickets(SECRET).dumps([1, 'nobody'])}/events"

    for start in ("at first", "after the stop"):
        log = tmp_path / f"log {start}"
        socket.unlink(missing_ok=True)
        with running(log, *listen, redis_url=servers.broker_url) as process:
            until(lambda: socket.exists() or process.poll() is not None, PATIENCE_S)
            page = httpx2.Client(
                transport=httpx2.HTTPTransport(uds=str(socket), retries=5), base_url="http://x", timeout=30
            )
            with page, page.stream("GET", url) as stream:
                assert stream.status_code == 200, log.read_text()
                lines = stream.iter_lines()
                assert next(lines) == "event: waiting"
                process.send_signal(signal.SIGTERM)
                told = time.monotonic()
                process.wait(PATIENCE_S)
                took_s = time.monotonic() - told
                if command is UVICORN:
                    # A stream that ends well is asked for again by the browser itself.
                    assert [line for line in lines if "waiting" not in line.lower() and line] == []
        assert took_s < STOP_S, log.read_text()
        assert "Traceback" not in log.read_text()
