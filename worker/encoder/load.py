"""From the name in the settings to a model in memory."""

from __future__ import annotations

import torch

from worker.core.ports import Encoder
from worker.encoder import packaged
from worker.encoder.base import ModelEncoder
from worker.encoder.tower import TorchModel, TorchRun, choose_device
from worker.errors import EncoderUnavailable


def load_encoder(name: str, *, sha256: str = "", device: str = "auto", threads: int, batch: int = 32) -> Encoder:
    """Build the encoder called `name` (see SIGHTLINE_ENCODER). Raises EncoderUnavailable with what to do.

    threads: of one forward pass, for the whole process. There is no fallback: what is named is what is loaded.
    """
    torch.set_num_threads(threads)
    device = choose_device(device)
    model = _model(name, sha256, device)
    return ModelEncoder(
        model.spec,
        TorchRun(model.tower, backend="torch", device=device),
        device=device,
        batch=batch,
        texts=model.texts,
    )


def _model(name: str, sha256: str, device: str) -> TorchModel:
    family, _, rest = name.partition("/")
    if name == packaged.NAME:
        return packaged.load(device=device)
    model, _, weights = rest.partition("/")
    if family == "open_clip" and model and weights:
        from worker.encoder import clip  # imports that the packaged encoder does without

        return clip.load(model, weights, sha256=sha256, device=device)
    raise EncoderUnavailable(
        f"SIGHTLINE_ENCODER={name!r} is neither open_clip/<model>/<tag or file> nor {packaged.NAME}"
    )


def weights_at_hand(name: str) -> bool:
    """Whether an encoder can be loaded without a download. Asks no network; an unknown name or file is at hand, too:
    loading it says what is wrong."""
    model, _, tag = name.removeprefix("open_clip/").partition("/")
    if name == packaged.NAME or not name.startswith("open_clip/"):
        return True
    from worker.encoder.clip import cached_checkpoint, is_tag

    return not is_tag(model, tag) or cached_checkpoint(model, tag) is not None


def best_available() -> str:
    """The demo's choice: the default CLIP where its weights are on this machine, else the packaged encoder."""
    default = "open_clip/ViT-B-32/openai"
    return default if weights_at_hand(default) else packaged.NAME
