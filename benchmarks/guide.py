"""The way of the service that Sightline replaces, written anew from its integration guide: a model for every request.

Its class builds CLIP in the constructor, reads a pickle of paths, metadata and embeddings into a flat FAISS index,
decodes the photo at full size through open_clip's own transform, and takes the coordinates of the most similar photo
above the threshold. Left out in its favour, as the guide does not say that a located request needs them: the tokenizer,
sentence-transformers, the network. It runs on this project's versions of torch, open_clip and FAISS, not on the older
ones that the guide pins, and knows nothing of Sightline.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

SEED = 0
THRESHOLD = 0.75
TOP_K = 5


class ModelPerRequest:
    """Model and index as the guide's class holds them. The checkpoint's file is named after its architecture.

    `took_ms` has how long each part took at last.
    """

    def __init__(self, checkpoint: Path, pickled: Path) -> None:
        self.took_ms: dict[str, float] = {}
        with self._timed("model"):
            model, _, self._preprocess = open_clip.create_model_and_transforms(
                checkpoint.stem, pretrained=str(checkpoint), precision="fp32", device="cpu"
            )
            self._model = model.eval()
        with self._timed("index"):
            # The benchmark's own file, of a moment ago. Sightline itself reads no pickle this way.
            stored: dict[str, Any] = pickle.loads(pickled.read_bytes()) if pickled.exists() else {}  # noqa: S301
            self._paths: list[str] = stored.get("paths", [])
            self._metadata: list[dict[str, Any]] = stored.get("metadata", [])
            self._index = faiss.IndexFlatL2(int(model.visual.output_dim))
            if self._paths:
                self._index.add(stored["embeddings"])

    def encode(self, path: str) -> npt.NDArray[np.float32]:
        """float32 [d] of length 1."""
        with self._timed("decode"), Image.open(path) as image:
            tensor = self._preprocess(image.convert("RGB")).unsqueeze(0)
        with self._timed("encode"), torch.no_grad():
            vector: npt.NDArray[np.float32] = self._model.encode_image(tensor)[0].numpy()
        return vector / np.float32(np.linalg.norm(vector))

    def find(self, path: str) -> list[dict[str, Any]]:
        """Photos above the threshold, best first."""
        query = self.encode(path)
        with self._timed("search"):
            distances, rows = self._index.search(query[None], TOP_K)
        # For rows of length 1, |a - b|^2 = 2 - 2 cos.
        similarities = 1 - distances[0] / 2
        return [
            {"image_path": self._paths[row], "similarity": float(similarity), "metadata": self._metadata[row]}
            for similarity, row in zip(similarities, rows[0], strict=True)
            if row >= 0 and similarity > THRESHOLD
        ]

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.took_ms[part] = (time.perf_counter() - started) * 1000


def prepare(checkpoint: Path, pickled: Path, photos: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Write what is on disk before the first request: a checkpoint, of random weights here, and the pickle of (path,
    metadata), if any. safetensors, as open_clip downloads for `ViT-B-32/openai` today, and the fastest to load."""
    logging.disable(logging.WARNING)  # open_clip warns of random weights, which are meant
    torch.manual_seed(SEED)
    save_file(open_clip.create_model(checkpoint.stem, precision="fp32", device="cpu").state_dict(), str(checkpoint))
    if photos:
        service = ModelPerRequest(checkpoint, pickled)
        embeddings = np.stack([service.encode(path) for path, _ in photos])
        stored = {"paths": [p for p, _ in photos], "metadata": [m for _, m in photos], "embeddings": embeddings}
        pickled.write_bytes(pickle.dumps(stored))
