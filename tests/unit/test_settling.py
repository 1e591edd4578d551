"""What holds of a photo's position: what was read from a file goes with its content, what else was said stays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from producer_client.contract import Provenance
from worker.core.position import Known
from worker.core.types import NewEntry
from worker.storage.rows import NO_ROW, Said
from worker.storage.settling import FORGOTTEN, is_former_reading, settled

EXIF, DERIVED, SURVEYED = Provenance.EXIF_GPS, Provenance.DERIVED, Provenance.SURVEYED
#: What the old file said, and another place.
OLD: Known = (55.6761, 12.5683, EXIF)
ELSEWHERE = (1.0, 2.0)
#: What the row says of `OLD`, as it is compared.
OLD_POINT = "55.6761 12.5683 exif_gps"


def entry(position: Known | None, **more: Any) -> Any:
    """What is known of the photo of content "old", as its row of `entries`."""
    lat, lon, provenance = position or (None, None, None)
    facts = {"from_exif": False, "row_point": None, "file_point": None, "position_from": None, "position_error_m": None}
    return SimpleNamespace(content_sha256="old", lat=lat, lon=lon, provenance=provenance, **facts | more)


def says(position: Known | None) -> Said:
    """The photo's row of the backend's table."""
    return Said(position, "" if position is None else " ".join(map(str, position)), None, "no address")


def added(*, content: str, exif: tuple[float, float] | None = None, given: Known | None = None) -> NewEntry:
    path, vector = "/a.jpg", np.zeros(1, np.float32)
    return NewEntry("a", 1, path, (path,), content, vector, given, exif, address=None, metadata=None)


def position(values: dict[str, Any]) -> tuple[Any, ...]:
    return values["lat"], values["lon"], values["provenance"]


def test_the_point_of_a_row_is_told_as_these_tests_tell_it() -> None:
    assert says(OLD).point == OLD_POINT


# ------------------------------------------------------------------------------- rows that were made of a file


MADE_OF_FILE = entry(OLD, file_point=OLD_POINT)
PURGED = entry(None, file_point=FORGOTTEN)


@pytest.mark.parametrize("before", [MADE_OF_FILE, PURGED], ids=["known", "purged"])
@pytest.mark.parametrize("given", [None, (*ELSEWHERE, DERIVED)])
def test_a_row_that_was_made_of_the_old_file_says_nothing_of_the_new_one(before: Any, given: Known | None) -> None:
    values = settled(before, says(OLD), added(content="new", given=given), made_of_file=False)

    assert position(values) == (given or (None, None, None))
    assert values["file_point"] == OLD_POINT, "it still says what it said, whatever comes next"


@pytest.mark.parametrize("before", [MADE_OF_FILE, PURGED], ids=["known", "purged"])
def test_what_the_backend_has_put_there_since_is_its_own_word(before: Any) -> None:
    theirs = (*ELSEWHERE, SURVEYED)

    values = settled(before, says(theirs), added(content="new"), made_of_file=False)

    assert position(values) == theirs
    assert values["file_point"] is None


@pytest.mark.parametrize("before", [MADE_OF_FILE, PURGED], ids=["known", "purged"])
@pytest.mark.parametrize("row", [says(None), NO_ROW])
def test_a_row_that_says_nothing_any_more_was_made_of_no_file(before: Any, row: Said) -> None:
    assert not is_former_reading(before, row, added(content="new"))
    assert settled(before, row, added(content="new"), made_of_file=False)["file_point"] is None


def test_a_weaker_word_of_the_same_file_leaves_the_row_as_it_is() -> None:
    given = added(content="old", given=(*ELSEWHERE, DERIVED))

    values = settled(MADE_OF_FILE, says(OLD), given, made_of_file=False)

    assert position(values) == OLD
    assert values["file_point"] == OLD_POINT, "the next file goes another way"


def test_a_file_that_says_the_same_again_leaves_the_position_the_rows() -> None:
    """Or the backend could not take it back."""
    values = settled(MADE_OF_FILE, says(OLD), added(content="new", exif=OLD[:2]), made_of_file=False)

    assert position(values) == OLD
    assert (values["from_exif"], values["row_point"]) == (False, None)


def test_a_caller_who_says_of_the_new_file_what_the_old_one_said_is_taken_at_their_word() -> None:
    values = settled(MADE_OF_FILE, says(OLD), added(content="new", given=OLD), made_of_file=False)

    assert (position(values), values["row_point"]) == (OLD, OLD_POINT)


def test_a_row_that_has_just_been_made_of_the_new_file_holds_as_it_is_written() -> None:
    """A column of the backend's may round."""
    rounded = (56.0, 12.0, EXIF)

    values = settled(PURGED, says(rounded), added(content="new", exif=(56.004, 12.004)), made_of_file=True)

    assert (position(values), values["file_point"]) == (rounded, says(rounded).point)


# ------------------------------------------------------------------------------------ beside a row


def test_a_caller_of_the_new_file_is_not_weighed_against_the_old_one() -> None:
    given = (*ELSEWHERE, DERIVED)
    before = entry(OLD, from_exif=True)

    new = settled(before, says(None), added(content="new", given=given), made_of_file=False)
    same = settled(before, says(None), added(content="old", given=given), made_of_file=False)

    assert (position(new), position(same)) == (given, OLD)


def test_the_error_that_a_camera_stated_goes_with_its_file() -> None:
    before = entry(OLD, from_exif=True, position_error_m=65_000.0)

    new = settled(before, says(None), added(content="new", given=OLD), made_of_file=False)
    same = settled(before, says(None), added(content="old", given=OLD), made_of_file=False)

    assert (new["position_error_m"], same["position_error_m"]) == (None, 65_000.0)


def test_a_position_that_a_row_has_taken_back_does_not_come_back_as_the_files() -> None:
    now = (*ELSEWHERE, DERIVED)
    given = (3.0, 4.0, Provenance.FALLBACK)

    values = settled(entry(OLD), says(now), added(content="old", given=given), made_of_file=False)

    assert (position(values), values["from_exif"]) == (now, False)


# ------------------------------------------------------------------------------------ addresses


def loses_its_address(before: Any, row: Said, item: NewEntry) -> bool:
    return settled(before, row, item, made_of_file=False).get("own_address", "kept") is None


FROM_FILE = entry(OLD, from_exif=True)
BY_CALLER = entry((*ELSEWHERE, SURVEYED), row_point=OLD_POINT, file_point=OLD_POINT)


@pytest.mark.parametrize(
    ("before", "row"), [(FROM_FILE, says(None)), (MADE_OF_FILE, says(OLD)), (BY_CALLER, says(None))]
)
def test_an_address_goes_with_the_picture_and_the_place_that_it_was_said_of(before: Any, row: Said) -> None:
    theirs = (3.0, 4.0, Provenance.CONFIRMED)
    same = (before.lat, before.lon, before.provenance)

    assert loses_its_address(before, row, added(content="new", given=theirs))
    assert not loses_its_address(before, row, added(content="new", given=same)), "it is the same place"
    assert not loses_its_address(before, row, added(content="old", given=theirs)), "and picture"


def test_an_address_of_a_callers_coordinates_stays_with_them_though_the_file_goes() -> None:
    assert not loses_its_address(BY_CALLER, says(OLD), added(content="new"))


def test_an_address_of_a_callers_coordinates_goes_where_the_row_has_others() -> None:
    theirs = (5.0, 6.0, Provenance.CONFIRMED)

    assert loses_its_address(BY_CALLER, says(theirs), added(content="old", exif=OLD[:2]))
