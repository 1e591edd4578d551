#!/bin/bash
# What one would guess: of a JPEG of 1,000 pixels, of which 600 are wanted, libjpeg can give 1,000 or 500: it reduces
# by powers of two, as Pillow's `draft` does.
# What happens: simplejpeg gives 625: libjpeg-turbo reduces to every n/8 of the size, and it takes the least that is
# enough. Code that counts on Pillow's sizes gets others.
# Versions and source: simplejpeg 1.9.0, Pillow 13.0.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check simplejpeg==1.9.0 pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import io
import sys
from importlib.metadata import version

import simplejpeg
from PIL import Image

file = io.BytesIO()
Image.effect_noise((1000, 1000), 40).convert("RGB").save(file, "JPEG")
image = Image.open(io.BytesIO(file.getvalue()))
image.draft("RGB", (600, 600))
wanted = (130, 260, 400, 510, 600, 800, 880)
sides = [simplejpeg.decode_jpeg(file.getvalue(), "RGB", min_height=w, min_width=w).shape[0] for w in wanted]
said = (
    f"simplejpeg {version('simplejpeg')} gives {sides} pixels where {list(wanted)} of 1,000 are wanted; "
    f"Pillow {version('pillow')}, of 600, {image.size[0]}"
)
holds = sides == [250, 375, 500, 625, 625, 875, 1000] and image.size == (1000, 1000)
sys.exit(print(f"holds: {said}") if holds else f"changed: {said}")
PY
