"""The chain of coordinate sources, its results and its card."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from producer_client.contract import Answer, Hit, Point, Provenance, Reason
from producer_client.errors import BadRequest
from producer_client.language import Language
from producer_client.sources import Chain, Finding, Source, Status, exif_gps

PHOTO = "/photos/1.jpg"


def saying(answer: Any) -> Callable[[str], Any]:
    return lambda path: answer


def located(similarity: float, confidence: float) -> Answer:
    hit = Hit(7, similarity, "/photos/7.jpg", 55.7558, 37.6176, Provenance.EXIF_GPS)
    return Answer(Answer.LOCATED, Point(55.7558, 37.6176), 12.0, confidence, evidence=[hit])


def statuses(chain: Chain) -> dict[str, Status]:
    return {finding.source: finding.status for finding in chain.locate(PHOTO).findings}


def test_sources_are_asked_by_priority_until_one_is_sure_enough() -> None:
    asked: list[str] = []

    def source(name: str, priority: int, confidence: float) -> Source:
        def ask(path: str) -> dict[str, float]:
            asked.append(name)
            return {"lat": 1, "lon": 2, "confidence": confidence}

        return Source(name, ask, priority)

    result = Chain([source("last", 9, 1.0), source("sure", 2, 0.75), source("first", 1, 0.74)]).locate(PHOTO)

    assert asked == ["first", "sure"]
    assert result.best is not None
    assert result.best.source == "sure"
    assert [finding.status for finding in result.findings] == [Status.FOUND, Status.FOUND, Status.NOT_ASKED]


def test_a_source_may_ask_for_more_or_less_than_the_chain() -> None:
    answer = {"lat": 1, "lon": 2, "confidence": 0.5}

    easy = Chain([Source("easy", saying(answer), 1, enough=0.4), Source("next", saying(None), 2)])
    hard = Chain(
        [Source("hard", saying(answer | {"confidence": 0.9}), 1, enough=0.95), Source("next", saying(None), 2)]
    )

    assert statuses(easy)["next"] is Status.NOT_ASKED
    assert statuses(hard)["next"] is Status.NOTHING


def test_coordinates_that_can_be_trusted_end_the_chain_without_a_confidence() -> None:
    surveyed = {"lat": 1.0, "lon": 2.0, "provenance": "surveyed"}
    chain = Chain([Source("db", saying(surveyed), 1), Source("detector", saying((3.0, 4.0)), 2)])

    result = chain.locate(PHOTO)

    assert result.best is not None
    assert (result.best.source, result.best.provenance) == ("db", Provenance.SURVEYED)
    assert result.findings[1].status is Status.NOT_ASKED


def test_of_unsure_findings_the_surest_is_the_result_and_derived() -> None:
    chain = Chain(
        [
            Source("point", saying((0.0, 0.0)), 1),
            Source("weak", saying({"latitude": 1, "longitude": 2, "confidence": 0.3}), 2),
            Source("weaker", saying({"latitude": 5, "longitude": 6, "confidence": 0.2}), 3),
        ]
    )

    best = chain.locate(PHOTO).best

    assert best is not None
    assert (best.source, best.lat, best.lon, best.provenance) == ("weak", 1.0, 2.0, Provenance.DERIVED)


def test_zero_degrees_are_coordinates() -> None:
    best = Chain([Source("equator", saying({"lat": 0.0, "lon": 0.0, "confidence": 0.9}))]).locate(PHOTO).best

    assert best is not None
    assert (best.lat, best.lon) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (None, Status.NOTHING),
        ({}, Status.NOTHING),
        ({"success": False, "coordinates": {"latitude": 1, "longitude": 2}}, Status.NOTHING),
        ({"success": True, "coordinates": {"latitude": 1, "longitude": 2, "confidence": 0.9}}, Status.FOUND),
        ({"lat": 1}, Status.NOTHING),
        ({"lat": 91, "lon": 2}, Status.FAILED),
        ({"lat": float("nan"), "lon": 2}, Status.FAILED),
        ("somewhere", Status.FAILED),
        (located(0.9, 0.8), Status.FOUND),
        (Answer(Answer.ABSTAINED, reason=Reason.NOTHING_SIMILAR), Status.NOTHING),
        (Finding("mine", Status.FOUND, 1.0, 2.0), Status.FOUND),
    ],
)
def test_what_a_source_may_answer_with(said: Any, status: Status) -> None:
    assert statuses(Chain([Source("detector", saying(said))])) == {"detector": status}


def test_a_source_that_raises_is_written_down_and_the_next_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    def broken(path: str) -> None:
        raise RuntimeError("no connection")

    chain = Chain([Source("broken", broken, 1), Source("next", saying({"lat": 1, "lon": 2, "confidence": 1.0}), 2)])
    with caplog.at_level(logging.INFO, "CLIP"):
        result = chain.locate(PHOTO)

    assert result.best is not None
    assert result.best.source == "next"
    assert result.findings[0].message == "RuntimeError: no connection"
    said = [record.getMessage() for record in caplog.records]
    assert any("source broken: failed (RuntimeError: no connection)" in line for line in said)
    assert any("source next: found" in line for line in said)


def test_coroutines_are_sources_too_in_both_ways() -> None:
    async def ask(path: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"lat": 1, "lon": 2, "confidence": 0.9, "path": path}

    chain = Chain([Source("async", ask), Source("late", lambda path: ask(path), 200, enough=0.99)], enough=0.99)

    async def inside() -> Any:
        return await chain.alocate(Path(PHOTO))

    for result in (chain.locate(PHOTO), asyncio.run(inside())):
        assert [finding.status for finding in result.findings] == [Status.FOUND, Status.FOUND]
        assert result.findings[0].details == {"lat": 1, "lon": 2, "confidence": 0.9, "path": PHOTO}


def test_two_sources_of_one_name_are_refused() -> None:
    with pytest.raises(BadRequest, match="two sources of one name"):
        Chain([Source("a", saying(None)), Source("a", saying(None))])


def with_gps(path: Path, gps: dict[int, Any]) -> Path:
    image = Image.new("RGB", (8, 8))
    exif = image.getexif()
    exif[0x8825] = gps
    image.save(path, exif=exif)
    return path


def test_exif_coordinates_are_read_with_their_hemispheres(tmp_path: Path) -> None:
    photo = with_gps(tmp_path / "a.jpg", {1: "S", 2: (33.0, 51.0, 30.0), 3: "W", 4: (151.0, 12.0, 36.0)})

    best = Chain([exif_gps(), Source("next", saying(None), 2)]).locate(photo).best

    assert best is not None
    assert (best.lat, best.lon) == pytest.approx((-(33 + 51 / 60 + 30 / 3600), -(151 + 12 / 60 + 36 / 3600)))
    assert best.provenance is Provenance.EXIF_GPS


@pytest.mark.parametrize(
    "gps",
    [
        {},
        {1: "N", 2: (1.0, 2.0, 3.0)},
        {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},
        {1: "N", 2: (91.0, 0.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)},
        {1: "N", 2: (1.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)},
    ],
)
def test_exif_without_a_position_says_nothing(tmp_path: Path, gps: dict[int, Any]) -> None:
    assert statuses_of(with_gps(tmp_path / "a.jpg", gps)) == Status.NOTHING


def test_what_is_no_image_has_no_position_and_is_no_trouble(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photo = tmp_path / "diary"
    photo.write_text("dear diary")

    finding = Chain([exif_gps()]).locate(photo).findings[0]

    assert (finding.status, finding.message) == (Status.NOTHING, "not an image")
    assert "failed" not in caplog.text


def statuses_of(photo: Path) -> Status:
    return Chain([exif_gps()]).locate(photo).findings[0].status


def test_the_card_of_the_guide() -> None:
    """The words of the guide's interface, in its order; boxes of one width."""
    chain = Chain([Source("clip_similarity", saying(located(0.89, 0.89)), 3, title="🖼️ CLIP Image Similarity")])

    card = chain.locate(PHOTO).card(Language.RU)

    assert [line.strip("│║ ") for line in card.splitlines() if line and line[0] in "│║📊"] == [
        "📊 Результаты от всех источников:",
        "🖼️ CLIP Image Similarity",
        "✅ Успешно",
        "Найдено похожее здание",
        "(similarity: 0.89)",
        "Точность: 89%",
        "🎯 ИТОГОВЫЙ РЕЗУЛЬТАТ:",
        "Источник: clip_similarity",
        "Точность: 89%",
        "Координаты: 55.755800, 37.617600",
    ]
    assert {line[0] + line[-1] for line in card.splitlines() if line and line[0] != "📊"} == {
        "┌┐", "││", "└┘", "╔╗", "║║", "╚╝",
    }  # fmt: skip


def test_the_card_says_in_english_that_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain([Source("clip_similarity", saying(Answer(Answer.ABSTAINED, reason=Reason.NEIGHBOURS_DISAGREE)))])
    monkeypatch.delenv("SIGHTLINE_LANG", raising=False)

    result = chain.locate(PHOTO)

    assert "similar photos lie in different" in result.card()
    assert "No source knows where it was taken" in result.card()
    monkeypatch.setenv("SIGHTLINE_LANG", "ru_RU.UTF-8")
    assert "Ни один источник не знает места" in result.card()
    assert "similar photos lie in different" not in result.card()
    assert "похожие фото сняты в разных" in result.card()
    assert result.to_json()["success"] is False


def test_the_json_has_the_guides_fields_and_every_source() -> None:
    chain = Chain(
        [
            Source("clip_similarity", saying(located(0.89, 0.89)), 3),
            Source("enhanced_detector", saying(None), 4),
        ]
    )

    found = chain.locate(PHOTO).to_json()

    assert found["success"] is True
    assert found["coordinates"] == {
        "latitude": 55.7558,
        "longitude": 37.6176,
        "source": "clip_similarity",
        "confidence": 0.89,
        "provenance": "derived",
    }
    assert [(source["source"], source["status"]) for source in found["all_sources"]] == [
        ("clip_similarity", "found"),
        ("enhanced_detector", "not_asked"),
    ]


def test_the_card_has_the_error_that_the_camera_states() -> None:
    coarse = Finding("exif_gps", Status.FOUND, 1.0, 2.0, details={"position_error_m": 65_000.0})
    exact = Finding("exif_gps", Status.FOUND, 1.0, 2.0, details={"position_error_m": None})

    def card(finding: Finding, language: Language) -> str:
        return Chain([Source("exif_gps", lambda path: finding, priority=1)]).locate(PHOTO).card(language)

    assert card(coarse, Language.EN).count("Error, as the camera states it: 65000 m") == 2
    assert "65000 м" in card(coarse, Language.RU)
    assert "Error" not in card(exact, Language.EN)
