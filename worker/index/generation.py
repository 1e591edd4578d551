"""Generations of the index on disk: written whole or not at all. Knows files, not SQL or Celery.

    <folder>/000012/index.faiss     vectors, FAISS's own format, memory-mapped by readers
    <folder>/000012/ids.npy         photo ids, rising; position i belongs to vector i
    <folder>/000012/manifest.json   what it is, how good it was measured to be, SHA-256 of both files; written last

A directory is built aside under a hidden name, checked by reading it back, and renamed. FAISS itself reports no
error of a full disk on closing a file, so the reading back is the check.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np

from producer_client.contract import Code
from worker.core.ports import Progress, RemoteFolder, Snapshot
from worker.core.types import Built
from worker.core.vectors import Ids, Vectors
from worker.errors import BadGeneration, Permanent, Transient
from worker.index import kinds
from worker.index.kinds import Kind, Parameters, Plan, Positions, Similarities, Truth, Tuned

FORMAT = 2
INDEX, IDS, MANIFEST = "index.faiss", "ids.npy", "manifest.json"
#: Stored photos whose neighbours are looked up exactly and in the finished index, to measure its recall, and as many
#: photos that nobody stored (see kinds.moved).
QUERIES = 300
#: Cosine of a vector and itself as the index keeps it: 8 bits a number leave more than this of it.
SAME_VECTOR = 0.99
#: Seconds after which a download that nobody finished belongs to a process that was killed.
ABANDONED_S = 3600.0
#: Vectors that are read at a time to touch the pages of a new generation before searches come to it.
WARMED_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True)
class Manifest:
    format: int
    number: int
    model_key: str
    dimension: int
    count: int
    seq: int
    metric: str
    kind: str
    factory: str
    parameters: Parameters
    #: Share of the true neighbours found, for `recall_queries` photos: stored ones, each left out of its own answer,
    #: and as many that nobody stored.
    recall_at_1: float
    recall_at_10: float
    recall_queries: int
    #: Of the true neighbours that generation `previous` finds, the share that this one finds too.
    previous: int | None
    agreement: float | None
    index_bytes: int
    versions: dict[str, str]
    created_at: str
    sha256: dict[str, str]


@dataclass(frozen=True, slots=True)
class Generation:
    """An opened generation. `index` is memory-mapped and shared by all processes of a host."""

    manifest: Manifest
    index: faiss.Index
    ids: Ids
    #: Arguments of plain searches by k: making them takes as long as some searches do.
    _ready: dict[int, faiss.SearchParameters] = field(default_factory=dict)

    def search(
        self, query: Vectors, k: int, *, selector: faiss.IDSelector | None = None, passing: int | None = None
    ) -> tuple[Similarities, Positions]:
        """query: float32 [1, d]. Returns ([k], [k]), fewer where there are fewer.

        passing: how many vectors the selector lets pass. Fewer of them, or more neighbours, take a wider search.
        """
        count = self.manifest.count
        passing = count if passing is None else passing
        widen = max(1.0, k / kinds.TUNED_UP_TO) * (count / passing if passing else 1.0)
        arguments = self._ready.get(k) if selector is None else None
        if arguments is None:
            arguments = kinds.arguments(self.index, self.manifest.parameters, k, selector=selector, widen=widen)
            if selector is None:
                self._ready[k] = arguments
        similarities, positions = kinds.search(self.index, query, k, arguments)
        # FAISS puts -1 after the last one that it found.
        while positions[0, min(k, passing) - 1] < 0 and not kinds.is_widest(
            self.index, self.manifest.parameters, widen
        ):
            widen *= 8
            arguments = kinds.arguments(self.index, self.manifest.parameters, k, selector=selector, widen=widen)
            similarities, positions = kinds.search(self.index, query, k, arguments)
        if positions[0, -1] >= 0:
            return similarities[0], positions[0]
        there = positions[0] >= 0
        return similarities[0][there], positions[0][there]

    def warm(self) -> None:
        """Touch every page that searches may touch, so that none of them waits for it."""
        kinds.use_threads(1)
        for start in range(0, self.manifest.count, WARMED_AT_ONCE):
            positions = np.arange(start, min(start + WARMED_AT_ONCE, self.manifest.count))
            self.search(kinds.vectors_at(self.index, positions)[:1], kinds.RECALL_K)


@dataclass(frozen=True, slots=True)
class Build:
    """How generations are built. See the settings index_kind, index_exact_up_to, index_memory_mb, index_recall."""

    kind: str = "auto"
    exact_up_to: int = 50_000
    memory_bytes: float = float("inf")
    gate: float = 0.97
    threads: int = 1

    def plans(self, count: int, dimension: int) -> list[Plan]:
        """See kinds.plans."""
        return kinds.plans(
            count, dimension, kind=self.kind, exact_up_to=self.exact_up_to, memory_bytes=self.memory_bytes
        )


@dataclass(slots=True)
class Trained:
    """An empty index that knows how vectors are spread. Good for one generation."""

    plan: Plan
    index: faiss.Index | None

    def take(self) -> faiss.Index:
        """Hand the index over: who prepared it holds this object for the whole rebuild, and must not hold the vectors
        that are added to it."""
        index, self.index = self.index, None
        return index


class GenerationFolder:
    """See worker.core.ports.Generations.

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
        previous: int | None = None,
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
            manifest = _Builder(aside, number, snapshot, model_key, dimension, self._build, trained, progress).run(
                lambda: None if previous is None else self._previous(previous, model_key)
            )
            # Left by a rebuild that was killed before it published, if the database was set back since.
            shutil.rmtree(self.path(number), ignore_errors=True)
            aside.rename(self.path(number))
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        _fsync(self._folder)
        if self._remote is not None:
            progress("upload", 0, 1)
            # The manifest goes last: without it the other files are nothing to anybody.
            self._remote.put(self.path(number), (INDEX, IDS, MANIFEST))
        return Built(
            count=manifest.count,
            kind=manifest.kind,
            parameters=dict(manifest.parameters),
            recall_at_10=manifest.recall_at_10,
            index_bytes=manifest.index_bytes,
        )

    def prepare(self, snapshot: Snapshot, *, dimension: int) -> Trained | None:
        """Train on what is there already, while photos that lack a vector are still being embedded."""
        plan = self._build.plans(snapshot.count, dimension)[0]
        if plan.kind is Kind.EXACT:
            return None
        kinds.use_threads(self._build.threads)
        return Trained(plan, kinds.train(plan, dimension, snapshot.sample(plan.training_rows).vectors))

    def open(self, number: int, *, model_key: str) -> Generation:
        """Map a generation after checking every byte of it. Raises BadGeneration naming what is wrong."""
        if self._remote is None:
            return _open(self.path(number), number=number, model_key=model_key)
        if (self.path(number) / MANIFEST).exists():
            try:
                return _open(self.path(number), number=number, model_key=model_key)
            except BadGeneration:
                # Only a copy: another one may be whole.
                shutil.rmtree(self.path(number), ignore_errors=True)
        return self._fetch(self._remote, number, model_key)

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
                    self._remote.delete(name, (MANIFEST, INDEX, IDS))

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

    def _previous(self, number: int, model_key: str) -> Generation | None:
        """The generation to compare with; a damaged or missing one is no reason not to build the next."""
        try:
            return self.open(number, model_key=model_key)
        except (BadGeneration, Transient):
            return None

    def _fetch(self, remote: RemoteFolder, number: int, model_key: str) -> Generation:
        """Bring a published generation to this host: aside, checked, renamed. Whoever is second finds it done."""
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = self._folder / f".fetching-{_name(number)}-{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            try:
                remote.get(_name(number), (INDEX, IDS, MANIFEST), aside)
            except FileNotFoundError as exc:
                raise BadGeneration(f"generation {number} is not at {remote.url}: {exc}") from exc
            opened = _open(aside, number=number, model_key=model_key)
            try:
                # What is mapped stays mapped under the new name.
                aside.rename(self.path(number))
            except OSError:
                if not (self.path(number) / MANIFEST).exists():
                    raise
                # Shared with the process that was first.
                return _open(self.path(number), number=number, model_key=model_key)
            return opened
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Before:
    """What generation `number` finds for some queries: the ids of each."""

    number: int
    found: list[Ids]


def _found_before(previous: Generation | None, truth: Truth) -> _Before | None:
    """Asked before the new index is mapped: pages of both would count as the rebuild's memory."""
    if previous is None:
        return None
    found = [previous.ids[previous.search(query[None, :], kinds.RECALL_K + 1)[1]] for query in truth.queries]
    return _Before(previous.manifest.number, found)


class _Builder:
    """One build of one generation."""

    def __init__(
        self,
        folder: Path,
        number: int,
        snapshot: Snapshot,
        model_key: str,
        dimension: int,
        build: Build,
        trained: Trained | None,
        progress: Progress,
    ) -> None:
        self._folder = folder
        self._number = number
        self._snapshot = snapshot
        self._model_key = model_key
        self._dimension = dimension
        self._build = build
        self._trained = trained
        self._progress = progress

    def run(self, open_previous: Callable[[], Generation | None]) -> Manifest:
        plans = self._build.plans(self._snapshot.count, self._dimension)
        for plan in plans:
            truth, ids = self._write(plan)
            before = _found_before(open_previous(), truth)
            index = self._read_back(truth, ids)
            gate = 1 - kinds.CHANGES_ANSWERS if plan.kind is Kind.EXACT else self._build.gate
            tuned = kinds.tune(index, plan, truth, gate)
            # What is found among the vectors as they are is the truth, ties and all.
            if tuned.recall_at_10 >= gate or plan.factory == kinds.AS_THEY_ARE:
                agreement = self._agreement(before, index, tuned, truth, ids)
                return self._finish(plan, tuned, before, agreement, len(ids))
        raise Permanent(
            Code.RECALL_TOO_LOW,
            f"generation {self._number} ({plan.factory}) finds {tuned.recall_at_10:.3f} of the true neighbours, the "
            f"gate is {gate:g} (SIGHTLINE_INDEX_RECALL). The one before goes on serving; SIGHTLINE_INDEX_KIND=exact "
            "passes where SIGHTLINE_INDEX_MEMORY_MB has room for it as float32",
        )

    def _write(self, plan: Plan) -> tuple[Truth, Ids]:
        """Stream the snapshot into an index file and an ids file."""
        kinds.use_threads(self._build.threads)
        self._progress("train", 0, self._snapshot.count)
        index = None
        if self._trained is not None and self._trained.plan.factory == plan.factory:
            index, self._trained = self._trained.take(), None
        sample = self._snapshot.sample(QUERIES if index is not None else max(plan.training_rows, QUERIES))
        chosen = np.random.default_rng(self._number).permutation(len(sample.ids))[:QUERIES]
        truth = Truth(sample.vectors[chosen], moved=kinds.moved(sample.vectors[chosen]))
        query_ids = sample.ids[chosen]
        if index is None:
            index = kinds.train(plan, self._dimension, sample.vectors)
        del sample
        kinds.reserve(index, self._snapshot.count)
        ids: list[Ids] = []
        count = 0
        for chunk in self._snapshot.chunks():
            index.add(chunk.vectors)
            truth.see(count, chunk.vectors)
            ids.append(chunk.ids)
            count += len(chunk.ids)
            self._progress("write", count, self._snapshot.count)
        all_ids = np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64)
        if np.any(np.diff(all_ids) <= 0):
            raise BadGeneration(f"generation {self._number}: the rows' ids do not rise")
        truth.stored_at(np.searchsorted(all_ids, query_ids))
        kinds.finish(index)
        faiss.write_index(index, str(self._folder / INDEX))
        np.save(self._folder / IDS, all_ids)
        for name in (INDEX, IDS):
            _fsync(self._folder / name)
        return truth, all_ids

    def _read_back(self, truth: Truth, ids: Ids) -> faiss.Index:
        """Map the written index as a reader does; some photos must stand where their ids say."""
        self._progress("check", 0, 1)
        index, _ = _map(self._folder, self._number, count=len(ids), dimension=self._dimension)
        for query, position in zip(truth.queries, truth.own.tolist(), strict=True):
            if position == kinds.NOT_STORED:
                continue
            if float(kinds.vectors_at(index, np.array([position]))[0] @ query) < SAME_VECTOR:
                raise BadGeneration(f"generation {self._number}: photo {ids[position]} has another photo's vector")
        return index

    def _agreement(
        self, before: _Before | None, index: faiss.Index, tuned: Tuned, truth: Truth, ids: Ids
    ) -> float | None:
        """Of the true neighbours that the previous generation finds, the share that this one finds too."""
        if before is None:
            return None
        now = kinds.answers(index, tuned.parameters, truth)
        both = known = 0
        for old, new, true in zip(before.found, now, truth.neighbours(), strict=True):
            confirmed = true[(true >= 0) & np.isin(ids[true], old)]
            known += len(confirmed)
            both += int(np.isin(confirmed, new).sum())
        agreement = both / known if known else 1.0
        if agreement < min(self._build.gate, tuned.recall_at_10):
            raise Permanent(
                Code.RECALL_TOO_LOW,
                f"generation {self._number} finds only {agreement:.3f} of what generation {before.number} "
                "finds and exact search confirms",
            )
        return round(agreement, 4)

    def _finish(
        self, plan: Plan, tuned: Tuned, before: _Before | None, agreement: float | None, count: int
    ) -> Manifest:
        """Write the manifest, then read everything once more as a reader does."""
        manifest = Manifest(
            format=FORMAT,
            number=self._number,
            model_key=self._model_key,
            dimension=self._dimension,
            count=count,
            seq=self._snapshot.seq,
            metric="inner product of unit vectors",
            kind=plan.kind.value,
            factory=plan.factory,
            parameters=tuned.parameters,
            recall_at_1=tuned.recall_at_1,
            recall_at_10=tuned.recall_at_10,
            recall_queries=tuned.queries,
            previous=None if before is None else before.number,
            agreement=agreement,
            index_bytes=sum((self._folder / name).stat().st_size for name in (INDEX, IDS)),
            versions={"faiss": faiss.__version__, "numpy": np.__version__},
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            sha256={name: _sha256(self._folder / name) for name in (INDEX, IDS)},
        )
        with (self._folder / MANIFEST).open("w") as file:
            json.dump(asdict(manifest), file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        _fsync(self._folder)
        return _open(self._folder, number=self._number, model_key=self._model_key).manifest


def _open(path: Path, *, number: int, model_key: str) -> Generation:
    try:
        manifest = Manifest(**json.loads((path / MANIFEST).read_text()))
    except (OSError, ValueError, TypeError) as exc:
        raise BadGeneration(f"generation {number} has no readable manifest in {path}: {exc}") from exc
    if (manifest.format, manifest.number, manifest.model_key) != (FORMAT, number, model_key):
        raise BadGeneration(
            f"{path} holds generation {manifest.number} of {manifest.model_key} in format {manifest.format}, "
            f"not generation {number} of {model_key} in format {FORMAT}"
        )
    for name in (INDEX, IDS):
        try:
            found = _sha256(path / name)
        except OSError as exc:
            raise BadGeneration(f"generation {number}: {name} cannot be read: {exc}") from exc
        # Checked before FAISS or numpy parse a byte: neither is made for files of strangers (faiss #5400).
        if found != manifest.sha256.get(name):
            raise BadGeneration(f"generation {number}: {name} is not the file that was written (SHA-256 differs)")
    return Generation(manifest, *_map(path, number, count=manifest.count, dimension=manifest.dimension))


def _map(path: Path, number: int, *, count: int, dimension: int) -> tuple[faiss.Index, Ids]:
    """Both files, memory-mapped. Only for files that this process wrote or whose SHA-256 it has checked."""
    # An empty index has no pages to map.
    try:
        index = faiss.read_index(str(path / INDEX), faiss.IO_FLAG_MMAP_IFC if count else 0)
        # A plain view: numpy's memmap class makes every small read of it slow.
        ids = np.load(path / IDS, mmap_mode="r" if count else None, allow_pickle=False).view(np.ndarray)
    except (RuntimeError, ValueError, OSError) as exc:
        raise BadGeneration(f"generation {number} does not read back: {exc}") from exc
    if not (index.ntotal == len(ids) == count and index.d == dimension):
        raise BadGeneration(
            f"generation {number}: {index.ntotal} vectors of {index.d}, {len(ids)} ids; "
            f"the manifest says {count} of {dimension}"
        )
    return index, ids


def _name(number: int) -> str:
    return f"{number:06d}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
