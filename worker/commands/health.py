"""`sightline health` for people and for typer; worker.health does it, and does without this room where it can."""

from __future__ import annotations

from typing import Annotated

import typer

from worker import health as probe
from worker.commands.terminal import AsJson
from worker.words import say

Live = Annotated[bool, typer.Option("--live", help=say("Whether they go on. What says no is to be started again."))]
Ready = Annotated[
    bool, typer.Option("--ready", help=say("Whether they can work now: Redis, model and index are there."))
]


def health(live: Live = False, ready: Ready = False, as_json: AsJson = False) -> None:
    """Whether the processes of this data folder go on, for probes: asks no server, and loads next to nothing.

    A process that starts is live and not yet ready. One that cannot use Redis is live: another would not do better.
    Not live is one whose loop has not come round for SIGHTLINE_STALL_S, or has asked Redis for no work for so long
    although it had a free hand; and a folder in which none runs. Exit codes: 0 yes, 1 no.
    """
    raise typer.Exit(probe.health(live=live, ready=ready, as_json=as_json))
