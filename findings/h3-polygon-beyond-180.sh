#!/bin/bash
# What one would guess: a rectangle from 170 to 190 degrees of longitude, as GeoJSON's libraries write it across the
# 180th meridian, covers what its two halves cover, or is refused.
# What happens: H3 gives the cells of one half and says nothing; one from 350 to 370 gives no cell at all. With 170 to
# -170, which is the long way round on paper, it gives all.
# Versions and source: h3 4.5.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check h3==4.5.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import h3


def cells(west, east):
    corners = [(-20, west), (-10, west), (-10, east), (-20, east)]
    return set(h3.polygon_to_cells(h3.LatLngPoly(corners), 3))


halves = cells(170, 180) | cells(-180, -170)
beyond, other_way, round_the_world = cells(170, 190), cells(170, -170), cells(350, 370)
said = (
    f"h3 {version('h3')}: two halves {len(halves)} cells, 170 to 190 {len(beyond)}, 170 to -170 "
    f"{len(other_way)}, 350 to 370 {len(round_the_world)} where -10 to 10 has {len(cells(-10, 10))}"
)
holds = beyond < halves and len(beyond) < 0.7 * len(halves) and other_way == halves and not round_the_world
sys.exit(print(f"holds: {said}") if holds else f"changed: {said}")
PY
