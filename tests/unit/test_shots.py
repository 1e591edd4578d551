"""What a photo's EXIF says of its camera and its time, and which photos are one burst."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from worker.core.shot import CAMERA_BYTES, MODEL_BYTES, NO_CAMERA, Shot, is_burst
from worker.encoder.images import decode
from worker.encoder.shots import shot_of

NOON = "2024:05:01 12:00:00"


def taken(
    time: object = NOON,
    *,
    zone: str | None = None,
    part: str | None = None,
    serial: str | None = "4711",
    make: str = "Maker",
    model: str | None = "One",
) -> bytes:
    """A JPEG whose EXIF says so."""
    exif = Image.Exif()
    exif[Base.Make] = make
    if model is not None:
        exif[Base.Model] = model
    said = {
        Base.DateTimeOriginal: time,
        Base.OffsetTimeOriginal: zone,
        Base.SubsecTimeOriginal: part,
        Base.BodySerialNumber: serial,
    }
    exif.get_ifd(IFD.Exif).update({int(tag): value for tag, value in said.items() if value is not None})
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (90, 120, 30)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def shot(content: bytes) -> Shot:
    found = decode(content, side=32, max_megapixels=1).shot
    with Image.open(io.BytesIO(content)) as image:
        assert shot_of(image) == found, "decoding changes nothing of it"
    return found


def test_times_of_one_camera_differ_by_what_passed_between_them() -> None:
    first, second = shot(taken(part="25")), shot(taken("2024:05:01 12:01:30", part="750"))

    assert first.camera == second.camera
    assert second.taken_s - first.taken_s == 90.5


def test_a_zone_beside_the_time_is_taken_off() -> None:
    there, here = shot(taken(zone="+02:00")), shot(taken("2024:05:01 10:00:00", zone="+00:00"))

    assert there.taken_s == here.taken_s


@pytest.mark.parametrize(
    "other", [{"serial": "4712"}, {"serial": None}, {"model": "Two"}, {"make": "Other"}], ids=lambda other: str(other)
)
def test_another_camera_has_another_digest(other: dict[str, str | None]) -> None:
    assert shot(taken(**other)).camera not in (shot(taken()).camera, NO_CAMERA)  # type: ignore[arg-type]


def test_only_a_serial_number_makes_a_digest_of_one_camera() -> None:
    known, unknown = shot(taken()), shot(taken(serial=None))

    assert (len(known.camera), known.of_one_camera) == (CAMERA_BYTES, True)
    assert (len(unknown.camera), unknown.of_one_camera) == (MODEL_BYTES, False)
    assert not Shot().of_one_camera


def test_no_serial_number_is_in_what_is_kept() -> None:
    assert b"4711" not in shot(taken()).camera


@pytest.mark.parametrize("time", ["0000:00:00 00:00:00", "    :  :     :  :  ", "yesterday", "", None])
def test_a_time_that_is_none_is_no_shot(time: str | None) -> None:
    assert shot(taken(time)) == Shot()


@pytest.mark.parametrize("zone", ["+2", "   :  ", "local"])
def test_a_zone_that_is_none_leaves_no_time(zone: str) -> None:
    found = shot(taken(zone=zone))

    assert found.camera == (NO_CAMERA if zone.strip(" :") else shot(taken()).camera)


def test_a_photo_without_a_model_is_of_no_camera() -> None:
    assert shot(taken(model=None)) == Shot()


def test_broken_exif_is_no_shot_and_no_error() -> None:
    content = taken()
    at = content.index(b"Exif\0\0")
    for place in range(at + 6, at - 2 + int.from_bytes(content[at - 2 : at])):
        broken = content[:place] + b"\xff" + content[place + 1 :]
        found = decode(broken, side=32, max_megapixels=1).shot
        assert isinstance(found, Shot)


HERE = (48.0, 11.0)
NEXT_DOOR, ELSEWHERE = (48.0004, 11.0), (48.001, 11.0)


@pytest.mark.parametrize(
    ("one", "other", "there", "same"),
    [
        (Shot(b"a", 100.0), Shot(b"a", 103.0), HERE, True),
        (Shot(b"a", 103.0), Shot(b"a", 100.0), NEXT_DOOR, True),
        (Shot(b"a", 100.0), Shot(b"a", 100.0), ELSEWHERE, False),
        (Shot(b"a", 100.0), Shot(b"a", 103.1), HERE, False),
        (Shot(b"a", 100.0), Shot(b"b", 100.0), HERE, False),
        (Shot(), Shot(), HERE, False),
        (None, Shot(b"a", 100.0), HERE, False),
        (Shot(b"a", 100.0), None, HERE, False),
    ],
)
def test_a_burst_is_of_one_camera_within_seconds_at_one_place(
    one: Shot | None, other: Shot | None, there: tuple[float, float], same: bool
) -> None:
    assert is_burst(one, HERE, other, there, agree_m=50.0) is same
