"""Connections to http(s) servers: to the addresses that were checked, without redirects. Knows no settings."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from producer_client.contract import Code
from worker.errors import PhotoRefusal


def is_private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return False


def checked_client(*, private: bool) -> Callable[..., Any]:
    """An aiohttp session that connects only to the addresses it has checked, and follows no redirect."""
    import aiohttp
    from aiohttp.resolver import ThreadedResolver

    class CheckedResolver(ThreadedResolver):  # type: ignore[misc]  # aiohttp is imported late, so untyped
        """Checks the addresses that are then connected to: a name cannot change its mind in between."""

        async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
            found = await super().resolve(host, port, family)
            if not private:
                for answer in found:
                    if not ipaddress.ip_address(answer["host"]).is_global:
                        # Not an OSError, which aiohttp would make a failed connection of.
                        raise PhotoRefusal(
                            Code.URL_NOT_ALLOWED,
                            f"{host} is at the private address {answer['host']} (SIGHTLINE_URL_PRIVATE)",
                        )
            return found

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
        connector = aiohttp.TCPConnector(resolver=CheckedResolver())
        return aiohttp.ClientSession(connector=connector, raise_for_status=check_status, **kwargs)

    return get_client
