"""Whoever listens hears what is done, and the work goes on as if nobody did."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Barrier

import pytest

from tests.hearing import Ear, ear, inside
from worker.core import observing
from worker.core.observing import asker, carried, count, measure, stage

__all__ = ["ear"]


def test_a_stage_is_heard_from_beginning_to_end_and_counts_with_their_labels(ear: Ear) -> None:
    with stage("store", photos=3):
        count("vectors", 2, result="hit")
        measure("batch_photos", 8, urgency="bulk")

    assert ear.heard == [
        ("began", "store", "nothing", [], {"photos": 3}),
        ("vectors", 2, {"result": "hit"}),
        ("batch_photos", 8, {"urgency": "bulk"}),
        ("ended", "store", True, None),
    ]


def test_an_error_of_the_work_is_told_and_goes_its_way(ear: Ear) -> None:
    error = ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"), stage("decode"):
        raise error

    assert ear.heard[-1] == ("ended", "decode", True, error)


def test_another_thread_works_in_the_context_of_who_has_asked_several_at_a_time(ear: Ear) -> None:
    together = Barrier(4)

    def look(name: str) -> str:
        with stage("verify", of_photo=name):
            together.wait(10)
            return name

    with ThreadPoolExecutor(4) as pool, stage("search"):
        assert list(pool.map(carried(look), "abcdefgh")) == list("abcdefgh")

    began = [heard for heard in ear.heard if heard[:2] == ("began", "verify")]
    assert len(began) == 8
    assert {heard[2] for heard in began} == {"search"}
    assert inside.get() == "nothing"


def test_one_stage_is_done_for_several(ear: Ear) -> None:
    askers = []
    for name in ("one", "other"):
        context = copy_context()
        context.run(inside.set, name)
        asked = context.run(asker)
        assert asked is not None
        askers.append(asked)

    with stage("forward", of=askers):
        pass

    assert ear.heard[0] == ("began", "forward", "nothing", ["one", "other"], {})


def test_who_raises_ends_no_work_is_named_and_hears_no_more(ear: Ear, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Ear):
        def counted(self, what: str, n: float, labels: Mapping[str, str]) -> None:
            raise RuntimeError("of the listener")

    broken = Broken()
    observing.listen(broken)

    with stage("read"):
        count("tasks", task="t", code="ok")
        count("tasks", task="t", code="ok")

    assert [record.__dict__["listener"] for record in caplog.records] == ["Broken"]
    # What it heard begin it hears end: it may have set something.
    assert [heard[0] for heard in broken.heard] == ["began", "ended"]
    assert [heard[0] for heard in ear.heard] == ["began", "tasks", "tasks", "ended"]


def test_while_nobody_listens_nothing_is_made() -> None:
    assert stage("read") is stage("decode")
    assert asker() is None
    assert carried(len) is len
