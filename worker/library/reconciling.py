"""What the night does to all photos, in small bites all day: photos that lack a vector are sent for again, and files
that changed or vanished are noticed. By level: whatever lost a message, the photo lacks its vector.

Embeds nothing: messages do, which any worker takes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from producer_client.contract import Reconcile, ReconcileReply, Stored
from worker.core.ports import Reconciled, StoredVectors
from worker.library.checking import Bite, Checking
from worker.library.filling import Filling
from worker.settings import Settings

log = logging.getLogger(__name__)

#: Files that one run looks at: at a run every 30 s, 5 million a day.
FILES = 2000
#: Photos of one message: some seconds of work.
PHOTOS = 64
#: Photos that may be on their way because of this at a time, and files that one run may mark as changed or gone: what
#: is wrong with all of them at once, as with a disk that is away, is noticed before much is done about it.
MOST = 1000


class Reconciling:
    def __init__(
        self,
        settings: Settings,
        model_key: str,
        *,
        reconciled: Reconciled,
        checking: Checking,
        vectors: StoredVectors,
        filling: Filling,
    ) -> None:
        self._model_key = model_key
        self._every_s = settings.reconcile_s
        self._re_embed = settings.changed_files == "re-embed"
        self._reconciled = reconciled
        self._checking = checking
        self._vectors = vectors
        self._filling = filling

    def run(self, request: Reconcile, send: Callable[[Sequence[int]], None]) -> ReconcileReply:
        """One run, unless another one has just been. send: is given ids of photos to embed, some at a time.

        At most MOST photos are on their way at a time, and as many files are marked by one run. A dry run changes
        nothing.
        """
        claimed = self._reconciled.claim(
            self._model_key,
            # Half of it: beats and clocks are not exact.
            every_s=0.0 if request.now or request.dry_run else self._every_s / 2,
            grace_s=self._every_s,
            most=MOST,
            changed_too=self._re_embed,
            dry_run=request.dry_run,
        )
        if claimed is None:
            return ReconcileReply(ran=False, dry_run=request.dry_run)
        taken = claimed.taken
        if not request.dry_run:
            for start in range(0, len(taken), PHOTOS):
                send(taken[start : start + PHOTOS])
        looked = self._look_at_files(claimed.after_id, dry_run=request.dry_run)
        if taken or looked.changed or looked.gone:
            facts = {"sent": len(taken), "changed": len(looked.changed), "gone": len(looked.gone)}
            log.info("reconciled", extra=facts | {"dry_run": request.dry_run})
        return ReconcileReply(
            ran=True,
            dry_run=request.dry_run,
            seen=claimed.seen,
            waiting=claimed.waiting,
            sent=taken,
            files=looked.files,
            changed=looked.changed,
            gone=looked.gone,
            unknown=looked.unknown,
            unknown_why=looked.why,
        )

    def embed(self, photo_ids: Sequence[int]) -> int:
        """Embed those of these photos that still lack a vector; returns how many were stored."""
        missing = self._vectors.missing_among(photo_ids, self._model_key, changed_too=self._re_embed)
        outcomes = self._filling.some(missing, filling=False) if missing else ()
        return sum(isinstance(outcome, Stored) for outcome in outcomes)

    def _look_at_files(self, after_id: int, *, dry_run: bool) -> Bite:
        looked = self._checking.some(after_id, files=FILES, most=MOST, dry_run=dry_run)
        if not dry_run:
            self._reconciled.looked(looked.after_id)
        return looked
