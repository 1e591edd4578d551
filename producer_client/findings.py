"""What a source of coordinates found, and what a chain of them came to: as JSON, and as the guide's card for people.

Knows neither the sources nor a queue.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from producer_client.contract import Answer, Code, ConfidenceKind, Provenance, check_coordinates
from producer_client.errors import BadRequest
from producer_client.language import Language, explained, meaning, say, to_say
from producer_client.positions import at_default_point

#: What the guide's result has of the finding to use.
COORDINATES = ("latitude", "longitude", "source", "confidence", "confidence_kind", "provenance")
#: Columns between the edges of a card.
CARD_WIDTH = 37
LINE_WIDTH = CARD_WIDTH - 2


class Status(StrEnum):
    FOUND = "found"
    NOTHING = "nothing"
    FAILED = "failed"
    NOT_ASKED = "not_asked"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one source said. `confidence` is the source's own, None where it has none."""

    source: str
    status: Status
    lat: float | None = None
    lon: float | None = None
    confidence: float | None = None
    provenance: Provenance | None = None
    message: str = ""
    title: str = ""
    details: Mapping[str, Any] | None = None
    took_ms: float = 0.0
    answer: Answer | None = None  #: Sightline's own, so that a card in any language can say what it means
    code: Code | None = None  #: what Sightline's refusal or failure was, for the same reason

    def __post_init__(self) -> None:
        if self.status is Status.FOUND:
            if self.lat is None or self.lon is None:
                raise BadRequest(Code.BAD_COORDINATES, f"{self.source} found something without lat and lon")
            check_coordinates(self.lat, self.lon)

    @property
    def confidence_kind(self) -> str | None:
        """What Sightline's confidence is; what other sources mean by theirs only they know."""
        return None if self.answer is None or self.confidence is None else self.answer.confidence_kind

    @property
    def trusted(self) -> bool:
        if self.provenance is None or self.lat is None or self.lon is None:
            return False
        return self.provenance.trusted and not at_default_point(self.lat, self.lon)

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "status": self.status.value,
            "latitude": self.lat,
            "longitude": self.lon,
            "confidence": self.confidence,
            "confidence_kind": self.confidence_kind,
            "provenance": None if self.provenance is None else self.provenance.value,
            "message": self.message,
            "code": None if self.code is None else self.code.value,
            "details": None if self.details is None else dict(self.details),
            "took_ms": self.took_ms,
        }


@dataclass(frozen=True, slots=True)
class ChainResult:
    """`best` is the finding to use, None where no source found anything; `findings` holds every source, as asked."""

    best: Finding | None
    findings: Sequence[Finding]

    def to_json(self) -> dict[str, Any]:
        """In the form of the guide's result, with all sources beside it."""
        best = self.best
        coordinates = None
        if best is not None:
            said = best.to_json()
            coordinates = {name: said[name] for name in COORDINATES}
        return {
            "success": best is not None,
            "coordinates": coordinates,
            "all_sources": [finding.to_json() for finding in self.findings],
        }

    def card(self, language: Language | None = None) -> str:
        """The guide's card for people: what each source said, and the result."""
        language = language or Language.chosen()
        lines = [say("📊 Results from all sources:", language), ""]
        for finding in self.findings:
            if finding.status is Status.NOT_ASKED:
                continue
            lines.append("┌" + "─" * CARD_WIDTH + "┐")
            lines += [_row(text, "│") for text in _said(finding, language)]
            lines += ["└" + "─" * CARD_WIDTH + "┘", ""]
        lines.append("╔" + "═" * CARD_WIDTH + "╗")
        lines += [_row(text, "║") for text in _result(self.best, language)]
        lines.append("╚" + "═" * CARD_WIDTH + "╝")
        return "\n".join(lines)


# ----------------------------------------------------------------------------------------------- the card

_STATUSES: Mapping[Status, str] = {
    Status.FOUND: to_say("✅ Found"),
    Status.NOTHING: to_say("➖ Nothing found"),
    Status.FAILED: to_say("❌ Failed"),
}
#: By its kind, what Sightline's confidence is.
_KINDS: Mapping[str, str] = {
    ConfidenceKind.PROBABILITY: to_say("Probability: {share:.0%}"),
    ConfidenceKind.UNCALIBRATED: to_say("Strength, not calibrated: {share:.0%}"),
    ConfidenceKind.VOTE_SHARE: to_say("Share of similar photos' votes: {share:.0%}"),
    ConfidenceKind.COSINE: to_say("Similarity, no confidence: {share:.0%}"),
}
_CONFIDENCE = to_say("Confidence, as it says: {share:.0%}")


def _said(finding: Finding, language: Language) -> list[str]:
    lines = [finding.title or finding.source, say(_STATUSES[finding.status], language)]
    matches = (finding.details or {}).get("all_matches")
    if finding.status is Status.FOUND and matches:
        lines.append(say("A similar building was found", language))
        lines.append(say("(similarity: {similarity:.2f})", language, similarity=matches[0]["similarity"]))
    else:
        lines += _wrapped(_message(finding, language))
    lines += _confidence(finding, language) + _error(finding, language)
    return lines + _witnesses(finding.answer, language)


def _result(best: Finding | None, language: Language) -> list[str]:
    lines = [say("🎯 RESULT:", language)]
    if best is None:
        return [*lines, say("No source knows where it was taken", language)]
    lines.append(say("Source: {name}", language, name=best.source))
    lines += _confidence(best, language)
    lines.append(say("Coordinates: {lat:.6f}, {lon:.6f}", language, lat=best.lat, lon=best.lon))
    return lines + _error(best, language)


def _message(finding: Finding, language: Language) -> str:
    if finding.answer is not None:
        return explained(finding.answer, language)
    if finding.code is not None and language is not Language.EN:
        return f"{meaning(finding.code, language)} ({finding.code})"
    return finding.message


def _confidence(finding: Finding, language: Language) -> list[str]:
    """Of Sightline's, what it is: only a probability is an accuracy that somebody has measured."""
    if finding.confidence is None:
        return []
    said = _KINDS.get(finding.confidence_kind or "", _CONFIDENCE)
    return [say(said, language, share=finding.confidence), *_radius(finding, language)]


def _radius(finding: Finding, language: Language) -> list[str]:
    answer = finding.answer
    if answer is None or answer.radius_m is None:
        return []
    return [say("Within: {radius_m:.0f} m", language, radius_m=answer.radius_m)]


def _witnesses(answer: Answer | None, language: Language) -> list[str]:
    """Points in common with the best photo for the answer and against it, where they were compared."""
    lines = []
    if answer is not None and answer.evidence and answer.evidence[0].inliers is not None:
        lines.append(say("Points in common: {points}", language, points=answer.evidence[0].inliers))
    if answer is not None and answer.contrary is not None:
        hit = answer.contrary
        lines.append(say("Against it: photo {photo_id}", language, photo_id=hit.photo_id))
        if hit.inliers is not None:
            lines.append(say("(points in common: {points})", language, points=hit.inliers))
    return [wrapped for line in lines for wrapped in _wrapped(line)]


def _error(finding: Finding, language: Language) -> list[str]:
    error_m = (finding.details or {}).get("position_error_m")
    known = finding.status is Status.FOUND and isinstance(error_m, int | float)
    return [say("Error, as the camera states it: {error_m:.0f} m", language, error_m=error_m)] if known else []


def _wrapped(text: str) -> list[str]:
    """Lines of the card. A word that is longer than one, as a path, goes on in the next."""
    lines = [""] if text else []
    for word in text.split():
        if lines[-1] and _columns(lines[-1]) + 1 + _columns(word) > LINE_WIDTH:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
        while _columns(lines[-1]) > LINE_WIDTH:
            fits = next(n for n in range(len(lines[-1]), 0, -1) if _columns(lines[-1][:n]) <= LINE_WIDTH)
            lines[-1:] = [lines[-1][:fits], lines[-1][fits:]]
    return lines


def _row(text: str, edge: str) -> str:
    return f"{edge} {text}{' ' * max(0, CARD_WIDTH - 1 - _columns(text))}{edge}"


def _columns(text: str) -> int:
    """Columns of a terminal: symbols are two wide, and so is what a variation selector makes a symbol."""
    return sum(
        0 if unicodedata.combining(c) else 1 if c == "\ufe0f" else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
