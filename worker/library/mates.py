"""What a photo's camera took minutes before and after, of the photos that are evidence. Knows no SQL, and not what that
is worth."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from producer_client.contract import Hit
from worker.core.ports import StoredVectors
from worker.core.shot import NO_CAMERA
from worker.core.types import Filter
from worker.core.vectors import Ids
from worker.library.finding import Finding
from worker.place.moments import NO_MOMENTS, WITHIN_S, Moments, heard
from worker.place.pictures import Look, is_copy
from worker.place.witnesses import is_trusted

#: The nearest in time that are looked up: a few would do, if none of them were of one burst or of another's phone.
MOST = 16


class Mates:
    def __init__(self, finding: Finding, vectors: StoredVectors) -> None:
        self._finding = finding
        self._vectors = vectors

    def of(
        self,
        own: Look | None,
        *,
        exclude: Ids,
        among: Filter | None = None,
        left_out: Callable[[Hit, Look], bool] = lambda *_: False,
    ) -> Moments:
        """exclude: the photo itself, and others of its file. among: as for hits. left_out: which others say nothing.
        Postgres is asked nothing where the photo does not say when and by which camera it was taken."""
        if own is None or own.shot is None or own.shot.camera == NO_CAMERA:
            return NO_MOMENTS
        near = self._vectors.taken_near(own.shot, within_s=WITHIN_S, limit=MOST)
        ids = [photo_id for photo_id in near if photo_id not in exclude]
        if not ids:
            return NO_MOMENTS
        hits, looks = self._finding.named(ids, own.vector, among)
        photos = []
        for hit in hits:
            look = looks[hit.photo_id]
            if is_trusted(hit) and look.shot is not None and not is_copy(look, own) and not left_out(hit, look):
                photos.append(replace(hit, apart_s=round(look.shot.taken_s - own.shot.taken_s, 1)))
        return heard(photos, one_camera=own.shot.of_one_camera)
