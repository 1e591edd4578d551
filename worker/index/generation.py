"""Generations of the index on disk: written whole or not at all. Knows files, not SQL or Celery.

    <folder>/000012/index.faiss     vectors, FAISS's own format, memory-mapped by readers
    <folder>/000012/ids.npy         photo ids, rising; position i belongs to vector i
    <folder>/000012/manifest.json   counts, model key, seq, SHA-256 of both files; written last

A directory is built aside under a hidden name, checked by reading it back, and renamed. FAISS itself reports no
error of a full disk on closing a file, so the reading back is the check.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import faiss
import numpy as np

from worker.core.types import Chunk
from worker.core.vectors import Ids, Vectors
from worker.errors import BadGeneration

FORMAT = 1
INDEX, IDS, MANIFEST = "index.faiss", "ids.npy", "manifest.json"
#: Vectors that are looked up again in a written index: each must find itself first.
CANARIES = 16
#: float32 rounding of a unit vector's product with itself, over thousands of dimensions.
SELF_SIMILARITY = 1 - 1e-4


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
    faiss_version: str
    sha256: dict[str, str]


@dataclass(frozen=True, slots=True)
class Generation:
    """An opened generation. `index` is memory-mapped and shared by all processes of a host."""

    manifest: Manifest
    index: faiss.Index
    ids: Ids


class GenerationFolder:
    """See worker.core.ports.Generations."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, number: int) -> Path:
        return self._folder / f"{number:06d}"

    def write(self, number: int, chunks: Iterable[Chunk], *, model_key: str, dimension: int, seq: int) -> int:
        """Build generation `number` from rows with rising ids; returns how many. Nothing is left of a failed try.

        Raises BadGeneration when the written files do not read back, and OSError for a disk that is full.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        # One rebuild runs at a time, so what lies half-built here belongs to one that was killed.
        for left in self._folder.glob(".building-*"):
            shutil.rmtree(left, ignore_errors=True)
        aside = self._folder / f".building-{number:06d}-{os.getpid()}"
        aside.mkdir()
        try:
            count = self._build(aside, number, chunks, model_key, dimension, seq)
            # Left by a rebuild that was killed before it published, if the database was set back since.
            shutil.rmtree(self.path(number), ignore_errors=True)
            aside.rename(self.path(number))
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        _fsync(self._folder)
        return count

    def open(self, number: int, *, model_key: str) -> Generation:
        """Map a generation after checking every byte of it. Raises BadGeneration naming what is wrong."""
        return _open(self.path(number), number=number, model_key=model_key)

    def keep_only(self, numbers: Collection[int]) -> None:
        """Delete all others, also those that were written and never published.

        A process that still maps one keeps its pages until it lets go (POSIX unlink).
        """
        kept = {self.path(number).name for number in numbers}
        for folder in self._folder.glob("[0-9]*"):
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _build(
        self, aside: Path, number: int, chunks: Iterable[Chunk], model_key: str, dimension: int, seq: int
    ) -> int:
        index = faiss.IndexFlatIP(dimension)
        ids: list[Ids] = []
        canaries: list[tuple[int, Vectors]] = []
        for chunk in chunks:
            index.add(chunk.vectors)
            ids.append(chunk.ids)
            for row in range(0, len(chunk.ids), max(1, len(chunk.ids) // CANARIES)):
                canaries.append((int(chunk.ids[row]), chunk.vectors[row : row + 1].copy()))
        all_ids = np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64)
        if np.any(np.diff(all_ids) <= 0):
            raise BadGeneration(f"generation {number}: the rows' ids do not rise")
        faiss.write_index(index, str(aside / INDEX))
        np.save(aside / IDS, all_ids)
        manifest = Manifest(
            format=FORMAT,
            number=number,
            model_key=model_key,
            dimension=dimension,
            count=len(all_ids),
            seq=seq,
            metric="inner product of unit vectors",
            kind="exact",
            faiss_version=faiss.__version__,
            sha256={name: _sha256(aside / name) for name in (INDEX, IDS)},
        )
        for name in (INDEX, IDS):
            _fsync(aside / name)
        with (aside / MANIFEST).open("w") as file:
            json.dump(asdict(manifest), file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        _fsync(aside)
        _check_canaries(
            _open(aside, number=number, model_key=model_key), canaries[:: max(1, len(canaries) // CANARIES)]
        )
        return len(all_ids)


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
    # An empty index has no pages to map.
    flags = faiss.IO_FLAG_MMAP_IFC if manifest.count else 0
    index = faiss.read_index(str(path / INDEX), flags)
    ids = np.load(path / IDS, mmap_mode="r" if manifest.count else None, allow_pickle=False)
    if not (index.ntotal == len(ids) == manifest.count and index.d == manifest.dimension):
        raise BadGeneration(
            f"generation {number}: {index.ntotal} vectors of {index.d}, {len(ids)} ids; "
            f"the manifest says {manifest.count} of {manifest.dimension}"
        )
    return Generation(manifest, index, ids)


def _check_canaries(generation: Generation, canaries: list[tuple[int, Vectors]]) -> None:
    for photo_id, vector in canaries:
        similarities, positions = generation.index.search(vector, 1)
        own = generation.index.reconstruct(int(np.searchsorted(generation.ids, photo_id)))
        if similarities[0, 0] < SELF_SIMILARITY or not np.array_equal(own, vector[0]):
            raise BadGeneration(
                f"generation {generation.manifest.number}: photo {photo_id} does not find itself "
                f"(position {positions[0, 0]}, similarity {similarities[0, 0]:.4f})"
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
