"""Where replies lie, and waiting for them. Knows the result store of Celery, and not what a reply says.

Celery's own consumer of results shares one subscription between all who wait, which before 5.7 threads spoil for each
other, and which a forked child takes over from its parent. So who waits here has a subscription alone, and it is a
bell: when it rings, and every second, the reply is looked for where it lies.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from celery import Celery
from celery.app import backends
from celery.states import READY_STATES
from redis.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeout

from producer_client.signing import Keys, check_reply

#: Seconds after which a reply is looked for without a ring: one that rang while its connection was made anew.
LOOK_EVERY_S = 1.0
#: Seconds between the attempts at a Redis that is away: about a second in all.
PAUSES_S = (0.1, 0.4, 0.7)


class Reply(NamedTuple):
    """What its task returned, or the exception that it ended with."""

    value: Any


class Replies:
    """Of one process; its threads may share it. Making it connects to nothing. Raises ValueError or ImportError for an
    address that is none. keys: replies that none of them has signed are refused."""

    def __init__(self, app: Celery, url: str, key_prefix: str, keys: Keys | None = None) -> None:
        by_url: Any = backends.by_url  # a class and its address, which celery-types does not know
        kind, address = by_url(url, app.loader)
        self._store = kind(app=app, url=address)
        # As celery 5.5 and later put them together from `global_keyprefix`; those before wrote an underscore between.
        self._store.task_keyprefix = self._store.key_t(f"{key_prefix}{kind.task_keyprefix}")
        self._idle: deque[PubSub] = deque()
        self._keys = keys

    def look(self, task_id: str) -> Reply | None:
        """The reply if it is there. Raises what the Redis driver raises, and Untrusted, as `wait` does."""
        if self._keys is None:
            meta = self._store.get_task_meta(task_id, cache=False)
        else:
            written = self._store.get(self._store.get_key_for_task(task_id))
            if written is None:
                return None
            # Before anything is made of it: Celery imports what an exception is called there.
            check_reply(self._keys, task_id, written)
            meta = self._store.decode_result(written)
        return Reply(meta["result"]) if meta["status"] in READY_STATES else None

    def wait(self, task_id: str, timeout_s: float, given_up: Callable[[], bool] = bool) -> Reply | None:
        """The reply, or None after `timeout_s` seconds, or soon after `given_up` says so."""
        deadline = time.monotonic() + timeout_s
        pauses = iter(PAUSES_S)
        while True:
            try:
                reply = self.look(task_id)
                if reply is not None or time.monotonic() >= deadline:
                    return reply
                with self._bell(task_id) as bell:
                    while reply is None and not given_up() and (left_s := deadline - time.monotonic()) > 0:
                        # The first thing that it says is that it hears now.
                        bell.get_message(timeout=min(left_s, LOOK_EVERY_S))
                        reply = self.look(task_id)
                        pauses = iter(PAUSES_S)
                return reply
            except (RedisConnectionError, RedisTimeout, OSError):
                pause_s = next(pauses, None)
                if pause_s is None or time.monotonic() >= deadline:
                    raise
                time.sleep(pause_s)

    def close(self) -> None:
        """Give its connections back."""
        while self._idle:
            self._idle.pop().close()
        self._store.client.connection_pool.disconnect()

    @contextmanager
    def _bell(self, task_id: str) -> Iterator[PubSub]:
        """A subscription that rings when the reply is stored. Nobody else uses it meanwhile."""
        channel = self._store.get_key_for_task(task_id)
        try:
            bell = self._idle.pop()
        except IndexError:
            bell = self._store.client.pubsub(ignore_subscribe_messages=True)
        try:
            bell.subscribe(channel)
            yield bell
            bell.unsubscribe(channel)  # type: ignore[no-untyped-call]  # redis has no types for it
        except BaseException:
            # Whatever it is in the middle of, the next one could not trust it.
            bell.close()
            raise
        self._idle.append(bell)
