"""One room over one port: the same facts over Postgres and over a double that is a page long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack

import pytest

from producer_client.contract import Code, LeftAlone
from tests.conftest import is_killed
from worker.core.ports import Attempts
from worker.core.tries import Deaths, Try
from worker.core.types import Refusal
from worker.errors import Permanent, PhotoRefusal, Transient
from worker.quarantine import Quarantine
from worker.storage.store import PostgresStore

A, B = Try("a", 7, "/photos/7.jpg"), Try("b")


class InMemory:
    """See worker.core.ports.Attempts."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()
        self.deaths: Counter[str] = Counter()
        self._deliveries: Counter[str] = Counter()
        self._tasks: dict[str, str | None] = {}
        self.is_away = False

    def begin(self, tries: Collection[Try], *, after: int) -> dict[str, Deaths]:
        contents = {one.content_sha256 for one in tries}
        died = {content: Deaths(self.deaths[content]) for content in contents if self.deaths[content]}
        self.open.update(contents - died.keys())
        self._tasks.update({one.content_sha256: one.task_id for one in tries})
        return died

    def alone(self, content: str) -> None:
        self.open[content] += 1

    def end(self, contents: Collection[str], *, cleared: bool = False) -> None:
        if self.is_away:
            raise Transient(Code.UNAVAILABLE, "Postgres is away")
        for content in contents:
            del self.open[content]
            if cleared:
                del self.deaths[content]

    def leave(self, handed_back: Collection[str], stuck: Mapping[str, str]) -> None:
        self._deliveries.subtract(handed_back)
        self.open &= Counter({content: 1 for content, task_id in self._tasks.items() if task_id in stuck})

    def quarantined(
        self, after: int, contents: Collection[str] | None = None, limit: int | None = None
    ) -> list[LeftAlone]:
        raise NotImplementedError

    def retry(self, contents: Collection[str], after: int) -> None:
        raise NotImplementedError

    def forget(self, contents: Collection[str]) -> None:
        raise NotImplementedError

    def refuse(self, refused: Sequence[Refusal], model_key: str) -> None:
        raise NotImplementedError

    def count_delivery(self, task_id: str) -> int:
        self._deliveries[task_id] += 1
        return self._deliveries[task_id]

    def die(self) -> None:
        """The process that has these in hand ends."""
        self.deaths += self.open
        self.open.clear()


@pytest.fixture(params=["memory", "postgres"])
def process(
    request: pytest.FixtureRequest, make_store: Callable[..., PostgresStore]
) -> Callable[[], tuple[Attempts, Callable[[], None]]]:
    """One process after another: what counts for it, and its end."""
    if request.param == "memory":
        memory = InMemory()
        return lambda: (memory, memory.die)

    def start() -> tuple[Attempts, Callable[[], None]]:
        store = make_store()
        return store.attempts, lambda: is_killed(store)

    return start


Process = Callable[[], tuple[Attempts, Callable[[], None]]]


def test_a_message_is_left_alone_from_its_last_allowed_delivery_on(process: Process) -> None:
    attempts, _ = process()
    quarantine = Quarantine(attempts, after=3)

    assert [quarantine.came_back_too_often("task") for _ in range(4)] == [False, False, True, True]
    assert not quarantine.came_back_too_often("another")


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


def killed_with(attempts: Attempts, *, calm: Sequence[Try] = (), suspect: Try | None = None) -> None:
    quarantine = Quarantine(attempts, after=3)

    def work() -> None:
        with quarantine.trying([*calm, *([suspect] if suspect else [])]) as tried:
            if suspect is None:
                raise Killed
            assert suspect.content_sha256 in tried.suspects
            with quarantine.alone(suspect.content_sha256):
                raise Killed

    with pytest.raises(Killed):
        work()


def test_what_took_its_process_down_goes_alone_and_is_left_alone_by_name_in_the_end(process: Process) -> None:
    attempts, end = process()
    killed_with(attempts, calm=[A, B])
    end()
    for _ in range(2):
        attempts, end = process()
        killed_with(attempts, suspect=A)
        end()

    attempts, end = process()
    quarantine = Quarantine(attempts, after=3)
    with quarantine.trying([A, B]) as tried:
        with pytest.raises(PhotoRefusal, match=r"/photos/7\.jpg took its worker down 3 times") as refusal:
            tried.guarded("a", lambda: None, None)()
        assert tried.guarded("b", lambda: 1, None)() == 1, "it only was in hand when the first one died"
    with quarantine.trying([B]) as again:
        assert not again.suspects, "who survives alone is cleared"

    assert refusal.value.code is Code.QUARANTINED


@pytest.mark.parametrize("error", [Transient(Code.UNAVAILABLE, "a server is away"), Permanent(Code.NOT_READY, "no")])
def test_what_the_process_outlives_is_held_against_nothing(process: Process, error: Exception) -> None:
    attempts, end = process()
    quarantine = Quarantine(attempts, after=3)
    with pytest.raises(type(error)), quarantine.trying([A]):
        raise error
    end()

    attempts, _ = process()
    with Quarantine(attempts, after=3).trying([A]) as tried:
        assert not tried.suspects


def test_a_count_ends_with_the_last_who_has_the_content_in_hand() -> None:
    attempts = InMemory()
    quarantine = Quarantine(attempts, after=3)

    with quarantine.trying([A]):
        with quarantine.trying([A]):
            done = quarantine.hold("a")
        assert attempts.open["a"]
    assert attempts.open["a"], "somebody still looks at it"
    done()

    assert not attempts.open


def test_an_end_that_postgres_is_not_told_of_is_told_with_the_next() -> None:
    attempts = InMemory()
    quarantine = Quarantine(attempts, after=3)
    attempts.is_away = True
    with quarantine.trying([A]):
        pass
    assert attempts.open["a"]
    attempts.is_away = False

    with quarantine.trying([B]):
        pass

    assert not attempts.open


def test_what_a_process_has_in_hand_still_that_ends_in_order_is_held_against_nothing(process: Process) -> None:
    """As a thread that is stuck when the others have handed back their messages."""
    attempts, end = process()
    quarantine = Quarantine(attempts, after=3)
    ExitStack().enter_context(quarantine.trying([A]))
    quarantine.leave()
    end()

    attempts, _ = process()
    assert attempts.begin([A], after=3) == {}


def test_a_message_that_is_handed_back_is_not_counted_where_nothing_was_in_hand(process: Process) -> None:
    attempts, _ = process()
    quarantine = Quarantine(attempts, after=1)

    quarantine.leave(["task"])

    assert not quarantine.came_back_too_often("task")


def test_what_a_thread_is_stuck_at_counts_as_a_death_however_orderly_its_process_ends(process: Process) -> None:
    attempts, end = process()
    quarantine = Quarantine(attempts, after=3)
    for one in (Try("a", task_id="stuck"), Try("b", task_id="slow"), Try("c")):
        ExitStack().enter_context(quarantine.trying([one]))
    quarantine.leave(["slow"], {"stuck": "images.py:1 decode"})
    quarantine.leave()
    end()

    attempts, _ = process()
    assert {
        content: died.times for content, died in attempts.begin([Try("a"), Try("b"), Try("c")], after=3).items()
    } == {"a": 1}


def test_what_was_stuck_and_ended_after_all_is_held_against_nothing(process: Process) -> None:
    attempts, end = process()
    quarantine = Quarantine(attempts, after=3)
    with quarantine.trying([Try("a", task_id="stuck")]):
        quarantine.leave((), {"stuck": "images.py:1 decode"})
    end()

    attempts, _ = process()
    assert attempts.begin([Try("a")], after=3) == {}


def test_a_suspect_is_cleared_when_all_work_on_it_is_done(process: Process) -> None:
    """As a question's, whose keypoints are found after its vector."""
    attempts, end = process()
    killed_with(attempts, calm=[A])
    end()

    attempts, end = process()
    quarantine = Quarantine(attempts, after=3)
    with quarantine.trying([A]), quarantine.alone("a"):
        quarantine.hold("a")
    end()

    attempts, _ = process()
    assert attempts.begin([A], after=3)["a"].times == 2, "it was looked at still when the process died"
