"""What a pair of pictures costs by each way of matching the same RootSIFT descriptions, with one test of ratios.

All in one run and on one thread, by that thread's own time, pair by pair in turn. *Speed-up* is over OpenCV's brute
force both ways. Our way gets descriptions as they are kept, of 5 bits; the others get float32,
or what they need made of it beforehand, which is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch
from onnx import parser
from PIL import Image
from threadpoolctl import threadpool_limits

from benchmarks.feature_peers import MOST, RATIO, Matched, Pair
from benchmarks.measure import Vectors
from worker.core.keypoints import Keypoints
from worker.encoder.keypoints import keypoints
from worker.place.matching import Positions, matches

#: Times that each pair is matched by each; the fastest counts.
PASSES = 3
OURS, BRUTE = "ONNX Runtime, 8-bit integers (ours)", "OpenCV BFMatcher, both ways"

Match = Callable[[Any, Any], tuple[Positions, Positions]]
#: What a way of matching is given of a picture, and how it matches two of these.
Way = tuple[Callable[["Rooted"], Any], Match]


@dataclass(frozen=True, slots=True)
class Rooted:
    """A picture's keypoints in pixels, described in float32, and as they are kept."""

    points: Vectors
    roots: Vectors
    kept: Keypoints

    @classmethod
    def of(cls, picture: Image.Image) -> Rooted:
        return cls(*root_sift(picture), keypoints(picture))


def root_sift(picture: Image.Image) -> tuple[Vectors, Vectors]:
    """Pixels, float32 [n, 2], and RootSIFT descriptions, float32 [n, 128]."""
    sift = cv2.SIFT.create(nfeatures=MOST, enable_precise_upscale=True)
    found, described = sift.detectAndCompute(np.asarray(picture.convert("L")), None)
    if not found:
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
    points = np.array([point.pt for point in found], np.float32)
    return points, np.sqrt(described / np.maximum(described.sum(axis=1, keepdims=True), 1.0))


def brute_force(one: Vectors, other: Vectors) -> tuple[Positions, Positions]:
    def clear(here: Vectors, there: Vectors) -> dict[int, int]:
        found = brute.knnMatch(here, there, 2)
        return {best.queryIdx: best.trainIdx for best, second in found if best.distance < RATIO * second.distance}

    brute = cv2.BFMatcher(cv2.NORM_L2)
    back = clear(other, one)
    both = [(ours, theirs) for ours, theirs in clear(one, other).items() if back.get(theirs) == ours]
    return np.array([ours for ours, _ in both], np.intp), np.array([theirs for _, theirs in both], np.intp)


def by_product(product: Callable[[Any, Any], Any], largest: float) -> Match:
    """Of all cosines, which are `largest` at most, by the same steps as ours."""

    def match(one: Any, other: Any) -> tuple[Positions, Positions]:
        similar = product(one, other)
        theirs = similar.argmax(axis=1)
        best = similar[np.arange(len(similar)), theirs]
        ours = np.flatnonzero(best >= similar.max(axis=0)[theirs])
        theirs, best = theirs[ours], best[ours]
        similar[ours, theirs] = -largest
        second = np.maximum(similar.max(axis=1)[ours], similar.max(axis=0)[theirs])
        clear = (largest - best) < RATIO**2 * (largest - second)
        return ours[clear], theirs[clear]

    return match


def ways() -> dict[str, Way]:
    text = """<ir_version: 9, opset_import: ["": 17]>
        product (float[n, 128] a, float[128, m] b) => (float[n, m] c) { c = MatMul(a, b) }"""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = parser.parse_model(text).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    scale = 127 / 0.42

    def of_torch(one: torch.Tensor, other: torch.Tensor) -> Any:
        return (one @ other.T).float().numpy()

    return {
        BRUTE: (lambda of: of.roots, brute_force),
        "numpy, float32": (lambda of: of.roots, by_product(lambda one, other: one @ other.T, 1.0)),
        "ONNX Runtime, float32": (
            lambda of: of.roots,
            by_product(lambda one, other: session.run(None, {"a": one, "b": other.T})[0], 1.0),
        ),
        "torch, bfloat16": (lambda of: torch.from_numpy(of.roots).bfloat16(), by_product(of_torch, 1.0)),
        "torch, 8-bit integers": (
            lambda of: torch.from_numpy(np.rint(of.roots * scale).clip(0, 127).astype(np.int8)),
            by_product(lambda one, other: torch._int_mm(one, other.T).numpy(), scale**2),
        ),
        OURS: (lambda of: of.kept, matches),
    }


def compared(
    pictures: Sequence[Rooted], pairs: Sequence[Pair]
) -> tuple[dict[str, dict[str, Any]], dict[str, list[Matched]]]:
    """Figures of each way, and where the matches of each pair lie, in pixels."""
    figures: dict[str, dict[str, Any]] = {}
    took: dict[str, list[float]] = {}
    found: dict[str, list[Matched]] = {}
    named = ways()
    given = {name: [prepare(picture) for picture in pictures] for name, (prepare, _) in named.items()}
    torch.set_num_threads(1)
    with threadpool_limits(1):
        for here, there in pairs:
            for name, (_, match) in named.items():
                spent, (ours, theirs) = _fastest(match, given[name][here], given[name][there])
                took.setdefault(name, []).append(spent)
                found.setdefault(name, []).append(_pixels(name, pictures[here], pictures[there], ours, theirs))
    for name in named:
        figures[name] = {
            "match_ms": round(median(took[name]) * 1e3, 2),
            "speedup": round(median(b / s for b, s in zip(took[BRUTE], took[name], strict=True)), 1),
            "matches": sum(len(here) for here, _ in found[name]),
        }
    return figures, found


def _fastest(match: Match, one: Any, other: Any) -> tuple[float, tuple[Positions, Positions]]:
    spent = float("inf")
    for _ in range(PASSES):
        started = time.thread_time()
        found = match(one, other)
        spent = min(spent, time.thread_time() - started)
    return spent, found


def _pixels(name: str, one: Rooted, other: Rooted, ours: Positions, theirs: Positions) -> Matched:
    if name == OURS:
        return one.kept.pixels(ours), other.kept.pixels(theirs)
    return one.points[ours], other.points[theirs]
