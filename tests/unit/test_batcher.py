"""Photos of many threads through one model: together, in order of need, each with its own outcome."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from producer_client.contract import Code
from tests.conftest import until
from worker.core.batcher import Batcher, Expected
from worker.core.request import Request, current
from worker.core.types import Pixels
from worker.core.vectors import Vectors
from worker.errors import Permanent, Transient

PATIENCE_S = 10.0
#: A pass that waits for photos on their way would fail its test by time.
GIVEN: dict[str, Any] = {
    "batch": 4,
    "bulk_batch": 2,
    "linger_s": 60.0,
    "patience_s": 60.0,
    "capacity": 64,
    "remembered": 64,
    "remember_s": 60.0,
}


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
    made = Batcher(model, **(GIVEN | changed))
    yield made
    model.gate.set()
    made.close()


def expect(asked: Batcher, *numbers: int, urgent: bool = True, deadline: float | None = None) -> Expected:
    """As a task does, which says who waits."""
    token = current.set(Request(urgent, deadline))
    try:
        return asked.expect(map(str, numbers))
    finally:
        current.reset(token)


def bring(expected: Expected, *numbers: int) -> None:
    for number in numbers:
        expected.supply(str(number), photo(number))


def ask(asked: Batcher, *numbers: int, urgent: bool = True, deadline: float | None = None) -> tuple[Any, Any]:
    """Vectors and failures by number."""
    with expect(asked, *numbers, urgent=urgent, deadline=deadline) as expected:
        bring(expected, *(number for number in numbers if str(number) in expected.mine))
        return outcome(expected)


def outcome(expected: Expected) -> tuple[Any, Any]:
    vectors, failures = expected.vectors()
    return {int(key): int(vector[0]) for key, vector in vectors.items()}, failures


def waiting(asked: Batcher, count: int) -> None:
    until(lambda: len(asked._urgent) + len(asked._bulk) == count)


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


def test_a_pass_waits_for_those_that_are_on_their_way_and_no_longer() -> None:
    model = Model()
    with batcher(model) as shared, expect(shared, 1, 2) as one, expect(shared, 3) as other:
        bring(one, 1)
        time.sleep(0.05)
        bring(other, 3)
        bring(one, 2)

        assert outcome(one) == ({1: 1, 2: 2}, {})
        assert outcome(other) == ({3: 3}, {})
    assert model.passes == [[1, 3, 2]]


def test_a_full_pass_waits_for_nobody() -> None:
    model = Model()
    with batcher(model, batch=3) as shared, expect(shared, 1, 2, 3) as full, expect(shared, 4) as late:
        bring(full, 1, 2, 3)

        assert outcome(full)[1] == {}
        bring(late, 4)
        assert outcome(late)[1] == {}
    assert model.passes == [[1, 2, 3], [4]]


def test_those_that_do_not_come_are_waited_for_a_moment() -> None:
    model = Model()
    with batcher(model, linger_s=0.02) as shared, expect(shared, 1) as one, expect(shared, 2) as other:
        bring(one, 1)

        assert outcome(one) == ({1: 1}, {})
        bring(other, 2)


def test_one_that_turns_out_to_be_broken_is_not_waited_for_any_more(pool: ThreadPoolExecutor) -> None:
    with batcher(Model()) as shared, expect(shared, 1) as one, expect(shared, 2) as other:
        bring(one, 1)
        time.sleep(0.05)
        other.supply("2", Permanent(Code.DAMAGED_IMAGE, "no"))

        assert pool.submit(outcome, one).result(PATIENCE_S) == ({1: 1}, {})


def test_an_urgent_photo_does_not_wait_for_bulk_on_its_way() -> None:
    model = Model()
    with batcher(model) as shared, expect(shared, 10, 11, urgent=False) as bulk:
        bring(bulk, 10)

        assert ask(shared, 1) == ({1: 1}, {})
        bring(bulk, 11)
        assert outcome(bulk)[1] == {}
    assert model.passes == [[1], [10, 11]]


def test_what_another_request_brings_is_not_brought_again() -> None:
    model = Model()
    with batcher(model) as shared, expect(shared, 1, 2) as first, expect(shared, 2, 3) as second:
        assert (sorted(first.mine), sorted(second.mine)) == (["1", "2"], ["3"])
        bring(first, 1, 2)
        bring(second, 3)

        assert outcome(second) == ({2: 2, 3: 3}, {})
    assert sorted(model.seen) == [1, 2, 3]


def test_what_cannot_be_decoded_is_said_to_all_that_wait_for_it() -> None:
    with batcher(Model()) as shared, expect(shared, 1, 2) as first, expect(shared, 2) as second:
        first.supply("2", Permanent(Code.DAMAGED_IMAGE, "no"))
        bring(first, 1)

        for each in (first, second):
            assert each.vectors()[1]["2"].code is Code.DAMAGED_IMAGE
        assert outcome(first)[0] == {1: 1}


def test_a_request_that_gives_up_leaves_nobody_waiting() -> None:
    with batcher(Model()) as shared:
        with expect(shared, 1, 2) as first:
            bring(first, 1)
            second = expect(shared, 2)

        failures = second.vectors()[1]
        assert isinstance(failures["2"], Transient)
        assert ask(shared, 2) == ({2: 2}, {}), "the next one brings it anew"


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
    with batcher(model, capacity=4) as shared:
        first = occupied(pool, model, shared)
        two = pool.submit(ask, shared, 2, 3)
        waiting(shared, 2)

        with pytest.raises(Transient) as turned_away:
            ask(shared, 4, 5)
        same = pool.submit(ask, shared, 2, 3)
        fits = pool.submit(ask, shared, 6)
        waiting(shared, 3)
        model.gate.set()

        assert turned_away.value.code is Code.OVERLOADED
        assert [each.result()[1] for each in (first, two, same, fits)] == [{}, {}, {}, {}]
        assert sorted(model.seen) == [1, 2, 3, 6]
        assert ask(shared, *range(20, 30))[1] == {}, "more than fit are taken when nobody waits"


def test_what_is_on_its_way_has_its_place_in_the_queue_already() -> None:
    with batcher(Model(), capacity=2) as shared, expect(shared, 1, 2) as first:
        with pytest.raises(Transient) as turned_away:
            expect(shared, 3)

        assert turned_away.value.code is Code.OVERLOADED
        bring(first, 1, 2)


def test_bulk_that_fills_its_queue_turns_away_no_search(pool: ThreadPoolExecutor) -> None:
    model = Model()
    with batcher(model, capacity=3) as shared:
        first = occupied(pool, model, shared)
        bulk = pool.submit(ask, shared, 10, 11, 12, urgent=False)
        waiting(shared, 3)
        urgent = pool.submit(ask, shared, 2)
        waiting(shared, 4)

        with pytest.raises(Transient):
            ask(shared, 13, urgent=False)
        model.gate.set()
        assert [each.result()[1] for each in (first, bulk, urgent)] == [{}, {}, {}]


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
    shared = Batcher(model, **(GIVEN | {"patience_s": 0.01, "capacity": 1000, "remembered": 1}))
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


def test_a_stop_waits_for_what_is_on_its_way(pool: ThreadPoolExecutor) -> None:
    shared = Batcher(Model(), **GIVEN)
    with expect(shared, 1) as one:
        stopping = pool.submit(shared.close)
        until(lambda: shared._closing)
        bring(one, 1)

        assert pool.submit(outcome, one).result(PATIENCE_S) == ({1: 1}, {})
        stopping.result(PATIENCE_S)


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
