"""What hangs is asked by one thread, and waited for only so long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.conftest import until
from worker.observe.asked import Asked


class Hanging:
    """Answers how often it was asked, once it goes on."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.times = 0

    def __call__(self) -> int:
        self.times += 1
        self.goes_on.wait(30)
        return self.times


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    one = Hanging()
    yield one
    one.goes_on.set()


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_what_hangs_is_waited_for_once_and_asked_again_when_it_has_come_back(hanging: Hanging) -> None:
    asked = Asked("a disk", hanging, wait_s=0.2)
    began = time.monotonic()
    for _ in range(5):
        with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
            asked.begin()()

    assert 0.2 <= time.monotonic() - began < 0.4
    assert hanging.times == 1
    assert [thread.daemon for thread in threads("a disk")] == [True], "nor does the process wait for it at its end"
    hanging.goes_on.set()
    until(lambda: not threads("a disk"))
    assert asked.begin()() == 2


def test_who_comes_while_it_is_asked_has_the_same_answer(hanging: Hanging) -> None:
    asked = Asked("a server", hanging, wait_s=10)
    answers = [asked.begin(), asked.begin()]
    hanging.goes_on.set()

    assert [answer() for answer in answers] == [1, 1]


def test_what_it_raises_is_raised_where_it_is_waited_for() -> None:
    asked: Asked[int] = Asked("a server", lambda: [][1], wait_s=10)

    with pytest.raises(IndexError):
        asked.begin()()
