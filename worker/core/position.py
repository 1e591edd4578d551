"""Which position of a photo holds, of all that are said of it: the strongest, and of equals the newest.

Knows nothing of where they are said: rows, messages and files are the storage's.
"""

from __future__ import annotations

from dataclasses import dataclass

from producer_client.contract import Provenance

#: Latitude and longitude in degrees, and how they came to be.
Known = tuple[float, float, Provenance]
#: Degrees that a column of the backend's may round away: about a metre.
ROUNDED_DEG = 1e-5


@dataclass(frozen=True, slots=True)
class Held:
    """What the index knows of a photo. `row_point`: what the row said when a caller's position was taken instead of its
    own; None where the position is the row's or the file's."""

    position: Known | None
    from_exif: bool = False
    row_point: str | None = None


def is_same(a: Known | None, b: Known | None) -> bool:
    if a is None or b is None:
        return a is b
    return a[2] is b[2] and abs(a[0] - b[0]) <= ROUNDED_DEG and abs(a[1] - b[1]) <= ROUNDED_DEG


def may_replace(old: Known | None, new: Known) -> bool:
    """Coordinates give way to stronger ones, and to newer ones of their own strength."""
    return old is None or new[2].strength >= old[2].strength


def settle(*, row: Known | None, row_point: str, held: Held, exif: Known | None, given: Known | None) -> Held:
    """What is known of a photo from now on.

    row, row_point: what its row says now, as a position and as the backend wrote it. held: what was known. exif: what
    its file says. given: what the message that is being stored says, which is the newest.
    """
    best = Held(row)
    if held.position is not None and held.row_point is not None:
        # What a caller said is newer than the row, unless the row has changed since.
        news = held.row_point != row_point
        stronger = row is None or held.position[2].strength > row[2].strength
        if stronger or (not news and may_replace(row, held.position)):
            best = held
    if exif is not None and (best.position is None or exif[2].strength > best.position[2].strength):
        best = Held(exif, from_exif=True)
    if given is not None and may_replace(best.position, given):
        best = Held(row) if is_same(row, given) else Held(given, row_point=row_point)
    return best
