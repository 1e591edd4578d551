"""Why Redis could not be reached: its address, what is the matter, what to do. Knows the errors of kombu and redis."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from kombu.exceptions import OperationalError
from kombu.utils.url import maybe_sanitize_url
from redis.exceptions import RedisError, ResponseError

from producer_client.errors import Unreachable
from producer_client.words import Code

#: What Redis and its driver say, and what is to be done; the first that fits. All of it is one line in lower case.
_SAID: tuple[tuple[str, str], ...] = (
    (
        r"wrongpass|invalid (username|password)|noauth|authentication required|without any password configured",
        "it does not take this user or password: write them into the address, redis://:PASSWORD@host:6379/5 "
        "(`sightline up` writes its own into up.env)",
    ),
    (r"noperm|no permission", "its user may not do this (ACL): give it what its user has in deploy/redis/users.acl"),
    (
        r"read only replica|readonly",
        "it is a replica, which only reads: give the address of the primary, or wait until one has taken over",
    ),
    (r"max number of clients", "it has as many clients as it takes (maxclients): close some, or raise its limit"),
    (r"loading the dataset|busyloading", "it is starting and still reads its data: send it again in a moment"),
    (
        r"wrongtype|wrong kind of value",
        "something else lies under a name of ours: see what another program keeps there, or take another "
        "SIGHTLINE_KEY_PREFIX (clients: key_prefix=)",
    ),
    (r"misconf", "it cannot write to its disk and takes no writes until it can: look at its log"),
    (r"\boom\b|maxmemory", "its memory is full (maxmemory): give it more, or see what fills it"),
    (r"db index is out of range|invalid db index", "it has no database of that number: it stands at the address's end"),
    (
        r"wrong_version_number|wrong version number|record layer|unexpected eof|ssl: unexpected_eof",
        "what answers there speaks no TLS: write redis:// instead of rediss://",
    ),
    (
        r"hostname mismatch|not valid for|doesn't match",
        "its certificate is for another name of the host: write that name into the address, or have one made for this",
    ),
    (r"certificate has expired", "its certificate has expired: have a new one made"),
    (
        r"self.signed|unable to get (local )?issuer",
        "its certificate is signed by nobody who is trusted here: say at the end of the address which file has the "
        "certificate of the right authority, ?ssl_cert_reqs=required&ssl_ca_certs=/path/ca.pem",
    ),
    (r"certificate", "its certificate is not accepted: see ssl_ca_certs and ssl_cert_reqs in the address"),
)
_HUNG_UP = (
    "it hung up at the first word: it may expect TLS (rediss:// instead of redis://), or be no Redis, or have ended "
    "just now"
)
_NO_HOST = "no host of this name is known here: see SIGHTLINE_BROKER_URL, or the address that the client was given"
_SILENT = "nothing answers there in time: is its host up and reachable from here, and is the address right?"
_REFUSED = (
    "nothing listens there. Is it running (`sightline up` starts one)? The address is the one that the client was "
    "given, mostly from SIGHTLINE_BROKER_URL"
)


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn what kombu and the Redis driver raise, and what the system says of a connection, into Unreachable."""
    try:
        yield
    except (OperationalError, RedisError, OSError) as exc:
        message = f"Redis at {shown(url)} cannot be used: {why(exc, url)}"
        raise Unreachable(Code.UNAVAILABLE, message) from exc


def shown(url: str) -> str:
    """The address without its password."""
    return str(maybe_sanitize_url(url))


def why(exc: BaseException, url: str = "") -> str:
    """What is the matter and what to do, by all that was raised on the way; else what was said last. url: where."""
    chain = list(_chain(exc))
    said = " ".join(f"{type(one).__name__} {one}" for one in chain).lower()
    for pattern, sentence in _SAID:
        if re.search(pattern, said):
            return sentence
    if any(isinstance(one, socket.gaierror) for one in chain) or re.search(
        r"name or service not known|name resol", said
    ):
        return _NO_HOST
    if any(isinstance(one, ssl.SSLError) for one in chain):
        return f"TLS fails: {exc}"
    if any(isinstance(one, ConnectionRefusedError) for one in chain) or "refused" in said:
        return _REFUSED
    if re.search(r"closed by server|reset by peer|while reading from|broken pipe", said):
        return _HUNG_UP
    if any(isinstance(one, TimeoutError) for one in chain) or re.search(
        r"timeout|timed out|unreachable|no route", said
    ):
        return f"{_SILENT} A Redis without TLS is silent to rediss://, too" if url.startswith("rediss") else _SILENT
    answered = next((one for one in chain if isinstance(one, ResponseError)), None)
    if answered is not None:
        return f"it answers: {answered}"
    return f"{exc or type(exc).__name__}. {_SILENT}"


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        yield exc
        exc = exc.__cause__ or exc.__context__
