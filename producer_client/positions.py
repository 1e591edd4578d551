"""Where a photo says that it was taken: its EXIF GPS tags and its XMP packet, read the same by backends and workers.

Opens no file and needs the standard library alone; an image comes from whoever has Pillow. What can be read in two
ways is no position, and the reason is said: a wrong one is a place on Earth that nobody would notice.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.parsers import expat

from producer_client.words import PositionFrom, PositionIssue

#: EXIF's GPS block and what stands in it (Exif 2.32, section 4.6.6).
GPS_IFD = 0x8825
LAT_REF, LAT, LON_REF, LON, STATUS, MEASURE_MODE, DOP, DATUM, ERROR = 1, 2, 3, 4, 9, 10, 11, 18, 31
#: What Pillow raises for metadata that breaks off or contradicts itself; the last two, found by flipping bytes, are
#: those of EXIF shorter than its own header and of 64-bit offsets in it.
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    TypeError,
    RuntimeError,
    struct.error,
    OverflowError,
)
#: Metres of stated error above which a position is no evidence, unless a worker's SIGHTLINE_LOCATE_AGREE_M says other.
COARSE_M = 150.0
#: Metres of error for each unit of dilution of precision, which is a factor: what Android and others take a receiver's
#: own error to be where the sky is open. Cameras that know no factor write metres there: it covers them, too. As nobody
#: can tell which of both it is, it widens a position up to COARSE_M, and makes none worthless.
M_PER_DOP = 5.0
#: Metres that a position in another datum than WGS 84 may be off: Tokyo is 450, NAD 27 up to 200, GCJ-02 up to 700.
DATUM_SHIFT_M = 1_000.0
#: Datums within some metres of WGS 84, as cameras spell them, letters and digits alone.
_AS_GOOD_AS_WGS84 = re.compile(
    r"|WGS1?9?84.*|EPSG4326|ITRF\d*|ETRS1?9?89|NAD83|GDA94|GDA2020|JGD2000|JGD2011|SIRGAS2000|CGCS2000|PZ90.*"
)
#: Of the XMP in a file and of a sidecar: Lightroom's, with masks, have some hundred kB.
MAX_XMP_BYTES = 4_000_000
_EXIF_IN_XMP = "http://ns.adobe.com/exif/1.0/ "
_XMP_NAMES = {
    "GPSLatitudeRef": LAT_REF,
    "GPSLatitude": LAT,
    "GPSLongitudeRef": LON_REF,
    "GPSLongitude": LON,
    "GPSStatus": STATUS,
    "GPSMeasureMode": MEASURE_MODE,
    "GPSDOP": DOP,
    "GPSMapDatum": DATUM,
    "GPSHPositioningError": ERROR,
}
#: `56,9,4.32N` or `56,9.072N` (XMP specification, part 2, GPSCoordinate), and `56.1512N` as some tools write it.
_COORDINATE = re.compile(
    r"([+-]?\d{1,9}(?:\.\d*)?)(?:,(\d{1,9}(?:\.\d*)?))?(?:,(\d{1,9}(?:\.\d*)?))?\s*([A-Z]?)", re.ASCII | re.I
)
_BLANK = "\0 \t\r\n"


@dataclass(frozen=True, slots=True)
class Position:
    """WGS 84 degrees. error_m: metres, where the camera states it."""

    lat: float
    lon: float
    origin: PositionFrom
    error_m: float | None = None


Reading = Position | PositionIssue


def of_image(image: Any) -> Reading:
    """What a photo's file says: its EXIF GPS tags, or else its XMP packet. image: opened by the caller's Pillow."""
    try:
        tags = image.getexif().get_ifd(GPS_IFD)
    except BROKEN:
        tags = {}
    said, packet = from_exif(tags), image.info.get("xmp")
    if isinstance(said, Position) or not isinstance(packet, bytes):
        return said
    return first((said, from_xmp(packet)))


def first(readings: Iterable[Reading]) -> Reading:
    """The first position, or else the first reason that says more than that there is none."""
    why = PositionIssue.ABSENT
    for reading in readings:
        if isinstance(reading, Position):
            return reading
        if why is PositionIssue.ABSENT:
            why = reading
    return why


def from_exif(tags: Mapping[int, object]) -> Reading:
    """tags: of the GPS block by number, with Pillow's values."""
    return _read(tags, _parts_of_tag, PositionFrom.EXIF)


def from_xmp(packet: bytes, origin: PositionFrom = PositionFrom.XMP) -> Reading:
    """`exif:GPSLatitude` and its neighbours. A document type is refused, so that no entity is ever expanded."""
    packet = packet.strip(_BLANK.encode())
    if not packet:
        return PositionIssue.ABSENT
    if len(packet) > MAX_XMP_BYTES:
        return PositionIssue.UNREADABLE
    try:
        said = _xmp_values(packet)
    except _NoPosition as no:
        return no.issue
    except (expat.ExpatError, ValueError, LookupError):  # the last two: encodings that Python does not have
        return PositionIssue.UNREADABLE
    if any(len(values) > 1 for values in said.values()):
        return PositionIssue.CONTRADICTORY
    return _read({number: values.pop() for number, values in said.items()}, _parts_of_text, origin)


def from_degrees(lat: object, lon: object, origin: PositionFrom) -> Reading:
    """Signed decimal degrees, or whatever stands where they should."""
    if lat is None or lon is None:
        return PositionIssue.ABSENT if lat is lon else PositionIssue.HALF
    try:
        at = _number(lat), _number(lon)
    except _NoPosition as no:
        return no.issue
    if at_default_point(*at):
        return PositionIssue.ZEROS
    return Position(*at, origin) if abs(at[0]) <= 90 and abs(at[1]) <= 180 else PositionIssue.OUT_OF_RANGE


def at_default_point(lat: float, lon: float) -> bool:
    """Exactly 0, 0: what programs write that know no place. It is open sea, 570 km from land."""
    return lat == 0 and lon == 0


# ------------------------------------------------------------------------------------------------- below


class _NoPosition(Exception):
    def __init__(self, issue: PositionIssue) -> None:
        self.issue = issue


@dataclass(frozen=True, slots=True)
class _Angle:
    """Degrees, and minutes and seconds where they are said. whole: nothing is missing behind the last one."""

    parts: Sequence[float]
    whole: bool
    letter: str = ""


def _read(said: Mapping[int, object], parts_of: Callable[[object], _Angle], origin: PositionFrom) -> Reading:
    lat, lon = said.get(LAT), said.get(LON)
    # A receiver without a fix repeats the last one, which may be of yesterday. Mode 1 is NMEA's word for it.
    if _text(said.get(STATUS)).upper() == "V" or _text(said.get(MEASURE_MODE)) in ("0", "1"):
        return PositionIssue.VOID
    if lat is None and lon is None:
        return PositionIssue.ABSENT
    if lat is None or lon is None:
        return PositionIssue.HALF
    try:
        of_lat, of_lon = parts_of(lat), parts_of(lon)
        if not any(of_lat.parts) and not any(of_lon.parts):
            return PositionIssue.ZEROS
        at = _degrees(of_lat, said.get(LAT_REF), "NS", 90), _degrees(of_lon, said.get(LON_REF), "EW", 180)
    except _NoPosition as no:
        return no.issue
    return Position(*at, origin, _error_m(said))


def _degrees(angle: _Angle, ref: object, letters: str, most: float) -> float:
    size, negative = _size(angle)
    hemisphere = (angle.letter or _text(ref)).upper()
    if len(hemisphere) != 1 or hemisphere not in letters:
        raise _NoPosition(PositionIssue.NO_HEMISPHERE)
    # Software writes -33 and S for the south. -33 and N may be either.
    if negative and hemisphere == letters[0]:
        raise _NoPosition(PositionIssue.CONTRADICTORY)
    if size > most:
        raise _NoPosition(PositionIssue.OUT_OF_RANGE)
    return size if hemisphere == letters[0] else -size


def _size(angle: _Angle) -> tuple[float, bool]:
    """Degrees without their sign, and whether one was there."""
    if not angle.whole or not all(map(math.isfinite, angle.parts)):
        raise _NoPosition(PositionIssue.BROKEN_NUMBERS)
    signs = [part < 0 for part in angle.parts if part]
    # Either the first one alone has the sign, or all of them.
    if len(set(signs[1:])) > 1 or (any(signs) and not signs[0]):
        raise _NoPosition(PositionIssue.CONTRADICTORY)
    degrees, minutes, seconds = (abs(part) for part in (*angle.parts, 0.0, 0.0)[:3])
    if minutes >= 60 or seconds >= 60:
        raise _NoPosition(PositionIssue.MINUTES_OUT_OF_RANGE)
    # 10.5 degrees and 30 minutes: is half a degree said twice, or is it 11?
    if (degrees % 1 and (minutes or seconds)) or (minutes % 1 and seconds):
        raise _NoPosition(PositionIssue.CONTRADICTORY)
    return degrees + minutes / 60 + seconds / 3600, any(signs)


def _parts_of_tag(value: object) -> _Angle:
    """value: up to three fractions. 0/0 behind decimal minutes, or degrees, says that there is nothing more."""
    parts = list(value) if isinstance(value, tuple | list) else [value]
    while len(parts) > 1 and getattr(parts[-1], "numerator", 1) == getattr(parts[-1], "denominator", 1) == 0:
        parts.pop()
    if not 1 <= len(parts) <= 3:
        raise _NoPosition(PositionIssue.BROKEN_NUMBERS)
    numbers = [_number(part) for part in parts]
    # 5000/100 is fifty to the second decimal; 50/1 alone may be anything up to 51.
    decimal = getattr(parts[-1], "denominator", 1) > 1 or bool(numbers[-1] % 1)
    return _Angle(numbers, len(numbers) == 3 or decimal)


def _parts_of_text(value: object) -> _Angle:
    found = _COORDINATE.fullmatch(_text(value))
    if found is None:
        raise _NoPosition(PositionIssue.BROKEN_NUMBERS)
    *parts, letter = found.groups()
    said = [part for part in parts if part is not None]
    return _Angle([float(part) for part in said], len(said) == 3 or "." in said[-1], letter)


def _number(value: object) -> float:
    """Raises _NoPosition for what is no number, NaN and infinity included."""
    if isinstance(value, str | bytes | bool) or not hasattr(value, "__float__"):
        raise _NoPosition(PositionIssue.BROKEN_NUMBERS)
    try:
        number = float(value)
    except (TypeError, ValueError, ArithmeticError) as exc:
        raise _NoPosition(PositionIssue.BROKEN_NUMBERS) from exc
    if not math.isfinite(number):
        raise _NoPosition(PositionIssue.BROKEN_NUMBERS)
    return number


def _error_m(said: Mapping[int, object]) -> float | None:
    error_m = _stated(said.get(ERROR))
    if error_m is None and (dop := _stated(said.get(DOP))) is not None:
        error_m = min(M_PER_DOP * dop, COARSE_M)
    datum = re.sub(r"[^A-Z0-9]", "", _text(said.get(DATUM)).upper())
    return error_m if _AS_GOOD_AS_WGS84.fullmatch(datum) else max(error_m or 0.0, DATUM_SHIFT_M)


def _stated(value: object) -> float | None:
    """A number above zero: no receiver is exact, and 0 says that nobody measured it."""
    try:
        if isinstance(value, str):
            above, _, below = value.partition("/")
            stated = float(above) / float(below or 1)
        else:
            stated = _number(value)
    except (_NoPosition, ValueError, ZeroDivisionError):
        return None
    return stated if math.isfinite(stated) and stated > 0 else None


def _text(value: object) -> str:
    """A tag's text, whether it was written as text or as bytes; up to its first NUL, and NULs before it are none."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return value.strip(_BLANK).partition("\0")[0].strip(_BLANK) if isinstance(value, str) else ""


def _xmp_values(packet: bytes) -> dict[int, set[str]]:
    """Every value that the packet has for each of our tags, as attribute or as element."""
    said: dict[int, set[str]] = {}
    within: list[int | None] = []  # the open elements
    text: list[str] = []

    def number_of(name: str) -> int | None:
        return _XMP_NAMES.get(name.removeprefix(_EXIF_IN_XMP)) if name.startswith(_EXIF_IN_XMP) else None

    def note(number: int | None, value: str) -> None:
        if number is not None and value.strip():
            said.setdefault(number, set()).add(value.strip())

    def start(name: str, attributes: dict[str, str]) -> None:
        within.append(number_of(name))
        text.clear()
        for attribute, value in attributes.items():
            note(number_of(attribute), value)

    def end(_name: str) -> None:
        note(within.pop(), "".join(text))
        text.clear()

    def characters(piece: str) -> None:
        if within and within[-1] is not None:
            text.append(piece)

    def refuse(*_: object) -> None:
        raise _NoPosition(PositionIssue.UNREADABLE)

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, characters
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(packet, True)
    return said
