"""The whole service on a checkpoint of random weights, for the benchmarks that ask through the queue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.processes import cores
from producer_client import NewPhoto, Pending, Photo, Provenance, Refused, Sightline
from worker.encoder.base import file_sha256
from worker.settings import Settings
from worker.stack import Stack

ARCHITECTURE = "ViT-B-32"


@dataclass(frozen=True)
class Checkpoint:
    """ViT-B-32 of true shape with random weights, which cost what trained ones cost."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / f"{ARCHITECTURE}.safetensors"

    @property
    def encoder(self) -> str:
        """What the service is told, with sha256."""
        return f"open_clip/{ARCHITECTURE}/{self.path}"

    @cached_property
    def sha256(self) -> str:
        return file_sha256(self.path)

    def write(self, pickled: Path, photos: Sequence[tuple[str, dict[str, Any]]] = ()) -> None:
        """Write it, and the guide's pickle of (path, metadata). To be run in a process of its own."""
        # The import takes seconds and half a gigabyte, which only this process and the old side's have to spend.
        from benchmarks.guide import prepare

        self.folder.mkdir()
        prepare(self.path, pickled, photos)


@contextmanager
def servers(folder: Path, checkpoint: Checkpoint, **others: Any) -> Iterator[Stack]:
    """Servers and settings for processes that encode on all cores. What is started must not end by itself."""
    settings = Settings(
        data_dir=folder / "service",
        photo_roots=(folder,),
        encoder=checkpoint.encoder,
        encoder_sha256=checkpoint.sha256,
        device="cpu",
        model_threads=cores(),
        **others,
    )
    with Stack(settings, log_dir=folder / "logs", port=0) as stack:
        yield stack
        stack.check()


def add(client: Sightline, photos: Iterable[tuple[str, float, float]]) -> None:
    """Add (path, lat, lon) as surveyed. Raises RuntimeError where one is refused."""
    new = [NewPhoto(p, Photo(path=p), lat=lat, lon=lon, provenance=Provenance.SURVEYED) for p, lat, lon in photos]
    for outcome in client.add_many(new):
        if isinstance(outcome, (Refused, Pending)):
            raise RuntimeError(f"{outcome.ref} was not taken: {outcome.message}")
