"""What callers give, in the contract's terms. Knows no queue."""

from __future__ import annotations

from collections.abc import Sequence

from producer_client.contract import Photo
from producer_client.errors import BadRequest
from producer_client.words import Code, Provenance


def ids(photo_ids: int | Sequence[int]) -> list[int]:
    return [photo_ids] if isinstance(photo_ids, int) else list(photo_ids)


def photo_of(photo_id: int | None, path: str | None, url: str | None, content: bytes | None) -> Photo:
    inline = None if content is None else Photo.of_bytes(content).inline
    return Photo(photo_id=photo_id, path=None if path is None else str(path), url=url, inline=inline)


def provenance_given(given: Provenance | str | None) -> Provenance | None:
    if given is None:
        return None
    if given not in set(Provenance):
        raise BadRequest(Code.BAD_REQUEST, f"provenance {given!r} is not one of {', '.join(Provenance)}")
    return Provenance(given)
