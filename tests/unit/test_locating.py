"""What a locate compares with, and what it does not read at all."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest

from tests.hits import hit
from worker.core.keypoints import COMPONENTS, Keypoints
from worker.library.locating import compare_with, rule_of
from worker.place.strength import LEAST_INLIERS
from worker.settings import Settings


class Kept:
    """Keypoints of every content; counts how often it is asked."""

    def __init__(self, keypoints: Keypoints) -> None:
        self.keypoints = keypoints
        self.reads: list[list[str]] = []

    def known(self, contents: Collection[str]) -> dict[str, Keypoints]:
        self.reads.append(sorted(contents))
        return dict.fromkeys(contents, self.keypoints)


def drawn(count: int) -> Keypoints:
    rng = np.random.default_rng(4)
    points = rng.integers(0, 640 * 64, (count, 2)).astype(np.uint16)
    return Keypoints(points, rng.integers(0, 32, (count, COMPONENTS)).astype(np.uint8), (640, 480))


@pytest.mark.parametrize(("count", "reads"), [(0, 0), (LEAST_INLIERS - 1, 0), (LEAST_INLIERS, 1)])
def test_of_a_photo_that_could_not_be_verified_by_any_nothing_is_read(count: int, reads: int) -> None:
    kept, hits = Kept(drawn(200)), [hit(1), hit(2)]
    compare = compare_with(drawn(count), hits, kept)  # type: ignore[arg-type]
    assert compare is not None

    seen = [compare(one) for one in hits]

    assert len(kept.reads) == reads
    assert all(one is not None and one.inliers < LEAST_INLIERS for one in seen)


def test_a_photo_that_was_not_looked_at_is_compared_with_nothing() -> None:
    assert compare_with(None, [hit(1)], Kept(drawn(9))) is None  # type: ignore[arg-type]


def test_the_similarity_that_a_caller_asks_for_holds_for_all_evidence() -> None:
    settings = Settings(_env_file=None, locate_pairs=7)

    assert (rule_of(settings).threshold, rule_of(settings).floor, rule_of(settings).pairs) == (0.75, -1.0, 7)
    assert (rule_of(settings, 0.9).threshold, rule_of(settings, 0.9).floor) == (0.9, 0.9)
