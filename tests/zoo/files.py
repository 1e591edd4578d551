"""Files that no camera has written, or only just: each made by code, and what must become of it.

CONTENTS are bytes, whatever they are called. PLACES are names in a folder that workers may read, and what lies there.
"""

from __future__ import annotations

import io
import os
import pickle
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401  # writes JPEG XL
from PIL import Image, PngImagePlugin

from producer_client.contract import Code, PositionIssue
from tests.exif import Tag, exif, position

SIZE = (64, 48)
pillow_heif.register_heif_opener()


@dataclass(frozen=True)
class Taken:
    """A photo that is read. issue: what is said of its position; None: it has one."""

    size: tuple[int, int] = SIZE
    issue: PositionIssue | None = PositionIssue.ABSENT


Outcome = Taken | Code
TAKEN = Taken()
PLACED = Taken(issue=None)


def said(issue: PositionIssue) -> Taken:
    return Taken(issue=issue)


# --------------------------------------------------------------------------------------- how they are made


def picture(size: tuple[int, int] = SIZE, seed: int = 0) -> Image.Image:
    """Of coarse noise, so that it shows something and is never blank."""
    width, height = size
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (max(1, height // 8), max(1, width // 8), 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BILINEAR)


def written(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    (image or picture()).save(file, kind, **options)
    return file.getvalue()


def several(kind: str, **options: Any) -> bytes:
    return written(kind, save_all=True, append_images=[picture(seed=1), picture(seed=2)], **options)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def cut_at(content: bytes, mark: bytes, more: int = 0) -> bytes:
    return content[: content.index(mark) + more]


def chunk(name: bytes, content: bytes, *, checksum: int | None = None) -> bytes:
    right = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", right if checksum is None else checksum)


def png(
    size: tuple[int, int] = SIZE,
    *,
    rows: bytes | None = None,
    before: bytes = b"",
    checksum: int | None = None,
    ends: bool = True,
) -> bytes:
    """Grey, of one byte a pixel. rows: what is packed instead of the picture; before: chunks in front of it."""
    width, height = size
    grey = bytes(np.random.default_rng(3).integers(0, 256, width, dtype=np.uint8)) if rows is None else b""
    packed = zlib.compress((b"\0" + grey) * height if rows is None else rows, 9)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    picture_of_it = chunk(b"IDAT", packed, checksum=checksum)
    return b"\x89PNG\r\n\x1a\n" + header + before + picture_of_it + (chunk(b"IEND", b"") if ends else b"")


def jpeg_of_size(width: int, height: int) -> bytes:
    """A JPEG whose header says so."""
    content = written("JPEG")
    at = content.index(b"\xff\xc0")
    return content[: at + 5] + struct.pack(">HH", height, width) + content[at + 9 :]


def gif_of_size(width: int, height: int) -> bytes:
    content = written("GIF")
    at = content.index(b"\x2c", 13 + 3 * 2 ** (1 + (content[10] & 7)))  # behind its palette
    size = struct.pack("<HH", width, height)
    return content[:6] + size + content[10 : at + 5] + size + content[at + 9 :]


def webp_of_size(width: int, height: int) -> bytes:
    """Lossless, by its header of 14 bits a side."""
    content = written("WEBP", lossless=True)
    at = content.index(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", content, at)
    bits = (bits & ~0xFFFFFFF) | (width - 1) | (height - 1) << 14
    return content[:at] + struct.pack("<I", bits) + content[at + 4 :]


def boxed_of_size(kind: str, width: int, height: int) -> bytes:
    """HEIF or AVIF whose property of the size says so."""
    content = written(kind)
    at = content.index(b"ispe") + 8
    return content[:at] + struct.pack(">II", width, height) + content[at + 8 :]


def jxl_of_size(width: int, height: int) -> bytes:
    bits = 0b0 | 0b11 << 1 | (height - 1) << 3 | 0b000 << 33 | 0b11 << 36 | (width - 1) << 38 | 1 << 68
    return b"\xff\x0a" + bits.to_bytes(9, "little")


def tiff(*tags: tuple[int, int, int], next_directory: int = 0) -> bytes:
    """A directory of numbers alone, and no picture: (tag, 3 for a short or 4 for a long, value)."""
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return (
        struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", next_directory)
    )


def tiff_of_size(width: int, height: int, **changed: int) -> bytes:
    """Grey, of 64 x 48 bytes of picture whatever the header says."""
    values = {"compression": 1, "samples": 1, "bits": 8, "strip": 200} | changed
    head = tiff(
        (256, 4, width), (257, 4, height), (258, 3, values["bits"]), (259, 3, values["compression"]), (262, 3, 1),
        (273, 4, values["strip"]), (277, 3, values["samples"]), (278, 4, height), (279, 4, 64 * 48),
    )  # fmt: skip
    return head.ljust(200, b"\0") + bytes(range(64)) * 48


def with_tag(tag: int, kind: int, value: int) -> bytes:
    """A good TIFF with one strange tag more."""
    return written("TIFF", tiffinfo={tag: value}) if kind == 3 else written("TIFF", tiffinfo={tag: "x" * value})


def box(kind: bytes, content: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack(">I", 8 + len(content) if length is None else length) + kind + content


def jpeg(**options: Any) -> bytes:
    return written("JPEG", **options)


def placed(gps: list[Tag], **options: Any) -> bytes:
    return jpeg(exif=exif(1, gps), **options)


def with_exif(content: bytes) -> bytes:
    """As it is, behind the beginning that EXIF has."""
    return jpeg(exif=b"Exif\0\0" + content)


def directory(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    """EXIF of one directory at 8: (tag, kind, count, value)."""
    body = b"".join(struct.pack(">HHII", *entry) for entry in entries)
    return b"MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + body + struct.pack(">I", following)


def xmp(inside: str, before: str = "") -> bytes:
    return (
        f'{before}<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/" {inside}/></rdf:RDF></x:xmpmeta>'
    ).encode()


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


def text_chunk(kind: str, length: int) -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "a" * length, zip=kind == "packed")
    return written("PNG", pnginfo=text)


def zipped(**files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def of_mode(kind: str, mode: str, **options: Any) -> bytes:
    return written(kind, picture().convert(mode), **options)


def sixteen_bits(kind: str) -> bytes:
    rows = np.random.default_rng(5).integers(0, 65_536, (48, 64), dtype=np.uint16)
    return written(kind, Image.fromarray(rows))


def rgb_of_sixteen_bits() -> bytes:
    rows = np.random.default_rng(5).integers(0, 65_536, (48, 64 * 3), dtype=np.uint16)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0))
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def numbers(value: float) -> bytes:
    grey = np.asarray(picture().convert("L"), dtype=np.float32).copy()
    grey[0, 0] = value
    return written("TIFF", Image.fromarray(grey))


def short_palette() -> bytes:
    """Its picture names colours that its palette lacks."""
    content = of_mode("PNG", "P")
    at = content.index(b"PLTE") - 4
    (length,) = struct.unpack_from(">I", content, at)
    return content[:at] + chunk(b"PLTE", b"\xff\0\0" * 2) + content[at + 12 + length :]


ZERO = ((0, 1), (0, 1), (0, 1))

# --------------------------------------------------------------------------------------------- their bytes

CONTENTS: dict[str, tuple[Callable[[], bytes], Outcome]] = {
    # cut off
    "JPEG of its first mark alone": (lambda: jpeg()[:3], Code.DAMAGED_IMAGE),
    "JPEG cut in its EXIF": (lambda: placed(position())[:60], Code.DAMAGED_IMAGE),
    "JPEG cut in its tables": (lambda: cut_at(jpeg(), b"\xff\xc4", 10), Code.DAMAGED_IMAGE),
    "JPEG cut in its picture": (lambda: half(jpeg(quality=95)), Code.DAMAGED_IMAGE),
    "JPEG cut between two scans": (
        lambda: jpeg(progressive=True)[: jpeg(progressive=True).rindex(b"\xff\xda")],
        Code.DAMAGED_IMAGE,
    ),
    "JPEG cut and filled with zeros": (lambda: half(jpeg(quality=95)) + bytes(5000), Code.DAMAGED_IMAGE),
    "JPEG without its end mark": (lambda: jpeg()[:-2], TAKEN),
    "PNG of its signature alone": (lambda: png()[:8], Code.DAMAGED_IMAGE),
    "PNG cut in its header": (lambda: png()[:20], Code.DAMAGED_IMAGE),
    "PNG cut in its picture": (lambda: half(written("PNG")), Code.DAMAGED_IMAGE),
    "PNG without its end": (lambda: png(ends=False), TAKEN),
    "GIF cut in its palette": (lambda: written("GIF")[:20], Code.DAMAGED_IMAGE),
    "GIF cut in its picture": (lambda: written("GIF")[:-400], Code.DAMAGED_IMAGE),
    "WebP cut in its picture": (lambda: half(written("WEBP")), Code.DAMAGED_IMAGE),
    "TIFF of its beginning alone": (lambda: tiff_of_size(64, 48)[:8], Code.NOT_AN_IMAGE),
    "TIFF cut in its picture": (lambda: tiff_of_size(64, 48)[:1000], Code.DAMAGED_IMAGE),
    "HEIC cut in its boxes": (lambda: written("HEIF")[:100], Code.DAMAGED_IMAGE),
    "AVIF cut in its picture": (lambda: written("AVIF")[:-100], Code.DAMAGED_IMAGE),
    "JPEG XL cut in its picture": (lambda: half(written("JXL")), Code.DAMAGED_IMAGE),
    # none at all, or of something else
    "nothing": (lambda: b"", Code.EMPTY_FILE),
    "one byte": (lambda: b"\xff", Code.NOT_AN_IMAGE),
    "zeros": (lambda: bytes(5000), Code.NOT_AN_IMAGE),
    "ones": (lambda: b"\xff" * 5000, Code.NOT_AN_IMAGE),
    "JPEG with another first byte": (lambda: b"\xfe" + jpeg()[1:], Code.NOT_AN_IMAGE),
    "PNG sent as text": (lambda: png().replace(b"\r\n", b"\n", 1), Code.NOT_AN_IMAGE),
    "SVG": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><rect/></svg>", Code.NOT_AN_IMAGE),
    "HTML": (lambda: b"<!doctype html><title>404</title>", Code.NOT_AN_IMAGE),
    "PDF": (lambda: b"%PDF-1.7\n1 0 obj<<>>endobj\n%%EOF", Code.NOT_AN_IMAGE),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\nshowpage\n", Code.NOT_AN_IMAGE),
    "zip of a photo": (lambda: zipped(photo=jpeg()), Code.NOT_AN_IMAGE),
    "pickle": (lambda: pickle.dumps({"photo": 1}), Code.NOT_AN_IMAGE),
    "film": (lambda: box(b"ftyp", b"isom\0\0\2\0isomiso2mp41") + box(b"mdat", bytes(100)), Code.NOT_AN_IMAGE),
    "program": (lambda: b"\x7fELF\2\1\1" + bytes(200), Code.NOT_AN_IMAGE),
    "shell script": (lambda: b"#!/bin/sh\necho photo\n", Code.NOT_AN_IMAGE),
    "BMP": (lambda: written("BMP"), Code.NOT_AN_IMAGE),
    "ICO": (lambda: written("ICO"), Code.NOT_AN_IMAGE),
    "JPEG 2000": (lambda: written("JPEG2000"), Code.NOT_AN_IMAGE),
    "PCX": (lambda: written("PCX"), Code.NOT_AN_IMAGE),
    "RAW file's preview": (lambda: written("TIFF", tiffinfo={254: 1}), Code.NOT_AN_IMAGE),
    # bombs, by their header or by what they unpack to
    "PNG of 400 MP": (lambda: png((20_000, 20_000), rows=b"none"), Code.TOO_MANY_PIXELS),
    "PNG of 4 billion a side": (lambda: png((2**32 - 1, 2**32 - 1), rows=b"none"), Code.TOO_MANY_PIXELS),
    "JPEG of 4 GP": (lambda: jpeg_of_size(65_500, 65_500), Code.TOO_MANY_PIXELS),
    "GIF of 4 GP": (lambda: gif_of_size(65_535, 65_535), Code.TOO_MANY_PIXELS),
    "WebP of 268 MP": (lambda: webp_of_size(16_383, 16_383), Code.TOO_MANY_PIXELS),
    "TIFF of 4 billion a side": (lambda: tiff_of_size(2**32 - 1, 2**32 - 1), Code.TOO_MANY_PIXELS),
    "JPEG XL of 400 MP": (lambda: jxl_of_size(20_000, 20_000), Code.TOO_MANY_PIXELS),
    "HEIC of 400 MP": (lambda: boxed_of_size("HEIF", 20_000, 20_000), Code.DAMAGED_IMAGE),
    "AVIF of 400 MP": (lambda: boxed_of_size("AVIF", 20_000, 20_000), Code.DAMAGED_IMAGE),
    "PNG that unpacks to 20 MB": (lambda: png(rows=bytes(20_000_000)), TAKEN),
    "PNG with a text of 8 MB, packed": (lambda: text_chunk("packed", 8_000_000), Code.DAMAGED_IMAGE),
    "PNG with a text of 2 MB": (lambda: text_chunk("plain", 2_000_000), TAKEN),
    "PNG with a profile of 8 MB, packed": (
        lambda: png(before=chunk(b"iCCP", b"big\0\0" + zlib.compress(bytes(8_000_000)))),
        Code.DAMAGED_IMAGE,
    ),
    "PNG with 10,000 chunks": (lambda: png(before=chunk(b"tEXt", b"a\0b") * 10_000), TAKEN),
    # odd sizes
    "one pixel": (lambda: written("PNG", picture((1, 1))), Code.TOO_SMALL),
    "one row": (lambda: written("PNG", picture((500, 1))), Code.TOO_SMALL),
    "one column": (lambda: jpeg(image=picture((1, 500))), Code.TOO_SMALL),
    "stripe": (lambda: written("PNG", picture((10_000, 20))), Code.TOO_THIN),
    "PNG of no width": (lambda: png((0, 48), rows=b"none"), Code.DAMAGED_IMAGE),
    "JPEG of no height": (lambda: jpeg_of_size(64, 0), Code.DAMAGED_IMAGE),
    "GIF of no size": (lambda: gif_of_size(0, 0), Code.DAMAGED_IMAGE),
    "TIFF of no size": (lambda: tiff_of_size(0, 0), Code.NOT_AN_IMAGE),
    # several pictures
    "GIF that moves": (lambda: several("GIF"), TAKEN),
    "WebP that moves": (lambda: several("WEBP"), TAKEN),
    "PNG that moves": (lambda: several("PNG"), TAKEN),
    "TIFF of three pages": (lambda: several("TIFF"), TAKEN),
    "JPEG of three pictures": (lambda: several("MPO"), TAKEN),
    # odd colours
    "JPEG of printers": (lambda: of_mode("JPEG", "CMYK"), TAKEN),
    "TIFF of printers": (lambda: of_mode("TIFF", "CMYK"), TAKEN),
    "TIFF in Lab": (lambda: written("TIFF", Image.new("LAB", SIZE)), TAKEN),
    "PNG of 16 bits": (lambda: sixteen_bits("PNG"), TAKEN),
    "PNG of 48 bits": (rgb_of_sixteen_bits, TAKEN),
    "TIFF of 16 bits": (lambda: sixteen_bits("TIFF"), TAKEN),
    "TIFF with a number that is none": (lambda: numbers(float("nan")), TAKEN),
    "TIFF with an infinite number": (lambda: numbers(float("inf")), TAKEN),
    "TIFF of one bit": (lambda: of_mode("TIFF", "1"), TAKEN),
    "PNG with a palette": (lambda: of_mode("PNG", "P"), TAKEN),
    "PNG whose palette is too short": (short_palette, TAKEN),
    "JPEG with a profile that is none": (lambda: jpeg(icc_profile=b"no profile"), TAKEN),
    "JPEG with a profile of 100 kB": (lambda: jpeg(icc_profile=bytes(100_000)), TAKEN),
    # what they say of themselves
    "JPEG that lies on its side": (lambda: jpeg(exif=exif(6)), Taken((48, 64))),
    "JPEG turned as nothing is": (lambda: jpeg(exif=exif(99)), TAKEN),
    "EXIF that is none": (lambda: with_exif(b"no EXIF at all"), TAKEN),
    "EXIF that breaks off": (lambda: with_exif(exif(1, position())[6:60]), Taken(issue=PositionIssue.ABSENT)),
    "EXIF that points at itself": (lambda: with_exif(directory((0x8825, 4, 1, 8), following=8)), TAKEN),
    "EXIF that points beyond the file": (lambda: with_exif(directory((0x8825, 4, 1, 2**31))), TAKEN),
    "EXIF of 4 billion values": (lambda: with_exif(directory((0x8825, 12, 2**32 - 1, 8))), TAKEN),
    "GPS as phones write it": (lambda: placed(position()), PLACED),
    "GPS of 0/0": (lambda: placed(position(((0, 0),) * 3)), said(PositionIssue.BROKEN_NUMBERS)),
    "GPS divided by nothing": (lambda: placed(position(((50, 1), (5, 0), (0, 1)))), said(PositionIssue.BROKEN_NUMBERS)),
    "GPS that is NaN": (
        lambda: placed([Tag(2, 12, (float("nan"),) * 3), *position()[1:]]),
        said(PositionIssue.BROKEN_NUMBERS),
    ),
    "GPS of 91 degrees": (lambda: placed(position(((91, 1), (0, 1), (0, 1)))), said(PositionIssue.OUT_OF_RANGE)),
    "GPS of 181 degrees": (
        lambda: placed(position(lon=((181, 1), (0, 1), (0, 1)))),
        said(PositionIssue.OUT_OF_RANGE),
    ),
    "GPS of 60 minutes": (
        lambda: placed(position(((50, 1), (60, 1), (0, 1)))),
        said(PositionIssue.MINUTES_OUT_OF_RANGE),
    ),
    "GPS of zeros": (lambda: placed(position(ZERO, ZERO)), said(PositionIssue.ZEROS)),
    "GPS without a hemisphere": (lambda: placed(position(refs=(None, "E"))), said(PositionIssue.NO_HEMISPHERE)),
    "GPS of half a place": (lambda: placed(position()[:1]), said(PositionIssue.HALF)),
    "GPS in words": (lambda: placed([Tag(2, 2, ("50 N",)), *position()[1:]]), said(PositionIssue.BROKEN_NUMBERS)),
    "GPS that says that it is none": (lambda: placed(position(status="V")), said(PositionIssue.VOID)),
    "XMP that is no XML": (lambda: jpeg(xmp=b"<x:xmpmeta"), said(PositionIssue.UNREADABLE)),
    "XMP with entities": (lambda: jpeg(xmp=xmp("", LAUGHS)), said(PositionIssue.UNREADABLE)),
    "XMP nested 20,000 deep": (lambda: jpeg(xmp=b"<a>" * 20_000), said(PositionIssue.UNREADABLE)),
    "XMP of 91 degrees": (
        lambda: jpeg(xmp=xmp('exif:GPSLatitude="91,0.0N" exif:GPSLongitude="14,0.0E"')),
        said(PositionIssue.OUT_OF_RANGE),
    ),
    # two things at once
    "JPEG and a zip behind it": (lambda: jpeg() + zipped(a=b"b"), TAKEN),
    "JPEG and a PNG behind it": (lambda: jpeg() + png(), TAKEN),
    "JPEG with a web page in its comment": (lambda: jpeg(comment=b"<script>alert(1)</script>"), TAKEN),
    "GIF that is a script": (lambda: b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)", Code.DAMAGED_IMAGE),
    "PDF with a JPEG in it": (lambda: b"%PDF-1.7\n" + jpeg(), Code.NOT_AN_IMAGE),
    "zip whose first file is a JPEG": (lambda: zipped(photo=jpeg()) + jpeg(), Code.NOT_AN_IMAGE),
    # TIFF
    "TIFF of an unknown compression": (lambda: tiff_of_size(64, 48, compression=60_000), Code.NOT_AN_IMAGE),
    "TIFF of 65,535 samples": (lambda: tiff_of_size(64, 48, samples=65_535), Code.NOT_AN_IMAGE),
    "TIFF of no bits": (lambda: tiff_of_size(64, 48, bits=0), Code.NOT_AN_IMAGE),
    "TIFF whose strip lies elsewhere": (lambda: tiff_of_size(64, 48, strip=2**31), Code.DAMAGED_IMAGE),
    "TIFF without a size": (lambda: tiff((262, 3, 1)).ljust(300, b"\0"), Code.NOT_AN_IMAGE),
    "TIFF that goes round": (
        lambda: tiff((256, 4, 64), (257, 4, 48), next_directory=8).ljust(300, b"\0"),
        Code.NOT_AN_IMAGE,
    ),
    "TIFF with a tag of nobody's": (lambda: with_tag(65_000, 3, 7), TAKEN),
    "TIFF with a tag of a megabyte": (lambda: with_tag(270, 2, 1_000_000), TAKEN),
    # PNG
    "PNG whose header has a wrong checksum": (
        lambda: png().replace(struct.pack(">I", zlib.crc32(png()[12:29])), b"\0\0\0\0", 1),
        Code.DAMAGED_IMAGE,
    ),
    "PNG whose picture has a wrong checksum": (lambda: png(checksum=0), TAKEN),
    "PNG whose picture is not packed": (
        lambda: png().replace(cut_at(png()[png().index(b"IDAT") + 4 :], b"IEND", -8), b"x" * 10),
        Code.DAMAGED_IMAGE,
    ),
    "PNG with a chunk of 4 GB": (lambda: png(before=b"\xff\xff\xff\xfftEXta\0b"), Code.DAMAGED_IMAGE),
    "PNG without a picture": (lambda: cut_at(png(), b"IDAT", -4) + chunk(b"IEND", b""), Code.DAMAGED_IMAGE),
    "PNG with rows that lack": (lambda: png(rows=bytes(65 * 20)), TAKEN),
    # boxes
    "WebP of a wrong length": (lambda: written("WEBP")[:4] + b"\xff\xff\xff\x7f" + written("WEBP")[8:], TAKEN),
    "WebP of a header alone": (
        lambda: b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(10),
        Code.DAMAGED_IMAGE,
    ),
    "HEIC of its first box alone": (lambda: box(b"ftyp", b"heic\0\0\0\0mif1heic"), Code.DAMAGED_IMAGE),
    "HEIC whose second box has no length": (
        lambda: box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", bytes(40), length=0),
        Code.DAMAGED_IMAGE,
    ),
    "HEIC whose boxes go on for ever": (
        lambda: box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", bytes(40), length=2**32 - 1),
        Code.DAMAGED_IMAGE,
    ),
    "AVIF of its first box alone": (lambda: box(b"ftyp", b"avif\0\0\0\0mif1avif"), Code.DAMAGED_IMAGE),
    "AVIF whose picture lies elsewhere": (
        lambda: written("AVIF").replace(b"iloc", b"ilox", 1),
        Code.DAMAGED_IMAGE,
    ),
    "JPEG XL whose box has no end": (
        lambda: box(b"JXL ", b"\r\n\x87\n") + box(b"jxlc", b"\xff\x0a", length=3),
        Code.DAMAGED_IMAGE,
    ),
}

# --------------------------------------------------------------------------------------- where they lie

Place = Callable[[Path], str]
GOOD = jpeg(image=picture(seed=9))


def file(name: str, content: bytes = GOOD) -> Place:
    def put(folder: Path) -> str:
        (folder / name).write_bytes(content)
        return str(folder / name)

    return put


def link(name: str, target: str) -> Place:
    def put(folder: Path) -> str:
        (folder / name).symlink_to(target)
        return str(folder / name)

    return put


def named(path: str) -> Place:
    """A path that nothing is put to."""
    return lambda folder: path.format(folder=folder)


def a_folder(folder: Path) -> str:
    (folder / "folder.jpg").mkdir()
    return str(folder / "folder.jpg")


def a_pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe.jpg")
    return str(folder / "pipe.jpg")


def a_socket(folder: Path) -> str:
    with socket.socket(socket.AF_UNIX) as listening:
        # By a short name: those of sockets have 107 bytes at the most.
        here = os.open(folder, os.O_PATH)
        listening.bind(f"/proc/self/fd/{here}/socket.jpg")
        os.close(here)
    return str(folder / "socket.jpg")


def a_terabyte(folder: Path) -> str:
    with (folder / "terabyte.jpg").open("wb") as sparse:
        sparse.truncate(2**40)
    return str(folder / "terabyte.jpg")


def two_links(folder: Path) -> str:
    (folder / "first.jpg").symlink_to("/etc/passwd")
    (folder / "second.jpg").symlink_to("first.jpg")
    return str(folder / "second.jpg")


def not_text(folder: Path) -> str:
    """Its name is no UTF-8, which no message can carry."""
    name = os.fsencode(folder) + b"/\xff.jpg"
    Path(os.fsdecode(name)).write_bytes(GOOD)
    return os.fsdecode(name)


PLACES: dict[str, tuple[Place, Outcome]] = {
    "folder": (a_folder, Code.NOT_A_FILE),
    "pipe": (a_pipe, Code.NOT_A_FILE),
    "socket": (a_socket, Code.NOT_A_FILE),
    "file of a terabyte": (a_terabyte, Code.TOO_LARGE),
    "link to a device": (link("device.jpg", "/dev/zero"), Code.OUTSIDE_ROOTS),
    "link out of the folder": (link("out.jpg", "/etc/passwd"), Code.OUTSIDE_ROOTS),
    "link to a link out of the folder": (two_links, Code.OUTSIDE_ROOTS),
    "link to what a process has open": (link("open.jpg", "/proc/self/fd/0"), Code.OUTSIDE_ROOTS),
    "link to nothing": (link("nothing.jpg", "absent.jpg"), Code.NOT_FOUND),
    "link to itself": (link("itself.jpg", "itself.jpg"), Code.NOT_FOUND),
    "link within the folder": (link("within.jpg", "a good one.jpg"), TAKEN),
    "dots out of the folder": (named("{folder}/../../../../../../../../etc/passwd"), Code.OUTSIDE_ROOTS),
    "secrets of the process": (named("/proc/self/environ"), Code.OUTSIDE_ROOTS),
    "memory of the process": (named("/proc/self/mem"), Code.OUTSIDE_ROOTS),
    "device": (named("/dev/zero"), Code.OUTSIDE_ROOTS),
    "nothing there": (named("{folder}/absent.jpg"), Code.NOT_FOUND),
    "below a file": (named("{folder}/a good one.jpg/below.jpg"), Code.NOT_FOUND),
    "name of 255 letters": (file("x" * 251 + ".jpg"), TAKEN),
    "name of 300 letters": (named("{folder}/" + "x" * 300), Code.NOT_FOUND),
    "path of 1,900 folders": (named("{folder}/" + "a/" * 1900), Code.NOT_FOUND),
    "path of 6,000 letters": (named("{folder}/" + "a/" * 3000), Code.BAD_REQUEST),
    "name with a line end": (file("two\nlines.jpg"), TAKEN),
    "name that begins with a dash": (file("-rf.jpg"), TAKEN),
    "name that looks like a command": (file("$(id);`id`.jpg"), TAKEN),
    "name with a NUL": (named("{folder}/a good one.jpg\0.png"), Code.BAD_REQUEST),
    "name that is no text": (not_text, Code.BAD_REQUEST),
    "no name": (named(""), Code.BAD_REQUEST),
}
