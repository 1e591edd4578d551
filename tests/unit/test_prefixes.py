"""Names of files that another machine wrote, as they are here."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from producer_client.contract import Code, Photo
from worker.errors import PhotoRefusal
from worker.prefixes import Prefixes
from worker.settings import Settings
from worker.storage.source import PhotoFiles

CAFE = "Café"


@pytest.mark.parametrize(
    ("old", "path", "here"),
    [
        ("/srv/old", "/srv/old/2024/a.jpg", "/new/2024/a.jpg"),
        ("/srv/old/", "/srv//old/a.jpg", "/new/a.jpg"),
        ("/srv/old", "/srv/older/a.jpg", "/srv/older/a.jpg"),
        ("/srv/old", "/SRV/old/a.jpg", "/SRV/old/a.jpg"),
        ("/srv/old", "/srv/old/a\\b.jpg", "/new/a\\b.jpg"),
        ("uploads", "uploads/a.jpg", "/new/a.jpg"),
        ("C:\\photos", "C:\\photos\\2024\\a b.jpg", "/new/2024/a b.jpg"),
        ("C:\\Photos\\", "c:/photos/a.JPG", "/new/a.JPG"),
        ("C:/photos", "C:\\photos\\a.jpg", "/new/a.jpg"),
        ("C:", "C:\\a.jpg", "/new/a.jpg"),
        ("D:\\", "C:\\a.jpg", "C:\\a.jpg"),
        ("C:\\photos", "C:\\photos2\\a.jpg", "C:\\photos2\\a.jpg"),
        ("\\\\nas\\share", "\\\\NAS\\share\\a.jpg", "/new/a.jpg"),
        ("//nas/share", "\\\\nas\\share\\a.jpg", "/new/a.jpg"),
        ("photos\\", "photos\\a.jpg", "/new/a.jpg"),
        (f"/srv/{CAFE}", f"/srv/{normalize('NFD', CAFE)}/{CAFE}.jpg", f"/new/{CAFE}.jpg"),
        ("/srv/old", "https://srv/old/a.jpg", "https://srv/old/a.jpg"),
        ("/srv/old", "", ""),
    ],
)
def test_a_path_is_read_below_the_folder_that_its_prefix_is_here(old: str, path: str, here: str) -> None:
    prefixes = Settings(path_prefixes={old: "/new"}).path_prefixes

    assert Prefixes(prefixes).here(path) == here
    assert Prefixes(prefixes).of(path) == (old if here != path else None)


def test_the_longest_prefix_decides_and_what_is_here_stays() -> None:
    prefixes = Prefixes({"/data": "/data/photos", "/data/x": "/x", "/deep/below": "/deep"})

    assert prefixes.here("/data/a.jpg") == "/data/photos/a.jpg"
    assert prefixes.here("/data/photos/a.jpg") == "/data/photos/a.jpg"
    assert prefixes.here("/data/x/a.jpg") == "/x/a.jpg"
    assert prefixes.here("/deep/below/a.jpg") == "/deep/a.jpg"


names = st.lists(st.sampled_from(["a", "b", "c.jpg", "Д"]), min_size=1, max_size=4).map("/".join)


@given(name=names, old=st.sampled_from(["/srv/old", "C:\\old", "\\\\nas\\old", "uploads"]))
def test_a_file_of_here_is_known_by_what_others_call_it(name: str, old: str) -> None:
    prefixes = Prefixes({old: "/new", "/other": "/new/a"})

    for other in prefixes.elsewhere(f"/new/{name}"):
        assert prefixes.here(other) == f"/new/{name}"
    assert [of for other in prefixes.elsewhere(f"/new/{name}") if (of := prefixes.of(other)) == old]
    assert prefixes.here(prefixes.here(f"/srv/old/{name}")) == prefixes.here(f"/srv/old/{name}")


def test_the_setting_is_read_as_pairs_and_written_as_it_is_read() -> None:
    prefixes = {"C:\\my photos": "/photos", "/srv/a,b": "/b"}
    settings = Settings(path_prefixes=prefixes)

    assert Settings(path_prefixes="C:\\my photos=/photos, /srv/old=/new/").path_prefixes == {
        "C:\\my photos": "/photos",
        "/srv/old": "/new",
    }
    assert Settings(path_prefixes=settings.as_env()["SIGHTLINE_PATH_PREFIXES"]).path_prefixes == prefixes


@pytest.mark.parametrize("written", ["/old", "/old=", "=/new", "/old=s3://bucket", "https://old/=/new"])
def test_what_is_no_pair_of_folders_is_refused(written: str) -> None:
    with pytest.raises(ValidationError, match="path_prefixes"):
        Settings(path_prefixes=written)


# ------------------------------------------------------------------------------------------ where files are read


@pytest.fixture
def here(tmp_path: Path) -> Path:
    photo = tmp_path / "here" / "2024" / "a.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"photo")
    photo.with_suffix(".xmp").write_bytes(b"sidecar")
    return tmp_path / "here"


@pytest.mark.parametrize("row", ["C:\\old\\2024\\a.jpg", "c:/Old/2024/a.jpg", "/srv/old/2024/a.jpg"])
def test_the_file_of_a_row_from_another_machine_is_read_here(here: Path, row: str) -> None:
    pairs = {"C:\\old": str(here), "/srv/old": str(here)}
    files = PhotoFiles(Settings(photo_roots=(here,), path_prefixes=pairs))
    gone = f"{row[:-5]}gone.jpg"

    assert files.fetch(Photo(path=row)) == b"photo"
    assert files.is_there(row)
    assert files.facts([row]) == files.facts([str(here / "2024" / "a.jpg")])
    assert files.facts([gone]) == [None]
    assert list(files.beside(row, [("xmp", "a.xmp")], limit=100)) == [("xmp", b"sidecar")]
    with pytest.raises(PhotoRefusal) as caught:
        files.fetch(Photo(path=gone))
    assert caught.value.code is Code.NOT_FOUND
    assert f"{gone} (here {here / '2024' / 'gone.jpg'})" in str(caught.value)


def test_a_file_and_the_row_of_another_machine_are_one_photo(here: Path) -> None:
    files = PhotoFiles(Settings(photo_roots=(here,), path_prefixes={"C:\\old": str(here)}))
    now, row = str(here / "2024" / "a.jpg"), "C:\\old\\2024\\a.jpg"

    assert row in files.spellings(now)
    assert files.spellings(row)[0] == row
    assert now in files.spellings(row)
    assert files.spellings(now)[-1] == files.spellings(row)[-1] == now


def test_a_prefix_leads_to_no_file_outside_of_the_roots(here: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    files = PhotoFiles(Settings(photo_roots=(here,), path_prefixes={"C:\\old": str(here), "/x": str(tmp_path)}))

    for path in ("C:\\old\\..\\secret.jpg", "/x/secret.jpg"):
        with pytest.raises(PhotoRefusal) as caught:
            files.fetch(Photo(path=path))
        assert caught.value.code is Code.OUTSIDE_ROOTS


def test_a_path_of_windows_without_a_prefix_is_told_what_to_set(here: Path) -> None:
    with pytest.raises(PhotoRefusal, match="SIGHTLINE_PATH_PREFIXES") as caught:
        PhotoFiles(Settings(photo_roots=(here,))).fetch(Photo(path="C:\\old\\2024\\a.jpg"))

    assert caught.value.code is Code.NOT_FOUND


def test_a_file_of_another_machine_that_has_gone_is_gone_although_another_root_is_empty(
    here: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    files = PhotoFiles(Settings(photo_roots=(here, tmp_path / "empty"), path_prefixes={"C:\\old": str(here)}))

    assert files.facts(["C:\\old\\2024\\gone.jpg"]) == [None]


def test_a_name_that_would_be_another_file_is_no_name_of_this_one() -> None:
    prefixes = Prefixes({"/old": "/new", "/old/a": "/x"})

    assert list(prefixes.elsewhere("/new/b/1.jpg")) == ["/old/b/1.jpg"]
    assert list(prefixes.elsewhere("/new/a/1.jpg")) == []
