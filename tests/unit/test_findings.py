"""What findings/*.sh promise of themselves; they are run by `make findings`, not here."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "findings"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
OURS = {"worker", "producer_client", "demo", "benchmarks", "examples", "tests"}
each = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


def code_of(script: Path) -> str:
    """Its Python, which stands between the two PY."""
    found = re.search(r"<<'PY'\n(.*)\nPY\n\Z", script.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def packages_of(script: Path) -> list[str]:
    (line,) = re.findall(r"pip install (.*)", script.read_text())
    return [word for word in line.split() if not word.startswith("-")]


def test_there_are_some_and_the_page_names_each_of_them() -> None:
    named = re.findall(r"^\| `([a-z0-9-]+)` \|", (FOLDER / "README.md").read_text(), re.MULTILINE)

    assert len(SCRIPTS) >= 10
    assert named == [script.stem for script in SCRIPTS]


@each
def test_a_script_can_be_run_and_is_whole(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/bin/bash\n# What one would guess: ")
    assert "# What happens: " in script.read_text()
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


@each
def test_a_script_pins_all_that_it_installs_and_says_the_versions(script: Path) -> None:
    packages = packages_of(script)
    pins = [package.split("==") for package in packages]
    comment = script.read_text().partition("set -euo")[0]

    assert packages
    assert all(len(pin) == 2 and re.fullmatch(r"[0-9][0-9a-z.]*", pin[1]) for pin in pins), packages
    assert any(version in comment for _, version in pins)


@each
def test_a_script_works_in_a_folder_of_its_own_and_removes_it(script: Path) -> None:
    text = script.read_text()

    assert "set -euo pipefail\nfolder=$(mktemp -d)\ntrap 'rm -rf \"$folder\"' EXIT\n" in text
    assert '-m venv "$folder/venv"' in text
    assert 'cd "$folder"\n' in text


@each
def test_a_script_knows_nothing_of_ours_and_fails_if_what_it_says_changes(script: Path) -> None:
    code = code_of(script)
    imported = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])

    assert not imported & OURS
    assert re.search(r'sys\.exit\(print\(f"holds: \{said\}"\) if .* else f"changed: \{said\}"\)\Z', code)
