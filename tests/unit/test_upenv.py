"""What `sightline up` notes for the other commands of its folder comes back as it was, whatever is in a name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker import settings as settings_page
from worker import upenv
from worker.errors import Permanent
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
#: File names of any bytes, as the system gives them to Python.
names = st.binary(max_size=30).filter(lambda raw: 0 not in raw).map(os.fsdecode)


@given(st.dictionaries(st.from_regex(r"SIGHTLINE_[A-Z_]{1,20}", fullmatch=True), names, max_size=5))
@example({"SIGHTLINE_A": "a'b\"c$d${HOME}\\e\nf\rg\r\nh#i = j `k` é"})
@example({"SIGHTLINE_A": "\\", "SIGHTLINE_B": "'", "SIGHTLINE_C": ""})
def test_every_value_comes_back_as_it_was_written(values: dict[str, str]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / upenv.NAME

        upenv.write(path, values)

        assert upenv.read(path) == values
        assert path.stat().st_mode & 0o777 == 0o600
        assert list(Path(folder).iterdir()) == [path]


@given(st.lists(names.filter(lambda name: name not in ("", "..")), max_size=4), names)
@example(["a,b", " c ", "[d]", "e'f\"g$h\ni", "é"], "with, comma")
@example(["[d"], "x")
def test_settings_are_those_that_were_noted(roots: list[str], models: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder).resolve()
        methods = {"a=b": "surveyed", "c, d": "fallback"}
        photo_roots = [path / root.lstrip("/") for root in roots]
        told = Settings(data_dir=path, photo_roots=photo_roots, models_dir=path / models, location_methods=methods)

        upenv.write(path / upenv.NAME, told.as_env())
        read = settings_page.load(data_dir=path)

        assert (read.photo_roots, read.models_dir) == (told.photo_roots, told.models_dir)
        assert read.location_methods == told.location_methods


def test_lists_without_odd_characters_stay_readable(tmp_path: Path) -> None:
    told = Settings(photo_roots=(tmp_path / "Фото", tmp_path / "it's"), location_methods={"gps": "exif_gps"})

    env = told.as_env()

    assert env["SIGHTLINE_PHOTO_ROOTS"] == f"{tmp_path}/Фото,{tmp_path}/it's"
    assert env["SIGHTLINE_LOCATION_METHODS"] == "gps=exif_gps"


@pytest.mark.parametrize("name", ["/a b", "/it's", '/"all"', "/back\\slash", "/$HOME & `x`", "/new\nline", "/Фото"])
def test_a_shell_reads_it_too(tmp_path: Path, name: str) -> None:
    upenv.write(
        tmp_path / upenv.NAME, {"SIGHTLINE_BROKER_URL": "redis://:p@127.0.0.1:1/5", "SIGHTLINE_PHOTO_ROOTS": name}
    )

    by_shell = subprocess.run(
        ["sh", "-c", f'. "{tmp_path}/up.env"; printf "%s %s" "$SIGHTLINE_BROKER_URL" "$SIGHTLINE_PHOTO_ROOTS"'],
        capture_output=True,
        text=True,
        check=True,
    )

    assert by_shell.stdout == f"redis://:p@127.0.0.1:1/5 {name}"
    assert upenv.read(tmp_path / upenv.NAME)["SIGHTLINE_PHOTO_ROOTS"] == name


def test_an_old_note_is_replaced_whole_and_never_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / upenv.NAME
    path.write_text("SIGHTLINE_DATABASE_URL='x'\n")
    path.with_name("up.env.new").write_text("left by one that was killed")
    path.with_name("up.env.new").chmod(0o644)

    upenv.write(path, {"SIGHTLINE_ENCODER": "e"})

    assert upenv.read(path) == {"SIGHTLINE_ENCODER": "e"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_note_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / upenv.NAME).mkdir()

    with pytest.raises(Permanent, match=r"up\.env cannot be read: Is a directory.*SIGHTLINE_DATA_DIR"):
        settings_page.load(data_dir=tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "worker.cli", "stats"],
        cwd=ROOT,
        env=os.environ | {"SIGHTLINE_DATA_DIR": str(tmp_path), "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert "up.env cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
