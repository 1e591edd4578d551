"""A decoder: a process that takes one photo after the other from the worker that started it, and can do nothing else.

It imports no torch, and is given nothing of the worker's environment. It opens no file, has no network, and starts no
process, once it has said `Ready`.
"""

from __future__ import annotations

import io
import logging
import os
import pkgutil
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

import msgspec
import numpy as np

from worker.core.types import Decoded
from worker.errors import PhotoRefusal
from worker.sandbox.confinement import confine
from worker.sandbox.wire import LONGEST, Ask, Done, Failure, Limits, Outcome, OutOfMemory, Ready, Refusal, Said, put

log = logging.getLogger(__name__)

#: What is loaded by some photos alone.
LATER = ("brotli", "copy", "pillow_jxl", "PIL.ImageCms", "PIL.ImageColor", "PIL.ImageFilter")
#: Words of an error that pass on at the most.
_LONGEST_WORDS = 500


def serve(decode: Callable[..., Decoded], channel: socket.socket, memory: int, limits: Limits) -> None:
    """Until the worker closes its end. memory: the descriptor of what is shared with it."""
    notes = _Notes()
    logging.getLogger().addHandler(notes)
    logging.getLogger("worker").setLevel(logging.INFO)
    _be_quiet()
    channel.send(msgspec.json.encode(Ready(confine(limits))))
    while asked := channel.recv(LONGEST):
        ask = msgspec.json.decode(asked, type=Ask)
        outcome = _decoded(decode, ask, memory)
        channel.send(msgspec.json.encode(Said(outcome, notes.taken())))


def _decoded(decode: Callable[..., Decoded], ask: Ask, memory: int) -> Outcome:
    try:
        content = os.pread(memory, ask.size, 0)
        decoded = decode(content, side=ask.side, max_megapixels=ask.max_megapixels, longer_side=ask.longer_side)
        pixels = np.ascontiguousarray(decoded.pixels)
        os.ftruncate(memory, pixels.nbytes)
        put(memory, pixels.data.cast("B"))
    except PhotoRefusal as exc:
        return Refusal(exc.code, exc.message)
    except MemoryError:
        return OutOfMemory()
    except Exception as exc:  # others' code: decoders, which raise what they like; the worker is told
        log.warning("decoding failed", exc_info=exc)
        return Failure(type(exc).__name__, str(exc)[:_LONGEST_WORDS])
    return Done.of(decoded)


class _Notes(logging.Handler):
    """What was to be logged: the worker does it."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if (error := getattr(record, "error", None)) is not None:
            self._kept.append((str(error), str(getattr(record, "why", ""))[:_LONGEST_WORDS]))

    def taken(self) -> list[tuple[str, str]]:
        kept, self._kept = self._kept, []
        return kept


def load() -> Callable[..., Decoded]:
    """All that a photo of any kind may need later, when no file can be opened any more: what the libraries load with
    the first one of a kind is loaded by decoding one."""
    import encodings

    from PIL import Image

    from worker.encoder.images import FORMATS, decode

    for name in LATER:
        import_module(name)
    # Metadata may be in any of them, and says in which.
    for found in pkgutil.iter_modules(encodings.__path__):
        with suppress(ImportError):  # those of other systems
            import_module(f"encodings.{found.name}")
    noise = Image.effect_noise((64, 64), 80)
    for kind in FORMATS:
        made = io.BytesIO()
        noise.convert("RGB").save(made, kind)
        decode(made.getvalue(), side=16, max_megapixels=1)
    return decode


def _be_quiet() -> None:
    """Libraries write to standard error what is for whoever started them; the worker's log is not for strangers."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)


def run(load: Callable[[], Callable[..., Decoded]]) -> None:
    """As the worker starts a decoder: with its end of the socket, the shared memory and the limits. load: gives what
    decodes."""
    channel, memory, limits = sys.argv[1:]
    serve(load(), socket.socket(fileno=int(channel)), int(memory), msgspec.json.decode(limits, type=Limits))


if __name__ == "__main__":
    run(load)
