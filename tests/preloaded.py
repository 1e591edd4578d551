"""gunicorn's settings for tests.forked: its parent has used the client when it forks, as an app does that looks."""

from __future__ import annotations

from typing import Any


def when_ready(server: Any) -> None:
    from tests import forked

    forked.right(99)
