"""Drawn photos among which it is easy to be wrong: what is seen, what is asked, whose positions are wrong."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.lookalikes import (
    BY_MODEL,
    ONE_WRONG_OF,
    PAUSE_S,
    SPOILERS,
    TIMED,
    UNTIMED,
    Drawn,
    Known,
    Size,
    draw,
    with_wrong_ones,
)
from worker.core.geo import distance_m
from worker.core.shot import NO_SHOT, Shot
from worker.encoder.shots import shot_of

SIZE = Size(styles=1, addresses=2, storeys=2, unseen_storeys=1, known=3, asked=1, picture=(120, 90))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lookalikes")


@pytest.fixture(scope="module")
def drawn(folder: Path) -> Drawn:
    return draw(folder, SIZE)


def test_what_is_asked_about_is_no_photo_of_the_library(drawn: Drawn) -> None:
    known, asked = {photo.path for photo in drawn.known}, {photo.path for photo in drawn.asked}

    assert not known & asked
    assert all(path.exists() for path in known | asked)
    assert Counter(photo.place for photo in drawn.known) == {"canal-row": 3, "glass-quarter^1": 3}


def test_all_views_of_what_nobody_has_seen_are_asked_about(drawn: Drawn) -> None:
    known = {photo.place for photo in drawn.known}

    assert all(asked.seen == (asked.place in known) for asked in drawn.asked)
    unseen = Counter((asked.place, asked.kind) for asked in drawn.asked if not asked.seen)
    assert unseen == {
        ("canal-row~1", "street"): 4,
        ("plane-boulevard", "street"): 4,
        ("glass-quarter^2", "storey"): 4,
    }


def test_the_same_photos_are_drawn_by_any_number_of_processes(folder: Path, drawn: Drawn, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    again = draw(tmp_path, SIZE, processes=2, progress=lambda done, of: told.append((done, of)))

    assert told == [(n, 5) for n in range(1, 6)]
    assert [photo.path.name for photo in again.asked] == [photo.path.name for photo in drawn.asked]
    for path in folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("how", SPOILERS)
def test_a_spoiled_photo_is_another_one(how: str) -> None:
    picture = Image.effect_noise((120, 90), 60).convert("RGB")

    spoiled = SPOILERS[how](picture, np.random.default_rng(0))

    assert (spoiled.width < 120) == (how == "crop")
    assert spoiled.resize(picture.size).tobytes() != picture.tobytes()


def test_one_of_fifty_is_far_from_where_it_was_taken() -> None:
    known = [Known(Path(f"{n}.jpg"), f"place {n % 5}", 30.0 + n % 5, 10.0 + 30 * (n % 5)) for n in range(200)]

    found = [with_wrong_ones(known, seed) for seed in range(4)]

    for some in found:
        assert [photo.path for photo in some] == [photo.path for photo in known]
        wrong = [(now, was) for now, was in zip(some, known, strict=True) if now.wrong]
        assert len(wrong) == 200 // ONE_WRONG_OF
        assert {now for now in some if not now.wrong} <= set(known)
        for now, was in wrong:
            assert abs(now.lat) <= 90
            assert distance_m(now.lat, now.lon, was.lat, was.lon) > 10_000
    ways = Counter(photo.wrong for some in found for photo in some)
    assert ways.keys() == {"", "sign flipped", "changed over", "another's position", "in the sea"}
    assert len({tuple(photo.path for photo in some if photo.wrong) for some in found}) == 4


def shot(path: Path) -> Shot:
    with Image.open(path) as image:
        return shot_of(image)


def test_known_photos_are_of_trips_and_half_of_the_questions_too(folder: Path, drawn: Drawn) -> None:
    known = {name: [shot(p.path) for p in drawn.known if p.place == name] for name in {p.place for p in drawn.known}}
    street, storey = known["canal-row"], known["glass-quarter^1"]

    assert len({one.camera for one in street}) == len({one.camera for one in storey}) == 1
    assert street[0].camera != storey[0].camera
    for trip in (street, storey):
        times = [one.taken_s for one in trip]
        assert all(later - one >= PAUSE_S[0] for one, later in pairwise(times))
    assert {asked.timed for asked in drawn.asked} == {TIMED, BY_MODEL, UNTIMED}
    assert all((shot(asked.path) == NO_SHOT) == (asked.timed == UNTIMED) for asked in drawn.asked)
    # What nobody has seen was reached from a known place as fast as one can, by the same camera.
    for place, before, way_mps in (("canal-row~1", street, 12.0), ("glass-quarter^2", storey, 1.4)):
        taken = [shot(asked.path) for asked in drawn.asked if asked.place == place and asked.timed != UNTIMED]
        assert {one.camera for one in taken} == {before[0].camera}
        assert min(one.taken_s for one in taken) - before[-1].taken_s > 200.0 / way_mps
    far = [shot(asked.path) for asked in drawn.asked if asked.place == "plane-boulevard" and asked.timed != UNTIMED]
    assert {one.camera for one in far} == {storey[0].camera}, "of another phone of the same model"
