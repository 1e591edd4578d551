"""A model's towers in torch: what is run here, measured against, and exported for the other backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from worker.core.types import Pixels
from worker.core.vectors import Vectors
from worker.encoder.base import Preprocessing, Spec, batch_that_fits
from worker.encoder.exported import FLOAT32, INPUT, INT8_SEVEN_BITS, OUTPUT, Export
from worker.encoder.texts import TOKENS

#: ONNX's operators that have an int8 form.
PRODUCTS = ("MatMul", "Gemm")
#: By what onnxruntime's quantiser (1.32) knows a file that is ready for it; all others it recommends in the log, twice,
#: to prepare. The exporter has folded the constants, and the quantiser itself finds the shapes.
PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}


class Tower(torch.nn.Module):
    """uint8 [n, side, side, 3] to float32 [n, dimension] of any length.

    features: the model and its normalised input [n, 3, side, side] to [n, dimension]. dtype: of that input.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        features: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor],
        preprocessing: Preprocessing,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.model = model
        self.features = features
        self.dtype = dtype
        self.preprocessing = preprocessing
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)
        self.eval()

    def forward(self, squares: torch.Tensor) -> torch.Tensor:
        photos = squares.permute(0, 3, 1, 2).float().div(255.0)
        # In float32 on every device: half a precision would be lost before the model begins.
        normalised = (photos - self.mean) / self.std
        return self.features(self.model, normalised.to(self.dtype)).float()


class TextTower(torch.nn.Module):
    """Tokens int64 [n, context] to float32 [n, dimension] of any length. model: one of open_clip's."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.model.encode_text(tokens)  # type: ignore[operator]  # modules are untyped
        return features.float()


@dataclass(frozen=True, slots=True)
class TorchTexts:
    """A text tower on its device, with what makes its tokens. See worker.encoder.base.RunTexts.

    write_vocabulary: the same tokens without torch (worker.encoder.texts), None where it is not known how.
    """

    tower: TextTower
    tokenize: Callable[[list[str]], torch.Tensor]
    device: str
    write_vocabulary: Callable[[Path], None] | None

    def __call__(self, texts: Sequence[str]) -> Vectors:
        with torch.inference_mode():
            return self.tower(self.tokenize(list(texts)).to(self.device)).cpu().numpy()  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class TorchModel:
    """A model loaded by torch, on its device. rewrite: the same function in fewer steps, None if unknown how."""

    spec: Spec
    tower: Tower
    texts: TorchTexts | None = None
    rewrite: Callable[[], torch.nn.Module | None] = lambda: None

    def quick(self) -> torch.nn.Module:
        """What is exported, and run on a CPU in less than float32. `tower` is what vectors are compared with."""
        rewritten = self.rewrite()
        return self.tower if rewritten is None else rewritten


class TorchRun:
    """A tower on its device, in the precision of its weights. See worker.encoder.base.Run."""

    def __init__(self, tower: torch.nn.Module, *, backend: str, device: str) -> None:
        self.backend = backend
        self._tower = tower
        self._device = device

    def __call__(self, squares: Pixels) -> Vectors:
        photos = torch.from_numpy(np.ascontiguousarray(squares))
        if self._device == "cuda":
            # From pinned memory the copy goes on beside what the GPU still computes.
            photos = photos.pin_memory().to(self._device, non_blocking=True)
        with torch.inference_mode():
            return self._tower(photos).cpu().numpy()  # type: ignore[no-any-return]


def batch_on_cuda(run: TorchRun, side: int, most: int) -> int:
    """Photos of one pass that this GPU has memory for, as a trial pass shows."""
    trial = 8
    run(np.zeros((trial, side, side, 3), dtype=np.uint8))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run(np.zeros((trial, side, side, 3), dtype=np.uint8))
    photo_bytes = max(1, (torch.cuda.max_memory_allocated() - before) // trial)
    return batch_that_fits(most, free_bytes=torch.cuda.mem_get_info()[0], photo_bytes=photo_bytes)


def add_towers(into: Export, model: TorchModel, int8_files: Sequence[str] = ()) -> None:
    """The image tower's files, those that lack. Call it under the lock of the export."""
    if not into.has(FLOAT32):
        into.add(FLOAT32, lambda path: export(model.quick(), model.spec.preprocessing.side, path))
    for name in int8_files:
        if not into.has(name):
            into.add(name, partial(quantize, into.file(FLOAT32), seven_bits=name == INT8_SEVEN_BITS))


def export(tower: torch.nn.Module, side: int, path: Path) -> None:
    """Write a float32 tower as ONNX, for any number of photos at once."""
    _write(tower, torch.zeros(2, side, side, 3, dtype=torch.uint8), INPUT, path)


def export_texts(texts: TorchTexts, path: Path) -> None:
    """The same of a text tower, for any number of texts."""
    _write(texts.tower, texts.tokenize(["a", "b"]), TOKENS, path)


def _write(tower: torch.nn.Module, example: torch.Tensor, name: str, path: Path) -> None:
    # Attention's fast path is one opaque operator that no exporter knows.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode():
            program = torch.onnx.export(
                tower,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=[name],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("many")},),
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    assert program is not None, "dynamo=True returns one"
    program.model.metadata_props.update(PREPARED)
    program.save(path, external_data=False)


def quantize(exported: Path, path: Path, *, seven_bits: bool) -> None:
    """Write an exported tower with int8 weights; its activations are quantised as they come.

    seven_bits: of each weight, for CPUs whose sums would overflow (see worker.encoder.exported.int8_file).

    The last product stays in float32: it costs nothing, and no layer after it evens out what rounding does (measured on
    ViT-B/32 with random weights: a cosine of 0.99991 to float32 instead of 0.99984).
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    products = [node.name for node in onnx.load(exported).graph.node if node.op_type in PRODUCTS]
    quantize_dynamic(
        exported,
        path,
        op_types_to_quantize=list(PRODUCTS),
        nodes_to_exclude=products[-1:],
        per_channel=True,
        reduce_range=seven_bits,
        weight_type=QuantType.QInt8,
    )
