"""What can go wrong in a worker. Only these two classes decide whether a message is answered or sent round again.

WorkerError
├── Permanent(code, message)     answered with its code at once, never retried
│   ├── PhotoRefusal             about one photo: its neighbours in the batch go on
│   ├── Stale(seq)               the log ends at `seq`, before the write that a question was to see
│   ├── HeldBack                 a generation whose exam is clearly worse than the baseline
│   ├── EncoderUnavailable       the model cannot be had here: the worker does not start
│   └── BadGeneration            a published index directory is not what its manifest says
└── Transient(code, message)     the same message may succeed later: retried with a growing pause
    └── Unprepared               when a person has done something: writes wait for it, questions are answered at once
"""

from __future__ import annotations

from producer_client.contract import Code
from producer_client.errors import short


class WorkerError(Exception):
    def __init__(self, code: Code, message: str) -> None:
        message = short(message)
        super().__init__(message)
        self.code = code
        self.message = message


class Permanent(WorkerError):
    pass


class PhotoRefusal(Permanent):
    pass


class Stale(Permanent):
    def __init__(self, message: str, seq: int) -> None:
        super().__init__(Code.STALE, message)
        self.seq = seq


class EncoderUnavailable(Permanent):
    def __init__(self, message: str) -> None:
        super().__init__(Code.ENCODER_UNAVAILABLE, message)


class HeldBack(Permanent):
    def __init__(self, message: str) -> None:
        super().__init__(Code.EXAM_FAILED, message)


class BadGeneration(Permanent):
    def __init__(self, message: str) -> None:
        super().__init__(Code.INTERNAL, message)


class Transient(WorkerError):
    pass


class Unprepared(Transient):
    def __init__(self, message: str) -> None:
        super().__init__(Code.NOT_READY, message)
