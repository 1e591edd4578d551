"""What keeps the service whole: photos that are left alone because processes have died with them, and their release;
photos that lack a vector, and files that are not as they were."""

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
    """A photo with which a process has died `times`. `signal` and `error`: of the last death, where somebody saw it,
    `stuck` and what the thread was calling where it was no death but a thread that did not end; `at`: when that one was
    tried. `photo_id`, `path`: how it was named then."""

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


class Reconcile(Request, frozen=True):
    """The beat's own message, and that of `sightline reconcile`. `now`: whenever the last run was. `dry_run`: tell what
    it would do, and change nothing."""

    now: bool = False
    dry_run: bool = False


class ReconcileReply(Reply, frozen=True):
    """`ran` is False where another run has just been. `seen`: photos that were found to lack a vector for the first
    time; `sent`: those that are sent again now; `waiting`: sent before, and not there yet. `files`: looked at by this
    run; of them `changed` and `gone` are marked now, and the disk does not say of `unknown`, why of one."""

    ran: bool
    dry_run: bool = False
    seen: int = 0
    waiting: int = 0
    sent: list[int] = msgspec.field(default_factory=list)
    files: int = 0
    changed: list[int] = msgspec.field(default_factory=list)
    gone: list[int] = msgspec.field(default_factory=list)
    unknown: int = 0
    unknown_why: str | None = None


class EmbedMissing(Request, frozen=True):
    """The workers' own message: embed those of these photos that still lack a vector. Not for backends."""

    model_key: str = ""
    photo_ids: list[int] = msgspec.field(default_factory=list)


class EmbedMissingReply(Reply, frozen=True):
    stored: int


def _check_contents(contents: list[str]) -> None:
    check_batch("contents", contents)
    for content in contents:
        if not _BEGINNING.fullmatch(content):
            raise BadRequest(
                Code.BAD_REQUEST,
                f"contents: {quoted(content)} is not the beginning of a SHA-256: 8 to 64 hexadecimal digits",
            )
