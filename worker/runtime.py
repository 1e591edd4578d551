"""Composition root: builds everything once per process, on first use, under a lock, after any fork."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from producer_client.contract import Code
from worker.core import starting
from worker.errors import Permanent, Transient
from worker.library import Library
from worker.library.telling import Telling
from worker.loading import Loading
from worker.memory import own_mb
from worker.quarantine import Quarantine
from worker.sandbox.confinement import NONE
from worker.sandbox.port import OFF
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.core.ports import Progress
    from worker.core.types import Published
    from worker.index.folder import GenerationFolder, Written
    from worker.library.examining import Examination
    from worker.library.tuning import Tuning
    from worker.place.exam import Exam
    from worker.storage.store import PostgresStore

log = logging.getLogger(__name__)


class Runtime:
    """Cheap to construct; nothing heavy is imported before the first use.

    One library for each model of the settings, at most two; which of them serves is said by Postgres.
    """

    def __init__(self, settings: Settings, loading: Loading | None = None) -> None:
        """loading: where it was begun already."""
        self.settings = settings
        self._loading = loading or Loading(settings)
        self.telling = Telling(settings)
        self._lock = threading.Lock()
        self._libraries: dict[str, Library] = {}
        self._store: PostgresStore | None = None
        self._quarantine: Quarantine | None = None
        self._serving = ("", float("-inf"))  #: model key, and when it was asked for
        #: What the process has in hand, JSON values by name, and the address of its metrics: empty where no port is
        #: free for them. None where nobody wants any.
        self.work: Callable[[], Mapping[str, Any]] = dict
        self.metrics_at: Callable[[], str] | None = None
        #: Whether threads are at work that nobody waits for any more.
        self._is_left = False

    @property
    def library(self) -> Library:
        """The library of the model that serves.

        Raises EncoderUnavailable where a model cannot be had, Transient without Postgres, and Permanent(model_mismatch)
        where a model serves that this process does not have.
        """
        libraries = self._loaded()
        key = self._serving_key(next(iter(libraries)))
        if key not in libraries:
            raise Permanent(
                Code.MODEL_MISMATCH,
                f"model {key} serves, this worker has {' and '.join(libraries)}. Set SIGHTLINE_ENCODER to the one that "
                "serves, and SIGHTLINE_NEXT_ENCODER to the one to change to",
            )
        return libraries[key]

    @property
    def next_library(self) -> Library | None:
        """The library of the model that is to take over, while it does not serve yet."""
        libraries = self._loaded()
        first, last = next(iter(libraries)), list(libraries)[-1]
        return None if first == last or self._serving_key(first) == last else libraries[last]

    def library_of(self, model_key: str) -> Library:
        """Raises Transient for a model that this process does not have: another worker may."""
        libraries = self._loaded()
        if model_key not in libraries:
            raise Transient(Code.UNAVAILABLE, f"this worker does not have model {model_key} (SIGHTLINE_NEXT_ENCODER)")
        return libraries[model_key]

    def sandbox_level(self) -> str:
        """What the decoders of strangers' photos are confined by, in words. Starts one where none was started yet."""
        self._loaded()
        return self._level()

    def start(self, *, follow: bool) -> None:
        """Load the models now, to answer with. follow: keep their indexes up to date without being asked."""
        libraries = self._loaded().values()
        # What numpy and FAISS multiply for one search is small, and their BLAS's helpers wait for the next one by
        # spinning: a search every 20 ms kept a core busy that the model wants (OpenBLAS in numpy 2.4).
        threadpool_limits(1, user_api="blas")
        assert self._store is not None
        try:
            self._store.rows.table  # noqa: B018  # looked at now, not by the first message
        except Transient as exc:
            # Somebody may put it right meanwhile: every answer says the same until then.
            log.warning("photos table: %s", exc.message)
        starting.reached("database")
        # The first photo does not wait for one, and whoever asks is told.
        self.sandbox_level()
        starting.reached("decoders")
        for library in libraries:
            if follow:
                library.questions.follow()

    def readiness(self) -> dict[str, bool]:
        """Whether a model is loaded to answer with, and its index is there: of memory alone, and without a lock."""
        library = self._at_hand
        return {"model": library is not None, "index": library is not None and library.questions.index.ready}

    def condition(self) -> dict[str, Any]:
        """What people want to know beside that, as quick."""
        library = self._at_hand
        said: dict[str, Any] = {"memory_mb": own_mb(), "limit_mb": self.settings.memory_mb, **self.work()}
        if self.metrics_at is not None:
            said["metrics"] = self.metrics_at()
        if library is None:
            return said
        index = library.questions.index
        of_index = {"generation": index.generation, "seq": index.seq}
        return {**said, "encoder": library.encoder.name, "sandbox": self._level(), **of_index}

    def figures(self) -> dict[str, Any]:
        """The same for metrics, by the names of worker.observe.names; as quick."""
        library = self._at_hand
        if library is None:
            return {}
        encoder, index = library.encoder, library.questions.index
        return {
            "encoder": encoder.name,
            "backend": encoder.backend,
            "device": encoder.device,
            "sandbox": self._level(),
            "applied_seq": index.seq,
            "index_photos": index.count,
            "index_delta_photos": index.delta_count,
            "serving_generation": index.generation,
            "generation_built_at": index.built_at,
            "recall_at_10": index.repeated.recall_at_10,
            "recall_at_10_at_most": index.repeated.at_most,
            "recall_gate": self.settings.index_recall,
            "recall_searches": index.repeated.searches,
            "answers_flipped_ratio": index.repeated.flipped,
            "answers_compared": index.repeated.compared,
        }

    def note_end(self, signal: str, error: str, *, task_id: str) -> None:
        """How a child has died that had a message in hand. Loads nothing: of the process that forks children."""
        from worker.storage.store import note_end

        note_end(self.settings, signal, error, task_id=task_id)

    def hand_back(self, task_ids: Collection[str], stuck: Mapping[str, str] | None = None) -> None:
        """These messages, by task id, are handed out again by nobody's fault, as this process ends in order.
        stuck: those that a thread is stuck at, and where."""
        self._is_left = self._is_left or bool(task_ids or stuck)
        if self._quarantine is not None:
            self._quarantine.leave(task_ids, stuck)

    def close(self) -> None:
        """End what the libraries have running, which is done with the last task; not where one was left."""
        with self._lock:
            if not self._is_left:
                for library in self._libraries.values():
                    library.close()
            self.hand_back(())
            self._loading.close()

    def _loaded(self) -> dict[str, Library]:
        with self._lock:
            if not self._libraries:
                self._libraries = {library.model_key: library for library in self._build()}
            return self._libraries

    @property
    def _at_hand(self) -> Library | None:
        """What questions are answered with, of memory alone and without a lock; None while nothing is loaded."""
        return self._libraries.get(self._serving[0]) or next(iter(self._libraries.values()), None)

    def _level(self) -> str:
        if self._loading.sandbox is None:
            return OFF if self.settings.sandbox == OFF else NONE
        return self._loading.sandbox.level

    def _serving_key(self, default: str) -> str:
        key, asked = self._serving
        now = time.monotonic()
        if now - asked > self.settings.max_staleness_s:
            assert self._store is not None
            try:
                key = self._store.models.serving(default)
            except Transient:
                # What needs Postgres meets that itself; what does not is asked of the model that served last.
                if not key:
                    raise
                return key
            self._serving = (key, now)
        return key

    def _build(self) -> Iterator[Library]:
        settings = self.settings
        self._loading.begin()
        from worker.encoder.keypoints import find_keypoints
        from worker.index.live import FaissLiveIndex
        from worker.index.repeating import Repeating
        from worker.storage.source import PhotoFiles
        from worker.storage.store import PostgresStore

        starting.reached("imports")
        # Every task thread may hold one connection, a rebuild's lock and snapshot one each, and who follows one.
        store = self._store = PostgresStore(settings, pool_size=settings.concurrency + 4)
        self._quarantine = Quarantine(store.attempts, after=settings.quarantine_after)
        generations, decoder = generation_folder(settings), self._loading.decode
        for encoder in self._loading.encoders():
            limits: dict[str, Any] = {"side": encoder.input_side, "max_megapixels": settings.max_megapixels}
            yield Library.join(
                settings,
                encoder=encoder,
                decode=partial(decoder, **limits),
                find_keypoints=partial(find_keypoints, decode=decoder, **limits),
                source=PhotoFiles(settings),
                store=store,
                live=FaissLiveIndex(
                    store.log,
                    generations,
                    model_key=encoder.model_key,
                    dimension=encoder.dimension,
                    repeating=Repeating(one_in=settings.recall_sample, gate=settings.index_recall),
                ),
                generations=generations,
                quarantine=self._quarantine,
            )


def generation_folder(settings: Settings) -> GenerationFolder:
    """Where the settings keep and publish generations, and how they build them."""
    from worker.index.building import Build
    from worker.index.folder import GenerationFolder

    remote = None
    if settings.index_url:
        from worker.storage.objects import ObjectFolder

        remote = ObjectFolder(settings.index_url)
    return GenerationFolder(
        settings.generations_dir,
        remote=remote,
        build=Build(
            kind=settings.index_kind,
            exact_up_to=settings.index_exact_up_to,
            memory_bytes=settings.index_memory_bytes,
            gate=settings.index_recall,
            threads=settings.threads,
        ),
    )


def examine_serving(
    settings: Settings, store: PostgresStore, note: Progress, *, photos: int
) -> tuple[Examination, Exam]:
    """Ask the generation that serves about so many known photos, as a rebuild does. No model runs.

    Raises Permanent(not_ready) where none is published, BadGeneration where its files are not as they were written.
    """
    from worker.library.examining import Examining, exam_of
    from worker.library.locating import rule_of

    published, model_key, index = _serving(settings, store)
    vectors, stored = store.vectors if "time" in settings.rungs else None, _stored(settings, store)
    examining = Examining(settings, model_key, index.dimension, rule=rule_of(settings), vectors=vectors, **stored)
    found = examining.examine(index, note, photos=photos)
    exam = exam_of(found, settings, model_key, generation=published.number, seq=published.mark.seq)
    return found, exam


def tune_serving(settings: Settings, store: PostgresStore, note: Progress, *, photos: int) -> Tuning:
    """Ask it by other settings too, and say which would answer better. Raises as examine_serving."""
    from worker.library.tuning import Tuner

    _, model_key, index = _serving(settings, store)
    return Tuner(settings, model_key, index.dimension, **_stored(settings, store)).tune(index, note, photos=photos)


def _serving(settings: Settings, store: PostgresStore) -> tuple[Published, str, Written]:
    """The generation that serves, the key of its model, and it as what to ask."""
    newest = store.generations.newest()
    if newest is None:
        raise Permanent(Code.NOT_READY, "no generation is published yet. Run `sightline rebuild`")
    published, model_key = newest
    folder, sha256 = generation_folder(settings), published.manifest_sha256
    return published, model_key, folder.to_examine(published.number, model_key=model_key, sha256=sha256)


def _stored(settings: Settings, store: PostgresStore) -> dict[str, Any]:
    return {
        "entries": store.entries,
        "keypoints": store.keypoints if "geometry" in settings.rungs else None,
        "change_log": store.log,
    }
