"""What is traced and what is not, without a collector: whose part a piece of work is, and what spans never say."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import Context, copy_context
from types import SimpleNamespace
from typing import Any

import pytest
from celery.signals import task_postrun, task_prerun
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import create_engine, text

from producer_client import contract, tracing
from producer_client.contract import Code, Queue
from producer_client.signing import Keys, admitted, stamp
from tests.unit.test_extras import lack
from worker.core import observing
from worker.core.observing import stage
from worker.errors import Permanent
from worker.logs import of_message
from worker.observe.spans import Messages, SaidOnce, Stages, sent_by
from worker.observe.statements import Statements, summary
from worker.observe.tracing import Tracing, is_asked_for, lacking

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"
KEYS = Keys("main", {"main": b"s" * 32})


class Seen:
    """Spans that have ended, by name."""

    def __init__(self) -> None:
        self._kept = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.tracer = provider.get_tracer("tests")

    def of(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._kept.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.of(name)
        return span


@pytest.fixture
def seen() -> Iterator[Seen]:
    seen = Seen()
    listener, statements = Stages(seen.tracer), Statements(seen.tracer)
    observing.listen(listener)
    statements.listen()
    yield seen
    observing.leave(listener)
    statements.leave()


# ----------------------------------------------------------------------------------- whether at all


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "photos"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "None", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
        ({"OTEL_TRACES_EXPORTER": " "}, False),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "otlp"}, False),
    ],
)
def test_traces_are_asked_for_by_the_environment_alone(environ: dict[str, str], asked: bool) -> None:
    assert is_asked_for(environ) == asked


def test_what_lacks_for_traces_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lacking({"OTEL_TRACES_EXPORTER": "otlp"}) == ""
    assert "not zipkin" in lacking({"OTEL_TRACES_EXPORTER": "zipkin"})
    assert "http/protobuf" in lacking({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    own = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}
    assert lacking(own) == ""
    # As where the API is, which came with something else.
    monkeypatch.delitem(sys.modules, "opentelemetry.exporter.otlp.proto.http")
    lack(monkeypatch, "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto")
    assert "Install sightline-worker[tracing]" in lacking({"OTEL_TRACES_EXPORTER": "otlp"})


def test_no_part_of_opentelemetry_that_traces_is_imported_unless_it_is_asked_for() -> None:
    """redis-py 8.1 imports what measures by itself, where that is installed."""
    program = (
        "import sys; from worker.app import create_app; from worker.settings import Settings; import producer_client; "
        "from celery.signals import worker_init; create_app(Settings(broker_url='memory://'), 'serve'); "
        "worker_init.send(None); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env={})

    assert "worker.observe.tracing" in loaded.stdout.split()
    tracing_parts = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "worker.observe.spans")
    assert [name for name in loaded.stdout.split() if name.startswith(tracing_parts)] == []


def test_a_collector_that_is_away_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    results = [SpanExportResult.FAILURE, SpanExportResult.FAILURE, SpanExportResult.SUCCESS, SpanExportResult.FAILURE]
    collector: Any = SimpleNamespace(export=lambda spans: results.pop(0))
    exporter = SaidOnce(collector)

    with caplog.at_level("INFO"):
        told = [(exporter.export([]), len(caplog.messages))[1] for _ in range(4)]

    assert told == [1, 1, 2, 3]
    assert "takes no traces" in caplog.messages[0]
    assert "again" in caplog.messages[1]


@pytest.mark.parametrize("is_silent", [False, True])
def test_the_last_spans_of_a_process_are_sent_at_once_and_a_silent_collector_is_given_up(
    is_silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, answered = InMemorySpanExporter(), threading.Event()
    if is_silent:
        monkeypatch.setattr(kept, "export", lambda spans: answered.wait(20) and SpanExportResult.FAILURE)
    monkeypatch.setattr("worker.observe.spans.OTLPSpanExporter", lambda: kept)
    monkeypatch.setattr("worker.observe.tracing.LAST_S", 0.5)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    process, task = Tracing("serve"), asked()

    process.begin(forks=False)
    task_prerun.send(sender=None, task_id="1", task=task, args=[{}])
    task_postrun.send(sender=None, task_id="1", task=task, retval={"ok": True}, state="SUCCESS")
    told = time.monotonic()
    process.end()

    assert time.monotonic() - told < 5
    names = [span.name for span in kept.get_finished_spans()]
    assert names == ([] if is_silent else ["sightline.locate interactive"])
    answered.set()


# -------------------------------------------------------------------------------------- the headers


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"traceparent": ""},
        {"traceparent": "00"},
        {"traceparent": GOOD.upper()},
        {"traceparent": GOOD.replace(TRACE, "0" * 32)},
        {"traceparent": GOOD.replace(SPAN, "0" * 16)},
        {"traceparent": f"ff{GOOD[2:]}"},
        {"traceparent": f"{GOOD}-more"},
        {"traceparent": GOOD * 1000},
        {"traceparent": 7},
        {"traceparent": [7]},
        {"traceparent": {"a": 1}},
        {"traceparent": None},
        {"traceparent": True, "tracestate": GOOD},
    ],
)
def test_nonsense_in_the_header_of_a_trace_is_no_sender(said: dict[str, Any]) -> None:
    assert sent_by(said) is None


@pytest.mark.parametrize("state", ["a=1", 7, "=", "x" * 10_000, ["a=1"]])
def test_a_good_header_is_read_whatever_its_state_says(state: Any) -> None:
    found = sent_by({"traceparent": GOOD, "tracestate": state})

    assert found is not None
    context = trace.get_current_span(found).get_span_context()
    assert (f"{context.trace_id:032x}", f"{context.span_id:016x}") == (TRACE, SPAN)


def test_a_message_says_in_which_span_it_was_sent_and_keeps_what_it_says(seen: Seen) -> None:
    headers: dict[str, Any] = {}
    tracing.hand_on(headers)
    assert headers == {}

    with seen.tracer.start_as_current_span("upload") as span:
        tracing.hand_on(headers)
        again = {"traceparent": GOOD}
        tracing.hand_on(again)

    assert sent_by(headers) is not None
    assert headers["traceparent"] == tracing.written(span.get_span_context())
    assert again == {"traceparent": GOOD}


def test_a_signed_message_brings_its_sender_s_trace_and_nobody_else_s() -> None:
    def brought(sent: dict[str, Any], found: dict[str, Any]) -> Any:
        kind: dict[str, Any] = {"content_type": "json", "content_encoding": "utf-8"}
        stamped = stamp(KEYS, Queue.BULK, {"id": "1", **sent}, b"{}", **kind)
        headers = {"id": "1", **found, "sightline_signed": stamped}
        return admitted(KEYS, Queue.BULK, headers, b"{}", **kind).headers.get("traceparent")

    assert brought({"traceparent": GOOD}, {"traceparent": GOOD}) == GOOD
    # As a backend's own Celery may add it, which is none of an earlier client's business.
    assert brought({}, {"traceparent": GOOD}) is None
    assert brought({"traceparent": GOOD}, {"traceparent": GOOD.replace(SPAN, "1" * 16)}) == GOOD


# ----------------------------------------------------------------------------------------- the spans


def asked() -> Any:
    """A task of Celery's at a message without an id of ours."""
    delivery = {"routing_key": "interactive"}
    request = SimpleNamespace(id="1", headers=None, delivery_info=delivery, retries=0, eta=None)
    return SimpleNamespace(name="sightline.locate", request=request)


def refused(code: Code) -> dict[str, Any]:
    return contract.failed(code, "/photos/secret.jpg: what is wrong with it")


@pytest.mark.parametrize(
    ("state", "retval", "status", "code"),
    [
        ("SUCCESS", {"ok": True, "reply": {}}, StatusCode.OK, None),
        # Its sender was told what to change: the service did what it is for.
        ("SUCCESS", refused(Code.NOT_AN_IMAGE), StatusCode.OK, "not_an_image"),
        ("SUCCESS", refused(Code.INTERNAL), StatusCode.ERROR, "internal"),
        ("SUCCESS", refused(Code.STALE), StatusCode.ERROR, "stale"),
        ("FAILURE", RuntimeError("/photos/secret.jpg"), StatusCode.ERROR, "failure"),
        ("REJECTED", None, StatusCode.ERROR, "rejected"),
    ],
)
def test_a_try_says_what_became_of_it(
    seen: Seen, state: str, retval: Any, status: StatusCode, code: str | None
) -> None:
    task, messages = asked(), Messages(seen.tracer)

    messages.began(task, "1", [{"photo": {"photo_id": 7, "path": "/photos/secret.jpg"}}])
    inside = {**of_message.get()}
    messages.ended(task, retval, state)

    span = seen.one("sightline.locate interactive")
    assert span.attributes is not None
    assert (span.status.status_code, span.attributes.get("sightline.code")) == (status, code)
    assert span.attributes["sightline.photo_id"] == 7
    assert inside == {"trace_id": span.to_json().split('"trace_id": "0x')[1][:32]}
    assert "trace_id" not in of_message.get()
    assert not trace.get_current_span().get_span_context().is_valid
    assert "secret" not in span.to_json()


def test_a_stage_is_a_part_of_what_it_is_done_for_and_nothing_without_that(seen: Seen) -> None:
    with stage("follow"):
        pass
    with seen.tracer.start_as_current_span("locate") as locate, stage("search"), stage("candidates"):
        pass

    assert seen.of("follow") == []
    search, candidates = seen.one("search"), seen.one("candidates")
    assert search.parent == locate.get_span_context()
    assert candidates.parent == search.get_span_context()
    assert not trace.get_current_span().get_span_context().is_valid


def test_of_a_trace_that_is_not_sampled_nothing_is_told(seen: Seen) -> None:
    unsampled = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
    asking: list[Context] = []
    with trace.use_span(unsampled), stage("search"):
        asking.append(copy_context())
    with stage("forward", of=asking):
        pass

    assert seen.of("search") == seen.of("forward") == []


def test_a_pass_for_several_is_in_the_trace_of_each_with_links_between_them(seen: Seen) -> None:
    asking: list[Context] = []
    for name in ("one", "two", "three"):
        with seen.tracer.start_as_current_span(name):
            asking += [copy_context(), copy_context()]  # two photos of one request are one span
    asking.append(Context())

    with stage("forward", of=asking, photos=7):
        pass

    passes = seen.of("forward")
    parents = [seen.one(name).get_span_context() for name in ("one", "two", "three")]
    assert [span.parent for span in passes] == parents
    assert [link.context for link in passes[0].links] == parents[1:]
    assert [[link.context for link in span.links] for span in passes[1:]] == [[passes[0].get_span_context()]] * 2
    assert {span.attributes["sightline.photos"] for span in passes if span.attributes} == {7}


def test_a_stage_that_fails_says_how_and_not_on_which_photo(seen: Seen) -> None:
    with seen.tracer.start_as_current_span("locate"):
        with pytest.raises(Permanent), stage("decode", path="/photos/secret.jpg", photos=1):
            raise Permanent(Code.DAMAGED_IMAGE, "/photos/secret.jpg is damaged")
        with pytest.raises(ZeroDivisionError), stage("verify"):
            _ = 1 / 0

    decode, verify = seen.one("decode"), seen.one("verify")
    assert (decode.status.status_code, decode.status.description) == (StatusCode.ERROR, "damaged_image")
    assert verify.status.description == "ZeroDivisionError"
    assert "secret" not in decode.to_json() + verify.to_json()


def test_statements_of_a_message_are_spans_without_their_values(seen: Seen) -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE entries (path TEXT, lat REAL)"))
        with seen.tracer.start_as_current_span("add") as add:
            secret = {"path": "/photos/secret.jpg", "lat": 55.7047}
            connection.execute(text("INSERT INTO entries VALUES (:path, :lat)"), [secret, secret])
            with pytest.raises(Exception, match="no such table"):
                connection.execute(text("SELECT * FROM nowhere WHERE path = :path"), {"path": "/photos/secret.jpg"})

    insert, failed = seen.one("INSERT entries"), seen.one("SELECT nowhere")
    assert seen.of("CREATE") == []
    assert insert.kind is SpanKind.CLIENT
    assert insert.parent == failed.parent == add.get_span_context()
    assert insert.attributes is not None
    assert insert.attributes["db.operation.batch.size"] == 2
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "OperationalError")
    assert "secret" not in insert.to_json() + failed.to_json()
    assert "55.7" not in insert.to_json()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT a FROM sightline.entries JOIN x ON true", ("SELECT", "sightline.entries")),
        ('  insert into "Photos" (a) values (1)', ("INSERT", "Photos")),
        ("UPDATE photos SET a = 1", ("UPDATE", "photos")),
        ("SELECT pg_advisory_xact_lock(1)", ("SELECT", "")),
        ("", ("", "")),
    ],
)
def test_a_statement_is_named_by_what_it_does_and_to_which_table(statement: str, said: tuple[str, str]) -> None:
    assert summary(statement) == said
