"""A picture's keypoints: what is found in pictures of all kinds, and the bytes as which they are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from worker.core.keypoints import COMPONENTS, LEVELS, POINT_STEPS, VERSION, Keypoints


@st.composite
def some_keypoints(draw: st.DrawFn) -> Keypoints:
    count = draw(st.integers(0, 9))
    return Keypoints(
        draw(arrays.arrays(np.uint16, (count, 2))),
        draw(arrays.arrays(np.uint8, (count, COMPONENTS), elements=st.integers(0, LEVELS - 1))),
        (draw(st.integers(0, 65_535)), draw(st.integers(0, 65_535))),
    )


@given(some_keypoints())
def test_what_is_kept_is_read_as_it_was(made: Keypoints) -> None:
    read = Keypoints.from_bytes(made.to_bytes())

    assert (read.points.tolist(), read.descriptions.tolist()) == (made.points.tolist(), made.descriptions.tolist())
    assert read.points.dtype == np.uint16
    assert read.descriptions.dtype == np.uint8
    assert read.descriptions.shape == made.descriptions.shape
    assert read.frame == made.frame
    assert len(made.to_bytes()) == 8 + 84 * len(made)


@pytest.mark.parametrize("cut", ["", "head", "last byte", "one more", "another version"])
def test_what_is_none_is_said_to_be_none(cut: str) -> None:
    content = Keypoints(
        np.ones((3, 2), np.uint16), np.full((3, COMPONENTS), LEVELS - 1, np.uint8), (640, 480)
    ).to_bytes()
    wrong = {
        "": b"",
        "head": content[:7],
        "last byte": content[:-1],
        "one more": content + b"\0",
        "another version": bytes([VERSION + 1]) + content[1:],
    }

    with pytest.raises(ValueError):
        Keypoints.from_bytes(wrong[cut])
    assert len(Keypoints.from_bytes(content)) == 3


def test_points_are_told_in_pixels() -> None:
    made = Keypoints(
        np.array([[0, 0], [POINT_STEPS, POINT_STEPS // 2]], np.uint16), np.zeros((2, COMPONENTS), np.uint8), (2, 2)
    )

    assert made.pixels(np.array([1])).tolist() == [[1.0, 0.5]]
    assert made.pixels(np.array([1])).dtype == np.float32
