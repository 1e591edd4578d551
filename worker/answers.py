"""How replies are stored in Redis, and signed. Knows Celery, not what they say."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any

import redis
from celery.backends.redis import RedisBackend
from celery.states import READY_STATES, SUCCESS

from producer_client.reach import why
from producer_client.signing import SIGNED
from worker.door import door_of

log = logging.getLogger(__name__)

#: The key of the request that is being answered.
of_key: ContextVar[str | None] = ContextVar("of_key", default=None)


class Replies(RedisBackend):
    """Where replies lie, signed where there are keys. One is tried again while Redis answers that it is a replica, or
    full, as while it is away."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connection_errors = (*self.connection_errors, redis.exceptions.RedisError)

    def set(self: Any, key: Any, value: Any, *args: Any, **policy: Any) -> Any:
        if self.key_t(key).startswith(self.task_keyprefix):
            value = door_of(self.app).signed_reply(self._strip_prefix(key), value, of_key.get())
        return super().set(key, value, *args, **policy)

    def _store_result(self: Any, *args: Any, request: Any = None, **more: Any) -> Any:
        token = of_key.set(door_of(self.app).signer(getattr(request, SIGNED, None)))
        try:
            return super()._store_result(*args, request=request, **more)  # type: ignore[misc]  # not in celery-types
        finally:
            of_key.reset(token)

    def get(self: Any, key: Any) -> Any:
        """What others have written in its place is none: Celery stores no second reply where one lies.

        It looks for one before each that it stores, and tries that once alone (5.7): a Redis that is gone in this
        moment would cost the reply.
        """
        found = self.ensure(super().get, (key,))
        if found is None or not self.key_t(key).startswith(self.task_keyprefix):
            return found
        return found if door_of(self.app).is_ours(self._strip_prefix(key), found) else None

    def refuse(self: Any, task_id: str, envelope: dict[str, Any], *, key_id: str | None) -> None:
        """A reply that no task has made. It never takes the place of one that is there. key_id: of whoever has asked;
        None signs nothing."""
        if self.get_task_meta(task_id, cache=False)["status"] in READY_STATES:
            return
        meta = self._get_result_meta(envelope, SUCCESS, None, None) | {"task_id": task_id}
        key, written = self.get_key_for_task(task_id), self.encode(meta)
        super().set(key, written if key_id is None else door_of(self.app).signed_reply(task_id, written, key_id))

    def on_connection_error(self, max_retries: int | None, exc: Exception, intervals: Any, retries: int) -> Any:
        if not retries:
            uri = self.as_uri()
            log.warning("a reply waits for Redis", extra={"redis": uri, "why": why(exc, uri)})
        return float(next(intervals))
