"""A target of fuzzing in a process of its own: watched, and held to its memory and time."""

from __future__ import annotations

import json
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Address space of a process, most of which the libraries take: a photo that wants gigabytes is a find.
ADDRESSES = 8 << 30
#: Seconds after which an input that hangs ends the process, which is a find.
HANGS_S = 30
#: Words for what became of inputs that are reported.
MOST_WORDS = 20


class Watched:
    """folder: where the last input is kept, so that a process that ends with it does not take it along."""

    def __init__(self, target: Callable[[Any], str], folder: Path, seconds: float) -> None:
        self._target = target
        self._last = folder / "last"
        self._ends = time.monotonic() + seconds
        self._became: Counter[str] = Counter()
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))

    @property
    def over(self) -> bool:
        return time.monotonic() > self._ends

    def __call__(self, content: Any) -> None:
        self._last.write_bytes(content if isinstance(content, bytes) else repr(content).encode())
        signal.alarm(HANGS_S)
        self._became[self._target(content)] += 1
        signal.alarm(0)

    def report(self) -> str:
        largest_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        became = dict(self._became.most_common(MOST_WORDS))
        return json.dumps({"inputs": self._became.total(), "became": became, "largest_mb": largest_mb})
