"""What the task base does with errors: answered once, sent round again, never lost, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from celery import Celery
from celery.exceptions import InvalidTaskError, Retry

from producer_client.contract import AddReply, Code, Stored, TaskName
from producer_client.ids import SENT, now_ms
from producer_client.signing import SIGNED
from tests.hearing import Ear, ear
from worker.app import BulkCapped, create_app
from worker.core.request import Request, current
from worker.errors import Permanent, Transient, Unprepared
from worker.runtime import Runtime
from worker.settings import Settings
from worker.tasks.base import read_plainly

__all__ = ["ear"]


class Failing:
    """Stands for a library: raises these in turn, then succeeds."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)
        self.calls = 0
        self.photos = self.recording = self.quarantine = self

    def _answer(self, *_: Any, **__: Any) -> AddReply:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)
        return AddReply(outcomes=[], model_key="m@1")

    add_many = search = _answer


ADD = {"v": 1, "photos": [{"ref": "a", "photo": {"path": "/a"}}]}
SEARCH = {"v": 1, "vector": [1.0]}
AWAY = Transient(Code.UNAVAILABLE, "Postgres: no route to host")

Run = Callable[[TaskName, dict[str, Any], Failing], dict[str, Any]]


def in_memory(**settings: Any) -> Celery:
    """The app with its tasks, without a broker."""
    app = create_app(Settings(broker_url="memory://", result_backend="cache+memory://", **settings))
    app.loader.import_default_modules()
    return app


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    app = in_memory(retry_pause_s=0.001)

    def apply(name: TaskName, wire: dict[str, Any], library: Failing) -> dict[str, Any]:
        monkeypatch.setattr(Runtime, "library", library)
        reply: dict[str, Any] = app.tasks[name.value].apply(args=(wire,)).get()
        return reply

    return apply


@pytest.mark.parametrize(
    ("routing_key", "expires_s", "urgent", "gives_up"),
    [
        ("interactive", None, True, False),
        ("interactive", 30, True, True),
        ("bulk", 30, False, False),
        ("index", 30, False, False),
    ],
)
def test_a_task_says_who_waits_for_it_and_how_long(
    monkeypatch: pytest.MonkeyPatch, routing_key: str, expires_s: float | None, urgent: bool, gives_up: bool
) -> None:
    app = in_memory()
    seen: list[Request] = []

    class Library:
        def search(self, *_: Any) -> AddReply:
            seen.append(current.get())
            return AddReply(outcomes=[], model_key="m@1")

    monkeypatch.setattr(Runtime, "library", SimpleNamespace(recording=Library()))
    task = app.tasks[TaskName.SEARCH.value]
    expires = None if expires_s is None else (datetime.now(UTC) + timedelta(seconds=expires_s)).isoformat()
    task.push_request(delivery_info={"routing_key": routing_key}, expires=expires)
    try:
        task(SEARCH)
    finally:
        task.pop_request()

    (request,) = seen
    assert request.urgent is urgent
    if not gives_up:
        assert request.deadline is None
    else:
        assert expires_s is not None
        assert request.deadline is not None
        assert 0 < request.deadline - time.monotonic() <= expires_s
    assert current.get() == Request(), "the next task of this thread begins anew"


def test_a_permanent_error_is_answered_and_not_tried_again(run: Run) -> None:
    library = Failing(Permanent(Code.MODEL_MISMATCH, "another model"))

    reply = run(TaskName.ADD_TO_INDEX, ADD, library)

    assert reply["ok"] is False
    assert reply["error"] == {"code": "model_mismatch", "message": "another model"}
    assert library.calls == 1


def test_a_bad_message_never_reaches_the_library(run: Run) -> None:
    library = Failing()

    assert run(TaskName.ADD_TO_INDEX, {"v": 1}, library)["error"]["code"] == Code.BAD_REQUEST
    assert library.calls == 0


def test_every_reply_leaves_as_it_may_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Stored("a", 1, 2, "sha", 55.123456, 13.0)
    photos = SimpleNamespace(add_many=lambda _: AddReply(outcomes=[stored], model_key="m@1"))
    monkeypatch.setattr(Runtime, "library", SimpleNamespace(photos=photos))
    task = in_memory(rounded_for="*=1").tasks[TaskName.ADD_TO_INDEX.value]

    assert task(ADD)["reply"]["outcomes"][0]["lat"] == 55.1


@pytest.mark.parametrize(("days", "ran", "times"), [(0, False, 0), (0, True, 1), (30, False, 1), (30, True, 1)])
def test_what_was_recorded_goes_with_the_tick_and_where_nothing_is_recorded_any_more_with_a_rebuild(
    days: int, ran: bool, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[int] = []
    rebuilding = SimpleNamespace(nightly=lambda *_, **__: ran, catch_up_generations=lambda **_: False)
    recording = SimpleNamespace(forget=lambda: forgotten.append(1))
    monkeypatch.setattr(Runtime, "library", SimpleNamespace(rebuilding=rebuilding, recording=recording))
    monkeypatch.setattr(Runtime, "next_library", None)

    in_memory(audit_days=days).tasks[TaskName.TICK.value]({"v": 1})

    assert len(forgotten) == times, "a tick asks Postgres nothing more where nothing is recorded"


def test_a_signature_in_a_body_is_none() -> None:
    """Of Celery's first protocol, whose fields become headers when signatures have been looked at."""
    app = in_memory()
    take = read_plainly(app.tasks[TaskName.SEARCH.value], app, MagicMock())
    claimed = {"task": TaskName.SEARCH.value, "id": "x", SIGNED: "web " + "0" * 64 + " {}"}

    with pytest.raises(InvalidTaskError, match="signature"):
        take(SimpleNamespace(content_type="", payload=claimed, headers={}))


def test_a_question_is_tried_twice_more_and_then_answered(run: Run) -> None:
    library = Failing(AWAY, AWAY, AWAY, AWAY)

    reply = run(TaskName.SEARCH, SEARCH, library)

    assert reply["error"]["code"] == Code.UNAVAILABLE
    assert library.calls == 3


def test_a_write_is_tried_until_it_succeeds(run: Run) -> None:
    library = Failing(*[AWAY] * 7)

    reply = run(TaskName.ADD_TO_INDEX, ADD, library)

    assert reply["ok"] is True
    assert library.calls == 8


def test_every_end_of_a_message_is_told_by_its_code(run: Run, ear: Ear) -> None:
    run(TaskName.SEARCH, SEARCH, Failing(AWAY))
    run(TaskName.SEARCH, SEARCH, Failing(Permanent(Code.MODEL_MISMATCH, "another model")))

    codes = [labels["code"] for what, _, labels in ear.told if what == "tasks"]
    # Celery tries again within the first call, where there is no queue.
    assert sorted(codes) == ["again", "model_mismatch", "ok"]


INTERACTIVE = {"queue": "interactive"}


@pytest.mark.parametrize(
    ("age_s", "due_in_s", "told"),
    [
        (90, None, [("queue_wait_seconds", 90, INTERACTIVE)]),
        (90, -30, [("queue_wait_seconds", 30, INTERACTIVE)]),
        (-0.5, None, [("queue_wait_seconds", 0, INTERACTIVE)]),
        (-90, None, [("clock_skew", 1, {}), ("queue_wait_seconds", 0, INTERACTIVE)]),
        (None, None, [("wait_unknown", 1, INTERACTIVE)]),
    ],
)
def test_how_long_a_message_has_waited_is_told(
    age_s: float | None, due_in_s: float | None, told: list[Any], ear: Ear
) -> None:
    task = in_memory().tasks[TaskName.SEARCH.value]
    sent = {} if age_s is None else {SENT: now_ms() - round(age_s * 1000)}
    eta = None if due_in_s is None else (datetime.now(UTC) + timedelta(seconds=due_in_s)).isoformat()
    task.push_request(id="of Celery's own", delivery_info={"routing_key": "interactive"}, eta=eta, **sent)
    try:
        task()
    finally:
        task.pop_request()

    assert ear.told[: len(told)] == told
    task.push_request(delivery_info={"routing_key": "a stranger's"}, **sent)
    try:
        task()
    finally:
        task.pop_request()
    assert [what for what, *_ in ear.told[len(told) :]] == ["tasks", "tasks"], "no series of strange names"


def test_an_unexpected_error_is_a_code_and_a_sentence_without_a_traceback(run: Run) -> None:
    reply = run(TaskName.SEARCH, SEARCH, Failing(ZeroDivisionError("secret detail")))

    assert reply["error"]["code"] == Code.INTERNAL
    assert "ZeroDivisionError" in reply["error"]["message"]
    assert "secret detail" not in reply["error"]["message"]
    assert "Traceback" not in reply["error"]["message"]


def pause_s(retries: int, **more: Any) -> float:
    """Before a write is tried again that has been tried so often."""
    app = in_memory(retry_pause_s=1.0, **more)
    task: Any = app.tasks[TaskName.ADD_TO_INDEX.value]
    task.push_request(retries=retries, id="x", called_directly=False, is_eager=False, args=(ADD,), kwargs={})
    try:
        with pytest.raises(Retry) as caught:
            task._again(AWAY)
    finally:
        task.pop_request()
    when: Any = caught.value.when
    return float(when)


def test_pauses_between_tries_grow_and_no_two_messages_wait_alike() -> None:
    one, other = ([pause_s(retries) for retries in range(8)] for _ in range(2))

    for longest_s, *pauses_s in zip((1, 2, 4, 8, 16, 32, 60, 60), one, other, strict=True):
        assert all(longest_s / 2 <= pause <= longest_s for pause in pauses_s)
    assert one != other


def test_no_pause_comes_near_the_time_after_which_a_message_is_handed_out_again() -> None:
    assert all(pause_s(retries, visibility_timeout_s=20) <= 5.0 for retries in range(12))


def test_a_write_that_failed_for_days_is_still_tried() -> None:
    """The pause doubles: its formula must not overflow after a night of tries."""
    assert 30.0 <= pause_s(5000) <= 60.0


def test_a_message_that_has_killed_its_worker_too_often_is_answered(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Failing()
    library.came_back_too_often = lambda task_id: True  # type: ignore[attr-defined]
    app = in_memory()
    monkeypatch.setattr(Runtime, "library", library)
    task = app.tasks[TaskName.ADD_TO_INDEX.value]
    task.push_request(id="x", delivery_info={"redelivered": True})
    try:
        reply = task(ADD)
    finally:
        task.pop_request()

    assert reply["error"]["code"] == Code.QUARANTINED
    assert library.calls == 0


def test_a_message_that_its_living_worker_has_begun_before_has_not_killed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis hands it out again when connections were lost."""
    library = Failing()
    library.came_back_too_often = lambda task_id: True  # type: ignore[attr-defined]
    app = in_memory()
    monkeypatch.setattr(Runtime, "library", library)
    task = app.tasks[TaskName.ADD_TO_INDEX.value]
    for redelivered in (False, True):
        task.push_request(id="begun before", delivery_info={"redelivered": redelivered})
        try:
            task(ADD)
        finally:
            task.pop_request()

    assert library.calls == 2


@pytest.mark.parametrize(("task", "wire", "tried"), [(TaskName.SEARCH, SEARCH, 1), (TaskName.ADD_TO_INDEX, ADD, 0)])
def test_a_question_that_came_back_is_tried_where_nothing_can_be_counted_and_a_write_waits(
    task: TaskName, wire: dict[str, Any], tried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a database that only reads."""

    def count(task_id: str) -> bool:
        raise AWAY

    library = Failing()
    library.came_back_too_often = count  # type: ignore[attr-defined]
    app = in_memory()
    monkeypatch.setattr(Runtime, "library", library)
    found: Any = app.tasks[task.value]
    again: list[Transient] = []

    def go_round(exc: Transient) -> dict[str, Any]:
        again.append(exc)
        return {"ok": True}

    monkeypatch.setattr(found, "_again", go_round)
    found.push_request(id=f"back {task}", delivery_info={"redelivered": True})
    try:
        found(wire)
    finally:
        found.pop_request()

    assert (library.calls, len(again)) == (tried, 1 - tried)


def test_what_waits_for_a_person_is_told_to_who_asks_at_once_and_goes_round_for_writes(run: Run) -> None:
    lacking = Unprepared("there is no column lat")

    asked = Failing(lacking)
    told = run(TaskName.SEARCH, SEARCH, asked)
    written = Failing(lacking, lacking, lacking, lacking)
    stored = run(TaskName.ADD_TO_INDEX, ADD, written)

    assert told["error"]["code"] == Code.NOT_READY
    assert asked.calls == 1
    assert (stored["ok"], written.calls) == (True, 5)


def test_running_out_of_memory_is_answered_and_not_handed_out_for_ever(run: Run) -> None:
    library = Failing(MemoryError())

    assert run(TaskName.ADD_TO_INDEX, ADD, library)["error"]["code"] == Code.UNAVAILABLE
    assert library.calls == 1


def test_every_task_of_the_contract_is_there_and_acknowledges_late_but_the_rebuild(run: Run) -> None:
    app = create_app(Settings(broker_url="memory://"))
    app.loader.import_default_modules()

    late = {name: app.tasks[name.value].acks_late for name in TaskName}

    assert late == {name: name not in (TaskName.REBUILD_INDEX, TaskName.TICK) for name in TaskName}


def test_bulk_is_asked_for_while_less_than_its_share_is_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    in_hand: list[Any] = [SimpleNamespace(delivery_info={"routing_key": queue}) for queue in ("bulk", "interactive")]
    monkeypatch.setattr("worker.app.reserved_requests", in_hand)
    both, alone = BulkCapped(2), BulkCapped(2)
    both.update(["interactive", "bulk"])
    alone.update(["bulk"])

    assert both.consume(2) == ["interactive", "bulk"]
    in_hand.append(in_hand[0])
    assert both.consume(2) == ["interactive"]
    assert alone.consume(1) == ["bulk"], "a worker of bulk alone keeps no thread free"
    del in_hand[0]
    assert sorted(both.consume(2)) == ["bulk", "interactive"]


def test_a_process_that_answers_lets_no_helpers_of_its_search_spin_on_the_cores(settings: Settings) -> None:
    """numpy's BLAS waits for its next product by spinning: a search now and then took a core from the model."""
    code = """
from threadpoolctl import threadpool_info
from worker.runtime import Runtime
from worker.settings import load
Runtime(load()).start(follow=False)
print(sorted({library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}))
"""

    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | settings.as_env(), capture_output=True, text=True, check=True
    )

    assert done.stdout == "[1]\n"
