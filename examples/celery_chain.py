"""For a backend with Celery workers of its own on Sightline's Redis: a photo is located and settled, and nobody polls.

    locate_photo(photo.id).delay()   # after the row is committed

    celery -A examples.celery_chain worker -Q backend

The chain is `sightline.locate`, carried out by a Sightline worker, then `store_location`, which that worker sends to
the backend's queue. So every signature names its queue, both sides use one Redis database and one prefix of keys, and
messages are the client's JSON: Celery's own reads some objects, as metadata may have them, as dates or as errors.
What this backend's workers have in hand is noted under keys of their own, or Sightline's workers would hand it out
again after their own `visibility_timeout`, whatever this one says.
"""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import Any

from celery import Celery, chain, signature
from celery.canvas import Signature
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from examples.answers import settle
from producer_client import Photo, Sightline, SightlineError, TryAgain, serializer
from producer_client.contract import DEFAULT_KEY_PREFIX, Locate, LocateReply, Queue, TaskName

log = logging.getLogger(__name__)

#: Any name but those of Sightline's queues: interactive, bulk, index.
OURS = "backend"
#: Seconds before a photo is asked about again when the service could not answer.
RETRY_S = 60
#: Of the Sightline workers.
KEY_PREFIX = os.environ.get("SIGHTLINE_KEY_PREFIX", DEFAULT_KEY_PREFIX)

serializer.register()
app = Celery("backend", broker=os.environ.get("SIGHTLINE_BROKER_URL", "redis://127.0.0.1:6379/5"))
app.conf.update(
    task_default_queue=OURS,
    task_serializer=serializer.NAME,
    accept_content=[serializer.NAME, "json"],
    task_ignore_result=True,
    broker_transport_options={
        "global_keyprefix": KEY_PREFIX,
        "unacked_key": "backend.unacked",
        "unacked_index_key": "backend.unacked_index",
        "unacked_mutex_key": "backend.unacked_mutex",
    },
    broker_connection_retry_on_startup=True,
)


def locate_photo(photo_id: int) -> Signature[Any]:
    """What to send for a photo of the table. Without `expires`: it waits for a worker as long as it takes."""
    # Sent by hand, so with what this process has seen: its client's own questions carry that by themselves.
    question = Locate(photo=Photo(photo_id=photo_id), min_seq=sightline().session)
    locate = signature(
        TaskName.LOCATE.value,
        args=[question.to_wire()],
        queue=Queue.INTERACTIVE.value,
        app=app,
    )
    # Sightline's worker sends these two.
    ours: dict[str, Any] = {"queue": OURS, "serializer": serializer.NAME}
    return chain(locate, store_location.s(photo_id).set(**ours)).on_error(not_stored.s(photo_id).set(**ours))


# What is away comes back: until then the task goes round. A second run changes nothing.
@app.task(acks_late=True, autoretry_for=(OperationalError, TryAgain), max_retries=None, retry_backoff_max=60)
def store_location(wire: Any, photo_id: int) -> None:
    """Settle the row with the reply of `sightline.locate`, and take the photo into the index."""
    try:
        answer = sightline().read_reply(wire, LocateReply.from_wire).answer
    except TryAgain:
        locate_photo(photo_id).apply_async(countdown=RETRY_S)
        return
    except SightlineError as exc:  # also "this is no image": an answer with a code, on which the chain goes on
        log.warning("photo %d was not located: %s", photo_id, exc)
        return
    with Session(database()) as session:
        settle(session, photo_id, answer)
    # With the coordinates that the row has now, or without, so that it can be found all the same.
    sightline().submit_add_to_index(photo_id=photo_id)


@app.task
def not_stored(task_id: str, photo_id: int) -> None:
    """What no answer explains: a task of the chain broke. Its worker's log has the traceback."""
    log.error("photo %d was not settled: task %s failed", photo_id, task_id)


# Made at their first use, so that every process of a forking worker has its own.
@cache
def database() -> Engine:
    return create_engine(os.environ["DATABASE_URL"])


@cache
def sightline() -> Sightline:
    return Sightline(app.conf.broker_url, key_prefix=KEY_PREFIX)
