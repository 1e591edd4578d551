"""Which backend runs the image tower: what each of them can do on this machine, measured once.

A backend is accepted when its vectors are those of torch in float32 (`PARITY_*`), because they all lie under one model
key; of those that are, `auto` takes the fastest. Times are measured once; vectors are compared again when there are
photos to compare them on. Everything else in here can be deleted and is measured again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from worker.core.types import Pixels
from worker.core.vectors import Vectors, unit_rows
from worker.encoder.base import Preprocessing, Run
from worker.encoder.exported import Export, cpu_name, read_json, versions, write_json
from worker.errors import EncoderUnavailable, Permanent
from worker.extras import has_torch

log = logging.getLogger(__name__)

AUTO, REFERENCE = "auto", "torch-float32"
ON_CPU = (
    REFERENCE,
    "torch-bfloat16",
    "onnxruntime-float32",
    "onnxruntime-int8",
    "openvino-float32",
    "openvino-bfloat16",
)
ON_CUDA = (REFERENCE, "torch-float16", "torch-bfloat16")
WITHOUT_TORCH = tuple(backend for backend in ON_CPU if not backend.startswith("torch"))
#: A photo's cosine to its vector of the reference, and the share of its neighbours that are the same.
PARITY_COSINE, PARITY_NEIGHBOURS = 0.999, 0.99
NEIGHBOURS = 10
#: Photos that backends are compared on; with fewer known ones, drawn pictures take their place.
SAMPLE, LEAST_SAMPLE = 48, 24
#: Photos of the larger of the two batches that are timed; the other is a single photo.
BATCH = 8
#: Seconds and passes at least that each of them is timed for.
TIMED_S, TIMED_PASSES = 0.5, 3
#: A backend whose first photo takes this many times as long as the reference's is not tried further, unless it is so
#: quick that trying costs nothing.
HOPELESS, QUICK_MS = 3.0, 100.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One backend on this machine. Times are milliseconds a photo, alone and in a batch of BATCH, None where it was
    not run; cosine is the smallest over the sample, neighbours the share that is the same. why: it is refused."""

    backend: str
    ms_alone: float | None = None
    ms_in_batch: float | None = None
    cosine: float | None = None
    neighbours: float | None = None
    why: str | None = None

    @property
    def cost(self) -> float:
        """Half of the photos come alone, half of them in batches."""
        assert self.ms_alone is not None
        assert self.ms_in_batch is not None
        return self.ms_alone + self.ms_in_batch


@dataclass(frozen=True, slots=True)
class Sample:
    """What backends are compared on. known: photos of the index, else drawn pictures."""

    squares: Pixels
    known: bool


class Choice:
    """The table of an export on machines like this one."""

    def __init__(self, export: Export, *, device: str, threads: int) -> None:
        machine: dict[str, object] = {"cpu": cpu_name(), "device": device, "threads": threads}
        if not has_torch():
            # The folder's name holds another machine's libraries.
            machine["libraries"] = versions("onnxruntime", "openvino")
        digest = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()
        self._path = export.folder / f"measured-{digest[:12]}.json"
        self._machine = machine
        kept = read_json(self._path)
        self.rows = [Measured(**row) for row in kept.get("rows", [])]
        #: How many photos of the index they were compared on; 0: drawn pictures.
        self.known_photos = int(kept.get("known_photos", 0))

    def keep(self, rows: Sequence[Measured], sample: Sample) -> None:
        self.rows = list(rows)
        self.known_photos = len(sample.squares) if sample.known else 0
        write_json(
            self._path, self._machine | {"known_photos": self.known_photos, "rows": [asdict(row) for row in self.rows]}
        )

    def backend(self, wanted: str) -> str:
        """The fastest that is accepted for `auto`, else what is wanted.

        Raises EncoderUnavailable for one that is refused here, or that does not exist.
        """
        if wanted == AUTO:
            accepted = [row for row in self.rows if row.why is None]
            if not accepted:
                whys = "; ".join(f"{row.backend}: {row.why}" for row in self.rows)
                raise EncoderUnavailable(f"nothing here gives the vectors of torch ({whys}). Install torch, which does")
            return min(accepted, key=lambda row: row.cost).backend
        row = next((row for row in self.rows if row.backend == wanted), None)
        if row is None:
            there = ", ".join(row.backend for row in self.rows)
            raise EncoderUnavailable(f"SIGHTLINE_BACKEND={wanted!r} is not one of {AUTO}, {there} on this device")
        if row.why is not None:
            raise EncoderUnavailable(f"SIGHTLINE_BACKEND={wanted}: {row.why}. Use auto")
        return wanted


def measure(
    backends: Sequence[str], open_backend: Callable[[str], Run], sample: Sample, truth: Vectors | None = None
) -> list[Measured]:
    """Every backend's row, the reference's first; open_backend raises EncoderUnavailable where one cannot be had.

    truth: the reference's vectors of the sample, where another machine has computed them: it is not opened then, and
    none is too slow beside it.
    """
    rows, reference_ms = list[Measured](), float("inf")
    if truth is None:
        reference = open_backend(REFERENCE)
        truth = vectors_of(reference, sample.squares)
        timed = _timed(reference, sample.squares)
        rows, reference_ms = [Measured(REFERENCE, *timed, cosine=1.0, neighbours=1.0)], timed[0]

    def judge(backend: str) -> Measured:
        return _judge(open_backend(backend), sample.squares, truth, reference_ms=reference_ms)

    for backend in backends:
        if backend == REFERENCE:
            continue
        log.info("measuring a backend, once on this machine", extra={"backend": backend})
        rows.append(_tried(backend, partial(judge, backend)))
        log.info("measured", extra=asdict(rows[-1]))
    return rows


def compare(rows: Sequence[Measured], open_backend: Callable[[str], Run], sample: Sample) -> list[Measured]:
    """The rows with what their vectors of another sample are. Times stay, and so do rows that gave no vectors."""
    truth = vectors_of(open_backend(REFERENCE), sample.squares)

    def again(row: Measured) -> Measured:
        return _compared(row, open_backend(row.backend), sample.squares, truth)

    return [
        row if row.backend == REFERENCE or row.cosine is None else _tried(row.backend, partial(again, row))
        for row in rows
    ]


def _tried(backend: str, judge: Callable[[], Measured]) -> Measured:
    try:
        return judge()
    except EncoderUnavailable as exc:
        return Measured(backend, why=exc.message)
    except Exception as exc:  # others' code: a backend, which raises what it likes; refused, and the table says why
        log.warning("a backend failed", extra={"backend": backend}, exc_info=exc)
        return Measured(backend, why=f"{type(exc).__name__}: {exc}")


def parity(vectors: Vectors, truth: Vectors) -> tuple[float, float]:
    """(smallest cosine of a photo's two vectors, share of its NEIGHBOURS nearest photos that are the same).

    Both float32 [n, dimension], rows of length 1, n above NEIGHBOURS.
    """
    cosine = float(np.einsum("nd,nd->n", vectors.astype(np.float64), truth.astype(np.float64)).min())
    found, wanted = _neighbours(vectors), _neighbours(truth)
    same = (found[:, :, None] == wanted[:, None, :]).any(axis=2).mean()
    return cosine, float(same)


def sample_of(known: Sequence[Pixels], preprocessing: Preprocessing) -> Sample:
    """Known photos where there are enough of them, else pictures drawn for the purpose."""
    enough = len(known) >= LEAST_SAMPLE
    pictures = known[:SAMPLE] if enough else drawn_pictures(SAMPLE)
    return Sample(np.stack([preprocessing.square(pixels) for pixels in pictures]), known=enough)


def drawn_pictures(count: int) -> list[Pixels]:
    """RGB pictures with patches of colour at every scale, as photos have, and edges. The same ones every time."""
    rng = np.random.default_rng(20)
    pictures = []
    for _ in range(count):
        height, width = rng.integers(240, 480, size=2).tolist()
        ground = np.zeros((height, width, 3), dtype=np.float32)
        for cells in (2, 4, 8, 16, 32, 64):
            patches = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            ground += np.asarray(patches.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32) / cells
        image = Image.fromarray((ground * (255 / ground.max())).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(3, 12))):
            left, top = rng.integers(0, width), rng.integers(0, height)
            box = [left, top, left + rng.integers(10, width), top + rng.integers(10, height)]
            shape = draw.rectangle if rng.random() < 0.7 else draw.ellipse
            shape([int(side) for side in box], fill=tuple(rng.integers(0, 256, 3).tolist()))
        pictures.append(np.asarray(image))
    return pictures


def _judge(run: Run, squares: Pixels, truth: Vectors, *, reference_ms: float) -> Measured:
    first_ms = min(_ms(run, squares[:1]) for _ in range(2))
    if first_ms > max(QUICK_MS, HOPELESS * reference_ms):
        slower = f"{first_ms / reference_ms:.0f} times slower than {REFERENCE}"
        return Measured(run.backend, ms_alone=round(first_ms, 2), why=slower)
    compared = _compared(Measured(run.backend, ms_alone=first_ms), run, squares, truth)
    if compared.cosine is None:
        return compared
    alone, in_batch = _timed(run, squares)
    return replace(compared, ms_alone=alone, ms_in_batch=in_batch)


def _compared(row: Measured, run: Run, squares: Pixels, truth: Vectors) -> Measured:
    """The row with what the backend's vectors are; its times stay."""
    try:
        cosine, neighbours = parity(vectors_of(run, squares), truth)
    except Permanent as exc:
        return replace(row, cosine=None, neighbours=None, why=f"no vectors: {exc.message}")
    why = None
    if not (cosine >= PARITY_COSINE and neighbours >= PARITY_NEIGHBOURS):
        why = (
            f"its vectors are others: cosine {cosine:.4f} (at least {PARITY_COSINE}), "
            f"{neighbours:.1%} of the neighbours are the same (at least {PARITY_NEIGHBOURS:.0%})"
        )
    return replace(row, cosine=cosine, neighbours=neighbours, why=why)


def _timed(run: Run, squares: Pixels) -> tuple[float, float]:
    """Milliseconds a photo, alone and in a batch: the fastest pass, because whatever else runs only adds to it."""
    fastest = []
    for count in (1, BATCH):
        some = np.ascontiguousarray(squares[:count])
        run(some)
        began, times = time.perf_counter(), list[float]()
        while len(times) < TIMED_PASSES or time.perf_counter() - began < TIMED_S:
            times.append(_ms(run, some))
        fastest.append(round(min(times) / count, 2))
    return fastest[0], fastest[1]


def _ms(run: Run, squares: Pixels) -> float:
    started = time.perf_counter()
    run(squares)
    return (time.perf_counter() - started) * 1000


def vectors_of(run: Run, squares: Pixels) -> Vectors:
    """float32 [n, dimension], rows of length 1, BATCH photos at a time."""
    return unit_rows(np.concatenate([run(squares[start : start + BATCH]) for start in range(0, len(squares), BATCH)]))


def _neighbours(vectors: Vectors) -> npt.NDArray[np.intp]:
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -np.inf)
    return np.argsort(-similarities, axis=1, kind="stable")[:, :NEIGHBOURS]
