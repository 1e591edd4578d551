"""The verbs, a room for each kind; this page only joins them. Knows no Celery, SQL, FAISS or torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from worker.core.index_ports import Generations, LiveIndex
from worker.core.ports import Decode, Encoder, FindKeypoints, PhotoSource
from worker.core.store_ports import Store
from worker.embedding import Embedding
from worker.library.alone import Alone
from worker.library.checking import Checking
from worker.library.conflicts import Conflicts
from worker.library.examining import Examining
from worker.library.filling import Filling
from worker.library.learning import Learning
from worker.library.locating import rule_of
from worker.library.models import Models
from worker.library.photos import Photos
from worker.library.questions import Questions
from worker.library.rebuilding import Rebuilding
from worker.library.reconciling import Reconciling
from worker.library.recording import Recording
from worker.library.statistics import Statistics
from worker.library.suspecting import Suspecting
from worker.quarantine import Quarantine
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class Library:
    """All rooms over one model. One per process and model, shared by its threads."""

    encoder: Encoder
    embedding: Embedding
    photos: Photos
    questions: Questions
    recording: Recording
    conflicts: Conflicts
    suspecting: Suspecting
    quarantine: Quarantine
    rebuilding: Rebuilding
    reconciling: Reconciling
    models: Models
    statistics: Statistics
    examining: Examining
    learning: Learning

    @classmethod
    def join(
        cls,
        settings: Settings,
        *,
        encoder: Encoder,
        decode: Decode,
        source: PhotoSource,
        store: Store,
        live: LiveIndex,
        generations: Generations,
        find_keypoints: FindKeypoints,
        quarantine: Quarantine,
    ) -> Self:
        geometry = "geometry" in settings.rungs
        embedding = Embedding(
            settings,
            encoder=encoder,
            decode=decode,
            source=source,
            rows=store.rows,
            vectors=store.vectors,
            keypoints=store.keypoints,
            find_keypoints=find_keypoints if geometry else None,
            quarantine=quarantine,
        )
        photos = Photos(
            encoder=encoder,
            embedding=embedding,
            source=source,
            entries=store.entries,
            vectors=store.vectors,
            keypoints=store.keypoints,
            attempts=store.attempts,
            live=live,
            published=store.generations,
            agree_m=settings.locate_agree_m,
            former=not settings.key_prefix,
        )
        learning = Learning(store.generations, geometry=geometry)
        filling = Filling(
            encoder.model_key,
            photos=photos,
            vectors=store.vectors,
            keypoints=store.keypoints if geometry else None,
            page=settings.encode_batch,
            re_embed=settings.changed_files == "re-embed",
        )
        checking = Checking(files=store.files, source=source)
        suspecting = Suspecting(
            settings,
            encoder=encoder,
            entries=store.entries,
            conflicts=store.conflicts,
            vectors=store.vectors,
            keypoints=store.keypoints,
            change_log=store.log,
            published=store.generations,
            live=live,
        )
        examining = Examining(
            settings,
            encoder.model_key,
            encoder.dimension,
            rule=rule_of(settings),
            entries=store.entries,
            keypoints=store.keypoints if geometry else None,
            vectors=store.vectors if "time" in settings.rungs else None,
            change_log=store.log,
        )
        rebuilding = Rebuilding(
            settings,
            encoder=encoder,
            examining=examining,
            checking=checking,
            filling=filling,
            suspecting=suspecting,
            entries=store.entries,
            change_log=store.log,
            runs=store.runs,
            published=store.generations,
            files=generations,
        )
        questions = Questions(
            settings,
            alone=Alone(encoder=encoder, decode=decode, source=source, batcher=embedding.batcher, live=live),
            encoder=encoder,
            embedding=embedding,
            entries=store.entries,
            keypoints=store.keypoints,
            learning=learning,
            live=live,
            vectors=store.vectors,
        )
        return cls(
            encoder=encoder,
            embedding=embedding,
            photos=photos,
            questions=questions,
            recording=Recording(settings, questions=questions, audit=store.audit),
            conflicts=Conflicts(settings, entries=store.entries, verdicts=store.verdicts),
            suspecting=suspecting,
            quarantine=quarantine,
            rebuilding=rebuilding,
            reconciling=Reconciling(
                settings,
                encoder.model_key,
                reconciled=store.reconciled,
                checking=checking,
                vectors=store.vectors,
                filling=filling,
            ),
            models=Models(
                encoder.model_key,
                filling=filling,
                rebuilding=rebuilding,
                vectors=store.vectors,
                serving=store.models,
                published=store.generations,
            ),
            statistics=Statistics(
                encoder=encoder,
                embedding=embedding,
                entries=store.entries,
                vectors=store.vectors,
                # The queues without a prefix are for clients that take no field which they do not know.
                keypoints=store.keypoints if geometry and settings.key_prefix else None,
                verdicts=store.verdicts if settings.key_prefix else None,
                published=store.generations,
                runs=store.runs,
                live=live,
                tell_exam=bool(settings.key_prefix),
            ),
            examining=examining,
            learning=learning,
        )

    @property
    def model_key(self) -> str:
        return self.encoder.model_key

    def close(self) -> None:
        """End the threads when what they have taken is done."""
        self.embedding.close()
        self.questions.close()
        self.suspecting.close()
