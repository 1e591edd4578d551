"""Which photos are one picture, whatever files carry it. Values in, values out.

Two photos are copies where their pictures' hashes are near *and* their vectors are: two different pictures may meet in
one of them. docs/decisions/0016 has what was measured. Knows neither how a hash is made nor what a copy is worth.
"""

from __future__ import annotations

from dataclasses import dataclass

from worker.core.shot import Shot
from worker.core.vectors import Vector

#: Bits of 256 that may differ. Photos saved again, at any quality down to 30, in grey, in size down to 256 pixels,
#: differ from themselves in 9 at the most, made brighter in 23, the nearest of 1,378 pairs of different ones in 45.
MOST_BITS = 36
#: Least cosine of two vectors with such hashes. Copies have 0.68 at the least (a quarter of the size at quality 50),
#: half of the pairs of photos of two places 0.4 at the most.
LEAST_COSINE = 0.6
#: Least cosine where a picture has no hash, or none yet: different photos of one place have 0.95 at the most, copies at
#: quality 80 have 0.985 at the least.
LEAST_COSINE_ALONE = 0.98


@dataclass(frozen=True, slots=True)
class Look:
    """What a photo looks like: its vector, and its picture's hash, empty or None where there is none. shot: with what
    and when it was taken; None where nobody has looked."""

    vector: Vector
    picture_hash: bytes | None
    shot: Shot | None = None


def is_copy(one: Look, other: Look) -> bool:
    """Whether both show one picture. Where one of them has no hash, the vectors alone must be as good as the same: that
    takes a few different photos for copies, and a witness too few is no wrong answer."""
    if not one.picture_hash or not other.picture_hash:
        return float(one.vector @ other.vector) >= LEAST_COSINE_ALONE
    near = bits_apart(one.picture_hash, other.picture_hash) <= MOST_BITS
    return near and float(one.vector @ other.vector) >= LEAST_COSINE


def bits_apart(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()
