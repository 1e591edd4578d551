"""The seams of one database together, as a Protocol; each is in worker.core.ports or index_ports."""

from __future__ import annotations

from typing import Protocol

from worker.core.index_ports import PublishedGenerations
from worker.core.ports import (
    Attempts,
    Audit,
    Entries,
    KnownFiles,
    Log,
    Reconciled,
    Rows,
    Runs,
    ServingModel,
    StoredConflicts,
    StoredKeypoints,
    StoredVectors,
    Verdicts,
)


class Store(Protocol):
    """The ports of one database together, for who joins the rooms; a room asks for those that it uses."""

    @property
    def rows(self) -> Rows: ...

    @property
    def entries(self) -> Entries: ...

    @property
    def files(self) -> KnownFiles: ...

    @property
    def vectors(self) -> StoredVectors: ...

    @property
    def keypoints(self) -> StoredKeypoints: ...

    @property
    def log(self) -> Log: ...

    @property
    def conflicts(self) -> StoredConflicts: ...

    @property
    def verdicts(self) -> Verdicts: ...

    @property
    def attempts(self) -> Attempts: ...

    @property
    def reconciled(self) -> Reconciled: ...

    @property
    def audit(self) -> Audit: ...

    @property
    def runs(self) -> Runs: ...

    @property
    def generations(self) -> PublishedGenerations: ...

    @property
    def models(self) -> ServingModel: ...
