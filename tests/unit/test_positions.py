"""Where a photo says it was taken: one table for the backend's reader and the worker's, and what is no position."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from producer_client import positions
from producer_client.contract import PositionFrom, PositionIssue, Provenance
from producer_client.positions import MAX_XMP_BYTES, Position, Reading, first, from_exif, from_xmp
from producer_client.sources import Finding, Status, exif_gps
from tests.exif import Tag, exif, position
from worker.encoder.images import decode

CASES = Path(__file__).parents[3] / "shared" / "cases"
ASKED = exif_gps().ask

N, E = Tag(1, 2, ("N",)), Tag(3, 2, ("E",))
LAT = Tag(2, 5, ((56, 1), (9, 1), (432, 100)))
LON = Tag(4, 5, ((10, 1), (12, 1), (1476, 100)))
HERE = (56.1512, 10.2041)
SOUTH = (-33.858333, -70.67)
UNSIGNED_SOUTH = [Tag(2, 5, ((33, 1), (51, 1), (30, 1))), Tag(4, 5, ((70, 1), (40, 1), (12, 1)))]


def written(kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 60, 20)).save(file, kind, **options)
    return file.getvalue()


def both(content: bytes, folder: Path) -> tuple[Reading, Finding]:
    """What the worker and the client read of one file."""
    photo = folder / "photo"
    photo.write_bytes(content)
    finding = ASKED(str(photo))
    assert isinstance(finding, Finding)
    return decode(content, side=32, max_megapixels=1).position, finding


def assert_both_say(content: bytes, folder: Path, expected: tuple[float, float] | PositionIssue) -> None:
    worker, client = both(content, folder)
    if isinstance(expected, PositionIssue):
        assert worker is expected
        assert (client.status, client.details) == (Status.NOTHING, {"position_issue": expected.value})
    else:
        assert isinstance(worker, Position)
        assert (worker.lat, worker.lon) == pytest.approx(expected, abs=1e-6)
        assert (client.status, client.lat, client.lon) == (Status.FOUND, worker.lat, worker.lon)


def ref(letter: bytes) -> list[Tag]:
    return [Tag(1, 7, (letter,)), Tag(3, 2, ("W",)), *UNSIGNED_SOUTH]


def lat(*parts: tuple[int, int], kind: int = 5) -> list[Tag]:
    return [N, E, Tag(2, kind, parts), LON]


def signed(of_lat: tuple[int, ...], north_south: str) -> list[Tag]:
    values = tuple((part, 1) for part in of_lat)
    return [Tag(1, 2, (north_south,)), E, Tag(2, 10, values), LON]


ISSUE = PositionIssue
#: Tags of the GPS block, and what is right.
TABLE: dict[str, tuple[list[Tag], tuple[float, float] | PositionIssue]] = {
    "plain": ([N, E, LAT, LON], HERE),
    # signs
    "signed south": (
        [
            Tag(1, 2, ("S",)),
            Tag(3, 2, ("W",)),
            Tag(2, 10, ((-33, 1), (51, 1), (30, 1))),
            Tag(4, 10, ((-70, 1), (40, 1), (12, 1))),
        ],
        SOUTH,
    ),
    "every part signed": (signed((-33, -51, -30), "S"), (-33.858333, HERE[1])),
    "sign on the minutes of no degrees": (signed((0, -51, 30), "S"), (-0.858333, HERE[1])),
    "signed north": (signed((-33, 51, 30), "N"), ISSUE.CONTRADICTORY),
    "sign in the middle": (signed((33, -51, 30), "S"), ISSUE.CONTRADICTORY),
    "sign here and there": (signed((-33, 51, -30), "S"), ISSUE.CONTRADICTORY),
    "signed without a hemisphere": (signed((-33, 51, 30), "")[1:], ISSUE.NO_HEMISPHERE),
    # minutes and seconds
    "minutes that lost their denominator": (
        [N, E, Tag(2, 5, ((56, 1), (907, 1), (0, 1))), Tag(4, 5, ((10, 1), (1225, 1), (0, 1)))],
        ISSUE.MINUTES_OUT_OF_RANGE,
    ),
    "minutes of 60": (lat((56, 1), (60, 1), (0, 1)), ISSUE.MINUTES_OUT_OF_RANGE),
    "seconds of 60": (lat((56, 1), (9, 1), (60, 1)), ISSUE.MINUTES_OUT_OF_RANGE),
    "minutes below 60": (lat((56, 1), (5999, 100), (0, 1)), (56.999833, HERE[1])),
    "seconds undefined beside decimal minutes": (lat((56, 1), (9072, 1000), (0, 0)), HERE),
    "decimal minutes that happen to be whole": (lat((56, 1), (9000, 1000), (0, 0)), (56.15, HERE[1])),
    "seconds undefined beside whole minutes": (lat((56, 1), (9, 1), (0, 0)), ISSUE.BROKEN_NUMBERS),
    "seconds of one in nothing": (lat((56, 1), (9072, 1000), (1, 0)), ISSUE.BROKEN_NUMBERS),
    "minutes undefined": (lat((56, 1), (0, 0), (4, 1)), ISSUE.BROKEN_NUMBERS),
    "all undefined": (lat((0, 0), (0, 0), (0, 0)), ISSUE.BROKEN_NUMBERS),
    "minutes and seconds undefined beside decimal degrees": (lat((561512, 10000), (0, 0), (0, 0)), HERE),
    "one decimal number": (lat((561512, 10000)), HERE),
    "one whole number": (lat((56, 1)), ISSUE.BROKEN_NUMBERS),
    "degrees and decimal minutes": (lat((56, 1), (9072, 1000)), HERE),
    "degrees and whole minutes": (lat((56, 1), (9, 1)), ISSUE.BROKEN_NUMBERS),
    "four parts": (lat((56, 1), (9, 1), (4, 1), (0, 1)), ISSUE.BROKEN_NUMBERS),
    "half a degree and half an hour": (lat((565, 10), (30, 1), (0, 1)), ISSUE.CONTRADICTORY),
    "half a minute and half a minute": (lat((56, 1), (95, 10), (30, 1)), ISSUE.CONTRADICTORY),
    # other types
    "doubles": ([N, E, Tag(2, 12, (56.0, 9.0, 4.32)), LON], HERE),
    "one double": ([N, E, Tag(2, 12, (56.1512,)), LON], HERE),
    "doubles that are no number": ([N, E, Tag(2, 12, (56.0, float("nan"), 0.0)), LON], ISSUE.BROKEN_NUMBERS),
    "an endless double": ([N, E, Tag(2, 12, (float("inf"), 0.0, 0.0)), LON], ISSUE.BROKEN_NUMBERS),
    "whole numbers": ([N, E, Tag(2, 3, (56, 9, 4)), LON], (56.151111, HERE[1])),
    "words": ([N, E, Tag(2, 2, ("56/1,9/1,432/100",)), LON], ISSUE.BROKEN_NUMBERS),
    "bytes": ([N, E, Tag(2, 7, (b"56.1512",)), LON], ISSUE.BROKEN_NUMBERS),
    # hemispheres
    "a letter as bytes": (ref(b"S\0"), SOUTH),
    "a NUL before the letter": (ref(b"\0S"), SOUTH),
    "a small letter": (ref(b"s"), SOUTH),
    "blanks around the letter": (ref(b" S \0"), SOUTH),
    "something behind the letter's NUL": (ref(b"S\0N"), SOUTH),
    "an empty letter": (ref(b"\0\0"), ISSUE.NO_HEMISPHERE),
    "a question mark": (ref(b"?\0"), ISSUE.NO_HEMISPHERE),
    "two letters": (ref(b"NS"), ISSUE.NO_HEMISPHERE),
    "a letter as a number": ([Tag(1, 3, (83,)), E, LAT, LON], ISSUE.NO_HEMISPHERE),
    "letters exchanged": ([Tag(1, 2, ("E",)), Tag(3, 2, ("N",)), LAT, LON], ISSUE.NO_HEMISPHERE),
    "no letter": ([E, LAT, LON], ISSUE.NO_HEMISPHERE),
    # ranges
    "the longitude in the latitude's place": (
        [N, E, Tag(2, 5, ((151, 1), (12, 1), (0, 1))), LON],
        ISSUE.OUT_OF_RANGE,
    ),
    "beyond the pole by a second": (lat((90, 1), (0, 1), (1, 1)), ISSUE.OUT_OF_RANGE),
    "the pole": (lat((90, 1), (0, 1), (0, 1)), (90.0, HERE[1])),
    "the date line": ([N, E, LAT, Tag(4, 5, ((180, 1), (0, 1), (0, 1)))], (HERE[0], 180.0)),
    "the date line from the west": (
        [N, Tag(3, 2, ("W",)), LAT, Tag(4, 5, ((180, 1), (0, 1), (0, 1)))],
        (HERE[0], -180.0),
    ),
    "beyond the date line": ([N, E, LAT, Tag(4, 5, ((180, 1), (0, 1), (1, 100)))], ISSUE.OUT_OF_RANGE),
    "a negative number in an unsigned tag": (lat((2**32 - 33, 1), (51, 1), (30, 1)), ISSUE.OUT_OF_RANGE),
    # nothing
    "zeros": ([N, E, *(Tag(n, 5, ((0, 1), (0, 1), (0, 1))) for n in (2, 4))], ISSUE.ZEROS),
    "zeros without letters": ([Tag(n, 5, ((0, 1), (0, 1), (0, 1))) for n in (2, 4)], ISSUE.ZEROS),
    "one zero": (lat((0, 1), (0, 1), (0, 1)), (0.0, HERE[1])),
    "no latitude": ([N, E, LON], ISSUE.HALF),
    "no longitude": ([N, E, LAT], ISSUE.HALF),
    "no numbers": ([N, E], ISSUE.ABSENT),
    # a camera without a fix repeats the last one
    "status V": ([N, E, LAT, LON, Tag(9, 2, ("V",))], ISSUE.VOID),
    "status v as bytes": ([N, E, LAT, LON, Tag(9, 7, (b"\0v",))], ISSUE.VOID),
    "status V and nothing else": ([Tag(9, 2, ("V",))], ISSUE.VOID),
    "status A": ([N, E, LAT, LON, Tag(9, 2, ("A",))], HERE),
    "no status": ([N, E, LAT, LON, Tag(9, 2, ("",))], HERE),
    "mode 1, no fix": ([N, E, LAT, LON, Tag(10, 2, ("1",))], ISSUE.VOID),
    "mode 0": ([N, E, LAT, LON, Tag(10, 7, (b"0\0",))], ISSUE.VOID),
    "mode 3": ([N, E, LAT, LON, Tag(10, 2, ("3",))], HERE),
    "an altitude beyond sense": ([N, E, LAT, LON, Tag(5, 3, (9,)), Tag(6, 5, ((1, 0),))], HERE),
}


@pytest.mark.parametrize("name", TABLE)
def test_client_and_worker_read_the_same_of_every_photo(name: str, tmp_path: Path) -> None:
    tags, expected = TABLE[name]

    assert_both_say(written(exif=exif(6, tags)), tmp_path, expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "HEIF", "TIFF"])
@pytest.mark.parametrize("name", ["plain", "a NUL before the letter", "minutes that lost their denominator", "zeros"])
def test_every_format_carries_it_the_same_way(name: str, kind: str, tmp_path: Path) -> None:
    tags, expected = TABLE[name]

    assert_both_say(written(kind, exif=exif(6, tags)), tmp_path, expected)


def test_exif_that_is_broken_is_no_position_for_either(tmp_path: Path) -> None:
    good = exif(6, position(status="A"))

    for place in range(6, len(good), 3):
        worker, client = both(written(exif=good[:place] + b"\xff" + good[place + 1 :]), tmp_path)
        assert (client.lat, client.lon) == ((worker.lat, worker.lon) if isinstance(worker, Position) else (None, None))


# ------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("tag", "error_m"),
    [
        (Tag(31, 5, ((65_000, 1),)), 65_000.0),
        (Tag(31, 5, ((47, 10),)), 4.7),
        (Tag(31, 5, ((0, 1),)), None),
        (Tag(31, 5, ((0, 0),)), None),
        (Tag(31, 10, ((-5, 1),)), None),
        (Tag(31, 2, ("12.5",)), 12.5),
        (Tag(31, 2, ("near",)), None),
        # a factor, of which none makes a position worthless
        (Tag(11, 5, ((16, 10),)), 8.0),
        (Tag(11, 5, ((9_999, 100),)), 150.0),
        (Tag(11, 5, ((0, 1),)), None),
        (Tag(11, 2, ("low",)), None),
        (Tag(18, 2, ("WGS-84",)), None),
        (Tag(18, 2, ("WGS 84  ",)), None),
        (Tag(18, 2, ("",)), None),
        (Tag(18, 7, (b"wgs84\0\0",)), None),
        (Tag(18, 2, ("JGD2000",)), None),
        (Tag(18, 2, ("TOKYO",)), 1_000.0),
        (Tag(18, 2, ("NAD27",)), 1_000.0),
    ],
)
def test_the_error_that_a_camera_states_stays_with_the_position(
    tag: Tag, error_m: float | None, tmp_path: Path
) -> None:
    worker, client = both(written(exif=exif(6, [N, E, LAT, LON, tag])), tmp_path)

    assert isinstance(worker, Position)
    assert worker.error_m == error_m
    assert client.details == {"position_from": "exif", "position_error_m": error_m}


def test_a_factor_of_precision_in_a_packet_is_read_like_a_tag() -> None:
    found = from_xmp(at("56,9.072N", more='exif:GPSDOP="12/5"'))

    assert isinstance(found, Position)
    assert found.error_m == 12.0


def test_metres_count_before_a_factor_of_precision(tmp_path: Path) -> None:
    dop, metres = Tag(11, 5, ((20, 1),)), Tag(31, 5, ((7, 1),))

    worker, _ = both(written(exif=exif(6, [N, E, LAT, LON, dop, metres])), tmp_path)

    assert isinstance(worker, Position)
    assert worker.error_m == 7.0


@pytest.mark.parametrize(("error_m", "trusted"), [(150, True), (151, False), (65_000, False)])
def test_a_coarse_fix_ends_no_chain_of_sources(error_m: int, trusted: bool, tmp_path: Path) -> None:
    _, client = both(written(exif=exif(6, [N, E, LAT, LON, Tag(31, 5, ((error_m, 1),))])), tmp_path)

    assert client.status is Status.FOUND
    assert client.trusted is trusted
    assert client.provenance is (Provenance.EXIF_GPS if trusted else Provenance.FALLBACK)


@pytest.mark.parametrize(("at", "trusted"), [((0.0, 0.0), False), ((0.0, 1.0), True), ((1.0, 0.0), True)])
def test_the_point_of_zeros_ends_no_chain_whoever_says_it(at: tuple[float, float], trusted: bool) -> None:
    assert Finding("reference_db", Status.FOUND, *at, provenance=Provenance.SURVEYED).trusted is trusted


# ---------------------------------------------------------------------------------------------------- XMP


def xmp(inner: str = "", *, attributes: str = "", before: str = "") -> bytes:
    return (
        f'{before}<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:exif="http://ns.adobe.com/exif/1.0/" {attributes}>{inner}'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def at(of_lat: str, of_lon: str = "10,12.246E", more: str = "") -> bytes:
    return xmp(attributes=f'exif:GPSLatitude="{of_lat}" exif:GPSLongitude="{of_lon}" {more}')


BOTH = 'exif:GPSLatitude="56,9.072N" exif:GPSLongitude="10,12.246E"'
XMP_TABLE: dict[str, tuple[bytes, tuple[float, float] | PositionIssue]] = {
    "decimal minutes": (at("56,9.072N"), HERE),
    "seconds": (at("56,9,4.32N"), HERE),
    "south": (at("33,51.5S"), (-33.858333, HERE[1])),
    "a small letter and a blank": (at(" 33,51.5 s"), (-33.858333, HERE[1])),
    "one decimal number": (at("56.1512N"), HERE),
    "whole minutes with a point": (at("56,9.0N"), (56.15, HERE[1])),
    "elements": (
        xmp("<exif:GPSLatitude>56,9.072N</exif:GPSLatitude><exif:GPSLongitude>10,12.246E</exif:GPSLongitude>"),
        HERE,
    ),
    "a letter of its own": (at("56.1512", "10.2041E", 'exif:GPSLatitudeRef="N"'), HERE),
    "whole minutes": (at("56,9N"), ISSUE.BROKEN_NUMBERS),
    "minutes of 907": (at("56,907,0N"), ISSUE.MINUTES_OUT_OF_RANGE),
    "a decimal comma": (at("56,1512N"), ISSUE.BROKEN_NUMBERS),
    "no letter": (at("56.1512"), ISSUE.NO_HEMISPHERE),
    "a sign without a letter": (at("-33.8583"), ISSUE.NO_HEMISPHERE),
    "a sign with its letter": (at("-33,51.5S"), (-33.858333, HERE[1])),
    "a sign against its letter": (at("-33,51.5N"), ISSUE.CONTRADICTORY),
    "words": (at("fifty-six"), ISSUE.BROKEN_NUMBERS),
    "digits of another script": (at("\u0665\u0666.5N"), ISSUE.BROKEN_NUMBERS),
    "zeros": (at("0,0.0N", "0,0.0E"), ISSUE.ZEROS),
    "beyond the pole": (at("91,0.0N"), ISSUE.OUT_OF_RANGE),
    "half": (xmp(attributes='exif:GPSLatitude="56,9.072N"'), ISSUE.HALF),
    "void": (at("56,9.072N", more='exif:GPSStatus="V"'), ISSUE.VOID),
    "no fix": (at("56,9.072N", more='exif:GPSMeasureMode="1"'), ISSUE.VOID),
    "nothing": (xmp(), ISSUE.ABSENT),
    "the same twice": (
        xmp("<exif:GPSLatitude>56,9.072N</exif:GPSLatitude>", attributes=BOTH),
        HERE,
    ),
    "two positions": (
        xmp("<exif:GPSLatitude>57,9.072N</exif:GPSLatitude>", attributes=BOTH),
        ISSUE.CONTRADICTORY,
    ),
    "another name space": (
        at("56,9.072N").replace(b"http://ns.adobe.com/exif/1.0/", b"http://example.org/"),
        ISSUE.ABSENT,
    ),
    "packet padding": (
        b'<?xpacket begin="\xef\xbb\xbf" id="1"?>' + at("56,9.072N") + b'<?xpacket end="w"?>' + b" \n" * 999 + b"\0",
        HERE,
    ),
    "broken off": (at("56,9.072N")[:-20], ISSUE.UNREADABLE),
    "no XML": (b"GPSLatitude 56.15", ISSUE.UNREADABLE),
    "an unknown encoding": (b'<?xml version="1.0" encoding="x-none"?>' + at("56,9.072N"), ISSUE.UNREADABLE),
}  # fmt: skip


@pytest.mark.parametrize("name", XMP_TABLE)
def test_client_and_worker_read_the_same_of_every_packet(name: str, tmp_path: Path) -> None:
    packet, expected = XMP_TABLE[name]

    assert_both_say(written(xmp=packet), tmp_path, expected)


def with_xmp(kind: str, packet: bytes) -> bytes:
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", packet.decode())
        return written(kind, pnginfo=text)
    return written(kind, **({"tiffinfo": {700: packet}} if kind == "TIFF" else {"xmp": packet}))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "HEIF", "TIFF"])
def test_every_format_carries_a_packet(kind: str, tmp_path: Path) -> None:
    assert_both_say(with_xmp(kind, at("56,9.072N")), tmp_path, HERE)


def test_the_tags_come_before_the_packet_and_the_packet_before_nothing(tmp_path: Path) -> None:
    elsewhere = at("57,9.072N")
    tagged = exif(6, [N, E, LAT, LON])
    misread = exif(6, TABLE["minutes that lost their denominator"][0])

    assert_both_say(written(exif=tagged, xmp=elsewhere), tmp_path, HERE)
    assert_both_say(written(exif=misread, xmp=elsewhere), tmp_path, (57.1512, HERE[1]))
    assert_both_say(written(exif=misread, xmp=xmp()), tmp_path, ISSUE.MINUTES_OUT_OF_RANGE)


def test_the_error_in_a_packet_stays_with_its_position() -> None:
    def error_m(stated: str) -> float | None:
        found = from_xmp(at("56,9.072N", more=f'exif:GPSHPositioningError="{stated}"'))
        assert isinstance(found, Position)
        return found.error_m

    stated = ["65000/1", "12.5", "1/0", "1/2/3", "near", "1e999", "-3"]
    assert [error_m(text) for text in stated] == [65_000.0, 12.5, None, None, None, None, None]


LAUGHS = '<!DOCTYPE x [<!ENTITY a "56,9.072N">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True)
) + "]>"  # fmt: skip


@pytest.mark.parametrize(
    "packet",
    [
        xmp("<exif:GPSLatitude>&j;</exif:GPSLatitude>", before=LAUGHS),
        xmp("<exif:GPSLatitude>&a;</exif:GPSLatitude>", before='<!DOCTYPE x [<!ENTITY a "56,9.072N">]>'),
        xmp("&f;", before='<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>'),
        at("56,9.072N").replace(b"<x:xmpmeta", b'<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><x:xmpmeta'),
        xmp("x" * MAX_XMP_BYTES, attributes=BOTH),
    ],
    ids=["laughs", "entity", "file", "address", "large"],
)
def test_a_hostile_packet_is_refused_quietly(packet: bytes) -> None:
    assert from_xmp(packet) is ISSUE.UNREADABLE


def test_a_deep_packet_is_only_deep() -> None:
    assert isinstance(from_xmp(xmp("<b>" * 100_000 + "</b>" * 100_000)), PositionIssue)


@given(st.binary(max_size=200), st.integers(0, 600))
@settings(derandomize=True, max_examples=300)
def test_no_packet_breaks_the_reader(some: bytes, place: int) -> None:
    whole = at("56,9,4.32N", more='exif:GPSHPositioningError="3/1"')

    assert isinstance(from_xmp(whole[:place] + some + whole[place:]), Position | PositionIssue)


numbers = st.none() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=4) | st.fractions()


@given(st.dictionaries(st.integers(0, 32), numbers | st.lists(numbers, max_size=4).map(tuple), max_size=12))
@settings(derandomize=True, max_examples=500)
def test_no_tags_break_the_reader_and_every_position_is_on_earth(tags: dict[int, Any]) -> None:
    found = from_exif({1: "N", 3: "E", **tags})

    if isinstance(found, Position):
        assert -90 <= found.lat <= 90
        assert -180 <= found.lon <= 180
        assert (found.lat, found.lon) != (0, 0)


@given(st.floats(-90, 90), st.floats(-180, 180), st.sampled_from([0, 1, 2]), st.booleans())
@settings(derandomize=True, max_examples=300)
def test_however_an_angle_is_written_it_is_read_back(of_lat: float, of_lon: float, parts: int, sign: bool) -> None:
    def angle(value: float) -> tuple[float, ...]:
        size = [abs(value)]
        for _ in range(parts):
            whole = float(int(size[-1]))
            size[-1:] = [whole, min((size[-1] - whole) * 60, 59.999_999_999)]
        return (-size[0], *size[1:]) if sign and value < 0 and size[0] else tuple(size)

    tags: dict[int, Any] = {1: "S" if of_lat < 0 else "N", 3: "W" if of_lon < 0 else "E"}
    found = from_exif({**tags, 2: angle(of_lat), 4: angle(of_lon)})

    # A whole number at the end of less than three may be anything up to the next.
    if isinstance(found, Position):
        assert (found.lat, found.lon) == pytest.approx((of_lat, of_lon), abs=1e-9)
    else:
        assert found in (ISSUE.BROKEN_NUMBERS, ISSUE.ZEROS)


def test_the_first_reason_that_says_something_is_the_one_told() -> None:
    assert first([ISSUE.ABSENT, ISSUE.VOID, ISSUE.UNREADABLE]) is ISSUE.VOID
    assert first([ISSUE.ABSENT, ISSUE.ABSENT]) is ISSUE.ABSENT
    assert first([ISSUE.VOID, Position(1, 2, PositionFrom.XMP)]) == Position(1, 2, PositionFrom.XMP)


# ------------------------------------------------------------------------------------ files from elsewhere


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("signed_minus_33_S.jpg", SOUTH),
        ("ref_bytes_S.jpg", SOUTH),
        ("minutes_907.jpg", ISSUE.MINUTES_OUT_OF_RANGE),
        ("error_65km.jpg", HERE),
        ("no_eoi.jpg", HERE),
    ],
)
def test_the_cases_are_read_as_their_readme_says(
    name: str, expected: tuple[float, float] | PositionIssue, tmp_path: Path
) -> None:
    if not CASES.is_dir():
        pytest.skip("the folder of cases is not beside the project")
    content = (CASES / name).read_bytes()

    assert_both_say(content, tmp_path, expected)
    if name == "error_65km.jpg":
        assert isinstance(worker := both(content, tmp_path)[0], Position)
        assert worker.error_m == 65_000


def test_the_names_of_the_tags_are_those_of_exif() -> None:
    from PIL.ExifTags import GPS, IFD

    ours = positions.LAT_REF, positions.LAT, positions.LON_REF, positions.LON, positions.STATUS
    assert ours == (GPS.GPSLatitudeRef, GPS.GPSLatitude, GPS.GPSLongitudeRef, GPS.GPSLongitude, GPS.GPSStatus)
    assert GPS.GPSMeasureMode == positions.MEASURE_MODE
    stated = (GPS.GPSMapDatum, GPS.GPSHPositioningError, GPS.GPSDOP)
    assert stated == (positions.DATUM, positions.ERROR, positions.DOP)
    assert IFD.GPSInfo == positions.GPS_IFD
