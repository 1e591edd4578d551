"""Keypoints are compared on the same pairs, and every way of matching finds what brute force finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.feature_peers import load, save
from benchmarks.features import judged, pairs_of
from benchmarks.matchers import BRUTE, Rooted, compared
from demo.scenes import render, viewpoints, write_scenes
from worker.core.geo import distance_m
from worker.manifest import read_manifest


def test_matches_come_back_from_a_file_pair_by_pair(tmp_path: Path) -> None:
    found = [(np.full((count, 2), count, np.float32), np.full((count, 2), -count, np.float32)) for count in (3, 0, 1)]

    save(tmp_path / "found.npz", found)

    assert [(here.tolist(), there.tolist()) for here, there in load(tmp_path / "found.npz")] == [
        (here.tolist(), there.tolist()) for here, there in found
    ]


def test_pairs_are_of_one_place_or_of_two_and_as_many_of_each(tmp_path: Path) -> None:
    write_scenes(tmp_path / "drawn", places=2, views=3, size=(80, 60))
    (tmp_path / "small").mkdir()

    files, near, far = pairs_of(tmp_path / "drawn", tmp_path / "small", 4)

    points = [(item.lat or 0.0, item.lon or 0.0) for item in read_manifest(tmp_path / "drawn" / "manifest.csv")]
    assert len(files) == 6
    assert len(near) == len(far) == 4
    assert all(distance_m(*points[here], *points[there]) <= 50 for here, there in near)
    assert all(distance_m(*points[here], *points[there]) > 1_000 for here, there in far)


def test_every_way_of_matching_finds_about_what_brute_force_finds() -> None:
    pictures = [Rooted.of(render(viewpoint, size=(320, 240))) for viewpoint in viewpoints(places=1, views=4)[:2]]

    figures, found = compared(pictures, [(0, 1)])

    brute = figures[BRUTE]["matches"]
    assert brute > 20
    assert figures[BRUTE]["speedup"] == 1.0
    assert all(abs(figures[name]["matches"] - brute) <= 0.2 * brute for name in found)


def test_what_tells_all_pairs_apart_has_a_precision_and_a_recall_of_one() -> None:
    here = np.random.default_rng(0).uniform(50, 400, (60, 2)).astype(np.float32)
    nothing = np.zeros((0, 2), np.float32)

    assert judged([(here, here + 3), (nothing, nothing)], [True, False]) == {"average_precision": 1.0, "recall": 1.0}
    assert judged([(nothing, nothing), (here, here + 3)], [True, False])["recall"] == 0.0
