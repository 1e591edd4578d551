"""Files beside a photo that say where it was taken: their names, what is in them, and who may read them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from producer_client.contract import PositionFrom, PositionIssue
from producer_client.positions import Position, Reading
from worker.core import sidecars
from worker.settings import Settings
from worker.storage.source import PhotoFiles

ISSUE = PositionIssue
LONG = "Screenshot_20220207_102421_com.snapchat.android.jpg"


def takeout_names(photo: str) -> list[str]:
    return [name for origin, name in sidecars.names(photo) if origin is PositionFrom.TAKEOUT]


@pytest.mark.parametrize(
    ("photo", "sidecar"),
    [
        ("IMG_1.jpg", "IMG_1.jpg.json"),
        ("IMG_1.jpg", "IMG_1.jpg.supplemental-metadata.json"),
        # cut to 46 characters before .json
        ("Screenshot_2017-07-05-10-05-26.png", "Screenshot_2017-07-05-10-05-26.png.supplementa.json"),
        ("D7157814-D2D5-4A62-AFCE-9CF465CB7D66.jpeg", "D7157814-D2D5-4A62-AFCE-9CF465CB7D66.jpeg.supp.json"),
        ("a" * 41 + ".jpg", "a" * 41 + ".jpg..json"),
        ("a" * 42 + ".jpg", "a" * 42 + ".jpg.json"),
        (LONG, "Screenshot_20220207_102421_com.snapchat.androi.json"),
        # the second of a name
        ("IMG_1(1).jpg", "IMG_1.jpg(1).json"),
        ("IMG_1(12).jpg", "IMG_1.jpg.supplemental-metadata(12).json"),
        (
            "Screenshot_2017-07-05-10-05-26(3).png",
            "Screenshot_2017-07-05-10-05-26.png.supplementa(3).json",
        ),
        # a number that came with the photo
        ("IMG_1(1).jpg", "IMG_1(1).jpg.supplemental-metadata.json"),
        ("Žižkov.jpg", "Žižkov.jpg.supplemental-metadata.json"),
        ("scan", "scan.json"),
    ],
)
def test_a_sidecar_of_takeout_is_looked_for_under_its_name(photo: str, sidecar: str) -> None:
    assert sidecar in takeout_names(photo)
    assert len(sidecar) <= 51 + len("(12)")


@pytest.mark.parametrize(
    ("photo", "others"),
    [
        ("IMG_1(1).jpg", ["IMG_1.jpg.json", "IMG_1.jpg.supplemental-metadata.json", "IMG_1.jpg(2).json"]),
        ("IMG_1.jpg", ["IMG_1.jpg(1).json", "IMG_1.jpg.supplemental-metadata(1).json", "IMG_1.json", "metadata.json"]),
    ],
)
def test_another_photos_sidecar_is_never_looked_for(photo: str, others: list[str]) -> None:
    assert not set(others) & set(takeout_names(photo))


def test_an_xmp_of_the_photo_comes_before_one_of_its_name_and_both_before_takeout() -> None:
    names = sidecars.names("IMG_1.jpg")

    assert [name for _, name in names][:4] == ["IMG_1.jpg.xmp", "IMG_1.jpg.XMP", "IMG_1.xmp", "IMG_1.XMP"]
    assert [origin for origin, _ in names] == [PositionFrom.XMP_SIDECAR] * 4 + [PositionFrom.TAKEOUT] * 2
    assert len(set(names)) == len(names)


def takeout(lat: Any = 56.1512, lon: Any = 10.2041, photo: str = "IMG_1.jpg", **more: Any) -> Reading:
    said = {"title": "IMG_1.jpg", "geoData": {"latitude": lat, "longitude": lon, "altitude": 0.0}, **more}
    return sidecars.read(PositionFrom.TAKEOUT, photo, json.dumps(said).encode())


def test_takeouts_position_is_read() -> None:
    assert takeout() == Position(56.1512, 10.2041, PositionFrom.TAKEOUT)
    assert takeout(56, -10) == Position(56.0, -10.0, PositionFrom.TAKEOUT)


@pytest.mark.parametrize(
    ("lat", "lon", "issue"),
    [
        (0.0, 0.0, ISSUE.ZEROS),
        (0, 0, ISSUE.ZEROS),
        (91.0, 0.0, ISSUE.OUT_OF_RANGE),
        (0.0, -180.1, ISSUE.OUT_OF_RANGE),
        (float("nan"), 1.0, ISSUE.BROKEN_NUMBERS),
        (1.0, float("inf"), ISSUE.BROKEN_NUMBERS),
        ("56.1", "10.2", ISSUE.BROKEN_NUMBERS),
        (True, 1.0, ISSUE.BROKEN_NUMBERS),
        (10**400, 1, ISSUE.BROKEN_NUMBERS),
        (56.1, None, ISSUE.HALF),
        (None, 10.2, ISSUE.HALF),
        (None, None, ISSUE.ABSENT),
    ],
)
def test_what_is_no_position_in_takeout_is_none(lat: Any, lon: Any, issue: PositionIssue) -> None:
    assert takeout(lat, lon) is issue


@pytest.mark.parametrize("content", [b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'"geoData"', b""])
def test_what_is_no_json_of_takeout_is_unreadable(content: bytes) -> None:
    assert sidecars.read(PositionFrom.TAKEOUT, "IMG_1.jpg", content) is ISSUE.UNREADABLE


def test_another_programs_json_says_nothing() -> None:
    assert sidecars.read(PositionFrom.TAKEOUT, "a.jpg", b'{"width": 3}') is ISSUE.ABSENT
    assert sidecars.read(PositionFrom.TAKEOUT, "a.jpg", b'{"geoData": [1, 2]}') is ISSUE.ABSENT


def test_a_cut_name_is_believed_only_with_the_photos_title() -> None:
    """Photos whose names begin alike have one cut name."""
    assert isinstance(takeout(photo=LONG, title=LONG), Position)
    assert isinstance(takeout(photo=LONG, title=LONG.replace("com.snapchat", "com&snapchat")), Position)
    assert isinstance(takeout(photo=LONG.replace(".jpg", "(1).jpg"), title=LONG), Position)
    assert takeout(photo=LONG, title="Screenshot_20220207_102421_com.whatsapp.jpg") is ISSUE.ABSENT
    assert takeout(photo=LONG, title=None) is ISSUE.ABSENT
    assert isinstance(takeout(photo="renamed.jpg", title=LONG), Position), "its whole name is in the sidecar's"


# ------------------------------------------------------------------------------------------------- reading them


def beside(photo: object, root: Path, *, limit: int = 100) -> list[tuple[PositionFrom, bytes]]:
    files = PhotoFiles(Settings(photo_roots=(root,)))
    return list(files.beside(str(photo), sidecars.names(Path(str(photo)).name), limit=limit))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.jpg").write_bytes(b"photo")
    (tmp_path / "secret.xmp").write_bytes(b"not yours")
    return tmp_path / "root"


def test_files_beside_a_photo_are_read_in_their_order(root: Path) -> None:
    (root / "a.jpg.json").write_bytes(b"json")
    (root / "a.xmp").write_bytes(b"xmp")
    (root / "b.xmp").write_bytes(b"of another photo")

    for photo in (root / "a.jpg", "a.jpg"):
        assert beside(photo, root) == [(PositionFrom.XMP_SIDECAR, b"xmp"), (PositionFrom.TAKEOUT, b"json")]


def test_a_file_beside_a_photo_is_read_only_when_it_is_asked_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a.jpg.xmp").write_bytes(b"xmp")
    opened: list[str] = []
    real = os.path.realpath

    def watched(path: Any, **how: Any) -> Any:
        opened.append(str(path))
        return real(path, **how)

    monkeypatch.setattr(os.path, "realpath", watched)

    first = next(iter(PhotoFiles(Settings(photo_roots=(root,))).beside("a.jpg", sidecars.names("a.jpg"), limit=9)))

    assert first == (PositionFrom.XMP_SIDECAR, b"xmp")
    assert opened[-1] == str(root / "a.jpg.xmp")


def test_a_file_beside_a_photo_is_held_to_the_roots(root: Path, tmp_path: Path) -> None:
    (root / "a.jpg.xmp").symlink_to(tmp_path / "secret.xmp")
    (root / "a.xmp").mkdir()
    os.mkfifo(root / "a.jpg.json")

    assert beside(root / "a.jpg", root) == []
    assert beside(tmp_path / "secret.jpg", root) == []
    assert beside("../secret.jpg", root) == []


def test_what_is_too_large_or_empty_is_there_and_not_read(root: Path) -> None:
    (root / "a.jpg.xmp").write_bytes(b"x" * 101)
    (root / "a.xmp").touch()
    (root / "a.jpg.json").write_bytes(b"y" * 100)

    assert beside(root / "a.jpg", root) == [
        (PositionFrom.XMP_SIDECAR, b""),
        (PositionFrom.XMP_SIDECAR, b""),
        (PositionFrom.TAKEOUT, b"y" * 100),
    ]


def test_nothing_lies_beside_a_url_or_a_name_that_is_too_long(root: Path) -> None:
    assert beside(f"file://{root}/a.jpg", root) == []
    assert beside(root / ("b" * 252 + ".jpg"), root) == []
