"""Distances and centres on the Earth. WGS 84 degrees in, metres out."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Mean Earth radius (IUGG), metres. The sphere is within 0.6 % of the ellipsoid.
EARTH_RADIUS_M = 6_371_008.8
#: Degrees that a database may round away.
SAME_DEG = 1e-4


def distance_m(lat_a: float, lon_a: float, lat_b: float, lon_b: float) -> float:
    """Great-circle distance by the haversine formula, which stays exact for points metres apart."""
    phi_a, phi_b = math.radians(lat_a), math.radians(lat_b)
    half_lat = math.sin((phi_b - phi_a) / 2)
    half_lon = math.sin(math.radians(lon_b - lon_a) / 2)
    h = half_lat**2 + math.cos(phi_a) * math.cos(phi_b) * half_lon**2
    return 2 * EARTH_RADIUS_M * math.asin(min(1.0, math.sqrt(h)))


def same_point(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether one (lat, lon) is the other as a column of four decimals, or of single precision, keeps it: 11 m."""
    return max(abs(a[0] - b[0]), abs(a[1] - b[1])) < SAME_DEG


def weighted_centre(points: Sequence[tuple[float, float]], weights: Sequence[float]) -> tuple[float, float]:
    """Mean position (lat, lon) as the mean of unit vectors, so that it holds across the date line."""
    x = y = z = 0.0
    for (lat, lon), weight in zip(points, weights, strict=True):
        phi, lam = math.radians(lat), math.radians(lon)
        x += weight * math.cos(phi) * math.cos(lam)
        y += weight * math.cos(phi) * math.sin(lam)
        z += weight * math.sin(phi)
    return math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))


def bounding_box(lat: float, lon: float, radius_m: float) -> tuple[float, float, list[tuple[float, float]]]:
    """The box around a circle: (lat_min, lat_max, longitude ranges).

    Two longitude ranges where the circle crosses the date line, the whole circle of longitudes where it holds a
    pole (Matuschek, "Finding points within a distance of a latitude/longitude", 2010).
    """
    angle = radius_m / EARTH_RADIUS_M
    lat_min, lat_max = lat - math.degrees(angle), lat + math.degrees(angle)
    if lat_min <= -90 or lat_max >= 90 or angle >= math.pi / 2:
        return max(lat_min, -90.0), min(lat_max, 90.0), [(-180.0, 180.0)]
    width = math.degrees(math.asin(min(1.0, math.sin(angle) / math.cos(math.radians(lat)))))
    west, east = lon - width, lon + width
    if west < -180:
        return lat_min, lat_max, [(west + 360, 180.0), (-180.0, east)]
    if east > 180:
        return lat_min, lat_max, [(west, 180.0), (-180.0, east - 360)]
    return lat_min, lat_max, [(west, east)]
