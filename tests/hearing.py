"""One that listens to what is done (worker.core.observing), for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextvars import Context, ContextVar
from typing import Any

import pytest

from worker.core import observing

#: The stage that the context is in, as it has heard it.
inside: ContextVar[str] = ContextVar("inside", default="nothing")
#: Of a stage, what is heard.
STAGES = ("began", "ended")


class Ear:
    """Notes all that it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    @property
    def told(self) -> list[Any]:
        """What was counted and measured, to the next whole number."""
        return [(what, round(n), labels) for what, n, labels in (one for one in self.heard if one[0] not in STAGES)]

    def began(self, stage: str, of: Sequence[Context], facts: Mapping[str, Any]) -> Any:
        self.heard.append(("began", stage, inside.get(), [context[inside] for context in of], dict(facts)))
        return inside.set(stage)

    def ended(self, stage: str, token: Any, took_s: float, exc: BaseException | None) -> None:
        inside.reset(token)
        self.heard.append(("ended", stage, took_s >= 0, exc))

    def counted(self, what: str, n: float, labels: Mapping[str, str]) -> None:
        self.heard.append((what, n, dict(labels)))

    def measured(self, what: str, value: float, labels: Mapping[str, str]) -> None:
        self.heard.append((what, value, dict(labels)))


@pytest.fixture
def ear() -> Iterator[Ear]:
    one = Ear()
    observing.listen(one)
    yield one
    observing.leave(one)
