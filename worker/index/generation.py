"""A generation of the index: its files on disk, opened and searched. Knows neither who writes it nor who keeps it.

<folder>/000012/index.faiss     vectors, FAISS's own format, memory-mapped by readers
<folder>/000012/ids.npy         photo ids, rising; position i belongs to vector i
<folder>/000012/copies.npz      groups of vectors that are almost the same (see copies)
<folder>/000012/places.npy ...  what filters ask of photos (see columns)
<folder>/000012/manifest.json   what it is, how good it was measured to be, SHA-256 of the others; written last

The manifest's own SHA-256 lies in Postgres: who can write to the folder cannot exchange all of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import faiss
import numpy as np

from worker.core.types import Mark, Published
from worker.core.vectors import Ids, Vectors
from worker.errors import BadGeneration
from worker.index import columns, searching
from worker.index.columns import Columns
from worker.index.copies import NONE, Copies
from worker.index.searching import Parameters, Positions, Similarities

FORMAT = 3
INDEX, IDS, COPIES, MANIFEST = "index.faiss", "ids.npy", "copies.npz", "manifest.json"
#: Files of a generation beside its manifest, by its format. Those of an earlier one serve until the next rebuild.
FILES = {2: (INDEX, IDS), FORMAT: (INDEX, IDS, COPIES, *columns.FILES)}
#: Bytes of a manifest that are read; one has 2,000.
LONGEST_MANIFEST = 1_000_000
#: What a selector lets pass may lie far from the query: of other scenes, of other cities, or beyond all that was
#: removed. So many times more lists, or nodes of a graph, are looked at than were tuned for all vectors, and so many at
#: least; more of them where fewer pass. Measured in docs/decisions/0017.
FARTHER, LEAST_FARTHER = 8.0, {"nprobe": 1_200, "ef_search": 2_500}
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
    #: Share of the true neighbours found, for `recall_queries` stored photos that the index was not trained on: without
    #: the photo itself, and, at 10, without its ten nearest too (see tuning).
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
    #: What the next thousand searches find between them at least, with 99.9 % confidence (tuning.promised). None of an
    #: exact index is gated by it, every other one is.
    recall_at_10_at_least: float | None = None
    #: Of the change at `seq`; earlier releases wrote none.
    stamp: str | None = None

    @property
    def mark(self) -> Mark:
        return Mark(self.seq, self.stamp)


@dataclass(frozen=True, slots=True)
class Generation:
    """An opened generation. `index` is memory-mapped and shared by all processes of a host."""

    manifest: Manifest
    index: faiss.Index
    ids: Ids
    copies: Copies
    columns: Columns | None  #: None in a generation of before there were any: Postgres answers its filters.
    manifest_sha256: str | None = None  #: to which it was held; None where nobody knew
    #: Arguments of plain searches by k: making them takes as long as some searches do.
    _ready: dict[int, faiss.SearchParameters] = field(default_factory=dict)

    @property
    def published(self) -> Published:
        return Published(self.manifest.number, self.manifest.mark, self.manifest_sha256)

    def search(
        self, query: Vectors, k: int, *, selector: faiss.IDSelector | None = None, passing: int | None = None
    ) -> tuple[Similarities, Positions]:
        """query: float32 [1, d]. Returns ([k], [k]), fewer where there are fewer.

        passing: how many vectors the selector lets pass. Fewer of them, or more neighbours, take a wider search.
        """
        count = self.manifest.count
        passing = count if passing is None else passing
        widen = max(1.0, k / searching.TUNED_UP_TO)
        if selector is not None:
            tuned = self.manifest.parameters
            farther = max([FARTHER, *(least / tuned[name] for name, least in LEAST_FARTHER.items() if name in tuned)])
            widen *= farther * (count / max(1, passing)) ** 0.25
        arguments = self._ready.get(k) if selector is None else None
        if arguments is None:
            arguments = searching.arguments(self.index, self.manifest.parameters, k, selector=selector, widen=widen)
            if selector is None:
                self._ready[k] = arguments
        similarities, positions = searching.search(self.index, query, k, arguments)
        # FAISS puts -1 after the last one that it found.
        while positions[0, min(k, passing) - 1] < 0 and not searching.is_widest(
            self.index, self.manifest.parameters, widen
        ):
            widen *= 8
            arguments = searching.arguments(self.index, self.manifest.parameters, k, selector=selector, widen=widen)
            similarities, positions = searching.search(self.index, query, k, arguments)
        if positions[0, -1] >= 0:
            return similarities[0], positions[0]
        there = positions[0] >= 0
        return similarities[0][there], positions[0][there]

    def search_all(self, query: Vectors, k: int, selector: faiss.IDSelector) -> tuple[Similarities, Positions]:
        """As `search`, comparing with every vector that the selector lets pass."""
        similarities, positions = searching.search(
            searching.all_vectors(self.index), query, k, faiss.SearchParameters(sel=selector)
        )
        there = positions[0] >= 0
        return similarities[0][there], positions[0][there]

    def warm(self) -> None:
        """Touch every page that searches may touch, so that none of them waits for it."""
        searching.use_threads(1)
        if self.columns is not None:
            self.columns.warm()
        for start in range(0, self.manifest.count, WARMED_AT_ONCE):
            positions = np.arange(start, min(start + WARMED_AT_ONCE, self.manifest.count))
            self.search(searching.vectors_at(self.index, positions)[:1], searching.RECALL_K)


def read_manifest(path: Path, number: int, *, sha256: str | None = None) -> Manifest:
    """sha256: what it must have, before anything in it is looked at; None takes any.

    Raises BadGeneration where there is none in this directory, another one, or none that can be read.
    """
    try:
        with (path / MANIFEST).open("rb") as file:
            content = file.read(LONGEST_MANIFEST)
        if sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise BadGeneration(
                f"{path} does not hold generation {number} as it was published: its manifest has another SHA-256 than "
                "the database says. Somebody has changed it, or it is of another history: the database was restored "
                "since"
            )
        manifest = Manifest(**json.loads(content))
    except (OSError, ValueError, TypeError, RecursionError) as exc:
        raise BadGeneration(f"generation {number} has no readable manifest in {path}: {exc}") from exc
    if manifest.format not in FILES:
        raise BadGeneration(f"generation {number} in {path} has format {manifest.format}, this release reads {FORMAT}")
    return manifest


def open_generation(
    path: Path, *, number: int, model_key: str, mark: Mark | None = None, sha256: str | None = None
) -> Generation:
    """Map what lies in this directory, every byte of it checked. Raises BadGeneration naming what is wrong.

    mark, sha256: where it must stand in the log, and what its manifest must have; None takes any.
    """
    manifest = read_manifest(path, number, sha256=sha256)
    if (manifest.number, manifest.model_key) != (number, model_key):
        raise BadGeneration(
            f"{path} holds generation {manifest.number} of {manifest.model_key}, not generation {number} of {model_key}"
        )
    if mark not in (None, manifest.mark):
        raise BadGeneration(
            f"{path} holds another generation {number} than the database has: it was built at seq {manifest.seq} of "
            "another history. The database was restored since"
        )
    for name in FILES[manifest.format]:
        try:
            found = file_sha256(path / name)
        except OSError as exc:
            raise BadGeneration(f"generation {number}: {name} cannot be read: {exc}") from exc
        # Checked before FAISS or numpy parse a byte: neither is made for files of strangers (faiss #5400).
        if found != manifest.sha256.get(name):
            raise BadGeneration(f"generation {number}: {name} is not the file that was written (SHA-256 differs)")
    index, ids = map_files(path, number, count=manifest.count, dimension=manifest.dimension)
    if manifest.format < FORMAT:
        return Generation(manifest, index, ids, NONE, None, sha256)
    try:
        copies, asked = Copies.read(path / COPIES), columns.open_columns(path, manifest.count)
    except (OSError, ValueError, KeyError) as exc:
        raise BadGeneration(f"generation {number} does not read back: {exc}") from exc
    return Generation(manifest, index, ids, copies, asked, sha256)


def map_files(path: Path, number: int, *, count: int, dimension: int) -> tuple[faiss.Index, Ids]:
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


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Return when a file, or the names in a directory, would outlive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
