"""The pages say what the code does."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

from typer.testing import CliRunner

from worker.joined import join
from worker.observe import table
from worker.settings_table import TABLE_BEGINS, TABLE_ENDS, as_markdown

ROOT = Path(__file__).parents[2]
#: Pages that say of each promise which test holds it.
PROMISES = [ROOT / "SECURITY.md", ROOT / "docs" / "reliability.md"]


def test_the_configuration_table_is_the_one_of_the_settings() -> None:
    page = (ROOT / "README.md").read_text()

    shown = page.partition(TABLE_BEGINS)[2].partition(TABLE_ENDS)[0].strip()

    assert shown == as_markdown().strip(), "run `make docs`"


def test_the_tables_of_metrics_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()

    assert page.partition(table.BEGINS)[2].partition(table.ENDS)[0].strip() == table.as_markdown().strip(), (
        "`make docs`"
    )


def test_every_link_between_the_pages_leads_somewhere() -> None:
    pages = [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *filter(Path.exists, PROMISES),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "deploy").glob("*.md"),
    ]

    dead = [
        f"{page.relative_to(ROOT)} -> {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / link).exists()
    ]

    assert dead == []


def test_every_test_that_a_page_of_promises_names_exists() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    tests = set(re.findall(r"^def (test_\w+)\(", code, re.MULTILINE))

    named = {page.name: set(re.findall(r"`(test_\w+)`", page.read_text())) for page in PROMISES if page.exists()}

    assert named
    assert {page: sorted(names - tests) for page, names in named.items() if names - tests or not names} == {}


def test_every_command_that_a_page_shows_exists() -> None:
    pages = [ROOT / "README.md", ROOT / "docs" / "architecture.md", ROOT / "deploy" / "README.md"]
    pages += sorted([*(ROOT / "docs").glob("guide.*.md"), *(ROOT / "docs").glob("runbook*.md")])
    named = {name for page in pages for name in re.findall(r"sightline ([a-z]+(?:-[a-z]+)*)\b", page.read_text())}
    targets = {name for page in pages for name in re.findall(r"make ([a-z]+(?:-[a-z]+)*)\b", page.read_text())}
    makefile = (ROOT / "Makefile").read_text()

    runner = CliRunner()
    assert named & {"up", "worker", "rebuild", "doctor"}
    for name in named:
        assert runner.invoke(join(name), [name, "--help"]).exit_code == 0, name
    for name in targets:
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name


def test_the_backup_that_the_readme_makes_is_no_file_for_git() -> None:
    (file,) = re.findall(r"sightline backup (\S+)", (ROOT / "README.md").read_text())

    assert any(fnmatch(file, line) for line in (ROOT / ".gitignore").read_text().splitlines())
