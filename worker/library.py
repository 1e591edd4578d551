"""The verbs: embed, add, remove, search, locate, rebuild. Joins the ports; knows no Celery, SQL, FAISS or torch.

Many at once is a list of outcomes that carry their refs. One photo's failure is its own outcome.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

import numpy as np

from producer_client import contract
from producer_client.contract import Code, NewPhoto, Photo, Refused
from producer_client.errors import BadRequest
from worker.core.ports import Decode, Encoder, Generations, LiveIndex, PhotoSource, Progress, Store
from worker.core.types import INLINE, Entry, Missing, NewEntry
from worker.core.vectors import Ids, Vector, unit_query
from worker.embedding import Embedding, Fetched
from worker.errors import Permanent, PhotoRefusal, Transient
from worker.place.rule import Rule, answer, settled
from worker.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")
#: Vectors of the same pixels under other metadata (a stripped EXIF, another file name inside) differ by rounding
#: alone. Such a copy is the photo itself, not a similar one.
SAME_PIXELS = 1 - 1e-5
#: Photos asked of the index beyond those wanted: its rounded vectors may order near equals wrongly, and some may be
#: gone from Postgres.
CANDIDATES = 16
#: Seconds between two looks for a write that a search was told to wait for.
MIN_SEQ_POLL_S = 0.01
#: Chains of messages that fill the next model side by side, and photos of one message.
FILLERS, FILL_PHOTOS = 8, 64
#: Seconds after which a chain that nobody prolonged has died with its worker. Longer than any message takes.
FILLER_LEASE_S = 900.0
#: Times that a step tries to catch the moment in which no photo lacks a vector of the next model.
TAKE_OVER_TRIES = 20
#: Seconds between two looks at the change log by a process that nobody asks.
LEAST_PAUSE_S = 0.2
#: Seconds between two notes of a rebuild's progress.
PROGRESS_EVERY_S = 0.3


class Library:
    """One per process, shared by its threads."""

    def __init__(
        self,
        settings: Settings,
        *,
        encoder: Encoder,
        decode: Decode,
        source: PhotoSource,
        store: Store,
        live: LiveIndex,
        generations: Generations,
    ) -> None:
        self._settings = settings
        self._encoder = encoder
        self._source = source
        self._store = store
        self._live = live
        self._generations = generations
        self._embedding = Embedding(
            settings, encoder=encoder, decode=decode, source=source, rows=store.rows, vectors=store.vectors
        )

    def close(self) -> None:
        """End the threads when what they have taken is done."""
        self._embedding.close()

    # --------------------------------------------------------------------------------- embed and add

    def embed_many(
        self, items: Sequence[contract.EmbedItem | Refused], *, return_vectors: bool = False
    ) -> contract.EmbedReply:
        """Compute and keep vectors, without adding photos to the index."""
        wanted = {item.ref: item.photo for item in items if not isinstance(item, Refused)}
        fetched, refused = self._embedding.vectors(wanted, need_gps=set())
        new = {f.content_sha256: f.vector for f in fetched.values() if not f.kept}
        self._store.vectors.keep(new, self._encoder.model_key)
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

    def embed_text(self, text: str) -> contract.TextVector:
        """Raises Permanent(no_text_encoder) where the model reads no text."""
        return contract.TextVector(self._encoder.encode_texts([text])[0].tolist(), self._encoder.model_key)

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
            need_gps={ref for ref, item in new.items() if item.lat is None},
        )
        rows = [self._new_entry(new[ref], f) for ref, f in fetched.items()]
        stored, rejected = self._put(rows, {ref: f.fresh for ref, f in fetched.items()}, revive, filling)
        refused |= rejected
        log.info(
            "photos added",
            extra={"stored": len(stored), "refused": len(refused), "took_ms": _ms_since(started)},
        )
        return contract.AddReply(outcomes=_in_order(items, stored, refused), model_key=self._encoder.model_key)

    def remove_many(self, photo_ids: Sequence[int]) -> contract.RemoveReply:
        """Out of the index at once and for good. Removing twice is no error."""
        _check_ids(photo_ids)
        removed = self._store.entries.remove_many(photo_ids)
        return contract.RemoveReply(
            outcomes=[
                contract.Removed(ref=f"photo {photo_id}", photo_id=photo_id, seq=seq, was_indexed=was)
                for photo_id, (seq, was) in removed.items()
            ]
        )

    def purge_many(self, photo_ids: Sequence[int]) -> contract.PurgeReply:
        """Remove, and erase every trace: at once from Postgres, with the next rebuild from the generations on disk."""
        _check_ids(photo_ids)
        purged = self._store.entries.purge_many(photo_ids)
        generations = [generation.number for generation in self._store.generations.kept()]
        log.info("photos purged", extra={"photos": len(purged), "generations": len(generations)})
        return contract.PurgeReply(
            outcomes=[
                contract.Purged(f"photo {photo_id}", photo_id, seq, was_indexed=was, generations=generations)
                for photo_id, (seq, was) in purged.items()
            ]
        )

    # ------------------------------------------------------------------------------ search and locate

    def search(self, request: contract.Search) -> contract.SearchReply:
        started = time.monotonic()
        query, content, own_id = self._query(request)
        self._wait_for(request.min_seq)
        threshold = request.threshold
        if threshold is None:
            threshold = -1.0 if request.text is not None else contract.DEFAULT_THRESHOLD
        hits, generation, seq = self._hits(
            query,
            k=request.top_k,
            threshold=threshold,
            near=request.near,
            where=request.where,
            exclude=self._copies(content, own_id),
            drop_copies=request.photo is not None,
        )
        return contract.SearchReply(hits, generation, seq, self._encoder.model_key, _ms_since(started))

    def locate(self, request: contract.Locate) -> contract.LocateReply:
        started = time.monotonic()
        query, content, own_id = self._query(contract.Search(photo=request.photo))
        self._wait_for(request.min_seq)
        settings = self._settings
        rule = Rule(
            threshold=contract.DEFAULT_THRESHOLD if request.threshold is None else request.threshold,
            window=settings.locate_similarity_window,
            agree_m=settings.locate_agree_m,
            min_share=settings.locate_min_share,
            min_witnesses=settings.locate_min_witnesses,
            neighbours=settings.locate_neighbours,
        )
        hits, generation, seq = self._witness_hits(query, rule, request.near, self._copies(content, own_id))
        found = answer(hits, rule, index_count=self._live.count)
        log.info(
            "photo located" if found.located else "photo not located",
            extra={"reason": found.reason, "seq": seq},
        )
        return contract.LocateReply(found, generation, seq, self._encoder.model_key, _ms_since(started))

    # --------------------------------------------------------------------------------------- rebuild

    def rebuild(self, progress: Progress | None = None, *, filling: bool = False) -> contract.RebuildReply:
        """Embed what is missing, write a generation from one snapshot of Postgres, publish it.

        One at a time in the cluster: raises Permanent(already_running). Any failure leaves the old generation.
        """
        with self._store.runs.exclusive("rebuild") as mine:
            if not mine:
                raise Permanent(
                    Code.ALREADY_RUNNING,
                    "a rebuild is running already; `sightline stats` shows how far it is",
                )
            run_id = self._store.runs.start()
            note = _Throttled(lambda *facts: self._store.runs.note_progress(run_id, *facts), progress)
            try:
                reply = self._rebuild(note, filling)
            except BaseException as exc:
                # Postgres may be what failed; the next run closes this one then.
                with suppress(Transient):
                    self._store.runs.finish(run_id, summary=None, error=f"{type(exc).__name__}: {exc}")
                raise
            self._store.runs.finish(run_id, summary=reply.to_wire(), error=None)
        log.info("index rebuilt", extra={"generation": reply.generation, "indexed": reply.indexed})
        return reply

    def nightly(self, name: str, slot: datetime, *, claims: int, claim_s: float) -> bool:
        """Rebuild if nobody has done so for `slot` (UTC); returns whether this call did."""
        return self._due(name, slot, claims=claims, claim_s=claim_s)

    def catch_up_generations(self, *, claims: int, claim_s: float) -> bool:
        """Rebuild if so much has changed that searches pay for it, or a purged photo is still in a generation."""
        settings = self._settings
        asked = self._store.runs.asked(
            self._encoder.model_key, share=settings.compact_share, least=settings.compact_least
        )
        return any(self._due(name, moment, claims=claims, claim_s=claim_s, first_counts=True) for name, moment in asked)

    def _due(self, name: str, slot: datetime, *, claims: int, claim_s: float, first_counts: bool = False) -> bool:
        if not self._store.runs.due(name, slot, max_attempts=claims, retry_after_s=claim_s, first_counts=first_counts):
            return False
        self.rebuild()
        self._store.runs.slot_done(name, slot)
        return True

    # --------------------------------------------------------------------------- the change of the model

    @property
    def model_key(self) -> str:
        return self._encoder.model_key

    def fill_page(self, slot: int, *, after_id: int) -> int | None:
        """Embed the next photos of this slot's share that lack a vector of this model.

        Returns the id to go on after, so that no page looks through those before it again; None at the end of the
        share. What came in behind is met by the chain that the next tick starts.
        """
        self._store.models.hold_filler(self.model_key, slot, FILLER_LEASE_S, new=False)
        page = self._store.vectors.missing(self.model_key, after_id=after_id, limit=FILL_PHOTOS, share=(slot, FILLERS))
        if not page:
            self._store.models.end_filler(self.model_key, slot)
            return None
        for group in _apart(page):
            self._fill_some(group, filling=True)
        return page[-1].photo_id

    def take_over(self, start_filler: Callable[[int], None]) -> bool:
        """One step towards this model serving: fill it by bulk messages, publish its generation, switch to it.

        Returns whether it serves. To be called again and again; every state lies in Postgres.
        """
        if self._store.vectors.missing_count(self.model_key, refused_too=False) > FILL_PHOTOS:
            for slot in range(FILLERS):
                if self._store.models.hold_filler(self.model_key, slot, FILLER_LEASE_S, new=True):
                    start_filler(slot)
            return False
        if self._store.generations.serving(self.model_key) is None:
            # Workers map it before the next step, so that the first search with this model does not wait for it.
            self.rebuild(filling=True)
            return False
        for _ in range(TAKE_OVER_TRIES):
            # What was added a moment ago by the model that still serves.
            self._fill(_Throttled(None), filling=True)
            if self._store.models.switch(self.model_key):
                log.info("model serves", extra={"model_key": self.model_key})
                return True
        return False

    def follow(self) -> None:
        """Keep the index up to date from now on, also while nobody searches."""
        self._live.follow(max(self._settings.max_staleness_s, LEAST_PAUSE_S))

    def came_back_too_often(self, task_id: str) -> bool:
        """Whether a message that was handed out again has taken its worker down too often to be tried once more."""
        return self._store.attempts.count_delivery(task_id) >= self._settings.quarantine_after

    def stats(self, *, rss_mb: float, next_model_key: str | None = None) -> contract.StatsReply:
        counts = self._store.entries.counts(self._encoder.model_key)
        self._live.settle()
        number = self._live.generation
        return contract.StatsReply(
            model=self._encoder.name,
            model_key=self._encoder.model_key,
            dimension=self._encoder.dimension,
            device=self._encoder.device,
            has_text=self._encoder.has_text,
            photos=counts.photos,
            with_coordinates=counts.with_coordinates,
            indexed=self._live.count,
            refused=counts.refused,
            generation=number,
            generation_count=self._live.count - self._live.delta_count,
            kind=self._live.kind,
            recall_at_10=self._live.recall_at_10,
            generation_published_at=None if number is None else self._store.generations.published_at(number),
            delta=self._live.delta_count,
            next_model_key=next_model_key,
            next_model_missing=None if next_model_key is None else self._store.vectors.missing_count(next_model_key),
            removed=counts.removed,
            purges_pending=counts.purges_pending,
            seq=counts.seq,
            cache_hits=self._embedding.cache_hits,
            cache_misses=self._embedding.computed,
            rss_mb=rss_mb,
            last_rebuild=self._store.runs.last(),
        )

    # --------------------------------------------------------------------------------------- storing

    def _new_entry(self, item: NewPhoto, f: Fetched) -> NewEntry:
        given = None
        if item.lat is not None and item.lon is not None and item.provenance is not None:
            given = (item.lat, item.lon, item.provenance)
        photo = item.photo
        path = f.row.path if f.row is not None else photo.path or photo.url
        spellings = self._source.spellings(path or f"{INLINE}{f.content_sha256}")
        return NewEntry(
            ref=item.ref,
            photo_id=photo.photo_id,
            path=path if path is not None and f.row is not None else spellings[0],
            spellings=spellings,
            content_sha256=f.content_sha256,
            vector=None if f.kept else f.vector,
            given=given,
            exif=f.gps,
            address=item.address,
            metadata=item.metadata,
        )

    def _put(
        self, rows: list[NewEntry], fresh: dict[str, bool], revive: bool, filling: bool
    ) -> tuple[dict[str, contract.Stored], dict[str, Refused]]:
        """One transaction; if Postgres takes some row for no good, one transaction each."""
        if not rows:
            return {}, {}
        try:
            written = self._store.entries.put_many(rows, self._encoder.model_key, revive=revive, filling=filling)
        except Permanent as exc:
            if exc.code is not Code.ROW_REJECTED:
                raise
            if len(rows) == 1:
                return {}, {rows[0].ref: Refused(rows[0].ref, exc.code, exc.message)}
            stored: dict[str, contract.Stored] = {}
            refused: dict[str, Refused] = {}
            for row in rows:
                one, none = self._put([row], fresh, revive, filling)
                stored |= one
                refused |= none
            return stored, refused
        return {w.ref: _stored(w.ref, w.entry, w.seq, fresh[w.ref]) for w in written}, {}

    # ---------------------------------------------------------------------------------- neighbours

    def _query(self, request: contract.Search) -> tuple[Vector, str | None, int | None]:
        """(vector, content, photo id) of what is searched for."""
        if request.model_key not in (None, self._encoder.model_key):
            raise Permanent(
                Code.MODEL_MISMATCH,
                f"the vector is one of {request.model_key}, this worker runs {self._encoder.model_key}; embed it again",
            )
        if request.vector is not None:
            return unit_query(request.vector, self._encoder.dimension), None, None
        if request.text is not None:
            return self._encoder.encode_texts([request.text])[0], None, None
        photo = request.photo
        assert photo is not None
        if photo.photo_id is not None:
            entry = self._store.entries.get([photo.photo_id]).get(photo.photo_id)
            known = self._store.vectors.known([entry.content_sha256], self._encoder.model_key) if entry else {}
            if entry is not None and entry.content_sha256 in known:
                return known[entry.content_sha256], entry.content_sha256, photo.photo_id
        fetched, refused = self._embedding.vectors({"query": photo}, need_gps=set())
        if refused:
            raise PhotoRefusal(refused["query"].code, refused["query"].message)
        found = fetched["query"]
        return found.vector, found.content_sha256, photo.photo_id

    def _witness_hits(
        self, query: Vector, rule: Rule, near: contract.Near | None, exclude: Ids
    ) -> tuple[list[contract.Hit], int | None, int]:
        """As many hits as it takes for the rule to have heard its witnesses, however many others are more similar."""
        k = 8 * rule.neighbours
        while True:
            hits, generation, seq = self._hits(
                query, k=k, threshold=-1.0, near=near, where=None, exclude=exclude, drop_copies=True
            )
            if len(hits) < k or settled(hits, rule):
                return hits, generation, seq
            k *= 4

    def _copies(self, content: str | None, own_id: int | None) -> Ids:
        """Ids that are the searched photo itself: a hundred uploads of one file are passed over in one search."""
        ids = self._store.entries.ids_with_content(content) if content is not None else np.zeros(0, dtype=np.int64)
        return ids if own_id is None else np.append(ids, np.int64(own_id))

    def _wait_for(self, min_seq: int) -> None:
        """Be as fresh as the settings promise, and at `min_seq` at least."""
        seq = self._live.catch_up(max_age_s=self._settings.max_staleness_s)
        deadline = time.monotonic() + self._settings.min_seq_timeout_s
        while seq < min_seq and (seq := self._live.catch_up()) < min_seq:
            if time.monotonic() > deadline:
                raise Permanent(
                    Code.STALE,
                    f"the index is at seq {seq} and did not reach {min_seq} "
                    f"within {self._settings.min_seq_timeout_s:g} s (SIGHTLINE_MIN_SEQ_TIMEOUT_S)",
                )
            time.sleep(MIN_SEQ_POLL_S)

    def _hits(
        self,
        query: Vector,
        *,
        k: int,
        threshold: float,
        near: contract.Near | None,
        where: dict[str, object] | None,
        exclude: Ids,
        drop_copies: bool,
    ) -> tuple[list[contract.Hit], int | None, int]:
        """The index proposes, Postgres decides: similarities are those of the stored vectors, and a photo that is not
        there any more is gone, whatever this process has seen of it."""
        only = self._store.entries.ids_where(near, where) if near is not None or where else None
        caught_up = False
        while True:
            found = self._live.search(query, k + CANDIDATES, only=only, exclude=exclude)
            known = self._store.entries.known(found.ids.tolist(), self._encoder.model_key)
            similarity = {photo_id: float(vector @ query) for photo_id, (_, vector) in known.items()}
            copies = [photo_id for photo_id, cosine in similarity.items() if drop_copies and cosine >= SAME_PIXELS]
            if copies:
                exclude = np.concatenate([exclude, np.array(copies, dtype=np.int64)])
                continue
            gone = len(found.ids) - len(known)
            if gone > CANDIDATES and not caught_up:
                self._live.catch_up()
                caught_up = True
                continue
            best = sorted(known, key=lambda photo_id: (-similarity[photo_id], photo_id))[:k]
            hits = [_hit(known[i][0], similarity[i]) for i in best if similarity[i] >= threshold]
            return hits, found.generation, found.seq

    # -------------------------------------------------------------------------------------- rebuild

    def _rebuild(self, note: _Throttled, filling: bool) -> contract.RebuildReply:
        started = time.monotonic()
        self._store.entries.follow_rows()
        with ThreadPoolExecutor(1, thread_name_prefix="train") as ahead:
            training = ahead.submit(self._train)
            embedded, refused = self._fill(note, filling)
            trained = training.result()
        model_key = self._encoder.model_key
        number = self._store.generations.reserve()
        with self._store.log.snapshot(model_key, self._encoder.dimension) as snapshot:
            seq = snapshot.seq
            built = self._generations.write(
                number,
                snapshot,
                model_key=model_key,
                dimension=self._encoder.dimension,
                previous=self._store.generations.serving(model_key),
                trained=trained,
                progress=note,
            )
        kept = self._store.generations.publish(number, model_key, seq, built, self._settings.keep_generations)
        self._generations.keep_only(kept, everywhere=True)
        counts = self._store.entries.counts(self._encoder.model_key)
        return contract.RebuildReply(
            generation=number,
            seq=seq,
            with_coordinates=counts.with_coordinates,
            valid_files=counts.valid_files,
            embedded=embedded,
            refused=refused,
            indexed=built.count,
            kind=built.kind,
            recall_at_10=built.recall_at_10,
            index_bytes=built.index_bytes,
            dimension=self._encoder.dimension,
            model=self._encoder.name,
            model_key=self._encoder.model_key,
            device=self._encoder.device,
            seconds=round(time.monotonic() - started, 3),
        )

    def _train(self) -> Any:
        """Learn from the vectors that are there, while the encoder makes those that lack."""
        with self._store.log.snapshot(self._encoder.model_key, self._encoder.dimension) as snapshot:
            return self._generations.prepare(snapshot, dimension=self._encoder.dimension)

    def _fill(self, note: _Throttled, filling: bool) -> tuple[int, int]:
        """Embed every photo that has no vector of this model; returns (embedded, refused)."""
        # A model that is to take over waits for no photo that was refused; the nightly rebuild tries those again.
        total = self._store.vectors.missing_count(self._encoder.model_key, refused_too=not filling)
        embedded = refused = 0
        after_id = -1
        note("embed", 0, total)
        while page := self._store.vectors.missing(
            self._encoder.model_key,
            after_id=after_id,
            limit=self._settings.encode_batch,
            share=(0, 1) if filling else None,
        ):
            after_id = page[-1].photo_id
            for group in _apart(page):
                for outcome in self._fill_some(group, filling):
                    embedded += isinstance(outcome, contract.Stored)
                    refused += isinstance(outcome, Refused)
                note("embed", embedded + refused, total)
        return embedded, refused

    def _fill_some(self, photos: list[Missing], filling: bool) -> Iterable[contract.Stored | Refused]:
        if photos[0].attempts >= self._settings.quarantine_after:
            message = f"{photos[0].path} took its worker down {photos[0].attempts} times; add it by hand to try again"
            self._store.attempts.refuse(photos[0].photo_id, Code.QUARANTINED, message)
            return [Refused(str(photos[0].photo_id), Code.QUARANTINED, message)]
        ids = [photo.photo_id for photo in photos]
        self._store.attempts.begin(ids)
        try:
            reply = self.add_many(
                [NewPhoto(ref=str(i), photo=Photo(photo_id=i)) for i in ids], revive=False, filling=filling
            )
        except Transient:
            # Nobody's fault among these photos. If Postgres is what is away, the counts stay, one too high.
            with suppress(Transient):
                self._store.attempts.end(ids)
            raise
        for outcome in reply.outcomes:
            if isinstance(outcome, Refused):
                self._store.attempts.refuse(int(outcome.ref), outcome.code, outcome.message)
        return reply.outcomes


class _Throttled:
    """Passes a rebuild's progress on, not more often than people and Postgres can use it."""

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


def _apart(page: list[Missing]) -> list[list[Missing]]:
    """What a process has not survived before goes alone, so that it takes no neighbour with it again."""
    calm = [photo for photo in page if photo.attempts == 0]
    return ([calm] if calm else []) + [[photo] for photo in page if photo.attempts > 0]


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


def _stored(ref: str, entry: Entry, seq: int, fresh: bool) -> contract.Stored:
    return contract.Stored(
        ref=ref,
        photo_id=entry.photo_id,
        seq=seq,
        content_sha256=entry.content_sha256,
        lat=entry.lat,
        lon=entry.lon,
        provenance=entry.provenance,
        embedded=fresh,
    )


def _hit(entry: Entry, similarity: float) -> contract.Hit:
    return contract.Hit(
        photo_id=entry.photo_id,
        similarity=round(similarity, 6),
        path=entry.path,
        lat=entry.lat,
        lon=entry.lon,
        provenance=entry.provenance,
        address=entry.address,
        metadata=entry.metadata,
        content_sha256=entry.content_sha256,
    )


def _check_ids(photo_ids: Sequence[int]) -> None:
    for photo_id in photo_ids:
        if not 0 <= photo_id < 2**63:
            raise BadRequest(Code.BAD_REQUEST, f"photo_id {photo_id} is not a 64-bit row id")


def _ms_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 2)
