"""What speaks for the best place, in figures, and whether that is clear enough without any calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Of the features that a calibration learns from, in their order; all of them speak for the place.
NAMES: tuple[str, ...] = ("contrast", "ratio", "inliers", "explained", "margin", "share")
#: Inliers that chance gives at the most: 200 correspondences at random have 9 to 15 that one matrix explains.
CHANCE = 15
#: Least inliers of the best pair, and their cells: twice what chance gives, over more than a corner of the picture.
LEAST_INLIERS, LEAST_CELLS = 30, 6
#: Least contrast to every other place that was looked at: places that were never seen reached 3.7 at the most.
LEAST_CONTRAST = 4.0
#: Least share of the best pair's inliers over those of the best pair of any other place: of look-alike storeys 13 of 22
#: were right at 30 inliers alone, 6 of 8 with this margin besides.
LEAST_MARGIN = 1.5
#: Inliers that everybody is given: between two and three there is no ratio of meaning.
GIVEN = 4


@dataclass(frozen=True, slots=True)
class Strength:
    """similarity: of the best place's most similar picture. margin: by how much it is more similar than that of any
    other place. share: of the votes. spread_m: of the witnesses around their point. witnesses: pictures that speak for
    it. compared: pictures of any place that the photo was compared with by keypoints. matches, inliers, cells: of the
    best pair. contrast: to the other place that is hardest to tell from it. ratio: ln((a + 4) / (b + 4)) of the
    inliers of the best pair here, a, and at any other place, b. All finite. moment: what the camera's photos of minutes
    before and after say of the place (worker.place.moments); -1 by one camera alone."""

    similarity: float
    margin: float
    share: float
    spread_m: float
    witnesses: int
    compared: int
    matches: int
    inliers: int
    cells: int
    contrast: float
    ratio: float
    moment: int = 0

    @property
    def is_seen(self) -> bool:
        """Whether the photo shows what a picture of the place shows, whatever else looks like it."""
        return shows_it(self.inliers, self.cells)

    @property
    def stands_out(self) -> bool:
        """Whether no other place that was looked at shows it nearly as well."""
        return self.contrast >= LEAST_CONTRAST and self.ratio >= math.log(LEAST_MARGIN)

    @property
    def verified(self) -> bool:
        return self.is_seen and self.stands_out

    @property
    def out_of_reach(self) -> bool:
        """Whether the camera cannot have been there."""
        return self.moment < 0

    @property
    def explained(self) -> float:
        """Share of the best pair's matches that one movement of the camera explains: of a look-alike, parts match that
        lie otherwise."""
        return self.inliers / max(1, self.matches)

    @property
    def clearness(self) -> float:
        """What orders answers that no calibration judges, and is no probability: the share of the inliers of the best
        pair here and the best one elsewhere, a few more given to each."""
        return 1 / (1 + math.exp(-self.ratio))

    def features(self) -> list[float]:
        """By NAMES. Where pictures were compared similarity says nothing beside that: among look-alikes the margin even
        speaks against the place, because what is put first in spite of it is more often right."""
        if self.compared:
            return [self.contrast, self.ratio, math.log1p(self.inliers), self.explained, 0.0, 0.0]
        return [0.0, 0.0, 0.0, 0.0, self.margin, self.share]


def shows_it(inliers: int, cells: int) -> bool:
    return inliers >= LEAST_INLIERS and cells >= LEAST_CELLS


def ratio(here: int, elsewhere: int) -> float:
    return math.log((here + GIVEN) / (elsewhere + GIVEN))
