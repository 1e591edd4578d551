"""Laws of vectors: float32 rows of length 1, checked where they enter and nowhere else."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from producer_client.contract import Code
from worker.errors import Permanent

#: float32 [n, d], every row of length 1.
Vectors: TypeAlias = npt.NDArray[np.float32]
#: float32 [d] of length 1.
Vector: TypeAlias = npt.NDArray[np.float32]
#: int64 [n]
Ids: TypeAlias = npt.NDArray[np.int64]

#: Vectors of the same pixels under other metadata (a stripped EXIF, another file name inside) differ by rounding
#: alone. Such a copy is the photo itself, not a similar one.
SAME_PIXELS = 1 - 1e-5


class BadVector(Permanent):
    def __init__(self, message: str) -> None:
        super().__init__(Code.BAD_VECTOR, message)


def find_ids(rising: Ids, wanted: Ids) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """(positions of those `wanted` ids that are among the rising ones, which of the wanted these are: bool [n])."""
    at = np.searchsorted(rising, wanted)
    there: npt.NDArray[np.bool_] = at < len(rising)
    there[there] = rising[at[there]] == wanted[there]
    return at[there], there


def unit_rows(vectors: npt.NDArray[Any]) -> Vectors:
    """Scale each row to length 1.

    vectors: [n, d] of any float type. Returns float32 [n, d].
    Raises BadVector naming the row if it is zero or not finite.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if bad.size:
        raise BadVector(f"row {bad[0]} of {len(rows)} is zero or not finite")
    unit: Vectors = (rows / lengths[:, None]).astype(np.float32)
    return unit


def unit_query(vector: list[float], dimension: int) -> Vector:
    """A caller's vector as a query: float32 [dimension] of length 1.

    Raises BadVector if its length is not `dimension`, or it is zero or not finite.
    """
    if len(vector) != dimension:
        raise BadVector(f"the vector has {len(vector)} numbers; this model's have {dimension}")
    unit: Vector = unit_rows(np.asarray([vector]))[0]
    return unit


def to_bytes(vector: Vector) -> bytes:
    """Little-endian float32, as Postgres keeps it."""
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def from_bytes(stored: bytes, dimension: int) -> Vector:
    """Raises BadVector unless `stored` holds `dimension` float32 numbers."""
    if len(stored) != 4 * dimension:
        raise BadVector(f"a stored vector has {len(stored)} bytes; {dimension} numbers need {4 * dimension}")
    return np.frombuffer(stored, dtype="<f4")
