"""Searches for photos whose coordinates can be trusted: as many as were asked for, whatever else is more similar."""

from __future__ import annotations

from dataclasses import replace

import pytest

from producer_client.contract import Near, NewPhoto, Photo, PositionIssue, Provenance, Search, Stored
from tests.conftest import Scene
from worker.library import Library
from worker.library.questions import FIRST_LOOK


def add(library: Library, scenes: list[Scene], provenance: Provenance | None) -> list[int]:
    placed = provenance is not None
    outcomes = library.photos.add_many(
        [
            NewPhoto(
                ref=str(scene.path),
                photo=Photo(path=str(scene.path)),
                lat=scene.lat if placed else None,
                lon=scene.lon if placed else None,
                provenance=provenance,
            )
            for scene in scenes
        ]
    ).outcomes
    assert all(isinstance(outcome, Stored) for outcome in outcomes)
    return [outcome.photo_id for outcome in outcomes if isinstance(outcome, Stored)]


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_trusted_photos_fill_the_answer_though_others_are_more_similar(
    library: Library, scenes: list[Scene], top_k: int
) -> None:
    query, *same_place = scenes[:6]
    add(library, same_place, Provenance.DERIVED)
    trusted = add(library, scenes[12:15], Provenance.SURVEYED)
    photo = Photo(path=str(query.path))

    all_of_it = library.questions.search(Search(photo=photo, top_k=5, threshold=-1.0)).hits
    hits = library.questions.search(Search(photo=photo, top_k=top_k, threshold=-1.0, trusted_only=True)).hits

    assert {hit.provenance for hit in all_of_it[:5]} == {Provenance.DERIVED}
    assert FIRST_LOOK < 5, "more others than a first look at one photo's neighbours has"
    assert len(hits) == top_k
    assert {hit.photo_id for hit in hits} <= set(trusted)
    assert [hit.similarity for hit in hits] == sorted((hit.similarity for hit in hits), reverse=True)


def test_photos_that_are_no_evidence_in_spite_of_their_provenance_are_made_up_for(
    library: Library, scenes: list[Scene]
) -> None:
    """The index takes what a table calls surveyed at 0, 0 for trusted."""
    query, *same_place = scenes[:6]
    defaults = [replace(scene, lat=0.0, lon=0.0) for scene in same_place]
    add(library, defaults, Provenance.SURVEYED)
    trusted = add(library, scenes[12:15], Provenance.SURVEYED)
    photo = Photo(path=str(query.path))

    nearest = library.questions.search(Search(photo=photo, top_k=5, threshold=-1.0)).hits
    hits = library.questions.search(Search(photo=photo, top_k=1, threshold=-1.0, trusted_only=True)).hits

    assert {hit.position_issue for hit in nearest} == {PositionIssue.DEFAULT_POINT}
    assert FIRST_LOOK < 5
    assert [hit.photo_id in trusted for hit in hits] == [True]


@pytest.mark.parametrize("provenance", [Provenance.DERIVED, Provenance.FALLBACK])
def test_no_other_filter_lets_an_untrusted_photo_through(
    library: Library, scenes: list[Scene], provenance: Provenance
) -> None:
    query, other, *_ = scenes
    add(library, [other], provenance)
    near = Near(query.lat, query.lon, 5000.0)
    photo = Photo(path=str(query.path))

    assert library.questions.search(Search(photo=photo, threshold=-1.0, near=near)).hits
    assert library.questions.search(Search(photo=photo, threshold=-1.0, near=near, trusted_only=True)).hits == []
    assert library.questions.search(Search(photo=photo, threshold=-1.0, trusted_only=True)).hits == []
