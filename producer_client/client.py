"""The client of a photo backend: small messages out, typed replies back. Needs celery and msgspec alone.

    sightline = Sightline(os.environ["SIGHTLINE_BROKER_URL"])
    stored = sightline.add_to_index(path="/photos/1.jpg", lat=55.7, lon=13.2, provenance="exif_gps")
    answer = sightline.locate(path="/photos/2.jpg").answer

A client's questions see what its replies have told of, whichever worker answers. `session` carries that to another
process, `min_seq=0` asks for less.

Every verb has a `submit_` twin that returns a Handle at once: `.wait(timeout_s)`, or `await` it.
"""

from __future__ import annotations

from producer_client import contract
from producer_client.arguments import checked
from producer_client.handle import Handle
from producer_client.photos import PhotoVerbs
from producer_client.questions import QuestionVerbs
from producer_client.words import Queue, TaskName


class Sightline(PhotoVerbs, QuestionVerbs):
    """All verbs: those of photos, questions, and of the index as a whole.

    One per process is enough; threads may share it. Constructing it connects to nothing (see `Connection`).
    """

    @checked
    def submit_rebuild_index(self, *, force: bool = False) -> Handle[contract.RebuildReply]:
        request = contract.RebuildIndex(force=force)
        return self._send(TaskName.REBUILD_INDEX, Queue.INDEX, request, contract.RebuildReply.from_wire)

    @checked
    def rebuild_index(self, *, force: bool = False, timeout_s: float | None = None) -> contract.RebuildReply:
        """Rebuild the index now. One runs at a time: a second one waits for its turn where there is one index process,
        and raises TryAgain(already_running) where there are several.

        Raises SightlineError(exam_failed) where its exam is clearly worse than the baseline; `force` publishes it then.
        """
        return self.submit_rebuild_index(force=force).wait(timeout_s)

    @checked
    def submit_reconcile(self, *, dry_run: bool = False) -> Handle[contract.ReconcileReply]:
        """Have photos of the table that lack a vector sent again, and look at the next files, as the workers do by
        themselves all day. dry_run: tell what that would be, and change nothing."""
        request = contract.Reconcile(now=True, dry_run=dry_run)
        return self._send(TaskName.RECONCILE, Queue.INTERACTIVE, request, contract.ReconcileReply.from_wire)

    @checked
    def reconcile(self, *, dry_run: bool = False, timeout_s: float | None = None) -> contract.ReconcileReply:
        return self.submit_reconcile(dry_run=dry_run).wait(timeout_s)

    @checked
    def submit_stats(self, *, timeout_s: float | None = None) -> Handle[contract.StatsReply]:
        return self._send(
            TaskName.STATS,
            Queue.INTERACTIVE,
            contract.Stats(),
            contract.StatsReply.from_wire,
            expires_s=timeout_s or self.timeout_s,
        )

    @checked
    def stats(self, *, timeout_s: float | None = None) -> contract.StatsReply:
        return self.submit_stats(timeout_s=timeout_s).wait(timeout_s)
