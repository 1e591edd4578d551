"""Photos (and texts) to vectors, into the index and out of it.

Many at once is a list of outcomes that carry their refs. One photo's failure is its own outcome.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from typing import TypeVar

from producer_client import contract
from producer_client.contract import Code, NewPhoto, Provenance, Refused
from producer_client.errors import BadRequest
from producer_client.positions import Position
from worker.core.index_ports import LiveIndex, PublishedGenerations
from worker.core.observing import count, stage
from worker.core.ports import (
    Attempts,
    Encoder,
    Entries,
    PhotoSource,
    StoredKeypoints,
    StoredVectors,
)
from worker.core.request import current
from worker.core.types import INLINE, Fetched, NewEntry, Refusal, Written
from worker.embedding import Embedding
from worker.errors import Permanent
from worker.logs import ms_since
from worker.place.evidence import counts_as, issue_told

log = logging.getLogger(__name__)

T = TypeVar("T")


class Photos:
    """Embed, add, remove, purge."""

    def __init__(
        self,
        *,
        encoder: Encoder,
        embedding: Embedding,
        source: PhotoSource,
        entries: Entries,
        vectors: StoredVectors,
        keypoints: StoredKeypoints,
        attempts: Attempts,
        live: LiveIndex,
        published: PublishedGenerations,
        agree_m: float,
        former: bool,
    ) -> None:
        """agree_m, former: see worker.place.evidence."""
        self._agree_m = agree_m
        self._former = former
        self._encoder = encoder
        self._embedding = embedding
        self._source = source
        self._entries = entries
        self._vectors = vectors
        self._keypoints = keypoints
        self._attempts = attempts
        self._live = live
        self._published = published

    def embed_many(
        self, items: Sequence[contract.EmbedItem | Refused], *, return_vectors: bool = False
    ) -> contract.EmbedReply:
        """Compute and keep vectors, without adding photos to the index."""
        wanted = {item.ref: item.photo for item in items if not isinstance(item, Refused)}
        fetched, refused = self._embedding.vectors(wanted, need_gps=set(), to_keep=True)
        new = {f.content_sha256: f.vector for f in fetched.values() if not f.kept}
        looked = {f.content_sha256: f.picture for f in fetched.values() if f.picture is not None}
        with stage("store", photos=len(new)):
            self._vectors.keep(new, self._encoder.model_key, looked=looked)
        done = {
            f.ref: contract.Embedded(
                ref=f.ref,
                content_sha256=f.content_sha256,
                photo_id=None if f.row is None else f.row.photo_id,
                model_key=self._encoder.model_key,
                vector=f.vector.tolist() if return_vectors else None,
                embedded=f.fresh,
            )
            for f in fetched.values()
        }
        return contract.EmbedReply(
            outcomes=_in_order(items, done, refused),
            model_key=self._encoder.model_key,
            dimension=self._encoder.dimension,
        )

    def look_again(self, photo_ids: Sequence[int]) -> None:
        """See what photos of the index show that was not looked for when they were added. Those that cannot be read
        stay as they are."""
        wanted = {str(photo_id): contract.Photo(photo_id=photo_id) for photo_id in photo_ids}
        fetched, _ = self._embedding.vectors(wanted, need_gps=set(), to_keep=True, keypoints=True)
        seen = fetched.values()
        looked = {f.content_sha256: f.picture for f in seen if f.picture is not None}
        self._vectors.keep({}, self._encoder.model_key, looked=looked)
        self._keypoints.keep({f.content_sha256: f.keypoints for f in seen if f.keypoints is not None})

    def embed_text(self, text: str) -> contract.TextVector:
        """Raises Permanent(no_text_encoder) where the model reads no text."""
        with stage("text"):
            vector = self._encoder.encode_texts([text])[0]
        return contract.TextVector(vector.tolist(), self._encoder.model_key)

    def add_many(
        self, items: Sequence[NewPhoto | Refused], *, revive: bool = True, filling: bool = False
    ) -> contract.AddReply:
        """Store photos with their vectors and coordinates; each is found by the next search of every process.

        revive: whether a photo that was removed comes back, which only a caller may want. filling: this model does not
        serve yet.
        """
        started = time.monotonic()
        new = {item.ref: item for item in items if not isinstance(item, Refused)}
        fetched, refused = self._embedding.vectors(
            {ref: item.photo for ref, item in new.items()},
            need_gps={ref for ref, item in new.items() if item.provenance in (None, Provenance.EXIF_GPS)},
            to_keep=True,
            keypoints=True,
        )
        rows = [self._new_entry(new[ref], f) for ref, f in fetched.items()]
        stored, rejected = self._put(rows, fetched, revive, filling)
        for outcome in rejected.values():
            count("photos_refused", code=str(outcome.code))
        # A right that lacks says nothing of the photo.
        noted = refused | {ref: outcome for ref, outcome in rejected.items() if outcome.code is not Code.NOT_READY}
        self._note([(new[ref].photo, outcome) for ref, outcome in noted.items()])
        refused |= rejected
        log.info(
            "photos added",
            extra={"stored": len(stored), "refused": len(refused), "took_ms": ms_since(started)},
        )
        return contract.AddReply(outcomes=_in_order(items, stored, refused), model_key=self._encoder.model_key)

    def remove_many(self, photo_ids: Sequence[int]) -> contract.RemoveReply:
        """Out of the index at once and for good. Removing twice is no error; an id that nobody knows is refused."""
        check_ids(photo_ids)
        request = current.get()
        removed = self._entries.remove_many(photo_ids, sent_ms=request.sent_ms, again=request.again)
        self._live.note_removed({photo_id: seq for photo_id, (seq, _) in removed.items()})
        others = self._not_removed(photo_ids, removed)
        return contract.RemoveReply(
            outcomes=[
                contract.Removed(f"photo {photo_id}", photo_id, *removed[photo_id])
                if photo_id in removed
                else others[photo_id]
                for photo_id in dict.fromkeys(photo_ids)
            ]
        )

    def purge_many(self, photo_ids: Sequence[int]) -> contract.PurgeReply:
        """Remove, and erase every trace: at once from Postgres, with the next rebuild from the generations on disk.

        An id that nobody knows is refused, and asks for no rebuild.
        """
        check_ids(photo_ids)
        request = current.get()
        purged = self._entries.purge_many(photo_ids, sent_ms=request.sent_ms, again=request.again)
        self._live.note_removed({photo_id: seq for photo_id, (seq, *_) in purged.items()})
        others = self._not_removed(photo_ids, purged)
        kept = [generation.number for generation in self._published.kept()]
        outcomes: list[contract.Purged | Refused] = []
        for photo_id in dict.fromkeys(photo_ids):
            if photo_id in purged:
                seq, was_indexed, held = purged[photo_id]
                outcomes.append(
                    contract.Purged(f"photo {photo_id}", photo_id, seq, was_indexed, generations=kept if held else [])
                )
            else:
                outcomes.append(others[photo_id])
        log.info("photos purged", extra={"photos": len(purged), "generations": len(kept)})
        return contract.PurgeReply(outcomes=outcomes)

    # ---------------------------------------------------------------------------------------- below

    def _new_entry(self, item: NewPhoto, f: Fetched) -> NewEntry:
        given = None
        if item.lat is not None and item.lon is not None and item.provenance is not None:
            given = (item.lat, item.lon, item.provenance)
        photo = item.photo
        path = f.row.path if f.row is not None else photo.path or photo.url
        said = f.position if isinstance(f.position, Position) else None
        picture_hash, shot = f.picture or (None, None)
        spellings = self._source.spellings(path or f"{INLINE}{f.content_sha256}")
        return NewEntry(
            ref=item.ref,
            photo_id=photo.photo_id,
            path=path if path is not None and f.row is not None else spellings[0],
            spellings=spellings,
            content_sha256=f.content_sha256,
            vector=None if f.kept else f.vector,
            given=given,
            exif=None if said is None else (said.lat, said.lon),
            exif_error_m=None if said is None else said.error_m,
            exif_from=None if said is None else said.origin,
            file=f.file,
            address=item.address,
            metadata=item.metadata,
            update_row=item.update_row,
            picture_hash=picture_hash,
            shot=shot,
            keypoints=f.keypoints,
        )

    def _put(
        self, rows: list[NewEntry], fetched: dict[str, Fetched], revive: bool, filling: bool
    ) -> tuple[dict[str, contract.Stored], dict[str, Refused]]:
        """One transaction; if Postgres takes some row for no good, or may not be asked to, one transaction each."""
        if not rows:
            return {}, {}
        try:
            sent_ms = current.get().sent_ms
            with stage("store", photos=len(rows)):
                written = self._entries.put_many(
                    rows, self._encoder.model_key, revive=revive, filling=filling, sent_ms=sent_ms
                )
        except Permanent as exc:
            if exc.code not in (Code.ROW_REJECTED, Code.NOT_READY):
                raise
            if len(rows) == 1:
                return {}, {rows[0].ref: Refused(rows[0].ref, exc.code, exc.message)}
            stored, refused = dict[str, contract.Stored](), dict[str, Refused]()
            for row in rows:
                one, none = self._put([row], fetched, revive, filling)
                stored |= one
                refused |= none
            return stored, refused
        stored = {w.ref: self._stored(w, fetched[w.ref]) for w in written}
        return stored, {row.ref: _removed_later(row.ref) for row in rows if row.ref not in stored}

    def _not_removed(self, photo_ids: Sequence[int], done: Collection[int]) -> dict[int, Refused]:
        """Why those that were not removed or purged were not."""
        left = set(photo_ids).difference(done)
        there = self._entries.get(left) if left else {}
        return {photo_id: _added_later(photo_id) if photo_id in there else unknown(photo_id) for photo_id in left}

    def _note(self, refused: Sequence[tuple[contract.Photo, Refused]]) -> None:
        """Remember what is refused of photos in the backend's table, whoever has asked for them."""
        noted = []
        for photo, outcome in refused:
            path = photo.path or photo.url
            # Of a wrong id the caller is to hear, and it says nothing of the photo that has it.
            if outcome.code is not Code.ROW_MISMATCH and (photo.photo_id is not None or path is not None):
                spellings = () if path is None or photo.photo_id is not None else self._source.spellings(path)
                noted.append(Refusal(photo.photo_id, spellings, outcome.code, outcome.message))
        if noted:
            self._attempts.refuse(noted, self._encoder.model_key)

    def _stored(self, written: Written, f: Fetched) -> contract.Stored:
        entry = written.entry
        provenance, issue = counts_as(entry, agree_m=self._agree_m)
        if entry.lat is None or entry.lon is None:
            issue = f.position if isinstance(f.position, contract.PositionIssue) else contract.PositionIssue.ABSENT
        return contract.Stored(
            ref=written.ref,
            photo_id=entry.photo_id,
            seq=written.seq,
            content_sha256=entry.content_sha256,
            lat=entry.lat,
            lon=entry.lon,
            provenance=provenance,
            embedded=f.fresh,
            position_from=entry.position_from,
            position_issue=issue_told(issue, former=self._former),
            position_error_m=entry.position_error_m,
        )


def _in_order(items: Sequence[object], done: dict[str, T], refused: dict[str, Refused]) -> list[T | Refused]:
    """One outcome per item: its own refusal at reading, or what its ref came to."""
    outcomes: list[T | Refused] = []
    for item in items:
        if isinstance(item, Refused):
            outcomes.append(item)
        else:
            ref: str = item.ref  # type: ignore[attr-defined]  # NewPhoto or EmbedItem
            outcomes.append(done[ref] if ref in done else refused[ref])
    return outcomes


def _removed_later(ref: str) -> Refused:
    message = f"{ref} was removed by a request that was sent after this one: nothing was done. Send it again to add it"
    return Refused(ref, Code.SUPERSEDED, message)


def _added_later(photo_id: int) -> Refused:
    message = f"photo {photo_id} was added by a request that was sent after this one: nothing was done. Send it again"
    return Refused(f"photo {photo_id}", Code.SUPERSEDED, message)


def unknown(photo_id: int, ref: str = "") -> Refused:
    """Of an id that nobody knows. ref: what the caller calls it."""
    message = f"photo {photo_id} is neither in the photos table nor in the index; nothing was done"
    return Refused(ref or f"photo {photo_id}", Code.UNKNOWN_PHOTO, message)


def check_ids(photo_ids: Sequence[int]) -> None:
    """Raises BadRequest for one that no row can have."""
    for photo_id in photo_ids:
        if not 0 <= photo_id < 2**63:
            raise BadRequest(Code.BAD_REQUEST, f"photo_id {photo_id} is not a 64-bit row id")
