"""What commands ask: the service by its queue, or, for what needs no worker, the database itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from producer_client.contract import Code
from producer_client.errors import Unreachable
from worker import upenv
from worker.errors import Transient
from worker.holding import who_runs
from worker.settings import PREFIX, Settings, note_path

if TYPE_CHECKING:
    from producer_client import Sightline
    from worker.storage.store import PostgresStore


@contextmanager
def open_client(settings: Settings) -> Iterator[Sightline]:
    """The service. Raises as `hinting` does."""
    from producer_client import Sightline

    with (
        hinting(settings),
        Sightline(
            settings.broker_url,
            result_backend=settings.replies_url,
            key_prefix=settings.key_prefix,
            signing_keys_file=settings.signing_keys_file,
        ) as client,
    ):
        yield client


@contextmanager
def hinting(settings: Settings) -> Iterator[None]:
    """Around what asks Redis: where nobody answers at an address that nobody gave, what is raised says so."""
    try:
        yield
    except Unreachable as exc:
        if (folder := _no_up(settings, "broker_url")) is None:
            raise
        why, variable = exc.message, "SIGHTLINE_BROKER_URL"
        raise Unreachable(
            exc.code,
            f"{why}. No `sightline up` runs in this folder ({folder}): start it in another terminal, or set {variable}",
        ) from exc


@contextmanager
def open_store(settings: Settings) -> Iterator[PostgresStore]:
    """The database. Where nobody answers at an address that nobody gave, what is raised says so."""
    from worker.storage.store import PostgresStore

    try:
        with closing(PostgresStore(settings)) as store:
            yield store
    except Transient as exc:
        if exc.code is not Code.UNAVAILABLE or (folder := _no_up(settings, "database_url")) is None:
            raise
        why, variable = exc.message, "SIGHTLINE_DATABASE_URL"
        raise Transient(
            exc.code,
            f"{why}. No `sightline up` runs in this folder ({folder}): start it in another terminal, or set {variable}",
        ) from exc


def _no_up(settings: Settings, name: str) -> Path | None:
    """The data folder, where the address is the default or that of an `up` which was killed, and none runs."""
    variable = PREFIX + name.upper()
    note = note_path({"data_dir": settings.data_dir})
    noted = upenv.read(note).get(variable)
    if name in settings.model_fields_set and getattr(settings, name) != noted:
        return None
    with suppress(RuntimeError):
        if who_runs(settings.data_dir) is None:
            return note.parent.absolute()
    return None
