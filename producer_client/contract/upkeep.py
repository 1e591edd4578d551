"""Photos that are left alone because processes have died with them: what is known of them, and their release."""

from __future__ import annotations

import re

import msgspec

from producer_client.contract.requests import Request, check_batch
from producer_client.contract.wire import Reply
from producer_client.errors import BadRequest, quoted
from producer_client.words import MAX_TOP_K, Code

_BEGINNING = re.compile("[0-9a-f]{8,64}")


class Quarantined(Request, frozen=True):
    """Photos that are left alone, the newest first. `contents`: those whose SHA-256 begins so, by eight digits or
    more."""

    contents: list[str] | None = None
    limit: int = 100

    def __post_init__(self) -> None:
        if self.contents is not None:
            _check_contents(self.contents)
        if not 1 <= self.limit <= MAX_TOP_K:
            raise BadRequest(Code.BAD_REQUEST, f"limit {self.limit} is not within 1 and {MAX_TOP_K}")


class Release(Request, frozen=True):
    """Have photos tried once more, those that have a row without being asked for; the next death with one counts on.
    `forget`: nothing is held against them any more, and nothing is tried for that."""

    contents: list[str] = msgspec.field(default_factory=list)
    forget: bool = False

    def __post_init__(self) -> None:
        _check_contents(self.contents)


class LeftAlone(Reply, frozen=True):
    """A photo with which a process has died `times`. `signal` and `error`: of the last death, where somebody saw it;
    `at`: when that one was tried. `photo_id`, `path`: how it was named then."""

    content_sha256: str
    times: int
    at: str
    signal: str | None = None
    error: str | None = None
    photo_id: int | None = None
    path: str | None = None


class QuarantinedReply(Reply, frozen=True):
    photos: list[LeftAlone]


class ReleaseReply(Reply, frozen=True):
    """`released`: as they were known. `unknown`: what was asked for and is no photo that is left alone."""

    released: list[LeftAlone]
    unknown: list[str]


def _check_contents(contents: list[str]) -> None:
    check_batch("contents", contents)
    for content in contents:
        if not _BEGINNING.fullmatch(content):
            raise BadRequest(
                Code.BAD_REQUEST,
                f"contents: {quoted(content)} is not the beginning of a SHA-256: 8 to 64 hexadecimal digits",
            )
