"""The checks of `sightline doctor`: each returns a sentence, or raises one that says what to do."""

from __future__ import annotations

from kombu import Connection
from kombu.exceptions import OperationalError

from producer_client import Sightline
from producer_client.contract import Code
from worker.errors import Permanent
from worker.runtime import load
from worker.settings import Settings

#: Seconds to wait for a server or a worker.
PATIENCE_S = 5


def broker(settings: Settings) -> str:
    with Connection(settings.broker_url, connect_timeout=PATIENCE_S) as connection:
        shown = connection.as_uri()
        try:
            connection.ensure_connection(max_retries=1, timeout=PATIENCE_S)
        except OperationalError as exc:
            raise _unwell(f"{shown}: {exc}. Start Redis, or set SIGHTLINE_BROKER_URL.") from exc
    return f"{shown} answers"


def database(settings: Settings) -> str:
    from worker.storage.migrate import revisions
    from worker.storage.store import PostgresStore

    store = PostgresStore(settings)
    try:
        with store.guard():
            there, wanted = revisions(store.engine, schema=settings.db_schema)
    finally:
        store.close()
    if there != wanted:
        raise _unwell(f"at revision {there}, this release needs {wanted}. Run `sightline migrate`.")
    return f"answers, at revision {there}"


def model(settings: Settings) -> str:
    encoder = load(settings)
    return f"{encoder.model_key}, {encoder.dimension} numbers, on {encoder.device}"


def index(settings: Settings) -> str:
    from worker.index.generation import GenerationFolder
    from worker.storage.store import PostgresStore

    encoder = load(settings)
    store = PostgresStore(settings)
    try:
        number = store.published_generation(encoder.model_key)
    finally:
        store.close()
    if number is None:
        raise _unwell(f"no generation of {encoder.model_key} is published. Run `sightline rebuild`.")
    opened = GenerationFolder(settings.generations_dir).open(number, model_key=encoder.model_key)
    return f"generation {number} with {opened.manifest.count} photos at seq {opened.manifest.seq}, files whole"


def photo_roots(settings: Settings) -> str:
    lacking = [str(root) for root in settings.photo_roots if not root.is_dir()]
    if lacking:
        raise _unwell(f"not there: {', '.join(lacking)} (SIGHTLINE_PHOTO_ROOTS)")
    if not settings.photo_roots and not settings.url_hosts:
        raise _unwell("no folder and no host is allowed. Set SIGHTLINE_PHOTO_ROOTS to where the photos lie.")
    return ", ".join(map(str, settings.photo_roots)) or f"URLs of {', '.join(settings.url_hosts)}"


def workers(settings: Settings) -> str:
    with Sightline(settings.broker_url, result_backend=settings.replies_url, timeout_s=PATIENCE_S) as client:
        reply = client.stats()
    return f"answer: {reply.indexed} photos indexed with {reply.model_key}"


def _unwell(message: str) -> Permanent:
    return Permanent(Code.NOT_READY, message)
