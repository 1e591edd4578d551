"""Log lines as programs read them: one JSON object each, whatever the facts are; and as people do."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from worker import children
from worker.logs import FactsFormatter, JsonFormatter, of_message


class Kind(Enum):
    IVF = "ivf"


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no words")


def record(message: str = "photos added", *, exc_info: Any = None, **facts: Any) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "worker.library", "levelname": "INFO", "msg": message, "exc_info": exc_info})
    vars(made).update(facts)
    return made


def written(*args: Any, **facts: Any) -> dict[str, Any]:
    """As a strict reader has it: without NaN, and of valid Unicode."""
    line = JsonFormatter().format(record(*args, **facts))
    assert "\n" not in line
    read = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    json.dumps(read, ensure_ascii=False).encode()
    assert isinstance(read, dict)
    return read


def test_a_line_says_when_how_urgent_who_and_what_and_its_facts_are_fields() -> None:
    read = written(stored=64, took_ms=812.4, fresh=True, code=None)

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", read.pop("time"))
    assert read == {
        "level": "INFO",
        "logger": "worker.library",
        "message": "photos added",
        "stored": 64,
        "took_ms": 812.4,
        "fresh": True,
        "code": None,
    }


def test_the_time_is_that_of_the_record() -> None:
    made = record()
    read = json.loads(JsonFormatter().format(made))

    moment = datetime.fromisoformat(read["time"])
    assert moment.tzinfo == UTC
    assert abs(moment.timestamp() - made.created) < 0.001


@pytest.mark.parametrize(
    ("fact", "plain"),
    [
        (Path("/photos/1.jpg"), "/photos/1.jpg"),
        (ValueError("no such place"), "ValueError: no such place"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (b"\xff\x00jpg", "\\xff\x00jpg"),
        ("a\nb\u2028c", "a\nb\u2028c"),
        ("\udcff.jpg", "\\udcff.jpg"),
        ("Заря", "Заря"),
        (Kind.IVF, "Kind.IVF"),
        ((1, Path("/a")), [1, "/a"]),
        ({"a": {1: float("inf")}}, {"a": {"1": "inf"}}),
        (10**400, 10**400),
        (Unspeakable(), "Unspeakable"),
    ],
)
def test_what_json_lacks_is_written_plainly(fact: Any, plain: Any) -> None:
    assert written(fact=fact)["fact"] == plain


def test_a_circle_of_values_ends() -> None:
    around: list[Any] = []
    around.append(around)

    assert "fact" in written(fact=around)


def test_no_fact_takes_the_place_of_what_every_line_says() -> None:
    read = written(level="landlock", time="noon", message_="other")

    assert read["level"] == "INFO"
    assert (read["level_"], read["time_"], read["message_"]) == ("landlock", "noon", "other")


def test_an_exception_is_text_of_the_same_line() -> None:
    try:
        raise RuntimeError("gone\nfor good")
    except RuntimeError:
        read = written(exc_info=sys.exc_info())

    assert read["exception"].startswith("Traceback (most recent call last):\n")
    assert read["exception"].endswith("RuntimeError: gone\nfor good")


def test_lines_about_a_message_carry_its_facts_and_a_facts_own_value_wins() -> None:
    token = of_message.set({"task_id": "t", "photo_id": 7, "trace_id": "ab"})
    try:
        read = written(photo_id=8)
        line = FactsFormatter().format(record(stored=1))
    finally:
        of_message.reset(token)

    assert (read["task_id"], read["photo_id"], read["trace_id"]) == ("t", 8, "ab")
    # As people are used to it, and where traces are kept, by which.
    assert line.endswith(" INFO worker.library photos added stored=1 trace_id=ab")
    assert "task_id" not in written()


@pytest.mark.parametrize(("level", "above"), [("INFO", False), ("DEBUG", False), ("WARNING", True), ("CRITICAL", True)])
def test_up_knows_the_level_of_such_a_line(level: str, above: bool) -> None:
    made = record("an ERROR that is none", why='"level": "ERROR"')
    made.levelname = level
    line = JsonFormatter().format(made)

    assert bool(children.ABOVE_ORDINARY.match(line)) == above
    assert bool(children.ORDINARY.match(line)) == (not above)


def test_pythons_own_warnings_are_not_passed_on_by_up() -> None:
    made = record("SecurityWarning: you are root")
    made.name, made.levelname = "py.warnings", "WARNING"

    assert not children.ABOVE_ORDINARY.match(JsonFormatter().format(made))
