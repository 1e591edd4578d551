"""What a worker and its decoders say to each other. What a decoder says is a stranger's word, and read as one.

Pixels do not pass here: they lie in the memory that both share, over the file that lay there.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import msgspec

from producer_client.contract import Code, PositionFrom, PositionIssue
from producer_client.positions import Position, Reading
from worker.core.shot import CAMERA_BYTES, Shot
from worker.core.types import Decoded, Pixels

#: What every RGB pixel takes.
CHANNELS = 3
#: Bytes of one message at the most, in both directions.
LONGEST = 65_536
#: Bytes of a picture's hash and of a camera's digest at the most.
_HASH_BYTES = 32
_Count = Annotated[int, msgspec.Meta(ge=0, le=sys.maxsize)]
_Word = Annotated[str, msgspec.Meta(max_length=2_000)]


class Limits(msgspec.Struct, frozen=True):
    """What one decoder may take. memory_bytes: beyond what it has before its first photo. cpu_s: seconds of a core, of
    one photo. shared_bytes: of a file or of its pixels."""

    memory_bytes: int
    cpu_s: int
    shared_bytes: int


class Ready(msgspec.Struct, frozen=True):
    """The first word of a decoder: what it is confined by, and that it takes photos."""

    level: _Word


class Ask(msgspec.Struct, frozen=True):
    """Decode the file of so many bytes at the beginning of the shared memory. The rest is what
    `worker.encoder.images.decode` asks for."""

    size: int
    side: int
    max_megapixels: float
    longer_side: int


class Found(msgspec.Struct, frozen=True, tag="position"):
    """Where the file says that it was taken."""

    lat: Annotated[float, msgspec.Meta(ge=-90, le=90)]
    lon: Annotated[float, msgspec.Meta(ge=-180, le=180)]
    origin: PositionFrom
    error_m: float | None


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The pixels lie at the beginning of the shared memory, which is as long as they are."""

    height: Annotated[int, msgspec.Meta(ge=1)]
    width: Annotated[int, msgspec.Meta(ge=1)]
    reduced: bool
    picture_hash: Annotated[bytes, msgspec.Meta(max_length=_HASH_BYTES)]
    camera: Annotated[bytes, msgspec.Meta(max_length=CAMERA_BYTES)]
    taken_s: float
    position: Found | PositionIssue

    @classmethod
    def of(cls, decoded: Decoded) -> Done:
        said = decoded.position
        where = Found(said.lat, said.lon, said.origin, said.error_m) if isinstance(said, Position) else said
        height, width = decoded.pixels.shape[:2]
        shot = decoded.shot
        return cls(height, width, decoded.reduced, decoded.picture_hash, shot.camera, shot.taken_s, where)

    @property
    def size(self) -> int:
        """Bytes of the pixels."""
        return self.height * self.width * CHANNELS

    def decoded(self, pixels: Pixels) -> Decoded:
        position: Reading
        match self.position:
            case Found(lat, lon, origin, error_m):
                position = Position(lat, lon, origin, error_m)
            case issue:
                position = issue
        shot = Shot(self.camera, self.taken_s)
        return Decoded(pixels, position=position, picture_hash=self.picture_hash, reduced=self.reduced, shot=shot)


class Refusal(msgspec.Struct, frozen=True, tag="refused"):
    """As a PhotoRefusal."""

    code: Code
    message: _Word


class Failure(msgspec.Struct, frozen=True, tag="failed"):
    """It raised something else."""

    error: _Word
    words: _Word


class OutOfMemory(msgspec.Struct, frozen=True, tag="memory"):
    """It wanted more than its limit."""


Outcome = Done | Refusal | Failure | OutOfMemory


class Said(msgspec.Struct, frozen=True):
    """A decoder's answer. noted: (error, its words) of what libraries had to say, for the log."""

    outcome: Outcome
    noted: Annotated[list[tuple[_Word, _Word]], msgspec.Meta(max_length=8)] = []


def read(answer: bytes) -> Said:
    """Raises ValueError where these are no words of ours."""
    return msgspec.json.decode(answer, type=Said)


def put(memory: int, content: bytes | memoryview) -> None:
    """Write at the beginning of the shared memory."""
    left, at = memoryview(content), 0
    while at < len(left):
        at += os.pwrite(memory, left[at:], at)


def taken(memory: int, into: memoryview) -> bool:
    """Read from its beginning. Whether there was as much: the other side may have taken it back meanwhile."""
    at = 0
    while at < len(into):
        read_now = os.preadv(memory, [into[at:]], at)
        if not read_now:
            return False
        at += read_now
    return True
