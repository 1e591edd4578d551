"""Where a photo was taken, by keypoints of real files in a real Postgres: what is said, and what never testifies."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from PIL import Image, ImageDraw, ImageFont
from PIL.ExifTags import IFD, Base

from producer_client.contract import (
    Answer,
    Doubt,
    Locate,
    Near,
    NewPhoto,
    Photo,
    Policy,
    Provenance,
    Reason,
    RejectItem,
    Stored,
)
from tests.conftest import Scene
from worker.core.conflict import Contradiction
from worker.core.geo import distance_m
from worker.core.keypoints import Keypoints
from worker.core.types import Decoded
from worker.library import Library
from worker.library.locating import FORMER_REASONS
from worker.place.judging import UNCALIBRATED_RADIUS_M
from worker.place.strength import LEAST_INLIERS
from worker.settings import Settings
from worker.storage.store import PostgresStore
from worker.storage.vectors import Vectors

FAR_DEG = 0.5


def new(scene: Scene, provenance: Provenance = Provenance.SURVEYED, *, off: float = 0.0) -> NewPhoto:
    path = str(scene.path)
    return NewPhoto(path, Photo(path=path), scene.lat + off, scene.lon, provenance)


def add(library: Library, items: Sequence[NewPhoto]) -> list[int]:
    outcomes = library.photos.add_many(items).outcomes
    assert all(isinstance(outcome, Stored) for outcome in outcomes), outcomes
    return [outcome.photo_id for outcome in outcomes if isinstance(outcome, Stored)]


def ask(library: Library, path: Path, **options: Any) -> Answer:
    return library.questions.locate(Locate(photo=Photo(path=str(path)), **options)).answer


def places(scenes: list[Scene]) -> tuple[Scene, list[Scene], list[Scene]]:
    """A photo that is asked about, the others of its place, and another place."""
    here, there, *_ = sorted({scene.place for scene in scenes})
    asked, *others = (scene for scene in scenes if scene.place == here)
    return others[1], [asked, others[0], *others[2:]], [scene for scene in scenes if scene.place == there]


@pytest.fixture
def with_settings(make_library: Callable[..., Library], settings: Settings) -> Callable[..., Library]:
    return lambda **changed: make_library(settings=settings.model_copy(update=changed))


def test_an_answer_says_what_speaks_for_it_and_what_against(library: Library, scenes: list[Scene]) -> None:
    query, here, there = places(scenes)
    ids_here, ids_there = add(library, [new(s) for s in here]), add(library, [new(s) for s in there])

    reply = library.questions.locate(Locate(photo=Photo(path=str(query.path))))
    found = reply.answer

    assert found.located, found.message
    assert found.point is not None
    assert found.radius_m is not None
    assert found.radius_m >= UNCALIBRATED_RADIUS_M
    assert distance_m(found.point.lat, found.point.lon, query.lat, query.lon) <= found.radius_m
    assert found.confidence_kind == "uncalibrated"
    assert {hit.photo_id for hit in found.evidence} <= set(ids_here)
    assert (found.evidence[0].inliers or 0) >= LEAST_INLIERS
    assert found.contrary is not None
    assert found.contrary.photo_id in ids_there
    assert found.contrary.inliers is not None
    assert found.contrary.inliers < (found.evidence[0].inliers or 0)
    assert list(found.timings_ms) == ["photo", "search", "geometry"]
    assert 0 < sum(found.timings_ms.values()) <= reply.took_ms + 1
    json.dumps(reply.to_wire(), allow_nan=False)


def test_where_keypoints_cannot_change_the_answer_it_waits_for_none(
    make_library: Callable[..., Library], scenes: list[Scene]
) -> None:
    looked, done, go_on = threading.Event(), threading.Event(), threading.Event()

    def find(content: bytes, decoded: Decoded) -> Keypoints:
        looked.set()
        go_on.wait(5)
        done.set()
        return Keypoints.none()

    query, (other, *_), _ = places(scenes)
    library = make_library(find_keypoints=find)
    try:
        guided = ask(library, other.path, policy=Policy.GUIDE)
        assert not looked.is_set(), "the guide's rule asks for none"

        nobody = ask(library, query.path)
        assert not done.is_set()
    finally:
        go_on.set()

    assert (guided.reason, nobody.reason) == (Reason.NOTHING_SIMILAR, Reason.EMPTY_INDEX)
    assert done.wait(10), "they are found all the same: it may be added next"


def test_what_is_derived_never_testifies_not_after_a_rebuild_or_a_restart_either(
    make_library: Callable[..., Library], scenes: list[Scene]
) -> None:
    """An answer of ours that is stored as derived would otherwise launder itself into evidence."""
    query, (first, second, *others), _ = places(scenes)
    library = make_library()
    wrong = add(library, [new(first, Provenance.DERIVED, off=FAR_DEG), new(second, Provenance.DERIVED, off=FAR_DEG)])
    nobody: list[Answer] = [ask(library, query.path)]
    library.rebuilding.rebuild()
    nobody += [ask(library, query.path), ask(make_library(), query.path)]
    add(library, [new(scene) for scene in others])
    right = [ask(library, query.path)]
    library.rebuilding.rebuild()
    right += [ask(library, query.path), ask(make_library(), query.path)]

    assert {found.reason for found in nobody} == {Reason.NO_TRUSTED_EVIDENCE}
    for found in right:
        assert found.located, found.message
        heard = [*found.evidence, *([] if found.contrary is None else [found.contrary])]
        assert not {hit.photo_id for hit in heard} & set(wrong)
        assert all(hit.provenance is Provenance.SURVEYED for hit in heard)


def test_nothing_is_searched_by_a_picture_that_shows_no_place(
    library: Library, scenes: list[Scene], photo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, here, _ = places(scenes)
    add(library, [new(scene) for scene in here])
    blank, page = photo_root / "blank.jpg", photo_root / "page.png"
    Image.new("RGB", (640, 480), (120, 121, 119)).save(blank)
    written = Image.new("RGB", (900, 1200), "white")
    text = "terms and conditions of the street that is named below\n" * 40
    ImageDraw.Draw(written).text((60, 60), text, "black", ImageFont.load_default(24))
    written.save(page)
    (stored,) = add(library, [NewPhoto("page", Photo(path=str(page)))])
    searches: list[str] = []
    search = library.questions._live.search

    def counted(*args: Any, **options: Any) -> Any:
        searches.append("once")
        return search(*args, **options)

    monkeypatch.setattr(library.questions._live, "search", counted)

    said = [ask(library, blank), ask(library, page)]
    by_id = library.questions.locate(Locate(photo=Photo(photo_id=stored))).answer

    assert [found.reason for found in (*said, by_id)] == [Reason.NO_PLACE_IN_PICTURE] * 3
    assert searches == []
    assert ask(library, query.path).located
    assert searches


def test_copies_of_the_photo_itself_are_no_evidence(library: Library, scenes: list[Scene], photo_root: Path) -> None:
    query, here, _ = places(scenes)
    copy = photo_root / "smaller.jpg"
    Image.open(query.path).resize((400, 300)).save(copy, quality=80)
    add(library, [replace(new(query, off=FAR_DEG), photo=Photo(path=str(copy)))])

    alone = ask(library, query.path)
    add(library, [new(scene) for scene in here])
    among = ask(library, query.path)

    assert alone.reason is Reason.ONLY_OWN_COPIES
    assert [Path(hit.path or "").name for hit in alone.evidence] == ["smaller.jpg"]
    assert among.located, "the copy claims another place, and is not heard"


def test_the_guides_rule_believes_whoever_is_most_similar(library: Library, scenes: list[Scene]) -> None:
    query, (wrong, *_), _ = places(scenes)
    add(library, [new(wrong, Provenance.DERIVED, off=FAR_DEG)])

    found, ours = (ask(library, query.path, policy=policy, threshold=0.5) for policy in (Policy.GUIDE, None))
    strict = ask(library, query.path, policy=Policy.GUIDE, threshold=1.0)

    assert ours.reason is Reason.NO_TRUSTED_EVIDENCE
    assert found.located
    assert found.point is not None
    assert found.point.lat == pytest.approx(wrong.lat + FAR_DEG)
    assert (found.confidence_kind, found.radius_m) == ("cosine", None)
    assert found.confidence == found.evidence[0].similarity
    assert strict.reason is Reason.NOTHING_SIMILAR


@pytest.mark.parametrize("rungs", [("places",), ()])
@pytest.mark.parametrize("policy", [Policy.GUIDE, None])
def test_the_threshold_of_the_settings_holds_where_a_caller_names_none(
    with_settings: Callable[..., Library], scenes: list[Scene], rungs: tuple[str, ...], policy: Policy | None
) -> None:
    query, here, _ = places(scenes)
    lax, strict = (with_settings(rungs=rungs, locate_threshold=least) for least in (0.5, 1.0))
    add(lax, [new(scene) for scene in here])

    assert ask(lax, query.path, policy=policy).located
    assert ask(strict, query.path, policy=policy).reason is Reason.NOTHING_SIMILAR
    assert ask(strict, query.path, policy=policy, threshold=0.5).located


def test_each_rung_can_be_left_out(with_settings: Callable[..., Library], scenes: list[Scene]) -> None:
    query, here, there = places(scenes)
    whole, votes, former = with_settings(), with_settings(rungs=("places",)), with_settings(rungs=())
    add(whole, [new(scene) for scene in here + there])

    assert ask(whole, query.path).evidence[0].inliers is not None
    assert all(hit.inliers is None for hit in ask(votes, query.path).evidence)
    assert ask(votes, query.path).contrary is None, "all that are heard agree"
    assert (ask(votes, query.path).confidence_kind, ask(former, query.path).confidence_kind) == ("vote_share",) * 2
    assert list(ask(former, query.path).timings_ms) == ["photo", "search"]


def test_no_more_pictures_are_compared_than_the_budget_allows(
    with_settings: Callable[..., Library], scenes: list[Scene]
) -> None:
    query, here, there = places(scenes)
    library = with_settings(locate_pairs=1)
    add(library, [new(scene) for scene in here + there])

    found = ask(library, query.path)

    compared = [hit for hit in [*found.evidence, *([found.contrary] if found.contrary else [])] if hit.inliers]
    assert len(compared) == 1


def test_clients_of_the_release_before_are_answered_in_its_words(
    with_settings: Callable[..., Library], scenes: list[Scene], photo_root: Path
) -> None:
    query, here, _ = places(scenes)
    library = with_settings(key_prefix="", **TIMED)
    blank = photo_root / "grey.jpg"
    Image.new("RGB", (640, 480), (120, 121, 119)).save(blank)
    add(library, [new(scene) for scene in here[1:]])
    add(library, [new(taken(here[0], photo_root, 20))])

    located, nothing = ask(library, taken(query, photo_root, 50).path), ask(library, blank)

    for wire in (located.to_wire(), nothing.to_wire()):
        assert not {"contrary", "within", "timings_ms"} & wire.keys()
        assert not any({"inliers", "apart_s"} & hit.keys() for hit in wire["evidence"])
    assert located.located
    assert nothing.reason is Reason.NOTHING_SIMILAR
    assert (
        set(FORMER_REASONS.values()) | {Reason.EMPTY_INDEX, Reason.NO_TRUSTED_EVIDENCE}
        == {*Reason} - FORMER_REASONS.keys()
    ), "every later word has one of before"


# ------------------------------------------------------------------------------- what the camera took besides


#: What is off unless it is asked for.
TIMED = {"rungs": ("places", "geometry", "conflicts", "calibration", "time")}


@pytest.fixture
def timely(with_settings: Callable[..., Library]) -> Library:
    return with_settings(**TIMED)


def taken(scene: Scene, folder: Path, second: int, *, serial: str | None = "4711") -> Scene:
    """The same picture, by a camera that says when."""
    exif = Image.Exif()
    exif[Base.Make], exif[Base.Model] = "Maker", "One"
    detail = exif.get_ifd(IFD.Exif)
    detail[Base.DateTimeOriginal] = f"2024:05:01 12:{second // 60:02d}:{second % 60:02d}"
    if serial is not None:
        detail[Base.BodySerialNumber] = serial
    path = folder / f"{scene.path.stem}-{second}.jpg"
    with Image.open(scene.path) as picture:
        picture.save(path, quality=92, exif=exif)
    return dataclasses.replace(scene, path=path)


def apart(found: Answer) -> dict[int, float]:
    heard = [*found.evidence, *([] if found.contrary is None else [found.contrary])]
    return {hit.photo_id: hit.apart_s for hit in heard if hit.apart_s is not None}


@pytest.fixture
def folder(photo_root: Path, request: pytest.FixtureRequest) -> Path:
    made = photo_root / f"timed-{request.node.name.partition('[')[0]}"
    made.mkdir(exist_ok=True)
    return made


@pytest.mark.parametrize("serial", ["4711", None])
def test_photos_of_the_same_camera_minutes_apart_speak_for_a_place(
    timely: Library, scenes: list[Scene], folder: Path, serial: str | None
) -> None:
    query, here, there = places(scenes)
    minutes = [taken(scene, folder, 60 + 30 * n, serial=serial) for n, scene in enumerate(here[:2])]
    ids = add(timely, [new(scene) for scene in [*minutes, *here[2:]]])
    add(timely, [new(taken(there[0], folder, 400, serial=serial)), new(taken(there[1], folder, 50, serial="1"))])

    found = ask(timely, taken(query, folder, 50, serial=serial).path)
    by_id = add(timely, [new(taken(query, folder, 51, serial=serial), Provenance.DERIVED)])
    stored = timely.questions.locate(Locate(photo=Photo(photo_id=by_id[0]))).answer

    assert apart(found) == {ids[0]: 10.0, ids[1]: 40.0}
    assert found.located
    assert f"took photo {ids[0]} 10 s before or after" in found.message
    assert apart(stored) == {ids[0]: 9.0, ids[1]: 39.0}
    json.dumps(found.to_wire(), allow_nan=False)
    assert not {"camera", "serial"} & set(str(found.to_wire()).split("'"))


def test_a_place_that_the_camera_cannot_have_reached_is_no_answer(
    timely: Library, scenes: list[Scene], folder: Path
) -> None:
    query, here, there = places(scenes)
    add(timely, [new(scene) for scene in here])
    (elsewhere,) = add(timely, [new(taken(there[0], folder, 20))])
    add(timely, [new(taken(there[1], folder, 20, serial=None))])

    found = ask(timely, taken(query, folder, 50).path)
    by_phone = ask(timely, taken(query, folder, 51, serial=None).path)
    later = ask(timely, taken(query, folder, 400).path)

    assert found.reason is Reason.LOOK_ALIKE_PLACES
    assert apart(found) == {elsewhere: -30.0}
    assert by_phone.located, "another phone of the model"
    assert later.located


def test_within_a_circle_only_what_lies_in_it_speaks_by_time(
    timely: Library, scenes: list[Scene], folder: Path
) -> None:
    query, here, there = places(scenes)
    add(timely, [new(scene) for scene in here])
    add(timely, [new(taken(there[0], folder, 20))])

    assert ask(timely, taken(query, folder, 50).path, near=Near(query.lat, query.lon, 500.0)).located


def test_what_is_no_evidence_does_not_testify_by_time_not_after_a_rebuild_or_a_restart_either(
    make_library: Callable[..., Library], settings: Settings, store: PostgresStore, scenes: list[Scene], folder: Path
) -> None:
    """Each lies out of reach, and would take the answer away."""
    query, here, there = places(scenes)
    asked = taken(query, folder, 50)
    timed = settings.model_copy(update=TIMED)
    library = make_library(store=store, settings=timed)
    add(library, [new(scene) for scene in here])
    add(library, [new(taken(there[0], folder, 20), Provenance.DERIVED)])
    copy = taken(query, folder, 80)
    (doubted,) = add(library, [new(taken(there[1], folder, 40))])
    (claim,) = store.conflicts.claims_of([doubted])
    store.conflicts.suspend([Contradiction(claim, Doubt.SEEN_ELSEWHERE, [1])])
    library.conflicts.reject_many([RejectItem("1", doubted)])
    add(library, [new(copy, off=FAR_DEG)])
    said = [ask(library, asked.path)]
    library.rebuilding.rebuild()
    said += [ask(library, asked.path), ask(make_library(store=store, settings=timed), asked.path)]

    for found in said:
        assert found.located, found.message
        assert apart(found) == {}


def test_what_is_removed_or_purged_says_nothing_by_time_any_more(
    timely: Library, scenes: list[Scene], folder: Path
) -> None:
    query, here, there = places(scenes)
    add(timely, [new(scene) for scene in here])
    first, second = add(timely, [new(taken(there[n], folder, 20 + n)) for n in range(2)])
    asked = taken(query, folder, 50).path

    assert not ask(timely, asked).located
    timely.photos.remove_many([first])
    assert apart(ask(timely, asked)) == {second: -29.0}
    timely.photos.purge_many([second])
    assert ask(timely, asked).located


def test_nobody_asks_for_times_where_the_rung_is_off_or_the_photo_has_none(
    with_settings: Callable[..., Library], scenes: list[Scene], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    taken_near = Vectors.taken_near

    def counted(self: Vectors, *args: Any, **options: Any) -> list[int]:
        asked.append("once")
        return taken_near(self, *args, **options)

    monkeypatch.setattr(Vectors, "taken_near", counted)
    query, here, there = places(scenes)
    on, off = with_settings(**TIMED), with_settings()
    add(on, [new(scene) for scene in here])
    add(on, [new(taken(there[0], folder, 20))])
    timed = taken(query, folder, 50).path

    assert ask(off, timed).located
    assert ask(on, query.path).located
    assert asked == []
    assert "time" not in ask(off, timed).timings_ms
    assert not ask(on, timed).located
    assert asked == ["once"]
