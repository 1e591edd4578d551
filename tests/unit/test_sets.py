"""Other drawn libraries: what is known of them, what is asked, where it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import sets
from benchmarks.sets import SETS, Library, Stretch
from demo import scenes
from demo.places import MIXED, Name, style_of
from worker.core.geo import distance_m

STREET = Stretch("canal-row=60", "street", 2, 4, (-10, 10), (40, 60), (5, 12))
UNSEEN = Stretch(f"{MIXED}~3", "street", 0, 2, (-10, 10), (17, 25))
HALL = Stretch("glass-quarter^1=30", "corridor", 1, 1, (0, 10), (6, 8))
LIBRARY = Library((STREET, UNSEEN, HALL), right_m=25.0, picture=(80, 60))


def test_each_stretch_is_known_and_asked_about_as_it_says(tmp_path: Path) -> None:
    drawn = sets.draw(tmp_path, LIBRARY)

    assert Counter(photo.place for photo in drawn.known) == {STREET.name: 2, HALL.name: 1}
    assert Counter((photo.place, photo.seen) for photo in drawn.asked) == {
        (STREET.name, True): 4,
        (UNSEEN.name, False): 2,
        (HALL.name, True): 1,
    }
    paths = {photo.path for photo in drawn.known} | {photo.path for photo in drawn.asked}
    assert len(paths) == 10
    assert all(path.exists() for path in paths)
    assert not any(photo.wrong for photo in drawn.known)
    assert [bool(photo.spoiled) for photo in drawn.asked if photo.place == STREET.name] == [True, False, False, True]


def test_photos_lie_where_their_stretch_does(tmp_path: Path) -> None:
    style = style_of(STREET.place)

    drawn = sets.draw(tmp_path, Library((STREET,), right_m=25.0, picture=(80, 60)))

    for lat, lon in [(p.lat, p.lon) for p in drawn.known] + [(p.lat, p.lon) for p in drawn.asked]:
        assert 40 <= distance_m(style.lat, style.lon, lat, lon) <= (60**2 + 10**2) ** 0.5 + 0.2


def test_the_same_photos_are_drawn_by_any_number_of_processes(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    told: list[tuple[int, int]] = []

    first = sets.draw(one, LIBRARY)
    again = sets.draw(two, LIBRARY, processes=2, progress=lambda done, of: told.append((done, of)))

    assert told == [(1, 3), (2, 3), (3, 3)]
    assert [photo.path.name for photo in again.asked] == [photo.path.name for photo in first.asked]
    for path in one.iterdir():
        assert (two / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", SETS)
def test_every_library_has_places_that_were_seen_and_others(name: str) -> None:
    stretches = SETS[name].stretches

    assert len({stretch.name for stretch in stretches}) == len(stretches)
    assert {stretch.known > 0 for stretch in stretches} == {True, False}
    assert all(stretch.asked > 0 for stretch in stretches)
    # Of such a place the name is one: nothing is raised.
    assert all(Name.of(stretch.place) for stretch in stretches)


@pytest.mark.parametrize("name", ["floors", "apart"])
def test_these_have_enough_places_for_a_promise(name: str) -> None:
    assert sum(stretch.known > 0 for stretch in SETS[name].stretches) > 19


def test_a_few_places_are_too_few_for_a_promise() -> None:
    assert [stretch.known for stretch in SETS["small"].stretches] == [5] * 5 + [0] * 2


def test_what_nobody_took_of_the_corridor_no_known_photo_shows() -> None:
    seen = [stretch.along for stretch in SETS["corridor"].stretches if stretch.known]
    unseen = [stretch.along for stretch in SETS["corridor"].stretches if not stretch.known]

    # At 8.5 m a photo shows 6.9 m to both sides, turned by 6 degrees, and 8.5 m turned by 12.
    assert min(min(abs(a - b) for a in mine for b in its) for mine in unseen for its in seen) >= 6.9 + 8.5


def test_each_mixed_style_is_a_kind_of_its_own_and_always_the_same() -> None:
    found = [style_of(f"{MIXED}~{number}") for number in range(1, 35)]

    assert found == [style_of(f"{MIXED}~{number}") for number in range(1, 35)]
    assert len({replace(style, lat=0.0, lon=0.0, bearing_deg=0.0) for style in found}) == len(found)
    assert min(distance_m(a.lat, a.lon, b.lat, b.lon) for a, b in pairwise(found)) > 2_000


def test_a_camera_that_stands_higher_sees_otherwise() -> None:
    low = scenes.viewpoints(places=1, views=1)[0]
    high = scenes.Viewpoint(low.place, 1, low.lat, low.lon, low.light, low.along_m, low.back_m, low.yaw_deg, eye_m=9.0)

    assert scenes.render(low, size=(80, 60)).tobytes() != scenes.render(high, size=(80, 60)).tobytes()


def test_a_place_says_how_long_it_is() -> None:
    assert Name.of("glass-quarter^2=240") == Name("glass-quarter", 0, 2, 240)
    assert Name.of("canal-row~1=300") == Name("canal-row", 1, 0, 300)
    with pytest.raises(ValueError, match="no place is called"):
        Name.of("canal-row=0")
