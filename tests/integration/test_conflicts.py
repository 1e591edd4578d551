"""Positions that something contradicts: found, no evidence, listed with the reason, settled by people and by nobody
else."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from producer_client import contract
from producer_client.contract import (
    Code,
    Confirmed,
    Conflict,
    ConflictState,
    Doubt,
    Mistake,
    NewPhoto,
    Photo,
    PositionFrom,
    PositionIssue,
    Provenance,
    Refused,
    Rejected,
    RejectItem,
    Search,
    Stored,
)
from tests.conftest import Scene
from tests.entries import new_entry
from tests.integration.test_examining import drawn
from tests.integration.test_library import new, stored
from worker.core.keypoints import Keypoints
from worker.core.shot import Shot
from worker.core.vectors import unit_rows
from worker.library import Library, comparing, suspecting
from worker.place.geometry import Seen, seen_in_both
from worker.settings import Settings
from worker.storage.store import PostgresStore

HERE, THERE = (55.70, 13.19), (48.85, 2.35)
YEAR_NS = 365 * 86_400 * 10**9


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """No rebuild holds an exam, which would compare all keypoints once more."""
    return settings.model_copy(update={"exam_photos": 0})


@pytest.fixture
def root(photo_root: Path, tmp_path: Path) -> Path:
    """A folder that workers may read and that is this test's alone."""
    folder = photo_root / f"conflicts {tmp_path.name}"
    folder.mkdir()
    return folder


def silent(_phase: str, _done: int, _total: int) -> None: ...


def add(library: Library, path: Path, at: tuple[float, float], provenance: Provenance = Provenance.SURVEYED) -> Stored:
    (outcome,) = stored(library, [NewPhoto(str(path), Photo(path=str(path)), *at, provenance)])
    return outcome


def copies(scene: Scene, root: Path, number: int) -> list[Path]:
    """The same file under several names."""
    paths = [root / f"{n}.jpg" for n in range(number)]
    for path in paths:
        shutil.copy(scene.path, path)
    return paths


def listed(library: Library, **asked: Any) -> dict[int, Conflict]:
    return {one.photo_id: one for one in library.conflicts.known(contract.Conflicts(**asked)).conflicts}


def counts(library: Library, photo_id: int) -> tuple[Provenance | None, PositionIssue | None]:
    """What everybody is told of its position."""
    hits = library.questions.search(Search(vector=_any_vector(library), threshold=-1.0, top_k=1000)).hits
    hit = next(hit for hit in hits if hit.photo_id == photo_id)
    return hit.provenance, hit.position_issue


def _any_vector(library: Library) -> list[float]:
    return [1.0] + [0.0] * (library.encoder.dimension - 1)


def trusted_ids(library: Library) -> set[int]:
    look = Search(vector=_any_vector(library), threshold=-1.0, top_k=1000, trusted_only=True)
    return {hit.photo_id for hit in library.questions.search(look).hits}


SUSPENDED = (Provenance.FALLBACK, PositionIssue.SUSPENDED)


@pytest.fixture
def pair(library: Library, scenes: list[Scene], root: Path) -> tuple[int, int]:
    """Two uploads of one file that lie in different places, found by the nightly look."""
    one, other = copies(scenes[0], root, 2)
    ids = add(library, one, HERE).photo_id, add(library, other, THERE).photo_id
    assert library.suspecting.look(silent) == 2
    return ids


def test_clients_of_the_release_before_are_told_no_word_that_they_do_not_know(
    pair: tuple[int, int], make_library: Callable[..., Library], store: PostgresStore, settings: Settings, root: Path
) -> None:
    former = make_library(store=store, settings=settings.model_copy(update={"key_prefix": ""}))

    assert counts(former, pair[0]) == (Provenance.FALLBACK, None)
    again = add(former, root / "0.jpg", HERE)
    assert (again.provenance, again.position_issue) == (Provenance.FALLBACK, None)


def test_of_one_file_in_two_places_neither_is_believed_until_a_person_says_which(
    library: Library, pair: tuple[int, int]
) -> None:
    right, wrong = pair
    found = listed(library)
    before = {photo_id: counts(library, photo_id) for photo_id in pair}
    (confirmed,) = library.conflicts.confirm_many([right]).outcomes
    (rejected,) = library.conflicts.reject_many([RejectItem("a", wrong)]).outcomes

    assert found.keys() == set(pair)
    one = found[right]
    assert (one.doubt, one.conflict_state, one.photo_ids) == (Doubt.SAME_CONTENT, ConflictState.OPEN, [wrong])
    assert (one.lat, one.lon) == HERE
    assert one.point is not None
    assert (one.point.lat, one.point.lon) == pytest.approx(THERE)
    assert one.distance_m == pytest.approx(1_060_000, rel=0.05)
    assert before == dict.fromkeys(pair, SUSPENDED)
    assert isinstance(confirmed, Confirmed)
    assert (confirmed.provenance, confirmed.position_issue) == (Provenance.SURVEYED, None)
    assert isinstance(rejected, Rejected)
    assert (rejected.ref, rejected.provenance, rejected.position_issue) == ("a", *SUSPENDED)
    assert rejected.seq > confirmed.seq > 0
    assert (counts(library, right), counts(library, wrong)) == ((Provenance.SURVEYED, None), SUSPENDED)
    assert listed(library) == {}
    assert {i: one.conflict_state.value for i, one in listed(library, conflict_state=None).items()} == {
        right: "confirmed",
        wrong: "rejected",
    }


def test_the_minority_is_suspended_and_not_those_whom_it_contradicts(
    library: Library, scenes: list[Scene], root: Path
) -> None:
    paths = copies(scenes[0], root, 4)
    right = [add(library, path, (HERE[0] + n * 1e-4, HERE[1])).photo_id for n, path in enumerate(paths[:3])]
    wrong = add(library, paths[3], (-HERE[0], HERE[1])).photo_id
    same_name = add(library, scenes[7].path, (10.0, 10.0)).photo_id

    assert library.suspecting.look(silent) == 1
    (found,) = listed(library).values()
    assert (found.photo_id, set(found.photo_ids), found.mistake) == (wrong, set(right), Mistake.LAT_SIGN)
    assert trusted_ids(library) == {*right, same_name}


def test_what_is_confirmed_is_asked_again_only_when_its_position_or_its_content_changes(
    library: Library, pair: tuple[int, int], scenes: list[Scene], root: Path
) -> None:
    right, wrong = pair
    library.conflicts.confirm_many([right])
    again = library.suspecting.look(silent)
    still = listed(library, conflict_state=None)[right].conflict_state
    moved = add(library, root / "0.jpg", (10.0, 20.0), Provenance.CONFIRMED)

    library.suspecting.look(silent)

    assert (again, still) == (0, ConflictState.CONFIRMED)
    assert moved.photo_id == right
    assert listed(library).keys() == {wrong}, "a person has vouched for the other one"
    add(library, root / "1.jpg", (30.0, 40.0), Provenance.CONFIRMED)
    library.suspecting.look(silent)
    assert listed(library).keys() == set(pair)
    shutil.copy(scenes[9].path, root / "1.jpg")
    stored(library, [NewPhoto("b", Photo(path=str(root / "1.jpg")))])
    assert counts(library, wrong) == (Provenance.CONFIRMED, None), "what was found was found of another content"


def test_a_position_that_was_rejected_comes_back_as_evidence_by_no_way(
    library: Library, make_library: Callable[..., Library], pair: tuple[int, int], root: Path, scenes: list[Scene]
) -> None:
    _, wrong = pair
    path = root / "1.jpg"
    library.conflicts.reject_many([RejectItem("a", wrong)])

    def same_place_again(**given: Any) -> None:
        (outcome,) = stored(library, [NewPhoto("b", Photo(path=str(path)), **given)])
        assert (outcome.photo_id, outcome.provenance, outcome.position_issue) == (wrong, *SUSPENDED)

    same_place_again(lat=THERE[0], lon=THERE[1], provenance=Provenance.CONFIRMED)
    same_place_again()
    library.photos.remove_many([wrong])
    assert listed(library, conflict_state=None).keys() == {pair[0]}
    same_place_again(lat=THERE[0], lon=THERE[1], provenance=Provenance.SURVEYED)
    shutil.copy(scenes[11].path, path)
    same_place_again(lat=THERE[0], lon=THERE[1], provenance=Provenance.SURVEYED)
    library.rebuilding.rebuild()
    restarted = make_library()

    assert counts(restarted, wrong) == SUSPENDED
    assert wrong not in trusted_ids(restarted)
    moved = add(library, path, HERE)
    assert (moved.provenance, moved.position_issue) == (Provenance.SURVEYED, None)
    assert wrong in trusted_ids(restarted)


@pytest.mark.parametrize("write_rows", [False, True])
def test_a_right_position_takes_the_place_of_the_rejected_one(
    make_library: Callable[..., Library],
    store: PostgresStore,
    settings: Settings,
    scenes: list[Scene],
    root: Path,
    write_rows: bool,
) -> None:
    settings = settings.model_copy(update={"write_rows": write_rows})
    store = PostgresStore(settings)
    library = make_library(settings=settings, store=store)
    one, other = copies(scenes[0], root, 2)
    right, wrong = add(library, one, HERE).photo_id, add(library, other, THERE).photo_id
    library.suspecting.look(silent)
    put = RejectItem("a", wrong, *HERE)

    (outcome,) = library.conflicts.reject_many([put]).outcomes
    (twice,) = library.conflicts.reject_many([put]).outcomes
    library.rebuilding.rebuild()

    assert isinstance(outcome, Rejected)
    assert (outcome.lat, outcome.lon, outcome.provenance, outcome.position_issue) == (*HERE, Provenance.CONFIRMED, None)
    assert isinstance(twice, Rejected), "a message that is handed out again finds its work done"
    entry = store.entries.get([wrong])[wrong]
    assert (entry.lat, entry.lon, entry.provenance, entry.position_from, entry.suspended) == (
        *HERE,
        Provenance.CONFIRMED,
        PositionFrom.GIVEN,
        False,
    )
    row = store.rows.get([wrong])[wrong]
    assert (row.lat, row.lon) == (HERE if write_rows else THERE)
    assert listed(library) == {}, "what contradicted the other one is gone"
    assert trusted_ids(library) == {right, wrong}
    back = add(library, other, THERE, Provenance.CONFIRMED)
    assert (back.provenance, back.position_issue) == SUSPENDED, "that it is not there has been said"
    store.close()


def test_each_of_a_batch_is_told_what_became_of_it(
    library: Library, pair: tuple[int, int], scenes: list[Scene]
) -> None:
    right, wrong = pair
    calm = add(library, scenes[5].path, HERE).photo_id
    read = contract.Reject.from_wire(
        {
            "v": 1,
            "photos": [
                {"ref": "bad", "photo_id": "x"},
                {"ref": "half", "photo_id": wrong, "lat": 1.0},
                {"ref": "far", "photo_id": wrong, "lat": 91.0, "lon": 0.0},
                {"ref": "unknown", "photo_id": 10**12},
                {"ref": "calm", "photo_id": calm},
                {"ref": "same", "photo_id": right, "lat": HERE[0], "lon": HERE[1]},
                {"ref": "good", "photo_id": wrong},
                {"ref": "twice", "photo_id": wrong, "lat": 1.0, "lon": 2.0},
            ],
        }
    ).read_items()

    outcomes = library.conflicts.reject_many(read).outcomes
    confirmed = library.conflicts.confirm_many([10**12, calm, wrong, wrong]).outcomes

    assert {one.ref: one.code for one in outcomes if isinstance(one, Refused)} == {
        "bad": Code.BAD_REQUEST,
        "half": Code.BAD_COORDINATES,
        "far": Code.BAD_COORDINATES,
        "unknown": Code.UNKNOWN_PHOTO,
        "calm": Code.NO_CONFLICT,
        "same": Code.BAD_COORDINATES,
        "twice": Code.BAD_REQUEST,
    }
    assert [one.ref for one in outcomes] == ["bad", "half", "far", "unknown", "calm", "same", "good", "twice"]
    assert [one.code if isinstance(one, Refused) else one.photo_id for one in confirmed] == [
        Code.UNKNOWN_PHOTO,
        Code.NO_CONFLICT,
        wrong,
    ], "also what was rejected before"
    assert counts(library, wrong) == (Provenance.SURVEYED, None)


def test_a_page_says_where_the_next_begins(library: Library, pair: tuple[int, int]) -> None:
    first = library.conflicts.known(contract.Conflicts(limit=1))
    last = library.conflicts.known(contract.Conflicts(limit=1, after_id=first.after_id or 0))
    of_one = library.conflicts.known(contract.Conflicts(photo_ids=[pair[1]]))

    assert [one.photo_id for one in (*first.conflicts, *last.conflicts)] == sorted(pair)
    assert (first.open, first.after_id, last.after_id) == (2, min(pair), None)
    assert [one.photo_id for one in of_one.conflicts] == [pair[1]]


def test_every_process_hears_of_it_at_once(
    library: Library, make_library: Callable[..., Library], scenes: list[Scene], root: Path
) -> None:
    one, other = copies(scenes[0], root, 2)
    ids = [add(library, one, HERE).photo_id, add(library, other, THERE).photo_id]
    witness = make_library()
    before = trusted_ids(witness)

    library.suspecting.look(silent)
    suspended = trusted_ids(witness)
    library.conflicts.confirm_many(ids[:1])

    assert (before, suspended, trusted_ids(witness)) == (set(ids), set(), {ids[0]})


def test_a_purge_leaves_no_trace_of_a_photo_in_what_contradicts_others(
    library: Library, store: PostgresStore, settings: Settings, pair: tuple[int, int]
) -> None:
    one, other = pair
    library.photos.purge_many([other])

    with store.database.engine.connect() as connection:
        rows = connection.execute(text(f'SELECT * FROM "{settings.db_schema}".conflicts')).all()
    assert [(row.photo_id, row.other_ids, row.other_lat, row.other_lon) for row in rows] == [(one, [], None, None)]
    library.suspecting.look(silent)
    assert counts(library, one) == (Provenance.SURVEYED, None), "nothing contradicts it any more"


def test_beside_the_date_line_a_place_is_one_place(library: Library, scenes: list[Scene], root: Path) -> None:
    west, east, far = copies(scenes[0], root, 3)
    add(library, west, (-16.8, -179.9999))
    add(library, east, (-16.8, 179.9999))

    assert library.suspecting.look(silent) == 0
    wrong = add(library, far, (-16.8, 179.0)).photo_id
    assert library.suspecting.look(silent) == 1
    found = listed(library)[wrong]
    assert found.point is not None
    assert abs(found.point.lon) == pytest.approx(180.0, abs=1e-3)
    assert found.distance_m == pytest.approx(106_400, rel=0.01)


def test_at_a_pole_every_longitude_is_one_place(library: Library, scenes: list[Scene], root: Path) -> None:
    for n, path in enumerate(copies(scenes[0], root, 3)):
        add(library, path, (89.9999, n * 120.0 - 180.0))

    assert library.suspecting.look(silent) == 0


def test_the_same_meridian_by_its_other_name_is_no_new_position(
    library: Library, scenes: list[Scene], root: Path
) -> None:
    one, other = copies(scenes[0], root, 2)
    add(library, one, HERE)
    wrong = add(library, other, (-16.8, 180.0)).photo_id
    library.suspecting.look(silent)
    library.conflicts.reject_many([RejectItem("a", wrong)])

    add(library, other, (-16.8, -180.0))

    assert counts(library, wrong) == SUSPENDED


# ----------------------------------------------------------------------------------------------- many at one point


def anything(rows: int, dimension: int, seed: int) -> Any:
    return unit_rows(np.random.default_rng(seed).normal(size=(rows, dimension)))


def put(
    library: Library, store: PostgresStore, vectors: Any, points: Sequence[tuple[float, float]], years: float
) -> list[int]:
    """Photos with these vectors and positions, whose files are of so many years."""
    new = [
        new_entry(f"{len(vectors)}-{n}", vector, given=(*point, Provenance.SURVEYED))
        for n, (vector, point) in enumerate(zip(vectors, points, strict=True))
    ]
    written = store.entries.put_many(new, library.encoder.model_key)
    ids = [one.entry.photo_id for one in written]
    schema = store.database.schema
    with store.database.engine.begin() as connection:
        for n, photo_id in enumerate(ids):
            connection.execute(
                text(f'UPDATE "{schema}".entries SET file_mtime_ns = :at WHERE photo_id = :id'),
                {"at": int(years * YEAR_NS * n / len(ids)), "id": photo_id},
            )
    return ids


@pytest.mark.parametrize(("years", "unlike", "found"), [(3.0, True, 24), (0.01, True, 0), (3.0, False, 0)])
def test_many_unlike_pictures_of_many_years_at_exactly_one_point_are_no_evidence(
    library: Library, store: PostgresStore, years: float, unlike: bool, found: int
) -> None:
    dimension = library.encoder.dimension
    pictures = anything(24, dimension, 1)
    if not unlike:
        pictures = unit_rows(pictures + 3 * anything(1, dimension, 2))
    others = put(library, store, anything(30, dimension, 3), [(40.0 + n, 5.0) for n in range(30)], 3.0)
    here = put(library, store, pictures, [HERE] * 24, years)

    assert library.suspecting.look(silent) == found
    conflicts = listed(library)
    assert conflicts.keys() == (set(here) if found else set())
    assert {one.doubt for one in conflicts.values()} == ({Doubt.SHARED_POINT} if found else set())
    assert trusted_ids(library) >= set(others)
    if found:
        library.conflicts.confirm_many(here[:1])
        assert library.suspecting.look(silent) == 0
        assert listed(library).keys() == set(here[1:])
        assert here[0] in trusted_ids(library)


# --------------------------------------------------------------------------------------------- what neighbours say


@pytest.fixture
def street(library: Library, scenes: list[Scene]) -> dict[Path, int]:
    """All photos of all places, one of them with the sign of its latitude turned; ids by path."""
    wrong = scenes[2]
    items = [new(scene) if scene != wrong else new(scene, lat=-scene.lat) for scene in scenes]
    return {Path(one.ref): one.photo_id for one in stored(library, items)}


def test_a_photo_whose_neighbours_lie_elsewhere_is_found_at_a_rebuild_and_they_are_left_in_peace(
    library: Library, make_library: Callable[..., Library], scenes: list[Scene], street: dict[Path, int]
) -> None:
    wrong, right = street[scenes[2].path], {street[scene.path] for scene in scenes if scene.place == scenes[2].place}

    reply = library.rebuilding.rebuild()
    (found,) = listed(library).values()
    again = library.rebuilding.rebuild()
    trusted = trusted_ids(make_library())

    assert (reply.suspended, again.suspended) == (1, 0)
    assert (found.photo_id, found.doubt, found.mistake) == (wrong, Doubt.SEEN_ELSEWHERE, Mistake.LAT_SIGN)
    assert set(found.photo_ids) <= right - {wrong}
    assert len(found.photo_ids) >= 2
    assert found.point is not None
    assert (found.point.lat, found.point.lon) == pytest.approx((scenes[2].lat, scenes[2].lon), abs=1e-3)
    assert trusted == set(street.values()) - {wrong}
    library.conflicts.confirm_many([wrong])
    assert library.rebuilding.rebuild().suspended == 0
    assert trusted_ids(library) == set(street.values())


@pytest.mark.usefixtures("street")
def test_what_looks_like_a_photo_is_compared_several_at_a_time(
    make_library: Callable[..., Library], store: PostgresStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: set[int] = set()
    several = threading.Event()

    def compared(query: Keypoints, other: Keypoints) -> Seen:
        begun.add(threading.get_ident())
        if len(begun) > 1:
            several.set()
        assert several.wait(10)
        return seen_in_both(query, other)

    monkeypatch.setattr(comparing, "seen_in_both", compared)

    found = make_library(store=store, settings=settings.model_copy(update={"model_threads": 2})).suspecting.look(silent)

    assert (found, len(begun)) == (1, 2)


def test_what_contradicted_a_photo_and_is_gone_is_withdrawn(
    library: Library, scenes: list[Scene], street: dict[Path, int]
) -> None:
    wrong = street[scenes[2].path]
    library.rebuilding.rebuild()
    before = set(listed(library))

    library.photos.remove_many(
        [street[scene.path] for scene in scenes if scene.place == scenes[2].place and scene != scenes[2]]
    )
    library.suspecting.look(silent)

    assert (before, set(listed(library))) == ({wrong}, set())
    assert wrong in trusted_ids(library)


def test_a_night_that_is_too_short_goes_on_where_the_last_one_ended(
    library: Library,
    store: PostgresStore,
    settings: Settings,
    street: dict[Path, int],
    scenes: list[Scene],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    off = settings.model_copy(update={"rungs": tuple(rung for rung in settings.rungs if rung != "conflicts")})
    monkeypatch.setattr(library.rebuilding, "_settings", off)
    monkeypatch.setattr(suspecting, "PAGE", 1)
    ids = sorted(street.values())
    at = ids.index(street[scenes[2].path])

    switched_off = library.rebuilding.rebuild().suspended
    nights = [library.suspecting.look(silent, 0.0) for _ in range(at + 1)]

    assert switched_off == 0
    assert nights == [0] * at + [1]
    assert store.conflicts.examined_up_to(library.encoder.model_key) == ids[at]


# --------------------------------------------------------------------------------------------------------- bursts


@dataclass(frozen=True)
class Frame:
    """A photo of the scene. view: another one shows it from elsewhere. taken_s: by the one camera of all bursts, None
    where nobody knows. away: how far its vector is from the one that is looked at. copy: of the picture of so many."""

    at: tuple[float, float]
    view: int
    taken_s: float | None = None
    away: float = 0.1
    copy: bool = False
    provenance: Provenance = Provenance.SURVEYED


def burst(at: tuple[float, float], frames: int, *, view: int, start_s: float = 0.0, **how: Any) -> list[Frame]:
    """Frames of one camera within seconds."""
    return [Frame(at, view + n, start_s + 0.2 * n, **how) for n in range(frames)]


def shoot(library: Library, store: PostgresStore, frames: Sequence[Frame]) -> list[int]:
    dimension = library.encoder.dimension
    scene, rng = anything(1, dimension, 5)[0], np.random.default_rng(6)
    new = []
    for n, frame in enumerate(frames):
        aside = unit_rows(rng.normal(size=dimension)[None])[0]
        name, copied = f"frame {n}", 0 if frame.copy else n + 1
        new.append(
            new_entry(
                name,
                unit_rows((scene + (0.01 if frame.copy else frame.away) * aside)[None])[0],
                path=f"https://photos.example/{name}.jpg",
                given=(*frame.at, frame.provenance),
                picture_hash=np.random.default_rng([7, copied]).bytes(32),
                shot=None if frame.taken_s is None else Shot(b"of one phone", frame.taken_s),
                keypoints=drawn(0, frame.view, 8),
            )
        )
    ids = {written.ref: written.entry.photo_id for written in store.entries.put_many(new, library.encoder.model_key)}
    return [ids[one.ref] for one in new]


def test_a_burst_with_one_wrong_position_vouches_for_none_of_its_frames(library: Library, store: PostgresStore) -> None:
    wrong = burst(THERE, 10, view=0)
    ids = shoot(library, store, [*wrong, *(Frame(HERE, 20 + n) for n in range(3))])

    assert library.suspecting.look(silent) == 10
    assert listed(library).keys() == set(ids[:10])
    assert trusted_ids(library) == set(ids[10:])


def test_ten_frames_of_one_burst_are_not_ten_witnesses_against_a_photo(library: Library, store: PostgresStore) -> None:
    shoot(library, store, [Frame(HERE, 20), *burst(THERE, 10, view=0)])

    assert library.suspecting.look(silent) == 0


def test_two_bursts_of_another_place_are_two_witnesses_against_a_photo(library: Library, store: PostgresStore) -> None:
    ids = shoot(library, store, [Frame(HERE, 20), *burst(THERE, 5, view=0), *burst(THERE, 5, view=10, start_s=600.0)])

    assert library.suspecting.look(silent) == 1
    assert listed(library).keys() == {ids[0]}


def test_a_frame_that_lies_elsewhere_than_its_burst_is_found(library: Library, store: PostgresStore) -> None:
    frames = burst(THERE, 3, view=0)
    frames[0] = replace(frames[0], at=HERE)
    ids = shoot(library, store, [*frames, Frame(THERE, 20)])

    assert library.suspecting.look(silent) == 1
    assert listed(library).keys() == {ids[0]}


def test_of_a_picture_whose_copies_are_a_burst_the_burst_has_one_voice(library: Library, store: PostgresStore) -> None:
    ids = shoot(library, store, [Frame(HERE, 0, copy=True), *burst(THERE, 10, view=0, copy=True)])

    assert library.suspecting.look(silent) == 11
    assert {one.doubt for one in listed(library).values()} == {Doubt.SAME_PICTURE}
    assert listed(library).keys() == set(ids)


def test_of_a_burst_of_copies_the_frame_that_a_person_has_confirmed_is_heard(
    library: Library, store: PostgresStore
) -> None:
    frames = burst(THERE, 3, view=0, copy=True)
    frames[2] = replace(frames[2], provenance=Provenance.CONFIRMED)
    ids = shoot(library, store, [Frame(HERE, 0, copy=True), *frames])

    assert library.suspecting.look(silent) == 1
    assert listed(library).keys() == {ids[0]}


def test_a_long_burst_hides_no_other_photo_of_its_place(library: Library, store: PostgresStore) -> None:
    """The two that lie elsewhere show the same, and are no clearer than the two that lie here."""
    ids = shoot(
        library,
        store,
        [
            *burst(HERE, 14, view=0, away=0.05),
            *(Frame(HERE, 20 + n, away=0.6) for n in range(2)),
            *(Frame(THERE, 30 + n, away=0.3) for n in range(2)),
        ],
    )

    library.suspecting.look(silent)

    assert not listed(library).keys() & set(ids[:14])
