"""The drop-in's shapes, against the words of the guide. Through the queue: tests/integration/test_dropin.py."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from producer_client import compat
from producer_client.compat import CLIPSimilarityService, match, to_guide_json
from producer_client.contract import Answer, Code, Hit, LocateReply, Point, Provenance, Reason, Refused
from producer_client.errors import BadRequest, TryAgain

#: Nothing listens there.
NOWHERE = "redis://127.0.0.1:1/0"


def hit(path: str, similarity: float, lat: float, lon: float, **more: Any) -> Hit:
    return Hit(1, similarity, path, lat, lon, Provenance.EXIF_GPS, **more)


EVIDENCE = [
    hit("/path/to/image1.jpg", 0.89, 55.7558, 37.6176),
    hit("/path/to/image2.jpg", 0.82, 55.7560, 37.6180),
]
LOCATED = Answer(Answer.LOCATED, Point(55.7558, 37.6176), 31.0, 0.93, evidence=EVIDENCE)


def within(example: Any, result: Any) -> bool:
    """Whether the result has every field of the example, with values of its type."""
    if isinstance(example, dict):
        return isinstance(result, dict) and all(
            name in result and within(example[name], result[name]) for name in example
        )
    if isinstance(example, list):
        return isinstance(result, list) and all(within(example[0], item) for item in result)
    return type(example) is type(result)


def test_the_result_has_the_fields_of_the_guides_example() -> None:
    example = {
        "success": True,
        "coordinates": {
            "latitude": 55.7558,
            "longitude": 37.6176,
            "source": "clip_similarity",
            "confidence": 0.89,
            "matched_image": "/path/to/similar/image.jpg",
        },
        "clip_similarity": {
            "similarity": 0.89,
            "all_matches": [
                {
                    "image_path": "/path/to/image1.jpg",
                    "similarity": 0.89,
                    "metadata": {"lat": 55.7558, "lon": 37.6176},
                },
                {
                    "image_path": "/path/to/image2.jpg",
                    "similarity": 0.82,
                    "metadata": {"lat": 55.7560, "lon": 37.6180},
                },
            ],
        },
    }

    result = to_guide_json(LocateReply(LOCATED, 3, 17, "model@1", 12.0))

    assert within(example, result)
    assert result["coordinates"] == {
        "latitude": 55.7558,
        "longitude": 37.6176,
        "source": "clip_similarity",
        "confidence": 0.93,
        "matched_image": "/path/to/image1.jpg",
        "radius_m": 31.0,
        "confidence_kind": "vote_share",
    }
    assert [m["similarity"] for m in result["clip_similarity"]["all_matches"]] == [0.89, 0.82]
    assert (result["status"], result["reason"]) == ("located", None)


def test_no_answer_has_no_coordinates_and_says_why() -> None:
    answer = Answer(Answer.ABSTAINED, reason=Reason.NEIGHBOURS_DISAGREE, message="two towns", evidence=EVIDENCE)

    result = to_guide_json(answer)

    assert (result["success"], result["coordinates"]) == (False, None)
    assert (result["status"], result["reason"], result["message"]) == ("abstained", "neighbours_disagree", "two towns")
    assert result["clip_similarity"]["similarity"] == 0.89
    assert to_guide_json(Answer(Answer.ABSTAINED, reason=Reason.EMPTY_INDEX))["clip_similarity"] == {
        "similarity": None,
        "all_matches": [],
    }


def test_a_match_shows_what_was_given_with_the_photo() -> None:
    found = match(hit("/a.jpg", 0.9, 0.0, 0.0, metadata={"floor": 3}, address={"city": "Lund"}))

    assert found["metadata"] == {
        "floor": 3,
        "lat": 0.0,
        "lon": 0.0,
        "provenance": "exif_gps",
        "address": {"city": "Lund"},
    }


@pytest.fixture
def facts() -> Callable[[dict[str, Any]], dict[str, Any]]:
    with_close = CLIPSimilarityService(broker_url=NOWHERE, strict=True)
    with_close.close()
    return with_close._facts


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"lat": 1, "lon": 2}, {"lat": 1.0, "lon": 2.0, "provenance": Provenance.DERIVED}),
        ({"latitude": "1.5", "longitude": "2"}, {"lat": 1.5, "lon": 2.0, "provenance": Provenance.DERIVED}),
        (
            {"lat": 0.0, "lon": 0.0, "provenance": "surveyed"},
            {"lat": 0.0, "lon": 0.0, "provenance": Provenance.SURVEYED},
        ),
        (
            {"lat": 1, "lon": 2, "location_method": "exif"},
            {"lat": 1.0, "lon": 2.0, "provenance": Provenance.EXIF_GPS},
        ),
        (
            {"lat": 1, "lon": 2, "coordinate_source": "yolo"},
            {"lat": 1.0, "lon": 2.0, "provenance": Provenance.DERIVED},
        ),
        ({"lat": 1, "lon": None}, {}),
        ({}, {}),
    ],
)
def test_coordinates_of_both_spellings_and_what_they_count_as(
    facts: Callable[[dict[str, Any]], dict[str, Any]], metadata: dict[str, Any], expected: dict[str, Any]
) -> None:
    read = facts(metadata)

    assert {name: read[name] for name in ("lat", "lon", "provenance") if name in read} == expected
    assert read["metadata"] is None


@pytest.mark.parametrize("update_rows", [None, True, False])
def test_rows_are_written_as_the_service_was_told(update_rows: bool | None) -> None:
    service = CLIPSimilarityService(broker_url=NOWHERE, update_rows=update_rows)
    service.close()

    new = service._new_photo(0, {"file_path": "/a.jpg", "lat": 1, "lon": 2})

    assert not isinstance(new, Refused)
    assert new.update_row is update_rows
    assert service._facts({"lat": 1, "lon": 2})["update_row"] is update_rows


def test_the_rest_of_the_metadata_is_kept_as_json(facts: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    day = datetime(2025, 5, 1, tzinfo=UTC)

    read = facts({"lat": 1, "lon": 2, "address": "Lund", "taken": day, "tags": ("a", 1), "deep": {"x": None}})

    assert read["address"] == {"address": "Lund"}
    assert read["metadata"] == {"taken": day.isoformat(), "tags": ["a", 1], "deep": {"x": None}}


@pytest.mark.parametrize("metadata", [{"lat": "north", "lon": 2}, {"lat": [1], "lon": 2}, {"score": math.nan}])
def test_metadata_that_cannot_be_kept_is_a_bad_request(
    facts: Callable[[dict[str, Any]], dict[str, Any]], metadata: dict[str, Any]
) -> None:
    with pytest.raises(BadRequest):
        facts(metadata)


@pytest.mark.parametrize(
    ("given", "environment", "used"), [(None, None, "sightline:"), (None, "", ""), ("a:", "b:", "a:")]
)
def test_the_prefix_of_keys_is_the_one_of_the_workers(
    monkeypatch: pytest.MonkeyPatch, given: str | None, environment: str | None, used: str
) -> None:
    """Set to nothing is not unset: that is the place of clients of releases before the prefix."""
    if environment is None:
        monkeypatch.delenv("SIGHTLINE_KEY_PREFIX", raising=False)
    else:
        monkeypatch.setenv("SIGHTLINE_KEY_PREFIX", environment)
    told: list[str] = []
    monkeypatch.setattr(compat, "Sightline", lambda *_, key_prefix, **__: told.append(key_prefix))

    CLIPSimilarityService(broker_url=NOWHERE, key_prefix=given)

    assert told == [used]


def test_rows_are_mappings_or_objects_and_bad_ones_are_refused_by_name() -> None:
    service = CLIPSimilarityService(broker_url=NOWHERE)
    service.close()

    by_id = service._new_photo(0, {"id": 5, "file_path": "/a.jpg", "lat": 1, "lon": 2})
    by_path = service._new_photo(1, {"file_path": "/a.jpg", "lat": 1, "lon": 2, "location_method": "gps"})
    refused = service._new_photo(2, {"lat": 1, "lon": 2})

    assert not isinstance(by_id, Refused)
    assert (by_id.photo.photo_id, by_id.photo.path, by_id.lat) == (5, "/a.jpg", None)
    assert not isinstance(by_path, Refused)
    assert (by_path.photo.path, by_path.lat, by_path.provenance) == ("/a.jpg", 1.0, Provenance.EXIF_GPS)
    assert isinstance(refused, Refused)
    assert (refused.ref, refused.code) == ("row 2: None", Code.BAD_REQUEST)


def test_without_a_service_it_answers_as_the_old_class_did_and_logs_why(caplog: pytest.LogCaptureFixture) -> None:
    service = CLIPSimilarityService(broker_url=NOWHERE, timeout_s=1)
    with caplog.at_level(logging.INFO, "CLIP"):
        assert service.find_similar_images("/a" + "x" * 4_000 + ".jpg") == []
        assert service.add_image_to_index("/a.jpg", {"lat": 1, "lon": 2}) is False
        assert service.encode_text("a church") is None
        assert service.get_statistics() == {}

    of_class = [record for record in caplog.records if record.name == "CLIP"]
    said = [record.getMessage() for record in of_class if record.levelno == logging.ERROR]
    assert "No similar image" not in caplog.text, "nobody knows"
    assert max(map(len, said)) < 1000
    assert len(said) == 4
    assert all("CLIP" in line and "unavailable" in line for line in said)
    service.close()


def test_strict_raises_what_the_client_raises() -> None:
    service = CLIPSimilarityService(broker_url=NOWHERE, timeout_s=1, strict=True)

    with pytest.raises(TryAgain):
        service.find_similar_images("/a.jpg")

    service.close()


def test_a_mistake_in_the_call_is_answered_with_false_too(caplog: pytest.LogCaptureFixture) -> None:
    service = CLIPSimilarityService(broker_url=NOWHERE)

    assert service.add_image_to_index("/a.jpg", {"lat": 91, "lon": 2}) is False

    assert "bad_coordinates" in caplog.text
    service.close()
