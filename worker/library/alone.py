"""Searches while Postgres is away: by what this process has read of it. Knows no SQL, and asks Postgres nothing."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence

from producer_client import contract
from producer_client.contract import Photo
from worker.core.batcher import Batcher, as_ours
from worker.core.index_ports import LiveIndex
from worker.core.observing import stage
from worker.core.ports import Decode, Encoder, PhotoSource
from worker.core.types import Filter
from worker.core.vectors import Vector, unit_query
from worker.logs import ms_since

log = logging.getLogger(__name__)

#: As SAME_PIXELS, of vectors that a generation has rounded to float16: 1.1e-5 from themselves where that was measured.
#: Among those that are rounded to 8 bits a copy may be shown.
SAME_ROUNDED = 1 - 1e-4
#: Copies that are left out, and made up for.
SPARE = 16


class Alone:
    """batcher: of the same process and model as all other photos go through."""

    def __init__(
        self, *, encoder: Encoder, decode: Decode, source: PhotoSource, batcher: Batcher, live: LiveIndex
    ) -> None:
        self._encoder = encoder
        self._decode = decode
        self._source = source
        self._batcher = batcher
        self._live = live

    def search(self, request: contract.Search, started: float) -> contract.SearchReply | None:
        """What the index of this process finds, without the photos of which it knows that they were removed. None where
        nothing has been read yet, and where Postgres alone knows: the file or vector of a photo by its id, and which
        photos are evidence.

        started: by time.monotonic. Raises Transient for metadata that only Postgres can look for, PhotoRefusal and
        BadRequest for the photo.
        """
        by_id = request.photo is not None and request.photo.photo_id is not None
        if by_id or request.trusted_only or not math.isfinite(self._live.age_s):
            return None
        query = self._vector(request)
        # In this order: what is read meanwhile makes the answer newer, never older than it says.
        stale_s, unread = round(self._live.age_s, 1), self._live.unread
        others = request.photo is not None
        found = self._live.search(
            query, request.top_k + SPARE, among=filter_of(request), exclude=unread, drop_copies=others
        )
        shown = found.similarities >= least_of(request)
        if others:
            shown &= found.similarities < SAME_ROUNDED
        ids, similarities = found.ids[shown][: request.top_k], found.similarities[shown]
        places = self._live.places_of(ids).T.tolist()
        hits = [
            _hit(photo_id, similarity, place)
            for photo_id, similarity, place in zip(ids.tolist(), similarities[: len(ids)].tolist(), places, strict=True)
        ]
        log.info("searched without Postgres", extra={"stale_s": stale_s, "seq": found.seq})
        return contract.SearchReply(
            hits, found.generation, found.seq, self._encoder.model_key, ms_since(started), stale_s
        )

    def _vector(self, request: contract.Search) -> Vector:
        if request.vector is not None:
            return unit_query(request.vector, self._encoder.dimension)
        if request.text is not None:
            with stage("text"):
                of_text: Vector = self._encoder.encode_texts([request.text])[0]
            return of_text
        assert request.photo is not None
        return self._of_photo(request.photo)

    def _of_photo(self, photo: Photo) -> Vector:
        with stage("read"):
            content = self._source.fetch(photo)
        key = hashlib.sha256(content).hexdigest()
        with self._batcher.expect([key]) as expected:
            if key in expected.mine:
                try:
                    with stage("decode"):
                        square = self._encoder.prepare(self._decode(content).pixels)
                except Exception as exc:  # others' code: decoders, which raise what they like; answered with a code
                    raise as_ours(exc, "decoding") from exc
                expected.supply(key, square)
            vectors, failures = expected.vectors()
        if key in failures:
            raise failures[key]
        return vectors[key]


def least_of(request: contract.Search) -> float:
    """The similarity from which on photos are shown: those of text live on another scale."""
    if request.threshold is not None:
        return request.threshold
    return -1.0 if request.text is not None else contract.DEFAULT_THRESHOLD


def filter_of(request: contract.Search) -> Filter | None:
    return Filter(request.near, request.where) if request.near is not None or request.where else None


def _hit(photo_id: int, similarity: float, place: Sequence[float]) -> contract.Hit:
    lat, lon = (None if math.isnan(degrees) else degrees for degrees in place)
    return contract.Hit(photo_id, round(similarity, 6), path=None, lat=lat, lon=lon, provenance=None)
