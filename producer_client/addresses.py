"""What may stand as the address of a Redis. Knows no connection; repeats no address: it may have a password in it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

#: Redis and Valkey: plain, with TLS, by a socket of this machine.
REDIS_SCHEMES = ("redis", "rediss", "redis+socket")
REDIS_LOOKS = "redis://:PASSWORD@host:6379/5"
#: How a certificate is checked, as kombu and Celery both know it.
_CERT_REQS = ("required", "optional", "none", "CERT_REQUIRED", "CERT_OPTIONAL", "CERT_NONE")


def checked_redis(value: object, *, beside: Collection[str] = (), replies: bool = False) -> str:
    """The address as drivers take it; several are joined by semicolons. Raises ValueError with a sentence.

    beside: schemes that are taken, too, and not looked into. replies: whether none but replies lie there; their driver
    knows options that the one of queues does not know.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"it is empty or no text; an address looks like {REDIS_LOOKS}")
    return ";".join(_one(part.strip(), beside, replies) for part in value.strip().split(";"))


def checked(value: str, schemes: Collection[str], looks: str) -> str:
    """One address of these schemes, in lower case. Raises ValueError with a sentence. looks: an address for example."""
    scheme, separator, rest = value.partition("://")
    scheme = scheme.lower()
    if not separator:
        raise ValueError(f"it is no address: it looks like {looks}")
    if scheme not in schemes:
        raise ValueError(f"{scheme[:20]}:// is not spoken here, but {', '.join(f'{s}://' for s in schemes)}: {looks}")
    try:
        _ = urlsplit(f"{scheme}://{rest}").port
    except ValueError:
        # Not its words: what they call the port may be half of a password.
        raise ValueError(
            f"what stands between host and database is no port; it looks like {looks}. In a password write "
            "%23 %2F %3A %3F %40 for # / : ? @"
        ) from None
    return f"{scheme}://{rest}"


def _one(value: str, beside: Collection[str], replies: bool) -> str:
    scheme = value.partition("://")[0].lower()
    if scheme in beside:
        return value
    address = checked(value, REDIS_SCHEMES, REDIS_LOOKS)
    parts = urlsplit(address)
    if scheme == "redis+socket":
        if not parts.path.strip("/"):
            raise ValueError("it lacks the socket's path: redis+socket:///run/redis.sock?virtual_host=5")
    elif not re.fullmatch(r"/?\d*", parts.path):
        raise ValueError(f"its end is no number of a database; it looks like {REDIS_LOOKS}")
    _check_options(scheme, dict(parse_qsl(parts.query, keep_blank_values=True)), replies)
    return address


@cache
def _options(scheme: str, replies: bool) -> set[str]:
    """What may stand behind the question mark of an address. That of queues is kombu's to read, which knows less."""
    from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

    driver = {"redis": Connection, "rediss": SSLConnection, "redis+socket": UnixDomainSocketConnection}[scheme]
    arguments = {name for kind in driver.__mro__ for name in inspect.signature(kind).parameters}
    # One that loads code by its name is none.
    known = (
        arguments - {"args", "kwargs", "credential_provider"}
        if replies
        else {name for name in arguments if name.startswith("ssl_")}
    )
    return known | ({"virtual_host"} if scheme == "redis+socket" else {"max_connections"} if replies else set())


def _check_options(scheme: str, given: Mapping[str, str], replies: bool) -> None:
    """given: what stands behind the question mark. kombu and Celery take it for arguments and raise what they like."""
    if scheme == "rediss" and given.get("ssl_cert_reqs") not in _CERT_REQS:
        raise ValueError(
            "rediss:// needs to say at its end how the server's certificate is checked: ?ssl_cert_reqs=required, or "
            "=none, which takes any"
        )
    if not given:
        return
    # Redis' package takes a fifth of a second to be loaded, and is not needed to read most settings.
    from redis.connection import URL_QUERY_ARGUMENT_PARSERS

    known = _options(scheme, replies)
    parsers: dict[str, Any] = {**URL_QUERY_ARGUMENT_PARSERS, "virtual_host": int}
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"{unknown[0][:20]} cannot stand behind its question mark: leave it out")
    for name, value in given.items():
        try:
            parsers.get(name, str)(value)
        except (TypeError, ValueError):
            raise ValueError(f"{name[:20]} behind its question mark has no value that it can have") from None
