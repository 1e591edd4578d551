"""A plugin of pytest: every photo that a test has decoded is decoded by a process of its own too, to the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.core.types import Decoded
from worker.encoder import images
from worker.errors import WorkerError
from worker.sandbox.port import Sandbox, sandbox_of
from worker.settings import Settings

_here = images.decode
_made = sandbox_of(Settings(sandbox="required"))
assert isinstance(_made, Sandbox)
#: Photos that were decoded both ways.
compared = 0


def _both_ways(content: bytes, **asked: Any) -> Decoded:
    global compared
    there: Decoded | None = None
    said = ""
    assert _made is not None
    try:
        there = _made.decode(content, **asked)
    except WorkerError as exc:
        said = f"{exc.code} {exc.message}"
    compared += 1
    try:
        here = _here(content, **asked)
    except WorkerError as exc:
        if said != f"{exc.code} {exc.message}":
            raise AssertionError(f"a decoder says {said!r}") from exc
        raise
    assert there is not None, said
    assert there.pixels.dtype == here.pixels.dtype
    assert np.array_equal(there.pixels, here.pixels)
    assert (there.position, there.picture_hash) == (here.position, here.picture_hash)
    assert (there.reduced, there.shot) == (here.reduced, here.shot)
    return here


images.decode = _both_ways


def pytest_unconfigure() -> None:
    print(f"\n{compared} photos both ways")
    assert _made is not None
    _made.close()
