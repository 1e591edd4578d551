"""CLIP models through open_clip: by tag from a model hub, from a local checkpoint, or random by name for tests."""

from __future__ import annotations

import difflib
import logging
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from open_clip.tokenizer import SimpleTokenizer, get_clean_fn

from worker.encoder.base import GEM, Preprocessing, Spec, check_sha256, file_sha256, model_key
from worker.encoder.texts import PATTERN, write_vocabulary
from worker.encoder.tower import TextTower, TorchModel, TorchTexts, Tower
from worker.encoder.vit import GEM_P, has_patches, lean, patches_pooled
from worker.errors import EncoderUnavailable

log = logging.getLogger(__name__)

#: The word that asks for random weights. Never a default: such vectors mean nothing.
RANDOM = "random"
#: Random weights are the same in every process, so that test processes agree on the model key.
RANDOM_SEED = 0
#: open_clip's words.
_PRECISION = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def load(
    model: str, weights: str, *, sha256: str, device: str, dtype: torch.dtype = torch.float32, gem: bool = False
) -> TorchModel:
    """`model` is an open_clip architecture; `weights` a tag, the path of a checkpoint, or `random`.

    gem: vectors are the patches' tokens pooled, for places alone: texts lie in the space of the class token.
    """
    check_name(model, weights)
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
            precision=_PRECISION[dtype],
            device=device,
            force_quick_gelu=quick_gelu,
            image_mean=tag.get("mean"),
            image_std=tag.get("std"),
            image_interpolation=tag.get("interpolation"),
            image_resize_mode=tag.get("resize_mode"),
        )
    except (RuntimeError, OSError, ValueError, LookupError, EOFError, pickle.UnpicklingError) as exc:
        raise EncoderUnavailable(f"{path} cannot be loaded as weights of {model}: {exc}") from exc
    preprocessing = _preprocessing(model, clip.visual.preprocess_cfg)
    if gem and not has_patches(clip.visual):
        raise EncoderUnavailable(
            f"{model} has no tokens of patches to pool: {GEM} goes with open_clip's plain vision transformers alone. "
            f"Leave {GEM} out of the name"
        )
    features = _pooled_features if gem else _image_features
    tower = Tower(clip.eval(), features, preprocessing, dtype=dtype).to(device)
    with torch.inference_mode():
        side = preprocessing.side
        dimension = int(tower(torch.zeros(1, side, side, 3, device=device, dtype=torch.uint8)).shape[1])
    pooling = f"gem of patches, p={GEM_P}" if gem else "model's own"
    spec = Spec(
        name=f"open_clip/{model}/{weights if '/' not in weights else Path(weights).name}{GEM if gem else ''}",
        model_key=model_key(
            f"{model}-{weights}" if "/" not in weights else model,
            weights_sha256=f"seed {RANDOM_SEED}" if path is None else file_sha256(path),
            preprocessing=repr(preprocess),
            pooling=f"{pooling}, quick_gelu={quick_gelu or 'quickgelu' in model}",
        ),
        dimension=dimension,
        preprocessing=preprocessing,
        has_text=not gem,
    )
    rewrite = partial(lean, clip.visual, preprocessing, gem=gem)
    if gem:
        return TorchModel(spec, tower, rewrite=rewrite)
    tokenize: Any = open_clip.get_tokenizer(model)
    texts = TorchTexts(TextTower(clip), tokenize, device, _vocabulary(tokenize))
    return TorchModel(spec, tower, texts, rewrite=rewrite)


def _vocabulary(tokenize: Any) -> Callable[[Path], None] | None:
    """What writes a tokenizer's vocabulary for worker.encoder.texts; None for others than the one that it knows."""
    known = (
        type(tokenize) is SimpleTokenizer
        and tokenize.pat.pattern == PATTERN
        and tokenize.clean_fn is get_clean_fn("lower")
        and tokenize.reduction_fn is None
    )
    if not known:
        return None
    ids, pairs = tokenize.encoder, list(tokenize.bpe_ranks)
    return partial(write_vocabulary, ids=ids, pairs=pairs, context=tokenize.context_length)


def _image_features(clip: Any, photos: torch.Tensor) -> torch.Tensor:
    features: torch.Tensor = clip.encode_image(photos)
    return features


def _pooled_features(clip: Any, photos: torch.Tensor) -> torch.Tensor:
    return patches_pooled(clip.visual, photos)


def check_name(model: str, weights: str) -> None:
    """Raises EncoderUnavailable for what is no model, or neither a tag of it nor a file."""
    models = open_clip.list_models()
    if model not in models:
        like = ", ".join(difflib.get_close_matches(model, models, n=6, cutoff=0.0))
        raise EncoderUnavailable(
            f"open_clip knows no model {model!r}. Of {len(models)}, those spelt most like it are {like}; "
            "open_clip.list_models() has all"
        )
    if weights != RANDOM and not is_tag(model, weights) and not Path(weights).is_file():
        raise EncoderUnavailable(
            f"{weights!r} is neither a tag of {model} ({', '.join(open_clip.list_pretrained_tags_by_model(model))}) "
            "nor a checkpoint file"
        )


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
    path = Path(weights)
    if tag:
        path = cached_checkpoint(model, weights) or _download(model, weights, tag)
    if sha256 or not tag:
        check_sha256(path, sha256)
    else:
        log.info("SIGHTLINE_ENCODER_SHA256 would hold these weights fast", extra={"sha256": file_sha256(path)})
    return path


def _download(model: str, weights: str, tag: dict[str, Any]) -> Path:
    try:
        return Path(download_pretrained(tag))
    # What the hub client, urllib and open_clip raise for a network that is not there.
    except (OSError, RuntimeError, ValueError) as exc:
        why = str(exc).rstrip(".")
        raise EncoderUnavailable(
            f"the weights of {model}/{weights} are not on this machine and cannot be downloaded: {why}. "
            "Run a worker once with network access to fill the Hugging Face cache and copy that folder (HF_HOME), or "
            f"copy the checkpoint file and set SIGHTLINE_ENCODER=open_clip/{model}/<file> with "
            "SIGHTLINE_ENCODER_SHA256. Without any: SIGHTLINE_ENCODER=packaged/efficientnet-lite0."
        ) from exc


def _preprocessing(model: str, config: dict[str, Any]) -> Preprocessing:
    size = config["size"]
    width, height = (size, size) if isinstance(size, int) else size
    if width != height:
        raise EncoderUnavailable(f"{model} sees {width} x {height} pixels; only models that see a square are supported")
    return Preprocessing(
        side=width,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        resize=config["resize_mode"],
        interpolation=config["interpolation"],
    )
