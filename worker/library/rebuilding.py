"""A generation of the index out of Postgres: on demand, at night, and when what has changed asks for it."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from producer_client import contract
from producer_client.contract import Code
from worker.core.index_ports import Generations, PublishedGenerations
from worker.core.observing import carried, stage
from worker.core.ports import Encoder, Entries, Log, Progress, Runs
from worker.errors import HeldBack, Permanent, Transient
from worker.library.checking import Checking
from worker.library.examining import Examination, Examining, exam_of
from worker.library.filling import Filling, Throttled
from worker.library.learning import to_json
from worker.library.suspecting import LEAST_S, NIGHT_S, Suspecting
from worker.place.exam import Exam
from worker.place.gate import Baseline, Verdict, not_examined, verdict
from worker.place.promised import TooFew
from worker.settings import Settings

log = logging.getLogger(__name__)

#: What the system says of a disk that takes nothing for now. FAISS passes the words on, and no number.
TAKES_NOTHING = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS))


class Rebuilding:
    """One at a time in the cluster. Any failure leaves the generation before."""

    def __init__(
        self,
        settings: Settings,
        *,
        encoder: Encoder,
        checking: Checking,
        filling: Filling,
        suspecting: Suspecting,
        examining: Examining,
        entries: Entries,
        change_log: Log,
        runs: Runs,
        published: PublishedGenerations,
        files: Generations,
    ) -> None:
        self._settings = settings
        self._encoder = encoder
        self._checking = checking
        self._filling = filling
        self._suspecting = suspecting
        self._examining = examining
        self._entries = entries
        self._log = change_log
        self._runs = runs
        self._published = published
        self._files = files

    def rebuild(
        self, progress: Progress | None = None, *, filling: bool = False, nightly: bool = False, force: bool = False
    ) -> contract.RebuildReply:
        """Look at the files, embed what is missing or changed, look at pictures that nobody has looked at, look for
        conflicts, write a generation from one snapshot, publish it.

        nightly: nobody waits for it, so that the look for conflicts takes its time. force: publish it also where its
        exam is clearly worse than the baseline. One at a time in the cluster: raises Permanent(already_running), and
        HeldBack where its exam is worse. Any failure leaves the old generation.
        """
        with self._runs.exclusive("rebuild") as mine:
            if not mine:
                raise Permanent(
                    Code.ALREADY_RUNNING,
                    "a rebuild is running already; `sightline stats` shows how far it is",
                )
            run_id = self._runs.start()
            note = Throttled(lambda *facts: self._runs.note_progress(run_id, *facts), progress)
            try:
                with stage("rebuild"):
                    reply = self._rebuild(note, filling=filling, nightly=nightly, force=force)
            except BaseException as exc:
                # Postgres may be what failed; the next run closes this one then.
                with suppress(Transient):
                    self._runs.finish(run_id, summary=None, error=f"{type(exc).__name__}: {exc}")
                raise
            self._runs.finish(run_id, summary=reply.to_wire(), error=None)
        log.info("index rebuilt", extra={"generation": reply.generation, "indexed": reply.indexed})
        return reply

    def nightly(self, name: str, slot: datetime, *, claims: int, claim_s: float) -> bool:
        """Rebuild if nobody has done so for `slot` (UTC); returns whether this call did."""
        return self._due(name, slot, claims=claims, claim_s=claim_s, nightly=True)

    def catch_up_generations(self, *, claims: int, claim_s: float) -> bool:
        """Rebuild if so much has changed that searches pay for it, or a purged photo is still in a generation."""
        settings = self._settings
        asked = self._runs.asked(self._encoder.model_key, share=settings.compact_share, least=settings.compact_least)
        return any(self._due(name, moment, claims=claims, claim_s=claim_s, first_counts=True) for name, moment in asked)

    def _due(
        self,
        name: str,
        slot: datetime,
        *,
        claims: int,
        claim_s: float,
        first_counts: bool = False,
        nightly: bool = False,
    ) -> bool:
        if not self._runs.due(name, slot, max_attempts=claims, retry_after_s=claim_s, first_counts=first_counts):
            return False
        try:
            self.rebuild(nightly=nightly)
        except HeldBack as exc:
            # Another try would find the same; what waits is searched through the log.
            log.warning("generation held back", extra={"why": exc.message})
        self._runs.slot_done(name, slot)
        return True

    # ---------------------------------------------------------------------------------------- below

    def _rebuild(self, note: Throttled, *, filling: bool, nightly: bool, force: bool) -> contract.RebuildReply:
        started = time.monotonic()
        self._entries.follow_rows()
        with ThreadPoolExecutor(1, thread_name_prefix="train") as ahead:
            training = ahead.submit(carried(self._train))
            with stage("check"):
                checked = None if filling else self._checking.all(note)
            with stage("embed"):
                embedded, refused = self._filling.all(note, filling=filling)
            if not filling:
                with stage("look"):
                    self._filling.keypoints(note)
            trained = training.result()
        # Before the snapshot, which says of each photo whether it is trusted. A model that is to take over has no say.
        wanted = "conflicts" in self._settings.rungs and not filling
        budget_s = NIGHT_S if nightly else max(LEAST_S, time.monotonic() - started)
        with stage("conflicts"):
            suspended = self._suspecting.look(note, budget_s) if wanted else 0
        model_key = self._encoder.model_key
        number = self._published.reserve()
        with self._log.snapshot(model_key, self._encoder.dimension) as snapshot:
            mark = snapshot.mark
            with stage("build"), _disk_takes_it():
                built = self._files.write(
                    number,
                    snapshot,
                    model_key=model_key,
                    dimension=self._encoder.dimension,
                    previous=self._published.serving(model_key),
                    trained=trained,
                    progress=note,
                )
        with stage("examine"):
            examined = self._examine(number, built.manifest_sha256, note)
        exam = self._exam(number, mark.seq, examined)
        said, baseline = self._judged(number, examined, exam, force)
        learnt = None if examined is None else to_json(examined.learnt, geometry="geometry" in self._settings.rungs)
        with stage("publish"):
            kept = self._published.publish(
                number,
                model_key,
                mark,
                built,
                self._settings.keep_generations,
                learnt=learnt,
                exam=None if exam is None else exam.to_json(),
                verdict=said.to_json(),
                baseline=baseline,
            )
        log.info("generation examined", extra={"generation": number, "passed": said.passed, "why": said.why})
        self._files.keep_only(kept, everywhere=True)
        counts = self._entries.counts(self._encoder.model_key)
        return contract.RebuildReply(
            generation=number,
            seq=mark.seq,
            with_coordinates=counts.with_coordinates,
            valid_files=counts.valid_files,
            embedded=embedded,
            refused=refused,
            indexed=built.count,
            kind=built.kind,
            recall_at_10=built.recall_at_10,
            recall_at_10_at_least=built.recall_at_10_at_least,
            index_bytes=built.index_bytes,
            dimension=self._encoder.dimension,
            model=self._encoder.name,
            model_key=self._encoder.model_key,
            device=self._encoder.device,
            seconds=round(time.monotonic() - started, 3),
            unknown_files=0 if checked is None else checked.unknown,
            unknown_why=None if checked is None else checked.why,
            # The queues without a prefix are for clients that take no field which they do not know.
            suspended=suspended if self._settings.key_prefix else 0,
            exam=said.why if self._settings.key_prefix else None,
            exam_passed=said.passed if self._settings.key_prefix else None,
        )

    def _examine(self, number: int, manifest_sha256: str, note: Throttled) -> Examination | None:
        """Ask the written generation about known photos, and learn from it what its answers are worth."""
        photos = self._settings.exam_photos
        if not photos or not {"places", "calibration"} <= set(self._settings.rungs):
            return None
        index = self._files.to_examine(number, model_key=self._encoder.model_key, sha256=manifest_sha256)
        examined = self._examining.examine(index, note, photos=photos, always=False)
        said = {"generation": number, "photos": examined.photos, "seconds": round(examined.seconds, 1)}
        if isinstance(examined.learnt, TooFew):
            log.info("nothing was learnt from known photos", extra={**said, "why": examined.learnt.message})
        else:
            few = examined.learnt.unproven
            told = {**said, "least": examined.learnt.least, "unproven": None if few is None else few.message}
            log.info("learnt from known photos", extra=told)
        return examined

    def _exam(self, number: int, seq: int, examined: Examination | None) -> Exam | None:
        if examined is None or not examined.questions:
            return None
        return exam_of(examined, self._settings, self._encoder.model_key, generation=number, seq=seq)

    def _judged(
        self, number: int, examined: Examination | None, exam: Exam | None, force: bool
    ) -> tuple[Verdict, dict[str, Any] | None]:
        """What its exam says beside the baseline, and the baseline from now on where that is another one.

        Raises HeldBack, with the generation's files gone, where it must not serve.
        """
        model_key = self._encoder.model_key
        if examined is None:
            return not_examined("SIGHTLINE_EXAM_PHOTOS or SIGHTLINE_RUNGS says so"), None
        if exam is None:
            why = "no known photo can be asked about"
            return not_examined(examined.learnt.message if isinstance(examined.learnt, TooFew) else why), None
        said = verdict(exam, examined.questions, self._baseline())
        new = Baseline.of(exam, examined.questions).to_json() if said.renews else None
        if not said.holds or self._published.serving(model_key) is None:
            return said, new
        if force:
            why = f"published all the same, as was asked for: {said.why}"
            return replace(said, why=why), new
        if self._runs.asked(model_key, share=self._settings.compact_share, least=self._settings.compact_least):
            # What serves has the same photos by the log; it is only slower to search, or still holds a purged one.
            why = f"published all the same, as photos must leave the disk or the log: {said.why}"
            return replace(said, why=why), new
        self._files.keep_only(
            self._published.hold_back(number, model_key, exam=exam.to_json(), verdict=said.to_json()), everywhere=True
        )
        raise HeldBack(
            f"generation {number} is not published: {said.why}. The one before serves on. `sightline exam` shows where "
            "answers are wrong; `sightline rebuild --force` publishes it all the same, and `sightline exam --freeze` "
            "then makes it the baseline"
        )

    def _baseline(self) -> Baseline | None:
        kept = self._published.baseline(self._encoder.model_key)
        try:
            return None if kept is None else Baseline.from_json(kept)
        except ValueError as exc:
            log.warning("baseline is not used", extra={"why": str(exc)})
            return None

    def _train(self) -> Any:
        """Learn from the vectors that are there, while the encoder makes those that lack."""
        with (
            stage("train"),
            self._log.snapshot(self._encoder.model_key, self._encoder.dimension) as snapshot,
        ):
            return self._files.prepare(snapshot, dimension=self._encoder.dimension)


@contextmanager
def _disk_takes_it() -> Iterator[None]:
    """A disk that is full or read-only is for a person to see to, and then the same request goes well: not sent round,
    as a rebuild may take hours."""
    try:
        yield
    except (OSError, RuntimeError) as exc:
        why = next((words for words in TAKES_NOTHING if words in str(exc)), None)
        if why is None:
            raise
        log.exception("a generation cannot be written")
        raise Permanent(
            Code.UNAVAILABLE,
            f"the generation cannot be written: {why}. The one before serves on. See to the disk of "
            "SIGHTLINE_INDEX_DIR and ask again",
        ) from exc
