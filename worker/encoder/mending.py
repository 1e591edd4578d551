"""Files in which all of the picture is, and something else is wrong; told from those that lack a part of the picture.

JPEGs without their end marker, WebP files whose header gives another length than they have, AVIF with broken EXIF.
"""

from __future__ import annotations

import re
import struct

import simplejpeg

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
#: Markers: start of a scan; frames of all kinds, of which 0xC4, 0xC8 and 0xCC are none (ITU-T T.81, table B.1).
_SCAN = 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Coefficients of a block.
_ALL = frozenset(range(64))
#: The entry of a HEIF file's list of items that names its EXIF (ISO/IEC 14496-12, 8.11.6). libavif opens no file whose
#: EXIF it cannot read; of an item of another type it takes no notice.
_EXIF_ITEM = re.compile(rb"(infe[\x02\x03].{7})Exif", re.DOTALL)
#: What libjpeg says of a scan that ends before its last block, whatever stands behind it. It goes on in grey.
_BREAKS_OFF = ("premature end of data segment", "found marker 0xd9 instead of RST")
#: More zeros than a picture ends with: a sector of a recovered file, or of one that was not downloaded to its end.
_PADDING = b"\0" * 16


def mended(content: bytes) -> bytes | None:
    """The file without what is wrong with it; None where that is no such thing.

    Only for what could not be decoded as it is.
    """
    if content.startswith(SOI):
        return _with_end_marker(content)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return _with_its_length(content)
    if content[4:8] == b"ftyp" and _EXIF_ITEM.search(content):
        return _EXIF_ITEM.sub(rb"\1none", content, count=1)
    return None


def breaks_off(content: bytes, said: str) -> bool:
    """Whether a JPEG lacks a part of its picture, or may: its end is zeros, which decoders take for a picture.

    said: by libjpeg. It has nothing to say to the end of a file that Pillow would not refuse, too.
    """
    return any(words in said for words in _BREAKS_OFF) or content.removesuffix(EOI).endswith(_PADDING)


def picture_breaks_off(content: bytes) -> bool:
    """The same by reading all of the picture, as small and grey as can be."""
    said = _read(content)
    return said is not None and breaks_off(content, said)


def _read(content: bytes) -> str | None:
    """What libjpeg has to say to a JPEG, if anything. Its entropy-coded data is read whatever is made of it."""
    try:
        simplejpeg.decode_jpeg(content, "Gray", min_height=1, min_width=1)
    except ValueError as exc:
        return str(exc)
    return None


def _with_end_marker(content: bytes) -> bytes | None:
    """libjpeg fills what is missing of a scan with grey and says so, which is an error here; it says nothing of whole
    scans that are missing, so these are counted before."""
    if not _has_every_scan(content):
        return None
    without = content.removesuffix(EOI)
    # The last byte of a picture may be a zero itself, behind 0xFF.
    bare = without.rstrip(b"\0\r\n")
    ends = dict.fromkeys([len(without), *range(len(bare), min(len(bare) + 3, len(without)))])
    endings = (without[:end] + EOI for end in ends)
    return next((ended for ended in endings if ended != content and _read(ended) is None), None)


def _has_every_scan(content: bytes) -> bool:
    """Whether the scans give every coefficient of every component to its last bit."""
    components: set[int] = set()
    lacking: dict[int, set[int]] = {}
    at = len(SOI)
    try:
        while (at := content.find(b"\xff", at)) >= 0 and at + 1 < len(content):
            marker = content[at + 1]
            if marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD7:
                at += 1 if marker == 0xFF else 2  # data, a fill byte, or a restart within a scan
                continue
            (length,) = struct.unpack_from(">H", content, at + 2)
            body = content[at + 4 : at + 2 + length]
            if marker in _FRAMES:
                components = {body[6 + 3 * i] for i in range(body[5])}
                lacking = {component: set(_ALL) for component in components}
            elif marker == _SCAN:
                first, last, bits = body[-3:]
                for i in range(body[0]):
                    if bits & 0x0F == 0:
                        lacking[body[1 + 2 * i]] -= set(range(first, last + 1))
            at += 2 + length
    except (struct.error, IndexError, KeyError, ValueError):
        return False
    return bool(components) and not any(lacking.values())


def _with_its_length(content: bytes) -> bytes | None:
    """The file up to the end of its last whole chunk, with that length in its header and an even one, as it must be."""
    at, last = 12, 0
    while at + 8 <= len(content):
        (length,) = struct.unpack_from("<I", content, at + 4)
        if not content[at : at + 4].strip(b"\0") or at + 8 + length > len(content):
            break  # padding, or a chunk that breaks off
        at += 8 + length + length % 2
        last = at
    if not last:
        return None
    chunks = content[12:last].ljust(last - 12, b"\0")
    whole = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks
    return None if whole == content else whole
