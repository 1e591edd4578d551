"""The change of the model: fill the next one by bulk messages, publish its generation, switch to it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from worker.core.index_ports import PublishedGenerations
from worker.core.ports import ServingModel, StoredVectors
from worker.library.filling import Filling, Throttled
from worker.library.rebuilding import Rebuilding

log = logging.getLogger(__name__)

#: Chains of messages that fill the next model side by side, and photos of one message.
FILLERS, FILL_PHOTOS = 8, 64
#: Seconds after which a chain that nobody prolonged has died with its worker. Longer than any message takes.
FILLER_LEASE_S = 900.0
#: Times that a step tries to catch the moment in which no photo lacks a vector of the next model.
TAKE_OVER_TRIES = 20


class Models:
    """Brings this library's model to serve. Every state lies in Postgres."""

    def __init__(
        self,
        model_key: str,
        *,
        filling: Filling,
        rebuilding: Rebuilding,
        vectors: StoredVectors,
        serving: ServingModel,
        published: PublishedGenerations,
    ) -> None:
        self._model_key = model_key
        self._filling = filling
        self._rebuilding = rebuilding
        self._vectors = vectors
        self._serving = serving
        self._published = published

    def fill_page(self, slot: int, *, after_id: int) -> int | None:
        """Embed the next photos of this slot's share that lack a vector of this model.

        Returns the id to go on after, so that no page looks through those before it again; None at the end of the
        share. What came in behind is met by the chain that the next tick starts.
        """
        self._serving.hold_filler(self._model_key, slot, FILLER_LEASE_S, new=False)
        page = self._vectors.missing(self._model_key, after_id=after_id, limit=FILL_PHOTOS, share=(slot, FILLERS))
        if not page:
            self._serving.end_filler(self._model_key, slot)
            return None
        self._filling.some(page, filling=True)
        return page[-1].photo_id

    def take_over(self, start_filler: Callable[[int], None]) -> bool:
        """One step towards this model serving: fill it by bulk messages, publish its generation, switch to it.

        Returns whether it serves. To be called again and again; every state lies in Postgres.
        """
        if self._vectors.missing_count(self._model_key, refused_too=False) > FILL_PHOTOS:
            for slot in range(FILLERS):
                if self._serving.hold_filler(self._model_key, slot, FILLER_LEASE_S, new=True):
                    start_filler(slot)
            return False
        if self._published.serving(self._model_key) is None:
            # Workers map it before the next step, so that the first search with this model does not wait for it.
            self._rebuilding.rebuild(filling=True)
            return False
        for _ in range(TAKE_OVER_TRIES):
            # What was added a moment ago by the model that still serves.
            self._filling.all(Throttled(None), filling=True)
            if self._serving.switch(self._model_key):
                log.info("model serves", extra={"model_key": self._model_key})
                return True
        return False
