"""What a position counts as, wherever it came from."""

from __future__ import annotations

import pytest

from producer_client.contract import PositionIssue, Provenance
from worker.core.types import Entry, FileState
from worker.place.evidence import counts_as


def counted(
    lat: float | None, lon: float | None, error_m: float | None = None, provenance: Provenance = Provenance.SURVEYED
) -> tuple[Provenance | None, PositionIssue | None]:
    known = None if lat is None else provenance
    return counts_as(Entry(1, "/a.jpg", "", lat, lon, known, None, None, error_m), agree_m=150.0)


@pytest.mark.parametrize("provenance", Provenance)
def test_exactly_zero_zero_is_a_default_whoever_says_otherwise(provenance: Provenance) -> None:
    assert counted(0.0, 0.0, provenance=provenance) == (Provenance.FALLBACK, PositionIssue.DEFAULT_POINT)
    assert counted(-0.0, 0.0, provenance=provenance) == (Provenance.FALLBACK, PositionIssue.DEFAULT_POINT)


@pytest.mark.parametrize("at", [(0.0, 1e-9), (1e-9, 0.0), (0.0, 9.45), (51.48, 0.0)])
def test_the_equator_and_the_meridian_are_places(at: tuple[float, float]) -> None:
    assert counted(*at) == (Provenance.SURVEYED, None)


@pytest.mark.parametrize(
    ("error_m", "expected"),
    [
        (None, (Provenance.SURVEYED, None)),
        (150.0, (Provenance.SURVEYED, None)),
        (150.1, (Provenance.FALLBACK, PositionIssue.TOO_COARSE)),
        (65_000.0, (Provenance.FALLBACK, PositionIssue.TOO_COARSE)),
    ],
)
def test_an_error_beyond_the_distance_of_agreement_is_no_evidence(
    error_m: float | None, expected: tuple[Provenance, PositionIssue | None]
) -> None:
    assert counted(56.0, 10.0, error_m) == expected


def test_no_position_counts_as_nothing() -> None:
    assert counted(None, None) == (None, None)


@pytest.mark.parametrize("provenance", Provenance)
@pytest.mark.parametrize(
    ("state", "issue"),
    [(FileState.CHANGED, PositionIssue.FILE_CHANGED), (FileState.GONE, PositionIssue.FILE_GONE)],
)
def test_a_photo_whose_file_is_another_one_or_none_is_no_evidence_unless_it_is_set_to_be(
    provenance: Provenance, state: FileState, issue: PositionIssue
) -> None:
    entry = Entry(1, "/a.jpg", "", 56.0, 10.0, provenance, None, None, file_state=state)

    assert counts_as(entry, agree_m=150.0) == (Provenance.FALLBACK, issue)
    assert counts_as(entry, agree_m=150.0, stale_files_count=True) == (provenance, None)


@pytest.mark.parametrize("count", [False, True])
@pytest.mark.parametrize("state", FileState)
def test_what_is_no_evidence_anyway_is_none_whatever_becomes_of_its_file(state: FileState, count: bool) -> None:
    def counted(lat: float | None, lon: float | None, error_m: float | None = None) -> PositionIssue | None:
        known = None if lat is None else Provenance.EXIF_GPS
        entry = Entry(1, "/a.jpg", "", lat, lon, known, None, None, error_m, file_state=state)
        provenance, issue = counts_as(entry, agree_m=150.0, stale_files_count=count)
        assert provenance is (None if lat is None else Provenance.FALLBACK)
        return issue

    assert counted(0.0, 0.0) is PositionIssue.DEFAULT_POINT
    assert counted(56.0, 10.0, 65_000.0) is PositionIssue.TOO_COARSE
    assert counted(None, None) is None
