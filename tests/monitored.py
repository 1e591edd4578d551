"""Debian's Prometheus, for tests that ask it: `make prometheus` fetches it, and they are skipped without one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
DASHBOARDS = ROOT / "deploy" / "grafana" / "dashboards"
#: Where `make prometheus` puts it.
FETCHED = ROOT / ".prometheus" / "usr" / "bin"


def program(name: str) -> str | None:
    """Its path: what was fetched here, or what the machine has."""
    fetched = FETCHED / name
    return str(fetched) if fetched.exists() else shutil.which(name)


needs_prometheus = pytest.mark.skipif(
    program("promtool") is None or program("prometheus") is None, reason="no Prometheus here; `make prometheus`"
)


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    command = program("promtool")
    assert command is not None
    return subprocess.run([command, *words], capture_output=True, text=True, check=False, timeout=120)
