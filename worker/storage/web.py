"""Connections to http(s) servers: to the addresses that were checked, without redirects. Knows no settings."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from producer_client.contract import Code
from worker.errors import PhotoRefusal

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: IPv6 that ends in the IPv4 address that it stands for: written so (RFC 4291), and NAT64 (RFC 6052).
_ENDS_IN_IPV4 = tuple(map(ipaddress.IPv6Network, ("::/96", "64:ff9b::/96")))


def is_private(host: str) -> bool:
    """Whether it is an address, however it is written, and none that everybody can reach. A name is none."""
    address = _address(host)
    return address is not None and not _is_public(address)


def options_of(*, private: bool, timeout_s: float) -> dict[str, Any]:
    """Of fsspec's file system of http(s)."""
    import aiohttp

    return {
        "get_client": checked_client(private=private),
        "client_kwargs": {"timeout": aiohttp.ClientTimeout(total=timeout_s)},
        "allow_redirects": False,
    }


def streamed(system: Any, url: str, limit: int) -> bytes:
    """What lies there, and of more bytes than the limit one more."""
    content = bytearray()
    # block_size 0 streams, and a size given saves asking for it: one request, whose own errors are seen.
    with system.open(url, "rb", block_size=0, size=1) as file:
        # A stream gives what has arrived so far. No more than the limit is ever taken.
        while len(content) <= limit and (piece := file.read(limit + 1 - len(content))):
            content += piece
    return bytes(content)


def checked_client(*, private: bool) -> Callable[..., Any]:
    """An aiohttp session that connects only to the addresses it has checked, and follows no redirect."""
    import aiohttp
    from aiohttp.resolver import ThreadedResolver

    def check(host: str, address: str) -> None:
        found = _address(address)
        if not private and (found is None or not _is_public(found)):
            # Not an OSError, which aiohttp would make a failed connection of.
            raise PhotoRefusal(
                Code.URL_NOT_ALLOWED, f"{host} is at the private address {address} (SIGHTLINE_URL_PRIVATE)"
            )

    class CheckedResolver(ThreadedResolver):  # type: ignore[misc]  # aiohttp is imported late, so untyped
        """Checks the addresses that are then connected to: a name cannot change its mind in between."""

        async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
            found = await super().resolve(host, port, family)
            for answer in found:
                check(host, answer["host"])
            return found

    def checked_socket(address: Any) -> socket.socket:
        """What aiohttp takes for an address itself, as 2130706433 or 127.1, it resolves by no resolver (3.14)."""
        family, kind, protocol, _, (host, *_) = address
        check(host, host)
        return socket.socket(family, kind, protocol)

    async def check_status(response: aiohttp.ClientResponse) -> None:
        """What the server will say again is a refusal; the rest (5xx, too many requests) fsspec raises."""
        if 300 <= response.status < 400:
            raise PhotoRefusal(
                Code.URL_NOT_ALLOWED, f"{response.url} redirects (status {response.status}), which is not followed"
            )
        if 400 <= response.status < 500 and response.status not in (408, 425, 429):
            raise PhotoRefusal(Code.NOT_FOUND, f"{response.url} was answered with status {response.status}")

    async def get_client(**kwargs: Any) -> aiohttp.ClientSession:
        kwargs.pop("loop", None)
        connector = aiohttp.TCPConnector(resolver=CheckedResolver(), socket_factory=checked_socket)
        return aiohttp.ClientSession(connector=connector, raise_for_status=check_status, **kwargs)

    return get_client


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        # 127.1, 0x7f000001, 0177.0.0.1: as the system reads it when it connects.
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _is_public(address: Address) -> bool:
    """For everybody to reach; and if it carries another address in itself, this one, too."""
    if not address.is_global or address.is_multicast:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    carried = address.sixtofour
    if any(address in network for network in _ENDS_IN_IPV4):
        carried = ipaddress.IPv4Address(address.packed[-4:])
    return carried is None or _is_public(carried)
