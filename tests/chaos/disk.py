"""A small disk of its own for a folder, and that disk full. Knows nothing of what lies there."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.chaos.faults import Course

#: Of the disk: more than all generations that a soak keeps, and one that is built.
SIZE = "64m"
#: Seconds for which it stays full at the most.
LONGEST_S = 12.0


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


def full(folder: Path, lasts_s: float, felt: Callable[[], int]) -> Course:
    """For at least so long, and until it was felt once more than before."""
    filler, before, began = folder / "full", felt(), time.monotonic()
    try:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        while (took_s := time.monotonic() - began) < lasts_s or (felt() == before and took_s < LONGEST_S):
            yield
    finally:
        filler.unlink(missing_ok=True)
