"""A port that Prometheus asks. Taken before anything forks, so that a pool's child can answer at it."""

from __future__ import annotations

import errno
import logging
import mmap
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import make_wsgi_app

log = logging.getLogger(__name__)

#: Where one port is given to several processes of a host, each takes the next free one out of so many.
PORTS = 16
#: Seconds between two looks for a free one, where none was.
AGAIN_S = 5.0
#: Seconds that whoever asks may be silent.
SILENT_S = 10.0
#: Hosts that stand for every address of a machine.
ANY = ("", "0.0.0.0", "::")

Answer = Callable[[Any, Any], Any]


def take(host: str, port: int, *, ports: int = PORTS) -> socket.socket | None:
    """A listening socket at this port, at the next free one where it is taken, or at any where it is 0. None, and a
    line in the log, where there is none: whoever measures must not end what works."""
    try:
        taken = _first_free(host, port, ports)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            log.error("no metrics: the port is taken", extra={"first": port, "last": _last(port, ports)})
        else:
            log.error("no metrics: this host cannot be listened at", extra={"host": host, "why": exc})
        return None
    log.info("metrics", extra={"host": host, "port": port_of(taken)})
    return taken


def take_later(
    host: str, port: int, then: Callable[[socket.socket], object], *, ports: int = PORTS, every_s: float = AGAIN_S
) -> None:
    """Where `take` found none: `then` gets the first one that there is, by a thread that ends with the process."""
    log.warning("metrics: a port is tried for until one is free", extra={"every_s": every_s})

    def keep_trying() -> None:
        while True:
            time.sleep(every_s)
            with suppress(OSError):
                taken = _first_free(host, port, ports)
                break
        log.info("metrics", extra={"host": host, "port": port_of(taken)})
        then(taken)

    threading.Thread(target=keep_trying, name="metrics port", daemon=True).start()


def port_of(taken: socket.socket) -> int:
    port: int = taken.getsockname()[1]
    return port


def address(taken: socket.socket) -> str:
    """By which Prometheus asks it, `host:port`."""
    host = taken.getsockname()[0]
    host = socket.gethostname() if host in ANY else host
    return f"[{host}]:{port_of(taken)}" if ":" in host else f"{host}:{port_of(taken)}"


def serve(taken: socket.socket, registry: CollectorRegistry, also: Mapping[str, Answer] | None = None) -> _Server:
    """Answer from now on, by threads that end with the process. also: WSGI applications by their paths."""
    pages = {"/metrics": make_wsgi_app(registry), **(also or {})}

    def application(environ: Any, start_response: Any) -> Any:
        page = pages.get(environ["PATH_INFO"])
        if page is None:
            start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [("\n".join(sorted(pages)) + "\n").encode()]
        if environ["REQUEST_METHOD"] == "HEAD":
            # Whoever looks whether it is up: prometheus-client 0.26 knows GET alone.
            start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
            return []
        return page(environ, start_response)

    server = _Server(taken)
    server.set_app(application)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


class Shared:
    """A short text of this process and its children, whoever of them sets it; empty at first."""

    #: More than an address has: a name in DNS has 253 characters at the most.
    _SIZE = 512

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._SIZE)

    def set(self, text: str) -> None:
        self._memory[:] = text.encode()[: self._SIZE].ljust(self._SIZE, b"\0")

    def get(self) -> str:
        return self._memory[:].rstrip(b"\0").decode(errors="replace")


class _Handler(WSGIRequestHandler):
    timeout = SILENT_S

    def log_message(self, *_: Any) -> None: ...


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, taken: socket.socket) -> None:
        super().__init__(taken.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = taken
        # As server_bind has it, without a look at DNS.
        self.server_name, self.server_port = taken.getsockname()[:2]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked is gone, or silent."""
        log.info("metrics were not read to their end", extra={"by": client_address[0]}, exc_info=True)


def _first_free(host: str, port: int, ports: int) -> socket.socket:
    """Raises OSError, EADDRINUSE where all are taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    last = _last(port, ports)
    for candidate in range(port, last):
        try:
            return socket.create_server((host, candidate), family=family)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
    return socket.create_server((host, last), family=family)


def _last(port: int, ports: int) -> int:
    return port if port == 0 else min(port + ports, 65_536) - 1
