"""A collector of spans for tests: OTLP over HTTP, as a real one takes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.waiting import until

#: Seconds until a span has to be here.
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Got:
    """A span as it came. Times in seconds since 1970; links are span ids."""

    name: str
    trace: str
    span: str
    parent: str
    kind: int
    status: int
    began: float
    ended: float
    attributes: dict[str, Any]
    links: tuple[str, ...]
    events: tuple[str, ...]
    resource: dict[str, Any]


class Collector:
    """bodies: what was sent, as it was sent. is_silent: it takes what is sent, and answers nothing."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.is_silent = False
        self._spans: list[Got] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # http.server's name
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if collector.is_silent:
                    time.sleep(PATIENCE_S)
                    return
                assert self.path == "/v1/traces"
                collector.bodies.append(body)
                collector._spans += _read(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def spans(self, **said: Any) -> list[Got]:
        """Those of which this is so, by when they began."""
        return sorted(
            (span for span in tuple(self._spans) if all(getattr(span, name) == value for name, value in said.items())),
            key=lambda span: span.began,
        )

    def until(self, enough: Callable[[list[Got]], bool], **said: Any) -> list[Got]:
        def there() -> bool:
            return enough(self.spans(**said))

        until(there, lambda: f"spans, of which there are {[span.name for span in self.spans(**said)]}", PATIENCE_S)
        return self.spans(**said)


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()


def _read(body: bytes) -> Iterator[Got]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        about = _values(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Got(
                    name=span.name,
                    trace=span.trace_id.hex(),
                    span=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    kind=span.kind,
                    status=span.status.code,
                    began=span.start_time_unix_nano / 1e9,
                    ended=span.end_time_unix_nano / 1e9,
                    attributes=_values(span.attributes),
                    links=tuple(link.span_id.hex() for link in span.links),
                    events=tuple(event.name for event in span.events),
                    resource=about,
                )


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
