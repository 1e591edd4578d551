"""A rebuild asks about known photos as if they were not there, and what it learns stays with the generation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import typer
from PIL import Image

from benchmarks.again import Again
from producer_client.contract import Answer, Code, ConfidenceKind, Locate, Photo, Policy, Provenance
from tests.entries import new_entry
from tests.integration.test_index import number_serving
from worker import runtime
from worker.commands import doctor
from worker.commands.exam import exam
from worker.commands.index import generations
from worker.commands.terminal import UNWELL, Misused
from worker.commands.tune import tune
from worker.core.generations import Built
from worker.core.index_ports import PublishedGenerations
from worker.core.keypoints import COMPONENTS, LEVELS, POINT_STEPS, Keypoints
from worker.core.ports import Encoder
from worker.core.shot import CAMERA_BYTES, Shot
from worker.core.types import Filter, NewEntry
from worker.core.vectors import unit_rows
from worker.errors import BadGeneration, HeldBack, Permanent
from worker.index.folder import GenerationFolder
from worker.library import Library, examining
from worker.library.asking import FIRST_HITS, LEFT_OUT_M
from worker.library.examining import Examination
from worker.library.learning import Learning
from worker.library.tuning import Tuner
from worker.place.calibration import LEAST_RADIUS_M, Calibration, Case, learnt
from worker.place.exam import Exam, from_json
from worker.place.gate import Baseline
from worker.place.promised import TooFew
from worker.settings import Settings
from worker.storage.store import PostgresStore

#: Of a place: points of a scene, of which every photo of it sees most.
POINTS, FRAME = 160, (640, 480)
METRE = 1 / 111_195.08
PLACES, VIEWS = 30, 2


def drawn(place: int, view: int, seed: int) -> Keypoints:
    """What a camera sees of a scene from another spot, and as many points that only this photo has."""
    scene = np.random.default_rng([seed, place])
    own = np.random.default_rng([seed, place, view])
    xyz = scene.uniform((-3, -2, 6), (3, 2, 12), (POINTS, 3)) - own.uniform(-0.5, 0.5, 3)
    seen = 500 * xyz[:, :2] / xyz[:, 2:] + np.array(FRAME) / 2
    points = np.concatenate([seen, own.uniform((20, 20), (620, 460), (POINTS, 2))])
    descriptions = np.concatenate(
        [scene.integers(0, LEVELS, (POINTS, COMPONENTS)), own.integers(0, LEVELS, (POINTS, COMPONENTS))]
    )
    inside = ((points > 1) & (points < np.array(FRAME) - 1)).all(axis=1)
    return Keypoints((points[inside] * POINT_STEPS).astype(np.uint16), descriptions[inside].astype(np.uint8), FRAME)


def entries(dimension: int, *, places: int, views: int, seed: int = 1, keypoints: bool = True) -> list[NewEntry]:
    """Photos of places a kilometre apart, that look much alike, each place twice."""
    rng = np.random.default_rng(seed)
    looks = unit_rows(rng.normal(size=(places // 2 + 1, dimension)))
    new = []
    for place in range(places):
        for view in range(views):
            vector = unit_rows((looks[place // 2] + 0.03 * rng.normal(size=dimension))[None])[0]
            north, east = rng.normal(scale=6.0, size=2)
            name = f"{seed}-{place}-{view}"
            new.append(
                new_entry(
                    name,
                    vector,
                    path=f"https://photos.example/{name}.jpg",
                    given=(float(48 + (1_000 * place + north) * METRE), float(11 + east * METRE), Provenance.SURVEYED),
                    keypoints=drawn(place, view, seed) if keypoints else None,
                )
            )
    return new


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Case]]:
    """What an exam gives to be learnt from."""
    cases_of: dict[str, list[Case]] = {}

    def noted(cases: list[Case], *, timed: list[Case], false_answers: float) -> Any:
        cases_of.update(cases=cases, timed=timed)
        return learnt(cases, timed=timed, false_answers=false_answers)

    monkeypatch.setattr(examining, "learnt", noted)
    return cases_of


def view_of(one: NewEntry) -> int:
    return int(one.ref.rpartition("-")[2])


def shot_by(one: NewEntry, taken_s: float, camera: str | None = None) -> NewEntry:
    """camera: else one of the place's own."""
    camera = camera or one.ref.rpartition("-")[0]
    shot = Shot(camera.encode().ljust(CAMERA_BYTES), taken_s)
    return replace(one, picture_hash=one.ref.encode().ljust(32, b"."), shot=shot)


@pytest.fixture
def fill(store: PostgresStore, encoder: Encoder) -> Callable[..., list[int]]:
    def put(**how: Any) -> list[int]:
        new = entries(encoder.dimension, **how)
        ids = {w.ref: w.entry.photo_id for w in store.entries.put_many(new, encoder.model_key)}
        return [ids[one.ref] for one in new]

    return put


def examined(library: Library, photos: int = 1_000) -> Examination:
    live = library.questions._live
    live.catch_up()
    return library.examining.examine(live, lambda *_: None, photos=photos)


def located(library: Library, photo_id: int, generation: int) -> Answer:
    """By a process that has this generation."""
    live = library.questions._live
    live.settle()
    assert live.generation == generation
    return library.questions.locate(Locate(photo=Photo(photo_id=photo_id))).answer


def test_each_photo_is_asked_about_with_its_place_and_without_it(
    fill: Callable[..., list[int]], make_library: Callable[..., Library], store: PostgresStore
) -> None:
    ids = fill(places=PLACES, views=VIEWS)

    found = examined(make_library(store=store))

    assert found.photos == len(ids)
    assert sorted((one.photo_id, one.seen) for one in found.questions) == sorted(
        (photo_id, seen) for photo_id in ids for seen in (True, False)
    )
    seen = [one for one in found.questions if one.seen]
    unseen = [one for one in found.questions if not one.seen]
    assert sum(one.error_m is not None and one.error_m <= 50 for one in seen) >= 0.95 * len(seen)
    assert all(one.error_m is None or one.error_m > 500 for one in unseen)
    assert all(away > LEFT_OUT_M for one in unseen for away in one.neighbours_m)
    assert {one.density for one in found.questions} == {VIEWS - 1}
    assert all(one.evidence is not None and one.evidence.inliers for one in seen)


@pytest.mark.parametrize("timed", [True, False])
def test_each_photo_is_asked_about_with_what_its_camera_took_too_without_its_place_where_that_is_left_out(
    make_library: Callable[..., Library],
    store: PostgresStore,
    encoder: Encoder,
    settings: Settings,
    told: dict[str, list[Case]],
    timed: bool,
) -> None:
    """Each place was photographed by a camera of its own."""
    new = [shot_by(one, 10.0 * n) for n, one in enumerate(entries(encoder.dimension, places=PLACES, views=VIEWS))]
    store.entries.put_many(new, encoder.model_key)
    rungs = (*settings.rungs, "time") if timed else settings.rungs

    examined(make_library(store=store, settings=settings.model_copy(update={"rungs": rungs})))

    moments = [case.strength.moment if case.strength is not None else 0 for case in told["timed"] if case.seen]
    assert len(moments) == len(new)
    assert (sum(moments) >= 0.9 * len(new)) == timed
    assert {case.strength.moment for case in told["timed"] if not case.seen and case.strength is not None} == {0}


@pytest.mark.parametrize(("apart_s", "found_again"), [(1.0, False), (10.0, True)])
def test_frames_of_a_photos_own_burst_do_not_testify_for_it(
    make_library: Callable[..., Library],
    store: PostgresStore,
    encoder: Encoder,
    settings: Settings,
    told: dict[str, list[Case]],
    apart_s: float,
    found_again: bool,
) -> None:
    """They have its fix, right or wrong, and who is lost has none of them. Each place was photographed once, by a
    camera of its own, or twice."""
    new = [shot_by(one, apart_s * view_of(one)) for one in entries(encoder.dimension, places=PLACES, views=VIEWS)]
    store.entries.put_many(new, encoder.model_key)
    timed = settings.model_copy(update={"rungs": (*settings.rungs, "time")})

    found = examined(make_library(store=store, settings=timed))

    assert found.photos == len(new)
    seen = [one for one in found.questions if one.seen]
    assert any(away <= LEFT_OUT_M for one in seen for away in one.neighbours_m) == found_again
    assert any(one.error_m is not None and one.error_m <= 50 for one in seen) == found_again
    moments = {case.strength.moment for case in told["timed"] if case.strength is not None}
    assert moments == ({0, 1} if found_again else {0}), "nor by its time"
    assert {case.alone for case in told["cases"]} == {not found_again}


def test_a_frame_of_the_burst_that_claims_another_place_testifies_for_that(
    make_library: Callable[..., Library], store: PostgresStore, encoder: Encoder
) -> None:
    new = entries(encoder.dimension, places=2, views=1)
    store.entries.put_many([shot_by(one, 0.0, camera="the same") for one in new], encoder.model_key)

    found = examined(make_library(store=store))

    assert [len(one.neighbours_m) for one in found.questions] == [1] * 4


def test_beyond_a_long_burst_others_are_asked_for(
    make_library: Callable[..., Library], store: PostgresStore, encoder: Encoder
) -> None:
    """Of more frames than are asked of the index at first."""
    burst, others = FIRST_HITS + 2, 3
    new = [
        one for one in entries(encoder.dimension, places=2, views=burst) if view_of(one) < others or "1-0-" in one.ref
    ]
    store.entries.put_many([shot_by(one, 0.0) for one in new], encoder.model_key)

    found = examined(make_library(store=store), photos=4)

    assert [len(one.neighbours_m) for one in found.questions if one.lat < 48.005] == [others] * 4


def test_copies_of_a_photo_do_not_testify_for_it(
    fill: Callable[..., list[int]], make_library: Callable[..., Library], store: PostgresStore, encoder: Encoder
) -> None:
    fill(places=3, views=1)
    [again] = [one for one in entries(encoder.dimension, places=3, views=1) if one.ref == "1-0-0"]
    path = "https://photos.example/again.jpg"
    store.entries.put_many([replace(again, ref="again", path=path, spellings=(path,))], encoder.model_key)

    found = examined(make_library(store=store))

    assert found.photos == 4
    assert not any(away <= LEFT_OUT_M for one in found.questions for away in one.neighbours_m)


def test_who_has_only_copies_at_its_place_is_alone_there(
    make_library: Callable[..., Library], store: PostgresStore, encoder: Encoder, told: dict[str, list[Case]]
) -> None:
    one, another, elsewhere = entries(encoder.dimension, places=2, views=2)[:3]
    assert one.vector is not None
    assert another.vector is not None
    noisy = unit_rows((one.vector + 0.2 * another.vector)[None])[0]
    saved = replace(another, vector=noisy, picture_hash=b"." * 32)
    store.entries.put_many([replace(one, picture_hash=b"." * 32), saved, elsewhere], encoder.model_key)

    examined(make_library(store=store))

    assert [case.alone for case in told["cases"]] == [True] * 6


def test_what_is_no_evidence_is_not_asked_about(
    fill: Callable[..., list[int]], make_library: Callable[..., Library], store: PostgresStore
) -> None:
    gone, *others = fill(places=4, views=1)
    library = make_library(store=store)
    store.entries.remove_many([gone])
    nowhere = entries(library.encoder.dimension, places=5, views=1)[4]
    store.entries.put_many([replace(nowhere, given=None)], library.model_key)

    found = examined(library)

    assert found.trusted == 3
    assert {one.photo_id for one in found.questions} == set(others)


def test_a_smaller_sample_is_of_as_many_places_as_it_can_be(
    fill: Callable[..., list[int]], make_library: Callable[..., Library], store: PostgresStore
) -> None:
    fill(places=6, views=3)
    library = make_library(store=store)

    some, again = examined(library, photos=6), examined(library, photos=6)

    assert some.photos == 6
    # One place may lie in two cells of the grid that the sample is drawn by.
    assert len({round(one.lat, 2) for one in some.questions}) >= 5
    assert [one.photo_id for one in again.questions] == [one.photo_id for one in some.questions]


def test_a_rebuild_learns_what_stays_with_its_generation_and_comes_back_with_it(
    fill: Callable[..., list[int]], make_library: Callable[..., Library], store: PostgresStore, settings: Settings
) -> None:
    fill(places=5, views=1, seed=2)
    library = make_library(store=store, settings=settings)

    first = library.rebuilding.rebuild().generation
    assert library.learning.of(first) == TooFew(
        14,
        "trusted photos of 5 places are known, and 19 are needed to promise that at most 5.0% of the answers are "
        "wrong: 14 more",
    )
    assert (store.generations.exam(first) or {})["sample"] == 5

    ids = fill(places=PLACES, views=VIEWS)
    second = library.rebuilding.rebuild().generation
    learnt = library.learning.of(second)
    assert isinstance(learnt, Calibration)
    assert library.learning.calibration(second) == learnt
    assert learnt.least < 1.0
    held = Exam.from_json(store.generations.exam(second) or {})
    assert (held.generation, held.model_key) == (second, library.model_key)
    assert held.figures.overall.figures["false_answers_unseen"].value == 0.0

    answer = located(library, ids[0], second)
    assert answer.confidence_kind is ConfidenceKind.PROBABILITY
    assert answer.located
    assert answer.confidence is not None
    assert answer.confidence == round(learnt.covered * learnt.surest, 4) or 0.5 < answer.confidence < learnt.covered
    assert answer.radius_m is not None
    assert answer.radius_m >= LEAST_RADIUS_M
    assert list(answer.within) == ["25", "100", "1000"]
    assert 0.0 < answer.within["25"] <= answer.within["100"] <= answer.within["1000"] < 1.0
    plain = make_library(store=store, settings=settings.model_copy(update={"rungs": ("places", "geometry")}))
    assert located(plain, ids[0], second).confidence_kind is ConfidenceKind.UNCALIBRATED

    # Of a photo whose keypoints are not known yet what was learnt by keypoints says nothing.
    bare = entries(library.encoder.dimension, places=1, views=3)[2]
    [written] = store.entries.put_many([replace(bare, keypoints=None)], library.model_key)
    assert located(library, written.entry.photo_id, second).confidence_kind is ConfidenceKind.VOTE_SHARE

    store.generations.roll_back(first)
    assert located(library, ids[0], first).confidence_kind is ConfidenceKind.UNCALIBRATED
    assert isinstance(library.learning.of(first), TooFew)


def test_what_was_learnt_by_keypoints_is_not_used_without_them(
    fill: Callable[..., list[int]], make_library: Callable[..., Library], store: PostgresStore, settings: Settings
) -> None:
    fill(places=PLACES, views=VIEWS)
    generation = make_library(store=store).rebuilding.rebuild().generation

    changed = make_library(store=store, settings=settings.model_copy(update={"rungs": ("places", "calibration")}))

    assert changed.learning.of(generation) is None


@pytest.mark.parametrize("off", [{"rungs": ("places", "geometry")}, {"exam_photos": 0}])
def test_what_is_switched_off_is_not_learnt(
    fill: Callable[..., list[int]],
    make_library: Callable[..., Library],
    store: PostgresStore,
    settings: Settings,
    off: dict[str, Any],
) -> None:
    fill(places=5, views=1)
    library = make_library(store=store, settings=settings.model_copy(update=off))

    generation = library.rebuilding.rebuild().generation

    assert library.learning.of(generation) is None
    assert store.generations.learnt(generation) is None


def test_without_geometry_it_learns_from_similarity_alone(
    fill: Callable[..., list[int]], make_library: Callable[..., Library], store: PostgresStore, settings: Settings
) -> None:
    fill(places=6, views=2, keypoints=False)
    library = make_library(store=store, settings=settings.model_copy(update={"rungs": ("places", "calibration")}))

    found = examined(library)

    assert len(found.questions) == 24
    assert all(one.evidence is None or one.evidence.inliers is None for one in found.questions)


def test_what_was_not_compared_is_examined_by_its_votes_until_enough_is_learnt(
    fill: Callable[..., list[int]], make_library: Callable[..., Library], store: PostgresStore, settings: Settings
) -> None:
    """As `locate` answers it, which takes a calibration without a promise for none there."""
    ids = fill(places=14, views=6, keypoints=False)
    changes = {"rungs": ("places", "calibration"), "locate_min_share": 0.5, "locate_threshold": -1.0}
    library = make_library(store=store, settings=settings.model_copy(update=changes))
    generation = library.rebuilding.rebuild().generation

    found = examined(library)

    assert isinstance(found.learnt, Calibration)
    assert found.learnt.unproven is not None
    answered = {one.photo_id: one.located for one in found.questions if one.seen}
    assert answered == {photo_id: located(library, photo_id, generation).located for photo_id in ids}
    assert any(answered.values())


def test_what_was_learnt_is_read_once_and_not_for_every_question(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {7: {"missing": 3, "message": "three more"}, 8: {"calibration": {"names": ["colour"]}}}
    read: list[int] = []

    class Published:
        def learnt(self, number: int) -> Any:
            read.append(number)
            return kept.get(number)

    learning = Learning(cast(PublishedGenerations, Published()), geometry=True)

    assert [learning.of(7) for _ in range(3)] == [TooFew(3, "three more")] * 3
    assert learning.of(8) is None, "of another release"
    assert learning.of(None) is None
    assert [learning.of(7), learning.calibration(7)] == [TooFew(3, "three more"), None]
    assert read == [7, 8, 7]
    # A restored database gives out its numbers anew.
    kept[7] = {"missing": 2, "message": "two more"}
    monkeypatch.setattr("worker.library.learning.FRESH_S", 0.0)
    assert learning.of(7) == TooFew(2, "two more")


def test_a_generation_that_was_written_is_searched_as_a_whole(
    fill: Callable[..., list[int]], make_library: Callable[..., Library], store: PostgresStore, settings: Settings
) -> None:
    ids = fill(places=3, views=2)
    library = make_library(store=store)
    number = library.rebuilding.rebuild().generation
    fill(places=1, views=1, seed=9)

    folder = GenerationFolder(settings.generations_dir)
    written = folder.to_examine(number, model_key=library.model_key, sha256=None)

    query = unit_rows(np.ones((1, library.encoder.dimension)))[0]
    found = written.search(query, 10, exclude=np.array(ids[:1]))
    assert sorted(found.ids.tolist()) == sorted(ids[1:]), "what came since is not in it"
    assert (found.generation, found.seq) == (number, written.catch_up())
    with pytest.raises(ValueError, match="as a whole"):
        written.search(query, 10, among=Filter(trusted_only=True))


@pytest.fixture
def known(
    store: PostgresStore,
    make_library: Callable[..., Library],
    settings: Settings,
    photo_root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> list[Path]:
    """Photos with files of their own, in a generation that serves; commands find them by the environment."""
    folder = photo_root / settings.db_schema
    folder.mkdir()
    library = make_library(store=store)
    paths: list[Path] = []
    new = []
    for one in entries(library.encoder.dimension, places=PLACES, views=VIEWS):
        path = folder / f"{one.ref}.jpg"
        noise = np.random.default_rng(len(paths)).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        paths.append(path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        new.append(replace(one, path=str(path), spellings=(str(path),), content_sha256=sha256))
    store.entries.put_many(new, library.model_key)
    library.rebuilding.rebuild()
    for name, value in settings.as_env().items():
        monkeypatch.setenv(name, value)
    return paths


def test_the_exam_is_a_table_json_and_a_page(
    known: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in known[::2]:
        path.unlink()
    page = tmp_path / "exam.html"

    exam(html=page, as_json=True)
    said = json.loads(capsys.readouterr().out)

    held = Exam.from_json(said["exam"])
    assert (held.sample, held.generation, said["lacking"], said["worse"]) == (len(known), 1, {}, [])
    assert held.figures.overall.figures["right_of_given"].value == 1.0
    assert sorted(from_json(one).seen for one in said["questions"]) == [False] * len(known) + [True] * len(known)
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") >= 3
    assert 'class="absent">' in text, "of a file that is gone"

    monkeypatch.setenv("SIGHTLINE_LANG", "ru")
    exam(html=page)
    table = capsys.readouterr().out
    assert "верно, из данных ответов" in table
    assert "Проверка поколения 1" in page.read_text(encoding="utf-8")


def test_an_exam_that_is_clearly_worse_than_an_earlier_one_says_so(
    known: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "before.json"
    exam(as_json=True)
    kept.write_text(capsys.readouterr().out)

    exam(baseline=kept, as_json=True)
    same = json.loads(capsys.readouterr().out)
    monkeypatch.setenv("SIGHTLINE_LOCATE_THRESHOLD", "1.0")
    monkeypatch.setenv("SIGHTLINE_LOCATE_PAIRS", "1")
    monkeypatch.setenv("SIGHTLINE_LOCATE_NEIGHBOURS", "1")
    with pytest.raises(typer.Exit) as ended:
        exam(baseline=kept)

    assert same["worse"] == []
    assert same["differences"]["accuracy"]["value"] == 0.0
    assert ended.value.exit_code == UNWELL
    assert "clearly worse than the baseline" in capsys.readouterr().out


@pytest.mark.usefixtures("known")
def test_a_baseline_that_is_none_is_told(tmp_path: Path) -> None:
    kept = tmp_path / "before.json"
    for text in ("", "[]", "{}", '{"questions": [{"photo_id": 1}]}', '{"questions": 3}'):
        kept.write_text(text)
        with pytest.raises(Misused, match="is not what `sightline exam --json` has written"):
            exam(baseline=kept)
    with pytest.raises(Misused, match="No such file"):
        exam(baseline=tmp_path / "none.json")


def test_an_exam_of_too_few_photos_has_failed_and_says_why(
    fill: Callable[..., list[int]],
    make_library: Callable[..., Library],
    store: PostgresStore,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in settings.as_env().items():
        monkeypatch.setenv(name, value)
    library = make_library(store=store)

    with pytest.raises(Permanent, match="no generation is published yet") as refused:
        exam()
    fill(places=1, views=1)
    library.rebuilding.rebuild()
    with pytest.raises(typer.Exit) as ended:
        exam()

    assert refused.value.code is Code.NOT_READY
    assert ended.value.exit_code == UNWELL
    said = " ".join(capsys.readouterr().out.split())
    assert "figures that could not be computed" in said
    assert "trusted photos of 1 places are known" in said


def test_a_generation_whose_manifest_was_changed_is_neither_published_nor_examined(
    fill: Callable[..., list[int]],
    store: PostgresStore,
    make_library: Callable[..., Library],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As whoever can write to that folder changes it: it is whole in itself, and another one."""

    class Changed(GenerationFolder):
        def write(self, number: int, *facts: Any, **how: Any) -> Built:
            built = super().write(number, *facts, **how)
            with (self.path(number) / "manifest.json").open("a") as manifest:
                manifest.write("\n")
            return built

    fill(places=1, views=1)
    folder = Changed(settings.generations_dir)

    with pytest.raises(BadGeneration, match="not hold generation 1 as it was published"):
        make_library(store=store, generations=folder).rebuilding.rebuild()
    assert store.generations.newest() is None

    without = settings.model_copy(update={"exam_photos": 0})
    make_library(store=store, settings=without, generations=folder).rebuilding.rebuild()
    for name, value in settings.as_env().items():
        monkeypatch.setenv(name, value)
    for command in (exam, lambda: doctor.index(settings)):
        with pytest.raises(Permanent, match="not hold generation 2 as it was published"):
            command()


#: By which answers are lost: few neighbours are looked at, and hardly any is similar enough.
BLIND = {"locate_threshold": 1.0, "locate_pairs": 1, "locate_neighbours": 1}


@pytest.fixture
def blind(make_library: Callable[..., Library], store: PostgresStore, settings: Settings) -> Library:
    return make_library(store=store, settings=settings.model_copy(update=BLIND))


def test_a_generation_that_is_clearly_worse_than_the_baseline_does_not_serve(
    fill: Callable[..., list[int]],
    make_library: Callable[..., Library],
    blind: Library,
    store: PostgresStore,
    settings: Settings,
) -> None:
    fill(places=PLACES, views=VIEWS)
    library = make_library(store=store, settings=settings)
    model_key, folder = library.model_key, GenerationFolder(settings.generations_dir)

    first, again = library.rebuilding.rebuild(), library.rebuilding.rebuild()
    with pytest.raises(HeldBack, match="clearly worse than the baseline of generation 1: fewer right answers") as held:
        blind.rebuilding.rebuild()
    with pytest.raises(doctor._Unwell, match="generation 3 was held back: its exam is clearly worse"):
        doctor.exam(settings)

    assert (first.exam_passed, first.exam) == (
        True,
        "its exam is the first with this model, and the baseline from now on",
    )
    assert (again.exam_passed, again.exam) == (
        True,
        f"its exam is no worse than the baseline of generation 1, by {PLACES} places in common",
    )
    assert held.value.code is Code.EXAM_FAILED
    assert "`sightline rebuild --force`" in held.value.message
    assert number_serving(store, model_key) == again.generation == 2
    assert folder.numbers() == [1, 2]
    last = store.runs.last()
    assert last is not None
    assert (last.state, last.error) == ("failed", f"HeldBack: {held.value.message}")

    forced = blind.rebuilding.rebuild(force=True)
    with pytest.raises(doctor._Unwell, match="published all the same, as was asked for: its exam is clearly worse"):
        doctor.exam(settings)
    with pytest.raises(HeldBack, match="baseline of generation 1"):
        blind.rebuilding.rebuild()
    good = library.rebuilding.rebuild()

    assert (forced.generation, forced.exam_passed) == (4, False)
    assert good.exam_passed, "the baseline is not last night's"
    assert "no worse than the baseline of generation 1" in doctor.exam(settings)
    kept = {g.number: (g.examined, g.learnt_places, g.exam_passed) for g in store.generations.kept()}
    assert kept[2] == kept[6] == (PLACES * VIEWS, PLACES, True)
    assert kept[4][::2] == (PLACES * VIEWS, False)
    live = library.questions._live
    live.settle()
    assert live.generation == 6
    told = library.statistics.stats(rss_mb=1.0)
    assert (told.examined, told.learnt_places, told.exam_passed) == kept[6]


def test_a_night_that_was_held_back_is_over_and_what_must_leave_the_disk_leaves_it(
    fill: Callable[..., list[int]], make_library: Callable[..., Library], blind: Library, store: PostgresStore
) -> None:
    ids = fill(places=PLACES, views=VIEWS)
    make_library(store=store).rebuilding.rebuild()
    night = datetime(2026, 11, 28, 3, tzinfo=UTC)
    blind.rebuilding.nightly("night", night, claims=9, claim_s=0.0)

    ran = [blind.rebuilding.nightly("night", night + timedelta(days=1), claims=9, claim_s=0.0) for _ in range(2)]

    assert ran == [True, False]
    assert number_serving(store, blind.model_key) == 1
    store.entries.purge_many(ids[:1])
    reply = blind.rebuilding.rebuild()
    assert (reply.generation, reply.exam_passed) == (3, False)
    assert reply.exam is not None
    assert reply.exam.startswith("published all the same, as photos must leave the disk or the log: ")
    assert store.entries.counts(blind.model_key).purges_pending == 0


def test_a_library_that_cannot_be_examined_is_published(
    fill: Callable[..., list[int]], make_library: Callable[..., Library], store: PostgresStore, settings: Settings
) -> None:
    fill(places=5, views=1)
    library = make_library(store=store, settings=settings)
    unasked = make_library(store=store, settings=settings.model_copy(update={"exam_photos": 0}))

    first, second = library.rebuilding.rebuild(), library.rebuilding.rebuild()
    with pytest.raises(
        doctor._Unwell, match=r"could not be computed: right_of_given.* Add more photos of the same places"
    ) as failed:
        doctor.exam(settings)
    third = unasked.rebuilding.rebuild()

    for reply in (first, second):
        assert reply.exam_passed is False
        assert reply.exam is not None
        assert reply.exam.startswith("figures of its exam could not be computed: right_of_given")
    assert third.exam_passed is None
    assert third.exam == "it was not examined: SIGHTLINE_EXAM_PHOTOS or SIGHTLINE_RUNGS says so"
    assert store.generations.baseline(library.model_key) is None
    assert "`sightline exam` says why" in failed.value.message
    assert doctor.exam(settings) == third.exam
    assert [kept.exam_passed for kept in store.generations.kept()] == [None, False, False]


def test_what_an_owner_freezes_is_the_baseline(
    known: list[Path],
    blind: Library,
    store: PostgresStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(HeldBack):
        blind.rebuilding.rebuild()
    generation = blind.rebuilding.rebuild(force=True).generation
    for name, value in BLIND.items():
        monkeypatch.setenv(f"SIGHTLINE_{name.upper()}", str(value))

    exam(freeze=True, as_json=True)

    assert json.loads(capsys.readouterr().out)["frozen"] is True
    assert Baseline.from_json(store.generations.baseline(blind.model_key) or {}).generation == generation
    assert blind.rebuilding.rebuild().exam_passed
    kept = json.dumps(store.generations.baseline(blind.model_key))
    assert "48.0" not in kept
    assert ".jpg" not in kept

    generations()
    said = " ".join(capsys.readouterr().out.split())
    assert f"exam passed; its exam is no worse than the baseline of generation {generation}" in said
    assert "1: learnt from 60 photos of 30 places; exam passed; its exam is the first with this model" in said
    assert "exam failed; published all the same" in said


@pytest.fixture
def tuned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told again, in another form or language, is not computed again."""
    once = Again().once(runtime.tune_serving, lambda settings, *_, photos: (settings.model_dump_json(), photos))
    monkeypatch.setattr(runtime, "tune_serving", once)


#: Where the votes alone answer, and how many of them there are.
BY_VOTES = {"rungs": ("places",)}


@pytest.fixture
def voting(
    store: PostgresStore, make_library: Callable[..., Library], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Library:
    """Photos of places that look like nothing else, those of one place with a similarity of 0.8, in a generation that
    serves; commands find them by the environment."""
    library = make_library(store=store, settings=settings.model_copy(update=BY_VOTES))
    dimension, rng = library.encoder.dimension, np.random.default_rng(36)
    new = entries(dimension, places=PLACES, views=3, keypoints=False)
    looks = unit_rows(rng.normal(size=(PLACES, dimension)))
    apart = unit_rows(rng.normal(size=(len(new), dimension))) / 2
    vectors = unit_rows(np.repeat(looks, 3, axis=0) + apart)
    given = [replace(one, vector=vector) for one, vector in zip(new, vectors, strict=True)]
    store.entries.put_many(given, library.model_key)
    library.rebuilding.rebuild()
    for name, value in (settings.as_env() | {"SIGHTLINE_RUNGS": "places"}).items():
        monkeypatch.setenv(name, value)
    return library


@pytest.mark.usefixtures("tuned_once")
def test_a_better_threshold_is_proposed_with_what_to_set_and_nothing_is_changed(
    voting: Library,
    store: PostgresStore,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SIGHTLINE_LOCATE_THRESHOLD", "0.9")
    before = (store.generations.kept(), store.generations.newest())

    tune(as_json=True)
    said = json.loads(capsys.readouterr().out)
    tune()
    table = capsys.readouterr().out

    assert (said["proposed"], said["better"], said["worse"]) == (True, ["accuracy"], [])
    assert said["environment"] == {"SIGHTLINE_LOCATE_THRESHOLD": "0.75"}
    assert (said["photos"], said["places"]) == (PLACES * 3, {"first": PLACES // 2, "second": PLACES // 2})
    by = {(one["threshold"], one["policy"]): one for one in said["candidates"]
          if one["neighbours"] == 8 and one["rungs"] == ["places"]}  # fmt: skip
    assert by[0.9, None]["second"]["answered"] == 0
    assert by[0.75, None]["second"] == {"seen": 45, "answered": 45, "right": 45, "unseen": 45, "false": 0}
    assert said["differences"]["accuracy"]["least"] > 0.9
    assert "SIGHTLINE_LOCATE_THRESHOLD=0.75" in table
    assert "within 50 m of one photo" in table.replace("\N{NO-BREAK SPACE}", " ")
    assert max(map(len, table.splitlines())) <= 80
    assert (store.generations.kept(), store.generations.newest()) == before

    monkeypatch.setenv("SIGHTLINE_LANG", "ru")
    tune()
    assert "предлагается" in capsys.readouterr().out

    # What it says of the present settings is what the exam says, and what a caller gets.
    monkeypatch.setenv("SIGHTLINE_LOCATE_THRESHOLD", said["environment"]["SIGHTLINE_LOCATE_THRESHOLD"])
    tune(as_json=True)
    again = json.loads(capsys.readouterr().out)
    assert (again["proposed"], again["environment"], again["best"]) == (False, {}, again["present"])
    assert again["why"].startswith("nothing that was tried has more right answers")


@pytest.mark.usefixtures("tuned_once")
def test_the_present_settings_are_told_as_the_exam_tells_them(
    known: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    exam(as_json=True)
    held = json.loads(capsys.readouterr().out)
    tune(as_json=True)
    said = json.loads(capsys.readouterr().out)
    tune()
    table = " ".join(capsys.readouterr().out.split())

    [present] = [one for one in said["candidates"] if {**one, **said["present"]} == one]
    counted = {name: present["first"][name] + present["second"][name] for name in present["first"]}
    questions = [from_json(one) for one in held["questions"]]
    assert counted == {
        "seen": len(known),
        "answered": sum(one.located for one in questions if one.seen),
        "right": sum(one.located and one.right(50.0) for one in questions),
        "unseen": len(known),
        "false": sum(one.located for one in questions if not one.seen),
    }
    assert said["idle"] == ["threshold", "neighbours"]
    assert (said["proposed"], said["present"]["rungs"]) == (False, ["places", "geometry", "conflicts", "calibration"])
    assert "keep what you have" in table
    assert "neither threshold nor k changes any answer" in table


def test_too_few_places_to_tune_by_are_told(known: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        tune(photos=8)

    assert ended.value.exit_code == UNWELL
    said = " ".join(capsys.readouterr().out.split())
    assert "places were asked about, and 20 are needed to choose by one half of them and prove it by the other" in said
    assert f"You have {len(known)} photos with coordinates to trust: `--photos {len(known)}` asks" in said


def test_each_setting_that_is_tried_answers_as_the_service_does_by_it(
    voting: Library, make_library: Callable[..., Library], store: PostgresStore, settings: Settings
) -> None:
    tried = Tuner(
        settings.model_copy(update=BY_VOTES),
        voting.model_key,
        voting.encoder.dimension,
        entries=store.entries,
        keypoints=None,
        change_log=store.log,
    )
    live = voting.questions._live
    live.settle()
    chosen, _, _ = tried._examining.chosen(9)
    found, _ = tried._examining.ask(live, lambda *_: None, chosen, tried._answers)

    for candidate in tried._candidates:
        if candidate.calibrated:
            continue
        changes = {
            "locate_threshold": candidate.threshold,
            "locate_neighbours": candidate.neighbours,
            "rungs": tuple(candidate.rungs),
        }
        library = make_library(store=store, settings=settings.model_copy(update=changes))
        for seen, _ in found:
            one = seen[candidate].best
            policy = Policy.GUIDE if candidate.guide else None
            request = Locate(photo=Photo(photo_id=one.photo_id), policy=policy)
            answer = library.questions.locate(request).answer
            point = None if answer.point is None else (answer.point.lat, answer.point.lon)
            assert (one.located, one.point if one.located else None) == (answer.located, point), candidate
