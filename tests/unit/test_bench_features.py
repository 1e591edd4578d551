"""Keypoints are compared on the same pairs, and every way of matching finds what brute force finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import features
from benchmarks.feature_peers import Matched, Pair, load, save
from benchmarks.features import Asked, Files, judged, of_contenders, pairs_of
from benchmarks.matchers import BRUTE, Rooted, compared
from demo.scenes import render, viewpoints, write_scenes
from worker.core.geo import distance_m
from worker.manifest import read_manifest

NOTHING: Matched = (np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32))
SCATTERED = np.random.default_rng(0).uniform(50, 400, (60, 2)).astype(np.float32)
STRONG: Matched = (SCATTERED, SCATTERED + np.float32(3))


def drawn(folder: Path) -> tuple[Files, list[Pair], list[Pair]]:
    """Four pairs of each kind."""
    write_scenes(folder / "drawn", places=2, views=3, size=(80, 60))
    (folder / "small").mkdir()
    return pairs_of(folder / "drawn", folder / "small", 4)


def test_matches_come_back_from_a_file_pair_by_pair(tmp_path: Path) -> None:
    found = [(np.full((count, 2), count, np.float32), np.full((count, 2), -count, np.float32)) for count in (3, 0, 1)]

    save(tmp_path / "found.npz", found)

    assert [(here.tolist(), there.tolist()) for here, there in load(tmp_path / "found.npz")] == [
        (here.tolist(), there.tolist()) for here, there in found
    ]


def test_pairs_are_of_one_place_or_of_two_and_as_many_of_each(tmp_path: Path) -> None:
    files, near, far = drawn(tmp_path)

    points = [(item.lat or 0.0, item.lon or 0.0) for item in read_manifest(tmp_path / "drawn" / "manifest.csv")]
    assert len(files) == 6
    assert len(near) == len(far) == 4
    assert all(distance_m(*points[here], *points[there]) <= 50 for here, there in near)
    assert all(distance_m(*points[here], *points[there]) > 1_000 for here, there in far)


def test_pairs_are_asked_as_they_are_and_then_with_the_second_photo_turned() -> None:
    files = [(Path(f"{number}"), Path(f"{number}-turned")) for number in range(3)]

    asked = Asked.of(files, [(0, 1)], [(1, 2)])

    upright, turned = [("0", "1"), ("1", "2")], [("0", "1-turned"), ("1", "2-turned")]
    assert asked.pairs == [(Path(here), Path(there)) for here, there in upright + turned]
    assert [(asked.paths()[here], asked.paths()[there]) for here, there in asked.positions()] == asked.pairs
    assert str(asked) == "1 pairs of one place and 1 of two"
    assert asked.told([STRONG, NOTHING, NOTHING, STRONG]) == {
        "true_pairs": 1,
        "false_pairs": 1,
        "average_precision": 1.0,
        "recall": 1.0,
        "turned_average_precision": 0.5,
        "turned_recall": 0.0,
    }


def test_a_slow_contender_is_asked_about_fewer_pairs_and_all_are_judged_by_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, near, far = drawn(tmp_path)
    every, few = Asked.of(files, near, far), Asked.of(files, near[-1:], far[-1:])
    asked: dict[str, list[tuple[Path, Path]]] = {}

    def ask(_python: Path, _module: str, request: dict[str, Any], **_: float) -> dict[str, Any]:
        """A contender that knows the few pairs and no others."""
        paths = [Path(path) for path in request["photos"]]
        pairs = [(paths[here], paths[there]) for here, there in request["pairs"]]
        asked[request["contender"]] = pairs
        save(Path(request["matched"]), [STRONG if pair == few.pairs[0] else NOTHING for pair in pairs])
        return {"skipped": "it fails"} if request["contender"] == "ORB + BEBLID" else {"match_ms": 1.0}

    monkeypatch.setattr(features, "ask", ask)

    on_every, on_few = of_contenders(every, few, tmp_path)

    assert asked == {"ORB + BEBLID": every.pairs, "XFeat": every.pairs, "ALIKED + LightGlue": few.pairs}
    assert set(on_few) == set(on_every) | {"ALIKED + LightGlue"}
    assert on_every["ORB + BEBLID"] == on_few["ORB + BEBLID"] == {"skipped": "it fails"}
    assert (on_every["XFeat"]["true_pairs"], on_every["XFeat"]["false_pairs"]) == (4, 4)
    assert on_every["XFeat"]["recall"] == 0.25
    for name in ("XFeat", "ALIKED + LightGlue"):
        assert (on_few[name]["true_pairs"], on_few[name]["false_pairs"], on_few[name]["recall"]) == (1, 1, 1.0)
        assert on_few[name]["code"]
        assert on_few[name]["weights"]


def test_every_way_of_matching_finds_about_what_brute_force_finds() -> None:
    pictures = [Rooted.of(render(viewpoint, size=(320, 240))) for viewpoint in viewpoints(places=1, views=4)[:2]]

    figures, found = compared(pictures, [(0, 1)])

    brute = figures[BRUTE]["matches"]
    assert brute > 20
    assert figures[BRUTE]["speedup"] == 1.0
    assert all(abs(figures[name]["matches"] - brute) <= 0.2 * brute for name in found)


def test_what_tells_all_pairs_apart_has_a_precision_and_a_recall_of_one() -> None:
    assert judged([STRONG, NOTHING], [True, False]) == {"average_precision": 1.0, "recall": 1.0}
    assert judged([NOTHING, STRONG], [True, False])["recall"] == 0.0
