"""What strangers' bytes go through, held to what it may say of them. Each target takes bytes and returns a word for
what became of them; whatever else it raises is a find."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

from producer_client import contract, serializer
from producer_client.contract import AddToIndex, Code, Embed, Message, Reject
from producer_client.errors import BadRequest
from producer_client.positions import BROKEN
from worker.broker import LARGEST_ITEM, UNREADABLE, Channel
from worker.core.types import Pixels
from worker.encoder import images, jxl
from worker.encoder.mending import mended
from worker.errors import PhotoRefusal
from worker.unfit import Unfit, no_message

#: Seconds of its own CPU time that one input may take, on a machine with other things to do.
LONGEST_S = 3.0
#: Of a photo: sixteen times those of the corpus, so that a longer header is still decoded.
MAX_MEGAPIXELS = 0.2
#: A photo is never reduced: its pixels are those of its header.
SIDE = 4096
MESSAGES = [
    cls for cls in vars(contract).values() if isinstance(cls, type) and issubclass(cls, Message) and cls is not Message
]
#: What is wrong with a photo's bytes.
REFUSALS = {
    Code.EMPTY_FILE, Code.NOT_AN_IMAGE, Code.DAMAGED_IMAGE, Code.TOO_MANY_PIXELS, Code.TOO_SMALL, Code.TOO_THIN,
}  # fmt: skip

pillow_heif.register_heif_opener()


def item(content: bytes) -> str:
    """An item of a queue: read as a message, or parked with its reason."""
    channel = object.__new__(Channel)
    try:
        raw = channel._read(content)
    except UNREADABLE:
        fault = no_message(content, LARGEST_ITEM)
        assert fault.code in (Unfit.NO_JSON, Unfit.NO_MESSAGE, Unfit.TOO_LARGE)
        assert fault.why
        return str(fault.code)
    assert isinstance(raw["properties"]["delivery_tag"], str)
    return "message"


def message(content: bytes) -> str:
    """The JSON of a body, read as every message of the contract, which both sides do."""
    try:
        wire = serializer.decode(content)
    except (ValueError, RecursionError):
        return "no JSON"
    return structure(wire)


def structure(wire: Any) -> str:
    fine = [cls.__name__ for cls in MESSAGES if _reads(cls, wire)]
    return fine[0] if fine else "refused"


def _reads(cls: type[Message], wire: Any) -> bool:
    try:
        read = cls.from_wire(wire)
    except BadRequest as exc:
        _check_refusal(exc.code, exc.message)
        return False
    outcomes: list[Any] = []
    match read:
        case AddToIndex():
            outcomes = read.read_new_photos()
        case Embed() | Reject():
            outcomes = read.read_items()
    items = wire["photos"] if isinstance(read, AddToIndex | Embed | Reject) else []
    assert len(outcomes) == len(items)
    for outcome in outcomes:
        if isinstance(outcome, contract.Refused):
            _check_refusal(outcome.code, outcome.message)
        else:
            outcome.check()
    # What is read can be sent on, and is read the same.
    written = serializer.encode(read.to_wire())
    assert serializer.encode(cls.from_wire(json.loads(written)).to_wire()) == written
    return True


def _check_refusal(code: Code, message: str) -> None:
    assert code in set(Code)
    assert message
    contract.failed(code, message)


def photo(content: bytes) -> str:
    """A file: pixels of its header's size, or a code."""
    try:
        decoded = images.decode(content, side=SIDE, max_megapixels=MAX_MEGAPIXELS)
    except PhotoRefusal as exc:
        refused = exc
    else:
        return _check_pixels(content, decoded.pixels)
    assert refused.code in REFUSALS
    assert refused.message
    return str(refused.code)


def _check_pixels(content: bytes, pixels: Pixels) -> str:
    height, width, colours = pixels.shape
    assert colours == 3
    assert pixels.dtype == np.uint8
    assert (width, height) in (size := header_size(content), size[::-1])
    assert width * height <= MAX_MEGAPIXELS * 1e6
    return "decoded"


def header_size(content: bytes) -> tuple[int, int]:
    """Read by Pillow alone, or by our own reader of JPEG XL."""
    if jxl.is_jxl(content):
        header = jxl.header_of(content)
        assert header is not None
        return header.size
    try:
        image = Image.open(io.BytesIO(content))
    except BROKEN:  # in a way that is put right before it is decoded
        whole = mended(content)
        assert whole is not None
        image = Image.open(io.BytesIO(whole))
    with image:
        return image.size


def timed(target: Callable[[Any], str], content: Any) -> str:
    started = time.thread_time()
    became = target(content)
    took_s = time.thread_time() - started
    assert took_s < LONGEST_S, f"took {took_s:.1f} s"
    return became
