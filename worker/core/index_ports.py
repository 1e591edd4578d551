"""The seams of the index, as Protocols; the others are in worker.core.ports."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from worker.core.circle import Places
from worker.core.generations import Built, PublishedGeneration
from worker.core.ports import Progress, Snapshot
from worker.core.types import Filter, Mark, Neighbours, Published, Repeated
from worker.core.vectors import Ids, Vector


class Searched(Protocol):
    """An index as a search sees it."""

    def catch_up(self, *, max_age_s: float = 0.0) -> int: ...

    def search(
        self,
        query: Vector,
        k: int,
        *,
        among: Filter | None = None,
        exclude: Ids | None = None,
        drop_copies: bool = False,
    ) -> Neighbours: ...


class LiveIndex(Searched, Protocol):
    """What a search sees: the published generation, and everything that happened since."""

    @property
    def generation(self) -> int | None: ...

    @property
    def seq(self) -> int: ...

    @property
    def age_s(self) -> float: ...

    @property
    def count(self) -> int: ...

    @property
    def delta_count(self) -> int: ...

    @property
    def kind(self) -> str | None: ...

    @property
    def built_at(self) -> str | None: ...

    @property
    def recall_at_10(self) -> float | None: ...

    @property
    def repeated(self) -> Repeated: ...

    @property
    def ready(self) -> bool: ...

    @property
    def set_back(self) -> bool: ...

    @property
    def unread(self) -> Ids: ...

    def note_removed(self, seqs: Mapping[int, int]) -> None: ...

    def places_of(self, photo_ids: Ids) -> Places: ...

    def follow(self, every_s: float) -> None: ...

    def settle(self, timeout_s: float = 60.0) -> None: ...


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
        previous: Published | None,
        trained: Any,
        progress: Progress,
    ) -> Built: ...

    def to_examine(self, number: int, *, model_key: str, sha256: str | None) -> Searched: ...

    def keep_only(self, numbers: Collection[int], *, everywhere: bool = False) -> None: ...


class RemoteFolder(Protocol):
    """Where generations are published for other hosts: an object store or a shared directory. Raises Transient."""

    url: str

    def put(self, folder: Path, files: Sequence[str]) -> None: ...

    def get(self, name: str, files: Sequence[str], into: Path) -> None: ...

    def names(self) -> list[str]: ...

    def delete(self, name: str, files: Sequence[str]) -> None: ...


class PublishedGenerations(Protocol):
    """Which generations there are and which one serves; their files are another port's."""

    def reserve(self) -> int: ...

    def publish(
        self,
        number: int,
        model_key: str,
        mark: Mark,
        built: Built,
        keep: int,
        *,
        learnt: Mapping[str, Any] | None = None,
        exam: Mapping[str, Any] | None = None,
        verdict: Mapping[str, Any] | None = None,
        baseline: Mapping[str, Any] | None = None,
    ) -> list[int]: ...

    def hold_back(
        self, number: int, model_key: str, *, exam: Mapping[str, Any] | None, verdict: Mapping[str, Any]
    ) -> list[int]: ...

    def baseline(self, model_key: str) -> Mapping[str, Any] | None: ...

    def learnt(self, number: int) -> Mapping[str, Any] | None: ...

    def serving(self, model_key: str) -> Published | None: ...

    def published(self, number: int) -> tuple[str | None, float | None]: ...

    def kept(self) -> list[PublishedGeneration]: ...
