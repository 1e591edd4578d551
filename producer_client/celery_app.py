"""The client's Celery application: where it connects, and how long it waits for a word. Knows no message."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Producer, serialization

from producer_client import serializer
from producer_client.ids import SENT, now_ms
from producer_client.signing import GOOD_FOR_S, SIGNED, Keys, key_of, stamp
from producer_client.tracing import hand_on


class SigningProducer(Producer):
    """Says when it sends to queues of ours, and signs what it sends there. It writes the body itself, as the signature
    covers its bytes. Of both sides: connections of a pool are kombu's own, so a transport of ours would not see them
    (kombu 5.7)."""

    def __init__(self, channel: Any, *args: Any, keys: Keys | None, **options: Any) -> None:
        super().__init__(channel, *args, **options)
        self._keys = keys

    def publish(  # type: ignore[override]  # of its arguments these are looked at
        self,
        body: Any,
        routing_key: str | None = None,
        headers: dict[str, Any] | None = None,
        serializer: str | None = None,
        **more: Any,
    ) -> Any:
        headers = dict(headers or {})
        # To the next queue of a backend's chain, too.
        hand_on(headers)
        if routing_key is None or routing_key not in GOOD_FOR_S:
            return super().publish(body, routing_key=routing_key, headers=headers, serializer=serializer, **more)
        headers[SENT] = now_ms()
        if self._keys is None:
            return super().publish(body, routing_key=routing_key, headers=headers, serializer=serializer, **more)
        kind, encoding, text = serialization.dumps(body, serializer=serializer)
        written = text.encode(encoding) if isinstance(text, str) else text
        # What a worker sends again stays its sender's: Celery hands on the header that it came with.
        keys = self._keys.of(key_of(headers.get(SIGNED)))
        headers[SIGNED] = stamp(keys, routing_key, headers, written, content_type=kind, content_encoding=encoding)
        more |= {"content_type": kind, "content_encoding": encoding}
        return super().publish(written, routing_key=routing_key, headers=headers, **more)


class PinnedCelery(Celery):
    """A Celery application at these addresses and no others.

    Celery lets CELERY_BROKER_URL and CELERY_RESULT_BACKEND of the environment win over what is given (celery 5.7,
    app/utils.py). They belong to the Celery of the backend around us, which may be at another Redis.
    """

    def __init__(self, name: str, *, broker: str, backend: str, set_as_current: bool) -> None:
        super().__init__(name, broker=broker, backend=backend, set_as_current=set_as_current)
        serializer.register()
        self._pinned_broker = broker
        self.backend_cls = backend

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_read(url or self._pinned_broker, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_write(url or self._pinned_broker, **options)


def keeps_alive(replies_url: str) -> bool:
    """Whether the connection of replies is kept alive in silence. Celery hands that on to a socket of this machine,
    too, whose driver does not know it (5.7, redis 8.1)."""
    return not replies_url.startswith("redis+socket:")


def client_app(broker_url: str, replies_url: str, key_prefix: str, *, silent_s: float) -> PinnedCelery:
    """What sends, with the settings by which replies are read. Connects to nothing yet.

    key_prefix: what every key begins with. silent_s: how long Redis may be silent in the middle of an answer. There is
    no result store, or celery would subscribe to the reply of whatever is sent: `replies.py` has it.
    """
    app = PinnedCelery("sightline-client", broker=broker_url, backend="disabled", set_as_current=False)
    connect_s = min(5.0, silent_s)
    app.conf.update(
        task_serializer=serializer.NAME,
        result_serializer=serializer.NAME,
        accept_content=[serializer.NAME],
        broker_connection_timeout=connect_s,
        broker_transport_options={
            "global_keyprefix": key_prefix,
            # Of a connection; who sends tries again.
            "max_retries": 0,
            "socket_connect_timeout": connect_s,
            "socket_timeout": silent_s,
            "socket_keepalive": True,
        },
        redis_socket_connect_timeout=connect_s,
        redis_socket_timeout=silent_s,
        redis_socket_keepalive=keeps_alive(replies_url),
        redis_backend_health_check_interval=25,
    )
    return app
