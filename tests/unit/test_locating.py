"""What a locate compares with, and what it does not read at all."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from producer_client.contract import Hit
from tests.hits import hit
from worker.core.keypoints import COMPONENTS, Keypoints
from worker.library.comparing import Comparing
from worker.library.locating import rule_of
from worker.looks import Finding, found
from worker.place.geometry import Seen
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


def compare(own: Finding, hits: list[Hit], kept: Kept, most: int = 20) -> dict[int, Seen | None]:
    return Comparing(kept, own)(hits, most)  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "reads"), [(0, 0), (LEAST_INLIERS - 1, 0), (LEAST_INLIERS, 1)])
def test_of_a_photo_that_could_not_be_verified_by_any_nothing_is_read(count: int, reads: int) -> None:
    kept = Kept(drawn(200))

    seen = compare(found(drawn(count)), [hit(1), hit(2)], kept)

    assert len(kept.reads) == reads
    assert seen.keys() == {1, 2}
    assert all(one is not None and one.inliers < LEAST_INLIERS for one in seen.values())


def test_a_photo_that_was_not_looked_at_is_compared_with_nothing() -> None:
    assert compare(found(None), [hit(1)], Kept(drawn(9))) == {}


def test_what_is_compared_is_read_while_the_photo_is_looked_at() -> None:
    class Looked(Future[Keypoints | None]):
        def result(self, timeout: float | None = None) -> Keypoints | None:
            assert self.done(), "nothing is read meanwhile"
            return super().result(timeout)

    own = Looked()

    class Slow(Kept):
        def known(self, contents: Collection[str]) -> dict[str, Keypoints]:
            assert not own.done()
            own.set_result(drawn(200))
            return super().known(contents)

    kept = Slow(drawn(200))

    assert all(seen is not None and seen.inliers > 0 for seen in compare(own, [hit(1), hit(2)], kept).values())
    assert len(kept.reads) == 1


def test_only_what_is_compared_is_read_and_that_once_whoever_asks() -> None:
    lacking = hit(2).content_sha256

    class Some(Kept):
        def known(self, contents: Collection[str]) -> dict[str, Keypoints]:
            return {name: one for name, one in super().known(contents).items() if name != lacking}

    kept, hits = Some(drawn(200)), [hit(number) for number in range(1, 8)]
    comparing = Comparing(kept, found(drawn(200)))  # type: ignore[arg-type]

    first, again = comparing(hits, 3), comparing(hits[1:], 4)

    # One that lacks its keypoints takes no other's turn.
    assert [photo_id for photo_id, seen in first.items() if seen is None] == [2]
    assert (list(first), list(again)) == ([1, 2, 3, 4], [2, 3, 4, 5, 6])
    assert again[3] is first[3]
    names = [name for read in kept.reads for name in read]
    assert sorted(names) == sorted(one.content_sha256 for one in hits[:6])


def test_several_at_a_time_see_the_same_as_one_after_the_other() -> None:
    own, hits = drawn(200), [hit(number) for number in range(1, 8)]
    others = {
        one.content_sha256: Keypoints(own.points[:count], own.descriptions[:count], own.frame)
        for one, count in zip(hits, range(80, 220, 20), strict=True)
    }

    class Different(Kept):
        def known(self, contents: Collection[str]) -> dict[str, Keypoints]:
            return {name: others[name] for name in contents}

    with ThreadPoolExecutor(4) as pool:
        at_once = Comparing(Different(own), found(own), mapped=pool.map)(hits, 20)  # type: ignore[arg-type]
    in_turn = compare(found(own), hits, Different(own))

    figures = {photo_id: (seen.matches, seen.inliers, seen.cells) for photo_id, seen in in_turn.items() if seen}
    assert {photo_id: (one.matches, one.inliers, one.cells) for photo_id, one in at_once.items() if one} == figures
    assert len(set(figures.values())) == len(hits)


def test_the_similarity_that_a_caller_asks_for_holds_for_all_evidence() -> None:
    settings = Settings(_env_file=None, locate_pairs=7)

    assert (rule_of(settings).threshold, rule_of(settings).floor, rule_of(settings).pairs) == (0.75, -1.0, 7)
    assert (rule_of(settings, 0.9).threshold, rule_of(settings, 0.9).floor) == (0.9, 0.9)
    assert (rule_of(Settings(locate_threshold=0.6)).threshold, rule_of(settings).floor) == (0.6, -1.0)
