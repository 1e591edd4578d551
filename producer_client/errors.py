"""What a call can raise.

SightlineError            .code, .message
├── BadRequest            the message itself is wrong: fix the call
├── PhotoRefused          this photo cannot be taken: .ref says which
├── TryAgain              the service could not now: send it again later
│   └── Unreachable       nothing was heard of it: its Redis is away, or does not let us in
└── TimedOut              no reply in time: the work may still be done
"""

from __future__ import annotations

from producer_client.words import Code


class SightlineError(Exception):
    """Base of all. `code` is part of the contract, the sentence is for people."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(f"{message} [{code}]")
        self.code = code
        self.message = message


class BadRequest(SightlineError):
    pass


class PhotoRefused(SightlineError):
    def __init__(self, code: Code, message: str, ref: str) -> None:
        super().__init__(code, message)
        self.ref = ref


class TryAgain(SightlineError):
    """`seq`, with `stale`: where the log ends; a `min_seq` beyond it will not come."""

    def __init__(self, code: Code, message: str, seq: int | None = None) -> None:
        super().__init__(code, message)
        self.seq = seq


class Unreachable(TryAgain):
    """What was sent before may still be carried out."""


class TimedOut(SightlineError):
    pass
