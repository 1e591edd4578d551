"""`sightline health`: whether the processes of this data folder go on, by what they say of themselves (worker.pulse).

A container is asked every few seconds: no package is imported for it, not even our own ones of weight, and no server
is asked.
"""

from __future__ import annotations

import gettext
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worker.pulse import Found, read

#: Docker's own: 0 well, 1 not; 2 is reserved.
WELL, UNWELL = 0, 1
FLAGS = ("--live", "--ready", "--json")


def quick(arguments: Sequence[str]) -> int | None:
    """The exit code of `sightline health` with plain flags alone; None of everything else, which typer is to read."""
    if arguments[:1] != ["health"] or not set(arguments[1:]) <= set(FLAGS):
        return None
    return health(live="--live" in arguments, ready="--ready" in arguments, as_json="--json" in arguments)


def health(*, live: bool, ready: bool, as_json: bool) -> int:
    """Says how the processes are, and returns the exit code. live: nothing else is
    asked; ready, which is asked unless told otherwise, is live too."""
    folder = Path(os.environ.get("SIGHTLINE_DATA_DIR") or ".sightline")
    found = [process for process in read(folder) if process.lives]
    lives, is_ready = judged(found)
    if as_json:
        told = {"live": lives, "ready": is_ready, "processes": [as_told(process) for process in found]}
        lines = [json.dumps(told)]
    else:
        lines = [_line(process) for process in found]
        lines = lines or [say("no process of Sightline runs in {folder}", folder=folder.absolute())]
    sys.stdout.write("\n".join(lines) + "\n")
    return WELL if (lives if live and not ready else is_ready) else UNWELL


def judged(found: Sequence[Found]) -> tuple[bool, bool]:
    """Whether processes go on, and whether they can work now; one has to be there."""
    lives = bool(found) and not any(process.stalled for process in found)
    return lives, lives and not any(process.lacks for process in found)


def say(english: str, **fields: Any) -> str:
    """As worker.words has it, which would bring the client with it, and with that Celery."""
    text = english
    if os.environ.get("SIGHTLINE_LANG", "").lower().startswith("ru"):
        catalogues = Path(__file__).parent / "locale"
        text = gettext.translation("sightline", catalogues, languages=["ru"], fallback=True).gettext(english)
    return text.format(**fields)


def as_told(process: Found) -> dict[str, Any]:
    return {
        "role": process.said["role"],
        "pid": process.said["pid"],
        "live": not process.stalled,
        "ready": not process.lacks,
        "lacks": process.lacks,
        "turned_s_ago": _rounded(process.since("turned")),
        "polled_s_ago": _rounded(process.since("polled")),
        **{name: process.said[name] for name in ("redis", "model", "index") if name in process.said},
    }


def how(process: Found) -> str:
    """In words."""
    if process.since("turned") is None:
        return say("starts")
    why = {
        "loop": say("its loop stands still"),
        "polls": say("it takes no messages"),
        "redis": say("Redis cannot be used"),
        "model": say("its model is not loaded"),
        "index": say("its index is not there"),
    }
    return ", ".join(why[name] for name in process.lacks) or say("ready")


def _line(process: Found) -> str:
    role, pid = process.said["role"], process.said["pid"]
    turned = process.since("turned")
    if turned is None:
        return say("{role} (process {pid}): starts", role=role, pid=pid)
    return say(
        "{role} (process {pid}): {state}; last turn {turned} s ago, last message or look for one {polled} s ago",
        role=role,
        pid=pid,
        state=how(process),
        turned=_rounded(turned),
        polled=_rounded(process.since("polled")),
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
