"""One build of one generation: a snapshot streamed into files, read back, tuned and measured. Knows one directory.

FAISS itself reports no error of a full disk on closing a file, so the reading back is the check.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import faiss
import numpy as np

from producer_client.contract import Code
from worker.core.ports import Progress, Snapshot
from worker.core.types import Chunk
from worker.core.vectors import Ids, find_ids
from worker.errors import BadGeneration, Permanent
from worker.index import columns, kinds, searching, tuning
from worker.index.copies import Seen
from worker.index.generation import (
    COPIES,
    FILES,
    FORMAT,
    IDS,
    INDEX,
    MANIFEST,
    Generation,
    Manifest,
    file_sha256,
    fsync,
    map_files,
    open_generation,
)
from worker.index.kinds import Kind, Plan
from worker.index.tuning import Truth, Tuned

#: Stored photos whose neighbours are looked up exactly and in the finished index, to measure its recall.
QUERIES = 1_000
#: No index learns from more than this share of the photos, so that there are others to measure it by.
LEARNED_SHARE = 0.8
#: Cosine of a vector and itself as the index keeps it: 8 bits a number leave more than this of it.
SAME_VECTOR = 0.99


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
    learned: Ids  #: photos that it was trained on, by which it must not be measured

    @classmethod
    def on(cls, snapshot: Snapshot, plan: Plan, dimension: int) -> Trained:
        """Learn from a sample of what is there."""
        # All that a graph learns is the range of its numbers, which favours no photo.
        learns = plan.kind is Kind.IVF
        sample = snapshot.sample(min(plan.training_rows, int((LEARNED_SHARE if learns else 1.0) * snapshot.count)))
        learned = sample.ids if learns else np.zeros(0, dtype=np.int64)
        return cls(plan, kinds.train(plan, dimension, sample.vectors), learned)

    def take(self) -> faiss.Index:
        """Hand the index over: who prepared it holds this object for the whole rebuild, and must not hold the vectors
        that are added to it."""
        index, self.index = self.index, None
        return index


class Builder:
    """Good for one build. folder: empty, and nobody else's."""

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

    def run(self, open_previous: Callable[[], Generation | None]) -> Generation:
        """Write the files of the first plan whose index is good enough, and open them. Raises as
        GenerationFolder.write."""
        plans = self._build.plans(self._snapshot.count, self._dimension)
        for plan in plans:
            truth, ids = self._write(plan)
            before = _found_before(open_previous(), truth)
            index = self._read_back(truth, ids)
            tuned = tuning.tune(index, plan, truth, partial(self._good, plan), threads=self._build.threads)
            if self._good(plan, tuned):
                agreement = self._agreement(before, index, tuned, truth, ids)
                columns.write(self._folder, columns.read(self._snapshot, ids))
                return self._finish(plan, tuned, before, agreement, len(ids))
        raise Permanent(
            Code.RECALL_TOO_LOW,
            f"generation {self._number} ({plan.factory}) finds {tuned.recall_at_10:.4f} of the true neighbours of "
            f"{tuned.queries} photos, which promises {tuned.recall_at_10_at_least:.4f} to others; the gate is "
            f"{self._build.gate:g} (SIGHTLINE_INDEX_RECALL). The one before goes on serving; "
            "SIGHTLINE_INDEX_KIND=exact passes where SIGHTLINE_INDEX_MEMORY_MB has room for it as float32",
        )

    def _good(self, plan: Plan, tuned: Tuned) -> bool:
        """Whether an index of these figures may be published."""
        if plan.kind is Kind.EXACT:
            # What is found among the vectors as they are is the truth, ties and all.
            return plan.factory == kinds.AS_THEY_ARE or tuned.recall_at_10 >= 1 - kinds.CHANGES_ANSWERS
        return tuned.recall_at_10_at_least >= self._build.gate

    def _write(self, plan: Plan) -> tuple[Truth, Ids]:
        """Stream the snapshot into an index file and an ids file."""
        searching.use_threads(self._build.threads)
        self._progress("train", 0, self._snapshot.count)
        trained, self._trained = self._trained, None
        if trained is None or trained.plan.factory != plan.factory:
            trained = Trained.on(self._snapshot, plan, self._dimension)
        queries = self._not_learned(trained.learned)
        truth = Truth(queries.vectors)
        index = trained.take()
        kinds.reserve(index, self._snapshot.count)
        ids: list[Ids] = []
        seen = Seen(self._dimension)
        count = 0
        for chunk in self._snapshot.chunks():
            index.add(chunk.vectors)
            truth.see(count, chunk.vectors)
            seen.see(count, chunk.vectors)
            ids.append(chunk.ids)
            count += len(chunk.ids)
            self._progress("write", count, self._snapshot.count)
        all_ids = np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64)
        if np.any(np.diff(all_ids) <= 0):
            raise BadGeneration(f"generation {self._number}: the rows' ids do not rise")
        truth.own = np.searchsorted(all_ids, queries.ids)
        kinds.finish(index)
        faiss.write_index(index, str(self._folder / INDEX))
        np.save(self._folder / IDS, all_ids)
        copies = seen.copies()
        copies.write(self._folder / COPIES)
        truth.are_copies(copies, count)
        return truth, all_ids

    def _not_learned(self, learned: Ids) -> Chunk:
        """Photos to measure by: an index finds those that it was trained on better than new ones."""
        left = max(1, self._snapshot.count - len(learned))
        # A sample has about so many rows.
        sample = self._snapshot.sample(math.ceil(1.2 * QUERIES * max(1.0, self._snapshot.count / left)))
        others = np.flatnonzero(~np.isin(sample.ids, learned))
        chosen = np.random.default_rng(self._number).permutation(others)[:QUERIES]
        return Chunk(sample.ids[chosen], sample.vectors[chosen])

    def _read_back(self, truth: Truth, ids: Ids) -> faiss.Index:
        """Map the written index as a reader does; some photos must stand where their ids say."""
        self._progress("check", 0, 1)
        index, _ = map_files(self._folder, self._number, count=len(ids), dimension=self._dimension)
        if len(truth.queries):
            kept = searching.vectors_at(index, truth.own)
            wrong = np.flatnonzero((kept * truth.queries).sum(axis=1) < SAME_VECTOR)
            if len(wrong):
                photo_id = ids[truth.own[wrong[0]]]
                raise BadGeneration(f"generation {self._number}: photo {photo_id} has another photo's vector")
        return index

    def _agreement(
        self, before: _Before | None, index: faiss.Index, tuned: Tuned, truth: Truth, ids: Ids
    ) -> float | None:
        """Of the true neighbours that the previous generation finds, the share that this one finds too."""
        if before is None:
            return None
        searching.use_threads(self._build.threads)
        now = truth.alike(tuning.answers(index, tuned.parameters, truth))[:, : searching.RECALL_K]
        searching.use_threads(1)
        old = truth.alike(_positions(before.found, ids))
        true_ones = truth.alike(truth.neighbours())[:, : searching.RECALL_K]
        both = known = 0
        for earlier, new, true in zip(old, now, true_ones, strict=True):
            confirmed = true[(true >= 0) & np.isin(true, earlier)]
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
    ) -> Generation:
        """See the files on the disk and write the manifest, then read everything once more as a reader does."""
        for name in FILES[FORMAT]:
            fsync(self._folder / name)
        manifest = Manifest(
            format=FORMAT,
            number=self._number,
            model_key=self._model_key,
            dimension=self._dimension,
            count=count,
            seq=self._snapshot.mark.seq,
            stamp=self._snapshot.mark.stamp,
            metric="inner product of unit vectors",
            kind=plan.kind.value,
            factory=plan.factory,
            parameters=tuned.parameters,
            recall_at_1=tuned.recall_at_1,
            recall_at_10=tuned.recall_at_10,
            recall_at_10_at_least=tuned.recall_at_10_at_least,
            recall_queries=tuned.queries,
            previous=None if before is None else before.number,
            agreement=agreement,
            # What was planned for: the columns lie beside it, some 30 bytes a photo and 4 at most for each common pair.
            index_bytes=sum((self._folder / name).stat().st_size for name in (INDEX, IDS, COPIES)),
            versions={"faiss": faiss.__version__, "numpy": np.__version__},
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            sha256={name: file_sha256(self._folder / name) for name in FILES[FORMAT]},
        )
        content = json.dumps(asdict(manifest), indent=2).encode()
        with (self._folder / MANIFEST).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fsync(self._folder)
        # Of what was meant to be written, not of what lies there.
        sha256 = hashlib.sha256(content).hexdigest()
        return open_generation(self._folder, number=self._number, model_key=self._model_key, sha256=sha256)


@dataclass(frozen=True, slots=True)
class _Before:
    """What generation `number` finds for some queries: the ids of each."""

    number: int
    found: list[Ids]


def _found_before(previous: Generation | None, truth: Truth) -> _Before | None:
    """Asked before the new index is mapped: pages of both would count as the rebuild's memory."""
    if previous is None:
        return None
    found = [previous.ids[previous.search(query[None, :], searching.RECALL_K + 1)[1]] for query in truth.queries]
    return _Before(previous.manifest.number, found)


def _positions(found: list[Ids], ids: Ids) -> searching.Positions:
    """[queries, RECALL_K + 1] positions of the ids that each query found; -1 for one that is no longer there."""
    rows = np.full((len(found), searching.RECALL_K + 1), -1, dtype=np.int64)
    for row, mine in zip(rows, found, strict=True):
        positions, there = find_ids(ids, mine)
        row[: len(mine)][there] = positions
    return rows
