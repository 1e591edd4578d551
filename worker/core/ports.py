"""The seams of the library, as Protocols. Adapters implement them; only the runtime picks which."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from producer_client.contract import Code, Near, Photo, RebuildRun
from worker.core.types import (
    Built,
    Changes,
    Chunk,
    Counts,
    Decoded,
    Entry,
    Missing,
    Neighbours,
    NewEntry,
    PhotoRow,
    Pixels,
    PublishedGeneration,
    Written,
)
from worker.core.vectors import Ids, Vector, Vectors

#: Called with (phase, done, in all).
Progress = Callable[[str, int, int], None]


class Encoder(Protocol):
    """Photos or texts to vectors: float32 [n, dimension], rows of length 1, in the order given."""

    name: str
    model_key: str
    dimension: int
    device: str
    backend: str
    input_side: int
    has_text: bool

    def prepare(self, pixels: Pixels) -> Pixels:
        """What the model sees of a photo. Encoding takes it as it takes the photo, and is quicker with it."""
        ...

    def encode_images(self, photos: Sequence[Pixels]) -> Vectors: ...

    def encode_texts(self, texts: Sequence[str]) -> Vectors: ...


class Decode(Protocol):
    """File bytes to pixels. Raises PhotoRefusal."""

    def __call__(self, content: bytes) -> Decoded: ...


class PhotoSource(Protocol):
    """References to bytes. Raises PhotoRefusal, or Transient where a server did not answer."""

    def fetch(self, photo: Photo) -> bytes: ...

    def spellings(self, path: str) -> tuple[str, ...]: ...


class Snapshot(Protocol):
    """One consistent view of everything that is indexed."""

    @property
    def seq(self) -> int: ...

    @property
    def count(self) -> int: ...

    def chunks(self) -> Iterator[Chunk]: ...

    def sample(self, rows: int) -> Chunk: ...


class Store(Protocol):
    """Postgres. Every method is one transaction. Raises Transient when the database cannot be reached."""

    def rows(self, photo_ids: Collection[int]) -> dict[int, PhotoRow]: ...

    def rows_after(self, after_id: int, limit: int) -> list[PhotoRow]: ...

    def known_vectors(self, contents: Collection[str], model_key: str) -> dict[str, Vector]: ...

    def keep_vectors(self, vectors: Mapping[str, Vector], model_key: str) -> None: ...

    def put_many(
        self, new: Sequence[NewEntry], model_key: str, *, revive: bool = True, filling: bool = False
    ) -> list[Written]: ...

    def remove_many(self, photo_ids: Collection[int]) -> dict[int, tuple[int, bool]]: ...

    def purge_many(self, photo_ids: Collection[int]) -> dict[int, tuple[int, bool]]: ...

    def entries(self, photo_ids: Collection[int]) -> dict[int, Entry]: ...

    def known_entries(self, photo_ids: Collection[int], model_key: str) -> dict[int, tuple[Entry, Vector]]: ...

    def ids_with_content(self, content_sha256: str) -> Ids: ...

    def ids_where(self, near: Near | None, where: Mapping[str, Any] | None) -> Ids: ...

    def changes_after(self, seq: int, model_key: str, dimension: int, *, items: bool = True) -> Changes: ...

    def snapshot(self, model_key: str, dimension: int) -> AbstractContextManager[Snapshot]: ...

    def refuse(self, photo_id: int, code: Code, message: str) -> None: ...

    def counts(self, model_key: str) -> Counts: ...

    def exclusive(self, name: str) -> AbstractContextManager[bool]: ...

    def missing(
        self, model_key: str, *, after_id: int, limit: int, share: tuple[int, int] | None = None
    ) -> list[Missing]: ...

    def missing_count(self, model_key: str, *, refused_too: bool = True) -> int: ...

    def serving_model(self, default: str) -> str: ...

    def switch_model(self, model_key: str) -> bool: ...

    def hold_filler(self, model_key: str, slot: int, lease_s: float, *, new: bool) -> bool: ...

    def end_filler(self, model_key: str, slot: int) -> None: ...

    def follow_rows(self) -> int: ...

    def begin_attempt(self, photo_ids: Collection[int]) -> None: ...

    def end_attempt(self, photo_ids: Collection[int]) -> None: ...

    def count_delivery(self, task_id: str) -> int: ...

    def start_run(self) -> int: ...

    def note_progress(self, run_id: int, phase: str, done: int, total: int) -> None: ...

    def finish_run(self, run_id: int, *, summary: Mapping[str, Any] | None, error: str | None) -> None: ...

    def last_run(self) -> RebuildRun | None: ...

    def reserve_generation(self) -> int: ...

    def publish_generation(self, number: int, model_key: str, seq: int, built: Built, keep: int) -> list[int]: ...

    def serving_generation(self, model_key: str) -> int | None: ...

    def published_at(self, number: int) -> str | None: ...

    def generations(self) -> list[PublishedGeneration]: ...

    def rebuild_asked(self, model_key: str, *, share: float, least: int) -> list[tuple[str, datetime]]: ...

    def due(
        self, name: str, slot: datetime, *, max_attempts: int, retry_after_s: float, first_counts: bool = False
    ) -> bool: ...

    def slot_done(self, name: str, slot: datetime) -> None: ...


class LiveIndex(Protocol):
    """What a search sees: the published generation, and everything that happened since."""

    @property
    def generation(self) -> int | None: ...

    @property
    def seq(self) -> int: ...

    @property
    def count(self) -> int: ...

    @property
    def delta_count(self) -> int: ...

    @property
    def kind(self) -> str | None: ...

    @property
    def recall_at_10(self) -> float | None: ...

    def catch_up(self, *, max_age_s: float = 0.0) -> int: ...

    def follow(self, every_s: float) -> None: ...

    def settle(self, timeout_s: float = 60.0) -> None: ...

    def search(self, query: Vector, k: int, *, only: Ids | None = None, exclude: Ids | None = None) -> Neighbours: ...


class Generations(Protocol):
    """Writes immutable index directories, whole or not at all."""

    def prepare(self, snapshot: Snapshot, *, dimension: int) -> Any: ...

    def write(
        self,
        number: int,
        snapshot: Snapshot,
        *,
        model_key: str,
        dimension: int,
        previous: int | None,
        trained: Any,
        progress: Progress,
    ) -> Built: ...

    def keep_only(self, numbers: Collection[int], *, everywhere: bool = False) -> None: ...


class RemoteFolder(Protocol):
    """Where generations are published for other hosts: an object store or a shared directory. Raises Transient."""

    url: str

    def put(self, folder: Path, files: Sequence[str]) -> None: ...

    def get(self, name: str, files: Sequence[str], into: Path) -> None: ...

    def names(self) -> list[str]: ...

    def delete(self, name: str, files: Sequence[str]) -> None: ...
