"""What a photo's EXIF says of its camera and of when it was taken. Knows Pillow's images, no file and no SQL."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from PIL import Image
from PIL.ExifTags import IFD, Base

from producer_client.positions import BROKEN
from worker.core.shot import NO_SHOT, Shot, camera_of

#: As EXIF writes a time (Exif 2.32, section 4.6.5), and the zone that newer cameras write beside it.
_TIME, _ZONED = "%Y:%m:%d %H:%M:%S", "%Y:%m:%d %H:%M:%S%z"


def shot_of(image: Image.Image) -> Shot:
    """Of an opened image; one without a camera where its file names no model, or no time that can be read."""
    try:
        tags = image.getexif()
        detail = tags.get_ifd(IFD.Exif)
    except BROKEN:
        return NO_SHOT
    make, model, serial = _text(tags, Base.Make), _text(tags, Base.Model), _text(detail, Base.BodySerialNumber)
    taken_s = _taken_s(detail)
    return NO_SHOT if not model or taken_s is None else Shot(camera_of(make, model, serial), taken_s)


def _taken_s(detail: Mapping[int, object]) -> float | None:
    # Blanks and colons stand for what a camera does not know.
    said, zone = _text(detail, Base.DateTimeOriginal), _text(detail, Base.OffsetTimeOriginal).strip(": ")
    try:
        at = datetime.strptime(said + zone, _ZONED) if zone else datetime.strptime(said, _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    part = _text(detail, Base.SubsecTimeOriginal)
    return at.timestamp() + (float(f"0.{part}") if part.isascii() and part.isdigit() else 0.0)


def _text(tags: Mapping[int, object], number: int) -> str:
    """Up to its first NUL; empty where the tag is no text."""
    value = tags.get(number)
    value = value.decode("latin-1") if isinstance(value, bytes) else value
    return value.partition("\0")[0].strip() if isinstance(value, str) else ""
