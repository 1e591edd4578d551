"""Files that lie beside a photo and say where it was taken: their names, and what is in them. Opens no file.

An `.xmp` of Lightroom, darktable and the like, and the JSON of Google Takeout, which takes positions out of what it
exports. How Takeout names it was found by its users (github.com/ente/ente/pull/4956): the photo's name and
`.supplemental-metadata`, formerly nothing, cut to 46 characters, then `.json`. Of photos whose names would be the same
the second is called `IMG(1).jpg`; its JSON has the `(1)` behind the cut: `IMG.jpg.supplemental-metadata(1).json`.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePath

from producer_client.contract import PositionFrom, PositionIssue
from producer_client.positions import MAX_XMP_BYTES, Reading, from_degrees, from_xmp
from worker.spelling import composed

#: Larger ones are not read. A JSON of Takeout has some kB.
MAX_BYTES = MAX_XMP_BYTES
_CUT_AT = 46
_NUMBERED = re.compile(r"(?P<stem>.+)(?P<number>\(\d+\))(?P<suffix>\.[^.]*)?")


def names(photo: str) -> list[tuple[PositionFrom, str]]:
    """Names that a sidecar of the photo of this name may have, the one that is surely its own first.

    Never one that belongs to another photo: `IMG.jpg.json` is not that of `IMG(1).jpg`.
    """
    stem = PurePath(photo).stem
    xmp = dict.fromkeys(f"{name}{suffix}" for name in (photo, stem) for suffix in (".xmp", ".XMP"))
    takeout = []
    # A photo may have come to Takeout with a number in its name: then nothing is moved. What is cut is composed.
    whole = composed(photo)
    for name, number in dict.fromkeys([_apart(whole), (whole, "")]):
        takeout += [f"{(name + more)[:_CUT_AT]}{number}.json" for more in (".supplemental-metadata", "")]
    return [(PositionFrom.XMP_SIDECAR, name) for name in xmp] + [
        (PositionFrom.TAKEOUT, name) for name in dict.fromkeys(takeout)
    ]


def read(origin: PositionFrom, photo: str, content: bytes) -> Reading:
    """What a sidecar of the photo of this name says; empty content stands for what may not be read."""
    if not content:
        return PositionIssue.UNREADABLE
    return from_xmp(content, origin) if origin is PositionFrom.XMP_SIDECAR else _takeout(photo, content)


def _takeout(photo: str, content: bytes) -> Reading:
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        return PositionIssue.UNREADABLE
    if not isinstance(said, dict):
        return PositionIssue.UNREADABLE
    name, _ = _apart(composed(photo))
    # A cut name may be that of several photos; the title is whole.
    if len(name) > _CUT_AT and not _alike(str(said.get("title") or ""), name[:_CUT_AT]):
        return PositionIssue.ABSENT
    place = said.get("geoData")
    if not isinstance(place, dict):
        return PositionIssue.ABSENT
    return from_degrees(place.get("latitude"), place.get("longitude"), PositionFrom.TAKEOUT)


def _apart(photo: str) -> tuple[str, str]:
    """`IMG(1).jpg` as (`IMG.jpg`, `(1)`); every other name with nothing."""
    found = _NUMBERED.fullmatch(photo)
    return (found["stem"] + (found["suffix"] or ""), found["number"]) if found else (photo, "")


def _alike(title: str, start: str) -> bool:
    """Takeout puts underscores for what file systems do not take."""

    def plain(text: str) -> str:
        return re.sub(r"\W", "_", composed(text))

    # The cut may fall into the suffix, which a photo has from its own format and not from its title.
    stem = plain(PurePath(start).stem if "." in start else start)
    return plain(title).startswith(stem)
