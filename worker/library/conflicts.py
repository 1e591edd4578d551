"""Conflicts as people settle them: which photos something contradicts, and whose position holds."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from producer_client import contract
from producer_client.contract import Code, Point, Refused, RejectItem
from worker.core.conflict import KnownConflict, Rejection
from worker.core.geo import distance_m
from worker.core.ports import Entries, Verdicts
from worker.core.types import Entry
from worker.library.locating import counted
from worker.library.photos import check_ids, unknown
from worker.settings import Settings

log = logging.getLogger(__name__)


class Conflicts:
    """List, confirm, reject."""

    def __init__(self, settings: Settings, *, entries: Entries, verdicts: Verdicts) -> None:
        self._settings = settings
        self._entries = entries
        self._verdicts = verdicts

    def known(self, request: contract.Conflicts) -> contract.ConflictsReply:
        """A page of them, by rising id."""
        check_ids(request.photo_ids or ())
        limit = request.limit
        found = self._verdicts.known(
            request.photo_ids, request.conflict_state, after_id=request.after_id, limit=limit + 1
        )
        return contract.ConflictsReply(
            conflicts=[_shown(one) for one in found[:limit]],
            open=self._verdicts.count_open(),
            after_id=found[limit - 1].photo_id if len(found) > limit else None,
        )

    def confirm_many(self, photo_ids: Sequence[int]) -> contract.ConfirmReply:
        """These are witnesses again, and are not asked about again unless position or content change. Twice is no
        error."""
        check_ids(photo_ids)
        done = self._verdicts.confirm(photo_ids)
        held = self._entries.get(done)
        log.info("positions confirmed", extra={"photos": sum(isinstance(seq, int) for seq in done.values())})
        return contract.ConfirmReply(
            outcomes=[
                _refused(photo_id, seq)
                if isinstance(seq := done[photo_id], Code)
                else contract.Confirmed(f"photo {photo_id}", photo_id, seq, *self._counts_as(held.get(photo_id)))
                for photo_id in dict.fromkeys(photo_ids)
            ]
        )

    def reject_many(self, items: Sequence[RejectItem | Refused]) -> contract.RejectReply:
        """These are no witnesses as long as they lie where they do, or lie where a person says. Twice is no error."""
        wanted: dict[int, Rejection] = {}
        twice: dict[str, Refused] = {}
        for item in items:
            if isinstance(item, Refused):
                continue
            if item.photo_id in wanted:
                message = f"photo {item.photo_id} occurs twice in one message"
                twice[item.ref] = Refused(item.ref, Code.BAD_REQUEST, message)
                continue
            point = None if item.lat is None or item.lon is None else (item.lat, item.lon)
            wanted[item.photo_id] = Rejection(item.photo_id, point)
        done = self._verdicts.reject(list(wanted.values())) if wanted else {}
        held = self._entries.get(done)
        log.info("positions rejected", extra={"photos": sum(isinstance(seq, int) for seq in done.values())})
        outcomes: list[contract.Rejected | Refused] = []
        for item in items:
            if isinstance(item, Refused):
                outcomes.append(item)
            elif item.ref in twice:
                outcomes.append(twice[item.ref])
            elif isinstance(seq := done[item.photo_id], Code):
                outcomes.append(_refused(item.photo_id, seq, item.ref))
            else:
                now = self._counts_as(held.get(item.photo_id))
                outcomes.append(contract.Rejected(item.ref, item.photo_id, seq, *now))
        return contract.RejectReply(outcomes=outcomes)

    # ---------------------------------------------------------------------------------------- below

    def _counts_as(
        self, entry: Entry | None
    ) -> tuple[float | None, float | None, contract.Provenance | None, contract.PositionIssue | None]:
        """Where a photo lies now, and what that counts as."""
        if entry is None:
            return None, None, None, None
        return entry.lat, entry.lon, *counted(entry, self._settings)


def _shown(one: KnownConflict) -> contract.Conflict:
    return contract.Conflict(
        photo_id=one.photo_id,
        path=one.path,
        lat=one.lat,
        lon=one.lon,
        provenance=one.provenance,
        doubt=one.doubt,
        conflict_state=one.state,
        since=one.found_at,
        photo_ids=one.others,
        point=None if one.point is None else Point(*one.point),
        distance_m=None if one.point is None else round(distance_m(one.lat, one.lon, *one.point), 1),
        mistake=one.mistake,
        settled_at=one.settled_at,
    )


def _refused(photo_id: int, code: Code, ref: str = "") -> Refused:
    """Why nothing was done."""
    ref = ref or f"photo {photo_id}"
    match code:
        case Code.NO_CONFLICT:
            message = (
                f"nothing contradicts the position of photo {photo_id}, and nothing was done; to give it another "
                "position, add it with that"
            )
        case Code.BAD_COORDINATES:
            message = f"photo {photo_id} lies there already, and nothing was done; confirm it where that is right"
        case _:
            return unknown(photo_id, ref)
    return Refused(ref, code, message)
