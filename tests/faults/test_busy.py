"""A worker that has its hands full of bulk messages still answers who waits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

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
