"""What looks like this, and where was it taken: the index proposes, Postgres decides, a rule answers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from msgspec.structs import replace

from producer_client import contract
from producer_client.contract import Code, Reason
from worker.core.index_ports import LiveIndex
from worker.core.observing import count, measure, stage
from worker.core.ports import Encoder, Entries, StoredKeypoints, StoredVectors
from worker.core.request import current
from worker.core.shot import Shot
from worker.core.types import TOO_PLAIN, Filter, Neighbours
from worker.core.vectors import Ids, Vector, unit_query
from worker.embedding import Embedding
from worker.errors import Permanent, PhotoRefusal, Stale, Transient
from worker.library.alone import Alone, filter_of, least_of
from worker.library.comparing import Comparing
from worker.library.finding import Finding, Looked
from worker.library.learning import Learning
from worker.library.locating import for_former, rule_of
from worker.library.mates import Mates
from worker.logs import ms_since
from worker.looks import Finding as Keypoints
from worker.looks import found as known_keypoints
from worker.place.guide import by_guide
from worker.place.judging import judge
from worker.place.pictures import Look
from worker.place.rule import Rule, abstain, answer, settled
from worker.place.weighing import enough_to_weigh, weigh
from worker.place.witnesses import is_trusted
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


#: What is said of a picture without anything to search by.
NO_PLACE = abstain(
    Reason.NO_PLACE_IN_PICTURE,
    "the picture shows no place: it is blank or nearly so, a document or a screenshot. Send a photo of the place",
    [],
)


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What is searched for. content, photo_id: by which it is known itself. look: of a photo, where it is known.
    keypoints: where they are wanted; they may still be looked for."""

    vector: Vector
    content: str | None = None
    photo_id: int | None = None
    look: Look | None = None
    keypoints: Keypoints | None = None


class Questions:
    """Search and locate."""

    def __init__(
        self,
        settings: Settings,
        *,
        alone: Alone,
        encoder: Encoder,
        embedding: Embedding,
        entries: Entries,
        keypoints: StoredKeypoints,
        learning: Learning,
        live: LiveIndex,
        vectors: StoredVectors,
    ) -> None:
        self._settings = settings
        self._alone = alone
        self._rungs = frozenset(settings.rungs)
        self._encoder = encoder
        self._embedding = embedding
        self._entries = entries
        self._keypoints = keypoints
        self._learning = learning
        self._live = live
        self._finding = Finding(settings, encoder.model_key, entries=entries, index=live)
        self._mates = Mates(self._finding, vectors) if "time" in self._rungs else None
        self._met = Recent(MET_WORDS)
        #: Of one question, several are compared at a time.
        self._comparing = ThreadPoolExecutor(settings.threads, thread_name_prefix="compare")

    def search(
        self, request: contract.Search, *, heard: Callable[[str], None] = lambda _: None
    ) -> contract.SearchReply:
        """heard: is told the content that was asked about, as soon as it is known."""
        started = time.monotonic()
        try:
            return self._search(request, started, heard)
        except Transient as exc:
            if not request.allow_stale or exc.code != Code.UNAVAILABLE:
                raise
            reply = self._alone.search(request, started)
            if reply is None:
                raise
            return reply

    def _search(self, request: contract.Search, started: float, heard: Callable[[str], None]) -> contract.SearchReply:
        asked = self._query(request)
        if asked.content is not None:
            heard(asked.content)
        self._see(request)
        look = partial(
            self._finding.hits,
            asked.vector,
            threshold=least_of(request),
            exclude=self._copies(asked),
            drop_copies=request.photo is not None,
        )
        top_k, among = request.top_k, filter_of(request)
        if request.trusted_only:
            hits, seen = self._trusted_hits(look, top_k, among, Filter(request.near, request.where, trusted_only=True))
        else:
            hits, seen, _ = look(k=top_k, among=among)
        return contract.SearchReply(hits, seen.generation, seen.seq, self._encoder.model_key, ms_since(started))

    def locate(
        self, request: contract.Locate, *, heard: Callable[[str], None] = lambda _: None
    ) -> contract.LocateReply:
        """heard: as in search."""
        started = time.monotonic()
        weighs = request.policy is not contract.Policy.GUIDE and self._rungs >= {"places", "geometry"}
        asked = self._query(contract.Search(photo=request.photo), keypoints=weighs)
        timings_ms = {"photo": ms_since(started)}
        if asked.content is not None:
            heard(asked.content)
        self._see(request)
        if request.policy is contract.Policy.GUIDE:
            found, seen = self._by_guide(asked, request)
        elif asked.look is not None and asked.look.picture_hash == TOO_PLAIN:
            found, seen = NO_PLACE, None
        else:
            found, seen = self._weighed(asked, request, timings_ms)
        count("answers", status=found.status, reason=str(found.reason or "none"))
        if found.confidence is not None:
            measure("answer_confidence", found.confidence, kind=str(found.confidence_kind))
        found = replace(found, timings_ms={name: round(ms, 1) for name, ms in timings_ms.items()})
        if not self._settings.key_prefix:
            found = for_former(found)
        generation, seq = (self._live.generation, self._live.seq) if seen is None else (seen.generation, seen.seq)
        log.info("photo located" if found.located else "photo not located", extra={"reason": found.reason, "seq": seq})
        return contract.LocateReply(found, generation, seq, self._encoder.model_key, ms_since(started))

    def follow(self) -> None:
        """Keep the index up to date from now on, also while nobody searches."""
        self._live.follow(max(self._settings.max_staleness_s, LEAST_PAUSE_S))

    @property
    def index(self) -> LiveIndex:
        return self._live

    def close(self) -> None:
        self._comparing.shutdown()

    # ---------------------------------------------------------------------------------------- below

    def _query(self, request: contract.Search, *, keypoints: bool = False) -> Asked:
        """What is searched for. keypoints: found beside the vector of an upload, which may be added next."""
        if request.model_key not in (None, self._encoder.model_key):
            raise Permanent(
                Code.MODEL_MISMATCH,
                f"the vector is one of {request.model_key}, this worker runs {self._encoder.model_key}; embed it again",
            )
        if request.vector is not None:
            return Asked(unit_query(request.vector, self._encoder.dimension))
        if request.text is not None:
            with stage("text"):
                return Asked(self._encoder.encode_texts([request.text])[0])
        photo = request.photo
        assert photo is not None
        if photo.photo_id is not None and photo.path is None:
            stored = self._entries.known([photo.photo_id], self._encoder.model_key).get(photo.photo_id)
            if stored is not None:
                entry, vector = stored
                content, look = entry.content_sha256, Look(vector, entry.picture_hash, entry.shot)
                own = known_keypoints(self._keypoints.known([content]).get(content)) if keypoints else None
                return Asked(vector, content, photo.photo_id, look, own)
        fetched, refused = self._embedding.vectors({"query": photo}, need_gps=set(), to_keep=False, keypoints=keypoints)
        if refused:
            raise PhotoRefusal(refused["query"].code, refused["query"].message)
        found = fetched["query"]
        look = Look(found.vector, *self._picture_of(found.content_sha256))
        return Asked(found.vector, found.content_sha256, photo.photo_id, look, found.finding)

    def _picture_of(self, content: str) -> tuple[bytes | None, Shot | None]:
        """Hash and shot of a photo that was decoded here lately, or is stored."""
        remembered = self._embedding.picture(content)
        if remembered is not None:
            return remembered
        ids = self._entries.ids_with_content(content).tolist()
        stored = self._entries.known(ids[:1], self._encoder.model_key).values()
        return next(((entry.picture_hash, entry.shot) for entry, _ in stored), (None, None))

    def _weighed(
        self, asked: Asked, request: contract.Locate, timings_ms: dict[str, float]
    ) -> tuple[contract.Answer, Neighbours]:
        """timings_ms: takes up how long each part took."""
        started = time.monotonic()
        rule = rule_of(self._settings, request.threshold)
        everywhere = request.near is None
        among, exclude = None if everywhere else Filter(request.near), self._copies(asked)
        hits, seen, looks = self._witness_hits(asked, rule, among, exclude)
        timings_ms["search"] = ms_since(started)
        about: dict[str, Any] = {"looks": looks, "own": asked.look, "index_count": seen.count, "everywhere": everywhere}
        if "places" not in self._rungs:
            return answer(hits, rule, **about), seen
        if self._mates is not None:
            started = time.monotonic()
            about["moments"] = self._mates.of(asked.look, exclude=exclude, among=among)
            timings_ms["time"] = ms_since(started)
        started = time.monotonic()
        own = asked.keypoints
        compare = None if own is None else Comparing(self._keypoints, own, mapped=self._comparing.map)
        weighed = weigh(hits, rule, compare=compare, **about)
        timings_ms["geometry"] = ms_since(started)
        if weighed.best is None:
            # Nobody testifies: the answer does not wait for keypoints.
            return judge(weighed), seen
        # What was learnt by keypoints says nothing of a photo that has not been looked at, and the other way round.
        learnt_so = (own is not None and own.result() is not None) == ("geometry" in self._rungs)
        learnt = self._learning.calibration(seen.generation) if learnt_so and "calibration" in self._rungs else None
        return judge(weighed, learnt), seen

    def _by_guide(self, asked: Asked, request: contract.Locate) -> tuple[contract.Answer, Neighbours]:
        hits, seen, _ = self._finding.hits(
            asked.vector,
            k=8 * self._settings.locate_neighbours,
            threshold=-1.0,
            among=None if request.near is None else Filter(request.near),
            exclude=self._copies(asked),
            drop_copies=True,
        )
        return by_guide(hits, rule_of(self._settings, request.threshold).threshold), seen

    def _trusted_hits(
        self, look: Callable[..., Looked], top_k: int, among: Filter | None, trusted: Filter
    ) -> tuple[list[contract.Hit], Neighbours]:
        """The most similar photos that are evidence. The index knows of each what its provenance is stored as, and not
        what makes it none all the same (see worker.place.evidence): those are made up for by wider looks."""
        k = FIRST_LOOK * top_k
        hits, seen, _ = look(k=k, among=among)
        while len(found := [hit for hit in hits if is_trusted(hit)]) < top_k and len(hits) == k:
            # Others crowd them out: only those that may be trusted are to be compared.
            k = k if among is not trusted else WIDER * k
            among = trusted
            hits, seen, _ = look(k=k, among=among)
        return found[:top_k], seen

    def _witness_hits(self, asked: Asked, rule: Rule, among: Filter | None, exclude: Ids) -> Looked:
        """As many hits as it takes for the rule to have heard its witnesses, however many others are more similar."""
        k = 8 * rule.neighbours
        enough = settled if asked.keypoints is None else enough_to_weigh
        while True:
            hits, seen, looks = self._finding.hits(
                asked.vector, k=k, threshold=-1.0, among=among, exclude=exclude, drop_copies=True
            )
            if len(hits) < k or enough(hits, rule, looks=looks, own=asked.look):
                return hits, seen, looks
            k *= WIDER

    def _copies(self, asked: Asked) -> Ids:
        """Ids that are the searched photo itself, and other uploads of its file."""
        none = np.zeros(0, dtype=np.int64)
        ids = none if asked.content is None else self._entries.ids_with_content(asked.content)
        return ids if asked.photo_id is None else np.append(ids, np.int64(asked.photo_id))

    def _see(self, request: contract.Search | contract.Locate) -> None:
        """Be as fresh as the settings promise, have read the log since the caller heard of its last write, and be at
        `min_seq` at least. Raises Stale where the log does not reach it."""
        settings, min_seq = self._settings, request.min_seq
        is_news = request.heard is not None and request.heard not in self._met
        seq = self._live.catch_up(max_age_s=0.0 if is_news else settings.max_staleness_s)
        if request.heard is not None and is_news:
            self._met.add(request.heard)
        patience_s = settings.min_seq_timeout_s
        if (ends := current.get().deadline) is not None:
            # Who hears of it too late does not begin anew.
            patience_s = min(patience_s, (ends - time.monotonic()) / 2)
        deadline = time.monotonic() + patience_s
        while seq < min_seq and (seq := self._live.catch_up()) < min_seq:
            if self._live.set_back:
                raise Stale(
                    f"the log ends at seq {seq}: the database was restored to an earlier time, and the write that was "
                    f"{min_seq} is lost: a client goes on without it, and a min_seq that you keep yourself is to be "
                    "dropped (min_seq=0)",
                    seq,
                )
            if time.monotonic() > deadline:
                raise Stale(
                    f"the log ends at seq {seq} and did not reach {min_seq} within {patience_s:.1f} s "
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
