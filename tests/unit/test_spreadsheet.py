"""Manifests as people's programs save them: read, or a sentence with file and line, and the other rows come."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer_client import Code, NewPhoto, Provenance, Refused
from worker.manifest import Note, manifest_rows, new_photos
from worker.spreadsheet import degrees
from worker.words import in_language

CASES = Path(__file__).parents[3] / "shared" / "cases"
HEADER = "file,lat,lon,coordinate_source,place\n"
GOOD = "good.jpg,1.5,2.5,surveyed,\n"


def table(tmp_path: Path, content: str | bytes, name: str = "m.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path) -> tuple[list[NewPhoto], list[Refused], list[str]]:
    rows = list(manifest_rows(path))
    return (
        [row for row in rows if isinstance(row, NewPhoto)],
        [row for row in rows if isinstance(row, Refused)],
        [row.words for row in rows if isinstance(row, Note)],
    )


def added(*paths: Path) -> list[NewPhoto | Refused | Note]:
    items = new_photos(paths, None, None, Provenance.SURVEYED)
    return [item for item in items if isinstance(item, NewPhoto | Refused | Note)]


TEXT = "file,lat,lon,coordinate_source,place\r\nмост.jpg,51.5,-0.12,surveyed,Лондон\r\n"
EXCEL = "file;lat;lon;coordinate_source;place\r\nмост.jpg;51,5;-0,12;surveyed;Лондон\r\n"


@pytest.mark.parametrize(
    "text", [TEXT, EXCEL, TEXT.replace(",", "\t"), "sep=;\r\n" + EXCEL, TEXT.replace("\r\n", "\r")]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1251"])
@pytest.mark.parametrize("name", ["m.csv", "M.CSV", "m.tsv"])
def test_what_programs_save_is_read(tmp_path: Path, text: str, encoding: str, name: str) -> None:
    photos, refused, notes = read(table(tmp_path, text.encode(encoding), name))

    assert refused == []
    (photo,) = photos
    assert (photo.photo.path, photo.lat, photo.lon) == (str(tmp_path / "мост.jpg"), 51.5, -0.12)
    assert photo.metadata == {"place": "Лондон"}
    assert ["cp1251" in words for words in notes] == ([True] if encoding == "cp1251" else [])
    assert len(added(tmp_path / name)) == len(photos + notes), "a manifest by its suffix, whatever its case"


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("File,LAT,Lon,Coordinate_Source", "a.jpg,51.5,2.5,Surveyed"),
        ("image_path,latitude,longitude,provenance", "a.jpg,51.5,2.5,surveyed"),
        ("lng,File Path,latitude,location method", "2.5,a.jpg,51.5,manual"),
        (" path , lat , long , location-method ", " a.jpg , 51.5 , 2.5 , surveyed "),
        ('"filename","lat","lon","coordinate_source"', '"a.jpg", "51,5", "2,5", surveyed'),
        ("file,lat,lon,coordinate_source,,", "a.jpg,51.5,2.5,surveyed,,"),
        ("\n\nfile,lat,lon,coordinate_source", "a.jpg,51.5,2.5,surveyed"),
        ("file|lat|lon|coordinate_source", "a.jpg|51,5|2,5|surveyed"),
    ],
)
def test_columns_have_the_names_that_backends_give_them(tmp_path: Path, header: str, row: str) -> None:
    photos, refused, notes = read(table(tmp_path, f"{header}\n{row}\n{'|' * 3 if '|' in row else ',,,'}\n\n"))

    assert (refused, notes) == ([], [])
    assert [(photo.photo.path, photo.lat, photo.lon) for photo in photos] == [(str(tmp_path / "a.jpg"), 51.5, 2.5)]
    assert photos[0].provenance in (Provenance.SURVEYED, Provenance.CONFIRMED)


def test_columns_that_are_not_read_are_said(tmp_path: Path) -> None:
    _, _, notes = read(table(tmp_path, "file,lat,lon,coordinate_source,camera,note\na.jpg,,,,X100,\n"))

    assert notes == [f"{tmp_path / 'm.csv'}, line 1: columns that are not read: camera, note"]


#: A row, what its refusal says, and its code.
BAD_ROWS = [
    ("short.jpg,1.5", "the row ends before lon, coordinate_source, place", Code.BAD_REQUEST),
    ("one.jpg", "the row ends before lat, lon, coordinate_source, place", Code.BAD_REQUEST),
    ("long.jpg,51,5,2,5,surveyed,", "decimal comma", Code.BAD_REQUEST),
    ("half.jpg,1.5,,surveyed,", "a latitude without a longitude", Code.BAD_COORDINATES),
    ("half.jpg,,1.5,surveyed,", "a longitude without a latitude", Code.BAD_COORDINATES),
    ("far.jpg,91,0,surveyed,", "latitude 91", Code.BAD_COORDINATES),
    ("word.jpg,north,0,surveyed,", "'north', '0' is no place in decimal degrees", Code.BAD_COORDINATES),
    ("dms.jpg,51°30'15\" N,0,surveyed,", "decimal degrees", Code.BAD_COORDINATES),
    ("nan.jpg,nan,0,surveyed,", "decimal degrees", Code.BAD_COORDINATES),
    ("source.jpg,1,2,somebody,", "coordinate_source 'somebody' is none of", Code.BAD_REQUEST),
    ("C:\\photos\\a.jpg,1,2,C:\\b,", "coordinate_source 'C:\\b' is none of", Code.BAD_REQUEST),
    ("slash.jpg,1\\,2,surveyed,", "'1\\', '2' is no place", Code.BAD_COORDINATES),
    (",1,2,surveyed,", "it names no file", Code.BAD_REQUEST),
    ("a\0b.jpg,1,2,surveyed,", "NUL", Code.BAD_REQUEST),
    ("~nobody-of-this-name/a\0.jpg,1,2,surveyed,", "NUL", Code.BAD_REQUEST),
    ('"open.jpg,1,2,surveyed,', "a quote is opened that is not closed", Code.BAD_REQUEST),
    ('"open"x.jpg,1,2,surveyed,', "behind a closing quote", Code.BAD_REQUEST),
    ("good.jpg,1,2,surveyed,", "it is the photo of line 2 again", Code.BAD_REQUEST),
    ("./x/../good.jpg,,,,", "it is the photo of line 2 again", Code.BAD_REQUEST),
    ("x" * 140_000 + ",1,2,surveyed,", "a field has more than 131072 characters", Code.BAD_REQUEST),
]


@pytest.mark.parametrize(("row", "said", "code"), BAD_ROWS, ids=range(len(BAD_ROWS)))
def test_a_bad_row_is_refused_with_its_line_and_the_others_come(
    tmp_path: Path, row: str, said: str, code: Code
) -> None:
    path = table(tmp_path, HEADER + GOOD + '"two\nlines.jpg",1,2,surveyed,\n\n' + row + "\nlast.jpg,1,2,surveyed,\n")

    photos, refused, _ = read(path)

    assert [photo.ref for photo in photos] == ["good.jpg", "two\nlines.jpg", "last.jpg"]
    (refusal,) = refused
    assert refusal.message.startswith(f"{path}, line 6: ")
    assert said in refusal.message
    assert refusal.code is code
    assert refusal.ref


@given(st.lists(st.sampled_from(['"', ",", "a", "1", "\n", '"\n', '",']), max_size=30).map("".join))
def test_whatever_stands_between_good_rows_takes_none_of_them_along(between: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = table(Path(folder), f"{HEADER}first.jpg,1,2,surveyed,\n{between}\n{GOOD}last.jpg,1,2,surveyed,\n")
        photos, refused, _ = read(path)

    read_or_refused = {photo.ref for photo in photos}
    assert "first.jpg" in read_or_refused
    # A quote that is closed may hold the next row within its field; the one after it is there in any case.
    assert "last.jpg" in read_or_refused or refused


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "name,lat,lon\na.jpg,1,2\n",
            "line 1: file missing; the columns there are name, lat, lon, those of a manifest file,",
        ),
        ("\n\nfile,place\na.jpg,x\n", "line 3: lat, lon missing"),
        ("01.jpg,1,2\n02.jpg,3,4\n", "line 1: file, lat, lon missing; the columns there are 01.jpg, 1, 2,"),
        ("file,path,lat,lon\n", "line 1: file, path are two columns for one thing"),
        ("file,lat,Latitude,lon\n", "line 1: lat, Latitude are two columns for one thing"),
        (b"file,lat,lon\na\x98.jpg,1,2\n", "line 2: this is no text (UTF-8, CP1251)"),
        (b"\xef\xbb\xbffile,lat,lon\na\xff.jpg,1,2\n", "line 2: this is no text"),
        (b"\xff\xd8\xff\xe0\x98JFIF", "line 1: this is no text"),
        ('"file,lat,lon\na.jpg,1,2\n', "line 1: a quote is opened that is not closed"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_a_sentence_with_its_line(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    path = table(tmp_path, content)

    with pytest.raises(ValueError, match="line") as caught:
        read(path)
    assert f"{path}, {said}" in str(caught.value)


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff", ",,,\n"])
def test_an_empty_file_is_said_to_be_empty_with_what_belongs_into_it(tmp_path: Path, content: str) -> None:
    with pytest.raises(ValueError, match=r"m\.csv is empty; .*: file, lat, lon$"):
        read(table(tmp_path, content))


def test_a_header_without_rows_is_said(tmp_path: Path) -> None:
    assert read(table(tmp_path, HEADER))[2] == [f"{tmp_path / 'm.csv'} has a header and no row below it"]
    assert read(table(tmp_path, HEADER + GOOD))[2] == []


@pytest.mark.parametrize("folder", [True, False])
def test_a_manifest_that_cannot_be_read_is_a_sentence_with_its_path_as_it_is(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "C:\\photos\\m.csv"
    if folder:
        path.mkdir()

    with pytest.raises(ValueError, match="cannot be opened") as caught:
        read(path)
    why = "Is a directory" if folder else "No such file or directory"
    assert str(caught.value) == f"{path} cannot be opened: {why}"


# ------------------------------------------------------------------------------- how coordinates came to be


@pytest.mark.parametrize("provenance", Provenance)
def test_coordinates_that_do_not_say_how_they_came_to_be_are_what_the_call_says_and_that_is_told_before_the_rows(
    tmp_path: Path, provenance: Provenance
) -> None:
    path = table(tmp_path, "file,lat,lon\na.jpg,1,2\nb.jpg,,\n")

    note, first, second = manifest_rows(path, provenance)

    assert note == Note(f"{path} has no column coordinate_source: its coordinates count as {provenance}")
    assert isinstance(first, NewPhoto)
    assert isinstance(second, NewPhoto)
    assert (first.provenance, second.provenance) == (provenance, None)


def test_a_row_that_says_how_its_coordinates_came_to_be_is_heard_and_the_others_are_counted(tmp_path: Path) -> None:
    path = table(tmp_path, HEADER + "a.jpg,1,2,derived,\nb.jpg,1,2,,\nc.jpg,1,2, ,\nd.jpg,,,,\nb.jpg,3,4,,\n")

    rows = list(manifest_rows(path, Provenance.CONFIRMED))

    taken = [row for row in rows if isinstance(row, NewPhoto)]
    assert [row.provenance for row in taken] == [Provenance.DERIVED, Provenance.CONFIRMED, Provenance.CONFIRMED, None]
    assert rows[-1] == Note(f"{path}: rows with coordinates and no coordinate_source: 2; they count as confirmed")


def test_what_a_backend_calls_its_coordinates_holds_in_a_manifest_too(tmp_path: Path) -> None:
    path = table(tmp_path, HEADER + "a.jpg,1,2,Drone,\nb.jpg,1,2,manual,\nc.jpg,1,2,Landmark,\n")

    first, second, third = manifest_rows(path, methods={"drone": Provenance.EXIF_GPS})

    assert isinstance(first, NewPhoto)
    assert first.provenance is Provenance.EXIF_GPS
    assert isinstance(second, Refused), "a method of the defaults, which the setting has replaced"
    assert "drone" in second.message
    assert isinstance(third, NewPhoto)


def test_what_is_said_of_a_manifest_is_english_in_code_and_russian_to_who_reads_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of latitude 95 a half came in English: its sentence stood in another one that was Russian already."""
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")
    rows = "\n".join(row for row, *_ in BAD_ROWS)
    first, second = (
        table(tmp_path, f"{HEADER}{GOOD}{rows}\nno.jpg,1,2,,\n"),
        table(tmp_path, "file,lat,lon,x\n", "x.csv"),
    )
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "manifest.csv").touch()

    _, refused, notes = read(first)
    said = [*(row.message for row in refused), *notes, *read(second)[2]]
    said += [item.words for item in added(tmp_path / "a") if isinstance(item, Note)]
    for content in ("", "x,lat,lon\n", "file,file,lat,lon\n"):
        with pytest.raises(ValueError, match="csv") as caught:
            read(table(tmp_path, content))
        said.append(str(caught.value))
    with pytest.raises(ValueError, match="csv") as caught:
        read(tmp_path / "nothing.csv")
    said.append(str(caught.value))

    assert len(said) == len(BAD_ROWS) + 9
    for sentence in said:
        assert not re.search("[а-я]", sentence)
        assert not re.search(
            r"\b(is|line|the|row|latitude|from|of|no|with|not)\b", in_language(sentence.replace(str(tmp_path), ""))
        )


@pytest.mark.parametrize("name", ["a.jpg", "sub/a.jpg", "{root}/a.jpg", "~/a.jpg", "./a.jpg"])
def test_a_path_may_be_relative_absolute_or_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    ref = name.format(root=tmp_path)

    (photo,), _, _ = read(table(tmp_path, f"{HEADER}{ref},1,2,surveyed,\n"))

    expected = {"sub/a.jpg": "sub/a.jpg", "~/a.jpg": "home/a.jpg"}.get(name, "a.jpg")
    assert (photo.ref, photo.photo.path) == (ref, str(tmp_path / expected))


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("51.5", 51.5),
        ("51,5", 51.5),
        (" +51.5 ", 51.5),
        ("−51.5", -51.5),
        ("51.5°", 51.5),
        ("51.5 ° N", 51.5),
        ("S 51,5", -51.5),
        ("51.5s", -51.5),
        ("\N{NO-BREAK SPACE}51.5\N{NARROW NO-BREAK SPACE}°", 51.5),
        ("0", 0.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("5.15e1", 51.5),
        *(
            (wrong, None)
            for wrong in ("", "N", "-51.5 N", "51.5 E", "N 51.5 N", "51 30", "51°30'", "1.234,5", "1,234.5")
        ),
        *((wrong, None) for wrong in ("nan", "inf", "0x10", "1_0", "51.5 5", "--5", "٥١")),
    ],
)
def test_degrees_are_read_as_people_write_them_or_not_at_all(written: str, number: float | None) -> None:
    assert degrees(written, "N", "S") == number


# ----------------------------------------------------------------------------------------- among others


def test_a_manifest_in_a_folder_is_named_and_not_silently_left(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "1.jpg").touch()
    table(folder, HEADER, "manifest.csv")

    photo, note = added(folder)

    assert isinstance(photo, NewPhoto)
    assert isinstance(note, Note)
    assert note.words.endswith(f"sightline add '{folder}/manifest.csv'")


def test_photos_that_are_named_again_are_one_photo(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    with_place = table(tmp_path, f"{HEADER}1.jpg,1,2,surveyed,\n", "first.csv")
    without = table(tmp_path, f"{HEADER}1.jpg,,,,\n", "second.csv")

    assert [type(item) for item in added(tmp_path, tmp_path / "1.jpg", without)] == [NewPhoto]
    assert [type(item) for item in added(with_place, tmp_path)] == [NewPhoto]
    named, again = added(tmp_path, with_place)
    assert isinstance(named, NewPhoto)
    assert isinstance(again, Refused), "its coordinates must not be dropped silently"
    assert "twice" in again.message


def test_rows_of_two_manifests_that_name_two_photos_alike_are_two_photos(tmp_path: Path) -> None:
    paths = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths.append(table(tmp_path / name, f"{HEADER}1.jpg,1,2,surveyed,\n"))

    first, second = added(*paths)

    assert isinstance(first, NewPhoto)
    assert isinstance(second, NewPhoto)
    assert (first.ref, second.ref) == ("1.jpg", str(tmp_path / "b" / "1.jpg"))


@pytest.mark.parametrize("name", ["m.xlsx", "M.XLS", "m.ods"])
def test_a_table_that_is_no_text_says_what_to_save_it_as(tmp_path: Path, name: str) -> None:
    (refused,) = added(table(tmp_path, b"PK\x03\x04", name))

    assert isinstance(refused, Refused)
    assert "CSV" in refused.message


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [("m5_short_row.csv", 3, "the row ends before "), ("m6_half.csv", 2, "a latitude without a longitude")],
)
def test_the_cases_that_failed(name: str, line: int, said: str) -> None:
    if not CASES.exists():
        pytest.skip("the folder of cases is not beside the project")

    photos, refused, _ = read(CASES / name)

    assert [(f"line {line}: {said}" in row.message, str(CASES / name) in row.message) for row in refused] == [
        (True, True)
    ]
    assert len(photos) == line - 2
