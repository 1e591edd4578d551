"""Leaves alone what takes its worker down too often: photos that lack a vector, and messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from producer_client.contract import Code, Refused
from worker.core.ports import Attempts
from worker.core.types import Missing, Refusal
from worker.errors import Transient


class Quarantine:
    """Tries are counted in Postgres before they are made, so that one that ends its process counts.

    after: tries that a photo or a message has (SIGHTLINE_QUARANTINE_AFTER).
    """

    def __init__(self, attempts: Attempts, *, after: int) -> None:
        self._attempts = attempts
        self._after = after

    def came_back_too_often(self, task_id: str) -> bool:
        """Whether a message that was handed out again has taken its worker down too often to be tried once more."""
        return self._attempts.count_delivery(task_id) >= self._after

    def refusal(self, photo: Missing, model_key: str) -> Refused | None:
        """Why this photo is not tried again by a model, which is remembered; None for one that may be."""
        if photo.attempts < self._after:
            return None
        message = f"{photo.path} took its worker down {photo.attempts} times; add it by hand to try again"
        self._attempts.refuse([Refusal(photo.photo_id, (), Code.QUARANTINED, message)], model_key)
        return Refused(str(photo.photo_id), Code.QUARANTINED, message)

    @contextmanager
    def trying(self, photo_ids: Sequence[int]) -> Iterator[None]:
        """Around the work on some photos: what ends the process within is counted against them."""
        self._attempts.begin(photo_ids)
        try:
            yield
        except Transient:
            # Nobody's fault among these photos. If Postgres is what is away, the counts stay, one too high.
            with suppress(Transient):
                self._attempts.end(photo_ids)
            raise

    def survived(self, photo_ids: Sequence[int]) -> None:
        """The work on these is done; where it stores the photos, that says so itself."""
        self._attempts.end(photo_ids)
