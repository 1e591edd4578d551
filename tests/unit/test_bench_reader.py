"""The benchmark of the reader reads by the release that it was told to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import reader

ROOT = Path(__file__).parents[2]


def test_two_releases_are_measured_in_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    reader.main(["--before", str(ROOT), "--turns", "1"])

    told = json.loads(capsys.readouterr().out)
    assert (told["photos"], told["readings"]) == (256, reader.READINGS)
    assert told["times_as_fast"] == pytest.approx(told["before_ms"] / told["now_ms"], abs=0.01)


def test_another_release_than_the_one_asked_for_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="does not lie in"):
        reader.read_as(tmp_path)
