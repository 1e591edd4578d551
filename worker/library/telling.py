"""What of a reply is told, and to whom: coordinates rounded for some, nothing of some areas (docs/decisions/0056).

Every reply goes through here on its way out, whatever it answers. See worker.disclosure; unless the settings say
something, nothing is changed.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

from msgspec.structs import replace

from producer_client.contract import Answer, Code, Conflict, Message, Near, Point, Reason
from worker.core.area import holds, reaches
from worker.core.geo import distance_m
from worker.disclosure import OTHERS
from worker.errors import Permanent
from worker.library.locating import for_former
from worker.place.rule import abstain
from worker.settings import Settings

#: Metres of a degree of latitude, on the sphere of worker.core.geo.
DEGREE_M = distance_m(0.0, 0.0, 1.0, 0.0)
WITHHELD = abstain(Reason.WITHHELD, "its place lies in an area of which nothing is told (SIGHTLINE_WITHHELD_AREAS)", [])
#: What may name a place in words of its writer's, or have its coordinates.
FREE = ("address", "metadata")

R = TypeVar("R", bound=Message)


class Telling:
    """producer: id of the key that a message was signed with, empty where it was not."""

    def __init__(self, settings: Settings) -> None:
        self._rounded_for = settings.rounded_for
        self._areas = settings.withheld_areas
        self._withheld = WITHHELD if settings.key_prefix else for_former(WITHHELD)

    def check(self, near: Near | None, producer: str) -> None:
        """Raises Permanent(withheld) for a circle that would tell by what lies in it where exactly that lies."""
        if near is None:
            return
        if self._decimals(producer) is not None:
            raise Permanent(
                Code.WITHHELD,
                "near is not for whom coordinates are rounded: what a small circle holds has its position told "
                "(SIGHTLINE_ROUNDED_FOR). Ask without it",
            )
        if any(reaches(near, area) for area in self._areas):
            raise Permanent(
                Code.WITHHELD,
                "this circle reaches into an area of which nothing is told (SIGHTLINE_WITHHELD_AREAS): ask for a "
                "smaller one, or without near",
            )

    def told(self, reply: R, producer: str) -> R:
        """The reply as it may leave. It is decided by exact positions what is withheld."""
        decimals = self._decimals(producer)
        if decimals is None and not self._areas:
            return reply
        told: R = self._told(reply, decimals)
        return told

    # ---------------------------------------------------------------------------------------- below

    def _told(self, value: Any, decimals: int | None) -> Any:
        """None instead of a point that is withheld, and of a conflict, which has no other."""
        match value:
            case list():
                parts = [self._told(part, decimals) for part in value]
                return [part for part in parts if part is not None]
            case Answer():
                return self._answer(value, decimals)
            case Point() | Conflict() if self._is_withheld(value):
                return None
            case Message():
                return self._plain(value, decimals)
        return value

    def _plain(self, value: Message, decimals: int | None) -> Message:
        """Of a struct by the names of its fields, so that a later one is covered as well."""
        fields = value.__struct_fields__
        told = {name: self._told(getattr(value, name), decimals) for name in fields}
        if not {"lat", "lon"} <= set(fields):
            return replace(value, **told)
        withheld = self._is_withheld(value)
        if withheld or decimals is not None:
            told |= dict.fromkeys(set(FREE) & set(fields))
        if withheld:
            told |= dict.fromkeys({"lat", "lon", "position_error_m"} & set(fields))
        elif decimals is not None and told["lat"] is not None and told["lon"] is not None:
            told["lat"], told["lon"] = rounded(told["lat"], told["lon"], decimals)
            if told.get("position_error_m") is not None:
                told["position_error_m"] += farthest_m(told["lat"], decimals)
        if isinstance(value, Conflict) and decimals is not None and told["point"] is not None:
            told["distance_m"] = distance_m(told["lat"], told["lon"], told["point"].lat, told["point"].lon)
        if isinstance(value, Conflict) and told["point"] is None:
            told["distance_m"] = None
        return replace(value, **told)

    def _answer(self, answer: Answer, decimals: int | None) -> Answer:
        if answer.point is not None and self._is_withheld(answer.point):
            return replace(self._withheld, timings_ms=answer.timings_ms)
        # Those that speak for one place lie near each other: one that is told would say where the others are.
        evidence = [hit for hit in answer.evidence if not self._is_withheld(hit)]
        contrary = None if answer.contrary is None or self._is_withheld(answer.contrary) else answer.contrary
        if decimals is None and len(evidence) == len(answer.evidence) and contrary is answer.contrary:
            return answer
        # Sentences say how far places lie apart, and photos by their ids.
        message = "more is not told here (SIGHTLINE_ROUNDED_FOR, SIGHTLINE_WITHHELD_AREAS)"
        told = replace(answer, evidence=self._told(evidence, decimals), contrary=self._told(contrary, decimals))
        if decimals is None or answer.point is None:
            return replace(told, message=message)
        point = self._told(answer.point, decimals)
        height_m, width_m = cell_m(point.lat, decimals)
        message = (
            f"its coordinates are told in cells of {height_m:.0f} x {width_m:.0f} m here (SIGHTLINE_ROUNDED_FOR), and "
            "more is not told"
        )
        # What is known of distances from the exact point says nothing of those from the rounded one.
        radius_m = None if answer.radius_m is None else answer.radius_m + farthest_m(point.lat, decimals)
        return replace(told, point=point, radius_m=radius_m, within={}, message=message)

    def _is_withheld(self, at: Any) -> bool:
        """at: with lat and lon, which may be None."""
        return at.lat is not None and at.lon is not None and any(holds(area, at.lat, at.lon) for area in self._areas)

    def _decimals(self, producer: str) -> int | None:
        return self._rounded_for.get(producer, self._rounded_for.get(OTHERS))


def rounded(lat: float, lon: float, decimals: int) -> tuple[float, float]:
    """The middle of the cell of a grid that a position lies in, degrees: the same for all that lie in it, however often
    they are asked about. None is -0."""
    return round(lat, decimals) + 0.0, round(lon, decimals) + 0.0


def cell_m(lat: float, decimals: int) -> tuple[float, float]:
    """Height and width of a cell, metres, where it is widest. lat: of its middle, degrees."""
    side = 10.0**-decimals
    nearest = max(0.0, abs(lat) - side / 2)
    return DEGREE_M * side, DEGREE_M * side * math.cos(math.radians(nearest))


def farthest_m(lat: float, decimals: int) -> float:
    """How far a position may lie from the middle of its cell, metres: half its diagonal. lat: as in cell_m."""
    return math.hypot(*cell_m(lat, decimals)) / 2
