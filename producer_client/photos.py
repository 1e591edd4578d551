"""The client's verbs for photos: into the index and out of it, and their vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from producer_client import contract
from producer_client.arguments import ids, photo_of, provenance_given
from producer_client.bulk import in_bulk
from producer_client.connection import Connection
from producer_client.contract import NewPhoto, Refused
from producer_client.errors import PhotoRefused
from producer_client.handle import Handle
from producer_client.words import Provenance, Queue, TaskName

Outcome = TypeVar("Outcome")


class PhotoVerbs(Connection):
    # ------------------------------------------------------------------------------------------ add

    def submit_add_to_index(
        self,
        *,
        photo_id: int | None = None,
        path: str | None = None,
        url: str | None = None,
        content: bytes | None = None,
        lat: float | None = None,
        lon: float | None = None,
        provenance: Provenance | str | None = None,
        address: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        update_row: bool | None = None,
    ) -> Handle[contract.Stored]:
        """Add one photo. Without coordinates the worker takes those of the row or of the file.

        update_row: whether coordinates and address are written to a row that is there (see `NewPhoto`).
        """
        photo = photo_of(photo_id, path, url, content)
        item = NewPhoto(
            ref=photo.name,
            photo=photo,
            lat=lat,
            lon=lon,
            provenance=provenance_given(provenance),
            address=address,
            metadata=metadata,
            update_row=update_row,
        )
        request = contract.AddToIndex(photos=[item.to_wire()])
        return self._send(
            TaskName.ADD_TO_INDEX,
            Queue.INTERACTIVE,
            request,
            lambda w: _only(contract.AddReply.from_wire(w).outcomes),
        )

    def add_to_index(self, *, timeout_s: float | None = None, **photo: Any) -> contract.Stored:
        """`submit_add_to_index` and wait. Raises PhotoRefused with the code when the photo is not taken."""
        return self.submit_add_to_index(**photo).wait(timeout_s)

    def add_many(
        self,
        photos: Iterable[NewPhoto],
        *,
        timeout_s: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[contract.Stored | Refused]:
        """Add any number of photos by bulk messages of 64. Returns one outcome per photo, found by its `ref`.

        progress: called with (photos done, photos in all). timeout_s: for each message, 300 unless given; the photos of
        one that fails as a whole are refused with its code, which says whether to send them again.
        """

        def submit(chunk: Sequence[NewPhoto]) -> Handle[list[contract.Stored | Refused]]:
            request = contract.AddToIndex(photos=[item.to_wire() for item in chunk])
            return self._send(
                TaskName.ADD_TO_INDEX, Queue.BULK, request, lambda w: contract.AddReply.from_wire(w).outcomes
            )

        return in_bulk(list(photos), submit, timeout_s, progress)

    # ---------------------------------------------------------------------------------------- embed

    def submit_embed(
        self,
        *,
        photo_id: int | None = None,
        path: str | None = None,
        url: str | None = None,
        content: bytes | None = None,
        return_vector: bool = False,
    ) -> Handle[contract.Embedded]:
        """Compute and store one photo's vector without adding the photo to the index."""
        photo = photo_of(photo_id, path, url, content)
        request = contract.Embed(photos=[contract.EmbedItem(photo.name, photo).to_wire()], return_vectors=return_vector)
        return self._send(
            TaskName.EMBED,
            Queue.INTERACTIVE,
            request,
            lambda w: _only(contract.EmbedReply.from_wire(w).outcomes),
        )

    def embed(self, *, timeout_s: float | None = None, **photo: Any) -> contract.Embedded:
        return self.submit_embed(**photo).wait(timeout_s)

    def embed_many(
        self,
        items: Iterable[contract.EmbedItem],
        *,
        return_vectors: bool = False,
        timeout_s: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[contract.Embedded | Refused]:
        """Like `add_many`, for vectors alone."""

        def submit(chunk: Sequence[contract.EmbedItem]) -> Handle[list[contract.Embedded | Refused]]:
            request = contract.Embed(photos=[item.to_wire() for item in chunk], return_vectors=return_vectors)
            return self._send(TaskName.EMBED, Queue.BULK, request, lambda w: contract.EmbedReply.from_wire(w).outcomes)

        return in_bulk(list(items), submit, timeout_s, progress)

    def submit_embed_text(self, text: str) -> Handle[contract.TextVector]:
        """The vector of a text; searching by text needs no such step (`search(text=...)`)."""
        request = contract.EmbedText(text=text)
        return self._send(TaskName.EMBED_TEXT, Queue.INTERACTIVE, request, contract.TextVector.from_wire)

    def embed_text(self, text: str, *, timeout_s: float | None = None) -> contract.TextVector:
        return self.submit_embed_text(text).wait(timeout_s)

    # --------------------------------------------------------------------------------------- remove

    def submit_remove(self, photo_ids: int | Sequence[int]) -> Handle[contract.RemoveReply]:
        """Take photos out of the index at once and for good; their rows in `photos` stay."""
        request = contract.Remove(photo_ids=ids(photo_ids))
        return self._send(TaskName.REMOVE, Queue.INTERACTIVE, request, contract.RemoveReply.from_wire)

    def remove(self, photo_ids: int | Sequence[int], *, timeout_s: float | None = None) -> contract.RemoveReply:
        return self.submit_remove(photo_ids).wait(timeout_s)

    def submit_purge(self, photo_ids: int | Sequence[int]) -> Handle[contract.PurgeReply]:
        """Remove photos and erase what Sightline stores of them, also from every index generation."""
        request = contract.Purge(photo_ids=ids(photo_ids))
        return self._send(TaskName.PURGE, Queue.INTERACTIVE, request, contract.PurgeReply.from_wire)

    def purge(self, photo_ids: int | Sequence[int], *, timeout_s: float | None = None) -> contract.PurgeReply:
        return self.submit_purge(photo_ids).wait(timeout_s)


def _only(outcomes: Sequence[Outcome | Refused]) -> Outcome:
    (outcome,) = outcomes
    if isinstance(outcome, Refused):
        raise PhotoRefused(outcome.code, outcome.message, outcome.ref)
    return outcome
