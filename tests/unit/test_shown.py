"""What people are shown on a terminal of 80 columns."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from producer_client.contract import RebuildReply
from worker.commands.index import generations_table
from worker.commands.photos import checked_lines
from worker.core.types import PublishedGeneration
from worker.library.checking import Checked
from worker.progress import rebuild_lines

MODEL = "open_clip/ViT-B-32/openai@0123456789abcdef"


def shown(what: object) -> list[str]:
    page = io.StringIO()
    Console(file=page, width=80).print(what)
    return page.getvalue().splitlines()


@pytest.mark.parametrize("language", ["en", "ru"])
def test_generations_are_shown_whole_in_80_columns(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)
    facts = (1_000_000, 1_234_567, "exact")
    at = "2026-11-28T08:12:33+00:00"
    promising = PublishedGeneration(1234, MODEL, *facts, 0.9851, 0.9722, 512_300_000, at, "serving")
    of_before = PublishedGeneration(1233, MODEL, *facts, None, None, None, at, "withdrawn")

    lines = shown(generations_table([promising, of_before]))

    assert "…" not in "".join(lines)
    whole = ("1234 ", "1000000", "seq 1234567", "exact", "512.3 MB", "0.985", "≥ 0.972", "2026-11-28", "08:12:33 UTC")
    for said in whole:
        assert any(said in line for line in lines), said
    pieces = [line.split("│")[-2].strip() for line in lines if line.startswith("│")]
    assert "".join(pieces) == 2 * MODEL


def test_a_rebuild_says_what_its_index_promises_beside_what_was_measured() -> None:
    def said(promised: float | None) -> str:
        reply = RebuildReply(2, 7, 1, 1, 0, 0, 1, 4, "model", MODEL, "cpu", 0.1, "ivf", 0.9851, 12_300_000, promised)
        (line,) = (line for line in rebuild_lines(reply) if "recall" in line)
        return line

    assert said(0.9722).endswith("ivf, recall@10 0.985 (for new photos at least 0.972), 12.3 MB")
    assert said(None).endswith("ivf, recall@10 0.985, 12.3 MB")


def test_files_that_have_changed_or_gone_are_told_and_of_others_why_nothing_is_known() -> None:
    all_well = Checked(files=9, changed=0, gone=0, open=0, unknown=0, why=None)
    unwell = Checked(files=9, changed=2, gone=3, open=0, unknown=4, why="/photos [1] is empty")

    assert checked_lines(all_well) == []
    assert shown("\n".join(checked_lines(unwell))) == [
        "files that have changed since they were embedded: 2",
        "files that are gone: 3",
        "files of which nothing can be said: 4 (/photos [1] is empty)",
    ]
