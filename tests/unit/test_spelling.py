"""Names in two forms of Unicode: what the disk has is found, and one file is one photo."""

from __future__ import annotations

import json
import os
from pathlib import Path
from unicodedata import normalize

import pytest

from producer_client.contract import Code, NewPhoto, Photo, PositionFrom, Provenance
from producer_client.positions import Position
from worker.core import sidecars
from worker.core.types import FileFacts
from worker.errors import PhotoRefusal
from worker.manifest import new_photos
from worker.settings import Settings
from worker.spelling import forms, led_to, on_disk
from worker.storage.source import PhotoFiles

#: Letters that have two forms, in Latin, Cyrillic and Hangul.
NAME = "Café Ёлка 한국"
COMPOSED, DECOMPOSED = normalize("NFC", NAME), normalize("NFD", NAME)
BOTH = pytest.mark.parametrize(("there", "asked"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])


def made(path: Path, content: bytes = b"photo") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def files(root: Path) -> PhotoFiles:
    return PhotoFiles(Settings(photo_roots=(root,)))


@BOTH
def test_a_file_is_found_by_the_other_form_of_its_name(tmp_path: Path, there: str, asked: str) -> None:
    path = made(tmp_path / there / "2024" / f"{there}.jpg")
    source = files(tmp_path)

    for name in (f"{tmp_path}/{asked}/2024/{asked}.jpg", f"{asked}/2024/{asked}.jpg", f"{there}/2024/{asked}.jpg"):
        assert on_disk(f"{tmp_path}/{name.removeprefix(f'{tmp_path}/')}") == str(path)
        assert source.fetch(Photo(path=name)) == b"photo"
        assert source.is_there(name)
        assert source.facts([name]) == source.facts([str(path)])
        assert isinstance(source.facts([name])[0], FileFacts)


@BOTH
def test_a_folder_of_photos_may_be_allowed_by_the_other_form_of_its_name(
    tmp_path: Path, there: str, asked: str
) -> None:
    path = made(tmp_path / there / "a.jpg")

    for root in (tmp_path / there, tmp_path / asked):
        for name in (path, tmp_path / asked / "a.jpg", "a.jpg"):
            assert files(root).fetch(Photo(path=str(name))) == b"photo"


def test_folders_of_one_name_in_both_forms_are_both_looked_into(tmp_path: Path) -> None:
    (tmp_path / COMPOSED).mkdir()
    path = made(tmp_path / DECOMPOSED / f"{COMPOSED}.jpg")

    assert on_disk(f"{tmp_path}/{COMPOSED}/{DECOMPOSED}.jpg") == str(path)


@pytest.mark.parametrize("name", ["absent.jpg", f"{NAME}/{NAME}.jpg", "\0", "\udcff.jpg", "", "é" * 300, "/"])
def test_a_name_that_is_not_there_stays_as_it_is(tmp_path: Path, name: str) -> None:
    assert on_disk(f"{tmp_path}/{name}") == f"{tmp_path}/{name}"


def test_a_relative_name_stays_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / DECOMPOSED / "a.jpg")
    monkeypatch.chdir(tmp_path)

    assert on_disk(f"{COMPOSED}/a.jpg") == f"{DECOMPOSED}/a.jpg"


def test_a_name_outside_of_the_roots_is_refused_in_either_form(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    made(tmp_path / DECOMPOSED / "a.jpg")
    (tmp_path / "root" / DECOMPOSED).symlink_to(tmp_path / DECOMPOSED)

    for name in (f"{tmp_path}/{COMPOSED}/a.jpg", f"{tmp_path}/root/{COMPOSED}/a.jpg"):
        with pytest.raises(PhotoRefusal) as refused:
            files(tmp_path / "root").fetch(Photo(path=name))
        assert refused.value.code is Code.OUTSIDE_ROOTS


@BOTH
def test_both_forms_of_a_name_are_spellings_of_one_file(tmp_path: Path, there: str, asked: str) -> None:
    path = made(tmp_path / there / f"{there}.jpg")
    ways = [f"{folder}/{name}.jpg" for folder in (there, asked) for name in (there, asked)]
    source = files(tmp_path)

    for way in [*ways, *(f"{tmp_path}/{way}" for way in ways)]:
        spelled = source.spellings(way)
        assert spelled[0] == way
        assert spelled[-1] == str(path)
        # A row may have been written by either form of the whole, below the root or from the top.
        assert {*forms(str(path)), *forms(f"{there}/{there}.jpg")} <= set(spelled)


def test_two_files_whose_names_differ_by_their_form_alone_are_two(tmp_path: Path) -> None:
    paths = [str(made(tmp_path / f"{name}.jpg", name.encode())) for name in (COMPOSED, DECOMPOSED)]
    source = files(tmp_path)

    for path, other in (paths, paths[::-1]):
        assert source.spellings(path)[-1] == path
        assert other not in source.spellings(path)
        assert source.fetch(Photo(path=path)) == Path(path).stem.encode()


def test_both_forms_of_a_name_that_is_gone_are_one(tmp_path: Path) -> None:
    source = files(tmp_path)

    gone = {source.spellings(f"{tmp_path}/{name}.jpg")[-1] for name in (COMPOSED, DECOMPOSED)}

    assert len(gone) == 1


def test_a_name_without_such_letters_costs_no_look_at_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "lexists", lambda _: pytest.fail("looked"))

    assert on_disk("/photos/2024/a.jpg") == "/photos/2024/a.jpg"


# ------------------------------------------------------------------------------------------------ beside a photo


@BOTH
def test_a_sidecar_is_found_by_the_other_form_of_the_photos_name(tmp_path: Path, there: str, asked: str) -> None:
    made(tmp_path / f"{there}.jpg")
    made(tmp_path / f"{there}.xmp", b"xmp")
    made(tmp_path / f"{there}.jpg.json", b"json")
    photo = f"{asked}.jpg"

    found = list(files(tmp_path).beside(f"{tmp_path}/{photo}", sidecars.names(photo), limit=99))

    assert found == [(PositionFrom.XMP_SIDECAR, b"xmp"), (PositionFrom.TAKEOUT, b"json")]


@BOTH
def test_a_name_that_takeout_has_cut_is_cut_alike_in_both_forms(tmp_path: Path, there: str, asked: str) -> None:
    long = "Ёлка у дома и ещё одна ёлка у дома соседей.jpg"
    cut = normalize("NFC", f"{long}.supplemental-metadata")[:46]
    of_there, of_asked = (forms(normalize("NFC", name)) for name in (f"{cut}.json", long))
    made(tmp_path / of_there[there != COMPOSED], b"json")
    photo = of_asked[asked != COMPOSED]

    (found,) = files(tmp_path).beside(f"{tmp_path}/{photo}", sidecars.names(photo), limit=99)

    assert found == (PositionFrom.TAKEOUT, b"json")


@BOTH
def test_the_title_in_a_cut_json_is_compared_in_one_form(there: str, asked: str) -> None:
    whole = forms(normalize("NFC", "Ёлка у дома и ещё одна ёлка у дома соседей слева.jpg"))
    title, photo = whole[there != COMPOSED], whole[asked != COMPOSED]
    assert len(photo) > 46

    def read(said: str) -> object:
        content = json.dumps({"title": said, "geoData": {"latitude": 1.5, "longitude": 2.5}}).encode()
        return sidecars.read(PositionFrom.TAKEOUT, photo, content)

    assert isinstance(read(title), Position)
    assert not isinstance(read("Сосна " + title), Position)


def test_a_name_is_cut_by_its_composed_letters() -> None:
    """Decomposed it has more of them, and a title would be needed to know its JSON for its own."""
    photo = normalize("NFD", "й" * 30 + ".jpg")
    assert len(photo) > 46

    said = sidecars.read(PositionFrom.TAKEOUT, photo, b'{"geoData": {"latitude": 1.5, "longitude": 2.5}}')

    assert isinstance(said, Position)


# ------------------------------------------------------------------------------------- what people and files name


@BOTH
def test_a_folder_and_a_manifest_are_found_by_the_other_form_of_their_names(
    tmp_path: Path, there: str, asked: str
) -> None:
    made(tmp_path / there / "a.jpg")
    (tmp_path / there / f"{there}.csv").write_text("file,lat,lon,coordinate_source\na.jpg,1,2,surveyed\n")

    for given in (tmp_path / asked, tmp_path / asked / f"{asked}.csv", tmp_path / asked / "a.jpg"):
        (photo,) = [item for item in new_photos([given], None, None, Provenance.SURVEYED) if isinstance(item, NewPhoto)]
        assert photo.photo.path == f"{tmp_path}/{there}/a.jpg"


def test_a_file_goes_by_where_it_lies_and_by_its_link_where_that_leads_to_none(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    made(root / "a.jpg")
    made(tmp_path / "secret.jpg")
    for name, target in {
        "in.jpg": "a.jpg",
        "out.jpg": "../secret.jpg",
        "gone.jpg": "none.jpg",
        "itself.jpg": "itself.jpg",
        "folder.jpg": ".",
    }.items():
        (root / name).symlink_to(target)
    (tmp_path / "elsewhere").symlink_to("photos")

    led = {name: led_to(root / name, [root]) for name in ("a.jpg", "in.jpg", "out.jpg", "gone.jpg", "itself.jpg")}

    assert led == {
        "a.jpg": f"{root}/a.jpg",
        "in.jpg": f"{root}/a.jpg",
        "out.jpg": f"{root}/out.jpg",
        "gone.jpg": f"{root}/gone.jpg",
        "itself.jpg": f"{root}/itself.jpg",
    }
    assert led_to(tmp_path / "elsewhere" / "in.jpg", [root]) == f"{root}/a.jpg"
    assert led_to(tmp_path / "elsewhere" / "out.jpg", [tmp_path / "elsewhere"]) == f"{tmp_path}/elsewhere/out.jpg"
    assert led_to(root / "out.jpg", []) == f"{tmp_path}/secret.jpg", "where the roots are not known the worker judges"
    assert led_to(root / "folder.jpg", [root]) == f"{root}/folder.jpg"
    assert led_to(root / "none" / ".." / "a.jpg", [root]) == f"{root}/a.jpg"
    assert led_to(Path("/a\0b"), [root]) == "/a\0b"
