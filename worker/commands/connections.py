"""What commands ask: the service by its queue, or, for what needs no worker, the database itself."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from producer_client import Sightline
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.storage.store import PostgresStore


def open_client(settings: Settings) -> Sightline:
    """The service; to be used in a `with`."""
    return Sightline(settings.broker_url, result_backend=settings.replies_url, key_prefix=settings.key_prefix)


def open_store(settings: Settings) -> closing[PostgresStore]:
    """The database; to be used in a `with`."""
    from worker.storage.store import PostgresStore

    return closing(PostgresStore(settings))
