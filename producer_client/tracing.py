"""Hands on in which trace a message was sent (W3C Trace Context). Imports nothing of OpenTelemetry: whoever has a span
has imported it."""

from __future__ import annotations

import sys
from typing import Any

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
#: Headers of a message that say so.
TRACED = (TRACEPARENT, TRACESTATE)


def hand_on(headers: dict[str, Any]) -> None:
    """Note the span that this thread is in. What says so already, as a message that is sent again, stays as it is."""
    trace = sys.modules.get("opentelemetry.trace")
    # Another thread may be importing it just now.
    current = getattr(trace, "get_current_span", None)
    if current is None or TRACEPARENT in headers:
        return
    context = current().get_span_context()
    if context.is_valid:
        headers[TRACEPARENT] = written(context)
        if context.trace_state:
            headers[TRACESTATE] = context.trace_state.to_header()


def written(context: Any) -> str:
    """A SpanContext as that header has it (https://www.w3.org/TR/trace-context/#traceparent-header)."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
