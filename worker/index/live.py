"""The live index of a process: it follows the change log, and swaps generations while searches go on.

A search runs on one immutable View and never waits. `catch_up` makes the next View from the change log. A newly
published generation is checked, mapped, warmed and brought up to date by a thread of its own before one reference
moves; the old one is let go when the last search on it has ended.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from weakref import WeakKeyDictionary

import numpy as np

from worker.core import starting
from worker.core.circle import Places
from worker.core.observing import stage
from worker.core.ports import Log
from worker.core.types import START, Changes, Filter, Mark, Neighbours, Published, Repeated
from worker.core.vectors import Ids, Vector
from worker.errors import BadGeneration, Transient, WorkerError
from worker.index import columns
from worker.index.folder import GenerationFolder
from worker.index.generation import Generation
from worker.index.repeating import FORGET_S, Repeating
from worker.index.view import FIRST_ROOM, Layers, Passing, View

log = logging.getLogger(__name__)

#: Of the thread that checks and warms a new generation; 19 is the last in line.
LOADER_NICENESS = 10


class FaissLiveIndex:
    """See worker.core.index_ports.LiveIndex. repeating: takes note of searches, where the process follows the log."""

    def __init__(
        self,
        changes: Log,
        folder: GenerationFolder,
        *,
        model_key: str,
        dimension: int,
        repeating: Repeating | None = None,
    ) -> None:
        self._repeating = repeating or Repeating(one_in=0, gate=0.0)
        self._changes = changes
        self._folder = folder
        self._model_key = model_key
        self._dimension = dimension
        self._writer = threading.Lock()
        self._layers: Layers | None = None
        self._view: View | None = None
        self._caught_up = float("-inf")  #: when the newest finished catch-up began, by time.monotonic
        self._loader: threading.Thread | None = None
        self._follower: threading.Thread | None = None
        self._closed = threading.Event()
        self._set_back = False  #: whether the database was restored to an earlier time while this followed it
        self._nothing_published = False  #: as it was when somebody looked for the first time
        self._removed: dict[int, int] = {}  #: what this process has removed, and at which seq
        self._removing = threading.Lock()  #: of that
        #: Generations that could not be opened: said once, not at every search.
        self._unusable: set[Published] = set()
        #: Who passes the filters of the requests that run now, with the view that it was asked of.
        self._passing: WeakKeyDictionary[Filter, tuple[View, Passing]] = WeakKeyDictionary()

    @property
    def generation(self) -> int | None:
        return None if self._view is None else self._view.number

    @property
    def seq(self) -> int:
        return 0 if self._view is None else self._view.seq

    @property
    def age_s(self) -> float:
        """Seconds since the beginning of the newest look at the log: all that was committed before it is seen."""
        return time.monotonic() - self._caught_up

    @property
    def set_back(self) -> bool:
        """Whether the database was restored to an earlier time while this followed it: a seq beyond the end of the log
        was lost then, and nobody need wait for it."""
        return self._set_back

    @property
    def unread(self) -> Ids:
        """Photos that this process has removed by changes that it has not read in the log yet."""
        seq = self.seq
        with self._removing:
            return np.array([photo_id for photo_id, at in self._removed.items() if at > seq], dtype=np.int64)

    @property
    def count(self) -> int:
        return 0 if self._view is None else self._view.count

    @property
    def delta_count(self) -> int:
        return 0 if self._view is None else self._view.delta_count

    @property
    def kind(self) -> str | None:
        return None if self._view is None or self._view.base is None else self._view.base.manifest.kind

    @property
    def built_at(self) -> str | None:
        """When the generation was built: ISO 8601, by the clock of who built it."""
        return None if self._view is None or self._view.base is None else self._view.base.manifest.created_at

    @property
    def recall_at_10(self) -> float | None:
        return None if self._view is None or self._view.base is None else self._view.base.manifest.recall_at_10

    @property
    def repeated(self) -> Repeated:
        """What came of searches that were done again."""
        return self._repeating.told

    @property
    def ready(self) -> bool:
        """Whether it can be searched without being read first, or nothing is published that could be."""
        return self._view is not None or self._nothing_published

    def catch_up(self, *, max_age_s: float = 0.0) -> int:
        """Apply everything that was committed `max_age_s` before this call or earlier; returns the watermark.

        Raises Transient without Postgres.
        """
        wanted = time.monotonic() - max_age_s
        if self._view is None or self._caught_up < wanted:
            with self._writer:
                # Who waited here finds that the one before has done it.
                if self._view is None or self._caught_up < wanted:
                    self._catch_up()
        return self.seq

    def note_removed(self, seqs: Mapping[int, int]) -> None:
        """seqs: of photos that this process has removed."""
        seq = self.seq
        with self._removing:
            self._removed = {**{photo_id: at for photo_id, at in self._removed.items() if at > seq}, **seqs}

    def places_of(self, photo_ids: Ids) -> Places:
        """float64 [2, n]: where photos lie, as the newest view has them; NaN where that is not known."""
        view = self._view
        return np.full((2, len(photo_ids)), np.nan) if view is None else view.places_of(photo_ids)

    def settle(self, timeout_s: float = 60.0) -> None:
        """Catch up, and wait until a published generation that is on its way has become the base."""
        self.catch_up()
        loader = self._loader
        if loader is not None:
            loader.join(timeout_s)

    def follow(self, every_s: float) -> None:
        """Keep up without being asked: a process that nobody searches lets go of old generations too."""
        self._follower = threading.Thread(target=self._follow, args=(every_s,), name="follow", daemon=True)
        self._follower.start()

    def close(self) -> None:
        """Stop following, and wait for the thread that brings a generation, if there is one."""
        self._closed.set()
        if self._follower is not None:
            self._follower.join()
        loader = self._loader
        if loader is not None:
            loader.join()
        self._repeating.close()

    def search(
        self,
        query: Vector,
        k: int,
        *,
        among: Filter | None = None,
        exclude: Ids | None = None,
        drop_copies: bool = False,
    ) -> Neighbours:
        """The k most similar photos as the newest view has them, see View.search and View.passing.

        Raises Transient where only Postgres can tell who passes, and it is away.
        """
        if self._view is None:
            self.catch_up()
        view = self._view
        assert view is not None
        with stage("search"):
            passing = None if among is None else self._passing_now(view, among)
            found = view.search(query, k, passing=passing, exclude=exclude, drop_copies=drop_copies)
        if self._follower is not None:
            self._repeating.note(view, query, k, found, passing=passing, exclude=exclude, drop_copies=drop_copies)
        return found

    def _passing_now(self, view: View, among: Filter) -> Passing:
        """Once for each request and view, however often it searches wider."""
        made = self._passing.get(among)
        if made is None or made[0] is not view:
            made = self._passing[among] = view, view.passing(among, self._changes.ids_where)
        return made[1]

    # ---------------------------------------------------------------------------------- becoming newer

    def _follow(self, every_s: float) -> None:
        while not self._closed.is_set():
            self._repeating.forget(FORGET_S)
            try:
                # A model that is still being filled has no generation: nothing is read before somebody searches.
                if self._view is not None or self._changes_after(START, vectors=False).generations:
                    self.catch_up(max_age_s=every_s / 2)
                else:
                    self._nothing_published = True
                starting.reached("index")
            except WorkerError as exc:
                # A search would say the same to its caller.
                log.warning("index not caught up", extra={"code": exc.code, "why": exc.message})
            self._closed.wait(every_s)

    def _catch_up(self) -> None:
        with stage("follow"):
            self._follow_log()

    def _follow_log(self) -> None:
        began = time.monotonic()
        if self._layers is None:
            self._start()
        else:
            changes = self._changes_after(self._mark)
            if changes.continues:
                if any(item.vector is None for item in changes.items):
                    self._repeating.forget()
                self._layers.apply(changes.items)
                self._view = self._layers.view(changes.mark)
                self._look_for_newer(changes.generations)
            else:
                if changes.other_history:
                    said = {"seq": self.seq, "database_seq": changes.mark.seq, "generation": self.generation}
                    log.warning("the database was restored to an earlier time, the index starts anew", extra=said)
                    self._set_back = True
                # Its seqs come again.
                with self._removing:
                    self._removed.clear()
                self._repeating.forget()
                self._start()
        self._caught_up = began

    def _start(self) -> None:
        """From nothing: the newest generation that is whole, or all of Postgres, and what came after it."""
        changes = self._changes_after(START, vectors=False)
        lost = changes.generations if self._folder.lacks(changes.generations) else []
        self._unusable.update(lost)
        for published in changes.generations:
            base = self._open(published)
            served = None if base is None else self._onto(base)
            if served is not None:
                self._layers, self._view = served
                return
        self._layers, self._view = self._from_postgres(lost[0].number if lost else None)

    def _look_for_newer(self, generations: list[Published]) -> None:
        """Bring the generation that should serve, if it is another one, in a thread of its own."""
        base = None if self._view is None or self._view.base is None else self._view.base.published
        wanted = next((published for published in generations if published not in self._unusable), None)
        if wanted is None or wanted == base or (self._loader is not None and self._loader.is_alive()):
            return
        self._folder.forget_before(min(published.number for published in generations))
        self._loader = threading.Thread(target=self._bring, args=(wanted,), name="generation", daemon=True)
        self._loader.start()

    def _bring(self, published: Published) -> None:
        # Searches first: on Linux, a thread has a niceness of its own.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOADER_NICENESS)
        base = self._open(published)
        if base is None:
            return
        try:
            base.warm()
            served = self._onto(base)
            if served is None:
                return
            layers, view = served
            with self._writer:
                # What came while the rest was applied is little.
                changes = self._changes_after(view.mark)
                if not changes.continues:
                    return
                layers.apply(changes.items)
                before, now = self._view, layers.view(changes.mark)
                self._layers, self._view = layers, now
        except Transient as exc:
            log.warning("generation waits for Postgres", extra={"generation": published.number, "why": exc.message})
            return
        log.info("generation mapped", extra={"generation": published.number, "count": base.manifest.count})
        if before is not None:
            self._repeating.taken_over(before, now)

    def _open(self, published: Published) -> Generation | None:
        if published in self._unusable:
            return None
        if published.manifest_sha256 is None:
            said = {"generation": published.number}
            log.warning("nothing says which manifest this generation has: an earlier release published it", extra=said)
        try:
            return self._folder.open_published(published, self._model_key)
        except BadGeneration as exc:
            self._unusable.add(published)
            why = {"generation": published.number, "code": exc.code, "why": exc.message}
            log.error("generation refused, an older one or what Postgres has serves instead", extra=why)
        except Transient as exc:
            log.warning("generation cannot be had yet", extra={"generation": published.number, "why": exc.message})
        return None

    def _onto(self, base: Generation) -> tuple[Layers, View] | None:
        """The base with what came after it; None where the log does not reach back to it any more."""
        changes = self._changes_after(base.manifest.mark)
        if not changes.continues:
            self._unusable.add(base.published)
            return None
        layers = Layers(base, self._dimension)
        layers.apply(changes.items)
        return layers, layers.view(changes.mark)

    def _from_postgres(self, lost: int | None) -> tuple[Layers, View]:
        """lost: a generation that should serve, and that is not here."""
        with self._changes.snapshot(self._model_key, self._dimension) as snapshot:
            layers = Layers(None, self._dimension, room=max(FIRST_ROOM, snapshot.count))
            for chunk in snapshot.chunks():
                layers.put(chunk.ids, chunk.vectors)
            layers.columns.put_read(0, columns.read(snapshot, layers.ids[: layers.used]))
            if snapshot.count and lost is not None:
                said = {"generation": lost, "count": snapshot.count}
                log.warning(
                    "the files of the generation are not here, as after a restore: the index is read from Postgres. "
                    "`sightline rebuild`, or the nightly one, makes a new generation",
                    extra=said,
                )
            elif snapshot.count:
                log.warning("index read from Postgres, without a generation", extra={"count": snapshot.count})
            return layers, layers.view(snapshot.mark)

    @property
    def _mark(self) -> Mark:
        return START if self._view is None else self._view.mark

    def _changes_after(self, since: Mark, *, vectors: bool = True) -> Changes:
        return self._changes.changes_after(since, self._model_key, self._dimension, items=vectors)
