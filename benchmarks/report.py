"""The frame of every benchmark: a folder that goes again, steps and tables on stderr, JSON on stdout."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks.processes import cores
from worker.commands.tables import Table
from worker.encoder.exported import cpu_name
from worker.signals import raise_on_signals

console = Console(stderr=True, width=None if sys.stderr.isatty() else 130)


@contextmanager
def workplace(name: str) -> Iterator[Path]:
    """A new folder, deleted at the end. An interrupt and what goes wrong end the program with a sentence."""
    raise_on_signals()
    folder = Path(tempfile.mkdtemp(prefix=f"sightline-{name}-"))
    # Any user may enter: Postgres runs as a user of its own when started by root.
    folder.chmod(0o755)
    try:
        yield folder
    except KeyboardInterrupt:
        sys.exit("stopped; everything that the benchmark started is stopped, too")
    except (RuntimeError, OSError, ValueError) as exc:
        sys.exit(f"the benchmark failed: {exc}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    started = time.monotonic()
    with console.status(name):
        yield
    console.print(f"{time.monotonic() - started:7.1f} s  {name}", highlight=False)


def tell(result: Any) -> str:
    """Write the figures as one line of JSON; returns it."""
    line = json.dumps(result) + "\n"
    sys.stdout.write(line)
    return line


def table(title: str, rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str] = ()) -> Table:
    """Figures by the name of their row and of their column (all that there are, unless some are wanted), as the JSON
    calls them. Rows with {"skipped": reason} stand below."""
    measured = {name: row for name, row in rows.items() if "skipped" not in row}
    columns = columns or list(dict.fromkeys(column for row in measured.values() for column in row))
    skipped = "\n".join(f"{name} is left out: {row['skipped']}" for name, row in rows.items() if "skipped" in row)
    drawn = Table(title=title, title_justify="left", caption=escape(skipped), caption_justify="left")
    drawn.add_column("", no_wrap=True)
    for column in columns:
        drawn.add_column(column.replace("_", " "), justify="right")
    for name, row in measured.items():
        drawn.add_row(*(escape(_shown(value)) for value in (name, *map(row.get, columns))))
    return drawn


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)


def machine(*packages: str) -> dict[str, Any]:
    """What the figures depend on, with the versions of these packages."""
    return {
        "cpu": cpu_name(),
        "cores_present": os.cpu_count(),
        "cores_used": cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_1_min_before": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }
