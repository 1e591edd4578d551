"""When a process of threads makes room for another, by real threads and no worker."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state

from producer_client.contract import Stuck
from tests.conftest import until
from worker import memory, stuck
from worker.leaving import Threads
from worker.pulse import Pulse
from worker.settings import Settings
from worker.signals import ENDED


class Pool(Threads):
    """What it would do to its process, and what it hands back, is noted."""

    def __init__(self, tmp_path: Any, **settings: Any) -> None:
        self.back: list[tuple[Collection[str], Mapping[str, str]]] = []
        self.cut_off: list[int] = []
        self.pulse = Pulse("", tmp_path, stall_s=90)
        runtime = SimpleNamespace(settings=Settings(**settings), hand_back=lambda *said: self.back.append(said))
        conf = SimpleNamespace(broker_transport_options={"pulse": self.pulse})
        super().__init__(1, app=SimpleNamespace(runtime=runtime, conf=conf))

    def leave_by_force(self, code: int = 0) -> None:
        self.cut_off.append(code)

    def given(self, task_id: str, act: Callable[[], object]) -> None:
        self.apply_async(lambda *_: act(), ("a task", task_id))

    def hold(self, task_id: str, until_set: threading.Event) -> None:
        begun = threading.Event()

        def act() -> None:
            begun.set()
            until_set.wait()

        self.given(task_id, act)
        assert begun.wait(10)

    def done(self, count: int) -> None:
        for number in range(count):
            self.given(f"done-{number}", lambda: None)
        until(lambda: not self.left)


@pytest.fixture
def make_pool(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pool]:
    monkeypatch.setattr(state, "should_stop", None)
    monkeypatch.setattr(stuck, "note", lambda *_: None)
    return lambda **settings: Pool(tmp_path, **settings)


def asked_to_end() -> object:
    return vars(state)["should_stop"]


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """What holds a thread until the test is over."""
    event = threading.Event()
    yield event
    event.set()


# ---------------------------------------------------------------------------------------- what is stuck


@pytest.mark.parametrize("not_asked", [None, False])
def test_a_thread_that_is_too_long_at_one_message_is_named_once_and_its_process_ends(
    not_asked: bool | None,
    make_pool: Callable[..., Pool],
    held: threading.Event,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noted: list[Stuck] = []
    monkeypatch.setattr(stuck, "note", lambda _, found: noted.append(found))
    pool = make_pool(stuck_s=10)
    monkeypatch.setattr(state, "should_stop", not_asked)
    pool.hold("stuck", held)
    pool.given("waits", lambda: None)

    pool.turn(9.0)
    assert not pool.cut_off
    pool.turn(1.0)
    pool.turn(60.0)

    assert pool.cut_off == [ENDED]
    assert asked_to_end() == ENDED
    (line,) = caplog.records
    assert vars(line).items() >= {"task": "a task", "task_id": "stuck", "for_s": 10}.items()
    assert "wait" in vars(line)["where"]
    assert [(one.task_id, one.for_s, one.where) for one in noted] == [("stuck", 10, vars(line)["where"])]


@pytest.mark.parametrize("asked", [0, ENDED])
def test_who_was_asked_to_end_before_that_keeps_to_its_code(
    asked: int, make_pool: Callable[..., Pool], held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool(stuck_s=10)
    pool.hold("stuck", held)
    monkeypatch.setattr(state, "should_stop", asked)

    pool.turn(10.0)

    assert (asked_to_end(), pool.cut_off) == (asked, [])


def test_a_message_that_takes_less_than_that_is_not_stuck_however_many_came_before(
    make_pool: Callable[..., Pool], held: threading.Event
) -> None:
    pool = make_pool(stuck_s=10)
    for number in range(3):
        released = threading.Event()
        pool.hold(f"slow-{number}", released)
        pool.turn(9.0)
        released.set()
        until(lambda: not pool.left)

    assert not pool.cut_off


# ---------------------------------------------------------------------------------------- its end


def test_what_is_in_hand_has_its_grace_and_is_not_handed_back(
    make_pool: Callable[..., Pool], held: threading.Event
) -> None:
    pool = make_pool(stop_grace_s=30)
    pool.hold("slow", held)
    threading.Timer(0.2, held.set).start()

    began = time.monotonic()
    pool.on_stop()

    assert 0.1 < time.monotonic() - began < 10
    assert pool.back == [([], {})]


def test_what_does_not_end_within_it_is_handed_back_and_so_is_what_was_not_begun(
    make_pool: Callable[..., Pool], held: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    begun: list[str] = []
    pool = make_pool(stop_grace_s=0.2)
    pool.hold("slow", held)
    pool.given("not begun", lambda: begun.append("it is"))

    began = time.monotonic()
    pool.on_stop()

    assert 0.2 <= time.monotonic() - began < 10
    assert pool.back == [(["not begun", "slow"], {})]
    (line,) = caplog.records
    assert "its message goes back" in line.getMessage()
    held.set()
    until(lambda: not pool.left)
    assert not begun


def test_what_is_stuck_has_no_grace_and_is_handed_on_with_where_it_is(
    make_pool: Callable[..., Pool], held: threading.Event
) -> None:
    pool = make_pool(stuck_s=10, stop_grace_s=60)
    pool.hold("stuck", held)
    pool.turn(10.0)

    began = time.monotonic()
    pool.on_stop()

    assert time.monotonic() - began < 10
    ((blameless, stuck_at),) = pool.back
    assert (blameless, list(stuck_at)) == ([], ["stuck"])
    assert "threading.py" in stuck_at["stuck"]


def test_who_ends_what_it_has_in_hand_has_not_stopped_for_probes(
    make_pool: Callable[..., Pool], held: threading.Event
) -> None:
    pool = make_pool(stop_grace_s=0.2)
    pool.hold("slow", held)
    pool.pulse.turn(redis=True)
    before = pool.pulse.line

    pool.on_stop()

    after = pool.pulse.line
    assert after["turned"] > before["turned"]
    assert after["polled"] > before["polled"]


# ---------------------------------------------------------------------------------------- memory


def has(mb: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "own_mb", lambda: mb)


def test_a_process_that_has_more_memory_than_it_may_ends_after_a_message(
    make_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    has(400.0, monkeypatch)
    pool = make_pool(memory_mb=1000)
    has(1000.0, monkeypatch)

    pool.turn(memory.LIVED_S)
    assert not pool.cut_off, "it has done nothing yet: the next one would be as large"
    pool.done(2)
    pool.turn(1.0)

    assert pool.cut_off == [ENDED]
    assert asked_to_end() == ENDED
    (line,) = caplog.records
    assert "more memory than SIGHTLINE_MEMORY_MB: this process ends" in line.getMessage()
    assert vars(line).items() >= {"memory_mb": 1000.0, "limit_mb": 1000, "messages": 2}.items()


def test_one_that_has_only_begun_to_live_goes_on(
    make_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    has(400.0, monkeypatch)
    pool = make_pool(memory_mb=1000)
    has(2000.0, monkeypatch)
    pool.done(1)

    pool.turn(memory.LIVED_S - 1)
    assert not pool.cut_off
    pool.turn(1.0)

    assert pool.cut_off == [ENDED]


@pytest.mark.parametrize("most_mb", [0, 1000])
def test_one_that_has_no_more_than_it_may_goes_on(
    most_mb: int, make_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    has(999.0, monkeypatch)
    pool = make_pool(memory_mb=most_mb)
    pool.done(1)

    pool.turn(memory.LIVED_S)

    assert asked_to_end() is None


def test_a_limit_below_what_the_model_takes_is_said_and_ends_nothing(
    make_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    has(1500.0, monkeypatch)
    pool = make_pool(memory_mb=1000)
    pool.done(1)

    pool.turn(memory.LIVED_S)

    assert asked_to_end() is None
    (line,) = caplog.records
    assert "before the first message: no limit holds; raise it" in line.getMessage()
    assert vars(line).items() >= {"memory_mb": 1500.0, "limit_mb": 1000}.items()


#: In a process of its own: one that has run other tests may have room at hand that it takes 64 MB from unseen.
MEASURE = """
import json, mmap, sys
from worker import memory

def measured():
    return memory.own_mb(), memory.resident_mb()

figures = [measured()]
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
    assert sum(mapped[::4096]) == 0
    figures.append(measured())
    kept = b"x" * len(mapped)
    figures.append(measured())
print(json.dumps(figures))
"""


def test_what_a_process_has_is_measured_without_files_that_are_mapped(tmp_path: Path) -> None:
    index = tmp_path / "index"
    index.write_bytes(bytes(64_000_000))

    ran = subprocess.run([sys.executable, "-c", MEASURE, index], check=True, capture_output=True, text=True)

    before, with_file, with_both = json.loads(ran.stdout)
    assert with_file[0] - before[0] < 20 < 50 < with_file[1] - before[1]
    assert 60 < with_both[0] - with_file[0] < 90
