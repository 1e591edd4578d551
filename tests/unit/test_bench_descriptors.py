"""What `make bench-descriptors` compares with, where a mistake would spoil a figure without a word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from benchmarks.described import along, averaged, corners, grey_sky, sky
from benchmarks.descriptors import as_given, as_nearest
from worker.core.types import Pixels
from worker.core.vectors import Vectors, unit_rows
from worker.place.exam import Examined

PHOTO = np.random.default_rng(3).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def street() -> Pixels:
    """Blue above, a wall with windows below, and a pane as blue as the sky within it."""
    picture = np.zeros((224, 224, 3), dtype=np.uint8)
    picture[:100] = (150, 180, 230)
    picture[100:] = (120, 90, 80)
    picture[104::8] = 20
    picture[100:, ::8] = 20
    picture[140:180, 140:180] = (150, 180, 230)
    return picture


def test_squares_along_a_photo_are_all_of_it_and_one_size() -> None:
    for photo in (PHOTO, PHOTO.transpose(1, 0, 2)):
        squares = along(photo)

        assert [square.shape for square in squares] == [(60, 60, 3)] * 3
        np.testing.assert_array_equal(squares[0], photo[:60, :60])
        np.testing.assert_array_equal(squares[2], photo[-60:, -60:])
    assert [part.shape[:2] for part in corners(PHOTO)] == [(60, 80)] + [(40, 40)] * 4


def test_a_photo_is_the_mean_of_its_own_parts_whoever_is_described_with_it() -> None:
    def describe(parts: Sequence[Pixels]) -> Vectors:
        return unit_rows(np.array([part.mean(axis=(0, 1)) for part in parts], dtype=np.float32))

    other = np.flip(PHOTO, axis=2) // 2
    together = averaged(along, describe, [PHOTO, other])

    np.testing.assert_allclose(together[1:], averaged(along, describe, [other]), atol=1e-6)
    np.testing.assert_allclose(together[0], unit_rows(describe(along(PHOTO)).mean(axis=0)[None])[0], atol=1e-6)


def test_sky_reaches_the_upper_border_and_is_no_pane() -> None:
    mask = sky(street())

    assert mask[:22].mean() > 0.9
    assert not mask[27:].any()
    assert not sky(street()[::-1].copy()).all(axis=1).any(), "a wall above is none"
    grey = grey_sky(street())
    assert (grey[:88] == 127).mean() > 0.9
    np.testing.assert_array_equal(grey[110:], street()[110:])


@pytest.mark.parametrize(("neighbours", "right"), [((10.0, 900.0), True), ((900.0, 10.0), False), ((), False)])
def test_the_nearest_photo_alone_says_whether_it_was_recalled(neighbours: tuple[float, ...], right: bool) -> None:
    asked = Examined(1, True, 1, 10.0, 20.0, "exif_gps", 0, False, "unverified", neighbours_m=neighbours)

    nearest = as_nearest(asked)

    assert nearest.located
    assert nearest.right(50.0) is right


def test_a_best_place_that_was_withheld_counts_as_if_it_were_given() -> None:
    placed: dict[str, Any] = {"point": (10.0, 20.0), "radius_m": 20.0, "confidence": 0.3}
    withheld = Examined(1, True, 1, 10.0, 20.0, "exif_gps", 0, False, "unverified", **placed)
    nowhere = Examined(1, True, 1, 10.0, 20.0, "exif_gps", 0, False, "unverified")

    assert as_given(withheld).located
    assert as_given(withheld).right(50.0)
    assert as_given(nowhere) is nowhere
