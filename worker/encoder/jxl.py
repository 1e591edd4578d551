"""What a JPEG XL file says of itself before anything of it is decoded: its size, how it is turned, its EXIF and XMP.

The plugin for Pillow decodes at once, so that its size would be known too late, and finds no EXIF that is compressed,
as cjxl has it. The header is that of ISO/IEC 18181-1, annex D; the boxes around it are those of 18181-2.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from producer_client.positions import MAX_XMP_BYTES

BARE, BOXED = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
#: Width by height, of a header that gives its width so (table D.2).
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
#: How many bits a large side has, by the two before it.
_SIDE_BITS = (9, 13, 18, 30)
_TIFF = (b"II*\0", b"MM\0*")
#: Boxes of what a file says, and what Pillow calls that.
_SAID = {b"Exif": "exif", b"xml ": "xmp"}


class Header(NamedTuple):
    """size: width and height as they are stored. turn: as EXIF's orientation; a decoder turns by it."""

    size: tuple[int, int]
    turn: int


def is_jxl(content: bytes) -> bool:
    """By its whole signature: of it the plugin takes three letters, which may be the length of a WebP."""
    return content.startswith((BARE, BOXED))


def header_of(content: bytes) -> Header | None:
    """None where it breaks off."""
    codestream = content[:64] if content.startswith(BARE) else _unboxed(content)
    if not codestream.startswith(BARE):
        return None
    bits = _Bits(int.from_bytes(codestream[2:], "little"), 8 * len(codestream[2:]))
    try:
        small = bits.take(1)
        height = _side(bits, small=small)
        ratio = bits.take(3)
        if ratio:
            across, down = _RATIOS[ratio]
            width = height * across // down
        else:
            width = _side(bits, small=small)
        # All of the metadata as usual, and then none of what is seldom said.
        turn = 1 if bits.take(1) or not bits.take(1) else 1 + bits.take(3)
    except EOFError:
        return None
    return Header((width, height), turn)


def opened(content: bytes) -> Image.Image:
    """The picture, decoded, with its EXIF and XMP. Raises what Pillow raises."""
    from pillow_jxl import JpegXLImagePlugin  # libjxl, which most workers never need; registers itself

    # As many photos are decoded at a time as the settings say; none of them takes all cores for itself.
    JpegXLImagePlugin.DECODE_THREADS = 0
    image = Image.open(io.BytesIO(content), formats=("JXL",))
    if not is_of_jpeg(image):
        image.info.update(metadata(content, limit=MAX_XMP_BYTES))
    return image


def is_of_jpeg(image: Image.Image) -> bool:
    """Whether the plugin has taken a JPEG out of the file, as it was, instead of decoding it."""
    return bool(getattr(image, "jpeg", False))


def metadata(content: bytes, *, limit: int) -> dict[str, bytes]:
    """The EXIF and XMP of a file, by Pillow's names for them; none where they are more than `limit` bytes."""
    said: dict[str, bytes] = {}
    for kind, box in _boxes(content) if not content.startswith(BARE) else ():
        if kind == b"brob":
            kind, box = box[:4], _unpacked(box[4:], limit) if box[:4] in _SAID else b""
        if box and len(box) <= limit and kind in _SAID:
            said.setdefault(_SAID[kind], _from_its_begin(box) if kind == b"Exif" else box)
    return said


@dataclass
class _Bits:
    """Numbers out of bits, the lowest first."""

    left: int
    count: int

    def take(self, bits: int) -> int:
        if bits > self.count:
            raise EOFError
        value = self.left & ((1 << bits) - 1)
        self.left >>= bits
        self.count -= bits
        return value


def _side(bits: _Bits, *, small: int) -> int:
    return 8 * (1 + bits.take(5)) if small else 1 + bits.take(_SIDE_BITS[bits.take(2)])


def _unboxed(content: bytes) -> bytes:
    """The beginning of the codestream: of the box that holds it, or of the first of those that share it."""
    for kind, box in _boxes(content):
        if kind in (b"jxlc", b"jxlp"):
            return box[4:68] if kind == b"jxlp" else box[:64]  # behind its number
    return b""


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(content):
        length, kind, begins = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8], at + 8
        if length == 1:
            length, begins = int.from_bytes(content[begins : begins + 8], "big"), at + 16
        elif length == 0:  # up to the end
            length = len(content) - at
        if at + length < begins:
            return
        yield kind, content[begins : at + length]
        at += length


def _from_its_begin(box: bytes) -> bytes:
    """EXIF behind the four bytes that say where it begins, which the plugin does not write."""
    return box if box.startswith(_TIFF) else box[4 + int.from_bytes(box[:4], "big") :]


def _unpacked(box: bytes, limit: int) -> bytes:
    import brotli

    unpacker = brotli.Decompressor()
    try:
        content: bytes = unpacker.process(box, output_buffer_limit=limit)
    except brotli.error:
        return b""
    return content if unpacker.is_finished() else b""
