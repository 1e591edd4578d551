"""With which camera a photo was taken, and when, as its file says: what one burst of photos is known by, and what a
camera took minutes before and after.

Cameras are digests, so that no serial number is kept. Knows no file and no EXIF.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from worker.core.geo import distance_m

#: Bytes of a camera's digest where its serial number is known, and of one that stands for all cameras of a model.
CAMERA_BYTES, MODEL_BYTES = 16, 8
#: Stands for the camera of a photo whose file names none, or no time.
NO_CAMERA = b""
#: Seconds between two photos of one burst at the most: on foot that is five metres, less than a phone's GPS is off.
BURST_S = 3.0


@dataclass(frozen=True, slots=True)
class Shot:
    """camera: what `camera_of` gives, or NO_CAMERA. taken_s: seconds by that camera's own clock, which may be wrong and
    of any zone: differences of one camera's alone mean something."""

    camera: bytes = NO_CAMERA
    taken_s: float = 0.0

    @property
    def of_one_camera(self) -> bool:
        """Whether nobody else's camera has this digest."""
        return len(self.camera) == CAMERA_BYTES


#: A picture's hash, and with what and when it was taken.
Picture = tuple[bytes, Shot]
#: Of a photo whose file does not say it.
NO_SHOT = Shot()


def camera_of(make: str, model: str, serial: str) -> bytes:
    """The digest that stands for a camera; without a serial number, for all of that model."""
    said = "\0".join((make, model, serial)).encode()
    size = CAMERA_BYTES if serial else MODEL_BYTES
    return hashlib.blake2b(said, digest_size=size, person=b"sightline camera").digest()


def is_burst(
    one: Shot | None, at: tuple[float, float], other: Shot | None, there: tuple[float, float], *, agree_m: float
) -> bool:
    """Whether one camera took both within seconds, and at one place: cameras of one model at two places are two.

    at, there: where they claim to be taken (lat, lon). agree_m: metres, SIGHTLINE_LOCATE_AGREE_M."""
    if one is None or other is None or NO_CAMERA in (one.camera, other.camera):
        return False
    together = one.camera == other.camera and abs(one.taken_s - other.taken_s) <= BURST_S
    return together and distance_m(*at, *there) <= agree_m
