"""How much sooner the keypoints of two pictures are matched than by OpenCV's BFMatcher, and whether the matches are the
same ones. One thread each, on the same descriptions, by turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from worker.core.keypoints import Keypoints
from worker.encoder.keypoints import keypoints
from worker.place.matching import RATIO_OF_SQUARES, matches

Pairs = set[tuple[int, int]]


def matching(pictures: Sequence[Path]) -> dict[str, Any]:
    """Each picture with the next one: half of these pairs show the same, where each place has two pictures."""
    found = []
    for path in pictures:
        with Image.open(path) as image:
            found.append(keypoints(image.convert("RGB")))
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    ours_s: list[float] = []
    theirs_s: list[float] = []
    same = of = 0
    try:
        ours(found[0], found[1])  # makes the product's session
        for one, other in pairwise(found):
            mine, took_s = _timed(ours, one, other)
            ours_s.append(took_s)
            its, took_s = _timed(by_brute_force, one, other)
            theirs_s.append(took_s)
            same, of = same + len(mine & its), of + len(mine | its)
    finally:
        cv2.setNumThreads(before)
    return {
        "match_speedup": round(float(np.median(np.divide(theirs_s, ours_s))), 1),
        "match_ms": round(float(np.median(ours_s)) * 1000, 2),
        "match_brute_force_ms": round(float(np.median(theirs_s)) * 1000, 1),
        "match_same": round(same / max(1, of), 4),
        "match_keypoints": int(np.median([len(one) for one in found])),
    }


def ours(one: Keypoints, other: Keypoints) -> Pairs:
    here, there = matches(one, other)
    return set(zip(here.tolist(), there.tolist(), strict=True))


def by_brute_force(one: Keypoints, other: Keypoints) -> Pairs:
    """The same test of ratios both ways."""
    here, there = (some.descriptions.astype(np.float32) for some in (one, other))
    forth, back = _clearly_nearest(here, there), _clearly_nearest(there, here)
    return {(at, to) for at, to in forth.items() if back.get(to) == at}


def _clearly_nearest(these: Any, those: Any) -> dict[int, int]:
    nearest = cv2.BFMatcher(cv2.NORM_L2).knnMatch(these, those, k=2)
    ratio = float(np.sqrt(RATIO_OF_SQUARES))
    return {one.queryIdx: one.trainIdx for one, other in nearest if one.distance < ratio * other.distance}


def _timed(match: Callable[[Keypoints, Keypoints], Pairs], one: Keypoints, other: Keypoints) -> tuple[Pairs, float]:
    started = time.perf_counter()
    found = match(one, other)
    return found, time.perf_counter() - started
