"""Adds photos by the client of the release that PYTHONPATH names; run by its path, as that release knows no such test.

On standard input JSON: the broker's URL, photos as [path, latitude, longitude], seconds to wait (0: not at all).
On standard output JSON: paths by what became of them.
"""

from __future__ import annotations

import json
import sys

from producer_client import NewPhoto, Photo, Sightline
from producer_client.contract import Provenance


def main() -> None:
    broker_url, photos, timeout_s = json.load(sys.stdin)
    items = [
        NewPhoto(ref=path, photo=Photo(path=path), lat=lat, lon=lon, provenance=Provenance.SURVEYED)
        for path, lat, lon in photos
    ]
    with Sightline(broker_url) as client:
        outcomes = client.add_many(items, timeout_s=timeout_s)
    became: dict[str, list[str]] = {}
    for outcome in outcomes:
        became.setdefault(type(outcome).__name__, []).append(outcome.ref)
    json.dump(became, sys.stdout)


if __name__ == "__main__":
    main()
