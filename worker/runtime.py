"""Composition root: builds everything once per process, on first use, under a lock, after any fork."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from worker.core.ports import Encoder
from worker.library import Library
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.index.generation import GenerationFolder


class Runtime:
    """Cheap to construct. `library` loads the model; nothing heavy is imported before."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._library: Library | None = None

    @property
    def library(self) -> Library:
        """Raises EncoderUnavailable where the model cannot be had."""
        with self._lock:
            if self._library is None:
                self._library = self._build()
            return self._library

    def _build(self) -> Library:
        from worker.encoder.images import decode
        from worker.index.live import FaissLiveIndex
        from worker.storage.source import PhotoFiles
        from worker.storage.store import PostgresStore

        settings = self.settings
        encoder = load(settings)
        # Every task thread may hold one connection, and a rebuild's lock and snapshot one each.
        store = PostgresStore(settings, pool_size=settings.concurrency + 2)
        generations = generation_folder(settings)
        return Library(
            settings,
            encoder=encoder,
            decode=partial(decode, side=encoder.input_side, max_megapixels=settings.max_megapixels),
            source=PhotoFiles(settings),
            store=store,
            live=FaissLiveIndex(
                store,
                generations,
                model_key=encoder.model_key,
                dimension=encoder.dimension,
            ),
            generations=generations,
        )


def load(settings: Settings) -> Encoder:
    """The encoder of the settings."""
    from worker.encoder.load import load_encoder

    return load_encoder(
        settings.encoder,
        sha256=settings.encoder_sha256,
        device=settings.device,
        threads=settings.threads,
        batch=settings.encode_batch,
    )


def generation_folder(settings: Settings) -> GenerationFolder:
    """Where the settings keep and publish generations, and how they build them."""
    from worker.index.generation import Build, GenerationFolder
    from worker.storage.objects import ObjectFolder

    return GenerationFolder(
        settings.generations_dir,
        remote=ObjectFolder(settings.index_url) if settings.index_url else None,
        build=Build(
            kind=settings.index_kind,
            exact_up_to=settings.index_exact_up_to,
            memory_bytes=settings.index_memory_bytes,
            gate=settings.index_recall,
            threads=settings.threads,
        ),
    )
