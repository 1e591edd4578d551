"""Vectors for the photos of the backend's table that lack one of this library's model, and keypoints for those of the
index that lack them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from producer_client.contract import NewPhoto, Photo, Refused, Stored
from worker.core.ports import Progress, StoredKeypoints, StoredVectors
from worker.core.types import Missing
from worker.library.photos import Photos

#: Seconds between two notes of progress.
PROGRESS_EVERY_S = 0.3


class Filling:
    """page: photos that are looked up at once. keypoints: None where they are not wanted. re_embed: whether a photo
    whose file has changed lacks its vector, too."""

    def __init__(
        self,
        model_key: str,
        *,
        photos: Photos,
        vectors: StoredVectors,
        keypoints: StoredKeypoints | None,
        page: int,
        re_embed: bool,
    ) -> None:
        self._model_key = model_key
        self._photos = photos
        self._vectors = vectors
        self._keypoints = keypoints
        self._page = page
        self._re_embed = re_embed

    def all(self, note: Progress, *, filling: bool) -> tuple[int, int]:
        """Embed every photo that has no vector of this model; returns (embedded, refused). What was embedded long ago
        and never added is erased.

        filling: the model does not serve yet.
        """
        if not filling:
            self._vectors.sweep()
        # A model that is to take over waits for no photo that was refused; the nightly rebuild tries those again.
        total = self._vectors.missing_count(
            self._model_key, refused_too=not filling, changed_too=self._re_embed and not filling
        )
        embedded = refused = 0
        after_id = -1
        note("embed", 0, total)
        if not total:
            # To look for the first page takes as long as to count them all; what comes meanwhile has come later.
            return 0, 0
        while page := self._vectors.missing(
            self._model_key,
            after_id=after_id,
            limit=self._page,
            share=(0, 1) if filling else None,
            changed_too=self._re_embed,
        ):
            after_id = page[-1].photo_id
            for outcome in self.some(page, filling=filling):
                embedded += isinstance(outcome, Stored)
                refused += isinstance(outcome, Refused)
            note("embed", embedded + refused, total)
        return embedded, refused

    def keypoints(self, note: Progress) -> None:
        """Look at the pictures of photos that were added while nobody looked for keypoints; and erase those of contents
        that no photo has any more."""
        if self._keypoints is None:
            return
        self._keypoints.sweep()
        total = self._keypoints.missing_count()
        if not total:
            return
        done, after_id = 0, -1
        note("look", done, total)
        while page := self._keypoints.missing(after_id=after_id, limit=self._page):
            after_id = page[-1].photo_id
            self._photos.look_again([photo.photo_id for photo in page])
            done += len(page)
            note("look", done, total)

    def some(self, photos: Sequence[Missing], *, filling: bool) -> Iterable[Stored | Refused]:
        """Embed some of them; one outcome for each photo, by its id as the ref."""
        new = [NewPhoto(ref=str(photo.photo_id), photo=Photo(photo_id=photo.photo_id)) for photo in photos]
        return self._photos.add_many(new, revive=False, filling=filling).outcomes


class Throttled:
    """Passes progress on, not more often than people and Postgres can use it."""

    def __init__(self, *listeners: Progress | None) -> None:
        self._listeners = [listener for listener in listeners if listener is not None]
        self._last: tuple[str, float] = ("", 0.0)

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase == self._last[0] and now - self._last[1] < PROGRESS_EVERY_S and done < total:
            return
        self._last = (phase, now)
        for listener in self._listeners:
            listener(phase, done, total)
