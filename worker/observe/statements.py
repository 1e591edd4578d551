"""Statements to Postgres as spans: which, on which table, how long. Never their values, which are photos' paths and
places.

Our own, as opentelemetry-instrumentation-sqlalchemy 0.66b2 instruments nothing from SQLAlchemy 2.1 on.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from sqlalchemy import Engine, event

#: The operation of a statement, and its first table.
_OPERATION = re.compile(r"\s*(\w+)")
_TABLE = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+((?:\"?\w+\"?\.)?\"?\w+\"?)", re.IGNORECASE)
#: By which a connection is known to be at one.
_SPAN = "sightline_span"


class Statements:
    """Of all engines of this process, where they belong to a message."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._heard = (
            ("before_cursor_execute", self._began),
            ("after_cursor_execute", self._ended),
            ("handle_error", self._failed),
        )

    def listen(self) -> None:
        for name, heard in self._heard:
            event.listen(Engine, name, heard)

    def leave(self) -> None:
        for name, heard in self._heard:
            event.remove(Engine, name, heard)

    def _began(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> None:
        if not is_traced(trace.get_current_span()):
            return
        operation, table = summary(statement)
        attributes: dict[str, Any] = {
            "db.system.name": "postgresql",
            "db.operation.name": operation,
            "db.namespace": connection.engine.url.database or "",
        }
        if table:
            attributes["db.collection.name"] = table
        if executemany:
            attributes["db.operation.batch.size"] = len(parameters)
        name = f"{operation} {table}".strip()
        connection.info[_SPAN] = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)

    def _ended(self, connection: Any, *_: Any) -> None:
        span: Span | None = connection.info.pop(_SPAN, None)
        if span is not None:
            span.end()

    def _failed(self, context: Any) -> None:
        span: Span | None = None if context.connection is None else context.connection.info.pop(_SPAN, None)
        if span is not None:
            state = getattr(context.original_exception, "pgcode", None) or type(context.original_exception).__name__
            span.set_attribute("error.type", state)
            span.set_status(Status(StatusCode.ERROR, state))
            span.end()


def is_traced(span: Span) -> bool:
    """Whether it is one of a trace that is sampled; it may have ended."""
    context = span.get_span_context()
    return context.is_valid and context.trace_flags.sampled


@lru_cache(maxsize=512)
def summary(statement: str) -> tuple[str, str]:
    """The operation, and the first table it names, `schema.table`; that may be empty."""
    operation, table = _OPERATION.match(statement), _TABLE.search(statement)
    return operation[1].upper() if operation else "", table[1].replace('"', "") if table else ""
