"""Questions with a record of who has asked, what, and what was told (SIGHTLINE_AUDIT_DAYS, docs/decisions/0056)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from producer_client import contract
from producer_client.contract import Hit, LocateReply, SearchReply
from producer_client.errors import BadRequest
from worker.core import request as waiting
from worker.core.audit import Question
from worker.core.ports import Audit
from worker.errors import Permanent
from worker.library.questions import Questions
from worker.library.telling import Telling
from worker.settings import Settings

#: What is said of a search that found something, and of one that found nothing.
FOUND, NOTHING = "found", "nothing_similar"
#: Records that one transaction deletes at the most, and such transactions of one tick.
LOT, LOTS = 1_000, 20

A = TypeVar("A", LocateReply, SearchReply)


class Recording:
    """producer: id of the key that a question was signed with, empty where it was not.

    Replies are as they were found. Whoever hands them out has worker.library.telling make of them what is recorded.
    """

    def __init__(self, settings: Settings, *, questions: Questions, audit: Audit) -> None:
        self._questions = questions
        self._audit = audit
        self._days = settings.audit_days
        self._telling = Telling(settings)

    def search(self, request: contract.Search, producer: str) -> SearchReply:
        if self._days:
            # It would be answered without Postgres, and so without a record.
            request = replace(request, allow_stale=False)
        return self._asked("search", request, producer, lambda heard: self._questions.search(request, heard=heard))

    def locate(self, request: contract.Locate, producer: str) -> LocateReply:
        return self._asked("locate", request, producer, lambda heard: self._questions.locate(request, heard=heard))

    def forget(self) -> int:
        """What was recorded for as long as it was to be; of much at once some now. Returns how much."""
        forgotten = 0
        for _ in range(LOTS):
            lot = self._audit.forget(LOT)
            forgotten += lot
            if lot < LOT:
                break
        return forgotten

    # ---------------------------------------------------------------------------------------- below

    def _asked(
        self,
        verb: str,
        request: contract.Search | contract.Locate,
        producer: str,
        ask: Callable[[Callable[[str], None]], A],
    ) -> A:
        content: list[str] = []
        try:
            self._telling.check(request.near, producer)
            reply = ask(content.append)
        except (BadRequest, Permanent) as exc:
            self._record(verb, request, producer, content, Question(answer=str(exc.code)))
            raise
        if self._days:
            self._record(verb, request, producer, content, _answered(self._telling.told(reply, producer)))
        return reply

    def _record(
        self,
        verb: str,
        request: contract.Search | contract.Locate,
        producer: str,
        content: Sequence[str],
        answered: Question,
    ) -> None:
        """What cannot be recorded is not answered. Raises Transient without Postgres."""
        if not self._days:
            return
        question = dataclasses.replace(
            answered,
            producer=producer,
            verb=verb,
            task_id=waiting.current.get().task_id,
            content_sha256=content[0] if content else None,
            photo_id=None if request.photo is None else request.photo.photo_id,
        )
        self._audit.record(question, days=self._days)


def _answered(told: LocateReply | SearchReply) -> Question:
    if isinstance(told, SearchReply):
        return Question(answer=FOUND if told.hits else NOTHING, told=_placed(told.hits))
    answer = told.answer
    shown = [*answer.evidence, *([] if answer.contrary is None else [answer.contrary])]
    return Question(
        answer=str(answer.reason or answer.status),
        lat=None if answer.point is None else answer.point.lat,
        lon=None if answer.point is None else answer.point.lon,
        radius_m=answer.radius_m,
        told=_placed(shown),
    )


def _placed(hits: Sequence[Hit]) -> tuple[int, ...]:
    return tuple(hit.photo_id for hit in hits if hit.lat is not None)
