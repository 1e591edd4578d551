"""The values that requests and replies share: a photo, a place, a circle, a refusal."""

from __future__ import annotations

import base64
import binascii
import math
from typing import BinaryIO

import msgspec

from producer_client import plain
from producer_client.contract.wire import Message, Outcome, Reply, check_text
from producer_client.errors import BadRequest, short
from producer_client.words import MAX_PATH_CHARACTERS, MAX_URL_CHARACTERS, RETRYABLE, Code


class Photo(Message, frozen=True):
    """A reference to one photo: exactly one of the four fields. Pixels travel only as small inline bytes.

    `photo_id` may come with the `path` that the caller knows the photo by: a worker whose row has another file refuses
    it (`row_mismatch`), so that ids of another database name nobody else's photos.
    """

    photo_id: int | None = None  #: id of a row of the backend's `photos` table
    path: str | None = None  #: file under one of the workers' allowed roots
    url: str | None = None  #: only hosts and schemes that the workers allow
    inline: str | None = None  #: base64 of the file's bytes

    def check(self) -> None:
        given = [name for name in ("photo_id", "path", "url", "inline") if getattr(self, name) is not None]
        if len(given) != 1 and given != ["photo_id", "path"]:
            raise BadRequest(
                Code.BAD_REQUEST,
                "a photo is one of photo_id, path, url, inline, or photo_id with its path; "
                f"got {', '.join(given) or 'none of them'}",
            )
        if self.photo_id is not None and not 0 <= self.photo_id < 2**63:
            raise BadRequest(Code.BAD_REQUEST, f"photo_id {self.photo_id} is not a 64-bit row id")
        for name in given:
            if name != "photo_id":
                reference = getattr(self, name)
                if not reference:
                    raise BadRequest(Code.BAD_REQUEST, f"{name} is empty")
                check_text(name, reference)
                longest = {"path": MAX_PATH_CHARACTERS, "url": MAX_URL_CHARACTERS}.get(name, len(reference))
                if len(reference) > longest:
                    characters = len(reference)
                    raise BadRequest(Code.BAD_REQUEST, f"{name} has {characters} characters, the limit is {longest}")

    @classmethod
    def of_bytes(cls, content: bytes | bytearray | memoryview | BinaryIO) -> Photo:
        """The photo itself, which travels in its message: bytes, or a file that is open for reading them."""
        return cls(inline=plain.inline("content", content))

    def inline_bytes(self) -> bytes:
        """The decoded `inline` field. Raises BadRequest when it is not base64."""
        try:
            return base64.b64decode(self.inline or "", validate=True)
        except (binascii.Error, ValueError) as exc:
            raise BadRequest(Code.BAD_REQUEST, f"inline is not base64: {exc}") from exc

    @property
    def name(self) -> str:
        """What to call this photo in a message to people; never its content."""
        if self.photo_id is not None:
            return f"photo {self.photo_id}"
        return self.path or self.url or f"inline photo of {len(self.inline or '') * 3 // 4} bytes"


class Point(Reply, frozen=True):
    """WGS 84 degrees. `lat = 0.0` is a coordinate."""

    lat: float
    lon: float

    def __post_init__(self) -> None:
        check_coordinates(self.lat, self.lon)


class Near(Message, frozen=True):
    """A circle to search in: WGS 84 degrees and metres."""

    lat: float
    lon: float
    radius_m: float

    def check(self) -> None:
        check_coordinates(self.lat, self.lon)
        if not (math.isfinite(self.radius_m) and self.radius_m > 0):
            raise BadRequest(Code.BAD_REQUEST, f"radius_m {self.radius_m} must be a positive number of metres")


def check_coordinates(lat: float, lon: float) -> None:
    """Raises BadRequest(bad_coordinates) unless -90 <= lat <= 90 and -180 <= lon <= 180 (so NaN fails)."""
    if not (-90 <= lat <= 90 and -180 <= lon <= 180):
        raise BadRequest(
            Code.BAD_COORDINATES,
            f"latitude {lat}, longitude {lon}: latitude runs from -90 to 90 and longitude from -180 to 180 degrees",
        )


class Refused(Outcome, frozen=True):
    """One photo that was not taken, with the reason. Sending it again unchanged helps only if `retryable`."""

    ref: str
    code: Code
    message: str

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "message", short(self.message))

    @property
    def retryable(self) -> bool:
        return self.code in RETRYABLE
