"""The benchmark of matching compares with OpenCV what is the same."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from benchmarks.matching import by_brute_force, matching, ours
from demo.scenes import Viewpoint, render
from worker.encoder.keypoints import keypoints


def views() -> list[Image.Image]:
    return [
        render(Viewpoint("canal-row", n, 0, 0, "noon", along, 21, 0), size=(320, 240)) for n, along in ((1, 0), (2, 4))
    ]


def test_opencv_finds_the_same_matches(tmp_path: Path) -> None:
    one, other = map(keypoints, views())

    found = ours(one, other)

    assert len(found) > 20
    assert found == by_brute_force(one, other)
    assert len({there for _, there in found}) == len(found)


def test_figures_are_of_all_pairs_of_neighbours(tmp_path: Path) -> None:
    paths = []
    for number, view in enumerate(views()):
        paths.append(tmp_path / f"{number}.png")
        view.save(paths[-1])

    figures = matching([*paths, paths[0]])

    assert figures["match_same"] == 1
    assert figures["match_speedup"] > 1
    assert 0 < figures["match_ms"] < figures["match_brute_force_ms"]
