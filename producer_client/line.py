"""What one process has open to Redis: a pool to send requests by, and the place of their replies. Knows no verb."""

from __future__ import annotations

from functools import partial
from typing import Any

from kombu.pools import ProducerPool

from producer_client.celery_app import RETRY, SigningProducer, client_app
from producer_client.ids import new_id
from producer_client.replies import Replies
from producer_client.signing import Keys

#: Requests that are sent at the same time at the most; who comes then waits some milliseconds.
SENDERS = 10


class Line:
    """Making it connects to nothing.

    Its pool is its own. Celery's is one for all who have the same address in this process, which a client must neither
    close nor leave behind in a forked child.
    """

    def __init__(self, broker_url: str, replies_url: str, key_prefix: str, keys: Keys | None = None) -> None:
        self._app = client_app(broker_url, replies_url, key_prefix)
        self.replies = Replies(self._app, replies_url, key_prefix, keys)
        self._connections = self._app.connection_for_write().Pool(limit=SENDERS)
        producer: Any = partial(SigningProducer, keys=keys)
        self._producers = ProducerPool(self._connections, limit=SENDERS, Producer=producer)

    def send(self, task: str, queue: str, wire: dict[str, Any], expires_s: float | None) -> str:
        """Returns the id of the request. expires_s: a worker that gets to it later drops it."""
        with self._producers.acquire(block=True) as producer:
            sent = self._app.send_task(
                task,
                args=[wire],
                task_id=new_id(),
                queue=queue,
                expires=expires_s,
                retry_policy=RETRY,
                producer=producer,
                # kombu tries a declaration anew by itself when its connection is lost, and then sends by the channel
                # that was lost (5.7). A list in Redis needs none.
                declare=[],
            )
        return str(sent.id)

    def close(self) -> None:
        """Give its connections back."""
        self.replies.close()
        self._producers.force_close_all()  # type: ignore[attr-defined]  # its base has it
        self._connections.force_close_all()
        self._app.close()
