"""A port that Prometheus asks. Taken before anything forks, so that a pool's child can answer at it."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import make_wsgi_app

log = logging.getLogger(__name__)

#: Where one port is given to several processes of a host, each takes the next free one out of so many.
PORTS = 16
#: Seconds that whoever asks may be silent.
SILENT_S = 10.0
#: Hosts that stand for every address of a machine.
ANY = ("", "0.0.0.0", "::")

Answer = Callable[[Any, Any], Any]


def take(host: str, port: int, *, ports: int = PORTS) -> socket.socket | None:
    """A listening socket at this port, at the next free one where it is taken, or at any where it is 0. None, and a
    line in the log, where there is none: whoever measures must not end what works."""
    for candidate in (port,) if port == 0 else range(port, min(port + ports, 65_536)):
        try:
            taken = socket.create_server((host, candidate), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                continue
            log.error("no metrics: SIGHTLINE_METRICS_HOST cannot be listened at", extra={"host": host, "why": exc})
            return None
        log.info("metrics", extra={"host": host, "port": port_of(taken)})
        return taken
    log.error("no metrics: the port is taken", extra={"first": port, "last": min(port + ports, 65_536) - 1})
    return None


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
        return page(environ, start_response)

    server = _Server(taken)
    server.set_app(application)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


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
