"""The old pickle: read for what it is, refused for what it could be; and what is odd about its rows."""

from __future__ import annotations

import decimal
import hashlib
import json
import os
import pickle
import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from producer_client import Sightline
from producer_client.contract import Code, Embedded, EmbedItem, NewPhoto, Provenance, Refused
from worker.commands.reports import kept_line
from worker.core.vectors import Vectors, unit_rows
from worker.joined import run
from worker.legacy import NotThatPickle, counted_as, read_pickle, reusable_vectors, same_model, to_add
from worker.points import MANY
from worker.settings import Settings
from worker.storage.source import PhotoFiles
from worker.survey import LegacyPhoto, PrefixUse, Report, examine, uses
from worker.words import in_language

PROVENANCE = Settings().provenance_of


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def put(value: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> Path:
        path = tmp_path / "embeddings.pkl"
        path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol=protocol))
        return path

    return put


def vectors(count: int, dimension: int = 8) -> Vectors:
    return unit_rows(np.random.default_rng(0).normal(size=(count, dimension)))


def as_the_guide(count: int = 3) -> dict[str, Any]:
    return {
        "paths": [f"/photos/{n}.jpg" for n in range(count)],
        "metadata": [{"lat": 55.7 + n, "lon": 37.6, "address": {"city": "Москва"}} for n in range(count)],
        "embeddings": vectors(count),
    }


def test_a_file_that_the_pickle_names_in_another_form_of_unicode_is_named_as_the_disk_does(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    names = ["1.jpg", "Ёлка.jpg", "absent Ёлка.jpg"]
    on_disk = [unicodedata.normalize("NFD", name) for name in names]
    for name in on_disk[:2]:
        (tmp_path / name).touch()
    paths = [str(tmp_path / unicodedata.normalize("NFC", name)) for name in names]

    photos = read_pickle(write(as_the_guide() | {"paths": paths}), PROVENANCE)
    below = read_pickle(write(as_the_guide() | {"paths": names}), PROVENANCE, root=tmp_path)

    assert [photo.path for photo in photos] == [*(str(tmp_path / name) for name in on_disk[:2]), paths[2]]
    assert [photo.path for photo in below] == [photo.path for photo in photos]


def test_paths_of_another_machine_are_read_below_the_folder_that_they_are_here(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    photo = tmp_path / "2024" / "1.jpg"
    photo.parent.mkdir()
    photo.touch()
    names = ["C:\\photos\\2024\\1.jpg", "/srv/old/2.jpg", "3.jpg"]
    pairs = {"c:\\photos": str(tmp_path), "/srv/old": "/gone", "/none": "/here"}

    photos = read_pickle(write(as_the_guide() | {"paths": names}), PROVENANCE, root=tmp_path, prefixes=pairs)

    assert [photo.path for photo in photos] == [str(photo), "/gone/2.jpg", str(tmp_path / "3.jpg")]
    assert uses(pairs, photos, missing=[1, 2]) == [
        PrefixUse("c:\\photos", str(tmp_path), photos=1, with_file=1),
        PrefixUse("/srv/old", "/gone", photos=1, with_file=0),
        PrefixUse("/none", "/here", photos=0, with_file=0),
    ]


@pytest.mark.parametrize("protocol", range(6))
def test_the_guides_pickle_is_read_in_every_protocol(write: Callable[..., Path], protocol: int) -> None:
    written = as_the_guide()

    photos = read_pickle(write(written, protocol), PROVENANCE)

    assert [photo.path for photo in photos] == written["paths"]
    assert [(photo.lat, photo.lon) for photo in photos] == [(55.7, 37.6), (56.7, 37.6), (57.7, 37.6)]
    assert [photo.metadata for photo in photos] == [{"address": {"city": "Москва"}}] * 3
    for photo, vector in zip(photos, written["embeddings"], strict=True):
        assert photo.vector is not None
        np.testing.assert_allclose(photo.vector, vector, rtol=1e-6)


@pytest.mark.parametrize(
    "embeddings",
    [
        list(vectors(3)),
        [row[None, :] for row in vectors(3)],
        vectors(3).tolist(),
        vectors(3).astype(np.float64),
        vectors(3).astype(np.float16).astype(np.float32) * 7,
    ],
)
def test_embeddings_may_be_lists_rows_and_of_any_length(write: Callable[..., Path], embeddings: Any) -> None:
    photos = read_pickle(write(as_the_guide() | {"embeddings": embeddings}), PROVENANCE)

    for photo, vector in zip(photos, vectors(3), strict=True):
        assert photo.vector is not None
        assert float(photo.vector @ vector) > 0.999


def test_metadata_may_be_by_path_absent_or_with_numpy_numbers(write: Callable[..., Path]) -> None:
    by_path = {"/photos/1.jpg": {"latitude": np.float64(1.5), "longitude": np.float32(2), "location_method": "manual"}}

    first, second, _ = read_pickle(write(as_the_guide() | {"metadata": by_path}), PROVENANCE)

    assert (first.lat, first.provenance) == (None, Provenance.DERIVED)
    assert (second.lat, second.lon, second.provenance) == (1.5, 2.0, Provenance.CONFIRMED)
    none = as_the_guide()
    del none["metadata"]
    assert all(photo.lat is None for photo in read_pickle(write(none), PROVENANCE))


class RunsACommand:
    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> Any:
        return os.system, (self._command,)


class Calls:
    def __init__(self, called: Any, *arguments: Any) -> None:
        self._made = (called, arguments)

    def __reduce__(self) -> Any:
        return self._made


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_something_is_refused_and_runs_nothing(
    write: Callable[..., Path], tmp_path: Path, protocol: int
) -> None:
    mark = tmp_path / "it ran"
    evil = as_the_guide() | {"metadata": [RunsACommand(f"touch '{mark}'")] * 3}

    with pytest.raises(NotThatPickle, match=r"posix\.system|nt\.system|os\.system"):
        read_pickle(write(evil, protocol), PROVENANCE)

    assert not mark.exists()


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (decimal.Decimal("1.5"), r"decimal\.Decimal"),
        (Path("/a"), "pathlib"),
        (Calls(eval, "1"), r"builtins\.eval"),
        (Calls(getattr, 1, "real"), r"builtins\.getattr"),
        (np.array([{"a": 1}], dtype=object), "array of object"),
        (np.array(["a"]), "array of <U1"),
        (Calls(np.load, "/etc/passwd"), "load"),
    ],
)
def test_what_has_no_place_in_it_is_refused_by_name(write: Callable[..., Path], value: Any, named: str) -> None:
    with pytest.raises(NotThatPickle, match=named):
        read_pickle(write(as_the_guide() | {"more": value}), PROVENANCE)


def test_an_array_that_only_takes_memory_is_refused(write: Callable[..., Path]) -> None:
    huge = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I99999999999\ntS'b'\ntR."

    with pytest.raises(NotThatPickle, match="numpy did not write"):
        read_pickle(write(huge), PROVENANCE)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x05.", pickle.dumps(as_the_guide())[:-40], b"\x80\x04N."])
def test_a_damaged_pickle_is_refused(write: Callable[..., Path], content: bytes) -> None:
    with pytest.raises(NotThatPickle):
        read_pickle(write(content), PROVENANCE)


@pytest.mark.parametrize(
    "wrong", [{"paths": ["/a.jpg"]}, {"embeddings": vectors(2)}, {"metadata": [{}]}, {"embeddings": np.ones(3)}]
)
def test_lists_of_different_lengths_cannot_be_matched(write: Callable[..., Path], wrong: dict[str, Any]) -> None:
    with pytest.raises(NotThatPickle):
        read_pickle(write(as_the_guide() | wrong), PROVENANCE)


def photo(number: int, path: str, lat: float | None = None, lon: float | None = None) -> LegacyPhoto:
    return LegacyPhoto(number, path, lat, lon, Provenance.DERIVED, {})


def test_the_report_names_what_is_odd() -> None:
    centre = [photo(10 + n, f"/c{n}.jpg", 55.7558, 37.6176) for n in range(5)]
    photos = [
        photo(0, "/a.jpg", 1.0, 2.0),
        photo(1, "/a.jpg", 1.0, 2.0001),
        photo(2, "/b.jpg", 1.0, 2.0),
        photo(3, "/b.jpg", 1.1, 2.0),
        photo(4, "/gone.jpg"),
        photo(5, "/odd.jpg", 91.0, 2.0),
        *centre,
    ]

    report = examine(photos, lambda path: path != "/gone.jpg")

    assert (report.photos, report.with_coordinates, report.trusted) == (11, 9, 0)
    assert report.missing == [4]
    assert report.bad_coordinates == [5]
    assert report.duplicates == [[0, 1], [2, 3]]
    assert report.conflicts == [[2, 3]]
    assert [(p.lat, p.lon, p.numbers, p.is_default) for p in report.points] == [
        (55.7558, 37.6176, [10, 11, 12, 13, 14], False)
    ]
    assert report.at_points(default=False) == {10, 11, 12, 13, 14}


def test_rows_of_one_file_are_known_however_it_is_spelled(tmp_path: Path) -> None:
    (tmp_path / "Caf\u00e9.jpg").write_bytes(b"a photo")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "Caf\u00e9.jpg")
    source = PhotoFiles(Settings(photo_roots=(tmp_path,)))
    spellings = ["Caf\u00e9.jpg", "Cafe\u0301.jpg", "./Caf\u00e9.jpg", "link.jpg"]
    one = [photo(n, str(tmp_path / name), 1.0, 2.0 + n) for n, name in enumerate(spellings)]
    below = [photo(4, "Caf\u00e9.jpg", 1.0, 2.0)]
    gone = [photo(10 + n, str(tmp_path / name), 3.0, 4.0) for n, name in enumerate(("\u00e4.jpg", "a\u0308.jpg"))]
    other = [photo(20, str(tmp_path / "other.jpg"), 1.0, 2.0)]

    report = examine([*one, *below, *gone, *other], source.is_there, source.file_of)

    assert report.duplicates == [[0, 1, 2, 3, 4], [10, 11]]
    assert report.conflicts == [[0, 1, 2, 3, 4]]
    assert report.missing == [10, 11, 20]


def test_a_path_that_no_file_can_have_is_one_that_is_missing(tmp_path: Path) -> None:
    source = PhotoFiles(Settings(photo_roots=(tmp_path,)))

    report = examine([photo(1, f"{tmp_path}/a\0b.jpg", 1.0, 2.0)], source.is_there, source.file_of)

    assert report.missing == [1]


def test_spellings_of_one_file_at_one_point_are_one_photo_there(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a photo")
    source = PhotoFiles(Settings(photo_roots=(tmp_path,)))
    photos = [photo(n, f"{tmp_path}/{'./' * n}a.jpg", 1.0, 2.0) for n in range(MANY)]

    assert examine(photos, source.is_there, source.file_of).points == []
    assert len(examine(photos, source.is_there).points) == 1


def test_rows_that_name_no_file_are_told_apart_and_are_no_copies_of_each_other() -> None:
    report = examine([photo(1, "", 1.0, 2.0), photo(2, "", 8.0, 2.0), photo(3, "/a.jpg")], lambda path: True)

    assert report.without_path == [1, 2]
    assert (report.missing, report.duplicates, report.conflicts) == ([], [], [])
    assert (report.with_coordinates, report.with_file) == (2, 0)


def test_a_report_is_json_with_its_refusals_in_it() -> None:
    report = Report(photos=1, missing=[3], unreadable=[Refused("photo 1", Code.NOT_AN_IMAGE, "no image")])

    told = json.loads(json.dumps(report.to_json()))

    assert (told["photos"], told["missing"]) == (1, [3])
    assert told["unreadable"] == [
        {"ref": "photo 1", "code": "not_an_image", "message": "no image", "status": "refused"}
    ]


def test_one_photo_at_zero_zero_is_not_counted_among_those_to_be_trusted() -> None:
    photos = [
        replace(photo(n, f"/{n}.jpg", 0.0, lon), provenance=Provenance.CONFIRMED) for n, lon in ((0, 0.0), (1, 9.0))
    ]

    report = examine(photos, lambda path: True)

    assert (report.with_coordinates, report.trusted) == (2, 1)


def test_one_vector_of_another_model_is_enough_to_doubt_all() -> None:
    rows = vectors(4)
    old = dict(enumerate(rows))

    assert same_model(old, dict(enumerate(rows)))
    assert not same_model(old, {0: rows[0], 1: rows[2]})
    assert not same_model(old, {0: np.ones(5, dtype=np.float32)})
    assert not same_model(old, {})


def sent(items: list[NewPhoto | Refused]) -> dict[int, NewPhoto]:
    return {int(item.ref): item for item in items if isinstance(item, NewPhoto)}


def test_an_entry_that_no_message_can_carry_is_refused_and_its_neighbours_are_sent() -> None:
    odd: list[dict[str, Any]] = [{"score": float("nan")}, {"tags": {object()}}, {"note": "a\0b"}]
    photos = [LegacyPhoto(n, f"/{n}.jpg", None, None, Provenance.DERIVED, facts) for n, facts in enumerate(odd)]
    photos += [photo(3, "/with\0.jpg"), photo(4, "/good.jpg")]

    items = to_add(photos, examine(photos, lambda path: True))

    assert set(sent(items)) == {4}
    assert [(item.ref, item.code) for item in items if isinstance(item, Refused)] == [
        (str(n), Code.BAD_REQUEST) for n in range(4)
    ]


def test_a_vector_without_a_length_costs_its_own_photo_alone(write: Callable[..., Path]) -> None:
    rows = vectors(4)
    rows[1], rows[2, 0] = 0.0, np.nan

    photos = read_pickle(write(as_the_guide(4) | {"embeddings": rows}), PROVENANCE)

    assert [found.vector is None for found in photos] == [False, True, True, False]


def test_what_is_odd_is_left_out_or_loses_its_coordinates_and_nobody_trusts_a_shared_point() -> None:
    centre = [photo(10 + n, f"/c{n}.jpg", 55.7558, 37.6176) for n in range(5)]
    known = LegacyPhoto(6, "/known.jpg", 5.0, 6.0, Provenance.CONFIRMED, {"address": "Lund", "floor": 3})
    photos = [
        photo(0, "/a.jpg", 1.0, 2.0),
        photo(1, "/a.jpg", 1.0, 2.0),
        photo(2, "/b.jpg", 1.0, 2.0),
        photo(3, "/b.jpg", 1.1, 2.0),
        photo(4, "/gone.jpg", 1.0, 2.0),
        photo(5, "/odd.jpg", 91.0, 2.0),
        known,
        *centre,
    ]
    report = examine(photos, lambda path: path != "/gone.jpg")

    plain = sent(to_add(photos, report))
    trusted = sent(to_add(photos, report, trust=Provenance.SURVEYED))

    assert set(plain) == {0, 2, 5, 6, 10, 11, 12, 13, 14}
    assert (plain[2].lat, plain[5].lat) == (None, None)
    assert plain[0].provenance is Provenance.DERIVED
    assert trusted[0].provenance is Provenance.SURVEYED
    assert plain[6].provenance is trusted[6].provenance is Provenance.CONFIRMED
    assert (plain[6].address, plain[6].metadata) == ({"address": "Lund"}, {"floor": 3})
    assert {items[n].provenance for items in (plain, trusted) for n in range(10, 15)} == {Provenance.DERIVED}
    report.points[0] = replace(report.points[0], is_default=True)
    assert {sent(to_add(photos, report))[n].provenance for n in range(10, 15)} == {Provenance.FALLBACK}


class Embedder:
    """Workers whose model makes the old vectors of the files that it is asked for."""

    def __init__(self, old: Vectors) -> None:
        self._old = old

    def embed_many(self, items: list[EmbedItem], *, return_vectors: bool) -> list[Embedded]:
        assert return_vectors
        vectors = {item.ref: self._old[int(item.ref)].tolist() for item in items}
        return [Embedded(ref, "", model_key="model@1", vector=vector) for ref, vector in vectors.items()]


def test_a_file_that_was_replaced_after_the_pickle_was_written_does_not_get_the_old_vector(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    written = as_the_guide() | {"paths": [str(tmp_path / f"{n}.jpg") for n in range(3)]}
    for number, path in enumerate(written["paths"]):
        Path(path).write_bytes(b"picture %d" % number)
    file = write(written)
    at = file.stat().st_mtime
    photos = read_pickle(file, PROVENANCE)
    new = [item for item in to_add(photos, examine(photos, lambda path: True)) if isinstance(item, NewPhoto)]
    Path(written["paths"][1]).write_bytes(b"another picture")
    os.utime(written["paths"][1], (at + 5, at + 5))
    client = cast(Sightline, Embedder(written["embeddings"]))

    reused, model_key = reusable_vectors(photos, new, client, written_at=at)
    none, _ = reusable_vectors(photos, new[1:2], client, written_at=at)

    assert model_key == "model@1"
    assert set(reused) == {hashlib.sha256(b"picture %d" % number).hexdigest() for number in (0, 2)}
    assert none == {}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            [1, 2],
            "holds no dictionary, but what is of type list; build_clip_index.py writes one with paths, embeddings,",
        ),
        ({}, "lacks paths, embeddings; it holds nothing, and build_clip_index.py writes paths, embeddings, metadata"),
        (
            {"image_paths": [], "features": [], 7: 1},
            "lacks paths, embeddings; it holds 'image_paths', 'features', 7, and build_clip_index.py writes",
        ),
        ({"paths": [], "C:\\vectors": []}, "lacks embeddings; it holds 'paths', 'C:\\vectors', and"),
        ({"embeddings": []} | {"x" * 900 + str(n): n for n in range(400)}, "lacks paths; it holds 'embeddings', 'xx"),
        (as_the_guide() | {"paths": 5}, "its paths are no list, but of type int"),
        (as_the_guide() | {"paths": None}, "its paths are no list, but of type NoneType"),
        (as_the_guide() | {"metadata": 5}, "its metadata is no list or dictionary, but of type int"),
        (as_the_guide() | {"embeddings": None}, "its embeddings are no matrix of numbers"),
        (as_the_guide() | {"embeddings": "abc"}, "its embeddings are no matrix of numbers"),
        (as_the_guide() | {"embeddings": [[1], [1, 2], [1]]}, "its embeddings are no matrix of numbers"),
        (b"hello", "is no pickle, or not a whole one"),
        (pickle.dumps(as_the_guide())[:-40], "is no pickle, or not a whole one"),
    ],
)
def test_another_pickle_is_refused_with_what_it_holds_and_what_it_should(
    write: Callable[..., Path], wrong: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(wrong)

    with pytest.raises(NotThatPickle) as caught:
        read_pickle(path, PROVENANCE)

    message = caught.value.message
    assert said in message
    assert len(message) <= 1000
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")
    assert re.search("[а-я]", in_language(message))


def test_a_pickle_that_cannot_be_opened_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotThatPickle) as caught:
        read_pickle(tmp_path, PROVENANCE)

    assert caught.value.message == f"{tmp_path} cannot be opened: Is a directory"


def test_what_is_to_be_trusted_is_counted_as_it_will_be() -> None:
    """With --trust the report said 0 of all that were trusted then."""
    centre = [photo(10 + n, f"/c{n}.jpg", 55.7558, 37.6176) for n in range(5)]
    fixed = [LegacyPhoto(20, "/m.jpg", 3.0, 4.0, Provenance.CONFIRMED, {})]
    twice = [photo(21, "/t.jpg", 1.0, 2.0), photo(22, "/t.jpg", 9.0, 2.0)]
    odd = [photo(23, "/z.jpg", 0.0, 0.0), photo(24, "/n.jpg"), photo(25, "/o.jpg", 91.0, 0.0)]
    photos = [photo(0, "/a.jpg", 1.0, 2.0), photo(1, "/gone.jpg", 5.0, 2.0), *centre, *fixed, *twice, *odd]
    report = examine(photos, lambda path: path != "/gone.jpg")

    counts = {}
    for trust in (None, Provenance.SURVEYED, Provenance.FALLBACK):
        report.trust(photos, counted_as(photos, report, trust=trust))
        counts[trust] = report.trusted

    assert counts == {None: 1, Provenance.SURVEYED: 3, Provenance.FALLBACK: 1}
    new = sent(to_add(photos, report, trust=Provenance.SURVEYED))
    trusted = [n for n, item in new.items() if item.provenance is not None and item.provenance.trusted]
    assert trusted == [0, 20, 23], "those with a file; a worker makes a default of exactly 0, 0"


@pytest.mark.parametrize("language", ["en", "ru"])
def test_a_pickle_all_of_whose_files_are_gone_says_so_and_nothing_of_vectors(
    write: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    language: str,
) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", language)
    file = write(as_the_guide())

    said = {}
    for words in ((), ("--dry-run",), ("--dry-run", "--trust", "surveyed"), ("--json",)):
        monkeypatch.setattr("sys.argv", ["sightline", "import-legacy", str(file), *words])
        with pytest.raises(SystemExit) as ended:
            run()
        said[words] = ended.value.code or 0, " ".join(capsys.readouterr().out.split())

    hint = {"en": "None of its files is there.", "ru": "Ни одного из его файлов нет на месте."}[language]
    assert [code for code, _ in said.values()] == [1, 0, 0, 1]
    for words in ((), ("--dry-run",), ("--dry-run", "--trust", "surveyed")):
        assert hint in said[words][1]
        assert "--path-prefix" in said[words][1]
        assert "embedded again" not in said[words][1]
        assert "заново" not in said[words][1]
    trusted = re.search(
        r"(of these to be trusted|из них достоверных) │ (\d+)", said["--dry-run", "--trust", "surveyed"][1]
    )
    assert trusted is not None
    assert trusted[2] == "3"
    assert json.loads(said["--json",][1])["imported"] == 0


@pytest.mark.parametrize(
    ("reused", "compared", "said"),
    [(3, True, "vectors kept: 3"), (0, True, "not of this model"), (0, False, "no file of it is as it was")],
)
def test_what_became_of_old_vectors_is_said_with_its_reason(reused: int, compared: bool, said: str) -> None:
    assert said in kept_line(reused, compared=compared)
