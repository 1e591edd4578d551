"""Whether this process tells of its traces, and to whom: where OTEL_* asks for it, by OpenTelemetry. Until then none of
that is imported. Knows no message.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from celery.signals import worker_process_init, worker_process_shutdown

from worker.extras import tracing_lacks

if TYPE_CHECKING:
    from worker.observe.spans import Spans

log = logging.getLogger(__name__)

#: Any of these asks for traces. What else OTEL_* says (samplers, headers, limits) the SDK reads itself:
#: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
ASKING = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
EXPORTER, OFF = ASKING[0], "OTEL_SDK_DISABLED"
#: Of the traces alone before that of all signals.
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HTTP = "http/protobuf"
#: Seconds that a process which ends waits for its last spans to be taken, whatever the collector does.
LAST_S = 2.0


def is_asked_for(environ: Mapping[str, str]) -> bool:
    if environ.get(OFF, "").strip().lower() == "true" or environ.get(EXPORTER, "").strip().lower() == "none":
        return False
    return any(environ.get(name, "").strip() for name in ASKING)


def lacking(environ: Mapping[str, str]) -> str:
    """Why what is asked for cannot be done here, and what to do; empty where it can."""
    exporter = environ.get(EXPORTER, "").strip().lower() or "otlp"
    if exporter not in ("otlp", "console"):
        return f"{EXPORTER} is otlp or console here, not {exporter}"
    protocol = next((said for name in PROTOCOLS if (said := environ.get(name, "").strip().lower())), HTTP)
    if exporter == "otlp" and protocol != HTTP:
        return f"traces are sent by {HTTP} alone, to port 4318 of most collectors: set {PROTOCOLS[0]}={HTTP}"
    return tracing_lacks()


class Tracing:
    """Of one process. Making it starts nothing."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._spans: Spans | None = None

    def begin(self, *, forks: bool) -> None:
        """From now on, where it is asked for; what lacks for that is told in the log, and the service goes on.
        forks: in each child, as neither threads nor connections outlive a fork."""
        if not is_asked_for(os.environ):
            return
        if why := lacking(os.environ):
            log.warning("OTEL_* asks for traces, and there are none", extra={"why": why})
        elif forks:
            worker_process_init.connect(self._begin, weak=False)
            worker_process_shutdown.connect(self.end, weak=False)
        else:
            self._begin()

    def end(self, **_: object) -> None:
        """The last spans are sent, or given up after a moment: a collector that is away holds up nobody's end."""
        spans, self._spans = self._spans, None
        if spans is not None:
            closing = threading.Thread(target=spans.close, name="last-spans", daemon=True)
            closing.start()
            closing.join(LAST_S)

    def _begin(self, **_: object) -> None:
        from worker.observe.spans import Spans

        self._spans = Spans(self._role, console=os.environ.get(EXPORTER, "").strip().lower() == "console")
        log.info("traces are sent")
