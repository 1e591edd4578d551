"""What each process says of itself in Redis as well, so that those of all machines are seen at once.

Said by the loop that must not stop (worker.pulse), and gone soon after that has stopped.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import kombu
import redis

from worker.broker import SERVER_ERRORS, Connection, plain_client
from worker.pulse import Found
from worker.settings import Settings

log = logging.getLogger(__name__)

#: Of the keys, after the prefix of all our keys.
NAME = "alive:"
#: Seconds that a process is to be seen after SIGHTLINE_STALL_S without a turn: so long it is said to stand still.
SEEN_S = 60
#: Seconds that the loop waits for Redis here at the most, and until it says more to one that did not take it: there may
#: be messages to take meanwhile.
TIMEOUT_S, QUIET_S = 1.0, 30.0
#: Of a line, what nothing can be told without.
NEEDED = {"role", "pid", "host", "now", "stall_s", "turned", "polled", "redis", "expires_s"}


class Alive:
    """Of this process, for the thread of its loop alone. about: what else is true of it, JSON values by name; quick."""

    def __init__(self, settings: Settings, about: Callable[[], Mapping[str, Any]]) -> None:
        self._key = f"{settings.key_prefix}{NAME}{uuid4().hex[:12]}"
        self._expires_s = round(settings.stall_s) + SEEN_S
        waits = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
        options = {**waits, "max_retries": 1, "interval_start": 0}
        self._connection = Connection(settings.broker_url, transport_options=options)
        self._about = about
        self._made: redis.Redis | None = None
        self._quiet_until = float("-inf")

    def tell(self, line: Mapping[str, Any]) -> None:
        """line: as it is in the file. One that Redis does not take ends nothing."""
        if time.monotonic() < self._quiet_until:
            return
        said = {**line, **self._about(), "host": socket.gethostname(), "now": time.monotonic()}
        try:
            self._client().set(self._key, json.dumps({**said, "expires_s": self._expires_s}), ex=self._expires_s)
        except (kombu.exceptions.OperationalError, *SERVER_ERRORS) as exc:
            self._quiet_until = time.monotonic() + QUIET_S
            # What the matter is with Redis is said by who needs it (worker.outage).
            log.info("`sightline health --all` cannot be told", extra={"why": exc})

    def end(self) -> None:
        """It ends in order."""
        with suppress(*SERVER_ERRORS):
            if self._made is not None:
                self._made.delete(self._key)
            self._connection.release()

    def _client(self) -> redis.Redis:
        if self._made is None:
            channel: Any = self._connection.default_channel
            self._made = channel.plain()
        return self._made


def everywhere(settings: Settings) -> list[Found]:
    """The processes of all machines that use the same Redis, as they read now. Raises Unreachable."""
    with plain_client(settings) as server:
        return alive_in(server, settings.key_prefix)


def alive_in(server: redis.Redis, prefix: str) -> list[Found]:
    """server: a client that puts no prefix before names by itself."""
    found = []
    for key in server.scan_iter(match=f"{prefix}{NAME}*", count=1000):
        # By its clock: those of machines differ.
        left_ms, line = server.pttl(key), server.get(key)
        with suppress(ValueError):
            said = json.loads(line or b"{}")
            if isinstance(said, dict) and said.keys() >= NEEDED:
                found.append(Found(Path(said["host"]), said, said["now"] + said["expires_s"] - left_ms / 1000))
    return sorted(found, key=lambda one: (one.said["role"], one.said["host"], one.said["pid"]))
