"""What the encoders share: preparing batches, one forward pass at a time, unit vectors, fingerprints."""

from __future__ import annotations

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from producer_client.contract import Code
from worker.core.types import Pixels
from worker.core.vectors import Vectors, unit_rows
from worker.errors import EncoderUnavailable, Permanent


class TorchEncoder(ABC):
    """A model in memory, shared by the threads of a process. See worker.core.ports.Encoder."""

    name: str
    model_key: str
    dimension: int
    input_side: int
    has_text: bool = False

    def __init__(self, *, device: str, batch: int) -> None:
        self.device = device
        self._dtype = torch.float16 if device == "cuda" else torch.float32
        self._batch = batch
        # One pass at a time uses all cores already; two would only share them, and double the memory.
        self._one_pass = threading.Lock()

    def encode_images(self, photos: Sequence[Pixels]) -> Vectors:
        """RGB pixels of any size to float32 [n, dimension], rows of length 1, in the same order."""
        return self._encode([self._tensor(pixels) for pixels in photos], self._image_features)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """float32 [n, dimension]. Raises Permanent(no_text_encoder) where the model reads no text."""
        raise Permanent(
            Code.NO_TEXT_ENCODER,
            f"{self.name} has no text encoder; search by text needs a CLIP model, such as open_clip/ViT-B-32/openai",
        )

    def _encode(self, tensors: list[torch.Tensor], features: Callable[[torch.Tensor], torch.Tensor]) -> Vectors:
        if not tensors:
            return np.zeros((0, self.dimension), dtype=np.float32)
        rows = []
        with self._one_pass, torch.inference_mode():
            for start in range(0, len(tensors), self._batch):
                batch = torch.stack(tensors[start : start + self._batch]).to(self.device)
                rows.append(features(batch).float().cpu().numpy())
        return unit_rows(np.concatenate(rows))

    @abstractmethod
    def _tensor(self, pixels: Pixels) -> torch.Tensor:
        """Preprocess one photo: float32 [3, side, side]."""

    @abstractmethod
    def _image_features(self, batch: torch.Tensor) -> torch.Tensor:
        """[n, 3, side, side] to [n, dimension], any length."""


def choose_device(wanted: str) -> str:
    """`auto` to `cuda` where there is one, else `cpu`. Raises EncoderUnavailable for a device that is not there."""
    available = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if available else "cpu"
    if wanted == "cuda" and not available:
        raise EncoderUnavailable("SIGHTLINE_DEVICE=cuda, but torch sees no CUDA device; use cpu or auto")
    if wanted not in ("cpu", "cuda"):
        raise EncoderUnavailable(f"SIGHTLINE_DEVICE={wanted!r} is not one of auto, cpu, cuda")
    return wanted


def model_key(name: str, *, weights_sha256: str, preprocessing: str, pooling: str) -> str:
    """Fingerprint of everything that changes a vector, with a readable beginning."""
    facts = {"name": name, "weights": weights_sha256, "preprocessing": preprocessing, "pooling": pooling}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"{name}@{digest[:16]}"


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
