"""The seams of the library, as Protocols. Adapters implement them; only the runtime picks which."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol, TypeVar

from producer_client.contract import Code, ConflictState, Doubt, LeftAlone, Photo, RebuildRun
from worker.core.audit import Question
from worker.core.conflict import Claim, Contradiction, KnownConflict, Rejection
from worker.core.keypoints import Keypoints
from worker.core.shot import Picture, Shot
from worker.core.tries import Deaths, Try
from worker.core.types import (
    Changes,
    Chunk,
    Counts,
    Decoded,
    Documents,
    Entry,
    Facts,
    FileFacts,
    Filter,
    KnownFile,
    Mark,
    Missing,
    NewEntry,
    PhotoRow,
    Pixels,
    Refusal,
    RowChange,
    UnknownFile,
    Written,
)
from worker.core.upkeep import Claimed
from worker.core.vectors import Ids, Vector, Vectors

T = TypeVar("T")
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


class FindKeypoints(Protocol):
    """The keypoints of a decoded photo; content: its file, where more is to be seen than was decoded. Raises
    PhotoRefusal."""

    def __call__(self, content: bytes, decoded: Decoded) -> Keypoints: ...


class PhotoSource(Protocol):
    """References to bytes. Raises PhotoRefusal, or Transient where a server did not answer."""

    def fetch(self, photo: Photo) -> bytes: ...

    def facts(self, paths: Sequence[str]) -> list[FileFacts | UnknownFile | None]: ...

    def beside(self, path: str, names: Iterable[tuple[T, str]], *, limit: int) -> Iterator[tuple[T, bytes]]: ...

    def spellings(self, path: str) -> tuple[str, ...]: ...


class Snapshot(Protocol):
    """One consistent view of everything that is indexed."""

    @property
    def mark(self) -> Mark: ...

    @property
    def count(self) -> int: ...

    def chunks(self) -> Iterator[Chunk]: ...

    def sample(self, rows: int) -> Chunk: ...

    def facts(self) -> Iterator[Facts]: ...

    def documents(self) -> Iterator[Documents]: ...


# Postgres. Every method is one transaction, and raises Transient when the database cannot be reached.


class Rows(Protocol):
    """The backend's own table of photos."""

    def get(self, photo_ids: Collection[int]) -> dict[int, PhotoRow]: ...

    def after(self, after_id: int, limit: int) -> list[PhotoRow]: ...

    def some_paths(self, limit: int) -> list[str]: ...

    def changes(self, new: Sequence[NewEntry]) -> list[RowChange]: ...

    def named(self, paths: Collection[str]) -> set[str]: ...


class Entries(Protocol):
    """What the index knows of each photo."""

    def put_many(
        self,
        new: Sequence[NewEntry],
        model_key: str,
        *,
        revive: bool = True,
        filling: bool = False,
        sent_ms: int | None = None,
    ) -> list[Written]: ...

    def remove_many(
        self, photo_ids: Collection[int], *, sent_ms: int | None = None, again: bool = False
    ) -> dict[int, tuple[int, bool]]: ...

    def purge_many(
        self, photo_ids: Collection[int], *, sent_ms: int | None = None, again: bool = False
    ) -> dict[int, tuple[int, bool, bool]]: ...

    def get(self, photo_ids: Collection[int]) -> dict[int, Entry]: ...

    def known(
        self, photo_ids: Collection[int], model_key: str, among: Filter | None = None
    ) -> dict[int, tuple[Entry, Vector]]: ...

    def ids_with_content(self, content_sha256: str) -> Ids: ...

    def follow_rows(self) -> int: ...

    def counts(self, model_key: str) -> Counts: ...


class KnownFiles(Protocol):
    """The files on disk of the photos that are indexed, as they were when these were embedded."""

    def count(self) -> int: ...

    def after(self, after_id: int, limit: int) -> list[KnownFile]: ...

    def note(self, looked_at: Sequence[KnownFile]) -> None: ...


class StoredVectors(Protocol):
    """Vectors by content and model, hashes of pictures by content, and which photos lack one."""

    def known(self, contents: Collection[str], model_key: str) -> dict[str, Vector]: ...

    def keep(self, vectors: Mapping[str, Vector], model_key: str, *, looked: Mapping[str, Picture] = ...) -> None: ...

    def without_hash(self, contents: Collection[str]) -> set[str]: ...

    def taken_near(self, shot: Shot, *, within_s: float, limit: int) -> list[int]: ...

    def missing(
        self,
        model_key: str,
        *,
        after_id: int,
        limit: int,
        share: tuple[int, int] | None = None,
        changed_too: bool = True,
    ) -> list[Missing]: ...

    def missing_count(self, model_key: str, *, refused_too: bool = True, changed_too: bool = True) -> int: ...

    def missing_among(self, photo_ids: Collection[int], model_key: str, *, changed_too: bool) -> list[Missing]: ...

    def missing_hashes(self, *, after_id: int, limit: int) -> list[int]: ...

    def missing_hash_count(self) -> int: ...

    def sweep(self) -> int: ...


class StoredKeypoints(Protocol):
    """Keypoints of pictures by content, and which photos lack them."""

    def known(self, contents: Collection[str]) -> dict[str, Keypoints]: ...

    def keep(self, found: Mapping[str, Keypoints]) -> None: ...

    def without(self, contents: Collection[str]) -> set[str]: ...

    def missing(self, *, after_id: int, limit: int) -> list[Missing]: ...

    def missing_count(self) -> int: ...

    def sweep(self) -> int: ...


class StoredConflicts(Protocol):
    """Photos whose position something contradicts."""

    def claims(self, *, after_id: int, limit: int) -> list[Claim]: ...

    def claims_of(self, photo_ids: Collection[int]) -> list[Claim]: ...

    def of_one_content(self) -> list[list[Claim]]: ...

    def of_one_point(self, least: int) -> list[list[Claim]]: ...

    def suspend(self, found: Sequence[Contradiction], *, model_key: str | None = None) -> set[int]: ...

    def withdraw(self, photo_ids: Collection[int]) -> None: ...

    def open_ids(self, doubts: Collection[Doubt]) -> set[int]: ...

    def examined_up_to(self, model_key: str) -> int: ...

    def note_examined(self, model_key: str, after_id: int) -> None: ...


class Verdicts(Protocol):
    """What people have said of conflicts."""

    def known(
        self, photo_ids: Collection[int] | None, state: ConflictState | None, *, after_id: int, limit: int
    ) -> list[KnownConflict]: ...

    def count_open(self) -> int: ...

    def confirm(self, photo_ids: Collection[int]) -> dict[int, int | Code]: ...

    def reject(self, rejections: Sequence[Rejection]) -> dict[int, int | Code]: ...


class Log(Protocol):
    """What happened, in the order of the commits, and everything at one moment."""

    def changes_after(self, since: Mark, model_key: str, dimension: int, *, items: bool = True) -> Changes: ...

    def ids_where(self, among: Filter) -> Ids: ...

    def snapshot(self, model_key: str, dimension: int) -> AbstractContextManager[Snapshot]: ...


class Attempts(Protocol):
    """What failed or took its worker down: photos and messages."""

    def begin(self, tries: Collection[Try], *, after: int) -> dict[str, Deaths]: ...

    def alone(self, content: str) -> None: ...

    def end(self, contents: Collection[str], *, cleared: bool = False) -> None: ...

    def leave(self, handed_back: Collection[str], stuck: Mapping[str, str]) -> None: ...

    def quarantined(
        self, after: int, contents: Collection[str] | None = None, limit: int | None = None
    ) -> list[LeftAlone]: ...

    def retry(self, contents: Collection[str], after: int) -> None: ...

    def forget(self, contents: Collection[str]) -> None: ...

    def refuse(self, refused: Sequence[Refusal], model_key: str) -> None: ...

    def count_delivery(self, task_id: str) -> int: ...


class Reconciled(Protocol):
    """Which photos lack a vector for how long, and who sends for them."""

    def claim(
        self, model_key: str, *, every_s: float, grace_s: float, most: int, changed_too: bool, dry_run: bool
    ) -> Claimed | None: ...

    def looked(self, after_id: int) -> None: ...


class Runs(Protocol):
    """What runs and what is due."""

    def exclusive(self, name: str) -> AbstractContextManager[bool]: ...

    def start(self) -> int: ...

    def note_progress(self, run_id: int, phase: str, done: int, total: int) -> None: ...

    def finish(self, run_id: int, *, summary: Mapping[str, Any] | None, error: str | None) -> None: ...

    def last(self) -> RebuildRun | None: ...

    def asked(self, model_key: str, *, share: float, least: int) -> list[tuple[str, datetime]]: ...

    def due(
        self, name: str, slot: datetime, *, max_attempts: int, retry_after_s: float, first_counts: bool = False
    ) -> bool: ...

    def slot_done(self, name: str, slot: datetime) -> None: ...


class Audit(Protocol):
    """The record of who has asked where photos were taken."""

    def record(self, question: Question, *, days: int) -> None: ...

    def forget(self, most: int) -> int: ...


class ServingModel(Protocol):
    """Which model serves, and the chains of messages that fill the next one."""

    def serving(self, default: str) -> str: ...

    def switch(self, model_key: str) -> bool: ...

    def hold_filler(self, model_key: str, slot: int, lease_s: float, *, new: bool) -> bool: ...

    def end_filler(self, model_key: str, slot: int) -> None: ...
