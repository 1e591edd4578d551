"""How a worker takes messages from Redis and outlives whatever lies there. Knows kombu and Celery, not what is asked.

kombu and Celery (5.7) end a worker on what this page catches: a server that answers and does not serve (a replica after
a failover, out of memory, a key of the wrong type), and items that are no message. The first counts as a lost
connection here: the worker pauses and connects again. The second are parked with their reason (worker.parking). An item
is in our hands from the moment that Redis has given it away until it is noted as unacknowledged there or parked; what
falls into that gap goes back to its queue first thing after the next connection.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty
from typing import Any
from uuid import uuid4

import kombu
import redis
from kombu.exceptions import ContentDisallowed
from kombu.transport import redis as by_kombu
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from producer_client.errors import Untrusted
from producer_client.language import to_say
from producer_client.reach import reaching
from worker import unfit
from worker.door import Door
from worker.outage import Outage
from worker.parking import FROM_NO_QUEUE, Parking
from worker.pulse import Pulse
from worker.settings import Settings
from worker.unfit import Fault

log = logging.getLogger(__name__)

#: Bytes of the largest item that is read; larger ones are parked as they are. The client refuses long before.
LARGEST_ITEM = 64 << 20
#: What kombu's JSON and base64, and our own checks, raise for an item that is no message.
UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, MemoryError, RecursionError)
#: Seconds that Redis may be silent at a command's question.
SILENT_S = 5
#: What is no fault of the item's.
SERVER_ERRORS = (redis.exceptions.RedisError, OSError)


@dataclass(frozen=True)
class Taken:
    """An item, and the whole name of the list that it lay in."""

    key: str
    item: bytes


class TooMuch(ContentDisallowed):
    """A body that is not read because of its size in memory, which nobody can tell from the item."""


class Message(virtual.Message):
    """A body that is packed stays so, as it may unpack to any size: kombu would unpack it before it looks at it (5.7).
    What is wrong with a body is an error that the consumer meets."""

    def __init__(self: Any, payload: Any, channel: Any = None, **options: Any) -> None:
        headers = payload.get("headers")
        if isinstance(headers, dict) and headers.get("compression"):
            self.errors = [_as_met(ContentDisallowed("its body is packed"))]
        super().__init__(payload, channel, **options)
        if isinstance(self.body, bytes) and unfit.values_in(self.body) > unfit.MOST_VALUES:
            self.errors.append(_as_met(TooMuch("its body has too many values")))


def _as_met(exc: Exception) -> tuple[type[Exception], Exception, None]:
    """As sys.exc_info has it."""
    return type(exc), exc, None


class InHand:
    """What Redis has given away and is noted nowhere yet. One for each process: only one channel of it takes any."""

    def __init__(self) -> None:
        self.taken: Taken | None = None


class QoS(by_kombu.QoS):
    """Notes of what is unacknowledged. One that cannot be read is parked when its time has come."""

    def append(self: Any, message: Any, delivery_tag: Any) -> None:
        super().append(message, delivery_tag)
        self.channel.in_hand.taken = None

    def ack(self: Any, delivery_tag: Any) -> None:
        with self._out_of_hand(delivery_tag):
            self._ack(delivery_tag)

    def reject(self: Any, delivery_tag: Any, requeue: bool = False) -> None:
        with self._out_of_hand(delivery_tag):
            super().reject(delivery_tag, requeue)

    @contextmanager
    def _out_of_hand(self: Any, delivery_tag: Any) -> Iterator[None]:
        """Where Redis does not take it the note stays there, and the message is handed out again; here it is in hand no
        longer. Or a worker whose hands were full as Redis went takes nothing ever after: kombu asks for nothing then,
        and does not notice either that its connection is gone (5.7)."""
        try:
            yield
        except SERVER_ERRORS:
            super(by_kombu.QoS, self).ack(delivery_tag)
            raise

    def _ack(self: Any, delivery_tag: Any) -> None:
        door, message = self.channel.door, self._delivered.get(delivery_tag)
        done = door.done(message.headers) if door is not None and message is not None else None
        if done is not None:
            with self.pipe_or_acquire() as pipe:
                # One transaction: a message that is handed out again has not ended, and one that has ended is known.
                pipe.set(done[0], b"", ex=done[1])
                self._remove_from_indices(delivery_tag, pipe).execute()
            super(by_kombu.QoS, self).ack(delivery_tag)
            return
        super().ack(delivery_tag)

    def restore_by_tag(self: Any, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        with self.channel.conn_or_acquire(client) as client:
            entry = client.hget(self.unacked_key, tag)
            if entry is not None and (exc := self.channel.unreadable_note(entry)):
                self.channel.park(Taken(FROM_NO_QUEUE, entry), unfit.bad_note(), exc)
                self._remove_from_indices(tag).execute()
                return
        super().restore_by_tag(tag, client, leftmost)


class Taking:
    """Of a channel: items are taken from Redis so that none is lost and none ends the worker."""

    QoS = QoS
    Message = Message
    #: A transport option, so that it outlives the channel. Who takes nothing needs none.
    in_hand: InHand
    #: Transport options, too.
    outage: Outage
    pulse: Pulse
    #: A transport option, too, of who takes or sends.
    door: Door | None = None
    #: What was taken last, whatever became of it.
    last: Taken

    def _brpop_start(self: Any, timeout: float | None = None) -> None:
        self.give_back()
        super()._brpop_start(timeout)  # type: ignore[misc]  # of kombu's channel, which this is mixed with

    def _brpop_read(self: Any, **options: Any) -> bool:
        try:
            reply = self.client.parse_response(self.client.connection, "BRPOP", **options)
        except self.connection_errors:
            # The next round connects again.
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        self.pulse.polled()
        if not reply:
            self.outage.over()
            raise Empty
        key, item = bytes_to_str(reply[0]), reply[1]
        self.last = self.in_hand.taken = Taken(self.global_keyprefix + key, item)
        queue = key.rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        try:
            raw = self._read(item)
            admitted = raw if self.door is None else self.door.admit(raw, self._body(raw), queue, self.plain())
        except Untrusted as exc:
            self.park(self.last, unfit.untrusted(exc), exc)
            self.in_hand.taken = None
        except UNREADABLE as exc:
            self.park(self.last, unfit.no_message(item, LARGEST_ITEM), exc)
            self.in_hand.taken = None
        else:
            if admitted is None:
                self.in_hand.taken = None
                log.info("what was handed out again has been done meanwhile", extra={"queue": self.last.key})
            else:
                if admitted["properties"]["delivery_info"].get("redelivered"):
                    # A note of its own: whoever had it before, and was only slow, acknowledges the one that is gone.
                    admitted["properties"]["delivery_tag"] = str(uuid4())
                self.connection._deliver(admitted, queue)
        # One that is full gives items away, and takes neither the note nor the item back.
        self.outage.over()
        return True

    def _body(self: Any, raw: dict[str, Any]) -> bytes:
        """What lies in a message, without base64."""
        body = self.decode_body(raw.get("body") or b"", raw["properties"].get("body_encoding"))
        return body.encode() if isinstance(body, str) else body

    def give_back(self: Any) -> None:
        """Put what was taken and noted nowhere back to where it lay, as the next to be taken."""
        taken = self.in_hand.taken
        if taken is not None:
            self.plain().rpush(taken.key, taken.item)
            self.in_hand.taken = None
            log.warning("a message is back in its queue", extra={"queue": taken.key})

    def park(self: Any, taken: Taken, fault: Fault, exc: BaseException) -> None:
        parked = Parking(self.plain(), prefix=self.global_keyprefix).park(taken.key, taken.item, fault)
        facts = {"parked": parked.id, "queue": taken.key, "code": fault.code, "why": ascii(exc)}
        log.error("parked: `sightline parked` shows it", extra=facts)

    def unreadable_note(self: Any, entry: bytes) -> BaseException | None:
        """Why what is noted of an unacknowledged message cannot be handed out again; None where it can."""
        try:
            raw, exchange, routing_key = loads(bytes_to_str(entry))
            self._check(raw)
            _text("exchange", exchange), _text("routing key", routing_key)
        except UNREADABLE as exc:
            return exc
        return None

    def _read(self: Any, item: bytes) -> dict[str, Any]:
        if len(item) > LARGEST_ITEM:
            raise ValueError(f"{len(item):,} bytes, and {LARGEST_ITEM:,} at most are read")
        if unfit.values_in(item) > unfit.MOST_VALUES:
            raise ValueError(f"more than {unfit.MOST_VALUES:,} values")
        raw = loads(bytes_to_str(item))
        self._check(raw)
        return raw  # type: ignore[no-any-return]  # checked

    def _check(self: Any, raw: Any) -> None:
        """Raises where kombu could not make a message of it."""
        message = self.Message(_mapping("an item", raw), channel=self)
        _text("delivery_tag", message.delivery_tag)
        for part in ("exchange", "routing_key"):
            _text(part, _mapping("delivery_info", message.delivery_info)[part])

    def plain(self: Any) -> redis.Redis:
        """A client that takes names as they are; kombu's own puts the prefix before some of them."""
        return redis.Redis(connection_pool=self.pool)


class Channel(Taking, by_kombu.Channel):  # type: ignore[misc]  # kombu has no types
    from_transport_options = (*by_kombu.Channel.from_transport_options, "in_hand", "outage", "pulse", "door")


class SentinelChannel(Taking, by_kombu.SentinelChannel):  # type: ignore[misc]  # kombu has no types
    from_transport_options = (*by_kombu.SentinelChannel.from_transport_options, "in_hand", "outage", "pulse", "door")


class Transport(by_kombu.Transport):
    """Whatever Redis answers instead of serving counts as a lost connection."""

    Channel = Channel
    connection_errors = (*by_kombu.Transport.connection_errors, redis.exceptions.RedisError)


class SentinelTransport(by_kombu.SentinelTransport):
    Channel = SentinelChannel
    connection_errors = (*by_kombu.SentinelTransport.connection_errors, redis.exceptions.RedisError)


class Connection(kombu.Connection):
    """kombu's, by the transports of this page; their names in URLs and logs stay."""

    def get_transport_cls(self) -> Any:
        ours = {"redis": Transport, "rediss": Transport, "sentinel": SentinelTransport}
        return ours.get(str(self.transport_cls)) or super().get_transport_cls()


def outage_of(app: Any) -> Outage:
    """What a process has met of the Redis of its queues."""
    found: Outage = app.conf.broker_transport_options["outage"]
    return found


def pulse_of(app: Any) -> Pulse:
    """What a process says of itself."""
    found: Pulse = app.conf.broker_transport_options["pulse"]
    return found


def give_back_at_last(app: Any) -> None:
    """When the worker ends: what it took and could note nowhere goes back to its queue, or else into the log, whole."""
    taken: Taken | None = app.conf.broker_transport_options["in_hand"].taken
    if taken is None:
        return
    try:
        with app.connection_for_write() as connection:
            connection.default_channel.give_back()
    except (kombu.exceptions.OperationalError, *SERVER_ERRORS) as exc:
        lost = {"queue": taken.key, "item": taken.item, "why": exc}
        log.critical("a message was taken and could not be put back", extra=lost)


def refuses_writes(connection: kombu.Connection) -> str | None:
    """Why Redis would take no message now, in English; None where it would."""
    channel: Any = connection.default_channel
    client = channel.client
    if client.info("replication").get("role") == "slave":
        return to_say("it is a replica at the moment, which takes no messages. Name the primary, or let it become one.")
    memory = client.info("memory")
    if 0 < memory.get("maxmemory", 0) <= memory["used_memory"] and memory.get("maxmemory_policy") == "noeviction":
        return to_say("its memory is full and takes no messages (maxmemory). Give it more, or remove what fills it.")
    return None


@contextmanager
def connected(url: str, *, silent_s: int | None = None) -> Iterator[kombu.Connection]:
    """To a broker, for a command. silent_s: how long it may be silent, SILENT_S unless given. Raises Unreachable where
    it cannot be used."""
    silent_s = SILENT_S if silent_s is None else silent_s
    # The last is for clones, which connect by themselves.
    options = {"socket_connect_timeout": silent_s, "socket_timeout": silent_s, "max_retries": 1}
    with reaching(url), Connection(url, transport_options=options, connect_timeout=silent_s) as connection:
        connection.ensure_connection(max_retries=1, timeout=silent_s)
        yield connection


@contextmanager
def plain_client(settings: Settings, *, silent_s: int | None = None) -> Iterator[redis.Redis]:
    """As `connected`, a client of the broker of the settings."""
    with connected(settings.broker_url, silent_s=silent_s) as connection:
        channel: Any = connection.default_channel
        yield channel.plain()


@contextmanager
def parking(settings: Settings) -> Iterator[Parking]:
    """What is parked there. Raises Unreachable."""
    with plain_client(settings) as client:
        yield Parking(client, prefix=settings.key_prefix)


def _mapping(what: str, value: Any) -> Any:
    if not isinstance(value, dict):
        raise TypeError(f"{what} is {type(value).__name__}, not an object")
    return value


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} is {type(value).__name__}, not text")
    return value
