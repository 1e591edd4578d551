"""One build of one generation: a snapshot streamed into files, read back, tuned and measured. Knows one directory.

FAISS itself reports no error of a full disk on closing a file, so the reading back is the check.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np

from producer_client.contract import Code
from worker.core.ports import Progress, Snapshot
from worker.core.vectors import Ids
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

#: Stored photos whose neighbours are looked up exactly and in the finished index, to measure its recall, and as many
#: photos that nobody stored (see tuning.moved).
QUERIES = 300
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

    def run(self, open_previous: Callable[[], Generation | None]) -> Manifest:
        """Write the files of the first plan whose index is good enough. Raises as GenerationFolder.write."""
        plans = self._build.plans(self._snapshot.count, self._dimension)
        for plan in plans:
            truth, ids = self._write(plan)
            before = _found_before(open_previous(), truth)
            index = self._read_back(truth, ids)
            gate = 1 - kinds.CHANGES_ANSWERS if plan.kind is Kind.EXACT else self._build.gate
            tuned = tuning.tune(index, plan, truth, gate)
            # What is found among the vectors as they are is the truth, ties and all.
            if tuned.recall_at_10 >= gate or plan.factory == kinds.AS_THEY_ARE:
                agreement = self._agreement(before, index, tuned, truth, ids)
                columns.write(self._folder, columns.read(self._snapshot, ids))
                return self._finish(plan, tuned, before, agreement, len(ids))
        raise Permanent(
            Code.RECALL_TOO_LOW,
            f"generation {self._number} ({plan.factory}) finds {tuned.recall_at_10:.3f} of the true neighbours, the "
            f"gate is {gate:g} (SIGHTLINE_INDEX_RECALL). The one before goes on serving; SIGHTLINE_INDEX_KIND=exact "
            "passes where SIGHTLINE_INDEX_MEMORY_MB has room for it as float32",
        )

    def _write(self, plan: Plan) -> tuple[Truth, Ids]:
        """Stream the snapshot into an index file and an ids file."""
        searching.use_threads(self._build.threads)
        self._progress("train", 0, self._snapshot.count)
        index = None
        if self._trained is not None and self._trained.plan.factory == plan.factory:
            index, self._trained = self._trained.take(), None
        sample = self._snapshot.sample(QUERIES if index is not None else max(plan.training_rows, QUERIES))
        chosen = np.random.default_rng(self._number).permutation(len(sample.ids))[:QUERIES]
        truth = Truth(sample.vectors[chosen], moved=tuning.moved(sample.vectors[chosen]))
        query_ids = sample.ids[chosen]
        if index is None:
            index = kinds.train(plan, self._dimension, sample.vectors)
        del sample
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
        truth.stored_at(np.searchsorted(all_ids, query_ids))
        kinds.finish(index)
        faiss.write_index(index, str(self._folder / INDEX))
        np.save(self._folder / IDS, all_ids)
        copies = seen.copies()
        copies.write(self._folder / COPIES)
        truth.are_copies(copies, count)
        return truth, all_ids

    def _read_back(self, truth: Truth, ids: Ids) -> faiss.Index:
        """Map the written index as a reader does; some photos must stand where their ids say."""
        self._progress("check", 0, 1)
        index, _ = map_files(self._folder, self._number, count=len(ids), dimension=self._dimension)
        for query, position in zip(truth.queries, truth.own.tolist(), strict=True):
            if position == tuning.NOT_STORED:
                continue
            if float(searching.vectors_at(index, np.array([position]))[0] @ query) < SAME_VECTOR:
                raise BadGeneration(f"generation {self._number}: photo {ids[position]} has another photo's vector")
        return index

    def _agreement(
        self, before: _Before | None, index: faiss.Index, tuned: Tuned, truth: Truth, ids: Ids
    ) -> float | None:
        """Of the true neighbours that the previous generation finds, the share that this one finds too."""
        if before is None:
            return None
        old = truth.alike(_positions(before.found, ids))
        now = truth.alike(tuning.answers(index, tuned.parameters, truth))
        both = known = 0
        for earlier, new, true in zip(old, now, truth.alike(truth.neighbours()), strict=True):
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
    ) -> Manifest:
        """See the files on the disk and write the manifest, then read everything once more as a reader does."""
        for name in FILES[FORMAT]:
            fsync(self._folder / name)
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
            # What was planned for: the columns lie beside it, some 30 bytes a photo and 4 at most for each common pair.
            index_bytes=sum((self._folder / name).stat().st_size for name in (INDEX, IDS, COPIES)),
            versions={"faiss": faiss.__version__, "numpy": np.__version__},
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            sha256={name: file_sha256(self._folder / name) for name in FILES[FORMAT]},
        )
        with (self._folder / MANIFEST).open("w") as file:
            json.dump(asdict(manifest), file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        fsync(self._folder)
        return open_generation(self._folder, number=self._number, model_key=self._model_key).manifest


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
        at = np.minimum(np.searchsorted(ids, mine), len(ids) - 1)
        row[: len(mine)] = np.where(ids[at] == mine, at, -1)
    return rows
