"""The loopback port of a folder's Valkey: the one that is asked for or none, and for 0 the same at every start."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

from worker.words import reason, say

#: In the data folder: the port that was taken for 0.
KEPT = "up.port"


def choose(wanted: int, folder: Path) -> tuple[int, int | None]:
    """The port, and for 0 the one of the last start where that is taken by now.

    Raises RuntimeError naming a wanted one that cannot be had, and who has it where that can be seen.
    """
    if wanted:
        if (why := _not_free(wanted)) is None:
            return wanted, None
        raise RuntimeError(
            say(
                "port {port} (SIGHTLINE_UP_PORT) cannot be used: {why}. Stop what uses it, or set SIGHTLINE_UP_PORT to "
                "another port, or to 0, which takes a free one and keeps it for the next start",
                port=wanted,
                why=why,
            )
        )
    path = folder / KEPT
    last = None
    with suppress(OSError, ValueError):
        last = int(path.read_text())
        if 0 < last < 65536 and _not_free(last) is None:
            return last, None
    port = free_port()
    path.write_text(f"{port}\n")
    return port, last


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _not_free(port: int) -> str | None:
    """Why nothing can listen there; None where it can."""
    with socket.socket() as probe:
        # As a server does it: what is still being closed is in nobody's way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            return _holder(port) if exc.errno == errno.EADDRINUSE else reason(exc)
    return None


def _holder(port: int) -> str:
    import psutil

    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                where = process.cwd() if process.uids().real == os.geteuid() or os.geteuid() == 0 else "?"
                return say(
                    "process {pid} ({name}, in {folder}) uses it", pid=process.pid, name=process.name(), folder=where
                )
    return say("another process uses it, of another user perhaps")
