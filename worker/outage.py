"""Says once that Redis cannot be used, and why, and once that it can again. Knows no transport and no Celery.

Celery and kombu say it at every try, of a worker and of the beat alike, and try ever more seldom (5.7).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import kombu

from producer_client.reach import shown, why

log = logging.getLogger(__name__)

#: Seconds before a server is tried again that is away, or that answered with an error: it may be back at any moment.
PAUSE_S = 1


class Outage:
    """Of the Redis of one address, as one process meets it. Any thread may say what it has met."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._since: float | None = None
        self._said: set[str] = set()

    @property
    def on(self) -> bool:
        """Whether it cannot be used, as far as this process has met."""
        return self._since is not None

    def lost(self, exc: BaseException) -> None:
        """A connection. Nothing is said of the first: what stands in the way of the next one says more."""
        with self._lock:
            again = self._since is not None
            self._begin()
        if again:
            self.met(exc)

    def met(self, exc: BaseException) -> None:
        """Every reason is said once, until it is over."""
        said = why(exc, self._url)
        with self._lock:
            self._begin()
            if said in self._said:
                return
            self._said.add(said)
        log.error(
            "Redis cannot be used, it is tried every second until it can",
            extra={"redis": shown(self._url), "why": said},
        )

    def over(self) -> None:
        """It has answered as it should. Costs nothing where it always did."""
        if self._since is None:
            return
        with self._lock:
            since, self._since = self._since, None
            self._said.clear()
        if since is not None:
            after_s = round(time.monotonic() - since, 1)
            log.warning("Redis serves again", extra={"redis": shown(self._url), "after_s": after_s})

    def connect(self, connection: kombu.Connection, callback: Callable[[], None] | None = None) -> kombu.Connection:
        """For as long as it takes; callback: every second, may raise."""
        return connection.ensure_connection(
            lambda exc, _: self.met(exc), interval_start=PAUSE_S, interval_step=0, callback=callback
        )

    def _begin(self) -> None:
        if self._since is None:
            self._since = time.monotonic()
