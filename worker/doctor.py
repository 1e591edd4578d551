"""The checks of `sightline doctor`: each returns a sentence, or raises one that says what to do."""

from __future__ import annotations

from contextlib import closing

from kombu import Connection
from kombu.exceptions import OperationalError

from producer_client import Sightline
from producer_client.contract import Code
from worker.errors import Permanent
from worker.runtime import generation_folder, load
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

    with closing(PostgresStore(settings)) as store, store.guard():
        there, wanted = revisions(store.engine, schema=settings.db_schema)
    if there != wanted:
        raise _unwell(f"at revision {there}, this release needs {wanted}. Run `sightline migrate`.")
    return f"answers, at revision {there}"


def model(settings: Settings) -> str:
    from worker.encoder.load import weights_at_hand

    if not weights_at_hand(settings.encoder):
        raise _unwell(
            f"the weights of {settings.encoder} are not on this machine. A worker downloads them at its start "
            "if it can reach the model hub, and otherwise says how to bring them."
        )
    encoder = load(settings)
    return f"{encoder.model_key}, {encoder.dimension} numbers, on {encoder.device}"


def index(settings: Settings) -> str:
    from worker.storage.store import PostgresStore

    with closing(PostgresStore(settings)) as store:
        newest = store.newest_generation()
    if newest is None:
        raise _unwell("no generation is published yet. Run `sightline rebuild`.")
    opened = generation_folder(settings).open(newest[0], model_key=newest[1]).manifest
    return f"generation {opened.number} of {opened.model_key}: {opened.count} photos at seq {opened.seq}, files whole"


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
