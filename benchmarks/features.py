"""Which keypoints tell pictures of one place from others, and what they and their matchers cost.

    python -m benchmarks.features [--quick] [--photos FOLDER]

JSON goes to stdout on one line, progress and tables to stderr. All is done on one thread.

**Pairs** are two photos taken within 50 m of each other, or more than 1 km apart, as many of each: of the folder's
photos, or of streets drawn by the demo where none is given. *Average precision* is that of the inliers of one
fundamental matrix, counted alike for all (worker/place/geometry.py); *recall* the share of pairs of one place with
more inliers than every pair of two places. *Turned* is the second photo of each pair turned by 90 degrees.
Pictures are 640 pixels long. A slow contender (feature_peers.py) is asked about the first FEW of each kind, and all
are judged by these once more: `features_on_few`, whose times are of all that the contender was asked about.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from sklearn.metrics import average_precision_score
from threadpoolctl import threadpool_limits

from benchmarks import matchers
from benchmarks.feature_peers import CONTENDERS, MOST, Contender, Matched, Pair, extracted, load, matched_by
from benchmarks.matchers import OURS, Rooted, root_sift
from benchmarks.measure import Vectors
from benchmarks.photos import listed
from benchmarks.processes import ask, python_of
from benchmarks.report import console, machine, step, table, tell, workplace
from demo.scenes import place_names, write_scenes
from worker.core.geo import distance_m
from worker.core.keypoints import Keypoints
from worker.encoder.keypoints import SIDE_PX, keypoints
from worker.place.geometry import explained
from worker.place.matching import matches

NEAR_M, FAR_M = 50.0, 1_000.0
#: Pairs of each kind, and those that slow ones are asked about; of both together, those that are matched in every way.
PAIRS, QUICK_PAIRS, FEW, MATCHED_PAIRS = 60, 10, 30, 40
VIEWS = 8
#: Of our keypoints, the strongest that are tried alone.
FEWER = (1_000, 500)
PEER_LIMIT_S = 1_200.0
SHOWN = (
    *("extract_ms", "bytes", "match_ms"),
    *("average_precision", "recall", "turned_average_precision", "turned_recall"),
)
LICENCES = ("version", "code", "weights")

#: Of each photo, the picture that is looked at, and the same turned by 90 degrees.
Files = list[tuple[Path, Path]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description="Measure keypoints.")
    parser.add_argument("--photos", type=Path, help="compare these, too: a folder with a manifest.csv")
    parser.add_argument("--quick", action="store_true", help="fewer pairs")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    most = QUICK_PAIRS if options.quick else PAIRS
    with workplace("features") as folder, threadpool_limits(1):
        photos: Path | None = options.photos
        if photos is None:
            photos = folder / "drawn"
            with step("draw"):
                write_scenes(photos, places=len(place_names()), views=VIEWS)
        (folder / "small").mkdir()
        files, near, far = pairs_of(photos, folder / "small", most)
        every, few = Asked.of(files, near, far), Asked.of(files, near[:FEW], far[:FEW])
        features, on_few = of_contenders(every, few, folder)
        console.print(table(f"Keypoints, {every}", features, SHOWN))
        console.print(table(f"Keypoints, {few}", on_few, SHOWN))
        console.print(table("Licences", {name: row for name, row in on_few.items() if "code" in row}, LICENCES))
        ways = of_ways(files, near[: MATCHED_PAIRS // 2], far[: MATCHED_PAIRS // 2])
        console.print(table("Matching", ways))
    found = {"features": features, "features_on_few": on_few, "matchers": ways, "match_speedup": ways[OURS]["speedup"]}
    tell(found | {"machine": machine("numpy", "opencv-python-headless", "onnxruntime", "torch")})


@dataclass(frozen=True, slots=True)
class Asked:
    """Files of pairs, as they are and then with the second photo turned; of the former, which are of one place."""

    pairs: list[tuple[Path, Path]]
    labels: list[bool]

    @classmethod
    def of(cls, files: Files, near: Sequence[Pair], far: Sequence[Pair]) -> Asked:
        pairs = [(files[here][0], files[there][turned]) for turned in (0, 1) for here, there in (*near, *far)]
        return cls(pairs, [True] * len(near) + [False] * len(far))

    def __str__(self) -> str:
        return f"{self.labels.count(True)} pairs of one place and {self.labels.count(False)} of two"

    def paths(self) -> list[Path]:
        return sorted({path for pair in self.pairs for path in pair})

    def positions(self) -> list[Pair]:
        """Of the pairs' files, among the paths."""
        at = {path: position for position, path in enumerate(self.paths())}
        return [(at[here], at[there]) for here, there in self.pairs]

    def told(self, found: Sequence[Matched]) -> dict[str, Any]:
        """Figures of the matches of all its pairs."""
        upright, turned = found[: len(self.labels)], found[len(self.labels) :]
        figures = {"true_pairs": sum(self.labels), "false_pairs": self.labels.count(False)}
        of_turned = {f"turned_{name}": value for name, value in judged(turned, self.labels).items()}
        return figures | judged(upright, self.labels) | of_turned


def of_contenders(every: Asked, few: Asked, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of those that are asked about every pair, and of all on the few."""
    on_every: dict[str, Any] = {}
    on_few: dict[str, Any] = {}

    def add(name: str, costs: dict[str, Any], found: Sequence[Matched]) -> None:
        of_pair = dict(zip(every.pairs, found, strict=True))
        on_every[name] = costs | every.told(found)
        on_few[name] = costs | few.told([of_pair[pair] for pair in few.pairs])

    pairs = every.positions()
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in every.paths()]
    for name, contender in {
        f"RootSIFT, float32, {MOST:,}": in_floats(),
        f"RootSIFT, 5 bits, {MOST:,} (ours)": kept(),
    }.items():
        with step(name):
            features, costs = extracted(contender, pictures)
            found, match_ms = matched_by(contender, features, pairs)
        add(name, costs | {"match_ms": match_ms}, found)
    for count in FEWER:
        with step(f"of these, the {count:,} strongest"):
            fewer = [Keypoints(one.points[:count], one.descriptions[:count], one.frame) for one in features]
            found, match_ms = matched_by(kept(), fewer, pairs)
        size = round(float(np.mean([len(one.to_bytes()) for one in fewer])))
        add(f"RootSIFT, 5 bits, {count:,}", costs | {"bytes": size, "match_ms": match_ms}, found)
    for environment, peers in CONTENDERS.items():
        for name, peer in peers.items():
            with step(name):
                costs, found = of_peer(environment, name, few if peer.slow else every, folder / "matched.npz")
            if "skipped" in costs:
                on_every[name] = on_few[name] = costs
            elif peer.slow:
                on_few[name] = costs | few.told(found)
            else:
                add(name, costs, found)
    return on_every, on_few


def of_peer(environment: str, name: str, asked: Asked, matched: Path) -> tuple[dict[str, Any], list[Matched]]:
    """What it costs, with its licences, and what it matches; or {"skipped": reason}, and nothing."""
    request = {
        "environment": environment,
        "contender": name,
        "photos": [str(path) for path in asked.paths()],
        "pairs": asked.positions(),
        "matched": str(matched),
    }
    costs = ask(python_of(environment), "benchmarks.feature_peers", request, timeout_s=PEER_LIMIT_S)
    if "skipped" in costs:
        return costs, []
    code, weights = CONTENDERS[environment][name].licence
    return costs | {"code": code, "weights": weights}, load(matched)


def of_ways(files: Files, near: Sequence[Pair], far: Sequence[Pair]) -> dict[str, dict[str, Any]]:
    """Figures of each way of matching RootSIFT."""
    chosen = [*near, *far]
    used = sorted({at for pair in chosen for at in pair})
    with step(f"{len(chosen)} pairs by each way of matching"):
        pictures = [Rooted.of(Image.open(files[at][0])) for at in used]
        ways, found = matchers.compared(pictures, [(used.index(here), used.index(there)) for here, there in chosen])
    return {name: ways[name] | judged(found[name], [True] * len(near) + [False] * len(far)) for name in ways}


def pairs_of(photos: Path, small: Path, most: int) -> tuple[Files, list[Pair], list[Pair]]:
    """Files of the photos; pairs of one place, and of two."""
    known, files = listed(photos), Files()
    for number, photo in enumerate(known):
        picture = Image.open(photo.photo.path or "").convert("RGB")
        picture.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
        files.append((small / f"{number}.png", small / f"{number}-turned.png"))
        picture.save(files[-1][0])
        picture.transpose(Image.Transpose.ROTATE_90).save(files[-1][1])
    near, far = list[Pair](), list[Pair]()
    for here, there in combinations(range(len(known)), 2):
        one, other_one = known[here], known[there]
        apart = distance_m(*(value or 0.0 for value in (one.lat, one.lon, other_one.lat, other_one.lon)))
        if apart <= NEAR_M:
            near.append((here, there))
        elif apart > FAR_M:
            far.append((here, there))
    chance = random.Random(0)
    count = min(most, len(near), len(far))
    return files, chance.sample(near, count), chance.sample(far, count)


def in_floats() -> Contender:
    by_product = matchers.ways()["numpy, float32"][1]

    def match(one: tuple[Vectors, Vectors], other: tuple[Vectors, Vectors]) -> Matched:
        here, there = by_product(one[1], other[1])
        return one[0][here], other[0][there]

    return Contender(
        lambda pixels: root_sift(Image.fromarray(pixels)), match, lambda one: one[0].nbytes + one[1].nbytes
    )


def kept() -> Contender:
    """Ours."""

    def match(one: Keypoints, other: Keypoints) -> Matched:
        here, there = matches(one, other)
        return one.pixels(here), other.pixels(there)

    return Contender(lambda pixels: keypoints(Image.fromarray(pixels)), match, lambda one: len(one.to_bytes()))


def judged(found: Sequence[Matched], labels: Sequence[bool]) -> dict[str, float]:
    inliers = np.array([explained(here, there).sum() for here, there in found])
    same = np.array(labels)
    return {
        "average_precision": round(float(average_precision_score(same, inliers)), 4),
        "recall": round(float((inliers[same] > inliers[~same].max()).mean()), 3),
    }


if __name__ == "__main__":
    main()
