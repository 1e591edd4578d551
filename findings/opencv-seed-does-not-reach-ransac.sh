#!/bin/bash
# What one would guess: cv2.setRNGSeed makes the random choices of findFundamentalMat other ones, so that several
# seeds show how much its answer depends on luck.
# What happens: it changes nothing: every seed gives the same inliers, by RANSAC and by USAC_MAGSAC, and so does
# another order of calls. To draw again one must shuffle the points. Of 200 points that have nothing to do with each
# other it finds a matrix with ten inliers or so, each time the same.
# Versions and source: opencv-python-headless 5.0.0.93.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import cv2
import numpy as np

left, right = np.random.default_rng(0).random((2, 200, 2)).astype(np.float32) * 1000


def inliers(method, seed, order):
    cv2.setRNGSeed(seed)
    mask = cv2.findFundamentalMat(left[order], right[order], method, 1.0, 0.99, 2000)[1].ravel().astype(bool)
    return frozenset(order[mask].tolist())


seen = {}
as_it_is = np.arange(200)
for name in ("RANSAC", "USAC_MAGSAC"):
    method = getattr(cv2, name)
    by_seed = {inliers(method, seed, as_it_is) for seed in range(8)}
    by_order = {inliers(method, 0, np.random.default_rng(n).permutation(200)) for n in range(8)}
    seen[name] = (len(by_seed), len(by_order), len(next(iter(by_seed))))
said = (
    f"opencv {version('opencv-python-headless')}: different answers of 8 seeds, of 8 orders, and inliers among 200 "
    f"unrelated points: {seen}"
)
holds = all(seeds == 1 and orders > 1 and some >= 8 for seeds, orders, some in seen.values())
sys.exit(print(f"holds: {said}") if holds else f"changed: {said}")
PY
