"""What looks like a photo: the index proposes, Postgres decides. Knows no requests, and not what hits are worth."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any, Protocol

import numpy as np

from producer_client import contract
from worker.core.index_ports import Searched
from worker.core.observing import stage
from worker.core.types import Entry, Filter, Neighbours
from worker.core.vectors import SAME_PIXELS, Ids, Vector
from worker.library.locating import counted
from worker.place.evidence import issue_told
from worker.place.pictures import Look
from worker.settings import Settings

log = logging.getLogger(__name__)

#: Hits of one look at the index, what it saw, and what each of them looks like.
Looked = tuple[list[contract.Hit], Neighbours, dict[int, Look]]

#: Photos asked of the index beyond those wanted: its rounded vectors may order near equals wrongly, and some may be
#: gone from Postgres.
CANDIDATES = 16
#: Copies among the candidates that those beyond k make up for. More are left out of another look at the index, which
#: asks for so many times more each time that it finds nothing but copies, up to a limit.
FEW_COPIES = 4
MORE, MOST_CANDIDATES = 4, 1_024


class Known(Protocol):
    """What Postgres has of photos that the index proposes, as Entries has it."""

    def known(
        self, photo_ids: Collection[int], model_key: str, among: Filter | None = None
    ) -> dict[int, tuple[Entry, Vector]]: ...


class Finding:
    """index: the one that serves, or one that was written and is not published yet."""

    def __init__(self, settings: Settings, model_key: str, *, entries: Known, index: Searched) -> None:
        self._settings = settings
        self._model_key = model_key
        self._entries = entries
        self._index = index

    def hits(
        self,
        query: Vector,
        *,
        k: int,
        threshold: float,
        among: Filter | None,
        exclude: Ids,
        drop_copies: bool,
    ) -> Looked:
        """The index proposes, Postgres decides: similarities are those of the stored vectors, and a photo that is not
        there or does not pass the filter any more is gone, whatever this process has seen of it. Where nothing is
        left, or much is gone, the index looks once at what it has not heard of yet: nobody is told of an empty one
        that is not."""
        caught_up = False
        spare = CANDIDATES
        while True:
            found = self._index.search(query, k + spare, among=among, exclude=exclude, drop_copies=drop_copies)
            with stage("candidates"):
                known = self._entries.known(found.ids.tolist(), self._model_key, among)
            similarity = {photo_id: float(vector @ query) for photo_id, (_, vector) in known.items()}
            copies = [photo_id for photo_id, cosine in similarity.items() if drop_copies and cosine >= SAME_PIXELS]
            gone = len(found.ids) - len(known)
            if len(copies) > FEW_COPIES:
                exclude = np.concatenate([exclude, np.array(copies, dtype=np.int64)])
                spare = min(MORE * spare, MOST_CANDIDATES) if len(copies) == len(known) else spare
                continue
            if (len(known) == len(copies) or gone > spare) and not caught_up:
                self._index.catch_up()
                caught_up = True
                continue
            others = known.keys() - copies
            best = sorted(others, key=lambda photo_id: (-similarity[photo_id], photo_id))[:k]
            hits = [self._hit(known[i][0], similarity[i]) for i in best if similarity[i] >= threshold]
            return hits, found, {i: _look(*known[i]) for i in best}

    def named(
        self, photo_ids: Sequence[int], query: Vector, among: Filter | None
    ) -> tuple[list[contract.Hit], dict[int, Look]]:
        """These in turn, without those that Postgres does not have any more or that do not pass the filter."""
        known = self._entries.known(photo_ids, self._model_key, among)
        there = [photo_id for photo_id in photo_ids if photo_id in known]
        hits = [self._hit(known[i][0], float(known[i][1] @ query)) for i in there]
        return hits, {i: _look(*known[i]) for i in there}

    def _hit(self, entry: Entry, similarity: float) -> contract.Hit:
        settings = self._settings
        provenance, issue = counted(entry, settings)
        return contract.Hit(
            photo_id=entry.photo_id,
            similarity=round(similarity, 6),
            path=entry.path,
            lat=entry.lat,
            lon=entry.lon,
            provenance=provenance,
            address=_shown(entry, "address", entry.address),
            metadata=_shown(entry, "metadata", entry.metadata),
            content_sha256=entry.content_sha256,
            position_error_m=entry.position_error_m,
            position_issue=issue_told(issue, former=not settings.key_prefix),
            # The queues without a prefix are for clients that take no field which they do not know.
            position_from=entry.position_from if settings.key_prefix else None,
        )


def _look(entry: Entry, vector: Vector) -> Look:
    return Look(vector, entry.picture_hash, entry.shot)


def _shown(entry: Entry, name: str, value: Any) -> Any:
    """As it is, or nothing where it is more than a reply bears: rows are the backend's, and have what it likes."""
    if value is None or contract.is_bearable(value):
        return value
    log.warning(
        "left out of a reply", extra={"photo_id": entry.photo_id, "what": name, "why": "too deep, too large or no JSON"}
    )
    return None
