"""A backend that adds photos all the time, one message each, while containers are killed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from producer_client import Handle, PhotoRefused, Sightline, SightlineError, Stored
from tests.containers.ledger import Sent
from tests.containers.machine import Failed
from tests.containers.photos import Taken

#: Seconds between two adds.
PAUSE_S = 0.4


class Load:
    def __init__(self, client: Sightline, photos: Iterator[Taken]) -> None:
        self._client = client
        self._photos = photos
        self._over = threading.Event()
        self._waiting: list[tuple[Sent, Handle[Stored]]] = []
        self._error: BaseException | None = None
        self.sent: list[Sent] = []
        #: Adds that could not be handed over: Redis was away, and the caller was told so.
        self.not_taken = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run, name="load")
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
        if self._error is not None:
            raise self._error

    def add(self, taken: Taken) -> bool:
        """Whether it was handed over."""
        try:
            handle = self._client.submit_add_to_index(
                path=taken.path, lat=taken.lat, lon=taken.lon, provenance="surveyed"
            )
        except SightlineError:
            self.not_taken += 1
            return False
        one = Sent(taken.path)
        self.sent.append(one)
        self._waiting.append((one, handle))
        return True

    def answered(self, patience_s: float) -> None:
        """Wait for what is open, all in all so long."""
        until = time.monotonic() + patience_s
        for one, handle in self._waiting:
            hear(one, handle, max(0.0, until - time.monotonic()))
        self._waiting = [(one, handle) for one, handle in self._waiting if one.photo_id is None and not one.refused]

    def _run(self) -> None:
        try:
            for taken in self._photos:
                while not self.add(taken) and not self._over.wait(PAUSE_S):
                    pass
                if self._over.wait(PAUSE_S):
                    return
        except BaseException as exc:
            self._error = exc
            raise
        self._error = Failed("the photos of the load are used up")


def hear(one: Sent, handle: Handle[Stored], patience_s: float) -> None:
    try:
        one.photo_id = handle.wait(patience_s).photo_id
    except PhotoRefused as exc:
        one.refused = str(exc)
    except SightlineError:
        return  # not answered yet
