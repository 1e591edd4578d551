"""Who waits for what is being done: set where a message is taken, read where work has to be put in an order."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from producer_client.ids import made_ms


@dataclass(frozen=True, slots=True)
class Request:
    """urgent: somebody waits. deadline: of time.monotonic(), after which nobody does. task_id: of the message. again:
    it was handed out before."""

    urgent: bool = True
    deadline: float | None = None
    task_id: str | None = None
    again: bool = False

    @property
    def sent_ms(self) -> int | None:
        """When it was sent, by its sender's clock: milliseconds of Unix time. None where nobody says."""
        return None if self.task_id is None else made_ms(self.task_id)


#: Seconds in the future that count as a clock that is wrong.
SKEW_S = 1.0

#: Of this thread. A context variable, because it concerns none of the calls between the message and the model.
current: ContextVar[Request] = ContextVar("request", default=Request())  # noqa: B039  # frozen


def waited_s(since_ms: float, now_ms: float) -> tuple[float, bool]:
    """(how long a message has waited, whether one of the two clocks is wrong). since_ms: by its sender's clock, which
    may be ahead: milliseconds of Unix time, as is now_ms."""
    seconds = (now_ms - since_ms) / 1000
    return max(0.0, seconds), seconds < -SKEW_S


def photo_of(args: Sequence[Any]) -> int | None:
    """The photo that a message is about, where that is one with an id. args: of its task, which nobody has read yet."""
    match args:
        case (
            [{"photos": [{"photo": {"photo_id": int(photo_id)}}]}]
            | [{"photo": {"photo_id": int(photo_id)}}]
            | [{"photo_ids": [int(photo_id)]}]
        ):
            return photo_id
    return None
