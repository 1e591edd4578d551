"""File bytes to upright RGB pixels, small enough for an encoder. Knows nothing of models, files or messages.

The size is checked on the header, before anything is decoded. JPEGs are decoded at 1/2, 1/4 or 1/8 size by libjpeg
itself where that is still larger than the encoder needs: five times faster for an 8 MP photo. libjpeg-turbo is called
directly for them (simplejpeg), which is several times faster than through Pillow where no such step is possible;
whatever it does not like is Pillow's to judge. docs/benchmarks.md has the figures.
"""

from __future__ import annotations

import io
import logging
import re
import warnings

import numpy as np
import pillow_heif
import simplejpeg
from PIL import AvifImagePlugin, ExifTags, Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from producer_client.contract import Code
from producer_client.errors import short
from producer_client.positions import BROKEN, of_image
from worker.core.types import Decoded, Pixels
from worker.encoder.jxl import Header, header_of, is_jxl, is_of_jpeg, opened
from worker.encoder.mending import breaks_off, mended, picture_breaks_off
from worker.encoder.picture import picture_hash
from worker.encoder.shots import shot_of
from worker.errors import PhotoRefusal

#: What people upload. A closed list keeps Pillow's rare and old parsers away from strangers' bytes.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "GIF", "JXL")
#: Those that need no plugin which is loaded with the first photo of its kind.
_BY_PILLOW = tuple(name for name in FORMATS if name != "JXL")
#: Below this many pixels on a side there is nothing to recognise.
MIN_SIDE_PX = 16
#: The widest panoramas of phones are about 10 : 1.
MAX_ASPECT = 30
#: Pixels are kept at least this many times the encoder's input side, so that its own resize decides the quality.
KEEP_FACTOR = 2

#: What brings a photo with this EXIF orientation upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: TIFF's tag NewSubfileType, and what it says of a smaller version of another picture in the file.
_SUBFILE_TYPE, _REDUCED = 254, 1
_PILLOW = r"PIL\."
#: How files of these formats begin that Pillow does not know for theirs once they are damaged. Not TIFFs: so begin RAW
#: files of cameras.
_BEGINNING = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8|RIFF.{4}WEBP|.{4}ftyp(avi[fs]|hei[cfmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL
)
#: What libraries say of a file that ends before its picture does.
_CUT_SHORT = ("truncated", "premature end", "breaks off")

pillow_heif.register_heif_opener()
# As many photos are decoded at a time as the settings say; none of them takes all cores for itself.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
# Pillow only warns between its limit and twice that. The check of `decode` is stricter and comes before decoding.
Image.MAX_IMAGE_PIXELS = None


log = logging.getLogger(__name__)


def decode(content: bytes, *, side: int, max_megapixels: float, longer_side: int = 0) -> Decoded:
    """Decode one photo for an encoder whose input is `side` pixels square.

    Returns RGB pixels whose short side is at least 2 * side, and whose longer side at least `longer_side`, where the
    photo has as much, what its file says of where it was taken, with what and when, and the picture's
    hash.
    Raises PhotoRefusal with empty_file, not_an_image, too_many_pixels, too_small or damaged_image.
    """
    if not content:
        raise PhotoRefusal(Code.EMPTY_FILE, "the file is empty")
    _hush_pillow()
    sides = KEEP_FACTOR * side, longer_side
    try:
        return _decode(content, sides, max_megapixels)
    except PhotoRefusal as exc:
        whole = mended(content) if exc.code is Code.DAMAGED_IMAGE else None
        if whole is None:
            raise
    return _decode(whole, sides, max_megapixels)


def _decode(content: bytes, sides: tuple[int, int], max_megapixels: float) -> Decoded:
    """sides: pixels that the short and the longer side are to have at least."""
    header = _check_jxl(content, max_megapixels) if is_jxl(content) else None
    try:
        image = Image.open(io.BytesIO(content), formats=_BY_PILLOW) if header is None else opened(content)
    except UnidentifiedImageError as exc:
        if _BEGINNING.match(content):
            raise _damaged(exc) from exc
        raise PhotoRefusal(Code.NOT_AN_IMAGE, f"not a photo in one of the formats {', '.join(FORMATS)}") from exc
    except BROKEN as exc:
        raise _damaged(exc) from exc
    with image:
        _check_raw(image)
        _check_size(image.size, max_megapixels)
        _check_shape(image.size)
        whole = image.width * image.height
        least = max(sides[0], -(-sides[1] * min(image.size) // max(image.size)))
        try:
            pixels = _jpeg(image, content, least)
            if pixels is None:
                image.draft("RGB", (least, least))
                image.load()
            # After loading: Pillow turns some formats by itself, and takes the tag away.
            position, shot, turn = of_image(image), shot_of(image), _turn(image)
            if header is not None and header.turn != 1 and not is_of_jpeg(image):
                turn = None  # its decoder has; the EXIF of what was made of a JPEG says it once more
            small = _rgb(_reduced(image if pixels is None else Image.fromarray(pixels), least))
        except BROKEN as exc:
            raise _damaged(exc) from exc
        upright = small if turn is None else small.transpose(turn)
        pixels = np.asarray(upright, dtype=np.uint8)
        reduced = upright.width * upright.height < whole
        hashed = picture_hash(upright)
        return Decoded(pixels=pixels, position=position, picture_hash=hashed, reduced=reduced, shot=shot)


def _damaged(exc: BaseException) -> PhotoRefusal:
    """What a decoder does not like, in a sentence for people. Its own words, which are for those who know the library,
    go to the log."""
    words = " ".join(str(exc).split())
    log.info("a photo cannot be decoded", extra={"error": type(exc).__name__, "why": short(words)})
    if any(said in words.lower() for said in _CUT_SHORT):
        return PhotoRefusal(
            Code.DAMAGED_IMAGE,
            "the photo cannot be decoded: its file breaks off. Copy it again from where it came from",
        )
    return PhotoRefusal(
        Code.DAMAGED_IMAGE, "the photo cannot be decoded: its file is damaged. Copy it again from where it came from"
    )


def _hush_pillow() -> None:
    """Pillow warns of odd metadata, which is no news about a photo; what matters is in the outcome.

    `warnings.catch_warnings` swaps the filters of the whole process and is not for threads before Python 3.14, so
    the filter stays, and is set again where somebody has put another before it.
    """
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[0] != "ignore" or getattr(first[3], "pattern", None) != _PILLOW:
        warnings.filterwarnings("ignore", module=_PILLOW)


def _check_size(size: tuple[int, int], max_megapixels: float) -> None:
    width, height = size
    megapixels = width * height / 1e6
    if megapixels > max_megapixels:
        raise PhotoRefusal(
            Code.TOO_MANY_PIXELS,
            f"{width} x {height} is {megapixels:.0f} MP, the limit is {max_megapixels:g} MP (SIGHTLINE_MAX_MEGAPIXELS)",
        )
    if min(size) < MIN_SIDE_PX:
        raise PhotoRefusal(
            Code.TOO_SMALL, f"{width} x {height} pixels show nothing; {MIN_SIDE_PX} on each side is the least"
        )


def _check_shape(size: tuple[int, int]) -> None:
    """A model sees a square from the middle, scaled by the short side: the long one grows with it, in memory too."""
    if max(size) > MAX_ASPECT * min(size):
        raise PhotoRefusal(
            Code.TOO_THIN, f"{size[0]} x {size[1]} is a stripe; one side may be {MAX_ASPECT} times the other"
        )


def _check_raw(image: Image.Image) -> None:
    """DNG, NEF and ARW are TIFFs whose first picture is a thumbnail, which would stand for the photo unsaid."""
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_SUBFILE_TYPE) == _REDUCED:
        raise PhotoRefusal(
            Code.NOT_AN_IMAGE,
            "its first picture is a preview, as in the RAW files of cameras, which are not read; send a JPEG of it",
        )


def _check_jxl(content: bytes, max_megapixels: float) -> Header:
    """Judge the size before the plugin decodes, which it does as soon as a file is opened."""
    header = header_of(content)
    if header is None:
        raise _damaged(EOFError("the header of a JPEG XL breaks off"))
    _check_size(header.size, max_megapixels)
    _check_shape(header.size)
    return header


def _jpeg(image: Image.Image, content: bytes, side: int) -> Pixels | None:
    """A JPEG's RGB pixels, as small as Pillow's `draft` would make them; None where Pillow should decode it.

    Raises OSError or ValueError where the picture breaks off: of that Pillow says nothing where an end marker follows.
    """
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return None
    if image.mode not in ("RGB", "L"):
        if picture_breaks_off(content):
            raise OSError("the picture breaks off")
        return None
    width, height = image.size
    step = max(step for step in (1, 2, 4, 8) if step == 1 or min(width, height) // step >= side)
    try:
        # What was checked is what Pillow has read of the header.
        if simplejpeg.decode_jpeg_header(content)[:2] != (height, width):
            return None
        least = {} if step == 1 else {"min_height": -(-height // step), "min_width": -(-width // step)}
        pixels: Pixels = simplejpeg.decode_jpeg(content, "RGB", **least)
    except ValueError as exc:
        if breaks_off(content, str(exc)):
            raise
        # Damaged, or odd in a way that Pillow forgives.
        return None
    return pixels


def _reduced(image: Image.Image, side: int) -> Image.Image:
    """Box-reduce by a whole factor, so that a large PNG does not travel on at full size."""
    factor = min(image.size) // side
    if factor < 2 or image.mode not in ("L", "RGB", "RGBA", "CMYK"):
        return image
    return image.reduce(factor)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        # 16-bit grey: keep the upper byte; Pillow's own conversion clips instead.
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        top = 65535.0 if values.max() > 255 else 255.0
        return Image.fromarray(np.clip(values * (255.0 / top), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        see_through = image.convert("RGBA")
        paper = Image.new("RGBA", see_through.size, "white")
        return Image.alpha_composite(paper, see_through).convert("RGB")
    return image.convert("RGB")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How to bring the photo upright. Broken EXIF says nothing: it does not make a good photo bad."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except BROKEN:
        return None
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
