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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from producer_client.client import Sightline
from producer_client.compat import SOURCE, match
from producer_client.contract import Answer, Code, LocateReply, Provenance, provenance_of
from producer_client.errors import BadRequest, PhotoRefused, SightlineError
from producer_client.fields import LAT, LON, METHOD, first
from producer_client.findings import ChainResult, Finding, Status
from producer_client.language import Language, explained
from producer_client.positions import COARSE_M, Position, of_image

__all__ = ["ENOUGH", "Chain", "ChainResult", "Finding", "Source", "Status", "exif_gps", "sightline"]

log = logging.getLogger("CLIP")

#: Confidence at which the next source is not asked any more, as in the guide.
ENOUGH = 0.75


@dataclass(frozen=True, slots=True)
class Source:
    """ask: a callable from a path to an answer (see above). priority: smaller ones are asked first. title: its name
    on the card. enough: the confidence that ends the chain here, if it is another one than the chain's."""

    name: str
    ask: Callable[[str], Any]
    priority: int = 100
    title: str = ""
    enough: float | None = None


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
            log.log(
                logging.WARNING if finding.status is Status.FAILED else logging.INFO,
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
    try:
        images = importlib.import_module("PIL.Image")
    except ModuleNotFoundError as exc:
        raise ImportError("exif_gps() reads photos with Pillow, which is not installed: pip install pillow") from exc

    def ask(path: str) -> Finding:
        try:
            with images.open(path) as image:
                said = of_image(image)
        except images.UnidentifiedImageError:
            return Finding("exif_gps", Status.NOTHING, message="not an image", code=Code.NOT_AN_IMAGE)
        except FileNotFoundError as exc:
            raise PhotoRefused(Code.NOT_FOUND, f"{path} is not there", path) from exc
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
    except SightlineError as exc:
        finding = Finding(source.name, Status.FAILED, message=exc.message, code=exc.code)
    except OSError as exc:
        # The file, or a service that is away: the sentence says it, and where in the code it was met helps nobody.
        finding = Finding(source.name, Status.FAILED, message=str(exc))
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
        # A log and a program get it in English, a card asks again.
        message = explained(said, Language.EN)
        if said.point is None:
            return Finding(source.name, Status.NOTHING, message=message, details=details, answer=said)
        return Finding(
            source.name,
            Status.FOUND,
            said.point.lat,
            said.point.lon,
            said.confidence,
            Provenance.DERIVED,
            message,
            details=details,
            answer=said,
        )
    if isinstance(said, Mapping):
        return _from_mapping(source, said)
    if isinstance(said, tuple | list) and len(said) == 2:
        return _from_mapping(source, {"coordinates": said})
    if not said:
        return Finding(source.name, Status.NOTHING)
    raise TypeError(f"source {source.name} answered with {type(said).__name__}; see producer_client.sources")


def _from_mapping(source: Source, said: Mapping[str, Any]) -> Finding:
    inner = said.get("coordinates") or said
    if isinstance(inner, tuple | list) and len(inner) == 2:
        inner = {"lat": inner[0], "lon": inner[1]}
    if not isinstance(inner, Mapping):
        raise TypeError(f"source {source.name} answered with coordinates as {type(inner).__name__}")
    lat, lon = first(inner, LAT), first(inner, LON)
    if said.get("success") is False or lat is None or lon is None:
        return Finding(source.name, Status.NOTHING, message=str(said.get("message") or said.get("error") or ""))
    # What stands beside the coordinates is said of them, too.
    confidence, method = (_said_of(inner, said, names) for names in (("confidence",), METHOD))
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


def _said_of(inner: Mapping[str, Any], beside: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    found = first(inner, names)
    return first(beside, names) if found is None else found
