"""The checks of `sightline doctor`: each returns a sentence, or raises one that says what to do."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from kombu import Connection
from kombu.exceptions import OperationalError

from producer_client import Sightline
from producer_client.contract import Code
from worker.errors import Permanent
from worker.runtime import generation_folder, load
from worker.settings import Settings
from worker.words import say

if TYPE_CHECKING:
    from worker.encoder.choice import Measured

#: Seconds to wait for a server or a worker.
PATIENCE_S = 5


def broker(settings: Settings) -> str:
    with Connection(settings.broker_url, connect_timeout=PATIENCE_S) as connection:
        shown = connection.as_uri()
        try:
            connection.ensure_connection(max_retries=1, timeout=PATIENCE_S)
        except OperationalError as exc:
            words = say("{broker}: {why}. Start Redis, or set SIGHTLINE_BROKER_URL.", broker=shown, why=exc)
            raise _unwell(words) from exc
    return say("{broker} answers", broker=shown)


def database(settings: Settings) -> str:
    from worker.storage.migrate import revisions
    from worker.storage.store import PostgresStore

    with closing(PostgresStore(settings)) as store, store.database.guard():
        there, wanted = revisions(store.database.engine, schema=settings.db_schema)
    if there != wanted:
        behind = "at revision {there}, this release needs {wanted}. Run `sightline migrate`."
        raise _unwell(say(behind, there=there, wanted=wanted))
    return say("answers, at revision {there}", there=there)


def model(settings: Settings) -> str:
    from worker.encoder.load import weights_at_hand

    if not weights_at_hand(settings.encoder):
        raise _unwell(
            say(
                "the weights of {encoder} are not on this machine. A worker downloads them at its start if it can "
                "reach the model hub, and otherwise says how to bring them.",
                encoder=settings.encoder,
            )
        )
    encoder = load(settings)
    return say(
        "{model}, {dimension} numbers, on {device} by {backend}",
        model=encoder.model_key,
        dimension=encoder.dimension,
        device=encoder.device,
        backend=encoder.backend,
    )


def backends(settings: Settings) -> list[Measured]:
    """What can run the model here, as a worker has measured it; nothing where none has yet."""
    from worker.encoder.load import measured

    return measured(
        settings.encoder,
        sha256=settings.encoder_sha256,
        device=settings.device,
        threads=settings.threads,
        models=settings.exports_dir,
    )


def index(settings: Settings) -> str:
    from worker.storage.store import PostgresStore

    with closing(PostgresStore(settings)) as store:
        newest = store.generations.newest()
    if newest is None:
        raise _unwell(say("no generation is published yet. Run `sightline rebuild`."))
    opened = generation_folder(settings).open(newest[0], model_key=newest[1]).manifest
    return say(
        "generation {number} of {model}: {count} photos at seq {seq}, files whole",
        number=opened.number,
        model=opened.model_key,
        count=opened.count,
        seq=opened.seq,
    )


def photo_roots(settings: Settings) -> str:
    lacking = [str(root) for root in settings.photo_roots if not root.is_dir()]
    if lacking:
        raise _unwell(say("not there: {roots} (SIGHTLINE_PHOTO_ROOTS)", roots=", ".join(lacking)))
    if not settings.photo_roots and not settings.url_hosts:
        raise _unwell(say("no folder and no host is allowed. Set SIGHTLINE_PHOTO_ROOTS to where the photos lie."))
    return ", ".join(map(str, settings.photo_roots)) or say("URLs of {hosts}", hosts=", ".join(settings.url_hosts))


def workers(settings: Settings) -> str:
    with Sightline(settings.broker_url, result_backend=settings.replies_url, timeout_s=PATIENCE_S) as client:
        reply = client.stats()
    return say("answer: {count} photos indexed with {model}", count=reply.indexed, model=reply.model_key)


def _unwell(message: str) -> Permanent:
    return Permanent(Code.NOT_READY, message)
