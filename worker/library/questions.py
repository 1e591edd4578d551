"""What looks like this, and where was it taken: the index proposes, Postgres decides, a rule answers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from producer_client import contract
from producer_client.contract import Code
from worker.core.index_ports import LiveIndex
from worker.core.ports import Encoder, Entries, StoredVectors
from worker.core.types import Filter, Neighbours
from worker.core.vectors import Ids, Vector, unit_query
from worker.embedding import Embedding
from worker.errors import Permanent, PhotoRefusal, Stale
from worker.library.finding import Finding, Looked
from worker.logs import ms_since
from worker.place.rule import Rule, answer, settled
from worker.settings import Settings

log = logging.getLogger(__name__)

#: Times as many photos that are looked at for trusted ones among them, before only those are compared.
FIRST_LOOK = 4
#: Times as many photos each time that too few of those that were looked at are evidence.
WIDER = 4
#: Seconds between two looks for a write that a search was told to wait for.
MIN_SEQ_POLL_S = 0.01
#: Seconds between two looks at the change log by a process that nobody asks.
LEAST_PAUSE_S = 0.2
#: Words of clients that are remembered: one that is met again after that many others costs a look at the log.
MET_WORDS = 4096


class Questions:
    """Search and locate."""

    def __init__(
        self,
        settings: Settings,
        *,
        encoder: Encoder,
        embedding: Embedding,
        entries: Entries,
        vectors: StoredVectors,
        live: LiveIndex,
    ) -> None:
        self._settings = settings
        self._encoder = encoder
        self._embedding = embedding
        self._entries = entries
        self._vectors = vectors
        self._live = live
        self._finding = Finding(settings, encoder.model_key, entries=entries, index=live)
        self._met = Recent(MET_WORDS)

    def search(self, request: contract.Search) -> contract.SearchReply:
        started = time.monotonic()
        query, content, own_id = self._query(request)
        self._see(request)
        threshold = request.threshold
        if threshold is None:
            threshold = -1.0 if request.text is not None else contract.DEFAULT_THRESHOLD
        look = partial(
            self._finding.hits,
            query,
            threshold=threshold,
            exclude=self._copies(content, own_id),
            drop_copies=request.photo is not None,
        )
        top_k = request.top_k
        among = Filter(request.near, request.where) if request.near is not None or request.where else None
        if request.trusted_only:
            hits, seen = self._trusted_hits(look, top_k, among, Filter(request.near, request.where, trusted_only=True))
        else:
            hits, seen, _ = look(k=top_k, among=among)
        return contract.SearchReply(hits, seen.generation, seen.seq, self._encoder.model_key, ms_since(started))

    def locate(self, request: contract.Locate) -> contract.LocateReply:
        started = time.monotonic()
        query, content, own_id = self._query(contract.Search(photo=request.photo), keypoints=True)
        self._see(request)
        settings = self._settings
        rule = Rule(
            threshold=contract.DEFAULT_THRESHOLD if request.threshold is None else request.threshold,
            window=settings.locate_similarity_window,
            agree_m=settings.locate_agree_m,
            min_share=settings.locate_min_share,
            min_witnesses=settings.locate_min_witnesses,
            neighbours=settings.locate_neighbours,
        )
        hits, seen, looks = self._witness_hits(query, rule, request.near, self._copies(content, own_id))
        found = answer(hits, rule, index_count=seen.count, looks=looks, everywhere=request.near is None)
        log.info(
            "photo located" if found.located else "photo not located",
            extra={"reason": found.reason, "seq": seen.seq},
        )
        return contract.LocateReply(found, seen.generation, seen.seq, self._encoder.model_key, ms_since(started))

    def follow(self) -> None:
        """Keep the index up to date from now on, also while nobody searches."""
        self._live.follow(max(self._settings.max_staleness_s, LEAST_PAUSE_S))

    # ---------------------------------------------------------------------------------------- below

    def _query(self, request: contract.Search, *, keypoints: bool = False) -> tuple[Vector, str | None, int | None]:
        """(vector, content, photo id) of what is searched for. keypoints: found beside the vector of an upload, which
        may be added next."""
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
        if photo.photo_id is not None and photo.path is None:
            entry = self._entries.get([photo.photo_id]).get(photo.photo_id)
            known = self._vectors.known([entry.content_sha256], self._encoder.model_key) if entry else {}
            if entry is not None and entry.content_sha256 in known:
                return known[entry.content_sha256], entry.content_sha256, photo.photo_id
        fetched, refused = self._embedding.vectors({"query": photo}, need_gps=set(), to_keep=False, keypoints=keypoints)
        if refused:
            raise PhotoRefusal(refused["query"].code, refused["query"].message)
        found = fetched["query"]
        return found.vector, found.content_sha256, photo.photo_id

    def _trusted_hits(
        self, look: Callable[..., Looked], top_k: int, among: Filter | None, trusted: Filter
    ) -> tuple[list[contract.Hit], Neighbours]:
        """The most similar photos that are evidence. The index knows of each what its provenance is stored as, and not
        what makes it none all the same (see worker.place.evidence): those are made up for by wider looks."""
        k = FIRST_LOOK * top_k
        hits, seen, _ = look(k=k, among=among)
        while len(found := [hit for hit in hits if _is_trusted(hit)]) < top_k and len(hits) == k:
            # Others crowd them out: only those that may be trusted are to be compared.
            k = k if among is not trusted else WIDER * k
            among = trusted
            hits, seen, _ = look(k=k, among=among)
        return found[:top_k], seen

    def _witness_hits(self, query: Vector, rule: Rule, near: contract.Near | None, exclude: Ids) -> Looked:
        """As many hits as it takes for the rule to have heard its witnesses, however many others are more similar."""
        k = 8 * rule.neighbours
        among = None if near is None else Filter(near)
        while True:
            hits, seen, looks = self._finding.hits(
                query, k=k, threshold=-1.0, among=among, exclude=exclude, drop_copies=True
            )
            if len(hits) < k or settled(hits, rule, looks=looks):
                return hits, seen, looks
            k *= WIDER

    def _copies(self, content: str | None, own_id: int | None) -> Ids:
        """Ids that are the searched photo itself, and other uploads of its file."""
        ids = self._entries.ids_with_content(content) if content is not None else np.zeros(0, dtype=np.int64)
        return ids if own_id is None else np.append(ids, np.int64(own_id))

    def _see(self, request: contract.Search | contract.Locate) -> None:
        """Be as fresh as the settings promise, have read the log since the caller heard of its last write, and be at
        `min_seq` at least. Raises Stale where the log does not reach it."""
        settings, min_seq = self._settings, request.min_seq
        is_news = request.heard is not None and request.heard not in self._met
        seq = self._live.catch_up(max_age_s=0.0 if is_news else settings.max_staleness_s)
        if request.heard is not None and is_news:
            self._met.add(request.heard)
        deadline = time.monotonic() + settings.min_seq_timeout_s
        while seq < min_seq and (seq := self._live.catch_up()) < min_seq:
            if time.monotonic() > deadline:
                raise Stale(
                    f"the log ends at seq {seq} and did not reach {min_seq} within {settings.min_seq_timeout_s:g} s "
                    "(SIGHTLINE_MIN_SEQ_TIMEOUT_S): ask again. If the database was restored to an earlier time, that "
                    "write is lost: a client goes on without it, and a min_seq that you keep yourself is to be dropped "
                    "(min_seq=0)",
                    seq,
                )
            time.sleep(MIN_SEQ_POLL_S)


class Recent:
    """The last so many words that were added. Threads may share it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._words: dict[str, None] = {}
        self._lock = threading.Lock()

    def __contains__(self, word: str) -> bool:
        return word in self._words

    def add(self, word: str) -> None:
        with self._lock:
            self._words[word] = None
            if len(self._words) > self._size:
                del self._words[next(iter(self._words))]


def _is_trusted(hit: contract.Hit) -> bool:
    return hit.provenance is not None and hit.provenance.trusted
