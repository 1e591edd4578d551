"""The encoder and its surroundings in parts: products of matrices, passes of a backend, stages, decoding, the guide.

Every function is meant to run in a process of its own (processes.py). torch is imported only by what runs it.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import fastest_s, times_s
from benchmarks.processes import cores
from benchmarks.stack import Checkpoint
from producer_client import Photo
from worker.core.types import Pixels
from worker.encoder.base import Preprocessing
from worker.encoder.exported import FLOAT32, INPUT, OUTPUT, Export, computes_bfloat16, int8_file, open_run
from worker.encoder.images import decode
from worker.encoder.load import table, torch_run
from worker.settings import Settings
from worker.storage.source import PhotoFiles

BATCHES = (1, 8, 32)
COMPILED = "torch-compiled"
#: Photos of one bulk pass, as the service takes them on a CPU.
BULK_PASS = 8
#: The stage that a search has instead of a bulk pass.
ALONE = "model, one alone"
#: Passes that operators are timed over, and their kinds that are named.
PASSES, NAMED = 10, 8


@dataclass(frozen=True)
class Tower:
    """The image tower of a checkpoint, with the folder of its exports and the photos that it gets."""

    checkpoint: Checkpoint
    models: Path
    pictures: list[Path]

    @cached_property
    def export(self) -> Export:
        return Export(self.models, self.checkpoint.encoder, self.checkpoint.sha256)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        spec = self.export.spec()
        assert spec is not None
        return spec.preprocessing

    @cached_property
    def squares(self) -> Pixels:
        """As many as the largest batch has."""
        pictures = (self.pictures * BATCHES[-1])[: BATCHES[-1]]
        return np.stack([_square(self.preprocessing, picture.read_bytes()) for picture in pictures])

    def run(self, backend: str) -> Callable[[Pixels], object]:
        """What runs the tower. COMPILED is torch.compile, with weights frozen into it, of what torch runs fastest here;
        it compiles again for every batch."""
        if not backend.startswith("torch"):
            return open_run(self.export, backend, threads=cores())
        known = "torch-bfloat16" if computes_bfloat16() else "torch-float32"
        named = known if backend == COMPILED else backend
        model, run = torch_run(self.checkpoint.encoder, self.checkpoint.sha256, "cpu", named, threads=cores())
        if backend != COMPILED:
            return run
        import torch._inductor.config

        from worker.encoder.tower import TorchRun

        torch._inductor.config.freezing = True
        compiled: Any = torch.compile(model.quick(), dynamic=False)
        return TorchRun(compiled, backend=backend, device="cpu")


def prepare(tower: Tower, peers: Path) -> tuple[str, list[dict[str, Any]]]:
    """Write the checkpoint, the exports and, below `peers`, what the peers load; returns what `auto` takes, and the
    table that it chooses from."""
    from benchmarks import clip_folder
    from benchmarks.guide import ModelPerRequest

    checkpoint = tower.checkpoint
    nothing = checkpoint.folder / "nothing"
    checkpoint.write(nothing)
    peers.mkdir()
    clip_folder.write(checkpoint.path, peers)
    guide = ModelPerRequest(checkpoint.path, nothing)
    np.save(peers / "truth.npy", np.stack([guide.encode(str(path)) for path in tower.pictures]))

    def known(side: int) -> list[Any]:
        some = [_pixels(path.read_bytes(), side) for path in tower.pictures]
        # Enough of them to be compared on: parts of the pictures.
        return some + [part for pixels in some for part in np.array_split(pixels, 4, axis=1)]

    sha256, models = checkpoint.sha256, tower.models
    choice = table(checkpoint.encoder, sha256=sha256, device="cpu", threads=cores(), models=models, known_photos=known)
    return choice.backend("auto"), [asdict(row) for row in choice.rows]


def gemm_gflop_s(precision: str, seconds: float) -> float:
    """The fastest of products of the tower's own shapes at a batch of 32, and of a square one."""
    best = 0.0
    for shape in ((1600, 768, 3072), (1600, 3072, 768), (2048, 2048, 2048)):
        took = fastest_s(_product(precision, *shape), seconds=seconds / 3, calls=3)
        best = max(best, 2e-9 * math.prod(shape) / took)
    return best


def _product(precision: str, rows: int, inner: int, columns: int) -> Callable[[], object]:
    if precision == "int8":
        import onnx.parser

        random = np.random.default_rng(0)
        model = onnx.parser.parse_model(
            f'<ir_version: 10, opset_import: ["": 17]> product (uint8[{rows}, {inner}] a) => '
            f"(int32[{rows}, {columns}] c) {{ c = MatMulInteger(a, b) }}"
        )
        weights = random.integers(-64, 64, (inner, columns), dtype=np.int8)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "b"))
        session = _session(model.SerializeToString())
        left = random.integers(0, 256, (rows, inner), dtype=np.uint8)
        return lambda: session.run(None, {"a": left})
    import torch

    torch.set_num_threads(cores())
    dtype = getattr(torch, precision)
    a, b = torch.rand(rows, inner).to(dtype), torch.rand(inner, columns).to(dtype)
    result = torch.empty(rows, columns, dtype=dtype)
    return lambda: torch.mm(a, b, out=result)


def pass_ms(tower: Tower, backend: str, seconds: float) -> dict[int, float]:
    """Batch to milliseconds of the fastest pass."""
    run, fastest = tower.run(backend), {}
    for batch in BATCHES:
        again = partial(run, tower.squares[:batch])
        again()
        fastest[batch] = 1000 * fastest_s(again, seconds=seconds, calls=2)
    return fastest


def stages_cpu_ms(tower: Tower, backend: str, seconds: float) -> dict[str, float]:
    """CPU milliseconds, of all cores together, that a photo costs in each stage of a worker."""
    run, preprocessing, pictures = tower.run(backend), tower.preprocessing, tower.pictures
    source = PhotoFiles(Settings(photo_roots=(pictures[0].parent,)))
    contents = [picture.read_bytes() for picture in pictures]
    decoded = [_pixels(content, preprocessing.side) for content in contents]

    def cpu_ms(do: Callable[[], object], photos: int) -> float:
        do()
        spent = times_s(do, seconds=seconds, calls=3, clock=time.process_time)
        return round(1000 * statistics.mean(spent) / photos, 2)

    def read() -> list[str]:
        return [hashlib.sha256(source.fetch(Photo(path=str(picture)))).hexdigest() for picture in pictures]

    return {
        "read and hash": cpu_ms(read, len(pictures)),
        "decode": cpu_ms(lambda: [_pixels(content, preprocessing.side) for content in contents], len(pictures)),
        "resize": cpu_ms(lambda: [preprocessing.square(pixels) for pixels in decoded], len(pictures)),
        f"model, {BULK_PASS} at once": cpu_ms(partial(run, tower.squares[:BULK_PASS]), BULK_PASS),
        ALONE: cpu_ms(partial(run, tower.squares[:1]), 1),
    }


def operators_ms(tower: Tower, backend: str) -> dict[str, float]:
    """Kind of operator to milliseconds of a pass of BULK_PASS, the dearest first, as the backend's own profiler says.
    Nothing for torch."""
    library, _, precision = backend.partition("-")
    some, spent = tower.squares[:BULK_PASS], Counter[str]()
    if library == "torch":
        return {}
    if library == "openvino":
        import openvino

        options = {"PERF_COUNT": "YES", "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision]}
        options |= {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(cores())}
        model = openvino.Core().compile_model(str(tower.export.file(FLOAT32)), "CPU", options)
        asked = model.create_infer_request()
        for number in range(PASSES + 2):
            asked.infer(some)
            for node in asked.profiling_info if number >= 2 else ():
                spent[node.node_type] += node.real_time.total_seconds() * 1000
    else:
        path = tower.export.file(FLOAT32 if precision == "float32" else int8_file())
        with tempfile.TemporaryDirectory() as folder:
            session = _session(str(path), enable_profiling=True, profile_file_prefix=str(Path(folder) / "pass"))
            for _ in range(PASSES):
                session.run([OUTPUT], {INPUT: some})
            events = json.loads(Path(session.end_profiling()).read_text())
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
                spent[event["args"]["op_name"]] += event["dur"] / 1000
    dearest = spent.most_common(NAMED)
    rest = spent.total() - sum(ms for _, ms in dearest)
    return {name: round(ms / PASSES, 2) for name, ms in [*dearest, ("the rest", rest)]}


def decode_ms(files: list[Path]) -> dict[str, Any]:
    """The service's decoding and resizing, file to the fastest milliseconds."""
    square = partial(_square, Preprocessing(side=224, mean=(0, 0, 0), std=(1, 1, 1)))
    return {
        path.stem: {"reduced": round(1000 * fastest_s(partial(square, path.read_bytes()), seconds=0.6), 1)}
        for path in files
    }


def guide_photos_s(checkpoint: Checkpoint, paths: list[str], seconds: float) -> tuple[float, float]:
    """(photos a second with the model in memory, with a model for every photo), by the median."""
    import torch

    from benchmarks.guide import ModelPerRequest

    torch.set_num_threads(cores())
    make = partial(ModelPerRequest, checkpoint.path, checkpoint.folder / "nothing")

    def photos_s(encode: Callable[[str], object], least: int) -> float:
        photos = cycle(paths)
        times = times_s(lambda: encode(next(photos)), seconds=seconds, calls=least)
        return round(1 / statistics.median(times), 2)

    service = make()
    service.encode(paths[0])
    return photos_s(service.encode, 10), photos_s(lambda path: make().encode(path), 3)


def _session(model: str | bytes, **options: Any) -> Any:
    """An ONNX file or its bytes in ONNX Runtime."""
    import onnxruntime

    chosen = onnxruntime.SessionOptions()
    for name, value in (options | {"intra_op_num_threads": cores()}).items():
        setattr(chosen, name, value)
    return onnxruntime.InferenceSession(model, chosen, providers=["CPUExecutionProvider"])


def _pixels(content: bytes, side: int) -> Pixels:
    return decode(content, side=side, max_megapixels=100).pixels


def _square(preprocessing: Preprocessing, content: bytes) -> Pixels:
    return preprocessing.square(_pixels(content, preprocessing.side))
