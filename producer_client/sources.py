"""A chain of coordinate sources: EXIF, a reference database, Sightline, detectors of your own; one asked after another.

    chain = Chain([
        exif_gps(),
        Source("reference_db", look_up_in_my_table, priority=2),
        sightline(client, priority=3),
        Source("enhanced_detector", detect, priority=4),
    ])
    result = chain.locate("/photos/2.jpg")
    print(result.card())

A source is a callable, plain or `async`, that takes the photo's path. It may return None, (lat, lon), a mapping with
`lat`/`lon` or `latitude`/`longitude` (also below `coordinates`, as the guide's detectors answer), an Answer of
Sightline's or a Finding. What it raises is its own trouble: it is written down and the next one is asked.

The chain ends at the first finding whose confidence reaches `enough`, or whose coordinates can be trusted (EXIF,
surveyed, confirmed). If none does, the surest finding is the result, as what it is.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import os
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from producer_client.client import Sightline
from producer_client.compat import SOURCE, match
from producer_client.contract import Answer, Code, LocateReply, Provenance, check_coordinates, provenance_of
from producer_client.errors import BadRequest
from producer_client.fields import LAT, LON, METHOD, first
from producer_client.language import Language, explained, say, to_say
from producer_client.positions import COARSE_M, Position, at_default_point, of_image

log = logging.getLogger("CLIP")

#: Confidence at which the next source is not asked any more, as in the guide.
ENOUGH = 0.75
#: Columns between the edges of a card.
CARD_WIDTH = 37


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

    def __post_init__(self) -> None:
        if self.status is Status.FOUND:
            if self.lat is None or self.lon is None:
                raise BadRequest(Code.BAD_COORDINATES, f"{self.source} found something without lat and lon")
            check_coordinates(self.lat, self.lon)

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
            "provenance": None if self.provenance is None else self.provenance.value,
            "message": self.message,
            "details": None if self.details is None else dict(self.details),
            "took_ms": self.took_ms,
        }


@dataclass(frozen=True, slots=True)
class Source:
    """ask: a callable from a path to an answer (see above). priority: smaller ones are asked first. title: its name
    on the card. enough: the confidence that ends the chain here, if it is another one than the chain's."""

    name: str
    ask: Callable[[str], Any]
    priority: int = 100
    title: str = ""
    enough: float | None = None


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
            coordinates = {
                "latitude": best.lat,
                "longitude": best.lon,
                "source": best.source,
                "confidence": best.confidence,
                "provenance": None if best.provenance is None else best.provenance.value,
            }
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


class Chain:
    """Sources in the order of their priority. One per process is enough; threads may share it."""

    def __init__(self, sources: Iterable[Source], *, enough: float = ENOUGH) -> None:
        self.sources = sorted(sources, key=lambda source: source.priority)
        self.enough = enough
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise BadRequest(Code.BAD_REQUEST, f"two sources of one name among {', '.join(names)}")

    def locate(self, image_path: str | os.PathLike[str]) -> ChainResult:
        """Ask one source after the other. Not from within an event loop: await `alocate` there."""
        return asyncio.run(self.alocate(image_path))

    async def alocate(self, image_path: str | os.PathLike[str]) -> ChainResult:
        """As `locate`; sources that are no coroutines run in a thread each."""
        path = os.fspath(image_path)
        findings: list[Finding] = []
        ended = False
        for source in self.sources:
            if ended:
                findings.append(Finding(source.name, Status.NOT_ASKED, title=source.title))
                continue
            finding = await _ask(source, path)
            findings.append(finding)
            log.info(
                "CLIP: source %s: %s%s in %.0f ms",
                finding.source,
                finding.status.value,
                f" ({finding.message})" if finding.message else "",
                finding.took_ms,
            )
            enough = self.enough if source.enough is None else source.enough
            ended = finding.status is Status.FOUND and (finding.trusted or (finding.confidence or 0.0) >= enough)
        found = [finding for finding in findings if finding.status is Status.FOUND]
        # The first of equals: max keeps the order of the chain.
        best = max(found, key=lambda finding: (finding.trusted, finding.confidence or 0.0), default=None)
        return ChainResult(best, findings)


def sightline(client: Sightline, *, priority: int = 3, **options: Any) -> Source:
    """Sightline itself, under the name that the guide gives this step. options: of `Sightline.locate`."""
    return Source(
        SOURCE,
        lambda path: client.locate(path=str(Path(path).absolute()), **options),
        priority=priority,
        title="🖼️ CLIP Image Similarity",
    )


def exif_gps(*, priority: int = 1) -> Source:
    """The position that the camera wrote into the file. Reads it with the caller's Pillow, and as the workers do.

    One with a stated error of more than COARSE_M is a `fallback` and ends no chain. `details` say what it was read
    from and its error in metres, or in `position_issue` why there is none (contract.PositionIssue).
    Raises ImportError where Pillow is not installed: the client brings celery and msgspec alone.
    """
    images = importlib.import_module("PIL.Image")

    def ask(path: str) -> Finding:
        try:
            with images.open(path) as image:
                said = of_image(image)
        except images.UnidentifiedImageError:
            return Finding("exif_gps", Status.NOTHING, message="not an image")
        if not isinstance(said, Position):
            return Finding("exif_gps", Status.NOTHING, details={"position_issue": said.value})
        coarse = said.error_m is not None and said.error_m > COARSE_M
        provenance = Provenance.FALLBACK if coarse else Provenance.EXIF_GPS
        details = {"position_from": said.origin.value, "position_error_m": said.error_m}
        return Finding("exif_gps", Status.FOUND, said.lat, said.lon, provenance=provenance, details=details)

    return Source("exif_gps", ask, priority=priority, title="📷 EXIF GPS")


async def _ask(source: Source, path: str) -> Finding:
    started = time.perf_counter()
    try:
        if inspect.iscoroutinefunction(source.ask):
            said = await source.ask(path)
        else:
            said = await asyncio.to_thread(source.ask, path)
            if inspect.isawaitable(said):
                said = await said
        finding = _finding(source, said)
    except Exception as exc:  # others' code: a detector, which raises what it likes; written down as its finding
        log.warning("CLIP: source %s failed", source.name, exc_info=exc)
        finding = Finding(source.name, Status.FAILED, message=f"{type(exc).__name__}: {exc}")
    took_ms = round((time.perf_counter() - started) * 1000, 1)
    return replace(finding, source=source.name, title=source.title or source.name, took_ms=took_ms)


def _finding(source: Source, said: Any) -> Finding:
    if isinstance(said, Finding):
        return said
    if isinstance(said, LocateReply):
        said = said.answer
    if isinstance(said, Answer):
        details = {"all_matches": [match(hit) for hit in said.evidence], "radius_m": said.radius_m}
        if said.point is None:
            return Finding(source.name, Status.NOTHING, message=explained(said), details=details, answer=said)
        return Finding(
            source.name,
            Status.FOUND,
            said.point.lat,
            said.point.lon,
            said.confidence,
            Provenance.DERIVED,
            explained(said),
            details=details,
            answer=said,
        )
    if isinstance(said, Mapping):
        return _from_mapping(source, said)
    if isinstance(said, tuple) and len(said) == 2:
        return Finding(source.name, Status.FOUND, float(said[0]), float(said[1]), provenance=Provenance.DERIVED)
    if not said:
        return Finding(source.name, Status.NOTHING)
    raise TypeError(f"source {source.name} answered with {type(said).__name__}; see producer_client.sources")


def _from_mapping(source: Source, said: Mapping[str, Any]) -> Finding:
    inner = said.get("coordinates") or said
    lat, lon = first(inner, LAT), first(inner, LON)
    if said.get("success") is False or lat is None or lon is None:
        return Finding(source.name, Status.NOTHING, message=str(said.get("message") or said.get("error") or ""))
    confidence, method = inner.get("confidence"), first(inner, METHOD)
    return Finding(
        source.name,
        Status.FOUND,
        float(lat),
        float(lon),
        None if confidence is None else float(confidence),
        provenance_of(None if method is None else str(method), {}),
        str(said.get("message") or ""),
        details=said,
    )


# ----------------------------------------------------------------------------------------------- the card

_STATUSES: Mapping[Status, str] = {
    Status.FOUND: to_say("✅ Found"),
    Status.NOTHING: to_say("➖ Nothing found"),
    Status.FAILED: to_say("❌ Failed"),
}
_CONFIDENCE = to_say("Confidence: {share:.0%}")


def _said(finding: Finding, language: Language) -> list[str]:
    message = finding.message if finding.answer is None else explained(finding.answer, language)
    lines = [finding.title or finding.source, say(_STATUSES[finding.status], language)]
    matches = (finding.details or {}).get("all_matches")
    if finding.status is Status.FOUND and matches:
        lines += [say("A similar building was found", language), f"(similarity: {matches[0]['similarity']:.2f})"]
    elif message:
        lines += _wrapped(message)
    if finding.confidence is not None:
        lines.append(say(_CONFIDENCE, language, share=finding.confidence))
    return lines + _error(finding, language)


def _result(best: Finding | None, language: Language) -> list[str]:
    lines = [say("🎯 RESULT:", language)]
    if best is None:
        return [*lines, say("No source knows where it was taken", language)]
    lines.append(say("Source: {name}", language, name=best.source))
    if best.confidence is not None:
        lines.append(say(_CONFIDENCE, language, share=best.confidence))
    lines.append(say("Coordinates: {lat:.6f}, {lon:.6f}", language, lat=best.lat, lon=best.lon))
    return lines + _error(best, language)


def _error(finding: Finding, language: Language) -> list[str]:
    error_m = (finding.details or {}).get("position_error_m")
    known = finding.status is Status.FOUND and isinstance(error_m, int | float)
    return [say("Error, as the camera states it: {error_m:.0f} m", language, error_m=error_m)] if known else []


def _wrapped(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and _columns(lines[-1]) + 1 + _columns(word) > CARD_WIDTH - 2:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _row(text: str, edge: str) -> str:
    return f"{edge} {text}{' ' * max(0, CARD_WIDTH - 1 - _columns(text))}{edge}"


def _columns(text: str) -> int:
    """Columns of a terminal: symbols are two wide, and so is what a variation selector makes a symbol."""
    return sum(
        0 if unicodedata.combining(c) else 1 if c == "\ufe0f" else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
