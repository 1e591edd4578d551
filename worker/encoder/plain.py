"""Whether a picture is a page or a screen instead of a view of the world, by its pixels alone. Knows no model or file.

Text on paper and on screens has few colours, and hardly anything between flat and sharp: a photo of the world has
shades everywhere. Caught are scans, and screenshots of text, also as JPEG of quality 75; about half of them when they
were made half as large. Not caught are photos of paper or screens, charts, maps, and screens that show photos.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worker.core.types import Pixels

#: Every so many rows are looked at.
ROWS = 16
#: A colour is one of 16 x 16 x 16, and so many of them must cover this share of a page. Of 53 photos four colours cover
#: 0.43 at the most, by night (a seventh of the light) 0.94.
COLOURS, COVERED = 4, 0.7
#: Steps between neighbours in a row, in any channel of 255, that are flat up to the one and sharp beyond the other.
FLAT, SHARP = 2, 24
#: Least share of sharp steps, and the most that is neither flat nor sharp among what is not flat. Of 53 photos, by day
#: and by night, 0.76 is the least; of pages and screens 0.14 to 0.5.
LEAST_SHARP, MOST_BETWEEN = 0.05, 0.6


def is_page(pixels: Pixels) -> bool:
    """pixels: uint8 [height, width, 3]."""
    rows = pixels[::ROWS]
    colours = np.bincount(_colours(rows[:, ::2]), minlength=1)
    if np.sort(colours)[-COLOURS:].sum() < COVERED * colours.sum():
        return False
    steps = np.abs(np.diff(rows.astype(np.int16), axis=1)).max(axis=2)
    sharp, between = np.mean(steps > SHARP), np.mean((steps > FLAT) & (steps <= SHARP))
    return bool(sharp >= LEAST_SHARP and between <= MOST_BETWEEN * (sharp + between))


def _colours(pixels: Pixels) -> NDArray[np.int64]:
    red, green, blue = (pixels >> 4).reshape(-1, 3).astype(np.int64).T
    return (red << 8) | (green << 4) | blue
