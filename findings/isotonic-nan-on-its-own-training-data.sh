#!/bin/bash
# What one would guess: isotonic regression has a finite value for every point that it was fitted on.
# What happens: IsotonicRegression takes float32 scores near 1, as cosines of similar pictures are, and then predicts
# NaN for some of the very scores that it has learned from. As float64, or with out_of_bounds="clip", it does not.
# Versions and source: scikit-learn 1.9.1; sklearn/isotonic.py merges inputs that are nearer than a resolution, the
# least and the largest among them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import numpy as np
from sklearn.isotonic import IsotonicRegression

random = np.random.default_rng(0)
scores = np.float32(1) - random.random(5000).astype(np.float32) * np.float32(1e-5)
right = random.random(5000) < 0.5


def unknown(values, **options):
    return int(np.isnan(IsotonicRegression(**options).fit(values, right).predict(values)).sum())


plain, double, clipped = unknown(scores), unknown(scores.astype(np.float64)), unknown(scores, out_of_bounds="clip")
said = (
    f"scikit-learn {version('scikit-learn')}: {plain} of 5,000 training points are predicted as NaN; of float64 "
    f"{double}, with clip {clipped}"
)
sys.exit(print(f"holds: {said}") if plain > 0 and double == clipped == 0 else f"changed: {said}")
PY
