"""A photo's keypoints beside those that are stored of others. Knows neither places nor what it is worth."""

from __future__ import annotations

from collections.abc import Sequence

from producer_client.contract import Hit
from worker.core.keypoints import Keypoints
from worker.core.ports import StoredKeypoints
from worker.place.geometry import Seen, seen_in_both

#: Contents whose keypoints are read at once: as many as a locate compares by default, 2.5 MB.
READ_AT_ONCE = 20


class Comparing:
    """Of one photo. Each other one is compared once, however often it is asked for. Not for several threads."""

    def __init__(self, stored: StoredKeypoints, own: Keypoints) -> None:
        self._stored = stored
        self._own = own
        self._read: dict[str, Keypoints | None] = {}
        self._seen: dict[str, Seen] = {}
        self._next: list[str] = []

    def expect(self, hits: Sequence[Hit]) -> None:
        """These may be asked for, in this order: they are read together."""
        self._next = list(dict.fromkeys(hit.content_sha256 for hit in hits if hit.content_sha256 not in self._read))

    def __call__(self, hit: Hit) -> Seen | None:
        """None where no keypoints of it are known."""
        content = hit.content_sha256
        if content in self._seen:
            return self._seen[content]
        if content not in self._read:
            at = self._next.index(content) if content in self._next else 0
            wanted = list(dict.fromkeys([content, *self._next[at : at + READ_AT_ONCE]]))
            found = self._stored.known(wanted)
            self._read.update((one, found.get(one)) for one in wanted)
        other = self._read[content]
        if other is None:
            return None
        seen = self._seen[content] = seen_in_both(self._own, other)
        # What was compared is not read again; only that it was is kept.
        self._read[content] = None
        return seen
