"""EXIF blocks written by hand, for tests, so that they can say what no library would write."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tag:
    """One EXIF field: kind 2 text, 3 short, 4 long, 5 fractions, 7 bytes, 10 signed fractions, 12 doubles."""

    number: int
    kind: int
    values: tuple[Any, ...]

    def packed(self) -> tuple[int, bytes]:
        if self.kind == 2:
            return len(self.values[0]) + 1, self.values[0].encode("latin-1") + b"\0"
        if self.kind == 7:
            return len(self.values[0]), self.values[0]
        if self.kind in (5, 10):
            form = ">II" if self.kind == 5 else ">ii"
            return len(self.values), b"".join(struct.pack(form, *fraction) for fraction in self.values)
        if self.kind == 12:
            return len(self.values), struct.pack(f">{len(self.values)}d", *self.values)
        return len(self.values), struct.pack(f">{len(self.values)}{'H' if self.kind == 3 else 'I'}", *self.values)


def exif(orientation: int | None = None, gps: list[Tag] | None = None) -> bytes:
    """An EXIF block, written by hand so that it can say what no library would write."""

    def directory(tags: list[Tag], at: int) -> bytes:
        entries, behind = b"", b""
        behind_at = at + 2 + 12 * len(tags) + 4
        for tag in sorted(tags, key=lambda tag: tag.number):
            count, content = tag.packed()
            if len(content) <= 4:
                place = content.ljust(4, b"\0")
            else:
                place = struct.pack(">I", behind_at + len(behind))
                behind += content + b"\0" * (len(content) % 2)
            entries += struct.pack(">HHI", tag.number, tag.kind, count) + place
        return struct.pack(">H", len(tags)) + entries + b"\0\0\0\0" + behind

    main = [Tag(0x0112, 3, (orientation,))] if orientation is not None else []
    if gps is None:
        return b"Exif\0\0MM\0*\0\0\0\x08" + directory(main, 8)
    gps_at = 8 + len(directory([*main, Tag(0x8825, 4, (0,))], 8))
    first = directory([*main, Tag(0x8825, 4, (gps_at,))], 8)
    return b"Exif\0\0MM\0*\0\0\0\x08" + first + directory(gps, gps_at)


def position(
    lat: tuple[tuple[int, int], ...] = ((50, 1), (5, 1), (15, 1)),
    lon: tuple[tuple[int, int], ...] = ((14, 1), (25, 1), (3000, 100)),
    *,
    refs: tuple[str | None, str | None] = ("N", "E"),
    status: str | None = None,
) -> list[Tag]:
    tags = [Tag(2, 5, lat), Tag(4, 5, lon)]
    tags += [Tag(number, 2, (ref,)) for number, ref in zip((1, 3), refs, strict=True) if ref is not None]
    return tags + ([Tag(9, 2, (status,))] if status is not None else [])
