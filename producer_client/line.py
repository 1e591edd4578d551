"""What one process has open to Redis: a pool to send requests by, and the place of their replies. Knows no verb."""

from __future__ import annotations

import sys
import threading
import time
from functools import cached_property, partial
from typing import Any

from kombu.exceptions import OperationalError
from kombu.pools import ProducerPool

from producer_client.celery_app import SigningProducer, client_app
from producer_client.forks import tell_children
from producer_client.ids import new_id
from producer_client.replies import PAUSES_S, Replies
from producer_client.signing import Keys

#: Requests that are sent at the same time at the most; who comes then waits some milliseconds.
SENDERS = 10
#: Seconds that Redis may be silent in the middle of an answer, at the least and at the most, and as a share of what its
#: caller waits for a reply. A share, so that two silences and a look for the reply go into it.
SILENT_S, LONGEST_SILENT_S, SILENT_SHARE = 1.0, 10.0, 0.25


class _Computed:
    """What kombu, Celery and redis compute once has a lock that is one for all connections of a process, and is taken
    at every look (kombu 5.7; functools' own until Python 3.12). In a child that was forked while another thread had one
    nobody gives it back, and the first message would wait for it for ever."""

    def after_fork(self) -> None:
        modules = [
            of for name, of in list(sys.modules.items()) if name.partition(".")[0] in ("kombu", "celery", "redis")
        ]
        # By their types: a proxy of Celery's would look for its object, by such a lock.
        kinds = [kind for of in modules for kind in list(vars(of).values()) if issubclass(type(kind), type)]
        for value in [value for kind in kinds for value in vars(kind).values()]:
            if issubclass(type(value), cached_property) and hasattr(value, "lock"):
                value.lock = threading.RLock()


_computed = _Computed()
tell_children(_computed)


class Line:
    """Making it connects to nothing. patience_s: how long a caller waits for a reply; by it, how long for Redis.

    Its pool is its own. Celery's is one for all who have the same address in this process, which a client must neither
    close nor leave behind in a forked child.
    """

    def __init__(
        self, broker_url: str, replies_url: str, key_prefix: str, keys: Keys | None = None, *, patience_s: float
    ) -> None:
        self._patience_s = patience_s
        silent_s = max(SILENT_S, min(LONGEST_SILENT_S, SILENT_SHARE * patience_s))
        self._app = client_app(broker_url, replies_url, key_prefix, silent_s=silent_s)
        self.replies = Replies(self._app, replies_url, key_prefix, keys)
        self._connections = self._app.connection_for_write().Pool(limit=SENDERS)
        producer: Any = partial(SigningProducer, keys=keys)
        self._producers = ProducerPool(self._connections, limit=SENDERS, Producer=producer)

    def send(self, task: str, queue: str, wire: dict[str, Any], expires_s: float | None) -> str:
        """Returns the id of the request. expires_s: a worker that gets to it later drops it."""
        task_id, began, pauses = new_id(), time.monotonic(), iter(PAUSES_S)
        with self._producers.acquire(block=True) as producer:
            while True:
                try:
                    self._app.send_task(
                        task,
                        args=[wire],
                        task_id=task_id,
                        queue=queue,
                        expires=expires_s,
                        # kombu's own tries go on for five times as long as a server is silent at one (5.7).
                        retry=False,
                        producer=producer,
                        # kombu tries a declaration anew by itself when its connection is lost, and then sends by the
                        # channel that was lost (5.7). A list in Redis needs none.
                        declare=[],
                    )
                    return task_id
                except OperationalError:
                    pause_s = next(pauses, None)
                    # The other half is for the reply.
                    if pause_s is None or time.monotonic() - began > self._patience_s / 2:
                        raise
                    time.sleep(pause_s)
                    connection: Any = producer.connection
                    connection.maybe_switch_next()
                    connection.collect()
                    producer.revive(connection)

    def close(self) -> None:
        """Give its connections back."""
        self.replies.close()
        self._producers.force_close_all()  # type: ignore[attr-defined]  # its base has it
        self._connections.force_close_all()
        self._app.close()
