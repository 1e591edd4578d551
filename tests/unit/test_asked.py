"""What hangs is asked by one thread, and waited for only so long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import pytest

from tests.conftest import until
from worker.observe.asked import Asked, Several


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


def test_several_say_once_why_one_of_them_cannot_be_asked_and_when_it_is_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers: list[int | OSError] = [OSError("gone"), OSError("gone"), OSError("full"), 1, 1]

    def ask() -> int:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    log = logging.getLogger(__name__)
    asked = {"here": Asked("here", lambda: 7, wait_s=60.0), "far": Asked("far", ask, wait_s=60.0)}
    several = Several(asked, log, said_as="the disk of {}")
    with caplog.at_level(logging.INFO, log.name):
        found = [(several.answers(), dict(several.away)) for _ in range(5)]

    assert found == [
        ({"here": 7}, {"far": "gone"}),
        ({"here": 7}, {"far": "gone"}),
        ({"here": 7}, {"far": "full"}),
        ({"here": 7, "far": 1}, {}),
        ({"here": 7, "far": 1}, {}),
    ]
    away, again = "the disk of far cannot be asked", "the disk of far is asked again"
    assert [record.message for record in caplog.records] == [away, away, again]
