"""Wrong positions planted among known photos, several times over: how many are found, and how many good ones suspected.

Each planting is a library of its own, which takes its vectors and keypoints from that of the same photos.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from benchmarks.ladder import LADDER, Placed, Shelf
from benchmarks.lookalikes import Known, with_wrong_ones

#: What is looked for hangs on nothing that is learnt, and learning takes long.
LOOKED_FOR = {"rungs": tuple(rung for rung in LADDER if rung != "calibration")}


def planted(shelf: Shelf, known: Sequence[Known], seeds: Sequence[int]) -> dict[str, Any]:
    """shelf: a library of these photos. Shares of all that was planted, and of all good photos; and by the way of being
    wrong how many were found, of how many."""
    found, wrong = Counter[str](), Counter[str]()
    good = suspended = 0
    for seed in seeds:
        photos = with_wrong_ones(known, seed)
        suspected = _suspected(shelf, photos, f"planted_{seed}")
        wrong.update(photo.wrong for photo in photos if photo.wrong)
        found.update(photo.wrong for photo in photos if photo.wrong and str(photo.path) in suspected)
        good += sum(not photo.wrong for photo in photos)
        suspended += sum(not photo.wrong and str(photo.path) in suspected for photo in photos)
    return {
        "planted_found": round(found.total() / wrong.total(), 4),
        "good_suspended": round(suspended / good, 4),
        "planted": {way: [found[way], wrong[way]] for way in sorted(wrong)},
    }


def _suspected(shelf: Shelf, photos: Sequence[Known], name: str) -> set[str]:
    """Paths."""
    with closing(shelf.another(name, **LOOKED_FOR)) as own:
        own.take_embeddings_of(shelf)
        own.add(Placed(photo.path, photo.lat, photo.lon) for photo in photos)
        own.rebuild()
        return own.suspected()
