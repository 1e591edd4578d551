"""A photo as a small JPEG to be shown within a page. Knows no page."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image

from worker.core.types import Decoded
from worker.encoder.images import decode

#: Pixels of the longer side: a third of a phone's width, twice as fine; some 10 kB.
SIDE_PX = 240
QUALITY = 70


def thumbnail(content: bytes, *, max_megapixels: float, decode: Callable[..., Decoded] = decode) -> bytes:
    """Upright, without the photo's metadata. decode: as worker.encoder.images has it. Raises PhotoRefusal as that."""
    image = Image.fromarray(decode(content, side=SIDE_PX // 2, max_megapixels=max_megapixels).pixels)
    image.thumbnail((SIDE_PX, SIDE_PX))
    made = io.BytesIO()
    image.save(made, "JPEG", quality=QUALITY)
    return made.getvalue()
