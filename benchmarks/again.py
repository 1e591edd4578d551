"""What comes out the same each time, kept: a picture's vector and keypoints, and what two pictures have in common. For
what other policies or libraries ask again, where no time is taken; tests keep theirs by it, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from worker.core.keypoints import Keypoints
from worker.core.types import Pixels
from worker.core.vectors import Vectors
from worker.encoder import keypoints as finding
from worker.encoder.base import ModelEncoder
from worker.library import comparing
from worker.place.geometry import seen_in_both


class Again:
    """Shared by threads: two may find the same at the same time."""

    def __init__(self) -> None:
        self._found: dict[tuple[Any, ...], Any] = {}

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within it, nothing of these is found twice."""
        with (
            patch.object(finding, "keypoints", self.once(finding.keypoints, _of_picture)),
            patch.object(comparing, "seen_in_both", self.once(seen_in_both, of_two)),
            # Below what a process that runs already holds: the passes of its own encoder.
            patch.object(ModelEncoder, "_in_passes", self._rows_once(vars(ModelEncoder)["_in_passes"])),
        ):
            yield

    def once(self, find: Callable[..., Any], key_of: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
        """The same function, which finds nothing twice. key_of: what of its arguments the result depends on."""

        def found(*values: Any, **named: Any) -> Any:
            key = key_of(*values, **named)
            if key not in self._found:
                self._found[key] = find(*values, **named)
            return self._found[key]

        return found

    def _rows_once(self, run: Callable[..., Vectors]) -> Callable[..., Vectors]:
        def found(encoder: ModelEncoder, squares: Sequence[Pixels], *values: Any) -> Vectors:
            keys = [(encoder.model_key, digest(square)) for square in squares]
            new = {key: square for key, square in zip(keys, squares, strict=True) if key not in self._found}
            if new:
                self._found.update(zip(new, run(encoder, list(new.values()), *values), strict=True))
            return np.stack([self._found[key] for key in keys])

        return found


def _of_picture(image: Image.Image) -> tuple[Any, ...]:
    return image.mode, image.size, digest(image.tobytes())


def of_two(query: Keypoints, other: Keypoints) -> tuple[Any, ...]:
    return tuple(part for one in (query, other) for part in (one.frame, digest(one.points), digest(one.descriptions)))


def digest(content: Any) -> bytes:
    return hashlib.sha1(content, usedforsecurity=False).digest()
