"""The encoder and its surroundings in parts: products of matrices, passes of a backend, stages, decoding.

Every public function is meant to run in a process of its own (processes.py). torch is imported only by what runs it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from producer_client import Photo
from worker.core.types import Pixels
from worker.encoder.base import Preprocessing
from worker.encoder.exported import FLOAT32, INPUT, OUTPUT, Export, computes_bfloat16, int8_file, open_run
from worker.encoder.images import decode
from worker.encoder.load import torch_run
from worker.settings import Settings
from worker.storage.source import PhotoFiles

ARCHITECTURE = "ViT-B-32"
BATCHES = (1, 8, 32)
COMPILED = "torch-compiled"
#: Photos of one bulk pass, as the service takes them on a CPU.
BULK_PASS = 8
#: The stage that a search has instead of a bulk pass.
ALONE = "model, one alone"
#: Passes that operators are timed over, and their kinds that are named.
PASSES, NAMED = 10, 8


def gemm_gflop_s(precision: str, seconds: float) -> float:
    """The fastest of products of the tower's own shapes at a batch of 32, and of a square one."""
    best = 0.0
    for rows, inner, columns in ((1600, 768, 3072), (1600, 3072, 768), (2048, 2048, 2048)):
        multiply = _product(precision, rows, inner, columns)
        until, calls = time.perf_counter() + seconds / 3, 0
        while calls < 3 or time.perf_counter() < until:
            started = time.perf_counter()
            multiply()
            best = max(best, 2e-9 * rows * inner * columns / (time.perf_counter() - started))
            calls += 1
    return best


def _product(precision: str, rows: int, inner: int, columns: int) -> Callable[[], Any]:
    threads = _threads()
    if precision == "int8":
        import onnx
        import onnxruntime
        from onnx import TensorProto, helper

        random = np.random.default_rng(0)
        weights = random.integers(-64, 64, (inner, columns), dtype=np.int8)
        node = helper.make_node("MatMulInteger", ["a", "b"], ["c"])
        given = [helper.make_tensor_value_info("a", TensorProto.UINT8, [rows, inner])]
        told = [helper.make_tensor_value_info("c", TensorProto.INT32, [rows, columns])]
        graph = helper.make_graph([node], "product", given, told, [onnx.numpy_helper.from_array(weights, "b")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        left = random.integers(0, 256, (rows, inner), dtype=np.uint8)
        return lambda: session.run(None, {"a": left})
    import torch

    torch.set_num_threads(threads)
    dtype = getattr(torch, precision)
    a, b = torch.rand(rows, inner).to(dtype), torch.rand(inner, columns).to(dtype)
    result = torch.empty(rows, columns, dtype=dtype)
    return lambda: torch.mm(a, b, out=result)


def pass_ms(backend: str, checkpoint: Path, models: Path, pictures: list[Path], seconds: float) -> dict[int, float]:
    """Batch to milliseconds of the fastest pass."""
    run, squares = _open(backend, checkpoint, models, pictures)
    fastest = {}
    for batch in BATCHES:
        some = np.ascontiguousarray(squares[:batch])
        run(some)
        until, times = time.perf_counter() + seconds, list[float]()
        while len(times) < 2 or time.perf_counter() < until:
            started = time.perf_counter()
            run(some)
            times.append((time.perf_counter() - started) * 1000)
        fastest[batch] = min(times)
    return fastest


def stages_cpu_ms(
    backend: str, checkpoint: Path, models: Path, pictures: list[Path], seconds: float
) -> dict[str, float]:
    """CPU milliseconds, of all cores together, that a photo costs in each stage of a worker."""
    run, squares = _open(backend, checkpoint, models, pictures)
    preprocessing = Preprocessing(side=squares.shape[1], mean=(0, 0, 0), std=(1, 1, 1))
    source = PhotoFiles(Settings(photo_roots=(pictures[0].parent,)))
    contents = [picture.read_bytes() for picture in pictures]
    decoded = [decode(content, side=preprocessing.side, max_megapixels=100).pixels for content in contents]

    def read(picture: Path) -> str:
        return hashlib.sha256(source.fetch(Photo(path=str(picture)))).hexdigest()

    def times(do: Callable[[], object], photos: int) -> float:
        do()
        began, cpu, calls = time.perf_counter(), time.process_time(), 0
        while calls < 3 or time.perf_counter() - began < seconds:
            do()
            calls += 1
        return round((time.process_time() - cpu) * 1000 / calls / photos, 2)

    some, one = np.ascontiguousarray(squares[:BULK_PASS]), np.ascontiguousarray(squares[:1])
    every = len(pictures)
    return {
        "read and hash": times(lambda: [read(picture) for picture in pictures], every),
        "decode": times(lambda: [decode(c, side=preprocessing.side, max_megapixels=100) for c in contents], every),
        "resize": times(lambda: [preprocessing.square(pixels) for pixels in decoded], every),
        f"model, {BULK_PASS} at once": times(lambda: run(some), BULK_PASS),
        ALONE: times(lambda: run(one), 1),
    }


def operators_ms(backend: str, checkpoint: Path, models: Path, pictures: list[Path]) -> dict[str, float]:
    """Kind of operator to milliseconds of a pass of BULK_PASS, the dearest first, as the backend's own profiler says.
    Nothing for torch."""
    export = _export(checkpoint, models)
    some = np.ascontiguousarray(_squares(pictures, export)[:BULK_PASS])
    library, _, precision = backend.partition("-")
    if library == "torch":
        return {}
    spent = Counter[str]()
    if library == "openvino":
        import openvino

        options = {"PERF_COUNT": "YES", "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision]}
        options |= {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(_threads())}
        model = openvino.Core().compile_model(str(export.file(FLOAT32)), "CPU", options)
        asked = model.create_infer_request()
        for number in range(PASSES + 2):
            asked.infer(some)
            for node in asked.profiling_info if number >= 2 else ():
                spent[node.node_type] += node.real_time.total_seconds() * 1000
    else:
        import onnxruntime

        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = _threads()
        session_options.enable_profiling = True
        with tempfile.TemporaryDirectory() as folder:
            session_options.profile_file_prefix = str(Path(folder) / "pass")
            path = export.file(FLOAT32 if precision == "float32" else int8_file())
            session = onnxruntime.InferenceSession(str(path), session_options, providers=["CPUExecutionProvider"])
            for _ in range(PASSES):
                session.run([OUTPUT], {INPUT: some})
            events = json.loads(Path(session.end_profiling()).read_text())
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
                spent[event["args"]["op_name"]] += event["dur"] / 1000
    dearest = spent.most_common(NAMED)
    rest = spent.total() - sum(ms for _, ms in dearest)
    return {name: round(ms / PASSES, 2) for name, ms in [*dearest, ("the rest", rest)]}


def _open(
    backend: str, checkpoint: Path, models: Path, pictures: list[Path]
) -> tuple[Callable[[Pixels], object], Pixels]:
    """What runs the tower, and as many squares as the largest batch has."""
    name, digest = _name(checkpoint), hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    export = _export(checkpoint, models)
    run: Callable[[Pixels], object]
    if backend == COMPILED:
        run = _compiled(name, digest, _threads())
    elif backend.startswith("torch"):
        run = torch_run(name, digest, "cpu", backend, threads=_threads())[1]
    else:
        run = open_run(export, backend, threads=_threads())
    return run, _squares(pictures, export)


def _squares(pictures: list[Path], export: Export) -> Pixels:
    spec = export.spec()
    assert spec is not None
    preprocessing = spec.preprocessing
    wanted = [picture.read_bytes() for picture in (pictures * BATCHES[-1])[: BATCHES[-1]]]
    decoded = [decode(content, side=preprocessing.side, max_megapixels=100).pixels for content in wanted]
    return np.stack([preprocessing.square(pixels) for pixels in decoded])


def _name(checkpoint: Path) -> str:
    return f"open_clip/{ARCHITECTURE}/{checkpoint}"


def _export(checkpoint: Path, models: Path) -> Export:
    return Export(models, _name(checkpoint), hashlib.sha256(checkpoint.read_bytes()).hexdigest())


def _threads() -> int:
    return len(os.sched_getaffinity(0))


def _compiled(name: str, digest: str, threads: int) -> Callable[[Any], Any]:
    """torch.compile with weights frozen into it, of what torch runs fastest here. Compiles again for every batch."""
    import torch
    import torch._inductor.config

    from worker.encoder.tower import TorchRun

    precision = "bfloat16" if computes_bfloat16() else "float32"
    model, _ = torch_run(name, digest, "cpu", f"torch-{precision}", threads=threads)
    torch._inductor.config.freezing = True
    compiled: Any = torch.compile(model.quick(), dynamic=False)
    return TorchRun(compiled, backend=f"{COMPILED}-{precision}", device="cpu")


def decode_ms(files: list[Path]) -> dict[str, Any]:
    preprocessing = Preprocessing(side=224, mean=(0, 0, 0), std=(1, 1, 1))
    found: dict[str, Any] = {}
    for path in files:
        content, times = path.read_bytes(), list[float]()
        until = time.perf_counter() + 0.6
        while time.perf_counter() < until or not times:
            started = time.perf_counter()
            preprocessing.square(decode(content, side=224, max_megapixels=100).pixels)
            times.append((time.perf_counter() - started) * 1000)
        found[path.stem] = {"reduced": round(min(times), 1)}
    return found
