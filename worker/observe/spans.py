"""Messages, stages and statements as spans of OpenTelemetry, which is imported here alone. Knows no collector.

A span says how long, of what kind, and whether it went well. Of photos it says their ids alone: neither paths nor
coordinates, and no sentence of an error, which may have them (docs/decisions/0058).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextvars import Context as Variables
from contextvars import ContextVar, Token
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from celery import Task
from celery.signals import task_postrun, task_prerun
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from producer_client.ids import waits_since_ms
from producer_client.tracing import TRACED, TRACEPARENT, written
from producer_client.words import RETRYABLE, Code, Queue, TaskName
from worker.core import observing
from worker.core.observing import Stage
from worker.core.request import photo_of
from worker.errors import WorkerError
from worker.logs import of_message
from worker.observe.statements import Statements, is_traced

log = logging.getLogger(__name__)

#: Who sends here waits for the answer, so that it is a part of what its sender does. Other work may take hours and has
#: a trace of its own, with a link to its sender's.
WAITED_FOR = frozenset({Queue.INTERACTIVE.value})
#: Codes of answers that say nothing of the photo or the request: something is wrong with the service.
BROKEN = RETRYABLE | {
    Code.INTERNAL,
    Code.ENCODER_UNAVAILABLE,
    Code.MODEL_MISMATCH,
    Code.NOT_READY,
    Code.RECALL_TOO_LOW,
    Code.EXAM_FAILED,
}
#: What they have to say of a collector that is away, SaidOnce says.
CHATTY = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")
_propagator = TraceContextTextMapPropagator()


@dataclass(frozen=True, slots=True)
class _Running:
    """A message that this thread is at."""

    span: Span
    context: Token[Context]
    facts: Token[Mapping[str, Any]]


_at: ContextVar[_Running | None] = ContextVar("at", default=None)


class Spans:
    """Listens to all that is done in this process. exporter: takes the spans, that of OTEL_* unless given."""

    def __init__(self, role: str, *, console: bool = False, exporter: SpanExporter | None = None) -> None:
        # Never by `atexit`, which may wait for half a minute: see worker.observe.tracing.
        self._provider = TracerProvider(resource=_resource(role), shutdown_on_exit=False)
        exporter = exporter or (ConsoleSpanExporter() if console else SaidOnce(OTLPSpanExporter()))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        for chatty in CHATTY:
            logging.getLogger(chatty).setLevel(logging.CRITICAL)
        tracer = self._provider.get_tracer("sightline")
        self._messages, self._stages, self._statements = Messages(tracer), Stages(tracer), Statements(tracer)
        task_prerun.connect(self._messages.began)
        task_postrun.connect(self._messages.ended)
        observing.listen(self._stages)
        self._statements.listen()

    def close(self) -> None:
        """Send what is left. Waits for the collector."""
        task_prerun.disconnect(self._messages.began)
        task_postrun.disconnect(self._messages.ended)
        observing.leave(self._stages)
        self._statements.leave()
        self._provider.shutdown()


class SaidOnce(SpanExporter):
    """Says once that spans are not taken, and once that they are again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        is_away = result is not SpanExportResult.SUCCESS
        if is_away and not self._is_away:
            log.warning("the collector takes no traces: they are dropped until it does")
        elif self._is_away and not is_away:
            log.info("the collector takes traces again")
        self._is_away = is_away
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class Messages:
    """A message from its queue to its answer, what it sends on included: by Celery's signals, of which the last comes
    after that (5.7, app/trace.py)."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def began(self, task: Task[Any, Any], task_id: str, args: Sequence[Any], **_: Any) -> None:
        request, now_ns = task.request, time.time_ns()
        delivery = request.delivery_info or {}
        queue, tries = str(delivery.get("routing_key")), (request.retries or 0) + 1
        sender = sent_by(request.headers or {})
        # A knock of the beat is all that its sender does: what comes of it is one trace. What goes round again has the
        # context of its first try, whatever the queue.
        is_part = queue in WAITED_FOR or task.name == TaskName.TICK or tries > 1
        within = sender if sender is not None and is_part else None
        attributes: dict[str, Any] = {
            "messaging.system": "redis",
            "messaging.operation.type": "process",
            "messaging.operation.name": task.name,
            "messaging.destination.name": queue,
            "messaging.message.id": task_id,
            "sightline.try": tries,
            "sightline.redelivered": bool(delivery.get("redelivered")),
        }
        if (photo_id := photo_of(args)) is not None:
            attributes["sightline.photo_id"] = photo_id
        span = self._tracer.start_span(
            f"{task.name} {queue}",
            # An empty one has no parent.
            within or Context(),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=_links([sender] if sender is not None and within is None else []),
            start_time=now_ns,
        )
        here = trace.set_span_in_context(span, within or Context())
        if is_traced(span):
            self._waited(request, queue, within or here, now_ns)
        if sender is None or within is None:
            # Celery hands its headers on to the next try.
            request.headers = {**(request.headers or {}), TRACEPARENT: written(span.get_span_context())}
        facts = of_message.set({**of_message.get(), "trace_id": f"{span.get_span_context().trace_id:032x}"})
        _at.set(_Running(span, contexts.attach(here), facts))

    def ended(self, task: Task[Any, Any], retval: Any, state: str | None, **_: Any) -> None:
        running = _at.get()
        if running is None:
            return
        _at.set(None)
        span, code = running.span, _code(retval, state)
        if code is not None:
            span.set_attribute("sightline.code", code)
        if state == "RETRY":
            span.add_event("goes round again")
        if code is None:
            span.set_status(StatusCode.OK)
        elif state != "SUCCESS" or code in BROKEN:
            _failed(span, code)
        else:
            # Its sender was told what to change: the service did what it is for.
            span.set_status(StatusCode.OK)
        span.end()
        contexts.detach(running.context)
        of_message.reset(running.facts)

    def _waited(self, request: Any, queue: str, within: Context, now_ns: int) -> None:
        """The time in the queue since this delivery was sent or due, where that is known."""
        since_ms = waits_since_ms({**(request.headers or {}), "id": request.id, "eta": request.eta})
        if since_ms is not None:
            # The sender's clock may be fast.
            wait = self._tracer.start_span(f"wait {queue}", within, start_time=min(since_ms * 1_000_000, now_ns))
            wait.end(now_ns)


class Stages:
    """What worker.core.observing tells of, where it is done for a message that is traced: but for what the beat sends
    nothing else begins a trace, and of one that was not sampled there is nothing to tell."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def began(self, stage: Stage, of: Sequence[Variables], facts: Mapping[str, Any]) -> Any:
        if stage == "task":
            return (), None  # it has its span already, which ends later
        if stage == "send":
            return self._sent(str(facts["task"]), str(facts["queue"]))
        if of:
            return self._together(stage, of, _numbers(facts)), None
        if not is_traced(trace.get_current_span()):
            return (), None
        span = self._tracer.start_span(stage, attributes=_numbers(facts))
        return (span,), contexts.attach(trace.set_span_in_context(span))

    def ended(self, stage: Stage, token: Any, took_s: float, exc: BaseException | None) -> None:
        spans, attached = token
        for span in spans:
            if exc is not None:
                _failed(span, exc.code if isinstance(exc, WorkerError) else type(exc).__name__)
            span.end()
        if attached is not None:
            contexts.detach(attached)

    def counted(self, what: Any, n: float, labels: Mapping[str, str]) -> None:
        pass

    def measured(self, what: Any, value: float, labels: Mapping[str, str]) -> None:
        pass

    def _sent(self, task: str, queue: str) -> Any:
        """What is sent by itself, as nobody's message asks for it, begins a trace."""
        attributes = {
            "messaging.system": "redis",
            "messaging.operation.type": "send",
            "messaging.operation.name": task,
            "messaging.destination.name": queue,
        }
        name = f"send {task} {queue}"
        span = self._tracer.start_span(name, Context(), kind=SpanKind.PRODUCER, attributes=attributes)
        return (span,), contexts.attach(trace.set_span_in_context(span, Context()))

    def _together(
        self, stage: Stage, of: Sequence[Variables], attributes: dict[str, AttributeValue]
    ) -> tuple[Span, ...]:
        """Work that is done once for several: a span in the trace of each. The first has links to all the others that
        ask for it, these have one to the first."""
        asking = {}
        for variables in of:
            context: Context = variables.run(contexts.get_current)
            asked = trace.get_current_span(context)
            if is_traced(asked):
                asking[asked.get_span_context().span_id] = context
        spans: list[Span] = []
        for context in asking.values():
            links = (
                [Link(spans[0].get_span_context())]
                if spans
                else _links(other for other in asking.values() if other is not context)
            )
            spans.append(self._tracer.start_span(stage, context, attributes=attributes, links=links))
        return tuple(spans)


def sent_by(headers: Mapping[str, Any]) -> Context | None:
    """The context that a message was sent in, of whatever its headers say. None where they say nothing or nonsense
    (https://www.w3.org/TR/trace-context/)."""
    said = {name: value for name in TRACED if isinstance(value := headers.get(name), str)}
    found = _propagator.extract(said, Context())
    return found if trace.get_current_span(found).get_span_context().is_valid else None


def _code(retval: Any, state: str | None) -> str | None:
    """The code of what a task has answered, or of why it goes round again; None where it went well."""
    match state, retval:
        case "SUCCESS", {"ok": False, "error": {"code": str(code)}}:
            return code
        case "SUCCESS", _:
            return None
    why = retval.__context__ if isinstance(retval, BaseException) else None
    return str(why.code) if isinstance(why, WorkerError) else (state or "ended").lower()


def _failed(span: Span, code: str) -> None:
    span.set_attribute("error.type", str(code))
    span.set_status(Status(StatusCode.ERROR, str(code)))


def _numbers(facts: Mapping[str, Any]) -> dict[str, AttributeValue]:
    return {f"sightline.{name}": n for name, n in facts.items() if isinstance(n, bool | int | float)}


def _links(senders: Iterable[Context]) -> list[Link]:
    return [Link(trace.get_current_span(sender).get_span_context()) for sender in senders]


def _resource(role: str) -> Resource:
    own: dict[str, AttributeValue] = {"service.version": _version(), "sightline.role": role, "process.pid": os.getpid()}
    # The environment has the last word, but of no name it says one itself.
    found = Resource.create(own)
    if str(found.attributes["service.name"]).startswith("unknown_service"):
        found = found.merge(Resource({"service.name": "sightline"}))
    return found


def _version() -> str:
    try:
        return version("sightline-worker")
    except PackageNotFoundError:
        return "unknown"
