"""What a call can raise.

SightlineError            .code, .message
├── BadRequest            the message itself is wrong: fix the call
│   └── Declined          a worker says so: it was sent
├── PhotoRefused          this photo cannot be taken: .ref says which
└── TryAgain              the service could not now: send it again later, which does no harm
    ├── Unreachable       its Redis is away, or does not let us in: whether it has the request nobody knows
    │   └── Untrusted     what was heard is not signed by a key that we know
    └── TimedOut          its Redis has the request, and no reply came in time: a write will be done, so that waiting
                          on by its handle costs less than sending it again; a question is dropped
"""

from __future__ import annotations

import re

from producer_client.words import Code

#: Characters of one word in a sentence, and of all of it. What callers send may have a hundred thousand.
LONGEST_WORD, LONGEST_SENTENCE, LONGEST_TO_PASTE = 200, 1000, 6000


def short(sentence: str) -> str:
    """The sentence with what it echoes cut. Of a long path the end stays, where the file's name is.

    What is to be pasted, SQL or a command on lines of its own that begin with two blanks, is of no use in parts.
    """
    if len(sentence) <= LONGEST_WORD or ("\n  " in sentence and len(sentence) <= LONGEST_TO_PASTE):
        return sentence
    sentence = re.sub(
        rf"\S{{{LONGEST_WORD + 1},}}", lambda word: f"{word[0][:60]}…{word[0][61 - LONGEST_WORD :]}", sentence
    )
    if len(sentence) > LONGEST_SENTENCE:
        sentence = f"{sentence[:400]} … {sentence[403 - LONGEST_SENTENCE :]}"
    return sentence


def quoted(text: object) -> str:
    """What somebody has written, as a sentence repeats it: a backslash once, and what has no letter by its number. What
    is no text at all, as Python writes it."""
    if not isinstance(text, str):
        return repr(text)
    return f"'{''.join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)}'"


class SightlineError(Exception):
    """Base of all. `code` is part of the contract, the sentence is for people."""

    def __init__(self, code: Code, message: str) -> None:
        message = short(message)
        super().__init__(f"{message} [{code}]")
        self.code = code
        self.message = message


class BadRequest(SightlineError):
    pass


class Declined(BadRequest):
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


class Untrusted(Unreachable):
    """task_id: of the request, where a signature that holds says it."""

    def __init__(self, code: Code, message: str, *, task_id: str | None = None) -> None:
        super().__init__(code, message)
        self.task_id = task_id


class TimedOut(TryAgain):
    pass
