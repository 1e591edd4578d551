"""What a photo backend installs to talk to Sightline: a client, its contract, its errors. Needs celery and msgspec."""

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
from producer_client.errors import BadRequest, PhotoRefused, SightlineError, TimedOut, TryAgain, Unreachable
from producer_client.handle import Handle, read_reply

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
    "read_reply",
]
