"""What the commands say to people and programs, over a real stack: each of them as a new user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from producer_client import Sightline
from tests.conftest import Scene
from worker.settings import Settings
from worker.stack import Stack

ROOT = Path(__file__).parents[2]


def sightline(*arguments: str, settings: Settings, **env: str) -> subprocess.CompletedProcess[str]:
    """In a terminal of 80 columns."""
    return subprocess.run(
        [sys.executable, "-m", "worker.cli", *arguments],
        env={**os.environ, **settings.as_env(), "COLUMNS": "80", "NO_COLOR": "1", **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
    )


def as_json(*arguments: str, settings: Settings) -> Any:
    return json.loads(sightline(*arguments, "--json", settings=settings).stdout)


@pytest.mark.parametrize("verb", ["remove", "purge"])
def test_ids_that_nobody_knows_are_told_and_the_others_are_done(
    stack: Stack, client: Sightline, scenes: list[Scene], verb: str
) -> None:
    photo_id = client.add_to_index(path=str(scenes[0].path)).photo_id

    nothing = sightline(verb, "999999999", settings=stack.settings)
    mixed = sightline(verb, str(photo_id), "999999999", settings=stack.settings)

    assert (nothing.returncode, mixed.returncode) == (1, 1)
    assert "unknown_photo" in nothing.stdout
    assert "erased" not in nothing.stdout
    assert "was indexed" not in nothing.stdout
    assert "was indexed" in mixed.stdout
    assert str(photo_id) in mixed.stdout
    assert {o["status"] for o in as_json(verb, str(photo_id), "999999999", settings=stack.settings)["outcomes"]} == {
        "removed" if verb == "remove" else "purged",
        "refused",
    }
