"""A photo's keypoints beside those that are stored of others. Knows neither places nor what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from producer_client.contract import Hit
from worker.core.keypoints import Keypoints
from worker.core.observing import carried, stage
from worker.core.ports import StoredKeypoints
from worker.looks import Finding
from worker.place.geometry import Seen, seen_in_both
from worker.place.strength import LEAST_INLIERS

A = TypeVar("A")
B = TypeVar("B")

NOTHING = Seen(0, 0, 0, np.zeros(0, dtype=np.intp))


class Mapped(Protocol):
    """`map`, or that of an executor."""

    def __call__(self, fn: Callable[[A], B], values: Iterable[A], /) -> Iterable[B]: ...


class Comparing:
    """Of one photo. Each other one is compared once, however often it is asked for. Not for several threads.

    own: may still be looked for; what is compared is read meanwhile. mapped: how several are compared.
    """

    def __init__(self, stored: StoredKeypoints, own: Finding, *, mapped: Mapped = map) -> None:
        self._stored = stored
        self._own = own
        self._mapped = mapped
        #: What was read and not compared yet; None where nothing is known.
        self._read: dict[str, Keypoints | None] = {}
        self._seen: dict[str, Seen | None] = {}

    def __call__(self, hits: Sequence[Hit], most: int) -> dict[int, Seen | None]:
        """By photo id: these in turn until so many were compared. None where no keypoints of it are known. Nothing
        where the photo itself has not been looked at. With fewer keypoints than it takes to be verified it has nothing
        in common with any."""
        found: dict[int, Seen | None] = {}
        left = list(hits)
        while left and (room := most - sum(seen is not None for seen in found.values())):
            some, left = left[:room], left[room:]
            if not self._own.done():
                self._read_of(some)
            own = self._own.result()
            if own is None:
                return {}
            if len(own) < LEAST_INLIERS:
                return {hit.photo_id: NOTHING for hit in hits[:most]}
            self._read_of(some)
            with stage("verify", pictures=len(some)):
                self._seen.update(self._mapped(carried(partial(self._compared, own)), self._unseen(some)))
            found |= {hit.photo_id: self._seen[hit.content_sha256] for hit in some}
        return found

    # ---------------------------------------------------------------------------------------- below

    def _unseen(self, hits: Sequence[Hit]) -> list[str]:
        return list(dict.fromkeys(hit.content_sha256 for hit in hits if hit.content_sha256 not in self._seen))

    def _read_of(self, hits: Sequence[Hit]) -> None:
        wanted = [content for content in self._unseen(hits) if content not in self._read]
        if wanted:
            found = self._stored.known(wanted)
            self._read.update((content, found.get(content)) for content in wanted)

    def _compared(self, own: Keypoints, content: str) -> tuple[str, Seen | None]:
        # What was compared is not read again.
        other = self._read.pop(content)
        return content, None if other is None else seen_in_both(own, other)
