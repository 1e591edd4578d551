"""Whether a position lies in an area, or a circle reaches into it. A border belongs to its area."""

from __future__ import annotations

from producer_client.contract import Near
from worker.areas import Area, Box
from worker.core.geo import bounding_box, distance_m


def holds(area: Area, lat: float, lon: float) -> bool:
    """lat, lon: degrees, WGS 84."""
    if not isinstance(area, Box):
        return distance_m(area.lat, area.lon, lat, lon) <= area.radius_m
    if not area.south <= lat <= area.north:
        return False
    # 180 and -180 are one meridian, and a pole lies on all of them.
    return abs(lat) == 90 or any(_spans(area, same) for same in ((180.0, -180.0) if abs(lon) == 180 else (lon,)))


def reaches(near: Near, area: Area) -> bool:
    """Whether the circle has anything of the area; of a box, whether its own box has, which may be a little more."""
    if not isinstance(area, Box):
        return distance_m(area.lat, area.lon, near.lat, near.lon) <= area.radius_m + near.radius_m
    south, north, ranges = bounding_box(near.lat, near.lon, near.radius_m)
    if north < area.south or area.north < south:
        return False
    spans = [(area.west, area.east)] if area.west <= area.east else [(area.west, 180.0), (-180.0, area.east)]
    # 180 and -180 are one meridian, and a pole lies on all of them.
    ends = {edge for span in spans for edge in span} & {180.0, -180.0}
    meets = any({180.0, -180.0} & set(part) for part in ranges) and bool(ends)
    polar = max(abs(area.south), abs(area.north)) == 90 and (south == -90 or north == 90)
    return meets or polar or any(west <= b and a <= east for west, east in ranges for a, b in spans)


def _spans(box: Box, lon: float) -> bool:
    if box.west <= box.east:
        return box.west <= lon <= box.east
    return lon >= box.west or lon <= box.east
