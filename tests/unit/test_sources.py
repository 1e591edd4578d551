"""The chain of coordinate sources, its results and its card."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from producer_client.contract import Answer, Code, Hit, Point, Provenance, Reason
from producer_client.errors import BadRequest, PhotoRefused, SightlineError, Unreachable
from producer_client.findings import CARD_WIDTH
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
        ({"coordinates": "somewhere"}, Status.FAILED),
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


@pytest.mark.parametrize(
    "refusal",
    [
        PhotoRefused(Code.OUTSIDE_ROOTS, "/etc/passwd is outside the allowed folders", "/etc/passwd"),
        BadRequest(Code.BAD_REQUEST, "top_k 0 is not within 1 and 100"),
        Unreachable(Code.UNAVAILABLE, "Redis at host:1 cannot be used"),
        ConnectionRefusedError(111, "Connection refused"),
    ],
)
def test_a_refusal_is_a_line_of_the_log_and_no_traceback(refusal: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(path: str) -> None:
        raise refusal

    with caplog.at_level(logging.INFO, "CLIP"):
        (finding,) = Chain([Source("clip_similarity", refuse)]).locate(PHOTO).findings

    said = refusal.message if isinstance(refusal, SightlineError) else str(refusal)
    assert (finding.status, finding.message) == (Status.FAILED, said)
    assert finding.to_json()["code"] == getattr(refusal, "code", None)
    (line,) = caplog.records
    assert (line.levelname, line.exc_info) == ("WARNING", None)
    assert said in line.getMessage()


def test_what_a_detector_raises_keeps_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def broken(path: str) -> None:
        raise KeyError("weights")

    Chain([Source("detector", broken)]).locate(PHOTO)

    assert any(record.exc_info is not None for record in caplog.records)


def test_a_file_that_is_gone_has_its_code_and_no_traceback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = Chain([exif_gps()]).locate(tmp_path / "gone.jpg")

    assert (result.findings[0].status, result.findings[0].code) == (Status.FAILED, Code.NOT_FOUND)
    assert "gone.jpg is not there" in result.findings[0].message
    assert all(record.exc_info is None for record in caplog.records)


@pytest.mark.parametrize(
    ("said", "confidence", "provenance"),
    [
        ({"coordinates": {"lat": 1, "lon": 2}, "confidence": 0.9}, 0.9, Provenance.DERIVED),
        ({"coordinates": {"lat": 1, "lon": 2, "confidence": 0.3}, "confidence": 0.9}, 0.3, Provenance.DERIVED),
        ({"coordinates": {"lat": 1, "lon": 2, "confidence": None}, "confidence": 0.9}, 0.9, Provenance.DERIVED),
        ({"coordinates": {"lat": 1, "lon": 2}, "provenance": "surveyed"}, None, Provenance.SURVEYED),
        ({"coordinates": (1, 2), "confidence": 0.9}, 0.9, Provenance.DERIVED),
        ({"lat": 8, "lon": 9, "coordinates": {"latitude": 1, "longitude": 2}}, None, Provenance.DERIVED),
        ([1, 2], None, Provenance.DERIVED),
    ],
)
def test_what_stands_beside_the_coordinates_is_said_of_them(
    said: Any, confidence: float | None, provenance: Provenance
) -> None:
    best = Chain([Source("detector", saying(said))]).locate(PHOTO).best

    assert best is not None
    assert (best.lat, best.lon, best.confidence, best.provenance) == (1.0, 2.0, confidence, provenance)


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
    """The lines of the guide's interface, in its order; boxes of one width. What the guide calls accuracy is named for
    what it is."""
    chain = Chain([Source("clip_similarity", saying(located(0.89, 0.89)), 3, title="🖼️ CLIP Image Similarity")])

    card = chain.locate(PHOTO).card(Language.RU)

    assert [line.strip("│║ ") for line in card.splitlines() if line and line[0] in "│║📊"] == [
        "📊 Результаты от всех источников:",
        "🖼️ CLIP Image Similarity",
        "✅ Успешно",
        "Найдено похожее здание",
        "(сходство: 0.89)",
        "Доля голосов похожих фото: 89%",
        "В пределах: 12 м",
        "🎯 ИТОГОВЫЙ РЕЗУЛЬТАТ:",
        "Источник: clip_similarity",
        "Доля голосов похожих фото: 89%",
        "В пределах: 12 м",
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


@pytest.mark.parametrize("answer", [located(0.89, 1.0), Answer(Answer.ABSTAINED, reason=Reason.EMPTY_INDEX)])
def test_what_is_logged_and_given_to_programs_is_english_in_every_language(
    answer: Answer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SIGHTLINE_LANG", "ru")
    with caplog.at_level(logging.INFO, "CLIP"):
        result = Chain([Source("clip_similarity", saying(answer))]).locate(PHOTO)

    (finding,) = result.findings
    assert finding.message
    assert finding.message in caplog.text
    assert caplog.text.isascii()
    assert finding.message.isascii()
    assert not result.card().isascii()


def test_who_has_no_pillow_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)

    with pytest.raises(ImportError, match="pip install pillow"):
        exif_gps()


@pytest.mark.parametrize(
    ("language", "said"), [(Language.EN, "Confidence, as it says: 89%"), (Language.RU, "Уверенность источника: 89%")]
)
def test_the_confidence_of_another_source_is_its_own(language: Language, said: str) -> None:
    result = Chain([Source("detector", saying({"lat": 1, "lon": 2, "confidence": 0.89}))]).locate(PHOTO)

    assert result.card(language).count(said) == 2
    assert result.to_json()["coordinates"]["confidence_kind"] is None


def test_the_card_says_in_english_what_its_figures_are() -> None:
    card = Chain([Source("clip_similarity", saying(located(0.89, 1.0)))]).locate(PHOTO).card(Language.EN)

    assert card.count("Share of similar photos' votes: 100%") == 2
    assert "(similarity: 0.89)" in card


def test_a_refusal_is_on_the_card_in_its_language_and_within_its_edges(tmp_path: Path) -> None:
    path = f"/photos/{'a-long-folder/' * 9}1.jpg"

    def refuse(photo: str) -> None:
        raise PhotoRefused(Code.OUTSIDE_ROOTS, f"{path} is outside the allowed folders (/photos)", photo)

    (tmp_path / "notes").write_text("no photo")
    refused, text = Chain([Source("clip", refuse)]).locate(PHOTO), Chain([exif_gps()]).locate(tmp_path / "notes")

    english = [line.strip("│ ") for line in refused.card(Language.EN).splitlines() if line.startswith("│")]
    assert path in "".join(english)
    assert max(map(len, refused.card(Language.EN).splitlines())) == CARD_WIDTH + 2
    assert "файл вне разрешённых папок (outside_roots)" in " ".join(refused.card(Language.RU).replace("│", "").split())
    assert "outside the allowed" not in refused.card(Language.RU)
    assert "это не фото (not_an_image)" in text.card(Language.RU)
    assert "not an image" in text.card(Language.EN)


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
        "confidence_kind": "vote_share",
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
