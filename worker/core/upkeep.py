"""What the reconciler finds, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claimed:
    """seen: photos without a vector that are noted for the first time. taken: those to send for now, by rising ids.
    waiting: those that were sent for and are not there yet. after_id: the photo whose file was looked at last."""

    seen: int
    taken: list[int]
    waiting: int
    after_id: int
