"""Photos of many threads through one model: together, in order of need, each with its own outcome."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from producer_client.contract import Code
from worker.core.batcher import Batcher
from worker.core.request import Request, current
from worker.core.types import Pixels
from worker.core.vectors import Vectors
from worker.errors import Permanent, Transient

PATIENCE_S = 10.0


def photo(number: int) -> Pixels:
    return np.full((2, 2, 3), number, dtype=np.uint8)


class Model:
    """Says of each photo what its first pixel is. Stands still while `closed`; breaks on the poison."""

    def __init__(self, poison: Exception | None = None, poisoned: int = 66) -> None:
        self.passes: list[list[int]] = []
        self.threads: set[int] = set()
        self.poison, self.poisoned = poison, poisoned
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, photos: Sequence[Pixels]) -> Vectors:
        numbers = [int(pixels[0, 0, 0]) for pixels in photos]
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        self.passes.append(numbers)
        self.threads.add(threading.get_ident())
        if self.poison is not None and self.poisoned in numbers:
            raise self.poison
        return np.array([[number, 0.0] for number in numbers], dtype=np.float32)

    @property
    def seen(self) -> list[int]:
        return [number for numbers in self.passes for number in numbers]

    def hold(self) -> None:
        self.gate.clear()
        self.entered.clear()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as threads:
        yield threads


@contextmanager
def batcher(model: Model, **changed: Any) -> Iterator[Batcher]:
    given = {"batch": 4, "bulk_batch": 2, "linger_s": 0.0, "patience_s": 60.0, "capacity": 64}
    given |= {"remembered": 64, "remember_s": 60.0}
    made = Batcher(model, **(given | changed))
    yield made
    model.gate.set()
    made.close()


def ask(asked: Batcher, *numbers: int, urgent: bool = True, deadline: float | None = None) -> tuple[Any, Any]:
    """As a task does, which says who waits; vectors and failures by number."""
    token = current.set(Request(urgent, deadline))
    try:
        vectors, failures = asked.encode({str(number): photo(number) for number in numbers})
    finally:
        current.reset(token)
    return {int(key): int(vector[0]) for key, vector in vectors.items()}, failures


def waiting(asked: Batcher, count: int) -> None:
    until(lambda: len(asked._urgent) + len(asked._bulk) == count)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def occupied(pool: ThreadPoolExecutor, model: Model, shared: Batcher) -> Future[Any]:
    """Photo 1 is in the model, which holds it until its gate is set: what is asked for now has to wait."""
    model.hold()
    first = pool.submit(ask, shared, 1)
    assert model.entered.wait(PATIENCE_S)
    return first


def test_photos_of_many_threads_go_through_the_model_together(pool: ThreadPoolExecutor) -> None:
    model = Model()
    with batcher(model) as shared:
        first = occupied(pool, model, shared)
        others = [pool.submit(ask, shared, number) for number in range(2, 8)]
        waiting(shared, 6)
        model.gate.set()

        assert first.result() == ({1: 1}, {})
        assert [other.result() for other in others] == [({number: number}, {}) for number in range(2, 8)]
    assert [len(numbers) for numbers in model.passes] == [1, 4, 2]
    assert len(model.threads) == 1


def test_an_idle_model_waits_a_moment_for_company(pool: ThreadPoolExecutor) -> None:
    model = Model()
    with batcher(model, linger_s=60.0, batch=3) as shared:
        asked = [pool.submit(ask, shared, number) for number in (1, 2, 3)]

        assert [one.result(PATIENCE_S) for one in asked] == [({number: number}, {}) for number in (1, 2, 3)]
    assert [sorted(numbers) for numbers in model.passes] == [[1, 2, 3]], "full, it did not wait to the end"


@pytest.mark.parametrize(
    ("poison", "code"),
    [
        (ValueError("no"), Code.INTERNAL),
        (Permanent(Code.DAMAGED_IMAGE, "no"), Code.DAMAGED_IMAGE),
        (MemoryError(), Code.UNAVAILABLE),
    ],
)
@pytest.mark.parametrize("culprit", [0, 3, 6])
def test_one_photo_that_breaks_the_model_fails_alone(poison: Exception, code: Code, culprit: int) -> None:
    model = Model(poison, poisoned=culprit)
    with batcher(model, batch=8) as shared:
        vectors, failures = ask(shared, *range(7))

    assert vectors == {number: number for number in range(7) if number != culprit}
    assert {key: failure.code for key, failure in failures.items()} == {str(culprit): code}
    assert len(model.passes) <= 7, "halved, not one by one"


def test_a_model_that_loses_a_row_gives_nobody_another_ones_vector() -> None:
    class Forgetful(Model):
        def __call__(self, photos: Sequence[Pixels]) -> Vectors:
            return super().__call__(photos)[: max(1, len(photos) - 1)]

    with batcher(Forgetful()) as shared:
        assert ask(shared, 1, 2, 3, 4) == ({1: 1, 2: 2, 3: 3, 4: 4}, {})


def test_urgent_photos_go_before_bulk_that_came_earlier(pool: ThreadPoolExecutor) -> None:
    model = Model()
    with batcher(model) as shared:
        first = occupied(pool, model, shared)
        bulk = pool.submit(ask, shared, 10, 11, 12, urgent=False)
        waiting(shared, 3)
        urgent = pool.submit(ask, shared, 2)
        waiting(shared, 4)
        model.gate.set()
        for each in (first, bulk, urgent):
            each.result()

    assert model.passes == [[1], [2], [10, 11], [12]]


def test_bulk_that_has_waited_long_gets_one_pass_and_urgent_ones_go_on(pool: ThreadPoolExecutor) -> None:
    model = Model()
    with batcher(model, batch=1, patience_s=0.3) as shared:
        first = occupied(pool, model, shared)
        bulk = pool.submit(ask, shared, 20, 21, 22, urgent=False)
        waiting(shared, 3)
        urgent = [pool.submit(ask, shared, number) for number in range(2, 12)]
        waiting(shared, 13)
        since = shared._bulk[0].since
        until(lambda: time.monotonic() - since > 0.3)
        model.gate.set()
        for each in (first, bulk, *urgent):
            assert each.result()[1] == {}

    assert model.passes[:2] == [[1], [20, 21]]
    assert model.passes[-1] == [22], "its patience begins anew with every pass"
    assert sorted(model.seen) == [*range(1, 12), 20, 21, 22]


def test_what_does_not_fit_the_queue_is_turned_away_whole_with_a_code_of_its_own(pool: ThreadPoolExecutor) -> None:
    model = Model()
    with batcher(model, capacity=3) as shared:
        first = occupied(pool, model, shared)
        two = pool.submit(ask, shared, 2, 3)
        waiting(shared, 2)

        with pytest.raises(Transient) as turned_away:
            ask(shared, 4, 5)
        fits = pool.submit(ask, shared, 6)
        waiting(shared, 3)
        model.gate.set()

        assert turned_away.value.code is Code.OVERLOADED
        assert [each.result()[1] for each in (first, two, fits)] == [{}, {}, {}]
        assert sorted(model.seen) == [1, 2, 3, 6]
        assert ask(shared, *range(20, 30))[1] == {}, "more than fit are taken when nobody waits"


def test_a_photo_that_nobody_waits_for_any_more_costs_no_pass(pool: ThreadPoolExecutor) -> None:
    model = Model()
    with batcher(model) as shared:
        first = occupied(pool, model, shared)
        late = pool.submit(ask, shared, 2, deadline=time.monotonic() + 0.01)
        also_for_somebody_else = pool.submit(ask, shared, 3, deadline=time.monotonic() + 0.01)
        waiting(shared, 2)
        somebody_else = pool.submit(ask, shared, 3)
        in_time = pool.submit(ask, shared, 4, deadline=time.monotonic() + 60)
        waiting(shared, 3)
        until(lambda: shared._in_hand["3"].deadline is None)
        time.sleep(0.02)
        model.gate.set()

        assert late.result()[1]["2"].code is Code.TIMED_OUT
        for each in (first, also_for_somebody_else, somebody_else, in_time):
            assert each.result()[1] == {}
    assert sorted(model.seen) == [1, 3, 4]


def test_one_content_that_two_wait_for_goes_through_once_and_as_urgently_as_the_more_urgent(
    pool: ThreadPoolExecutor,
) -> None:
    model = Model()
    with batcher(model) as shared:
        first = occupied(pool, model, shared)
        bulk = pool.submit(ask, shared, 10, 11, 12, urgent=False)
        waiting(shared, 3)
        urgent = pool.submit(ask, shared, 12)
        until(lambda: len(shared._urgent) == 1)
        model.gate.set()

        assert (urgent.result()[0], bulk.result()[0]) == ({12: 12}, {10: 10, 11: 11, 12: 12})
        assert first.result()[1] == {}
    assert model.passes == [[1], [12], [10, 11]]


def test_a_stop_under_load_drops_nothing_that_was_taken(pool: ThreadPoolExecutor) -> None:
    model = Model()
    given = {"batch": 4, "bulk_batch": 2, "linger_s": 0.001, "patience_s": 0.01, "capacity": 1000}
    shared = Batcher(model, **given, remembered=1, remember_s=60.0)  # type: ignore[arg-type]  # mypy sees object
    outcomes: list[Future[Any]] = []
    taken = threading.Semaphore(0)

    def one(number: int) -> str:
        try:
            vectors, failures = ask(shared, number, urgent=number % 3 > 0)
        except Transient as exc:
            return exc.code.value
        assert (vectors, failures) == ({number: number}, {})
        taken.release()
        return "done"

    outcomes += [pool.submit(one, number) for number in range(200)]
    for _ in range(20):
        assert taken.acquire(timeout=PATIENCE_S)
    shared.close()
    after = pool.submit(one, 250)

    said = [outcome.result(PATIENCE_S) for outcome in outcomes]
    assert set(said) <= {"done", "unavailable"}
    assert said.count("done") == len(model.seen) >= 20
    assert after.result() == "unavailable"
    assert shared._thread is not None
    assert not shared._thread.is_alive()


def test_what_was_done_a_moment_ago_is_not_done_again() -> None:
    model = Model()
    with batcher(model) as asked:
        first = ask(asked, 1, 2)
        again = ask(asked, 2, 3, 1)

        assert first == ({1: 1, 2: 2}, {})
        assert again == ({1: 1, 2: 2, 3: 3}, {})
        assert sorted(model.seen) == [1, 2, 3]
        assert asked.computed == 3
        assert asked.recent(["1", "4"]).keys() == {"1"}


def test_a_failure_is_not_remembered() -> None:
    model = Model(poison=ValueError("once"), poisoned=2)
    with batcher(model) as asked:
        assert ask(asked, 2)[1].keys() == {"2"}
        model.poison = None

        assert ask(asked, 2) == ({2: 2}, {})
