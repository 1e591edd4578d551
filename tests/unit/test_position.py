"""Laws of which position of a photo holds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from producer_client.contract import Provenance
from worker.core.position import Held, Known, is_same, may_replace, settle

positions = st.tuples(st.floats(-90, 90), st.floats(-180, 180), st.sampled_from(Provenance))
some = settings(derandomize=True, max_examples=300)

GPS: Known = (55.0, 13.0, Provenance.EXIF_GPS)
DERIVED: Known = (1.0, 2.0, Provenance.DERIVED)
DEFAULT: Known = (3.0, 4.0, Provenance.FALLBACK)
CONFIRMED: Known = (5.0, 6.0, Provenance.CONFIRMED)
SURVEYED: Known = (7.0, 8.0, Provenance.SURVEYED)
NOTHING = Held(None)


def test_a_default_gives_way_to_a_detector_that_to_a_camera_and_that_to_a_person() -> None:
    order = [Provenance.FALLBACK, Provenance.DERIVED, Provenance.EXIF_GPS, Provenance.SURVEYED]

    assert all(a.strength < b.strength for a, b in pairwise(order))
    assert Provenance.CONFIRMED.strength == Provenance.SURVEYED.strength


@drawn(old=positions, new=positions)
@some
def test_a_weaker_position_never_replaces_a_stronger_one(old: Known, new: Known) -> None:
    assert may_replace(old, new) is (new[2].strength >= old[2].strength)


@drawn(
    row=st.none() | positions,
    exif=st.none() | positions.map(lambda p: (p[0], p[1], Provenance.EXIF_GPS)),
    given=st.none() | positions,
    held=st.none() | positions,
    news=st.booleans(),
)
@some
def test_nothing_that_is_known_is_stronger_than_what_holds(
    row: Known | None, exif: Known | None, given: Known | None, held: Known | None, news: bool
) -> None:
    before = Held(held, row_point="before" if held is not None else None)

    found = settle(row=row, row_point="now" if news else "before", held=before, exif=exif, given=given)

    known = [position for position in (row, exif, given, held) if position is not None]
    if not known:
        assert found == NOTHING
        return
    assert found.position is not None
    assert found.position[2].strength == max(position[2].strength for position in known)
    if given is not None and given[2].strength == found.position[2].strength:
        assert is_same(found.position, given), "the newest of equals"


@pytest.mark.parametrize(
    ("row", "row_point", "held", "exif", "given", "expected"),
    [
        # What a caller says of a photo whose row says nothing, or less.
        (None, "", NOTHING, None, DERIVED, Held(DERIVED, row_point="")),
        (DEFAULT, "d", NOTHING, None, GPS, Held(GPS, row_point="d")),
        # What the row says itself is the row's.
        (GPS, "g", NOTHING, None, GPS, Held(GPS)),
        (GPS, "g", Held(CONFIRMED, row_point="old"), None, None, Held(CONFIRMED, row_point="old")),
        # The row changed after a caller said as much; it has not; it was taken back.
        (GPS, "new", Held((1.0, 1.0, Provenance.EXIF_GPS), row_point="old"), None, None, Held(GPS)),
        (GPS, "g", Held(SURVEYED, row_point="g"), None, None, Held(SURVEYED, row_point="g")),
        (CONFIRMED, "c", Held(SURVEYED, row_point="c"), None, None, Held(SURVEYED, row_point="c")),
        (CONFIRMED, "new", Held(SURVEYED, row_point="c"), None, None, Held(CONFIRMED)),
        (None, "", Held(DERIVED, row_point="old"), None, None, Held(DERIVED, row_point="old")),
        # A row's own position is not held against it.
        (None, "", Held(GPS), None, None, NOTHING),
        (DEFAULT, "d", Held(GPS), None, None, Held(DEFAULT)),
        # The file.
        (None, "", NOTHING, GPS, None, Held(GPS, from_exif=True)),
        (DERIVED, "d", NOTHING, GPS, None, Held(GPS, from_exif=True)),
        ((9.0, 9.0, Provenance.EXIF_GPS), "g", NOTHING, GPS, None, Held((9.0, 9.0, Provenance.EXIF_GPS))),
        (None, "", NOTHING, GPS, DERIVED, Held(GPS, from_exif=True)),
        (None, "", NOTHING, GPS, CONFIRMED, Held(CONFIRMED, row_point="")),
    ],
)  # fmt: skip
def test_what_holds(
    row: Known | None, row_point: str, held: Held, exif: Known | None, given: Known | None, expected: Held
) -> None:
    assert settle(row=row, row_point=row_point, held=held, exif=exif, given=given) == expected


def test_what_a_column_rounds_away_is_no_other_position() -> None:
    assert is_same((55.7123456789, 13.2, GPS[2]), (55.712346, 13.2, GPS[2]))
    assert not is_same((55.7123, 13.2, GPS[2]), (55.7124, 13.2, GPS[2]))
    assert not is_same((55.7, 13.2, Provenance.SURVEYED), (55.7, 13.2, Provenance.CONFIRMED))
    assert is_same(None, None)
    assert not is_same(None, GPS)
