"""A small disk of its own for a folder, and that disk full. Knows nothing of what lies there."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.chaos.faults import Course

#: Of the disk: more than all generations that a soak keeps, and one that is built.
SIZE = "64m"
#: Seconds for which it stays full at the most.
LONGEST_S = 30.0


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Whether this user may mount one there. What lies on it is in the folder afterwards, too."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "sightline-chaos", str(folder)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        yield False
        return
    copy = folder.with_name(f"{folder.name}.copy")
    try:
        yield True
        shutil.copytree(folder, copy)
    finally:
        # Lazily: this process may have files of it mapped.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        if copy.exists():
            folder.rmdir()
            copy.rename(folder)


def full(folder: Path, lasts_s: float) -> Course:
    """For at least so long, and until a rebuild has met it: that makes a folder of its own here, and deletes it."""
    filler, began = folder / "full", time.monotonic()
    try:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        filled = folder.stat().st_mtime_ns
        while (took_s := time.monotonic() - began) < LONGEST_S:
            untouched = folder.stat().st_mtime_ns == filled
            if took_s >= lasts_s and not untouched and not any(folder.glob(".building-*")):
                return
            yield
    finally:
        filler.unlink(missing_ok=True)
