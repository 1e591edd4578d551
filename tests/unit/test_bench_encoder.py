"""What `make bench-embed` measures with, where a mistake would spoil a figure without a word."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.decoders import divisor_of
from benchmarks.encoder import _judged, _least_cosine, _profile, _Run
from benchmarks.encoder_parts import ALONE
from worker.encoder.images import decode


def test_copies_of_a_picture_are_other_contents_with_the_same_pixels(tmp_path: Path) -> None:
    picture = tmp_path / "picture.jpg"
    random = np.random.default_rng(1)
    Image.fromarray(random.integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(picture, "JPEG", exif=b"Exif\0\0MM\0*")
    run = _Run(tmp_path, quick=True)

    contents = [Path(path).read_bytes() for path in islice(run._fresh([picture], "copies"), 3)]

    assert len({*contents, picture.read_bytes()}) == 4
    for content in contents:
        assert Image.open(io.BytesIO(content)).info["exif"]
        pixels = decode(content, side=64, max_megapixels=1).pixels
        assert np.array_equal(pixels, decode(picture.read_bytes(), side=64, max_megapixels=1).pixels)


def test_a_share_of_the_limit_is_that_of_the_backends_own_precision() -> None:
    row = {"backend": "openvino-bfloat16", "why": None, "cosine": 0.9999}

    entry = _judged(row, {1: 50.0, 32: 400.0}, {"float32": 20.0, "bfloat16": 100.0})

    assert entry["batches"]["1"] == {"photos_s": 20.0, "ms": 50.0, "share_of_limit": 0.2}
    assert entry["batches"]["32"] == {"photos_s": 80.0, "ms": 400.0, "share_of_limit": 0.8}
    assert entry["accepted"]
    assert entry["cosine"] == 0.9999


def test_a_profile_adds_up_to_what_the_processes_took() -> None:
    stages = {"read and hash": 1.0, "decode": 20.0, ALONE: 30.0}

    profile = _profile(stages, {"worker": 50.0, "postgres": 2.0, "valkey": 0.5, "client": 0.5})

    assert profile["the rest of the worker"] == 29.0
    assert profile["in all"] == 53.0 == sum(list(profile.values())[:4])


def test_peers_vectors_of_any_length_are_compared_by_direction() -> None:
    truth = np.eye(3, dtype=np.float32)

    assert _least_cosine(7 * truth, truth) == 1.0
    assert _least_cosine(np.roll(truth, 1, axis=0), truth) == 0.0
    assert _least_cosine(np.zeros((3, 4), dtype=np.float32), truth) is None


@pytest.mark.parametrize(("short_side", "divisor"), [(447, 1), (895, 1), (896, 2), (1792, 4), (3584, 8), (9000, 8)])
def test_decoders_reduce_as_far_as_the_service_does(short_side: int, divisor: int) -> None:
    assert divisor_of(short_side) == divisor
