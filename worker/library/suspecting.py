"""The look for photos whose position something contradicts: each night, before an index is written of what is trusted.

What Postgres alone can tell is looked at whole each time. Knows no SQL.
"""

from __future__ import annotations

import logging
import time

from producer_client.contract import Doubt
from worker import points
from worker.core.conflict import Contradiction
from worker.core.ports import Encoder, Log, Progress, StoredConflicts, StoredVectors
from worker.logs import ms_since
from worker.place.conflicts import of_one_picture, of_one_point
from worker.settings import Settings

log = logging.getLogger(__name__)

#: Photos of the whole library to which those of one point are compared.
OTHERS = 1_000


class Suspecting:
    def __init__(
        self,
        settings: Settings,
        *,
        encoder: Encoder,
        conflicts: StoredConflicts,
        vectors: StoredVectors,
        change_log: Log,
    ) -> None:
        self._agree_m = settings.locate_agree_m
        self._encoder = encoder
        self._conflicts = conflicts
        self._vectors = vectors
        self._log = change_log

    def look(self, note: Progress) -> int:
        """Suspend what is contradicted, and no more what is not any more; returns how many photos are suspended that
        were not before."""
        started = time.monotonic()
        note("conflicts", 0, 0)
        suspended = self._of_one_content() + self._of_one_point()
        log.info("conflicts looked for", extra={"suspended": suspended, "took_ms": ms_since(started)})
        return suspended

    # ---------------------------------------------------------------------------------------- below

    def _of_one_content(self) -> int:
        found = [
            one
            for claims in self._conflicts.of_one_content()
            for one in of_one_picture(claims, Doubt.SAME_CONTENT, agree_m=self._agree_m)
        ]
        return self._keep(found, Doubt.SAME_CONTENT)

    def _of_one_point(self) -> int:
        groups = self._conflicts.of_one_point(points.DEFAULT_PHOTOS)
        if not groups:
            return self._keep([], Doubt.SHARED_POINT)
        model_key = self._encoder.model_key
        with self._log.snapshot(model_key, self._encoder.dimension) as snapshot:
            everybody = snapshot.sample(OTHERS)
        found: list[Contradiction] = []
        for claims in groups:
            ids = {claim.photo_id for claim in claims}
            sampled = points.sample(claims)
            own = self._vectors.known({claim.content_sha256 for claim in sampled}, model_key)
            others = [
                row for photo_id, row in zip(everybody.ids, everybody.vectors, strict=True) if photo_id not in ids
            ]
            times = [claim.changed_at for claim in sampled]
            if points.is_default(len(claims), times, list(own.values()), others):
                found += of_one_point(claims)
        return self._keep(found, Doubt.SHARED_POINT)

    def _keep(self, found: list[Contradiction], doubt: Doubt) -> int:
        """These are all of this doubt that there are."""
        gone = self._conflicts.open_ids([doubt]) - {one.claim.photo_id for one in found}
        if gone:
            self._conflicts.withdraw(gone)
        return len(self._conflicts.suspend(found)) if found else 0
