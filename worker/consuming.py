"""The consumer of a worker: Celery's, but that nothing which lies in a queue ends it, and that it says that it goes on.

Knows Celery, not what is asked.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import kombu
import redis
from celery.exceptions import CPendingDeprecationWarning
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from kombu.exceptions import ContentDisallowed

from producer_client.contract import TaskName
from worker import unfit
from worker.broker import SERVER_ERRORS, TooMuch, outage_of, pulse_of
from worker.core import starting
from worker.leaving import Threads
from worker.outage import PAUSE_S
from worker.unfit import Fault

log = logging.getLogger(__name__)

#: Seconds between two looks of a worker at itself; and until it is ready, which others wait for.
TURN_S, STARTING_TURN_S = 1.0, 0.02


class OutlivingConsumer(Consumer):
    """Celery's consumer, which also parks what Celery itself would drop: what it cannot decode and does not know."""

    def update_strategies(self: Any) -> None:
        """For our own tasks alone. Celery's (celery.map, celery.chord_unlock) call and send what a message says."""
        super().update_strategies()
        for name in self.strategies.keys() - set(TaskName):
            del self.strategies[name]

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> Any:
            try:
                return handle(message)
            except SERVER_ERRORS:
                raise
            except Exception as exc:  # others' code: Celery on a strange message, which raises what it likes; parked
                log.exception("a message that Celery cannot handle")
                return self._park(message, unfit.bad_task(), exc)

        return on_task_received

    def register_with_event_loop(self, hub: Any) -> None:
        super().register_with_event_loop(hub)
        # Ended by Celery with the connection, as whatever is registered here.
        hub.call_repeatedly(TURN_S, self._turn)
        starting.reached("queue")
        first_turns: Any = hub.call_repeatedly(STARTING_TURN_S, lambda: self._tell() and first_turns.cancel())
        hub.call_soon(self._tell)

    def _turn(self: Any) -> None:
        """Once a second, in the loop that takes messages."""
        self._tell()
        if isinstance(self.pool, Threads):
            self.pool.turn(TURN_S)

    def _tell(self: Any) -> bool:
        """That it goes on; returns whether it is ready."""
        channel, pulse, outage = self.task_consumer.channel, pulse_of(self.app), outage_of(self.app)
        if not channel.qos.can_consume():
            # Whoever has all hands full asks for nothing.
            pulse.polled()
        before = pulse.ready
        pulse.turn(redis=not outage.on)
        if pulse.ready and not before and self.restart_count == 0:
            log.info("ready", extra={**starting.steps(), "took_s": round(starting.age_s(), 2)})
        return pulse.ready

    def _turn_without(self) -> None:
        """While there is no connection."""
        pulse_of(self.app).turn(redis=False)
        maybe_shutdown()

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        fault = unfit.too_many_values() if isinstance(exc, TooMuch) else unfit.unknown_content()
        self._park(message, fault, exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._park(message, unfit.no_task(), LookupError("task"))

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._park(message, unfit.unknown_content() if isinstance(exc, ContentDisallowed) else unfit.bad_task(), exc)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Whoever waits for the reply is told as Celery tells it."""
        (task,) = exc.args
        message.channel.park(message.channel.last, unfit.no_task() if task is None else unfit.unknown_task(task), exc)
        super().on_unknown_task(body, message, exc)

    def ensure_connected(self, conn: kombu.Connection) -> kombu.Connection:
        return outage_of(self.app).connect(conn, callback=self._turn_without)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        self._wait(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        with warnings.catch_warnings():
            # That tasks in hand go on is what we chose (worker.app).
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)
        if isinstance(exc, OSError | redis.exceptions.ConnectionError):
            outage_of(self.app).lost(exc)
        else:
            # The server is there and would answer the same at once.
            self._wait(exc)

    def _wait(self, exc: Exception) -> None:
        outage_of(self.app).met(exc)
        pulse_of(self.app).turn(redis=False)
        time.sleep(PAUSE_S)

    def _park(self, message: Any, fault: Fault, exc: Exception) -> None:
        if message.acknowledged:
            log.error("answered, and then: %s", ascii(exc))
            return
        message.channel.park(message.channel.last, fault, exc)
        message.reject()
