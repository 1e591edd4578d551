"""What a process decodes and encodes with, begun before the rest of it is imported. Knows no library and no queue.

Decoders are processes of their own, and most of opening a model is done without holding the interpreter: both go on
beside the imports that a worker's start is made of. What torch has to do is done first, by whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial

from producer_client.contract import Photo
from producer_client.errors import BadRequest
from worker.core import starting
from worker.core.ports import Encoder
from worker.core.types import Decoded, Pixels
from worker.errors import PhotoRefusal, Transient
from worker.sandbox.port import Sandbox, sandbox_of
from worker.settings import Settings


class Loading:
    """Of one process, by one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.sandbox: Sandbox | None = None
        self._begun: list[Future[Encoder]] = []

    def begin(self) -> None:
        """Have decoders start and models be opened, and go on. Raises EncoderUnavailable, and as `sandbox_of`."""
        if self._begun:
            return
        settings = self._settings
        if self.sandbox is None:
            self.sandbox = sandbox_of(settings)
        if self.sandbox is not None:
            self.sandbox.begin()
        names = [(settings.encoder, settings.encoder_sha256)]
        if settings.next_encoder:
            names.append((settings.next_encoder, settings.next_encoder_sha256))
        photos = partial(known_photos, settings, self.decode)
        prepared = [prepare(settings, *name, known_photos=photos) for name in names]
        self._begun = [_beside(build) for build in prepared]

    def encoders(self) -> list[Encoder]:
        """When all are there, in the order of the settings. Raises as `begin`; whoever asks again begins anew."""
        self.begin()
        begun, self._begun = self._begun, []
        return [encoder.result() for encoder in begun]

    @property
    def decode(self) -> Callable[..., Decoded]:
        if self.sandbox is not None:
            return self.sandbox.decode
        from worker.encoder.images import decode

        return decode

    def close(self) -> None:
        if self.sandbox is not None:
            self.sandbox.close()


def load(settings: Settings) -> Encoder:
    """The encoder of the settings."""
    return prepare(settings, settings.encoder, settings.encoder_sha256)()


def prepare(
    settings: Settings, name: str, sha256: str, *, known_photos: Callable[[int], list[Pixels]] | None = None
) -> Callable[[], Encoder]:
    """See worker.encoder.load."""
    with starting.uncollected():
        from worker.encoder import load

    remote = None
    if settings.index_url:
        from worker.storage.objects import models_at

        remote = models_at(settings.index_url)
    return load.prepare(
        name,
        sha256=sha256,
        device=settings.device,
        threads=settings.threads,
        batch=settings.encode_batch,
        backend=settings.backend,
        models=settings.exports_dir,
        known_photos=known_photos,
        remote=remote,
    )


def known_photos(settings: Settings, decode: Callable[..., Decoded], side: int) -> list[Pixels]:
    """Some photos of the backend's, decoded for an encoder of this input side; none where its table is empty."""
    from worker.encoder.choice import SAMPLE
    from worker.storage.source import PhotoFiles
    from worker.storage.store import PostgresStore

    source = PhotoFiles(settings)
    found: list[Pixels] = []
    with closing(PostgresStore(settings)) as store:
        for path in store.rows.some_paths(2 * SAMPLE):
            # What cannot be had is told where it is wanted: a photo less to compare with is no reason not to start.
            with suppress(PhotoRefusal, BadRequest, Transient):
                content = source.fetch(Photo(path=path))
                found.append(decode(content, side=side, max_megapixels=settings.max_megapixels).pixels)
            if len(found) == SAMPLE:
                break
    return found


def _beside(build: Callable[[], Encoder]) -> Future[Encoder]:
    """Done by a thread of its own, which an end of this process waits for: a library must not lose its interpreter."""

    def built() -> Encoder:
        encoder = build()
        starting.reached("models")
        return encoder

    thread = ThreadPoolExecutor(1, "model")
    building = thread.submit(built)
    thread.shutdown(wait=False)
    return building
