"""The folder of generations: written whole or not at all, published, fetched, kept. Knows files, not SQL or Celery.

A directory is built aside under a hidden name, checked by reading it back, and renamed.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from worker.core.generations import Built
from worker.core.index_ports import RemoteFolder
from worker.core.ports import Progress, Snapshot
from worker.core.types import Filter, Mark, Neighbours, Published
from worker.core.vectors import Ids, Vector
from worker.errors import BadGeneration, Transient
from worker.index import searching
from worker.index.building import Build, Builder, Trained
from worker.index.generation import FILES, FORMAT, IDS, MANIFEST, Generation, fsync, open_generation, read_manifest
from worker.index.kinds import Kind
from worker.index.view import Layers

#: Seconds after which a download that nobody finished belongs to a process that was killed.
ABANDONED_S = 3600.0


class GenerationFolder:
    """See worker.core.index_ports.Generations.

    remote: where generations are published for other hosts; this folder is then this host's verified copy.
    """

    def __init__(self, folder: Path, *, build: Build | None = None, remote: RemoteFolder | None = None) -> None:
        self._folder = folder
        self._build = build or Build()
        self._remote = remote

    def path(self, number: int) -> Path:
        return self._folder / _name(number)

    def write(
        self,
        number: int,
        snapshot: Snapshot,
        *,
        model_key: str,
        dimension: int,
        previous: Published | None = None,
        trained: Trained | None = None,
        progress: Progress = lambda *_: None,
    ) -> Built:
        """Build generation `number` from a snapshot whose ids rise. Nothing is left of a failed try.

        trained: what `prepare` made of an earlier snapshot, if it still fits.
        Raises BadGeneration when the written files do not read back, Permanent(recall_too_low) when no way of building
        reaches the gate, Permanent(not_ready) when none fits the memory, and OSError for a disk that is full.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        # One rebuild runs at a time, so what lies half-built here belongs to one that was killed.
        for left in self._folder.glob(".building-*"):
            shutil.rmtree(left, ignore_errors=True)
        aside = self._folder / f".building-{_name(number)}-{os.getpid()}"
        aside.mkdir()
        try:
            written = Builder(aside, number, snapshot, model_key, dimension, self._build, trained, progress).run(
                lambda: None if previous is None else self._previous(previous, model_key)
            )
            # Left by a rebuild that was killed before it published, if the database was set back since.
            shutil.rmtree(self.path(number), ignore_errors=True)
            aside.rename(self.path(number))
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        fsync(self._folder)
        manifest = written.manifest
        assert written.manifest_sha256 is not None
        if self._remote is not None:
            progress("upload", 0, 1)
            # The manifest goes last: without it the other files are nothing to anybody.
            self._remote.put(self.path(number), (*FILES[manifest.format], MANIFEST))
        return Built(
            manifest_sha256=written.manifest_sha256,
            count=manifest.count,
            kind=manifest.kind,
            parameters=dict(manifest.parameters),
            recall_at_10=manifest.recall_at_10,
            index_bytes=manifest.index_bytes,
            recall_at_10_at_least=manifest.recall_at_10_at_least,
        )

    def prepare(self, snapshot: Snapshot, *, dimension: int) -> Trained | None:
        """Train on what is there already, while photos that lack a vector are still being embedded."""
        plan = self._build.plans(snapshot.count, dimension)[0]
        if plan.kind is Kind.EXACT:
            return None
        searching.use_threads(self._build.threads)
        return Trained.on(snapshot, plan, dimension)

    def open(self, number: int, *, model_key: str, mark: Mark | None = None, sha256: str | None = None) -> Generation:
        """Map a generation after checking every byte of it. Raises BadGeneration naming what is wrong.

        mark: where it stands in the log, which tells it from one that had its number before a restore. sha256: of its
        manifest, which tells it from one that somebody else has put there. None takes any.
        """
        opened = partial(open_generation, number=number, model_key=model_key, mark=mark, sha256=sha256)
        if self._remote is None:
            return opened(self.path(number))
        if (self.path(number) / MANIFEST).exists():
            try:
                return opened(self.path(number))
            except BadGeneration:
                # Only a copy: another one may be whole.
                shutil.rmtree(self.path(number), ignore_errors=True)
        return self._fetch(self._remote, number, sha256, opened)

    def open_published(self, published: Published, model_key: str) -> Generation:
        """`open`, held to all that the database says of it."""
        return self.open(published.number, model_key=model_key, mark=published.mark, sha256=published.manifest_sha256)

    def to_examine(self, number: int, *, model_key: str, sha256: str | None) -> Written:
        """A generation that was written here, published or not. sha256: see `open`. Raises BadGeneration."""
        return Written(self.open(number, model_key=model_key, sha256=sha256))

    def numbers(self) -> list[int]:
        """Of the generations whose files are on this host, rising."""
        return sorted(int(folder.name) for folder in self._folder.glob("[0-9]*") if folder.name.isdigit())

    def holding(self, photo_id: int) -> list[int]:
        """Of the generations whose files are on this host those that have this photo, rising. Raises BadGeneration for
        one that cannot be read."""
        return [number for number in self.numbers() if self._holds(number, photo_id)]

    def lacks(self, generations: Collection[Published]) -> bool:
        """Whether this is where the files of these would be, and there are none of any."""
        return self._remote is None and not any(self.path(published.number).exists() for published in generations)

    def keep_only(self, numbers: Collection[int], *, everywhere: bool = False) -> None:
        """Delete all others on this host, also those that were written and never published.

        everywhere: also where they are published, which only who publishes may do.
        A process that still maps one keeps its pages until it lets go (POSIX unlink).
        """
        kept = {_name(number) for number in numbers}
        for folder in self._folder.glob("[0-9]*"):
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)
        if everywhere and self._remote is not None:
            for name in self._remote.names():
                if name.isdigit() and name not in kept:
                    self._remote.delete(name, (MANIFEST, *FILES[FORMAT]))

    def forget_before(self, number: int) -> None:
        """Delete this host's copies of generations older than `number`. Not where the folder is the original."""
        if self._remote is None:
            return
        for folder in self._folder.glob("[0-9]*"):
            if folder.name.isdigit() and int(folder.name) < number:
                shutil.rmtree(folder, ignore_errors=True)
        for left in self._folder.glob(".fetching-*"):
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > ABANDONED_S:
                    shutil.rmtree(left, ignore_errors=True)

    def _holds(self, number: int, photo_id: int) -> bool:
        try:
            ids = np.load(self.path(number) / IDS, allow_pickle=False)
        except FileNotFoundError:
            # Dropped meanwhile.
            return False
        except (OSError, ValueError) as exc:
            raise BadGeneration(f"generation {number}: {IDS} cannot be read: {exc}") from exc
        return bool(np.isin(photo_id, ids))

    def _previous(self, previous: Published, model_key: str) -> Generation | None:
        """The generation to compare with; a damaged or missing one is no reason not to build the next."""
        try:
            return self.open_published(previous, model_key)
        except (BadGeneration, Transient):
            return None

    def _fetch(
        self, remote: RemoteFolder, number: int, sha256: str | None, opened: Callable[[Path], Generation]
    ) -> Generation:
        """Bring a published generation to this host: aside, checked, renamed. Whoever is second finds it done."""
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = self._folder / f".fetching-{_name(number)}-{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            try:
                aside.mkdir()
                remote.get(_name(number), (MANIFEST,), aside)
                # Before anything else is brought here, however large.
                manifest = read_manifest(aside, number, sha256=sha256)
                remote.get(_name(number), FILES[manifest.format], aside)
            except FileNotFoundError as exc:
                raise BadGeneration(f"generation {number} is not at {remote.url}: {exc}") from exc
            generation = opened(aside)
            try:
                # What is mapped stays mapped under the new name.
                aside.rename(self.path(number))
            except OSError:
                if not (self.path(number) / MANIFEST).exists():
                    raise
                # Shared with the process that was first.
                return opened(self.path(number))
            return generation
        finally:
            shutil.rmtree(aside, ignore_errors=True)


class Written:
    """A generation alone, without what came since. See worker.core.index_ports.Searched."""

    def __init__(self, base: Generation) -> None:
        self.dimension = base.manifest.dimension
        self._view = Layers(base, base.manifest.dimension).view(base.manifest.mark)

    def catch_up(self, *, max_age_s: float = 0.0) -> int:
        """There is nothing to catch up with."""
        return self._view.seq

    def search(
        self,
        query: Vector,
        k: int,
        *,
        among: Filter | None = None,
        exclude: Ids | None = None,
        drop_copies: bool = False,
    ) -> Neighbours:
        """Raises ValueError for a filter: whom it passes the log says, which goes on."""
        if among is not None:
            raise ValueError("a written generation is searched as a whole")
        return self._view.search(query, k, exclude=exclude, drop_copies=drop_copies)


def _name(number: int) -> str:
    return f"{number:06d}"
