"""What every task shares: one message in, one envelope out, whatever goes wrong in between."""

from __future__ import annotations

import logging
import random
import re
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, cast

from billiard.einfo import ExceptionInfo
from celery import Celery, Task
from celery.exceptions import InvalidTaskError, Reject, Retry, WorkerLostError
from celery.utils.time import maybe_iso8601, maybe_make_aware
from celery.worker.request import Request as Delivered
from celery.worker.strategy import default

from producer_client import contract, serializer
from producer_client.contract import Code, Message, Queue
from producer_client.errors import BadRequest
from producer_client.ids import SENT, now_ms, waits_since_ms
from producer_client.signing import SIGNED
from worker.core import request as waiting
from worker.core.observing import count, measure, stage
from worker.door import door_of
from worker.errors import Permanent, Stale, Transient, Unprepared
from worker.logs import of_message
from worker.runtime import Runtime

log = logging.getLogger(__name__)

#: Longest pause before a task is tried again, seconds, and as a share of the visibility timeout. What waits longer than
#: that is handed out a second time, and both go round again: copies multiply for as long as the outage lasts.
LONGEST_PAUSE_S, LONGEST_SHARE = 60.0, 0.25

#: Ids of messages that this process has begun. One of them comes back because connections to Redis were lost, not
#: because its worker was.
begun: deque[str] = deque(maxlen=1_000)


class ContractTask(Task):  # type: ignore[type-arg]  # celery's generic has no runtime form before 5.8
    """A permanent error is answered with its code, a transient one sends the message round again.

    `retries` None: as often as it takes, for what must not be lost. A number: then the caller is told to try again.
    """

    abstract = True
    Strategy = f"{__name__}:read_plainly"
    Request = f"{__name__}:Watched"
    acks_late = True
    reject_on_worker_lost = True
    retries: ClassVar[int | None] = 2
    # Celery's own limit is 3, also for a retry() that is called with None.
    max_retries = None

    @property
    def runtime(self) -> Runtime:
        return cast(Runtime, self.app.runtime)  # type: ignore[attr-defined]  # set by worker.app.create_app

    @property
    def producer(self) -> str:
        """The id of the key that the message was signed with; empty where it was not."""
        return door_of(self.app).signer(getattr(self.request, SIGNED, None)) or ""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        name = str(self.name)
        self._note_wait()
        with stage("task", task=name):
            try:
                envelope = self._answer(args, kwargs)
            except (Retry, Reject):
                count("tasks", task=name, code="again")
                raise
        count("tasks", task=name, code="ok" if envelope["ok"] else str(envelope["error"]["code"]))
        return envelope

    def _answer(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        started = time.monotonic()
        token = waiting.current.set(self._who_waits())
        # Of this call alone, so that what is learnt in it can be added.
        said = {**of_message.get(), "task_id": str(self.request.id)}
        if (photo_id := waiting.photo_of(args)) is not None:
            said["photo_id"] = photo_id
        facts = of_message.set(said)
        try:
            if len(args) != 1 or kwargs:
                raise BadRequest(Code.BAD_REQUEST, "a message is one JSON object as the task's only argument")
            if (self.request.delivery_info or {}).get("redelivered") and self._came_back_too_often():
                raise Permanent(
                    Code.QUARANTINED,
                    "this message has taken its worker down too often (SIGHTLINE_QUARANTINE_AFTER); "
                    "send its photos one by one to find the one that does",
                )
            begun.append(str(self.request.id))
            reply: Message = self.runtime.telling.told(self.run(args[0]), self.producer)
            envelope = contract.ok(reply)
            said |= _outcome_of(reply)
            log.info("task done", extra={"task": self.name, "took_ms": round((time.monotonic() - started) * 1000, 1)})
            return envelope
        except (BadRequest, Permanent) as exc:
            log.info(
                "message answered with a code",
                extra={"task": self.name, "code": exc.code, "why": exc.message},
            )
            return contract.failed(exc.code, exc.message, exc.seq if isinstance(exc, Stale) else None)
        except Transient as exc:
            return self._again(exc)
        except MemoryError:
            # Celery re-raises it before the ack, and the message would come back for ever.
            log.exception("out of memory", extra={"task": self.name})
            return contract.failed(Code.UNAVAILABLE, "the worker ran out of memory; send fewer photos in one message")
        except Exception as exc:  # others' code: every library below, which raises what it likes; answered as internal
            log.exception("task failed", extra={"task": self.name})
            return contract.failed(
                Code.INTERNAL,
                f"{type(exc).__name__} in the worker; its log has the details under task {self.request.id}",
            )
        finally:
            of_message.reset(facts)
            waiting.current.reset(token)

    def _note_wait(self) -> None:
        """How long the message has waited, by the clocks of two hosts."""
        asked = self.request
        queue = (asked.delivery_info or {}).get("routing_key")
        if queue not in set(Queue):
            return
        since_ms = waits_since_ms({SENT: getattr(asked, SENT, None), "id": asked.id, "eta": asked.eta})
        if since_ms is None:
            count("wait_unknown", queue=queue)
            return
        waited_s, is_skewed = waiting.waited_s(since_ms, now_ms())
        if is_skewed:
            count("clock_skew")
        measure("queue_wait_seconds", waited_s, queue=queue)

    def _who_waits(self) -> waiting.Request:
        delivery = self.request.delivery_info or {}
        queue = delivery.get("routing_key")
        again = bool(delivery.get("redelivered") or self.request.retries)
        if queue in (Queue.BULK.value, Queue.INDEX.value):
            # A tick's expiry says when it is too late to begin, not when to give photos up.
            return waiting.Request(urgent=False, task_id=str(self.request.id), again=again)
        deadline = None
        if self.request.expires:
            left = datetime.fromisoformat(str(self.request.expires)) - datetime.now(UTC)
            deadline = time.monotonic() + left.total_seconds()
        return waiting.Request(deadline=deadline, task_id=str(self.request.id), again=again)

    def _came_back_too_often(self) -> bool:
        task_id = str(self.request.id)
        if task_id in tuple(begun):
            return False
        try:
            return self.runtime.library.quarantine.came_back_too_often(task_id)
        except Transient:
            if self.retries is None:
                raise
            # A question may be all that a database can do that is read-only and counts nothing.
            return False

    def _again(self, exc: Transient) -> dict[str, Any]:
        done = self.request.retries or 0
        if self.retries is not None and (done >= self.retries or isinstance(exc, Unprepared)):
            return contract.failed(exc.code, exc.message)
        settings = self.runtime.settings
        longest_s = min(LONGEST_PAUSE_S, LONGEST_SHARE * settings.visibility_timeout_s)
        longest_s = min(longest_s, settings.retry_pause_s * 2.0 ** min(done, 10))
        # What failed together does not come back together.
        pause_s = round(random.uniform(0.5, 1.0) * longest_s, 3)
        log.warning("task goes round again", extra={"task": self.name, "why": exc.message, "pause_s": pause_s})
        try:
            raise self.retry(countdown=pause_s)
        except Reject as refused:
            # Redis does not take it either, and Celery would drop it. Unacknowledged it is handed out again.
            raise Reject(str(refused), requeue=True) from exc


def _outcome_of(reply: Message) -> dict[str, Any]:
    """The photo that a reply is about, where it is one, and the newest seq that it names."""
    outcomes = getattr(reply, "outcomes", ())
    seqs = [seq for part in (reply, *outcomes) if (seq := getattr(part, "seq", None)) is not None]
    ids = [photo_id for part in outcomes if (photo_id := getattr(part, "photo_id", None)) is not None]
    return ({"seq": max(seqs)} if seqs else {}) | ({"photo_id": ids[0]} if len(outcomes) == len(ids) == 1 else {})


class Watched(Delivered):
    """A message in the hands of a pool's child. How the child died, its parent alone sees."""

    def on_failure(self, exc_info: ExceptionInfo, *args: Any, **kwargs: Any) -> None:
        exc = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(exc, WorkerLostError):
            named = re.search(r"\((SIG\w+)\)", str(exc))
            cast(ContractTask, self.task).runtime.note_end(named[1] if named else "", str(exc), task_id=str(self.id))
        super().on_failure(exc_info, *args, **kwargs)


def read_plainly(task: Task[Any, Any], app: Celery, consumer: Any, **options: Any) -> Callable[..., None]:
    """Celery's strategy, but that a message in kombu's JSON, as a backend's own Celery or an earlier client sends it,
    is read without kombu's types: metadata may look like one."""
    handle = default(task, app, consumer, **options)
    # Never less than what is sent round again from here, by a worker whose clock is another.
    longest = timedelta(seconds=max(app.conf.broker_transport_options["visibility_timeout"], 2 * LONGEST_PAUSE_S))

    def take(message: Any, *rest: Any, **named: Any) -> None:
        if message.content_type == "application/json":
            message.content_type = serializer.CONTENT_TYPE
        match message.payload:
            case [list(), dict(), dict() as then] if all(map(_can_follow, then.items())):
                pass
            case [list(), dict(), None]:
                pass
            case dict() as first_protocol:
                if SIGNED in first_protocol:
                    # Celery would take it for a header, and nobody has looked at it.
                    raise InvalidTaskError("a signature lies in its header")
                _check_due(first_protocol.get("eta"), longest)
            case _:
                raise InvalidTaskError("the body is not [arguments, named arguments, what is to follow]")
        headers = message.headers or {}
        _check_due(headers.get("eta"), longest)
        if not isinstance(headers.get("shadow"), str | None):
            # Celery counts tasks by this name, in a thread that ends by it without a word (5.7).
            raise InvalidTaskError("its name for logs is no text")
        handle(message, *rest, **named)

    return take


def _check_due(eta: Any, longest: timedelta) -> None:
    """Until it is due, a message lies in a worker's memory and counts as in hand: after the visibility timeout another
    worker has it, too. Raises InvalidTaskError."""
    due = maybe_iso8601(eta) if isinstance(eta, str | datetime) else None
    if due is not None and maybe_make_aware(due) > datetime.now(UTC) + longest:
        raise InvalidTaskError(f"it is not due before {due}, and {longest} at most are waited")


def _can_follow(embedded: tuple[str, Any]) -> bool:
    """Whether Celery can call what a message says is to follow its task. One that cannot be called is never
    acknowledged: its message would come back for ever (5.7)."""
    match embedded:
        case _, None:
            return True
        case "callbacks" | "errbacks" | "chain", list(signatures):
            return all(map(_is_signature, signatures))
        case "chord", signature:
            return _is_signature(signature)
    # Of others' making, and nothing that Celery calls.
    return embedded[0] not in ("callbacks", "errbacks", "chain", "chord")


def _is_signature(found: Any) -> bool:
    match found:
        case {"task": str()}:
            parts = {"args": list, "kwargs": dict, "options": dict}
            return all(isinstance(found.get(part, kind()), kind) for part, kind in parts.items())
    return False


class LastingTask(ContractTask):
    """For writes: nothing is lost because a server was away."""

    abstract = True
    retries = None
