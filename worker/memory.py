"""What this process has of memory, and whether it is time to make room. The standard library alone; Linux."""

from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

#: Seconds that a process lives at the least, whatever it has: a limit that is too low costs the loading of a model once
#: in so long, not at every message.
LIVED_S = 300.0
#: In /proc/self/status, in kB: what the kernel cannot have back by reading a file again (proc(5)). A generation of the
#: index is such a file, and as large in memory as there is room for it.
OWN = ("RssAnon:", "RssShmem:")


def resident_mb() -> float:
    """All that is in memory of it, files among it that are mapped."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def own_mb() -> float:
    """The same without these files."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return round(sum(int(line[1]) for line in lines if line[0] in OWN) * 1024 / 1e6, 1)


class Limit:
    """Of a process whose model is loaded. most_mb: 0 for none."""

    def __init__(self, most_mb: int) -> None:
        self._most_mb = most_mb
        self._lived_s = 0.0
        if most_mb and (has_mb := own_mb()) >= most_mb:
            facts = {"memory_mb": has_mb, "limit_mb": most_mb}
            log.error("more than SIGHTLINE_MEMORY_MB before the first message: no limit holds; raise it", extra=facts)
            self._most_mb = 0

    def reached(self, seconds: float, *, messages: int) -> bool:
        """Whether the process should end now. seconds: since this was asked last; messages: that it has ended."""
        self._lived_s += seconds
        if not self._most_mb or not messages or self._lived_s < LIVED_S or (has_mb := own_mb()) < self._most_mb:
            return False
        facts = {"memory_mb": has_mb, "limit_mb": self._most_mb, "messages": messages, "lived_s": round(self._lived_s)}
        log.warning(
            "more memory than SIGHTLINE_MEMORY_MB: this process ends, to be started again; raise it if that is often",
            extra=facts,
        )
        return True
