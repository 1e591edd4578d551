"""A worker that has its hands full of bulk messages still answers who waits."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import redis

from producer_client import NewPhoto, Photo, Provenance, Stored
from tests.conftest import Scene
from tests.faults.conftest import PATIENCE_S, Gate, until
from worker.stack import Stack


def test_a_search_is_answered_while_more_bulk_messages_than_threads_wait_for_their_photos(
    frail: Stack, gate: Gate, scenes: list[Scene]
) -> None:
    frail.start("worker")
    frail.wait_ready()
    with frail.client(timeout_s=PATIENCE_S) as client, ThreadPoolExecutor(4) as callers:
        bulk = [
            callers.submit(
                client.add_many, [NewPhoto("one", Photo(url=gate.url(n)), scene.lat, scene.lon, Provenance.SURVEYED)]
            )
            for n, scene in enumerate(scenes[:4])
        ]
        until(lambda: len(gate.asked) > 0, "bulk is in hand")

        reply = client.search(path=str(scenes[-1].path))
        waiting = sum(not sent.done() for sent in bulk)
        gate.open.set()
        outcomes = [outcome for sent in bulk for outcome in sent.result()]

    assert reply.hits == []
    assert waiting == 4
    assert [type(outcome) for outcome in outcomes] == [Stored] * 4


def test_a_worker_has_no_more_in_hand_than_threads_and_half_of_them_bulk_whatever_celery_counts(
    frail: Stack, gate: Gate
) -> None:
    """Celery's count of what it may take is moved by messages that wait for their time and by lost connections."""
    code = (
        "import sys; from celery.worker.consumer import Consumer; create = Consumer.__init__\n"
        "def counted_up(self, *args, **named): create(self, *args, **{**named, 'initial_prefetch_count': 100})\n"
        "Consumer.__init__ = counted_up\n"
        "from worker.cli import main; sys.argv[1:] = ['worker']; main()"
    )
    settings = frail.settings.model_copy(update={"concurrency": 8, "visibility_timeout_s": 600})
    bulk, interactive, unacked = (settings.key_prefix + name for name in ("bulk", "interactive", "unacked"))
    worker = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **settings.as_env()})
    try:
        with (
            frail.client(timeout_s=PATIENCE_S) as client,
            redis.Redis.from_url(settings.broker_url) as server,
            ThreadPoolExecutor(9) as callers,
        ):
            client.stats()
            until(lambda: server.hlen(unacked) == 0, "that is done with")
            sent = [
                callers.submit(
                    client.add_many, [NewPhoto("one", Photo(url=gate.url(n)), 1.0, 2.0, Provenance.SURVEYED)]
                )
                for n in range(9)
            ]
            until(lambda: len(gate.asked) == 4, "half of its threads have one each")
            until(lambda: server.llen(bulk) == 5, "the others lie on the list, where another worker can take them")
            handles = [client.submit_add_to_index(url=gate.url(9 + n)) for n in range(8)]
            until(lambda: len(gate.asked) == 8, "all of its threads have one each")
            waiting = server.llen(bulk), server.llen(interactive), server.hlen(unacked)
            gate.open.set()
            for handle in handles:
                handle.wait()
            for outcomes in sent:
                outcomes.result()
    finally:
        worker.kill()
        worker.wait()

    assert waiting == (5, 4, 8)
