"""What a picture has that another of the same place has too: its corners and blobs, each with a description.

RootSIFT (Lowe, Distinctive Image Features from Scale-Invariant Keypoints, 2004; Arandjelović and Zisserman, Three
things everyone should know to improve object retrieval, 2012). Knows pixels, no model or file. How two pictures are
compared by them is worker.place.matching's and worker.place.geometry's to say.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from worker.core.keypoints import LEVELS, POINT_STEPS, Keypoints
from worker.core.types import Decoded

#: The longer side, in pixels, of what is looked at: larger ones have more keypoints than are kept.
SIDE_PX = 640
#: Keypoints that are kept of a picture, the strongest first. 1,000 found 91 of 100 pairs that 1,500 find.
MOST = 1_500
#: Contrast, of 1, that a keypoint must have. As many as are kept are found at night and in fog, too: of 53 photos at an
#: eighth of their light 43 were located with OpenCV's 0.04, and 52 so. What noise alone shows lies below.
LEAST_CONTRAST = 0.01
#: Largest component of a description whose components' squares add up to 1: what is larger counts as this.
LARGEST = 0.37

# As many photos are looked at side by side as the settings say; none of them takes all cores for itself.
cv2.setNumThreads(1)
# One for all threads: it holds no state between calls. Keypoints lie a quarter of a pixel off unless it is told.
_SIFT = cv2.SIFT.create(nfeatures=MOST, contrastThreshold=LEAST_CONTRAST, enable_precise_upscale=True)


def keypoints(image: Image.Image) -> Keypoints:
    """The keypoints of an upright RGB picture of any size, at most MOST; none of a plain one."""
    seen = image.convert("L")
    seen.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS, reducing_gap=2.0)
    found, described = _SIFT.detectAndCompute(np.asarray(seen), None)
    if not found:
        return Keypoints.none(seen.size)
    # SIFT gives a few more than it was asked for where several are equally strong.
    strongest = np.argsort([-point.response for point in found], kind="stable")[:MOST]
    described = described[strongest]
    roots = np.sqrt(described / np.maximum(described.sum(axis=1, keepdims=True), 1.0))
    levels = np.minimum(np.rint(roots * ((LEVELS - 1) / LARGEST)), LEVELS - 1).astype(np.uint8)
    points = np.array([found[n].pt for n in strongest], dtype=np.float32)
    return Keypoints(np.rint(points * POINT_STEPS).clip(0, 65_535).astype(np.uint16), levels, seen.size)


def find_keypoints(
    content: bytes,
    decoded: Decoded,
    *,
    side: int,
    max_megapixels: float,
    decode: Callable[..., Decoded],
) -> Keypoints:
    """The keypoints of a photo that was decoded for an encoder of this side. Where that took fewer pixels than are
    looked at, and the file has more, it is decoded again.

    decode: as worker.encoder.images has it. Raises PhotoRefusal.
    """
    pixels = decoded.pixels
    if decoded.reduced and max(pixels.shape[:2]) < SIDE_PX:
        pixels = decode(content, side=side, max_megapixels=max_megapixels, longer_side=SIDE_PX).pixels
    return keypoints(Image.fromarray(pixels))
