"""Which keypoints of two pictures are the same point of the world, as far as their descriptions say.

Two are a match where each is the other's nearest and clearly nearer than the second nearest, both ways (Lowe's ratio
test, Distinctive Image Features from Scale-Invariant Keypoints, 2004). All distances of two pictures are one product of
8-bit integers, which CPUs with VNNI make several times as fast as one of floats. Knows neither pictures nor places.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.core.keypoints import COMPONENTS, Keypoints

#: The nearest must be nearer than 0.8 of the second nearest's distance; of squares, this.
RATIO_OF_SQUARES = 0.64

Positions = NDArray[np.intp]

# The square of a distance is |a|² + |b|² - 2ab. So each description is followed by the square of its length in two
# digits of this base, and by what the other one's digits count: the product then is all of it, and exact.
_BASE = 128
_WIDTH = COMPONENTS + 4
_NO_NEIGHBOUR = np.iinfo(np.int32).min


def matches(one: Keypoints, other: Keypoints) -> tuple[Positions, Positions]:
    """Positions in one and in the other, pair by pair; each keypoint is in one pair at most.

    None where a picture has fewer than two: nothing says then what would be clearly nearer.
    """
    if len(one) < 2 or len(other) < 2:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    nearness = _nearness(one.descriptions, other.descriptions)
    theirs = nearness.argmax(axis=1)
    best = nearness[np.arange(len(one)), theirs]
    # numpy's largest value along the columns comes much faster than its position.
    ours = np.flatnonzero(best >= nearness.max(axis=0)[theirs])
    theirs, best = theirs[ours], best[ours]
    # Without the best of each row and column, the largest that is left is the second nearest's.
    nearness[ours, theirs] = _NO_NEIGHBOUR
    second = np.maximum(nearness.max(axis=1)[ours], nearness.max(axis=0)[theirs])
    # Two that are equally near to one have both been taken out of its column: neither is clearly the nearer.
    alone = np.bincount(theirs)[theirs] == 1
    clear = alone & (best > RATIO_OF_SQUARES * second)
    return ours[clear], theirs[clear]


def _nearness(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int32]:
    """int32 [len(one), len(other)]: squares of the distances, with a minus."""
    found: NDArray[np.int32] = _product().run(None, {"here": weighed_here(one), "there": weighed_there(other)})[0]
    return found


def weighed_here(descriptions: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [n, COMPONENTS + 4]: the left side of the product."""
    found = np.empty((len(descriptions), _WIDTH), np.uint8)
    found[:, :COMPONENTS] = descriptions * 2
    found[:, COMPONENTS], found[:, COMPONENTS + 1] = _length_digits(descriptions)
    found[:, COMPONENTS + 2 :] = _BASE, 1
    return found


def weighed_there(descriptions: NDArray[np.uint8]) -> NDArray[np.int8]:
    """int8 [COMPONENTS + 4, n]: its right side."""
    found = np.empty((_WIDTH, len(descriptions)), np.int8)
    found[:COMPONENTS] = descriptions.T
    found[COMPONENTS], found[COMPONENTS + 1] = -_BASE, -1
    found[COMPONENTS + 2 :] = np.negative(_length_digits(descriptions))
    return found


def _length_digits(of: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Squares of the lengths. RootSIFT's are all about the same and below 8,100: two digits are enough."""
    wide = of.astype(np.int32)
    squares = np.minimum(np.einsum("nc,nc->n", wide, wide), _BASE**2 - 1)
    return np.divmod(squares, _BASE)


@cache
def _product() -> Any:
    """A session of ONNX Runtime on the thread that asks; threads ask for several at a time.

    Where a CPU has no VNNI, two neighbouring products of 8 bits are added up in 16, and what is larger is cut off. Here
    it cannot be: 2 x 31 x 31 of a description, 128 x 127 of a length, and twice the larger is 32,512.
    """
    import onnxruntime
    from onnx import parser

    model = parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": 17]>
        nearness (uint8[n, {_WIDTH}] here, int8[{_WIDTH}, m] there) => (int32[n, m] all) {{
            all = MatMulInteger(here, there)
        }}"""
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
