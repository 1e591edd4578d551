"""What a photo backend installs to talk to Sightline: a client, its contract, its errors. Needs celery and msgspec."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer_client.bulk import Pending
    from producer_client.client import Sightline
    from producer_client.contract import (
        Answer,
        Code,
        EmbedItem,
        Near,
        NewPhoto,
        Photo,
        Point,
        Provenance,
        Reason,
        Refused,
        Stored,
    )
    from producer_client.errors import (
        BadRequest,
        PhotoRefused,
        SightlineError,
        TimedOut,
        TryAgain,
        Unreachable,
        Untrusted,
    )
    from producer_client.handle import Handle, read_reply
    from producer_client.secret_file import read_secret

__all__ = [
    "Answer",
    "BadRequest",
    "Code",
    "EmbedItem",
    "Handle",
    "Near",
    "NewPhoto",
    "Pending",
    "Photo",
    "PhotoRefused",
    "Point",
    "Provenance",
    "Reason",
    "Refused",
    "Sightline",
    "SightlineError",
    "Stored",
    "TimedOut",
    "TryAgain",
    "Unreachable",
    "Untrusted",
    "read_reply",
    "read_secret",
]

#: Where a name is. Each is looked for when it is asked for first: whoever takes the contract alone, or an error's name,
#: has neither celery nor redis loaded with it.
_ROOMS = {
    "Handle": "handle",
    "Pending": "bulk",
    "Sightline": "client",
    "read_reply": "handle",
    "read_secret": "secret_file",
} | dict.fromkeys(
    ("BadRequest", "PhotoRefused", "SightlineError", "TimedOut", "TryAgain", "Unreachable", "Untrusted"), "errors"
)


def __getattr__(name: str) -> Any:
    if name in (*_ROOMS.values(), "contract"):
        return import_module(f"{__name__}.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_ROOMS.get(name, 'contract')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
