"""Place-recognition networks as ONNX graphs, for those that torch's side does not know (MegaLoc, and any other).

A graph is data: nothing of the file is run but ONNX's operators. It takes photos as such networks do, float32 [n, 3,
side, side] normalised as ImageNet's are, n as it comes, and gives float32 [n, dimension]; both numbers stand in it.
ONNX Runtime runs it on the CPU, and what it says is what a vector is: there is nothing to compare it with. Knows no
torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worker.core.types import Pixels
from worker.core.vectors import Vectors
from worker.encoder.base import IMAGENET, ModelEncoder, Preprocessing, Spec, check_sha256, model_key
from worker.encoder.exported import onnx_session
from worker.errors import EncoderUnavailable

#: What such a file is called.
SUFFIX = ".onnx"
BACKEND = "onnxruntime-float32"


@dataclass(frozen=True, slots=True)
class _Graph:
    session: Any
    side: int
    dimension: int


class GraphRun:
    """See worker.encoder.base.Run."""

    backend = BACKEND

    def __init__(self, session: Any, preprocessing: Preprocessing) -> None:
        self._session = session
        self._input, self._output = session.get_inputs()[0].name, session.get_outputs()[0].name
        self._mean, self._std = (np.array(of, dtype=np.float32) for of in (preprocessing.mean, preprocessing.std))

    def __call__(self, squares: Pixels) -> Vectors:
        normalised = (squares.astype(np.float32) / 255 - self._mean) / self._std
        (vectors,) = self._session.run([self._output], {self._input: normalised.transpose(0, 3, 1, 2).copy()})
        return np.asarray(vectors, dtype=np.float32)


def load(path: Path, *, sha256: str, threads: int, batch: int) -> ModelEncoder:
    """Raises EncoderUnavailable for a file that is not there, not the one that was meant, or no such graph."""
    check_sha256(path, sha256)
    graph = _opened(path, threads)
    preprocessing = Preprocessing(graph.side, *IMAGENET, resize="squash", interpolation="bilinear")
    spec = Spec(
        name=f"place/{path.name}",
        model_key=model_key(
            "place-onnx",
            weights_sha256=sha256.lower(),
            preprocessing=repr(preprocessing),
            pooling="the graph's own",
        ),
        dimension=graph.dimension,
        preprocessing=preprocessing,
        has_text=False,
    )
    return ModelEncoder(spec, GraphRun(graph.session, preprocessing), device="cpu", batch=batch)


def _opened(path: Path, threads: int) -> _Graph:
    try:
        # As bytes, so that tensors in a file beside it, which no SHA-256 covers, are not found.
        session = onnx_session(path.read_bytes(), threads=threads)
        (taken, *more), given = session.get_inputs(), session.get_outputs()[0]
    except Exception as exc:  # others' code: onnxruntime, which raises children of Exception alone; refused with why
        raise _no_graph(path, str(exc).strip().splitlines()[0] if str(exc) else type(exc).__name__) from exc
    seen, said = f"{taken.type} {taken.shape}", f"{given.type} {given.shape}"
    fits = (
        not more
        and {taken.type, given.type} == {"tensor(float)"}
        and len(taken.shape) == 4
        and len(given.shape) == 2
        and not isinstance(taken.shape[0], int)
        and taken.shape[1] == 3
        and taken.shape[2] == taken.shape[3]
        and all(isinstance(size, int) for size in (taken.shape[2], given.shape[1]))
    )
    if not fits:
        raise _no_graph(path, f"it takes {seen} and gives {said}" + (", and takes more inputs" if more else ""))
    return _Graph(session, taken.shape[2], given.shape[1])


def _no_graph(path: Path, why: str) -> EncoderUnavailable:
    return EncoderUnavailable(
        f"{path} cannot be used: {why}. A place-recognition network is one file that takes float32 [n, 3, side, side], "
        "n as it comes, and gives float32 [n, dimension], as torch.onnx.export(..., external_data=False) writes it"
    )
