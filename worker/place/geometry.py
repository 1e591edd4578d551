"""Whether matches of two pictures can be two views of one thing: those that one movement of the camera explains.

A fundamental matrix by MAGSAC++ (Barath et al., CVPR 2020). 200 correspondences at random give 9 to 15 that one matrix
"explains", so a small number proves nothing; a person or a watermark gives more, which lie in a few cells of the
picture, so these are counted, too. What frames and apps draw along the margin lies on one spot of both and is left out.
Knows neither descriptions nor places.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.core.keypoints import Keypoints
from worker.place.matching import Positions, matches

#: Matches without which no matrix is looked for: seven determine one.
LEAST_MATCHES = 8
#: Pixels of the frame from the line on which a match should lie.
NEAR_PX = 2.0
CONFIDENCE, MOST_TRIES = 0.999, 2_000
#: The frame is parted into so many cells each way. The outermost are the margin.
CELLS = 8
#: Pixels between two spots that count as one, from the nearest edges of each picture: these may be of different sizes.
SAME_SPOT_PX = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """How much of two pictures is the same thing. matches: by descriptions, without what is drawn along the margin.
    inliers: of these, what one movement of the camera explains. cells: of CELLS x CELLS, in which there are any, in the
    picture where these are fewer. here: positions of the query's keypoints that are inliers, rising."""

    matches: int
    inliers: int
    cells: int
    here: Positions


def seen_in_both(query: Keypoints, other: Keypoints) -> Seen:
    """The same for the same two, on every run and thread: OpenCV draws its tries from a fixed state for each call."""
    here, there = matches(query, other)
    shown = ~_drawn_on(query, other, here, there)
    here, there = here[shown], there[shown]
    kept = explained(query.pixels(here), other.pixels(there))
    here_kept, there_kept = here[kept], there[kept]
    cells = min(_cells(query, here_kept), _cells(other, there_kept))
    return Seen(len(here), len(here_kept), cells, here_kept)


def explained(here: NDArray[np.float32], there: NDArray[np.float32]) -> NDArray[np.bool_]:
    """bool [n]: which matches one movement of the camera explains. here, there: float32 [n, 2], pixels of each."""
    if len(here) < LEAST_MATCHES:
        return np.zeros(len(here), bool)
    try:
        _, kept = cv2.findFundamentalMat(here, there, cv2.USAC_MAGSAC, NEAR_PX, CONFIDENCE, MOST_TRIES)
    except cv2.error:
        # OpenCV 5.0.0 raises on many a flat wall with two wrong matches beside it; then the wall's plane is looked for.
        _, kept = cv2.findHomography(here, there, cv2.USAC_MAGSAC, NEAR_PX, maxIters=MOST_TRIES, confidence=CONFIDENCE)
    return np.zeros(len(here), bool) if kept is None else kept[:, 0].astype(bool)


def _drawn_on(query: Keypoints, other: Keypoints, here: Positions, there: Positions) -> NDArray[np.bool_]:
    """Matches in the margin that lie equally far from the edges of both pictures: frames, dates, bars of an app."""
    ours, theirs = _from_edges(query, here), _from_edges(other, there)
    in_margin = (np.abs(ours) < np.array(query.frame) / CELLS).any(axis=1)
    on_one_spot: NDArray[np.bool_] = (np.abs(ours - theirs) <= SAME_SPOT_PX).all(axis=1)
    return in_margin & on_one_spot


def _from_edges(of: Keypoints, which: Positions) -> NDArray[np.float32]:
    """float32 [len(which), 2]: pixels from the left or the right edge, whichever is nearer, and from the upper or lower
    one; to the right and the lower one they are below 0."""
    pixels, frame = of.pixels(which), np.array(of.frame, np.float32)
    return np.where(pixels < frame / 2, pixels, pixels - frame)


def _cells(of: Keypoints, which: Positions) -> int:
    share = of.pixels(which) / np.array(of.frame, np.float32)
    column, row = (share * CELLS).astype(int).clip(0, CELLS - 1).T
    return len(np.unique(row * CELLS + column))
