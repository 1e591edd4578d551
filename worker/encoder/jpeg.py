"""JPEGs that lack nothing but their end marker, told from those that lack a part of the picture."""

from __future__ import annotations

import struct

import simplejpeg

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
#: Markers: start of a scan; frames of all kinds, of which 0xC4, 0xC8 and 0xCC are none (ITU-T T.81, table B.1).
_SCAN = 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Coefficients of a block.
_ALL = frozenset(range(64))


def with_end(content: bytes) -> bytes | None:
    """The JPEG with its end marker, where that alone is missing; None for everything else.

    Only for what could not be decoded as it is. libjpeg fills what is missing of a scan with grey and says so, which is
    an error here; it says nothing of whole scans that are missing, so these are counted before.
    """
    if not content.startswith(SOI) or content.endswith(EOI) or not _has_every_scan(content):
        return None
    ended = content + EOI
    try:
        # As small and grey as can be: all of the entropy-coded data is read whatever is made of it.
        simplejpeg.decode_jpeg(ended, "Gray", min_height=1, min_width=1)
    except ValueError:
        return None
    return ended


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
