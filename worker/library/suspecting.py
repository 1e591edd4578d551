"""The look for photos whose position something contradicts: each night, before an index is written of what is trusted.

What Postgres alone can tell is looked at whole each time. What their neighbours say of photos takes longer: a library
for which a night is too short is gone through over several, each going on where the last one ended. Knows no SQL.
"""

from __future__ import annotations

import logging
import time

from producer_client.contract import DEFAULT_THRESHOLD, ConflictState, Doubt, Hit, Near
from worker import points
from worker.core.conflict import Claim, Contradiction
from worker.core.geo import distance_m
from worker.core.index_ports import LiveIndex
from worker.core.ports import (
    Encoder,
    Entries,
    Log,
    Progress,
    PublishedGenerations,
    StoredConflicts,
    StoredKeypoints,
    StoredVectors,
)
from worker.core.types import Filter
from worker.core.vectors import Ids, Vector
from worker.library.finding import Finding
from worker.logs import ms_since
from worker.place.conflicts import ALONE_M, Sighting, elsewhere, of_one_picture, of_one_point
from worker.place.pictures import Look, is_copy
from worker.settings import Settings

log = logging.getLogger(__name__)

#: Photos of the whole library to which those of one point are compared.
OTHERS = 1_000
#: Seconds that are spent on photos' neighbours in one night.
BUDGET_S = 600.0
#: Photos that are looked up at once, and pictures that look like one of them: of its own place, and of all others.
PAGE, OWN_PLACE, OTHER_PLACES = 256, 4, 12
#: A photo is calm, and compared with nothing, where so many pictures that are most similar to it lie where it does.
CALM = 3
#: What is found by a photo's neighbours.
BY_LOOKS = (Doubt.SAME_PICTURE, Doubt.SEEN_ELSEWHERE, Doubt.GPS_ELSEWHERE)


class Suspecting:
    def __init__(
        self,
        settings: Settings,
        *,
        encoder: Encoder,
        entries: Entries,
        conflicts: StoredConflicts,
        vectors: StoredVectors,
        keypoints: StoredKeypoints,
        change_log: Log,
        published: PublishedGenerations,
        live: LiveIndex,
        budget_s: float = BUDGET_S,
    ) -> None:
        self._agree_m = settings.locate_agree_m
        self._in_memory = settings.index_exact_up_to
        self._encoder = encoder
        self._entries = entries
        self._conflicts = conflicts
        self._vectors = vectors
        self._keypoints = keypoints
        self._log = change_log
        self._published = published
        self._live = live
        self._finding = Finding(settings, encoder.model_key, entries=entries, index=live)
        self._budget_s = budget_s

    def look(self, note: Progress) -> int:
        """Suspend what is contradicted, and no more what is not any more; returns how many photos are suspended that
        were not before."""
        started = time.monotonic()
        note("conflicts", 0, 0)
        suspended = self._of_one_content() + self._of_one_point() + self._by_looks(note)
        log.info("conflicts looked for", extra={"suspended": suspended, "took_ms": ms_since(started)})
        return suspended

    # ---------------------------------------------------------------------------------------- below

    def _of_one_content(self) -> int:
        found = [
            one
            for claims in self._conflicts.of_one_content()
            for one in of_one_picture(claims, Doubt.SAME_CONTENT, agree_m=self._agree_m)
        ]
        return self._keep(found, Doubt.SAME_CONTENT)

    def _of_one_point(self) -> int:
        groups = self._conflicts.of_one_point(points.DEFAULT_PHOTOS)
        if not groups:
            return self._keep([], Doubt.SHARED_POINT)
        model_key = self._encoder.model_key
        with self._log.snapshot(model_key, self._encoder.dimension) as snapshot:
            everybody = snapshot.sample(OTHERS)
        found: list[Contradiction] = []
        for claims in groups:
            ids = {claim.photo_id for claim in claims}
            sampled = points.sample(claims)
            own = self._vectors.known({claim.content_sha256 for claim in sampled}, model_key)
            others = [
                row for photo_id, row in zip(everybody.ids, everybody.vectors, strict=True) if photo_id not in ids
            ]
            times = [claim.changed_at for claim in sampled]
            if points.is_default(len(claims), times, list(own.values()), others):
                found += of_one_point(claims)
        return self._keep(found, Doubt.SHARED_POINT)

    def _keep(self, found: list[Contradiction], doubt: Doubt) -> int:
        """These are all of this doubt that there are."""
        gone = self._conflicts.open_ids([doubt]) - {one.claim.photo_id for one in found}
        if gone:
            self._conflicts.withdraw(gone)
        return len(self._conflicts.suspend(found)) if found else 0

    def _by_looks(self, note: Progress) -> int:
        """What is contradicted by the photos that look like it, as far as this night goes."""
        started, model_key = time.monotonic(), self._encoder.model_key
        if self._published.serving(model_key) is None and self._entries.counts(model_key).indexed > self._in_memory:
            # Without a generation a live index holds every vector itself: the next night has one.
            return 0
        self._live.catch_up()
        self._live.settle()
        total = self._live.count
        suspended = self._examine_again(self._conflicts.open_ids(BY_LOOKS))
        after_id, done = self._conflicts.examined_up_to(model_key), 0
        while page := self._conflicts.claims(after_id=after_id, limit=PAGE):
            suspended += self._examine(page)
            after_id, done = page[-1].photo_id, done + len(page)
            note("conflicts", min(done, total), total)
            if time.monotonic() - started > self._budget_s:
                self._conflicts.note_examined(model_key, after_id)
                return suspended
        self._conflicts.note_examined(model_key, -1)
        return suspended

    def _examine_again(self, photo_ids: set[int]) -> int:
        """First of all: what holds no more is evidence for all others."""
        return self._examine(self._conflicts.claims_of(photo_ids)) if photo_ids else 0

    def _examine(self, claims: list[Claim]) -> int:
        contents = {claim.content_sha256 for claim in claims}
        vectors = self._vectors.known(contents, self._encoder.model_key)
        was_open = self._conflicts.open_ids(BY_LOOKS)
        found, calm = [], set()
        for claim in claims:
            by_others = claim.state is ConflictState.OPEN and claim.photo_id not in was_open
            if by_others or (vector := vectors.get(claim.content_sha256)) is None:
                continue
            if (one := self._contradicted(claim, vector)) is not None:
                found.append(one)
            elif claim.photo_id in was_open:
                calm.add(claim.photo_id)
        if calm:
            self._conflicts.withdraw(calm)
        return len(self._conflicts.suspend(found, model_key=self._encoder.model_key)) if found else 0

    def _contradicted(self, claim: Claim, vector: Vector) -> Contradiction | None:
        own = self._entries.ids_with_content(claim.content_sha256)
        known = self._entries.known([claim.photo_id], self._encoder.model_key).get(claim.photo_id)
        if known is None:
            return None
        mine = Look(vector, known[0].picture_hash)
        hits, looks = self._hits(vector, own, OWN_PLACE + OTHER_PLACES, Filter(trusted_only=True))
        copies = [hit for hit in hits if is_copy(looks[hit.photo_id], mine)]
        pictures = _pictures([hit for hit in hits if not is_copy(looks[hit.photo_id], mine)], looks)
        if len(pictures) >= CALM and all(self._is_here(claim, hit) for hit in [*pictures[:CALM], *copies]):
            return None
        near = Filter(Near(claim.lat, claim.lon, self._agree_m), trusted_only=True)
        there, its_looks = self._hits(vector, own, OWN_PLACE, near)
        here = _pictures([hit for hit in there if not is_copy(its_looks[hit.photo_id], mine)], its_looks)
        others = [hit for hit in pictures if not self._is_here(claim, hit)][:OTHER_PLACES]
        sightings = self._compared(claim, [*here[:OWN_PLACE], *others])
        found = elsewhere(claim, sightings, agree_m=self._agree_m, threshold=DEFAULT_THRESHOLD)
        if found is not None or not copies:
            return found
        supported = any(one.shows_it for one in sightings if distance_m(*claim.point, *one.point) <= self._agree_m)
        claims = [claim, *(_claim(hit) for hit in copies)]
        torn = [] if supported else of_one_picture(claims, Doubt.SAME_PICTURE, agree_m=ALONE_M)
        return next((one for one in torn if one.claim is claim), None)

    def _hits(self, vector: Vector, own: Ids, pictures: int, among: Filter) -> tuple[list[Hit], dict[int, Look]]:
        """Trusted photos that look like one, of which some are one picture."""
        hits, _, looks = self._finding.hits(
            vector, k=2 * pictures, threshold=-1.0, among=among, exclude=own, drop_copies=False
        )
        return [hit for hit in hits if hit.provenance is not None and hit.provenance.trusted], looks

    def _is_here(self, claim: Claim, hit: Hit) -> bool:
        return distance_m(*claim.point, *_claim(hit).point) <= self._agree_m + claim.error_m + _claim(hit).error_m

    def _compared(self, claim: Claim, hits: list[Hit]) -> list[Sighting]:
        from worker.place.geometry import seen_in_both  # brings OpenCV

        known = self._keypoints.known({claim.content_sha256, *(hit.content_sha256 for hit in hits)})
        mine = known.get(claim.content_sha256)
        sightings = []
        for hit in hits:
            theirs = known.get(hit.content_sha256)
            seen = None if mine is None or theirs is None else seen_in_both(mine, theirs)
            said = _claim(hit)
            sightings.append(Sighting(hit.photo_id, said.point, hit.similarity, said.error_m, seen))
        return sightings


def _pictures(hits: list[Hit], looks: dict[int, Look]) -> list[Hit]:
    """The most similar one of each picture."""
    found: list[Hit] = []
    for hit in hits:
        if not any(
            hit.content_sha256 == other.content_sha256 or is_copy(looks[hit.photo_id], looks[other.photo_id])
            for other in found
        ):
            found.append(hit)
    return found


def _claim(hit: Hit) -> Claim:
    assert hit.lat is not None
    assert hit.lon is not None
    assert hit.provenance is not None
    return Claim(hit.photo_id, hit.content_sha256, hit.lat, hit.lon, hit.provenance, hit.position_error_m or 0.0)
