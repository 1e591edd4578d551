"""How a process becomes ready: what it has reached, in seconds since it began. The standard library alone."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

#: settings: read. models: opened. decoders: the first takes photos. imports: all that a worker needs. database: it has
#: answered. index: it is there. queue: messages are asked for.
Step = Literal["settings", "models", "decoders", "imports", "database", "index", "queue"]

_reached: dict[Step, float] = {}


@contextmanager
def uncollected() -> Iterator[None]:
    """Around imports: no garbage is looked for. They make a quarter of a million objects and hardly any garbage, and an
    eighth of their time was spent on looking for it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def reached(step: Step) -> None:
    """Now, if it is for the first time. Several go on beside each other, so that these are no parts of a sum."""
    _reached.setdefault(step, round(age_s(), 2))


def steps() -> dict[str, float]:
    """By name, with their unit, in the order in which they were reached."""
    return {f"{step}_s": after for step, after in _reached.items()}


def age_s() -> float:
    """Of this process: the kernel knows it to a hundredth (proc(5), starttime)."""
    ticks = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
