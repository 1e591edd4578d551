"""One room of the library over one port: the same facts over Postgres and over a double that is a page long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import pytest

from producer_client.contract import Code
from worker.core.ports import Attempts
from worker.core.types import Missing, Refusal
from worker.errors import Permanent, Transient
from worker.library.quarantine import Quarantine
from worker.storage.store import PostgresStore

KEY = "model@1"


class InMemory:
    """See worker.core.ports.Attempts."""

    def __init__(self) -> None:
        self.tries: Counter[int] = Counter()
        self.refused: dict[int, tuple[Code, str]] = {}
        self._deliveries: Counter[str] = Counter()

    def begin(self, photo_ids: Collection[int]) -> None:
        self.tries.update(photo_ids)

    def end(self, photo_ids: Collection[int]) -> None:
        for photo_id in photo_ids:
            del self.tries[photo_id]

    def refuse(self, refused: Sequence[Refusal], model_key: str) -> None:
        for one in refused:
            assert one.photo_id is not None
            self.refused[one.photo_id] = (one.code, one.message)

    def count_delivery(self, task_id: str) -> int:
        self._deliveries[task_id] += 1
        return self._deliveries[task_id]


@pytest.fixture(params=["memory", "postgres"])
def attempts(request: pytest.FixtureRequest) -> Attempts:
    if request.param == "memory":
        return InMemory()
    store: PostgresStore = request.getfixturevalue("store")
    return store.attempts


def test_a_message_is_left_alone_from_its_last_allowed_delivery_on(attempts: Attempts) -> None:
    quarantine = Quarantine(attempts, after=3)

    assert [quarantine.came_back_too_often("task") for _ in range(4)] == [False, False, True, True]
    assert not quarantine.came_back_too_often("another")


def test_a_photo_that_took_its_worker_down_too_often_is_refused_by_name(attempts: Attempts) -> None:
    quarantine = Quarantine(attempts, after=3)

    assert quarantine.refusal(Missing(7, "/photos/7.jpg", attempts=2), KEY) is None
    refusal = quarantine.refusal(Missing(7, "/photos/7.jpg", attempts=3), KEY)

    assert refusal is not None
    assert (refusal.ref, refusal.code) == ("7", Code.QUARANTINED)
    assert "/photos/7.jpg took its worker down 3 times" in refusal.message


@pytest.mark.parametrize(
    ("error", "left"),
    [
        pytest.param(Transient(Code.UNAVAILABLE, "a server is away"), {}, id="nobody's fault"),
        pytest.param(Permanent(Code.NOT_READY, "no such table"), {1: 1, 2: 1}, id="anything else"),
    ],
)
def test_a_try_is_taken_back_only_where_it_was_nobodys_fault(error: Exception, left: dict[int, int]) -> None:
    attempts = InMemory()
    quarantine = Quarantine(attempts, after=3)

    def work() -> None:
        with quarantine.trying([1, 2]):
            assert attempts.tries == {1: 1, 2: 1}, "counted before the work"
            raise error

    with pytest.raises(type(error)):
        work()

    assert attempts.tries == left
