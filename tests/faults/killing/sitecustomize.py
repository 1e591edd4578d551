"""First in the PYTHONPATH of a worker of a test: its decoder has the faults that photos name: it ends
its process, does not come to an end, or takes memory for good."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from worker import memory
from worker.embedding import Embedding

_init = Embedding.__init__
_own_mb = memory.own_mb
memory.LIVED_S = 1.0


def _made(self: Embedding, *args: Any, decode: Any, **named: Any) -> None:
    def faulty(content: bytes) -> Any:
        if content.endswith(b"deadly"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if content.endswith(b"endless"):
            threading.Event().wait()
        if content.endswith(b"heavy"):
            memory.own_mb = lambda: _own_mb() + 1_000_000
        return decode(content)

    _init(self, *args, decode=faulty, **named)


Embedding.__init__ = _made  # type: ignore[method-assign]  # what this is for
