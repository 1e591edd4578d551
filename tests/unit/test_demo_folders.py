"""Whatever folder the demo is given ends with photos to ask for, or with a sentence that says why there are none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.folders import HOLD_BACK_EVERY, MOST, MOST_ASKED, RUN, Case, Found, read_folder, runs, split
from producer_client import NewPhoto, Photo
from tests.conftest import Scene
from tests.exif import exif, position


def cases(place: str, count: int) -> list[Case]:
    return [Case(NewPhoto(f"{place}{i}", Photo(path=f"/{place}/{i}")), place, 1.0, 2.0) for i in range(count)]


def read(folder: Path) -> Found:
    return read_folder(folder, lambda _done, _total: None)


def photo(path: Path, minute: int | None) -> Path:
    """A picture taken at so many minutes north of 50 degrees, a nautical mile each; None: nobody knows where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    gps = None if minute is None else position(((50, 1), (minute, 1), (0, 1)), ((14, 1), (0, 1), (0, 1)))
    Image.fromarray(pixels).save(path, exif=exif(1, gps))
    return path


# ---------------------------------------------------------------------------------------------- what is held out


def test_the_split_holds_one_place_out_whole_and_leaves_witnesses_for_the_others() -> None:
    parts = split(cases("a", 8) + cases("b", 3) + cases("c", 4))

    assert not parts.single
    assert {case.place for case in parts.unseen} == {"b"}
    assert len(parts.unseen) == 3
    assert {case.place for case in parts.held_back} == {"a", "c"}
    assert not {case.path for case in parts.known} & {case.path for case in parts.held_back}
    assert {place: sum(case.place == place for case in parts.known) for place in "ac"} == {"a": 6, "c": 3}
    assert HOLD_BACK_EVERY == 4


@pytest.mark.parametrize(
    "some",
    [cases("a", 2), cases("a", 12), cases("a", 1) + cases("b", 1) + cases("c", 1), cases("a", 2) + cases("b", 2)],
)
def test_where_no_place_can_be_held_out_single_photos_are(some: list[Case]) -> None:
    parts = split(some)

    assert parts.single
    assert parts.known == parts.held_back == some
    assert parts.unseen == []


def test_of_many_single_photos_some_are_asked_for_from_all_over() -> None:
    some = cases("a", 390)

    parts = split(some)

    assert parts.known == some
    assert len(parts.held_back) == len({case.path for case in parts.held_back}) == MOST_ASKED
    assert some.index(parts.held_back[-1]) > 380


@pytest.mark.parametrize("count", [MOST + 1, 415, 2000, 50_000])
def test_of_a_large_folder_runs_of_neighbours_are_taken(count: int) -> None:
    taken = runs(cases("a", count), MOST, RUN)

    numbers = [int(case.item.ref[1:]) for case in taken]
    assert numbers == sorted(set(numbers))
    assert MOST - RUN <= len(numbers) <= MOST
    assert numbers[0] == 0
    assert numbers[-1] > count * 0.9


# ------------------------------------------------------------------------------------------ folders as people have them


@pytest.mark.parametrize("name", ["photos", "my photos, 2024", "Фото с дачи [1]", "[final]"])
def test_photos_of_one_place_below_a_folder_of_any_name_are_found(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    for number in range(3):
        photo(folder / f"día {number}" / "a b.jpg", 1)
    photo(folder / "nowhere.jpg", None)
    (folder / "notes.txt").write_text("no photo")
    (folder / "broken.jpg").write_bytes(b"no photo either")
    (folder / "raw.CR2").touch()

    found = read(folder)

    assert len(found.cases) == 3
    assert {case.place for case in found.cases} == {"place 1"}
    assert (found.cases[0].lat, found.cases[0].lon) == pytest.approx((50 + 1 / 60, 14))
    assert found.remarks == ["photos without a position in their EXIF or XMP: 2 of 5"]
    assert split(found.cases).single


def test_photos_near_one_another_are_a_place_and_others_are_not(tmp_path: Path) -> None:
    for minute in (1, 1, 1, 5, 5, 9):
        photo(tmp_path / f"{minute}" / f"{len(list(tmp_path.rglob('*')))}.jpg", minute)

    found = read(tmp_path)

    assert sorted(case.place for case in found.cases) == ["place 1"] * 3 + ["place 2"] * 2 + ["place 3"]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: photo(folder / "a.jpg", None), "has GPS in its EXIF tags, and there is no manifest.csv"),
        (lambda folder: photo(folder / "a.jpg", 1), "one photo alone .* nothing to compare it with"),
        (lambda folder: (folder / "notes.txt").touch(), "there is no photo under"),
        (lambda folder: (folder / "manifest.csv").write_text("file,lat,lon\n"), "no photo with lat and lon"),
        (lambda folder: (folder / "manifest.csv").write_text("a,b\n1,2\n"), "file, lat, lon missing"),
        (lambda folder: folder.rmdir(), "is not a folder"),
    ],
)
def test_a_folder_that_gives_nothing_to_ask_for_is_a_sentence(tmp_path: Path, make: object, sentence: str) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    assert callable(make)
    make(folder)

    with pytest.raises((RuntimeError, ValueError), match=sentence):
        read(folder)


def test_a_row_of_a_manifest_that_says_nothing_is_told_and_the_others_are_taken(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text(
        "file,place,lat,lon,coordinate_source\na.jpg,x,1,2,surveyed\nb.jpg,x,1,,surveyed\nc.jpg,x,,,\nd.jpg,y,1,2,exif\n"
    )

    found = read(tmp_path)

    assert [(Path(case.path).name, case.place) for case in found.cases] == [("a.jpg", "x"), ("d.jpg", "y")]
    assert "line 3" in found.remarks[0]
    assert found.remarks[1] == "rows without lat and lon: 1"


def test_a_large_folder_is_said_to_be_asked_in_part(tmp_path: Path) -> None:
    rows = "".join(f"{number:04}.jpg,street,1,2,surveyed\n" for number in range(2000))
    (tmp_path / "manifest.csv").write_text(f"file,place,lat,lon,coordinate_source\n{rows}")

    found = read(tmp_path)

    assert len(found.cases) <= MOST
    assert found.remarks[0].startswith(f"2000 photos have a position; the demo takes {MOST} of them")


def test_what_is_said_of_a_folder_is_in_the_language_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")
    photo(tmp_path / "1.jpg", 1)
    with pytest.raises(RuntimeError, match="координаты есть только у одного фото"):
        read(tmp_path)
    photo(tmp_path / "2.jpg", 1)
    photo(tmp_path / "nowhere.jpg", None)

    found = read(tmp_path)

    assert found.cases[0].place == "место 1"
    assert found.remarks == ["фото без координат в EXIF и XMP: 1 из 3"]


def test_what_is_said_of_a_manifest_is_in_the_language_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")
    (tmp_path / "manifest.csv").write_text(
        "file,lat,lon,coordinate_source,width\na,1,2,exif,9\nb,1,2,exif,9\nc,1,,,9\n"
    )

    unread, refused = read(tmp_path).remarks

    assert "столбцы, которые не читаются: width" in unread
    assert "широта без долготы" in refused


def test_of_the_drawn_scenes_there_is_nothing_to_remark(scenes: list[Scene]) -> None:
    assert read(scenes[0].path.parents[1]).remarks == []


def test_a_pipe_that_is_called_like_a_photo_is_not_waited_for(tmp_path: Path) -> None:
    photo(tmp_path / "1.jpg", 1)
    photo(tmp_path / "2.jpg", 2)
    os.mkfifo(tmp_path / "3.jpg")

    found = read(tmp_path)

    assert len(found.cases) == 2
    assert found.remarks == ["photos without a position in their EXIF or XMP: 1 of 3"]
