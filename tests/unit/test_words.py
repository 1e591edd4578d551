"""Everything that the command line says has its Russian, with the same fields and the same colours."""

from __future__ import annotations

import ast
import inspect
import re
import string
from pathlib import Path

import pytest
from rich.text import Text

from producer_client.contract import Code, StatsReply
from worker.cli import cli
from worker.words import CODES, RUSSIAN, say, why

WORKER = Path(__file__).parents[2] / "worker"


def texts_in_code() -> set[str]:
    """First arguments of say(...), literal or named just above, the commands' docstrings, the names of checks."""
    found = {
        inspect.cleandoc(command.callback.__doc__ or "") for command in cli.registered_commands if command.callback
    }
    found |= {name.replace("_", " ") for name in StatsReply.__struct_fields__}
    pages = [WORKER / "cli.py", WORKER / "manifest.py", WORKER / "progress.py", *(WORKER / "commands").glob("*.py")]
    for page in pages:
        tree = ast.parse(page.read_text())
        named = {
            target.id: node.value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say":
                (text,) = node.args
                if isinstance(text, ast.Constant):
                    found.add(str(text.value))
                elif isinstance(text, ast.Name) and text.id in named:
                    found.add(str(named[text.id]))
            if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
                name = node.value.elts[0]
                found |= {str(name.value)} if isinstance(name, ast.Constant) else set()
    return found


def fields(text: str) -> list[tuple[str | None, str | None, str | None]]:
    return sorted((name, spec, how) for _, name, spec, how in string.Formatter().parse(text) if name is not None)


def test_every_text_has_its_russian_and_none_is_left_over() -> None:
    assert texts_in_code() == set(RUSSIAN)
    assert set(CODES) == set(Code)


@pytest.mark.parametrize("english", RUSSIAN)
def test_a_text_has_the_same_fields_and_colours_in_both_languages(english: str) -> None:
    russian = RUSSIAN[english]

    assert fields(russian) == fields(english)
    assert sorted(re.findall(r"\[[a-z /]*\]", russian)) == sorted(re.findall(r"\[[a-z /]*\]", english))
    assert Text.from_markup(russian).plain


def test_the_language_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", "ru_RU.UTF-8")
    russian = say("refused: {count}", count=3), why(Code.NOT_AN_IMAGE), say("no such text {a}", a=1)
    monkeypatch.setenv("SIGHTLINE_LANG", "en")
    english = say("refused: {count}", count=3), why(Code.NOT_AN_IMAGE)

    assert russian == ("отклонено: 3", "это не фото: ", "no such text 1")
    assert english == ("refused: 3", "")
