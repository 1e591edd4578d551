"""Leaves alone what takes its process down too often: photo contents, whoever asks for them, and messages.

Tries are counted in Postgres before they are made, so that one that ends its process counts. A content that a process
has died with is tried alone from then on, so that it takes no neighbour's count with it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import NoReturn, TypeVar

from producer_client.contract import Code, LeftAlone, ReleaseReply
from worker.core.batcher import Expected
from worker.core.ports import Attempts
from worker.core.tries import STUCK, Deaths, Try
from worker.errors import PhotoRefusal, Transient

T = TypeVar("T")


class Quarantine:
    """One per process, shared by its threads and models.

    after: tries that a content or a message has (SIGHTLINE_QUARANTINE_AFTER).
    """

    def __init__(self, attempts: Attempts, *, after: int) -> None:
        self._attempts = attempts
        self._after = after
        #: Guards what is below.
        self._lock = threading.Lock()
        #: Who has a content in hand here: its count ends with the last of them.
        self._open: Counter[str] = Counter()
        #: Of those in hand, those that a process has died with.
        self._suspects: set[str] = set()
        #: Of those that ended, those that Postgres could not be told of.
        self._untold: set[str] = set()
        #: Messages that a thread was stuck at as the process began to leave, and where.
        self._stuck: dict[str, str] = {}
        self._one_at_a_time = threading.Lock()

    def came_back_too_often(self, task_id: str) -> bool:
        """Whether a message that was handed out again has taken its worker down too often to be tried once more. Not
        counted: deaths with contents of it in hand, which are held against these."""
        return self._attempts.count_delivery(task_id) >= self._after

    @contextmanager
    def trying(self, tries: Collection[Try]) -> Iterator[Tried]:
        """Around the work on some contents: what ends the process within is counted against them."""
        contents = {one.content_sha256 for one in tries}
        with self._lock:
            # Before Postgres knows of it: another thread that ends its work on the same content takes nothing back.
            self._open.update(contents)
        try:
            died = self._attempts.begin(tries, after=self._after) if tries else {}
        except Exception:  # others' code: the driver, which raises what it likes; nothing is counted
            self._let_go(contents)
            raise
        self._let_go(died.keys())
        calm = contents - died.keys()
        left_alone = {
            one.content_sha256: _refusal(one, died[one.content_sha256])
            for one in tries
            if one.content_sha256 in died and died[one.content_sha256].times >= self._after
        }
        try:
            yield Tried(self, left_alone, frozenset(died.keys() - left_alone.keys()))
        except Exception:  # others' code: decoders and models, which raise what they like; it is outlived
            self._end(calm)
            raise
        self._end(calm)

    @contextmanager
    def alone(self, content: str) -> Iterator[None]:
        """Around the work on a suspect: no other one is in hand meanwhile. Who survives that is none any more."""
        with self._one_at_a_time:
            with self._lock:
                self._open[content] += 1
                self._suspects.add(content)
            with suppress(Transient):
                # A question may be all that a database can do that is read-only and counts nothing.
                self._attempts.alone(content)
            try:
                yield
            except Exception:  # others' code: decoders and models, which raise what they like; it is outlived
                self._end([content])
                raise
            self._end([content])

    def hold(self, content: str) -> Callable[[], None]:
        """For work on a content that goes on after `trying`; to be called when that is done."""
        with self._lock:
            self._open[content] += 1
        return lambda: self._end([content])

    def known(self, contents: Collection[str] | None, limit: int | None = None) -> list[LeftAlone]:
        """What is left alone, the newest first. contents: of those whose SHA-256 begins so."""
        return self._attempts.quarantined(self._after, contents, limit)

    def leave(self, handed_back: Collection[str] = (), stuck: Mapping[str, str] | None = None) -> None:
        """The process ends in order: nothing that it has in hand still is held against anything, a content as little
        as the messages that it hands back, by their task ids. But for messages that a thread is stuck at, and where:
        their contents count as those with which a process has died, now and if it is said again without them."""
        with self._lock:
            self._stuck.update(stuck or {})
            clean = not (self._open or self._untold or handed_back)
        if clean:
            return
        with suppress(Transient):
            self._attempts.leave(handed_back, self._stuck)

    def release(self, contents: Collection[str], *, forget: bool) -> ReleaseReply:
        """Have what begins so tried once more; forget: hold nothing against it any more."""
        released = self.known(contents)
        found = [one.content_sha256 for one in released]
        if forget:
            self._attempts.forget(found)
        else:
            self._attempts.retry(found, self._after)
        unknown = [wanted for wanted in contents if not any(content.startswith(wanted) for content in found)]
        return ReleaseReply(released, unknown)

    # ---------------------------------------------------------------------------------------- below

    def _end(self, contents: Collection[str]) -> None:
        ended = self._let_go(contents)
        with self._lock:
            cleared = ended & self._suspects
            self._suspects -= cleared
            self._untold |= ended
            calm = self._untold - self._open.keys() - cleared
        # Where Postgres is away the counts stay until it is told the next time; while this process lives they count
        # nothing.
        with suppress(Transient):
            if calm:
                self._attempts.end(calm)
            if cleared:
                self._attempts.end(cleared, cleared=True)
            with self._lock:
                self._untold -= calm | cleared

    def _let_go(self, contents: Collection[str]) -> set[str]:
        """Of these, those that nobody here has in hand any more."""
        with self._lock:
            self._open.subtract(contents)
            ended = {content for content in contents if self._open[content] <= 0}
            for content in ended:
                del self._open[content]
        return ended


@dataclass(frozen=True, slots=True)
class Tried:
    """Some contents that are to be worked on. left_alone: why some are not; suspects: those that a process has died
    with."""

    quarantine: Quarantine
    left_alone: dict[str, PhotoRefusal]
    suspects: frozenset[str]

    def guarded(self, content: str, act: Callable[[], T], expected: Expected | None) -> Callable[[], T]:
        """The same work, but that a suspect is alone with it, and with the model's, and what is left alone raises its
        PhotoRefusal. expected: whom it is brought to."""
        if content in self.left_alone:
            return partial(_refuse, content, self.left_alone[content], expected)
        if content not in self.suspects:
            return act

        def alone() -> T:
            with self.quarantine.alone(content):
                said = act()
                if expected is not None:
                    expected.wait(content)
            return said

        return alone


def _refuse(content: str, failure: PhotoRefusal, expected: Expected | None) -> NoReturn:
    if expected is not None:
        expected.supply(content, failure)
    raise failure


def _refusal(one: Try, died: Deaths) -> PhotoRefusal:
    what = one.path or (f"photo {one.photo_id}" if one.photo_id is not None else f"content {one.content_sha256[:12]}")
    times, signal, content = died.times, died.signal, one.content_sha256[:12]
    if signal == STUCK:
        return PhotoRefusal(
            Code.QUARANTINED,
            f"{what} took its worker down {times} times, the last time by a thread that was stuck: `sightline "
            f"quarantine retry {content}` has it tried once more",
        )
    if signal:
        return PhotoRefusal(
            Code.QUARANTINED,
            f"{what} took its worker down {times} times, the last time by {signal}: `sightline quarantine retry "
            f"{content}` has it tried once more",
        )
    return PhotoRefusal(
        Code.QUARANTINED,
        f"{what} took its worker down {times} times: `sightline quarantine retry {content}` has it tried once more",
    )
