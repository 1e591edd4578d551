"""The look for photos whose position something contradicts: each night, before an index is written of what is trusted.

What Postgres alone can tell is looked at whole each time. What their neighbours say of photos takes longer: a library
for which a night is too short is gone through over several, each going on where the last one ended. Knows no SQL.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from producer_client.contract import DEFAULT_THRESHOLD, ConflictState, Doubt, Hit, Near, Provenance
from worker import points
from worker.core.conflict import Claim, Contradiction
from worker.core.geo import distance_m
from worker.core.index_ports import LiveIndex, PublishedGenerations
from worker.core.ports import (
    Encoder,
    Entries,
    Log,
    Progress,
    StoredConflicts,
    StoredKeypoints,
    StoredVectors,
)
from worker.core.shot import is_burst
from worker.core.types import Entry, Filter
from worker.core.vectors import Vector
from worker.library.comparing import Comparing
from worker.library.finding import CANDIDATES, Finding
from worker.logs import ms_since
from worker.looks import found as known_keypoints
from worker.place.conflicts import ALONE_M, Sighting, elsewhere, of_one_picture, of_one_point
from worker.place.pictures import Look, is_copy
from worker.place.witnesses import is_trusted
from worker.settings import Settings

log = logging.getLogger(__name__)

#: Photos of the whole library to which those of one point are compared.
OTHERS = 1_000
#: Seconds that are spent on photos' neighbours in one night, and in any other rebuild, for which somebody waits: so
#: many, or as long as the rest has taken until then.
NIGHT_S, LEAST_S = 600.0, 120.0
#: Photos that are looked up at once, and pictures that look like one of them: of its own place, and of all others.
PAGE, OWN_PLACE, OTHER_PLACES = 128, 4, 12
#: How many are asked of the index, some of which are one picture. Where copies and bursts leave too few pictures, so
#: many times more each time, up to a limit.
NEIGHBOURS = 2 * (OWN_PLACE + OTHER_PLACES)
WIDER, MOST_NEIGHBOURS = 4, 512
#: A photo is calm, and compared with nothing, where so many pictures that are most similar to it lie where it does.
CALM = 3
TRUSTED = Filter(trusted_only=True)
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
        #: Of one photo, several others are compared at a time.
        self._comparing = ThreadPoolExecutor(settings.threads, thread_name_prefix="suspect")
        self._read = Read(entries, encoder.model_key)
        self._finding = Finding(settings, encoder.model_key, entries=self._read, index=live)

    def look(self, note: Progress, budget_s: float = NIGHT_S) -> int:
        """Suspend what is contradicted, and no more what is not any more; returns how many photos are suspended that
        were not before. budget_s: seconds for what takes long."""
        started = time.monotonic()
        note("conflicts", 0, 0)
        suspended = self._of_one_content() + self._of_one_point() + self._by_looks(note, budget_s)
        log.info("conflicts looked for", extra={"suspended": suspended, "took_ms": ms_since(started)})
        return suspended

    def close(self) -> None:
        self._comparing.shutdown()

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

    def _by_looks(self, note: Progress, budget_s: float) -> int:
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
            if time.monotonic() - started > budget_s:
                self._conflicts.note_examined(model_key, after_id)
                return suspended
        self._conflicts.note_examined(model_key, -1)
        return suspended

    def _examine_again(self, photo_ids: set[int]) -> int:
        """First of all: what holds no more is evidence for all others."""
        return self._examine(self._conflicts.claims_of(photo_ids)) if photo_ids else 0

    def _examine(self, claims: list[Claim]) -> int:
        was_open = self._conflicts.open_ids(BY_LOOKS)
        own = self._entries.known([claim.photo_id for claim in claims], self._encoder.model_key)
        asked = [
            claim
            for claim in claims
            if claim.photo_id in own and not (claim.state is ConflictState.OPEN and claim.photo_id not in was_open)
        ]
        bare = self._keypoints.without({claim.content_sha256 for claim in asked})
        self._read.ahead(photo_id for claim in asked for photo_id in self._nearest(claim, own[claim.photo_id][1]))
        found, calm = [], set()
        for claim in asked:
            entry, vector = own[claim.photo_id]
            looks_so = Look(vector, entry.picture_hash, entry.shot)
            if (one := self._contradicted(claim, looks_so, bare=claim.content_sha256 in bare)) is not None:
                found.append(one)
            elif claim.photo_id in was_open:
                calm.add(claim.photo_id)
        if calm:
            self._conflicts.withdraw(calm)
        return len(self._conflicts.suspend(found, model_key=self._encoder.model_key)) if found else 0

    def _contradicted(self, claim: Claim, mine: Look, *, bare: bool) -> Contradiction | None:
        """bare: no keypoints of it are known, so that it can be compared with nothing."""
        copies, pictures = self._seen(claim, mine, NEIGHBOURS, TRUSTED, least=CALM)
        if len(pictures) >= CALM and all(
            self._is_here(claim, hit) for hit in [*pictures[:CALM], *(hit for hit, _ in copies)]
        ):
            return None
        others = [hit for hit in pictures if not self._is_here(claim, hit)][:OTHER_PLACES]
        if bare and not any(hit.similarity >= DEFAULT_THRESHOLD for hit in others):
            return self._torn(claim, mine, copies)
        near = Filter(Near(claim.lat, claim.lon, self._agree_m), trusted_only=True)
        _, here = self._seen(claim, mine, 2 * OWN_PLACE, near, least=OWN_PLACE)
        sightings = self._compared(claim, [*here[:OWN_PLACE], *others])
        found = elsewhere(claim, sightings, agree_m=self._agree_m, threshold=DEFAULT_THRESHOLD)
        supported = any(one.shows_it for one in sightings if distance_m(*claim.point, *one.point) <= self._agree_m)
        return found or (None if supported else self._torn(claim, mine, copies))

    def _torn(self, claim: Claim, mine: Look, copies: Sequence[tuple[Hit, Look]]) -> Contradiction | None:
        """Whether copies of the picture claim another place. Those of a burst have one voice, and what a person has
        confirmed one of its own."""
        voices = [(claim, mine)]
        for hit, look in copies:
            said = _claim(hit)
            if said.provenance is Provenance.CONFIRMED or not self._is_of_burst(said, look, voices):
                voices.append((said, look))
        claims = [said for said, _ in voices]
        if all(distance_m(*claim.point, *other.point) <= ALONE_M for other in claims):
            return None
        found = of_one_picture(claims, Doubt.SAME_PICTURE, agree_m=ALONE_M)
        return next((one for one in found if one.claim is claim), None)

    def _nearest(self, claim: Claim, vector: Vector) -> list[int]:
        """What the first look of _seen will ask for, but for more photos of the same bytes."""
        itself = np.array([claim.photo_id], dtype=np.int64)
        ids: list[int] = self._live.search(vector, NEIGHBOURS + CANDIDATES, among=TRUSTED, exclude=itself).ids.tolist()
        return ids

    def _seen(
        self, claim: Claim, mine: Look, k: int, among: Filter, *, least: int
    ) -> tuple[list[tuple[Hit, Look]], list[Hit]]:
        """Trusted photos that look like one, the most similar first: copies of it, and the most similar one of each
        other picture or burst. Frames of its own burst have its own position, and say nothing of it. least: pictures
        for which more and more photos are asked of the index, k at first."""
        own = self._entries.ids_with_content(claim.content_sha256)
        while True:
            hits, _, looks = self._finding.hits(
                mine.vector, k=k, threshold=-1.0, among=among, exclude=own, drop_copies=False
            )
            copies: list[tuple[Hit, Look]] = []
            found: list[tuple[Hit, Look]] = []
            burst = [(claim, mine)]
            for hit in filter(is_trusted, hits):
                look = looks[hit.photo_id]
                if is_copy(look, mine):
                    copies.append((hit, look))
                elif not (_is_known(hit, look, found) or self._is_of_burst(_claim(hit), look, burst)):
                    found.append((hit, look))
                    burst.append((_claim(hit), look))
            if len(found) >= least or len(hits) < k or k >= MOST_NEIGHBOURS:
                return copies, [hit for hit, _ in found]
            k *= WIDER

    def _is_of_burst(self, said: Claim, look: Look, others: Iterable[tuple[Claim, Look]]) -> bool:
        """Whether it is of one burst with any of these."""
        return any(
            is_burst(look.shot, said.point, its_look.shot, other.point, agree_m=self._agree_m)
            for other, its_look in others
        )

    def _is_here(self, claim: Claim, hit: Hit) -> bool:
        return distance_m(*claim.point, *_claim(hit).point) <= self._agree_m + claim.error_m + _claim(hit).error_m

    def _compared(self, claim: Claim, hits: list[Hit]) -> list[Sighting]:
        mine = self._keypoints.known([claim.content_sha256]).get(claim.content_sha256)
        seen = Comparing(self._keypoints, known_keypoints(mine), mapped=self._comparing.map)(hits, len(hits))
        sightings = []
        for hit in hits:
            said = _claim(hit)
            sightings.append(Sighting(hit.photo_id, said.point, hit.similarity, said.error_m, seen.get(hit.photo_id)))
        return sightings


class Read:
    """Entries with their vectors that were read together for many photos, and the others as ever."""

    def __init__(self, entries: Entries, model_key: str) -> None:
        self._entries = entries
        self._model_key = model_key
        self._ahead: set[int] = set()
        self._known: dict[int, tuple[Entry, Vector]] = {}

    def ahead(self, photo_ids: Iterable[int]) -> None:
        """In place of those before."""
        self._ahead = set(photo_ids)
        self._known = self._entries.known(self._ahead, self._model_key, TRUSTED) if self._ahead else {}

    def known(
        self, photo_ids: Collection[int], model_key: str, among: Filter | None = None
    ) -> dict[int, tuple[Entry, Vector]]:
        if among != TRUSTED or model_key != self._model_key:
            return self._entries.known(photo_ids, model_key, among)
        found = {photo_id: self._known[photo_id] for photo_id in photo_ids if photo_id in self._known}
        if rest := set(photo_ids) - self._ahead:
            found |= self._entries.known(rest, model_key, among)
        return found


def _is_known(hit: Hit, look: Look, found: Sequence[tuple[Hit, Look]]) -> bool:
    """Whether it is a picture that one of these is, too."""
    return any(hit.content_sha256 == other.content_sha256 or is_copy(look, its_look) for other, its_look in found)


def _claim(hit: Hit) -> Claim:
    assert hit.lat is not None
    assert hit.lon is not None
    assert hit.provenance is not None
    return Claim(hit.photo_id, hit.content_sha256, hit.lat, hit.lon, hit.provenance, hit.position_error_m or 0.0)
