"""Place-recognition networks out of a file: CosPlace's and EigenPlaces's state dicts, as their authors publish them.

Both are one network (Berton, Masone and Caputo, "Rethinking visual geo-localization for large-scale applications",
2022; Berton et al., "EigenPlaces", 2023): a ResNet of torchvision without its last two layers, features of length 1 at
each position, their generalised mean, and one linear layer. Which ResNet and how many dimensions the tensors say. A
file is read as tensors alone: one that would have to run code to be read is refused. No text.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torchvision
from torch.nn.functional import normalize

from worker.encoder.base import IMAGENET, Preprocessing, Spec, check_sha256, model_key
from worker.encoder.tower import TorchModel, Tower
from worker.errors import EncoderUnavailable

RESNETS = ("resnet18", "resnet50", "resnet101", "resnet152")
#: They were trained on squares of 512 pixels. The whole photo is made one: its borders show the place, too.
PREPROCESSING = Preprocessing(512, *IMAGENET, resize="squash", interpolation="bilinear")
LEAST = 1e-6


class PlaceNet(torch.nn.Module):
    """float [n, 3, side, side] to [n, dimension]. Its state dict has the names that are published."""

    def __init__(self, resnet: str, dimension: int) -> None:
        super().__init__()
        whole = getattr(torchvision.models, resnet)()
        self.backbone = torch.nn.Sequential(*list(whole.children())[:-2])
        linear = torch.nn.Linear(whole.fc.in_features, dimension)
        self.aggregation = torch.nn.ModuleDict({"1": _GeneralisedMean(), "3": linear})

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        maps = normalize(self.backbone(photos), dim=1)
        vectors: torch.Tensor = self.aggregation["3"](self.aggregation["1"](maps))
        return vectors


class _GeneralisedMean(torch.nn.Module):
    """[n, channels, height, width] to [n, channels]."""

    def __init__(self) -> None:
        super().__init__()
        self.p = torch.nn.Parameter(torch.full((1,), 3.0))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.clamp(min=LEAST).pow(self.p).mean((2, 3)).pow(1.0 / self.p)


def load(path: Path, *, sha256: str, device: str, dtype: torch.dtype = torch.float32) -> TorchModel:
    """Raises EncoderUnavailable for a file that is not there, not the one that was meant, or no such network."""
    check_sha256(path, sha256)
    tensors = _tensors(path)
    resnet, net = _network(path, tensors)
    net.load_state_dict(tensors, assign=True)
    net.requires_grad_(False)
    spec = Spec(
        name=f"place/{path.name}",
        model_key=model_key(
            f"place-{resnet}",
            weights_sha256=sha256.lower(),
            preprocessing=repr(PREPROCESSING),
            pooling="length 1 at each position, gem, linear",
        ),
        dimension=len(tensors["aggregation.3.weight"]),
        preprocessing=PREPROCESSING,
        has_text=False,
    )
    return TorchModel(spec, Tower(net.eval().to(dtype), _features, PREPROCESSING, dtype=dtype).to(device))


def _features(net: torch.nn.Module, photos: torch.Tensor) -> torch.Tensor:
    vectors: torch.Tensor = net(photos)
    return vectors


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    # What torch raises for a file that holds more than tensors, is torn, or is none of its own.
    except (pickle.UnpicklingError, RuntimeError, OSError, ValueError, LookupError, EOFError) as exc:
        raise _no_place_network(path, f"it cannot be read as tensors alone ({_first_line(exc)})") from exc
    except safetensors.SafetensorError as exc:
        raise _no_place_network(path, f"it cannot be read as tensors alone ({_first_line(exc)})") from exc
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise _no_place_network(path, "it holds other things than named tensors")
    return dict(found)


def _network(path: Path, tensors: Mapping[str, torch.Tensor]) -> tuple[str, PlaceNet]:
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    linear = shapes.get("aggregation.3.weight", torch.Size())
    if len(linear) == 2:
        for resnet in RESNETS:
            with torch.device("meta"):
                net = PlaceNet(resnet, linear[0])
            if shapes == {name: tensor.shape for name, tensor in net.state_dict().items()}:
                return resnet, net
    raise _no_place_network(path, "its tensors have other names or shapes")


def _no_place_network(path: Path, why: str) -> EncoderUnavailable:
    return EncoderUnavailable(
        f"{path} is no state dict of CosPlace or EigenPlaces with a ResNet ({', '.join(RESNETS)}): {why}. Save one by "
        "torch.save(model.state_dict(), file) or as .safetensors; any other network as .onnx"
    )


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0].rstrip(".")
