#!/bin/bash
# What one would guess: neighbours that are equally near come in one order, by rising id, whichever the metric is.
# What happens: a flat index lists them by rising id for L2 and by falling id for inner products. It keeps the same
# ones, the first that were added, and lists them backwards: with k = 3 of ten equal vectors [2, 1, 0].
# Versions and source: faiss-cpu 1.15.1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import faiss
import numpy as np

one = np.full((1, 16), 0.25, dtype=np.float32)
ten = np.repeat(one, 10, axis=0)
found = {}
for name, index in (("inner product", faiss.IndexFlatIP(16)), ("L2", faiss.IndexFlatL2(16))):
    index.add(ten)
    found[name] = [index.search(one, k)[1][0].tolist() for k in (3, 10)]
said = f"faiss-cpu {version('faiss-cpu')}, ten equal vectors, k = 3 and 10: {found}"
holds = found["inner product"] == [[2, 1, 0], list(range(9, -1, -1))] and found["L2"] == [
    [0, 1, 2],
    list(range(10)),
]
sys.exit(print(f"holds: {said}") if holds else f"changed: {said}")
PY
