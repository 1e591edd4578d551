"""By how much a photo looks more like one place than like another, where both look like it.

Two storeys of one building share most of what a camera sees; what they share speaks for neither. So only the keypoints
count that one place has and the other lacks: (a - b) / sqrt(a + b), as McNemar compares two tests on one sample (1947).
It is about 0 for a place that is not known, however much of it looks like those that are. Knows no positions.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence


def contrast(found: Collection[int], rivals: Sequence[Collection[int]]) -> float:
    """The least over the rivals; against nothing where there are none.

    found, rivals: positions of the photo's keypoints that were seen in any photo of the place, and of each other one.
    """
    here = set(found)
    return min((_against(here, set(rival)) for rival in rivals), default=_against(here, set()))


def _against(here: set[int], there: set[int]) -> float:
    only_here, only_there = len(here - there), len(there - here)
    return (only_here - only_there) / math.sqrt(max(1, only_here + only_there))
