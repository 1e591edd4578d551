"""Rooms stay small enough to read at once, only the code of others is answered by catching everything, and no property
has a deadline."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
#: Folders, or modules, whose files have a longest.
SHORT = ("worker", "producer_client", "demo", "examples", "benchmarks")
LONGEST = 350
#: Folders in which catching everything needs a reason.
CAREFUL = ("worker", "producer_client", "demo", "examples", "benchmarks")
#: Whose code it is, what it raises, what becomes of it: on the line of the `except`.
REASON = re.compile(r"except .*:  # others' code: [^;]+, which raises? [^;]+; \S")


def sources(places: Iterable[str]) -> Iterator[Path]:
    for place in places:
        there = ROOT / place
        found = [there] if there.suffix else sorted(there.rglob("*.py"))
        assert found, f"{place} has no Python file"
        yield from found


def names_in(node: ast.AST | None) -> set[str]:
    """Names that are said anywhere in it, those of attributes too."""
    found = ast.walk(node) if node is not None else ()
    return {
        part.id if isinstance(part, ast.Name) else part.attr
        for part in found
        if isinstance(part, (ast.Name, ast.Attribute))
    }


def unreasoned(code: str) -> list[int]:
    """Lines that catch everything, and neither give the reason in its form nor raise it again."""
    lines, found = code.splitlines(), []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ExceptHandler):
            everything = node.type is None or "BaseException" in names_in(node.type)
            if everything:
                last = node.body[-1]
                fine = isinstance(last, ast.Raise) and last.exc is None
            else:
                fine = "Exception" not in names_in(node.type) or bool(REASON.search(lines[node.lineno - 1]))
        elif isinstance(node, ast.Call):
            fine = "suppress" not in names_in(node.func) or not any(
                names_in(argument) & {"Exception", "BaseException"} for argument in node.args
            )
        else:
            continue
        if not fine:
            found.append(node.lineno)
    return found


def test_no_file_is_longer_than_a_reader_takes_in() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources(SHORT)}

    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


def test_everything_is_caught_only_where_the_code_of_others_runs() -> None:
    found = {str(path.relative_to(ROOT)): unreasoned(path.read_text()) for path in sources(CAREFUL)}

    assert {name: lines for name, lines in found.items() if lines} == {}


FORM = "others' code: a model, which raises what it likes; its photo is refused"


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        (f"try: f()\nexcept Exception:  # {FORM}\n    g()", []),
        (f"try: f()\nexcept Exception as exc:  # {FORM}  # noqa: BLE001\n    g()", []),
        ("try: f()\nexcept ValueError:\n    g()", []),
        ("try: f()\nexcept BaseException:\n    g()\n    raise", []),
        ("try: f()\nexcept Exception:\n    g()", [2]),
        ("try: f()\nexcept Exception:\n    raise", [2]),
        ("try: f()\nexcept Exception:  # noqa: BLE001  # it may fail\n    g()", [2]),
        ("try: f()\nexcept Exception:  # others' code: a model\n    g()", [2]),
        (f"try: f()\nexcept (KeyError, builtins.Exception):\n    # {FORM}\n    g()", [2]),
        (f"try: f()\nexcept BaseException:  # {FORM}\n    g()", [2]),
        ("try: f()\nexcept:\n    g()", [2]),
        ("with suppress(Exception):\n    f()", [1]),
        ("with contextlib.suppress(KeyError, BaseException):\n    f()", [1]),
        ("with suppress(KeyError):\n    f()", []),
    ],
)
def test_a_reason_has_its_form_and_its_place(code: str, lines: list[int]) -> None:
    assert unreasoned(code) == lines


@settings(max_examples=1, database=None)
@given(st.just(0.25))
def test_an_example_of_a_property_may_take_longer_than_hypothesis_allows(seconds: float) -> None:
    """On a busy machine examples take longer than the 200 ms that it allows by itself."""
    time.sleep(seconds)
