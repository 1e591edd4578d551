"""Who waits for what is being done: set where a message is taken, read where work has to be put in an order."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """urgent: somebody waits. deadline: of time.monotonic(), after which nobody does. task_id: of the message."""

    urgent: bool = True
    deadline: float | None = None
    task_id: str | None = None


#: Of this thread. A context variable, because it concerns none of the calls between the message and the model.
current: ContextVar[Request] = ContextVar("request", default=Request())  # noqa: B039  # frozen
