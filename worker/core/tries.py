"""What is known of tries that ended their process."""

from __future__ import annotations

from dataclasses import dataclass

#: In place of a signal: the process ended because a thread of it was stuck.
STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Try:
    """A photo content that is about to be decoded, and what it was named by."""

    content_sha256: str
    photo_id: int | None = None
    path: str | None = None
    task_id: str | None = None


@dataclass(frozen=True, slots=True)
class Deaths:
    """How often processes ended with a content in hand. signal: of the last one, where somebody saw it."""

    times: int
    signal: str | None = None
