"""How a worker of threads leaves in time, whatever they are at. Knows Celery, not what is asked (docs/decisions/0049).

A thread cannot be ended from outside. Celery's pool of them knows no time limit and waits for its threads for ever, and
its soft shutdown is for processes (5.7). Here one that is at the same message for too long is named, and its process
makes room for a new one; what is in hand and does not end in time goes back to its queue.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from celery.concurrency.thread import TaskPool
from celery.worker import state

from producer_client.contract import Stuck
from worker import stuck
from worker.broker import pulse_of
from worker.memory import Limit
from worker.signals import ENDED

log = logging.getLogger(__name__)

#: Seconds beyond the grace for what is left to be done: messages go back, connections are closed.
LEAVE_S = 8.0
#: Calls of a thread that are named, the innermost ones.
CALLS = 8


@dataclass(eq=False)
class Work:
    """A message in the hands of a thread. for_s: how long, by the loop's turns: a process that was stopped, or a
    machine that slept, makes nobody slow. thread: None until one has it."""

    task: str
    task_id: str
    thread: int | None = None
    for_s: float = 0.0
    stuck: bool = False


class Threads(TaskPool):
    """Celery's pool of threads, which knows what is in hand and waits for it no longer than it may."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.executor: ThreadPoolExecutor
        self._work: dict[Future[Any], Work] = {}
        self._settings = self.app.runtime.settings
        self._limit = Limit(self._settings.memory_mb)
        self._ended = 0

    def on_apply(self, target: Callable[..., Any], args: Any = None, *rest: Any, **named: Any) -> Any:
        work = Work(*args[:2])

        def begin(*given: Any, **more: Any) -> Any:
            work.thread = threading.get_ident()
            return target(*given, **more)

        result: Any = super().on_apply(begin, args, *rest, **named)
        self._work[result.f] = work
        result.f.add_done_callback(self._end)
        return result

    def _end(self, done: Future[Any]) -> None:
        del self._work[done]
        self._ended += 1

    def turn(self, seconds: float) -> None:
        """So many seconds have passed in the loop that takes messages. It takes no more of them from then on where a
        thread is stuck, or where the process has more memory than it may."""
        found = []
        for work in list(self._work.values()):
            work.for_s += seconds if work.thread is not None else 0.0
            if work.for_s >= self._settings.stuck_s and not work.stuck:
                work.stuck = True
                found.append(work)
        for work in found:
            where = _calls(work.thread)
            facts = {"task": work.task, "task_id": work.task_id, "for_s": round(work.for_s), "where": where}
            log.error("a thread is stuck: this process ends, and its message goes to another", extra=facts)
            at = datetime.now(UTC).isoformat(timespec="seconds")
            stuck.note(self.app, Stuck(work.task, work.task_id, round(work.for_s), at, where))
        if found or self._limit.reached(seconds, messages=self._ended):
            self._leave()

    def on_stop(self) -> None:
        """Until all threads that are not stuck have ended, or the grace is over."""
        ends, pulse = time.monotonic() + self._settings.stop_grace_s, pulse_of(self.app)
        in_hand = dict(self._work)
        self.executor.shutdown(wait=False, cancel_futures=True)
        while (going := [f for f, work in list(self._work.items()) if not work.stuck]) and time.monotonic() < ends:
            wait(going, timeout=min(1.0, max(0.0, ends - time.monotonic())))
            # Whoever ends its work has not stopped.
            pulse.polled()
            pulse.turn(redis=pulse.redis)
        left = self.left
        for work in left:
            facts = {"task": work.task, "task_id": work.task_id, "where": _calls(work.thread)}
            log.warning("not ended in time: its message goes back", extra=facts)
        # Before they are back in their queue, where the next worker counts them.
        not_begun = [work.task_id for future, work in in_hand.items() if future.cancelled()]
        blameless = [*not_begun, *(work.task_id for work in left if not work.stuck)]
        self.app.runtime.hand_back(blameless, {work.task_id: _calls(work.thread) for work in left if work.stuck})

    @property
    def left(self) -> list[Work]:
        """What its threads are at."""
        return list(self._work.values())

    def leave_by_force(self, code: int = 0) -> None:
        """In some seconds, whatever hangs then, a call to a Redis that does not answer for one. What could not be put
        back is handed out again after the visibility timeout."""
        leave_in(self._settings.stop_grace_s + LEAVE_S, code)

    def _leave(self) -> None:
        if not self._ends():
            words: Any = state
            words.should_stop = ENDED
            self.leave_by_force(ENDED)

    @staticmethod
    def _ends() -> bool:
        """Whether somebody has said so already; a signal that asks for it says 0."""
        words: Any = state
        return words.should_stop is not None and words.should_stop is not False


def leave_in(seconds: float, code: int) -> None:
    """End this process then, unless it has ended."""

    def leave() -> None:
        log.critical("this process does not come to its end: it is cut off")
        at_once(code)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()


def at_once(code: int) -> None:
    """End this process without a word to its threads, for which Python would wait."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _calls(thread: int | None) -> str:
    """Where a thread is: `file:line call`, the innermost first."""
    frame = sys._current_frames().get(thread or 0)
    calls = reversed(traceback.extract_stack(frame)[-CALLS:]) if frame is not None else []
    return " < ".join(f"{Path(call.filename).name}:{call.lineno} {call.name}" for call in calls)
