"""What is seen of pictures beside their vectors: their hashes, to know copies, and their keypoints, to see whether two
show one place. Found once for each content, by whoever decodes it first. Knows no file, model or SQL.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

from cachetools import TTLCache

from worker.core.batcher import as_ours
from worker.core.keypoints import Keypoints
from worker.core.observing import carried, stage
from worker.core.ports import FindKeypoints, StoredKeypoints, StoredVectors
from worker.core.shot import NO_SHOT, Picture, Shot
from worker.core.types import TOO_PLAIN, Decoded
from worker.errors import Permanent, WorkerError

log = logging.getLogger(__name__)

#: Pictures of questions whose keypoints are remembered: an upload is located, then added. 0.2 MB each.
RECENT_KEYPOINTS = 128

#: Keypoints that are being found; None where they were not, through no fault of the picture's.
Finding = Future[Keypoints | None]


class Looks:
    """One per process and model, shared by its threads. find: None where nobody wants keypoints. remembered,
    remember_s: hashes that are kept at hand, and for how long. aside: pictures of questions that are looked at at a
    time. hold: called with a content that goes on being looked at; what it returns, when that is done."""

    def __init__(
        self,
        *,
        vectors: StoredVectors,
        keypoints: StoredKeypoints,
        find: FindKeypoints | None,
        remembered: int,
        remember_s: float,
        aside: int,
        hold: Callable[[str], Callable[[], None]],
    ) -> None:
        self._vectors = vectors
        self._keypoints = keypoints
        self._find = find
        self._hold = hold
        #: Guards all below.
        self._lock = threading.Lock()
        self._hashes: TTLCache[str, Picture] = TTLCache(remembered, remember_s)
        self._recent: TTLCache[str, Keypoints] = TTLCache(RECENT_KEYPOINTS, remember_s)
        self._in_hand: dict[str, Finding] = {}
        self._aside = ThreadPoolExecutor(aside, thread_name_prefix="look")

    def close(self) -> None:
        self._aside.shutdown()

    def want(self, contents: Iterable[str], *, to_keep: bool, keypoints: bool) -> Wanted:
        """What a request wants to see of these contents. to_keep: what Postgres lacks, to be stored there; else
        keypoints alone, wherever they are had from."""
        contents = set(contents)
        without_hash = self._vectors.without_hash(contents) if to_keep else set()
        there: dict[str, Keypoints] = {}
        lacking: set[str] = set()
        if keypoints and self._find is not None:
            there = {} if to_keep else self._keypoints.known(contents)
            lacking = self._keypoints.without(contents) if to_keep else contents - there.keys()
        mine: dict[str, Finding] = {}
        others: dict[str, Finding] = {}
        with self._lock:
            unhashed = {content for content in without_hash if content not in self._hashes}
            for content in lacking:
                if (remembered := self._recent.get(content)) is not None:
                    there[content] = remembered
                elif content in self._in_hand:
                    others[content] = self._in_hand[content]
                else:
                    mine[content] = self._in_hand[content] = Future()
        return Wanted(self, to_keep, without_hash, unhashed, there, mine, others)

    def note_picture(self, content: str, picture_hash: bytes, shot: Shot) -> None:
        with self._lock:
            self._hashes[content] = picture_hash, shot

    def picture_of(self, content: str) -> Picture | None:
        """Its hash and its shot, where they are remembered."""
        with self._lock:
            return self._hashes.get(content)

    def find(self, content: bytes, decoded: Decoded) -> Keypoints | None:
        """None where it failed for want of something, as memory; a picture that cannot be looked at has none."""
        assert self._find is not None
        try:
            with stage("keypoints"):
                return self._find(content, decoded)
        except Exception as exc:  # others' code: OpenCV, which raises what it likes; the photo is found by its vector
            log.warning("no keypoints of a photo", exc_info=exc)
            return Keypoints.none() if isinstance(as_ours(exc, "finding keypoints"), Permanent) else None

    def find_aside(self, content: str, finding: Finding, file: bytes, decoded: Decoded) -> None:
        """On a thread of its own: of a question, whose vector is searched for meanwhile."""
        done = self._hold(content)

        def look() -> None:
            self.settle(content, finding, self.find(file, decoded), remember=True)
            done()

        self._aside.submit(carried(look))

    def settle(self, content: str, finding: Finding, found: Keypoints | None, *, remember: bool) -> None:
        """Once; what comes after that is of another copy of the file in the same request."""
        with self._lock:
            if finding.done():
                return
            if remember and found is not None:
                self._recent[content] = found
            del self._in_hand[content]
            finding.set_result(found)


def found(keypoints: Keypoints | None) -> Finding:
    """What nobody has to look for any more."""
    finding: Finding = Future()
    finding.set_result(keypoints)
    return finding


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one request wants to see. without_hash: contents whose hash or shot Postgres lacks; unhashed: of these,
    those whose hash is not remembered. there: keypoints that are at hand. mine: what this request has to find, others:
    what another one is about to. begun: what is found aside, also when the request has gone on.

    As a context, it gives up at the end what was not begun, so that nobody waits for it.
    """

    looks: Looks
    to_keep: bool
    without_hash: set[str]
    unhashed: set[str]
    there: dict[str, Keypoints]
    mine: dict[str, Finding]
    others: dict[str, Finding]
    begun: set[str] = field(default_factory=set)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for content in self.mine.keys() - self.begun:
            self._settle(content, None)

    def look(self, content: str, file: bytes, decoded: Decoded) -> None:
        """Find the keypoints of a decoded photo where that is for this request to do: at once where they are to be
        stored, else aside. Never raises."""
        if content not in self.mine or self.mine[content].done():
            return
        if self.to_keep:
            self._settle(content, self.looks.find(file, decoded))
        elif decoded.picture_hash != TOO_PLAIN:
            # A picture that shows no place is asked nothing more.
            self.begun.add(content)
            self.looks.find_aside(content, self.mine[content], file, decoded)

    def cannot_look(self, content: str, failure: WorkerError) -> None:
        """It was not decoded. One that never can be shows nothing, and is not tried again."""
        if isinstance(failure, Permanent):
            self.looks.note_picture(content, TOO_PLAIN, NO_SHOT)
        if content in self.mine:
            self._settle(content, Keypoints.none() if isinstance(failure, Permanent) else None)

    def picture_of(self, content: str) -> Picture | None:
        """Hash and shot, to be stored; None where Postgres has them, or nobody asked for them."""
        return self.looks.picture_of(content) if content in self.without_hash else None

    def keypoints_of(self, content: str) -> Keypoints | None:
        """To be stored: waits for who is about to find them. None where they are not wanted, are stored already or were
        not found."""
        if not self.to_keep:
            return None
        finding = self.mine.get(content, self.others.get(content))
        return self.there.get(content) if finding is None else finding.result()

    def finding_of(self, content: str) -> Finding | None:
        """Of a question, which may go on before they are found. None where they are not wanted."""
        if self.to_keep:
            return None
        there = self.there.get(content)
        return self.mine.get(content, self.others.get(content)) if there is None else found(there)

    def _settle(self, content: str, found: Keypoints | None) -> None:
        # What is to be stored need not be remembered.
        self.looks.settle(content, self.mine[content], found, remember=not self.to_keep)
