"""What the generation that is searched has taught of evidence: as it is kept beside it, and at hand in a process."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from producer_client.contract import Reason
from worker.core.index_ports import PublishedGenerations
from worker.place.calibration import Calibration, Judged
from worker.place.exam import Examined
from worker.place.promised import TooFew

log = logging.getLogger(__name__)

#: Seconds after which what is kept is looked up again: a restored database gives numbers of generations out anew.
FRESH_S = 60.0


class Learning:
    """Shared by threads: whoever is second reads the same again. geometry: whether pictures are compared here."""

    def __init__(self, published: PublishedGenerations, *, geometry: bool) -> None:
        self._published = published
        self._geometry = geometry
        self._held: tuple[int, float, Calibration | TooFew | None] = (0, float("-inf"), None)

    def of(self, generation: int | None) -> Calibration | TooFew | None:
        """None where nothing was ever asked, as before the first rebuild. Raises Transient."""
        if generation is None:
            return None
        number, since, learnt = self._held
        now = time.monotonic()
        if number != generation or now - since > FRESH_S:
            learnt = self._read(generation)
            self._held = (generation, now, learnt)
        return learnt

    def calibration(self, generation: int | None) -> Calibration | None:
        learnt = self.of(generation)
        return learnt if isinstance(learnt, Calibration) else None

    def _read(self, generation: int) -> Calibration | TooFew | None:
        kept = self._published.learnt(generation)
        if kept is None:
            return None
        try:
            learnt = from_json(kept)
            if isinstance(learnt, Calibration) and kept.get("geometry") is not self._geometry:
                raise ValueError("SIGHTLINE_RUNGS has been changed since: the next rebuild learns anew")
        except ValueError as exc:
            log.warning("calibration is not used", extra={"generation": generation, "why": str(exc)})
            return None
        return learnt


def as_learnt(found: Sequence[Examined], learnt: Calibration | TooFew, judged: Sequence[Judged]) -> list[Examined]:
    """As they would be answered by what was learnt at other places; as they are where nothing was."""
    if isinstance(learnt, TooFew):
        return list(found)
    return [_as_judged(one, answer, learnt) for one, answer in zip(found, judged, strict=True)]


def _as_judged(best: Examined, judged: Judged, learnt: Calibration) -> Examined:
    strength = judged.case.strength
    if strength is None or (learnt.unproven is not None and not strength.compared):
        # By the votes, which nothing that was learnt has a say in.
        return best
    return replace(
        best,
        located=judged.answered,
        reason=None if judged.answered else best.reason or Reason.UNVERIFIED.value,
        radius_m=round(judged.radius_m, 1),
        confidence=judged.confidence,
    )


def to_json(learnt: Calibration | TooFew, *, geometry: bool) -> dict[str, Any]:
    """geometry: whether pictures were compared, without which evidence is worth something else."""
    if isinstance(learnt, Calibration):
        return {"calibration": learnt.to_json(), "geometry": geometry}
    return {"missing": learnt.missing, "message": learnt.message}


def from_json(kept: Mapping[str, Any]) -> Calibration | TooFew:
    """Raises ValueError for what is neither, or of another release."""
    if "calibration" in kept:
        return Calibration.from_json(kept["calibration"])
    try:
        return TooFew(int(kept["missing"]), str(kept["message"]))
    except (KeyError, TypeError) as exc:
        raise ValueError(f"neither a calibration nor why there is none: {exc!r}") from exc
