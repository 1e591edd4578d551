#!/bin/bash
# What one would guess: FAISS's SuperKMeans is a quicker k-means and clusters what its k-means does.
# What happens: it wants 32 numbers a vector at least and raises for 31, which its Clustering takes as it takes all
# others.
# Versions and source: faiss-cpu 1.15.1, faiss/SuperKMeans.cpp: the dimension must be twice `d_prime_min`.
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


def trained(make, dimension):
    vectors = np.random.default_rng(0).normal(size=(2000, dimension)).astype(np.float32)
    try:
        return make(dimension, vectors) or "trains"
    except RuntimeError as exc:
        return "refuses: " + str(exc).rpartition("failed: ")[2]


super_kmeans = [trained(lambda d, v: faiss.SuperKMeans(d, 16).train(v), d) for d in (31, 32)]
kmeans = trained(lambda d, v: faiss.Kmeans(d, 16, niter=2).train(v) and None, 31)
said = f"faiss-cpu {version('faiss-cpu')}: of 31 and 32 numbers SuperKMeans {super_kmeans}, Kmeans of 31 {kmeans}"
holds = super_kmeans[0].startswith("refuses") and super_kmeans[1] == kmeans == "trains"
sys.exit(print(f"holds: {said}") if holds else f"changed: {said}")
PY
