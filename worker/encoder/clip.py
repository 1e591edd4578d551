"""CLIP models through open_clip: by tag from a model hub, from a local checkpoint, or random by name for tests."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from PIL import Image

from worker.core.types import Pixels
from worker.core.vectors import Vectors
from worker.encoder.base import TorchEncoder, file_sha256, model_key
from worker.errors import EncoderUnavailable

#: The word that asks for random weights. Never a default: such vectors mean nothing.
RANDOM = "random"
#: Random weights are the same in every process, so that test processes agree on the model key.
RANDOM_SEED = 0


class ClipEncoder(TorchEncoder):
    """`model` is an open_clip architecture; `weights` a tag, the path of a checkpoint, or `random`."""

    has_text = True

    def __init__(self, model: str, weights: str, *, sha256: str, device: str, batch: int) -> None:
        super().__init__(device=device, batch=batch)
        self.name = f"open_clip/{model}/{weights if '/' not in weights else Path(weights).name}"
        if model not in open_clip.list_models():
            raise EncoderUnavailable(f"open_clip knows no model {model!r}; open_clip.list_models() names them")
        tag = get_pretrained_cfg(model, weights)
        path = None if weights == RANDOM else _checkpoint(model, weights, tag, sha256)
        if path is None:
            torch.manual_seed(RANDOM_SEED)
        # A tag says which activation its weights were trained with; a mismatch only warns and is silently wrong
        # (open_clip #771). For a local file, the model's name says it: ViT-B-32-quickgelu.
        quick_gelu = bool(tag.get("quick_gelu", False))
        try:
            clip, _, preprocess = open_clip.create_model_and_transforms(
                model,
                pretrained=None if path is None else str(path),
                precision="fp16" if device == "cuda" else "fp32",
                device=device,
                force_quick_gelu=quick_gelu,
                image_mean=tag.get("mean"),
                image_std=tag.get("std"),
                image_interpolation=tag.get("interpolation"),
                image_resize_mode=tag.get("resize_mode"),
            )
        except (RuntimeError, OSError, ValueError, KeyError, pickle.UnpicklingError) as exc:
            raise EncoderUnavailable(f"{path} cannot be loaded as weights of {model}: {exc}") from exc
        self._model: Any = clip.eval()
        self._preprocess: Any = preprocess
        self._tokenize: Any = open_clip.get_tokenizer(model)
        self.input_side = _side(clip.visual.image_size)
        with torch.inference_mode():
            probe = torch.zeros(1, 3, self.input_side, self.input_side, device=device, dtype=self._dtype)
            self.dimension = int(self._model.encode_image(probe).shape[1])
        self.model_key = model_key(
            f"{model}-{weights}" if "/" not in weights else model,
            weights_sha256=f"seed {RANDOM_SEED}" if path is None else file_sha256(path),
            preprocessing=repr(preprocess),
            pooling=f"model's own, quick_gelu={quick_gelu or 'quickgelu' in model}",
        )

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        tokens = self._tokenize(list(texts))
        return self._encode(list(tokens), self._model.encode_text)

    def _tensor(self, pixels: Pixels) -> torch.Tensor:
        tensor: torch.Tensor = self._preprocess(Image.fromarray(pixels))
        return tensor

    def _image_features(self, batch: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self._model.encode_image(batch.to(self._dtype))
        return features


def is_tag(model: str, tag: str) -> bool:
    """Whether open_clip knows pretrained weights of this name."""
    return bool(get_pretrained_cfg(model, tag))


def cached_checkpoint(model: str, tag: str) -> Path | None:
    """The checkpoint of a tag if it lies in the local hub cache already. Asks no network."""
    from huggingface_hub import try_to_load_from_cache
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    repo, _, filename = str(get_pretrained_cfg(model, tag).get("hf_hub", "")).rpartition("/")
    for name in [filename] if filename else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]:
        found = try_to_load_from_cache(repo, name) if repo else None
        if isinstance(found, str):
            return Path(found)
    return None


def _checkpoint(model: str, weights: str, tag: dict[str, Any], sha256: str) -> Path:
    if tag:
        return cached_checkpoint(model, weights) or _download(model, weights, tag)
    path = Path(weights)
    if not path.is_file():
        raise EncoderUnavailable(
            f"{weights!r} is neither a tag of {model} ({', '.join(open_clip.list_pretrained_tags_by_model(model))}) "
            "nor a checkpoint file"
        )
    if not sha256:
        raise EncoderUnavailable(
            f"set SIGHTLINE_ENCODER_SHA256 to the SHA-256 of {path}, so that another file under this name is noticed"
        )
    found = file_sha256(path)
    if found != sha256.lower():
        raise EncoderUnavailable(f"{path} has SHA-256 {found}, not the {sha256} of SIGHTLINE_ENCODER_SHA256")
    return path


def _download(model: str, weights: str, tag: dict[str, Any]) -> Path:
    try:
        return Path(download_pretrained(tag))
    # What the hub client, urllib and open_clip raise for a network that is not there.
    except (OSError, RuntimeError, ValueError) as exc:
        raise EncoderUnavailable(
            f"the weights of {model}/{weights} are not on this machine and cannot be downloaded: {exc}. "
            "Run a worker once with network access to fill the Hugging Face cache and copy that folder (HF_HOME), or "
            f"copy the checkpoint file and set SIGHTLINE_ENCODER=open_clip/{model}/<file> with "
            "SIGHTLINE_ENCODER_SHA256. Without any: SIGHTLINE_ENCODER=packaged/efficientnet-lite0."
        ) from exc


def _side(image_size: int | tuple[int, int]) -> int:
    return image_size if isinstance(image_size, int) else max(image_size)
