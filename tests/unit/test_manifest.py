"""Which files of a folder are taken for its photos, and which are a program's."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from producer_client import NewPhoto, Provenance, Refused
from worker.encoder.images import FORMATS
from worker.manifest import PHOTO_SUFFIXES, SUFFIXES, LeftOut, LinkedFolder, NotRead, new_photos, photo_files

#: Files that programs put beside photos, and the part of the path that tells them.
PROGRAMS = {
    "@eaDir/IMG_1.jpg/SYNOPHOTO_THUMB_XL.jpg": "@eaDir",
    "trip/@eaDir/IMG_1.jpg/SYNOPHOTO_THUMB_M.jpg": "@eaDir",
    "#recycle/old.jpg": "#recycle",
    "#snapshot/GMT-01/old.jpg": "#snapshot",
    "@Recycle/old.jpg": "@Recycle",
    ".@__thumb/s100old.jpg": ".@__thumb",
    ".thumbnails/1.jpg": ".thumbnails",
    "DCIM/.thumbnails/2.png": ".thumbnails",
    ".trash/a.jpg": ".trash",
    ".Trash-1000/files/a.jpg": ".Trash-1000",
    ".Trashes/501/a.jpg": ".Trashes",
    ".picasaoriginals/a.jpg": ".picasaoriginals",
    ".dtrash/a.jpg": ".dtrash",
    "$RECYCLE.BIN/S-1-5/$R1.jpg": "$RECYCLE.BIN",
    "System Volume Information/a.jpg": "System Volume Information",
    "__MACOSX/trip/._a.jpg": "__MACOSX",
    "LOST.DIR/12.jpg": "LOST.DIR",
    "lost+found/12.jpg": "lost+found",
    "Catalog Previews.lrdata/A/A1.jpg": "Catalog Previews.lrdata",
    "._IMG_1.jpg": "._IMG_1.jpg",
    ".trashed-1700000000-IMG_1.jpg": ".trashed-1700000000-IMG_1.jpg",
}
#: Files of programs that are no photos, and what is read with the photos beside it.
UNSAID = ["@eaDir/index.db", ".DS_Store", "Thumbs.db", "trip/desktop.ini", "IMG_1.xmp", "IMG_1.jpg.json"]
#: Files that nobody reads, beside those of programs.
OTHERS = ["IMG_1.CR2", "trip/IMG_2.mov", "notes.txt", "IMG_9"]
PHOTOS = ["IMG_1.jpg", "trip/thumbnails/IMG_2.JPG", "trash/IMG_3.png", "a.b.c/recycle/IMG_4.heic", "@home/IMG_5.webp"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in [*PROGRAMS, *PHOTOS, *OTHERS, *UNSAID]:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


def taken(given: Path, *, everything: bool = False) -> list[str]:
    items = new_photos([given], None, None, Provenance.SURVEYED, everything=everything)
    return [item.ref for item in items if isinstance(item, NewPhoto)]


def test_what_programs_put_into_a_folder_is_left_out_with_the_name_that_says_so(folder: Path) -> None:
    found = list(photo_files(folder))

    left_out = {str(item.path.relative_to(folder)): item.name for item in found if isinstance(item, LeftOut)}
    assert left_out == PROGRAMS
    assert {str(item.path.relative_to(folder)) for item in found if isinstance(item, NotRead)} == set(OTHERS)
    assert [item for item in found if isinstance(item, Path)] == sorted(folder / name for name in PHOTOS)
    assert taken(folder) == [str(path) for path in sorted(folder / name for name in PHOTOS)]


def test_all_of_it_is_taken_where_that_is_asked_for(folder: Path) -> None:
    assert taken(folder, everything=True) == [str(p) for p in sorted(folder / name for name in [*PHOTOS, *PROGRAMS])]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_file_that_is_named_itself_is_taken_whatever_its_name(folder: Path, name: str) -> None:
    assert taken(folder / name) == [str(folder / name)]


@pytest.mark.parametrize("name", ["@eaDir", ".thumbnails", "Catalog Previews.lrdata"])
def test_a_folder_that_is_named_itself_may_have_any_name(folder: Path, name: str) -> None:
    assert len(taken(folder / name)) == 1


def test_every_format_that_is_read_has_its_suffixes_and_no_other_has() -> None:
    assert list(SUFFIXES) == list(FORMATS)
    assert len(PHOTO_SUFFIXES) == sum(map(len, SUFFIXES.values()))


@pytest.mark.parametrize("suffix", sorted(PHOTO_SUFFIXES))
def test_a_photo_of_every_suffix_is_taken_in_small_and_large_letters(tmp_path: Path, suffix: str) -> None:
    for name in (f"a{suffix}", f"B{suffix.upper()}"):
        (tmp_path / name).touch()

    assert len(taken(tmp_path)) == 2


def test_links_that_lead_in_a_circle_or_nowhere_keep_no_neighbour_back(tmp_path: Path) -> None:
    """Path.resolve raises for the first of them, and the whole folder was lost."""
    (tmp_path / "a.jpg").touch()
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "gone.jpg").symlink_to("none.jpg")
    (tmp_path / "m.csv").write_text("file,lat,lon\ncircle.jpg,1,2\na.jpg,1,2\n")

    names = ["a.jpg", "circle.jpg", "gone.jpg"]
    assert taken(tmp_path) == [str(tmp_path / name) for name in names]
    assert taken(tmp_path / "circle.jpg") == [str(tmp_path / "circle.jpg")]
    assert taken(tmp_path / "m.csv") == ["circle.jpg", "a.jpg"]


def test_a_link_to_a_folder_is_named_and_not_followed_unless_it_is_named_itself(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.jpg").touch()
    (folder / "sub" / "around").symlink_to("..")
    (folder / "link.jpg").symlink_to("sub")
    (folder / ".hidden").symlink_to("sub")

    found = list(photo_files(folder))

    assert found == [
        LinkedFolder(folder / "link.jpg"),
        folder / "sub" / "a.jpg",
        LinkedFolder(folder / "sub" / "around"),
    ]
    assert taken(folder / "link.jpg") == [str(folder / "link.jpg" / "a.jpg")]
    assert LinkedFolder(folder / ".hidden") in photo_files(folder, everything=True)


def test_a_folder_that_may_not_be_looked_into_is_refused_and_its_neighbours_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jpg", "closed/b.jpg", "open/c.jpg", "@eaDir/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if Path(path).name in ("closed", "@eaDir"):  # root may look into every folder
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)

    first, refused, last = photo_files(tmp_path)

    assert (first, last) == (tmp_path / "a.jpg", tmp_path / "open" / "c.jpg")
    assert isinstance(refused, Refused)
    assert refused.message == f"{tmp_path}/closed cannot be looked into: Permission denied"
