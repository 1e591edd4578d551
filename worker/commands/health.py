"""`sightline health` for people and for typer; worker.health does it, and does without this room where it can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape

from worker import health as probe
from worker.commands.tables import Table
from worker.commands.terminal import AsJson, out, show
from worker.pulse import Found
from worker.settings import load as load_settings
from worker.words import say

#: What a process says of itself beside how it is, as `--json` has it.
BESIDE = ("host", "encoder", "generation", "sandbox", "memory_mb", "limit_mb", "metrics")

Live = Annotated[bool, typer.Option("--live", help=say("Whether they go on. What says no is to be started again."))]
Ready = Annotated[
    bool, typer.Option("--ready", help=say("Whether they can work now: Redis, model and index are there."))
]
Everywhere = Annotated[
    bool, typer.Option("--all", help=say("Those of all machines that use this Redis, with what each has."))
]


def health(live: Live = False, ready: Ready = False, everywhere: Everywhere = False, as_json: AsJson = False) -> None:
    """Whether the processes of this data folder go on, for probes: asks no server, and loads next to nothing.

    A process that starts is live and not yet ready. One that cannot use Redis is live: another would not do better.
    Not live is one whose loop has not come round for SIGHTLINE_STALL_S, or has asked Redis for no work for so long
    although it had a free hand; and a folder in which none runs. Exit codes: 0 yes, 1 no.

    `--all` is for people: it asks Redis, which each process tells the same every few seconds. One that was killed is
    seen for a minute or two more.
    """
    if not everywhere:
        raise typer.Exit(probe.health(live=live, ready=ready, as_json=as_json))
    from worker import alive

    found = alive.everywhere(load_settings())
    lives, is_ready = probe.judged(found)
    told = [{**probe.as_told(process), **_beside(process)} for process in found]
    show(as_json, {"live": lives, "ready": is_ready, "processes": told}, lambda: _print(found))
    raise typer.Exit(probe.WELL if (lives if live and not ready else is_ready) else probe.UNWELL)


def processes_table(found: Sequence[Found]) -> Table:
    """turn, look: seconds since the loop came round, and since it had a message or looked for one."""
    shown = Table(show_lines=True)
    shown.add_column(say("process"), min_width=12)
    shown.add_column(say("state"), min_width=9)
    shown.add_column(say("turn, s"), justify="right")
    shown.add_column(say("look, s"), justify="right")
    shown.add_column(say("memory, MB"), justify="right")
    shown.add_column(say("index"), justify="right")
    shown.add_column(say("decoders"), no_wrap=True)
    for process in found:
        beside = _beside(process)
        shown.add_row(
            (process.said["role"], f"{escape(process.said['host'])} {process.said['pid']}"),
            probe.how(process),
            *(_whole(process.since(name)) for name in ("turned", "polled")),
            _memory(beside),
            str(beside.get("generation") or ""),
            tuple(map(escape, str(beside.get("sandbox") or "").split("+"))),
        )
    return shown


def _print(found: Sequence[Found]) -> None:
    if found:
        out.print(processes_table(found))
    else:
        out.print(say("no process of Sightline has told this Redis of itself lately"))


def _beside(process: Found) -> dict[str, Any]:
    return {name: process.said[name] for name in BESIDE if name in process.said}


def _memory(beside: dict[str, Any]) -> str:
    has_mb, limit_mb = beside.get("memory_mb"), beside.get("limit_mb")
    if not has_mb:
        return ""
    return say("{has_mb:.0f} of {limit_mb}", has_mb=has_mb, limit_mb=limit_mb) if limit_mb else f"{has_mb:.0f}"


def _whole(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f}"
