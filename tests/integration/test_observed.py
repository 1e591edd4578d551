"""A service as those see it who watch over it: its traces at a collector, its log lines as programs read them. Real
processes; a backend with spans of its own asks them.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import redis
from celery import chain
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, Tracer
from sqlalchemy import update

from producer_client import NewPhoto, Photo, Provenance, Sightline, contract
from producer_client.contract import Queue, TaskName
from producer_client.tracing import hand_on
from tests.conftest import ENCODER, Scene, plain_celery, server_dir
from tests.faults.conftest import Gate
from tests.spans import Collector, Got, collecting
from tests.waiting import until
from worker.settings import Settings
from worker.stack import Stack
from worker.storage.store import PostgresStore
from worker.storage.tables import schedule
from worker.tasks.index import NIGHTLY

CONSUMER, PRODUCER, CLIENT = 5, 4, 3  #: kinds of spans, as OTLP has them
OK, ERROR = 1, 2  #: and what became of them
#: Seconds that a process may take to end while its collector is silent: it waits for that one for two.
ENDS_S = 10.0


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def watched(photo_root: Path, collector: Collector) -> Iterator[Stack]:
    asking = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with server_dir() as data_dir, patch.dict(os.environ, asking):
        settings = Settings(
            data_dir=data_dir,
            photo_roots=(photo_root, data_dir / "gone"),
            encoder=ENCODER,
            model_threads=2,
            tick_every_s=1.0,
            reconcile_s=3600.0,
            exam_photos=0,
            log_format="json",
            visibility_timeout_s=5,
            retry_pause_s=0.1,
            min_seq_timeout_s=0.05,
            url_hosts=("127.0.0.1",),
            url_schemes=("http",),
            url_private=True,
        )
        with Stack(settings, log_dir=data_dir / "logs", port=0) as running:
            running.start_all()
            running.wait_ready()
            yield running


@pytest.fixture
def client(watched: Stack) -> Iterator[Sightline]:
    with watched.client() as connected:
        yield connected


@pytest.fixture
def backend() -> Tracer:
    return TracerProvider(shutdown_on_exit=False).get_tracer("backend")


@pytest.fixture
def gate(scenes: list[Scene]) -> Iterator[Gate]:
    gate = Gate(scenes)
    yield gate
    gate.close()


def trace_of(span: Span) -> str:
    return f"{span.get_span_context().trace_id:032x}"


def id_of(span: Span) -> str:
    return f"{span.get_span_context().span_id:016x}"


def add(client: Sightline, scene: Scene, **more: Any) -> Any:
    return client.submit_add_to_index(lat=scene.lat, lon=scene.lon, provenance=Provenance.SURVEYED, **more)


def messages(found: list[Got]) -> list[Got]:
    return [span for span in found if span.kind == CONSUMER]


def test_a_question_is_one_trace_from_the_backend_s_call_to_faiss_and_postgres(
    client: Sightline, collector: Collector, backend: Tracer, scenes: list[Scene]
) -> None:
    added = [add(client, scene, path=str(scene.path)).wait() for scene in scenes[1:4]]
    with backend.start_as_current_span("upload") as upload:
        found = client.locate(path=str(scenes[0].path))

    spans = collector.until(lambda seen: bool(messages(seen)), trace=trace_of(upload))
    (asked,) = messages(spans)
    by_id = {span.span: span for span in spans}
    assert asked.name == "sightline.locate interactive"
    assert asked.parent == id_of(upload)
    assert asked.status == OK
    assert asked.attributes["messaging.message.id"]
    assert asked.attributes["sightline.try"] == 1
    assert asked.resource["service.name"] == "sightline"
    assert asked.resource["sightline.role"] == "serve"
    (wait,) = [span for span in spans if span.name == "wait interactive"]
    assert wait.parent == id_of(upload)
    assert wait.began <= wait.ended <= asked.ended
    # All of it hangs together, and nothing is outside of what it is a part of.
    within = [span for span in spans if span not in (asked, wait)]
    assert {span.parent for span in within} <= by_id.keys()
    assert all(asked.began <= span.began and span.ended <= asked.ended for span in within)
    names = {span.name for span in within}
    assert {"read", "decode", "forward", "search", "candidates"} <= names
    assert "task" not in names
    in_postgres = [span for span in within if span.kind == CLIENT]
    assert all(span.attributes["db.system.name"] == "postgresql" for span in in_postgres)
    (candidates,) = [span for span in within if span.name == "candidates"][:1]
    assert "SELECT" in {span.attributes["db.operation.name"] for span in in_postgres if span.parent == candidates.span}
    # One photo is nobody's path or place there, and the answer is as ever.
    told = b"".join(collector.bodies)
    assert not any(scene.path.name.encode() in told or str(scene.lat).encode() in told for scene in scenes[:4])
    assert {hit.photo_id for hit in found.answer.evidence} <= {stored.photo_id for stored in added}


def test_what_goes_round_again_stays_in_its_trace_and_each_try_has_its_status(
    watched: Stack, collector: Collector, backend: Tracer
) -> None:
    """A page to fill of a model that no worker here has, which another one may: it goes round for good."""
    app = plain_celery(watched.settings)
    page = contract.Fill(model_key="of another worker", slot=1).to_wire()
    headers: dict[str, Any] = {}
    with backend.start_as_current_span("sent") as sent:
        hand_on(headers)
    for queue in (Queue.INTERACTIVE, Queue.BULK):
        app.send_task(TaskName.FILL, [page], queue=queue, headers=headers, ignore_result=True)
    app.close()

    tries = messages(collector.until(lambda seen: len(messages(seen)) >= 3, trace=trace_of(sent)))
    (first,) = collector.until(bool, links=(id_of(sent),))
    in_bulk = messages(collector.until(lambda seen: len(messages(seen)) >= 3, trace=first.trace))
    assert {span.parent for span in tries} == {id_of(sent)}
    assert [span.parent for span in in_bulk] == ["", *[first.span] * (len(in_bulk) - 1)]
    assert first.trace != trace_of(sent)
    for name, within in (("wait interactive", trace_of(sent)), ("wait bulk", first.trace)):
        waits = collector.spans(name=name, trace=within)
        # Each since it was sent, or due: not all of them since the first.
        assert all(span.ended - span.began < 5 for span in waits[1:3])
        assert waits[1].began > waits[0].ended
    for seen in (tries[:3], in_bulk[:3]):
        assert [span.attributes["sightline.try"] for span in seen] == [1, 2, 3]
        assert [(span.status, span.attributes["error.type"]) for span in seen] == [(ERROR, "unavailable")] * 3
        assert [span.events for span in seen] == [("goes round again",)] * 3


def test_bulk_work_has_a_trace_of_its_own_that_leads_to_its_sender_s(
    client: Sightline, collector: Collector, backend: Tracer, scenes: list[Scene]
) -> None:
    photos = [
        NewPhoto(ref=s.path.name, photo=Photo(path=str(s.path)), lat=s.lat, lon=s.lon, provenance=Provenance.SURVEYED)
        for s in scenes[4:6]
    ]
    with backend.start_as_current_span("import") as imported:
        client.add_many(photos)

    (bulk,) = messages(
        collector.until(lambda seen: bool(messages(seen)), links=(id_of(imported),), name="sightline.add_to_index bulk")
    )
    assert bulk.parent == ""
    assert bulk.trace != trace_of(imported)
    (store,) = collector.until(bool, trace=bulk.trace, name="store")
    assert store.attributes["sightline.photos"] == 2
    (wait,) = collector.spans(trace=bulk.trace, name="wait bulk")
    assert wait.parent == bulk.span


def test_a_message_whose_worker_was_killed_is_in_its_sender_s_trace_again(
    watched: Stack, client: Sightline, collector: Collector, backend: Tracer, scenes: list[Scene], gate: Gate
) -> None:
    with backend.start_as_current_span("upload") as upload:
        handle = add(client, scenes[6], url=gate.url(6))
    until(lambda: bool(gate.asked), "the worker is in the middle of it")
    os.kill(watched.processes[0].pid, signal.SIGKILL)
    watched.processes[0].wait()
    gate.open.set()
    watched.start_again(watched.processes[0])
    handle.wait()

    spans = collector.until(lambda seen: bool(messages(seen)), trace=trace_of(upload))
    (again,) = messages(spans)
    assert again.parent == id_of(upload)
    assert again.attributes["sightline.redelivered"] is True
    assert again.status == OK
    # Parts of the killed one's try may be there, of which it has told before.
    assert {"read", "forward", "store"} <= {span.name for span in spans if span.resource == again.resource}


def test_what_a_worker_sends_on_goes_on_with_the_trace(watched: Stack, collector: Collector, backend: Tracer) -> None:
    app = plain_celery(watched.settings)
    headers: dict[str, Any] = {}
    with backend.start_as_current_span("sent") as sent:
        hand_on(headers)
    first = app.signature(TaskName.STATS.value, [{"v": 1}]).set(queue=Queue.INTERACTIVE.value, headers=headers)
    chain(first, app.signature("backend.next").set(queue="backend-next")).apply_async()
    app.close()

    (asked,) = messages(collector.until(lambda seen: bool(messages(seen)), trace=trace_of(sent)))
    with redis.Redis.from_url(watched.settings.broker_url) as server:
        message = json.loads(server.lrange(f"{watched.settings.key_prefix}backend-next", 0, 0)[0])
    assert message["headers"]["task"] == "backend.next"
    assert message["headers"]["traceparent"].startswith(f"00-{trace_of(sent)}-{asked.span}-")


def test_a_night_is_one_trace_from_the_beat_s_knock_to_the_swap_with_what_is_copied_out_of_postgres(
    watched: Stack, client: Sightline, collector: Collector, scenes: list[Scene]
) -> None:
    add(client, scenes[8], path=str(scenes[8].path)).wait()
    due = update(schedule).where(schedule.c.name == NIGHTLY).values(state="due")

    def comes_again() -> bool:
        """The one that the first knock has only noted."""
        with store.database.begin() as connection:
            return connection.execute(due).rowcount == 1

    with closing(PostgresStore(watched.settings)) as store:
        until(comes_again, "a night was noted")
    (rebuilt, *_) = collector.until(bool, name="rebuild")

    spans = collector.until(lambda seen: bool(messages(seen)), trace=rebuilt.trace)
    (ticked,) = messages(spans)
    (knock,) = [span for span in spans if span.kind == PRODUCER]
    assert (knock.name, knock.parent, knock.resource["sightline.role"]) == ("send sightline.tick index", "", "beat")
    assert (ticked.parent, ticked.status, ticked.links) == (knock.span, OK, ())
    assert ticked.resource["sightline.role"] == "index"
    assert rebuilt.parent == ticked.span
    parts = {span.name: span for span in spans if span.parent == rebuilt.span and span.kind != CLIENT}
    assert parts.keys() >= {"check", "embed", "look", "train", "conflicts", "build", "examine", "publish"}
    copied = [span for span in spans if span.name == "copy"]
    assert {parts["build"].span} <= {span.parent for span in copied} <= {span.span for span in spans}


def test_nonsense_in_a_message_s_header_of_a_trace_harms_nothing(watched: Stack, client: Sightline) -> None:
    app = plain_celery(watched.settings)
    sent = [
        app.send_task("sightline.stats", [{"v": 1}], queue="interactive", headers={"traceparent": odd})
        for odd in ("00-xyz", 7, ["a"], "00-" + "0" * 32 + "-" + "0" * 16 + "-01")
    ]

    assert [handle.get(timeout=20)["ok"] for handle in sent] == [True] * 4
    app.close()


def test_every_line_of_running_processes_is_a_json_object_and_a_silent_collector_holds_up_nobody_s_end(
    watched: Stack, client: Sightline, collector: Collector, backend: Tracer, scenes: list[Scene]
) -> None:
    """The last of this file: it ends the processes."""
    added = add(client, scenes[7], path=str(scenes[7].path)).wait()
    with backend.start_as_current_span("upload") as upload:
        found = client.locate(photo_id=added.photo_id)
    plain_celery(watched.settings).send_task("unheard_of", queue="interactive")
    (ticked, *_) = collector.until(bool, name="sightline.tick index")
    assert ticked.resource["process.pid"] != watched.processes[1].pid, "told of by the child, as it was forked"
    collector.is_silent = True
    client.stats()

    processes, told = list(watched.processes), time.monotonic()
    for process in processes:
        process.ask_to_stop()
    for process in processes:
        process.wait()
    assert time.monotonic() - told < ENDS_S
    assert [process.exit_code for process in processes] == [0, 0, 0]

    for process in processes:
        lines = said(process.log)
        assert lines, process.name
        assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    serve = said(processes[0].log)
    (stored,) = of_task(serve, "add_to_index", photo_id=added.photo_id)
    assert stored["seq"] == added.seq
    (asked,) = of_task(serve, "locate", photo_id=added.photo_id)
    assert (asked["seq"], asked["trace_id"]) == (found.seq, trace_of(upload))
    (during,) = [line for line in serve if line["message"] == "photos added" and line["task_id"] == stored["task_id"]]
    assert during["trace_id"] == stored["trace_id"] != asked["trace_id"]
    assert any(line["message"] == "task goes round again" and line["trace_id"] for line in serve)
    # For people, before a process begins.
    assert any("gone" in line["message"] and line["logger"] == "printed" for line in serve)


def said(log: Path | None) -> list[dict[str, Any]]:
    """Every line of standard output and error, as a program reads it."""
    assert log is not None
    return [json.loads(line) for line in log.read_text(encoding="ascii").split("\n")[:-1]]


def of_task(lines: list[dict[str, Any]], task: str, **facts: Any) -> list[dict[str, Any]]:
    done = [line for line in lines if line["message"] == "task done" and line["task"].endswith(task)]
    return [line for line in done if facts.items() <= line.items()]
